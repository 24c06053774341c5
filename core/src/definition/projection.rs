//! What a Projection means.

use super::{Revision, SEMANTICS, StreamRef};
use crate::json::Value;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A compiled Projection: everything that decides what its rows are, and nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProjectionDefinition {
    /// See [`SEMANTICS`].
    pub semantics: u32,
    /// Source streams, each at most once.
    pub sources: Vec<StreamRef>,
    /// CEL: the row's key, unless a handler has its own. Gives a string; other scalars become their JSON text.
    pub key: String,
    /// Applied in order; all that match run.
    pub handlers: Vec<Handler>,
}

/// What one kind of event does to a row. Exactly one of (`set` and/or `increment`) or `delete` is there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Handler {
    /// Source stream this handler is for; absent = every source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamRef>,
    /// Event type; absent = every type.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// CEL: only when true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// CEL: key of the row this handler works on, instead of the definition's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Columns merged into the row: JSON values in which a string that begins with `=` is CEL. Null stores null.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, Value>,
    /// Columns a number is added to, exactly, in decimal; they start at 0.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub increment: BTreeMap<String, Value>,
    /// Removes the row.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub delete: bool,
}

/// What changes without a new revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProjectionPolicy {
    /// What is done with an event that can't be folded.
    pub on_error: OnError,
    /// With more parked keys than this the projection stops and says so.
    pub max_parked_keys: u32,
}

/// What is done with an event that can't be folded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnError {
    /// Its key is parked: the event and its followers wait for a decision, other keys go on.
    #[default]
    Park,
    /// It is counted and left out.
    Skip,
    /// The projection stops before it.
    Stop,
}

impl Default for ProjectionPolicy {
    fn default() -> Self {
        ProjectionPolicy {
            on_error: OnError::Park,
            max_parked_keys: 10_000,
        }
    }
}

impl ProjectionDefinition {
    /// A definition of the present semantics without handlers.
    pub fn new(sources: Vec<StreamRef>, key: &str) -> Self {
        ProjectionDefinition {
            semantics: SEMANTICS,
            sources,
            key: key.to_owned(),
            handlers: Vec::new(),
        }
    }

    /// The revision of this definition.
    pub fn revision(&self) -> Revision {
        Revision::of(self)
    }
}
