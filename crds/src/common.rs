//! What more than one kind is made of.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::quantity::Quantity;
use crate::text::{
    Duration, EventType, HeaderName, JetStreamName, NamespaceName, ResourceName, Template,
    exactly_one, within,
};

/// The largest sequence that every JSON reader keeps exactly.
pub const POSITION_MAX: i64 = 9_007_199_254_740_991;

/// Annotation that asks for the operator's image of the workers once: another value, another time.
pub const ROLLOUT: &str = "tidemill.dev/rollout";
/// Annotation by which a person lets the instances of a Saga go on that is held (`ResumeHeld`).
pub const RESUME: &str = "tidemill.dev/resume";

/// An EventStream, by name.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct StreamRef {
    /// Name of the EventStream.
    pub name: ResourceName,
    /// Namespace of the EventStream. Default: the namespace of the resource that refers to it. Another namespace needs the
    /// stream's `allowedReaders`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<NamespaceName>,
}

/// Another object of the same namespace, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalRef {
    /// Name of the object, in the same namespace.
    pub name: ResourceName,
}

/// One entry of a Secret of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key within the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Where reading a stream begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = exactly_one(&["from", "position", "time"], "start takes exactly one of from, position and time"))]
#[serde(rename_all = "camelCase")]
pub struct Start {
    /// `Beginning`: everything that the stream holds. `New`: only what is stored after this resource was first accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<StartFrom>,
    /// The sequence of the first event to read, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_i64))]
    pub position: Option<i64>,
    /// The first event stored at or after this time is the first to be read; RFC 3339, such as 2026-01-31T12:00:00Z.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40), extend("format" = "date-time"))]
    pub time: Option<String>,
}

/// A named place to begin reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::text::plain_values)]
pub enum StartFrom {
    /// Everything that the stream holds.
    Beginning,
    /// Only what is stored from now on.
    New,
}

/// How often something is tried again, and how long is waited between two attempts. The wait doubles each time, with jitter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = ("!has(self.initialBackoff) || !has(self.maxBackoff) || duration(self.initialBackoff) <= duration(self.maxBackoff)",
    "initialBackoff must not be longer than maxBackoff"))]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Attempts in all, the first included, from 1 to 100. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_attempts: Option<u32>,
    /// Wait before the second attempt, from 1ms to 1h. Default: 200ms in a Saga, 100ms in a Projection, or
    /// `maxBackoff` where that is shorter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = within("1ms", "1h"))]
    pub initial_backoff: Option<Duration>,
    /// Longest wait between two attempts, from 1ms to 24h. Default: 30s, or `initialBackoff` where that is longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = within("1ms", "24h"))]
    pub max_backoff: Option<Duration>,
}

/// Which servers of a NATS cluster hold something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Name of the NATS cluster. Default: the cluster the connection belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<JetStreamName>,
    /// Tags that each of the servers must have. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 128)))]
    pub tags: Vec<String>,
}

/// What becomes of the data when the resource is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::text::plain_values)]
pub enum DeletionPolicy {
    /// It stays.
    #[default]
    Retain,
    /// It is deleted too.
    Delete,
}

/// Whether data is forced to disk before it counts as stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::text::plain_values)]
pub enum Durability {
    /// The server's own flushing.
    #[default]
    Standard,
    /// Synced to disk first.
    Strict,
}

/// When running workers are moved to a newer worker image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::text::plain_values)]
pub enum WorkerUpdate {
    /// When told, or together with a change of the definition.
    #[default]
    Manual,
    /// As soon as the operator knows a newer one.
    Auto,
}

/// What the worker pods of a resource run with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerSettings {
    /// Image of the worker. It must speak this version's contract. Default: the operator's, recorded when the workers are made
    /// and moved as `workerUpdate` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Requests and limits of the worker's container, in place of the operator's. Default: the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<WorkerResources>,
}

/// Requests and limits of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerResources {
    /// What is set aside for it: quantities such as `cpu: 100m` and `memory: 64Mi`. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities")]
    pub requests: BTreeMap<String, Quantity>,
    /// Most that it may take: quantities such as `memory: 512Mi`. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities")]
    pub limits: BTreeMap<String, Quantity>,
}

fn quantities(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 8,
        "additionalProperties": Quantity::schema(),
    })
}

