//! Projections and Sagas: their streams, their objects, and what is said of them.

use crate::world::{CAP, World};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tidemill_core::contract::Contract;
use tidemill_crds::eventstream::EventStream;
use tidemill_crds::projection::Projection;
use tidemill_crds::saga::Saga;
use tidemill_nats::{HeaderMap, KvBucket, Publish, Publisher};
use tidemill_testbed::Process;
use tidemill_testbed::binaries::worker;
use tidemill_testbed::wait::within;

pub(crate) const DEPLOYMENT: &str = "tidemill-projection-order-status";

pub(crate) fn order_status(column: &str) -> Value {
    json!({
        "from": [{"stream": {"name": "orders"}}],
        "key": "event.subject",
        "handlers": [{"type": "OrderPlaced", "set": {column: "placed"}}],
        "sink": {"kv": {}},
    })
}

impl World {
    /// What a Deployment controller would say once all its pods are ready.
    pub(crate) async fn pods_are_ready(&self, name: &str) {
        let deployments = self.api::<Deployment>();
        let deployment = deployments.get(name).await.unwrap();
        let replicas = deployment.spec.unwrap().replicas.unwrap();
        let status = json!({"status": {
            "observedGeneration": deployment.metadata.generation,
            "replicas": replicas,
            "updatedReplicas": replicas,
            "readyReplicas": replicas,
        }});
        deployments
            .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }

    /// Has a Projection looked at.
    pub(crate) async fn touch(&self, name: &str) {
        let now = format!("{:?}", std::time::Instant::now());
        let patch = json!({"metadata": {"annotations": {"test/touched": now}}});
        self.api::<Projection>()
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
    }

    /// An order is placed.
    pub(crate) async fn place(&self, order: &str) {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("ce-specversion", "1.0"),
            ("ce-id", order),
            ("ce-source", "/test"),
            ("ce-type", "OrderPlaced"),
            ("ce-subject", order),
        ] {
            headers.insert(name, value);
        }
        let placed = Publish {
            headers,
            ..Publish::new(format!("shop.orders.{order}.OrderPlaced"), "{}")
        };
        let publisher = Publisher::new(&self.nats, 1);
        publisher.publish(placed).await.await.unwrap();
    }

    /// The row of an order, once it is there.
    pub(crate) async fn row(&self, order: &str) -> String {
        let rows = KvBucket::new(&Publisher::new(&self.nats, 1), "shop_order-status_rows");
        let row = within(CAP, async || {
            let live = rows.get("live").await.map_err(|error| error.to_string())?;
            let live = live.ok_or("no rows yet")?;
            let key = format!("{}.{order}", String::from_utf8_lossy(&live.value));
            match rows.get(&key).await.map_err(|error| error.to_string())? {
                Some(row) => Ok(String::from_utf8_lossy(&row.value).into_owned()),
                None => Err("no row yet".to_owned()),
            }
        });
        row.await.unwrap()
    }

    pub(crate) async fn contract(&self) -> (String, Contract) {
        self.contract_of(DEPLOYMENT).await
    }

    /// What the workers of a Deployment are told to run, and the ConfigMap that says it.
    pub(crate) async fn contract_of(&self, deployment: &str) -> (String, Contract) {
        let deployment = self.api::<Deployment>().get(deployment).await.unwrap();
        let pod = deployment.spec.unwrap().template.spec.unwrap();
        let volume = &pod.volumes.unwrap()[0];
        let name = volume.config_map.clone().unwrap().name;
        let config_map = self.api::<ConfigMap>().get(&name).await.unwrap();
        let text = &config_map.data.unwrap()["contract.json"];
        (name, Contract::parse(text.as_bytes()).unwrap())
    }
}

/// A worker, as the kubelet would run it, and the folder with its contract.
pub(crate) struct Worker {
    _process: Process,
    _folder: tempfile::TempDir,
}

