//! A world for one projection: streams that grow, a bucket of rows, owners that crash, stall and own the same partitions at once,
//! acknowledgements that get lost, and a person who redrives and skips what waits.
//!
//! The owners do what a worker does around the machine of [`tidemill_core::projection`], one small thing at a time, so that anything may
//! happen between any two of them. What must come of it is calculated apart, without the machine ([`plain`]).

mod disk;
mod judge;
mod load;
mod owner;
pub mod plain;
mod redrive;
mod write;

use super::Random;
use disk::Disk;
use owner::Owner;
use plain::Given;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use tidemill_core::definition::{ProjectionDefinition, StreamRef};
use tidemill_core::projection::{KeySpace, Lineage, Projection, Source, Sources};

/// How bad the world is, in cases of a thousand.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// An owner crashes before something it does.
    pub crash: u64,
    /// Something is stored, and its acknowledgement is lost.
    pub lose_ack: u64,
    /// An owner stands still for long, and goes on with what it held.
    pub stall: u64,
    /// Somebody looks at a key that waits.
    pub person: u64,
}

impl Faults {
    /// Nothing goes wrong.
    pub const NONE: Faults = Faults {
        crash: 0,
        lose_ack: 0,
        stall: 0,
        person: 0,
    };

    /// Some of everything, more or less of it by seed.
    pub fn seeded(random: &mut Random) -> Faults {
        let mut upto = |most: u64| random.below(most + 1);
        Faults {
            crash: upto(15),
            lose_ack: upto(20),
            stall: upto(10),
            person: upto(30),
        }
    }
}

/// A mistake of the owners, to see that the judge notices it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Rows are put whatever is there.
    UnguardedRows,
    /// A checkpoint says what is folded, not what is stored.
    CheckpointAhead,
    /// A checkpoint doesn't wait for the copies of parked events.
    ParkedLate,
    /// Whoever takes partitions over doesn't load what is parked there.
    ParkedNotLoaded,
    /// What was redriven leaves the parked stream before its row is stored.
    RedrivenTooSoon,
    /// What was decided before a restart is forgotten.
    DecisionsNotLoaded,
}

impl Flaw {
    /// All of them.
    pub const ALL: &[Flaw] = &[
        Flaw::UnguardedRows,
        Flaw::CheckpointAhead,
        Flaw::ParkedLate,
        Flaw::ParkedNotLoaded,
        Flaw::RedrivenTooSoon,
        Flaw::DecisionsNotLoaded,
    ];
}

/// What a run is about.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything.
    pub seed: u64,
    /// Source streams, 1 to 3.
    pub sources: usize,
    /// Events over all of them.
    pub events: usize,
    /// Workers that take partitions as they like.
    pub owners: usize,
    /// What goes wrong until all events are there and some time has passed.
    pub faults: Faults,
    /// What the owners do wrong.
    pub flaw: Option<Flaw>,
}

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Everything that was stored, one line each, and what is stored at the end: the same for the same plan.
    pub trace: String,
    /// What happened how often.
    pub counts: BTreeMap<&'static str, usize>,
    /// What is wrong; empty if all is well.
    pub problems: Vec<String>,
}

struct World {
    random: Random,
    plan: Plan,
    /// Things go wrong.
    faulty: bool,
    now: u64,
    projection: Projection,
    sources: Sources,
    space: KeySpace,
    /// Per source, every event; sequence 1 is the first.
    streams: Vec<Vec<Given>>,
    disk: Disk,
    owners: Vec<Owner>,
    trace: String,
    counts: BTreeMap<&'static str, usize>,
    problems: Vec<String>,
}

/// Turns of trouble for each event.
const TURNS_PER_EVENT: u64 = 12;
/// Turns in which owners that nothing happens to must be done, for each event.
const QUIET_TURNS_PER_EVENT: u64 = 400;

