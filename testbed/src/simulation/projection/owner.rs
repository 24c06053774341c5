//! One worker: what it holds, and what it does with the next event.

use super::World;
use super::disk::{Conflict, Decided, ParkedMessage};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tidemill_core::definition::ProjectionPolicy;
use tidemill_core::envelope::Event;
use tidemill_core::names::PROJECTION_PARTITIONS;
use tidemill_core::parked::{Failure, Kept};
use tidemill_core::projection::parked::{
    Admission, Consequence, Entry, ParkedKeys, Waiting, admit, consequence,
};
use tidemill_core::projection::{
    Checkpoint, FoldError, Folded, Position, Row, SourceCheckpoint, Tally, Touch, event_partition,
};

/// A worker, with or without a session.
pub(super) struct Owner {
    index: usize,
    pub(super) stalled_until: u64,
    session: Option<Box<Session>>,
}

/// Why a session ends; whatever it held is lost.
pub(super) enum Ended {
    Crashed,
    Conflict,
    AckLost,
}

impl From<Conflict> for Ended {
    fn from(_: Conflict) -> Ended {
        Ended::Conflict
    }
}

/// What a session has yet to read before it folds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Checkpoints,
    Decisions,
    Parked,
    Running,
}

/// A row in memory.
pub(super) struct Cached {
    pub(super) row: Row,
    pub(super) revision: u64,
    pub(super) dirty: bool,
}

/// What has been folded at one moment.
#[derive(Clone, Default)]
pub(super) struct Moment {
    pub(super) sources: Vec<SourceCheckpoint>,
    pub(super) tallies: BTreeMap<u16, Tally>,
}

/// A copy of an event for the parked stream.
#[derive(Clone)]
pub(super) struct Parking {
    pub(super) source: usize,
    pub(super) position: Position,
    pub(super) message: ParkedMessage,
}

/// Something of a flush that isn't stored yet.
pub(super) enum Write {
    Row {
        token: String,
        value: Option<String>,
        positions: String,
    },
    Park(Parking),
}

pub(super) struct Session {
    pub(super) stage: Stage,
    pub(super) owned: BTreeSet<u16>,
    pub(super) begun: BTreeMap<u16, Checkpoint>,
    /// Revision and checkpoint as they are stored.
    pub(super) written: BTreeMap<u16, (u64, Checkpoint)>,
    /// Sequence to be read next, per source.
    pub(super) next: Vec<u64>,
    pub(super) cache: BTreeMap<String, Cached>,
    pub(super) parked: ParkedKeys,
    pub(super) decisions: BTreeSet<Decided>,
    pub(super) parking: Vec<Parking>,
    pub(super) flight: VecDeque<Write>,
    /// What is stored when the flight is over.
    pub(super) flight_moment: Option<Moment>,
    pub(super) now: Moment,
    pub(super) stored: Moment,
    pub(super) checkpointing: VecDeque<(u16, u64, Checkpoint)>,
}

impl Owner {
    pub(super) fn new(index: usize) -> Owner {
        Owner {
            index,
            stalled_until: 0,
            session: None,
        }
    }

    pub(super) fn turn(&mut self, world: &mut World) {
        if world.now < self.stalled_until {
            return;
        }
        if world.chance(world.plan.faults.stall) {
            self.stalled_until = world.now + 20 + world.random.below(400);
            world.count("stalls");
            return;
        }
        let mut session = match self.session.take() {
            Some(session) => session,
            None => Box::new(Session::new(world, self.index)),
        };
        match session.step(world) {
            Ok(()) => self.session = Some(session),
            Err(ended) => world.count(ended.name()),
        }
    }

    /// Stores what it holds, if it is still its own, and ends.
    pub(super) fn end(&mut self, world: &mut World) {
        if let Some(mut session) = self.session.take()
            && session.stage == Stage::Running
            && let Err(ended) = session.finish(world)
        {
            world.count(ended.name());
        }
    }

    /// Whether it has nothing left to do.
    pub(super) fn is_done(&self, world: &World) -> bool {
        let session = self.session.as_deref();
        session.is_some_and(|session| session.is_done(world))
    }
}

impl Ended {
    fn name(&self) -> &'static str {
        match self {
            Ended::Crashed => "crashes",
            Ended::Conflict => "conflicts",
            Ended::AckLost => "acknowledgements lost",
        }
    }
}

impl Session {
    fn new(world: &mut World, index: usize) -> Session {
        let all = world.random.percent(30);
        let mut owned = BTreeSet::new();
        for partition in 0..PROJECTION_PARTITIONS {
            // In trouble owners overlap, and leave out what they like.
            let shares = usize::from(partition) % world.plan.owners == index;
            if (world.faulty && (all || world.random.percent(60))) || (!world.faulty && shares) {
                owned.insert(partition);
            }
        }
        Session {
            stage: Stage::Checkpoints,
            owned,
            begun: BTreeMap::new(),
            written: BTreeMap::new(),
            next: Vec::new(),
            cache: BTreeMap::new(),
            parked: ParkedKeys::new(),
            decisions: BTreeSet::new(),
            parking: Vec::new(),
            flight: VecDeque::new(),
            flight_moment: None,
            now: Moment::default(),
            stored: Moment::default(),
            checkpointing: VecDeque::new(),
        }
    }

