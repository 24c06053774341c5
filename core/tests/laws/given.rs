//! Given a saga and what happened to an instance, when one more input comes, then these effects and this state.
//!
//! Everything is a line of text. A saga is its steps, separated by commas, each a name and flags:
//! `start` (begins at once; else it follows the one before), `after:a+b`, `pivot`, `park` (`onUnknown: Park`), `none`
//! (no compensation), `http`, `publish`, `when:<CEL>`.
//!
//! An input is one of
//! - `<step> a1 <what>` (`c1` for the compensation): `ok`, `ok:<json>`, `code:<NATS service error>`, `bad` (no JSON),
//!   `stream` (a JetStream acknowledgement), `forged`, `token:<text>`, `nobody` (by the only possible sender), `nobody?`, `unreachable`,
//!   `lost`, `unsendable`, `captured`, `http:<status>`, `http:<status>+<Retry-After in ms>`, `publish-refused`, and the timers
//!   `timeout`, `backoff`, `step-timeout`;
//! - `stored <effect>`, `refused <effect>` (a stream refused an outcome's event), `saga-timeout`, `saga-timeout:<decisions>`,
//!   `cancel`, `retry`, `skip`, `started` (again);
//! - `+<ms>`: time passes.
//!
//! What comes of it is `<effects> | <state>`: `send charge a2, publish completed-0 | running`.

use std::collections::BTreeMap;
use tidemill_core::definition::{
    Action, Compensation, HttpMethod, OnUnknown, PublishDefinition, Replies, SEMANTICS,
    SagaDefinition, StepDefinition, StreamRef,
};
use tidemill_core::envelope::Event;
use tidemill_core::json::{Object, Value};
use tidemill_core::names::{Kind, LogKind, ReplyToken, ResourceId, Run, Side, TimerId};
use tidemill_core::retry::Retry;
use tidemill_core::saga::{
    Asked, CompiledSaga, Effect, Input, Instance, Note, Observed, ParkedReason, Published, Started,
    decode_input, violations,
};
use tidemill_core::timestamp::Timestamp;

pub(crate) const TIMEOUT_MS: u64 = 1_000;
pub(crate) const STEP_TIMEOUT_MS: u64 = 60_000;
pub(crate) const SAGA_TIMEOUT_MS: u64 = 600_000;
pub(crate) const RETRY: Retry = Retry {
    max_attempts: 3,
    initial_backoff_ms: 100,
    max_backoff_ms: 1_000,
};

pub(crate) const RUN: Run = Run::new([7; 16]);

/// One instance and everything that is to be known of it.
pub(crate) struct World {
    pub(crate) saga: CompiledSaga,
    pub(crate) instance: Instance,
    pub(crate) now: Timestamp,
    pub(crate) effects: Vec<Effect>,
    pub(crate) note: Note,
}

/// The one helper: `given` these inputs, `when` one more comes, `then` that.
#[track_caller]
pub(crate) fn check(steps: &str, given: &[&str], when: &str, then: &str) -> World {
    let mut world = World::new(steps);
    for input in given {
        world.apply(input);
    }
    if !when.is_empty() {
        world.apply(when);
    }
    assert_eq!(
        world.told(),
        then,
        "{steps}\ngiven {given:?}\nwhen  {when}\n{:#?}",
        world.instance.steps
    );
    world
}

impl World {
    pub(crate) fn new(steps: &str) -> World {
        World::of(saga(steps))
    }

    pub(crate) fn of(saga: CompiledSaga) -> World {
        let now = Timestamp::from_millis(1_000_000);
        let (instance, effects) = Instance::start(&saga, "i-1", started(), now);
        let world = World {
            saga,
            instance,
            now,
            effects,
            note: Note::Applied,
        };
        world.check_invariants("start");
        world
    }

    pub(crate) fn apply(&mut self, text: &str) -> &mut World {
        if let Some(ms) = text.strip_prefix('+') {
            self.now = self.now.plus_millis(ms.parse().unwrap());
            return self;
        }
        let (kind, headers, payload) = self.message(text);
        let input = decode_input(kind, &headers, &payload)
            .unwrap_or_else(|error| panic!("`{text}` is no input: {error}"));
        let applied = self.instance.apply(&self.saga, &input, self.now);
        self.effects = applied.effects;
        self.note = applied.note;
        self.check_invariants(text);
        self
    }

