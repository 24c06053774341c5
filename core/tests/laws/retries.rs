//! Attempts, their limits and their timers.

use crate::given::{RUN, TIMEOUT_MS, World, check};
use tidemill_core::definition::Action;
use tidemill_core::json::Value;
use tidemill_core::names::{Kind, ResourceId, Side, TimerId};
use tidemill_core::saga::{CompiledSaga, Effect, Note, Progress};

const CHAIN: &str = "reserve, charge, ship http";

#[test]
pub(crate) fn a_saga_goes_from_step_to_step() {
    check(CHAIN, &[], "", "send reserve a1 | running");
    check(
        CHAIN,
        &["reserve a1 ok"],
        "charge a1 ok",
        "send ship a1 | running",
    );
    check(
        CHAIN,
        &["reserve a1 ok", "charge a1 ok"],
        "ship a1 http:200",
        "publish completed-0 | running",
    );
    check(
        CHAIN,
        &["reserve a1 ok", "charge a1 ok", "ship a1 http:200"],
        "stored completed-0",
        "| completed",
    );
}

#[test]
pub(crate) fn an_attempt_that_failed_is_made_again_after_its_backoff() {
    check(CHAIN, &[], "reserve a1 code:500", "| running");
    check(
        CHAIN,
        &["reserve a1 code:500"],
        "reserve a1 backoff",
        "send reserve a2 | running",
    );
}

#[test]
pub(crate) fn a_failure_counts_only_for_the_current_attempt() {
    let given = ["reserve a1 timeout", "reserve a1 backoff"];
    // Late failures of attempt 1 use up none of the others.
    let world = check(CHAIN, &given, "reserve a1 code:500", "| running");
    assert_eq!(world.note, Note::Late);
    assert_eq!(world.instance.steps[0].action.failures, 1);
    assert_eq!(world.instance.late_replies, 1);
    let given = [
        "reserve a1 timeout",
        "reserve a1 backoff",
        "reserve a1 code:500",
        "reserve a1 code:500",
        "reserve a1 code:500",
        "reserve a2 code:500",
    ];
    check(
        CHAIN,
        &given,
        "reserve a2 backoff",
        "send reserve a3 | running",
    );
}

#[test]
pub(crate) fn a_failure_counts_once() {
    let given = ["reserve a1 code:500", "reserve a1 code:500"];
    let world = check(CHAIN, &given, "reserve a1 code:503", "| running");
    assert_eq!(world.note, Note::Late);
    assert_eq!(world.instance.steps[0].action.failures, 1);
}

#[test]
pub(crate) fn a_success_counts_from_any_attempt() {
    let given = ["reserve a1 timeout", "reserve a1 backoff"];
    check(CHAIN, &given, "reserve a1 ok", "send charge a1 | running");
    // And it counts once.
    let given = ["reserve a1 timeout", "reserve a1 backoff", "reserve a1 ok"];
    let world = check(CHAIN, &given, "reserve a2 ok", "| running");
    assert_eq!(world.note, Note::Late);
}

#[test]
pub(crate) fn a_refusal_counts_from_any_attempt() {
    let given = ["reserve a1 ok", "charge a1 nobody", "charge a1 backoff"];
    check(
        CHAIN,
        &given,
        "charge a1 code:402",
        "send reserve c1 | compensating",
    );
}

#[test]
pub(crate) fn attempts_have_a_limit() {
    let given = [
        "reserve a1 code:500",
        "reserve a1 backoff",
        "reserve a2 timeout",
        "reserve a2 backoff",
    ];
    let world = check(
        CHAIN,
        &given,
        "reserve a3 bad",
        "send reserve c1 | compensating",
    );
    let failure = world.instance.failure.unwrap();
    assert_eq!(failure.reason, "Exhausted");
    assert_eq!(failure.step.as_deref(), Some("reserve"));
    assert!(failure.message.starts_with("BadReply: "), "{failure:?}");
}

#[test]
pub(crate) fn reaching_nobody_uses_up_no_attempt() {
    let mut world = World::new(CHAIN);
    for attempt in 1..=40 {
        let what = if attempt % 2 == 0 {
            "nobody"
        } else {
            "unreachable"
        };
        world.apply(&format!("reserve a{attempt} {what}"));
        assert_eq!(world.told(), "| running", "attempt {attempt}");
        world.apply(&format!("reserve a{attempt} backoff"));
        assert_eq!(
            world.told(),
            format!("send reserve a{} | running", attempt + 1)
        );
    }
    assert_eq!(world.instance.steps[0].action.failures, 0);
    world.apply("reserve a41 ok");
    assert_eq!(world.told(), "send charge a1 | running");
}

