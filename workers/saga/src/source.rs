//! A trigger stream: where it is begun, and whether it still is the stream that positions are of.
//!
//! What is stored about it is one entry of the counters bucket, written before anything is read: an edit must not start
//! history again. A stream that was set back or replaced is no longer read, by any worker, until somebody accepts it:
//! going on would skip events, beginning again would start what was started before.

use crate::engine::Engine;
use tidemill_core::definition::{Start, StreamRef};
use tidemill_core::names::COUNTERS_BUCKET;
use tidemill_core::planted::{Bug, planted};
use tidemill_core::status::ResolvedStart;
use tidemill_core::timestamp::Timestamp;
use tidemill_nats::{
    ApiError, Guard, KvBucket, KvEntry, KvError, KvWrite, Nats, ReadError, ReadFrom, Reader,
    StreamState,
};

/// Why nothing is read from a trigger stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("stream {0}: {1}")]
    Stream(StreamRef, ApiError),
    #[error("stream {0}: {1}")]
    Read(StreamRef, Box<ReadError>),
    #[error(transparent)]
    Bucket(#[from] KvError),
    #[error("stream {0}: what is stored about its start can't be read: {1}")]
    Form(StreamRef, serde_json::Error),
    #[error(
        "stream {0} has {1} retention: its events leave when they are read, so nothing can be started from it; use a stream with limits retention"
    )]
    Retention(StreamRef, String),
    #[error(
        "SourceReset: stream {stream} was set back or replaced ({reason}): no event of it starts anything until somebody accepts that (`tidemill saga accept-source`); from then on new events do"
    )]
    Reset { stream: StreamRef, reason: String },
    #[error("stream {0} is read as it should be: there is nothing to accept")]
    NotReset(StreamRef),
}

impl SourceError {
    /// Whether the same may succeed soon without anybody doing anything.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            SourceError::Stream(_, error) => error.may_pass(),
            SourceError::Bucket(KvError::Get { source, .. }) => source.may_pass(),
            SourceError::Bucket(KvError::Write { source, .. }) => source.may_pass(),
            SourceError::Bucket(KvError::Read { .. })
            | SourceError::Read(..)
            | SourceError::Form(..)
            | SourceError::Retention(..)
            | SourceError::Reset { .. }
            | SourceError::NotReset(_) => false,
        }
    }
}

pub(crate) struct Source {
    nats: Nats,
    bucket: KvBucket,
    key: String,
    pub(crate) stream: StreamRef,
    /// The JetStream stream.
    pub(crate) name: String,
}

impl Source {
    pub(crate) fn new(engine: &Engine, stream: &StreamRef, name: &str) -> Self {
        Source {
            nats: engine.nats.clone(),
            bucket: KvBucket::shared(&engine.publisher, COUNTERS_BUCKET),
            key: engine.resource.start_key(stream),
            stream: stream.clone(),
            name: name.to_owned(),
        }
    }

    pub(crate) async fn state(&self) -> Result<StreamState, SourceError> {
        let state = self.nats.stream_state(&self.name).await;
        state.map_err(|error| SourceError::Stream(self.stream.clone(), error))
    }

    pub(crate) fn reset(&self, reason: impl Into<String>) -> SourceError {
        SourceError::Reset {
            stream: self.stream.clone(),
            reason: reason.into(),
        }
    }

    /// A reader's error: a stream that was set back is more than one that can't be read.
    pub(crate) fn unread(&self, error: ReadError) -> SourceError {
        match error {
            ReadError::Lost { reason, .. } if !planted(Bug::TriggerResetUnseen) => {
                self.reset(reason)
            }
            error => SourceError::Read(self.stream.clone(), Box::new(error)),
        }
    }

