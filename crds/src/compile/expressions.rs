//! Expressions of a spec: compiled, and every name they read held against what will be there.

use serde_json::Value;
use tidemill_core::expression::{Expression, Reference, Scope};
use tidemill_core::json::DEPTH_MAX;
use tidemill_core::planted::{Bug, planted};
use tidemill_core::saga::{compensation_scope, step_scope};

use super::constants::{self, Gives};
use super::findings::Findings;
use crate::check::closest;
use crate::problem::{FieldPath, Reason};

/// Attributes of an event that are always there, or that we write.
const ATTRIBUTES: [&str; 11] = [
    "causationid",
    "correlationid",
    "data",
    "dataversion",
    "id",
    "source",
    "subject",
    "time",
    "traceparent",
    "tracestate",
    "type",
];

/// Why a null is written as an expression. (The API server keeps one that stands within a value, but `kubectl apply` compares
/// three versions by merge patch, in which a null removes the field.)
const LITERAL_NULL: &str = "a literal null is lost in silence: `kubectl apply` takes it for a field to remove; write =null for a null, or remove the field";

/// What an expression may read.
pub(super) struct Names<'a> {
    scope: Scope,
    steps: Option<Steps<'a>>,
}

/// Which steps an expression may read, and what of them may be missing.
pub(super) struct Steps<'a> {
    /// Names of all steps, in their order.
    pub(super) all: &'a [&'a str],
    /// The step whose own action or condition is evaluated.
    pub(super) own: Option<usize>,
    /// Whether a step is done (or skipped) wherever the expression is evaluated.
    pub(super) readable: Vec<bool>,
    /// Why the output of a step may not be there, for those where it may.
    pub(super) uncertain: Vec<Option<Uncertain>>,
}

/// Why the output of a step may not be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Uncertain {
    /// Its own compensation also runs when nobody knows what became of the action.
    Unknown,
    /// When an instance was compensated, some step didn't happen.
    NotReached,
    /// It has a condition, so it may be skipped.
    Skipped,
}

impl<'a> Names<'a> {
    /// What a captured message is made into an event with.
    pub(super) fn message() -> Self {
        Self {
            scope: Scope::new(&["message"]),
            steps: None,
        }
    }

    /// The event alone.
    pub(super) fn event() -> Self {
        Self {
            scope: Scope::new(&["event"]),
            steps: None,
        }
    }

    /// The event, and the row as it was.
    pub(super) fn row() -> Self {
        Self {
            scope: Scope::new(&["event", "row"]),
            steps: None,
        }
    }

    /// An instance that goes forward.
    pub(super) fn forward(steps: Steps<'a>) -> Self {
        Self {
            scope: step_scope(),
            steps: Some(steps),
        }
    }

    /// An instance that failed.
    pub(super) fn failed(steps: Steps<'a>) -> Self {
        Self {
            scope: compensation_scope(),
            steps: Some(steps),
        }
    }
}

/// Compiles an expression and checks what it reads.
pub(super) fn expression(
    findings: &mut Findings,
    path: &FieldPath,
    source: &str,
    names: &Names<'_>,
    gives: Gives,
) -> Option<Expression> {
    if source.starts_with('=') && !source.starts_with("==") {
        findings.error(
            path,
            Reason::Expression,
            "this is an expression already: remove the `=` in front of it",
        );
        return None;
    }
    let expression = match Expression::compile(source, &names.scope) {
        Ok(expression) => expression,
        Err(error) => {
            let place = if error.position.line == 1 && error.position.column == 1 {
                String::new()
            } else {
                format!(" ({})", error.position)
            };
            findings.error(
                path,
                Reason::Expression,
                format!("{}{place}", error.problem),
            );
            return None;
        }
    };
    for reference in expression.references() {
        check_reference(findings, path, reference, names);
    }
    if let Some(steps) = &names.steps {
        check_outputs(findings, path, &expression, steps);
    }
    check_failed_step(findings, path, &expression);
    constants::check(findings, path, &expression, gives);
    Some(expression)
}