    fn step(&mut self, world: &mut World) -> Result<(), Ended> {
        if world.chance(world.plan.faults.crash) {
            return Err(Ended::Crashed);
        }
        if self.stage != Stage::Running {
            self.load(world);
            return Ok(());
        }
        if world.chance(world.plan.faults.person) || (!world.faulty && self.has_read_all(world)) {
            self.asked(world)?;
        }
        match world.random.below(100) {
            0..50 => self.read(world),
            50..85 => self.write(world)?,
            85..95 => self.checkpoint(world)?,
            _ => self.forget(world),
        }
        Ok(())
    }

    fn has_read_all(&self, world: &World) -> bool {
        let ends = world.streams.iter().map(|stream| stream.len() as u64 + 1);
        self.next.iter().copied().eq(ends)
    }

    fn is_done(&self, world: &World) -> bool {
        self.stage == Stage::Running
            && self.has_read_all(world)
            && self.is_stored()
            && self.parked.keys() == 0
            && self.checkpointing.is_empty()
            && self.to_write().is_empty()
    }

    /// Clean rows leave the memory now and then.
    fn forget(&mut self, world: &mut World) {
        let writing: BTreeSet<&String> = self
            .flight
            .iter()
            .filter_map(|write| match write {
                Write::Row { token, .. } => Some(token),
                Write::Park(_) => None,
            })
            .collect();
        let random = &mut world.random;
        self.cache
            .retain(|token, cached| cached.dirty || writing.contains(token) || random.percent(50));
    }

    fn is_due(&self, partition: u16, source: usize, position: Position) -> bool {
        self.begun
            .get(&partition)
            .is_some_and(|begun| position > begun.source(source).position)
    }

    /// Folds the next event of any source.
    fn read(&mut self, world: &mut World) {
        let source = world.below(world.plan.sources);
        let Some(next) = self.next.get_mut(source) else {
            return;
        };
        let sequence = *next;
        let index = usize::try_from(sequence - 1).unwrap_or(usize::MAX);
        let stream = world.streams.get(source);
        let Some(given) = stream.and_then(|stream| stream.get(index)) else {
            return;
        };
        let event = given.event.clone();
        *next += 1;
        let position = Position {
            generation: 0,
            sequence,
        };
        let touches = world.projection.touches(source, &event);
        for touch in &touches {
            if self.is_due(touch.partition, source, position) {
                self.take(world, source, position, &event, touch);
            }
        }
        let counted_in = event_partition(Some(&event));
        if self.is_due(counted_in, source, position) {
            let tally = self.now.tallies.entry(counted_in).or_default();
            tally.seen += 1;
            match touches.is_empty() {
                true => tally.skipped += 1,
                false => tally.matched += 1,
            }
        }
        if let Some(slot) = self.now.sources.get_mut(source) {
            *slot = SourceCheckpoint {
                position,
                stored_at: Some(event.stored_at),
            };
        }
    }

    fn take(
        &mut self,
        world: &mut World,
        source: usize,
        position: Position,
        event: &Event,
        touch: &Touch,
    ) {
        let token = touch.token.to_string();
        let decided = self.decisions.contains(&(source, position, token.clone()));
        let at = match touch.is_keyless() {
            true => Position::default(),
            false => self.cached(world, &token).row.positions().get(source),
        };
        let error = match admit(&self.parked, &token, source, position, at, decided) {
            Admission::Passed => return world.count("passed"),
            Admission::Waits => return world.count("waits already"),
            Admission::LeftOut => return world.count("left out"),
            Admission::Follows => None,
            Admission::Fold => match self.fold(world, source, position, event, touch) {
                Ok(_) => return,
                Err(error) => Some(error),
            },
        };
        if error.is_some() {
            match consequence(&ProjectionPolicy::default(), &self.parked, &token) {
                Consequence::Park => {}
                Consequence::LeaveOut => return world.count("lost"),
                Consequence::Stop(reason) => return world.problems.push(reason.to_string()),
            }
        }
        world.count(if error.is_some() { "parked" } else { "follow" });
        let Some(of) = world.sources.get(source) else {
            return;
        };
        let entry = Entry {
            key_space: world.space.clone(),
            source,
            position,
            failure: error.as_ref().map(Failure::from),
            stored_at: event.stored_at,
            kept: Kept::InSource,
        };
        let waiting = Waiting {
            kept_at: 0,
            source,
            position,
            reason: error.map(|error| error.reason().into()),
        };
        self.parked.add(&token, waiting);
        self.parking.push(Parking {
            source,
            position,
            message: ParkedMessage {
                partition: touch.partition,
                token,
                headers: entry.to_parked(of).write().0,
            },
        });
    }

    pub(super) fn fold(
        &mut self,
        world: &mut World,
        source: usize,
        position: Position,
        event: &Event,
        touch: &Touch,
    ) -> Result<Folded, FoldError> {
        if let Some(error) = touch.error() {
            return Err(error.clone());
        }
        self.cached(world, &touch.token);
        let Some(cached) = self.cache.get_mut(&*touch.token) else {
            return Ok(Folded::Nothing);
        };
        let folded = world
            .projection
            .fold(&mut cached.row, touch, source, position, event)?;
        if folded == Folded::Stored {
            cached.dirty = true;
            self.now.tallies.entry(touch.partition).or_default().folded += 1;
        }
        Ok(folded)
    }

    /// A row in memory, read if it isn't there.
    fn cached(&mut self, world: &mut World, token: &str) -> &Cached {
        self.cache
            .entry(token.to_owned())
            .or_insert_with(|| world.read_row(token))
    }
}