/// What the workers of a resource run, as it is recorded: it moves with the definition, or when told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerStatus {
    /// Their image.
    #[schemars(length(max = 512))]
    pub image: String,
    /// The ConfigMap with what they are told to run.
    #[schemars(length(max = 253))]
    pub contract: String,
    /// Whether `spec.worker.image` named the image.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub image_is_own: bool,
    /// The annotation `tidemill.dev/rollout` that moved them last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub rollout: Option<String>,
}

/// A JetStream stream or bucket that was made for a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MadeStream {
    /// Name of the stream; that of a bucket begins with `KV_`.
    #[schemars(length(max = 255))]
    pub name: String,
    /// Its incarnation: another one is another stream.
    #[schemars(length(max = 64))]
    pub incarnation: String,
}

/// A header of a message or of an http request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = ("has(self.value) != has(self.valueFrom)", "a header takes exactly one of value and valueFrom"))]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// Name of the header. `Nats-*`, `Tidemill-*`, `Idempotency-Key` and trace headers are written by Tidemill and can't be
    /// set, nor can those of the connection: `Host`, `Content-Length`, `Transfer-Encoding`, `Connection`, `Proxy-*` and such.
    pub name: HeaderName,
    /// Value of the header: a text, where one that begins with `=` is CEL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8192))]
    pub value: Option<String>,
    /// Where the value is read from instead, so that it stands in no resource. Not in this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<ValueFrom>,
}

/// A value that is kept elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ValueFrom {
    /// The entry of a Secret that holds the value.
    pub secret_key_ref: SecretKeyRef,
}

/// Publishes an event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Publish {
    /// The EventStream that the event is published to.
    pub stream: StreamRef,
    /// CloudEvents type of the event.
    #[serde(rename = "type")]
    pub event_type: EventType,
    /// What the event is about: its CloudEvents subject, a text where one that begins with `=` is CEL, such as
    /// `=input.subject`. Never personal data.
    #[schemars(length(max = 4096))]
    pub entity: String,
    /// The event's data: any JSON, in which a text that begins with `=` is CEL. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Template>,
}

/// Which labels a namespace must have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels that must be there with exactly these values. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels")]
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements; all must hold. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub match_expressions: Vec<LabelRequirement>,
}

impl LabelSelector {
    /// Whether these labels are what it asks for. An empty selector asks for nothing, as everywhere in Kubernetes.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let exact = self
            .match_labels
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value));
        exact
            && self.match_expressions.iter().all(|requirement| {
                let value = labels.get(&requirement.key);
                let listed = value.is_some_and(|value| requirement.values.contains(value));
                match requirement.operator {
                    LabelOperator::In => listed,
                    LabelOperator::NotIn => !listed,
                    LabelOperator::Exists => value.is_some(),
                    LabelOperator::DoesNotExist => value.is_none(),
                }
            })
    }
}

/// One requirement on a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = ("(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
    "values go with the operators In and NotIn, and only with them"))]
#[serde(rename_all = "camelCase")]
pub struct LabelRequirement {
    /// Key of the label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// How the label is compared: `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: LabelOperator,
    /// Values to compare with, for `In` and `NotIn`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 63)))]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::text::plain_values)]
pub enum LabelOperator {
    /// The label has one of the values.
    In,
    /// The label is missing or has none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is missing.
    DoesNotExist,
}

/// How far a stream has been read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourcePosition {
    /// The stream as `<namespace>/<name>`.
    #[schemars(length(max = 320))]
    pub stream: String,
    /// Incarnation of the stream that the position belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub incarnation: Option<String>,
    /// Sequence up to which everything was taken into account; 0 before the first event.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub sequence: i64,
    /// Events of the stream behind that sequence that are still to be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub lag: Option<i64>,
}

fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {"type": "string", "maxLength": 63},
    })
}

/// Conditions as Kubernetes types them, with the limits that Kubernetes gives its own.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "description": "One condition.",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {"type": "string", "maxLength": 316, "description": "What the condition is about, such as Ready."},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether the condition holds: True, False or Unknown."},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0, "maximum": POSITION_MAX,
                    "description": "The metadata.generation that the condition was derived from."},
                "lastTransitionTime": {"type": "string", "format": "date-time", "maxLength": 40, "description": "When the status last changed."},
                "reason": {"type": "string", "maxLength": 1024, "description": "Why, in one CamelCase word."},
                "message": {"type": "string", "maxLength": 32768, "description": "Why, in a sentence, and what would do."},
            },
        },
    })
}

/// One worker pod, the default. It is a default of the schema too: the scale subresource needs a value that is there.
pub(crate) fn one() -> u32 {
    1
}
