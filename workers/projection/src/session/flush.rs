//! Writing rows and parked events, many at a time.

use super::progress::Moment;
use crate::error::SessionError;
use tidemill_core::projection::Position;
use tidemill_nats::kv::KvWrite;
use tidemill_nats::{KvBucket, PendingAck, Publish, Publisher};
use tokio_util::task::AbortOnDropHandle;

/// What is to be written together. What was folded until `moment` is stored when all of it is acknowledged.
#[derive(Debug)]
pub(crate) struct Flush {
    pub(crate) rows: Vec<(Box<str>, KvWrite)>,
    pub(crate) parked: Vec<(ParkedEvent, Publish)>,
    pub(crate) moment: Moment,
}

/// An event that is copied to the parked stream for one row.
#[derive(Clone, Debug)]
pub(crate) struct ParkedEvent {
    pub(crate) token: Box<str>,
    pub(crate) source: usize,
    pub(crate) position: Position,
}

/// Everything is stored.
#[derive(Debug)]
pub(crate) struct Flushed {
    /// Tokens with their new revisions.
    pub(crate) rows: Vec<(Box<str>, u64)>,
    /// With the sequence in the parked stream.
    pub(crate) parked: Vec<(ParkedEvent, u64)>,
    pub(crate) moment: Moment,
}

/// Begins to write; all answers are awaited, the first failure is given. Dropping the handle gives up what isn't sent yet.
pub(crate) fn begin(
    bucket: KvBucket,
    publisher: Publisher,
    flush: Flush,
) -> AbortOnDropHandle<Result<Flushed, SessionError>> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut rows: Vec<(Box<str>, PendingAck)> = Vec::with_capacity(flush.rows.len());
        for (token, write) in flush.rows {
            rows.push((token, bucket.send(write).await));
        }
        let mut parked = Vec::with_capacity(flush.parked.len());
        for (event, publish) in flush.parked {
            parked.push((event, publisher.publish(publish).await));
        }
        let mut flushed = Flushed {
            rows: Vec::with_capacity(rows.len()),
            parked: Vec::new(),
            moment: flush.moment,
        };
        for (token, ack) in rows {
            match ack.await {
                Ok(acked) => flushed.rows.push((token, acked.sequence)),
                Err(source) => {
                    return Err(SessionError::Row {
                        key: token.into(),
                        source,
                    });
                }
            }
        }
        for (event, ack) in parked {
            match ack.await {
                Ok(acked) => flushed.parked.push((event, acked.sequence)),
                Err(source) => {
                    return Err(SessionError::Park {
                        token: event.token.into(),
                        source,
                    });
                }
            }
        }
        Ok(flushed)
    }))
}