/// Compiles every text of a value that begins with `=`, each at its own path.
pub(super) fn template(
    findings: &mut Findings,
    path: &FieldPath,
    value: &Value,
    names: &Names<'_>,
) -> Vec<(FieldPath, Expression)> {
    let mut found = Vec::new();
    walk(findings, path, value, names, DEPTH_MAX, &mut found);
    found
}

fn walk(
    findings: &mut Findings,
    path: &FieldPath,
    value: &Value,
    names: &Names<'_>,
    levels: usize,
    found: &mut Vec<(FieldPath, Expression)>,
) {
    let deeper = levels.saturating_sub(1);
    match value {
        Value::Array(_) | Value::Object(_) if levels == 0 => {
            findings.error(
                path,
                Reason::Malformed,
                format!("the value is nested deeper than {DEPTH_MAX} levels"),
            );
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(findings, &path.index(index), item, names, deeper, found);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                walk(findings, &path.field(name), field, names, deeper, found);
            }
        }
        Value::String(text) => found.extend(
            text_template(findings, path, text, names, Gives::Anything)
                .map(|expression| (path.clone(), expression)),
        ),
        Value::Null if !planted(Bug::NullAccepted) => {
            findings.error(path, Reason::Malformed, LITERAL_NULL);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Compiles a text that is an expression if it begins with `=`.
pub(super) fn text_template(
    findings: &mut Findings,
    path: &FieldPath,
    text: &str,
    names: &Names<'_>,
    gives: Gives,
) -> Option<Expression> {
    if let Some(source) = text.strip_prefix('=') {
        return expression(findings, path, source, names, gives);
    }
    let forgotten = names.scope.names().any(|name| {
        let rest = text
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix(['.', '[']));
        rest.is_some_and(|_| Expression::compile(text, &names.scope).is_ok())
    });
    if forgotten {
        let message = format!(
            "this is the text `{text}`, not what it reads as: write `={text}` for the value, or `='{text}'` for the text"
        );
        findings.warn(path, Reason::Expression, message);
    }
    None
}

fn check_reference(
    findings: &mut Findings,
    path: &FieldPath,
    reference: &Reference,
    names: &Names<'_>,
) {
    let parts: Vec<&str> = reference.path.iter().map(String::as_str).collect();
    let one_of = |findings: &mut Findings, variable: &str, field: &str, known: &[&str]| {
        if !known.contains(&field) {
            findings.error(
                path,
                Reason::Reference,
                format!("there is no `{variable}.{field}`{}", meant(field, known)),
            );
        }
    };
    match parts.as_slice() {
        [variable @ ("event" | "input"), field, ..] => {
            check_attribute(findings, path, variable, field)
        }
        ["message", field, ..] => {
            one_of(findings, "message", field, &["data", "headers", "subject"])
        }
        ["saga", field, ..] => one_of(findings, "saga", field, &["id", "name", "namespace"]),
        ["failure", field, ..] => one_of(
            findings,
            "failure",
            field,
            &["code", "message", "reason", "step"],
        ),
        ["steps", rest @ ..] => {
            if let Some(steps) = &names.steps {
                check_step(findings, path, rest, steps);
            }
        }
        _ => {}
    }
}

fn check_attribute(findings: &mut Findings, path: &FieldPath, variable: &str, field: &str) {
    if ATTRIBUTES.contains(&field) {
        return;
    }
    let in_data = format!(
        "the event's data is at `{variable}.data`, so perhaps `{variable}.data.{field}` is meant"
    );
    let possible = field
        .chars()
        .all(|char| char.is_ascii_lowercase() || char.is_ascii_digit());
    if !possible {
        let message = format!(
            "no event has an attribute `{field}`, attributes are lower-case letters and digits; {in_data}"
        );
        findings.error(path, Reason::Reference, message);
    } else if let Some(meant) = closest(field, ATTRIBUTES) {
        let message = format!(
            "`{variable}.{field}` is an extension attribute that few events have; did you mean `{variable}.{meant}`?"
        );
        findings.warn(path, Reason::Reference, message);
    } else {
        let message = format!(
            "`{variable}.{field}` is an extension attribute that few events have; {in_data}"
        );
        findings.warn(path, Reason::Reference, message);
    }
}

fn check_step(findings: &mut Findings, path: &FieldPath, rest: &[&str], steps: &Steps<'_>) {
    let Some((name, fields)) = rest.split_first() else {
        findings.error(
            path,
            Reason::Reference,
            "`steps` can only be read step by step, by name: steps.<name>.output",
        );
        return;
    };
    let Some(index) = steps.all.iter().position(|step| step == name) else {
        findings.error(
            path,
            Reason::Reference,
            format!("there is no step `{name}`{}", meant(name, steps.all)),
        );
        return;
    };
    if steps.own == Some(index) {
        let message = format!(
            "step `{name}` isn't done while it is asked for: `input` can be read, and steps before it"
        );
        findings.error(path, Reason::Reference, message);
    } else if !steps.readable.get(index).copied().unwrap_or(false) {
        let message = format!(
            "step `{name}` isn't sure to be done when this is evaluated: only steps that this one follows can be read; name `{name}` in `after`, or stand behind it"
        );
        findings.error(path, Reason::Reference, message);
    }
    let known = ["commandId", "output", "skipped"];
    if let Some(field) = fields.first().filter(|field| !known.contains(*field)) {
        let message = if *field == "data" {
            format!(
                "there is no `steps.{name}.data`; what the participant answered is `steps.{name}.output`"
            )
        } else {
            format!("there is no `steps.{name}.{field}`{}", meant(field, &known))
        };
        findings.error(path, Reason::Reference, message);
    }
}

fn check_outputs(
    findings: &mut Findings,
    path: &FieldPath,
    expression: &Expression,
    steps: &Steps<'_>,
) {
    for (name, uncertain) in steps.all.iter().zip(&steps.uncertain) {
        let Some((uncertain, read)) = uncertain
            .and_then(|why| Some((why, expression.unguarded(&["steps", name, "output"])?)))
            .filter(|_| !planted(Bug::OutputUnguarded))
        else {
            continue;
        };
        let guard = format!("put it under `has(steps.{name}.output) ? … : …`");
        match uncertain {
            Uncertain::Unknown => findings.error(
                path,
                Reason::Unsound,
                format!("`{read}` isn't there when the answer of `{name}` was lost, and it is compensated all the same: {guard}, or set the step's `onUnknown: Park`, so that a person decides"),
            ),
            Uncertain::NotReached => findings.error(
                path,
                Reason::Unsound,
                format!("`{read}` isn't there when the instance failed at `{name}` or before it: {guard}"),
            ),
            Uncertain::Skipped => findings.warn(
                path,
                Reason::Unsound,
                format!("`{read}` isn't there when `{name}` was skipped by its `when`: {guard}"),
            ),
        }
    }
}

/// An instance may fail without any step having failed; reading which one would park each of those.
fn check_failed_step(findings: &mut Findings, path: &FieldPath, expression: &Expression) {
    let read = expression.unguarded(&["failure", "step"]);
    if let Some(read) = read.filter(|_| !planted(Bug::FailedStepUnguarded)) {
        let message = format!(
            "`{read}` isn't there when no step failed, but the instance was cancelled or took too long as a whole: put it under `has(failure.step) ? … : …`"
        );
        findings.error(path, Reason::Unsound, message);
    }
}

/// What somebody may have meant, or all there is.
fn meant(written: &str, known: &[&str]) -> String {
    match closest(written, known.iter().copied()) {
        Some(meant) => format!("; did you mean `{meant}`?"),
        None => format!("; here are {}", known.join(", ")),
    }
}
