//! The workers of all resources in this process: the same code as in a cluster, with a connection and a thread each.

use super::log;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidemill_core::contract::{Contract, Workload};
use tidemill_core::names::ResourceId;
use tidemill_nats::Nats;
use tidemill_worker_runtime::{Health, Metrics, WorkerContext};
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;

/// The pod's name: kept over restarts, so that a new run takes over at once what the last one left.
const POD: &str = "dev";
/// Longest wait for a worker to finish what is in flight. Its own limit is 10 s.
const STOP_MAX: Duration = Duration::from_secs(15);

/// The workers there are.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    /// What runs, by resource.
    running: BTreeMap<ResourceId, Worker>,
    /// What was said about them.
    said: BTreeSet<String>,
}

#[derive(Debug)]
struct Worker {
    contract: Contract,
    health: Health,
    shutdown: CancellationToken,
    failed: Failed,
    task: JoinHandle<()>,
    /// The worker itself; `task` waits for it.
    abort: AbortHandle,
    /// Ends with the worker.
    _thread: Option<Thread>,
}

/// What a worker's tasks run on: one thread, as in a cluster, which knows whose it is.
#[derive(Debug)]
struct Thread(Option<tokio::runtime::Runtime>);

impl Thread {
    fn of(resource: &ResourceId) -> std::io::Result<Self> {
        let resource = resource.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .on_thread_start(move || log::speak_for(&resource))
            .enable_all()
            .build()?;
        Ok(Thread(Some(runtime)))
    }

    fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        match &self.0 {
            Some(runtime) => runtime.spawn(task),
            None => tokio::spawn(task),
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // A runtime may not be waited for from a task.
            runtime.shutdown_background();
        }
    }
}

type Failed = Arc<Mutex<Option<String>>>;

/// How a worker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It does its work.
    Ready,
    /// Not yet, or not now; why.
    NotReady(String),
    /// It has ended; why.
    Failed(String),
}

impl Workers {
    /// Makes what runs what it shall be: stops what is gone or other, starts what is new or other. Gives a line for each step.
    pub(crate) async fn become_these(
        &mut self,
        wanted: &BTreeMap<ResourceId, Contract>,
    ) -> Vec<String> {
        let mut done = Vec::new();
        let mut ending = Vec::new();
        let known: Vec<ResourceId> = self.running.keys().cloned().collect();
        for resource in known {
            let same = self
                .running
                .get(&resource)
                .is_some_and(|worker| wanted.get(&resource) == Some(&worker.contract));
            if !same && let Some(worker) = self.running.remove(&resource) {
                if !wanted.contains_key(&resource) {
                    done.push(format!("{resource}: stopped; its data stays"));
                }
                ending.push(worker);
            }
        }
        // The old and the new worker of one resource would stand in each other's way.
        stop_all(ending).await;
        for (resource, contract) in wanted {
            if !self.running.contains_key(resource) {
                self.running
                    .insert(resource.clone(), Worker::start(contract.clone()));
                done.push(format!("{resource}: started"));
            }
        }
        done
    }

    /// Whether something about them is said for the first time.
    pub(crate) fn is_news(&mut self, said: &str) -> bool {
        self.said.insert(said.to_owned())
    }

    /// How they are.
    pub(crate) fn states(&self) -> BTreeMap<ResourceId, State> {
        self.running
            .iter()
            .map(|(resource, worker)| (resource.clone(), worker.state()))
            .collect()
    }

    /// Ends all without waiting: what is in flight can't be finished, and is done again at the next start.
    pub(crate) fn cut_off(self) {
        for worker in self.running.into_values() {
            worker.shutdown.cancel();
            worker.abort.abort();
        }
    }

    /// Lets all finish what is in flight, at the same time.
    pub(crate) async fn stop(self) {
        stop_all(self.running.into_values().collect()).await;
    }
}

async fn stop_all(workers: Vec<Worker>) {
    for worker in &workers {
        worker.shutdown.cancel();
    }
    let deadline = tokio::time::Instant::now() + STOP_MAX;
    for mut worker in workers {
        let ended = tokio::time::timeout_at(deadline, &mut worker.task).await;
        if ended.is_err() {
            tracing::warn!(resource = %worker.contract.resource, "a worker didn't finish in time and is cut off; it does the rest again at the next start");
            worker.abort.abort();
        }
    }
}

impl Worker {
    fn start(contract: Contract) -> Self {
        let (health, shutdown, failed) =
            (Health::new(), CancellationToken::new(), Failed::default());
        // A task of its own, so that a fault in a worker ends that worker only, and is seen.
        let worker = run(contract.clone(), health.clone(), shutdown.clone());
        let (thread, running) = match Thread::of(&contract.resource) {
            Ok(thread) => {
                let running = thread.spawn(worker);
                (Some(thread), running)
            }
            Err(error) => {
                let why = format!("no thread for it: {error}");
                (None, tokio::spawn(async { Err(why) }))
            }
        };
        let abort = running.abort_handle();
        let task = tokio::spawn({
            let (failed, shutdown, resource) = (
                Arc::clone(&failed),
                shutdown.clone(),
                contract.resource.clone(),
            );
            async move {
                let ended = match running.await {
                    Ok(Ok(())) if shutdown.is_cancelled() => return,
                    Ok(Ok(())) => "it ended by itself".to_owned(),
                    Ok(Err(error)) => error,
                    // We cut it off ourselves, and said so.
                    Err(error) if error.is_cancelled() => return,
                    Err(error) => format!("a fault in the worker: {error}"),
                };
                tracing::error!(%resource, error = ended, "the worker has ended");
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
            }
        });
        Worker {
            contract,
            health,
            shutdown,
            failed,
            task,
            abort,
            _thread: thread,
        }
    }

    fn state(&self) -> State {
        let failed = self
            .failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(failed) = failed {
            return State::Failed(failed);
        }
        let report = self.health.report();
        if report.ready {
            return State::Ready;
        }
        let reasons: Vec<String> = report.reasons.into_values().collect();
        State::NotReady(reasons.join("; "))
    }
}

async fn run(
    contract: Contract,
    health: Health,
    shutdown: CancellationToken,
) -> Result<(), String> {
    let name = format!("tidemill dev {}", contract.resource);
    let connection = contract.worker_connection();
    let nats = tokio::select! {
        connected = Nats::connect_waiting(&connection, &name) => connected.map_err(|error| error.to_string())?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let context = WorkerContext {
        contract: Arc::new(contract),
        nats,
        pod: POD.to_owned(),
        health,
        metrics: Metrics::new(),
        shutdown,
    };
    context.show_connection();
    match context.contract.workload {
        // Large futures go onto the heap.
        Workload::Projection(_) => Box::pin(tidemill_worker_projection::run(context))
            .await
            .map_err(|error| crate::error::chain(&error)),
        Workload::Saga(_) => Box::pin(tidemill_worker_saga::run(context))
            .await
            .map_err(|error| crate::error::chain(&error)),
    }
}
