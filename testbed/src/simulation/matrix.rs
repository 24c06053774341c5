//! One instance, one owner, and one thing that goes wrong, on purpose: what comes of it in the end.
//!
//! Nothing is drawn here. What goes wrong is said by a [`Script`], and the same script can be run with the owner
//! crashing after any of its inputs, which must change nothing that anybody else sees.

use super::participant::Participant;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_core::control::Decision;
use tidemill_core::envelope::Event;
use tidemill_core::names::{LogKind, Run, Side};
use tidemill_core::saga::{
    Asked, CompiledSaga, Effect, Input, Instance, Observed, Started, decode_input, violations,
};
use tidemill_core::timestamp::Timestamp;

/// What goes wrong with the attempts of a step's action or compensation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The participant answers that it can't, for now.
    Fails,
    /// The participant refuses.
    Refuses,
    /// The request is lost.
    RequestLost,
    /// It is done, and the answer is lost.
    ReplyLost,
    /// It is done, and the answer comes after everybody has given up waiting.
    ReplyLate,
    /// It is done, and the answer is no JSON.
    BadReply,
    /// Nobody listens.
    Nobody,
}

/// How many attempts are struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Struck {
    /// The first one.
    First,
    /// All.
    All,
}

/// What goes wrong in a run.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// Per step and side.
    pub faults: Vec<(String, Side, Fault, Struck)>,
    /// Somebody cancels while the action of this step is in flight.
    pub cancelled_at: Option<String>,
    /// The stream refuses the outcome's event.
    pub event_refused: bool,
    /// What is decided once the instance is parked; what went wrong is mended by then.
    pub decision: Option<Decision>,
    /// After which input the owner crashes, and whether it had run the effects of it.
    pub crash: Option<(usize, bool)>,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// `completed`, `compensated`, or `parked` with the question.
    pub state: String,
    /// Why it turned back.
    pub reason: Option<String>,
    /// Per step, in their order: `stands`, `taken back` or `not done`.
    pub ledgers: Vec<&'static str>,
    /// Events, with their data.
    pub events: Vec<String>,
}

/// What else is to be known of a run. A crash may change it: attempts are made again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Attempts, by step and side.
    pub attempts: BTreeMap<(String, Side), u32>,
    /// Messages in the log.
    pub inputs: usize,
}

/// What comes into the log: kind, headers, payload.
type Message = (LogKind, Vec<(String, String)>, Vec<u8>);

struct World {
    saga: Arc<CompiledSaga>,
    script: Script,
    now: Timestamp,
    agenda: BTreeMap<(Timestamp, usize), Message>,
    tickets: usize,
    log: Vec<(Input, Timestamp)>,
    instance: Option<Instance>,
    participants: BTreeMap<String, Participant>,
    published: BTreeMap<String, Event>,
    /// Nobody else can have sent an attempt.
    sole: bool,
    sent: BTreeMap<(String, Side), u32>,
}

/// Most inputs of one run; a hundred is much.
const INPUTS_MAX: usize = 2_000;
/// Milliseconds until an answer comes, and until one comes too late.
const ANSWER_MS: u64 = 5;
const LATE_MS: u64 = 3 * 3_600_000;

/// Runs a script to its end.
///
/// # Panics
/// If an invariant of the machine breaks, or it comes to no end.
pub fn run(saga: &Arc<CompiledSaga>, input: &Event, script: &Script) -> (Ending, Cost) {
    let mut world = World {
        saga: Arc::clone(saga),
        script: script.clone(),
        now: Timestamp::from_millis(1_000_000),
        agenda: BTreeMap::new(),
        tickets: 0,
        log: Vec::new(),
        instance: None,
        participants: BTreeMap::new(),
        published: BTreeMap::new(),
        sole: true,
        sent: BTreeMap::new(),
    };
    let started = Started {
        run: Run::new([7; 16]),
        revision: saga.definition.revision(),
        input: input.clone(),
        correlation_id: input.id.clone(),
        position: None,
    };
    world.append(0, LogKind::Started, Vec::new(), started.to_json());
    world.run();
    (world.ending(), world.cost())
}

