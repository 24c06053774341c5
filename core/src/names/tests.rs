use super::*;
use proptest::prelude::*;

fn saga() -> ResourceId {
    ResourceId::new(Kind::Saga, "shop", "order-fulfilment")
}

#[test]
fn names_are_as_promised() {
    assert_eq!(saga().log_stream(), "shop_order-fulfilment_log");
    assert_eq!(saga().parked_stream(), "shop_order-fulfilment_saga_parked");
    assert_eq!(
        saga().control_subject("_tm", "start"),
        "_tm.ctl.shop.saga.order-fulfilment.start"
    );
    assert_eq!(
        saga().inbox_prefix("_tm"),
        "_tm.inbox.shop.saga.order-fulfilment"
    );
    assert_eq!(saga().source(), "/tidemill/shop/saga/order-fulfilment");
    assert_eq!(
        event_subject("shop.orders", "o 1", "order.created").as_deref(),
        Ok("shop.orders.o=201.order=2Ecreated")
    );
    assert_eq!(
        event_subject("shop.orders", "", "T").as_deref(),
        Ok("shop.orders.=.T")
    );
}

/// The first three are published FNV-1a test values; they also are what the server's `partition()` uses.
#[test]
fn partitions_are_fnv_1a() {
    assert_eq!(
        partition("", u16::MAX),
        u16::try_from(0x811c_9dc5_u32 % 65535).unwrap()
    );
    assert_eq!(
        partition("a", u16::MAX),
        u16::try_from(0xe40c_292c_u32 % 65535).unwrap()
    );
    assert_eq!(
        partition("foobar", u16::MAX),
        u16::try_from(0xbf9c_f968_u32 % 65535).unwrap()
    );
    assert_eq!(partition("anything", 1), 0);
}

#[test]
fn reply_tokens_and_command_ids_are_golden() {
    let run = Run::new([7; 16]);
    let side = Side::Action;
    assert_eq!(run.run8(), "d761d406");
    assert_eq!(
        run.reply_token("reserve", side, 1),
        ReplyToken::new("6nvph3u7ey7l324ipsqw")
    );
    assert_eq!(
        command_id(&saga(), "o-1", &run.run8(), "reserve", side),
        "shop/order-fulfilment/o-1/d761d406/reserve"
    );
    assert_eq!(
        command_id(&saga(), "o-1", &run.run8(), "reserve", Side::Compensation),
        "shop/order-fulfilment/o-1/d761d406/reserve/compensate"
    );
}

#[test]
fn a_run_is_not_shown() {
    assert!(!format!("{:?}", Run::new([0xab; 16])).contains("abab"));
}

#[test]
fn a_reply_token_is_shown_by_its_subject_alone() {
    let token = "6nvph3u7ey7l324ipsqw";
    let kind = LogKind::Reply {
        step: "reserve".to_owned(),
        side: Side::Action,
        attempt: 1,
        token: ReplyToken::new(token),
    };
    assert!(kind.to_string().ends_with(token));
    let subject = LogSubject::new("o-1", 64, kind).unwrap();
    assert!(!format!("{subject:?}").contains(token));
    let text = subject.to_subject(&saga(), SUBJECT_ROOT).unwrap();
    for refused in [format!("{text}.more"), format!("other.{text}")] {
        let error = LogSubject::parse(&refused, &saga().log_prefix(SUBJECT_ROOT)).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(token), "{error}");
        assert!(error.to_string().contains(".r.reserve.a.1.…"), "{error}");
    }
}

/// Any text may be an instance's id, but not any text is a header of NATS or HTTP.
#[test]
fn command_ids_are_header_values() {
    let id = command_id(
        &saga(),
        "a/b c\r\nX: é",
        "d761d406",
        "reserve",
        Side::Action,
    );
    assert_eq!(
        id,
        "shop/order-fulfilment/a=2Fb=20c=0D=0AX=3A=20=C3=A9/d761d406/reserve"
    );
    let long = command_id(
        &saga(),
        &"x".repeat(201),
        "d761d406",
        "reserve",
        Side::Action,
    );
    assert!(long.len() < 100, "{long}");
}

fn any_side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Action), Just(Side::Compensation)]
}

fn any_timer() -> impl Strategy<Value = TimerId> {
    let parts = || ("[a-z][A-Za-z0-9]{0,30}", any_side(), any::<u32>());
    prop_oneof![
        any::<u32>().prop_map(TimerId::Saga),
        parts().prop_map(|(step, side, n)| TimerId::Attempt(step, side, n)),
        parts().prop_map(|(step, side, n)| TimerId::Backoff(step, side, n)),
        parts().prop_map(|(step, side, n)| TimerId::Step(step, side, n)),
    ]
}

