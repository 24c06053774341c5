//! The trigger streams of a saga, and reading all of them.

use crate::RunError;
use crate::engine::Engine;
use crate::source::{Source, SourceError};
use crate::trigger::TriggerReader;
use futures::future::join_all;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::control::{Accepted, ControlError};
use tidemill_core::definition::{Start, StreamRef};
use tidemill_worker_runtime::backoff::Backoff;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether a stream that was set back has been accepted.
const RESET_LOOK: Duration = Duration::from_secs(2);

pub(crate) struct Triggers {
    engine: Arc<Engine>,
    streams: Vec<TriggerStream>,
}

struct TriggerStream {
    source: Arc<Source>,
    start: Start,
    reader: TriggerReader,
    /// Name of the condition that says whether it is read.
    condition: String,
}

impl Triggers {
    pub(crate) fn new(engine: &Arc<Engine>) -> Result<Self, RunError> {
        let mut streams: Vec<TriggerStream> = Vec::new();
        let workload = &engine.workload;
        for trigger in workload
            .definition
            .triggers
            .iter()
            .filter(|_| !workload.suspend && workload.closing.is_none())
        {
            let stream = &trigger.stream;
            if streams.iter().any(|known| &known.source.stream == stream) {
                continue;
            }
            let start = workload.starts.get(streams.len()).copied();
            let binding = engine
                .binding(stream)
                .ok_or_else(|| RunError::Unbound(stream.clone()))?;
            let source = Arc::new(Source::new(engine, stream, &binding.name));
            streams.push(TriggerStream {
                reader: TriggerReader::new(engine, &source, binding)?,
                source,
                start: start.unwrap_or(Start::New),
                condition: format!("trigger {stream}"),
            });
        }
        Ok(Triggers {
            engine: Arc::clone(engine),
            streams,
        })
    }

    /// Finds out where each stream begins, before the first instance is started. A stream that can't be read holds up
    /// its own events only: what runs goes on.
    ///
    /// # Errors
    /// What may pass: it is to be tried again.
    pub(crate) async fn resolve(&self) -> Result<(), SourceError> {
        for stream in &self.streams {
            match stream.source.resolved(stream.start).await {
                Ok(_) => {}
                Err(error) if error.may_pass() => return Err(error),
                Err(error) => self.say(stream, &error),
            }
        }
        Ok(())
    }

    /// The streams that are read.
    pub(crate) fn streams(&self) -> Vec<StreamRef> {
        let streams = self.streams.iter();
        streams.map(|stream| stream.source.stream.clone()).collect()
    }

    fn say(&self, stream: &TriggerStream, error: &SourceError) {
        let health = &self.engine.health;
        health.not_ready(&stream.condition, error.to_string());
    }

    /// Reads every stream until told to stop.
    pub(crate) async fn read(&self, partitions: BTreeSet<u16>, stop: &CancellationToken) {
        let readers = self
            .streams
            .iter()
            .map(|stream| self.follow(stream, &partitions, stop));
        join_all(readers).await;
        // With nothing to read the worker still serves requests and runs what was started.
        stop.cancelled().await;
    }

    /// Reads one stream until told to stop, beginning again after errors.
    async fn follow(
        &self,
        stream: &TriggerStream,
        partitions: &BTreeSet<u16>,
        stop: &CancellationToken,
    ) {
        let mut backoff = Backoff::default();
        while !stop.is_cancelled() && !partitions.is_empty() {
            let Err(error) = self.session(stream, partitions, stop).await else {
                continue;
            };
            self.say(stream, &error);
            let pause = match &error {
                SourceError::Reset { .. } => RESET_LOOK,
                _ => backoff.next_pause(),
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    async fn session(
        &self,
        stream: &TriggerStream,
        partitions: &BTreeSet<u16>,
        stop: &CancellationToken,
    ) -> Result<(), SourceError> {
        let resolved = stream.source.resolved(stream.start).await?;
        if let Some(reason) = resolved.reset {
            return Err(stream.source.reset(reason));
        }
        let opened = || self.engine.health.ready(&stream.condition);
        let read = stream.reader.run(partitions, &resolved, opened, stop).await;
        if let Err(SourceError::Reset { reason, .. }) = &read {
            stream.source.store_reset(&resolved, reason).await?;
        }
        read
    }

    /// Accepts streams that were set back or replaced: the named one, or all.
    pub(crate) async fn accept(&self, named: Option<&StreamRef>) -> Result<Accepted, ControlError> {
        let mut accepted = Vec::new();
        let chosen = self
            .streams
            .iter()
            .filter(|stream| named.is_none_or(|named| *named == stream.source.stream));
        for stream in chosen {
            match stream.source.accept().await {
                Ok(resolved) => accepted.push(format!(
                    "{}: events after {} start instances",
                    resolved.stream, resolved.after
                )),
                Err(SourceError::NotReset(_)) => {}
                Err(error) => return Err(ControlError::new("Unavailable", error.to_string())),
            }
        }
        match (accepted.is_empty(), named) {
            (false, _) => Ok(Accepted::new(accepted.join("; "))),
            (true, Some(stream)) => Err(ControlError::new(
                "NotReset",
                format!("stream {stream} is no trigger that was set back or replaced"),
            )),
            (true, None) => Err(ControlError::new(
                "NotReset",
                "no trigger stream was set back or replaced",
            )),
        }
    }
}
