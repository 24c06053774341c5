//! The generated CustomResourceDefinitions: committed, described, bounded.

use serde_json::Value;
use tidemill_crds::crd::{ResourceKind, yaml};

/// Calls `visit` with every schema in the tree and its path.
fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&Value, &str)) {
    visit(schema, path);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(property, &format!("{path}.{name}"), visit);
    }
    if schema["additionalProperties"].is_object() {
        walk(&schema["additionalProperties"], &format!("{path}.*"), visit);
    }
    if schema["items"].is_object() {
        walk(&schema["items"], &format!("{path}[]"), visit);
    }
}

fn schemas() -> Vec<(ResourceKind, Value)> {
    let schema_of = |kind: ResourceKind| {
        let crd = serde_json::to_value(kind.crd()).expect("a definition is JSON");
        crd.pointer("/spec/versions/0/schema/openAPIV3Schema")
            .cloned()
            .expect("a definition has a schema")
    };
    ResourceKind::ALL
        .into_iter()
        .map(|kind| (kind, schema_of(kind)))
        .collect()
}

/// What `describe` says against any schema of any kind.
fn complaints(describe: impl Fn(&Value, &str) -> Option<String>) -> Vec<String> {
    let mut complaints = Vec::new();
    for (kind, schema) in schemas() {
        walk(&schema, kind.as_str(), &mut |schema, path| {
            complaints
                .extend(describe(schema, path).map(|complaint| format!("{path}: {complaint}")));
        });
    }
    complaints
}

#[test]
fn the_committed_yaml_is_what_the_types_say() {
    for kind in ResourceKind::ALL {
        let path = format!("{}/{}", env!("CARGO_MANIFEST_DIR"), kind.file_name());
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        let generated = yaml(kind).expect("a definition is YAML");
        assert!(
            committed == generated,
            "crds/{} is stale: run `cargo run -p tidemill-crds --bin crdgen`",
            kind.file_name()
        );
    }
}

