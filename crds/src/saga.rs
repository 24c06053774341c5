//! Saga: steps that other services do, and what takes them back.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{
    DeletionPolicy, Durability, Header, LocalRef, MadeStream, Placement, Publish, Retry,
    SourcePosition, Start, StreamRef, WorkerSettings, WorkerStatus, WorkerUpdate, one,
};
use crate::text::{
    ByteSize, Duration, EventType, Expression, JetStreamName, StepName, Subject, Template,
    exactly_one, immutable, immutable_or, no_null, within,
};

/// What a Saga should be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "tidemill.dev",
    version = "v1alpha1",
    kind = "Saga",
    plural = "sagas",
    shortname = "sga",
    category = "tidemill",
    namespaced,
    status = "SagaStatus",
    derive = "PartialEq",
    doc = "A transaction over several services: steps, and the compensation that takes each of them back.",
    validation = crate::resource_name(),
    scale(spec_replicas_path = ".spec.replicas", status_replicas_path = ".status.replicas", label_selector_path = ".status.selector"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#, description = "Whether instances are started and go on."),
    printcolumn(name = "Running", type_ = "integer", json_path = ".status.running", description = "Instances that are not finished, parked ones left out."),
    printcolumn(name = "Completed", type_ = "integer", json_path = ".status.completed", description = "Instances whose steps are all done."),
    printcolumn(name = "Compensated", type_ = "integer", json_path = ".status.compensated", description = "Instances that were taken back."),
    printcolumn(name = "Parked", type_ = "integer", json_path = ".status.parked", description = "Instances that wait for a person."),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.revision", description = "Revision that new instances are started with.", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#, description = "Why the saga is or isn't ready.", priority = 1),
    printcolumn(name = "Outdated", type_ = "integer", json_path = ".status.outdatedWorkers", description = "Worker pods of an older image than the operator's.", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Time since the resource was created.")
)]
#[x_kube(
    validation = immutable_or("partitions", "64", "each instance is in the partition that its id hashes to; make another Saga"),
    validation = immutable("natsRef", "the instances are where the old connection leads; make another Saga"),
    validation = ("(has(self.log) && has(self.log.streamName) ? self.log.streamName : '') == (has(oldSelf.log) && has(oldSelf.log.streamName) ? oldSelf.log.streamName : '')",
        "log.streamName can't be changed, added or removed after creation: the instances are in the old stream; make another Saga"),
    validation = ("!has(self.log) || !has(self.log.durability) || self.log.durability != 'Strict' || (has(self.replies) && self.replies == 'Relayed')",
        "log.durability: Strict needs replies: Relayed, a reply must be on disk before it is acted on"),
)]
#[serde(rename_all = "camelCase")]
pub struct SagaSpec {
    /// Events that start an instance. The first entry of a stream that matches starts it. Default: none, instances are
    /// started by request only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub start_on: Vec<StartOn>,
    /// Steps, 1 to 64. A step follows the one before it in this list, unless `after` says otherwise.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub steps: Vec<Step>,
    /// Events that are published when every step is done. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub on_completed: Vec<Outcome>,
    /// Events that are published when all that was done is taken back. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub on_compensated: Vec<Outcome>,
    /// Longest time for a whole instance; then it is compensated, or parked behind a pivot. From 1s to 8760h. Default: 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = within("1s", "8760h"))]
    pub timeout: Option<Duration>,
    /// How answers reach the log: `Direct`, a participant's answer is stored as it is sent; `Relayed`, a worker stores it.
    /// Default: `Direct`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replies: Option<Replies>,
    /// How long finished instances are kept. Default: for ever; each kept instance of three steps takes about 2 KiB of server
    /// memory. Not in this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// The stream that holds everything that happened to instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Log>,
    /// What becomes of unfinished instances when this resource is deleted: `Stop` where they are, `Drain` (wait until they
    /// are finished) or `Compensate`. Default: `Stop`; they go on when it is applied again. `Drain` and
    /// `Compensate` hold the deletion for `timeout` and the operator's deadline at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_delete: Option<OnDelete>,
    /// Worker pods, from 0 to 64. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 64))]
    pub replicas: u32,
    /// Parts that instances are spread over, the unit of order and of ownership between worker pods, from 1 to 1024.
    /// Immutable. Default: 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub partitions: Option<u32>,
    /// Whether starting from streams rests; what runs goes on. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// What becomes of the log when this resource is deleted: `Retain` or `Delete`. Default: `Retain`.
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

/// Events that start an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[schemars(extend("allOf" = no_null(&["when"])))]
#[serde(rename_all = "camelCase")]
pub struct StartOn {
    /// The EventStream.
    pub stream: StreamRef,
    /// CloudEvents type of the events that are meant. Default: every type.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<EventType>,
    /// CEL over `event`: an instance is started where it is true. Default: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Expression>,
    /// CEL over `event`: id of the instance, such as `event.subject`. A second event with the same id starts nothing.
    pub id: Expression,
    /// Where reading begins; used once, when the Saga is first accepted, and the same for all entries of one stream.
    /// Default: `{from: New}`, so that a new saga acts on no history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
}

/// One part of a saga: exactly one action, and what takes it back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = exactly_one(&["request", "command", "http", "publish", "wait", "sleep"],
        "a step has exactly one action: request, command, http, publish, wait or sleep"),
    validation = ("!has(self.compensate) || !(has(self.wait) || has(self.sleep))", "wait and sleep change nothing: there is nothing to compensate"),
    validation = ("!has(self.compensate) || !has(self.pivot) || !self.pivot",
        "a pivot is never taken back: remove compensate, or pivot"),
    validation = ("!has(self.timeout) || !(has(self.wait) || has(self.sleep))", "wait and sleep have no attempts: use stepTimeout instead of timeout"),
    validation = ("!has(self.timeout) || !has(self.stepTimeout) || duration(self.timeout) <= duration(self.stepTimeout)",
        "timeout (of one attempt) must not be longer than stepTimeout (of all attempts)"),
)]
#[schemars(extend("allOf" = no_null(&["when"])))]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Name of the step: a lower-case letter, then letters and digits, at most 31. In expressions `steps.<name>`.
    pub name: StepName,
    /// Names of the steps that must be done or skipped before this one; an empty list means at once. What has no path
    /// between it runs in parallel. Default: the step before it in the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63), extend("x-kubernetes-list-type" = "set"))]
    pub after: Option<Vec<StepName>>,
    /// CEL over `input` and `steps`: the step is skipped unless it is true. Default: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Expression>,
    /// Sends a NATS request; a plain responder in any language is a participant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
    /// Sends a durable message; the participant may be away for days. Not in this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Command>,
    /// Sends an http request, with an `Idempotency-Key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
    /// Publishes an event; the step is done when the stream has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<Publish>,
    /// Waits for an event or a signal. Not in this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Wait>,
    /// Waits for a time. Not in this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sleep: Option<Sleep>,
    /// What takes the step back. Default: nothing, the step needs no compensation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensate: Option<Compensate>,
    /// Longest wait for the answer to one attempt, from 1ms to 720h. Above 2m participants need longer reply permissions.
    /// Not with publish. Default: 5s, or `stepTimeout` where that is shorter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = within("1ms", "720h"))]
    pub timeout: Option<Duration>,
    /// Longest time for all attempts, waits between them included, from 1ms to 8760h. Not with publish. Default: 5m,
    /// or `timeout` where that is longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = within("1ms", "8760h"))]
    pub step_timeout: Option<Duration>,
    /// How the action is tried again. Not with publish, which is tried until the stream has the event or refuses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Whether from here on the saga only goes forward: neither this step nor those after it are compensated. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pivot: Option<bool>,
    /// What is done when nobody knows whether the action happened: `Compensate` as if it had, or `Park` the instance for a
    /// person. Default: `Compensate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_unknown: Option<OnUnknown>,
}