/// Runs a plan to its end.
///
/// # Panics
/// If the definition doesn't compile.
pub fn run(plan: &Plan) -> Report {
    let streams: Vec<StreamRef> = plain::NAMES
        .iter()
        .take(plan.sources)
        .map(|name| StreamRef {
            namespace: "shop".to_owned(),
            name: (*name).to_owned(),
        })
        .collect();
    let source = |stream: &StreamRef| Source {
        stream: stream.clone(),
        lineage: Lineage::first("i"),
    };
    let sources = Sources::new(streams.iter().map(source).collect());
    let mut definition = ProjectionDefinition::new(streams, "event.subject");
    definition.handlers =
        serde_json::from_str(&plain::handlers(plan.sources)).expect("the handlers are right");
    let mut world = World {
        random: Random::new(plan.seed),
        plan: plan.clone(),
        faulty: true,
        now: 0,
        projection: Projection::compile(&definition).expect("the definition compiles"),
        sources,
        space: KeySpace {
            revision: definition.revision(),
            rebuild: 0,
        },
        streams: vec![Vec::new(); plan.sources],
        disk: Disk::default(),
        owners: (0..plan.owners).map(Owner::new).collect(),
        trace: String::new(),
        counts: BTreeMap::new(),
        problems: Vec::new(),
    };
    world.trouble();
    world.quiet();
    world.judge()
}

impl World {
    /// Events come, and everything goes wrong that may.
    fn trouble(&mut self) {
        let events = self.plan.events as u64;
        for turn in 0..events * TURNS_PER_EVENT {
            // All of them are there when two thirds are over.
            if turn % (TURNS_PER_EVENT * 2 / 3) == 0 && self.published() < self.plan.events {
                self.publish();
            }
            let owner = self.below(self.owners.len());
            self.turn(owner);
            if !self.problems.is_empty() {
                return;
            }
        }
    }

    /// Whoever stands still goes on with what it holds; then all begin again, and a person frees whatever waits.
    fn quiet(&mut self) {
        self.faulty = false;
        for owner in &mut self.owners {
            owner.stalled_until = 0;
        }
        // Those with a session end it, or find out that it is over.
        for owner in 0..self.owners.len() {
            self.end(owner);
        }
        for _ in 0..self.plan.events as u64 * QUIET_TURNS_PER_EVENT {
            if !self.problems.is_empty() || self.is_done() {
                return;
            }
            let owner = self.below(self.owners.len());
            self.turn(owner);
        }
        self.problems
            .push("it is never done, although nothing goes wrong".to_owned());
    }

    fn turn(&mut self, owner: usize) {
        self.now += 1;
        let Some(slot) = self.owners.get_mut(owner) else {
            return;
        };
        let mut acting = std::mem::replace(slot, Owner::new(owner));
        acting.turn(self);
        if let Some(slot) = self.owners.get_mut(owner) {
            *slot = acting;
        }
    }

    fn end(&mut self, owner: usize) {
        let Some(slot) = self.owners.get_mut(owner) else {
            return;
        };
        let mut acting = std::mem::replace(slot, Owner::new(owner));
        acting.end(self);
        if let Some(slot) = self.owners.get_mut(owner) {
            *slot = acting;
        }
    }

    fn published(&self) -> usize {
        self.streams.iter().map(Vec::len).sum()
    }

    fn publish(&mut self) {
        let source = self.below(self.plan.sources);
        let earlier = self.streams.get(source).map_or(0, Vec::len);
        // The same event once more, as a publisher does that has forgotten it: another position, so another event.
        let again = match earlier > 0 && self.random.percent(10) {
            true => {
                let index = self.below(earlier);
                self.streams
                    .get(source)
                    .and_then(|stream| stream.get(index).cloned())
            }
            false => None,
        };
        let number = self.published();
        let given = again.unwrap_or_else(|| Given::seeded(number, &mut self.random));
        let _ = writeln!(self.trace, "{} publish {source} {given:?}", self.now);
        if let Some(stream) = self.streams.get_mut(source) {
            stream.push(given);
        }
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.random.below(limit as u64)).unwrap_or(0)
    }

    /// Whether something happens that does so in so many cases of a thousand.
    fn chance(&mut self, permille: u64) -> bool {
        self.random.below(1000) < permille && self.faulty
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_insert(0) += 1;
    }
}
