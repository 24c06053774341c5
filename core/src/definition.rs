//! Compiled definitions: what a Projection or a Saga means, after defaults and checks. `tidemill-crds` makes them
//! from resources, the contract carries them to workers, and their hash is the revision.
//!
//! Expressions are kept as their source text: compiling them again is cheap, and the text under a fixed
//! `semantics` is what the meaning is.

mod projection;
mod saga;

pub use projection::{Handler, OnError, ProjectionDefinition, ProjectionPolicy};
pub use saga::{
    Action, Compensation, HttpMethod, OnUnknown, PublishDefinition, Replies, SagaDefinition,
    StepDefinition, Trigger,
};

use crate::json::Value;
use crate::names::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// Version of the meaning of expressions and folds. A change of behaviour is a new number; numbers are never used again.
pub const SEMANTICS: u32 = 1;

/// Names an EventStream resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StreamRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for StreamRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Where reading begins when nothing was read yet. Not part of a revision: it is resolved once and stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Start {
    /// At the stream's first event.
    #[default]
    Beginning,
    /// After the last event that is there when the resource is first accepted.
    New,
    /// At this sequence.
    Position(u64),
    /// At the first event stored at or after this time.
    Time(crate::timestamp::Timestamp),
}

/// Hash of a compiled definition by meaning: the first 16 hex digits of SHA-256 over its canonical JSON.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Revision(String);

impl Revision {
    /// The revision of a definition.
    ///
    /// A field that a later version adds must be left out at its default, so that the definitions of today keep their revisions.
    /// Fields of the first version are written out (`timeoutMs`, `retry`, `method`, …): a kept definition means what it meant, also
    /// when a default changes.
    pub fn of(definition: &impl Serialize) -> Self {
        // A definition holds strings, numbers and maps with string keys only, which always serialise.
        let canonical = serde_json::to_value(definition)
            .map(|value| Value::from(value).to_json())
            .unwrap_or_default();
        Revision(hex(&Sha256::digest(canonical.as_bytes()), 16))
    }

    /// The 16 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Revision {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text.len() == 16
            && text
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        {
            Ok(Revision(text))
        } else {
            Err(format!(
                "`{}` is no revision: 16 hex digits",
                text.chars().take(40).collect::<String>()
            ))
        }
    }
}

impl From<Revision> for String {
    fn from(revision: Revision) -> String {
        revision.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
