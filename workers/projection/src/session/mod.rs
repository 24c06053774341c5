//! One run over the sources of one key space: from its checkpoints until something is asked or goes wrong.
//!
//! A session holds rows in memory and writes them behind, guarded by the revision last seen. Whatever is unclear (a conflict, an unknown
//! write, a reconnect, a lost reader) ends it; the next one begins at the checkpoints. Since rows carry their positions, folding again
//! what was folded already changes nothing, so nothing has to be undone.

pub(crate) mod cache;
pub(crate) mod flush;
mod history;
pub(crate) mod intake;
mod lead;
mod load;
mod named;
pub(crate) mod progress;
mod redrive;

use crate::error::{SessionError, Stopped};
use crate::meters::Meters;
use crate::observed::StreamEnd;
use crate::observed::{Observed, Observer};
use crate::store::{Decisions, Store};
use cache::{Cache, Cached, Place};
use flush::{Flushed, ParkedEvent, Unstored};
use intake::{Batch, Batches, Incoming, Preparation};
use lead::Lead;
use progress::{Moment, Partitions, Progress};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::definition::{ProjectionDefinition, ProjectionPolicy};
use tidemill_core::names::{ParkedSubject, headers};
use tidemill_core::parked::{Failure, Kept};
use tidemill_core::projection::parked::{
    Admission, Consequence, Entry, ParkedKeys, StopReason, Waiting, admit, consequence,
};
use tidemill_core::projection::{
    Checkpoint, FoldError, Folded, KeySpace, Position, Positions, Projection, Row,
    SourceCheckpoint, Sources, Touch, event_partition,
};
use tidemill_nats::kv::{Guard, KvWrite};
use tidemill_nats::{ApiError, ConnectionStatus, KvEntry, Publish, header_map};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub(crate) use lead::Live;
pub(crate) use redrive::{Ask, Command, Want};

/// With fewer messages behind, the end is near: every batch is written at once. Some 20 ms of folding.
const NEAR_HEAD: u64 = 2_000;
/// Checkpoints are written at most once in this time.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
/// A checkpoint of a partition without any event of its own is written when it is so many events behind: reading them again takes a second.
const CHECKPOINT_BEHIND_MAX: u64 = 50_000;
/// Most events left out that are named in the log, per session.
const LEFT_OUT_SAID_MAX: u32 = 100;
/// How often it is said how far a session is.
const OBSERVE_INTERVAL: Duration = Duration::from_millis(200);
/// How often streams are asked how much waits, while nothing is folded.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often ages and intervals are looked at.
const TICK: Duration = Duration::from_millis(100);

/// What a session is to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) space: KeySpace,
    pub(crate) definition: ProjectionDefinition,
    pub(crate) policy: ProjectionPolicy,
    pub(crate) owned: Partitions,
    pub(crate) live: Live,
    /// Most bytes of rows in memory.
    pub(crate) cache_bytes_max: usize,
}

/// Why a session ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was asked to end, and everything folded is stored.
    Asked,
    /// Readers were led to its rows.
    Switched,
}

/// See the module.
pub(crate) struct Session {
    store: Store,
    space: KeySpace,
    policy: ProjectionPolicy,
    projection: Arc<Projection>,
    sources: Sources,
    preparations: Vec<Preparation>,
    intake: Vec<Batches>,
    _readers: Vec<AbortOnDropHandle<()>>,
    /// Messages behind the last one read, per source.
    pending: Vec<u64>,
    /// Sequence up to which each source was read and folded.
    read_to: Vec<u64>,
    cache: Cache,
    progress: Progress,
    parked: ParkedKeys,
    decisions: Decisions,
    /// Events to be copied to the parked stream with the next flush.
    parking: Vec<(ParkedEvent, Publish)>,
    /// What is being written.
    flight: Option<AbortOnDropHandle<Result<Flushed, Unstored>>>,
    /// Rows to be written after it; empty if nothing is being written.
    flight_next: VecDeque<Place>,
    /// What is stored when all of them are.
    flight_moment: Moment,
    checkpointing: Option<AbortOnDropHandle<Result<Written, SessionError>>>,
    checkpointed_at: Instant,
    observed_at: Instant,
    dirty_since: Option<Instant>,
    halted: Option<Halted>,
    /// Read, but not folded because the session is halted.
    held: VecDeque<Incoming>,
    lead: Lead,
    /// Where the streams ended when that was last looked at, which is while it is halted.
    ends: Vec<StreamEnd>,
    looking: Option<AbortOnDropHandle<Result<Vec<StreamEnd>, ApiError>>>,
    looked_at: Instant,
    left_out_said: u32,
    observer: Observer,
    meters: Meters,
    next_source: usize,
}