#[test]
fn every_field_has_a_description() {
    let missing = complaints(|schema, path| {
        let fields = schema["properties"].as_object()?;
        let bare: Vec<&str> = fields
            .iter()
            .filter(|(_, field)| {
                !field["description"]
                    .as_str()
                    .is_some_and(|text| text.ends_with('.'))
            })
            .map(|(name, _)| name.as_str())
            .filter(|name| path.contains('.') || !["spec", "status"].contains(name))
            .collect();
        if bare.is_empty() {
            None
        } else {
            Some(format!("no description ending in a full stop: {bare:?}"))
        }
    });
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn the_description_of_an_optional_setting_says_its_default() {
    let silent = complaints(|schema, path| {
        if !path.contains(".spec") {
            return None;
        }
        let required: Vec<&str> = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let fields = schema["properties"].as_object()?;
        let silent: Vec<&str> = fields
            .iter()
            .filter(|(name, field)| {
                let text = field["description"].as_str().unwrap_or_default();
                let said = text.contains("Default:") || text.contains("Needed with");
                let parts_say = field["properties"]
                    .as_object()
                    .is_some_and(|parts| !parts.is_empty());
                !required.contains(&name.as_str()) && !said && !parts_say
            })
            .map(|(name, _)| name.as_str())
            .collect();
        // One of several is chosen there: none of them has a default.
        let choice = schema["x-kubernetes-validations"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|rule| {
                rule["message"]
                    .as_str()
                    .is_some_and(|message| message.contains("exactly one"))
            });
        if silent.is_empty() || choice {
            None
        } else {
            Some(format!("the default is not said: {silent:?}"))
        }
    });
    assert_eq!(silent, Vec::<String>::new());
}

#[test]
fn everything_has_a_maximum() {
    let unbounded = complaints(|schema, _| {
        let has = |keyword: &str| !schema[keyword].is_null();
        let any = schema["x-kubernetes-preserve-unknown-fields"] == Value::Bool(true);
        if schema["x-kubernetes-int-or-string"] == Value::Bool(true) {
            return (!has("maxLength") || !has("maximum") || !has("minimum"))
                .then(|| "no maxLength, minimum or maximum".to_owned());
        }
        match schema["type"].as_str() {
            Some("string") => (!has("maxLength") && !has("enum"))
                .then(|| "a string without maxLength or enum".to_owned()),
            Some("array") => (!has("maxItems")).then(|| "a list without maxItems".to_owned()),
            Some("integer" | "number") => (!has("minimum") || !has("maximum"))
                .then(|| "a number without minimum and maximum".to_owned()),
            Some("object") => {
                let map = has("additionalProperties") || any;
                (map && !has("maxProperties")).then(|| "a map without maxProperties".to_owned())
            }
            Some("boolean") => None,
            Some(other) => Some(format!("type {other}")),
            None if any => (!has("maxProperties") || !has("maxItems") || !has("maxLength"))
                .then(|| "any JSON without maxima".to_owned()),
            None => Some("no type".to_owned()),
        }
    });
    assert_eq!(unbounded, Vec::<String>::new());
}

#[test]
fn rules_have_one_line_messages() {
    let bare = complaints(|schema, _| {
        let rules = schema["x-kubernetes-validations"].as_array()?;
        let bare: Vec<&Value> = rules
            .iter()
            .filter(|rule| {
                rule["message"]
                    .as_str()
                    .is_none_or(|message| message.contains('\n'))
            })
            .collect();
        if bare.is_empty() {
            None
        } else {
            Some(format!("a rule without a message: {bare:?}"))
        }
    });
    assert_eq!(bare, Vec::<String>::new());
}

#[test]
fn formats_are_known_to_kubernetes() {
    let unknown = complaints(|schema, _| {
        let format = schema["format"].as_str()?;
        (!["int32", "int64", "double", "date-time"].contains(&format)).then(|| format.to_owned())
    });
    assert_eq!(unknown, Vec::<String>::new());
}

#[test]
fn names_scale_and_columns_are_what_kubectl_users_meet() {
    let summary: Vec<String> = ResourceKind::ALL
        .into_iter()
        .map(|kind| {
            let crd = kind.crd();
            let version = crd.spec.versions.first().expect("there is one version");
            let columns: Vec<String> = version
                .additional_printer_columns
                .iter()
                .flatten()
                .map(|column| {
                    if column.priority.unwrap_or(0) > 0 {
                        format!("({})", column.name)
                    } else {
                        column.name.clone()
                    }
                })
                .collect();
            let scale = version
                .subresources
                .as_ref()
                .and_then(|subresources| subresources.scale.as_ref());
            let scale = scale.map(|scale| {
                format!(
                    "{} {} {}",
                    scale.spec_replicas_path,
                    scale.status_replicas_path,
                    scale.label_selector_path.clone().unwrap_or_default()
                )
            });
            format!(
                "{} {} {:?} {:?} {}\n  {}\n  scale {}",
                crd.metadata.name.clone().unwrap_or_default(),
                crd.spec.names.kind,
                crd.spec.names.short_names.clone().unwrap_or_default(),
                crd.spec.names.categories.clone().unwrap_or_default(),
                crd.spec.scope,
                columns.join(" "),
                scale.unwrap_or_else(|| "none".to_owned()),
            )
        })
        .collect();
    insta::assert_snapshot!(summary.join("\n"), @r#"
    eventstreams.tidemill.dev EventStream ["evst"] ["tidemill"] Namespaced
      Ready Messages Bytes (Reason) (Stream) Age
      scale none
    projections.tidemill.dev Projection ["prjn"] ["tidemill"] Namespaced
      Ready Lag Position Parked Revision (Reason) (Outdated) Age
      scale .spec.replicas .status.replicas .status.selector
    sagas.tidemill.dev Saga ["sga"] ["tidemill"] Namespaced
      Ready Running Completed Compensated Parked (Revision) (Reason) (Outdated) Age
      scale .spec.replicas .status.replicas .status.selector
    "#);
}
