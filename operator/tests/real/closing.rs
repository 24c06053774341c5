//! A Saga that is deleted while instances run.

use crate::workloads::{Worker, run_worker};
use crate::world::{CAP, World};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tidemill_crds::eventstream::EventStream;
use tidemill_crds::saga::Saga;
use tidemill_testbed::wait::within;

const DEPLOYMENT: &str = "tidemill-saga-fulfilment";

pub(crate) fn fulfilment(on_delete: &str) -> Value {
    let never = json!({"maxAttempts": 100, "initialBackoff": "200ms", "maxBackoff": "200ms"});
    json!({
        "startOn": [{"stream": {"name": "orders"}, "start": {"from": "Beginning"}, "id": "event.subject"}],
        "steps": [
            {"name": "reserve", "request": {"subject": "inventory.reserve"}, "compensate": {"request": {"subject": "inventory.release"}}},
            {"name": "charge", "request": {"subject": "payments.charge"}, "retry": never},
        ],
        "partitions": 4,
        "onDelete": on_delete,
    })
}

impl World {
    /// Waits for figures in the status.
    async fn counts(&self, expected: &[(&str, u64)]) {
        let sagas: Api<Saga> = self.api();
        let counted = within(CAP, async || {
            let found = sagas
                .get("fulfilment")
                .await
                .map_err(|error| error.to_string())?;
            let status = serde_json::to_value(found.status).unwrap();
            match expected
                .iter()
                .all(|(figure, count)| status[figure] == *count)
            {
                true => Ok(()),
                false => Err(status.to_string()),
            }
        });
        counted.await.unwrap();
    }

    /// Waits for a contract that isn't this one, and runs it as the kubelet would.
    async fn next_worker(&self, before: &str) -> (String, Worker) {
        let next = within(CAP, async || match self.contract_of(DEPLOYMENT).await {
            (name, contract) if name != before => Ok((name, contract)),
            (name, _) => Err(name),
        });
        let (name, contract) = next.await.unwrap();
        let worker = run_worker(&contract);
        self.pods_are_ready(DEPLOYMENT).await;
        (name, worker)
    }
}

/// Answers requests of a participant.
fn participant(client: async_nats::Client, subject: &'static str) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut requests = client.subscribe(subject).await.unwrap();
        while let Some(request) = requests.next().await {
            if let Some(reply) = request.reply {
                client.publish(reply, "{}".into()).await.unwrap();
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_compensated_before_their_saga_goes() {
    let world = World::start().await;
    let operator = world.operator("a").await;
    let _participants = ["inventory.reserve", "inventory.release"]
        .map(|subject| participant(world.nats.client(), subject));
    world.apply::<EventStream>("orders", json!({})).await;
    world
        .apply::<Saga>("fulfilment", fulfilment("Compensate"))
        .await;
    world.expect::<Saga>("fulfilment", "WorkersNotReady").await;
    let (first, worker) = world.next_worker("").await;
    // Nobody answers `payments.charge`: it stays there.
    world.place("o-1").await;
    world.counts(&[("running", 1)]).await;

    let sagas: Api<Saga> = world.api();
    sagas
        .delete("fulfilment", &DeleteParams::default())
        .await
        .unwrap();
    let said = world.expect::<Saga>("fulfilment", "Deleting").await;
    assert!(
        said.contains("onDelete: Compensate") && said.contains("running: 1, parked: 0"),
        "{said}"
    );
    // What comes now isn't begun any more.
    drop(worker);
    world.place("o-2").await;
    let (closing, worker) = world.next_worker(&first).await;
    let gone = within(CAP, async || match sagas.get_opt("fulfilment").await {
        Ok(None) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    gone.await.unwrap();
    drop(worker);
    // It was taken back, and stays in the log: the Saga applied again knows it.
    world.apply::<Saga>("fulfilment", fulfilment("Stop")).await;
    let (_, _worker) = world.next_worker(&closing).await;
    world
        .counts(&[("compensated", 1), ("started", 2), ("running", 1)])
        .await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_were_left_long_ago_wait_for_a_person() {
    let world = World::start().await;
    let operator = world
        .operator_with("a", json!({"resumeLimitSeconds": 1}))
        .await;
    let _participant = participant(world.nats.client(), "inventory.reserve");
    world.apply::<EventStream>("orders", json!({})).await;
    world.apply::<Saga>("fulfilment", fulfilment("Stop")).await;
    world.expect::<Saga>("fulfilment", "WorkersNotReady").await;
    let (_, worker) = world.next_worker("").await;
    world.place("o-1").await;
    world.counts(&[("running", 1)]).await;
    drop(worker);
    let sagas: Api<Saga> = world.api();
    let gone = DeleteParams::default();
    sagas.delete("fulfilment", &gone).await.unwrap();
    let deployments: Api<Deployment> = world.api();
    // As the garbage collector would.
    deployments.delete(DEPLOYMENT, &gone).await.unwrap();
    let old = within(CAP, async || {
        let log = world
            .nats
            .stream_state("shop_fulfilment_log")
            .await
            .map_err(|error| error.to_string())?;
        match log.server_time.unwrap().millis_since(log.last_stored_at) {
            1_001.. => Ok(()),
            young => Err(format!("{young} ms")),
        }
    });
    old.await.unwrap();

    world.apply::<Saga>("fulfilment", fulfilment("Stop")).await;
    let said = world.expect::<Saga>("fulfilment", "ResumeHeld").await;
    assert!(said.starts_with("unfinished instances: 1;"), "{said}");
    assert!(deployments.get_opt(DEPLOYMENT).await.unwrap().is_none());
    let resume = json!({"metadata": {"annotations": {"tidemill.dev/resume": "true"}}});
    sagas
        .patch("fulfilment", &PatchParams::default(), &Patch::Merge(resume))
        .await
        .unwrap();
    world.expect::<Saga>("fulfilment", "WorkersNotReady").await;
    deployments.get(DEPLOYMENT).await.unwrap();
    operator.stop().await;
}
