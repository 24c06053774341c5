//! The laws of projections, one by one. That rows come out the same whatever happens between the events is held by the
//! properties beside the code.

use std::collections::BTreeMap;
use tidemill_core::definition::{
    OnError, ProjectionDefinition, ProjectionPolicy, Revision, StreamRef,
};
use tidemill_core::envelope::Event;
use tidemill_core::json::Value;
use tidemill_core::projection::parked::{
    Admission, Consequence, ParkedKeys, Redriven, StopReason, Waiting, admit, consequence, follow,
    redriven,
};
use tidemill_core::projection::{
    Checkpoint, Folded, KEYLESS_TOKEN, KeySpace, Lineage, Position, Progress, Projection, Row,
    Source, SourceCheckpoint, SourceReset, SourceSeen, Sources, may_switch, verify_source,
};
use tidemill_core::timestamp::Timestamp;

fn stream(name: &str) -> StreamRef {
    StreamRef {
        namespace: "s".to_owned(),
        name: name.to_owned(),
    }
}

fn at(sequence: u64) -> Position {
    Position {
        generation: 0,
        sequence,
    }
}

/// A row and what folds into it. An event is `<source> <sequence> <type> <data>`.
struct World {
    projection: Projection,
    row: Row,
}

impl World {
    fn new(sources: &[&str], handlers: &str) -> World {
        let sources = sources.iter().map(|name| stream(name)).collect();
        let mut definition = ProjectionDefinition::new(sources, "event.subject");
        definition.handlers = serde_json::from_str(handlers).unwrap();
        World {
            projection: Projection::compile(&definition).unwrap(),
            row: Row::missing(),
        }
    }

    /// The row after the event, with what became of it if it wasn't simply folded.
    fn fold(&mut self, text: &str) -> String {
        let mut words = text.splitn(4, ' ');
        let source: usize = words.next().unwrap().parse().unwrap();
        let sequence: u64 = words.next().unwrap().parse().unwrap();
        let event = Event {
            event_type: words.next().unwrap().to_owned(),
            subject: Some("k".to_owned()),
            data: Value::parse(words.next().unwrap_or("null").as_bytes()).unwrap(),
            extensions: BTreeMap::new(),
            ..crate::given::event()
        };
        let touches = self.projection.touches(source, &event);
        let folded = match touches.first() {
            Some(touch) => self
                .projection
                .fold(&mut self.row, touch, source, at(sequence), &event),
            None => Ok(Folded::Nothing),
        };
        let row = match self.row.exists() {
            true => self.row.value(),
            false => "no row".to_owned(),
        };
        match folded {
            Ok(Folded::Stored) => row,
            Ok(other) => format!("{other:?} {row}"),
            Err(error) => format!("{} {row}", error.reason()),
        }
    }
}

#[track_caller]
fn check(sources: &[&str], handlers: &str, table: &[(&str, &str)]) {
    let mut world = World::new(sources, handlers);
    for (event, then) in table {
        assert_eq!(world.fold(event), *then, "{event}");
    }
}

const ADD: &str =
    r#"[{"type":"Add","increment":{"n":"=event.data"}},{"type":"Del","delete":true}]"#;