impl World {
    fn append(
        &mut self,
        delay: u64,
        kind: LogKind,
        headers: Vec<(String, String)>,
        payload: Vec<u8>,
    ) {
        self.tickets += 1;
        let at = (self.now.plus_millis(delay), self.tickets);
        self.agenda.insert(at, (kind, headers, payload));
    }

    fn run(&mut self) {
        loop {
            assert!(self.log.len() < INPUTS_MAX, "no end: {:?}", self.script);
            let timer = self
                .instance
                .as_ref()
                .and_then(|instance| instance.next_timer(&self.saga));
            let message = self.agenda.first_key_value().map(|((at, _), _)| *at);
            match (timer, message) {
                (Some((due, timer)), message) if message.is_none_or(|at| due < at) => {
                    self.now = self.now.max(due);
                    self.fold(LogKind::Timer(timer), &[], &[]);
                }
                (_, Some(_)) => {
                    let Some(((at, _), (kind, headers, payload))) = self.agenda.pop_first() else {
                        return;
                    };
                    self.now = self.now.max(at);
                    self.fold(kind, &headers, &payload);
                }
                (_, None) => {
                    let parked = self
                        .instance
                        .as_ref()
                        .is_some_and(|instance| instance.parked.is_some());
                    match self.script.decision.take() {
                        Some(decision) if parked => {
                            self.script.faults.clear();
                            self.script.event_refused = false;
                            let payload = Input::decision_json(decision, None, &Asked::default());
                            self.append(60_000, LogKind::Decision, Vec::new(), payload);
                        }
                        _ => return,
                    }
                }
            }
        }
    }

    fn fold(&mut self, kind: LogKind, headers: &[(String, String)], payload: &[u8]) {
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let input = match decode_input(kind, &headers, payload) {
            Ok(input) => input,
            Err(error) => unreachable!("the simulation wrote what can't be read: {error}"),
        };
        self.log.push((input, self.now));
        let effects = self.fold_at(self.log.len() - 1);
        let crash = self.script.crash;
        let crashes = |done: bool| crash == Some((self.log.len(), done));
        let (before, after) = (crashes(false), crashes(true));
        if !before {
            effects.into_iter().for_each(|effect| self.execute(effect));
        }
        if before || after {
            self.take_over();
        }
    }

    fn fold_at(&mut self, index: usize) -> Vec<Effect> {
        let Some((input, at)) = self.log.get(index) else {
            return Vec::new();
        };
        let effects = match (&mut self.instance, input) {
            (instance @ None, Input::Started(started)) => {
                let (new, effects) = Instance::start(&self.saga, "o-1", (**started).clone(), *at);
                *instance = Some(new);
                effects
            }
            (Some(instance), input) => instance.apply(&self.saga, input, *at).effects,
            (None, _) => Vec::new(),
        };
        if let Some(instance) = &self.instance {
            let broken = violations(&self.saga, instance);
            assert!(broken.is_empty(), "{:?}: {broken:?}", self.script);
        }
        effects
    }

    /// Another owner folds the log from its beginning and does what is outstanding.
    fn take_over(&mut self) {
        let before = self.instance.take();
        self.sole = false;
        for index in 0..self.log.len() {
            self.fold_at(index);
        }
        assert_eq!(self.instance, before, "folded again, another state");
        let outstanding = self
            .instance
            .as_ref()
            .map(|instance| instance.outstanding(&self.saga));
        for effect in outstanding.unwrap_or_default() {
            self.execute(effect);
        }
    }

