//! What expressions mean, row by row. A row may be added; one that changes is a new version of `definition::SEMANTICS`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test, also outside of its #[test] functions"
)]

use tidemill_core::expression::{Bindings, Bound, Expression, Fields, Scope};
use tidemill_core::json::{Object, Value};

const VARIABLES: [&str; 5] = ["event", "row", "steps", "x", "y"];

/// An object whose parts are handed out one by one, as `event` and `steps` are.
struct Parts(Object);

impl Fields for Parts {
    fn get(&self, name: &str) -> Option<Bound<'_>> {
        Some(match self.0.get(name)? {
            Value::String(text) => Bound::Str(text),
            Value::Bool(value) => Bound::Bool(*value),
            value => value.as_i64().map_or(Bound::Value(value), Bound::Int),
        })
    }

    fn names(&self) -> Vec<&str> {
        // In no particular order: expressions must sort.
        self.0
            .keys()
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect()
    }
}

fn result(source: &str, bindings: &str, parts: bool) -> String {
    let expression = match Expression::compile(source, &Scope::new(&VARIABLES)) {
        Ok(expression) => expression,
        Err(error) => {
            return format!(
                "compile {}:{} {}",
                error.position.line, error.position.column, error.problem
            );
        }
    };
    let bindings = if bindings.is_empty() { "{}" } else { bindings };
    let bindings = Value::parse(bindings.as_bytes()).unwrap();
    let objects: Vec<Option<Parts>> = VARIABLES
        .iter()
        .map(|name| {
            bindings
                .get(name)
                .and_then(Value::as_object)
                .map(|object| Parts(object.clone()))
        })
        .collect();
    let slots: Vec<Bound<'_>> = VARIABLES
        .iter()
        .zip(&objects)
        .map(|(name, object)| match (object, bindings.get(name)) {
            (Some(object), _) if parts => Bound::Object(object),
            (_, Some(value)) => Bound::Value(value),
            (_, None) => Bound::Missing,
        })
        .collect();
    let vars = Bindings::new(&slots);
    let first = expression.evaluate(&vars);
    assert_eq!(
        expression.evaluate(&vars),
        first,
        "{source}: twice the same"
    );
    match first {
        Ok(value) => value.to_json(),
        Err(error) => format!("{} {error}", error.reason()),
    }
}

#[test]
fn expressions_mean_what_the_table_says() {
    let mut rows = 0;
    let mut wrong = Vec::new();
    for (number, line) in include_str!("expression_golden.txt").lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        rows += 1;
        let mut columns = line.split('¦').map(str::trim);
        let (Some(source), Some(bindings), Some(expected), None) = (
            columns.next(),
            columns.next(),
            columns.next(),
            columns.next(),
        ) else {
            panic!("line {}: source ¦ variables ¦ result", number + 1);
        };
        // `␤` in a source stands for a line end, since a row is one line.
        let source = source.replace("␤", "\n");
        for parts in [false, true] {
            let found = result(&source, bindings, parts);
            if found != expected {
                wrong.push(format!(
                    "line {}: {source}\n  expected {expected}\n  found    {found} (parts: {parts})",
                    number + 1
                ));
                break;
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {rows} rows:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(rows >= 150, "{rows} rows");
}
