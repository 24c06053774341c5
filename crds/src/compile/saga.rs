//! Saga: the definition that workers run.

mod action;
mod order;
mod trigger;

use tidemill_core::contract::{SagaWorkload, Workload};
use tidemill_core::definition::{
    self, Compensation, PublishDefinition, Replies, Revision, SagaDefinition, StepDefinition,
};
use tidemill_core::names::{Kind, ResourceId};
use tidemill_core::planted::{Bug, planted};
use tidemill_core::retry;

use super::constants::Gives;
use super::expressions::{Names, Steps, Uncertain, expression};
use super::findings::Findings;
use super::values::{
    self, Lifecycle, StorageSettings, WorkloadLifecycle, milliseconds, storage, unlike_dev,
    workload_lifecycle,
};
use super::{DEFINITION_BYTES_MAX, Report, StreamUse, namespace_of};
use crate::problem::{FieldPath, Reason};
use crate::saga::{self, OnDelete, OnUnknown, Saga, SagaSpec, Step};
use action::Context;
use order::Order;

/// Longest time of an instance unless the spec says otherwise, in milliseconds.
const TIMEOUT_MS: u64 = 3_600_000;

/// Longest wait for an answer unless the spec says otherwise, in milliseconds.
const ATTEMPT_TIMEOUT_MS: u64 = 5_000;

/// Longest time of a step unless the spec says otherwise, in milliseconds.
const STEP_TIMEOUT_MS: u64 = 300_000;

/// Partitions of the log unless the spec says otherwise.
const PARTITIONS: u16 = 64;

/// What a Saga comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct SagaPlan {
    /// The resource.
    pub resource: ResourceId,
    /// What new instances are started with.
    pub definition: SagaDefinition,
    /// The definition's revision.
    pub revision: Revision,
    /// Where each trigger stream is begun, one per distinct stream, in order of first mention.
    pub starts: Vec<definition::Start>,
    /// The stream of the input log.
    pub log: StorageSettings,
    /// Partitions of the log.
    pub partitions: u16,
    /// Whether starting from streams rests.
    pub suspend: bool,
    /// Worker pods.
    pub replicas: u32,
    /// What the operator does with its workers.
    pub lifecycle: WorkloadLifecycle,
    /// The streams that are read and published to, each with the field that names it.
    pub streams: Vec<StreamUse>,
    /// Subjects that requests are sent to, each with its field.
    pub requests: Vec<(FieldPath, String)>,
}

impl SagaPlan {
    /// What a worker is told to run.
    #[must_use]
    pub fn workload(&self) -> Workload {
        Workload::Saga(SagaWorkload {
            definition: self.definition.clone(),
            starts: self.starts.clone(),
            log_stream: self.log.name.clone(),
            parked_stream: self.resource.parked_stream(),
            partitions: self.partitions,
            summaries: true,
            suspend: self.suspend,
            closing: None,
        })
    }
}

