//! What workers run: Projection and Saga → streams, contract, Deployment. The two kinds differ in what they compile to and in their
//! status; everything else is here.
//!
//! compile (pure) → streams that it names → tenancy (pure) → its own streams → starts → objects → status.

mod credentials;
mod departure;
pub mod image;
mod objects;
pub mod resume;

use crate::conditions::{Class, Reason, Verdict, conditions};
use crate::context::Context;
use crate::deletion;
use crate::error::Error;
use crate::eventstream::validate::TAKE_FROM;
use crate::jetstream::JetStream;
use crate::kubernetes::{Kubernetes, selector_text};
use crate::status::Reports;
use crate::stream::{self, Known, Policy, Settled};
use crate::worker;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::contract::{CONTRACT_VERSION, Closing, Contract, StreamBinding, Workload};
use tidemill_core::figures::SagaFigures;
use tidemill_core::names::ResourceId;
use tidemill_crds::common::{MadeStream, POSITION_MAX, RESUME, WorkerStatus};
use tidemill_crds::compile::together::{Labels, Streams};
use tidemill_crds::compile::{self, StreamUse, WorkloadLifecycle};
use tidemill_crds::eventstream::{EventStream, ReaderNamespaces};
use tidemill_crds::{FieldPath, Problem};
use tidemill_nats::provision::{StreamPlan, Take};
use tidemill_provision::Installation;

/// A kind that workers run.
pub trait Runs: Reports {
    /// Its plan.
    type Plan: Send + Sync;

    /// Its name everywhere in NATS.
    fn id(&self) -> ResourceId;

    /// Compiles it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    fn compile(&self) -> Result<Self::Plan, Vec<Problem>>;

    /// What is the same for both kinds.
    fn parts(plan: &Self::Plan) -> Parts<'_>;

    /// What its workers are told of the streams it names. `labels` are those of its namespace, where they matter.
    ///
    /// # Errors
    /// A stream isn't there, isn't open to its namespace, or can't be used so.
    fn bind(
        plan: &Self::Plan,
        streams: &Streams,
        labels: Option<&Labels>,
    ) -> Result<Vec<StreamBinding>, Vec<Problem>>;

    /// Subjects that somebody must answer, each with its field.
    fn requests(_: &Self::Plan) -> &[(FieldPath, String)] {
        &[]
    }

    /// Its own streams: the parked stream, and the rows or the log.
    fn streams(
        plan: &Self::Plan,
        installation: &Installation,
        incarnation: &str,
    ) -> [StreamPlan; 2];

    /// Whether its spec says that its data goes with it.
    fn deletes_data(&self) -> bool;

    /// What becomes of its unfinished instances when it is deleted; `None` = nothing is waited for.
    fn closing(&self) -> Option<Closing> {
        None
    }

    /// How long its instances may take to be finished.
    fn closing_max(_: &Self::Plan) -> Duration {
        Duration::ZERO
    }

    /// What its status says that is the same for both kinds.
    fn recorded(&self) -> Recorded<'_>;

    /// Its status with other common parts and what was counted; `None` = nothing was compiled, so the rest stays as it is.
    fn status(&self, common: Common, seen: Option<&Seen<'_, Self::Plan>>) -> Self::Status;
}

/// What is the same for both kinds.
#[derive(Debug)]
pub struct Parts<'a> {
    /// Its name everywhere in NATS.
    pub resource: &'a ResourceId,
    /// The streams that the definition names.
    pub streams: &'a [StreamUse],
    /// How many workers.
    pub replicas: u32,
    /// What they run with.
    pub lifecycle: &'a WorkloadLifecycle,
    /// What they run.
    pub workload: Workload,
}

/// What a status said that is the same for both kinds, besides conditions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recorded<'a> {
    /// What its workers run.
    pub worker: Option<&'a WorkerStatus>,
    /// What was made for it in NATS.
    pub streams: &'a [MadeStream],
}

