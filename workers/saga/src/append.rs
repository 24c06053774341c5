//! Appending inputs to the log. An append is tried until it is known to be stored, or that it was there already.

use crate::engine::{Claim, Engine};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::names::LogKind;
use tidemill_core::planted::{Bug, planted};
use tidemill_core::saga::Observed;
use tidemill_nats::{HeaderMap, Publish, PublishError, StoredMessage};
use tokio_util::sync::CancellationToken;

/// Pause after an append whose fate is unknown.
const PAUSE: Duration = Duration::from_millis(200);
/// Pause while the log takes nothing: full, or not permitted.
const CLOSED_PAUSE: Duration = Duration::from_secs(2);

/// JetStream's code for a stream that is full and refuses new messages.
const STREAM_FULL: u64 = 10077;

/// What became of an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Appended {
    /// It is stored.
    Stored,
    /// One of its kind, which is stored only once, was there already.
    Existing,
    /// The log refuses it for good, and why; it was logged and counted.
    Refused(String),
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
        self.append_with(instance, kind, HeaderMap::new(), payload.into())
            .await
    }

    /// The same with headers: an answer that is relayed keeps what it says of errors.
    pub(crate) async fn append_with(
        &self,
        instance: &str,
        kind: LogKind,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Appended {
        let payload = || payload.clone();
        self.append_made(instance, kind, headers, payload).await
    }

    /// Appends that an attempt reached nobody, as far as this worker saw. Whether nobody else can have made it (`claim`,
    /// `None`: somebody can) is looked at anew each time it is tried: until it is stored, another may take over and send it again.
    pub(crate) async fn append_silence(
        &self,
        instance: &str,
        kind: LogKind,
        claim: Option<Claim>,
        silence: impl Fn(bool) -> Observed,
    ) -> Appended {
        let payload = || silence(self.is_sole(claim)).to_json().into();
        self.append_made(instance, kind, HeaderMap::new(), payload)
            .await
    }

    async fn append_made(
        &self,
        instance: &str,
        kind: LogKind,
        headers: HeaderMap,
        make: impl Fn() -> Bytes,
    ) -> Appended {
        let once = matches!(kind, LogKind::Started);
        let Some(subject) = self.log_subject(instance, kind) else {
            return Appended::Refused("its id is too long".to_owned());
        };
        // An append without an answer may have been stored.
        let mut unsure = false;
        loop {
            let payload = make();
            let message = Publish {
                headers: headers.clone(),
                expected_last_subject_sequence: (once && !planted(Bug::StartUnguarded))
                    .then_some(0),
                ..Publish::new(subject.clone(), payload.clone())
            };
            let error = match self.publisher.publish(message).await.await {
                Ok(_) => {
                    self.trouble.over(&self.health);
                    return Appended::Stored;
                }
                Err(error) => error,
            };
            let pause = match &error {
                PublishError::Conflict if unsure => match self.holds(&subject, &payload).await {
                    Some(true) => return Appended::Stored,
                    Some(false) => return Appended::Existing,
                    None => PAUSE,
                },
                PublishError::Conflict => return Appended::Existing,
                error if error.may_pass() => {
                    unsure |= matches!(error, PublishError::Unknown(_));
                    self.metrics.appends_retried.inc();
                    tracing::debug!(
                        instance,
                        error = without_subject(error),
                        "an append is tried again"
                    );
                    if planted(Bug::AppendGivenUp) {
                        return Appended::Abandoned;
                    }
                    if planted(Bug::OutageParks) {
                        return Appended::Refused(without_subject(error));
                    }
                    PAUSE
                }
                PublishError::Refused {
                    code: STREAM_FULL, ..
                }
                | PublishError::Denied(_) => {
                    let why = format!("the log takes nothing: {}", without_subject(&error));
                    self.trouble.begin(&self.health, why);
                    CLOSED_PAUSE
                }
                error => {
                    self.metrics.appends_refused.inc();
                    let error = without_subject(error);
                    tracing::error!(instance, error, "the log refuses an input");
                    return Appended::Refused(error);
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.shutdown.cancelled() => return Appended::Abandoned,
            }
        }
    }

    /// Whether a message with a start in it is its instance's start: what an instance is started with is the first at its subject. The
    /// log has seen to that for all that workers append. What somebody else wrote there is looked into: it would start an instance again
    /// that is finished, and forgotten.
    pub(crate) async fn is_start(
        &self,
        instance: &str,
        message: &StoredMessage,
        stop: &CancellationToken,
    ) -> bool {
        let subject = self.log_subject(instance, LogKind::Started);
        if subject.as_deref() != Some(message.subject.as_str()) {
            // Of a partition that isn't its own.
            return false;
        }
        if message.was_stored_as_first() || planted(Bug::StartUnguarded) {
            return true;
        }
        let log = &self.workload.log_stream;
        loop {
            match self.nats.next_for_subject(log, &message.subject, 0).await {
                Ok(first) => return first.is_some_and(|first| first.sequence == message.sequence),
                Err(error) => {
                    tracing::warn!(%error, instance, "the start of an instance can't be looked for; trying again");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stop.cancelled() => return false,
            }
        }
    }

    /// Whether the last message of a subject is this one; `None` if that can't be read now.
    async fn holds(&self, subject: &str, payload: &Bytes) -> Option<bool> {
        let stored = self
            .nats
            .last_at_leader(&self.workload.log_stream, subject)
            .await;
        Some(stored.ok()??.payload == *payload)
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

/// An error for logs and people: the subject of a reply holds its token, so no subject of the log is ever shown.
pub(crate) fn without_subject(error: &PublishError) -> String {
    match error {
        PublishError::Denied(_) => {
            "no permission to publish: see `tidemill permissions`".to_owned()
        }
        PublishError::NoStream(_) => "no stream takes the subject".to_owned(),
        PublishError::Conflict | PublishError::Refused { .. } | PublishError::Unknown(_) => {
            error.to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_error_shows_the_subject_of_a_reply() {
        let subject = "_tm.log.shop.fulfilment.7.o-1.r.reserve.a.1.6nvph3u7ey7l324ipsqw";
        for error in [
            PublishError::Denied(subject.to_owned()),
            PublishError::NoStream(subject.to_owned()),
        ] {
            let shown = without_subject(&error);
            assert!(!shown.contains("6nvph3u7ey7l324ipsqw"), "{shown}");
        }
    }
}
