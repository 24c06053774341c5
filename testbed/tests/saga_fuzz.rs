//! Any input in any state of any saga: nothing panics, no invariant breaks, nothing gets stuck.
//!
//! A fifth of `FUZZ_CASES` (default 15,000; CI sets it) are so many instances with 60 inputs each; `FUZZ_FIRST` says with
//! which seed they begin.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test, also outside of its #[test] functions"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use tidemill_core::control::Decision;
use tidemill_core::json::Value;
use tidemill_core::names::{LogKind, ReplyToken, Run, Side, TimerId};
use tidemill_core::saga::{
    Answer, Asked, CompiledSaga, Effect, Failed, Input, Instance, Note, Observed, Phase, Progress,
    Published, Started, violations,
};
use tidemill_core::timestamp::Timestamp;
use tidemill_testbed::simulation::{Random, shapes};

/// Inputs per instance; more than the longest way through any shape without failures.
const INPUTS: u64 = 60;

fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn any_input_in_any_state_of_any_saga() {
    let (first, cases) = (
        number("FUZZ_FIRST", 1),
        number("FUZZ_CASES", 15_000).div_ceil(5),
    );
    let shapes = shapes::all();
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let parts = std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|part| {
                let seeds =
                    (first + part..first + cases).step_by(usize::try_from(threads).unwrap());
                let shapes = &shapes;
                scope.spawn(move || seeds.map(|seed| one(shapes, seed)).collect::<Vec<_>>())
            })
            .collect();
        let parts = parts.into_iter();
        parts
            .flat_map(|part| part.join().unwrap())
            .collect::<Vec<_>>()
    });
    let mut ended: BTreeMap<&str, u64> = BTreeMap::new();
    for state in parts {
        *ended.entry(state).or_insert(0) += 1;
    }
    println!("{cases} instances, {INPUTS} inputs each: {ended:?}");
    if cases >= 1_000 {
        for state in [
            "running",
            "compensating",
            "completed",
            "compensated",
            "parked",
        ] {
            assert!(
                ended.contains_key(state),
                "no instance ended {state}: {ended:?}"
            );
        }
    }
}

/// Runs an instance, and says how it ended.
fn one(shapes: &[(&'static str, Arc<CompiledSaga>)], seed: u64) -> &'static str {
    let (name, saga) = &shapes[usize::try_from(seed).unwrap() % shapes.len()];
    let mut case = Case::new(saga, seed);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case.run()));
    if !matches!(result, Ok(Ok(()))) {
        let problem = match result {
            Ok(Err(problem)) => problem,
            Ok(Ok(())) | Err(_) => "it panicked, see above".to_owned(),
        };
        panic!(
            "{name}, seed {seed}: {problem}\n{}{:#?}\nagain: FUZZ_FIRST={seed} FUZZ_CASES=1 cargo test -p tidemill-testbed --test saga_fuzz",
            case.trace, case.instance
        );
    }
    case.instance.state().as_str()
}

struct Case<'a> {
    saga: &'a CompiledSaga,
    random: Random,
    instance: Instance,
    inputs: Vec<(Input, Timestamp)>,
    started: (Started, Timestamp),
    now: i64,
    trace: String,
}

