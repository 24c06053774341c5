//! Running sessions for what is owned, and answering requests.

mod requests;

use crate::error::{SessionError, Stopped, full_text};
use crate::meters::Meters;
use crate::observed::{Observed, Observer};
use crate::session::cache::CACHE_BYTES_MAX;
use crate::session::progress::Partitions;
use crate::session::{self, Command, End, Plan};
use crate::situation::Situation;
use crate::store::Store;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::contract::{ProjectionWorkload, Workload};
use tidemill_core::control::{ControlError, projection_verb};
use tidemill_core::names::{POINTER_KEYS, PROJECTION_PARTITIONS, ResourceId};
use tidemill_core::projection::KeySpace;
use tidemill_core::projection::parked::WAITING_MAX;
use tidemill_nats::publish::IN_FLIGHT;
use tidemill_nats::{Publisher, ReadFrom, Reader};
use tidemill_worker_runtime::WorkerContext;
use tidemill_worker_runtime::backoff::Backoff;
use tidemill_worker_runtime::control::{self, Answers, Request};
use tidemill_worker_runtime::counters::Counters;
use tidemill_worker_runtime::ownership::{Owned, Ownership};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Condition of readiness.
const CONDITION: &str = "projection";
/// How often counters, metrics and readiness are brought up to date.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);
/// A session that lived so long has worked: the next failure is a new one.
const WORKED: Duration = Duration::from_secs(30);
/// What only a person can mend is looked at again after this, in case nobody tells.
const STOPPED_RETRY: Duration = Duration::from_secs(15);
/// Requests that wait for a session.
const COMMANDS_WAITING: usize = 16;

/// Why a worker can't run at all.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The contract is for a saga.
    #[error("the contract of {0} holds no projection")]
    NoProjection(ResourceId),
    /// Requests can't be heard.
    #[error("requests")]
    Control(#[from] control::ControlError),
}

/// What may be set about how a worker works; nothing here changes what its rows are.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Most bytes of rows kept in memory by one session, roughly; two sessions run while a changed definition is built. 256 MiB.
    pub cache_bytes_max: usize,
    /// Most events that one session keeps waiting, parked or behind one that is; with more it stops. 1,000,000.
    pub parked_events_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            cache_bytes_max: CACHE_BYTES_MAX,
            parked_events_max: WAITING_MAX,
        }
    }
}

impl Options {
    /// With so many bytes of rows in memory.
    #[must_use]
    pub fn with_cache_bytes_max(mut self, bytes: usize) -> Self {
        self.cache_bytes_max = bytes;
        self
    }

    /// With so many events that may wait.
    #[must_use]
    pub fn with_parked_events_max(mut self, events: usize) -> Self {
        self.parked_events_max = events;
        self
    }
}

/// Runs the projection of the context's contract until its shutdown is asked for, then stores what is in flight and hands over.
///
/// Waits while NATS is away; what only a person can mend is said in readiness, status and log, and waited for too.
///
/// # Errors
/// [`RunError`]: nothing that waiting could mend.
pub async fn run(context: WorkerContext) -> Result<(), RunError> {
    run_with(context, Options::default()).await
}

/// As [`run`], with options.
///
/// # Errors
/// As [`run`].
pub async fn run_with(context: WorkerContext, options: Options) -> Result<(), RunError> {
    let Workload::Projection(workload) = &context.contract.workload else {
        return Err(RunError::NoProjection(context.contract.resource.clone()));
    };
    let publisher = Publisher::new(&context.nats, IN_FLIGHT);
    let store = Store::new(&context.nats, &publisher, &context.contract, workload);
    let requests = control::listen(
        &context,
        &[
            (projection_verb::STATUS, Answers::Any),
            (projection_verb::REBUILD, Answers::Any),
            (projection_verb::ACCEPT_SOURCE, Answers::Any),
            (projection_verb::FIRST, Answers::Owner),
            (projection_verb::REDRIVE, Answers::Owner),
            (projection_verb::SKIP, Answers::Owner),
        ],
    )
    .await?;
    let ownership = Ownership::start(&context, &publisher, PROJECTION_PARTITIONS);
    let worker = Worker {
        workload: Arc::new(workload.clone()),
        counters: Counters::start(&context, &publisher),
        owned: ownership.owned(),
        meters: Meters::register(&context.metrics),
        options,
        context,
        store,
        requests,
        changes: None,
        sessions: Vec::new(),
        situation: None,
        stopped: BTreeMap::new(),
        problem: Some(ControlError::new("Starting", "it is starting")),
    };
    worker.context.health.not_ready(CONDITION, "it is starting");
    let counters = worker.counters.clone();
    worker.work().await;
    counters.flush().await;
    ownership.release().await;
    Ok(())
}

