//! Runs a saga: folds its input log, runs the effects that follow, starts instances from streams and by request.
//!
//! An event on its way: [`trigger`] reads it and appends `s`; [`shard`] folds what the log holds, [`effects`] asks
//! participants and [`outbox`] publishes; answers are stored in the log by themselves (Direct) or by [`append`].

mod append;
mod control;
mod counting;
mod describe;
mod effects;
mod engine;
mod frontier;
mod http;
mod live;
mod metrics;
mod options;
mod outbox;
mod parking;
mod participants;
mod partitions;
mod relay;
mod revisions;
mod shard;
mod source;
mod starts;
mod summaries;
mod tally;
mod trigger;
mod trouble;

use engine::Engine;
pub use options::Options;
use partitions::{Groups, Partitions};
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::contract::Workload;
use tidemill_core::definition::StreamRef;
use tidemill_core::expression::CompileError;
use tidemill_core::saga::SagaCompileError;
use tidemill_worker_runtime::WorkerContext;
use tidemill_worker_runtime::backoff::Backoff;
use tidemill_worker_runtime::ownership::{Owned, Ownership};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Condition of readiness: partitions are owned and their logs folded.
const SAGA: &str = "saga";

/// How long starts, and then effects, in flight are waited for before handing over; what isn't done by then the next
/// owner does again. Together with the rest less than the worker's grace.
const FINISH_MAX: Duration = Duration::from_secs(4);
/// Longest wait for the last writes and for tasks to end.
const END_MAX: Duration = Duration::from_secs(2);
/// Partitions come one by one; those that come within this time are taken together, and read together.
const SETTLE: Duration = Duration::from_millis(100);

/// Why a saga can't be run at all. Whatever may pass is retried instead.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The contract is for something else.
    #[error("the contract of {0} is not for a saga")]
    NotASaga(tidemill_core::names::ResourceId),
    /// The definition doesn't compile in this version.
    #[error("the definition doesn't compile: {0}")]
    Definition(SagaCompileError),
    /// A trigger's or a capture's expression doesn't compile.
    #[error("trigger on stream {0}: {1}")]
    Trigger(StreamRef, CompileError),
    /// The contract names a stream without saying where it is.
    #[error("stream {0} is not bound in the contract")]
    Unbound(StreamRef),
    /// The HTTP client can't be made.
    #[error("no HTTP client: {0}")]
    Http(reqwest::Error),
    /// Requests can't be heard.
    #[error(transparent)]
    Control(#[from] tidemill_worker_runtime::control::ControlError),
}

/// Runs the saga of a contract until it is told to shut down; then finishes what is in flight and hands over.
///
/// # Errors
/// [`RunError`], for what no waiting will mend.
pub async fn run(context: WorkerContext) -> Result<(), RunError> {
    run_with(context, Options::default()).await
}

/// As [`run`], with options.
///
/// # Errors
/// As [`run`].
pub async fn run_with(context: WorkerContext, options: Options) -> Result<(), RunError> {
    let Workload::Saga(workload) = context.contract.workload.clone() else {
        return Err(RunError::NotASaga(context.contract.resource.clone()));
    };
    // Effects and writers outlive the reading of logs, so that what was begun can be finished.
    let finish = CancellationToken::new();
    let engine = Arc::new(Engine::new(&context, workload, options, finish.clone())?);
    let partitions = Arc::new(Partitions::default());
    let triggers = Arc::new(starts::Triggers::new(&engine)?);
    context.health.not_ready(SAGA, "starting");
    if prepare(&engine, &triggers, &context).await {
        return Ok(());
    }
    let requests = tidemill_worker_runtime::control::listen(&context, &control::VERBS).await?;
    let ownership = Ownership::start(&context, &engine.publisher, engine.workload.partitions);
    engine.stand_on(ownership.standing());
    let background = background(&engine, &partitions, &triggers, requests);
    let mut groups = Groups::new(&engine, &partitions);
    follow(&context, &ownership, &mut groups, &triggers).await;
    // Nothing new is begun; what is in flight is finished, as only this worker can append its results.
    groups.end_all().await;
    engine.work.close();
    if tokio::time::timeout(FINISH_MAX, engine.work.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            open = engine.work.len(),
            "handing over with work in flight: the next owner does it again"
        );
    }
    ownership.release().await;
    finish.cancel();
    let _ = tokio::time::timeout(END_MAX, futures::future::join_all(background)).await;
    Ok(())
}