/// Checkpoints that were written: partition, revision, what was written.
type Written = Vec<(u16, u64, Checkpoint)>;

/// Nothing is folded until a person does something about this event.
struct Halted {
    reason: StopReason,
    token: Box<str>,
    source: usize,
    position: Position,
    message: String,
}

/// Runs a session until `stop`, then stores everything. Dropping the future forgets what is in memory.
pub(crate) async fn run(
    store: Store,
    plan: Plan,
    stop: CancellationToken,
    mut commands: mpsc::Receiver<Command>,
    observer: Observer,
    meters: Meters,
) -> Result<End, SessionError> {
    let mut status = store.nats.status();
    // Before anything is read: a reconnect from here on may have set anything back.
    let reconnects = status
        .wait_for(|status| status.connected)
        .await
        .map_or(0, |status| status.reconnects);
    let mut session = load::load(store, plan, observer, meters).await?;
    session.begin().await?;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        session.flush_if_due();
        let may_fold = session.may_fold();
        tokio::select! {
            biased;
            () = reconnected(&mut status, reconnects) => return Err(SessionError::Reconnected),
            () = stop.cancelled() => {
                session.finish().await?;
                return Ok(End::Asked);
            }
            flushed = finished(&mut session.flight) => session.flushed(flushed?)?,
            written = finished(&mut session.checkpointing) => session.wrote(written?)?,
            Some(command) = commands.recv() => session.obey(command).await?,
            _ = tick.tick() => {
                if session.tick().await? {
                    return Ok(End::Switched);
                }
            }
            batch = next_batch(&mut session.intake, &mut session.next_source), if may_fold => {
                let (source, batch) = batch;
                session.take(source, batch.ok_or(SessionError::Task("a reader"))??).await?;
            }
        }
    }
}

/// Ends when the connection isn't the one any more that had seen so many reconnects.
async fn reconnected(status: &mut watch::Receiver<ConnectionStatus>, reconnects: u64) {
    // An error: the connection is closed for good.
    let _ = status
        .wait_for(|status| status.reconnects != reconnects)
        .await;
}

/// The result of a task in flight; waits for ever where there is none.
async fn finished<T>(task: &mut Option<AbortOnDropHandle<T>>) -> Result<T, SessionError> {
    let Some(running) = task else {
        return std::future::pending().await;
    };
    let result = running.await;
    *task = None;
    result.map_err(|_| SessionError::Task("a write"))
}

/// The next batch of any source, in turn.
async fn next_batch(
    intake: &mut [Batches],
    next: &mut usize,
) -> (usize, Option<Result<Batch, tidemill_nats::ReadError>>) {
    std::future::poll_fn(|context| {
        let count = intake.len();
        for offset in 0..count {
            let source = (*next + offset) % count;
            if let Some(batches) = intake.get_mut(source)
                && let std::task::Poll::Ready(batch) = batches.poll_recv(context)
            {
                *next = source + 1;
                return std::task::Poll::Ready((source, batch));
            }
        }
        std::task::Poll::Pending
    })
    .await
}

impl Session {
    /// Messages not yet read, over all sources.
    fn lag(&self) -> u64 {
        self.pending.iter().sum()
    }

    /// Events not folded yet, per source.
    fn unfolded(&self) -> Vec<u64> {
        let Some(halted) = &self.halted else {
            return self.pending.clone();
        };
        let sources = self.pending.iter().zip(&self.read_to).enumerate();
        sources
            .map(|(source, (pending, read_to))| {
                // It was read, but not folded.
                let folded = read_to.saturating_sub(u64::from(source == halted.source));
                match self.ends.get(source) {
                    Some(end) => end.waiting_after(folded),
                    // Not looked yet: what was read last told so many.
                    None => {
                        let held = self.held.iter().filter(|event| event.source == source);
                        *pending + held.count() as u64
                    }
                }
            })
            .collect()
    }

