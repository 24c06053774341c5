use super::super::position::Lineage;
use super::super::row::{Source, Sources};
use super::*;
use crate::definition::{Revision, StreamRef};
use crate::names::{KEYLESS_TOKEN, KeySpace, headers};
use crate::parked::{Failure, Kept, ParkedError};
use proptest::prelude::*;

fn at(sequence: u64) -> Position {
    Position {
        generation: 0,
        sequence,
    }
}

fn waiting(kept_at: u64, source: usize, sequence: u64) -> Waiting {
    Waiting {
        kept_at,
        source,
        position: at(sequence),
        reason: None,
    }
}

#[test]
fn what_is_done_with_an_event_for_a_row() {
    let mut parked = ParkedKeys::new();
    assert!(parked.add("k", waiting(1, 0, 10)));
    assert!(parked.add("k", waiting(2, 0, 12)));
    assert!(parked.add(KEYLESS_TOKEN, waiting(3, 0, 11)));
    for (token, source, sequence, row, decided, expected, why) in [
        (
            "other",
            0,
            20,
            0,
            false,
            Admission::Fold,
            "a key that isn't parked",
        ),
        (
            "other",
            0,
            20,
            20,
            false,
            Admission::Passed,
            "in the row already",
        ),
        (
            "k",
            0,
            5,
            5,
            false,
            Admission::Passed,
            "before the one that parked it, in the row",
        ),
        (
            "k",
            0,
            7,
            5,
            false,
            Admission::Fold,
            "before the one that parked it, lost from the row",
        ),
        (
            "k",
            0,
            10,
            5,
            false,
            Admission::Waits,
            "the one that parked it, read again",
        ),
        ("k", 0, 10, 5, true, Admission::LeftOut, "decided"),
        (
            "k",
            0,
            10,
            10,
            true,
            Admission::Passed,
            "decided too late: it is in the row",
        ),
        (
            "k",
            0,
            12,
            5,
            false,
            Admission::Waits,
            "a follower, read again",
        ),
        (
            "k",
            0,
            11,
            5,
            false,
            Admission::Follows,
            "a follower that wasn't copied",
        ),
        ("k", 0, 13, 5, false, Admission::Follows, "a new follower"),
        ("k", 1, 3, 0, false, Admission::Follows, "of another source"),
        (
            "k",
            1,
            3,
            3,
            false,
            Admission::Passed,
            "of another source, in the row",
        ),
        (
            KEYLESS_TOKEN,
            0,
            11,
            0,
            false,
            Admission::Waits,
            "without a key, read again",
        ),
        (
            KEYLESS_TOKEN,
            0,
            12,
            0,
            false,
            Admission::Fold,
            "without a key, each is tried",
        ),
    ] {
        assert_eq!(
            admit(&parked, token, source, at(sequence), at(row), decided),
            expected,
            "{why}"
        );
    }
}

#[test]
fn what_is_done_about_an_event_that_fails() {
    let mut parked = ParkedKeys::new();
    parked.add("a", waiting(1, 0, 1));
    parked.add("b", waiting(2, 0, 2));
    let policy = |on_error, max_parked_keys| ProjectionPolicy {
        on_error,
        max_parked_keys,
    };
    for (policy, token, expected) in [
        (policy(OnError::Park, 3), "c", Consequence::Park),
        (policy(OnError::Park, 2), "a", Consequence::Park),
        (
            policy(OnError::Park, 2),
            "c",
            Consequence::Stop(StopReason::TooManyParkedKeys(2)),
        ),
        (policy(OnError::Skip, 2), "c", Consequence::LeaveOut),
        (
            policy(OnError::Stop, 9),
            "c",
            Consequence::Stop(StopReason::OnError),
        ),
    ] {
        assert_eq!(consequence(&policy, &parked, token), expected, "{policy:?}");
    }
}

#[test]
fn what_becomes_of_a_waiting_event() {
    assert_eq!(redriven(false, Ok(Folded::Stored)), Redriven::Done);
    assert_eq!(redriven(false, Ok(Folded::Nothing)), Redriven::Done);
    assert_eq!(redriven(false, Ok(Folded::Passed)), Redriven::Done);
    assert_eq!(redriven(true, Ok(Folded::Stored)), Redriven::Done);
    assert_eq!(redriven(true, Ok(Folded::Passed)), Redriven::RowIsAhead);
    assert_eq!(
        redriven(true, Err(FoldError::RowTooLarge { max: 1 })),
        Redriven::Fails(FoldError::RowTooLarge { max: 1 })
    );
}

#[test]
fn what_waits_is_in_order_and_there_once() {
    let mut parked = ParkedKeys::new();
    for (kept_at, source, sequence, new) in [
        (1, 0, 10, true),
        (2, 0, 12, true),
        (3, 0, 10, false),
        (4, 0, 11, true),
        (5, 1, 3, true),
        (6, 1, 3, false),
    ] {
        assert_eq!(parked.add("k", waiting(kept_at, source, sequence)), new);
    }
    let order: Vec<(usize, u64)> = parked
        .waiting("k")
        .iter()
        .map(|entry| (entry.source, entry.position.sequence))
        .collect();
    assert_eq!(order, [(0, 10), (0, 11), (0, 12), (1, 3)]);
    assert_eq!((parked.keys(), parked.events()), (1, 4));
    assert_eq!(
        parked.remove("k", 0, at(10)).map(|entry| entry.kept_at),
        Some(1)
    );
    assert_eq!(parked.remove("k", 0, at(10)), None);
    for (source, sequence) in [(0, 11), (0, 12), (1, 3)] {
        assert!(parked.remove("k", source, at(sequence)).is_some());
    }
    assert_eq!((parked.keys(), parked.events()), (0, 0));
}