/// What a status says that is the same for both kinds.
#[derive(Clone, Debug)]
pub struct Common {
    /// Its conditions.
    pub conditions: Vec<Condition>,
    /// What its workers run.
    pub worker: Option<WorkerStatus>,
    /// What was made for it in NATS.
    pub streams: Vec<MadeStream>,
}

/// What a status is made of besides.
#[derive(Debug)]
pub struct Seen<'a, P> {
    /// The plan.
    pub plan: &'a P,
    /// Pods that there are; `None` = nobody looked.
    pub pods: Option<u32>,
    /// Pods for which there is a newer image.
    pub outdated: Option<u32>,
    /// What the workers have counted, partition by partition, as it is stored.
    pub counters: Vec<Vec<u8>>,
    /// Label selector of the pods, for autoscalers.
    pub selector: String,
}

/// How far one reconcile came.
#[derive(Debug)]
struct Reached {
    verdict: Verdict,
    pods: Option<u32>,
    outdated: Option<u32>,
    /// What the workers were told to run; `None` = it didn't come so far.
    worker: Option<WorkerStatus>,
    /// Its own streams that are there.
    streams: Vec<MadeStream>,
    error: Option<Error>,
}

impl Reached {
    fn of(verdict: Verdict) -> Reached {
        Reached {
            verdict,
            pods: None,
            outdated: None,
            worker: None,
            streams: Vec::new(),
            error: None,
        }
    }

    fn stopped(reason: Reason, message: impl Into<String>) -> Reached {
        Reached::of(Verdict::new(reason, message))
    }

    /// NATS didn't do it.
    fn undone(error: Error) -> Reached {
        let mut reached = Reached::of(Verdict::undone(&error));
        reached.error = Some(error);
        reached
    }
}

/// Makes everything as the resource says, and the status as it is; gives when to look again.
///
/// # Errors
/// [`Error`]: it is tried again by the error's class. What is wrong with the resource is in its status.
pub async fn reconcile<S: JetStream, K: Kubernetes, R: Runs>(
    resource: Arc<R>,
    context: Arc<Context<S, K>>,
) -> Result<Duration, Error> {
    let plan = resource.compile();
    if resource.meta().deletion_timestamp.is_some() {
        return departure::depart(&*resource, plan.as_ref().ok(), &context).await;
    }
    // Before there is anything that it would hold.
    let hold = resource.deletes_data() || resource.closing().is_some();
    deletion::hold(&*resource, hold, &context).await?;
    let mut reached = match &plan {
        _ if let Some(message) = context.cluster.taken() => {
            Reached::stopped(Reason::ClusterIdTaken, message)
        }
        Ok(plan) => reach(&*resource, plan, None, &context).await?,
        Err(problems) => Reached::stopped(Reason::Invalid, all(problems)),
    };
    let (error, again) = (reached.error.take(), reached.verdict.look_again());
    let counters = match &plan {
        Ok(plan) if error.is_none() => {
            let counters = context.jetstream.counters(R::parts(plan).resource).await;
            // Figures are for people; that they can't be had stops nothing here.
            counters.unwrap_or_default()
        }
        _ => Vec::new(),
    };
    settle_status(&*resource, plan.as_ref().ok(), reached, counters, &context).await?;
    // Said first, so that whoever waits knows why; then it is tried again as any error is.
    error.map_or(Ok(again), Err)
}

/// Writes the status, if it isn't as it shall be.
async fn settle_status<S: JetStream, K: Kubernetes, R: Runs>(
    resource: &R,
    plan: Option<&R::Plan>,
    reached: Reached,
    counters: Vec<Vec<u8>>,
    context: &Context<S, K>,
) -> Result<(), Error> {
    let recorded = resource.recorded();
    let seen = plan.map(|plan| Seen {
        plan,
        pods: reached.pods,
        outdated: reached.outdated,
        counters,
        selector: selector_text(&worker::selector(R::parts(plan).resource)),
    });
    let generation = resource.meta().generation;
    let conditions = conditions(
        resource.conditions(),
        &reached.verdict,
        generation,
        Timestamp::now(),
    );
    let common = Common {
        conditions,
        worker: reached.worker.or_else(|| recorded.worker.cloned()),
        streams: remembered(recorded.streams, reached.streams),
    };
    let wanted = resource.status(common, seen.as_ref());
    crate::status::write(resource, &wanted, &reached.verdict, context).await
}

