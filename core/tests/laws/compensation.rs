//! Taking back: when, in which order, and what if that fails.

use crate::given::{World, check};
use tidemill_core::saga::{Note, Phase, Progress};

const CHAIN: &str = "reserve, charge, ship";

#[test]
pub(crate) fn what_was_done_is_taken_back_in_reverse_order() {
    let given = ["reserve a1 ok", "charge a1 ok"];
    check(
        CHAIN,
        &given,
        "ship a1 code:422",
        "send charge c1 | compensating",
    );
    let given = [&given[..], &["ship a1 code:422"]].concat();
    check(
        CHAIN,
        &given,
        "charge c1 ok",
        "send reserve c1 | compensating",
    );
    let given = [&given[..], &["charge c1 ok"]].concat();
    check(
        CHAIN,
        &given,
        "reserve c1 ok",
        "publish compensated-0 | compensating",
    );
    let given = [&given[..], &["reserve c1 ok"]].concat();
    check(CHAIN, &given, "stored compensated-0", "| compensated");
}

const DIAMOND: &str = "open, left after:open, right after:open, close after:left+right";

#[test]
pub(crate) fn the_order_is_that_of_completion_not_of_the_definition() {
    let given = ["open a1 ok", "right a1 ok", "left a1 ok"];
    check(
        DIAMOND,
        &given,
        "close a1 code:422",
        "send left c1 | compensating",
    );
    let given = [&given[..], &["close a1 code:422"]].concat();
    check(
        DIAMOND,
        &given,
        "left c1 ok",
        "send right c1 | compensating",
    );
    let given = ["open a1 ok", "left a1 ok", "right a1 ok"];
    check(
        DIAMOND,
        &given,
        "close a1 code:422",
        "send right c1 | compensating",
    );
}

#[test]
pub(crate) fn nothing_is_taken_back_before_actions_in_flight_have_settled() {
    let given = ["open a1 ok"];
    check(DIAMOND, &given, "left a1 code:422", "| compensating");
    let given = ["open a1 ok", "left a1 code:422"];
    check(
        DIAMOND,
        &given,
        "right a1 ok",
        "send right c1 | compensating",
    );
    // No further attempt is made for what would be taken back at once; it may have happened, so it is taken back.
    check(
        DIAMOND,
        &given,
        "right a1 code:500",
        "send right c1 | compensating",
    );
    check(
        DIAMOND,
        &given,
        "right a1 nobody",
        "send open c1 | compensating",
    );
    // Nor after its backoff.
    let given = ["open a1 ok", "right a1 timeout"];
    check(
        DIAMOND,
        &given,
        "left a1 code:422",
        "send right c1 | compensating",
    );
}

#[test]
pub(crate) fn the_first_failure_is_the_one_that_is_told() {
    let given = ["open a1 ok", "left a1 code:422"];
    let world = check(
        DIAMOND,
        &given,
        "right a1 code:409",
        "send open c1 | compensating",
    );
    let failure = world.instance.failure.unwrap();
    assert_eq!((failure.step.as_deref(), failure.code), (Some("left"), 422));
    assert_eq!(
        (failure.reason.as_str(), failure.message.as_str()),
        ("Refused", "no")
    );
}

#[test]
pub(crate) fn one_compensation_runs_at_a_time() {
    let given = [
        "open a1 ok",
        "left a1 ok",
        "right a1 ok",
        "close a1 code:422",
    ];
    check(DIAMOND, &given, "right c1 code:500", "| compensating");
    let given = [&given[..], &["right c1 code:500"]].concat();
    check(
        DIAMOND,
        &given,
        "right c1 backoff",
        "send right c2 | compensating",
    );
}

/// The compensation is in the state as soon as it is in flight: whoever takes over sends the same one again.
#[test]
pub(crate) fn a_compensation_is_recorded_before_it_is_sent() {
    let mut world = World::new(CHAIN);
    world.apply("reserve a1 ok").apply("charge a1 code:422");
    assert_eq!(world.instance.phase, Phase::Backward);
    assert!(world.instance.steps[0].compensation.progress.is_active());
    assert_eq!(world.instance.outstanding(&world.saga), world.effects);
}

#[test]
pub(crate) fn a_step_without_compensation_is_left() {
    let steps = "reserve, note none, charge";
    let given = ["reserve a1 ok", "note a1 ok"];
    check(
        steps,
        &given,
        "charge a1 code:402",
        "send reserve c1 | compensating",
    );
}