#[test]
pub(crate) fn a_step_has_a_time_for_all_its_attempts() {
    let world = check(
        CHAIN,
        &["reserve a1 nobody", "+60000"],
        "reserve a1 step-timeout",
        "publish compensated-0 | compensating",
    );
    assert_eq!(world.instance.failure.unwrap().reason, "StepTimeout");
    // Another step's, or another series', is stale.
    for stale in ["charge a1 step-timeout", "reserve a2 step-timeout"] {
        let world = check(CHAIN, &["reserve a1 nobody"], stale, "| running");
        assert_eq!(world.note, Note::Ignored);
    }
}

#[test]
pub(crate) fn retry_after_is_honoured() {
    let due = |input: &str| {
        let world = check("ship http", &[], input, "| running");
        match world.instance.steps[0].action.progress {
            Progress::BackingOff(due) => due.millis_since(world.now),
            other => panic!("{other:?}"),
        }
    };
    assert!(due("ship a1 http:503") <= 100);
    assert_eq!(due("ship a1 http:503+7000"), 7_000);
    assert_eq!(due("ship a1 http:429+7000"), 7_000);
    // It is the shortest wait, not the longest.
    assert!(due("ship a1 http:503+1") > 1);
    // However far away: the step's own timeout comes first.
    let mut world = World::new("ship http");
    world.apply("ship a1 http:503+18446744073709551615");
    let (_, timer) = world.instance.next_timer(&world.saga).unwrap();
    assert_eq!(timer, TimerId::Step("ship".to_owned(), Side::Action, 1));
}

#[test]
pub(crate) fn backoff_doubles_and_its_jitter_is_seeded_by_instance_and_attempt() {
    let wait = |world: &World| match world.instance.steps[0].action.progress {
        Progress::BackingOff(due) => due.millis_since(world.now),
        other => panic!("{other:?}"),
    };
    let waits = |run: [u8; 16]| -> Vec<u64> {
        let saga = crate::given::saga("reserve");
        let mut started = crate::given::started();
        started.run = tidemill_core::names::Run::new(run);
        let mut world = World::of(saga);
        let at = world.now;
        world.instance = tidemill_core::saga::Instance::start(&world.saga, "i-1", started, at).0;
        let mut waits = Vec::new();
        for attempt in 1..=6 {
            world.apply(&format!("reserve a{attempt} nobody"));
            waits.push(wait(&world));
            world.apply(&format!("reserve a{attempt} backoff"));
        }
        waits
    };
    let one = waits([1; 16]);
    assert_eq!(one, waits([1; 16]), "every replay waits equally long");
    assert_ne!(
        one,
        waits([2; 16]),
        "what failed together is not tried again together"
    );
    for (index, wait) in one.iter().enumerate() {
        let full = (100 << index).min(1_000);
        assert!((full * 3 / 4..=full).contains(wait), "{one:?}");
    }
}

#[test]
pub(crate) fn timers_are_valid_by_their_id_alone() {
    // Whatever the time says: the clock didn't move at all.
    let world = check(CHAIN, &[], "reserve a1 timeout", "| running");
    assert_eq!(world.note, Note::Applied);
    let given = ["reserve a1 timeout", "reserve a1 backoff"];
    for stale in [
        "reserve a1 timeout",
        "reserve a1 backoff",
        "reserve a2 backoff",
        "reserve c2 timeout",
        "charge a1 timeout",
        "nothing a1 timeout",
    ] {
        let world = check(CHAIN, &given, stale, "| running");
        assert_eq!(world.note, Note::Ignored, "{stale}");
    }
    check(CHAIN, &given, "reserve a2 timeout", "| running");
}

#[test]
pub(crate) fn the_next_timer_is_the_earliest() {
    let mut world = World::new(CHAIN);
    let step = |timer: fn(String, Side, u32) -> TimerId, attempt| {
        timer("reserve".to_owned(), Side::Action, attempt)
    };
    let start = world.now;
    assert_eq!(
        world.instance.next_timer(&world.saga),
        Some((start.plus_millis(TIMEOUT_MS), step(TimerId::Attempt, 1)))
    );
    world.apply("reserve a1 timeout");
    let (due, timer) = world.instance.next_timer(&world.saga).unwrap();
    assert_eq!(timer, step(TimerId::Backoff, 1));
    assert!(due.millis_since(start) <= 100);
    world.apply("+59500").apply("reserve a1 backoff");
    assert_eq!(
        world.instance.next_timer(&world.saga),
        Some((start.plus_millis(60_000), step(TimerId::Step, 1)))
    );
}

