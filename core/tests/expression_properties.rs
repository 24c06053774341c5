//! No source and no data can panic, hang or exhaust an evaluation, and the same evaluation has the same result.
//! `PROPTEST_CASES` says how many cases are tried; a release is tried with 100,000.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test, also outside of its #[test] functions"
)]

use proptest::prelude::*;
use tidemill_core::expression::{BYTES_MAX, Bindings, Bound, Expression, Scope, Template};
use tidemill_core::json::{DEPTH_MAX, Object, Value};

fn cases(default: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(default);
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Sources that are mostly well formed and mostly fail somewhere in types, names or absence.
fn source() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        4 => prop::sample::select(vec!["event", "event.data", "event.data.n", "event.data.items", "event.text", "row.a", "row", "i", "j"]).prop_map(String::from),
        2 => prop::sample::select(vec!["0", "1", "-1", "2.5", "0.0", "1e308", "9223372036854775807", "-9223372036854775808", "true", "false", "null"]).prop_map(String::from),
        1 => "'[a-zé😀 ]{0,4}'",
    ];
    leaf.prop_recursive(5, 24, 4, |inner| {
        let operator = prop::sample::select(vec!["+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "&&", "||", "in"]);
        let method = prop::sample::select(vec![
            "size()", "trim()", "lowerAscii()", "split('')", "split(' ', 2)", "join('-')", "contains('a')", "startsWith('')", "replace('a', 'bb')", "substring(1)", "substring(0, 2)", "matches('a')",
        ]);
        let function = prop::sample::select(vec!["size", "string", "int", "double", "min", "max", "abs", "round", "floor", "ceil", "has", "nope"]);
        let turn = prop::sample::select(vec!["all", "exists", "exists_one", "map", "filter"]);
        let variable = prop::sample::select(vec!["i", "j"]);
        prop_oneof![
            4 => (inner.clone(), operator, inner.clone()).prop_map(|(a, operator, b)| format!("({a} {operator} {b})")),
            1 => (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            1 => inner.clone().prop_map(|a| format!("!{a}")),
            1 => inner.clone().prop_map(|a| format!("-{a}")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}[{b}]")),
            1 => inner.clone().prop_map(|a| format!("{a}.n")),
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            1 => prop::collection::vec((inner.clone(), inner.clone()), 0..3)
                .prop_map(|items| format!("{{{}}}", items.iter().map(|(k, v)| format!("{k}: {v}")).collect::<Vec<_>>().join(", "))),
            2 => (inner.clone(), method).prop_map(|(a, method)| format!("{a}.{method}")),
            2 => (function, prop::collection::vec(inner.clone(), 1..3)).prop_map(|(name, items)| format!("{name}({})", items.join(", "))),
            3 => (inner.clone(), turn, variable, inner).prop_map(|(range, turn, variable, body)| format!("{range}.{turn}({variable}, {body})")),
        ]
    })
}

/// Sources whose types fit, over [`event`]; they fail only by overflow, division by zero and the like.
fn typed() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(vec![
            "event.data.n",
            "size(event.text)",
            "event.data.items[0]",
            "max(event.data.items)"
        ])
        .prop_map(String::from),
        prop_oneof![
            any::<i64>().prop_map(|int| format!("({int})")),
            (-4_i64..5).prop_map(|int| format!("({int})"))
        ],
        (-9_i32..9).prop_map(|quarters| format!("({:?})", f64::from(quarters) / 4.0)),
    ];
    let number = leaf.prop_recursive(4, 12, 3, |inner| {
        let operator = prop::sample::select(vec!["+", "-", "*", "/", "%"]);
        let function =
            prop::sample::select(vec!["abs", "round", "floor", "ceil", "int", "double", "-"]);
        prop_oneof![
            (inner.clone(), operator, inner.clone())
                .prop_map(|(a, operator, b)| format!("({a} {operator} {b})")),
            (function, inner.clone()).prop_map(|(name, a)| format!("{name}({a})")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("min({a}, {b})")),
        ]
    });
    let comparison = prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">="]);
    let condition = (number.clone(), comparison, number.clone())
        .prop_map(|(a, comparison, b)| format!("{a} {comparison} {b}"));
    let list = prop_oneof![
        Just("event.data.items".to_owned()),
        prop::collection::vec(number.clone(), 1..4)
            .prop_map(|items| format!("[{}]", items.join(", "))),
        number
            .clone()
            .prop_map(|a| format!("event.data.items.map(i, i + {a})")),
        condition
            .clone()
            .prop_map(|a| format!("event.data.items.filter(i, i != 0 && {a})")),
        Just("event.text.split(' ').map(t, size(t))".to_owned()),
    ];
    let turn = prop::sample::select(vec!["all", "exists", "exists_one", "map", "filter"]);
    prop_oneof![
        number.clone(),
        (condition.clone(), list.clone(), list.clone())
            .prop_map(|(a, b, c)| format!("{a} ? {b} + {c} : {c}")),
        (
            condition.clone(),
            prop::sample::select(vec!["&&", "||"]),
            condition.clone()
        )
            .prop_map(|(a, operator, b)| format!("!({a}) {operator} ({b})")),
        (list.clone(), turn, condition)
            .prop_map(|(list, turn, condition)| format!("{list}.{turn}(i, i > 1 || {condition})")),
        (list, number.clone())
            .prop_map(|(list, a)| format!("{{'sum': {a}, 'in': {a} in {list}, 'list': {list}}}")),
        number.prop_map(|a| format!(
            "event.text.replace('a', string({a})).substring(0, 1).upperAscii() + ' '"
        )),
    ]
}

