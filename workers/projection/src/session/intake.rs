//! Reading a source: messages become events, and it is found out which rows they touch. One task per source, so that this is done beside
//! the folding.

use std::sync::Arc;
use tidemill_core::envelope::{DecodeError, Decoder, Event, RawMessage};
use tidemill_core::projection::{Position, Projection, Source, Touch};
use tidemill_nats::{HeaderMap, ReadError, Reader, StoredMessage};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// Most messages handed over at a time: enough to make the handing over cheap, few enough to be in a processor's cache.
const BATCH: usize = 512;
/// Batches that wait to be folded. Memory of about twice this many batches of events is in use besides the rows.
const BATCHES_WAITING: usize = 4;

/// A message of a source, made ready to be folded.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) source: usize,
    pub(crate) position: Position,
    pub(crate) event: Result<Event, DecodeError>,
    /// Empty: no handler matches.
    pub(crate) touches: Vec<Touch>,
    pub(crate) message: StoredMessage,
}

impl Incoming {
    /// CloudEvents `id`, for logs; `None` for what is no event.
    pub(crate) fn id(&self) -> Option<&str> {
        self.event.as_ref().ok().map(|event| event.id.as_str())
    }

    /// What connects it with others in logs: as an instance that it starts would have it.
    pub(crate) fn correlation_id(&self) -> Option<&str> {
        let event = self.event.as_ref().ok()?;
        Some(event.extension("correlationid").unwrap_or(&event.id))
    }
}

/// Messages of one source, in order.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) events: Vec<Incoming>,
    /// Messages of the source behind the last one.
    pub(crate) pending: u64,
}

/// What makes messages of one source ready to be folded.
#[derive(Clone, Debug)]
pub(crate) struct Preparation {
    pub(crate) projection: Arc<Projection>,
    pub(crate) decoder: Arc<Decoder>,
    /// Index of the source.
    pub(crate) index: usize,
    pub(crate) source: Source,
}

impl Preparation {
    pub(crate) fn prepare(&self, message: StoredMessage) -> Incoming {
        let headers = borrowed_headers(message.headers.as_ref());
        let event = self.decoder.decode(&RawMessage {
            subject: &message.subject,
            headers: &headers,
            payload: &message.payload,
            sequence: message.sequence,
            stored_at: message.stored_at,
        });
        let touches = match &event {
            Ok(event) => self.projection.touches(self.index, event),
            Err(error) => vec![Touch::undecodable(error.clone())],
        };
        let position = self.source.lineage.position(message.sequence);
        Incoming {
            source: self.index,
            position,
            event,
            touches,
            message,
        }
    }
}

/// Headers in an order that is the same every time: names that differ only in case must not make one event two.
pub(crate) fn borrowed_headers(headers: Option<&HeaderMap>) -> Vec<(&str, &str)> {
    let pairs = headers.into_iter().flat_map(HeaderMap::iter);
    let mut headers: Vec<(&str, &str)> = pairs
        .flat_map(|(name, values)| {
            values
                .iter()
                .map(move |value| (name.as_ref(), value.as_str()))
        })
        .collect();
    headers.sort_by_key(|(name, _)| *name);
    headers
}

/// Batches of one source, as they come.
pub(crate) type Batches = mpsc::Receiver<Result<Batch, ReadError>>;

/// Reads a source until the receiver or the handle is dropped, or reading fails: the error comes last.
pub(crate) fn read(
    mut reader: Reader,
    preparation: Preparation,
) -> (Batches, AbortOnDropHandle<()>) {
    let (sender, batches) = mpsc::channel(BATCHES_WAITING);
    let task = tokio::spawn(async move {
        let mut messages = Vec::with_capacity(BATCH);
        loop {
            let read = reader.next_batch(BATCH, &mut messages).await;
            let pending = reader.pending();
            // What came before an error is in order.
            let events = messages
                .drain(..)
                .map(|message| preparation.prepare(message))
                .collect();
            let over = read.is_err();
            if sender.send(Ok(Batch { events, pending })).await.is_err() {
                return;
            }
            if let Err(error) = read {
                // Nobody listening is no fault.
                let _ = sender.send(Err(error)).await;
            }
            if over {
                return;
            }
        }
    });
    (batches, AbortOnDropHandle::new(task))
}
