//! A recorded input log folds to the same bytes for ever: state, effects, timers, ids and tokens.
//!
//! Logs are kept and folded again by every later version. So no line of `saga_golden_log.txt` or `saga_golden_folded.txt` may ever
//! change: what would make it differ is a break of users' data, not of this test. Another log may be added beside it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test, also outside of its #[test] functions"
)]

use std::collections::BTreeMap;
use std::fmt::Write;
use tidemill_core::definition::SagaDefinition;
use tidemill_core::json::Value;
use tidemill_core::names::{Kind, LogSubject, ResourceId};
use tidemill_core::saga::{
    CompiledSaga, Effect, Input, Instance, Note, PublishProgress, decode_input,
};
use tidemill_core::timestamp::Timestamp;

const LOG: &str = include_str!("saga_golden_log.txt");
const FOLDED: &str = include_str!("saga_golden_folded.txt");
const PARTITIONS: u16 = 64;

#[test]
fn a_recorded_log_folds_to_the_same_bytes_for_ever() {
    let folded = fold(LOG);
    if folded == FOLDED {
        return;
    }
    let file = concat!(env!("CARGO_TARGET_TMPDIR"), "/saga_golden_folded.txt");
    std::fs::write(file, &folded).unwrap();
    let mut lines = folded.lines().zip(FOLDED.lines()).enumerate();
    let different = lines.find(|(_, (now, kept))| now != kept);
    panic!(
        "users' logs would be folded differently; first at {different:#?}\n(all of it is in {file})"
    );
}

/// What comes of each line, and each instance's state after the last.
fn fold(log: &str) -> String {
    let resource = ResourceId::new(Kind::Saga, "shop", "fulfilment");
    let mut saga: Option<CompiledSaga> = None;
    let mut instances: BTreeMap<String, Instance> = BTreeMap::new();
    let mut out = String::new();
    for line in log.lines().filter(|line| !line.starts_with('#')) {
        if let Some(definition) = line.strip_prefix("definition | ") {
            let read: SagaDefinition = serde_json::from_str(definition).unwrap();
            let written = serde_json::to_string(&read).unwrap();
            assert_eq!(written, definition, "read and written");
            writeln!(out, "revision {}", read.revision().as_str()).unwrap();
            saga = Some(CompiledSaga::new(resource.clone(), read).unwrap());
            continue;
        }
        let saga = saga.as_ref().unwrap();
        let parts: Vec<&str> = line.splitn(4, " |").map(str::trim).collect();
        let [at, subject, headers, payload] = parts[..] else {
            panic!("no line of a log: {line}")
        };
        let at = Timestamp::from_millis(at.parse().unwrap());
        let headers: BTreeMap<String, String> = serde_json::from_str(headers).unwrap();
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let LogSubject { instance, kind, .. } =
            LogSubject::parse(subject, &resource.log_prefix("_tm")).unwrap();
        let again = LogSubject::new(&instance, PARTITIONS, kind.clone()).unwrap();
        assert_eq!(again.to_subject(&resource, "_tm").unwrap(), subject);
        let input = decode_input(kind.clone(), &headers, payload.as_bytes()).unwrap();
        let (note, effects) = match (input, instances.get_mut(&instance)) {
            (Input::Started(started), None) => {
                assert_eq!(started.to_json(), payload.as_bytes(), "read and written");
                let (new, effects) = Instance::start(saga, &instance, *started, at);
                instances.insert(instance.clone(), new);
                (Note::Applied, effects)
            }
            (input, Some(known)) => {
                let applied = known.apply(saga, &input, at);
                (applied.note, applied.effects)
            }
            (_, None) => panic!("not started: {line}"),
        };
        let state = instances[&instance].state();
        let (note, state) = (note.as_str(), state.as_str());
        writeln!(out, "\n{instance} {kind} -> {note}, {state}").unwrap();
        for effect in &effects {
            writeln!(out, "  {}", bytes(effect)).unwrap();
        }
        match instances[&instance].next_timer(saga) {
            Some((due, timer)) => writeln!(out, "  timer {timer} at {}", due.millis()).unwrap(),
            None => writeln!(out, "  no timer").unwrap(),
        }
    }
    for instance in instances.values() {
        let state = state(saga.as_ref().unwrap(), instance);
        writeln!(out, "\n{} = {state}", instance.id).unwrap();
    }
    out
}

/// Everything of an effect that leaves the worker.
fn bytes(effect: &Effect) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    match effect {
        Effect::Request(request) => format!(
            "request {} {:?} reply {} {}",
            request.subject,
            request.headers,
            request.reply,
            text(&request.payload)
        ),
        Effect::Http(http) => format!(
            "http {} {} {:?} {} ms {}",
            http.method.as_str(),
            http.url,
            http.headers,
            http.timeout_ms,
            http.body.as_deref().map_or_else(|| "-".to_owned(), text)
        ),
        Effect::Publish(publish) => {
            let event = publish.event.encode("prefix").unwrap();
            format!(
                "publish {} to {} {} id {:?} {:?} {}",
                publish.effect,
                publish.stream,
                event.subject,
                event.message_id,
                event.headers,
                text(&event.payload)
            )
        }
    }
}

/// All that is known of an instance, as JSON.
fn state(saga: &CompiledSaga, instance: &Instance) -> String {
    let json = |value: serde_json::Value| Value::from(value).to_json();
    let steps: Vec<String> = instance
        .step_statuses(saga)
        .iter()
        .map(|step| {
            // By our own writer: digits are kept.
            let output = step.output.to_json();
            let words = (&step.name, &step.action, &step.compensation, step.attempts);
            format!("{}:{output}", serde_json::to_string(&words).unwrap())
        })
        .collect();
    let publishes: Vec<String> = instance
        .publishes
        .iter()
        .map(|publish| match publish {
            PublishProgress::Stored(at) => format!("{} {}", at.stream, at.sequence),
            other => format!("{other:?}"),
        })
        .collect();
    format!(
        "{}\n  run8 {} deadline {} concluded {:?} decisions {} happened {:?} publishes {publishes:?}\n  retried {} late {} forged {}\n  {}",
        json(serde_json::to_value(instance.summary(saga, 0)).unwrap()),
        instance.run8,
        instance.deadline.millis(),
        instance.concluded_at.map(Timestamp::millis),
        instance.decisions,
        instance.happened,
        instance.retried,
        instance.late_replies,
        instance.forged_replies,
        steps.join("\n  ")
    )
}
