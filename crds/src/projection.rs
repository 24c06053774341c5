//! Projection: the fold of events into rows.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{
    DeletionPolicy, LocalRef, MadeStream, Placement, Retry, SecretKeyRef, SourcePosition, Start,
    StreamRef, WorkerSettings, WorkerStatus, WorkerUpdate, one,
};
use crate::text::{
    ByteSize, EventType, Expression, JetStreamName, Template, exactly_one, immutable, no_null,
};

/// What a Projection should be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "tidemill.dev",
    version = "v1alpha1",
    kind = "Projection",
    plural = "projections",
    shortname = "prjn",
    category = "tidemill",
    namespaced,
    status = "ProjectionStatus",
    derive = "PartialEq",
    doc = "A read model: events folded into rows, one row for each key.",
    validation = crate::resource_name(),
    scale(spec_replicas_path = ".spec.replicas", status_replicas_path = ".status.replicas", label_selector_path = ".status.selector"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#, description = "Whether the rows can be read and follow the events."),
    printcolumn(name = "Lag", type_ = "integer", json_path = ".status.lag", description = "Events still to be folded."),
    printcolumn(name = "Position", type_ = "string", json_path = ".status.position", description = "How far the streams have been folded."),
    printcolumn(name = "Parked", type_ = "integer", json_path = ".status.parkedKeys", description = "Keys set aside after an event that can't be folded."),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.revision", description = "Revision of the definition that made the rows."),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#, description = "Why the projection is or isn't ready.", priority = 1),
    printcolumn(name = "Outdated", type_ = "integer", json_path = ".status.outdatedWorkers", description = "Worker pods of an older image than the operator's.", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Time since the resource was created.")
)]
#[x_kube(
    validation = immutable("natsRef", "the rows are where the old connection leads; make another Projection"),
    validation = ("(has(self.sink.kv) && has(self.sink.kv.bucket) ? self.sink.kv.bucket : '') == (has(oldSelf.sink.kv) && has(oldSelf.sink.kv.bucket) ? oldSelf.sink.kv.bucket : '')",
        "sink.kv.bucket can't be changed, added or removed after creation: readers know the old bucket; make another Projection"),
)]
#[serde(rename_all = "camelCase")]
pub struct ProjectionSpec {
    /// Streams that are folded, 1 to 16, each at most once.
    #[schemars(length(min = 1, max = 16))]
    pub from: Vec<Source>,
    /// CEL over `event`: key of the row that an event changes, such as `event.subject`. A handler may have its own.
    pub key: Expression,
    /// What events do to rows, 1 to 128. All handlers that match an event run, in this order.
    #[schemars(length(min = 1, max = 128))]
    pub handlers: Vec<Handler>,
    /// Where rows are kept, such as `{kv: {}}`.
    pub sink: Sink,
    /// How a row that the sink refuses is tried again. Not in this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// What is done with an event that can't be folded. Default: its key is parked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_error: Option<OnErrorPolicy>,
    /// Worker pods, from 0 to 64. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 64))]
    pub replicas: u32,
    /// Whether folding rests; rows stay readable. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// What becomes of the rows when this resource is deleted: `Retain` or `Delete`. Default: `Retain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// When running workers move to a newer image: `Manual` (with a changed definition, or with another value of the annotation
    /// `tidemill.dev/rollout`) or `Auto`. Default: `Manual`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_update: Option<WorkerUpdate>,
    /// What the worker pods run with. Default: the operator's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerSettings>,
    /// The NATS connection. Immutable. Default: the operator's. Not in this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nats_ref: Option<LocalRef>,
}

/// A stream that is folded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// The EventStream.
    pub stream: StreamRef,
    /// Where folding begins; used once, when the Projection is first accepted. Default: the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
}

/// What one kind of event does to a row. Every expression sees the row as it was before this handler.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = ("has(self.set) || has(self.increment) || (has(self.delete) && self.delete)",
        "a handler does nothing: give it set, increment or delete: true"),
    validation = ("!has(self.delete) || !self.delete || (!has(self.set) && !has(self.increment))",
        "delete: true removes the row: remove set and increment, or delete"),
)]
#[schemars(extend("allOf" = no_null(&["when", "key"])))]
#[serde(rename_all = "camelCase")]
pub struct Handler {
    /// The stream whose events are meant. Default: every stream of `from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamRef>,
    /// CloudEvents type of the events that are meant. Default: every type.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<EventType>,
    /// CEL over `event` and `row`: the handler runs where it is true. Default: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Expression>,
    /// CEL over `event`: key of the row, in place of the projection's. Default: the projection's `key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Expression>,
    /// Columns and their new values: any JSON, in which a text that begins with `=` is CEL over `event` and `row`;
    /// `=null` stores a null. Other columns stay. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::text::columns")]
    pub set: Option<BTreeMap<String, Template>>,
    /// Columns and the number added to each: a number, or a text that begins with `=` and is CEL. A missing column counts
    /// as 0; adding is exact, in decimal. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::text::columns")]
    pub increment: Option<BTreeMap<String, Template>>,
    /// Whether the row is removed. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete: Option<bool>,
}

