//! The pivot: from there on only forward.

use crate::given::check;
use tidemill_core::saga::Note;

const PIVOT: &str = "reserve, charge pivot, ship";

#[test]
pub(crate) fn a_pivot_that_is_refused_takes_back_what_came_before() {
    check(
        PIVOT,
        &["reserve a1 ok"],
        "charge a1 code:402",
        "send reserve c1 | compensating",
    );
    // So does one that certainly reached nobody.
    let given = ["reserve a1 ok", "charge a1 nobody"];
    check(
        PIVOT,
        &given,
        "charge a1 step-timeout",
        "send reserve c1 | compensating",
    );
}

#[test]
pub(crate) fn a_pivot_of_which_nobody_knows_is_parked() {
    let given = ["reserve a1 ok", "charge a1 timeout", "charge a1 backoff"];
    check(
        PIVOT,
        &given,
        "charge a2 code:402",
        "| parked UnknownOutcome charge",
    );
    check(
        PIVOT,
        &given,
        "charge a1 step-timeout",
        "| parked UnknownOutcome charge",
    );
    let given = [&given[..], &["charge a1 step-timeout"]].concat();
    check(PIVOT, &given, "skip", "send reserve c1 | compensating");
    check(PIVOT, &given, "retry", "send charge a3 | running");
    check(PIVOT, &given, "charge a1 ok", "send ship a1 | running");
}

#[test]
pub(crate) fn a_cancel_after_the_pivot_is_refused() {
    for given in [
        &["reserve a1 ok"][..],
        &["reserve a1 ok", "charge a1 timeout"],
        &["reserve a1 ok", "charge a1 ok"],
        &["reserve a1 ok", "charge a1 ok", "ship a1 code:422"],
        &[
            "reserve a1 ok",
            "charge a1 timeout",
            "charge a1 step-timeout",
        ],
    ] {
        let before = check(
            PIVOT,
            given,
            "",
            &check(PIVOT, given, "", &told(given)).told(),
        );
        let world = check(PIVOT, given, "cancel", &without_effects(&before.told()));
        assert_eq!(world.note, Note::PivotPassed, "{given:?}");
        assert_eq!(world.instance.failure, before.instance.failure);
    }
    // Before it, and after it was refused, it is not.
    let world = check(PIVOT, &[], "cancel", "| compensating");
    assert_eq!(world.note, Note::Applied);
}

fn told(given: &[&str]) -> String {
    let mut world = crate::given::World::new(PIVOT);
    for input in given {
        world.apply(input);
    }
    world.told()
}

fn without_effects(told: &str) -> String {
    told.find('|')
        .map_or_else(String::new, |at| told[at..].to_owned())
}

const DONE: [&str; 2] = ["reserve a1 ok", "charge a1 ok"];

#[test]
pub(crate) fn after_the_pivot_refusal_and_exhaustion_park() {
    check(
        PIVOT,
        &DONE,
        "ship a1 code:422",
        "| parked FailedAfterPivot ship",
    );
    check(
        PIVOT,
        &DONE,
        "ship a1 unsendable",
        "| parked FailedAfterPivot ship",
    );
    check(
        PIVOT,
        &DONE,
        "ship a1 step-timeout",
        "| parked FailedAfterPivot ship",
    );
}

#[test]
pub(crate) fn after_the_pivot_the_saga_s_timeout_parks() {
    let given = [&DONE[..], &["+600000"]].concat();
    check(PIVOT, &given, "saga-timeout", "| parked TimeoutAfterPivot");
    let given = [&given[..], &["saga-timeout"]].concat();
    check(PIVOT, &given, "retry", "| running");
    check(PIVOT, &given, "skip", "| running");
    // What is in flight may still be answered.
    let answered = [&given[..], &["ship a1 ok"]].concat();
    check(PIVOT, &answered, "", "| parked TimeoutAfterPivot");
    check(PIVOT, &answered, "retry", "publish completed-0 | running");
}

/// A decision gives more time. A timer from before it, appended by somebody who didn't know of it, takes none away,
/// and the new one has a name that the log doesn't hold yet.
#[test]
pub(crate) fn a_decision_begins_the_saga_s_time_anew() {
    let given = [&DONE[..], &["+600000", "saga-timeout", "+5", "retry"]].concat();
    let world = check(PIVOT, &given, "saga-timeout:0", "| running");
    assert_eq!(world.note, Note::Ignored);
    assert_eq!(world.instance.deadline, world.now.plus_millis(600_000));
    check(
        PIVOT,
        &given,
        "saga-timeout:1",
        "| parked TimeoutAfterPivot",
    );
}

#[test]
pub(crate) fn what_failed_after_the_pivot_is_tried_again_or_left_out_by_decision() {
    let given = [&DONE[..], &["ship a1 code:422"]].concat();
    check(PIVOT, &given, "retry", "send ship a2 | running");
    check(PIVOT, &given, "skip", "publish completed-0 | running");
    check(PIVOT, &given, "ship a1 ok", "publish completed-0 | running");
}

const WIDE: &str = "pay pivot, left after:pay, right after:pay, close after:left+right";

/// Two failures after the pivot are two questions; none of them is forgotten over the other.
#[test]
pub(crate) fn every_failure_after_the_pivot_is_asked_about() {
    let given = ["pay a1 ok", "left a1 code:422", "right a1 code:409"];
    check(WIDE, &given, "", "| parked FailedAfterPivot left");
    let given = [&given[..], &["retry", "left a2 ok"]].concat();
    check(WIDE, &given, "", "| parked FailedAfterPivot right");
    check(WIDE, &given, "skip", "send close a1 | running");
    // An answer that came late stands in nobody's way.
    let given = [
        "pay a1 ok",
        "left a1 code:422",
        "right a1 code:409",
        "right a1 ok",
    ];
    check(WIDE, &given, "skip", "send close a1 | running");
}

/// Its `when` could not be evaluated: doing it without would be wrong.
#[test]
pub(crate) fn a_when_that_failed_is_tried_again_with_its_step() {
    let steps = "pay pivot, ship when:steps.pay.output.express";
    let given = ["pay a1 ok:{}"];
    check(steps, &given, "", "| parked FailedAfterPivot ship");
    check(steps, &given, "retry", "| parked FailedAfterPivot ship");
    check(steps, &given, "skip", "publish completed-0 | running");
}

#[test]
pub(crate) fn a_failure_beside_a_pivot_in_flight_waits_for_it() {
    let steps = "pay pivot start, note start, close after:pay+note";
    check(steps, &[], "note a1 code:422", "| compensating");
    let given = ["note a1 code:422"];
    check(steps, &given, "pay a1 ok", "| parked FailedAfterPivot note");
    check(
        steps,
        &given,
        "pay a1 code:402",
        "publish compensated-0 | compensating",
    );
    check(
        steps,
        &given,
        "pay a1 timeout",
        "| parked UnknownOutcome pay",
    );
}