/// What is asked of a queue.
#[derive(Clone, Copy, Debug)]
enum Step {
    Add(usize, u64),
    Kept(usize, u64),
    Remove(usize, u64),
    RemoveFirst,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_usize..3, 0_u64..12).prop_map(|(source, at)| Step::Add(source, at)),
        1 => (0_usize..3, 0_u64..12).prop_map(|(source, at)| Step::Kept(source, at)),
        2 => (0_usize..3, 0_u64..12).prop_map(|(source, at)| Step::Remove(source, at)),
        1 => Just(Step::RemoveFirst),
    ]
}

proptest! {
    /// The same with one list that is searched from its beginning.
    #[test]
    fn what_waits_is_as_in_a_plain_list(steps in proptest::collection::vec(any_step(), 0..60)) {
        let mut parked = ParkedKeys::new();
        let mut list: Vec<Waiting> = Vec::new();
        for (step, kept_at) in steps.into_iter().zip(100..) {
            let place = |list: &[Waiting], source, sequence| {
                let here = |one: &Waiting| (one.source, one.position) == (source, at(sequence));
                list.iter().position(here)
            };
            match step {
                Step::Add(source, sequence) => {
                    let is_new = place(&list, source, sequence).is_none();
                    let one = waiting(kept_at, source, sequence);
                    prop_assert_eq!(parked.add("k", one.clone()), is_new);
                    let behind = |other: &Waiting| other.source == source && other.position > at(sequence);
                    let before = list.iter().position(behind);
                    if is_new {
                        list.insert(before.unwrap_or(list.len()), one);
                    }
                }
                Step::Kept(source, sequence) => {
                    parked.kept("k", source, at(sequence), kept_at);
                    if let Some(index) = place(&list, source, sequence) {
                        list[index].kept_at = kept_at;
                    }
                }
                Step::Remove(source, sequence) => {
                    let removed = place(&list, source, sequence).map(|index| list.remove(index));
                    prop_assert_eq!(parked.remove("k", source, at(sequence)), removed);
                }
                Step::RemoveFirst => {
                    if !list.is_empty() {
                        let first = list.remove(0);
                        let removed = parked.remove("k", first.source, first.position);
                        prop_assert_eq!(removed, Some(first));
                    }
                }
            }
            let found = parked.waiting("k");
            prop_assert_eq!(&found.to_vec(), &list);
            prop_assert_eq!(found.is_empty(), list.is_empty());
            prop_assert_eq!((parked.keys(), parked.events()), (usize::from(!list.is_empty()), list.len()));
            for source in 0..4 {
                let of = list.iter().filter(|one| one.source == source);
                prop_assert_eq!(found.first_of(source), of.clone().next());
                for sequence in 0..12 {
                    let waits = of.clone().any(|one| one.position == at(sequence));
                    prop_assert_eq!(found.contains(source, at(sequence)), waits);
                }
            }
        }
    }
}

fn sources() -> Sources {
    let stream = |name: &str| StreamRef {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    };
    Sources::new(vec![
        Source {
            stream: stream("a"),
            lineage: Lineage::first("x"),
        },
        Source {
            stream: stream("b"),
            lineage: Lineage::first("y"),
        },
    ])
}

fn entry(source: usize, failure: Option<Failure>) -> Entry {
    let revision = Revision::try_from("0123456789abcdef".to_owned()).unwrap();
    Entry {
        key_space: KeySpace {
            revision,
            rebuild: 1,
        },
        source,
        position: at(7),
        failure,
        stored_at: Timestamp::from_millis(1_000),
        kept: Kept::copy("a.b", &[("ce-id", "1")], b"{}", 100_000),
    }
}

fn written(entry: &Entry) -> (Vec<(String, String)>, Vec<u8>) {
    let sources = sources();
    entry.to_parked(sources.get(entry.source).unwrap()).write()
}

fn read(headers: &[(String, String)], payload: &[u8]) -> Result<Entry, EntryError> {
    let borrowed: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    Entry::read(&sources(), &borrowed, payload)
}

#[test]
fn an_entry_is_read_as_it_was_written() {
    for source in 0..2 {
        for failure in [
            None,
            Some(Failure::from(&FoldError::RowTooLarge { max: 1 })),
        ] {
            let entry = entry(source, failure);
            let (headers, payload) = written(&entry);
            assert_eq!(read(&headers, &payload), Ok(entry));
        }
    }
}

/// People give it back as they see it in a row's header.
#[test]
fn the_position_of_an_entry_is_written_as_a_row_s() {
    for source in 0..2 {
        let mut positions = crate::projection::Positions::default();
        positions.set(source, at(7));
        let (headers, _) = written(&entry(source, None));
        let position = headers.iter().find(|(name, _)| name == headers::POSITION);
        assert_eq!(position.unwrap().1, sources().write(&positions));
    }
}

#[test]
fn an_entry_of_no_rows_or_another_source_is_refused() {
    let (headers, payload) = written(&entry(1, None));
    let but = |wanted: &str, value: Option<&str>| {
        let changed = headers.iter().filter_map(|(name, old)| {
            let value = match name == wanted {
                true => value?,
                false => old,
            };
            Some((name.clone(), value.to_owned()))
        });
        read(&changed.collect::<Vec<_>>(), &payload)
    };
    assert_eq!(
        but(headers::REVISION, None),
        Err(EntryError::Parked(ParkedError::Header(headers::REVISION)))
    );
    for other in ["shop/c=y:7", "shop/b=z:7", "shop/b=y.1:7"] {
        let error = but(headers::POSITION, Some(other)).unwrap_err();
        assert!(matches!(error, EntryError::Position(_)), "{other}: {error}");
    }
}
