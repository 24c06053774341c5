use super::*;
use crate::definition::StreamRef;

fn definition(yaml_like: &str) -> ProjectionDefinition {
    serde_json::from_str(yaml_like).unwrap()
}

fn with_handlers(sources: &[&str], handlers: &str) -> ProjectionDefinition {
    let sources = sources.iter().map(|name| StreamRef {
        namespace: "s".to_owned(),
        name: (*name).to_owned(),
    });
    let mut definition = ProjectionDefinition::new(sources.collect(), "event.subject");
    definition.handlers = serde_json::from_str(handlers).unwrap();
    definition
}

fn check(sources: &[&str], handlers: &str, expected: &str) {
    let result = Projection::compile(&with_handlers(sources, handlers)).map(|_| ());
    let text = result
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    match expected {
        "" => assert_eq!(text, "", "{handlers}"),
        expected => assert!(text.starts_with(expected), "{handlers}: {text}"),
    }
}

#[test]
fn errors_name_the_field() {
    for (handlers, expected) in [
        (r#"[{"set":{"a":1}}]"#, ""),
        (r#"[]"#, "handlers: at least one handler"),
        (r#"[{}]"#, "handlers[0]: exactly one of"),
        (
            r#"[{"set":{"a":1},"delete":true}]"#,
            "handlers[0]: exactly one of",
        ),
        (
            r#"[{"set":{"a":1},"increment":{"a":1}}]"#,
            "handlers[0].increment.a: a column is either",
        ),
        (
            r#"[{"increment":{"a":"1"}}]"#,
            "handlers[0].increment.a: an increment is a number",
        ),
        (
            r#"[{"increment":{"a":null}}]"#,
            "handlers[0].increment.a: an increment is a number",
        ),
        (r#"[{"increment":{"a":"=event.data.n"}}]"#, ""),
        (
            r#"[{"set":{"a":1}},{"set":{"b":{"c":["=evnt.id"]}}}]"#,
            "handlers[1].set.b.c[0]: ",
        ),
        (
            r#"[{"when":"event.data.x >","set":{"a":1}}]"#,
            "handlers[0].when: ",
        ),
        (r#"[{"key":"row.x","set":{"a":1}}]"#, "handlers[0].key: "),
        (r#"[{"key":"","set":{"a":1}}]"#, "handlers[0].key: "),
        (
            r#"[{"stream":{"namespace":"s","name":"x"},"set":{"a":1}}]"#,
            "handlers[0].stream: stream s/x isn't",
        ),
    ] {
        check(&["a"], handlers, expected);
    }
    check(&[], r#"[{"set":{"a":1}}]"#, "sources: ");
    check(
        &["a", "b", "a"],
        r#"[{"set":{"a":1}}]"#,
        "sources[2]: stream s/a is named twice",
    );
    let future = r#"{"semantics":2,"sources":[],"key":"","handlers":[]}"#;
    let error = Projection::compile(&definition(future)).unwrap_err();
    assert_eq!(error.path, "semantics");
}

#[test]
fn rows_of_several_sources_may_not_depend_on_their_interleaving() {
    let of = |stream: &str, rest: &str| {
        format!(r#"{{"stream":{{"namespace":"s","name":"{stream}"}},{rest}}}"#)
    };
    let list = |handlers: &[String]| format!("[{}]", handlers.join(","));
    for (handlers, expected) in [
        (
            vec![of("a", r#""set":{"x":1}"#), of("b", r#""set":{"y":1}"#)],
            "",
        ),
        (
            vec![of("a", r#""set":{"x":1}"#), of("a", r#""set":{"x":2}"#)],
            "",
        ),
        (
            vec![
                of("a", r#""increment":{"x":1}"#),
                of("b", r#""increment":{"x":1}"#),
            ],
            "",
        ),
        (
            vec![
                of("a", r#""set":{"x":"=row.x"}"#),
                of("b", r#""set":{"y":"=has(row.y)"}"#),
            ],
            "",
        ),
        (
            vec![of("a", r#""set":{"x":1}"#), of("b", r#""set":{"x":1}"#)],
            "handlers[0].set.x",
        ),
        (
            vec![
                of("a", r#""set":{"x":1}"#),
                of("b", r#""increment":{"x":1}"#),
            ],
            "handlers[0].set.x",
        ),
        (vec![r#"{"set":{"x":1}}"#.to_owned()], "handlers[0].set.x"),
        (vec![r#"{"increment":{"x":1}}"#.to_owned()], ""),
        (vec![of("a", r#""delete":true"#)], "handlers[0].delete"),
        (
            vec![
                of("a", r#""set":{"x":"=row.y"}"#),
                of("b", r#""set":{"y":1}"#),
            ],
            "handlers[0].set.x",
        ),
        (
            vec![
                of("a", r#""set":{"x":"=has(row.y)"}"#),
                of("b", r#""increment":{"y":1}"#),
            ],
            "handlers[0].set.x",
        ),
        (
            vec![
                of("a", r#""set":{"x":"=size(row)"}"#),
                of("b", r#""set":{"y":1}"#),
            ],
            "handlers[0].set.x",
        ),
        (
            vec![
                of("a", r#""set":{"x":"=row[event.id]"}"#),
                of("b", r#""set":{"y":1}"#),
            ],
            "handlers[0].set.x",
        ),
        (
            vec![
                of("a", r#""when":"row.y == 1","set":{"x":1}"#),
                of("b", r#""set":{"y":1}"#),
            ],
            "handlers[0].when",
        ),
        (
            vec![
                of("a", r#""increment":{"x":"=row.y"}"#),
                of("b", r#""set":{"y":1}"#),
            ],
            "handlers[0].increment.x",
        ),
    ] {
        check(&["a", "b"], &list(&handlers), expected);
    }
}

#[test]
fn handlers_are_found_by_source_and_type_in_order() {
    let handlers = r#"[
        {"set":{"a":1}},
        {"type":"T","set":{"b":1}},
        {"stream":{"namespace":"s","name":"y"},"type":"T","set":{"c":1}},
        {"type":"U","set":{"d":1}},
        {"set":{"e":1}}
    ]"#;
    let mut definition = with_handlers(&["x"], handlers);
    definition.sources.push(StreamRef {
        namespace: "s".to_owned(),
        name: "y".to_owned(),
    });
    // The rule about interleaving is not what this is about.
    for handler in &mut definition.handlers {
        handler.increment = std::mem::take(&mut handler.set);
    }
    let projection = Projection::compile(&definition).unwrap();
    assert_eq!(projection.candidates(0, "T"), [0, 1, 4]);
    assert_eq!(projection.candidates(1, "T"), [0, 1, 2, 4]);
    assert_eq!(projection.candidates(1, "U"), [0, 3, 4]);
    assert_eq!(projection.candidates(0, "V"), [0, 4]);
    assert_eq!(projection.candidates(2, "T"), [0_usize; 0]);
}
