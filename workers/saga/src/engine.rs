//! What all parts of a saga worker share.

use crate::options::Options;
use crate::outbox::Targets;
use crate::participants::Subjects;
use crate::relay::Relay;
use crate::revisions::Revisions;
use crate::summaries::Summaries;
use crate::tally::Tally;
use crate::trouble::Trouble;
use std::sync::{Arc, OnceLock};
use tidemill_core::contract::{SagaWorkload, StreamBinding};
use tidemill_core::definition::{Action, StreamRef};
use tidemill_core::names::{LogKind, LogSubject, ResourceId};
use tidemill_core::planted::{Bug, planted};
use tidemill_core::saga::CompiledSaga;
use tidemill_nats::{Nats, Publisher};
use tidemill_worker_runtime::ownership::Standing;
use tidemill_worker_runtime::{Health, WorkerContext};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// HTTP requests in flight of one worker; further ones wait. Each costs a socket.
pub(crate) const HTTP_IN_FLIGHT_MAX: usize = 1024;
/// Appends to the log without an acknowledgement.
pub(crate) const APPENDS_IN_FLIGHT_MAX: usize = 4096;
/// Events on their way to their streams. A limit of their own: a stream that doesn't answer must not hold up the log.
const EVENTS_IN_FLIGHT_MAX: usize = 1024;
/// Counters and summaries on their way, for the same reason.
const DERIVED_IN_FLIGHT_MAX: usize = 1024;

pub(crate) struct Engine {
    pub(crate) resource: ResourceId,
    pub(crate) workload: SagaWorkload,
    pub(crate) options: Options,
    pub(crate) streams: Vec<StreamBinding>,
    pub(crate) root: String,
    /// `_tm.log.<ns>.<saga>`
    pub(crate) log_prefix: String,
    pub(crate) nats: Nats,
    pub(crate) health: Health,
    /// For the log, and what is parked instead of it.
    pub(crate) publisher: Publisher,
    /// For events that sagas publish.
    pub(crate) events: Publisher,
    pub(crate) targets: Targets,
    pub(crate) relay: Relay,
    pub(crate) revisions: Revisions,
    pub(crate) summaries: Summaries,
    pub(crate) tally: Tally,
    pub(crate) metrics: crate::metrics::SagaMetrics,
    pub(crate) http: reqwest::Client,
    pub(crate) http_permits: Arc<Semaphore>,
    pub(crate) subjects: Subjects,
    /// Whether the log takes nothing.
    pub(crate) trouble: Trouble,
    /// Whether events can't be published.
    pub(crate) publishing: Trouble,
    /// Once ownership has begun.
    standing: OnceLock<Standing>,
    /// Effects and appends under way; waited for before handing over.
    pub(crate) work: TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

/// A partition, and the epoch with which it was taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub(crate) partition: u16,
    pub(crate) epoch: u64,
}

impl Engine {
    pub(crate) fn new(
        context: &WorkerContext,
        workload: SagaWorkload,
        options: Options,
        shutdown: CancellationToken,
    ) -> Result<Self, crate::RunError> {
        let (contract, nats) = (&context.contract, &context.nats);
        let resource = contract.resource.clone();
        let root = contract.connection.subject_root.clone();
        let current = CompiledSaga::new(resource.clone(), workload.definition.clone())
            .map_err(crate::RunError::Definition)?;
        let derived = Publisher::new(nats, DERIVED_IN_FLIGHT_MAX);
        let metrics = crate::metrics::SagaMetrics::new(&context.metrics);
        Ok(Engine {
            log_prefix: resource.log_prefix(&root),
            revisions: Revisions::new(&derived, resource.clone(), current),
            summaries: Summaries::new(&derived, &resource, &workload, &metrics),
            tally: Tally::new(&derived, &resource),
            metrics,
            streams: contract.streams.clone(),
            nats: nats.clone(),
            health: context.health.clone(),
            publisher: Publisher::new(nats, APPENDS_IN_FLIGHT_MAX),
            events: Publisher::new(nats, EVENTS_IN_FLIGHT_MAX),
            targets: Targets::default(),
            relay: Relay::new(nats),
            http: crate::http::client().map_err(crate::RunError::Http)?,
            http_permits: Arc::new(Semaphore::new(HTTP_IN_FLIGHT_MAX)),
            subjects: Subjects::default(),
            trouble: Trouble::new("log-append"),
            publishing: Trouble::new("publish"),
            standing: OnceLock::new(),
            work: TaskTracker::new(),
            shutdown,
            resource,
            workload,
            options,
            root,
        })
    }

    pub(crate) fn stand_on(&self, standing: Standing) {
        // Called once, when ownership begins.
        let _ = self.standing.set(standing);
    }

    /// Whether this worker is surely still the owner of what it believes to own.
    pub(crate) fn is_fresh(&self) -> bool {
        self.standing.get().is_some_and(Standing::is_fresh)
    }

    /// Whether nobody else can have made an attempt that was made under this claim, up to now.
    pub(crate) fn is_sole(&self, claim: Option<Claim>) -> bool {
        let Some(Claim { partition, epoch }) = claim else {
            return false;
        };
        let standing = self.standing.get();
        standing.is_some_and(|standing| standing.has_held(partition, epoch))
            || planted(Bug::StalledIsSole)
    }

    pub(crate) fn owns(&self, partition: u16) -> bool {
        self.standing
            .get()
            .is_some_and(|standing| standing.owns(partition))
    }

    pub(crate) fn binding(&self, stream: &StreamRef) -> Option<&StreamBinding> {
        self.streams
            .iter()
            .find(|binding| &binding.stream == stream)
    }

    /// The log's subject of an input. `None` for an id that is no token, which no instance has.
    pub(crate) fn log_subject(&self, instance: &str, kind: LogKind) -> Option<String> {
        let subject = LogSubject::new(instance, self.workload.partitions, kind).ok()?;
        subject.to_subject(&self.resource, &self.root).ok()
    }

    /// The subjects that requests of the present definition go to.
    pub(crate) fn request_subjects(&self) -> Vec<String> {
        let steps = &self.workload.definition.steps;
        let actions = steps.iter().flat_map(|step| {
            [
                Some(&step.action),
                step.compensation
                    .as_ref()
                    .map(|compensation| &compensation.action),
            ]
        });
        let mut subjects: Vec<String> = actions
            .flatten()
            .filter_map(|action| match action {
                Action::Request { subject, .. } => Some(subject.clone()),
                Action::Http { .. } | Action::Publish(_) => None,
            })
            .collect();
        subjects.sort();
        subjects.dedup();
        subjects
    }
}