struct Worker {
    context: WorkerContext,
    options: Options,
    meters: Meters,
    store: Store,
    workload: Arc<ProjectionWorkload>,
    owned: watch::Receiver<Owned>,
    counters: Counters,
    requests: mpsc::Receiver<Request>,
    /// Tells when a pointer may have changed.
    changes: Option<Changes>,
    sessions: Vec<Running>,
    situation: Option<Situation>,
    /// Key spaces that wait for a person.
    stopped: BTreeMap<KeySpace, (Plan, Stopped)>,
    /// Why nothing runs.
    problem: Option<ControlError>,
}

struct Changes {
    heard: mpsc::Receiver<()>,
    _task: AbortOnDropHandle<()>,
}

/// A session and how it is talked to.
struct Running {
    plan: Plan,
    stop: CancellationToken,
    commands: mpsc::Sender<Command>,
    observer: Observer,
    task: AbortOnDropHandle<Result<End, SessionError>>,
}

/// Why the sessions that run are looked at again.
enum Event {
    Shutdown,
    Ownership,
    Pointers,
    Ended(usize, Result<End, SessionError>),
    Asked(Request),
    Report,
    /// The watch on the pointers broke.
    Unwatched,
    Retry,
}

impl Worker {
    async fn work(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let begun = Instant::now();
            match self.live_once().await {
                Ok(true) => return,
                Ok(false) => {
                    backoff.reset();
                    continue;
                }
                Err(error) => {
                    self.abandon();
                    self.meters.failures.inc();
                    let text = full_text(&error);
                    tracing::warn!(error = %text, "beginning anew at the checkpoints");
                    self.problem = Some(match &error {
                        SessionError::Stopped(stopped) => stopped.to_control(),
                        error if error.is_refusal() => {
                            ControlError::new("SinkRefuses", text.clone())
                        }
                        _ => ControlError::new("Unavailable", text.clone()),
                    });
                    self.context.health.not_ready(CONDITION, text);
                }
            }
            if begun.elapsed() > WORKED {
                backoff.reset();
            }
            if self.pause(backoff.next_pause()).await {
                return;
            }
        }
    }

    /// Waits, answering requests; true = shutdown.
    async fn pause(&mut self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                () = self.context.shutdown.cancelled() => return true,
                () = tokio::time::sleep_until(until) => return false,
                Some(request) = self.requests.recv() => self.answer(request),
            }
        }
    }

    /// Begins the sessions that are to run and watches over them until something changes; true = shutdown.
    async fn live_once(&mut self) -> Result<bool, SessionError> {
        let owned_now = self.owned.borrow_and_update().clone();
        let owned: Partitions = owned_now.keys().copied().collect();
        let shutdown = self.context.shutdown.clone();
        let prepared = tokio::select! {
            () = shutdown.cancelled() => return Ok(true),
            prepared = self.prepare(&owned) => prepared?,
        };
        for plan in prepared {
            self.begin(plan);
        }
        self.problem = match (self.workload.suspend, owned.is_empty()) {
            (true, _) => Some(ControlError::new("Suspended", "it is suspended")),
            (false, true) => Some(ControlError::new(
                "NoPartitions",
                "this worker owns no partitions",
            )),
            (false, false) => None,
        };
        let mut report = tokio::time::interval(REPORT_INTERVAL);
        report.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut retry = Instant::now() + STOPPED_RETRY;
        loop {
            match self.next_event(&mut report, retry).await {
                Event::Shutdown => {
                    self.finish().await;
                    return Ok(true);
                }
                Event::Ownership => {
                    let now = self.owned.borrow_and_update().clone();
                    if now == owned_now {
                        continue;
                    }
                    // What is lost may be folded by another already, and what could not be renewed must not be written any more.
                    match owned_now
                        .iter()
                        .all(|(partition, epoch)| now.get(partition) == Some(epoch))
                    {
                        true => self.finish().await,
                        false => self.abandon(),
                    }
                    return Ok(false);
                }
                Event::Pointers => {
                    let now = Situation::read(&self.store, &self.workload).await?;
                    if self
                        .situation
                        .as_ref()
                        .is_some_and(|situation| situation.is_outdated_by(&now))
                    {
                        self.finish().await;
                        return Ok(false);
                    }
                    // Here only what a session wrote when it began; the next change is compared with it.
                    self.situation = Some(now);
                }
                Event::Ended(index, result) => {
                    let ended = self.sessions.remove(index);
                    match result {
                        Ok(End::Asked | End::Switched) => {
                            self.finish().await;
                            return Ok(false);
                        }
                        Err(SessionError::Stopped(stopped)) => {
                            let known = self.stopped.get(&ended.plan.space);
                            if known
                                .is_none_or(|(_, known)| known.to_string() != stopped.to_string())
                            {
                                tracing::error!(space = %ended.plan.space, reason = stopped.reason(), error = %stopped, "folding stopped");
                            }
                            self.stopped
                                .insert(ended.plan.space.clone(), (ended.plan, stopped));
                            retry = Instant::now() + STOPPED_RETRY;
                        }
                        Err(error) => return Err(error),
                    }
                }
                Event::Asked(request) => self.answer(request),
                Event::Report => self.report(),
                Event::Unwatched => {
                    self.changes = Some(watch_pointers(&self.store).await?);
                    // What was written in between wasn't heard.
                    let now = Situation::read(&self.store, &self.workload).await?;
                    if self.situation.as_ref() != Some(&now) {
                        self.finish().await;
                        return Ok(false);
                    }
                }
                Event::Retry => {
                    let plans: Vec<Plan> = self
                        .stopped
                        .values()
                        .map(|(plan, _)| plan.clone())
                        .collect();
                    for plan in plans {
                        self.begin(plan);
                    }
                    retry = Instant::now() + STOPPED_RETRY;
                }
            }
        }
    }

    /// Reads what is to run. The definition is kept before a row names its revision.
    async fn prepare(&mut self, owned: &Partitions) -> Result<Vec<Plan>, SessionError> {
        self.stopped.clear();
        if self
            .changes
            .as_ref()
            .is_none_or(|changes| changes.heard.is_closed())
        {
            self.changes = Some(watch_pointers(&self.store).await?);
        }
        let situation = Situation::read(&self.store, &self.workload).await?;
        let mut plans = Vec::new();
        if !owned.is_empty() && !self.workload.suspend {
            self.store
                .keep_definition(&self.workload.definition)
                .await?;
            plans = situation
                .plans(&self.store, &self.workload, owned, self.options)
                .await?;
        }
        self.situation = Some(situation);
        Ok(plans)
    }

    fn begin(&mut self, plan: Plan) {
        let (commands, receiver) = mpsc::channel(COMMANDS_WAITING);
        let (stop, observer) = (CancellationToken::new(), Observer::default());
        let session = session::run(
            self.store.clone(),
            plan.clone(),
            stop.clone(),
            receiver,
            observer.clone(),
            self.meters.clone(),
        );
        let task = AbortOnDropHandle::new(tokio::spawn(session));
        self.sessions.push(Running {
            plan,
            stop,
            commands,
            observer,
            task,
        });
    }

    async fn next_event(&mut self, report: &mut tokio::time::Interval, retry: Instant) -> Event {
        let Worker {
            context,
            owned,
            changes,
            sessions,
            requests,
            stopped,
            ..
        } = self;
        // One that is tried again at the moment is left alone.
        let tried = |space: &KeySpace| sessions.iter().any(|session| session.plan.space == *space);
        let waits = !stopped.is_empty() && !stopped.keys().any(tried);
        let changed = async {
            match changes {
                Some(changes) => changes.heard.recv().await.is_some(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = context.shutdown.cancelled() => Event::Shutdown,
            changed = owned.changed() => match changed {
                Ok(()) => Event::Ownership,
                Err(_) => Event::Shutdown,
            },
            (index, result) = ended(sessions) => Event::Ended(index, result),
            heard = changed => if heard { Event::Pointers } else { Event::Unwatched },
            Some(request) = requests.recv() => Event::Asked(request),
            _ = report.tick() => Event::Report,
            () = tokio::time::sleep_until(retry), if waits => Event::Retry,
        }
    }

    /// Lets all sessions store what they hold. One that fails has nothing to be stored that can't be folded again.
    async fn finish(&mut self) {
        for session in &self.sessions {
            session.stop.cancel();
        }
        let live = self.live().cloned();
        for session in self.sessions.drain(..) {
            let (space, observer) = (session.plan.space, session.observer);
            match session.task.await {
                Ok(Ok(_)) => write_counters(&self.counters, &observer, live.as_ref()),
                Ok(Err(error)) => {
                    tracing::warn!(%space, error = %full_text(&error), "what was in memory is folded again later")
                }
                Err(_) => tracing::warn!(%space, "a session was cut off"),
            }
        }
    }

    /// Forgets all sessions and what they hold.
    fn abandon(&mut self) {
        self.sessions.clear();
    }

    /// The key space that readers see.
    fn live(&self) -> Option<&KeySpace> {
        self.situation.as_ref()?.live.as_ref()
    }

    /// Brings counters and readiness up to date.
    fn report(&mut self) {
        let target = self.situation.as_ref().map(|situation| &situation.target);
        for session in self
            .sessions
            .iter()
            .filter(|session| Some(&session.plan.space) == target)
        {
            write_counters(&self.counters, &session.observer, self.live());
        }
        // One that was tried again and runs now has found what it waited for.
        for session in &self.sessions {
            if session.observer.get().is_some() {
                self.stopped.remove(&session.plan.space);
            }
        }
        let begun = self
            .sessions
            .iter()
            .all(|session| session.observer.get().is_some());
        match self.stops() {
            Some(stopped) if self.workload.suspend && stopped.reason == "Suspended" => {
                self.context.health.ready(CONDITION)
            }
            // Other pods do the work.
            Some(stopped) if stopped.reason == "NoPartitions" => {
                self.context.health.ready(CONDITION)
            }
            Some(stopped) => self.context.health.not_ready(CONDITION, stopped.message),
            None if begun => self.context.health.ready(CONDITION),
            None => self
                .context
                .health
                .not_ready(CONDITION, "reading checkpoints"),
        }
    }

    /// Why it stands still, wholly or in part.
    fn stops(&self) -> Option<ControlError> {
        let halted = || {
            self.sessions
                .iter()
                .find_map(|session| session.observer.get()?.stopped)
        };
        let stopped = || {
            self.stopped
                .values()
                .next()
                .map(|(_, stopped)| stopped.to_control())
        };
        self.problem.clone().or_else(stopped).or_else(halted)
    }
}

fn write_counters(counters: &Counters, observer: &Observer, live: Option<&KeySpace>) {
    let Some(Observed { partitions, .. }) = observer.get() else {
        return;
    };
    let live = live.map(ToString::to_string).unwrap_or_default();
    for (partition, mut values) in partitions {
        values.live.clone_from(&live);
        counters.set(partition, json(&values));
    }
}

/// The first session that ends.
async fn ended(sessions: &mut [Running]) -> (usize, Result<End, SessionError>) {
    std::future::poll_fn(|context| {
        for (index, session) in sessions.iter_mut().enumerate() {
            if let std::task::Poll::Ready(result) =
                std::pin::Pin::new(&mut session.task).poll(context)
            {
                let result = result.unwrap_or(Err(SessionError::Task("a session")));
                return std::task::Poll::Ready((index, result));
            }
        }
        std::task::Poll::Pending
    })
    .await
}

/// Tells whenever a pointer was written, by whomever.
async fn watch_pointers(store: &Store) -> Result<Changes, SessionError> {
    let filters = POINTER_KEYS.map(|key| store.rows.subject(key));
    let mut reader = Reader::open(
        &store.nats,
        store.rows.stream(),
        filters.to_vec(),
        ReadFrom::New,
    )
    .await?;
    let (told, heard) = mpsc::channel(1);
    let task = tokio::spawn(async move {
        let mut messages = Vec::new();
        // An error ends the watch; the worker makes another.
        while reader.next_batch(64, &mut messages).await.is_ok() {
            messages.clear();
            match told.try_send(()) {
                Ok(()) | Err(mpsc::error::TrySendError::Full(())) => {}
                Err(mpsc::error::TrySendError::Closed(())) => return,
            }
        }
    });
    Ok(Changes {
        heard,
        _task: AbortOnDropHandle::new(task),
    })
}

fn json(value: &impl serde::Serialize) -> serde_json::Value {
    // Structs of numbers, strings and maps with string keys always serialise.
    serde_json::to_value(value).unwrap_or_default()
}