    fn check_invariants(&self, input: &str) {
        let found = violations(&self.saga, &self.instance);
        assert!(found.is_empty(), "after `{input}`: {found:?}");
    }

    /// What came of the last input.
    pub(crate) fn told(&self) -> String {
        let effects: Vec<String> = self.effects.iter().map(tell).collect();
        let state = match &self.instance.parked {
            Some(parked) => format!("parked {}", self.question(parked.reason)),
            None => self.instance.state().as_str().to_owned(),
        };
        format!("{} | {state}", effects.join(", "))
            .trim_start()
            .to_owned()
    }

    fn question(&self, reason: ParkedReason) -> String {
        let step = |index: usize| self.saga.definition.steps[index].name.clone();
        match reason {
            ParkedReason::CompensationFailed(index)
            | ParkedReason::UnknownOutcome(index)
            | ParkedReason::FailedAfterPivot(index) => {
                format!("{} {}", reason.as_str(), step(index))
            }
            ParkedReason::PublishRefused(index, side) => {
                format!("{} {}-{side}", reason.as_str(), step(index))
            }
            ParkedReason::PublishFailed(index) => format!("{} {index}", reason.as_str()),
            ParkedReason::TimeoutAfterPivot => reason.as_str().to_owned(),
        }
    }

    /// The request of an effect that was just made.
    pub(crate) fn header(&self, effect: usize, name: &str) -> String {
        let found = match &self.effects[effect] {
            Effect::Request(request) => request
                .headers
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.clone()),
            Effect::Http(http) => http
                .headers
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.clone()),
            Effect::Publish(_) => None,
        };
        found.unwrap_or_else(|| panic!("no header {name}: {:?}", self.effects[effect]))
    }

    fn message(&self, text: &str) -> (LogKind, Vec<(&'static str, &'static str)>, Vec<u8>) {
        let asked = Asked {
            by: "somebody".to_owned(),
            why: "because".to_owned(),
        };
        let words: Vec<&str> = text.splitn(3, ' ').collect();
        let none = Vec::new;
        match *words.as_slice() {
            ["started"] => (LogKind::Started, none(), started().to_json()),
            ["cancel"] => (LogKind::Cancel, none(), Input::cancel_json(&asked)),
            ["retry"] => (
                LogKind::Decision,
                none(),
                Input::decision_json(tidemill_core::control::Decision::Retry, None, &asked),
            ),
            ["skip"] => (
                LogKind::Decision,
                none(),
                Input::decision_json(tidemill_core::control::Decision::Skip, None, &asked),
            ),
            ["skip", after] => (
                LogKind::Decision,
                none(),
                Input::decision_json(
                    tidemill_core::control::Decision::Skip,
                    Some(after.parse().unwrap()),
                    &asked,
                ),
            ),
            ["saga-timeout"] => (
                LogKind::Timer(TimerId::Saga(self.instance.decisions)),
                none(),
                none_payload(),
            ),
            [timer] if timer.starts_with("saga-timeout:") => {
                let decisions = timer.trim_start_matches("saga-timeout:").parse().unwrap();
                (
                    LogKind::Timer(TimerId::Saga(decisions)),
                    none(),
                    none_payload(),
                )
            }
            ["stored", effect] => {
                let published = Published {
                    stream: "shop_orders".to_owned(),
                    sequence: 7,
                };
                (
                    LogKind::Published(effect.to_owned()),
                    none(),
                    serde_json::to_vec(&published).unwrap(),
                )
            }
            ["refused", effect] => {
                let kind = LogKind::Observed {
                    step: effect.to_owned(),
                    side: Side::Action,
                    attempt: 1,
                };
                (kind, none(), publish_refused().to_json())
            }
            [step, attempt, what] => self.attempt(step, attempt, what),
            _ => panic!("`{text}` is no input"),
        }
    }

    fn attempt(
        &self,
        step: &str,
        attempt: &str,
        what: &str,
    ) -> (LogKind, Vec<(&'static str, &'static str)>, Vec<u8>) {
        let side = match &attempt[..1] {
            "a" => Side::Action,
            "c" => Side::Compensation,
            other => panic!("`{other}` is no side"),
        };
        let attempt: u32 = attempt[1..].parse().unwrap();
        let step = step.to_owned();
        let reply = |token: ReplyToken| LogKind::Reply {
            step: step.clone(),
            side,
            attempt,
            token,
        };
        let token = || RUN.reply_token(&step, side, attempt);
        let observed = |what: Observed| {
            let kind = LogKind::Observed {
                step: step.clone(),
                side,
                attempt,
            };
            (kind, Vec::new(), what.to_json())
        };
        let timer = |timer: TimerId| (LogKind::Timer(timer), Vec::new(), Vec::new());
        let message = || "broken".to_owned();
        match what.split_once(':').unwrap_or((what, "")) {
            ("ok", json) => (reply(token()), Vec::new(), json.as_bytes().to_vec()),
            ("code", code) => {
                let code: &'static str = code.to_owned().leak();
                let headers = vec![
                    ("Nats-Service-Error-Code", code),
                    ("Nats-Service-Error", "no"),
                ];
                (reply(token()), headers, Vec::new())
            }
            ("bad", "") => (reply(token()), Vec::new(), b"<html>".to_vec()),
            ("stream", "") => (
                reply(token()),
                Vec::new(),
                b"{\"stream\":\"S\",\"seq\":1}".to_vec(),
            ),
            ("forged", "") => (
                reply(ReplyToken::new("aaaaaaaaaaaaaaaaaaaa")),
                Vec::new(),
                b"{}".to_vec(),
            ),
            // The token of another attempt, side or step: `token:reserve c2`.
            ("token", of) => {
                let (other, attempt) = of.split_once(' ').unwrap();
                let other_side = match &attempt[..1] {
                    "a" => Side::Action,
                    _ => Side::Compensation,
                };
                let other = RUN.reply_token(other, other_side, attempt[1..].parse().unwrap());
                (reply(other), Vec::new(), b"{}".to_vec())
            }
            ("nobody", "") => observed(Observed::NoResponders { sole: true }),
            ("nobody?", "") => observed(Observed::NoResponders { sole: false }),
            ("unreachable", "") => observed(Observed::Unreachable {
                sole: true,
                message: message(),
            }),
            ("lost", "") => observed(Observed::Lost { message: message() }),
            ("unsendable", "") => observed(Observed::Unsendable { message: message() }),
            ("captured", "") => observed(captured()),
            ("publish-refused", "") => observed(publish_refused()),
            ("http", status) => {
                let (status, retry_after) = match status.split_once('+') {
                    Some((status, ms)) => (status, Some(ms.parse().unwrap())),
                    None => (status, None),
                };
                observed(Observed::Http {
                    status: status.parse().unwrap(),
                    body: Some(Value::Null),
                    retry_after_ms: retry_after,
                })
            }
            ("timeout", "") => timer(TimerId::Attempt(step.clone(), side, attempt)),
            ("backoff", "") => timer(TimerId::Backoff(step.clone(), side, attempt)),
            ("step-timeout", "") => timer(TimerId::Step(step.clone(), side, attempt)),
            _ => panic!("`{what}` is nothing that happens to an attempt"),
        }
    }
}

