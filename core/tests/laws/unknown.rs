//! Steps of which nobody knows whether they happened.

use crate::given::{World, check};
use tidemill_core::json::Value;
use tidemill_core::saga::{Effect, Note};

const PAIR: &str = "reserve, charge";

/// Gives up `charge` after attempts that ended like this; then it is compensated, or not.
#[track_caller]
fn given_up(attempts: &[&str], compensated: bool) {
    let mut world = World::new(PAIR);
    world.apply("reserve a1 ok");
    for (index, what) in attempts.iter().enumerate() {
        if index > 0 {
            world.apply(&format!("charge a{index} backoff"));
        }
        world.apply(&format!("charge a{} {what}", index + 1));
    }
    if world.instance.failure.is_none() {
        world.apply("charge a1 step-timeout");
    }
    let first = if compensated { "charge" } else { "reserve" };
    assert_eq!(
        world.told(),
        format!("send {first} c1 | compensating"),
        "{attempts:?}"
    );
}

#[test]
pub(crate) fn what_may_have_been_delivered_may_have_happened() {
    given_up(&["timeout", "timeout", "timeout"], true);
    given_up(&["code:500", "code:500", "code:500"], true);
    given_up(&["bad", "bad", "bad"], true);
    given_up(&["lost", "lost", "lost"], true);
    given_up(&["nobody", "timeout", "nobody"], true);
    // In flight when the step's time was over.
    given_up(&[], true);
}

#[test]
pub(crate) fn refused_after_an_attempt_that_may_have_been_delivered_is_unknown() {
    given_up(&["timeout", "code:402"], true);
    given_up(&["code:500", "code:402"], true);
    given_up(&["nobody?", "code:402"], true);
}

#[test]
pub(crate) fn refused_at_the_first_attempt_did_not_happen() {
    given_up(&["code:402"], false);
    given_up(&["nobody", "code:402"], false);
    given_up(&["unreachable", "code:402"], false);
}

#[test]
pub(crate) fn what_reached_nobody_did_not_happen() {
    given_up(&["nobody", "nobody", "nobody"], false);
    given_up(&["unreachable", "nobody"], false);
    given_up(&["unsendable"], false);
}

/// docs/adr/0003: another owner may have sent the same attempt, and reached somebody.
#[test]
pub(crate) fn reached_nobody_counts_only_from_a_sole_sender() {
    given_up(&["nobody?", "nobody", "nobody"], true);
    given_up(&["nobody", "nobody?"], true);
}

/// Heard of late: it counts as no failure, but it says that the participant got the request.
#[test]
pub(crate) fn a_late_error_says_that_an_attempt_was_delivered() {
    let mut world = World::new(PAIR);
    world.apply("reserve a1 ok").apply("charge a1 nobody");
    world.apply("charge a1 backoff").apply("charge a1 code:500");
    assert_eq!(world.note, Note::Late);
    world
        .apply("charge a2 nobody")
        .apply("charge a1 step-timeout");
    assert_eq!(world.told(), "send charge c1 | compensating");
}

/// A saga whose third step failed after the second was given up without an answer.
fn charge_given_up() -> World {
    let mut world = World::new("reserve, charge, ship");
    world.apply("reserve a1 ok");
    for attempt in 1..=3 {
        if attempt > 1 {
            world.apply(&format!("charge a{} backoff", attempt - 1));
        }
        world.apply(&format!("charge a{attempt} timeout"));
    }
    world
}

