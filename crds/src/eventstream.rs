//! EventStream: a JetStream stream that holds events.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{
    DeletionPolicy, Durability, LabelSelector, LocalRef, Placement, Start, StreamRef,
};
use crate::text::{
    ByteSize, Duration, Expression, JetStreamName, Prefix, SubjectFilter, immutable, immutable_or,
    no_null, within,
};

/// What an EventStream should be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "tidemill.dev",
    version = "v1alpha1",
    kind = "EventStream",
    plural = "eventstreams",
    shortname = "evst",
    category = "tidemill",
    namespaced,
    status = "EventStreamStatus",
    derive = "PartialEq",
    doc = "A stream of events, kept in a NATS JetStream stream. Events are at `<prefix>.<entity>.<type>`.",
    validation = crate::resource_name(),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#, description = "Whether events can be published and read."),
    printcolumn(name = "Messages", type_ = "integer", json_path = ".status.messages", description = "Messages that the stream holds."),
    printcolumn(name = "Bytes", type_ = "integer", json_path = ".status.bytes", description = "Bytes that its messages take on each replica."),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#, description = "Why the stream is or isn't ready.", priority = 1),
    printcolumn(name = "Stream", type_ = "string", json_path = ".status.effective.streamName", description = "Name of the JetStream stream.", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Time since the resource was created.")
)]
#[x_kube(
    validation = immutable("prefix", "published events and everybody who reads them rely on it; make another EventStream"),
    validation = immutable("streamName", "the events are in the stream of the old name; make another EventStream"),
    validation = immutable("mirror", "a stream is a mirror from its creation; make another EventStream"),
    validation = immutable("natsRef", "the events are where the old connection leads; make another EventStream"),
    validation = immutable_or("storage", "'File'", "JetStream can't move a stream between disk and memory; make another EventStream"),
    validation = ("!has(self.durability) || self.durability != 'Strict' || !has(self.storage) || self.storage == 'File'",
        "durability: Strict needs storage: File, memory is lost with the server"),
    validation = ("!has(self.duplicateWindow) || !has(self.limits) || !has(self.limits.maxAge) || duration(self.duplicateWindow) <= duration(self.limits.maxAge)",
        "duplicateWindow must not be longer than limits.maxAge: an event that is gone can't be recognised again"),
    validation = ("!has(self.managementPolicy) || self.managementPolicy != 'Observe' || ((!has(self.deletionPolicy) || self.deletionPolicy != 'Delete') && (!has(self.adoptionPolicy) || self.adoptionPolicy != 'IfUnowned') && (!has(self.onLoss) || self.onLoss != 'Recreate'))",
        "managementPolicy: Observe writes nothing to the stream: remove deletionPolicy: Delete, adoptionPolicy: IfUnowned and onLoss: Recreate, or managementPolicy"),
    validation = ("!has(self.mirror) || (!has(self.sources) && !has(self.capture) && !has(self.subjectTransform))",
        "a mirror takes its events from one stream alone: remove sources, capture and subjectTransform, or use sources instead of mirror"),
)]
#[serde(rename_all = "camelCase")]
pub struct EventStreamSpec {
    /// What the stream is for, for people. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// What the subjects begin with: events are at `<prefix>.<entity>.<type>`. Immutable. Default: `<namespace>.<name>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Prefix>,
    /// Name of the JetStream stream. Immutable. Default: `<namespace>_<name>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_name: Option<JetStreamName>,
    /// Further subjects that the stream takes in, for events that others publish. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub capture: Vec<Capture>,
    /// Where events are kept: `File` (disk) or `Memory`. Immutable. Default: `File`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// Servers that hold a copy, from 1 to 5; odd numbers outlive failures best. Default: the connection's, shown in
    /// `status.effective`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 5))]
    pub replicas: Option<u32>,
    /// How much the stream holds, and what happens at the limit. Default: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// How long an event published twice with the same message id is stored once, from 100ms to 720h. Default: 2m, or
    /// `limits.maxAge` where that is shorter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = within("100ms", "720h"))]
    pub duplicate_window: Option<Duration>,
    /// Largest event, headers included, in bytes, such as `64Ki`. Default: the server's maximum payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_message_size: Option<ByteSize>,
    /// Most events kept on one subject (one type of one entity), from 1 to 9007199254740991; older ones go. Default:
    /// unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_i64))]
    pub max_messages_per_subject: Option<i64>,
    /// How events are compressed on disk: `None` or `S2`. Default: `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// `Standard`: the server's own flushing; a power loss can cost the last events. `Strict`: an event is on disk before it
    /// counts as stored; needs file storage and a server that syncs every write. Default: `Standard`. Not in this version:
    /// `Strict`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
    /// Which servers hold the stream. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// The stream that this one is a copy of, sequence for sequence. Immutable. Default: none. Not in this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Upstream>,
    /// Streams whose events are copied into this one. Default: none. Not in this version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub sources: Vec<Upstream>,
    /// Sends each stored event out again on another subject. Default: none. Not in this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub republish: Option<Republish>,
    /// Changes the subject of each event before it is stored. Sagas refuse to publish to such a stream. Default: none. Not in
    /// this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_transform: Option<SubjectTransform>,
    /// `Manage`: the stream is made and kept as described here. `Observe`: an existing stream is read and never written.
    /// Default: `Manage`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub management_policy: Option<ManagementPolicy>,
    /// What becomes of the events when this resource is deleted: `Retain` or `Delete`. Default: `Retain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// Whether an existing stream of that name is taken over: `Never`, or `IfUnowned` where nobody has marked it as theirs.
    /// To take one from its owner, annotate this resource with `tidemill.dev/take-from: <clusterId>/<namespace>/<name>`.
    /// Default: `Never`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adoption_policy: Option<AdoptionPolicy>,
    /// What happens when the stream has vanished behind our back: `Report`, or `Recreate` it empty. Default: `Report`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_loss: Option<OnLoss>,
    /// Which namespaces may refer to this stream. Default: its own only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_readers: Option<AllowedReaders>,
    /// The NATS connection. Immutable. Default: the operator's. Not in this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nats_ref: Option<LocalRef>,
}

