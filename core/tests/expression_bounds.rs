//! Bounds of sources and of evaluations, on a stack as small as a worker thread's.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test, also outside of its #[test] functions"
)]

use tidemill_core::expression::{
    Bindings, Bound, CompileError, EvaluationError, Expression, LOOPS_MAX, Limit, NESTING_MAX,
    Problem, SOURCE_MAX, Scope, Template,
};
use tidemill_core::json::{DEPTH_MAX, Value};

fn compile(source: &str) -> Result<Expression, CompileError> {
    Expression::compile(source, &Scope::new(&["x"]))
}

/// The result, and whether it came in time; a budget that doesn't count what costs time shows here.
fn evaluate(source: &str, x: &Value) -> Result<Value, EvaluationError> {
    compile(source)
        .unwrap()
        .evaluate(&Bindings::new(&[Bound::Value(x)]))
}

fn numbers(count: i64) -> Value {
    Value::from((0..count).map(Value::from).collect::<Vec<_>>())
}

/// Runs on a stack of 1 MiB: half of what threads have by default, in the debug build too.
fn on_a_small_stack(run: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new()
        .stack_size(1 << 20)
        .spawn(run)
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn deep_sources_are_refused_without_exhausting_the_stack() {
    on_a_small_stack(|| {
        for unit in [
            "(",
            "[",
            "{'a': ",
            "x[",
            "size(",
            "x.all(i, ",
            "!",
            "-",
            "!-",
            "1?1:",
            "true ? ",
            "1+",
            "x.a",
            ".a",
            "x.f(",
            "x && ",
            "'a' + ",
            "1 < ",
            "[x].map(i, ",
            "((",
            "?",
            "{",
        ] {
            for count in [65, 400, 4000] {
                let mut source = unit.repeat(count);
                source.truncate(SOURCE_MAX - 1);
                for end in ["", "1", "x"] {
                    // Whatever it says: it must say it.
                    let _ = compile(&format!("{source}{end}"));
                }
            }
        }
    });
}

#[test]
fn what_is_within_the_bounds_is_evaluated_on_a_small_stack() {
    on_a_small_stack(|| {
        let depth = NESTING_MAX - 2;
        let lists = format!("{}x{}", "[".repeat(depth), "]".repeat(depth));
        assert!(evaluate(&lists, &Value::from(1_i64)).is_ok());
        let sum = vec!["x"; NESTING_MAX - 1].join(" + ");
        assert_eq!(evaluate(&sum, &Value::from(1_i64)), Ok(Value::from(63_i64)));
        let all = vec!["x"; 400].join("&&");
        assert_eq!(evaluate(&all, &Value::from(true)), Ok(Value::from(true)));
        let minus = format!("{}x", "-(".repeat(depth)) + &")".repeat(depth);
        assert_eq!(
            evaluate(&minus, &Value::from(1_i64)),
            Ok(Value::from(1_i64))
        );
        // Deep on both sides: a value as deep as can be, within an expression as deep as can be.
        let deep =
            Value::parse(format!("{}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX)).as_bytes())
                .unwrap();
        assert_eq!(evaluate("x", &deep), Ok(deep.clone()));
        assert_eq!(evaluate("x == x", &deep), Ok(Value::from(true)));
        assert_eq!(
            evaluate("[x]", &deep),
            Err(EvaluationError::BudgetExceeded(Limit::Depth))
        );
        assert_eq!(
            evaluate(&lists, &deep),
            Err(EvaluationError::BudgetExceeded(Limit::Depth))
        );
        assert_eq!(
            evaluate(&format!("{lists} == {lists}"), &deep),
            Ok(Value::from(true))
        );
    });
}

#[test]
fn sources_beyond_the_bounds_are_refused_by_name() {
    let too_large = |source: &str| {
        matches!(
            compile(source).map_err(|error| error.problem),
            Err(Problem::TooLarge(_))
        )
    };
    assert!(!too_large(&format!("'{}'", "a".repeat(SOURCE_MAX - 2))));
    assert!(too_large(&format!("'{}'", "a".repeat(SOURCE_MAX - 1))));
    assert!(too_large(&"x,".repeat(501)));
    assert!(too_large(&format!(
        "{}x{}",
        "(".repeat(NESTING_MAX + 1),
        ")".repeat(NESTING_MAX + 1)
    )));
    assert!(too_large(&vec!["x"; NESTING_MAX + 1].join("+")));
    assert!(too_large(&format!("{}1", "x?1:".repeat(33))));
    assert!(!too_large(&format!("{}1", "x?1:".repeat(32))));
    assert_eq!(LOOPS_MAX, 2);
    assert!(!too_large("x.all(i, x.all(j, true))"));
    assert!(too_large("x.all(i, x.all(j, x.all(k, true)))"));
    // Loops in ranges aren't nested.
    assert!(!too_large(
        "x.map(i, i).map(i, i).map(i, i).all(i, x.map(j, j).all(j, true))"
    ));
}

#[test]
fn loops_end_when_their_steps_are_spent() {
    let steps = Some(EvaluationError::BudgetExceeded(Limit::Steps));
    assert_eq!(
        evaluate("x.all(i, x.all(j, i + j >= 0))", &numbers(100)),
        Ok(Value::from(true))
    );
    assert_eq!(
        evaluate("x.all(i, x.all(j, i + j >= 0))", &numbers(200)).err(),
        steps
    );
    // A spent budget is no error that another side could absorb.
    assert_eq!(
        evaluate("x.all(i, x.all(j, i + j >= 0)) || true", &numbers(200)).err(),
        steps
    );
    assert_eq!(
        evaluate("true && x.all(i, x.all(j, true)) || true", &numbers(400)).err(),
        steps
    );
    assert_eq!(
        evaluate("x.exists(i, i in x.map(j, -1))", &numbers(1000)).err(),
        steps
    );
}

#[test]
fn costs_hidden_in_functions_are_counted() {
    let steps = Some(EvaluationError::BudgetExceeded(Limit::Steps));
    let long = Value::from("a".repeat(1 << 20));
    for source in [
        "[1,2,3,4,5,6,7,8].all(i, [1,2,3,4].all(j, x.contains('b') == false))",
        "[1,2,3,4,5,6,7,8].all(i, [1,2,3,4].all(j, x.size() > 0))",
        "[1,2,3,4,5,6,7,8].all(i, [1,2,3,4].all(j, x == x))",
        "[1,2,3,4,5,6,7,8].all(i, [1,2,3,4].all(j, x <= x))",
        "[1,2,3,4,5,6,7,8].all(i, [1,2,3,4].all(j, x.substring(1000000).endsWith('a')))",
    ] {
        assert_eq!(evaluate(source, &long).err(), steps, "{source}");
    }
    for source in [
        "x.all(i, i in x)",
        "x.all(i, x == x)",
        "x.all(i, min(x) == 0)",
    ] {
        assert_eq!(evaluate(source, &numbers(1000)).err(), steps, "{source}");
    }
}

#[test]
fn values_that_are_built_are_counted_before_they_are_built() {
    let bytes = Some(EvaluationError::BudgetExceeded(Limit::Bytes));
    let long = Value::from("a".repeat(600_000));
    assert_eq!(evaluate("x", &long), Ok(long.clone()));
    for source in [
        "x + x",
        "[x, x]",
        "{'a': x, 'b': x}",
        "{x: 1, x + 'b': 2}",
        "x.split('')",
        "x.replace('a', x)",
        "x.replace('', x)",
        "[x].map(i, i + i)",
        "[x, x].join()",
        "['', '', ''].join(x)",
        "x.upperAscii() + x",
    ] {
        assert_eq!(evaluate(source, &long).err(), bytes, "{source}");
    }
    for source in ["x.map(i, x)", "x + x + x", "[x, x]"] {
        assert_eq!(evaluate(source, &numbers(40_000)).err(), bytes, "{source}");
    }
    assert_eq!(
        evaluate("x.map(i, {'a': i})", &numbers(20_000)).err(),
        bytes
    );
}

#[test]
fn the_expressions_of_a_template_share_one_budget() {
    let x = Value::from("a".repeat(400_000));
    let template = |count: usize| {
        Template::compile(
            &Value::from(vec![Value::from("=x"); count]),
            &Scope::new(&["x"]),
        )
        .unwrap()
    };
    let slots = [Bound::Value(&x)];
    assert!(template(2).evaluate(&Bindings::new(&slots)).is_ok());
    let error = template(3).evaluate(&Bindings::new(&slots)).unwrap_err();
    assert_eq!(
        (error.path.as_str(), error.error),
        ("[2]", EvaluationError::BudgetExceeded(Limit::Bytes))
    );
}

#[test]
fn messages_hold_no_data_and_are_short() {
    let secret =
        Value::parse(br#"{"k": "4711-secret", "l": ["4711-secret"], "4711-secret": 1}"#).unwrap();
    for source in [
        "x.k + 1",
        "int(x.k)",
        "double(x.k)",
        "x[x.k]['a']",
        "x.l[7]",
        "x.k.b",
        "x.k.substring(99)",
        "-x.k",
        "x.k < 1",
        "x.k in x.k",
        "{x.k: 1, x.k: 2}",
        "x.map(k, x[k].a)",
        "size(1)",
        "x.k ? 1 : 2",
        "{'a': 1}[x.k]",
        "x.l.join(1)",
    ] {
        let message = evaluate(source, &secret).unwrap_err().to_string();
        assert!(
            !message.contains("4711") && message.len() < 200,
            "{source}: {message}"
        );
    }
    let name = "n".repeat(4000);
    let message = compile(&name).unwrap_err().to_string();
    assert!(message.len() < 300, "{message}");
    let message = compile(&format!("1 {name}")).unwrap_err().to_string();
    assert!(message.len() < 300, "{message}");
}