fn any_kind() -> impl Strategy<Value = LogKind> {
    prop_oneof![
        Just(LogKind::Started),
        Just(LogKind::Cancel),
        Just(LogKind::Decision),
        Just(LogKind::Signal),
        Just(LogKind::Checkpoint),
        Just(LogKind::Erased),
        "[a-z0-9-]{1,20}".prop_map(LogKind::Published),
        any_timer().prop_map(LogKind::Timer),
        ("[a-z][A-Za-z0-9]{0,30}", any_side(), any::<u32>()).prop_map(|(step, side, attempt)| {
            LogKind::Observed {
                step,
                side,
                attempt,
            }
        }),
        (
            "[a-z][A-Za-z0-9]{0,30}",
            any_side(),
            any::<u32>(),
            "[a-z2-7]{20}"
        )
            .prop_map(|(step, side, attempt, token)| LogKind::Reply {
                step,
                side,
                attempt,
                token: ReplyToken::new(&token)
            }),
    ]
}

proptest! {
    #[test]
    fn tokens_are_reversible_and_safe(text in ".{0,60}") {
        prop_assume!(text.len() <= TOKEN_SOURCE_BYTES_MAX);
        let token = encode_token(&text).unwrap();
        prop_assert_eq!(decode_token(&token).unwrap(), text);
        prop_assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-=".contains(&b)));
        prop_assert!(!token.is_empty());
    }

    #[test]
    fn a_token_has_one_spelling(token in "[A-Za-z0-9_=-]{1,12}") {
        if let Ok(text) = decode_token(&token) {
            prop_assert_eq!(encode_token(&text).unwrap(), token);
        }
    }

    #[test]
    fn log_subjects_are_reversible(instance in ".{0,40}", kind in any_kind(), partitions in 1_u16..=256) {
        let subject = LogSubject::new(&instance, partitions, kind).unwrap();
        let text = subject.to_subject(&saga(), SUBJECT_ROOT).unwrap();
        prop_assert_eq!(LogSubject::parse(&text, &saga().log_prefix(SUBJECT_ROOT)).unwrap(), subject);
    }

    #[test]
    fn any_subject_is_parsed_or_refused(subject in "(_tm\\.log\\.shop\\.order-fulfilment)?[a-z0-9.=-]{0,40}") {
        if let Ok(parsed) = LogSubject::parse(&subject, &saga().log_prefix(SUBJECT_ROOT)) {
            prop_assert_eq!(parsed.to_subject(&saga(), SUBJECT_ROOT).unwrap(), subject);
        }
    }

    #[test]
    fn reply_tokens_differ(bits in any::<[u8; 16]>(), attempt in any::<u32>()) {
        let run = Run::new(bits);
        prop_assert_ne!(run.reply_token("a", Side::Action, attempt), run.reply_token("a", Side::Compensation, attempt));
        prop_assert_ne!(run.reply_token("a", Side::Action, attempt), run.reply_token("a", Side::Action, attempt.wrapping_add(1)));
        prop_assert_eq!(Run::try_from(String::from(run)).unwrap(), run);
    }

    #[test]
    fn event_positions_are_reversible(position in any_position()) {
        prop_assert_eq!(EventPosition::parse(&position.to_string()), Some(position));
    }

    #[test]
    fn any_position_is_read_or_refused(text in "[a-z0-9-]{0,3}/?[a-z0-9-]{0,3}=?[a-z=.]{0,4}(\\.[0-9]{0,2})?:?[0-9]{0,3}") {
        if let Some(position) = EventPosition::parse(&text) {
            prop_assert_eq!(position.to_string(), text);
        }
    }

    #[test]
    fn parked_subjects_are_reversible_and_of_one_resource(
        a in any_resource(), b in any_resource(), partition in any::<u16>(), key in ".{0,30}", position in any_position()
    ) {
        let written = match a.kind {
            Kind::Projection => ParkedSubject::Row { partition, token: encode_token(&key).unwrap() },
            Kind::Saga => ParkedSubject::Trigger { partition, position },
        };
        let subject = written.to_subject(&a, SUBJECT_ROOT);
        prop_assert_eq!(ParkedSubject::parse(&subject, &a, SUBJECT_ROOT), Some(written));
        prop_assert!(a == b || ParkedSubject::parse(&subject, &b, SUBJECT_ROOT).is_none());
    }

    #[test]
    fn any_parked_subject_is_read_or_refused(rest in "(\\.[a-z0-9=-]{0,3}){0,7}", resource in any_resource()) {
        let subject = format!("{}{rest}", resource.parked_prefix(SUBJECT_ROOT));
        if let Some(parsed) = ParkedSubject::parse(&subject, &resource, SUBJECT_ROOT) {
            prop_assert_eq!(parsed.to_subject(&resource, SUBJECT_ROOT), subject);
        }
    }

    #[test]
    fn keys_of_owners_and_counters_are_reversible(
        resource in any_resource(), other in any_resource(), pod in ".{0,80}", partition in any::<u16>()
    ) {
        let pod = pod_token(&pod);
        for (key, owner) in [
            (resource.heartbeat_key(&pod), OwnerKey::Heartbeat(&pod)),
            (resource.claim_key(partition), OwnerKey::Claim(partition)),
        ] {
            prop_assert_eq!(resource.parse_owner_key(&key), Some(owner));
            prop_assert!(resource == other || other.parse_owner_key(&key).is_none());
        }
        prop_assert_eq!(parse_counters_key(&resource.counters_key(partition)), Some((resource, partition)));
    }

    /// Whatever one resource keeps, no other finds as its own, and no two kinds of entry of one bucket have one key.
    #[test]
    fn names_of_two_resources_differ(a in any_resource(), b in any_resource(), partition in 0_u16..64, stream in any_stream()) {
        prop_assume!(a != b);
        let names = |of: &ResourceId| {
            let mut names = vec![
                of.parked_stream(), of.log_prefix("_tm"), of.control_subject("_tm", "start"), of.parked_prefix("_tm"),
                of.source(), of.inbox_prefix("_tm"), of.heartbeat_key("p"), of.claim_key(partition), of.counters_key(partition), of.start_key(&stream),
            ];
            // A log is a Saga's, rows are a Projection's.
            names.push(match of.kind { Kind::Saga => of.log_stream(), Kind::Projection => of.rows_bucket() });
            if of.kind == Kind::Projection { names.remove(1); }
            names
        };
        for name in names(&a) {
            prop_assert!(!names(&b).contains(&name), "{}", name);
        }
        prop_assert!(!names(&a).contains(&event_stream(&stream.namespace, &stream.name)));
        prop_assert_eq!(parse_counters_key(&a.start_key(&stream)), None);
    }
}