/// Subjects that are taken in besides `<prefix>.>`, and how what is there is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = ("!has(self.format) || self.format != 'Json' || has(self.type)",
        "format: Json needs type: a CEL expression for the event's type, such as \"'OrderPlaced'\" or message.data.kind"),
    validation = ("(has(self.format) && self.format == 'Json') || (!has(self.type) && !has(self.entity) && !has(self.time))",
        "type, entity and time are for format: Json; CloudEvents carry their own"),
)]
#[schemars(extend("allOf" = no_null(&["type", "entity", "time"])))]
#[serde(rename_all = "camelCase")]
pub struct Capture {
    /// Subjects, 1 to 64; `*` and `>` are allowed behind a literal first token.
    #[schemars(length(min = 1, max = 64))]
    pub subjects: Vec<SubjectFilter>,
    /// `CloudEvents`: as other events. `Json`: plain JSON, whose attributes are computed by the expressions below.
    /// Default: `CloudEvents`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<CaptureFormat>,
    /// CEL for the event's type, over `message.data` (the JSON), `message.subject` (the NATS subject) and `message.headers`.
    /// Needed with `Json`, and only there. Default: none.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<Expression>,
    /// CEL for what the event is about, over `message` too. Default: none, the event is about nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<Expression>,
    /// CEL for the event's time, an RFC 3339 text, over `message` too. Default: when the event was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Expression>,
}

/// How captured messages are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::text::plain_values)]
pub enum CaptureFormat {
    /// CloudEvents, binary or structured.
    #[default]
    CloudEvents,
    /// Plain JSON.
    Json,
}

/// Where events are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::text::plain_values)]
pub enum Storage {
    /// On disk.
    #[default]
    File,
    /// In memory, gone with the server.
    Memory,
}

/// How much a stream holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Most bytes on each replica, such as `10Gi`. Default: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<ByteSize>,
    /// Age at which an event goes, from 1s to 876000h (100 years). Default: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = within("1s", "876000h"))]
    pub max_age: Option<Duration>,
    /// Most events, from 1 to 9007199254740991. Default: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_i64))]
    pub max_messages: Option<i64>,
    /// What happens at `maxBytes` or `maxMessages`: `Reject` new events, or `DropOldest`. Default: `Reject`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_full: Option<OnFull>,
}

