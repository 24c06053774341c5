//! Whatever comes from outside, nothing panics. `FUZZ_CASES` says how many cases each test tries; CI sets it.

use proptest::prelude::*;
use std::sync::LazyLock;
use tidemill_core::envelope::{Decoder, RawMessage};
use tidemill_core::names::{LogKind, LogSubject, ReplyToken, Side, TimerId};
use tidemill_core::saga::{classify_reply, decode_input};
use tidemill_core::timestamp::Timestamp;

/// `FUZZ_CASES` of them, divided by `share` where a case is no input from outside.
pub(crate) fn cases(share: u32) -> ProptestConfig {
    let cases = std::env::var("FUZZ_CASES").ok();
    let cases: Option<u32> = cases.and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: cases.map_or(2_000, |cases| cases / share),
        failure_persistence: None,
        // The default one takes a third of the time without optimisation.
        rng_algorithm: prop::test_runner::RngAlgorithm::XorShift,
        ..ProptestConfig::default()
    }
}

fn any_headers() -> impl Strategy<Value = Vec<(String, String)>> {
    let name = prop_oneof![
        3 => prop::sample::select(vec![
            "ce-id", "ce-source", "ce-type", "ce-specversion", "CE-Time", "ce-subject", "ce-datacontenttype", "ce-x",
            "content-type", "Content-Type", "Nats-Msg-Id", "Nats-Service-Error-Code", "Nats-Service-Error", "x-kind",
        ]).prop_map(str::to_owned),
        1 => "[cC][eE]-.{0,6}",
        1 => ".{0,8}",
    ];
    let value = prop_oneof![
        3 => prop::sample::select(vec![
            "1", "1.0", "T", "/a", "application/cloudevents+json", "application/json", "text/plain", "409", "500",
            "2026-01-01T00:00:00Z", "9999-99-99T99:99:99.9999999999999Z", "%", "%ff", "%C3%A9",
        ]).prop_map(str::to_owned),
        1 => "[0-9:.TZ+-]{0,30}",
        1 => ".{0,20}",
    ];
    prop::collection::vec((name, value), 0..8)
}

fn any_payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => prop::collection::vec(any::<u8>(), 0..60),
        3 => "[\\[\\]{}:,\"a-z0-9.eE+-]{0,60}".prop_map(String::into_bytes),
        2 => prop::sample::select(vec![
            r#"{"specversion":"1.0","id":"1","source":"/a","type":"T","data":{"a":[1,2.5]}}"#,
            r#"{"kind":"Sold","id":7,"at":"2026-01-01T00:00:00Z"}"#,
            r#"{"stream":"S","seq":1}"#,
            r#"{"http":{"status":200,"body":{"a":1}}}"#,
            r#"{"noResponders":{"sole":true}}"#,
            r#"{"decision":"retry","by":"a","why":"b"}"#,
            r#"{"stream":"S","sequence":18446744073709551615}"#,
            r#"{"run":"07070707070707070707070707070707","revision":"0123456789abcdef","storedAt":1,"correlationId":"c","input":{"specversion":"1.0","id":"1","source":"/a","type":"T"}}"#,
        ]).prop_map(|text| text.as_bytes().to_vec()),
        // A good document with one byte changed.
        2 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| {
            let mut payload = crate::given::started().to_json();
            let at = at.index(payload.len());
            payload[at] = byte;
            payload
        }),
    ]
}

fn any_kind() -> impl Strategy<Value = LogKind> {
    let attempt = || {
        (
            ".{0,6}",
            prop::sample::select(vec![Side::Action, Side::Compensation]),
            any::<u32>(),
        )
    };
    prop_oneof![
        2 => Just(LogKind::Started),
        1 => Just(LogKind::Cancel),
        1 => Just(LogKind::Decision),
        1 => Just(LogKind::Signal),
        1 => Just(LogKind::Checkpoint),
        1 => Just(LogKind::Erased),
        1 => ".{0,8}".prop_map(LogKind::Published),
        1 => any::<u32>().prop_map(|n| LogKind::Timer(TimerId::Saga(n))),
        2 => attempt().prop_map(|(step, side, attempt)| LogKind::Observed { step, side, attempt }),
        2 => (attempt(), ".{0,22}").prop_map(|((step, side, attempt), token)| LogKind::Reply {
            step,
            side,
            attempt,
            token: ReplyToken::new(&token),
        }),
    ]
}

static DECODER: LazyLock<Decoder> = LazyLock::new(crate::envelope::decoder);

fn borrowed(headers: &[(String, String)]) -> Vec<(&str, &str)> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

proptest! {
    #![proptest_config(cases(1))]

    #[test]
    fn no_message_panics_the_decoder(
        subject in prop_oneof!["shop\\.orders\\..{0,12}", "(till|plain|legacy)\\.[a-z.*>]{0,12}", ".{0,20}"],
        headers in any_headers(),
        payload in any_payload(),
        at in any::<i64>(),
    ) {
        let headers = borrowed(&headers);
        let message = RawMessage { subject: &subject, headers: &headers, payload: &payload, sequence: 1, stored_at: Timestamp::from_millis(at) };
        match DECODER.decode(&message) {
            // What was read can be kept, and read again from where it is kept.
            Ok(event) => {
                let kept = tidemill_core::saga::Started { input: event, ..crate::given::started() };
                let read = decode_input(LogKind::Started, &[], &kept.to_json());
                prop_assert_eq!(read.ok(), Some(tidemill_core::saga::Input::Started(Box::new(kept))));
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn no_message_panics_the_log_s_reader(kind in any_kind(), headers in any_headers(), payload in any_payload()) {
        let headers = borrowed(&headers);
        if let Err(error) = decode_input(kind, &headers, &payload) {
            prop_assert!(!error.to_string().is_empty());
        }
        let _ = classify_reply(&headers, &payload);
    }

    #[test]
    fn no_subject_panics_the_log_s_reader(subject in "_tm\\.log\\.shop\\.orders\\.[0-9]{1,6}\\.[a-z0-9=]{0,6}\\.[srxptgcdke]\\.?[a-z0-9.=-]{0,40}") {
        if let Ok(parsed) = LogSubject::parse(&subject, "_tm.log.shop.orders") {
            let id = tidemill_core::names::ResourceId::new(tidemill_core::names::Kind::Saga, "shop", "orders");
            prop_assert_eq!(parsed.to_subject(&id, "_tm").unwrap(), subject);
        }
    }
}