/// Where rows are kept: exactly one of its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = exactly_one(&["kv", "postgres"], "a sink is exactly one of kv and postgres, such as `sink: {kv: {}}`"))]
#[serde(rename_all = "camelCase")]
pub struct Sink {
    /// A NATS key-value bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv: Option<KvSink>,
    /// A table in PostgreSQL. Not in this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresSink>,
}

/// Rows in a NATS key-value bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KvSink {
    /// Name of the bucket. Immutable. Default: `<namespace>_<name>_rows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<JetStreamName>,
    /// Servers that hold a copy, from 1 to 5. Default: the connection's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 5))]
    pub replicas: Option<u32>,
    /// Which servers hold the bucket. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Most bytes on each replica, such as `10Gi`; a full bucket stops the projection. Default: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<ByteSize>,
}

/// Rows in a PostgreSQL table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PostgresSink {
    /// The entry of a Secret that holds the connection string.
    pub connection_secret_ref: SecretKeyRef,
    /// Name of the table, with its schema if it isn't the user's, such as `sales.orders`.
    #[x_kube(validation = ("self.matches('^[a-z_][a-z0-9_]{0,62}([.][a-z_][a-z0-9_]{0,62})?$')",
        "not a table name: lower-case letters, digits and `_`, at most 63, optionally behind a schema and a dot"))]
    #[schemars(length(max = 127))]
    pub table: String,
    /// Columns of the table besides its key, 1 to 256.
    #[schemars(length(min = 1, max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub columns: Vec<PostgresColumn>,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PostgresColumn {
    /// Name of the column, as `set` and `increment` know it.
    #[x_kube(validation = ("self.matches('^[a-z_][a-z0-9_]{0,62}$')", "not a column name: lower-case letters, digits and `_`, at most 63"))]
    #[schemars(length(max = 63))]
    pub name: String,
    /// Its type: `text`, `bigint`, `double`, `numeric`, `boolean`, `timestamptz` or `jsonb`.
    #[serde(rename = "type")]
    pub column_type: ColumnType,
}

/// Type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(transform = crate::text::plain_values)]
pub enum ColumnType {
    /// Text.
    Text,
    /// A whole number of 64 bits.
    Bigint,
    /// A binary floating-point number of 64 bits.
    Double,
    /// An exact decimal number.
    Numeric,
    /// True or false.
    Boolean,
    /// A point in time.
    Timestamptz,
    /// Any JSON.
    Jsonb,
}

/// What is done with an event that can't be folded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = ("!has(self.maxParkedKeys) || !has(self.then) || self.then == 'Park'", "maxParkedKeys goes with then: Park"))]
#[serde(rename_all = "camelCase")]
pub struct OnErrorPolicy {
    /// `Park`: its key is set aside with all that follows for it, others go on. `Skip`: it is counted and left out. `Stop`:
    /// the projection stops before it. Default: `Park`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<OnError>,
    /// Most keys that may be parked; with one more the projection stops. From 1 to 1000000. Default: 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_parked_keys: Option<u32>,
}

/// What is done with an event that can't be folded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::text::plain_values)]
pub enum OnError {
    /// Its key is set aside.
    #[default]
    Park,
    /// It is left out.
    Skip,
    /// The projection stops.
    Stop,
}

/// What a Projection is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProjectionStatus {
    /// The metadata.generation that this status was derived from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub observed_generation: Option<i64>,
    /// Conditions: `Ready`, `Reconciling` and `Stalled` as kstatus defines them, and what else there is to say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::common::conditions")]
    pub conditions: Vec<Condition>,
    /// Worker pods that there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1024))]
    pub replicas: Option<u32>,
    /// Label selector of the worker pods, for autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub selector: Option<String>,
    /// Worker pods of an older image than the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1024))]
    pub outdated_workers: Option<u32>,
    /// What the workers run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerStatus>,
    /// What was made for it in NATS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub streams: Vec<MadeStream>,
    /// Revision of the definition whose rows are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub revision: Option<String>,
    /// Revision that is being built beside it, until it has caught up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub building_revision: Option<String>,
    /// Events still to be folded, over all streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub lag: Option<i64>,
    /// Keys set aside after an event that can't be folded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub parked_keys: Option<i64>,
    /// Events left out by `onError: {then: Skip}` or by a decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub skipped: Option<i64>,
    /// How far the streams have been folded, for people: `<stream>@<sequence>`, joined by commas; a stream of another namespace with
    /// it. While other rows are built: those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8192))]
    pub position: Option<String>,
    /// How far each stream has been folded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["stream"]))]
    pub sources: Vec<SourcePosition>,
}
