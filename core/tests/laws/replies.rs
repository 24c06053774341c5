//! What may become an outcome and what never does.

use crate::given::{World, check};
use tidemill_core::saga::Note;

const PAIR: &str = "reserve, charge";

#[test]
pub(crate) fn a_wrong_token_is_counted_and_never_an_outcome() {
    for (forged, given) in [
        ("reserve a1 forged", &[][..]),
        ("reserve a1 token:reserve c1", &[]),
        ("reserve a1 token:charge a1", &[]),
        ("reserve a1 token:reserve a2", &[]),
        // The token of an attempt that was never made.
        ("reserve a2 ok", &[]),
        ("reserve a0 ok", &[]),
        ("charge a1 ok", &[]),
        ("reserve c1 ok", &[]),
        ("nothing a1 ok", &[]),
        ("reserve a2 code:409", &["reserve a1 timeout"]),
    ] {
        let mut world = World::new(PAIR);
        for input in given {
            world.apply(input);
        }
        let before = world.instance.clone();
        world.apply(forged);
        assert_eq!(world.note, Note::Forged, "{forged}");
        assert_eq!(world.told(), "| running", "{forged}");
        assert_eq!(world.instance.forged_replies, 1, "{forged}");
        assert_eq!(world.instance.steps, before.steps, "{forged}");
    }
}

#[test]
pub(crate) fn a_stream_s_acknowledgement_is_never_an_outcome() {
    let world = check(PAIR, &[], "reserve a1 stream", "| running");
    assert_eq!(world.note, Note::StreamAnswered);
    // The participant's own answer still counts.
    check(
        PAIR,
        &["reserve a1 stream"],
        "reserve a1 ok",
        "send charge a1 | running",
    );
    // And if there is none, the timeout is the law.
    check(
        PAIR,
        &["reserve a1 stream"],
        "reserve a1 timeout",
        "| running",
    );
}

#[test]
pub(crate) fn an_observation_of_what_was_never_sent_changes_nothing() {
    for input in [
        "reserve a2 lost",
        "charge a1 http:200",
        "nothing a1 http:200",
        "refused completed-0",
        "stored completed-0",
        "stored reserve-a",
        "retry",
        "skip",
        "started",
    ] {
        let world = check(PAIR, &[], input, "| running");
        assert_eq!(world.note, Note::Ignored, "{input}");
    }
}

/// The token stands in the reply's subject and nowhere else that people see.
#[test]
pub(crate) fn tokens_and_runs_are_not_shown() {
    let mut world = World::new(PAIR);
    let token = |kind: &tidemill_core::names::LogKind| -> String {
        kind.to_string().rsplit('.').next().unwrap().to_owned()
    };
    let tidemill_core::saga::Effect::Request(request) = world.effects[0].clone() else {
        panic!("{:?}", world.effects);
    };
    let secret = token(&request.reply);
    assert_eq!(secret.len(), 20);
    let run = String::from(crate::given::RUN);
    let input = tidemill_core::saga::decode_input(request.reply.clone(), &[], b"{}").unwrap();
    let entry = world
        .instance
        .timeline_entry(&world.saga, &input, Note::Success, world.now, 1);
    world.apply("reserve a1 ok:{\"a\":1}");
    let shown = [
        format!("{request:?}"),
        format!("{input:?}"),
        format!("{entry:?}"),
        format!("{:?}", world.instance),
        format!("{:?}", world.effects),
        format!("{:?}", world.instance.summary(&world.saga, 1)),
        format!("{:?}", world.instance.step_statuses(&world.saga)),
        format!("{:?}", crate::given::started()),
    ];
    for text in shown {
        assert!(!text.contains(&secret) && !text.contains(&run), "{text}");
    }
}
