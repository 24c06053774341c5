//! The part of the API server's check that looks at the shape: types, bounds, unknown fields, uniqueness.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use tidemill_core::timestamp::Timestamp;

use super::closest;
use super::labels::{ANNOTATIONS_BYTES_MAX, wrong_key, wrong_value};
use crate::problem::{FieldPath, Problem, Reason};
use crate::quantity::Quantity;
use crate::text::ByteSize;

/// Fields of a document.
const DOCUMENT: [&str; 4] = ["apiVersion", "kind", "metadata", "spec"];

/// Fields of `metadata` that a manifest may hold, those of an exported object included.
const METADATA: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

pub(super) fn check(schema: &Value, document: &Value) -> Vec<Problem> {
    let mut walk = Walk::default();
    let root = FieldPath::root();
    let Value::Object(fields) = document else {
        walk.add(
            &root,
            format!(
                "a resource is a map of fields, this is {}",
                name_of(document)
            ),
        );
        return walk.problems;
    };
    for name in fields.keys().filter(|name| *name != "status") {
        if !DOCUMENT.contains(&name.as_str()) {
            walk.unknown(&root.field(name), name, DOCUMENT);
        }
    }
    match fields.get("metadata") {
        Some(Value::Object(metadata)) => walk.metadata(metadata, &root.field("metadata")),
        _ => walk.add(
            &root.field("metadata"),
            "a resource needs metadata with a name",
        ),
    }
    match (fields.get("spec"), schema.pointer("/properties/spec")) {
        (Some(spec), Some(schema)) => walk.value(schema, spec, &FieldPath::spec()),
        (None, Some(schema)) if schema.get("required").is_none() => walk.add(
            &FieldPath::spec(),
            "the field is missing: write `spec: {}` to leave everything at its default",
        ),
        (_, _) => walk.add(&FieldPath::spec(), "the field is missing"),
    }
    walk.problems
}

/// Whether Kubernetes takes it for the name of a namespace (RFC 1123).
fn is_dns_label(text: &str) -> bool {
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= 63
        && text.bytes().all(|byte| inner(&byte) || byte == b'-')
        && text.as_bytes().first().is_some_and(inner)
        && text.as_bytes().last().is_some_and(inner)
}

#[derive(Default)]
struct Walk {
    problems: Vec<Problem>,
}

impl Walk {
    fn add(&mut self, path: &FieldPath, message: impl Into<String>) {
        self.problems
            .push(Problem::new(path.clone(), Reason::Malformed, message));
    }

    fn metadata(&mut self, metadata: &Map<String, Value>, path: &FieldPath) {
        for name in metadata
            .keys()
            .filter(|name| !METADATA.contains(&name.as_str()))
        {
            self.unknown(&path.field(name), name, METADATA);
        }
        for name in ["name", "namespace"] {
            match metadata.get(name) {
                Some(Value::String(_)) => {}
                Some(other) => self.add(
                    &path.field(name),
                    expected("a string", other) + &cure(&Value::Null, "a string", other),
                ),
                None if name == "name" => {
                    self.add(
                        &path.field(name),
                        "the field is missing: a resource needs a name",
                    );
                }
                None => {}
            }
        }
        // Absent for kubectl too where it is empty.
        if let Some(Value::String(namespace)) = metadata.get("namespace")
            && !namespace.is_empty()
            && !is_dns_label(namespace)
        {
            self.add(
                &path.field("namespace"),
                "must have at most 63 lower-case letters, digits and `-`, and begin and end with a letter or digit: Kubernetes takes no other namespace",
            );
        }
        for name in ["labels", "annotations"] {
            match metadata.get(name) {
                None | Some(Value::Null) => {}
                Some(Value::Object(entries)) => {
                    self.labels(entries, &path.field(name), name == "labels");
                }
                Some(other) => self.add(&path.field(name), expected("a map of strings", other)),
            }
        }
    }

    /// Labels, or annotations: their keys may have capitals before the `/` too, and their values are any text.
    fn labels(&mut self, entries: &Map<String, Value>, path: &FieldPath, are_labels: bool) {
        let mut bytes = 0;
        for (key, value) in entries {
            let at = path.field(key);
            let wrong = if are_labels {
                wrong_key(key)
            } else {
                wrong_key(&key.to_ascii_lowercase())
            };
            if let Some(wrong) = wrong {
                self.add(&at, wrong);
            }
            match value {
                Value::String(text) => {
                    bytes += key.len() + text.len();
                    if let Some(wrong) = wrong_value(text).filter(|_| are_labels) {
                        self.add(&at, wrong);
                    }
                }
                other => self.add(
                    &at,
                    expected("a string", other) + &cure(&Value::Null, "a string", other),
                ),
            }
        }
        if !are_labels && bytes > ANNOTATIONS_BYTES_MAX {
            self.add(
                path,
                format!("{bytes} bytes, at most {ANNOTATIONS_BYTES_MAX} are allowed"),
            );
        }
    }