/// Compiles a Saga.
#[must_use]
pub fn saga(resource: &Saga) -> Report<SagaPlan> {
    let mut findings = Findings::default();
    let namespace = namespace_of(&resource.metadata);
    let id = ResourceId::new(
        Kind::Saga,
        &namespace,
        resource.metadata.name.as_deref().unwrap_or_default(),
    );
    let SagaSpec {
        start_on,
        steps,
        on_completed,
        on_compensated,
        timeout,
        replies,
        retention,
        log,
        on_delete,
        replicas,
        partitions,
        suspend,
        deletion_policy,
        worker_update,
        worker,
        nats_ref,
    } = &resource.spec;
    let spec = FieldPath::spec();
    let log = log.clone().unwrap_or_default();
    let lifecycle = workload_lifecycle(&mut findings, *worker_update, worker.as_ref());
    let operator_only = Lifecycle {
        deletion_policy: *deletion_policy,
        worker_update: *worker_update,
        worker: worker.as_ref(),
        durability: log.durability,
        nats_ref: nats_ref.as_ref(),
    };
    unlike_dev(
        &mut findings,
        &operator_only,
        &spec.field("log").field("durability"),
    );
    if retention.is_some() {
        let instead = "remove the field, nothing is removed from the log yet; a kept instance of three steps takes about 2 KiB of server memory";
        findings.not_yet(&spec.field("retention"), instead);
    }
    if on_delete.is_some_and(|on_delete| on_delete != OnDelete::Stop) {
        findings.unlike_dev(
            &spec.field("onDelete"),
            "`tidemill dev` stops instances where they are when their manifest is removed",
        );
    }

    let (triggers, starts, mut streams) = trigger::compile(&mut findings, start_on, &namespace);
    let mut context = Context {
        namespace: &namespace,
        streams: &mut streams,
        requests: Vec::new(),
    };
    let names: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
    let order = Order::of(&mut findings, steps, &names);
    if steps.is_empty() {
        findings.error(
            &spec.field("steps"),
            Reason::Malformed,
            "at least one step is needed",
        );
    }
    let compiled = steps.iter().enumerate();
    let compiled: Vec<Option<StepDefinition>> = compiled
        .map(|(index, step)| {
            compile_step(
                &mut findings,
                &mut context,
                steps,
                index,
                step,
                &names,
                &order,
            )
        })
        .collect();
    let completed = Names::forward(Steps {
        all: &names,
        own: None,
        readable: vec![true; names.len()],
        uncertain: skippable(steps),
    });
    let not_reached = vec![Some(Uncertain::NotReached); names.len()];
    let compensated = Names::failed(Steps {
        all: &names,
        own: None,
        readable: vec![true; names.len()],
        uncertain: not_reached,
    });
    let on_completed = outcomes(
        &mut findings,
        &mut context,
        "onCompleted",
        on_completed,
        &completed,
    );
    let on_compensated = outcomes(
        &mut findings,
        &mut context,
        "onCompensated",
        on_compensated,
        &compensated,
    );

    let definition = SagaDefinition {
        semantics: definition::SEMANTICS,
        triggers,
        steps: compiled.into_iter().flatten().collect(),
        on_completed,
        on_compensated,
        timeout_ms: milliseconds(&mut findings, &spec.field("timeout"), timeout.as_ref())
            .unwrap_or(TIMEOUT_MS),
        replies: match replies.unwrap_or_default() {
            saga::Replies::Direct => Replies::Direct,
            saga::Replies::Relayed => Replies::Relayed,
        },
    };
    let size = serde_json::to_vec(&definition).map_or(0, |bytes| bytes.len());
    if size > DEFINITION_BYTES_MAX {
        let message = format!(
            "the definition has {size} bytes, at most {DEFINITION_BYTES_MAX} are kept: send less literal data with its steps"
        );
        findings.error(&spec.field("steps"), Reason::Malformed, message);
    }
    let requests = context.requests;
    let log_settings = (log.replicas, log.placement.as_ref(), log.max_bytes.as_ref());
    let log_name = log
        .stream_name
        .clone()
        .map_or_else(|| id.log_stream(), |name| name.0);
    let log = storage(&mut findings, &spec.field("log"), log_name, log_settings);
    let partitions = match u16::try_from(partitions.unwrap_or(u32::from(PARTITIONS))) {
        Ok(partitions) if (1..=1024).contains(&partitions) => partitions,
        _ => {
            findings.error(
                &spec.field("partitions"),
                Reason::Malformed,
                "partitions are from 1 to 1024",
            );
            PARTITIONS
        }
    };
    findings.report(SagaPlan {
        resource: id,
        revision: if planted(Bug::PolicyInRevision) {
            Revision::of(&(&definition, &starts, replicas, suspend))
        } else {
            definition.revision()
        },
        definition,
        starts,
        log,
        partitions,
        suspend: suspend.unwrap_or(false),
        replicas: *replicas,
        lifecycle,
        streams,
        requests,
    })
}