#[test]
pub(crate) fn time_never_goes_back() {
    let mut world = World::new(CHAIN);
    let later = world.now.plus_millis(5_000);
    world.now = later;
    world.apply("started");
    assert_eq!(world.note, Note::Ignored);
    world.now = crate::given::started().input.stored_at;
    world.apply("reserve a1 ok");
    assert_eq!(world.instance.at, later);
    assert_eq!(world.instance.steps[1].action.sent_at, later);
}

#[test]
pub(crate) fn what_is_in_flight_can_be_asked_of_the_state() {
    let mut world =
        World::new("open, left after:open, right http after:open, close after:left+right");
    world.apply("open a1 ok");
    let sent = world.effects.clone();
    assert_eq!(world.told(), "send left a1, send right a1 | running");
    assert_eq!(world.instance.outstanding(&world.saga), sent);
    world.apply("left a1 code:500");
    assert_eq!(world.instance.outstanding(&world.saga), sent[1..]);
}

#[test]
pub(crate) fn command_ids_are_the_same_over_retries() {
    let mut world = World::new(CHAIN);
    let id = "shop/orders/i-1/d761d406/reserve";
    assert_eq!(world.header(0, "Tidemill-Command-Id"), id);
    world
        .apply("reserve a1 timeout")
        .apply("reserve a1 backoff");
    assert_eq!(world.told(), "send reserve a2 | running");
    assert_eq!(world.header(0, "Tidemill-Command-Id"), id);
    world.apply("reserve a2 ok").apply("charge a1 ok");
    assert_eq!(
        world.header(0, "Idempotency-Key"),
        "shop/orders/i-1/d761d406/ship"
    );
    world.apply("ship a1 http:409").apply("charge c1 timeout");
    world.apply("charge c1 backoff");
    assert_eq!(world.told(), "send charge c2 | compensating");
    let command = "shop/orders/i-1/d761d406/charge";
    assert_eq!(
        world.header(0, "Tidemill-Command-Id"),
        format!("{command}/compensate")
    );
    assert_eq!(world.header(0, "Tidemill-Compensates"), command);
}

/// A reply that echoed such a header would be dropped by the server, or do worse to the log.
#[test]
pub(crate) fn requests_carry_no_headers_of_the_server() {
    let mut world = World::new("reserve, charge");
    world.apply("reserve a1 ok");
    let Effect::Request(request) = &world.effects[0] else {
        panic!("{:?}", world.effects);
    };
    for (name, _) in &request.headers {
        assert!(!name.to_ascii_lowercase().starts_with("nats-"), "{name}");
    }
}

#[test]
fn a_request_without_data_has_an_empty_payload() {
    for (data, payload) in [
        (Value::Null, ""),
        (Value::from("=null"), "null"),
        (Value::from("x"), "\"x\""),
    ] {
        let mut definition = crate::given::saga("reserve").definition;
        definition.steps[0].action = Action::Request {
            subject: "reserve.do".to_owned(),
            data,
        };
        let resource = ResourceId::new(Kind::Saga, "shop", "fulfilment");
        let saga = CompiledSaga::new(resource, definition).unwrap();
        let started = crate::given::started();
        let at = started.input.stored_at;
        let (_, effects) = tidemill_core::saga::Instance::start(&saga, "i", started, at);
        let Effect::Request(request) = &effects[0] else {
            panic!("{effects:?}");
        };
        assert_eq!(String::from_utf8_lossy(&request.payload), payload);
    }
}

/// Any text may be the correlation id of an event, but not any text is a header.
#[test]
pub(crate) fn headers_hold_no_line_breaks() {
    for steps in ["reserve", "ship http"] {
        let saga = crate::given::saga(steps);
        let mut started = crate::given::started();
        started.correlation_id = "a\r\nNats-Rollup: all é".to_owned();
        let at = started.input.stored_at;
        let (_, effects) = tidemill_core::saga::Instance::start(&saga, "i\r\n1", started, at);
        let headers: Vec<(String, String)> = match &effects[0] {
            Effect::Request(request) => request
                .headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
            Effect::Http(http) => http.headers.clone(),
            Effect::Publish(_) => panic!("{steps}"),
        };
        for (name, value) in headers {
            let printable = value.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
            assert!(printable, "{name}: {value:?}");
        }
    }
}

#[test]
pub(crate) fn another_run_gives_other_commands() {
    let id = |bits: [u8; 16]| {
        let run = tidemill_core::names::Run::new(bits);
        assert_ne!(run.run8(), "");
        run.run8()
    };
    assert_ne!(id([1; 16]), id([2; 16]));
    assert_eq!(RUN.run8(), "d761d406");
}