fn any_name() -> impl Strategy<Value = String> {
    "[a-z0-9]([a-z0-9-]{0,2}[a-z0-9])?"
}

fn any_resource() -> impl Strategy<Value = ResourceId> {
    let kind = prop_oneof![Just(Kind::Projection), Just(Kind::Saga)];
    (kind, "[ab]-?[ab]", "[ab]-?[ab]|log|pod")
        .prop_map(|(kind, namespace, name)| ResourceId::new(kind, &namespace, &name))
}

fn any_stream() -> impl Strategy<Value = crate::definition::StreamRef> {
    (any_name(), any_name())
        .prop_map(|(namespace, name)| crate::definition::StreamRef { namespace, name })
}

fn any_position() -> impl Strategy<Value = EventPosition> {
    (any_stream(), ".{0,40}", any::<u64>(), any::<u64>()).prop_map(
        |(stream, incarnation, generation, sequence)| EventPosition {
            stream,
            incarnation,
            generation,
            sequence,
        },
    )
}

#[test]
fn keys_and_parked_subjects_are_as_promised() {
    let stream = crate::definition::StreamRef {
        namespace: "shop".to_owned(),
        name: "orders".to_owned(),
    };
    let revision = crate::definition::Revision::try_from("0123456789abcdef".to_owned()).unwrap();
    let position = EventPosition {
        stream: stream.clone(),
        incarnation: "x".to_owned(),
        generation: 2,
        sequence: 12,
    };
    assert_eq!(position.to_string(), "shop/orders=x.2:12");
    let prefix = "shop.saga.order-fulfilment";
    for (key, rest) in [
        (saga().heartbeat_key("p-0"), "pod.p-0"),
        (saga().claim_key(3), "claim.3"),
        (saga().counters_key(3), "3"),
        (saga().start_key(&stream), "start.shop.orders"),
        (saga().revision_key(&revision), "0123456789abcdef"),
        (saga().summary_key("o-1"), "o-1"),
    ] {
        assert_eq!(key, format!("{prefix}.{rest}"));
    }
    let trigger = ParkedSubject::Trigger {
        partition: 3,
        position,
    };
    assert_eq!(
        trigger.to_subject(&saga(), "_tm"),
        "_tm.parked.shop.saga.order-fulfilment.3.shop.orders.x.2.12"
    );
    let row = ParkedSubject::Row {
        partition: 3,
        token: "o-1".to_owned(),
    };
    let projection = ResourceId::new(Kind::Projection, "shop", "status");
    assert_eq!(
        row.to_subject(&projection, "_tm"),
        "_tm.parked.shop.projection.status.3.o-1"
    );
}
