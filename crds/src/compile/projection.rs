//! Projection: the definition that workers fold with.

mod interleaving;

use std::collections::BTreeMap;

use tidemill_core::contract::{ProjectionWorkload, Workload};
use tidemill_core::definition::{
    self, Handler, ProjectionDefinition, ProjectionPolicy, Revision, StreamRef,
};
use tidemill_core::expression::Expression;
use tidemill_core::json;
use tidemill_core::names::{Kind, ResourceId};
use tidemill_core::planted::{Bug, planted};

use super::constants::Gives;
use super::expressions::{Names, expression, template, text_template};
use super::findings::Findings;
use super::values::{
    self, Lifecycle, StorageSettings, WorkloadLifecycle, storage, unlike_dev, workload_lifecycle,
};
use super::{Access, DEFINITION_BYTES_MAX, Report, StreamUse, namespace_of};
use crate::problem::{FieldPath, Reason};
use crate::projection::{self, OnError, Projection, ProjectionSpec};
use crate::text::Template;

/// Longest name of a column, in bytes.
const COLUMN_BYTES_MAX: usize = 128;

/// What a Projection comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct ProjectionPlan {
    /// The resource.
    pub resource: ResourceId,
    /// What its rows are.
    pub definition: ProjectionDefinition,
    /// The definition's revision.
    pub revision: Revision,
    /// What changes without a new revision.
    pub policy: ProjectionPolicy,
    /// Where each source is begun, in the order of `definition.sources`.
    pub starts: Vec<definition::Start>,
    /// The KV bucket of its rows.
    pub rows: StorageSettings,
    /// Whether folding rests.
    pub suspend: bool,
    /// Worker pods.
    pub replicas: u32,
    /// What the operator does with its workers.
    pub lifecycle: WorkloadLifecycle,
    /// The streams that are read, each with the field that names it.
    pub streams: Vec<StreamUse>,
}

impl ProjectionPlan {
    /// What a worker is told to run.
    #[must_use]
    pub fn workload(&self) -> Workload {
        Workload::Projection(ProjectionWorkload {
            definition: self.definition.clone(),
            policy: self.policy.clone(),
            starts: self.starts.clone(),
            rows_bucket: self.rows.name.clone(),
            parked_stream: self.resource.parked_stream(),
            suspend: self.suspend,
        })
    }
}

/// A handler whose expressions are compiled: what of the row it reads, and where.
pub(super) struct Reads {
    pub(super) expressions: Vec<(FieldPath, Expression)>,
}

/// Compiles a Projection.
#[must_use]
pub fn projection(resource: &Projection) -> Report<ProjectionPlan> {
    let mut findings = Findings::default();
    let namespace = namespace_of(&resource.metadata);
    let id = ResourceId::new(
        Kind::Projection,
        &namespace,
        resource.metadata.name.as_deref().unwrap_or_default(),
    );
    let ProjectionSpec {
        from,
        key,
        handlers,
        sink,
        retry,
        on_error,
        replicas,
        suspend,
        deletion_policy,
        worker_update,
        worker,
        nats_ref,
    } = &resource.spec;
    let spec = FieldPath::spec();
    let lifecycle = workload_lifecycle(&mut findings, *worker_update, worker.as_ref());
    let operator_only = Lifecycle {
        deletion_policy: *deletion_policy,
        worker_update: *worker_update,
        worker: worker.as_ref(),
        durability: None,
        nats_ref: nats_ref.as_ref(),
    };
    unlike_dev(&mut findings, &operator_only, &spec);

    let (streams, starts) = sources(&mut findings, from, &namespace);
    let mut definition = ProjectionDefinition::new(
        streams.iter().map(|stream| stream.stream.clone()).collect(),
        key.as_str(),
    );
    expression(
        &mut findings,
        &spec.field("key"),
        key.as_str(),
        &Names::event(),
        Gives::Text,
    );
    if handlers.is_empty() {
        findings.error(
            &spec.field("handlers"),
            Reason::Malformed,
            "at least one handler is needed",
        );
    }
    let mut reads = Vec::with_capacity(handlers.len());
    for (index, handler) in handlers.iter().enumerate() {
        let path = spec.field("handlers").index(index);
        let (handler, read) = compile_handler(
            &mut findings,
            &path,
            handler,
            &namespace,
            &definition.sources,
        );
        definition.handlers.push(handler);
        reads.push(read);
    }
    interleaving::check(&mut findings, &definition, &reads);
    let rows = rows(&mut findings, sink, &id);

    if retry.is_some() {
        let instead = "remove the field: a row too large for the bucket is parked at once as `onError` says, everything else is tried until it works";
        findings.not_yet(&spec.field("retry"), instead);
    }
    let default = ProjectionPolicy::default();
    let policy = ProjectionPolicy {
        on_error: match on_error
            .as_ref()
            .and_then(|policy| policy.then)
            .unwrap_or_default()
        {
            OnError::Park => definition::OnError::Park,
            OnError::Skip => definition::OnError::Skip,
            OnError::Stop => definition::OnError::Stop,
        },
        max_parked_keys: on_error
            .as_ref()
            .and_then(|policy| policy.max_parked_keys)
            .unwrap_or(default.max_parked_keys),
    };
    let size = serde_json::to_vec(&definition).map_or(0, |bytes| bytes.len());
    if size > DEFINITION_BYTES_MAX {
        let message = format!(
            "the definition has {size} bytes, at most {DEFINITION_BYTES_MAX} are kept: make two Projections of it"
        );
        findings.error(&spec.field("handlers"), Reason::Malformed, message);
    }
    findings.report(ProjectionPlan {
        resource: id,
        revision: if planted(Bug::PolicyInRevision) {
            Revision::of(&(&definition, &policy, &starts, replicas, suspend))
        } else {
            definition.revision()
        },
        definition,
        policy,
        starts,
        rows,
        suspend: suspend.unwrap_or(false),
        replicas: *replicas,
        lifecycle,
        streams,
    })
}

