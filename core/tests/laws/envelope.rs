//! Events: read from every form, written in one.

use proptest::prelude::*;
use tidemill_core::contract::{Capture, CaptureFormat, StreamBinding};
use tidemill_core::definition::StreamRef;
use tidemill_core::envelope::{
    ATTRIBUTE_BYTES_MAX, DecodeError, Decoder, EXTENSIONS_MAX, Event, RawMessage, subject_parts,
};
use tidemill_core::timestamp::Timestamp;

const STORED_AT: i64 = 1_767_225_600_000;

pub(crate) fn decoder() -> Decoder {
    let capture = |subjects: &[&str], format: CaptureFormat| Capture {
        subjects: subjects.iter().map(|&subject| subject.to_owned()).collect(),
        format,
        event_type: None,
        entity: None,
        time: None,
    };
    let binding = StreamBinding {
        stream: StreamRef {
            namespace: "shop".to_owned(),
            name: "orders".to_owned(),
        },
        name: "shop_orders".to_owned(),
        prefix: "shop.orders".to_owned(),
        capture: vec![
            Capture {
                event_type: Some("message.data.kind".to_owned()),
                entity: Some("message.data.id".to_owned()),
                time: Some("message.data.at".to_owned()),
                ..capture(&["till.*.sold", "till.fast"], CaptureFormat::Json)
            },
            Capture {
                event_type: Some("message.headers['X-Kind']".to_owned()),
                entity: Some("message.subject".to_owned()),
                ..capture(&["plain.>"], CaptureFormat::Json)
            },
            capture(&["legacy.>"], CaptureFormat::CloudEvents),
        ],
    };
    Decoder::new(&binding).unwrap()
}

fn decode(subject: &str, headers: &[(&str, &str)], payload: &str) -> Result<Event, DecodeError> {
    decoder().decode(&RawMessage {
        subject,
        headers,
        payload: payload.as_bytes(),
        sequence: 7,
        stored_at: Timestamp::from_millis(STORED_AT),
    })
}

/// An event as its structured form, or the error's words with their cause.
#[track_caller]
fn check(subject: &str, headers: &[(&str, &str)], payload: &str, then: &str) {
    let told = match decode(subject, headers, payload) {
        Ok(event) => event.to_value().to_json(),
        Err(error) => match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    };
    assert_eq!(told, then, "{subject} {headers:?} {payload}");
}

const ID: (&str, &str) = ("ce-id", "1");
const SOURCE: (&str, &str) = ("ce-source", "/a");
const TYPE: (&str, &str) = ("ce-type", "T");
const VERSION: (&str, &str) = ("ce-specversion", "1.0");
const PLAIN: &str = r#"{"id":"1","source":"/a","specversion":"1.0","type":"T"}"#;

/// A binary event with these headers added to the required ones.
#[track_caller]
fn binary(more: &[(&str, &str)], payload: &str, then: &str) {
    let headers = [&[ID, SOURCE, TYPE, VERSION], more].concat();
    check("shop.orders.o-1.T", &headers, payload, then);
}

#[track_caller]
fn structured(payload: &str, then: &str) {
    let headers = [(
        "content-type",
        "application/cloudevents+json; charset=utf-8",
    )];
    check("shop.orders.o-1.T", &headers, payload, then);
}

#[test]
fn binary_events_are_read() {
    binary(&[], "", PLAIN);
    binary(&[("Nats-Msg-Id", "x"), ("X-Other", "1")], "null", PLAIN);
    binary(
        &[
            ("ce-subject", "o-1"),
            ("ce-time", "2026-01-01T00:00:00Z"),
            ("ce-dataversion", "2"),
        ],
        " {\"total\": 1.10} ",
        r#"{"data":{"total":1.10},"dataversion":"2","id":"1","source":"/a","specversion":"1.0","subject":"o-1","time":"2026-01-01T00:00:00Z","type":"T"}"#,
    );
}

#[test]
fn headers_are_read_in_any_case() {
    let headers = [
        ("CE-ID", "1"),
        ("Ce-Source", "/a"),
        ("cE-tYpE", "T"),
        ("Ce-SpecVersion", "1.0"),
        ("Ce-TraceParent", "t"),
        ("CONTENT-TYPE", "Application/JSON; charset=utf-8"),
    ];
    let then =
        r#"{"data":1,"id":"1","source":"/a","specversion":"1.0","traceparent":"t","type":"T"}"#;
    check("shop.orders.o-1.T", &headers, "1", then);
}