    fn is_near_head(&self) -> bool {
        self.lag() < NEAR_HEAD
    }

    /// Folds a batch of one source.
    async fn take(&mut self, source: usize, batch: Batch) -> Result<(), SessionError> {
        if let Some(pending) = self.pending.get_mut(source) {
            *pending = batch.pending;
        }
        self.fold_all(batch.events).await
    }

    async fn fold_all(
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
    async fn warm(&mut self, mut tokens: Vec<Box<str>>) -> Result<(), SessionError> {
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
    fn fold(&mut self, event: &Incoming) -> Result<(), Halted> {
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
        let decided = !self.decisions.is_empty()
            && self
                .decisions
                .contains(&(source, position, touch.token.clone()));
        let place = (!touch.is_keyless()).then(|| self.cache.locate(token));
        let row = place.and_then(|place| self.cache.at(place));
        let row = row.map_or_else(Position::default, |cached| {
            cached.row.positions().get(source)
        });
        let error = match admit(&self.parked, token, source, position, row, decided) {
            Admission::Passed | Admission::Waits => return Ok(()),
            Admission::LeftOut => {
                self.count(touch.partition, |tally| tally.left_out += 1);
                return Ok(());
            }
            Admission::Follows => {
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
                    tracing::warn!(
                        stream = self.stream_of(event),
                        %position,
                        event_id = event.id(),
                        correlation_id = event.correlation_id(),
                        key = token,
                        reason = error.reason(),
                        %error,
                        "an event can't be folded and is left out"
                    );
                }
                self.count(touch.partition, |tally| tally.left_out += 1);
                Ok(())
            }
            Consequence::Park => {
                // Once for each key: what follows is the same trouble.
                if self.parked.waiting(token).is_empty() {
                    tracing::warn!(
                        stream = self.stream_of(event),
                        %position,
                        event_id = event.id(),
                        correlation_id = event.correlation_id(),
                        key = token,
                        reason = error.reason(),
                        %error,
                        "an event can't be folded: its key is parked"
                    );
                }
                self.park(event, touch, Some(&error));
                Ok(())
            }
            Consequence::Stop(reason) => Err(Halted {
                reason,
                token: token.into(),
                source,
                position,
                message: error.to_string(),
            }),
        }
    }

    /// The EventStream that an event came from, for logs.
    fn stream_of(&self, event: &Incoming) -> Option<String> {
        let source = self.sources.get(event.source)?;
        Some(source.stream.to_string())
    }

    /// `place`: of the row; `None` for what has no key.
    fn fold_into_row(
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

    fn count(&mut self, partition: u16, count: impl FnOnce(&mut tidemill_core::projection::Tally)) {
        if let Some(tally) = self.progress.tally(partition) {
            count(tally);
        }
    }

    /// Copies an event to the parked stream with the next flush.
    fn park(&mut self, event: &Incoming, touch: &Touch, error: Option<&FoldError>) {
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

    /// Stores everything that is folded and says so in the checkpoints.
    async fn finish(&mut self) -> Result<(), SessionError> {
        self.intake.clear();
        self.settle().await?;
        self.checkpoint_now().await?;
        self.observe();
        Ok(())
    }

    /// Writes every checkpoint that has moved, and waits for it.
    async fn checkpoint_now(&mut self) -> Result<(), SessionError> {
        if self.checkpointing.is_some() {
            let written = finished(&mut self.checkpointing).await?;
            self.wrote(written)?;
        }
        self.begin_checkpoint(true);
        if self.checkpointing.is_some() {
            let written = finished(&mut self.checkpointing).await?;
            self.wrote(written)?;
        }
        Ok(())
    }

    /// Begins to write checkpoints. None may be in flight.
    fn begin_checkpoint(&mut self, all: bool) {
        let due = self.progress.to_write(all, CHECKPOINT_BEHIND_MAX);
        self.checkpointed_at = Instant::now();
        if due.is_empty() {
            return;
        }
        let rows = self.store.rows.clone();
        let writes: Vec<(u16, Checkpoint, KvWrite)> = due
            .into_iter()
            .map(|(partition, revision, checkpoint)| {
                let write = KvWrite {
                    key: self.space.checkpoint_key(partition),
                    value: Some(checkpoint.to_json(&self.sources).into()),
                    guard: Guard::Revision(revision),
                    ..KvWrite::default()
                };
                (partition, checkpoint, write)
            })
            .collect();
        self.checkpointing = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let mut sent = Vec::with_capacity(writes.len());
            for (partition, checkpoint, write) in writes {
                let key = write.key.clone();
                sent.push((partition, checkpoint, key, rows.send(write).await));
            }
            let mut written = Vec::with_capacity(sent.len());
            for (partition, checkpoint, key, ack) in sent {
                let acked = ack
                    .await
                    .map_err(|source| SessionError::Row { key, source })?;
                written.push((partition, acked.sequence, checkpoint));
            }
            Ok(written)
        })));
    }

    fn wrote(&mut self, written: Result<Written, SessionError>) -> Result<(), SessionError> {
        for (partition, revision, checkpoint) in written? {
            self.progress.wrote(partition, revision, checkpoint);
        }
        Ok(())
    }

    /// While nothing is folded nothing is read either: the streams are asked how much waits.
    async fn look_at_ends(&mut self) -> Result<(), SessionError> {
        if self.halted.is_none() {
            (self.ends, self.looking) = (Vec::new(), None);
            return Ok(());
        }
        match &self.looking {
            Some(looking) if looking.is_finished() => {
                // A stream that doesn't answer is asked again.
                if let Ok(ends) = finished(&mut self.looking).await? {
                    self.ends = ends;
                }
            }
            None if self.looked_at.elapsed() >= LOOK_INTERVAL => {
                self.looked_at = Instant::now();
                let nats = self.store.nats.clone();
                let bindings = self.sources.iter().filter_map(|source| {
                    let binding = self.store.contract.binding(&source.stream)?;
                    Some(binding.name.clone())
                });
                let streams: Vec<String> = bindings.collect();
                self.looking = Some(AbortOnDropHandle::new(tokio::spawn(async move {
                    let mut ends = Vec::with_capacity(streams.len());
                    for stream in streams {
                        ends.push(StreamEnd::of(&nats.stream_state(&stream).await?));
                    }
                    Ok(ends)
                })));
            }
            _ => {}
        }
        Ok(())
    }

    /// What is done from time to time; true = readers were led to these rows.
    async fn tick(&mut self) -> Result<bool, SessionError> {
        self.look_at_ends().await?;
        if self.observed_at.elapsed() >= OBSERVE_INTERVAL {
            self.observe();
        }
        if self.checkpointing.is_none() && self.checkpointed_at.elapsed() >= CHECKPOINT_INTERVAL {
            // Whoever leads readers over must see how far all partitions are.
            let all = self.lead.is_building() && self.is_near_head();
            self.begin_checkpoint(all);
            return self.lead_over().await;
        }
        Ok(false)
    }

    /// Says how it is.
    fn observe(&mut self) {
        self.observed_at = Instant::now();
        let stopped = self.halted.as_ref().map(|halted| {
            let resource = self.store.resource();
            let key = named::key_of(&halted.token);
            let mut position = Positions::default();
            position.set(halted.source, halted.position);
            let stopped = Stopped::Fold {
                reason: halted.reason,
                projection: format!("{}/{}", resource.namespace, resource.name),
                key: key.clone(),
                position: self.sources.write(&position),
                message: halted.message.clone(),
            };
            (stopped.to_control(), key)
        });
        // Gauges of two key spaces would overwrite each other: those of the rows that readers don't see yet stay out.
        if !self.lead.is_building() {
            let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            self.meters.lag.set(signed(self.lag()));
            self.meters
                .parked_keys
                .set(signed(self.parked.keys() as u64));
            self.meters
                .cached_bytes
                .set(signed(self.cache.bytes() as u64));
        }
        self.observer.set(Observed::of(
            &self.space,
            &self.sources,
            &self.progress,
            &self.parked,
            &self.unfolded(),
            stopped,
        ));
    }
}

/// A row as it is stored, a tombstone too.
fn read_row(sources: &Sources, entry: &KvEntry) -> Result<Row, SessionError> {
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