impl<'a> Case<'a> {
    fn new(saga: &'a Arc<CompiledSaga>, seed: u64) -> Case<'a> {
        let mut random = Random::new(seed);
        let data = format!("{{\"total\":{},\"orderId\":\"o\"}}", random.below(10_000));
        let started = Started {
            run: Run::new(random.bits()),
            revision: saga.definition.revision(),
            input: shapes::event("e", "o-1", Value::parse(data.as_bytes()).unwrap()),
            correlation_id: "c".to_owned(),
            position: None,
        };
        let at = Timestamp::from_millis(1_000);
        let (instance, _) = Instance::start(saga, "i", started.clone(), at);
        Case {
            saga,
            random,
            instance,
            inputs: Vec::new(),
            started: (started, at),
            now: 1_000,
            trace: String::new(),
        }
    }

    fn run(&mut self) -> Result<(), String> {
        for _ in 0..INPUTS {
            let (input, expected) = self.draw();
            self.step(input, expected)?;
        }
        // Folding again gives the same, bytes of effects included.
        let (started, at) = self.started.clone();
        let (mut again, _) = Instance::start(self.saga, "i", started, at);
        for (input, at) in &self.inputs {
            again.apply(self.saga, input, *at);
        }
        if again != self.instance
            || again.outstanding(self.saga) != self.instance.outstanding(self.saga)
        {
            return Err("folding the same inputs again gives another state".to_owned());
        }
        Ok(())
    }

    fn step(&mut self, input: Input, valid_timer: bool) -> Result<(), String> {
        let _ = writeln!(self.trace, "{} {input:?}", self.now);
        let at = Timestamp::from_millis(self.now);
        let before = self.instance.clone();
        let applied = self.instance.apply(self.saga, &input, at);
        self.inputs.push((input, at));
        if let Some(violation) = violations(self.saga, &self.instance).first() {
            return Err(format!("{} {}", violation.invariant, violation.detail));
        }
        if valid_timer && applied.note == Note::Ignored {
            return Err("the timer that it offered is stale".to_owned());
        }
        self.check_effects(&applied.effects)?;
        self.check_bounds(&before)?;
        if !matches!(before.phase, Phase::Forward | Phase::Backward)
            && before.steps != self.instance.steps
        {
            return Err("a step changed after the outcome was decided".to_owned());
        }
        if before.is_finished()
            && (before.phase != self.instance.phase || !applied.effects.is_empty())
        {
            return Err("something happened after the end".to_owned());
        }
        Ok(())
    }

    /// What is to be done now is in the state: a worker that takes over finds the same.
    fn check_effects(&self, effects: &[Effect]) -> Result<(), String> {
        let outstanding = self.instance.outstanding(self.saga);
        for effect in effects {
            if !outstanding.contains(effect) {
                return Err(format!("the state doesn't know of {effect:?}"));
            }
            // Writing a whole state is slow, so not every one is looked at.
            if self.inputs.len().is_multiple_of(16)
                && let Effect::Request(request) = effect
                && format!("{effect:?}{:?}", self.instance)
                    .contains(request.reply.to_string().rsplit('.').next().unwrap_or("?"))
            {
                return Err("a reply token is shown".to_owned());
            }
        }
        Ok(())
    }

    fn check_bounds(&self, before: &Instance) -> Result<(), String> {
        for (definition, state) in self.saga.definition.steps.iter().zip(&self.instance.steps) {
            let limit = definition.retry.max_attempts;
            if state.action.failures > limit {
                return Err(format!(
                    "{} failed more than {limit} times",
                    definition.name
                ));
            }
            for work in [&state.action, &state.compensation] {
                if work.error.as_ref().is_some_and(|error| error.len() > 1_000) {
                    return Err("an error has no limit".to_owned());
                }
            }
        }
        let parked = self.instance.parked.as_ref();
        let message = parked.map_or(0, |parked| parked.message.chars().count());
        let failure = self.instance.failure.as_ref();
        if message > 200 || failure.is_some_and(|failure| failure.message.chars().count() > 200) {
            return Err("words of others have no limit".to_owned());
        }
        if self.instance.happened.len() > self.instance.steps.len() {
            return Err("a step happened twice".to_owned());
        }
        let made = |instance: &Instance| -> u32 {
            let works = instance.steps.iter();
            works
                .map(|step| step.action.attempt + step.compensation.attempt)
                .sum()
        };
        let began = made(&self.instance) - made(before);
        if usize::try_from(began).unwrap() > self.instance.steps.len() {
            return Err(format!("{began} attempts came of one input"));
        }
        Ok(())
    }

    /// The next input: mostly one that can come, sometimes any. True: a timer that the instance offers.
    fn draw(&mut self) -> (Input, bool) {
        self.now += i64::try_from(self.random.below(3_000)).unwrap();
        if self.random.percent(20) {
            return (self.anything(), false);
        }
        if self.random.percent(20)
            && let Some((due, timer)) = self.instance.next_timer(self.saga)
        {
            self.now = self.now.max(due.millis());
            return (Input::Timer(timer), true);
        }
        if self.random.percent(15) && self.instance.parked.is_some() {
            return (self.decision(), false);
        }
        let outstanding = self.instance.outstanding(self.saga);
        let drawn = self.random.below(outstanding.len() as u64);
        match outstanding.get(usize::try_from(drawn).unwrap()) {
            Some(Effect::Publish(publish)) if self.random.percent(70) => {
                (self.published(publish.effect.clone()), false)
            }
            Some(Effect::Publish(publish)) => {
                let (step, side, attempt) = (publish.effect.clone(), Side::Action, 1);
                let (step, side, attempt) =
                    match self.saga.definition.steps.iter().find(|definition| {
                        step.strip_suffix("-a") == Some(&definition.name)
                            || step.strip_suffix("-c") == Some(&definition.name)
                    }) {
                        Some(definition) if step.ends_with("-c") => {
                            (definition.name.clone(), Side::Compensation, 1)
                        }
                        Some(definition) => (definition.name.clone(), Side::Action, 1),
                        None => (step, side, attempt),
                    };
                let what = Observed::PublishRefused {
                    message: "x".repeat(300),
                };
                (
                    Input::Observed {
                        step,
                        side,
                        attempt,
                        what,
                    },
                    false,
                )
            }
            Some(Effect::Request(request)) => {
                let (step, side, attempt) = (request.step.clone(), request.side, request.attempt);
                (self.answered(step, side, attempt), false)
            }
            Some(Effect::Http(http)) => {
                let (step, side, attempt) = (http.step.clone(), http.side, http.attempt);
                (self.answered(step, side, attempt), false)
            }
            None => (self.anything(), false),
        }
    }

    fn decision(&mut self) -> Input {
        let retry = self.random.percent(50);
        Input::Decision {
            decision: if retry {
                Decision::Retry
            } else {
                Decision::Skip
            },
            after: None,
            asked: Asked::default(),
        }
    }

    fn published(&mut self, effect: String) -> Input {
        let at = Published {
            stream: "s".to_owned(),
            sequence: self.random.draw(),
        };
        Input::Published { effect, at }
    }

    fn answered(&mut self, step: String, side: Side, attempt: u32) -> Input {
        // An earlier attempt is answered now and then.
        let attempt = match self.random.percent(20) {
            true => 1 + u32::try_from(self.random.below(u64::from(attempt))).unwrap(),
            false => attempt,
        };
        if self.random.percent(60) {
            let token = self.instance.run.reply_token(&step, side, attempt);
            let answer = self.answer();
            return Input::Reply {
                step,
                side,
                attempt,
                token,
                answer,
            };
        }
        let what = self.observed();
        Input::Observed {
            step,
            side,
            attempt,
            what,
        }
    }

    fn answer(&mut self) -> Option<Answer> {
        match self.random.below(10) {
            0..=4 => Some(Answer::Success(Value::from("done"))),
            5 | 6 => Some(Answer::Refused {
                code: 409,
                message: "no".to_owned(),
            }),
            7 => None,
            _ => Some(Answer::Failed(Failed {
                retry_after_ms: self.random.percent(50).then(|| self.random.draw()),
                message: "x".repeat(usize::try_from(self.random.below(400)).unwrap()),
                ..Failed::delivered("ServiceError", "")
            })),
        }
    }

    fn observed(&mut self) -> Observed {
        let message = "é".repeat(usize::try_from(self.random.below(300)).unwrap());
        let sole = self.random.percent(50);
        match self.random.below(7) {
            0 => Observed::NoResponders { sole },
            1 => Observed::Unreachable { sole, message },
            2 => Observed::Lost { message },
            3 => Observed::Unsendable { message },
            4 => Observed::PublishRefused { message },
            _ => Observed::Http {
                status: [200, 404, 409, 500, 503][usize::try_from(self.random.below(5)).unwrap()],
                body: self.random.percent(80).then_some(Value::Null),
                retry_after_ms: self.random.percent(30).then(|| self.random.draw()),
            },
        }
    }

    /// Something that no worker would append; it must be harmless all the same.
    fn anything(&mut self) -> Input {
        let steps = &self.saga.definition.steps;
        let drawn = usize::try_from(self.random.below(steps.len() as u64 + 1)).unwrap();
        let step = steps
            .get(drawn)
            .map_or("nothing", |step| &step.name)
            .to_owned();
        let side = match self.random.percent(50) {
            true => Side::Action,
            false => Side::Compensation,
        };
        let attempt = match self.random.below(20) {
            0 => 0,
            1 => u32::MAX,
            drawn => u32::try_from(drawn % 5).unwrap(),
        };
        match self.random.below(12) {
            0 => Input::Started(Box::new(self.started.0.clone())),
            1 | 2 => self.answered(step, side, attempt.max(1)),
            3 => {
                let answer = self.answer();
                Input::Reply {
                    step,
                    side,
                    attempt,
                    token: ReplyToken::new("forged"),
                    answer,
                }
            }
            4 => {
                let what = self.observed();
                Input::Observed {
                    step,
                    side,
                    attempt,
                    what,
                }
            }
            5 => {
                let effect = [
                    format!("{step}-{side}"),
                    format!("completed-{}", attempt % 3),
                    format!("compensated-{}", attempt % 3),
                ][usize::try_from(self.random.below(3)).unwrap()]
                .clone();
                self.published(effect)
            }
            6 => Input::Timer(TimerId::Attempt(step, side, attempt)),
            7 => Input::Timer(TimerId::Backoff(step, side, attempt)),
            8 => Input::Timer(TimerId::Step(step, side, attempt)),
            9 => Input::Timer(TimerId::Saga(attempt)),
            10 if self.random.percent(20) => Input::Cancel(Asked {
                by: "x".to_owned(),
                why: "y".repeat(1_000),
            }),
            _ => self.decision(),
        }
    }
}

/// What the log holds of an attempt is also told by its subject.
#[test]
fn every_outstanding_request_has_its_own_reply_subject() {
    for (name, saga) in shapes::all() {
        let case = Case::new(&saga, 1);
        for effect in case.instance.outstanding(&saga) {
            if let Effect::Request(request) = effect {
                let LogKind::Reply {
                    step,
                    side,
                    attempt,
                    ..
                } = request.reply
                else {
                    panic!("{name}: {request:?}");
                };
                assert_eq!(
                    (step, side, attempt),
                    (request.step, request.side, request.attempt)
                );
                assert!(
                    case.instance
                        .steps
                        .iter()
                        .any(|step| matches!(step.action.progress, Progress::InFlight(_)))
                );
            }
        }
    }
}
