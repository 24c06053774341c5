//! Where we don't deviate from CEL, the crate's own parser and interpreter must agree: precedence, grouping, absorbed errors, loops.
//! Its default parser is another one than ours, so this compares the parsers as well.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test, also outside of its #[test] functions"
)]

use cel::{Context, Program};
use proptest::prelude::*;
use tidemill_core::expression::{Bindings, Bound, Expression, Scope};
use tidemill_core::json::{Object, Value};

/// Sums and products. Bools are in order in CEL and not here, so only these are compared by order.
fn number() -> impl Strategy<Value = String> {
    let leaf =
        prop::sample::select(vec!["x", "y", "2", "7", "-3", "m.k", "l[1]"]).prop_map(String::from);
    leaf.prop_recursive(3, 8, 2, |inner| {
        let operator = prop::sample::select(vec!["+", "-", "*", "/", "%"]);
        (inner.clone(), operator, inner).prop_map(|(a, operator, b)| format!("{a} {operator} {b}"))
    })
}

/// Sources without parentheses where the grammar needs none, so that precedence decides.
fn source() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "x",
        "y",
        "0",
        "1",
        "2",
        "7",
        "-3",
        "9223372036854775807",
        "true",
        "false",
        "null",
        "'a'",
        "'b'",
        "l",
        "m.k",
        "m['k']",
        "l[1]",
        "l[9]",
        "m.none",
        "has(m.k)",
        "has(m.none)",
        "(m == {'k': 2})",
    ])
    .prop_map(String::from);
    leaf.prop_recursive(4, 16, 3, |inner| {
        let operator = prop::sample::select(vec!["+", "-", "*", "/", "%", "==", "!=", "&&", "||"]);
        let order = (number(), prop::sample::select(vec!["<", "<=", ">", ">="]), number()).prop_map(|(a, order, b)| format!("({a} {order} {b})"));
        let turn = prop::sample::select(vec!["all", "exists", "exists_one", "filter", "map"]);
        prop_oneof![
            6 => (inner.clone(), operator, inner.clone()).prop_map(|(a, operator, b)| format!("{a} {operator} {b}")),
            2 => (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("{a} ? {b} : {c}")),
            1 => inner.clone().prop_map(|a| format!("({a})")),
            1 => inner.clone().prop_map(|a| format!("!{a}")),
            1 => inner.clone().prop_map(|a| format!("-{a}")),
            1 => inner.clone().prop_map(|a| format!("[{a}]")),
            1 => order,
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} in [{b}, 1]")),
            2 => (turn, inner).prop_map(|(turn, body)| format!("l.{turn}(i, {body} == i)")),
        ]
    })
}

fn ours(source: &str) -> Result<Value, String> {
    let expression = Expression::compile(source, &Scope::new(&["x", "y", "l", "m"]))
        .map_err(|error| format!("compile {error}"))?;
    let list = Value::from([1_i64, 2, 7].map(Value::from).to_vec());
    let map = Value::Object([("k", 2_i64)].into_iter().collect());
    let slots = [
        Bound::Int(5),
        Bound::Int(-3),
        Bound::Value(&list),
        Bound::Value(&map),
    ];
    expression
        .evaluate(&Bindings::new(&slots))
        .map_err(|error| error.to_string())
}

fn theirs(source: &str) -> Result<Value, String> {
    let program = Program::compile(source).map_err(|error| format!("compile {error}"))?;
    let mut context = Context::default();
    context.add_variable_from_value("x", 5_i64);
    context.add_variable_from_value("y", -3_i64);
    context.add_variable_from_value("l", vec![1_i64, 2, 7]);
    context.add_variable_from_value("m", std::collections::HashMap::from([("k", 2_i64)]));
    program
        .execute(&context)
        .map(|value| json(&value))
        .map_err(|error| error.to_string())
}

fn json(value: &cel::Value) -> Value {
    match value {
        cel::Value::Null => Value::Null,
        cel::Value::Bool(value) => Value::from(*value),
        cel::Value::Int(value) => Value::from(*value),
        cel::Value::String(text) => Value::from(text.as_str()),
        cel::Value::List(items) => Value::from(items.iter().map(json).collect::<Vec<_>>()),
        cel::Value::Map(map) => {
            let members = map
                .map
                .iter()
                .map(|(key, value)| (key.to_string(), json(value)));
            Value::Object(members.collect::<Object>())
        }
        other => panic!("not from these sources: {other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2_000), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn results_are_those_of_the_reference(source in source()) {
        let (ours, theirs) = (ours(&source), theirs(&source));
        match (&ours, &theirs) {
            (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours, theirs),
            (Err(_), Err(_)) => {}
            // Our bounds are tighter.
            (Err(ours), Ok(_)) if ours.contains("too large") => {}
            _ => prop_assert!(false, "ours: {:?}, theirs: {:?}", ours, theirs),
        }
    }
}
