//! Setting trigger events aside that can't start anything: undecodable, without an id, too large for the log.

use crate::engine::Engine;
use crate::shard::header_pairs;
use crate::trigger::{Session, TriggerReader, correlation_id};
use std::time::Duration;
use tidemill_core::names::{EventPosition, ParkedSubject};
use tidemill_core::parked::{Failure, Kept, Parked};
use tidemill_nats::{Publish, PublishError, StoredMessage, header_map};

/// Pause before an event that can't be parked is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// JetStream's codes for a message, and for headers, larger than the stream takes.
const MESSAGE_TOO_LARGE: u64 = 10054;
const HEADERS_TOO_LARGE: u64 = 10097;

impl Session<'_> {
    /// The log refuses to hold a start (it is too large, for one): the event is parked.
    pub(crate) async fn park_refused(&self, of: u16, sequence: u64, reason: &str) -> bool {
        let engine = &self.reader.engine;
        let failure = Failure::new(
            "StartRefused",
            format!("the log refuses the start: {reason}"),
        );
        loop {
            match engine
                .nats
                .read_at(&self.reader.source.name, sequence)
                .await
            {
                Ok(Some(message)) => return self.park(&message, of, failure).await,
                Ok(None) => {
                    tracing::error!(stream = %self.reader.key, sequence, reason, "a trigger event can't be parked: it has left its stream");
                    return true;
                }
                Err(error) => {
                    tracing::warn!(%error, sequence, "a trigger event is to be parked and can't be read");
                    if pause(engine).await {
                        return false;
                    }
                }
            }
        }
    }

    /// Sets an event aside, with its reason. Tried until it is stored: the position must not pass it before. False if
    /// the worker is shutting down.
    pub(crate) async fn park(&self, message: &StoredMessage, of: u16, failure: Failure) -> bool {
        let TriggerReader {
            engine,
            key,
            source,
            ..
        } = self.reader;
        // Of what is no event only the place is known.
        let event = self.reader.decode(message).ok();
        tracing::error!(
            stream = %key,
            sequence = message.sequence,
            event_id = event.as_ref().map(|event| event.id.as_str()),
            correlation_id = event.as_ref().map(correlation_id),
            reason = failure.reason,
            error = failure.message,
            "a trigger event is parked"
        );
        // Events of several streams, and of several lives of one stream, have the same sequences.
        let position = EventPosition {
            stream: source.stream.clone(),
            incarnation: self.resolved.incarnation.clone(),
            generation: self.resolved.accepted,
            sequence: message.sequence,
        };
        let subject = ParkedSubject::Trigger {
            partition: of,
            position: position.clone(),
        };
        let subject = subject.to_subject(&engine.resource, &engine.root);
        let headers = message.headers.as_ref().map(header_pairs);
        let mut parked = Parked {
            key_space: None,
            position,
            failure: Some(failure),
            stored_at: message.stored_at,
            kept: Kept::copy(
                &message.subject,
                &headers.unwrap_or_default(),
                &message.payload,
                engine.nats.max_payload(),
            ),
        };
        loop {
            let (headers, payload) = parked.write();
            let publish = Publish {
                headers: header_map(headers),
                // Parked twice it would be listed twice.
                expected_last_subject_sequence: Some(0),
                ..Publish::new(subject.clone(), payload)
            };
            match engine.publisher.publish(publish).await.await {
                Ok(_) | Err(PublishError::Conflict) => return true,
                // With our headers it is larger than this stream takes. It still stands in its own.
                Err(PublishError::Refused {
                    code: MESSAGE_TOO_LARGE | HEADERS_TOO_LARGE,
                    ..
                }) if parked.kept != Kept::InSource => parked.kept = Kept::InSource,
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

/// Waits a little; true if the worker is shutting down.
async fn pause(engine: &Engine) -> bool {
    tokio::select! {
        () = tokio::time::sleep(PAUSE) => false,
        () = engine.shutdown.cancelled() => true,
    }
}
