//! Appending inputs to the log. An append is tried until it is known to be stored, or that it was there already.

use crate::engine::Engine;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::names::LogKind;
use tidemill_nats::{Publish, PublishError};

/// Pause after an append whose fate is unknown.
const PAUSE: Duration = Duration::from_millis(200);

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Appended {
    /// It is stored.
    Stored,
    /// One of its kind, which is stored only once, was there already.
    Existing,
    /// The log refuses it for good; it was logged and counted.
    Refused,
    /// The worker is shutting down; whoever owns the partition next does it again.
    Abandoned,
}

impl Engine {
    /// Appends an input and waits until it is stored.
    ///
    /// A start is stored once (expected last sequence 0). Anything else may be stored twice, when two workers say the
    /// same or an acknowledgement is lost, and the machine takes it as one. A timer or a publish that was stored before
    /// its time (a log that was set back) means nothing to the fold, so it must be possible to store it again.
    pub(crate) async fn append(&self, instance: &str, kind: LogKind, payload: Vec<u8>) -> Appended {
        let once = matches!(kind, LogKind::Started);
        let Some(subject) = self.log_subject(instance, kind) else {
            return Appended::Refused;
        };
        let payload = Bytes::from(payload);
        loop {
            let message = Publish {
                expected_last_subject_sequence: once.then_some(0),
                ..Publish::new(subject.clone(), payload.clone())
            };
            match self.publisher.publish(message).await.await {
                Ok(_) => return Appended::Stored,
                Err(PublishError::Conflict) => return Appended::Existing,
                Err(error) if error.may_pass() => {
                    tracing::warn!(%error, instance, "append to the log is tried again");
                    tokio::select! {
                        () = tokio::time::sleep(PAUSE) => {}
                        () = self.shutdown.cancelled() => return Appended::Abandoned,
                    }
                }
                Err(error) => {
                    self.metrics.appends_refused.inc();
                    tracing::error!(%error, instance, "the log refuses an input: make room in, or mend, its stream");
                    tokio::select! {
                        () = tokio::time::sleep(PAUSE * 10) => {}
                        () = self.shutdown.cancelled() => return Appended::Abandoned,
                    }
                    if !matches!(
                        error,
                        PublishError::Refused { code: 10077, .. } | PublishError::Denied(_)
                    ) {
                        return Appended::Refused;
                    }
                }
            }
        }
    }

    /// Appends without waiting.
    pub(crate) fn append_later(
        self: &Arc<Self>,
        instance: String,
        kind: LogKind,
        payload: Vec<u8>,
    ) {
        let engine = Arc::clone(self);
        self.work.spawn(async move {
            engine.append(&instance, kind, payload).await;
        });
    }
}
