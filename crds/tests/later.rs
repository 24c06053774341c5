//! What this version doesn't run is said by `kubectl explain` too: the compiler's refusals held against the descriptions of the
//! schema, over every field and every named value that there is.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test, also outside of its #[test] functions"
)]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use tidemill_crds::ResourceKind::{self, EventStream, Projection, Saga};
use tidemill_crds::manifest::Resource;
use tidemill_crds::problem::{FieldPath, Reason, Segment};

const SAID: &str = "Not in this version";

fn spec_of(kind: ResourceKind) -> Value {
    let crd = serde_json::to_value(kind.crd()).unwrap();
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    crd.pointer(path).cloned().unwrap()
}

/// The least value of a schema's type; what rules say of it is none of the compiler's business.
fn least(schema: &Value) -> Value {
    if let Some(value) = schema["enum"].get(0) {
        return value.clone();
    }
    match schema["type"].as_str() {
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten();
            let fields = required.filter_map(Value::as_str);
            fields
                .map(|name| (name.to_owned(), least(&schema["properties"][name])))
                .collect::<Map<_, _>>()
                .into()
        }
        Some("array") => json!([least(&schema["items"])]),
        Some("integer") => json!(1),
        Some("boolean") => json!(true),
        _ => json!("a"),
    }
}

/// Values of a schema, in which each field below it is there once, with each of its named values.
fn values(schema: &Value) -> Vec<Value> {
    if let Some(values) = schema["enum"].as_array() {
        return values.clone();
    }
    let Some(fields) = schema["properties"].as_object() else {
        return match schema["type"].as_str() {
            Some("array") => values(&schema["items"])
                .into_iter()
                .map(|item| json!([item]))
                .collect(),
            _ => vec![least(schema)],
        };
    };
    let with = |(name, field): (&String, &Value)| {
        let with_field = |value: Value| {
            let mut object = least(schema);
            object[name] = value;
            object
        };
        values(field)
            .into_iter()
            .map(with_field)
            .collect::<Vec<_>>()
    };
    let mut all: Vec<Value> = fields.iter().flat_map(with).collect();
    all.push(least(schema));
    all
}

fn resource(kind: ResourceKind, spec: &Value) -> Resource {
    let document = json!({
        "apiVersion": "tidemill.dev/v1alpha1",
        "kind": kind.as_str(),
        "metadata": {"name": "a"},
        "spec": spec,
    });
    match kind {
        EventStream => Resource::EventStream(serde_json::from_value(document).unwrap()),
        Projection => Resource::Projection(serde_json::from_value(document).unwrap()),
        Saga => Resource::Saga(serde_json::from_value(document).unwrap()),
    }
}

/// A field of the schema by its path, and what a document has there.
fn at<'a>(
    mut schema: &'a Value,
    spec: &'a Value,
    path: &FieldPath,
) -> (String, &'a Value, &'a Value) {
    let mut value = spec;
    let mut name = String::new();
    for segment in path.segments().iter().skip(1) {
        match segment {
            Segment::Field(field) => {
                name.push_str(&format!(".{field}"));
                schema = &schema["properties"][field];
                value = &value[field];
            }
            Segment::Index(index) => {
                name.push_str("[]");
                schema = &schema["items"];
                value = &value[index];
            }
        }
    }
    (name, schema, value)
}

/// Which values a description says aren't in this version; `None` if it says nothing, none of them if it says it of the field.
fn said(schema: &Value) -> Option<BTreeSet<String>> {
    let description = schema["description"].as_str().unwrap_or_default();
    let (_, values) = description.split_once(SAID)?;
    let Some(values) = values.strip_prefix(": ") else {
        return Some(BTreeSet::new());
    };
    let values = values.trim_end_matches('.').split(", ");
    Some(
        values
            .map(|value| value.trim_matches('`').to_owned())
            .collect(),
    )
}

/// Every field of a schema that says something, by its path.
fn all_said(schema: &Value, path: &str, found: &mut BTreeMap<String, BTreeSet<String>>) {
    found.extend(said(schema).map(|values| (path.to_owned(), values)));
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        all_said(field, &format!("{path}.{name}"), found);
    }
    if schema["items"].is_object() {
        all_said(&schema["items"], &format!("{path}[]"), found);
    }
}

#[test]
fn what_the_compiler_refuses_as_later_is_described_as_later_and_nothing_else() {
    for (kind, at_least) in [(EventStream, 6), (Projection, 3), (Saga, 11)] {
        let schema = spec_of(kind);
        let mut refused: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for spec in values(&schema) {
            let report = resource(kind, &spec).compile();
            for problem in &report.errors {
                if problem.reason != Reason::NotInThisVersion {
                    continue;
                }
                let (name, field, value) = at(&schema, &spec, &problem.path);
                assert!(
                    said(field).is_some(),
                    "{kind}{name}: {}",
                    field["description"]
                );
                let values = refused.entry(name).or_default();
                if field["enum"].is_array() {
                    values.extend(value.as_str().map(str::to_owned));
                }
            }
        }
        let mut described = BTreeMap::new();
        all_said(&schema, "", &mut described);
        // A part of what is refused may say it too.
        described.retain(|name, _| {
            let is_part = |whole: &&String| {
                name.strip_prefix(whole.as_str())
                    .is_some_and(|rest| rest.starts_with(['.', '[']))
            };
            refused.keys().find(is_part).is_none()
        });
        assert_eq!(described, refused, "{kind}");
        assert!(refused.len() >= at_least, "{kind}: {refused:?}");
    }
}
