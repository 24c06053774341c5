//! That an attempt reached nobody is only said for all by who has owned the instance all the while (docs/adr/0003).

use futures::future::join_all;
use std::sync::Arc;
use tidemill_core::control::{Accepted, CancelRequest, Described, InstanceRequest};
use tidemill_core::definition::SagaDefinition;
use tidemill_core::status::InstanceState;
use tidemill_testbed::fulfilment::{CAP, definition, done, start, subjects};
use tidemill_testbed::participants::{Conduct, Participants};
use tidemill_testbed::{Lab, eventually};

/// One step, whose attempts wait long for an answer, and long before the next.
fn shipping() -> SagaDefinition {
    let mut definition = definition();
    let mut ship = definition.steps.remove(2);
    ship.after = Vec::new();
    ship.timeout_ms = 60_000;
    ship.retry.initial_backoff_ms = 3000;
    ship.retry.max_backoff_ms = 3000;
    definition.steps = vec![ship];
    definition
}

/// Waits until the log holds so many inputs of a kind that say this.
async fn heard(lab: &Lab, kind: &str, text: &str, count: usize) {
    eventually(format!("{count} inputs {kind} {text}"), CAP, || async {
        let log = lab.messages("shop_fulfilment_log", Vec::new()).await?;
        let found = log.iter().filter(|input| {
            input.subject.contains(kind) && String::from_utf8_lossy(&input.payload).contains(text)
        });
        match found.count() {
            found if found >= count => Ok(()),
            found => Err(anyhow::anyhow!("{found}")),
        }
    })
    .await;
}

/// Waits until an instance is taken back. While owners change there may be no answer, or none of use.
async fn compensated(lab: &Lab, id: &str) {
    let request = InstanceRequest { id: id.to_owned() };
    eventually(format!("the end of {id}"), CAP, || async {
        let described: Described = lab.ask("describe", &request).await?;
        match described.summary.state {
            InstanceState::Compensated => Ok(()),
            _ => Err(anyhow::anyhow!("{described:?}")),
        }
    })
    .await;
}

/// While it was frozen its successor made the next attempt, which was delivered. When it goes on it makes the same one, and nobody is
/// there any more: the step may have happened all the same, and is taken back.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_worker_does_not_say_for_its_successor_that_nobody_was_reached() {
    const COUNT: usize = 8;
    let definition = shipping();
    let [act, compensate] = <[String; 2]>::try_from(subjects(&definition)).expect("two subjects");
    let lab = Lab::saga("fulfilment", definition).await.expect("a lab");
    let client = lab.server.client().await.expect("a client");
    let participants = async |subject: &str, conduct: Conduct| {
        Participants::start(
            &client,
            &[subject.to_owned()],
            Arc::new(move |_: &str| conduct),
        )
        .await
        .expect("participants")
    };
    let undoing = participants(&compensate, Conduct::Do).await;
    let mut frozen = lab.worker("a").expect("a worker");
    let ids: Vec<String> = (0..COUNT).map(|number| format!("s-{number}")).collect();
    for id in &ids {
        assert!(start(&lab, id).await);
    }
    heard(&lab, ".x.ship.a.1", "\"sole\":true", COUNT).await;
    frozen.sigstop().await.expect("frozen");

    let doing = participants(&act, Conduct::HoldAnswers).await;
    let mut successor = lab.worker("b").expect("a worker");
    done(&doing, "every shipment asked for", |ledger| {
        ledger.held() >= COUNT
    })
    .await;
    // Given up as soon as it is known what came of the attempt.
    join_all(ids.iter().map(|id| async {
        let request = CancelRequest {
            id: id.clone(),
            by: "me".to_owned(),
            why: "a test".to_owned(),
        };
        let accepted: Accepted = lab.ask("cancel", &request).await.expect("cancelled");
        accepted
    }))
    .await;
    heard(&lab, ".c", "a test", COUNT).await;
    successor.kill9();
    drop(doing);
    client.flush().await.expect("nobody listens any more");
    frozen.sigcont().expect("it goes on");
    for id in &ids {
        compensated(&lab, id).await;
    }
    undoing.ledger(|ledger| assert_eq!(ledger.taken_back.len(), COUNT, "{ledger:?}"));
}