#[test]
pub(crate) fn an_event_at_or_below_the_row_s_position_changes_nothing() {
    check(
        &["a"],
        ADD,
        &[
            ("0 5 Add 1", r#"{"n":1}"#),
            ("0 5 Add 1", r#"Passed {"n":1}"#),
            ("0 4 Add 1", r#"Passed {"n":1}"#),
            ("0 6 Add 1", r#"{"n":2}"#),
        ],
    );
    let parked = ParkedKeys::new();
    assert_eq!(
        admit(&parked, "k", 0, at(5), at(5), false),
        Admission::Passed
    );
}

#[test]
pub(crate) fn a_row_has_a_position_in_each_source() {
    let handlers = r#"[{"type":"Add","increment":{"n":"=event.data"}}]"#;
    check(
        &["a", "b"],
        handlers,
        &[
            ("0 5 Add 1", r#"{"n":1}"#),
            ("1 2 Add 1", r#"{"n":2}"#),
            ("0 5 Add 1", r#"Passed {"n":2}"#),
            ("1 2 Add 1", r#"Passed {"n":2}"#),
        ],
    );
}

#[test]
pub(crate) fn a_deleted_row_keeps_its_position() {
    check(
        &["a"],
        ADD,
        &[
            ("0 5 Add 1", r#"{"n":1}"#),
            ("0 9 Del", "no row"),
            ("0 5 Add 1", "Passed no row"),
            ("0 8 Add 1", "Passed no row"),
            ("0 10 Add 1", r#"{"n":1}"#),
        ],
    );
}

#[test]
pub(crate) fn increments_are_exact() {
    check(
        &["a"],
        ADD,
        &[
            ("0 1 Add 0.1", r#"{"n":0.1}"#),
            ("0 2 Add 0.2", r#"{"n":0.3}"#),
            ("0 3 Add 0.70", r#"{"n":1.00}"#),
            ("0 4 Add 9007199254740993", r#"{"n":9007199254740994.00}"#),
        ],
    );
}

#[test]
pub(crate) fn a_sum_beyond_28_digits_is_an_error_and_never_rounded() {
    check(
        &["a"],
        ADD,
        &[
            (
                "0 1 Add 9999999999999999999999999999",
                r#"{"n":9999999999999999999999999999}"#,
            ),
            (
                "0 2 Add 1",
                r#"TooManyDigits {"n":9999999999999999999999999999}"#,
            ),
        ],
    );
}

#[test]
pub(crate) fn within_a_handler_every_expression_sees_the_row_as_it_was() {
    let handlers =
        r#"[{"set":{"a":"=event.data","b":"=has(row.a) ? row.a : null"}},{"set":{"c":"=row.a"}}]"#;
    check(
        &["a"],
        handlers,
        &[
            ("0 1 T 1", r#"{"a":1,"b":null,"c":1}"#),
            ("0 2 T 2", r#"{"a":2,"b":1,"c":2}"#),
        ],
    );
}

#[test]
pub(crate) fn a_null_that_is_set_is_stored() {
    let handlers = r#"[{"set":{"a":"=event.data","b":null}}]"#;
    check(
        &["a"],
        handlers,
        &[
            ("0 1 T 1", r#"{"a":1,"b":null}"#),
            ("0 2 T null", r#"{"a":null,"b":null}"#),
        ],
    );
}

#[test]
pub(crate) fn all_handlers_that_match_run_in_order() {
    let handlers = r#"[{"set":{"a":1}},{"type":"T","set":{"a":2}},{"type":"U","set":{"a":3}},{"increment":{"n":1}}]"#;
    check(
        &["a"],
        handlers,
        &[("0 1 T", r#"{"a":2,"n":1}"#), ("0 2 U", r#"{"a":3,"n":2}"#)],
    );
}

#[test]
pub(crate) fn set_leaves_the_other_columns() {
    let handlers = r#"[{"type":"A","set":{"a":1}},{"type":"B","set":{"b":2}}]"#;
    check(
        &["a"],
        handlers,
        &[
            ("0 1 A", r#"{"a":1}"#),
            ("0 2 B", r#"{"a":1,"b":2}"#),
            ("0 3 A", r#"{"a":1,"b":2}"#),
        ],
    );
}

#[test]
pub(crate) fn a_handler_may_have_its_own_key() {
    let handlers = r#"[{"set":{"a":1}},{"type":"T","key":"event.data.other","set":{"b":1}}]"#;
    let world = World::new(&["a"], handlers);
    let tokens = |data: &str| -> Vec<String> {
        let event = Event {
            event_type: "T".to_owned(),
            subject: Some("k".to_owned()),
            data: Value::parse(data.as_bytes()).unwrap(),
            ..crate::given::event()
        };
        let touches = world.projection.touches(0, &event);
        touches
            .iter()
            .map(|touch| touch.token.to_string())
            .collect()
    };
    assert_eq!(tokens(r#"{"other":"o"}"#), ["k", "o"]);
    assert_eq!(tokens(r#"{"other":"k"}"#), ["k"]);
    // What has no key counts as one key.
    assert_eq!(tokens("{}"), ["k", KEYLESS_TOKEN]);
}

#[test]
pub(crate) fn an_event_without_a_time_has_its_stored_time() {
    let handlers = r#"[{"set":{"at":"=event.time"}}]"#;
    let stored = crate::given::event().stored_at;
    check(
        &["a"],
        handlers,
        &[("0 1 T", &format!(r#"{{"at":"{stored}"}}"#))],
    );
}

#[test]
pub(crate) fn an_event_that_can_t_be_folded_changes_nothing() {
    let handlers = r#"[{"set":{"a":1}},{"set":{"b":"=event.data.missing"}}]"#;
    check(
        &["a"],
        handlers,
        &[
            ("0 1 T {}", "NoSuchKey no row"),
            ("0 2 T {\"missing\":2}", r#"{"a":1,"b":2}"#),
        ],
    );
}

fn waiting(sequence: u64) -> Waiting {
    Waiting {
        kept_at: 1,
        source: 0,
        position: at(sequence),
        reason: None,
    }
}

fn parked(keys: &[(&str, u64)]) -> ParkedKeys {
    let mut parked = ParkedKeys::new();
    for (key, sequence) in keys {
        parked.add(key, waiting(*sequence));
    }
    parked
}

#[test]
pub(crate) fn a_poison_event_holds_up_what_follows_for_its_key_and_no_other() {
    let parked = parked(&[("k", 5)]);
    let admitted = |token, sequence| admit(&parked, token, 0, at(sequence), at(4), false);
    assert_eq!(admitted("k", 6), Admission::Follows);
    assert_eq!(admitted("other", 6), Admission::Fold);
    assert_eq!(admitted(KEYLESS_TOKEN, 6), Admission::Fold);
}

#[test]
pub(crate) fn an_event_that_waits_waits_once() {
    let mut parked = parked(&[("k", 5), ("k", 6)]);
    assert!(!parked.add("k", waiting(6)));
    assert_eq!(
        admit(&parked, "k", 0, at(6), at(4), false),
        Admission::Waits
    );
}

#[test]
pub(crate) fn a_decision_to_skip_is_kept_to() {
    let admitted = admit(&ParkedKeys::new(), "k", 0, at(6), at(4), true);
    assert_eq!(admitted, Admission::LeftOut);
}

#[test]
pub(crate) fn what_can_t_be_folded_parks_until_too_many_keys_are() {
    let policy = ProjectionPolicy {
        on_error: OnError::Park,
        max_parked_keys: 2,
    };
    let two = parked(&[("a", 1), ("b", 2)]);
    assert_eq!(
        consequence(&policy, &ParkedKeys::new(), "c"),
        Consequence::Park
    );
    assert_eq!(consequence(&policy, &two, "a"), Consequence::Park);
    assert!(matches!(
        consequence(&policy, &two, "c"),
        Consequence::Stop(_)
    ));
}

#[test]
pub(crate) fn no_more_events_wait_than_one_worker_keeps() {
    let policy = ProjectionPolicy::default();
    let mut parked = ParkedKeys::with_events_max(2);
    parked.add("a", waiting(1));
    assert_eq!(consequence(&policy, &parked, "b"), Consequence::Park);
    assert_eq!(follow(&parked), Consequence::Park);
    parked.add("a", waiting(2));
    let stop = Consequence::Stop(StopReason::TooManyWaiting(2));
    assert_eq!(consequence(&policy, &parked, "b"), stop);
    assert_eq!(follow(&parked), stop);
}

#[test]
pub(crate) fn a_redrive_is_refused_once_the_row_is_past_it() {
    assert_eq!(redriven(true, Ok(Folded::Passed)), Redriven::RowIsAhead);
    assert_eq!(redriven(false, Ok(Folded::Passed)), Redriven::Done);
}

#[test]
pub(crate) fn a_source_that_was_reset_is_said_so() {
    let lineage = Lineage::first("i");
    let stored = Timestamp::from_millis(500);
    let seen = |incarnation: &str, last_sequence, stored_at: Option<i64>| SourceSeen {
        incarnation: incarnation.to_owned(),
        last_sequence,
        stored_at: stored_at.map(Timestamp::from_millis),
    };
    let verify = |seen: SourceSeen| verify_source(&lineage, at(100), Some(stored), &seen);
    assert_eq!(verify(seen("i", 100, Some(500))), Ok(()));
    // Gaps are normal.
    assert_eq!(verify(seen("i", 150, None)), Ok(()));
    let replaced = verify(seen("j", 150, Some(500)));
    assert!(
        matches!(replaced, Err(SourceReset::Replaced { .. })),
        "{replaced:?}"
    );
    let shorter = verify(seen("i", 99, None));
    assert!(
        matches!(shorter, Err(SourceReset::Shorter { .. })),
        "{shorter:?}"
    );
    // The last 50 were lost and 80 more written: length and creation look plausible.
    let rewritten = verify(seen("i", 130, Some(501)));
    assert!(
        matches!(rewritten, Err(SourceReset::Rewritten { .. })),
        "{rewritten:?}"
    );
}

#[test]
pub(crate) fn readers_are_led_on_when_no_partition_is_behind() {
    let progress = |sequences: [u64; 2]| {
        let sources = Sources::new(vec![Source {
            stream: stream("a"),
            lineage: Lineage::first("i"),
        }]);
        let mut progress = Progress::new();
        for (partition, sequence) in (0..).zip(sequences) {
            let mut checkpoint = Checkpoint::default();
            let (position, stored_at) = (at(sequence), None);
            checkpoint.set_source(
                0,
                SourceCheckpoint {
                    position,
                    stored_at,
                },
            );
            progress.add(partition, &checkpoint, &sources);
        }
        progress
    };
    let may = |new| may_switch(&progress([10, 20]), &progress(new), &BTreeMap::new(), 2).is_ok();
    assert!(may([10, 20]) && may([99, 20]));
    assert!(!may([9, 99]) && !may([99, 19]));
}

#[test]
pub(crate) fn another_revision_has_its_own_keys() {
    let space = |revision: &str, rebuild| KeySpace {
        revision: Revision::try_from(revision.to_owned()).unwrap(),
        rebuild,
    };
    let keys = [
        space("0123456789abcdef", 0).row_key("k"),
        space("0123456789abcdef", 1).row_key("k"),
        space("fedcba9876543210", 0).row_key("k"),
        space("0123456789abcdef", 0).checkpoint_key(1),
    ];
    for (index, key) in keys.iter().enumerate() {
        assert!(!keys[..index].contains(key), "{key} twice");
    }
}

#[test]
pub(crate) fn rows_may_not_depend_on_how_sources_interleave() {
    for handlers in [
        r#"[{"delete":true}]"#,
        r#"[{"set":{"a":1}}]"#,
        r#"[{"stream":{"namespace":"s","name":"a"},"set":{"a":1}},{"stream":{"namespace":"s","name":"b"},"set":{"b":"=row.a"}}]"#,
    ] {
        let compiles = |sources: &[&str]| {
            let sources = sources.iter().map(|name| stream(name)).collect();
            let mut definition = ProjectionDefinition::new(sources, "event.subject");
            definition.handlers = serde_json::from_str(handlers).unwrap();
            Projection::compile(&definition).is_ok()
        };
        assert!(!compiles(&["a", "b"]), "{handlers}");
    }
}