    fn value(&mut self, schema: &Value, value: &Value, path: &FieldPath) {
        if value.is_null() {
            // Nullable are the expressions alone: see `text::no_null`.
            let message = if schema.get("nullable") == Some(&Value::Bool(true)) {
                "the expression is empty: put quotes around it, YAML takes a leading `!` for a tag and ` #` for a comment"
            } else {
                "the value is empty (null): give it a value or remove the field"
            };
            self.add(path, message);
            return;
        }
        if let Some(wanted) = missed_type(schema, value) {
            self.add(path, expected(wanted, value) + &cure(schema, wanted, value));
            return;
        }
        match value {
            Value::Object(fields) => self.object(schema, fields, path),
            Value::Array(items) => self.array(schema, items, path),
            Value::String(text) => self.text(schema, text, path),
            Value::Number(number) => {
                let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
                let (least, most) = (bound("minimum"), bound("maximum"));
                let number = number.as_f64().unwrap_or(f64::NAN);
                if least.is_some_and(|least| number < least)
                    || most.is_some_and(|most| number > most)
                {
                    self.add(path, out_of_bounds(value, least, most));
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn object(&mut self, schema: &Value, fields: &Map<String, Value>, path: &FieldPath) {
        if let Some(most) =
            count(schema, "maxProperties").filter(|most| fields.len() as u64 > *most)
        {
            self.add(
                path,
                format!("{} entries, at most {most} are allowed", fields.len()),
            );
        }
        let none = Map::new();
        let properties = schema
            .get("properties")
            .and_then(Value::as_object)
            .unwrap_or(&none);
        let required = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        for name in required
            .filter_map(Value::as_str)
            .filter(|name| !fields.contains_key(*name))
        {
            self.add(&path.field(name), missing(properties.get(name)));
        }
        let anything =
            schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
        for (name, value) in fields {
            let path = path.field(name);
            if let Some(property) = properties.get(name) {
                self.value(property, value, &path);
            } else if let Some(values) = schema.get("additionalProperties") {
                self.value(values, value, &path);
            } else if !anything {
                self.unknown(&path, name, properties.keys().map(String::as_str));
            }
        }
    }

    fn array(&mut self, schema: &Value, items: &[Value], path: &FieldPath) {
        let length = items.len() as u64;
        if let Some(least) = count(schema, "minItems").filter(|least| length < *least) {
            self.add(
                path,
                format!("the list has {length} entries, at least {least} is needed"),
            );
        }
        if let Some(most) = count(schema, "maxItems").filter(|most| length > *most) {
            self.add(
                path,
                format!("the list has {length} entries, at most {most} are allowed"),
            );
        }
        if let Some(schema) = schema.get("items") {
            for (index, item) in items.iter().enumerate() {
                self.value(schema, item, &path.index(index));
            }
        }
        self.unique(schema, items, path);
    }

    /// Lists that are maps or sets hold each key once. (Our maps have one key.)
    fn unique(&mut self, schema: &Value, items: &[Value], path: &FieldPath) {
        let key_name = match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
            Some("map") => schema
                .pointer("/x-kubernetes-list-map-keys/0")
                .and_then(Value::as_str),
            Some("set") => None,
            _ => return,
        };
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, item) in items.iter().enumerate() {
            let key = key_name
                .map_or(Some(item), |name| item.get(name))
                .and_then(Value::as_str);
            let Some((key, first)) =
                key.and_then(|key| seen.insert(key, index).map(|first| (key, first)))
            else {
                continue;
            };
            let at = path.index(index);
            let at = key_name.map_or_else(|| at.clone(), |name| at.field(name));
            self.add(
                &at,
                format!(
                    "`{key}` stands here twice, {} has it already",
                    path.index(first)
                ),
            );
        }
    }

    fn text(&mut self, schema: &Value, text: &str, path: &FieldPath) {
        let length = text.chars().count() as u64;
        if count(schema, "minLength").is_some_and(|least| length < least) {
            self.add(path, "the text is empty");
        }
        if let Some(most) = count(schema, "maxLength").filter(|most| length > *most) {
            self.add(
                path,
                format!("the text has {length} characters, at most {most} are allowed"),
            );
        }
        if let Some(Value::Array(allowed)) = schema.get("enum") {
            let allowed: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
            if !allowed.contains(&text) {
                let meant = closest(text, allowed.iter().copied());
                let hint = meant
                    .map(|meant| format!(" (did you mean `{meant}`?)"))
                    .unwrap_or_default();
                self.add(
                    path,
                    format!("`{text}` is not one of {}{hint}", allowed.join(", ")),
                );
            }
        }
        if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
            // Two kinds of amounts are written so, each with its own form.
            let text = text.to_owned();
            if schema.get("pattern") == Quantity::schema().get("pattern") {
                let quantity = Quantity::Text(text);
                if quantity.canonical().is_none() {
                    self.add(path, quantity.wrong());
                }
            } else if let Err(error) = ByteSize::Text(text).bytes() {
                self.add(path, error.to_string());
            }
        }
        if schema.get("format").and_then(Value::as_str) == Some("date-time") && !is_time(text) {
            self.add(path, format!("`{text}` is not a time that Kubernetes takes: write it as RFC 3339 does, with a capital T and Z, such as 2026-01-31T12:00:00Z"));
        }
    }

    fn unknown<'a>(
        &mut self,
        path: &FieldPath,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) {
        let known: Vec<&str> = known.into_iter().collect();
        let message = match closest(name, known.iter().copied()) {
            Some(meant) => format!("there is no such field; did you mean `{meant}`?"),
            None => format!("there is no such field; here are {}", known.join(", ")),
        };
        self.add(path, message);
    }
}

