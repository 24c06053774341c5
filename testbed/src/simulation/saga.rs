//! A world for one saga: a log, owners that crash, stall and double up, participants that hold their contract, and a
//! network that loses, repeats, delays and forges.

mod participant;

use super::Random;
use participant::Participant;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use tidemill_core::envelope::Event;
use tidemill_core::json::Value;
use tidemill_core::names::{LogKind, ReplyToken, Run, Side};
use tidemill_core::saga::{
    CompiledSaga, Effect, Input, Instance, Observed, Outcome, Phase, Started, decode_input,
    violations,
};
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
    /// A participant answers with an error that passes.
    pub service_error: u64,
    /// Nobody listens.
    pub no_responders: u64,
    /// A participant refuses for a reason of its own.
    pub refuse: u64,
    /// An owner crashes after an input.
    pub crash: u64,
    /// An owner stalls after an input, and comes back with what it held.
    pub stall: u64,
    /// Somebody cancels an instance.
    pub cancel: u64,
}

impl Faults {
    /// Nothing goes wrong.
    pub const NONE: Faults = Faults {
        lose_request: 0,
        lose_reply: 0,
        repeat_reply: 0,
        late_reply: 0,
        forge_reply: 0,
        service_error: 0,
        no_responders: 0,
        refuse: 0,
        crash: 0,
        stall: 0,
        cancel: 0,
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
            service_error: upto(15),
            no_responders: upto(15),
            refuse: upto(25),
            crash: upto(8),
            stall: upto(8),
            cancel: upto(10),
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
    kind: LogKind,
    headers: Vec<(String, String)>,
    payload: Vec<u8>,
    at: Timestamp,
}

/// A worker that believes it owns every instance.
struct Owner {
    folded: usize,
    instances: BTreeMap<usize, Instance>,
    stalled_until: u64,
    /// Effects it held when it stalled; it runs them when it comes back, however stale they are.
    held: Vec<(usize, Effect)>,
    /// It has held everything from the beginning, so nobody else can have sent anything.
    sole: bool,
}

enum Happening {
    /// An attempt reaches its participant.
    Request { instance: usize, effect: Effect },
    /// A message reaches the log.
    Append {
        instance: usize,
        kind: LogKind,
        headers: Vec<(String, String)>,
        payload: Vec<u8>,
    },
    /// An owner looks at the log and the clock.
    Turn { owner: usize },
}

struct World {
    saga: Arc<CompiledSaga>,
    random: Random,
    plan: Plan,
    now: u64,
    faulty: bool,
    agenda: BTreeMap<(u64, u64), Happening>,
    ticket: u64,
    log: Vec<Logged>,
    owners: Vec<Owner>,
    participants: BTreeMap<String, Participant>,
    published: BTreeMap<String, usize>,
    trace: String,
    problems: Vec<String>,
}

/// Virtual milliseconds of trouble; afterwards nothing goes wrong any more.
const TROUBLE_MS: u64 = 120_000;
/// Virtual milliseconds after which everything must have ended.
const END_MS: u64 = 40 * 3_600_000;
/// Virtual milliseconds between two looks of an owner.
const TURN_MS: u64 = 20;

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
        owners: (0..plan.owners)
            .map(|_| Owner {
                sole: plan.owners == 1,
                ..Owner::new()
            })
            .collect(),
        participants: BTreeMap::new(),
        published: BTreeMap::new(),
        trace: String::new(),
        problems: Vec::new(),
    };
    world.begin();
    world.run();
    world.judge()
}

