//! The part of the API server's check that looks at the shape: types, bounds, unknown fields, uniqueness.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Problem, closest};

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
    let mut problems = Vec::new();
    let Value::Object(fields) = document else {
        return vec![Problem::new(
            "",
            format!(
                "a resource is a map of fields, this is {}",
                name_of(document)
            ),
        )];
    };
    for name in fields.keys() {
        if !["apiVersion", "kind", "metadata", "spec", "status"].contains(&name.as_str()) {
            problems.push(unknown(
                name,
                name,
                ["apiVersion", "kind", "metadata", "spec"],
            ));
        }
    }
    match fields.get("metadata") {
        Some(Value::Object(metadata)) => check_metadata(metadata, &mut problems),
        _ => problems.push(Problem::new(
            "metadata",
            "a resource needs metadata with a name",
        )),
    }
    match (fields.get("spec"), schema.pointer("/properties/spec")) {
        (None, _) => problems.push(Problem::new("spec", "the field is missing")),
        (Some(spec), Some(schema)) => check_value(schema, spec, "spec", &mut problems),
        (Some(_), None) => {}
    }
    problems
}

fn check_metadata(metadata: &Map<String, Value>, problems: &mut Vec<Problem>) {
    for name in metadata.keys() {
        if !METADATA.contains(&name.as_str()) {
            problems.push(unknown("metadata", name, METADATA));
        }
    }
    for name in ["name", "namespace"] {
        match metadata.get(name) {
            Some(Value::String(_)) => {}
            Some(other) => problems.push(Problem::new(
                format!("metadata.{name}"),
                expected("a string", other),
            )),
            None if name == "name" => problems.push(Problem::new(
                "metadata.name",
                "the field is missing: a resource needs a name",
            )),
            None => {}
        }
    }
    for name in ["labels", "annotations"] {
        match metadata.get(name) {
            None | Some(Value::Null) => {}
            Some(Value::Object(entries)) => {
                for (key, value) in entries.iter().filter(|(_, value)| !value.is_string()) {
                    problems.push(Problem::new(
                        format!("metadata.{name}.{key}"),
                        expected("a string", value),
                    ));
                }
            }
            Some(other) => problems.push(Problem::new(
                format!("metadata.{name}"),
                expected("a map of strings", other),
            )),
        }
    }
}

fn check_value(schema: &Value, value: &Value, path: &str, problems: &mut Vec<Problem>) {
    if value.is_null() {
        let message = if schema.get("nullable") == Some(&Value::Bool(true)) {
            "the expression is empty: put quotes around it, YAML takes a leading `!` for a tag and ` #` for a comment"
        } else {
            "the value is empty (null): give it a value or remove the field"
        };
        problems.push(Problem::new(path, message));
        return;
    }
    if let Some(problem) = wrong_type(schema, value, path) {
        problems.push(problem);
        return;
    }
    match value {
        Value::Object(fields) => check_object(schema, fields, path, problems),
        Value::Array(items) => check_array(schema, items, path, problems),
        Value::String(text) => check_text(schema, text, path, problems),
        Value::Number(number) => {
            let (least, most) = (bound(schema, "minimum"), bound(schema, "maximum"));
            let number = number.as_f64().unwrap_or(f64::NAN);
            if least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most) {
                problems.push(Problem::new(path, out_of_bounds(value, least, most)));
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn wrong_type(schema: &Value, value: &Value, path: &str) -> Option<Problem> {
    let (wanted, right) = if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        (
            "a whole number or a string",
            is_whole(value) || value.is_string(),
        )
    } else {
        match schema.get("type").and_then(Value::as_str)? {
            "object" => ("a map of fields", value.is_object()),
            "array" => ("a list", value.is_array()),
            "string" => ("a string", value.is_string()),
            "integer" => ("a whole number", is_whole(value)),
            "number" => ("a number", value.is_number()),
            "boolean" => ("true or false", value.is_boolean()),
            _ => return None,
        }
    };
    if right {
        None
    } else {
        Some(Problem::new(path, expected(wanted, value)))
    }
}

fn check_object(
    schema: &Value,
    fields: &Map<String, Value>,
    path: &str,
    problems: &mut Vec<Problem>,
) {
    let count = |name: &str| schema.get(name).and_then(Value::as_u64);
    if count("maxProperties").is_some_and(|most| fields.len() as u64 > most) {
        problems.push(Problem::new(
            path,
            format!(
                "{} entries, at most {} are allowed",
                fields.len(),
                count("maxProperties").unwrap_or(0)
            ),
        ));
    }
    let no_properties = Map::new();
    let properties = schema
        .get("properties")
        .and_then(Value::as_object)
        .unwrap_or(&no_properties);
    for name in schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        if !fields.contains_key(name) {
            problems.push(Problem::new(join(path, name), "the field is missing"));
        }
    }
    let anything = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    for (name, value) in fields {
        if let Some(property) = properties.get(name) {
            check_value(property, value, &join(path, name), problems);
        } else if let Some(values) = schema.get("additionalProperties") {
            check_value(values, value, &join(path, name), problems);
        } else if !anything {
            problems.push(unknown(path, name, properties.keys().map(String::as_str)));
        }
    }
}

fn check_array(schema: &Value, items: &[Value], path: &str, problems: &mut Vec<Problem>) {
    let count = |name: &str| schema.get(name).and_then(Value::as_u64);
    if count("minItems").is_some_and(|least| (items.len() as u64) < least) {
        problems.push(Problem::new(
            path,
            format!(
                "the list has {} entries, at least {} is needed",
                items.len(),
                count("minItems").unwrap_or(0)
            ),
        ));
    }
    if count("maxItems").is_some_and(|most| items.len() as u64 > most) {
        problems.push(Problem::new(
            path,
            format!(
                "the list has {} entries, at most {} are allowed",
                items.len(),
                count("maxItems").unwrap_or(0)
            ),
        ));
    }
    if let Some(schema) = schema.get("items") {
        for (index, item) in items.iter().enumerate() {
            check_value(schema, item, &format!("{path}[{index}]"), problems);
        }
    }
    check_unique(schema, items, path, problems);
}

/// Lists that are maps or sets hold each key once.
fn check_unique(schema: &Value, items: &[Value], path: &str, problems: &mut Vec<Problem>) {
    let key_names: Vec<&str> = match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("map") => schema
            .get("x-kubernetes-list-map-keys")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect(),
        Some("set") => Vec::new(),
        _ => return,
    };
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        let key = match key_names.first() {
            Some(name) => item.get(name),
            None => Some(item),
        };
        let Some(key) = key.and_then(Value::as_str) else {
            continue;
        };
        if let Some(first) = seen.insert(key.to_owned(), index) {
            let at = key_names
                .first()
                .map_or_else(String::new, |name| format!(".{name}"));
            problems.push(Problem::new(
                format!("{path}[{index}]{at}"),
                format!("`{key}` stands here twice, {path}[{first}] has it already"),
            ));
        }
    }
}

