//! What happens when something is away, killed, set back, or there twice.

use crate::closing::fulfilment;
use crate::workloads::{DEPLOYMENT, order_status};
use crate::world::{CAP, Operator, World};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, CustomResourceExt};
use serde_json::json;
use std::time::Duration;
use tidemill_crds::eventstream::EventStream;
use tidemill_crds::projection::Projection;
use tidemill_crds::saga::Saga;
use tidemill_testbed::Process;
use tidemill_testbed::binaries::program;
use tidemill_testbed::wait::within;
use tidemill_testbed_cluster::ControlPlane;

impl World {
    /// Uid of the cluster.
    async fn uid(&self) -> String {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let uid = within(CAP, async || {
            let found = namespaces.get("kube-system").await;
            found.map(|found| found.metadata.uid.unwrap())
        });
        uid.await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_clusters_with_one_id_one_writes() {
    let world = World::start().await;
    let operator = world.operator("a").await;
    world.apply::<EventStream>("orders", json!({})).await;
    world.expect::<EventStream>("orders", "InForce").await;
    let before = world.config("shop_orders").await;

    let plane = ControlPlane::start().await.unwrap();
    let kinds = [EventStream::crd(), Projection::crd(), Saga::crd()];
    plane.install(kinds).await.unwrap();
    let client = plane.client().await.unwrap();
    // Another cluster, the same NATS.
    let other = world.beside(plane, client).await;
    let spec = json!({"limits": {"maxMessages": 5}});
    other.apply::<EventStream>("orders", spec).await;
    let twin = other.operator("b").await;
    let said = other
        .expect::<EventStream>("orders", "ClusterIdTaken")
        .await;
    assert!(
        said.contains(&world.uid().await) && said.contains("`main`"),
        "{said}"
    );
    twin.stop().await;
    assert_eq!(world.config("shop_orders").await, before);

    // With an id of its own it isn't this cluster's stream.
    let renamed = other
        .operator_with("b", json!({"clusterId": "second"}))
        .await;
    let said = other.expect::<EventStream>("orders", "NotOwned").await;
    assert!(
        said.contains("tidemill.dev/take-from: main/shop/orders"),
        "{said}"
    );
    renamed.stop().await;

    // The first one is gone for good, says a person: the new one is the old one rebuilt, and takes its streams back.
    operator.stop().await;
    let takeover = json!({"takeover": world.uid().await});
    let rebuilt = other.operator_with("b", takeover).await;
    other.expect::<EventStream>("orders", "InForce").await;
    let now = world.config("shop_orders").await;
    assert_eq!(now["max_msgs"], 5);
    assert_eq!(
        now["metadata"]["tidemill.dev/incarnation"],
        before["metadata"]["tidemill.dev/incarnation"]
    );
    rebuilt.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_away_is_said_and_what_is_back_is_used() {
    let mut world = World::start().await;
    let operator = world.operator("a").await;
    world.apply::<EventStream>("orders", json!({})).await;
    world.expect::<EventStream>("orders", "InForce").await;
    world
        .apply::<Projection>("order-status", order_status("state"))
        .await;
    world.apply::<Saga>("fulfilment", fulfilment("Stop")).await;
    world
        .expect::<Projection>("order-status", "WorkersNotReady")
        .await;
    world.expect::<Saga>("fulfilment", "WorkersNotReady").await;
    world.pods_are_ready(DEPLOYMENT).await;
    world.pods_are_ready("tidemill-saga-fulfilment").await;
    world.expect::<Projection>("order-status", "InForce").await;
    world.expect::<Saga>("fulfilment", "InForce").await;
    // NATS: nobody touches the resources, they say so all the same.
    world.server().stop().await.unwrap();
    let said = [
        world
            .expect::<EventStream>("orders", "NatsUnavailable")
            .await,
        world
            .expect::<Projection>("order-status", "NatsUnavailable")
            .await,
        world.expect::<Saga>("fulfilment", "NatsUnavailable").await,
    ];
    for said in said {
        assert!(said.contains("tried again"), "{said}");
    }
    // Its pods are where they were.
    let status = world.api::<Projection>().get("order-status").await.unwrap();
    assert_eq!(status.status.unwrap().replicas, Some(1));
    world.apply::<EventStream>("payments", json!({})).await;
    world
        .expect::<EventStream>("payments", "NatsUnavailable")
        .await;
    world.server().restart().await.unwrap();
    world.expect::<EventStream>("orders", "InForce").await;
    world.expect::<EventStream>("payments", "InForce").await;
    world.expect::<Projection>("order-status", "InForce").await;
    world.expect::<Saga>("fulfilment", "InForce").await;
    // The API server.
    world.plane.restart_apiserver().await.unwrap();
    world.client = world.plane.client().await.unwrap();
    world.apply::<EventStream>("refunds", json!({})).await;
    world.expect::<EventStream>("refunds", "InForce").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_api_server_is_away_neither_of_two_operators_leads() {
    let mut world = World::start().await;
    let (first, second) = (world.operator("a").await, world.operator("b").await);
    world.apply::<EventStream>("orders", json!({})).await;
    world.expect::<EventStream>("orders", "InForce").await;
    assert_eq!(leading([&first, &second]), 1);
    world.plane.stop_apiserver().await.unwrap();
    // The lease runs out, and nobody can take it.
    let nobody = within(CAP, async || match leading([&first, &second]) {
        0 => Ok(()),
        some => Err(some),
    });
    nobody.await.unwrap();
    // What is done to the stream meanwhile isn't mended by anybody.
    let jetstream = world.nats.jetstream();
    let stream = jetstream.get_stream("shop_orders").await.unwrap();
    let mut config = stream.cached_info().config.clone();
    config.max_messages = 99;
    jetstream.update_stream(config).await.unwrap();
    world.plane.restart_apiserver().await.unwrap();
    world.client = world.plane.client().await.unwrap();
    let mended = within(CAP, async || match world.config("shop_orders").await {
        config if config["max_msgs"] == -1 => Ok(()),
        config => Err(config),
    });
    mended.await.unwrap();
    assert_eq!(leading([&first, &second]), 1);
    first.stop().await;
    second.stop().await;
}

/// How many operators lead, as they say themselves.
fn leading(operators: [&Operator; 2]) -> usize {
    let leads = |operator: &&Operator| operator.metrics().contains("tidemill_operator_leads 1");
    operators.iter().filter(|operator| leads(operator)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_set_back_to_an_earlier_copy_is_told_from_a_lost_stream() {
    let mut world = World::start().await;
    let operator = world.operator("a").await;
    world.apply::<EventStream>("orders", json!({})).await;
    world.expect::<EventStream>("orders", "InForce").await;
    world.server().stop().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("store");
    world.server().copy_store(&copy).unwrap();
    world.server().restart().await.unwrap();
    world.expect::<EventStream>("orders", "InForce").await;
    world.apply::<EventStream>("payments", json!({})).await;
    world.expect::<EventStream>("payments", "InForce").await;
    world.server().stop().await.unwrap();
    world.server().set_store_back(&copy).unwrap();
    world.server().restart().await.unwrap();
    // What the copy held goes on; what was made after it is gone, and isn't made anew without a word.
    world.expect::<EventStream>("payments", "StreamLost").await;
    world.expect::<EventStream>("orders", "InForce").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_is_killed_again_and_again_makes_everything_once() {
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.yaml");
    let text = json!({"nats": {"servers": [world.url]}, "workers": {"image": "worker:1"}});
    std::fs::write(&config, text.to_string()).unwrap();
    let operator = || {
        Process::builder(program("tidemill-operator", "tidemill-operator").unwrap())
            .arg("--config")
            .arg(&config)
            .args([
                "--listen",
                "127.0.0.1:0",
                "--namespace",
                "default",
                "--pod",
                "a",
            ])
            .env("KUBECONFIG", world.plane.kubeconfig())
            .spawn()
            .unwrap()
    };
    let names: Vec<String> = (0..40).map(|number| format!("s-{number}")).collect();
    let mut made = 0;
    for (round, names) in names.chunks(8).enumerate() {
        let mut process = operator();
        for name in names {
            world.apply::<EventStream>(name, json!({})).await;
        }
        let projection = json!({
            "from": [{"stream": {"name": names[0]}}],
            "key": "event.subject",
            "handlers": [{"set": {"state": "placed"}}],
            "sink": {"kv": {}},
        });
        world.apply::<Projection>(&names[0], projection).await;
        // In the midst of it: some of them are there, others not.
        let begun = within(CAP, async || {
            let streams = world.nats.streams_on("shop.>").await.unwrap();
            if streams.len() > made {
                Ok(streams.len())
            } else {
                Err("none more")
            }
        });
        made = begun.await.unwrap();
        tokio::time::sleep(Duration::from_millis(3 * round as u64)).await;
        process.kill9();
    }
    let _last = operator();
    for name in &names {
        world.expect::<EventStream>(name, "InForce").await;
    }
    for names in names.chunks(8) {
        world
            .expect::<Projection>(&names[0], "WorkersNotReady")
            .await;
    }
    assert_eq!(
        world.nats.streams_on("shop.>").await.unwrap().len(),
        names.len()
    );
}
