use super::super::KeySpace;
use super::super::keyspace::KEYLESS_TOKEN;
use super::super::position::Lineage;
use super::super::row::{Source, Sources};
use super::*;
use crate::definition::{Revision, StreamRef};
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
        redriven(true, Err(FoldError::RowTooLarge)),
        Redriven::Fails(FoldError::RowTooLarge)
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

fn entry(source: usize, kept: Kept, failure: Option<(String, String)>) -> Entry {
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
        kept,
    }
}

fn read(headers: &[(String, String)], payload: &[u8]) -> Result<Entry, EntryError> {
    let borrowed: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    Entry::read(&sources(), &borrowed, payload)
}

fn recognise(headers: &[(String, String)]) -> Result<(), EntryError> {
    Entry::recognise(|wanted| {
        let found = headers.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| &**value)
    })
}

#[test]
fn an_entry_without_one_of_its_headers_is_refused() {
    let (headers, payload) = entry(1, Kept::InSource, None).write(&sources());
    for missing in [
        super::super::REVISION_HEADER,
        super::super::POSITION_HEADER,
        STORED_AT_HEADER,
        PARKED_HEADER,
    ] {
        let rest: Vec<(String, String)> = headers
            .iter()
            .filter(|(name, _)| name != missing)
            .cloned()
            .collect();
        assert!(read(&rest, &payload).is_err(), "{missing}");
        assert_eq!(recognise(&rest), Err(EntryError::Header(missing)));
    }
}

proptest! {
    #[test]
    fn an_entry_is_read_as_it_was_written(
        source in 0_usize..2,
        headers in proptest::collection::vec(("[A-Za-z-]{1,10}", "[ -~]{0,10}"), 0..4),
        payload in proptest::collection::vec(any::<u8>(), 0..20),
        copied in any::<bool>(),
        failed in any::<bool>(),
    ) {
        let kept = if copied { Kept::Copied { subject: "a.b".to_owned(), headers, payload } } else { Kept::InSource };
        let failure = failed.then(|| ("NoSuchKey".to_owned(), "`event.data.x` isn't there".to_owned()));
        let entry = entry(source, kept, failure);
        let (headers, payload) = entry.write(&sources());
        prop_assert_eq!(recognise(&headers), Ok(()));
        prop_assert_eq!(read(&headers, &payload), Ok(entry));
    }

    #[test]
    fn no_message_panics(headers in proptest::collection::vec(("(Tidemill-(Rev|Pos|Parked|Stored-At|Subject|H-|H-x))|\\PC{0,5}", "\\PC{0,20}|0123456789abcdef|shop/a=x:1|1"), 0..8)) {
        // What is read is recognised.
        if read(&headers, b"").is_ok() {
            prop_assert_eq!(recognise(&headers), Ok(()));
        }
    }
}