/// What takes a step back: exactly one action. It is tried until it succeeds or its attempts are used up; then the instance
/// is parked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = exactly_one(&["request", "command", "http", "publish"],
        "a compensation has exactly one action: request, command, http or publish"),
    validation = ("!has(self.timeout) || !has(self.stepTimeout) || duration(self.timeout) <= duration(self.stepTimeout)",
        "timeout (of one attempt) must not be longer than stepTimeout (of all attempts)"),
)]
#[serde(rename_all = "camelCase")]
pub struct Compensate {
    /// Sends a NATS request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
    /// Sends a durable message. Not in this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Command>,
    /// Sends an http request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
    /// Publishes an event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<Publish>,
    /// Longest wait for the answer to one attempt, from 1ms to 720h. Not with publish. Default: 5s, or `stepTimeout`
    /// where that is shorter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = within("1ms", "720h"))]
    pub timeout: Option<Duration>,
    /// Longest time for all attempts, waits between them included, from 1ms to 8760h. Not with publish. Default: 5m,
    /// or `timeout` where that is longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = within("1ms", "8760h"))]
    pub step_timeout: Option<Duration>,
    /// How the action is tried again. Not with publish, which is tried until the stream has the event or refuses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
}

/// A NATS request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// The NATS subject of the participant; literal.
    pub subject: Subject,
    /// The payload: any JSON, in which a text that begins with `=` is CEL. Default: none, the payload is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Template>,
    /// Headers besides Tidemill's own. Default: none. Not in this version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub headers: Vec<Header>,
    /// Whether participants may answer later than 2 minutes after the request (the server's default for reply permissions);
    /// set it when they have longer ones, and no warning is given. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_long_replies: Option<bool>,
}