/// The streams that were made, by name; those that weren't looked at, or are gone, stay as they were known: that they were there is how
/// a lost one is told from one that was never made.
fn remembered(before: &[MadeStream], now: Vec<MadeStream>) -> Vec<MadeStream> {
    let mut streams = now;
    for known in before {
        if !streams.iter().any(|stream| stream.name == known.name) {
            streams.push(known.clone());
        }
    }
    streams.sort_by(|a, b| a.name.cmp(&b.name));
    streams
}

/// Makes everything as the plan says. That NATS doesn't answer, or refuses, is said in the status, and tried again.
async fn reach<S: JetStream, K: Kubernetes, R: Runs>(
    resource: &R,
    plan: &R::Plan,
    closing: Option<Closing>,
    context: &Context<S, K>,
) -> Result<Reached, Error> {
    match make(resource, plan, closing, context).await {
        Err(error) if error.is_of_nats() => Ok(Reached::undone(error)),
        made => made,
    }
}

async fn make<S: JetStream, K: Kubernetes, R: Runs>(
    resource: &R,
    plan: &R::Plan,
    closing: Option<Closing>,
    context: &Context<S, K>,
) -> Result<Reached, Error> {
    let parts = R::parts(plan);
    let id = parts.resource;
    let streams = named(parts.streams, context).await?;
    let labels = labels(&id.namespace, &streams, context).await?;
    let bindings = match R::bind(plan, &streams, labels.as_ref()) {
        Ok(bindings) => bindings,
        Err(problems) => return Ok(Reached::stopped(Reason::StreamUnusable, all(&problems))),
    };
    if let Some(captured) = captured(R::requests(plan), context).await? {
        return Ok(Reached::stopped(Reason::StreamUnusable, captured));
    }
    let mut own = R::streams(plan, &context.installation, &(context.incarnation)());
    for wanted in &own {
        // A bucket is named without the prefix of its stream.
        let name = wanted.name.strip_prefix("KV_").unwrap_or(&wanted.name);
        if let Err(error) = context.tenancy.check(&id.namespace, name, []) {
            return Ok(Reached::stopped(Reason::NotAllowed, error.to_string()));
        }
    }
    let mut policy = Policy::default();
    let annotations = resource.meta().annotations.as_ref();
    if let Some(owner) = annotations.and_then(|annotations| annotations.get(TAKE_FROM)) {
        let take = Take::From(owner.clone());
        match context.tenancy.check_adoption(&id.namespace) {
            Ok(()) => own.iter_mut().for_each(|wanted| wanted.take = take.clone()),
            Err(error) => policy.denied = Some((take, error.to_string())),
        }
    }
    context.shared_buckets().await?;
    // The parked stream pins the name of the other, so it is made last: a name that can't be had can still be changed.
    let [parked, main] = &own;
    if let Some(verdict) = stream::refused(parked, &policy, context).await? {
        return Ok(Reached::of(verdict));
    }
    let mut made = Vec::new();
    for wanted in [main, parked] {
        let known = known(resource.recorded().streams, &wanted.name);
        let Settled {
            stream,
            verdict,
            error,
            ..
        } = stream::settle(resource, wanted, &policy, &known, context).await?;
        made.extend(stream.map(|stream| MadeStream {
            name: stream.name,
            incarnation: stream.incarnation,
        }));
        if verdict.reason.class() != Class::Ready {
            return Ok(Reached {
                streams: made,
                error,
                ..Reached::of(verdict)
            });
        }
    }
    if let Some(verdict) = held(resource, &parts, main, closing, context).await? {
        return Ok(Reached {
            streams: made,
            ..Reached::of(verdict)
        });
    }
    let mut workload = parts.workload.clone();
    if let Workload::Saga(saga) = &mut workload {
        saga.closing = closing;
    }
    let contract = Contract {
        version: CONTRACT_VERSION,
        resource: id.clone(),
        connection: context.worker_connection.clone(),
        streams: bindings,
        workload,
    };
    context.fence_nats()?;
    context.jetstream.remember_starts(&contract).await?;
    let reached = objects::run(resource, &parts, &contract, context).await?;
    Ok(Reached {
        streams: made,
        ..reached
    })
}

