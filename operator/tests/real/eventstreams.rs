//! EventStreams.

use crate::world::{CAP, World};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;
use tidemill_crds::eventstream::EventStream;
use tidemill_testbed::wait::within;

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_made_changed_and_mended() {
    let world = World::start().await;
    let operator = world.operator("a").await;
    world.apply::<EventStream>("orders", json!({})).await;
    world.expect::<EventStream>("orders", "InForce").await;
    let config = world.config("shop_orders").await;
    assert_eq!(config["subjects"], json!(["shop.orders.>"]));
    assert_eq!(config["metadata"]["tidemill.dev/cluster"], "main");
    let status = world
        .api::<EventStream>()
        .get("orders")
        .await
        .unwrap()
        .status
        .unwrap();
    assert_eq!(status.effective.unwrap().stream_name, "shop_orders");
    let incarnation = status.incarnation.unwrap();
    assert_eq!(incarnation.len(), 32);

    world
        .apply::<EventStream>("orders", json!({"limits": {"maxMessages": 5}}))
        .await;
    let limited = within(CAP, async || match world.config("shop_orders").await {
        config if config["max_msgs"] == 5 => Ok(()),
        config => Err(config),
    });
    limited.await.unwrap();
    // Behind our back.
    let jetstream = world.nats.jetstream().clone();
    let stream = jetstream.get_stream("shop_orders").await.unwrap();
    let mut config = stream.cached_info().config.clone();
    config.max_messages = 99;
    jetstream.update_stream(config).await.unwrap();
    let mended = within(CAP, async || match world.config("shop_orders").await {
        config if config["max_msgs"] == 5 => Ok(()),
        config => Err(config),
    });
    mended.await.unwrap();
    world.expect::<EventStream>("orders", "InForce").await;

    // Gone: nothing is made in its place without a word.
    jetstream.delete_stream("shop_orders").await.unwrap();
    let said = world.expect::<EventStream>("orders", "StreamLost").await;
    assert!(said.contains(&incarnation), "{said}");
    assert!(world.nats.stream_state("shop_orders").await.is_err());
    // What was done is told as events, with reasons that stay.
    let events: Api<Event> = world.api();
    let told = within(CAP, async || {
        let found = events.list(&Default::default()).await;
        let found = found.map_err(|error| error.to_string())?.items;
        let reasons: BTreeSet<String> =
            found.into_iter().filter_map(|event| event.reason).collect();
        let wanted = ["Created", "StreamLost", "Updated"];
        match wanted.iter().all(|reason| reasons.contains(*reason)) {
            true => Ok(()),
            false => Err(format!("{reasons:?}")),
        }
    });
    told.await.unwrap();
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_had_says_why_and_recovers() {
    let world = World::start().await;
    let operator = world.operator("a").await;
    world
        .apply::<EventStream>("legacy", json!({"prefix": "other.team"}))
        .await;
    let said = world.expect::<EventStream>("legacy", "NotAllowed").await;
    assert!(
        said.contains("`other.team.>`") && said.contains("tenancy.grants"),
        "{said}"
    );
    world
        .apply::<EventStream>("strict", json!({"durability": "Strict"}))
        .await;
    let said = world.expect::<EventStream>("strict", "Invalid").await;
    assert!(said.contains("spec.durability"), "{said}");

    world
        .apply::<EventStream>("all", json!({"prefix": "shop"}))
        .await;
    world.expect::<EventStream>("all", "InForce").await;
    world.apply::<EventStream>("orders", json!({})).await;
    let said = world.expect::<EventStream>("orders", "Conflict").await;
    assert!(said.contains("main/shop/eventstream/all"), "{said}");
    // The other one goes: it recovers by itself.
    world
        .api::<EventStream>()
        .delete("all", &DeleteParams::default())
        .await
        .unwrap();
    world
        .nats
        .jetstream()
        .delete_stream("shop_all")
        .await
        .unwrap();
    world.expect::<EventStream>("orders", "InForce").await;
    operator.stop().await;
}

/// Whatever it was about to do: also before it has listed anything.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_ends_whenever_it_is_told_to() {
    let world = World::start().await;
    for moment in 0..24 {
        let operator = world.operator("a").await;
        tokio::time::sleep(Duration::from_millis(260 + moment)).await;
        let stopped = tokio::time::timeout(CAP, operator.stop()).await;
        stopped.expect("it waits for what nobody asks for");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_operators_works() {
    let world = World::start().await;
    let first = world.operator("a").await;
    world.apply::<EventStream>("orders", json!({})).await;
    world.expect::<EventStream>("orders", "InForce").await;
    let second = world.operator("b").await;
    first.stop().await;
    world.apply::<EventStream>("payments", json!({})).await;
    world.expect::<EventStream>("payments", "InForce").await;
    let leases: Api<k8s_openapi::api::coordination::v1::Lease> =
        Api::namespaced(world.client.clone(), "default");
    let lease = leases.get("tidemill-operator").await.unwrap();
    assert_eq!(lease.spec.unwrap().holder_identity.unwrap(), "b");
    assert_eq!(lease.metadata.name.unwrap(), "tidemill-operator");
    second.stop().await;
}
