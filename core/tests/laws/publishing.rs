//! Publishes: outstanding until the log says where they are stored.

use crate::given::{World, check, saga, started};
use tidemill_core::saga::{Effect, Instance, Note, PublishEffect};
use tidemill_core::timestamp::Timestamp;

const PUBLISHING: &str = "reserve, announce publish, ship";

fn published(world: &World) -> PublishEffect {
    match &world.instance.outstanding(&world.saga)[..] {
        [Effect::Publish(publish)] => publish.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
pub(crate) fn a_publish_is_outstanding_until_it_is_stored() {
    let mut world = check(
        PUBLISHING,
        &[],
        "reserve a1 ok",
        "publish announce-a | running",
    );
    assert_eq!(world.effects, world.instance.outstanding(&world.saga));
    // For as long as it takes: only the saga's own time runs.
    let (_, timer) = world.instance.next_timer(&world.saga).unwrap();
    assert_eq!(timer.to_string(), "z-0");
    world.apply("stored announce-a");
    assert_eq!(
        (world.note, world.told().as_str()),
        (Note::Stored, "send ship a1 | running")
    );
    let output = world.instance.steps[1].action.output.clone().unwrap();
    assert_eq!(output.to_json(), r#"{"sequence":7,"stream":"shop_orders"}"#);
    // Told twice by two owners.
    world.apply("stored announce-a");
    assert_eq!(world.told(), "| running");
}

#[test]
pub(crate) fn a_publish_is_the_same_whoever_makes_it_and_whenever() {
    let mut world = World::new("left start, announce publish start, close after:left+announce");
    let first = published_of(&world.effects);
    assert_eq!(first.event.id, "shop/orders/i-1/d761d406/announce-a");
    world.apply("+5000").apply("left a1 code:500");
    assert_eq!(published(&world), first);
    // Nor does a decision to try it again make it another.
    world.apply("announce a1 publish-refused").apply("retry");
    assert_eq!(published_of(&world.effects).event, first.event);
    let mut world = World::new("reserve");
    world.apply("+10").apply("reserve a1 ok");
    let first = published(&world);
    assert_eq!(first.event.id, "shop/orders/i-1/d761d406/completed-0");
    world.apply("+5000").apply("reserve a1 ok");
    assert_eq!(published(&world), first);
}

fn published_of(effects: &[Effect]) -> PublishEffect {
    let mut publishes = effects.iter().filter_map(|effect| match effect {
        Effect::Publish(publish) => Some(publish.clone()),
        Effect::Request(_) | Effect::Http(_) => None,
    });
    publishes.next().unwrap()
}

#[test]
pub(crate) fn an_event_says_what_caused_it() {
    let world = check(
        "reserve",
        &[],
        "reserve a1 ok",
        "publish completed-0 | running",
    );
    let event = published(&world).event;
    assert_eq!(event.source, "/tidemill/shop/saga/orders");
    assert_eq!(event.event_type, "Confirmed");
    assert_eq!(event.subject.as_deref(), Some("o-1"));
    assert_eq!(event.data.to_json(), r#"{"value":"i-1"}"#);
    assert_eq!(event.extension("correlationid"), Some("c-1"));
    assert_eq!(event.extension("causationid"), Some("e-1"));
    assert_eq!(event.extension("traceparent").map(str::len), Some(55));
}

#[test]
fn a_trace_that_comes_in_goes_on_in_every_message() {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut started = started();
    let trace = [("traceparent", parent), ("tracestate", "vendor=a,other=b")];
    started.input.extensions = trace
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let saga = saga("reserve");
    let at = Timestamp::from_millis(1_000_000);
    let (_, effects) = Instance::start(&saga, "i-1", started, at);
    let Some(Effect::Request(request)) = effects.first() else {
        panic!("no request");
    };
    let header = |name: &str| {
        let found = request.headers.iter().find(|(header, _)| *header == name);
        found.map(|(_, value)| value.as_str())
    };
    let sent = header("traceparent").unwrap();
    assert_eq!(
        (sent.len(), &sent[..36], &sent[52..]),
        (55, &parent[..36], "-01")
    );
    assert_ne!(&sent[36..52], &parent[36..52], "a span of its own");
    assert_eq!(header("tracestate"), Some("vendor=a,other=b"));
}

#[test]
pub(crate) fn a_compensation_may_be_a_publish() {
    let given = ["reserve a1 ok", "stored announce-a"];
    check(
        PUBLISHING,
        &given,
        "ship a1 code:422",
        "publish announce-c | compensating",
    );
    let given = [&given[..], &["ship a1 code:422"]].concat();
    check(
        PUBLISHING,
        &given,
        "stored announce-c",
        "send reserve c1 | compensating",
    );
}

#[test]
pub(crate) fn a_publish_that_is_refused_for_good_parks() {
    let given = ["reserve a1 ok"];
    let refused = "announce a1 publish-refused";
    check(
        PUBLISHING,
        &given,
        refused,
        "| parked PublishRefused announce-a",
    );
    let given = [&given[..], &[refused]].concat();
    check(PUBLISHING, &given, "retry", "publish announce-a | running");
    check(PUBLISHING, &given, "skip", "send reserve c1 | compensating");
    // It certainly isn't there, so a cancel needs no decision.
    check(
        PUBLISHING,
        &given,
        "cancel",
        "send reserve c1 | compensating",
    );
    // Another owner had stored it.
    check(
        PUBLISHING,
        &given,
        "stored announce-a",
        "send ship a1 | running",
    );
}

#[test]
pub(crate) fn a_compensating_publish_that_is_refused_parks() {
    let given = [
        "reserve a1 ok",
        "stored announce-a",
        "ship a1 code:422",
        "announce c1 publish-refused",
    ];
    check(PUBLISHING, &given, "", "| parked PublishRefused announce-c");
    check(
        PUBLISHING,
        &given,
        "retry",
        "publish announce-c | compensating",
    );
    check(PUBLISHING, &given, "skip", "send reserve c1 | compensating");
    check(
        PUBLISHING,
        &given,
        "stored announce-c",
        "send reserve c1 | compensating",
    );
}

#[test]
pub(crate) fn an_outcome_s_event_that_is_refused_parks() {
    let given = ["reserve a1 ok", "refused completed-0"];
    check("reserve", &given, "", "| parked PublishFailed 0");
    check("reserve", &given, "retry", "publish completed-0 | running");
    check("reserve", &given, "skip", "| completed");
    check("reserve", &given, "stored completed-0", "| completed");
    // Of the other outcome, or of none.
    for other in [
        "refused compensated-0",
        "refused completed-1",
        "stored compensated-0",
    ] {
        let world = check("reserve", &["reserve a1 ok"], other, "| running");
        assert_eq!(world.note, Note::Ignored);
    }
}

/// Beside a failure there is nothing to publish again: it would be taken back at once.
#[test]
pub(crate) fn a_refused_publish_beside_a_failure_is_not_tried_again() {
    let steps = "left start, announce publish start, close after:left+announce";
    let given = ["announce a1 publish-refused", "left a1 code:402"];
    check(steps, &given, "", "| parked PublishRefused announce-a");
    check(
        steps,
        &given,
        "retry",
        "publish compensated-0 | compensating",
    );
    check(
        steps,
        &given,
        "skip",
        "publish compensated-0 | compensating",
    );
}

#[test]
pub(crate) fn two_refused_publishes_are_two_questions() {
    let steps = "one publish start, two publish start, close after:one+two";
    let given = [
        "one a1 publish-refused",
        "two a1 publish-refused",
        "retry",
        "stored one-a",
    ];
    check(steps, &given, "", "| parked PublishRefused two-a");
    check(steps, &given, "retry", "publish two-a | running");
}
