//! The CustomResourceDefinitions, generated from the types.

use std::fmt;
use std::str::FromStr;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use crate::text::never_null;
use crate::{EventStream, Projection, Saga};

/// One of the three kinds of resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKind {
    /// EventStream.
    EventStream,
    /// Projection.
    Projection,
    /// Saga.
    Saga,
}

impl ResourceKind {
    /// Every kind, in the order that people meet them.
    pub const ALL: [Self; 3] = [Self::EventStream, Self::Projection, Self::Saga];

    /// The kind as manifests write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EventStream => "EventStream",
            Self::Projection => "Projection",
            Self::Saga => "Saga",
        }
    }

    /// Its CustomResourceDefinition.
    #[must_use]
    pub fn crd(self) -> CustomResourceDefinition {
        finished(match self {
            Self::EventStream => EventStream::crd(),
            Self::Projection => Projection::crd(),
            Self::Saga => Saga::crd(),
        })
    }

    /// Name of the generated file, below `crds/`.
    #[must_use]
    pub fn file_name(self) -> String {
        format!("{}.yaml", self.as_str().to_ascii_lowercase())
    }
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ResourceKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            format!("kind `{text}` is unknown: Tidemill has the kinds EventStream, Projection and Saga")
        })
    }
}

/// The CustomResourceDefinitions of all kinds.
#[must_use]
pub fn all_crds() -> Vec<CustomResourceDefinition> {
    ResourceKind::ALL
        .into_iter()
        .map(ResourceKind::crd)
        .collect()
}

/// Why a CustomResourceDefinition can't be written.
#[derive(Debug, thiserror::Error)]
pub enum CrdError {
    /// It is no YAML.
    #[error("can't write the CustomResourceDefinition of {kind} as YAML")]
    Yaml {
        /// Whose definition.
        kind: ResourceKind,
        /// Why.
        source: serde_saphyr::ser_error::Error,
    },
}

/// The committed file of a kind: the same bytes for the same types.
///
/// # Errors
/// The serializer refuses, which no definition of ours should make it do.
pub fn yaml(kind: ResourceKind) -> Result<String, CrdError> {
    let text =
        serde_saphyr::to_string(&kind.crd()).map_err(|source| CrdError::Yaml { kind, source })?;
    Ok(format!(
        "# Generated from crds/src by `cargo run -p tidemill-crds --bin crdgen`; don't edit.\n{text}"
    ))
}

/// Takes out what the derive writes and the API server doesn't want.
fn finished(crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let tidied = serde_json::to_value(&crd).and_then(|mut value| {
        if let Some(versions) = value
            .pointer_mut("/spec/versions")
            .and_then(Value::as_array_mut)
        {
            for schema in versions
                .iter_mut()
                .filter_map(|version| version.pointer_mut("/schema/openAPIV3Schema"))
            {
                tidy(schema);
            }
        }
        serde_json::from_value(value)
    });
    // A definition that was read from JSON is written to JSON and back; the test of the YAML would show otherwise.
    tidied.unwrap_or(crd)
}

fn tidy(schema: &mut Value) {
    let Value::Object(fields) = schema else {
        return;
    };
    if let Some(Value::Array(values)) = fields.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    // Formats that Kubernetes doesn't know draw a warning from it; our bounds say more.
    if fields
        .get("format")
        .and_then(Value::as_str)
        .is_some_and(|format| format.starts_with("uint"))
    {
        fields.remove("format");
    }
    // Comments are wrapped for the source; `kubectl explain` wraps on its own.
    if let Some(Value::String(description)) = fields.get_mut("description") {
        *description = description
            .split("\n\n")
            .map(|part| part.replace('\n', " "))
            .collect::<Vec<_>>()
            .join("\n\n");
    }
    let never_null = never_null(fields);
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        for (name, property) in properties {
            tidy(property);
            // Without `nullable` the API server drops a null as if the field were absent, which is what everybody expects.
            if let Value::Object(property) = property
                && !never_null.contains(name)
            {
                property.remove("nullable");
            }
        }
    }
    for keyword in ["additionalProperties", "items"] {
        if let Some(values) = fields.get_mut(keyword) {
            tidy(values);
        }
    }
}
