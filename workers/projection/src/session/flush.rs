//! Writing rows and parked events, many at a time, and how large a row may be.

use super::cache::{Cached, Place};
use super::{Session, finished};
use crate::error::SessionError;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::names::{PROJECTION_PARTITIONS, ParkedSubject, headers, partition};
use tidemill_core::planted::{Bug, planted};
use tidemill_core::projection::{KeySpace, Position, ROW_BYTES_MAX, Sources};
use tidemill_nats::kv::{Guard, KvWrite};
use tidemill_nats::{HeaderMap, KvBucket, PendingAck, Publish, PublishError, Publisher};
use tokio_util::task::AbortOnDropHandle;

/// Catching up: rows are written when so many are dirty. With more the memory would grow, with fewer the same row would be written more often.
const DIRTY_ROWS_MAX: usize = 250_000;
/// Catching up: or when they have so many bytes.
const DIRTY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Catching up: or when the oldest change is so old.
const DIRTY_AGE_MAX: Duration = Duration::from_secs(1);
/// The same while the end is far: rows are old there anyhow, and a put costs the server more than all else that an event costs.
const DIRTY_AGE_MAX_FAR: Duration = Duration::from_secs(5);
/// With more messages behind, the end is far: some seconds of folding.
const FAR_FROM_HEAD: u64 = 200_000;
/// Rows made ready to be written at a time: what was folded meanwhile goes with those whose turn hasn't come.
const WRITE_BATCH: usize = 16_384;

/// What is stored with a row beside its JSON and its positions, in bytes: the names of its headers, its revision, the guard. About 200.
const ROW_HEADERS_BYTES: usize = 512;

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

impl Session {
    /// Asks how large a row the sink takes: an event that would make it larger parks its key, as any that can't be folded. A limit that is
    /// lowered under a session ends it with the first row that is refused; the next session knows it.
    pub(super) async fn limit_rows(&mut self) -> Result<(), SessionError> {
        let bucket = self
            .store
            .nats
            .stream_state(self.store.rows.stream())
            .await?;
        let taken = bucket
            .message_bytes_max()
            .unwrap_or(usize::MAX)
            .min(self.store.nats.max_payload());
        let around = ROW_HEADERS_BYTES + self.sources.positions_bytes_max();
        let bytes = taken.saturating_sub(around).min(ROW_BYTES_MAX);
        if bytes != self.projection.row_bytes_max() && !planted(Bug::SinkLimitUnseen) {
            tracing::info!(bytes, "the sink limits how large a row may be");
            Arc::make_mut(&mut self.projection).limit_rows(bytes);
        }
        Ok(())
    }

    pub(super) fn may_fold(&self) -> bool {
        self.halted.is_none()
            && self.cache.dirty() < DIRTY_ROWS_MAX
            && self.cache.dirty_bytes() < DIRTY_BYTES_MAX
    }

    /// Begins to write what is dirty, if it is time.
    pub(super) fn flush_if_due(&mut self) {
        if self.flight.is_some() {
            return;
        }
        if self.cache.dirty() == 0 && self.parking.is_empty() {
            self.progress.stored(self.progress.now());
            return;
        }
        let age_max = match self.lag() > FAR_FROM_HEAD {
            true => DIRTY_AGE_MAX_FAR,
            false => DIRTY_AGE_MAX,
        };
        let old = || {
            self.dirty_since
                .is_some_and(|since| since.elapsed() >= age_max)
        };
        // What is parked isn't held in memory for long: it is few, or it is many and large.
        if self.is_near_head() || !self.parking.is_empty() || !self.may_fold() || old() {
            self.flush();
        }
    }

    /// Begins to write everything that is dirty. Nothing may be in flight.
    fn flush(&mut self) {
        self.dirty_since = None;
        self.flight_next = self.cache.take_dirty().into();
        self.flight_moment = self.progress.now();
        self.write_next();
    }

    /// Begins to write the next rows of a flush.
    fn write_next(&mut self) {
        let count = self.flight_next.len().min(WRITE_BATCH);
        let mut rows = Vec::with_capacity(count);
        for place in self.flight_next.drain(..count) {
            let Some(cached) = self.cache.begin_write(place) else {
                continue;
            };
            let partition = partition(&cached.token, PROJECTION_PARTITIONS);
            if let Some(tally) = self.progress.tally(partition) {
                tally.puts += 1;
            }
            rows.push((place, write_of(&self.space, &self.sources, cached)));
        }
        let mut parked = std::mem::take(&mut self.parking);
        if planted(Bug::ParkedUnstored) {
            parked.clear();
        }
        self.meters.puts.inc_by(rows.len() as u64);
        self.meters.parked.inc_by(parked.len() as u64);
        self.flight = Some(begin(
            self.store.rows.clone(),
            self.store.publisher.clone(),
            Flush { rows, parked },
        ));
    }

    pub(super) fn flushed(
        &mut self,
        flushed: Result<Flushed, Unstored>,
    ) -> Result<(), SessionError> {
        let Flushed { rows, parked } = match flushed {
            Ok(flushed) => flushed,
            Err(Unstored::Row(place, source)) => {
                let row = self.cache.at(place);
                let key = row.map_or_else(String::new, |cached| cached.token.to_string());
                if planted(Bug::OutageParks) && source.may_pass() {
                    self.park_unavailable(&key);
                }
                return Err(SessionError::Row { key, source });
            }
            Err(Unstored::Parked(event, source)) => {
                let token = event.token.into();
                return Err(SessionError::Park { token, source });
            }
        };
        for (place, revision) in rows {
            self.cache.written(place, revision);
        }
        for (event, kept_at) in parked {
            self.parked
                .kept(&event.token, event.source, event.position, kept_at);
        }
        if self.flight_next.is_empty() {
            self.progress.stored(self.flight_moment.clone());
        } else {
            self.write_next();
        }
        Ok(())
    }

    /// A planted bug: parks a row that nobody took.
    fn park_unavailable(&self, token: &str) {
        let subject = ParkedSubject::Row {
            partition: partition(token, PROJECTION_PARTITIONS),
            token: token.to_owned(),
        };
        let subject = subject.to_subject(self.store.resource(), self.store.nats.root());
        let publisher = self.store.publisher.clone();
        tokio::spawn(async move {
            let _ = publisher.publish(Publish::new(subject, "")).await.await;
        });
    }

    /// Stores everything that is folded.
    pub(super) async fn settle(&mut self) -> Result<(), SessionError> {
        loop {
            if self.flight.is_some() {
                let flushed = finished(&mut self.flight).await?;
                self.flushed(flushed)?;
            } else if self.cache.dirty() > 0 || !self.parking.is_empty() {
                self.flush();
            } else {
                self.progress.stored(self.progress.now());
                return Ok(());
            }
        }
    }
}

fn write_of(space: &KeySpace, sources: &Sources, cached: &Cached) -> KvWrite {
    let Cached {
        token,
        row,
        revision,
        ..
    } = cached;
    let mut headers = HeaderMap::new();
    headers.insert(headers::POSITION, sources.write(row.positions()));
    headers.insert(headers::REVISION, space.revision.as_str());
    KvWrite {
        key: space.row_key(token),
        value: row.exists().then(|| row.value().into()),
        headers,
        guard: match planted(Bug::RowsUnguarded) {
            true => Guard::None,
            false => Guard::Revision(*revision),
        },
    }
}
