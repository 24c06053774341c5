//! Publishing events, each once: an event stays outstanding in its instance until `p` says where it is stored.
//!
//! It is found again by its id on its subject, so a target must keep events under the subject they were published to
//! and for as long as its own limits say: others are refused.

use crate::append::{Appended, without_subject};
use crate::effects::Of;
use crate::engine::Engine;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidemill_core::envelope::Encoded;
use tidemill_core::names::LogKind;
use tidemill_core::planted::{Bug, planted};
use tidemill_core::saga::{Observed, PublishEffect, Published};
use tidemill_core::timestamp::Timestamp;
use tidemill_nats::{
    ApiError, HeaderMap, Nats, Publish, PublishError, ReadError, ReadFrom, Reader, StreamState,
    Waits,
};
use tokio::time::Instant;

/// Pause before a publish is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a look at a target's settings holds: somebody may change them.
const LOOK_MAX_AGE: Duration = Duration::from_secs(60);
/// Events read at once when one is looked for.
const BATCH_MAX: usize = 256;
/// The target's clock may differ from the log's by little; so much earlier is read from.
const CLOCK_MARGIN_MS: i64 = 60_000;

/// The streams that events may be published to, and when that was seen.
#[derive(Default)]
pub(crate) struct Targets {
    fit: Mutex<HashMap<String, Instant>>,
    /// One look at a time; the others wait for what it brings.
    looking: tokio::sync::Mutex<()>,
}

