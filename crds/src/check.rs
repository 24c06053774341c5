//! Checks a document against the schema of its kind as the API server does: types, bounds, unknown fields, uniqueness, then
//! the CEL rules. So a file that passes here is accepted by `kubectl apply`, and the other way round.
//!
//! Stricter in one point: a null where a value belongs is an error here, while the API server drops it as if the field were
//! absent; in a file it is nearly always a value that was forgotten or that YAML has eaten.

mod labels;
mod structure;
mod suggest;

use std::sync::LazyLock;

use kube::core::cel::{CompiledSchema, ErrorKind, Validator, compile_schema};
use serde_json::Value;

use crate::crd::ResourceKind;
use crate::problem::{FieldPath, Problem, Reason, Segment};

pub(crate) use suggest::closest;

/// Everything that is wrong with a document of a kind. With `old`, the document is an update of that one, and rules on
/// what can't be changed are checked too. `status` and what the API server itself writes into `metadata` are not looked at.
#[must_use]
pub fn check(kind: ResourceKind, document: &Value, old: Option<&Value>) -> Vec<Problem> {
    let schema = Schema::of(kind);
    let mut problems = structure::check(&schema.structure, document);
    problems.extend(cel(schema, document, old, problems.is_empty()));
    problems.sort();
    problems.dedup();
    problems
}

struct Schema {
    structure: Value,
    rules: CompiledSchema,
}

impl Schema {
    fn of(kind: ResourceKind) -> &'static Self {
        static EVENT_STREAM: LazyLock<Schema> =
            LazyLock::new(|| Schema::generate(ResourceKind::EventStream));
        static PROJECTION: LazyLock<Schema> =
            LazyLock::new(|| Schema::generate(ResourceKind::Projection));
        static SAGA: LazyLock<Schema> = LazyLock::new(|| Schema::generate(ResourceKind::Saga));
        match kind {
            ResourceKind::EventStream => &EVENT_STREAM,
            ResourceKind::Projection => &PROJECTION,
            ResourceKind::Saga => &SAGA,
        }
    }

    fn generate(kind: ResourceKind) -> Self {
        let crd = serde_json::to_value(kind.crd()).unwrap_or_default();
        let structure = crd
            .pointer("/spec/versions/0/schema/openAPIV3Schema")
            .cloned()
            .unwrap_or_default();
        let rules = compile_schema(&structure);
        Self { structure, rules }
    }
}

fn cel(schema: &Schema, document: &Value, old: Option<&Value>, well_formed: bool) -> Vec<Problem> {
    let document = as_stored(document);
    let old = old.map(as_stored);
    let Err(errors) = Validator::new().validate_compiled(&schema.rules, &document, old.as_ref())
    else {
        return Vec::new();
    };
    let errors = errors.into_vec();
    let refused = |kind: &ErrorKind| *kind == ErrorKind::ValidationFailure;
    // A rule that can't be evaluated is the echo of something malformed, which has been said where it is.
    let only_echoes = well_formed && !errors.iter().any(|error| refused(&error.kind));
    let said = errors
        .into_iter()
        .filter(|error| only_echoes || refused(&error.kind));
    said.map(|error| {
        let path = FieldPath::of_rule(&error.field_path);
        // A rule on the name can only stand at the root.
        if let Some(rest) = error.message.strip_prefix("metadata.name ") {
            let path = FieldPath::root().field("metadata").field("name");
            return Problem::new(path, Reason::Malformed, rest);
        }
        if let Some(rest) = of_field(&document, &path, &error.message)
            && old.is_none()
        {
            let field = error.message.split(' ').next().unwrap_or_default();
            return Problem::new(path.field(field), Reason::Malformed, rest);
        }
        let message = match actions(&document, &path) {
            Some(here) if error.message.contains("exactly one action") => {
                format!("{}; {here}", error.message)
            }
            _ => error.message,
        };
        Problem::new(path, Reason::Malformed, message)
    })
    .collect()
}

/// What a rule of the spec says of a field with whose name it begins: it is said of that field, in its line, and once where the
/// compiler says the same.
fn of_field<'a>(document: &Value, path: &FieldPath, message: &'a str) -> Option<&'a str> {
    let (field, rest) = message.split_once(' ')?;
    let is_there = *path == FieldPath::spec() && document["spec"].get(field).is_some();
    is_there.then_some(rest)
}

/// Which actions there are in a step or a compensation.
fn actions(document: &Value, path: &FieldPath) -> Option<String> {
    let mut value = document;
    for segment in path.segments() {
        value = match segment {
            Segment::Field(name) => value.get(name.as_str())?,
            Segment::Index(index) => value.get(*index)?,
        };
    }
    let fields = value.as_object()?;
    let here: Vec<&str> = ["request", "command", "http", "publish", "wait", "sleep"]
        .into_iter()
        .filter(|action| fields.contains_key(*action))
        .collect();
    Some(match here.as_slice() {
        [] => "here is none".to_owned(),
        here => format!("here are {}", here.join(" and ")),
    })
}

/// The document as the API server's rules see it: without status, and without nulls in fields.
fn as_stored(document: &Value) -> Value {
    let mut document = document.clone();
    if let Value::Object(fields) = &mut document {
        fields.remove("status");
    }
    remove_nulls(&mut document);
    document
}

fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(remove_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}