#[test]
fn percent_encoding_is_that_of_http() {
    for (written, read) in [
        ("a%20b", "a b"),
        ("%C3%A9%F0%9F%98%80", "é😀"),
        ("%c3%a9", "é"),
        ("é", "é"),
        ("100%", "100%"),
        ("%zz%4", "%zz%4"),
        ("%25%22", "%\\\""),
        ("%0D%0A", "\\r\\n"),
        ("", ""),
    ] {
        let then = format!(
            r#"{{"id":"1","source":"/a","specversion":"1.0","subject":"{read}","type":"T"}}"#
        );
        binary(&[("ce-subject", written)], "", &then);
    }
    binary(
        &[("ce-subject", "%ff")],
        "",
        "CloudEvents attribute `ce-*` is not UTF-8 after percent-decoding",
    );
}

#[test]
fn structured_events_are_read() {
    structured(PLAIN, PLAIN);
    structured(
        r#"{"specversion":"1.0","id":"1","source":"/a","type":"T","data":{"total":1.10},"datacontenttype":"application/json","n":7,"yes":true,"gone":null,"subject":null}"#,
        r#"{"data":{"total":1.10},"id":"1","n":"7","source":"/a","specversion":"1.0","type":"T","yes":"true"}"#,
    );
}

/// Each refusal says what is wrong by its name.
#[test]
fn what_is_no_event_says_why() {
    let missing = |name: &str| {
        format!(
            "no CloudEvents attribute `{name}`: not an event (plain JSON needs a `capture` with `format: Json`)"
        )
    };
    let all = [ID, SOURCE, TYPE, VERSION];
    for (index, name) in ["id", "source", "type", "specversion"]
        .into_iter()
        .enumerate()
    {
        let mut headers = all.to_vec();
        headers.remove(index);
        check("shop.orders.o.T", &headers, "", &missing(name));
        headers.push((all[index].0, ""));
        check("shop.orders.o.T", &headers, "", &missing(name));
    }
    check("shop.orders.o.T", &[], "{\"total\":1}", &missing("id"));
    binary(
        &[("ce-specversion", "0.3")],
        "",
        "CloudEvents version `0.3` is not 1.0",
    );
    binary(
        &[("ce-time", "yesterday")],
        "",
        "CloudEvents attribute `time` is not a time of RFC 3339",
    );
    let long = "x".repeat(ATTRIBUTE_BYTES_MAX + 1);
    binary(
        &[("ce-subject", &long)],
        "",
        "CloudEvents attribute `subject` is longer than 4096 bytes",
    );
    for (name, told) in [("ce-a_b", "a_b"), ("ce-", ""), ("ce-é", "é")] {
        let then = format!(
            "CloudEvents attribute `{told}` has a name with other characters than a-z and 0-9"
        );
        binary(&[(name, "1")], "", &then);
    }
    binary(
        &[("ce-data", "1")],
        "",
        "CloudEvents attribute `data` is not an attribute of its own",
    );
    binary(
        &[("content-type", "text/plain")],
        "hello",
        "content type `text/plain` is not JSON",
    );
    binary(
        &[("ce-datacontenttype", "application/avro")],
        "x",
        "content type `application/avro` is not JSON",
    );
    binary(
        &[],
        "{",
        "the payload is not JSON: invalid JSON at byte 1: the document ends too early",
    );
    structured("[]", "a structured event is a JSON object");
    structured(
        "",
        "the payload is not JSON: invalid JSON at byte 0: the document ends too early",
    );
    structured(
        &PLAIN.replace("\"1.0\"", "\"1.1\""),
        "CloudEvents version `1.1` is not 1.0",
    );
    structured(
        &PLAIN.replace('}', ",\"data_base64\":\"AA==\"}"),
        "CloudEvents attribute `data_base64` is not read in this version: send JSON in `data`",
    );
    structured(
        &PLAIN.replace('}', ",\"list\":[1]}"),
        "CloudEvents attribute `list` is neither text, number nor boolean",
    );
    structured(
        &PLAIN.replace('}', ",\"Upper\":1}"),
        "CloudEvents attribute `Upper` has a name with other characters than a-z and 0-9",
    );
    structured(
        &PLAIN.replace('}', ",\"datacontenttype\":\"text/xml\",\"data\":\"<a/>\"}"),
        "content type `text/xml` is not JSON",
    );
    check(
        "elsewhere",
        &all,
        "",
        "no `capture` of the stream is for subject `elsewhere`",
    );
    check(
        "shop.orders",
        &all,
        "",
        "no `capture` of the stream is for subject `shop.orders`",
    );
}

