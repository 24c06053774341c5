//! Folding what was read into rows, and parking what can't be folded.

use super::cache::{Cached, Place};
use super::flush::ParkedEvent;
use super::intake::{self, Batch, Incoming};
use super::{Halted, Session};
use crate::error::{SessionError, Stopped};
use crate::store::is_left_out;
use tidemill_core::names::{ParkedSubject, headers};
use tidemill_core::parked::{Failure, Kept};
use tidemill_core::projection::parked::{
    Admission, Consequence, Entry, Waiting, admit, consequence, follow,
};
use tidemill_core::projection::{
    FoldError, Folded, Position, Row, SourceCheckpoint, Sources, Tally, Touch, event_partition,
};
use tidemill_nats::{KvEntry, Publish, header_map};
use tokio::time::Instant;

/// Most events left out that are named in the log, per session.
const LEFT_OUT_SAID_MAX: u32 = 100;

impl Session {
    /// Folds a batch of one source.
    pub(super) async fn take(&mut self, source: usize, batch: Batch) -> Result<(), SessionError> {
        if let Some(pending) = self.pending.get_mut(source) {
            *pending = batch.pending;
        }
        self.fold_all(batch.events).await
    }

    pub(super) async fn fold_all(
        &mut self,
        events: impl IntoIterator<Item = Incoming>,
    ) -> Result<(), SessionError> {
        let events: Vec<Incoming> = events.into_iter().collect();
        let touched = events
            .iter()
            .flat_map(|event| event.touches.iter().map(move |touch| (event, touch)));
        let due = touched.filter(|(event, touch)| {
            self.progress
                .is_due(touch.partition, event.source, event.position)
        });
        let cold: Vec<Box<str>> = due
            .filter(|(_, touch)| !touch.is_keyless() && self.cache.is_cold(&touch.token))
            .map(|(_, touch)| touch.token.clone())
            .collect();
        self.warm(cold).await?;
        self.meters.events.inc_by(events.len() as u64);
        for event in events {
            if self.halted.is_some() {
                self.held.push_back(event);
                continue;
            }
            if let Err(halted) = self.fold(&event) {
                tracing::error!(
                    stream = self.stream_of(&event),
                    position = %halted.position,
                    event_id = event.id(),
                    correlation_id = event.correlation_id(),
                    key = %halted.token,
                    reason = halted.reason.reason(),
                    error = halted.message,
                    "the projection stops before an event"
                );
                self.halted = Some(halted);
                self.held.push_back(event);
            }
        }
        if self.cache.dirty() > 0 && self.dirty_since.is_none() {
            self.dirty_since = Some(Instant::now());
        }
        self.cache.sweep();
        Ok(())
    }

    /// Reads rows that aren't in memory.
    pub(super) async fn warm(&mut self, mut tokens: Vec<Box<str>>) -> Result<(), SessionError> {
        if tokens.is_empty() {
            return Ok(());
        }
        tokens.sort_unstable();
        tokens.dedup();
        let keys: Vec<String> = tokens
            .iter()
            .map(|token| self.space.row_key(token))
            .collect();
        let entries = self.store.rows.get_many(&keys).await?;
        for (token, entry) in tokens.iter().zip(entries) {
            let (row, revision) = match entry {
                None => (Row::missing(), 0),
                Some(entry) => (read_row(&self.sources, &entry)?, entry.revision),
            };
            self.cache.insert(token, row, revision);
        }
        Ok(())
    }

    /// Folds one event into all rows it touches that are this session's.
    pub(super) fn fold(&mut self, event: &Incoming) -> Result<(), Halted> {
        let (source, position) = (event.source, event.position);
        if let Some(read_to) = self.read_to.get_mut(source) {
            // Once, also where folding stops before the event and is tried again.
            let after = std::mem::replace(read_to, position.sequence);
            if position.sequence > after + 1 {
                self.progress.gone_between(source, after, position.sequence);
            }
        }
        for touch in &event.touches {
            if self.progress.is_due(touch.partition, source, position) {
                self.fold_touch(event, touch)?;
            }
        }
        let counted_in = event_partition(event.event.as_ref().ok());
        if self.progress.is_due(counted_in, source, position)
            && let Some(tally) = self.progress.tally(counted_in)
        {
            tally.seen += 1;
            match event.touches.is_empty() {
                true => tally.skipped += 1,
                false => tally.matched += 1,
            }
        }
        self.progress.folded(
            source,
            SourceCheckpoint {
                position,
                stored_at: Some(event.message.stored_at),
            },
        );
        Ok(())
    }

