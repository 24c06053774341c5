//! A world for one saga: a log, owners that crash, stall and double up, participants that hold their contract, a
//! network that loses, repeats, delays and forges, and people who cancel and decide.
//!
//! Time is virtual: the world goes from one thing on its agenda to the next, however long nothing happens between.

mod judge;
mod network;
mod owner;
mod person;

use super::Random;
use super::participant::Participant;
use owner::Owner;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use tidemill_core::envelope::Event;
use tidemill_core::json::Value;
use tidemill_core::names::{LogKind, Run};
use tidemill_core::saga::{CompiledSaga, Effect, Input, Instance, Started, decode_input};
use tidemill_core::timestamp::Timestamp;

/// How bad the world is, in percent of cases.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// A request is lost.
    pub lose_request: u64,
    /// A reply is lost.
    pub lose_reply: u64,
    /// A reply comes twice.
    pub repeat_reply: u64,
    /// A reply comes after its attempt's timeout.
    pub late_reply: u64,
    /// Somebody forges a reply.
    pub forge_reply: u64,
    /// A stream acknowledges a request in the participant's place.
    pub stream_answers: u64,
    /// A participant answers with an error that passes.
    pub service_error: u64,
    /// Nobody listens.
    pub no_responders: u64,
    /// A participant refuses for a reason of its own.
    pub refuse: u64,
    /// A participant breaks its contract and refuses a compensation.
    pub refuse_compensation: u64,
    /// A stream refuses an event for good.
    pub refuse_publish: u64,
    /// An owner crashes after an input.
    pub crash: u64,
    /// An owner stalls after an input, and comes back with what it held.
    pub stall: u64,
    /// Somebody cancels an instance.
    pub cancel: u64,
    /// Somebody decides about an instance that is parked.
    pub decide: u64,
    /// The log loses its tail, once in a run.
    pub set_back: bool,
}

impl Faults {
    /// Nothing goes wrong.
    pub const NONE: Faults = Faults {
        lose_request: 0,
        lose_reply: 0,
        repeat_reply: 0,
        late_reply: 0,
        forge_reply: 0,
        stream_answers: 0,
        service_error: 0,
        no_responders: 0,
        refuse: 0,
        refuse_compensation: 0,
        refuse_publish: 0,
        crash: 0,
        stall: 0,
        cancel: 0,
        decide: 0,
        set_back: false,
    };

    /// Some of everything, more or less of it by seed.
    pub fn seeded(random: &mut Random) -> Faults {
        let mut upto = |most: u64| random.below(most + 1);
        Faults {
            lose_request: upto(15),
            lose_reply: upto(20),
            repeat_reply: upto(20),
            late_reply: upto(15),
            forge_reply: upto(10),
            stream_answers: upto(10),
            service_error: upto(15),
            no_responders: upto(15),
            refuse: upto(25),
            refuse_compensation: upto(10),
            refuse_publish: upto(15),
            crash: upto(8),
            stall: upto(8),
            cancel: upto(10),
            decide: upto(100),
            set_back: upto(3) == 0,
        }
    }
}

/// What a run is about.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything.
    pub seed: u64,
    /// Instances to start.
    pub instances: usize,
    /// Owners that all believe they own everything.
    pub owners: usize,
    /// What goes wrong, until all instances have had time to get into trouble.
    pub faults: Faults,
}

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Everything that happened, one line each: the same for the same plan.
    pub trace: String,
    /// Instances by how they ended.
    pub ended: BTreeMap<&'static str, usize>,
    /// What is wrong; empty if all is well.
    pub problems: Vec<String>,
}

struct Logged {
    instance: usize,
    input: Rc<Input>,
    at: Timestamp,
    /// What the first owner that folded it came to. Every other one must come to the same, after every input.
    state: Option<Box<Instance>>,
}

enum Happening {
    /// An attempt reaches its participant.
    Request { instance: usize, effect: Effect },
    /// A message reaches the log.
    Append(Message),
    /// An owner looks at the log and the clock.
    Turn { owner: usize },
    /// Somebody looks at an instance that is parked, after so many decisions.
    Decide { instance: usize, decisions: u32 },
    /// The log loses its tail.
    SetBack,
}

#[derive(Clone)]
struct Message {
    instance: usize,
    kind: LogKind,
    headers: Vec<(String, String)>,
    payload: Vec<u8>,
}

impl Message {
    fn new(instance: usize, kind: LogKind, payload: Vec<u8>) -> Message {
        Message {
            instance,
            kind,
            headers: Vec::new(),
            payload,
        }
    }
}

struct World {
    saga: Arc<CompiledSaga>,
    random: Random,
    plan: Plan,
    now: u64,
    faulty: bool,
    /// Boxed, because a map moves its values about.
    agenda: BTreeMap<(u64, u64), Box<Happening>>,
    ticket: u64,
    log: Vec<Logged>,
    owners: Vec<Owner>,
    participants: BTreeMap<String, Participant>,
    published: BTreeMap<String, Event>,
    /// Questions that were put to somebody, by instance and decisions before.
    asked: BTreeSet<(usize, u32)>,
    /// Steps that somebody has answered for, by instance and name.
    by_hand: BTreeSet<(usize, String)>,
    trace: String,
    problems: Vec<String>,
}