/// Whether the API server takes it for a time: RFC 3339, without lower-case letters, a space for the `T`, and leap seconds, which
/// we read in events.
fn is_time(text: &str) -> bool {
    let plain = text.bytes().all(|byte| !matches!(byte, b't' | b'z' | b' '));
    plain && text.get(17..19) != Some("60") && Timestamp::parse(text).is_some()
}

/// What the schema wants, if the value is something else.
fn missed_type(schema: &Value, value: &Value) -> Option<&'static str> {
    let whole = value.is_i64() || value.is_u64();
    let (wanted, right) = if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        ("a whole number or a string", whole || value.is_string())
    } else {
        match schema.get("type").and_then(Value::as_str)? {
            "object" => ("a map of fields", value.is_object()),
            "array" => ("a list", value.is_array()),
            "string" => ("a string", value.is_string()),
            "integer" => ("a whole number", whole),
            "number" => ("a number", value.is_number()),
            "boolean" => ("true or false", value.is_boolean()),
            _ => return None,
        }
    };
    if right { None } else { Some(wanted) }
}

fn count(schema: &Value, name: &str) -> Option<u64> {
    schema.get(name).and_then(Value::as_u64)
}

fn expected(wanted: &str, value: &Value) -> String {
    format!("{wanted} is needed, this is {}", name_of(value))
}

/// What would do in place of a value of another type.
fn cure(schema: &Value, wanted: &str, value: &Value) -> String {
    match (wanted, value) {
        ("a string", Value::Number(number)) if is_duration(schema) => {
            format!(": give it a unit, such as {number}s")
        }
        ("a string", Value::Number(_) | Value::Bool(_)) => ": put quotes around it".to_owned(),
        ("a list", Value::String(text)) if text.len() <= 40 && !text.contains([',', '[', ']']) => {
            format!(": write [{text}]")
        }
        _ => String::new(),
    }
}

fn is_duration(schema: &Value) -> bool {
    let rules = schema
        .get("x-kubernetes-validations")
        .and_then(Value::as_array);
    rules.into_iter().flatten().any(|rule| {
        let message = rule.get("message").and_then(Value::as_str);
        message.is_some_and(|message| message.starts_with("not a duration"))
    })
}

/// With a small first letter, unless it belongs to an abbreviation.
fn within_a_sentence(text: &str) -> String {
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if second.is_lowercase() || second == ' ' => {
            first.to_lowercase().chain(text.chars().skip(1)).collect()
        }
        _ => text.to_owned(),
    }
}

/// That a field is missing, and what it is for: the first sentence of its description.
fn missing(schema: Option<&Value>) -> String {
    let description = schema
        .and_then(|schema| schema.get("description"))
        .and_then(Value::as_str);
    match description.and_then(|text| text.split(". ").next()) {
        Some(what) => format!(
            "the field is missing: {}",
            within_a_sentence(what.trim_end_matches('.'))
        ),
        None => "the field is missing".to_owned(),
    }
}

fn name_of(value: &Value) -> String {
    match value {
        Value::Null => "empty (null)".to_owned(),
        Value::Bool(flag) => format!("the boolean {flag}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => {
            format!("the string `{}`", text.chars().take(40).collect::<String>())
        }
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a map of fields".to_owned(),
    }
}

fn out_of_bounds(value: &Value, least: Option<f64>, most: Option<f64>) -> String {
    match (least, most) {
        (Some(least), Some(most)) => format!("{value} is out of bounds: from {least} to {most}"),
        (Some(least), None) => format!("{value} is out of bounds: at least {least}"),
        (None, Some(most)) => format!("{value} is out of bounds: at most {most}"),
        (None, None) => format!("{value} is out of bounds"),
    }
}
