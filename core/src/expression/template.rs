//! JSON values in which a string that begins with `=` is an expression.

use std::fmt;

use super::error::{CompileError, EvaluationError, Position, Problem};
use super::evaluate::Evaluator;
use super::node::push_field;
use super::{Bindings, Expression, Scope};
use crate::json::{DEPTH_MAX, Object, Value};

/// A compiled value: literals stay what they are, with their digits; strings that begin with `=` are evaluated.
/// A literal that begins with `=` is written as an expression: `='=x'`. Keys are always literal.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    source: Value,
    part: Part,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    /// Holds no expression.
    Literal(Value),
    Expression(Expression),
    List(Vec<Part>),
    Map(Vec<(Box<str>, Part)>),
}

/// What is wrong in a template, and where: `E` is [`CompileError`] or [`EvaluationError`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct TemplateError<E: std::error::Error> {
    /// The place within the template, like `.items[2].sku`; empty for the whole of it.
    pub path: String,
    /// What is wrong there. (Not the `source()`: the text holds it already.)
    pub error: E,
}

impl<E: std::error::Error> fmt::Display for TemplateError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            write!(f, "{}", self.error)
        } else {
            write!(f, "{}: {}", self.path, self.error)
        }
    }
}

impl<E: std::error::Error> TemplateError<E> {
    fn new(error: E) -> TemplateError<E> {
        TemplateError {
            path: String::new(),
            error,
        }
    }

    fn within(mut self, field: &str) -> TemplateError<E> {
        let mut path = String::new();
        push_field(&mut path, field);
        self.path.insert_str(0, &path);
        self
    }

    fn at(mut self, index: usize) -> TemplateError<E> {
        self.path.insert_str(0, &format!("[{index}]"));
        self
    }
}

impl Template {
    /// Compiles every expression in `source`.
    ///
    /// # Errors
    /// The first expression that doesn't compile, and values nested deeper than [`DEPTH_MAX`].
    pub fn compile(source: &Value, scope: &Scope) -> Result<Template, TemplateError<CompileError>> {
        Ok(Template {
            part: Part::compile(source, scope, DEPTH_MAX)?,
            source: source.clone(),
        })
    }

    /// The value it was compiled from.
    #[must_use]
    pub fn source(&self) -> &Value {
        &self.source
    }

    /// The expressions in it, each with its place, in the order of the value.
    #[must_use]
    pub fn expressions(&self) -> Vec<(String, &Expression)> {
        let mut found = Vec::new();
        self.part.expressions(String::new(), &mut found);
        found
    }

    /// The value with all expressions evaluated. They share one budget.
    ///
    /// # Errors
    /// The first expression that fails, with its place.
    pub fn evaluate(&self, vars: &Bindings<'_>) -> Result<Value, TemplateError<EvaluationError>> {
        self.part.evaluate(&mut Evaluator::new(vars), 0)
    }
}