/// Virtual milliseconds of trouble; afterwards nothing goes wrong any more.
const TROUBLE_MS: u64 = 120_000;
/// Virtual milliseconds after which everything must have ended.
const END_MS: u64 = 40 * 3_600_000;

/// Most messages of a log; worlds of six instances have some hundreds.
const LOG_MAX: usize = 20_000;

/// Runs a plan to its end.
pub fn run(saga: &Arc<CompiledSaga>, plan: &Plan) -> Report {
    let mut world = World {
        saga: Arc::clone(saga),
        random: Random::new(plan.seed),
        plan: plan.clone(),
        now: 0,
        faulty: true,
        agenda: BTreeMap::new(),
        ticket: 0,
        log: Vec::new(),
        owners: (0..plan.owners).map(|_| Owner::new()).collect(),
        participants: BTreeMap::new(),
        published: BTreeMap::new(),
        asked: BTreeSet::new(),
        by_hand: BTreeSet::new(),
        trace: String::new(),
        problems: Vec::new(),
    };
    if let [only] = &mut world.owners[..] {
        only.sole = true;
    }
    world.begin();
    world.run();
    world.judge()
}

impl World {
    fn begin(&mut self) {
        for index in 0..self.plan.instances {
            let started = Started {
                run: Run::new(self.random.bits()),
                revision: self.saga.definition.revision(),
                input: event(index, &mut self.random),
                correlation_id: format!("c-{index}"),
                position: None,
            };
            let delay = self.random.below(2_000);
            self.append_later(
                delay,
                Message::new(index, LogKind::Started, started.to_json()),
            );
            self.maybe_cancel(index);
        }
        if self.plan.faults.set_back {
            let delay = 5_000 + self.random.below(60_000);
            self.schedule(delay, Happening::SetBack);
        }
    }

    fn run(&mut self) {
        while let Some(((at, _), happening)) = self.agenda.pop_first() {
            self.now = at;
            self.faulty = self.now < TROUBLE_MS;
            if self.now > END_MS || !self.problems.is_empty() {
                return;
            }
            match *happening {
                Happening::Append(message) => self.append(message),
                Happening::Request { instance, effect } => self.participate(instance, &effect),
                Happening::Turn { owner } => self.take_turn(owner),
                Happening::Decide {
                    instance,
                    decisions,
                } => self.decide(instance, decisions),
                Happening::SetBack => self.set_back(),
            }
        }
    }

    fn schedule(&mut self, delay: u64, happening: Happening) {
        self.ticket += 1;
        self.agenda
            .insert((self.now + delay, self.ticket), Box::new(happening));
    }

    fn append_later(&mut self, delay: u64, message: Message) {
        self.schedule(delay, Happening::Append(message));
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.random.percent(percent) && self.faulty
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_millis(i64::try_from(self.now).unwrap_or(i64::MAX))
    }

    fn append(&mut self, message: Message) {
        let Message {
            instance,
            kind,
            headers,
            payload,
        } = message;
        let _ = writeln!(
            self.trace,
            "{} {instance} {kind} {}",
            self.now,
            String::from_utf8_lossy(&payload)
        );
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        match decode_input(kind, &headers, &payload) {
            Ok(input) => {
                let (input, at) = (Rc::new(input), self.time());
                self.log.push(Logged {
                    instance,
                    input,
                    at,
                    state: None,
                });
            }
            Err(error) => self.problems.push(format!("can't be decoded: {error}")),
        }
        if self.log.len() > LOG_MAX {
            self.problems.push("the log grows without end".to_owned());
        }
        for owner in 0..self.owners.len() {
            let delay = 1 + self.random.below(20);
            self.wake(owner, self.now + delay);
        }
    }

    /// A power loss: the newest inputs are gone, but for starts. Everybody has to fold again what is there.
    fn set_back(&mut self) {
        let is_start = |logged: &Logged| matches!(*logged.input, Input::Started(_));
        let starts = self.log.iter().rposition(is_start).map_or(0, |at| at + 1);
        let lost = 1 + usize::try_from(self.random.below(12)).unwrap_or(0);
        let left = self.log.len().saturating_sub(lost).max(starts);
        let _ = writeln!(self.trace, "{} the log is set back to {left}", self.now);
        self.log.truncate(left);
        for owner in 0..self.owners.len() {
            self.owners[owner].is_set_back = true;
            let delay = 1 + self.random.below(2_000);
            self.wake(owner, self.now + delay);
        }
    }
}

fn event(index: usize, random: &mut Random) -> Event {
    let total = i64::try_from(random.below(10_000)).unwrap_or(0);
    let id = format!("i-{index}");
    let data = [
        ("total", Value::from(total)),
        ("orderId", Value::from(id.as_str())),
    ];
    let data = Value::Object(data.into_iter().collect());
    super::shapes::event(&format!("e-{index}"), &id, data)
}
