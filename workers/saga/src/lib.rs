//! Runs a saga: folds its input log, runs the effects that follow, starts instances from streams and by request.
//!
//! An event on its way: [`trigger`] reads it and appends `s`; [`shard`] folds what the log holds, [`effects`] asks
//! participants and publishes; answers are stored in the log by themselves (Direct) or by [`append`].

mod append;
mod control;
mod counting;
mod describe;
mod effects;
mod engine;
mod live;
mod metrics;
mod participants;
mod partitions;
mod revisions;
mod shard;
mod starts;
mod summaries;
mod tally;
mod trigger;

use engine::Engine;
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

/// How long effects in flight are waited for before handing over; what isn't done by then the next owner does again.
const FINISH_MAX: Duration = Duration::from_secs(10);

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
    let Workload::Saga(workload) = context.contract.workload.clone() else {
        return Err(RunError::NotASaga(context.contract.resource.clone()));
    };
    // Effects and writers outlive the reading of logs, so that what was begun can be finished.
    let finish = CancellationToken::new();
    let engine = Engine::new(
        &context.contract,
        workload,
        &context.nats,
        &context.metrics,
        finish.clone(),
    )?;
    let engine = Arc::new(engine);
    let partitions = Arc::new(Partitions::default());
    let triggers = starts::Triggers::new(&engine)?;
    context.health.not_ready("saga", "starting");
    if prepare(&engine, &triggers, &context).await {
        return Ok(());
    }
    let requests = tidemill_worker_runtime::control::listen(&context, &control::VERBS).await?;
    let background = [
        tokio::spawn(control::serve(
            Arc::clone(&engine),
            Arc::clone(&partitions),
            requests,
        )),
        tokio::spawn(participants::hear_no_responders(
            Arc::clone(&engine),
            Arc::clone(&partitions),
        )),
        tokio::spawn(participants::look_for_captured(
            Arc::clone(&engine),
            context.health.clone(),
        )),
        tokio::spawn({
            let engine = Arc::clone(&engine);
            async move { engine.summaries.run(engine.shutdown.clone()).await }
        }),
        tokio::spawn({
            let engine = Arc::clone(&engine);
            async move {
                engine
                    .tally
                    .run(&engine.summaries, engine.shutdown.clone())
                    .await
            }
        }),
    ];
    let ownership = Ownership::start(&context, &engine.publisher, engine.workload.partitions);
    let mut groups = Groups::new(&engine, &partitions, &context.health);
    follow(&engine, &context, &ownership, &mut groups, &triggers).await;
    // In flight: effects whose results only this worker can append.
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
    groups.end_all().await;
    engine.tally.flush(&engine.summaries).await;
    ownership.release().await;
    finish.cancel();
    for task in background {
        let _ = task.await;
    }
    Ok(())
}

/// Stores the definition and where triggers begin, before anything is started. True if told to shut down meanwhile.
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
            triggers.resolve().await.map_err(|error| error.to_string())
        };
        tokio::select! {
            prepared = prepared => match prepared {
                Ok(()) => return false,
                Err(error) => {
                    tracing::warn!(error, "can't begin yet; trying again");
                    context.health.not_ready("saga", error);
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
    engine: &Arc<Engine>,
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
            context
                .health
                .not_ready("saga", "no partition is owned yet");
        }
        let reading = CancellationToken::new();
        let session = async {
            if let Err(error) = groups.follow(&now, ownership).await {
                tracing::warn!(%error, "can't take partitions; trying again");
                context.health.not_ready("saga", error.to_string());
                return false;
            }
            groups.caught_up().await;
            if !now.is_empty() {
                context.health.ready("saga");
            }
            true
        };
        let taken = tokio::select! {
            taken = session => taken,
            () = context.shutdown.cancelled() => return,
        };
        if !taken {
            tokio::select! {
                () = tokio::time::sleep(backoff.next_pause()) => continue,
                () = context.shutdown.cancelled() => return,
            }
        }
        backoff.reset();
        let readers = triggers.read(engine, now.keys().copied().collect(), &reading);
        tokio::pin!(readers);
        let more = tokio::select! {
            () = &mut readers => true,
            changed = owned.changed() => changed.is_ok(),
            () = context.shutdown.cancelled() => false,
        };
        reading.cancel();
        // Waits for the starts on their way.
        let _ = tokio::time::timeout(FINISH_MAX, readers).await;
        if !more {
            return;
        }
    }
}
