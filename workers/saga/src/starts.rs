//! The trigger streams of a saga: where each is begun, and reading all of them.

use crate::RunError;
use crate::engine::Engine;
use crate::trigger::TriggerReader;
use futures::future::join_all;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::definition::{Start, StreamRef};
use tidemill_core::names::COUNTERS_BUCKET;
use tidemill_core::status::ResolvedStart;
use tidemill_nats::{ApiError, KvBucket, KvError, ReadError, ReadFrom, Reader};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

/// Pause before a stream that could not be read is read again.
const PAUSE: Duration = Duration::from_secs(1);

/// Why it is not known yet where a trigger stream begins.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("stream {0}: {1}")]
    Stream(StreamRef, ApiError),
    #[error("stream {0}: {1}")]
    Read(StreamRef, ReadError),
    #[error(transparent)]
    Bucket(#[from] KvError),
    #[error("stream {0}: what is stored about its start can't be read: {1}")]
    Form(StreamRef, serde_json::Error),
    #[error(
        "stream {0} has {1} retention: its events leave when they are read, so nothing can be started from it; use a stream with limits retention"
    )]
    Retention(StreamRef, String),
}

pub(crate) struct Triggers {
    engine: Arc<Engine>,
    streams: Vec<(StreamRef, Start, TriggerReader, OnceCell<u64>)>,
}

impl Triggers {
    pub(crate) fn new(engine: &Arc<Engine>) -> Result<Self, RunError> {
        let mut streams: Vec<(StreamRef, Start, TriggerReader, OnceCell<u64>)> = Vec::new();
        if !engine.workload.suspend {
            for trigger in &engine.workload.definition.triggers {
                if streams.iter().any(|(stream, ..)| stream == &trigger.stream) {
                    continue;
                }
                let start = engine
                    .workload
                    .starts
                    .get(streams.len())
                    .copied()
                    .unwrap_or(Start::New);
                let reader = TriggerReader::new(engine, &trigger.stream)?;
                streams.push((trigger.stream.clone(), start, reader, OnceCell::new()));
            }
        }
        Ok(Triggers {
            engine: Arc::clone(engine),
            streams,
        })
    }

    /// Finds out where each stream begins, and stores it, once for ever: an edit must not start history again.
    pub(crate) async fn resolve(&self) -> Result<(), StartError> {
        for (stream, start, _, after) in &self.streams {
            after
                .get_or_try_init(|| self.resolve_one(stream, *start))
                .await?;
        }
        Ok(())
    }

    async fn resolve_one(&self, stream: &StreamRef, start: Start) -> Result<u64, StartError> {
        let engine = &self.engine;
        let bucket = KvBucket::new(&engine.publisher, COUNTERS_BUCKET);
        let key = format!(
            "{}.start.{}.{}",
            engine.resource.key_prefix(),
            stream.namespace,
            stream.name
        );
        let name = engine
            .binding(stream)
            .map(|binding| binding.name.clone())
            .unwrap_or_default();
        let state = engine
            .nats
            .stream_state(&name)
            .await
            .map_err(|error| StartError::Stream(stream.clone(), error))?;
        if state.retention() != "limits" {
            return Err(StartError::Retention(
                stream.clone(),
                state.retention().to_owned(),
            ));
        }
        let form = |error| StartError::Form(stream.clone(), error);
        let after = match start {
            Start::Beginning => 0,
            Start::New => state.last,
            Start::Position(sequence) => sequence.saturating_sub(1),
            Start::Time(time) => {
                let read = |error| StartError::Read(stream.clone(), error);
                let mut reader =
                    Reader::open_to_end(&engine.nats, &name, Vec::new(), ReadFrom::Time(time))
                        .await
                        .map_err(read)?;
                let mut first = Vec::new();
                reader.next_batch(1, &mut first).await.map_err(read)?;
                first
                    .first()
                    .map_or(state.last, |message| message.sequence.saturating_sub(1))
            }
        };
        let resolved = ResolvedStart {
            stream: stream.clone(),
            incarnation: state.incarnation,
            after,
        };
        let value = serde_json::to_vec(&resolved).map_err(form)?;
        if bucket.create(&key, value).await?.is_some() {
            tracing::info!(%stream, after, "events after this position start instances");
            return Ok(after);
        }
        let entry = bucket.get(&key).await?;
        let stored: ResolvedStart =
            serde_json::from_slice(&entry.map(|entry| entry.value).unwrap_or_default())
                .map_err(form)?;
        Ok(stored.after)
    }

    /// Reads every stream until told to stop, beginning again after errors.
    pub(crate) async fn read(
        &self,
        engine: &Engine,
        partitions: BTreeSet<u16>,
        stop: &CancellationToken,
    ) {
        let readers = self.streams.iter().map(|(stream, _, reader, after)| {
            let partitions = &partitions;
            async move {
                let after = after.get().copied().unwrap_or(u64::MAX);
                while !stop.is_cancelled() && !partitions.is_empty() {
                    if let Err(error) = reader.run(partitions, after, stop).await {
                        tracing::error!(%stream, %error, "a trigger stream can't be read; trying again");
                    }
                    tokio::select! {
                        () = tokio::time::sleep(PAUSE) => {}
                        () = stop.cancelled() => {}
                    }
                }
            }
        });
        join_all(readers).await;
        if !engine.shutdown.is_cancelled() && !stop.is_cancelled() {
            // Nothing to read: the worker still serves requests and runs what was started.
            stop.cancelled().await;
        }
    }
}