/// An event of the shape that [`typed`] expects.
fn event() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<i64>().prop_map(Value::from),
        (-3_i64..4).prop_map(Value::from),
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,3})?(e-?[0-9]{1,2})?"
            .prop_map(|text| Value::parse(text.as_bytes()).unwrap()),
    ];
    (
        number.clone(),
        prop::collection::vec(number, 0..5),
        "[a-zé😀 ]{0,9}",
    )
        .prop_map(|(n, items, text)| {
            let data: Object = [("n", n), ("items", Value::from(items))]
                .into_iter()
                .collect();
            Value::Object(
                [("data", Value::from(data)), ("text", Value::from(text))]
                    .into_iter()
                    .collect(),
            )
        })
}

/// Anything: tokens in any order, and good sources with a few characters changed.
fn mangled() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "event",
        ".",
        "data",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "?",
        "!",
        "-",
        "+",
        "&&",
        "||",
        "==",
        "in",
        "1",
        "2.5",
        "1u",
        "'a'",
        "b'a'",
        "r'\\d'",
        "'''x\n'''",
        "\"",
        "'",
        "\\",
        "has(",
        ".map(i, ",
        ".all(i, i",
        "null",
        "`a`",
        "// c\n",
        "é",
        "😀",
        "|",
        "&",
        "=",
        "@",
        "#",
        "99999999999999999999",
        "1e400",
        "\0",
        "\n",
        ".?",
        "[?",
        "{?",
        "'\\U0010FFFF'",
        "'\\ud800'",
        "'\\400'",
        "for",
        "size",
        " ",
    ]);
    let character = prop_oneof![
        any::<char>(),
        prop::sample::select("()[]{}.,?:!-+'\"\\&|=`".chars().collect::<Vec<_>>())
    ];
    prop_oneof![
        prop::collection::vec(token, 0..20).prop_map(|tokens| tokens.concat()),
        (
            source(),
            prop::collection::vec(
                (any::<prop::sample::Index>(), character, any::<bool>()),
                1..4
            )
        )
            .prop_map(|(source, changes)| {
                let mut chars: Vec<char> = source.chars().collect();
                for (index, character, replace) in changes {
                    let at = index.index(chars.len() + 1);
                    if replace && at < chars.len() {
                        chars[at] = character;
                    } else {
                        chars.insert(at, character);
                    }
                }
                chars.into_iter().collect()
            }),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop_oneof![any::<i64>(), -3_i64..4].prop_map(Value::from),
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,3})?(e-?[0-9]{1,2})?"
            .prop_map(|text| Value::parse(text.as_bytes()).unwrap()),
        "[a-zé😀 ]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(
                (
                    prop::sample::select(vec!["n", "items", "text", "a", "data"]),
                    inner
                ),
                0..4
            )
            .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn check(source: &str, event: &Value, row: &Value) {
    let scope = Scope::new(&["event", "row"]);
    let Ok(expression) = Expression::compile(source, &scope) else {
        return;
    };
    let slots = [Bound::Value(event), Bound::Value(row)];
    let vars = Bindings::new(&slots);
    let first = expression.evaluate(&vars);
    assert_eq!(expression.evaluate(&vars), first, "twice the same");
    assert_eq!(
        Expression::compile(source, &scope).unwrap().evaluate(&vars),
        first,
        "compiled twice the same"
    );
    match &first {
        Ok(value) => {
            let written = value.to_json();
            assert_eq!(
                Value::parse(written.as_bytes()).as_ref(),
                Ok(value),
                "a result can be stored and read"
            );
            assert!(value.is_within_depth(DEPTH_MAX));
            // What is escaped grows to at most six times its size.
            assert!(written.len() <= 6 * BYTES_MAX);
            assert_eq!(expression.evaluate_bool(&vars).ok(), value.as_bool());
            assert_eq!(
                expression.evaluate_str(&vars).ok().as_deref(),
                value.as_str()
            );
        }
        Err(error) => assert!(
            error.to_string().len() <= 256 + source.len(),
            "messages are bounded: {error}"
        ),
    }
    let template = Value::from(vec![
        Value::from(format!("={source}")),
        Value::from("literal"),
    ]);
    let template = Template::compile(&template, &scope).unwrap();
    assert_eq!(
        template
            .evaluate(&vars)
            .ok()
            .and_then(|value| value.as_array()?.first().cloned()),
        first.ok()
    );
}

proptest! {
    #![proptest_config(cases(4_000))]

    #[test]
    fn evaluations_end_and_repeat(source in source(), event in value(), row in value()) {
        check(&source, &event, &row);
    }

    #[test]
    fn evaluations_of_the_right_types_end_and_repeat(source in typed(), event in event()) {
        check(&source, &event, &Value::Null);
    }

    #[test]
    fn no_source_panics(source in mangled(), event in value()) {
        check(&source, &event, &Value::Null);
    }
}
