//! The saga that process tests run, three requests with compensations started by orders, and what must have come of it.

use crate::participants::{Conduct, Ledger, Participants};
use crate::{Lab, eventually, simulation::shapes};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::contract::Workload;
use tidemill_core::control::{Described, InstanceRequest, StartReply, StartRequest};
use tidemill_core::definition::{Action, SagaDefinition, Trigger};
use tidemill_core::json::Value;
use tidemill_core::status::{InstanceState, SagaCounters};
use tidemill_nats::{Publish, Publisher};

/// Longest wait for anything.
pub const CAP: Duration = match cfg!(feature = "planted-bugs") {
    // With a bug planted, most waits are in vain.
    true => Duration::from_secs(12),
    false => Duration::from_secs(60),
};

/// Steps `reserve`, `charge`, `ship`, started by `OrderPlaced` with a total. Attempts enough for every outage of a test.
///
/// # Panics
/// If the shape isn't there.
pub fn definition() -> SagaDefinition {
    let mut definition = shape("requests");
    for step in &mut definition.steps {
        step.retry.max_attempts = 100;
        step.retry.max_backoff_ms = 500;
    }
    definition
}

/// A shape of the simulation, started by `OrderPlaced` with a total.
///
/// # Panics
/// If it isn't there.
pub fn shape(name: &str) -> SagaDefinition {
    let (_, shape) = shapes::all()
        .into_iter()
        .find(|(known, _)| *known == name)
        .expect("the shape");
    SagaDefinition {
        triggers: vec![Trigger {
            stream: crate::lab::orders(),
            event_type: Some("OrderPlaced".to_owned()),
            when: Some("event.data.total > 0".to_owned()),
            id: "event.subject".to_owned(),
        }],
        ..shape.definition.clone()
    }
}

/// The subjects that its requests go to.
pub fn subjects(definition: &SagaDefinition) -> Vec<String> {
    let actions = definition.steps.iter().flat_map(|step| {
        let compensation = step.compensation.as_ref().map(|c| &c.action);
        [Some(&step.action), compensation]
    });
    let subjects = actions.flatten().filter_map(|action| match action {
        Action::Request { subject, .. } => Some(subject.clone()),
        Action::Http { .. } | Action::Publish(_) => None,
    });
    subjects.collect()
}

/// Participants for all of its requests.
///
/// # Panics
/// If the server is away.
pub async fn participants(
    lab: &Lab,
    decide: impl Fn(&str) -> Conduct + Send + Sync + 'static,
) -> Participants {
    let client = lab.server.client().await.expect("a client");
    let subjects = match &lab.contract.workload {
        Workload::Saga(workload) => subjects(&workload.definition),
        Workload::Projection(_) => Vec::new(),
    };
    Participants::start(&client, &subjects, Arc::new(decide))
        .await
        .expect("participants")
}

/// An event `OrderPlaced` of order `o-<number>`. Every 10th has no total and starts nothing.
pub fn order(number: usize) -> Publish {
    let total = if number % 10 == 9 { 0 } else { 25 };
    let data = format!("{{\"orderId\":\"o-{number}\",\"total\":{total}}}");
    let mut message = Publish::new(format!("shop.orders.o-{number}.OrderPlaced"), data);
    let id = format!("e-{number}");
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-source", "/test"),
        ("ce-type", "OrderPlaced"),
        ("ce-id", &id),
        ("ce-subject", &format!("o-{number}")),
    ] {
        message.headers.insert(name, value);
    }
    message.message_id = Some(id);
    message
}

/// Publishes these orders, each once whatever the server does meanwhile.
///
/// # Panics
/// If one can't be stored.
pub async fn place(lab: &Lab, numbers: Range<usize>) {
    let publisher = Publisher::new(&lab.nats, 512);
    let mut missing: Vec<usize> = numbers.collect();
    while !missing.is_empty() {
        let mut pending = Vec::new();
        for number in missing.drain(..) {
            pending.push((number, publisher.publish(order(number)).await));
        }
        for (number, acknowledgement) in pending {
            if let Err(error) = acknowledgement.await {
                assert!(error.may_pass(), "order {number}: {error}");
                missing.push(number);
            }
        }
    }
}