#[test]
fn extensions_have_a_limit() {
    let names: Vec<String> = (0..=EXTENSIONS_MAX).map(|n| format!("ce-x{n}")).collect();
    let more: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    binary(&more, "", "more than 64 extension attributes");
    let headers = [&[ID, SOURCE, TYPE, VERSION], &more[1..]].concat();
    let event = decode("shop.orders.o.T", &headers, "").unwrap();
    assert_eq!(event.extensions.len(), EXTENSIONS_MAX);
}

#[test]
fn a_trace_context_beside_the_event_is_its_own() {
    let parent = ("traceparent", "00-0af7-b7ad-01");
    let beside = [ID, SOURCE, TYPE, VERSION, parent, ("Tracestate", "a=1")];
    let event = decode("shop.orders.o.T", &beside, "").unwrap();
    assert_eq!(event.extension("traceparent"), Some("00-0af7-b7ad-01"));
    assert_eq!(event.extension("tracestate"), Some("a=1"));
    // What the event says itself holds, whole.
    let both = [&beside[..], &[("ce-traceparent", "00-1111-2222-00")]].concat();
    let event = decode("shop.orders.o.T", &both, "").unwrap();
    assert_eq!(event.extension("traceparent"), Some("00-1111-2222-00"));
    assert_eq!(event.extension("tracestate"), None);
    let captured = decode(
        "till.fast",
        &[parent],
        r#"{"kind":"Sold","id":7,"at":"2026-01-01T00:00:00Z"}"#,
    );
    assert_eq!(
        captured.unwrap().extension("traceparent"),
        Some("00-0af7-b7ad-01")
    );
}

#[test]
fn two_plain_messages_of_one_millisecond_are_two_events() {
    let id = |sequence| {
        let message = RawMessage {
            subject: "plain.a",
            headers: &[("x-kind", "Seen")],
            payload: b"1",
            sequence,
            stored_at: Timestamp::from_millis(STORED_AT),
        };
        decoder().decode(&message).unwrap().id
    };
    assert_ne!(id(1), id(2));
}

