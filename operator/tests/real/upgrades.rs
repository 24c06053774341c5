//! What moves workers, what doesn't, and what is cleared away behind them.

use crate::workloads::{DEPLOYMENT, order_status};
use crate::world::{CAP, World};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;
use tidemill_crds::eventstream::EventStream;
use tidemill_crds::projection::Projection;
use tidemill_testbed::wait::within;

impl World {
    async fn image(&self) -> String {
        let deployment = self.api::<Deployment>().get(DEPLOYMENT).await.unwrap();
        let pod = deployment.spec.unwrap().template.spec.unwrap();
        pod.containers[0].image.clone().unwrap()
    }

    async fn contracts(&self) -> Vec<String> {
        let config_maps: Api<ConfigMap> = self.api();
        let found = config_maps.list(&Default::default()).await.unwrap();
        let names = found
            .items
            .into_iter()
            .filter_map(|found| found.metadata.name);
        names.filter(|name| name.starts_with("tidemill-")).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_of_the_operator_moves_no_worker() {
    let world = World::start().await;
    let operator = world.operator("a").await;
    world.apply::<EventStream>("orders", json!({})).await;
    world
        .apply::<Projection>("order-status", order_status("state"))
        .await;
    world
        .expect::<Projection>("order-status", "WorkersNotReady")
        .await;
    world.pods_are_ready(DEPLOYMENT).await;
    world.expect::<Projection>("order-status", "InForce").await;
    let before = world.api::<Deployment>().get(DEPLOYMENT).await.unwrap();
    operator.stop().await;

    let newer = json!({"workers": {"image": "worker:2"}});
    let operator = world.operator_with("b", newer).await;
    let outdated = within(CAP, async || {
        let found = world.api::<Projection>().get("order-status").await.unwrap();
        match found.status.and_then(|status| status.outdated_workers) {
            Some(1) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    outdated.await.unwrap();
    let now = world.api::<Deployment>().get(DEPLOYMENT).await.unwrap();
    assert_eq!(now.metadata.generation, before.metadata.generation);
    assert_eq!(world.image().await, "worker:1");
    // When told; and nothing says that it is done before it is.
    let rollout = json!({"metadata": {"annotations": {"tidemill.dev/rollout": "1"}}});
    let projections = world.api::<Projection>();
    let watch = WatchParams::default().fields("metadata.name=order-status");
    let from = projections.get("order-status").await.unwrap();
    let from = from.metadata.resource_version.unwrap();
    let watched = projections.watch(&watch, &from).await.unwrap();
    projections
        .patch(
            "order-status",
            &PatchParams::default(),
            &Patch::Merge(rollout),
        )
        .await
        .unwrap();
    let moved = within(CAP, async || match world.image().await {
        image if image == "worker:2" => Ok(()),
        image => Err(image),
    });
    moved.await.unwrap();
    let mut watched = Box::pin(watched);
    let first = async {
        loop {
            let event = watched.next().await.unwrap().unwrap();
            let WatchEvent::Modified(seen) = event else {
                panic!("{event:?}");
            };
            let status = seen.status.unwrap();
            let worker = status.worker.unwrap();
            if worker.rollout.is_some() {
                let mut conditions = status.conditions.into_iter();
                let ready = conditions.find(|one| one.type_ == "Ready").unwrap();
                return (worker.image, ready.reason);
            }
        }
    };
    let first = tokio::time::timeout(CAP, first).await.unwrap();
    assert_eq!(first, ("worker:2".to_owned(), "WorkersNotReady".to_owned()));
    operator.stop().await;

    // Or always.
    let mut follows = order_status("state");
    follows["workerUpdate"] = json!("Auto");
    world.apply::<Projection>("order-status", follows).await;
    let newest = json!({"workers": {"image": "worker:3"}});
    let operator = world.operator_with("c", newest).await;
    let moved = within(CAP, async || match world.image().await {
        image if image == "worker:3" => Ok(()),
        image => Err(image),
    });
    moved.await.unwrap();
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_contracts_go_when_no_pod_refers_to_them() {
    let world = World::start().await;
    let operator = world.operator("a").await;
    world.apply::<EventStream>("orders", json!({})).await;
    world
        .apply::<Projection>("order-status", order_status("state"))
        .await;
    world
        .expect::<Projection>("order-status", "WorkersNotReady")
        .await;
    let (first, _) = world.contract_of(DEPLOYMENT).await;
    // As the ReplicaSet of the first contract would make it.
    let deployment = world.api::<Deployment>().get(DEPLOYMENT).await.unwrap();
    let template = deployment.spec.unwrap().template;
    let pod = json!({
        "metadata": {"name": "old", "labels": template.metadata.unwrap().labels},
        "spec": template.spec,
    });
    let pods: Api<Pod> = world.api();
    let pod: Pod = serde_json::from_value(pod).unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();

    world
        .apply::<Projection>("order-status", order_status("status"))
        .await;
    let (second, _) = {
        let next = within(CAP, async || match world.contract_of(DEPLOYMENT).await {
            (name, contract) if name != first => Ok((name, contract)),
            (name, _) => Err(name),
        });
        next.await.unwrap()
    };
    world.pods_are_ready(DEPLOYMENT).await;
    world.expect::<Projection>("order-status", "InForce").await;
    assert_eq!(
        world.contracts().await.len(),
        2,
        "a pod still refers to the first"
    );
    let now = DeleteParams {
        grace_period_seconds: Some(0),
        ..DeleteParams::default()
    };
    pods.delete("old", &now).await.unwrap();
    let pruned = within(CAP, async || {
        world.touch("order-status").await;
        match world.contracts().await {
            left if left == [second.clone()] => Ok(()),
            left => Err(format!("{left:?}")),
        }
    });
    pruned.await.unwrap();
    operator.stop().await;
}

/// Amounts are written as the API server gives them back, or each look would find them different and write them again.
#[tokio::test(flavor = "multi_thread")]
async fn amounts_are_written_once_however_they_are_spelt() {
    let world = World::start().await;
    let operator = world.operator("a").await;
    world.apply::<EventStream>("orders", json!({})).await;
    let mut spec = order_status("state");
    spec["worker"] = json!({"resources": {
        "requests": {"cpu": "0.5", "memory": "1024Mi", "ephemeral-storage": "0.5Ki"},
        "limits": {"cpu": "1500m", "memory": "1.5Gi", "ephemeral-storage": 3000},
    }});
    world.apply::<Projection>("order-status", spec).await;
    world
        .expect::<Projection>("order-status", "WorkersNotReady")
        .await;
    world.pods_are_ready(DEPLOYMENT).await;
    world.expect::<Projection>("order-status", "InForce").await;
    let deployments = world.api::<Deployment>();
    let written = |deployment: &Deployment| {
        let ours = deployment.metadata.managed_fields.iter().flatten();
        let mut ours = ours.filter(|entry| entry.manager.as_deref() == Some("tidemill-operator"));
        ours.next().and_then(|entry| entry.time.clone())
    };
    let before = deployments.get(DEPLOYMENT).await.unwrap();
    let pod = before.spec.clone().unwrap().template.spec.unwrap();
    let resources = serde_json::to_value(pod.containers[0].resources.clone()).unwrap();
    assert_eq!(
        resources,
        json!({
            "requests": {"cpu": "500m", "memory": "1Gi", "ephemeral-storage": "512"},
            "limits": {"cpu": "1500m", "memory": "1536Mi", "ephemeral-storage": "3k"},
        })
    );
    // Looked at again by a fresh operator, which is the first that could find a difference.
    operator.stop().await;
    let operator = world.operator("b").await;
    let more = json!({"limits": {"maxMessages": 5}});
    world.apply::<EventStream>("orders", more).await;
    world.expect::<EventStream>("orders", "InForce").await;
    world.touch("order-status").await;
    let seen = within(CAP, async || {
        let said = operator.metrics();
        let looked = said.contains("kind=\"Projection\",result=\"done\"");
        if looked { Ok(()) } else { Err(said) }
    });
    seen.await.unwrap();
    let after = deployments.get(DEPLOYMENT).await.unwrap();
    assert_eq!(
        after.metadata.resource_version,
        before.metadata.resource_version
    );
    assert_eq!(written(&after), written(&before));
    operator.stop().await;
}