/// Which steps may be skipped: those with a condition.
fn skippable(steps: &[Step]) -> Vec<Option<Uncertain>> {
    steps
        .iter()
        .map(|step| step.when.as_ref().map(|_| Uncertain::Skipped))
        .collect()
}

fn compile_step(
    findings: &mut Findings,
    context: &mut Context<'_>,
    steps: &[Step],
    index: usize,
    step: &Step,
    names: &[&str],
    order: &Order,
) -> Option<StepDefinition> {
    let Step {
        name,
        after: _, // `order` has it
        when,
        request,
        command,
        http,
        publish,
        wait,
        sleep,
        compensate,
        timeout,
        step_timeout,
        retry,
        pivot,
        on_unknown,
    } = step;
    let path = FieldPath::spec().field("steps").index(index);
    for (kind, present) in [("wait", wait.is_some()), ("sleep", sleep.is_some())] {
        if present {
            findings.not_yet(
                &path.field(kind),
                "a step is a request, http or publish as yet",
            );
        }
    }
    let forward = Names::forward(Steps {
        all: names,
        own: Some(index),
        readable: order.before(index),
        uncertain: skippable(steps),
    });
    if let Some(when) = when {
        expression(
            findings,
            &path.field("when"),
            when.as_str(),
            &forward,
            Gives::Bool,
        );
    }
    if publish.is_some() {
        let given = (timeout.is_some(), step_timeout.is_some(), retry.is_some());
        refuse_waits_of_publish(findings, &path, given);
    }
    let (timeout_ms, step_timeout_ms) =
        timeouts(findings, &path, timeout.as_ref(), step_timeout.as_ref());
    let actions = action::Actions {
        request: request.as_ref(),
        command: command.as_ref(),
        http: http.as_ref(),
        publish: publish.as_ref(),
        elsewhere: wait.is_some() || sleep.is_some(),
    };
    let action = action::compile(findings, context, &path, actions, timeout_ms, &forward);

    let on_unknown = match on_unknown.unwrap_or_default() {
        OnUnknown::Compensate => definition::OnUnknown::Compensate,
        OnUnknown::Park => definition::OnUnknown::Park,
    };
    let pivot = pivot.unwrap_or(false);
    let compensation = compensate.as_ref().and_then(|compensate| {
        let path = path.field("compensate");
        refuse_behind_pivot(findings, &path, steps, index, order);
        let mut readable = order.before(index);
        let mut uncertain = skippable(steps);
        if let (Some(readable), Some(uncertain)) =
            (readable.get_mut(index), uncertain.get_mut(index))
        {
            *readable = true;
            // A step that was skipped isn't compensated.
            *uncertain = if on_unknown == definition::OnUnknown::Park {
                None
            } else {
                Some(Uncertain::Unknown)
            };
        }
        let failed = Names::failed(Steps {
            all: names,
            own: None,
            readable,
            uncertain,
        });
        compile_compensation(findings, context, &path, compensate, &failed)
    });
    Some(StepDefinition {
        name: name.0.clone(),
        after: order
            .after(index)
            .iter()
            .filter_map(|before| names.get(*before))
            .map(ToString::to_string)
            .collect(),
        when: when.as_ref().map(|when| when.0.clone()),
        action: action?,
        compensation,
        timeout_ms,
        step_timeout_ms,
        retry: values::retry(
            findings,
            &path.field("retry"),
            retry.as_ref(),
            retry::Retry::default(),
        ),
        pivot,
        on_unknown,
    })
}

