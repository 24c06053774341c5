//! JSON against serde_json: the same documents are accepted, they mean the same, and what is written reads back.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test, also outside of its #[test] functions"
)]

use proptest::prelude::*;
use tidemill_core::json::{DEPTH_MAX, Reason, Value};

/// Text of a JSON number, also of ones that few programs write.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|value| value.to_string()),
        any::<u64>().prop_map(|value| value.to_string()),
        any::<f64>()
            .prop_filter("finite", |value| value.is_finite())
            .prop_map(|value| format!("{value:?}")),
        "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,2})?",
        Just("-0".to_owned()),
    ]
}

fn string() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        r#""([a-zé😀/ ]|\\["\\/bfnrt]|\\u00[0-9a-fA-F]{2}|\\ud83d\\ude0[0-9]){0,8}""#,
    ]
}

fn document() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        number(),
        string()
    ];
    leaf.prop_recursive(6, 40, 6, |inner| {
        let key = prop_oneof!["\"[a-c]\"", string()];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6)
                .prop_map(|items| format!("[{}]", items.join(" , "))),
            prop::collection::vec((key, inner), 0..6).prop_map(|members| format!(
                "{{{}}}",
                members
                    .iter()
                    .map(|(key, value)| format!("{key}:\n{value}"))
                    .collect::<Vec<_>>()
                    .join(",")
            )),
        ]
    })
}

/// A document with a few bytes changed, removed or added.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        any::<u8>(),
        prop::sample::select(b"{}[]\",:\\u0123456789eE+-.tfn \n".to_vec())
    ];
    (
        document(),
        prop::collection::vec((any::<prop::sample::Index>(), byte, 0..3_u8), 1..4),
    )
        .prop_map(|(text, changes)| {
            let mut bytes = text.into_bytes();
            for (index, byte, how) in changes {
                let at = index.index(bytes.len() + 1);
                match how {
                    0 => bytes.insert(at, byte),
                    1 if at < bytes.len() => bytes[at] = byte,
                    _ if at < bytes.len() => drop(bytes.remove(at)),
                    _ => bytes.push(byte),
                }
            }
            bytes
        })
}

fn check(source: &[u8]) {
    match (
        Value::parse(source),
        serde_json::from_slice::<serde_json::Value>(source),
    ) {
        (Ok(ours), Ok(theirs)) => {
            let written = ours.to_json();
            assert_eq!(
                Value::parse(written.as_bytes()).unwrap(),
                ours,
                "what is written reads back"
            );
            assert_eq!(
                Value::parse(written.as_bytes()).unwrap().to_json(),
                written,
                "the written form is canonical"
            );
            assert_eq!(
                serde_json::from_str::<serde_json::Value>(&written).unwrap(),
                theirs,
                "both mean the same"
            );
            assert!(ours.is_within_depth(DEPTH_MAX));
        }
        (Err(_), Err(_)) => {}
        // The only documents that serde_json takes and we don't.
        (Err(error), Ok(_)) => assert_eq!(
            error.reason,
            Reason::Depth,
            "{error} in {:?}",
            String::from_utf8_lossy(source)
        ),
        (Ok(_), Err(error)) => panic!(
            "we accept what serde_json refuses ({error}): {:?}",
            String::from_utf8_lossy(source)
        ),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn documents_are_read_as_serde_json_reads_them(source in document()) {
        prop_assert!(Value::parse(source.as_bytes()).is_ok());
        check(source.as_bytes());
    }

    #[test]
    fn damaged_documents_are_refused_as_serde_json_refuses_them(source in mutated()) {
        check(&source);
    }

    #[test]
    fn no_bytes_panic(source in prop::collection::vec(any::<u8>(), 0..64)) {
        check(&source);
    }

    #[test]
    fn digits_of_numbers_are_kept(text in number()) {
        prop_assert_eq!(Value::parse(text.as_bytes()).unwrap().to_json(), text);
    }

    #[test]
    fn serde_keeps_values_whose_digits_are_canonical(source in document()) {
        let theirs: serde_json::Value = serde_json::from_str(&source).unwrap();
        let ours = Value::from(theirs.clone());
        prop_assert_eq!(&serde_json::Value::from(ours.clone()), &theirs);
        prop_assert_eq!(&serde_json::to_value(&ours).unwrap(), &theirs);
        prop_assert_eq!(&serde_json::from_value::<Value>(theirs).unwrap(), &ours);
    }
}