#[test]
pub(crate) fn a_compensation_is_tried_again_and_parked_in_the_end() {
    let mut world = World::new("reserve, charge");
    world.apply("reserve a1 ok").apply("charge a1 code:402");
    for attempt in 1..=3 {
        if attempt > 1 {
            world.apply(&format!("reserve c{} backoff", attempt - 1));
            assert_eq!(
                world.told(),
                format!("send reserve c{attempt} | compensating")
            );
        }
        world.apply(&format!("reserve c{attempt} code:500"));
    }
    assert_eq!(world.told(), "| parked CompensationFailed reserve");
    assert!(world.instance.next_timer(&world.saga).is_none());
}

#[test]
pub(crate) fn a_compensation_that_is_refused_or_takes_too_long_is_parked() {
    let given = ["reserve a1 ok", "charge a1 code:402"];
    let pair = "reserve, charge";
    for input in [
        "reserve c1 code:409",
        "reserve c1 step-timeout",
        "reserve c1 unsendable",
    ] {
        check(pair, &given, input, "| parked CompensationFailed reserve");
    }
    check(pair, &given, "reserve c1 nobody", "| compensating");
}

#[test]
pub(crate) fn a_parked_compensation_is_tried_again_or_left_out_by_decision() {
    let parked = [
        "reserve a1 ok",
        "charge a1 ok",
        "ship a1 code:422",
        "charge c1 code:409",
    ];
    check(CHAIN, &parked, "retry", "send charge c2 | compensating");
    let again = [&parked[..], &["retry", "charge c2 timeout"]].concat();
    // With fresh attempts.
    check(
        CHAIN,
        &again,
        "charge c2 backoff",
        "send charge c3 | compensating",
    );
    let world = check(CHAIN, &parked, "skip", "send reserve c1 | compensating");
    assert_eq!(
        world.instance.steps[1].compensation.progress,
        Progress::Skipped
    );
    // It was done after all: the decision is no longer needed.
    check(
        CHAIN,
        &parked,
        "charge c1 ok",
        "send reserve c1 | compensating",
    );
}

#[test]
pub(crate) fn a_cancel_takes_back_what_was_done() {
    let given = ["reserve a1 ok", "charge a1 ok"];
    let world = check(CHAIN, &given, "cancel", "| compensating");
    assert_eq!(world.instance.failure.unwrap().reason, "Cancelled");
    let given = [&given[..], &["cancel"]].concat();
    check(CHAIN, &given, "ship a1 ok", "send ship c1 | compensating");
    // Once is enough, and later there is nothing to cancel.
    let world = check(CHAIN, &given, "cancel", "| compensating");
    assert_eq!(world.note, Note::Ignored);
    let given = ["reserve a1 code:409", "cancel", "stored compensated-0"];
    let world = check(CHAIN, &given, "cancel", "| compensated");
    assert_eq!(world.note, Note::Ignored);
}

#[test]
pub(crate) fn a_saga_has_a_time_for_everything() {
    let given = ["reserve a1 ok", "+600000"];
    let world = check(CHAIN, &given, "saga-timeout", "| compensating");
    assert_eq!(world.instance.failure.unwrap().reason, "Timeout");
    let given = [&given[..], &["saga-timeout"]].concat();
    check(
        CHAIN,
        &given,
        "charge a1 timeout",
        "send charge c1 | compensating",
    );
    // Not while it is taken back already.
    let given = ["reserve a1 ok", "charge a1 code:402"];
    let world = check(CHAIN, &given, "saga-timeout", "| compensating");
    assert_eq!(world.note, Note::Ignored);
}

#[test]
pub(crate) fn a_step_whose_when_is_false_is_skipped() {
    let steps = "reserve, charge when:input.data.total_>_100, ship";
    let world = check(steps, &[], "reserve a1 ok", "send ship a1 | running");
    assert_eq!(world.instance.steps[1].action.progress, Progress::Skipped);
    // And is nothing to take back.
    check(
        steps,
        &["reserve a1 ok"],
        "ship a1 code:422",
        "send reserve c1 | compensating",
    );
}

#[test]
pub(crate) fn an_expression_that_fails_is_a_failure_of_its_step() {
    for when in [
        "input.data.nothing",
        "input.data.total_/_0.0_>_1.0",
        "input.data.total",
    ] {
        let steps = format!("reserve, charge when:{when}");
        let world = check(
            &steps,
            &[],
            "reserve a1 ok",
            "send reserve c1 | compensating",
        );
        let failure = world.instance.failure.unwrap();
        assert_eq!(failure.reason, "ExpressionError", "{when}");
        assert_eq!(failure.step.as_deref(), Some("charge"));
    }
}