/// A durable message to a participant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Command {
    /// The NATS subject of a stream that the participant reads; literal.
    pub subject: Subject,
    /// The payload: any JSON, in which a text that begins with `=` is CEL. Default: none, the payload is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Template>,
    /// Headers besides Tidemill's own. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub headers: Vec<Header>,
}

/// An http request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Http {
    /// The URL, a text where one that begins with `=` is CEL.
    #[x_kube(validation = ("self.matches('^(=|https?://[^/ ]+)')", "not a URL: it begins with http:// or https:// and a host, or with `=` and is CEL"))]
    #[schemars(length(max = 4096))]
    pub url: String,
    /// The method: `POST`, `PUT`, `PATCH`, `DELETE` or `GET`. Default: `POST`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// Headers besides Tidemill's own. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub headers: Vec<Header>,
    /// The JSON body: any JSON, in which a text that begins with `=` is CEL. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Template>,
}

/// Method of an http request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(transform = crate::text::plain_values)]
pub enum Method {
    /// POST.
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

/// Waits for something: exactly one of its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = exactly_one(&["event", "signal"], "a wait is for exactly one of event and signal"))]
#[serde(rename_all = "camelCase")]
pub struct Wait {
    /// The event that is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<WaitEvent>,
    /// Name of the signal that is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<StepName>,
}

/// An event that is waited for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[schemars(extend("allOf" = no_null(&["when"])))]
#[serde(rename_all = "camelCase")]
pub struct WaitEvent {
    /// The EventStream.
    pub stream: StreamRef,
    /// CloudEvents type of the event.
    #[serde(rename = "type")]
    pub event_type: EventType,
    /// CEL over `event`, `input` and `steps`: the event that is meant. Default: any of that type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Expression>,
}

/// Waits for a time: exactly one of its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = exactly_one(&["duration", "until"], "a sleep takes exactly one of duration and until"))]
#[serde(rename_all = "camelCase")]
pub struct Sleep {
    /// How long, from 1ms to 8760h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = within("1ms", "8760h"))]
    pub duration: Option<Duration>,
    /// Until when: CEL over `input` and `steps` that gives an RFC 3339 text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Expression>,
}

/// What is done at the end of an instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Publishes an event.
    pub publish: Publish,
}

/// How answers reach the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::text::plain_values)]
pub enum Replies {
    /// As they are sent.
    #[default]
    Direct,
    /// Stored by a worker.
    Relayed,
}

/// What is done when nobody knows whether an action happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::text::plain_values)]
pub enum OnUnknown {
    /// It is compensated as if it had.
    #[default]
    Compensate,
    /// The instance is parked.
    Park,
}

/// What becomes of unfinished instances when a Saga is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::text::plain_values)]
pub enum OnDelete {
    /// They stop where they are.
    #[default]
    Stop,
    /// They are finished first.
    Drain,
    /// They are compensated first.
    Compensate,
}

/// How long finished instances are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// Time after the end, from 1m to 8760h. Default: no limit. Not in this version, nothing is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = within("1m", "8760h"))]
    pub finished: Option<Duration>,
    /// Most finished instances; the oldest leave first. From 1 to 1000000000. Default: no limit. Not in this version, nothing is
    /// removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub max_finished: Option<u32>,
}

/// The stream that holds everything that happened to instances.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    /// Name of the JetStream stream. Immutable. Default: `<namespace>_<name>_log`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_name: Option<JetStreamName>,
    /// `Standard`: the server's own flushing; a power loss can cost the last inputs. `Strict`: nothing is acted on before it
    /// is on disk; needs a server that syncs every write. Default: `Standard`. Not in this version: `Strict`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
    /// Servers that hold a copy, from 1 to 5. Default: the connection's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 5))]
    pub replicas: Option<u32>,
    /// Which servers hold the stream. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Most bytes on each replica, such as `10Gi`; a full log starts no further instances. Default: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<ByteSize>,
}

/// What a Saga is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SagaStatus {
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
    /// Revision that new instances are started with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub revision: Option<String>,
    /// Instances that were ever started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub started: Option<i64>,
    /// Instances that are not finished, parked ones left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub running: Option<i64>,
    /// Instances whose steps are all done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub completed: Option<i64>,
    /// Instances that were taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub compensated: Option<i64>,
    /// Instances that wait for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub parked: Option<i64>,
    /// Trigger events that could start nothing and wait for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub parked_triggers: Option<i64>,
    /// Bytes of the log on each replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub log_bytes: Option<i64>,
    /// Messages in the log; each takes about 500 bytes of server memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub log_messages: Option<i64>,
    /// How far each stream of `startOn` has been read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["stream"]))]
    pub sources: Vec<SourcePosition>,
}
