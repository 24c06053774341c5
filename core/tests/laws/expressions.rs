//! The laws of numbers and budgets, one by one; the golden table beside this folder holds everything else.

use tidemill_core::expression::{Bindings, Bound, Expression, Problem, Scope, Template};
use tidemill_core::json::Value;

const DATA: &str = r#"{"one":1,"two":2,"half":0.5,"money":1.10,"long":0.12345678901234567890,"big":9223372036854775807,"items":[1,2,3]}"#;

fn with<T>(run: impl FnOnce(&Bindings<'_>) -> T) -> T {
    let data = Value::parse(DATA.as_bytes()).unwrap();
    let slots = [Bound::Value(&data)];
    run(&Bindings::new(&slots))
}

/// What an expression over `x` gives, as JSON, or the reason of its error.
fn told(source: &str) -> String {
    let expression = Expression::compile(source, &Scope::new(&["x"])).unwrap();
    match with(|bindings| expression.evaluate(bindings)) {
        Ok(value) => value.to_json(),
        Err(error) => error.reason().to_owned(),
    }
}

#[track_caller]
fn check(table: &[(&str, &str)]) {
    for (source, then) in table {
        assert_eq!(told(source), *then, "{source}");
    }
}

#[test]
pub(crate) fn a_value_copied_without_arithmetic_keeps_its_digits() {
    check(&[
        ("x.money", "1.10"),
        ("x.long", "0.12345678901234567890"),
        ("x.one > 0 ? x.money : 0", "1.10"),
        ("[x.money][0]", "1.10"),
    ]);
    let template = Value::parse(br#"{"a":["=x.money"]}"#).unwrap();
    let template = Template::compile(&template, &Scope::new(&["x"])).unwrap();
    let value = with(|bindings| template.evaluate(bindings)).unwrap();
    assert_eq!(value.to_json(), r#"{"a":[1.10]}"#);
}

#[test]
pub(crate) fn a_whole_number_is_an_int_and_never_a_uint() {
    check(&[
        ("x.one + 1", "2"),
        ("x.one - x.two", "-1"),
        ("-x.one", "-1"),
        ("25 + 25", "50"),
    ]);
}

#[test]
pub(crate) fn int_and_double_give_double() {
    check(&[
        ("x.one + x.half", "1.5"),
        ("x.half * x.two", "1.0"),
        ("25 + 25.5", "50.5"),
        ("25.5 * 2", "51.0"),
    ]);
}

#[test]
pub(crate) fn ints_divide_as_ints() {
    check(&[
        ("7 / 2", "3"),
        ("-7 / 2", "-3"),
        ("7 % 2", "1"),
        ("x.two / x.two", "1"),
    ]);
}

#[test]
pub(crate) fn what_has_no_finite_result_is_an_error() {
    check(&[
        ("x.big + 1", "Overflow"),
        ("-x.big - 2", "Overflow"),
        ("1e308 * 10.0", "Overflow"),
        ("1 / 0", "DivisionByZero"),
        ("1 % 0", "DivisionByZero"),
        ("1.0 / 0.0", "DivisionByZero"),
    ]);
}

#[test]
pub(crate) fn doubles_are_written_with_a_point_or_an_exponent() {
    check(&[
        ("x.half + x.half", "1.0"),
        ("double(3)", "3.0"),
        ("1e300 * 1.0", "1e300"),
    ]);
}

#[test]
pub(crate) fn an_evaluation_has_a_budget() {
    let items = (0..400)
        .map(|n| n.to_string())
        .collect::<Vec<_>>()
        .join(",");
    let data = Value::parse(format!("{{\"items\":[{items}]}}").as_bytes()).unwrap();
    let source = "x.items.all(a, x.items.all(b, a + b >= 0))";
    let expression = Expression::compile(source, &Scope::new(&["x"])).unwrap();
    let slots = [Bound::Value(&data)];
    let error = expression.evaluate(&Bindings::new(&slots)).unwrap_err();
    assert_eq!(error.reason(), "BudgetExceeded");
}

#[test]
pub(crate) fn a_result_has_a_size() {
    let text = "x".repeat(50_000);
    let data = Value::parse(format!("{{\"items\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22],\"text\":\"{text}\"}}").as_bytes()).unwrap();
    let source = "x.items.map(i, x.text + 'y')";
    let expression = Expression::compile(source, &Scope::new(&["x"])).unwrap();
    let slots = [Bound::Value(&data)];
    let error = expression.evaluate(&Bindings::new(&slots)).unwrap_err();
    assert_eq!(error.reason(), "BudgetExceeded");
}

#[test]
pub(crate) fn loops_are_at_most_two_deep() {
    let compiles = |source: &str| Expression::compile(source, &Scope::new(&["x"])).is_ok();
    assert!(compiles("x.items.all(a, x.items.all(b, a < b))"));
    assert!(!compiles(
        "x.items.all(a, x.items.all(b, x.items.all(c, a < b + c)))"
    ));
}

#[test]
pub(crate) fn undeclared_names_are_refused_when_compiling() {
    for source in ["y", "x.one + y.one", "now()", "event.data"] {
        assert!(
            Expression::compile(source, &Scope::new(&["x"])).is_err(),
            "{source}"
        );
    }
}

#[test]
pub(crate) fn a_source_has_a_limit_of_tokens() {
    // Brackets, elements and the commas between them: one less or more than a thousand.
    let list = |elements: usize| format!("[{}]", vec!["x"; elements].join(","));
    let compiled = |elements| Expression::compile(&list(elements), &Scope::new(&["x"]));
    assert!(compiled(499).is_ok());
    let refused = compiled(500).map_err(|error| error.problem);
    assert!(matches!(refused, Err(Problem::TooLarge(_))));
}
