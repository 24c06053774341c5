//! What all parts of a saga worker share.

use crate::revisions::Revisions;
use crate::summaries::Summaries;
use crate::tally::Tally;
use std::collections::HashMap;
use std::sync::Arc;
use tidemill_core::contract::{Contract, SagaWorkload, StreamBinding};
use tidemill_core::definition::{Action, StreamRef};
use tidemill_core::names::{LogKind, LogSubject, ResourceId};
use tidemill_core::saga::CompiledSaga;
use tidemill_nats::{Nats, Publisher};
use tidemill_worker_runtime::metrics::Metrics;
use tokio::sync::{RwLock, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// HTTP requests in flight of one worker; further ones wait. Each costs a socket.
pub(crate) const HTTP_IN_FLIGHT_MAX: usize = 1024;
/// Appends to the log without an acknowledgement.
pub(crate) const APPENDS_IN_FLIGHT_MAX: usize = 4096;

pub(crate) struct Engine {
    pub(crate) resource: ResourceId,
    pub(crate) workload: SagaWorkload,
    pub(crate) streams: Vec<StreamBinding>,
    pub(crate) root: String,
    /// `_tm.log.<ns>.<saga>`
    pub(crate) log_prefix: String,
    pub(crate) nats: Nats,
    pub(crate) publisher: Publisher,
    pub(crate) revisions: Revisions,
    pub(crate) summaries: Summaries,
    pub(crate) tally: Tally,
    pub(crate) metrics: crate::metrics::SagaMetrics,
    pub(crate) http: reqwest::Client,
    pub(crate) http_permits: Arc<Semaphore>,
    /// Request subjects that a stream takes, and which stream; see `captured.rs`.
    pub(crate) captured: RwLock<HashMap<String, String>>,
    /// Effects and appends under way; waited for before handing over.
    pub(crate) work: TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

impl Engine {
    pub(crate) fn new(
        contract: &Contract,
        workload: SagaWorkload,
        nats: &Nats,
        metrics: &Metrics,
        shutdown: CancellationToken,
    ) -> Result<Self, crate::RunError> {
        let resource = contract.resource.clone();
        let root = contract.connection.subject_root.clone();
        let publisher = Publisher::new(nats, APPENDS_IN_FLIGHT_MAX);
        let current = CompiledSaga::new(resource.clone(), workload.definition.clone())
            .map_err(crate::RunError::Definition)?;
        let http = reqwest::Client::builder()
            // A redirect would send a command to somebody the definition doesn't name.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(crate::RunError::Http)?;
        Ok(Engine {
            log_prefix: resource.log_prefix(&root),
            revisions: Revisions::new(&publisher, resource.clone(), current),
            summaries: Summaries::new(&publisher, &resource),
            tally: Tally::new(&publisher, &resource),
            metrics: crate::metrics::SagaMetrics::new(metrics),
            streams: contract.streams.clone(),
            nats: nats.clone(),
            publisher,
            http,
            http_permits: Arc::new(Semaphore::new(HTTP_IN_FLIGHT_MAX)),
            captured: RwLock::default(),
            work: TaskTracker::new(),
            shutdown,
            resource,
            workload,
            root,
        })
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