    /// Where the stream is begun; found out and stored if it never was.
    pub(crate) async fn resolved(&self, start: Start) -> Result<ResolvedStart, SourceError> {
        if let Some((resolved, _)) = self.stored().await? {
            return Ok(resolved);
        }
        let state = self.state().await?;
        if state.retention() != "limits" {
            let retention = state.retention().to_owned();
            return Err(SourceError::Retention(self.stream.clone(), retention));
        }
        let after = match start {
            Start::Beginning => 0,
            Start::New => state.last,
            Start::Position(sequence) => sequence.saturating_sub(1),
            Start::Time(time) => self.last_before(time, state.last).await?,
        };
        let resolved = ResolvedStart::new(self.stream.clone(), state.incarnation, after);
        if self
            .bucket
            .create(&self.key, self.json(&resolved)?)
            .await?
            .is_some()
        {
            tracing::info!(stream = %self.stream, after, "events after this position start instances");
            return Ok(resolved);
        }
        // Another worker was quicker.
        Ok(self.stored().await?.map_or(resolved, |(stored, _)| stored))
    }

    async fn last_before(&self, time: Timestamp, last: u64) -> Result<u64, SourceError> {
        let unread = |error| self.unread(error);
        let from = ReadFrom::Time(time);
        let mut reader = Reader::open_to_end(&self.nats, &self.name, Vec::new(), from)
            .await
            .map_err(unread)?;
        let mut messages = Vec::new();
        reader.next_batch(1, &mut messages).await.map_err(unread)?;
        Ok(messages
            .first()
            .map_or(last, |message| message.sequence.saturating_sub(1)))
    }

    /// What shows that positions up to `furthest` mean nothing in this stream, if anything does.
    pub(crate) fn difference(
        &self,
        resolved: &ResolvedStart,
        state: &StreamState,
        furthest: u64,
    ) -> Option<String> {
        if planted(Bug::TriggerResetUnseen) {
            return None;
        }
        if state.incarnation != resolved.incarnation {
            return Some(format!(
                "its incarnation was {} and is {}",
                resolved.incarnation, state.incarnation
            ));
        }
        (state.last < furthest).then(|| {
            format!(
                "events up to {furthest} were dealt with and it ends at {}",
                state.last
            )
        })
    }

    /// Stores that the stream was set back, for every worker and for later.
    pub(crate) async fn store_reset(
        &self,
        known: &ResolvedStart,
        reason: &str,
    ) -> Result<(), SourceError> {
        if let Some((stored, entry)) = self.stored().await?
            && stored.accepted == known.accepted
            && stored.reset.is_none()
        {
            let reset = Some(reason.to_owned());
            self.replace(&ResolvedStart { reset, ..stored }, &entry)
                .await?;
        }
        Ok(())
    }

    /// Accepts the stream as it is: what is in it now starts nothing, what comes does.
    pub(crate) async fn accept(&self) -> Result<ResolvedStart, SourceError> {
        let state = self.state().await?;
        let Some((stored, entry)) = self.stored().await? else {
            return Err(SourceError::NotReset(self.stream.clone()));
        };
        if stored.reset.is_none() {
            return Err(SourceError::NotReset(self.stream.clone()));
        }
        let accepted = ResolvedStart {
            incarnation: state.incarnation,
            after: state.last,
            accepted: stored.accepted + 1,
            reset: None,
            stream: stored.stream,
        };
        self.replace(&accepted, &entry).await?;
        Ok(accepted)
    }

    async fn stored(&self) -> Result<Option<(ResolvedStart, KvEntry)>, SourceError> {
        let entry = self.bucket.get(&self.key).await?;
        let Some(entry) = entry.filter(|entry| !entry.deleted) else {
            return Ok(None);
        };
        let stored = serde_json::from_slice(&entry.value).map_err(|error| self.form(error))?;
        Ok(Some((stored, entry)))
    }

    async fn replace(&self, resolved: &ResolvedStart, entry: &KvEntry) -> Result<(), SourceError> {
        let write = KvWrite {
            key: self.key.clone(),
            value: Some(self.json(resolved)?.into()),
            guard: Guard::Revision(entry.revision),
            ..KvWrite::default()
        };
        self.bucket.write(write).await?;
        Ok(())
    }

    fn json(&self, resolved: &ResolvedStart) -> Result<Vec<u8>, SourceError> {
        serde_json::to_vec(resolved).map_err(|error| self.form(error))
    }

    fn form(&self, error: serde_json::Error) -> SourceError {
        SourceError::Form(self.stream.clone(), error)
    }
}
