//! What a Saga means.

use super::{Revision, StreamRef};
use crate::json::Value;
use crate::retry::Retry;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A compiled Saga. Every instance keeps the revision it was started with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SagaDefinition {
    /// See [`super::SEMANTICS`].
    pub semantics: u32,
    /// Events that start an instance. The first of one stream that matches does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<Trigger>,
    /// Steps in the order they were written; `after` holds the order they run in.
    pub steps: Vec<StepDefinition>,
    /// Events published when every step is done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_completed: Vec<PublishDefinition>,
    /// Events published when everything that was done is taken back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_compensated: Vec<PublishDefinition>,
    /// Longest time an instance may take before it is compensated, in milliseconds.
    pub timeout_ms: u64,
    /// Who writes answers to the log.
    #[serde(default, skip_serializing_if = "is_default")]
    pub replies: Replies,
}

impl SagaDefinition {
    /// The revision of this definition.
    pub fn revision(&self) -> Revision {
        Revision::of(self)
    }
}

/// An event that starts an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Trigger {
    /// Where it is read from.
    pub stream: StreamRef,
    /// Its type; absent = every type.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// CEL over `event`: only when true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// CEL over `event`: the id of the instance.
    pub id: String,
}

/// Who writes a participant's answer to the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Replies {
    /// The answer itself is stored: its subject is one of the log.
    #[default]
    Direct,
    /// The owner of the instance gets the answer and appends it.
    Relayed,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StepDefinition {
    /// `[a-z][A-Za-z0-9]{0,30}`.
    pub name: String,
    /// Steps that must be done or skipped before; always written out, empty for one that starts at once.
    pub after: Vec<String>,
    /// CEL over `input` and `steps`: skipped unless true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// What the step does.
    pub action: Action,
    /// What takes it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensation: Option<Compensation>,
    /// Longest wait for the answer of one attempt, in milliseconds.
    pub timeout_ms: u64,
    /// Longest time for all attempts together, in milliseconds.
    pub step_timeout_ms: u64,
    /// How its action is tried again.
    pub retry: Retry,
    /// From here on the saga only goes forward.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pivot: bool,
    /// What is done when nobody knows whether the action happened.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_unknown: OnUnknown,
}

/// What takes a step back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Compensation {
    /// The request that does it.
    pub action: Action,
    /// Longest wait for the answer of one attempt, in milliseconds.
    pub timeout_ms: u64,
    /// Longest time for all attempts together, in milliseconds; then the instance is parked.
    pub step_timeout_ms: u64,
    /// How it is tried again; after the last attempt the instance is parked.
    pub retry: Retry,
}

/// What is done when nobody knows whether an action happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnUnknown {
    /// It is compensated like one that did.
    #[default]
    Compensate,
    /// The instance is parked for a person to decide.
    Park,
}

/// How a step's work is asked for. Values are JSON in which a string that begins with `=` is CEL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Action {
    /// A NATS request.
    #[serde(rename_all = "camelCase")]
    Request {
        /// Its subject; literal.
        subject: String,
        /// Its payload.
        #[serde(default, skip_serializing_if = "is_null")]
        data: Value,
    },
    /// An HTTP request.
    #[serde(rename_all = "camelCase")]
    Http {
        /// Its method.
        method: HttpMethod,
        /// Its URL (a template).
        url: Value,
        /// Headers (templates giving strings).
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        headers: BTreeMap<String, Value>,
        /// Its JSON body.
        #[serde(default, skip_serializing_if = "is_null")]
        body: Value,
    },
    /// An event published to a stream; the step is done when the stream has it.
    Publish(PublishDefinition),
}

/// Methods an `http` action may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    /// POST, the default.
    #[default]
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
    /// GET.
    Get,
}

impl HttpMethod {
    /// The method as HTTP writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            HttpMethod::Post => "POST",
            HttpMethod::Put => "PUT",
            HttpMethod::Patch => "PATCH",
            HttpMethod::Delete => "DELETE",
            HttpMethod::Get => "GET",
        }
    }
}

/// An event to publish.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PublishDefinition {
    /// The EventStream it goes to.
    pub stream: StreamRef,
    /// Its CloudEvents type; literal.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Its entity (a template giving a string).
    pub entity: Value,
    /// Its data (a template).
    #[serde(default, skip_serializing_if = "is_null")]
    pub data: Value,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn is_null(value: &Value) -> bool {
    matches!(value, Value::Null)
}
