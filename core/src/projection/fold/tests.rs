use super::super::position::Lineage;
use super::super::row::{ROW_BYTES_MAX, Source, Sources};
use super::*;
use crate::definition::{ProjectionDefinition, StreamRef};
use crate::json::Object;
use crate::timestamp::Timestamp;
use std::collections::BTreeMap;

fn projection(handlers: &str) -> Projection {
    let stream = StreamRef {
        namespace: "s".to_owned(),
        name: "a".to_owned(),
    };
    let mut definition = ProjectionDefinition::new(vec![stream], "event.subject");
    definition.handlers = serde_json::from_str(handlers).unwrap();
    Projection::compile(&definition).unwrap()
}

fn event(event_type: &str, subject: Option<&str>, data: &str) -> Event {
    Event {
        id: "1".to_owned(),
        source: "/test".to_owned(),
        event_type: event_type.to_owned(),
        subject: subject.map(str::to_owned),
        time: None,
        extensions: BTreeMap::new(),
        data: Value::parse(data.as_bytes()).unwrap(),
        stored_at: Timestamp::from_millis(1_000),
    }
}

fn at(sequence: u64) -> Position {
    Position {
        generation: 0,
        sequence,
    }
}

fn row(columns: &str) -> Row {
    match columns {
        "" => Row::missing(),
        columns => {
            let sources = Sources::new(vec![Source {
                stream: StreamRef {
                    namespace: "s".to_owned(),
                    name: "a".to_owned(),
                },
                lineage: Lineage::first("i"),
            }]);
            Row::read(&sources, columns.as_bytes(), "s/a=i:5").unwrap()
        }
    }
}

/// Folds one event of key `k` at position 9 and gives the row, or what came instead.
fn folded(handlers: &str, before: &str, event_type: &str, data: &str) -> String {
    let projection = projection(handlers);
    let event = event(event_type, Some("k"), data);
    let mut row = row(before);
    let was = row.clone();
    let touches = projection.touches(0, &event);
    let [touch] = touches.as_slice() else {
        return format!("{} touches", touches.len());
    };
    assert_eq!(&*touch.token, "k");
    match projection.fold(&mut row, touch, 0, at(9), &event) {
        Ok(Folded::Stored) => {
            assert_eq!(row.positions().get(0), at(9));
            if row.exists() {
                row.value()
            } else {
                "deleted".to_owned()
            }
        }
        Ok(other) => {
            assert_eq!(row, was);
            format!("{other:?}")
        }
        Err(error) => {
            assert_eq!(row, was, "an error changes nothing");
            format!("{}: {error}", error.reason())
        }
    }
}