/// The number of a command's order; 0 for instances that aren't of orders.
pub fn number(command: &str) -> usize {
    let id = instance(command).strip_prefix("o-");
    id.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn instance(command: &str) -> &str {
    command.split('/').nth(2).unwrap_or_default()
}

/// Participants that do, refuse, fail and lose answers, by the order's number.
pub fn by_number(command: &str) -> Conduct {
    match (number(command) % 7, command.rsplit('/').next()) {
        (1, Some("charge")) => Conduct::Refuse,
        (2, Some("ship")) => Conduct::Refuse,
        (3, Some("charge")) => Conduct::LoseFirstAnswer,
        (4, Some("reserve")) => Conduct::FailFirst,
        _ => Conduct::Do,
    }
}

/// Starts an instance by request; whether it wasn't there.
///
/// # Panics
/// If it is refused.
pub async fn start(lab: &Lab, id: &str) -> bool {
    let data = format!("{{\"orderId\":\"{id}\",\"total\":25}}");
    let request = StartRequest {
        id: id.to_owned(),
        data: Value::parse(data.as_bytes()).expect("JSON"),
        subject: None,
        correlation_id: None,
    };
    let reply: StartReply = lab.ask("start", &request).await.expect("started");
    reply.started
}

/// Waits until an instance is finished or parked.
///
/// # Panics
/// If that takes too long.
pub async fn settled(lab: &Lab, id: &str) -> Described {
    let request = InstanceRequest { id: id.to_owned() };
    let answer = tokio::time::timeout(CAP, lab.ask("await", &request)).await;
    answer.expect("an end in time").expect("an end")
}

/// Waits until the counters are as they must be.
pub async fn counted(lab: &Lab, what: &str, wanted: impl Fn(&SagaCounters) -> bool) {
    eventually(what, CAP, || async {
        let counters = lab.counters().await?;
        if wanted(&counters) {
            Ok(())
        } else {
            Err(anyhow::anyhow!("{counters:?}"))
        }
    })
    .await;
}

/// Waits until the ledger is as it must be.
pub async fn done(participants: &Participants, what: &str, wanted: impl Fn(&Ledger) -> bool) {
    eventually(what, CAP, || async {
        participants.ledger(|ledger| match wanted(ledger) {
            true => Ok(()),
            false => Err(format!("{ledger:?}")),
        })
    })
    .await;
}

/// Waits until a worker gives this text as a reason why it isn't ready.
pub async fn said(lab: &Lab, pod: &str, what: &str) {
    eventually(format!("{what} at /readyz"), CAP, || async {
        match lab.look(pod, "/readyz").await? {
            text if text.contains(what) => Ok(()),
            text => Err(anyhow::anyhow!(text)),
        }
    })
    .await;
}

/// Waits until a worker is ready.
pub async fn ready(lab: &Lab, pod: &str) {
    eventually("readiness", CAP, || async {
        match lab.look(pod, "/readyz").await? {
            text if text.starts_with("HTTP/1.1 200") => Ok(()),
            text => Err(anyhow::anyhow!(text)),
        }
    })
    .await;
}

/// Waits until at least `count` instances are completed.
pub async fn completed(lab: &Lab, count: u64) {
    eventually(format!("{count} completed"), CAP, || async {
        match lab.counters().await? {
            counters if counters.completed >= count => Ok(()),
            counters => Err(anyhow::anyhow!("{counters:?}")),
        }
    })
    .await;
}

/// Waits until orders `0..orders`, treated [`by_number`], are dealt with, and looks at everything there is about them:
/// counters, trigger counters, summaries, outcome events and the participants' ledger, each exactly.
///
/// # Panics
/// If something isn't as it must be.
pub async fn check(lab: &Lab, participants: &Participants, orders: usize) {
    let ends: BTreeMap<String, InstanceState> = (0..orders)
        .filter(|number| number % 10 != 9)
        .map(|number| (format!("o-{number}"), end(number)))
        .collect();
    check_counters(lab, &ends, orders).await;
    let events = lab.events().await.expect("events");
    check_events(&events, &ends);
    let summaries = eventually("every summary written", CAP, || async {
        let summaries = lab.summaries().await?;
        let states: BTreeMap<String, InstanceState> = summaries
            .into_iter()
            .map(|(id, summary)| (id, summary.state))
            .collect();
        match states.values().filter(|state| state.is_finished()).count() {
            finished if finished >= ends.len() => Ok(states),
            finished => Err(anyhow::anyhow!("{finished} of {}", ends.len())),
        }
    })
    .await;
    assert_eq!(summaries, ends);
    check_ledger(participants, &ends);
}

fn end(number: usize) -> InstanceState {
    match number % 7 {
        1 | 2 => InstanceState::Compensated,
        _ => InstanceState::Completed,
    }
}

async fn check_counters(lab: &Lab, ends: &BTreeMap<String, InstanceState>, orders: usize) {
    let count = |wanted| ends.values().filter(|end| **end == wanted).count() as u64;
    let finished = ends.len() as u64;
    // Each instance publishes its outcome to the stream that it was started from.
    let seen = orders as u64 + finished;
    let counters = eventually("every event and instance counted", CAP, || async {
        let counters = lab.counters().await?;
        let trigger = counters.triggers.get("shop/orders").cloned();
        let trigger = trigger.unwrap_or_default();
        let done = counters.completed + counters.compensated >= finished
            && counters.running == 0
            && trigger.seen >= seen;
        if done {
            Ok(counters)
        } else {
            Err(anyhow::anyhow!("{counters:?}"))
        }
    })
    .await;
    let trigger = &counters.triggers["shop/orders"];
    assert_eq!(
        (
            counters.started,
            counters.completed,
            counters.compensated,
            counters.parked,
            counters.forged_replies,
            counters.unreadable,
            counters.log_resets,
        ),
        (
            finished,
            count(InstanceState::Completed),
            count(InstanceState::Compensated),
            0,
            0,
            0,
            0
        ),
        "{counters:#?}"
    );
    assert_eq!(
        (
            trigger.seen,
            trigger.matched,
            trigger.skipped,
            trigger.existing,
            trigger.parked
        ),
        (seen, finished, seen - finished, 0, 0),
        "{counters:#?}"
    );
}

fn check_events(events: &[tidemill_nats::StoredMessage], ends: &BTreeMap<String, InstanceState>) {
    let mut outcomes: Vec<(String, InstanceState)> = Vec::new();
    for event in events {
        let mut tokens = event.subject.split('.').skip(2);
        let entity = tokens.next().unwrap_or_default().to_owned();
        match tokens.next() {
            Some("OrderConfirmed") => outcomes.push((entity, InstanceState::Completed)),
            Some("OrderRejected") => outcomes.push((entity, InstanceState::Compensated)),
            _ => {}
        }
    }
    outcomes.sort();
    let expected: Vec<(String, InstanceState)> =
        ends.iter().map(|(id, end)| (id.clone(), *end)).collect();
    assert_eq!(outcomes, expected, "outcome events, each once");
}

fn check_ledger(participants: &Participants, ends: &BTreeMap<String, InstanceState>) {
    participants.ledger(|ledger| {
        let mut standing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for command in ledger.standing() {
            let step = command.rsplit('/').next().unwrap_or_default();
            let new = standing.entry(instance(command)).or_default().insert(step);
            assert!(new, "{command}: this step of the instance was done twice");
        }
        let all = BTreeSet::from(["charge", "reserve", "ship"]);
        for (id, end) in ends {
            let wanted = (*end == InstanceState::Completed).then_some(&all);
            assert_eq!(standing.get(id.as_str()), wanted, "{id}: {end:?}");
        }
        let unknown: Vec<&&str> = standing
            .keys()
            .filter(|id| !ends.contains_key(**id))
            .collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        // One run of each instance: a second start would have command ids of its own.
        let mut runs: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for command in ledger.asked.keys() {
            let run = command.split('/').nth(3).unwrap_or_default();
            runs.entry(instance(command)).or_default().insert(run);
        }
        for (id, runs) in runs {
            assert_eq!(runs.len(), 1, "{id}: {runs:?}");
        }
    });
}