    fn fold_touch(&mut self, event: &Incoming, touch: &Touch) -> Result<(), Halted> {
        let (source, position, token) = (event.source, event.position, &*touch.token);
        let decided = is_left_out(&self.decisions, source, position, token);
        let place = (!touch.is_keyless()).then(|| self.cache.locate(token));
        let row = place.and_then(|place| self.cache.at(place));
        let row = row.map_or_else(Position::default, |cached| {
            cached.row.positions().get(source)
        });
        let halted = |reason, message| Halted {
            reason,
            token: token.into(),
            source,
            position,
            message,
        };
        let error = match admit(&self.parked, token, source, position, row, decided) {
            Admission::Passed | Admission::Waits => return Ok(()),
            Admission::LeftOut => {
                self.count(touch.partition, |tally| tally.left_out += 1);
                return Ok(());
            }
            Admission::Follows => {
                if let Consequence::Stop(reason) = follow(&self.parked) {
                    let message = "its key waits for an event that can't be folded".to_owned();
                    return Err(halted(reason, message));
                }
                self.park(event, touch, None);
                return Ok(());
            }
            Admission::Fold => match self.fold_into_row(event, touch, place) {
                Ok(_) => return Ok(()),
                Err(error) => error,
            },
        };
        match consequence(&self.policy, &self.parked, token) {
            Consequence::LeaveOut => {
                self.left_out_said += 1;
                // Whoever chose `Skip` may have many; they are counted, and the first tell why.
                if self.left_out_said <= LEFT_OUT_SAID_MAX {
                    self.warn(event, token, &error, "it is left out");
                }
                self.count(touch.partition, |tally| tally.left_out += 1);
                Ok(())
            }
            Consequence::Park => {
                // Once for each key: what follows is the same trouble.
                if self.parked.waiting(token).is_empty() {
                    self.warn(event, token, &error, "its key is parked");
                }
                self.park(event, touch, Some(&error));
                Ok(())
            }
            Consequence::Stop(reason) => Err(halted(reason, error.to_string())),
        }
    }

    /// Says that an event can't be folded into the row of `token`, and what is done about it.
    fn warn(&self, event: &Incoming, token: &str, error: &FoldError, done: &str) {
        tracing::warn!(
            stream = self.stream_of(event),
            position = %event.position,
            event_id = event.id(),
            correlation_id = event.correlation_id(),
            key = token,
            reason = error.reason(),
            %error,
            "an event can't be folded: {done}"
        );
    }

    /// The EventStream that an event came from, for logs.
    pub(super) fn stream_of(&self, event: &Incoming) -> Option<String> {
        let source = self.sources.get(event.source)?;
        Some(source.stream.to_string())
    }

    /// `place`: of the row; `None` for what has no key.
    pub(super) fn fold_into_row(
        &mut self,
        event: &Incoming,
        touch: &Touch,
        place: Option<Place>,
    ) -> Result<Folded, FoldError> {
        if let Some(error) = touch.error() {
            return Err(error.clone());
        }
        let decoded = event
            .event
            .as_ref()
            .map_err(|error| FoldError::Decode(error.clone()))?;
        let place = place.unwrap_or_else(|| self.cache.locate(&touch.token));
        let Some(Cached { row, .. }) = self.cache.at_mut(place) else {
            return Ok(Folded::Nothing);
        };
        let folded = self
            .projection
            .fold(row, touch, event.source, event.position, decoded)?;
        if folded == Folded::Stored {
            self.cache.changed(place);
            self.count(touch.partition, |tally| tally.folded += 1);
        }
        Ok(folded)
    }

    pub(super) fn count(&mut self, partition: u16, count: impl FnOnce(&mut Tally)) {
        if let Some(tally) = self.progress.tally(partition) {
            count(tally);
        }
    }

    /// Copies an event to the parked stream with the next flush.
    pub(super) fn park(&mut self, event: &Incoming, touch: &Touch, error: Option<&FoldError>) {
        let message = &event.message;
        let headers = intake::borrowed_headers(message.headers.as_ref());
        let Some(source) = self.sources.get(event.source) else {
            // What is read comes from these sources.
            return;
        };
        let kept = Kept::copy(
            &message.subject,
            &headers,
            &message.payload,
            self.store.nats.max_payload(),
        );
        let entry = Entry {
            key_space: self.space.clone(),
            source: event.source,
            position: event.position,
            failure: error.map(Failure::from),
            stored_at: message.stored_at,
            kept,
        };
        let (headers, payload) = entry.to_parked(source).write();
        let subject = ParkedSubject::Row {
            partition: touch.partition,
            token: touch.token.to_string(),
        };
        let subject = subject.to_subject(self.store.resource(), self.store.nats.root());
        let publish = Publish {
            headers: header_map(headers),
            ..Publish::new(subject, payload)
        };
        let waiting = Waiting {
            // Known when the flush is done; nothing needs it before.
            kept_at: 0,
            source: event.source,
            position: event.position,
            reason: error.map(|error| error.reason().into()),
        };
        self.parked.add(&touch.token, waiting);
        let parked = ParkedEvent {
            token: touch.token.clone(),
            source: event.source,
            position: event.position,
        };
        self.parking.push((parked, publish));
    }
}

/// A row as it is stored, a tombstone too.
pub(super) fn read_row(sources: &Sources, entry: &KvEntry) -> Result<Row, SessionError> {
    let positions = entry
        .headers
        .as_ref()
        .and_then(|headers| headers.get(headers::POSITION))
        .map_or("", |value| value.as_str());
    let row = match entry.deleted {
        true => Row::read_deleted(sources, positions),
        false => Row::read(sources, &entry.value, positions),
    };
    row.map_err(|source| {
        Stopped::ForeignRow {
            key: entry.key.clone(),
            source,
        }
        .into()
    })
}