#[test]
fn handlers_fold_as_the_design_says() {
    for (handlers, before, data, expected) in [
        // set merges, literals stay, null is stored, a copied number keeps its digits.
        (
            r#"[{"set":{"a":"=event.data.n","b":"x","c":null}}]"#,
            r#"{"z":1,"a":0}"#,
            r#"{"n":1.10}"#,
            r#"{"a":1.10,"b":"x","c":null,"z":1}"#,
        ),
        (r#"[{"set":{"a":1}}]"#, "", "null", r#"{"a":1}"#),
        // Time is the stored one where the event has none.
        (
            r#"[{"set":{"at":"=event.time"}}]"#,
            "",
            "null",
            r#"{"at":"1970-01-01T00:00:01.000Z"}"#,
        ),
        // Within a handler every expression sees the row as it was before it; the next one sees what it made.
        (
            r#"[{"set":{"a":"=row.b","b":"=row.a"}}]"#,
            r#"{"a":1,"b":2}"#,
            "null",
            r#"{"a":2,"b":1}"#,
        ),
        (
            r#"[{"set":{"a":1}},{"set":{"b":"=row.a + 1"}}]"#,
            "",
            "null",
            r#"{"a":1,"b":2}"#,
        ),
        // Increments begin at 0, also where a column is null, and are exact.
        (r#"[{"increment":{"n":1}}]"#, "", "null", r#"{"n":1}"#),
        (
            r#"[{"increment":{"n":1}}]"#,
            r#"{"n":null}"#,
            "null",
            r#"{"n":1}"#,
        ),
        (
            r#"[{"increment":{"n":"=event.data.x"}}]"#,
            r#"{"n":0.10}"#,
            r#"{"x":0.2}"#,
            r#"{"n":0.30}"#,
        ),
        (
            r#"[{"increment":{"n":"=event.data.x"}}]"#,
            r#"{"n":9007199254740993}"#,
            r#"{"x":-0.01}"#,
            r#"{"n":9007199254740992.99}"#,
        ),
        // The increment's expression may look at the row, too.
        (
            r#"[{"increment":{"n":"=has(row.n) ? row.n : 3"}}]"#,
            r#"{"n":2}"#,
            "null",
            r#"{"n":4}"#,
        ),
        // Conditions.
        (
            r#"[{"when":"event.data.x > 1","set":{"a":1}}]"#,
            "",
            r#"{"x":1}"#,
            "0 touches",
        ),
        (
            r#"[{"when":"!has(row.a)","set":{"a":1}}]"#,
            r#"{"a":0}"#,
            "null",
            "Nothing",
        ),
        (
            r#"[{"when":"!has(row.a)","set":{"a":1}}]"#,
            r#"{"b":0}"#,
            "null",
            r#"{"a":1,"b":0}"#,
        ),
        (
            r#"[{"when":"!has(row.a)","set":{"a":1}},{"set":{"b":1}}]"#,
            r#"{"a":0}"#,
            "null",
            r#"{"a":0,"b":1}"#,
        ),
        // Deleting; what comes after it begins with nothing.
        (r#"[{"delete":true}]"#, r#"{"a":0}"#, "null", "deleted"),
        (r#"[{"delete":true}]"#, "", "null", "Nothing"),
        (
            r#"[{"delete":true},{"set":{"b":1}}]"#,
            r#"{"a":0}"#,
            "null",
            r#"{"b":1}"#,
        ),
        (
            r#"[{"set":{"b":1}},{"delete":true}]"#,
            r#"{"a":0}"#,
            "null",
            "deleted",
        ),
        // A row that would not change still notes that the event is in it.
        (r#"[{"set":{"a":0}}]"#, r#"{"a":0}"#, "null", r#"{"a":0}"#),
    ] {
        assert_eq!(
            folded(handlers, before, "T", data),
            expected,
            "{handlers} on {before}"
        );
    }
}

#[test]
fn what_cannot_be_folded_changes_nothing_and_says_why() {
    for (handlers, before, data, expected) in [
        (
            r#"[{"set":{"a":"=event.data.x"}}]"#,
            "",
            "{}",
            "NoSuchKey: handlers[0].set.a: ",
        ),
        (
            r#"[{"set":{"a":{"b":["=event.data.x"]}}}]"#,
            "",
            "{}",
            "NoSuchKey: handlers[0].set.a.b[0]: ",
        ),
        (
            r#"[{"set":{"b":1}},{"set":{"a":"=event.data.x"}}]"#,
            r#"{"z":1}"#,
            "{}",
            "NoSuchKey: handlers[1].set.a: ",
        ),
        (
            r#"[{"when":"event.data.x","set":{"a":1}}]"#,
            "",
            r#"{"x":1}"#,
            "Result: handlers[0].when: ",
        ),
        (
            r#"[{"when":"row.x","set":{"a":1}}]"#,
            "",
            "{}",
            "NoSuchKey: handlers[0].when: ",
        ),
        (
            r#"[{"increment":{"n":"=event.data.x"}}]"#,
            "",
            r#"{"x":"1"}"#,
            "NotANumber: handlers[0].increment.n: the increment is a string",
        ),
        (
            r#"[{"increment":{"n":1}}]"#,
            r#"{"n":"1"}"#,
            "{}",
            "NotANumber: handlers[0].increment.n: the column is a string",
        ),
        (
            r#"[{"increment":{"n":0.1}}]"#,
            r#"{"n":1e27}"#,
            "{}",
            "TooManyDigits: handlers[0].increment.n: ",
        ),
    ] {
        let result = folded(handlers, before, "T", data);
        assert!(result.starts_with(expected), "{handlers}: {result}");
    }
}

#[test]
fn rows_that_could_not_be_read_again_are_refused() {
    let mut deep = "1".to_owned();
    for _ in 0..DEPTH_MAX - 1 {
        deep = format!("[{deep}]");
    }
    let handlers = r#"[{"set":{"a":"=event.data"}}]"#;
    assert_ne!(folded(handlers, "", "T", &deep), "");
    let result = folded(handlers, "", "T", &format!("[{deep}]"));
    assert!(result.starts_with("TooDeep: handlers[0].set.a"), "{result}");

    let large = format!("\"{}\"", "x".repeat(ROW_BYTES_MAX - 8));
    assert_eq!(folded(handlers, "", "T", &large).len(), ROW_BYTES_MAX);
    let result = folded(handlers, r#"{"b":1}"#, "T", &large);
    assert!(result.starts_with("RowTooLarge"), "{}", result.len());
    // Replacing a large column again and again doesn't make the row larger.
    let projection = projection(handlers);
    let event = event("T", Some("k"), &large);
    let mut row = Row::missing();
    for sequence in 1..5 {
        let touch = projection.touches(0, &event).pop().unwrap();
        assert_eq!(
            projection.fold(&mut row, &touch, 0, at(sequence), &event),
            Ok(Folded::Stored)
        );
    }
}

#[test]
fn a_sink_that_takes_less_limits_rows_too() {
    let mut projection = projection(r#"[{"set":{"a":"=event.data"}}]"#);
    projection.limit_rows(20);
    let fold = |before: &str, data: &str| {
        let event = event("T", Some("k"), data);
        let mut row = row(before);
        let touch = projection.touches(0, &event).pop().unwrap();
        let folded = projection.fold(&mut row, &touch, 0, at(9), &event);
        (folded, row.value())
    };
    let stored = |row: &str| (Ok(Folded::Stored), row.to_owned());
    assert_eq!(
        fold("", r#""abcdefghijkl""#),
        stored(r#"{"a":"abcdefghijkl"}"#)
    );
    let refused = Err(FoldError::RowTooLarge { max: 20 });
    assert_eq!(
        fold("", r#""abcdefghijklm""#),
        (refused.clone(), "{}".to_owned())
    );
    // A row of an earlier, wider limit can only shrink.
    let before = r#"{"a":"abcdefghijklmnopq"}"#;
    assert_eq!(
        fold(before, r#""bcdefghijklmn""#),
        (refused, before.to_owned())
    );
    assert_eq!(fold(before, "1"), stored(r#"{"a":1}"#));
    projection.limit_rows(usize::MAX);
    assert_eq!(projection.row_bytes_max(), ROW_BYTES_MAX);
}

#[test]
fn an_event_at_or_below_the_position_changes_nothing() {
    let projection = projection(r#"[{"increment":{"n":1}}]"#);
    let event = event("T", Some("k"), "null");
    let touch = projection.touches(0, &event).pop().unwrap();
    let mut row = Row::missing();
    for (sequence, expected, n) in [
        (3, Folded::Stored, 1_i64),
        (3, Folded::Passed, 1),
        (2, Folded::Passed, 1),
        (4, Folded::Stored, 2),
    ] {
        assert_eq!(
            projection.fold(&mut row, &touch, 0, at(sequence), &event),
            Ok(expected)
        );
        assert_eq!(row.columns().get("n"), Some(&Value::from(n)));
    }
    // Also not an error, nor one that would delete.
    let next = Position {
        generation: 1,
        sequence: 1,
    };
    assert_eq!(
        projection.fold(&mut row, &touch, 0, next, &event),
        Ok(Folded::Stored)
    );
    let keyless = Touch::undecodable(DecodeError::NotAnObject);
    assert!(keyless.is_keyless());
    assert_eq!(
        projection.fold(&mut row, &keyless, 0, next, &event),
        Ok(Folded::Passed)
    );
}

#[test]
fn a_deleted_row_keeps_its_position() {
    let projection = projection(r#"[{"type":"Put","set":{"a":1}},{"type":"Del","delete":true}]"#);
    let mut row = Row::missing();
    let mut fold = |event_type: &str, sequence| {
        let event = event(event_type, Some("k"), "null");
        let touch = projection.touches(0, &event).pop().unwrap();
        (
            projection
                .fold(&mut row, &touch, 0, at(sequence), &event)
                .unwrap(),
            row.exists(),
        )
    };
    assert_eq!(fold("Put", 1), (Folded::Stored, true));
    assert_eq!(fold("Del", 2), (Folded::Stored, false));
    assert_eq!(
        fold("Put", 1),
        (Folded::Passed, false),
        "an older event can't bring it back"
    );
    assert_eq!(fold("Del", 3), (Folded::Stored, false));
    assert_eq!(fold("Put", 4), (Folded::Stored, true));
}

fn tokens(handlers: &str, event: &Event) -> Vec<String> {
    let touches = projection(handlers).touches(0, event);
    touches
        .iter()
        .map(|touch| match &touch.what {
            What::Handlers(handlers) => format!("{} {handlers:?}", touch.token),
            What::Error(error) => format!("{} {}", touch.token, error.reason()),
        })
        .collect()
}

#[test]
fn an_event_touches_the_rows_that_its_handlers_name() {
    let handlers = r#"[
        {"type":"T","set":{"a":1}},
        {"type":"T","key":"event.data.other","set":{"b":1}},
        {"set":{"c":1}},
        {"type":"U","key":"event.data.other","when":"event.data.on","set":{"d":1}}
    ]"#;
    for (event_type, subject, data, expected) in [
        (
            "T",
            Some("x"),
            r#"{"other":"y z"}"#,
            vec!["x [0, 2]", "y=20z [1]"],
        ),
        ("T", Some("x"), r#"{"other":"x"}"#, vec!["x [0, 1, 2]"]),
        (
            "T",
            Some("x"),
            r#"{"other":1.50}"#,
            vec!["x [0, 2]", "1=2E50 [1]"],
        ),
        (
            "T",
            Some("x"),
            r#"{"other":true}"#,
            vec!["x [0, 2]", "true [1]"],
        ),
        (
            "T",
            Some("x"),
            r#"{"other":null}"#,
            vec!["x [0, 2]", "=nokey KeyType"],
        ),
        ("T", Some("x"), "{}", vec!["x [0, 2]", "=nokey NoSuchKey"]),
        (
            "T",
            None,
            r#"{"other":"y"}"#,
            vec!["=nokey NoSuchKey", "y [1]"],
        ),
        ("T", None, "{}", vec!["=nokey NoSuchKey"]),
        ("V", Some(""), "null", vec!["= [2]"]),
        // A condition that doesn't hold needs no key.
        ("U", Some("x"), r#"{"on":false}"#, vec!["x [2]"]),
        // One that fails parks the row it is for.
        (
            "U",
            Some("x"),
            r#"{"other":"y"}"#,
            vec!["x [2]", "y NoSuchKey"],
        ),
        ("U", Some("x"), r#"{"other":"x"}"#, vec!["x NoSuchKey"]),
    ] {
        assert_eq!(
            tokens(handlers, &event(event_type, subject, data)),
            expected,
            "{event_type} {data}"
        );
    }
    let long = event("V", Some(&"x".repeat(201)), "null");
    assert_eq!(tokens(handlers, &long), ["=nokey KeyTooLong"]);
    let none = event("W", Some("x"), "null");
    assert_eq!(tokens(r#"[{"type":"T","set":{"a":1}}]"#, &none), [""; 0]);
}

#[test]
fn every_event_is_counted_in_one_partition() {
    let of = |subject: Option<&str>| event_partition(Some(&event("T", subject, "null")));
    assert_eq!(of(Some("k")), partition("k", PROJECTION_PARTITIONS));
    assert_eq!(of(None), partition("=", PROJECTION_PARTITIONS));
    assert_eq!(of(Some(&"x".repeat(300))), event_partition(None));
}

#[test]
fn quick_counts_are_never_below_the_truth() {
    for text in [
        r#""a\"\\\n\u0001é𝄞""#,
        "[]",
        "{}",
        r#"{"a":[1,-9223372036854775808,1.5e300,null,true,false]}"#,
        "1.10",
        "-0",
    ] {
        let value = Value::parse(text.as_bytes()).unwrap();
        assert!(json_bytes_max(&value) >= value.to_json().len(), "{text}");
        let mut object = Object::new();
        object.insert("k\"", value.clone());
        let all = 2 + text_bytes_max("k\"") + json_bytes_max(&value) + 2;
        assert!(all >= Value::Object(object).to_json().len(), "{text}");
    }
}