fn none_payload() -> Vec<u8> {
    Vec::new()
}

/// Read from the log's form, so that fields may be added without this test knowing.
fn captured() -> Observed {
    serde_json::from_str(r#"{"subjectCaptured":{"stream":"S"}}"#).unwrap()
}

fn publish_refused() -> Observed {
    Observed::PublishRefused {
        message: "maximum messages exceeded".to_owned(),
    }
}

pub(crate) fn tell(effect: &Effect) -> String {
    match effect {
        Effect::Request(request) => {
            format!("send {} {}{}", request.step, request.side, request.attempt)
        }
        Effect::Http(http) => format!("send {} {}{}", http.step, http.side, http.attempt),
        Effect::Publish(publish) => format!("publish {}", publish.effect),
    }
}

pub(crate) fn event() -> Event {
    let data = br#"{"total": 10.50, "items": [1, 2]}"#;
    Event {
        id: "e-1".to_owned(),
        source: "/shop".to_owned(),
        event_type: "OrderPlaced".to_owned(),
        subject: Some("o-1".to_owned()),
        time: None,
        extensions: BTreeMap::new(),
        data: Value::parse(data).unwrap(),
        stored_at: Timestamp::from_millis(999_000),
    }
}

pub(crate) fn started() -> Started {
    Started {
        run: RUN,
        revision: "0123456789abcdef".to_owned().try_into().unwrap(),
        input: event(),
        correlation_id: "c-1".to_owned(),
        position: None,
    }
}

/// A saga of steps as the module's documentation says.
pub(crate) fn saga(steps: &str) -> CompiledSaga {
    compile(steps.split(',').map(str::trim))
}

fn compile<'a>(lines: impl Iterator<Item = &'a str>) -> CompiledSaga {
    let mut steps: Vec<StepDefinition> = Vec::new();
    let mut after_pivot = false;
    for line in lines {
        let mut words = line.split(' ');
        let name = words.next().unwrap();
        let previous = steps.last().map(|step| step.name.clone());
        let mut step = step(name, previous);
        for flag in words {
            match flag.split_once(':').unwrap_or((flag, "")) {
                ("start", "") => step.after = Vec::new(),
                ("after", names) => step.after = names.split('+').map(str::to_owned).collect(),
                ("pivot", "") => {
                    step.pivot = true;
                    after_pivot = true;
                }
                ("park", "") => step.on_unknown = OnUnknown::Park,
                ("none", "") => step.compensation = None,
                ("http", "") => {
                    step.action = http(name, "do");
                    step.compensation = Some(compensation(http(name, "undo")));
                }
                ("publish", "") => {
                    step.action = Action::Publish(publish("Done", "=input.data.total"));
                    let taken_back = Action::Publish(publish("Undone", "=input.data.total"));
                    step.compensation = Some(compensation(taken_back));
                }
                ("when", source) => step.when = Some(source.replace('_', " ")),
                _ => panic!("`{flag}` is no flag"),
            }
        }
        if after_pivot {
            step.compensation = None;
        }
        steps.push(step);
    }
    let definition = SagaDefinition {
        semantics: SEMANTICS,
        triggers: Vec::new(),
        on_completed: vec![publish("Confirmed", "=saga.id")],
        on_compensated: vec![publish("Rejected", "=failure.reason")],
        steps,
        timeout_ms: SAGA_TIMEOUT_MS,
        replies: Replies::Direct,
    };
    CompiledSaga::new(ResourceId::new(Kind::Saga, "shop", "orders"), definition).unwrap()
}

