//! Decisions and whom they are told to.

use crate::given::World;
use tidemill_core::control::Decision;
use tidemill_core::saga::{Asked, Input, Note};

#[test]
fn the_timeline_keeps_the_words_of_whoever_decided() {
    let mut world = World::new("reserve, charge");
    world.apply("reserve a1 ok").apply("charge a1 code:402");
    world.apply("reserve c1 code:409");
    let input = Input::Decision {
        decision: Decision::Skip,
        after: None,
        asked: Asked {
            by: "Ann Lee".to_owned(),
            why: "Released by hand, ticket OPS-7".to_owned(),
        },
    };
    let entry = world
        .instance
        .timeline_entry(&world.saga, &input, Note::Applied, world.now, 9);
    assert_eq!(entry.what, "decision");
    assert_eq!(
        entry.detail,
        "skip by Ann Lee: Released by hand, ticket OPS-7"
    );
}

#[test]
fn words_of_others_are_cut() {
    let mut world = World::new("reserve");
    let asked = Asked {
        by: String::new(),
        why: "x".repeat(100_000),
    };
    world
        .instance
        .apply(&world.saga, &Input::Cancel(asked), world.now);
    assert!(world.instance.failure.unwrap().message.len() <= 200);
}

/// Asked for again, or by somebody who saw an earlier state, it may be in the log and changes nothing.
#[test]
fn a_decision_counts_only_after_as_many_as_it_says() {
    let mut world = World::new("reserve, charge");
    world.apply("reserve a1 ok").apply("charge a1 code:402");
    world.apply("reserve c1 code:409");
    assert!(world.instance.parked.is_some());
    world.apply("skip 1");
    assert!(world.instance.parked.is_some(), "one that is ahead");
    world.apply("retry").apply("reserve c2 code:409");
    assert!(world.instance.parked.is_some());
    let before = world.instance.clone();
    world.apply("skip 0");
    assert_eq!(world.instance.parked, before.parked, "one that was taken");
    assert_eq!(world.instance.decisions, 1);
    world.apply("skip 1");
    assert_eq!(world.instance.parked, None);
    assert_eq!(world.instance.decisions, 2);
}
