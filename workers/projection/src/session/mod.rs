//! One run over the sources of one key space: from its checkpoints until something is asked or goes wrong.
//!
//! A session holds rows in memory and writes them behind, guarded by the revision last seen. Whatever is unclear (a conflict, an unknown
//! write, a reconnect, a lost reader) ends it; the next one begins at the checkpoints. Since rows carry their positions, folding again
//! what was folded already changes nothing, so nothing has to be undone.

pub(crate) mod cache;
mod checkpointing;
pub(crate) mod flush;
mod folding;
pub(crate) mod history;
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
use crate::worker::Options;
use cache::{Cache, Place};
use flush::{Flushed, ParkedEvent, Unstored};
use intake::{Batch, Batches, Incoming, Preparation};
use lead::Lead;
use progress::{Moment, Partitions, Progress};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::definition::{ProjectionDefinition, ProjectionPolicy};
use tidemill_core::projection::parked::{ParkedKeys, StopReason};
use tidemill_core::projection::{Checkpoint, KeySpace, Position, Positions, Projection, Sources};
use tidemill_nats::{ApiError, ConnectionStatus, Publish};
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
    pub(crate) options: Options,
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

    /// Stores everything that is folded and says so in the checkpoints.
    async fn finish(&mut self) -> Result<(), SessionError> {
        self.intake.clear();
        self.settle().await?;
        self.checkpoint_now().await?;
        self.observe();
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
