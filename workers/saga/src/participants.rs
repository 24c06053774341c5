//! What the worker sees of participants beside their answers: that nobody listens, and that a stream would answer in
//! their place.

use crate::engine::Engine;
use crate::partitions::Partitions;
use crate::shard::Ask;
use async_nats::StatusCode;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tidemill_core::names::LogSubject;
use tidemill_core::planted::{Bug, planted};
use tidemill_nats::{ApiError, Subscription};

/// How often request subjects are looked at while a stream is on one, as that holds up work.
const CAPTURED_LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Pause before a subject that could not be looked at is looked at again.
const PAUSE: Duration = Duration::from_secs(1);

/// Condition of readiness: no stream is on a request's subject.
const CAPTURED: &str = "SubjectCaptured";

/// Hears "no responders". The server says it only to the connection that sent the request, and only if that listens on
/// the reply subject: so every reply is heard here a second time and let go. It merely speeds things up: the attempt's
/// timeout is the law.
pub(crate) async fn hear_no_responders(engine: Arc<Engine>, partitions: Arc<Partitions>) {
    let subject = format!("{}.*.*.r.>", engine.log_prefix);
    let mut replies = match Subscription::open(&engine.nats, &subject, None).await {
        Ok(replies) => replies,
        Err(error) => {
            tracing::warn!(%error, subject, "can't hear that nobody listens: attempts wait for their timeout");
            return;
        }
    };
    loop {
        let message = tokio::select! {
            message = replies.next() => message,
            () = engine.shutdown.cancelled() => return,
        };
        if message.status != Some(StatusCode::NO_RESPONDERS) {
            continue;
        }
        if let Ok(subject) = LogSubject::parse(&message.subject, &engine.log_prefix) {
            partitions
                .ask(subject.partition, Ask::NoResponders(subject))
                .await;
        }
    }
}

/// What is known of the subjects that requests go to: which stream takes them, if one does. A stream that acknowledges
/// would answer a request at once, and that answer would look like the participant's.
#[derive(Default)]
pub(crate) struct Subjects {
    known: RwLock<HashMap<String, Option<String>>>,
}

impl Subjects {
    /// The stream on a subject; `None` if that was never looked up.
    pub(crate) fn stream_on(&self, subject: &str) -> Option<Option<String>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(subject).cloned()
    }

    fn note(&self, subject: &str, stream: Option<String>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(subject.to_owned(), stream);
    }

    fn all(&self) -> Vec<String> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.keys().cloned().collect()
    }

    fn first_captured(&self) -> Option<(String, String)> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known
            .iter()
            .find_map(|(subject, stream)| Some((subject.clone(), stream.clone()?)))
    }
}

impl Engine {
    /// Looks for a stream on a request's subject; until that succeeds nothing may be sent there.
    pub(crate) async fn look_at_subject(&self, subject: &str) -> Result<(), ApiError> {
        let mut captured = None;
        for stream in self.nats.streams_on(subject).await? {
            let acknowledges = match self.nats.stream_state(&stream).await {
                Ok(state) => state.acknowledges(),
                Err(ApiError::StreamMissing(_)) => false,
                // A stream of somebody else, which this worker may not look into.
                Err(ApiError::Denied(_)) => true,
                Err(error) => return Err(error),
            };
            if acknowledges && !planted(Bug::CaptureUnseen) {
                captured = Some(stream);
            }
        }
        self.subjects.note(subject, captured);
        match self.subjects.first_captured() {
            Some((subject, stream)) => self.health.not_ready(
                CAPTURED,
                format!("stream {stream} takes {subject} and would answer for the participant: take the subject out of it, or turn its acknowledgements off (no_ack)"),
            ),
            None => self.health.ready(CAPTURED),
        }
        Ok(())
    }

    /// As [`Engine::look_at_subject`], until it succeeds or the worker shuts down.
    pub(crate) async fn look_until_known(&self, subject: &str) {
        while let Err(error) = self.look_at_subject(subject).await {
            tracing::warn!(%error, subject, "whether a stream is on a request's subject is not known yet");
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = self.shutdown.cancelled() => return,
            }
        }
    }
}

/// Looks again and again: somebody may make a stream at any time.
pub(crate) async fn look_for_captured(engine: Arc<Engine>) {
    while !engine.shutdown.is_cancelled() {
        let interval = match engine.subjects.first_captured() {
            Some(_) => CAPTURED_LOOK_INTERVAL,
            None => engine.options.look_interval,
        };
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = engine.shutdown.cancelled() => return,
        }
        for subject in engine.subjects.all() {
            if let Err(error) = engine.look_at_subject(&subject).await {
                // What was known stays.
                tracing::debug!(%error, subject, "a request's subject can't be looked at");
            }
        }
    }
}
