//! Storing rows, copies of parked events and checkpoints, one at a time.

use super::owner::{Ended, Moment, Session, Write};
use super::{Flaw, World};
use std::fmt::Write as _;
use tidemill_core::projection::Checkpoint;

impl Session {
    pub(super) fn is_stored(&self) -> bool {
        self.flight.is_empty()
            && self.flight_moment.is_none()
            && self.parking.is_empty()
            && self.cache.values().all(|cached| !cached.dirty)
    }

    /// Stores the next thing of a flush; begins one if none is under way.
    pub(super) fn write(&mut self, world: &mut World) -> Result<(), Ended> {
        match self.flight.pop_front() {
            None => {
                if let Some(moment) = self.flight_moment.take() {
                    self.stored = moment;
                }
                match self.is_stored() {
                    true => self.stored = self.now.clone(),
                    false => self.begin_flush(world),
                }
                Ok(())
            }
            Some(write) => self.store(world, write),
        }
    }

    fn begin_flush(&mut self, world: &mut World) {
        let mut writes = Vec::new();
        for (token, cached) in &mut self.cache {
            if std::mem::take(&mut cached.dirty) {
                writes.push(Write::Row {
                    token: token.clone(),
                    value: cached.row.exists().then(|| cached.row.value()),
                    positions: world.sources.write(cached.row.positions()),
                });
            }
        }
        if world.plan.flaw != Some(Flaw::ParkedLate) || world.random.percent(10) {
            writes.extend(self.parking.drain(..).map(Write::Park));
        }
        // In any order, but for copies of one key: those are sent one after the other.
        let mut flight: Vec<Write> = Vec::with_capacity(writes.len());
        for write in writes {
            let at = match &write {
                Write::Row { .. } => world.below(flight.len() + 1),
                Write::Park(_) => flight.len(),
            };
            flight.insert(at, write);
        }
        self.flight = flight.into();
        self.flight_moment = Some(self.now.clone());
    }

    fn store(&mut self, world: &mut World, write: Write) -> Result<(), Ended> {
        if world.chance(world.plan.faults.crash) {
            return Err(Ended::Crashed);
        }
        let now = world.now;
        match write {
            Write::Row {
                token,
                value,
                positions,
            } => {
                let Some(cached) = self.cache.get_mut(&token) else {
                    return Ok(());
                };
                let guarded = world.plan.flaw != Some(Flaw::UnguardedRows);
                let expected = guarded.then_some(cached.revision);
                let _ = writeln!(
                    world.trace,
                    "{now} row {token} {expected:?} {value:?} {positions}"
                );
                cached.revision = world.disk.put_row(&token, expected, value, positions)?;
            }
            Write::Park(parking) => {
                let message = parking.message;
                let token = message.token.clone();
                let _ = writeln!(world.trace, "{now} park {token} {:?}", message.headers);
                let kept_at = world.disk.park(message);
                self.parked
                    .kept(&token, parking.source, parking.position, kept_at);
            }
        }
        world.count("writes");
        acknowledged(world)
    }

    /// Stores everything that is folded.
    pub(super) fn settle(&mut self, world: &mut World) -> Result<(), Ended> {
        while !self.is_stored() {
            self.write(world)?;
        }
        self.stored = self.now.clone();
        Ok(())
    }

    /// Stores everything that is folded, and says so.
    pub(super) fn finish(&mut self, world: &mut World) -> Result<(), Ended> {
        self.settle(world)?;
        while !self.checkpointing.is_empty() {
            self.checkpoint(world)?;
        }
        self.checkpointing = self.to_write().into();
        while !self.checkpointing.is_empty() {
            self.checkpoint(world)?;
        }
        Ok(())
    }

    /// Stores the next checkpoint; begins to if none is under way.
    pub(super) fn checkpoint(&mut self, world: &mut World) -> Result<(), Ended> {
        let Some((partition, revision, checkpoint)) = self.checkpointing.pop_front() else {
            if self.flight_moment.is_some() && self.flight.is_empty() {
                self.stored = self.flight_moment.take().unwrap_or_default();
            }
            let ahead = world.plan.flaw == Some(Flaw::CheckpointAhead);
            let stored = self.stored.clone();
            if ahead {
                self.stored = self.now.clone();
            }
            self.checkpointing = self.to_write().into();
            self.stored = stored;
            return Ok(());
        };
        if world.chance(world.plan.faults.crash) {
            return Err(Ended::Crashed);
        }
        let json = checkpoint.to_json(&world.sources);
        let now = world.now;
        let _ = writeln!(
            world.trace,
            "{now} checkpoint {partition} {revision} {json}"
        );
        let revision = world.disk.put_checkpoint(partition, revision, json)?;
        self.written.insert(partition, (revision, checkpoint));
        world.count("checkpoints");
        acknowledged(world)
    }

    /// Checkpoints that have moved, with the revision to guard them with.
    pub(super) fn to_write(&self) -> Vec<(u16, u64, Checkpoint)> {
        let due = self
            .written
            .iter()
            .filter_map(|(partition, (revision, written))| {
                let checkpoint = self.reached(*partition, &self.stored);
                (checkpoint != *written).then_some((*partition, *revision, checkpoint))
            });
        due.collect()
    }

    /// How far a partition is at a moment; it may have been ahead of where reading began.
    fn reached(&self, partition: u16, moment: &Moment) -> Checkpoint {
        let mut checkpoint = self.begun.get(&partition).cloned().unwrap_or_default();
        for (source, reached) in moment.sources.iter().enumerate() {
            if reached.position > checkpoint.source(source).position {
                checkpoint.set_source(source, *reached);
            }
        }
        checkpoint.tally = moment.tallies.get(&partition).copied().unwrap_or_default();
        checkpoint
    }
}

fn acknowledged(world: &mut World) -> Result<(), Ended> {
    match world.chance(world.plan.faults.lose_ack) {
        true => Err(Ended::AckLost),
        false => Ok(()),
    }
}