/// Which stream takes in requests, whosever it is: the server would answer each in place of the participant.
async fn captured<S: JetStream, K: Kubernetes>(
    requests: &[(FieldPath, String)],
    context: &Context<S, K>,
) -> Result<Option<String>, Error> {
    for (path, subject) in requests {
        for name in context.jetstream.streams_on(subject).await? {
            let stream = context.jetstream.stream(&name).await?;
            // Such a stream answers nobody.
            let answers = stream.is_some_and(|stream| stream.config["no_ack"] != true);
            if answers {
                return Ok(Some(format!(
                    "{path}: stream {name} takes in `{subject}`, so the server would answer each request in place of the participant: use a subject outside of its subjects"
                )));
            }
        }
    }
    Ok(None)
}

/// Whether its instances wait for a person: only a Saga that has had no workers yet, since it was applied.
async fn held<S: JetStream, K: Kubernetes, R: Runs>(
    resource: &R,
    parts: &Parts<'_>,
    log: &StreamPlan,
    closing: Option<Closing>,
    context: &Context<S, K>,
) -> Result<Option<Verdict>, Error> {
    let annotations = resource.meta().annotations.as_ref();
    let permitted = annotations.is_some_and(|annotations| annotations.contains_key(RESUME));
    let is_new = resource.recorded().worker.is_none();
    if !matches!(parts.workload, Workload::Saga(_)) || !is_new || permitted || closing.is_some() {
        return Ok(None);
    }
    let Some(log) = context.jetstream.stream(&log.name).await? else {
        return Ok(None);
    };
    let counters = context.jetstream.counters(parts.resource).await?;
    let figures = SagaFigures::sum(counters.iter().map(Vec::as_slice));
    // By the clock of NATS: no other is needed.
    let now = log.server_time.unwrap_or(log.last_stored_at);
    let idle = Duration::from_millis(now.millis_since(log.last_stored_at));
    Ok(resume::held(&figures, idle, context.resume_limit))
}

/// What the status knows of a stream.
fn known(streams: &[MadeStream], name: &str) -> Known {
    let known = streams.iter().find(|stream| stream.name == name);
    Known {
        incarnation: known.map(|stream| stream.incarnation.clone()),
        last: 0,
    }
}

/// Labels of a namespace, if one of the streams is open by labels.
async fn labels<S: JetStream, K: Kubernetes>(
    namespace: &str,
    streams: &Streams,
    context: &Context<S, K>,
) -> Result<Option<Labels>, Error> {
    let by_labels = streams.values().any(|stream| {
        stream.stream.namespace != namespace
            && stream.readers.namespaces == ReaderNamespaces::Selector
    });
    if !by_labels {
        return Ok(None);
    }
    let found = context.kubernetes.namespace(namespace).await?;
    Ok(Some(found.unwrap_or_default().labels))
}

/// The streams that a definition names, as far as they are there.
async fn named<S: JetStream, K: Kubernetes>(
    uses: &[StreamUse],
    context: &Context<S, K>,
) -> Result<Streams, Error> {
    let mut streams = Streams::new();
    for used in uses {
        if streams.contains_key(&used.stream) {
            continue;
        }
        let found: Option<EventStream> = context.kubernetes.event_stream(&used.stream).await?;
        // One that doesn't compile isn't there for those who name it: its own status says why.
        if let Some(plan) = found.and_then(|found| compile::event_stream(&found).plan) {
            streams.insert(used.stream.clone(), plan);
        }
    }
    Ok(streams)
}

/// A number as a status holds it: exactly, for every JSON reader.
pub fn shown(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX).min(POSITION_MAX)
}

fn all(problems: &[Problem]) -> String {
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    problems.join("; ")
}