fn background(
    engine: &Arc<Engine>,
    partitions: &Arc<Partitions>,
    triggers: &Arc<starts::Triggers>,
    requests: tokio::sync::mpsc::Receiver<tidemill_worker_runtime::control::Request>,
) -> Vec<AbortOnDropHandle<()>> {
    let summaries = {
        let engine = Arc::clone(engine);
        async move { engine.summaries.run(&engine, &engine.shutdown).await }
    };
    let tally = {
        let engine = Arc::clone(engine);
        async move { engine.tally.run(&engine, &engine.shutdown).await }
    };
    let (engine, partitions) = (|| Arc::clone(engine), || Arc::clone(partitions));
    let tasks = [
        tokio::spawn(control::serve(
            engine(),
            partitions(),
            Arc::clone(triggers),
            requests,
        )),
        tokio::spawn(participants::hear_no_responders(engine(), partitions())),
        tokio::spawn(participants::look_for_captured(engine())),
        tokio::spawn(summaries),
        tokio::spawn(tally),
    ];
    tasks.into_iter().map(AbortOnDropHandle::new).collect()
}

/// Stores the definition and where triggers begin, and looks for streams on requests' subjects, before anything is
/// started. True if told to shut down meanwhile.
async fn prepare(
    engine: &Arc<Engine>,
    triggers: &starts::Triggers,
    context: &WorkerContext,
) -> bool {
    let mut backoff = Backoff::default();
    loop {
        let prepared = async {
            engine
                .revisions
                .store_current()
                .await
                .map_err(|error| error.to_string())?;
            for subject in engine.request_subjects() {
                engine
                    .look_at_subject(&subject)
                    .await
                    .map_err(|error| format!("request subject {subject}: {error}"))?;
            }
            triggers.resolve().await.map_err(|error| error.to_string())
        };
        tokio::select! {
            prepared = prepared => match prepared {
                Ok(()) => return false,
                Err(error) => {
                    tracing::warn!(error, "can't begin yet; trying again");
                    context.health.not_ready(SAGA, error);
                }
            },
            () = context.shutdown.cancelled() => return true,
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next_pause()) => {}
            () = context.shutdown.cancelled() => return true,
        }
    }
}

/// Follows ownership until told to shut down. Triggers are read for what is owned, once its log is folded.
async fn follow(
    context: &WorkerContext,
    ownership: &Ownership,
    groups: &mut Groups,
    triggers: &starts::Triggers,
) {
    let mut owned = ownership.owned();
    let mut backoff = Backoff::default();
    loop {
        let now: Owned = owned.borrow_and_update().clone();
        if now.is_empty() {
            let why = "no partition is owned yet";
            context.health.not_ready(SAGA, why);
        }
        let taken = tokio::select! {
            taken = groups.follow(&now, ownership) => taken,
            () = context.shutdown.cancelled() => return,
        };
        if let Err(error) = taken {
            tracing::warn!(%error, "can't take partitions; trying again");
            context.health.not_ready(SAGA, error.to_string());
            tokio::select! {
                () = tokio::time::sleep(backoff.next_pause()) => continue,
                () = context.shutdown.cancelled() => return,
            }
        }
        backoff.reset();
        let changed = tokio::select! {
            () = groups.caught_up() => None,
            changed = owned.changed() => Some(changed.is_ok()),
            () = context.shutdown.cancelled() => return,
        };
        let changed = match changed {
            Some(changed) => changed,
            None => {
                if !now.is_empty() {
                    context.health.ready(SAGA);
                }
                let reading = CancellationToken::new();
                let readers = triggers.read(now.keys().copied().collect(), &reading);
                tokio::pin!(readers);
                let changed = tokio::select! {
                    // Never before it is told to stop.
                    () = &mut readers => return,
                    changed = owned.changed() => changed.is_ok(),
                    () = context.shutdown.cancelled() => false,
                };
                reading.cancel();
                // Waits for the starts on their way.
                if tokio::time::timeout(FINISH_MAX, readers).await.is_err() {
                    tracing::warn!("starts are still on their way: they are looked at again");
                }
                changed
            }
        };
        if !changed {
            return;
        }
        settle(&mut owned, &context.shutdown).await;
    }
}

/// Waits until ownership has stood still for a moment.
async fn settle(owned: &mut tokio::sync::watch::Receiver<Owned>, shutdown: &CancellationToken) {
    for _ in 0..10 {
        tokio::select! {
            () = tokio::time::sleep(SETTLE) => return,
            changed = owned.changed() => if changed.is_err() {
                return;
            },
            () = shutdown.cancelled() => return,
        }
    }
}