fn compile_compensation(
    findings: &mut Findings,
    context: &mut Context<'_>,
    path: &FieldPath,
    compensate: &saga::Compensate,
    names: &Names<'_>,
) -> Option<Compensation> {
    let saga::Compensate {
        request,
        command,
        http,
        publish,
        timeout,
        step_timeout,
        retry,
    } = compensate;
    if publish.is_some() {
        let given = (timeout.is_some(), step_timeout.is_some(), retry.is_some());
        refuse_waits_of_publish(findings, path, given);
    }
    let (timeout_ms, step_timeout_ms) =
        timeouts(findings, path, timeout.as_ref(), step_timeout.as_ref());
    let actions = action::Actions {
        request: request.as_ref(),
        command: command.as_ref(),
        http: http.as_ref(),
        publish: publish.as_ref(),
        elsewhere: false,
    };
    let action = action::compile(findings, context, path, actions, timeout_ms, names);
    let retry = values::retry(
        findings,
        &path.field("retry"),
        retry.as_ref(),
        retry::Retry::default(),
    );
    Some(Compensation {
        action: action?,
        timeout_ms,
        step_timeout_ms,
        retry,
    })
}

/// Behind a pivot the saga only goes forward, so a compensation there would never run.
fn refuse_behind_pivot(
    findings: &mut Findings,
    path: &FieldPath,
    steps: &[Step],
    index: usize,
    order: &Order,
) {
    let is_pivot = |step: &Step| step.pivot == Some(true);
    if steps.get(index).is_some_and(is_pivot) {
        findings.error(
            path,
            Reason::Unsound,
            "a pivot is never taken back: remove compensate, or pivot",
        );
        return;
    }
    let before = order.before(index);
    let pivot = steps
        .iter()
        .zip(before)
        .find(|(step, before)| *before && is_pivot(step))
        .filter(|_| !planted(Bug::CompensatedBehindPivot));
    if let Some((pivot, _)) = pivot {
        let message = format!(
            "this would never run: behind the pivot `{}` the saga only goes forward; remove compensate, or move the pivot behind this step",
            pivot.name
        );
        findings.error(path, Reason::Unsound, message);
    }
}

/// A publish has no attempts that could be counted or timed: whether an event is in its stream can always be found out.
fn refuse_waits_of_publish(
    findings: &mut Findings,
    path: &FieldPath,
    (timeout, step_timeout, retry): (bool, bool, bool),
) {
    let given = [
        ("timeout", timeout),
        ("stepTimeout", step_timeout),
        ("retry", retry),
    ];
    for (field, _) in given.into_iter().filter(|(_, given)| *given) {
        let message = "a publish has no such limit: it is tried until the stream has the event, or refuses it for good, which parks the instance; remove the field";
        findings.error(&path.field(field), Reason::Unsound, message);
    }
}

/// Longest wait for one attempt and for all, in milliseconds. One that isn't given gives way to the one that is.
fn timeouts(
    findings: &mut Findings,
    path: &FieldPath,
    timeout: Option<&crate::text::Duration>,
    step_timeout: Option<&crate::text::Duration>,
) -> (u64, u64) {
    let timeout = milliseconds(findings, &path.field("timeout"), timeout);
    let step_timeout = milliseconds(findings, &path.field("stepTimeout"), step_timeout);
    match (timeout, step_timeout) {
        (None, None) => (ATTEMPT_TIMEOUT_MS, STEP_TIMEOUT_MS),
        (Some(timeout), None) => (timeout, STEP_TIMEOUT_MS.max(timeout)),
        (None, Some(step_timeout)) => (ATTEMPT_TIMEOUT_MS.min(step_timeout), step_timeout),
        (Some(timeout), Some(step_timeout)) => {
            if timeout > step_timeout {
                let message = "timeout (of one attempt) must not be longer than stepTimeout (of all attempts)";
                findings.error(path, Reason::Malformed, message);
            }
            (timeout, step_timeout)
        }
    }
}

fn outcomes(
    findings: &mut Findings,
    context: &mut Context<'_>,
    field: &str,
    outcomes: &[saga::Outcome],
    names: &Names<'_>,
) -> Vec<PublishDefinition> {
    let outcomes = outcomes.iter().enumerate().map(|(index, outcome)| {
        let path = FieldPath::spec().field(field).index(index).field("publish");
        action::publish(findings, context, &path, &outcome.publish, names)
    });
    outcomes.collect()
}