fn sources(
    findings: &mut Findings,
    from: &[projection::Source],
    namespace: &str,
) -> (Vec<StreamUse>, Vec<definition::Start>) {
    let mut streams: Vec<StreamUse> = Vec::with_capacity(from.len());
    let mut starts = Vec::with_capacity(from.len());
    for (index, source) in from.iter().enumerate() {
        let path = FieldPath::spec().field("from").index(index);
        let stream = values::stream(&source.stream, namespace);
        if let Some(first) = streams.iter().position(|earlier| earlier.stream == stream) {
            let message = format!(
                "stream {stream} is named twice, spec.from[{first}] has it already: handlers choose by `type`"
            );
            findings.error(&path.field("stream"), Reason::Conflict, message);
        }
        let start = values::start(findings, &path.field("start"), source.start.as_ref());
        starts.push(start.unwrap_or(definition::Start::Beginning));
        streams.push(StreamUse {
            path: path.field("stream"),
            stream,
            access: Access::Read,
        });
    }
    if from.is_empty() {
        findings.error(
            &FieldPath::spec().field("from"),
            Reason::Malformed,
            "at least one stream is needed",
        );
    }
    (streams, starts)
}

fn compile_handler(
    findings: &mut Findings,
    path: &FieldPath,
    handler: &projection::Handler,
    namespace: &str,
    sources: &[StreamRef],
) -> (Handler, Reads) {
    let projection::Handler {
        stream,
        event_type,
        when,
        key,
        set,
        increment,
        delete,
    } = handler;
    let stream = stream
        .as_ref()
        .map(|stream| values::stream(stream, namespace));
    if let Some(stream) = stream.as_ref().filter(|stream| !sources.contains(stream)) {
        let known: Vec<String> = sources.iter().map(ToString::to_string).collect();
        let message = format!(
            "stream {stream} isn't read: name it in spec.from, or one of {}",
            known.join(", ")
        );
        findings.error(&path.field("stream"), Reason::Reference, message);
    }
    let row = Names::row();
    let mut expressions = Vec::new();
    if let Some(when) = when {
        let path = path.field("when");
        expressions.extend(
            expression(findings, &path, when.as_str(), &row, Gives::Bool)
                .map(|expression| (path, expression)),
        );
    }
    if let Some(key) = key {
        expression(
            findings,
            &path.field("key"),
            key.as_str(),
            &Names::event(),
            Gives::Text,
        );
    }
    let set = set.clone().unwrap_or_default();
    let increment = increment.clone().unwrap_or_default();
    let delete = delete.unwrap_or(false);
    if set.is_empty() && increment.is_empty() && !delete {
        findings.error(
            path,
            Reason::Malformed,
            "a handler does nothing: give it set, increment or delete: true",
        );
    }
    if delete && !(set.is_empty() && increment.is_empty()) {
        findings.error(
            path,
            Reason::Malformed,
            "delete: true removes the row: remove set and increment, or delete",
        );
    }
    for (part, columns) in [("set", &set), ("increment", &increment)] {
        for (column, value) in columns {
            let path = path.field(part).field(column);
            if column.is_empty() || column.len() > COLUMN_BYTES_MAX {
                findings.error(
                    &path,
                    Reason::Malformed,
                    format!("a column's name has 1 to {COLUMN_BYTES_MAX} bytes"),
                );
            }
            if part == "set" {
                expressions.extend(template(findings, &path, &value.0, &row));
            } else if let Some(text) = value.0.as_str() {
                // What is no number is said of below.
                let by = text_template(findings, &path, text, &row, Gives::Number);
                expressions.extend(by.map(|by| (path, by)));
            }
        }
    }
    for (column, value) in &increment {
        let path = path.field("increment").field(column);
        let is_expression = value.0.as_str().is_some_and(|text| text.starts_with('='));
        if !value.0.is_number() && !is_expression {
            let message = "an increment is a number, or a text that begins with `=` and is CEL, such as =event.data.total";
            findings.error(&path, Reason::Malformed, message);
        }
        if set.contains_key(column) {
            let message = format!(
                "`{column}` is set by the same handler: a column is either set or incremented"
            );
            findings.error(&path, Reason::Conflict, message);
        }
    }
    let compiled = Handler {
        stream,
        event_type: event_type.as_ref().map(|event_type| event_type.0.clone()),
        when: when.as_ref().map(|when| when.0.clone()),
        key: key.as_ref().map(|key| key.0.clone()),
        set: columns(set),
        increment: columns(increment),
        delete,
    };
    (compiled, Reads { expressions })
}

fn columns(columns: BTreeMap<String, Template>) -> BTreeMap<String, json::Value> {
    columns
        .into_iter()
        .map(|(column, value)| (column, json::Value::from(value.0)))
        .collect()
}

fn rows(findings: &mut Findings, sink: &projection::Sink, id: &ResourceId) -> StorageSettings {
    let path = FieldPath::spec().field("sink");
    if sink.postgres.is_some() {
        findings.not_yet(&path.field("postgres"), "only `kv` is run yet");
    } else if sink.kv.is_none() {
        findings.error(
            &path,
            Reason::Malformed,
            "a sink is exactly one of kv and postgres, such as `sink: {kv: {}}`",
        );
    }
    let kv = sink.kv.clone().unwrap_or_default();
    let bucket = kv
        .bucket
        .map_or_else(|| id.rows_bucket(), |bucket| bucket.0);
    let settings = (kv.replicas, kv.placement.as_ref(), kv.max_bytes.as_ref());
    storage(findings, &path.field("kv"), bucket, settings)
}