#[test]
fn plain_json_becomes_an_event_by_its_capture() {
    let sold = r#"{"kind":"Sold","id":7,"at":"2026-01-01T00:00:00Z"}"#;
    let then = |id: &str, subject: &str| {
        format!(
            r#"{{"data":{{"at":"2026-01-01T00:00:00Z","id":7,"kind":"Sold"}},"id":"{id}","source":"/nats/{subject}","specversion":"1.0","subject":"7","time":"2026-01-01T00:00:00Z","type":"Sold"}}"#
        )
    };
    check(
        "till.3.sold",
        &[("nats-msg-id", "m-1")],
        sold,
        &then("m-1", "till.3.sold"),
    );
    check(
        "till.fast",
        &[],
        sold,
        &then("7-1767225600000", "till.fast"),
    );
    check(
        "plain.a.b",
        &[("x-kind", "Seen")],
        "[1]",
        r#"{"data":[1],"id":"7-1767225600000","source":"/nats/plain.a.b","specversion":"1.0","subject":"plain.a.b","type":"Seen"}"#,
    );
    check(
        "till.3.sold",
        &[],
        "sold!",
        "the payload is not JSON: invalid JSON at byte 0: a value was expected",
    );
    check(
        "till.3.sold",
        &[],
        r#"{"kind":["Sold"],"id":7}"#,
        "CloudEvents attribute `type` of the capture gives neither text nor a number",
    );
    check(
        "till.3.sold",
        &[],
        r#"{"kind":"","id":7,"at":"2026-01-01T00:00:00Z"}"#,
        "no CloudEvents attribute `type`: not an event (plain JSON needs a `capture` with `format: Json`)",
    );
    check(
        "till.3.sold",
        &[],
        r#"{"kind":"Sold","id":7,"at":"now"}"#,
        "CloudEvents attribute `time` is not a time of RFC 3339",
    );
    let told = decode("till.3.sold", &[], "{}").unwrap_err();
    assert!(
        matches!(told, DecodeError::Capture { field: "type", .. }),
        "{told:?}"
    );
    let told = decode("till.3.sold", &[], r#"{"kind":"Sold","id":7}"#).unwrap_err();
    assert_eq!(
        told.in_full(),
        "capture time: `message.data.at` isn't there; guard it with has(), or send it"
    );
    let long = "ä".repeat(2_000);
    let told = decode("till.3.sold", &[("content-type", &long)], "1").unwrap_err();
    assert!(told.in_full().chars().count() <= 1_001, "{told:?}");
}

#[test]
fn captures_match_by_wildcards() {
    let headers = [ID, SOURCE, TYPE, VERSION];
    for (subject, captured) in [
        ("legacy.a", true),
        ("legacy.a.b.c", true),
        ("legacy", false),
        ("legacyx.a", false),
        ("till.a.b", false),
        ("till.sold", false),
        ("till.a.sold.more", false),
    ] {
        let found = decode(subject, &headers, "");
        assert_eq!(found.is_ok(), captured, "{subject}: {found:?}");
    }
}

#[test]
fn subjects_name_entity_and_type() {
    let parts = |subject| subject_parts("shop.orders", subject);
    let both = |entity: &str, event_type: &str| Some((entity.to_owned(), event_type.to_owned()));
    assert_eq!(
        parts("shop.orders.o=201.order=2Ecreated"),
        both("o 1", "order.created")
    );
    assert_eq!(parts("shop.orders.=.T"), both("", "T"));
    for none in [
        "shop.orders",
        "shop.orders.a",
        "shop.orders.a.b.c",
        "shop.ordersx.a.b",
        "shop.orders.a=.b",
        "shop.orders.=2e.b",
    ] {
        assert_eq!(parts(none), None, "{none}");
    }
}

#[test]
fn an_event_is_written_in_binary_mode() {
    let mut event = crate::given::event();
    event.subject = Some("o 1/é".to_owned());
    event.time = Some("2026-01-01T00:00:00Z".to_owned());
    event
        .extensions
        .insert("dataversion".to_owned(), "2".to_owned());
    let encoded = event.encode("shop.orders").unwrap();
    assert_eq!(encoded.subject, "shop.orders.o=201=2F=C3=A9.OrderPlaced");
    assert_eq!(encoded.message_id, "/shop e-1");
    let headers: Vec<String> = encoded
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    assert_eq!(
        headers,
        [
            "ce-specversion: 1.0",
            "ce-id: e-1",
            "ce-source: /shop",
            "ce-type: OrderPlaced",
            "ce-subject: o%201/%C3%A9",
            "ce-time: 2026-01-01T00:00:00Z",
            "ce-dataversion: 2",
            "ce-datacontenttype: application/json",
        ]
    );
    assert_eq!(encoded.payload, br#"{"items":[1,2],"total":10.50}"#);
    event.subject = None;
    assert_eq!(event.encode("p").unwrap().subject, "p.=.OrderPlaced");
    event.subject = Some("x".repeat(201));
    assert!(event.encode("p").is_err());
}

proptest! {
    #![proptest_config(crate::fuzz::cases(10))]

    #[test]
    fn what_is_written_is_read(event in crate::codec::any_event()) {
        let encoded = event.encode("shop.orders").unwrap();
        let headers: Vec<(&str, &str)> = encoded.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        for (name, value) in &headers {
            let printable = name.bytes().chain(value.bytes()).all(|byte| (0x21..=0x7e).contains(&byte));
            prop_assert!(printable, "{}: {}", name, value);
        }
        prop_assert!(!encoded.message_id.contains(['\r', '\n']));
        let message = RawMessage { subject: &encoded.subject, headers: &headers, payload: &encoded.payload, sequence: 1, stored_at: event.stored_at };
        let read = decoder().decode(&message);
        prop_assert_eq!(read.as_ref(), Ok(&event));
        let parts = subject_parts("shop.orders", &encoded.subject).unwrap();
        prop_assert_eq!((parts.0.as_str(), parts.1.as_str()), (event.entity(), event.event_type.as_str()));
    }

    #[test]
    fn the_structured_form_is_read(event in crate::codec::any_event()) {
        let read = Event::from_value(event.to_value(), event.stored_at);
        prop_assert_eq!(read.as_ref(), Ok(&event));
    }
}