impl Part {
    fn compile(
        source: &Value,
        scope: &Scope,
        levels: usize,
    ) -> Result<Part, TemplateError<CompileError>> {
        let deeper = || {
            let position = Position { line: 1, column: 1 };
            let error = CompileError {
                position,
                problem: Problem::TooLarge("the value is nested deeper than 64 levels"),
            };
            levels
                .checked_sub(1)
                .ok_or_else(|| TemplateError::new(error))
        };
        match source {
            Value::String(text) => match text.strip_prefix('=') {
                Some(expression) => Expression::compile(expression, scope)
                    .map(Part::Expression)
                    .map_err(TemplateError::new),
                None => Ok(Part::Literal(source.clone())),
            },
            Value::Array(items) => {
                let levels = deeper()?;
                let parts = items.iter().enumerate().map(|(index, item)| {
                    Part::compile(item, scope, levels).map_err(|error| error.at(index))
                });
                let parts = parts.collect::<Result<Vec<_>, _>>()?;
                let literal = parts.iter().all(Part::is_literal);
                Ok(if literal {
                    Part::Literal(source.clone())
                } else {
                    Part::List(parts)
                })
            }
            Value::Object(object) => {
                let levels = deeper()?;
                let parts =
                    object
                        .iter()
                        .map(|(key, value)| match Part::compile(value, scope, levels) {
                            Ok(part) => Ok((key.into(), part)),
                            Err(error) => Err(error.within(key)),
                        });
                let parts = parts.collect::<Result<Vec<(Box<str>, Part)>, _>>()?;
                let literal = parts.iter().all(|(_, part)| part.is_literal());
                Ok(if literal {
                    Part::Literal(source.clone())
                } else {
                    Part::Map(parts)
                })
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(Part::Literal(source.clone())),
        }
    }

    fn is_literal(&self) -> bool {
        matches!(self, Part::Literal(_))
    }

    fn expressions<'t>(&'t self, path: String, found: &mut Vec<(String, &'t Expression)>) {
        match self {
            Part::Literal(_) => {}
            Part::Expression(expression) => found.push((path, expression)),
            Part::List(parts) => {
                for (index, part) in parts.iter().enumerate() {
                    part.expressions(format!("{path}[{index}]"), found);
                }
            }
            Part::Map(parts) => {
                for (key, part) in parts {
                    let mut path = path.clone();
                    push_field(&mut path, key);
                    part.expressions(path, found);
                }
            }
        }
    }

    fn evaluate<'a>(
        &'a self,
        evaluator: &mut Evaluator<'a>,
        depth: usize,
    ) -> Result<Value, TemplateError<EvaluationError>> {
        match self {
            // The definition bounds its size, so it isn't counted.
            Part::Literal(value) => Ok(value.clone()),
            Part::Expression(expression) => {
                let item = evaluator
                    .evaluate(expression.node())
                    .map_err(TemplateError::new)?;
                evaluator.finish(&item, depth).map_err(TemplateError::new)
            }
            Part::List(parts) => {
                let parts = parts.iter().enumerate();
                let values = parts.map(|(index, part)| {
                    part.evaluate(evaluator, depth + 1)
                        .map_err(|error| error.at(index))
                });
                values.collect::<Result<Vec<_>, _>>().map(Value::Array)
            }
            Part::Map(parts) => {
                let mut object = Object::new();
                for (key, part) in parts {
                    let value = part
                        .evaluate(evaluator, depth + 1)
                        .map_err(|error| error.within(key))?;
                    object.insert(key.clone(), value);
                }
                Ok(Value::Object(object))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Bindings, Bound};
    use super::*;

    fn json(text: &str) -> Value {
        Value::parse(text.as_bytes()).unwrap()
    }

    fn evaluate(template: &str, event: &str) -> Result<String, String> {
        let template = Template::compile(&json(template), &Scope::new(&["event"]))
            .map_err(|error| error.to_string())?;
        let event = json(event);
        let slots = [Bound::Value(&event)];
        template
            .evaluate(&Bindings::new(&slots))
            .map(|value| value.to_json())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn strings_that_begin_with_an_equals_sign_are_expressions() {
        let check = |template: &str, expected: &str| {
            assert_eq!(
                evaluate(template, r#"{"a": 1.10, "b": {"c": [1]}}"#).as_deref(),
                Ok(expected),
                "{template}"
            )
        };
        check(r#""=event.a""#, "1.10");
        check(r#""= event.a ""#, "1.10");
        check(r#""event.a""#, r#""event.a""#);
        check(r#"" =event.a""#, r#"" =event.a""#);
        check(r#""='=x'""#, r#""=x""#);
        check(
            r#"{"status": "placed", "total": "=event.a", "n": 2.50, "z": null}"#,
            r#"{"n":2.50,"status":"placed","total":1.10,"z":null}"#,
        );
        check(
            r#"[1, ["=event.b.c", {"k": "=event.b"}], true]"#,
            r#"[1,[[1],{"k":{"c":[1]}}],true]"#,
        );
        check(r#"{"=event.a": 1}"#, r#"{"=event.a":1}"#);
        check("[]", "[]");
    }

    #[test]
    fn errors_name_their_place() {
        let check = |template: &str, expected: &str| {
            assert_eq!(
                evaluate(template, "{}"),
                Err(expected.to_owned()),
                "{template}"
            )
        };
        check(
            r#"{"items": [1, 2, {"sku": "=evnt.x"}]}"#,
            ".items[2].sku: line 1, column 1: `evnt` isn't declared; did you mean `event`?",
        );
        check(
            r#"{"order-id": "=event.id"}"#,
            "['order-id']: `event.id` isn't there; guard it with has(), or send it",
        );
        check(
            r#""=event.id""#,
            "`event.id` isn't there; guard it with has(), or send it",
        );
        for empty in [r#"{"a": "="}"#, r#"{"a": "=  "}"#] {
            check(
                empty,
                ".a: line 1, column 1: the expression is empty; quote it in YAML if it begins with `!` or holds `#` or `: `",
            );
        }
    }

    #[test]
    fn what_a_template_gives_is_never_too_deep_to_be_read() {
        let nested = |depth: usize, inner: &str| {
            format!("{}{inner}{}", "[".repeat(depth), "]".repeat(depth))
        };
        let event = nested(60, "");
        assert!(evaluate(&nested(4, r#""=event""#), &event).is_ok());
        assert!(
            evaluate(&nested(5, r#""=event""#), &event)
                .is_err_and(|error| error.contains("nested deeper"))
        );
        let mut deep = Value::Null;
        for _ in 0..100 {
            deep = Value::from(vec![deep]);
        }
        assert!(Template::compile(&deep, &Scope::new(&[])).is_err());
    }

    #[test]
    fn expressions_are_listed_with_their_places() {
        let template = Template::compile(
            &json(r#"{"b": ["x", "=1"], "a": {"c": "=2"}}"#),
            &Scope::new(&[]),
        )
        .unwrap();
        let found: Vec<(String, &str)> = template
            .expressions()
            .into_iter()
            .map(|(path, expression)| (path, expression.source()))
            .collect();
        assert_eq!(found, [(".a.c".to_owned(), "2"), (".b[1]".to_owned(), "1")]);
        assert_eq!(
            template.source().to_json(),
            r#"{"a":{"c":"=2"},"b":["x","=1"]}"#
        );
    }
}