    fn execute(&mut self, effect: Effect) {
        if let Effect::Publish(publish) = effect {
            let known = self.published.contains_key(&publish.event.id);
            if self.script.event_refused && !known {
                let (step, side, attempt) = publish.attempt;
                let what = Observed::PublishRefused {
                    message: "the stream is full".to_owned(),
                };
                let kind = LogKind::Observed {
                    step,
                    side,
                    attempt,
                };
                self.append(ANSWER_MS, kind, Vec::new(), what.to_json());
                return;
            }
            self.published
                .insert(publish.event.id.clone(), publish.event);
            let payload = b"{\"stream\":\"orders\",\"sequence\":1}".to_vec();
            self.append(
                ANSWER_MS,
                LogKind::Published(publish.effect),
                Vec::new(),
                payload,
            );
            return;
        }
        let (step, side, attempt) = attempt_of(&effect);
        let sent = self.sent.entry((step.clone(), side)).or_insert(0);
        *sent = attempt.max(*sent);
        let cancelled = side == Side::Action && self.script.cancelled_at.as_ref() == Some(&step);
        if cancelled {
            self.script.cancelled_at = None;
            let asked = Asked::default();
            self.append(1, LogKind::Cancel, Vec::new(), Input::cancel_json(&asked));
        }
        let fault = self.script.faults.iter().find(|(of, of_side, _, struck)| {
            *of == step && *of_side == side && (*struck == Struck::All || attempt == 1)
        });
        self.attempt(&effect, fault.map(|(_, _, fault, _)| *fault));
    }

    fn attempt(&mut self, effect: &Effect, fault: Option<Fault>) {
        let (step, side, attempt) = attempt_of(effect);
        let kind = LogKind::Observed {
            step: step.clone(),
            side,
            attempt,
        };
        let is_http = matches!(effect, Effect::Http(_));
        let (fails, refuses) = (fault == Some(Fault::Fails), fault == Some(Fault::Refuses));
        match fault {
            Some(Fault::RequestLost) => return,
            Some(Fault::Nobody) => {
                let (sole, message) = (self.sole, "connection refused".to_owned());
                let what = match is_http {
                    true => Observed::Unreachable { sole, message },
                    false => Observed::NoResponders { sole },
                };
                self.append(ANSWER_MS, kind, Vec::new(), what.to_json());
                return;
            }
            _ => {}
        }
        let participant = self.participants.entry(step).or_default();
        let given = participant.handle(effect, side, fails, refuses);
        let delay = match fault {
            Some(Fault::ReplyLost) => return,
            Some(Fault::ReplyLate) => LATE_MS,
            _ => ANSWER_MS,
        };
        let bad = fault == Some(Fault::BadReply);
        match effect {
            Effect::Request(request) => {
                let body = if bad {
                    b"<html>".to_vec()
                } else {
                    given.body()
                };
                self.append(delay, request.reply.clone(), given.headers(), body);
            }
            Effect::Http(_) | Effect::Publish(_) => {
                let what = match (bad, given.observed()) {
                    (true, Observed::Http { status, .. }) => Observed::Http {
                        status,
                        body: None,
                        retry_after_ms: None,
                    },
                    (_, what) => what,
                };
                self.append(delay, kind, Vec::new(), what.to_json());
            }
        }
    }

    fn ending(&self) -> Ending {
        let ledger = |name: &str| match self.participants.get(name) {
            Some(participant) if participant.standing().next().is_some() => "stands",
            Some(participant) if participant.has_done() => "taken back",
            _ => "not done",
        };
        let definition = &self.saga.definition;
        let instance = self.instance.as_ref();
        let state = instance.map_or_else(String::new, |instance| match &instance.parked {
            Some(parked) => format!("parked: {}", parked.reason.as_str()),
            None => instance.state().as_str().to_owned(),
        });
        let failure = instance.and_then(|instance| instance.failure.as_ref());
        Ending {
            state,
            reason: failure.map(|failure| failure.reason.clone()),
            ledgers: definition
                .steps
                .iter()
                .map(|step| ledger(&step.name))
                .collect(),
            events: self
                .published
                .values()
                .map(|event| format!("{} {}", event.event_type, event.data.to_json()))
                .collect(),
        }
    }

    fn cost(&self) -> Cost {
        Cost {
            attempts: self.sent.clone(),
            inputs: self.log.len(),
        }
    }
}

fn attempt_of(effect: &Effect) -> (String, Side, u32) {
    match effect {
        Effect::Request(request) => (request.step.clone(), request.side, request.attempt),
        Effect::Http(http) => (http.step.clone(), http.side, http.attempt),
        Effect::Publish(publish) => publish.attempt.clone(),
    }
}