fn payload(effect: &Effect) -> Value {
    match effect {
        Effect::Request(request) => Value::parse(&request.payload).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
pub(crate) fn a_late_success_adds_its_output_while_the_compensation_is_not_sent() {
    // Two may have happened; the later one is taken back first, and the other answers meanwhile.
    let mut world = World::new("left start, right start, close after:left+right");
    for side in ["left", "right"] {
        for attempt in 1..=3 {
            if attempt > 1 && side == "left" {
                world.apply(&format!("{side} a{} backoff", attempt - 1));
            }
            if side == "left" || attempt == 1 {
                world.apply(&format!("{side} a{attempt} timeout"));
            }
        }
    }
    assert_eq!(world.told(), "send right c1 | compensating");
    world.apply("left a2 ok:{\"paid\":1}");
    assert_eq!(world.note, Note::Late);
    world.apply("right c1 ok");
    assert_eq!(world.told(), "send left c1 | compensating");
    let sent = payload(&world.effects[0]);
    assert_eq!(sent.to_json(), "{\"output\":{\"paid\":1}}");
}

#[test]
pub(crate) fn a_late_success_after_the_compensation_was_sent_is_only_recorded() {
    let mut world = charge_given_up();
    assert_eq!(world.told(), "send charge c1 | compensating");
    world.apply("charge a1 ok:{\"paid\":1}");
    assert_eq!(
        (world.note, world.told().as_str()),
        (Note::Late, "| compensating")
    );
    assert_eq!(world.instance.steps[1].action.output, None);
    world.apply("charge c1 code:500").apply("charge c1 backoff");
    assert_eq!(payload(&world.effects[0]).to_json(), "{\"output\":null}");
    world.apply("charge c2 ok");
    assert_eq!(world.told(), "send reserve c1 | compensating");
}

/// Of a step that was thought not to have happened.
#[test]
pub(crate) fn a_late_success_of_what_was_refused_is_taken_back() {
    let mut world = World::new("reserve, charge");
    world.apply("reserve a1 ok").apply("charge a1 code:402");
    assert_eq!(world.told(), "send reserve c1 | compensating");
    world.apply("charge a1 ok").apply("reserve c1 ok");
    assert_eq!(world.told(), "send charge c1 | compensating");
}

#[test]
pub(crate) fn once_the_outcome_is_decided_a_late_success_changes_nothing() {
    let mut world = World::new("reserve none");
    world.apply("reserve a1 code:402");
    assert_eq!(world.told(), "publish compensated-0 | compensating");
    let before = world.instance.steps.clone();
    world.apply("reserve a1 ok:{\"late\":true}");
    assert_eq!((world.note, &world.instance.steps), (Note::Late, &before));
    world.apply("stored compensated-0").apply("reserve a1 ok");
    assert_eq!(world.told(), "| compensated");
    assert_eq!(&world.instance.steps, &before);
}

const ASKS: &str = "reserve, charge park, ship";

#[test]
pub(crate) fn on_unknown_park_asks_a_person() {
    let lost = ["reserve a1 ok", "charge a1 timeout"];
    let world = check(
        ASKS,
        &lost,
        "charge a1 step-timeout",
        "| parked UnknownOutcome charge",
    );
    assert!(world.instance.next_timer(&world.saga).is_none());
    // What certainly didn't happen is no question.
    check(
        ASKS,
        &["reserve a1 ok"],
        "charge a1 code:402",
        "send reserve c1 | compensating",
    );
    // The answer came late, but it came.
    check(
        ASKS,
        &[
            "reserve a1 ok",
            "charge a1 timeout",
            "charge a1 step-timeout",
        ],
        "charge a1 ok",
        "send ship a1 | running",
    );
}

#[test]
pub(crate) fn a_person_says_that_it_did_not_happen() {
    let given = [
        "reserve a1 ok",
        "charge a1 timeout",
        "charge a1 step-timeout",
    ];
    let world = check(ASKS, &given, "skip", "send reserve c1 | compensating");
    assert_eq!(world.instance.failure.unwrap().reason, "NotHappened");
}

#[test]
pub(crate) fn a_person_has_it_tried_again() {
    let given = [
        "reserve a1 ok",
        "charge a1 timeout",
        "charge a1 step-timeout",
    ];
    check(ASKS, &given, "retry", "send charge a2 | running");
    let given = [&given[..], &["retry", "charge a2 code:402"]].concat();
    // It may have been the first attempt that did it, so the question stays.
    check(ASKS, &given, "", "| parked UnknownOutcome charge");
}

/// Two steps side by side whose outcome is unknown are two questions.
#[test]
pub(crate) fn every_unknown_outcome_is_asked_about() {
    let both = "left park start, right park start, close after:left+right";
    let given = [
        "left a1 timeout",
        "right a1 timeout",
        "left a1 step-timeout",
        "right a1 step-timeout",
    ];
    check(both, &given, "", "| parked UnknownOutcome left");
    let given = [&given[..], &["retry"]].concat();
    let world = check(both, &given, "left a2 ok", "| parked UnknownOutcome right");
    assert!(
        world
            .instance
            .parked
            .unwrap()
            .message
            .starts_with("StepTimeout")
    );
    let given = [&given[..], &["left a2 ok", "skip"]].concat();
    check(
        both,
        &given,
        "left c1 ok",
        "publish compensated-0 | compensating",
    );
    // Asked about before anything is taken back, too.
    let given = [
        "left a1 timeout",
        "right a1 timeout",
        "left a1 step-timeout",
        "right a1 step-timeout",
        "skip",
    ];
    check(both, &given, "", "| parked UnknownOutcome right");
    let given = [&given[..], &["right a1 ok"]].concat();
    check(both, &given, "", "send right c1 | compensating");
}

/// A decision about one step doesn't make the failure of another undone.
#[test]
pub(crate) fn a_decision_leaves_the_failure_of_another_step() {
    let both = "left start, right park start, close after:left+right";
    let given = ["left a1 code:402", "right a1 timeout"];
    check(both, &given, "", "| parked UnknownOutcome right");
    let given = [&given[..], &["retry"]].concat();
    check(both, &given, "right a2 ok", "send right c1 | compensating");
    // Tried once more to know, and then asked about again.
    check(
        both,
        &given,
        "right a2 code:500",
        "| parked UnknownOutcome right",
    );
}

#[test]
pub(crate) fn a_cancel_does_not_answer_what_only_a_person_knows() {
    let given = [
        "reserve a1 ok",
        "charge a1 timeout",
        "charge a1 step-timeout",
        "cancel",
    ];
    let world = check(ASKS, &given, "", "| parked UnknownOutcome charge");
    assert_eq!(world.note, Note::Applied);
    check(ASKS, &given, "skip", "send reserve c1 | compensating");
    let found_out = [&given[..], &["retry"]].concat();
    let world = check(
        ASKS,
        &found_out,
        "charge a2 ok",
        "send charge c1 | compensating",
    );
    assert_eq!(world.instance.failure.unwrap().reason, "Cancelled");
}