impl Targets {
    /// Why a stream can't be a target, if so. Looked up at its first use and every minute, and each time while it is
    /// unfit: somebody may mend it.
    async fn unfit(&self, nats: &Nats, stream: &str) -> Result<Option<&'static str>, ApiError> {
        if self.is_fit(stream) {
            return Ok(None);
        }
        let _turn = self.looking.lock().await;
        if self.is_fit(stream) {
            return Ok(None);
        }
        let state = nats.stream_state(stream).await?;
        let unfit = unfit(&state).filter(|_| !planted(Bug::UnfitTarget));
        if unfit.is_none() {
            self.lock().insert(stream.to_owned(), Instant::now());
        }
        Ok(unfit)
    }

    fn is_fit(&self, stream: &str) -> bool {
        let seen = self.lock().get(stream).copied();
        seen.is_some_and(|seen| seen.elapsed() < LOOK_MAX_AGE)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Instant>> {
        self.fit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why an event published to this stream couldn't be found again, if so.
fn unfit(state: &StreamState) -> Option<&'static str> {
    if state.transforms_subjects() {
        Some("has a subject transform, so events aren't stored under their own subject")
    } else if state.messages_per_subject_max().is_some() {
        Some("limits the messages of a subject, so an event may leave it at once")
    } else if state.retention() != "limits" {
        Some("has WorkQueue or Interest retention, so events leave it when they are read")
    } else if !state.acknowledges() {
        Some("doesn't acknowledge (no_ack), so it is never known what it has")
    } else {
        None
    }
}

enum Stored {
    At(Published),
    Refused(String),
    Abandoned,
}

enum Found {
    There(u64),
    /// It isn't; this is the subject's last message.
    Last(u64),
}

impl Engine {
    /// Publishes an event until it is known to be stored, once, and appends where.
    pub(crate) async fn publish(self: Arc<Self>, of: Of, effect: PublishEffect) {
        match self.store(&of, &effect).await {
            Stored::At(published) => {
                let payload = serde_json::to_vec(&published).unwrap_or_default();
                self.append(&of.instance, LogKind::Published(effect.effect), payload)
                    .await;
            }
            Stored::Refused(message) => {
                tracing::error!(
                    instance = of.instance,
                    event_id = effect.event.extension("causationid"),
                    correlation_id = effect.event.extension("correlationid"),
                    step = effect.attempt.0,
                    side = ?effect.attempt.1,
                    attempt = effect.attempt.2,
                    published_id = effect.event.id,
                    stream = %effect.stream,
                    // `message` is the name of the line's own text.
                    error = message,
                    "a publish is refused"
                );
                let (step, side, attempt) = effect.attempt;
                let kind = LogKind::Observed {
                    step,
                    side,
                    attempt,
                };
                let what = Observed::PublishRefused { message };
                if let Appended::Refused(error) =
                    self.append(&of.instance, kind, what.to_json()).await
                {
                    tracing::error!(
                        instance = of.instance,
                        error,
                        "that a publish was refused can't be stored"
                    );
                }
            }
            Stored::Abandoned => {}
        }
    }

    async fn store(&self, of: &Of, effect: &PublishEffect) -> Stored {
        let Some(binding) = self.binding(&effect.stream) else {
            return Stored::Refused(format!(
                "stream {} is not known to this worker",
                effect.stream
            ));
        };
        let stream = binding.name.clone();
        let encoded = match effect.event.encode(&binding.prefix) {
            Ok(encoded) => encoded,
            Err(error) => return Stored::Refused(error.to_string()),
        };
        let message = EventMessage::new(encoded);
        let mut expected = 0;
        loop {
            match self.targets.unfit(&self.nats, &stream).await {
                Ok(None) => {}
                Ok(Some(why)) => return Stored::Refused(format!("stream {stream} {why}")),
                Err(error) => {
                    let why = format!("events can't be published to stream {stream}: {error}");
                    self.publishing.begin(&self.health, why);
                    if self.pause().await {
                        return Stored::Abandoned;
                    }
                    continue;
                }
            }
            let error = match self.events.publish(message.publish(expected)).await.await {
                Ok(acknowledged) if acknowledged.stream != stream => {
                    return Stored::Refused(format!(
                        "its subject belongs to stream {}, not to {stream}",
                        acknowledged.stream
                    ));
                }
                Ok(acknowledged) => {
                    self.publishing.over(&self.health);
                    let sequence = acknowledged.sequence;
                    return Stored::At(Published { stream, sequence });
                }
                Err(error) => error,
            };
            // Refused, or in doubt: an earlier attempt, perhaps another worker's, may have been stored all the same.
            match self.find(&stream, &message, of.started_at).await {
                Ok(Found::There(sequence)) => return Stored::At(Published { stream, sequence }),
                Ok(Found::Last(last)) => match &error {
                    // Once more, with what is known now.
                    PublishError::Conflict | PublishError::Unknown(_) if last != expected => {
                        expected = last;
                        continue;
                    }
                    PublishError::Conflict | PublishError::Unknown(_) => {}
                    error if error.may_pass() => {
                        let why = format!(
                            "events can't be published to stream {stream}: {}",
                            without_subject(error)
                        );
                        self.publishing.begin(&self.health, why);
                    }
                    error => return Stored::Refused(error.to_string()),
                },
                Err(error) => {
                    let why = format!("events can't be looked for in stream {stream}: {error}");
                    self.publishing.begin(&self.health, why);
                }
            }
            if self.pause().await {
                return Stored::Abandoned;
            }
        }
    }

    /// Waits a little; true if the worker is shutting down.
    async fn pause(&self) -> bool {
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => false,
            () = self.shutdown.cancelled() => true,
        }
    }

    /// Looks for an event on its subject, from the instance's start on.
    async fn find(
        &self,
        stream: &str,
        event: &EventMessage,
        from: Timestamp,
    ) -> Result<Found, ReadError> {
        if planted(Bug::PublishedAgain) {
            return Ok(Found::Last(0));
        }
        let from = Timestamp::from_millis(from.millis().saturating_sub(CLOCK_MARGIN_MS));
        let subject = event.encoded.subject.clone();
        // Within the subject: a worker needs no right on what else the stream holds.
        let read =
            |from| Reader::open_within(&self.nats, stream, subject.clone(), from, Waits::Never);
        let mut reader = read(ReadFrom::Time(from)).await?;
        let mut batch = Vec::new();
        let mut last = 0;
        while reader.next_batch(BATCH_MAX, &mut batch).await? > 0 {
            for message in batch.drain(..) {
                last = message.sequence;
                let id = message
                    .headers
                    .as_ref()
                    .and_then(|headers| headers.get("ce-id"));
                if id.is_some_and(|id| id.as_str() == event.id) {
                    return Ok(Found::There(message.sequence));
                }
            }
        }
        if last == 0 {
            // Nothing since the instance began, but the subject may hold older events.
            read(ReadFrom::Last)
                .await?
                .next_batch(1, &mut batch)
                .await?;
            last = batch.first().map_or(0, |message| message.sequence);
        }
        Ok(Found::Last(last))
    }
}

/// An event as its message is published and looked for.
struct EventMessage {
    encoded: Encoded,
    headers: HeaderMap,
    /// `ce-id` as the header holds it, percent-encoded.
    id: String,
}

impl EventMessage {
    fn new(encoded: Encoded) -> Self {
        let mut headers = HeaderMap::new();
        let mut id = String::new();
        for (name, value) in &encoded.headers {
            headers.insert(name.as_str(), value.as_str());
            if name == "ce-id" {
                id.clone_from(value);
            }
        }
        EventMessage {
            encoded,
            headers,
            id,
        }
    }

    fn publish(&self, expected: u64) -> Publish {
        let again = planted(Bug::PublishedAgain);
        Publish {
            headers: self.headers.clone(),
            message_id: (!again).then(|| self.encoded.message_id.clone()),
            expected_last_subject_sequence: (!again).then_some(expected),
            ..Publish::new(self.encoded.subject.clone(), self.encoded.payload.clone())
        }
    }
}
