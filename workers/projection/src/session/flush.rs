//! Writing rows and parked events, many at a time.

use super::cache::Place;
use tidemill_core::projection::Position;
use tidemill_nats::kv::KvWrite;
use tidemill_nats::{KvBucket, PendingAck, Publish, PublishError, Publisher};
use tokio_util::task::AbortOnDropHandle;

/// What is to be written together.
#[derive(Debug)]
pub(crate) struct Flush {
    pub(crate) rows: Vec<(Place, KvWrite)>,
    pub(crate) parked: Vec<(ParkedEvent, Publish)>,
}

/// An event that is copied to the parked stream for one row.
#[derive(Clone, Debug)]
pub(crate) struct ParkedEvent {
    pub(crate) token: Box<str>,
    pub(crate) source: usize,
    pub(crate) position: Position,
}

/// All of it is stored.
#[derive(Debug)]
pub(crate) struct Flushed {
    /// With their new revisions.
    pub(crate) rows: Vec<(Place, u64)>,
    /// With the sequence in the parked stream.
    pub(crate) parked: Vec<(ParkedEvent, u64)>,
}

/// What isn't stored, or nobody knows.
#[derive(Debug)]
pub(crate) enum Unstored {
    Row(Place, PublishError),
    Parked(ParkedEvent, PublishError),
}

/// Begins to write; all answers are awaited, the first failure is given. Dropping the handle gives up what isn't sent yet.
pub(crate) fn begin(
    bucket: KvBucket,
    publisher: Publisher,
    flush: Flush,
) -> AbortOnDropHandle<Result<Flushed, Unstored>> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut rows: Vec<(Place, PendingAck)> = Vec::with_capacity(flush.rows.len());
        for (place, write) in flush.rows {
            rows.push((place, bucket.send(write).await));
        }
        let mut parked = Vec::with_capacity(flush.parked.len());
        for (event, publish) in flush.parked {
            parked.push((event, publisher.publish(publish).await));
        }
        let mut flushed = Flushed {
            rows: Vec::with_capacity(rows.len()),
            parked: Vec::new(),
        };
        for (place, ack) in rows {
            match ack.await {
                Ok(acked) => flushed.rows.push((place, acked.sequence)),
                Err(error) => return Err(Unstored::Row(place, error)),
            }
        }
        for (event, ack) in parked {
            match ack.await {
                Ok(acked) => flushed.parked.push((event, acked.sequence)),
                Err(error) => return Err(Unstored::Parked(event, error)),
            }
        }
        Ok(flushed)
    }))
}