pub(crate) fn run_worker(contract: &Contract) -> Worker {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("contract.json");
    std::fs::write(&file, contract.to_json()).unwrap();
    let process = Process::builder(worker().unwrap())
        .env("TIDEMILL_CONTRACT", &file)
        .env("POD_NAME", format!("pod-{:x}", rand::random::<u32>()))
        .env("TIDEMILL_LISTEN", "127.0.0.1:0")
        .spawn()
        .unwrap();
    Worker {
        _process: process,
        _folder: folder,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_gets_its_streams_and_its_workers() {
    let world = World::start().await;
    let operator = world.operator("a").await;
    // Before its stream is there.
    world
        .apply::<Projection>("order-status", order_status("state"))
        .await;
    let said = world
        .expect::<Projection>("order-status", "StreamUnusable")
        .await;
    assert!(said.contains("spec.from[0].stream"), "{said}");
    world.apply::<EventStream>("orders", json!({})).await;
    let said = world
        .expect::<Projection>("order-status", "WorkersNotReady")
        .await;
    assert_eq!(said, "0 of 1 workers are ready");
    world.pods_are_ready(DEPLOYMENT).await;
    world.expect::<Projection>("order-status", "InForce").await;
    for stream in [
        "KV_shop_order-status_rows",
        "shop_order-status_projection_parked",
        "KV_tidemill_owners",
    ] {
        world.nats.stream_state(stream).await.unwrap();
    }
    let (first, contract) = world.contract().await;
    assert_eq!(contract.streams[0].name, "shop_orders");
    let account = world.api::<ServiceAccount>().get(DEPLOYMENT).await.unwrap();
    assert_eq!(account.automount_service_account_token, Some(false));
    let status = world
        .api::<Projection>()
        .get("order-status")
        .await
        .unwrap()
        .status
        .unwrap();
    assert_eq!(status.replicas, Some(1));
    assert_eq!(
        status.selector.as_deref(),
        Some("tidemill.dev/kind=projection,tidemill.dev/name=order-status")
    );

    // Another definition is another contract, and other pods.
    world
        .apply::<Projection>("order-status", order_status("status"))
        .await;
    world
        .expect::<Projection>("order-status", "WorkersNotReady")
        .await;
    world.pods_are_ready(DEPLOYMENT).await;
    world.expect::<Projection>("order-status", "InForce").await;
    let (second, _) = world.contract().await;
    assert_ne!(first, second);

    // More than one worker: one at a time may go.
    let mut two = order_status("status");
    two["replicas"] = json!(2);
    world.apply::<Projection>("order-status", two).await;
    let budgets = world.api::<PodDisruptionBudget>();
    let there = within(CAP, async || budgets.get(DEPLOYMENT).await.map(|_| ()));
    there.await.unwrap();
    world
        .apply::<Projection>("order-status", order_status("status"))
        .await;
    let gone = within(CAP, async || match budgets.get_opt(DEPLOYMENT).await {
        Ok(None) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    gone.await.unwrap();
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_runs_what_its_config_map_says() {
    let world = World::start().await;
    let operator = world.operator("a").await;
    world.apply::<EventStream>("orders", json!({})).await;
    world
        .apply::<Projection>("order-status", order_status("state"))
        .await;
    world
        .expect::<Projection>("order-status", "WorkersNotReady")
        .await;
    let (_, contract) = world.contract().await;
    let _worker = run_worker(&contract);
    world.place("o-1").await;
    let rows = KvBucket::new(&Publisher::new(&world.nats, 1), "shop_order-status_rows");
    assert_eq!(world.row("o-1").await, r#"{"state":"placed"}"#);
    // What it counts is seen when the resource is next looked at.
    let counted = within(CAP, async || {
        world.touch("order-status").await;
        let found = world.api::<Projection>().get("order-status").await.unwrap();
        let status = found.status.unwrap_or_default();
        match (status.lag, status.position.as_deref()) {
            (Some(0), Some("orders@1")) => Ok(status),
            other => Err(format!("{other:?}")),
        }
    });
    let status = counted.await.unwrap();
    let live = rows.get("live").await.unwrap().unwrap().value;
    assert_eq!(status.revision.unwrap().as_bytes(), live);
    assert_eq!(status.building_revision, None);
    assert_eq!(status.sources[0].stream, "shop/orders");
    assert_eq!(status.sources[0].sequence, 1);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_do_to_the_workers_is_mended() {
    let world = World::start().await;
    let operator = world.operator("a").await;
    world.apply::<EventStream>("orders", json!({})).await;
    world
        .apply::<Projection>("order-status", order_status("state"))
        .await;
    world
        .expect::<Projection>("order-status", "WorkersNotReady")
        .await;
    let deployments = world.api::<Deployment>();
    let is = |wanted: &'static str| {
        let deployments = deployments.clone();
        async move {
            let mended = within(CAP, async || {
                let found = deployments
                    .get(DEPLOYMENT)
                    .await
                    .map_err(|error| error.to_string())?;
                let pod = found.spec.unwrap().template.spec.unwrap();
                match pod.containers[0].image.as_deref() {
                    Some(image) if image == wanted => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            });
            mended.await.unwrap();
        }
    };
    let other = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "other:2"}]);
    let other: json_patch::Patch = serde_json::from_value(other).unwrap();
    deployments
        .patch(
            DEPLOYMENT,
            &PatchParams::default(),
            &Patch::Json::<()>(other),
        )
        .await
        .unwrap();
    is("worker:1").await;
    deployments
        .delete(DEPLOYMENT, &DeleteParams::default())
        .await
        .unwrap();
    is("worker:1").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_gets_its_log_and_its_workers() {
    let world = World::start().await;
    let operator = world.operator("a").await;
    world.apply::<EventStream>("orders", json!({})).await;
    let spec = json!({
        "startOn": [{"stream": {"name": "orders"}, "type": "OrderPlaced", "id": "event.subject"}],
        "steps": [{"name": "reserve", "request": {"subject": "inventory.reserve"}}],
        "partitions": 8,
    });
    // Somebody's stream takes in what participants shall answer.
    let jetstream = world.nats.jetstream();
    let audit = async_nats::jetstream::stream::Config {
        name: "audit".to_owned(),
        subjects: vec!["inventory.>".to_owned()],
        ..Default::default()
    };
    jetstream.create_stream(audit).await.unwrap();
    world.apply::<Saga>("fulfilment", spec).await;
    let said = world.expect::<Saga>("fulfilment", "StreamUnusable").await;
    assert!(
        said.starts_with(
            "spec.steps[0].request.subject: stream audit takes in `inventory.reserve`"
        ),
        "{said}"
    );
    jetstream.delete_stream("audit").await.unwrap();
    world.expect::<Saga>("fulfilment", "WorkersNotReady").await;
    world.pods_are_ready("tidemill-saga-fulfilment").await;
    world.expect::<Saga>("fulfilment", "InForce").await;
    let log = world.config("shop_fulfilment_log").await;
    assert_eq!(log["metadata"]["tidemill.dev/partitions"], "8");
    // Deleted and made again with other partitions: the instances are still there.
    let sagas = world.api::<Saga>();
    sagas
        .delete("fulfilment", &DeleteParams::default())
        .await
        .unwrap();
    let spec = json!({
        "steps": [{"name": "reserve", "request": {"subject": "inventory.reserve"}}],
    });
    world.apply::<Saga>("fulfilment", spec).await;
    let said = world.expect::<Saga>("fulfilment", "Immutable").await;
    assert!(
        said.starts_with("spec.partitions is 64, but stream shop_fulfilment_log was made with 8"),
        "{said}"
    );
    operator.stop().await;
}
