//! Setting trigger events aside that can't start anything: undecodable, without an id, too large for the log.

use crate::engine::Engine;
use crate::shard::header_pairs;
use crate::trigger::{Session, TriggerReader, correlation_id};
use std::time::Duration;
use tidemill_core::names::encode_token;
use tidemill_nats::{HeaderMap, Publish, PublishError, StoredMessage};

/// Pause before an event that can't be set aside is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// JetStream's codes for a message, and for headers, larger than the stream takes.
const MESSAGE_TOO_LARGE: u64 = 10054;
const HEADERS_TOO_LARGE: u64 = 10097;

impl Session<'_> {
    /// The log refuses to hold a start (it is too large, for one): the event is set aside.
    pub(crate) async fn park_refused(&self, of: u16, sequence: u64, reason: &str) -> bool {
        let engine = &self.reader.engine;
        let reason = format!("the log refuses the start: {reason}");
        loop {
            match engine
                .nats
                .read_at(&self.reader.source.name, sequence)
                .await
            {
                Ok(Some(message)) => return self.park(&message, of, &reason).await,
                Ok(None) => {
                    tracing::error!(stream = %self.reader.key, sequence, reason, "an event can't be set aside: it has left its stream");
                    return true;
                }
                Err(error) => {
                    tracing::warn!(%error, sequence, "an event is to be set aside and can't be read");
                    if pause(engine).await {
                        return false;
                    }
                }
            }
        }
    }

    /// Sets an event aside, with its reason. Tried until it is stored: the position must not pass it before. False if
    /// the worker is shutting down.
    pub(crate) async fn park(&self, message: &StoredMessage, of: u16, reason: &str) -> bool {
        let TriggerReader {
            engine,
            key,
            source,
            ..
        } = self.reader;
        let mut headers = HeaderMap::new();
        for (name, value) in message
            .headers
            .as_ref()
            .map(header_pairs)
            .unwrap_or_default()
        {
            // The server's own headers would mean something to it again.
            if !name.to_ascii_lowercase().starts_with("nats-") {
                put(&mut headers, name, value);
            }
        }
        self.put_reason(&mut headers, message, reason);
        // Of what is no event only the place is known.
        let event = self.reader.decode(message).ok();
        tracing::error!(
            stream = %key,
            sequence = message.sequence,
            event_id = event.as_ref().map(|event| event.id.as_str()),
            correlation_id = event.as_ref().map(correlation_id),
            reason,
            "a trigger event is parked"
        );
        // Events of several streams, and of several lives of one stream, have the same sequences.
        let stream = &source.stream;
        let life = encode_token(&self.resolved.incarnation).unwrap_or_default();
        let subject = format!(
            "{}.{of}.{}.{}.{life}-{}.{}",
            engine.resource.parked_prefix(&engine.root),
            stream.namespace,
            stream.name,
            self.resolved.accepted,
            message.sequence
        );
        let mut payload = message.payload.clone();
        loop {
            let publish = Publish {
                headers: headers.clone(),
                // Parked twice it would be listed twice.
                expected_last_subject_sequence: Some(0),
                ..Publish::new(subject.clone(), payload.clone())
            };
            match engine.publisher.publish(publish).await.await {
                Ok(_) | Err(PublishError::Conflict) => return true,
                // With our headers it is larger than messages may be. It still stands in its stream, where they say.
                Err(PublishError::Refused {
                    code: MESSAGE_TOO_LARGE | HEADERS_TOO_LARGE,
                    ..
                }) if !payload.is_empty() => {
                    payload.clear();
                    headers = HeaderMap::new();
                    self.put_reason(&mut headers, message, reason);
                    put(
                        &mut headers,
                        "Tidemill-Left-Out",
                        "payload and headers: too large",
                    );
                }
                Err(error) => {
                    tracing::warn!(%error, "parking is tried again");
                    if pause(engine).await {
                        return false;
                    }
                }
            }
        }
    }
}

impl Session<'_> {
    fn put_reason(&self, headers: &mut HeaderMap, message: &StoredMessage, reason: &str) {
        put(headers, "Tidemill-Reason", reason);
        put(headers, "Tidemill-Stream", &self.reader.key);
        put(headers, "Tidemill-Subject", &message.subject);
        put(headers, "Tidemill-Sequence", &message.sequence.to_string());
    }
}

/// Adds a header; what can't be one is cleaned of what makes it none, or left out.
fn put(headers: &mut HeaderMap, name: &str, value: &str) {
    let value = value.replace(['\r', '\n'], " ");
    if let (Ok(name), Ok(value)) = (
        name.parse::<async_nats::header::HeaderName>(),
        value.parse::<async_nats::header::HeaderValue>(),
    ) {
        headers.append(name, value);
    }
}

/// Waits a little; true if the worker is shutting down.
async fn pause(engine: &Engine) -> bool {
    tokio::select! {
        () = tokio::time::sleep(PAUSE) => false,
        () = engine.shutdown.cancelled() => true,
    }
}
