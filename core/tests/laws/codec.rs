//! Inputs as the log holds them: what was written is read, whatever it holds.

use crate::given::{RUN, started};
use proptest::prelude::*;
use tidemill_core::control::Decision;
use tidemill_core::definition::StreamRef;
use tidemill_core::envelope::Event;
use tidemill_core::json::{DEPTH_MAX, Value};
use tidemill_core::names::{LogKind, ReplyToken, Side};
use tidemill_core::saga::{
    Asked, Input, InputError, Observed, SourcePosition, Started, decode_input,
};
use tidemill_core::timestamp::Timestamp;

fn read(kind: LogKind, payload: &[u8]) -> Result<Input, InputError> {
    decode_input(kind, &[], payload)
}

fn observed() -> LogKind {
    LogKind::Observed {
        step: "ship".to_owned(),
        side: Side::Action,
        attempt: 1,
    }
}

#[track_caller]
fn round_trip_started(started: &Started) {
    match read(LogKind::Started, &started.to_json()) {
        Ok(Input::Started(read)) => assert_eq!(*read, *started),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn round_trip_observed(what: &Observed) {
    match read(observed(), &what.to_json()) {
        Ok(Input::Observed { what: read, .. }) => assert_eq!(read, *what),
        other => panic!("{other:?}"),
    }
}

/// Numbers that serde's data model would change.
const DIGITS: [&str; 7] = [
    "1.10",
    "0.1234567890123456789",
    "123456789012345678901234567890",
    "-0",
    "1e2",
    "9223372036854775807.0",
    "18446744073709551615",
];

#[test]
pub(crate) fn what_an_input_is_its_subject_says() {
    let kind = LogKind::Reply {
        step: "reserve".to_owned(),
        side: Side::Action,
        attempt: 1,
        token: ReplyToken::new("a"),
    };
    for payload in [
        Input::decision_json(Decision::Retry, Some(3), &Asked::default()),
        Input::cancel_json(&Asked::default()),
        crate::given::started().to_json(),
    ] {
        let input = decode_input(kind.clone(), &[], &payload);
        assert!(matches!(input, Ok(Input::Reply { .. })), "{input:?}");
    }
}

#[test]
pub(crate) fn the_input_of_an_instance_keeps_its_digits() {
    for digits in DIGITS {
        let mut started = started();
        started.input.data = Value::parse(format!("[{digits}]").as_bytes()).unwrap();
        let payload = String::from_utf8(started.to_json()).unwrap();
        assert!(
            payload.contains(&format!("\"data\":[{digits}]")),
            "{payload}"
        );
        round_trip_started(&started);
    }
}

#[test]
pub(crate) fn an_http_answer_keeps_its_digits() {
    for digits in DIGITS {
        round_trip_observed(&Observed::Http {
            status: 200,
            body: Value::parse(digits.as_bytes()).ok(),
            retry_after_ms: None,
        });
    }
}

/// Whatever a participant or a publisher may send can be read from where it is kept: nested as deep as may be.
#[test]
pub(crate) fn what_is_nested_deepest_can_be_read_again() {
    let deep = format!("{}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
    let deep = Value::parse(deep.as_bytes()).unwrap();
    let mut started = started();
    started.input.data = deep.clone();
    round_trip_started(&started);
    round_trip_observed(&Observed::Http {
        status: 200,
        body: Some(deep),
        retry_after_ms: None,
    });
    let beyond = format!("{}{}", "[".repeat(DEPTH_MAX + 3), "]".repeat(DEPTH_MAX + 3));
    assert!(read(observed(), beyond.as_bytes()).is_err());
}

#[test]
pub(crate) fn every_field_of_a_start_comes_back() {
    let mut started = started();
    started.position = Some(SourcePosition {
        stream: StreamRef {
            namespace: "shop".to_owned(),
            name: "orders".to_owned(),
        },
        incarnation: "2026-01-01T00:00:00Z".to_owned(),
        sequence: u64::MAX,
    });
    started.correlation_id = "\u{0}\"é\r\n".to_owned();
    started.input.time = Some("2026-01-01T00:00:00+02:00".to_owned());
    started
        .input
        .extensions
        .insert("dataversion".to_owned(), "2".to_owned());
    started.input.subject = None;
    started.input.stored_at = Timestamp::from_millis(-5);
    round_trip_started(&started);
}

#[test]
pub(crate) fn everything_a_worker_sees_comes_back() {
    let message = || "it broke: \"é\"".to_owned();
    let http = |body, retry_after_ms| Observed::Http {
        status: 503,
        body,
        retry_after_ms,
    };
    for what in [
        // Not JSON, empty, JSON: three things.
        http(None, None),
        http(Some(Value::Null), Some(u64::MAX)),
        http(Value::parse(b"{\"a\":[null]}").ok(), Some(0)),
        Observed::NoResponders { sole: true },
        Observed::NoResponders { sole: false },
        Observed::Unreachable {
            sole: true,
            message: message(),
        },
        Observed::Lost { message: message() },
        Observed::Unsendable { message: message() },
        Observed::PublishRefused { message: message() },
    ] {
        round_trip_observed(&what);
    }
    // A worker that doesn't say that it is the only one isn't.
    match read(observed(), b"{\"noResponders\":{}}") {
        Ok(Input::Observed { what, .. }) => {
            assert_eq!(what, Observed::NoResponders { sole: false })
        }
        other => panic!("{other:?}"),
    }
}

#[test]
pub(crate) fn who_asked_and_why_comes_back() {
    let asked = Asked {
        by: "Ann".to_owned(),
        why: "é\n".to_owned(),
    };
    match read(LogKind::Cancel, &Input::cancel_json(&asked)) {
        Ok(Input::Cancel(read)) => assert_eq!(read, asked),
        other => panic!("{other:?}"),
    }
    for (decision, after) in [(Decision::Retry, None), (Decision::Skip, Some(7))] {
        match read(
            LogKind::Decision,
            &Input::decision_json(decision, after, &asked),
        ) {
            Ok(read) => {
                let asked = asked.clone();
                assert_eq!(
                    read,
                    Input::Decision {
                        decision,
                        after,
                        asked
                    }
                );
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
pub(crate) fn what_is_no_input_is_refused_and_says_why() {
    let text = |kind: LogKind, payload: &[u8]| match read(kind, payload) {
        Err(error) => error.to_string(),
        Ok(input) => panic!("{input:?}"),
    };
    for kind in [LogKind::Signal, LogKind::Checkpoint, LogKind::Erased] {
        assert!(text(kind, b"{}").contains("is not read in this version"));
    }
    assert_eq!(
        text(LogKind::Started, b"{"),
        "the payload can't be read: invalid JSON at byte 1: the document ends too early"
    );
    for payload in [
        &b""[..],
        b"{}",
        b"null",
        b"[]",
        b"{\"http\":{}}",
        b"\"nope\"",
        b"{\"http\":{\"status\":-1}}",
    ] {
        assert!(text(observed(), payload).starts_with("the payload can't be read"));
    }
    for payload in [&b"{}"[..], b"{\"decision\":\"maybe\"}", b"[]"] {
        assert!(text(LogKind::Decision, payload).starts_with("the payload can't be read"));
    }
    let without = |field: &str| {
        let Value::Object(mut object) = Value::parse(&started().to_json()).unwrap() else {
            panic!("an object");
        };
        object.remove(field);
        text(LogKind::Started, Value::Object(object).to_json().as_bytes())
    };
    assert!(without("run").contains("run"), "{}", without("run"));
    assert!(without("storedAt").contains("storedAt"));
    assert_eq!(without("input"), "the input event can't be read");
    // A run that can't be read is not shown.
    let secret = format!("{}x", String::from(RUN));
    let payload = String::from_utf8(started().to_json()).unwrap();
    let error = text(
        LogKind::Started,
        payload.replace(&String::from(RUN), &secret).as_bytes(),
    );
    assert!(!error.contains(&secret), "{error}");
}

fn any_json() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,2})?",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number.prop_filter_map("a number", |text| Value::parse(text.as_bytes()).ok()),
        ".{0,12}".prop_map(|text| Value::from(text.as_str())),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            prop::collection::vec((".{0,6}", inner), 0..5)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

pub(crate) fn any_event() -> impl Strategy<Value = Event> {
    let extension = ("[a-z0-9]{1,12}", ".{0,20}").prop_filter("an extension", |(name, _)| {
        ![
            "id",
            "source",
            "type",
            "subject",
            "time",
            "data",
            "specversion",
            "datacontenttype",
            "database64",
        ]
        .contains(&name.as_str())
    });
    let texts = (".{1,30}", ".{1,30}", ".{1,30}");
    (
        texts,
        prop::option::of(".{0,30}"),
        any::<bool>(),
        prop::collection::btree_map("[a-z0-9]{1,12}", ".{0,20}", 0..4),
        extension,
        any_json(),
        -1_000_000_000_000_i64..4_000_000_000_000,
    )
        .prop_map(
            |((id, source, event_type), subject, timed, mut extensions, extra, data, at)| {
                for name in [
                    "id",
                    "source",
                    "type",
                    "subject",
                    "time",
                    "data",
                    "specversion",
                    "datacontenttype",
                ] {
                    extensions.remove(name);
                }
                extensions.insert(extra.0, extra.1);
                let at = Timestamp::from_millis(at);
                Event {
                    id,
                    source,
                    event_type,
                    subject,
                    time: timed.then(|| at.to_string()),
                    extensions,
                    data,
                    stored_at: at,
                }
            },
        )
}

proptest! {
    #![proptest_config(crate::fuzz::cases(10))]

    #[test]
    fn any_start_comes_back(input in any_event(), correlation_id in ".{0,20}", bits in any::<[u8; 16]>()) {
        let run = tidemill_core::names::Run::new(bits);
        let started = Started { run, input, correlation_id, ..started() };
        match read(LogKind::Started, &started.to_json()) {
            Ok(Input::Started(read)) => prop_assert_eq!(*read, started),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn any_http_answer_comes_back(status in any::<u32>(), body in prop::option::of(any_json()), retry_after_ms in any::<Option<u64>>()) {
        let what = Observed::Http { status, body, retry_after_ms };
        match read(observed(), &what.to_json()) {
            Ok(Input::Observed { what: read, .. }) => prop_assert_eq!(read, what),
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
