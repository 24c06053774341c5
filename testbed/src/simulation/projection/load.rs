//! What a session begins with, read one after the other while others write.

use super::Flaw;
use super::World;
use super::disk::ParkedMessage;
use super::owner::{Cached, Moment, Session, Stage};
use tidemill_core::names::PROJECTION_PARTITIONS;
use tidemill_core::projection::parked::{Entry, Waiting};
use tidemill_core::projection::{Checkpoint, KEYLESS_TOKEN, Row, SourceCheckpoint};

impl World {
    /// A row as it is stored now, or none.
    pub(super) fn read_row(&mut self, token: &str) -> Cached {
        let (row, revision) = match self.disk.rows.get(token) {
            None => (Ok(Row::missing()), 0),
            Some(stored) => {
                let row = match &stored.value {
                    Some(value) => Row::read(&self.sources, value.as_bytes(), &stored.positions),
                    None => Row::read_deleted(&self.sources, &stored.positions),
                };
                (row, stored.revision)
            }
        };
        let row = row.unwrap_or_else(|error| {
            self.problems.push(format!("row {token}: {error}"));
            Row::missing()
        });
        Cached {
            row,
            revision,
            dirty: false,
        }
    }

    pub(super) fn read_parked(&mut self, message: &ParkedMessage) -> Option<Entry> {
        let headers: Vec<(&str, &str)> = message
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        match Entry::read(&self.sources, &headers, &[]) {
            Ok(entry) => Some(entry),
            Err(error) => {
                self.problems.push(format!("a parked event: {error}"));
                None
            }
        }
    }
}

impl Session {
    /// Reads the next of what it begins with. The order matters: what a checkpoint has passed must be found in what is read after it.
    pub(super) fn load(&mut self, world: &mut World) {
        self.stage = match self.stage {
            Stage::Checkpoints => {
                self.load_checkpoints(world);
                Stage::Decisions
            }
            Stage::Decisions => {
                if world.plan.flaw != Some(Flaw::DecisionsNotLoaded) {
                    self.decisions = world.disk.decisions.clone();
                }
                Stage::Parked
            }
            Stage::Parked => {
                if world.plan.flaw != Some(Flaw::ParkedNotLoaded) {
                    self.load_parked(world);
                }
                Stage::Running
            }
            Stage::Running => Stage::Running,
        };
    }

    fn load_checkpoints(&mut self, world: &mut World) {
        for partition in (0..PROJECTION_PARTITIONS).filter(|one| self.owned.contains(one)) {
            let (revision, checkpoint) = match world.disk.checkpoints.get(&partition) {
                None => (0, Checkpoint::default()),
                Some((revision, json)) => {
                    let read = Checkpoint::parse(&world.sources, json.as_bytes());
                    let read = read.unwrap_or_else(|error| {
                        world
                            .problems
                            .push(format!("checkpoint {partition}: {error}"));
                        Checkpoint::default()
                    });
                    (*revision, read)
                }
            };
            self.now.tallies.insert(partition, checkpoint.tally);
            self.begun.insert(partition, checkpoint.clone());
            self.written.insert(partition, (revision, checkpoint));
        }
        let sources = world.sources.iter().enumerate();
        let after = sources.map(|(index, source)| {
            let all = self.begun.values();
            let after = all.map(|checkpoint| checkpoint.resume_after(index, &source.lineage));
            after.min().unwrap_or(0)
        });
        self.next = after.map(|after| after + 1).collect();
        self.now.sources = vec![SourceCheckpoint::default(); world.sources.len()];
        self.stored = Moment::clone(&self.now);
    }

    fn load_parked(&mut self, world: &mut World) {
        let mut superfluous = Vec::new();
        for (kept_at, message) in world.disk.parked.clone() {
            if !self.owned.contains(&message.partition) {
                continue;
            }
            let Some(entry) = world.read_parked(&message) else {
                continue;
            };
            let (source, position, token) = (entry.source, entry.position, message.token);
            let decided = self.decisions.contains(&(source, position, token.clone()));
            let in_row = token != KEYLESS_TOKEN
                && position <= world.read_row(&token).row.positions().get(source);
            let waiting = Waiting {
                kept_at,
                source,
                position,
                reason: entry.failure.map(|failure| failure.reason.into()),
            };
            if decided || in_row || !self.parked.add(&token, waiting) {
                superfluous.push(kept_at);
            }
        }
        for kept_at in superfluous {
            world.count("superfluous copies");
            world.disk.parked.remove(&kept_at);
        }
    }
}
