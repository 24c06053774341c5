use super::*;
use crate::definition::StreamRef;
use proptest::prelude::*;

fn read(headers: &[(String, String)], payload: &[u8]) -> Result<Parked, ParkedError> {
    let borrowed: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    Parked::read(&borrowed, payload)
}

fn any_position() -> impl Strategy<Value = EventPosition> {
    (
        "[a-z0-9-]{1,10}",
        "[a-z0-9-]{1,10}",
        "\\PC{0,20}",
        0_u64..3,
        any::<u64>(),
    )
        .prop_map(
            |(namespace, name, incarnation, generation, sequence)| EventPosition {
                stream: StreamRef { namespace, name },
                incarnation,
                generation,
                sequence,
            },
        )
}

fn any_kept() -> impl Strategy<Value = Kept> {
    let copied = (
        "[a-z.]{1,10}",
        proptest::collection::vec(("[A-Za-z-]{1,10}", "[ -~]{0,10}"), 0..4),
        proptest::collection::vec(any::<u8>(), 0..20),
    );
    prop_oneof![
        Just(Kept::InSource),
        copied.prop_map(|(subject, headers, payload)| Kept::Copied {
            subject,
            headers,
            payload
        }),
    ]
}

fn any_parked() -> impl Strategy<Value = Parked> {
    let failure = ("[A-Z][a-z]{1,6}[A-Z]{0,3}", "[!-~]{0,20}");
    (
        proptest::option::of(Just("0123456789abcdef-2")),
        any_position(),
        proptest::option::of(failure),
        any::<i64>(),
        any_kept(),
    )
        .prop_map(|(key_space, position, failure, stored_at, kept)| Parked {
            key_space: key_space.and_then(KeySpace::parse),
            position,
            failure: failure
                .filter(|(reason, _)| reason != FOLLOWER)
                .map(|(reason, message)| Failure::new(&reason, message)),
            stored_at: Timestamp::from_millis(stored_at),
            kept,
        })
}

/// What is in parked streams must be readable for ever.
#[test]
fn the_form_is_golden() {
    let parked = Parked {
        key_space: KeySpace::parse("0123456789abcdef"),
        position: EventPosition {
            stream: StreamRef {
                namespace: "shop".to_owned(),
                name: "orders".to_owned(),
            },
            incarnation: "x y".to_owned(),
            generation: 1,
            sequence: 7,
        },
        failure: Some(Failure::new("NoSuchKey", "`event.data.x`\nisn't there")),
        stored_at: Timestamp::from_millis(1_000),
        kept: Kept::copy("shop.orders.o-1.A", &[("ce-id", "1")], b"{}", 100_000),
    };
    let (headers, payload) = parked.write();
    let lines: Vec<String> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    assert_eq!(
        lines,
        [
            "Tidemill-Rev: 0123456789abcdef",
            "Tidemill-Pos: shop/orders=x=20y.1:7",
            "Tidemill-Stored-At: 1000",
            "Tidemill-Parked: NoSuchKey",
            "Tidemill-Error: `event.data.x` isn't there",
            "Tidemill-Subject: shop.orders.o-1.A",
            "Tidemill-H-ce-id: 1",
        ]
    );
    assert_eq!(payload, b"{}");
}

#[test]
fn what_has_no_room_stays_in_its_stream() {
    let copy = |bytes_max| Kept::copy("a", &[("n", "v")], &[0; 100], bytes_max);
    assert_eq!(copy(4_096 + 123), Kept::InSource);
    assert!(matches!(copy(4_096 + 124), Kept::Copied { .. }));
}

#[test]
fn headers_that_get_too_long_stay_in_their_stream() {
    let value = "v".repeat(26);
    let names: Vec<String> = (0..1_500).map(|number| format!("x-{number:04}")).collect();
    let copy = |count: usize| {
        let headers = names.iter().take(count).map(|name| (&**name, &*value));
        Kept::copy("a", &headers.collect::<Vec<_>>(), b"{}", 1_048_576)
    };
    assert_eq!(copy(1_500), Kept::InSource);
    // 52 bytes each, and one for the subject.
    let most = (65_535 - 4_096 - 1) / 52;
    assert_eq!(copy(most + 1), Kept::InSource);
    // With all of ours at their longest they are what the server takes.
    let long = |bytes| "n".repeat(bytes);
    let parked = Parked {
        key_space: KeySpace::parse("0123456789abcdef-4294967295"),
        position: EventPosition {
            stream: StreamRef {
                namespace: long(63),
                name: long(253),
            },
            incarnation: long(253),
            generation: u64::MAX,
            sequence: u64::MAX,
        },
        failure: Some(Failure::new("RowWouldBeTooLarge", long(2_000))),
        stored_at: Timestamp::from_millis(i64::MIN),
        kept: copy(most),
    };
    assert_ne!(parked.kept, Kept::InSource);
    let of = |(name, value): &(String, String)| format!("{name}: {value}\r\n").len();
    let bytes = parked.write().0.iter().map(of).sum::<usize>();
    assert!(bytes + "NATS/1.0\r\n\r\n".len() < 65_000, "{bytes}");
}

#[test]
fn long_messages_are_cut_at_a_character() {
    assert_eq!(one_line(&"é".repeat(800)).len(), 1000);
    assert_eq!(one_line(&format!("a{}", "é".repeat(800))).len(), 999);
}

proptest! {
    #[test]
    fn it_is_read_as_it_was_written(parked in any_parked()) {
        let (headers, payload) = parked.write();
        prop_assert_eq!(read(&headers, &payload), Ok(parked));
    }

    #[test]
    fn without_one_of_its_headers_it_is_refused(parked in any_parked()) {
        let (headers, payload) = parked.write();
        for missing in [headers::POSITION, headers::STORED_AT, headers::PARKED] {
            let rest: Vec<(String, String)> = headers
                .iter()
                .filter(|(name, _)| name != missing)
                .cloned()
                .collect();
            prop_assert_eq!(read(&rest, &payload), Err(ParkedError::Header(missing)));
        }
    }

    #[test]
    fn no_message_panics(headers in proptest::collection::vec(("(Tidemill-(Rev|Pos|Parked|Stored-At|Subject|H-|H-x))|\\PC{0,5}", "\\PC{0,20}|0123456789abcdef|shop/a=x:1|1"), 0..8)) {
        let _ = read(&headers, b"");
    }
}