impl Owner {
    fn new() -> Self {
        Owner {
            folded: 0,
            instances: BTreeMap::new(),
            stalled_until: 0,
            held: Vec::new(),
            sole: false,
        }
    }
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
            self.schedule(delay, append(index, LogKind::Started, started.to_json()));
            if self.chance(self.plan.faults.cancel) {
                let delay = self.random.below(20_000);
                self.schedule(
                    delay,
                    append(
                        index,
                        LogKind::Cancel,
                        b"{\"by\":\"test\",\"why\":\"changed mind\"}".to_vec(),
                    ),
                );
            }
        }
        for owner in 0..self.plan.owners {
            self.schedule(owner as u64, Happening::Turn { owner });
        }
    }

    fn run(&mut self) {
        while let Some((key, happening)) = self.agenda.pop_first() {
            self.now = key.0;
            self.faulty = self.now < TROUBLE_MS;
            if self.now > END_MS || !self.problems.is_empty() {
                return;
            }
            match happening {
                Happening::Append {
                    instance,
                    kind,
                    headers,
                    payload,
                } => self.append(instance, kind, headers, payload),
                Happening::Request { instance, effect } => self.participate(instance, &effect),
                Happening::Turn { owner } => {
                    self.turn(owner);
                    if !self.is_over() {
                        self.schedule(TURN_MS, Happening::Turn { owner });
                    }
                }
            }
        }
    }

    /// Nothing more can come: every instance is finished or parked for every owner, and nothing is under way.
    fn is_over(&self) -> bool {
        let settled = |owner: &Owner| {
            owner.folded == self.log.len()
                && owner.held.is_empty()
                && owner.instances.len() == self.plan.instances
                && owner
                    .instances
                    .values()
                    .all(|instance| instance.is_finished() || instance.parked.is_some())
        };
        !self.faulty
            && self.owners.iter().all(settled)
            && self
                .agenda
                .values()
                .all(|happening| matches!(happening, Happening::Turn { .. }))
    }

    fn schedule(&mut self, delay: u64, happening: Happening) {
        self.ticket += 1;
        self.agenda
            .insert((self.now + delay, self.ticket), happening);
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.random.percent(percent) && self.faulty
    }

    fn append(
        &mut self,
        instance: usize,
        kind: LogKind,
        headers: Vec<(String, String)>,
        payload: Vec<u8>,
    ) {
        // What the server's expected sequence 0 does for starts, timers and publishes.
        let once = matches!(
            kind,
            LogKind::Started | LogKind::Timer(_) | LogKind::Published(_)
        );
        if once
            && self
                .log
                .iter()
                .any(|logged| logged.instance == instance && logged.kind == kind)
        {
            return;
        }
        let _ = writeln!(
            self.trace,
            "{} {instance} {kind} {}",
            self.now,
            String::from_utf8_lossy(&payload)
        );
        let at = Timestamp::from_millis(i64::try_from(self.now).unwrap_or(i64::MAX));
        self.log.push(Logged {
            instance,
            kind,
            headers,
            payload,
            at,
        });
    }

    /// An owner folds what is new, runs the effects and fires timers that are due.
    fn turn(&mut self, index: usize) {
        if self.now < self.owners[index].stalled_until {
            return;
        }
        let held = std::mem::take(&mut self.owners[index].held);
        for (instance, effect) in held {
            self.execute(index, instance, effect);
        }
        let fresh = self.owners[index].folded == 0;
        while self.owners[index].folded < self.log.len() {
            let effects = self.fold_next(index);
            // A fresh owner first folds everything and then does what is outstanding.
            if fresh {
                continue;
            }
            if self.chance(self.plan.faults.crash) {
                let _ = writeln!(self.trace, "{} owner {index} crashes", self.now);
                self.owners[index] = Owner::new();
                return;
            }
            if self.chance(self.plan.faults.stall) {
                let _ = writeln!(self.trace, "{} owner {index} stalls", self.now);
                self.owners[index].stalled_until = self.now + self.random.below(30_000);
                self.owners[index].held = effects;
                return;
            }
            for (instance, effect) in effects {
                self.execute(index, instance, effect);
            }
        }
        if fresh {
            let saga = Arc::clone(&self.saga);
            let outstanding: Vec<(usize, Effect)> = self.owners[index]
                .instances
                .iter()
                .flat_map(|(id, instance)| {
                    instance
                        .outstanding(&saga)
                        .into_iter()
                        .map(|effect| (*id, effect))
                })
                .collect();
            for (instance, effect) in outstanding {
                self.execute(index, instance, effect);
            }
        }
        self.fire_timers(index);
    }

    fn fold_next(&mut self, index: usize) -> Vec<(usize, Effect)> {
        let saga = Arc::clone(&self.saga);
        let owner = &mut self.owners[index];
        let logged = &self.log[owner.folded];
        owner.folded += 1;
        let headers: Vec<(&str, &str)> = logged
            .headers
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        let input = match decode_input(logged.kind.clone(), &headers, &logged.payload) {
            Ok(input) => input,
            Err(error) => {
                self.problems
                    .push(format!("{} can't be decoded: {error}", logged.kind));
                return Vec::new();
            }
        };
        let (id, at) = (logged.instance, logged.at);
        let effects = match (owner.instances.get_mut(&id), input) {
            (None, Input::Started(started)) => {
                let (instance, effects) = Instance::start(&saga, &format!("i-{id}"), *started, at);
                owner.instances.insert(id, instance);
                effects
            }
            (None, _) => Vec::new(),
            (Some(instance), input) => instance.apply(&saga, &input, at).effects,
        };
        if let Some(instance) = owner.instances.get(&id) {
            for violation in violations(&saga, instance) {
                self.problems.push(format!(
                    "instance {id}: {} {}",
                    violation.invariant, violation.detail
                ));
            }
        }
        effects.into_iter().map(|effect| (id, effect)).collect()
    }

    fn fire_timers(&mut self, index: usize) {
        let saga = Arc::clone(&self.saga);
        let now = Timestamp::from_millis(i64::try_from(self.now).unwrap_or(i64::MAX));
        let due: Vec<_> = self.owners[index]
            .instances
            .iter()
            .filter_map(|(id, instance)| Some((*id, instance.next_timer(&saga)?)))
            .filter(|(_, (due, _))| *due <= now)
            .collect();
        for (instance, (_, timer)) in due {
            self.append(instance, LogKind::Timer(timer), Vec::new(), Vec::new());
        }
    }

    /// Runs an effect. Doing one twice, or long after it was asked for, must be harmless.
    fn execute(&mut self, owner: usize, instance: usize, effect: Effect) {
        match effect {
            Effect::Publish(publish) => {
                // The stream holds an event once: that is what message id and expected sequence do.
                *self.published.entry(publish.event.id.clone()).or_insert(0) = 1;
                let payload = b"{\"stream\":\"s\",\"sequence\":1}".to_vec();
                let delay = self.random.below(50);
                if !self.chance(self.plan.faults.lose_reply) {
                    self.schedule(
                        delay,
                        append(instance, LogKind::Published(publish.effect), payload),
                    );
                } else {
                    // The acknowledgement is lost: the worker looks and finds the event, later.
                    self.schedule(
                        delay + 5_000,
                        append(instance, LogKind::Published(publish.effect), payload),
                    );
                }
            }
            effect @ (Effect::Request(_) | Effect::Http(_)) => {
                if self.chance(self.plan.faults.forge_reply) {
                    self.forge(instance, &effect);
                }
                if self.chance(self.plan.faults.no_responders) {
                    let (step, side, attempt) = attempt_of(&effect);
                    let kind = LogKind::Observed {
                        step,
                        side,
                        attempt,
                    };
                    let observed = Observed::NoResponders {
                        sole: self.owners[owner].sole,
                    };
                    self.schedule(1, append(instance, kind, observed.to_json()));
                } else if !self.chance(self.plan.faults.lose_request) {
                    let delay = 1 + self.random.below(200);
                    self.schedule(delay, Happening::Request { instance, effect });
                }
            }
        }
    }

    fn forge(&mut self, instance: usize, effect: &Effect) {
        let (step, side, attempt) = attempt_of(effect);
        let kind = LogKind::Reply {
            step,
            side,
            attempt,
            token: ReplyToken::new("aaaaaaaaaaaaaaaaaaaa"),
        };
        self.schedule(0, append(instance, kind, b"{\"forged\":true}".to_vec()));
    }

    fn participate(&mut self, instance: usize, effect: &Effect) {
        let (step, side, attempt) = attempt_of(effect);
        let service_error = self.chance(self.plan.faults.service_error);
        let refuse = self.chance(self.plan.faults.refuse);
        let participant = self.participants.entry(step.clone()).or_default();
        let answer = participant.handle(effect, side, service_error, refuse);
        let (kind, headers, payload) = match effect {
            Effect::Request(request) => (request.reply.clone(), answer.headers(), answer.body()),
            Effect::Http(_) | Effect::Publish(_) => (
                LogKind::Observed {
                    step,
                    side,
                    attempt,
                },
                Vec::new(),
                answer.observed().to_json(),
            ),
        };
        if self.chance(self.plan.faults.lose_reply) {
            return;
        }
        let mut copies = if self.chance(self.plan.faults.repeat_reply) {
            2
        } else {
            1
        };
        while copies > 0 {
            let mut delay = 1 + self.random.below(300);
            if self.chance(self.plan.faults.late_reply) {
                delay += self.random.below(60_000);
            }
            let (kind, headers, payload) = (kind.clone(), headers.clone(), payload.clone());
            self.schedule(
                delay,
                Happening::Append {
                    instance,
                    kind,
                    headers,
                    payload,
                },
            );
            copies -= 1;
        }
    }

    /// What must be true at the end.
    fn judge(mut self) -> Report {
        let mut ended = BTreeMap::new();
        let saga = Arc::clone(&self.saga);
        for index in 1..self.owners.len() {
            if self.owners[index].instances != self.owners[0].instances {
                self.problems
                    .push(format!("owner {index} holds another state than owner 0"));
            }
        }
        self.owners[0].folded = 0;
        let held = std::mem::take(&mut self.owners[0].instances);
        self.faulty = false;
        while self.owners[0].folded < self.log.len() {
            self.fold_next(0);
        }
        if self.owners[0].instances != held {
            self.problems
                .push("folding the log again gives another state".to_owned());
        }
        for (id, instance) in &held {
            *ended.entry(instance.state().as_str()).or_insert(0) += 1;
            self.judge_instance(&saga, *id, instance);
        }
        if held.len() != self.plan.instances {
            self.problems.push(format!(
                "{} of {} instances were started",
                held.len(),
                self.plan.instances
            ));
        }
        Report {
            trace: self.trace,
            ended,
            problems: self.problems,
        }
    }

    fn judge_instance(&mut self, saga: &CompiledSaga, id: usize, instance: &Instance) {
        if !instance.is_finished() && instance.parked.is_none() {
            self.problems
                .push(format!("instance {id} never ended: {:?}", instance.phase));
            return;
        }
        let Phase::Finished(outcome) = instance.phase else {
            return;
        };
        for (definition, state) in saga.definition.steps.iter().zip(&instance.steps) {
            let prefix = format!("i-{id}/{}/{}", instance.run8, definition.name);
            let Some(participant) = self.participants.get(&definition.name) else {
                continue;
            };
            let standing: BTreeSet<&str> = participant
                .standing()
                .filter(|command| command.ends_with(&prefix))
                .collect();
            let by_hand = state.compensation.progress == tidemill_core::saga::Progress::Skipped;
            match outcome {
                Outcome::Completed if standing.len() != 1 && state.action.attempt > 0 => {
                    self.problems.push(format!(
                        "instance {id} is completed, {} was done {} times",
                        definition.name,
                        standing.len()
                    ));
                }
                Outcome::Compensated
                    if !standing.is_empty() && definition.compensation.is_some() && !by_hand =>
                {
                    self.problems.push(format!(
                        "instance {id} is compensated, {} still stands",
                        definition.name
                    ));
                }
                Outcome::Completed | Outcome::Compensated => {}
            }
        }
        let (wanted, word) = match outcome {
            Outcome::Completed => (saga.definition.on_completed.len(), "completed-"),
            Outcome::Compensated => (saga.definition.on_compensated.len(), "compensated-"),
        };
        let marker = format!("/i-{id}/{}/{word}", instance.run8);
        let published = self
            .published
            .keys()
            .filter(|event| event.contains(&marker))
            .count();
        if published != wanted {
            self.problems.push(format!(
                "instance {id} published {published} events, {wanted} are wanted"
            ));
        }
    }
}

fn append(instance: usize, kind: LogKind, payload: Vec<u8>) -> Happening {
    Happening::Append {
        instance,
        kind,
        headers: Vec::new(),
        payload,
    }
}

fn attempt_of(effect: &Effect) -> (String, Side, u32) {
    match effect {
        Effect::Request(request) => (request.step.clone(), request.side, request.attempt),
        Effect::Http(http) => (http.step.clone(), http.side, http.attempt),
        Effect::Publish(publish) => (publish.effect.clone(), Side::Action, 1),
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