fn check_text(schema: &Value, text: &str, path: &str, problems: &mut Vec<Problem>) {
    let length = text.chars().count() as u64;
    let count = |name: &str| schema.get(name).and_then(Value::as_u64);
    if count("minLength").is_some_and(|least| length < least) {
        problems.push(Problem::new(path, "the text is empty"));
    }
    if let Some(most) = count("maxLength").filter(|most| length > *most) {
        problems.push(Problem::new(
            path,
            format!("the text has {length} characters, at most {most} are allowed"),
        ));
    }
    if let Some(Value::Array(allowed)) = schema.get("enum") {
        let allowed: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
        if !allowed.contains(&text) {
            let hint = closest(text, allowed.iter().copied())
                .map(|meant| format!(" (did you mean `{meant}`?)"))
                .unwrap_or_default();
            problems.push(Problem::new(
                path,
                format!("`{text}` is not one of {}{hint}", allowed.join(", ")),
            ));
        }
    }
    if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true))
        && let Err(error) = crate::text::ByteSize::Text(text.to_owned()).bytes()
    {
        problems.push(Problem::new(path, error.to_string()));
    }
    if schema.get("format").and_then(Value::as_str) == Some("date-time")
        && tidemill_core::timestamp::Timestamp::parse(text).is_none()
    {
        problems.push(Problem::new(
            path,
            format!(
                "`{text}` is not a time: write it as RFC 3339 does, such as 2026-01-31T12:00:00Z"
            ),
        ));
    }
}

fn unknown<'a>(path: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Problem {
    let known: Vec<&str> = known.into_iter().collect();
    let path = if path == name {
        name.to_owned()
    } else {
        join(path, name)
    };
    Problem::new(
        path,
        match closest(name, known.iter().copied()) {
            Some(meant) => format!("there is no such field; did you mean `{meant}`?"),
            None => format!("there is no such field; here are {}", known.join(", ")),
        },
    )
}

fn expected(wanted: &str, value: &Value) -> String {
    let quote = if wanted == "a string" && (value.is_number() || value.is_boolean()) {
        ": put quotes around it"
    } else {
        ""
    };
    format!("{wanted} is needed, this is {}{quote}", name_of(value))
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
        (_, most) => format!(
            "{value} is out of bounds: at most {}",
            most.unwrap_or(f64::NAN)
        ),
    }
}

fn bound(schema: &Value, name: &str) -> Option<f64> {
    schema.get(name).and_then(Value::as_f64)
}

fn is_whole(value: &Value) -> bool {
    value.is_i64() || value.is_u64()
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}