pub(crate) fn object(entries: &[(&str, &str)]) -> Value {
    let entries = entries
        .iter()
        .map(|(name, value)| (*name, Value::from(*value)));
    Value::Object(entries.collect::<Object>())
}

pub(crate) fn publish(event_type: &str, value: &str) -> PublishDefinition {
    PublishDefinition {
        stream: StreamRef {
            namespace: "shop".to_owned(),
            name: "orders".to_owned(),
        },
        event_type: event_type.to_owned(),
        entity: Value::from("=input.subject"),
        data: object(&[("value", value)]),
    }
}

fn compensation(action: Action) -> Compensation {
    Compensation {
        action,
        timeout_ms: TIMEOUT_MS,
        step_timeout_ms: STEP_TIMEOUT_MS,
        retry: RETRY,
    }
}

fn http(name: &str, verb: &str) -> Action {
    Action::Http {
        method: HttpMethod::Post,
        url: Value::from(format!("http://{name}/{verb}").as_str()),
        headers: BTreeMap::new(),
        body: object(&[("total", "=input.data.total")]),
    }
}

fn step(name: &str, previous: Option<String>) -> StepDefinition {
    let request = |verb: &str, data: Value| Action::Request {
        subject: format!("{name}.{verb}"),
        data,
    };
    let output = format!("=has(steps.{name}.output) ? steps.{name}.output : null");
    StepDefinition {
        name: name.to_owned(),
        after: previous.into_iter().collect(),
        when: None,
        action: request("do", object(&[("total", "=input.data.total")])),
        compensation: Some(compensation(request(
            "undo",
            object(&[("output", &output)]),
        ))),
        timeout_ms: TIMEOUT_MS,
        step_timeout_ms: STEP_TIMEOUT_MS,
        retry: RETRY,
        pivot: false,
        on_unknown: OnUnknown::Compensate,
    }
}
