//! What an answer means: every class of codes, NATS and HTTP.

use tidemill_core::json::Value;
use tidemill_core::saga::{Answer, Failed, classify_http, classify_reply};

fn code(code: &str) -> Option<Answer> {
    let headers = [
        ("nats-service-error-CODE", code),
        ("Nats-Service-Error", "out of stock"),
    ];
    classify_reply(&headers, b"ignored")
}

#[test]
pub(crate) fn nats_400_to_499_is_refused_but_408_425_and_429() {
    for number in 0..1_000_u32 {
        let text = number.to_string();
        let refused = (400..500).contains(&number) && ![408, 425, 429].contains(&number);
        match code(&text) {
            Some(Answer::Refused { code, message }) if refused => {
                assert_eq!((code, message.as_str()), (number, "out of stock"));
            }
            Some(Answer::Failed(failed)) if !refused => {
                assert_eq!(failed.reason, "ServiceError");
                assert_eq!(failed.message, format!("{number} out of stock"));
                // The participant got it, so it may have been done.
                assert!(
                    failed.delivered && failed.counts && failed.retryable,
                    "{failed:?}"
                );
            }
            other => panic!("{number}: {other:?}"),
        }
    }
}

#[test]
pub(crate) fn a_code_that_is_no_number_is_a_bad_reply() {
    for text in ["", "x", "4o9", "-1", "409.0", "99999999999", "４０９"] {
        match code(text) {
            Some(Answer::Failed(Failed {
                reason: "BadReply", ..
            })) => {}
            other => panic!("{text:?}: {other:?}"),
        }
    }
    assert!(matches!(
        code(" 409 "),
        Some(Answer::Refused { code: 409, .. })
    ));
}

#[test]
pub(crate) fn nats_without_a_code_is_success() {
    for (body, output) in [
        ("", "null"),
        ("null", "null"),
        ("{}", "{}"),
        (r#" {"b":1, "a":[1.10]} "#, r#"{"a":[1.10],"b":1}"#),
        ("12345678901234567890.10", "12345678901234567890.10"),
        ("\"text\"", "\"text\""),
    ] {
        match classify_reply(&[("Other", "1")], body.as_bytes()) {
            Some(Answer::Success(value)) => assert_eq!(value.to_json(), output),
            other => panic!("{body}: {other:?}"),
        }
    }
    for body in ["{", "ok", "{}{}", "\u{feff}{}"] {
        match classify_reply(&[], body.as_bytes()) {
            Some(Answer::Failed(failed)) => {
                assert_eq!(failed.reason, "BadReply", "{body}");
                assert!(failed.delivered && failed.retryable, "{body}");
            }
            other => panic!("{body}: {other:?}"),
        }
    }
}

/// Bodies as nats-server writes them, of every version and kind of stream.
#[test]
pub(crate) fn a_jetstream_acknowledgement_is_no_answer() {
    for body in [
        r#"{"stream":"S","seq":1}"#,
        r#"{"stream":"S","seq":0}"#,
        r#"{"stream":"S","domain":"hub","seq":12}"#,
        r#"{"stream":"S","seq":12,"duplicate":true}"#,
        r#"{"stream":"S","seq":1,"val":"3"}"#,
        r#"{"stream":"S","seq":3,"batch":"b1","count":3}"#,
        r#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 3"},"stream":"S","seq":0}"#,
        r#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"S"}"#,
    ] {
        assert_eq!(classify_reply(&[], body.as_bytes()), None, "{body}");
    }
    for body in [
        r#"{"stream":"S"}"#,
        r#"{"seq":1}"#,
        r#"{"stream":7,"seq":1}"#,
        r#"{"stream":"S","seq":"1"}"#,
        r#"{"stream":"S","seq":1,"film":"Alien"}"#,
        r#"{"stream":"S","error":{"code":400}}"#,
        r#"[{"stream":"S","seq":1}]"#,
    ] {
        let answer = classify_reply(&[], body.as_bytes());
        assert!(
            matches!(answer, Some(Answer::Success(_))),
            "{body}: {answer:?}"
        );
    }
}

#[test]
pub(crate) fn http_codes_mean_what_the_design_says() {
    let null = Value::Null;
    for status in 0..1_000_u32 {
        let answer = classify_http(status, Some(&null), Some(7));
        let refused = [400, 402, 409, 410, 412, 422].contains(&status);
        match answer {
            Answer::Success(output) => {
                assert!((200..300).contains(&status), "{status}");
                assert_eq!(output, null);
            }
            Answer::Refused { code, .. } => {
                assert!(refused && code == status, "{status}");
            }
            Answer::Failed(failed) => {
                assert!(!refused && !(200..300).contains(&status), "{status}");
                assert_eq!(failed.retry_after_ms, Some(7));
                assert!(
                    failed.delivered && failed.counts && failed.retryable,
                    "{status}"
                );
            }
        }
    }
}

#[test]
pub(crate) fn http_words_are_found_in_the_body() {
    for (body, words) in [
        (r#"{"error":"no such street"}"#, "no such street"),
        (r#"{"message":"no such street"}"#, "no such street"),
        (r#"{"error":{"deep":1}}"#, "HTTP 422"),
        (r#"[1]"#, "HTTP 422"),
        ("null", "HTTP 422"),
    ] {
        let body = Value::parse(body.as_bytes()).unwrap();
        match classify_http(422, Some(&body), None) {
            Answer::Refused { message, .. } => assert_eq!(message, words),
            other => panic!("{other:?}"),
        }
    }
    // Refusing needs no JSON, succeeding does.
    assert!(matches!(
        classify_http(422, None, None),
        Answer::Refused { .. }
    ));
    match classify_http(200, None, None) {
        Answer::Failed(failed) => assert!(failed.reason == "BadReply" && failed.delivered),
        other => panic!("{other:?}"),
    }
}

#[test]
pub(crate) fn a_participant_s_words_are_cut() {
    let long = "é".repeat(10_000);
    let headers = [
        ("Nats-Service-Error-Code", "409"),
        ("Nats-Service-Error", &long),
    ];
    match classify_reply(&headers, b"") {
        Some(Answer::Refused { message, .. }) => assert_eq!(message.chars().count(), 200),
        other => panic!("{other:?}"),
    }
}
