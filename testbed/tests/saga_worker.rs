//! Saga workers as processes on a real server.

use std::sync::Arc;
use std::time::Duration;
use tidemill_core::control::{Described, InstanceRequest, StartReply, StartRequest};
use tidemill_core::definition::{Action, SagaDefinition, StreamRef, Trigger};
use tidemill_core::json::Value;
use tidemill_core::names::Kind;
use tidemill_core::status::InstanceState;
use tidemill_nats::{Publish, Publisher};
use tidemill_testbed::participants::{Conduct, Participants};
use tidemill_testbed::simulation::shapes;
use tidemill_testbed::{Lab, eventually};

const CAP: Duration = Duration::from_secs(60);

/// Three `request` steps with compensations, started by `OrderPlaced`.
fn definition() -> SagaDefinition {
    let (_, chain) = shapes::all()
        .into_iter()
        .find(|(name, _)| *name == "requests")
        .expect("the shape");
    let stream = StreamRef {
        namespace: "shop".to_owned(),
        name: "orders".to_owned(),
    };
    let trigger = Trigger {
        stream,
        event_type: Some("OrderPlaced".to_owned()),
        when: Some("event.data.total > 0".to_owned()),
        id: "event.subject".to_owned(),
    };
    SagaDefinition {
        triggers: vec![trigger],
        ..chain.definition.clone()
    }
}

fn subjects(definition: &SagaDefinition) -> Vec<String> {
    let actions = definition.steps.iter().flat_map(|step| {
        [
            Some(&step.action),
            step.compensation.as_ref().map(|c| &c.action),
        ]
    });
    let subjects = actions.flatten().filter_map(|action| match action {
        Action::Request { subject, .. } => Some(subject.clone()),
        Action::Http { .. } | Action::Publish(_) => None,
    });
    subjects.collect()
}

/// Publishes orders `from..to`; every 10th has total 0 and starts nothing.
async fn publish_orders(lab: &Lab, from: usize, to: usize) {
    let publisher = Publisher::new(&lab.nats, 512);
    let mut pending = Vec::new();
    for index in from..to {
        let total = if index % 10 == 9 { 0 } else { 25 };
        let mut message = Publish::new(
            format!("shop.orders.o-{index}.OrderPlaced"),
            format!("{{\"orderId\":\"o-{index}\",\"total\":{total}}}"),
        );
        for (name, value) in [
            ("ce-specversion", "1.0"),
            ("ce-source", "/test"),
            ("ce-type", "OrderPlaced"),
        ] {
            message.headers.insert(name, value);
        }
        message.headers.insert("ce-id", format!("e-{index}"));
        message.headers.insert("ce-subject", format!("o-{index}"));
        message.message_id = Some(format!("e-{index}"));
        pending.push(publisher.publish(message).await);
    }
    for ack in pending {
        ack.await.expect("stored");
    }
}

fn by_number(command: &str) -> Conduct {
    let number: usize = command
        .split('/')
        .nth(2)
        .and_then(|id| id.strip_prefix("o-"))
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    match (number % 7, command.rsplit('/').next()) {
        (1, Some("charge")) => Conduct::Refuse,
        (2, Some("ship")) => Conduct::Refuse,
        (3, Some("charge")) => Conduct::LoseFirstAnswer,
        (4, Some("reserve")) => Conduct::FailFirst,
        _ => Conduct::Do,
    }
}

/// What must be true once all orders are dealt with.
async fn check(lab: &Lab, participants: &Participants, orders: usize) {
    let matching = orders - orders / 10;
    let counters = eventually("every instance finished", CAP, || async {
        let counters = lab.counters().await?;
        match counters.completed + counters.compensated {
            done if done == matching as u64 => Ok(counters),
            _ => Err(anyhow::anyhow!("{counters:?}")),
        }
    })
    .await;
    assert_eq!(
        (counters.started, counters.running, counters.parked),
        (matching as u64, 0, 0)
    );
    let refused = |number: &usize| matches!(number % 7, 1 | 2);
    let compensated = (0..orders)
        .filter(|number| number % 10 != 9)
        .filter(refused)
        .count();
    assert_eq!(counters.compensated, compensated as u64);
    let summaries = eventually("every summary written", CAP, || async {
        let summaries = lab.summaries().await?;
        let finished = summaries
            .values()
            .filter(|summary| summary.state.is_finished())
            .count();
        if finished == matching {
            Ok(summaries)
        } else {
            Err(anyhow::anyhow!("{finished} of {matching}"))
        }
    })
    .await;
    participants.ledger(|ledger| {
        let mut standing = std::collections::BTreeMap::new();
        for command in ledger.standing() {
            *standing
                .entry(command.split('/').nth(2).unwrap_or_default().to_owned())
                .or_insert(0) += 1;
        }
        for (id, summary) in &summaries {
            let wanted = if summary.state == InstanceState::Completed {
                Some(&3)
            } else {
                None
            };
            assert_eq!(standing.get(id), wanted, "{id}: {summary:?}");
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_carried_through_whatever_dies() {
    let definition = definition();
    let lab = Lab::saga("fulfilment", definition.clone())
        .await
        .expect("a lab");
    let client = lab.server.client().await.expect("a client");
    let participants = Participants::start(&client, &subjects(&definition), Arc::new(by_number))
        .await
        .expect("participants");
    let mut first = lab.worker("a").expect("a worker");
    publish_orders(&lab, 0, 200).await;
    eventually("some progress", CAP, || async {
        let counters = lab.counters().await?;
        if counters.completed >= 20 {
            Ok(())
        } else {
            Err(anyhow::anyhow!("{counters:?}"))
        }
    })
    .await;
    first.kill9();
    let mut second = lab.worker("b").expect("a worker");
    publish_orders(&lab, 200, 400).await;
    check(&lab, &participants, 400).await;

    // Asked for, not triggered.
    let started: StartReply = lab
        .ask(
            "start",
            &StartRequest {
                id: "by-hand".to_owned(),
                data: Value::parse(b"{\"total\":5}").expect("JSON"),
                subject: None,
                correlation_id: None,
            },
        )
        .await
        .expect("started");
    assert!(started.started);
    let request = InstanceRequest {
        id: "by-hand".to_owned(),
    };
    let described: Described = lab.ask("await", &request).await.expect("an end");
    // `input.data.orderId` isn't there.
    assert_eq!(
        described.summary.reason.as_deref(),
        Some("ExpressionError"),
        "{described:#?}"
    );
    assert_eq!(described.summary.state, InstanceState::Compensated);
    assert_eq!(lab.contract.resource.kind, Kind::Saga);

    second.terminate().expect("SIGTERM");
    assert!(
        second.wait_exit(CAP).await.expect("an end").success(),
        "{}",
        second.stderr()
    );
}