/// What happens when a stream is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::text::plain_values)]
pub enum OnFull {
    /// New events are refused.
    #[default]
    Reject,
    /// The oldest events go.
    DropOldest,
}

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::text::plain_values)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// S2: little work, about a third of the size for JSON.
    S2,
}

/// A stream whose events are copied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Upstream {
    /// The EventStream that is copied from.
    pub stream: StreamRef,
    /// Where copying begins. Default: the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
    /// Subjects that are copied. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub subjects: Vec<SubjectFilter>,
}

/// Sends stored events out again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Republish {
    /// Subjects of the events to send out. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SubjectFilter>,
    /// Subject they are sent to, a NATS subject mapping.
    #[schemars(length(min = 1, max = 255))]
    pub destination: String,
    /// Whether only headers are sent, without data. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers_only: Option<bool>,
}

/// Changes subjects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubjectTransform {
    /// Subjects that are changed. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SubjectFilter>,
    /// What they become, a NATS subject mapping.
    #[schemars(length(min = 1, max = 255))]
    pub destination: String,
}

/// Whether a stream is ours to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::text::plain_values)]
pub enum ManagementPolicy {
    /// Made and kept as described.
    #[default]
    Manage,
    /// Read, never written.
    Observe,
}

/// Whether an existing stream is taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::text::plain_values)]
pub enum AdoptionPolicy {
    /// Never.
    #[default]
    Never,
    /// Where nobody has marked it as theirs.
    IfUnowned,
}

/// What happens when a stream has vanished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::text::plain_values)]
pub enum OnLoss {
    /// It is reported.
    #[default]
    Report,
    /// It is made again, empty.
    Recreate,
}

/// Which namespaces may refer to a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = ("(self.namespaces == 'Selector') == has(self.selector)",
    "selector goes with namespaces: Selector, and only with it"))]
#[serde(rename_all = "camelCase")]
pub struct AllowedReaders {
    /// `Same`: the stream's own namespace. `All`: every namespace. `Selector`: those that `selector` matches.
    pub namespaces: ReaderNamespaces,
    /// Which namespaces, by their labels. Needed with `Selector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// A set of namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::text::plain_values)]
pub enum ReaderNamespaces {
    /// The stream's own.
    #[default]
    Same,
    /// Every one.
    All,
    /// Those that a selector matches.
    Selector,
}

/// What an EventStream is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventStreamStatus {
    /// The metadata.generation that this status was derived from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub observed_generation: Option<i64>,
    /// Conditions: `Ready`, `Reconciling` and `Stalled` as kstatus defines them, and what else there is to say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::common::conditions")]
    pub conditions: Vec<Condition>,
    /// Messages that the stream holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub messages: Option<i64>,
    /// Bytes that the stream's messages take on each replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub bytes: Option<i64>,
    /// Sequence of the oldest message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub first_sequence: Option<i64>,
    /// Sequence of the newest message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub last_sequence: Option<i64>,
    /// Incarnation of the stream: positions belong to it, never to the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub incarnation: Option<String>,
    /// What the stream really is, defaults and the server's choices included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<EffectiveStream>,
}

/// What a stream really is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveStream {
    /// Name of the JetStream stream.
    #[schemars(length(max = 128))]
    pub stream_name: String,
    /// What the subjects begin with.
    #[schemars(length(max = 128))]
    pub prefix: String,
    /// All subjects that the stream takes in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1025), inner(length(max = 255)))]
    pub subjects: Vec<String>,
    /// Where events are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// Servers that hold a copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 5))]
    pub replicas: Option<u32>,
    /// How events are compressed on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// Whether events are synced to disk before they count as stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
    /// How long a message id is remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate_window: Option<Duration>,
    /// Most bytes on each replica; absent where there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub max_bytes: Option<i64>,
    /// Age at which an event goes; absent where there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// Most events; absent where there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub max_messages: Option<i64>,
}
