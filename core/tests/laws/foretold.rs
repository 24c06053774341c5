//! What whoever cancels or decides is told, and that it is what happens then.

use crate::given::{World, saga};
use tidemill_core::control::Decision;
use tidemill_core::saga::Asked;

const CHAIN: &str = "reserve, charge, ship";
const PARK: &str = "reserve, charge park, ship";
const PIVOT: &str = "reserve, charge pivot, ship";
const LATE_PARK: &str = "reserve pivot, charge park none, ship";
const PUBLISHING: &str = "reserve, announce publish, ship";
const UNKNOWN: [&str; 3] = [
    "reserve a1 ok",
    "charge a1 timeout",
    "charge a1 step-timeout",
];
const WAITS: &str = "until somebody decides about that (`tidemill parked redrive` or `skip`)";

/// Told before, then done: the words, and what is so afterwards.
#[track_caller]
fn foretold(steps: &str, given: &[&str], asked: &str, words: &str, then: &str) {
    let mut world = World::of(saga(steps));
    for input in given {
        world.apply(input);
    }
    let decision = match asked {
        "retry" => Some(Decision::Retry),
        "skip" => Some(Decision::Skip),
        _ => None,
    };
    let told = match decision {
        Some(decision) => world.instance.foretell_decision(&world.saga, decision),
        None => Some(
            world
                .instance
                .foretell_cancel(&world.saga, &Asked::default())
                .unwrap_or_else(|error| format!("{}: {}", error.reason, error.message)),
        ),
    };
    let words = words.replace("<waits>", WAITS);
    assert_eq!(told.as_deref(), Some(&*words), "{steps} {given:?} {asked}");
    world.apply(asked);
    assert_eq!(world.told(), then, "{steps} {given:?} {asked}");
}

#[test]
fn a_cancel_says_what_it_does() {
    for (steps, given, words, then) in [
        (
            CHAIN,
            &["reserve a1 ok"][..],
            "cancelled: what is under way is waited for, then what was done is taken back",
            "| compensating",
        ),
        (
            PUBLISHING,
            &["reserve a1 ok", "announce a1 publish-refused"],
            "cancelled: what was done is taken back",
            "send reserve c1 | compensating",
        ),
        (
            "announce publish",
            &["announce a1 publish-refused"],
            "cancelled: nothing is left to be taken back, and its outcome is published",
            "publish compensated-0 | compensating",
        ),
        (
            PARK,
            &UNKNOWN,
            "cancelled, but nothing is taken back yet; it is parked, UnknownOutcome at step charge, <waits>",
            "| parked UnknownOutcome charge",
        ),
        (
            PARK,
            &[UNKNOWN[0], UNKNOWN[1], UNKNOWN[2], "cancel"],
            "AlreadyCompensating: instance i-1 is turned back already; it is parked, UnknownOutcome at step charge, <waits>",
            "| parked UnknownOutcome charge",
        ),
        (
            CHAIN,
            &["reserve a1 ok", "charge a1 code:402"],
            "AlreadyCompensating: instance i-1 is turned back already",
            "| compensating",
        ),
        (
            PIVOT,
            &["reserve a1 ok"],
            "PivotPassed: instance i-1 has passed its pivot: from there it only goes forward",
            "| running",
        ),
        (
            "reserve",
            &["reserve a1 ok", "refused completed-0"],
            "AlreadyFinished: there is nothing to cancel: of instance i-1 all its steps are done; it is parked, PublishFailed, <waits>",
            "| parked PublishFailed 0",
        ),
        (
            "reserve",
            &["reserve a1 code:402", "stored compensated-0"],
            "AlreadyFinished: there is nothing to cancel: of instance i-1 all it did is taken back already",
            "| compensated",
        ),
    ] {
        foretold(steps, given, "cancel", words, then);
    }
}

#[test]
fn a_decision_says_what_it_does() {
    let failed = ["reserve a1 ok", "charge a1 code:402", "reserve c1 code:409"];
    let behind = ["reserve a1 ok", "charge a1 ok", "ship a1 code:422"];
    let late = [&behind[..2], &["+600000", "saga-timeout"]].concat();
    let refused = ["reserve a1 ok", "announce a1 publish-refused"];
    let refused_back = [
        "reserve a1 ok",
        "stored announce-a",
        "ship a1 code:422",
        "announce c1 publish-refused",
    ];
    let cancelled = [&UNKNOWN[..], &["cancel"]].concat();
    let outcome = ["reserve a1 ok", "refused completed-0"];
    for (steps, given, asked, words, then) in [
        (
            CHAIN,
            &failed[..],
            "retry",
            "the compensation of reserve is tried again (it was CompensationFailed); what was done is taken back",
            "send reserve c2 | compensating",
        ),
        (
            CHAIN,
            &failed,
            "skip",
            "the compensation of reserve counts as done by hand (it was CompensationFailed); nothing is left to be taken back, and its outcome is published",
            "publish compensated-0 | compensating",
        ),
        (
            PARK,
            &UNKNOWN,
            "retry",
            "charge is tried again (it was UnknownOutcome); it goes on",
            "send charge a2 | running",
        ),
        (
            PARK,
            &UNKNOWN,
            "skip",
            "charge counts as not happened (it was UnknownOutcome); what was done is taken back",
            "send reserve c1 | compensating",
        ),
        (
            PARK,
            &cancelled,
            "retry",
            "charge is tried again (it was UnknownOutcome); what is under way is waited for, then what was done is taken back",
            "send charge a2 | compensating",
        ),
        (
            LATE_PARK,
            &UNKNOWN,
            "skip",
            "charge counts as not happened (it was UnknownOutcome); it is parked again, FailedAfterPivot at step charge",
            "| parked FailedAfterPivot charge",
        ),
        (
            PIVOT,
            &behind,
            "retry",
            "ship is tried again (it was FailedAfterPivot); it goes on",
            "send ship a2 | running",
        ),
        (
            PIVOT,
            &behind,
            "skip",
            "ship is left out (it was FailedAfterPivot); every step is done, and its outcome is published",
            "publish completed-0 | running",
        ),
        (
            PIVOT,
            &late,
            "skip",
            "it has as much time again (it was TimeoutAfterPivot); it goes on",
            "| running",
        ),
        (
            PUBLISHING,
            &refused,
            "retry",
            "announce is tried again (it was PublishRefused); it goes on",
            "publish announce-a | running",
        ),
        (
            PUBLISHING,
            &refused,
            "skip",
            "announce counts as not happened (it was PublishRefused); what was done is taken back",
            "send reserve c1 | compensating",
        ),
        (
            PUBLISHING,
            &refused_back,
            "skip",
            "the compensation of announce counts as done by hand (it was PublishRefused); what was done is taken back",
            "send reserve c1 | compensating",
        ),
        (
            "left start, announce publish start, close after:left+announce",
            &["announce a1 publish-refused", "left a1 code:402"],
            "retry",
            "announce is not published again, as it is turned back anyhow (it was PublishRefused); nothing is left to be taken back, and its outcome is published",
            "publish compensated-0 | compensating",
        ),
        (
            "reserve",
            &outcome,
            "retry",
            "the event is published again (it was PublishFailed); every step is done, and its outcome is published",
            "publish completed-0 | running",
        ),
        (
            "reserve",
            &outcome,
            "skip",
            "the event is left out (it was PublishFailed); it is completed",
            "| completed",
        ),
    ] {
        foretold(steps, given, asked, words, then);
    }
    assert_eq!(
        World::new(CHAIN)
            .instance
            .foretell_decision(&saga(CHAIN), Decision::Skip),
        None
    );
}
