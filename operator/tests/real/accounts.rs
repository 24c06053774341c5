//! NATS accounts that demand more, or are reached in other ways.

use crate::workloads::{order_status, run_worker};
use crate::world::World;
use kube::CustomResourceExt;
use serde_json::{Value, json};
use tidemill_core::contract::Connection;
use tidemill_crds::eventstream::EventStream;
use tidemill_crds::projection::Projection;
use tidemill_crds::saga::Saga;
use tidemill_nats::Nats;
use tidemill_testbed::NatsServer;
use tidemill_testbed::ports::Port;
use tidemill_testbed_cluster::ControlPlane;

async fn world_on(server: NatsServer) -> World {
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client().await.unwrap();
    let kinds = [EventStream::crd(), Projection::crd(), Saga::crd()];
    plane.install(kinds).await.unwrap();
    World::of(plane, server, client).await
}

impl World {
    /// An order becomes a row, whatever the account is like.
    async fn an_order_becomes_a_row(&self) {
        self.apply::<EventStream>("orders", json!({})).await;
        self.expect::<EventStream>("orders", "InForce").await;
        self.apply::<Projection>("order-status", order_status("state"))
            .await;
        self.expect::<Projection>("order-status", "WorkersNotReady")
            .await;
        let (_, contract) = self.contract().await;
        let _worker = run_worker(&contract);
        self.place("o-1").await;
        assert_eq!(self.row("o-1").await, r#"{"state":"placed"}"#);
    }
}

fn saga() -> Value {
    json!({"steps": [{"name": "reserve", "request": {"subject": "inventory.reserve"}}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_demands_a_limit_of_every_stream_gets_it() {
    let server = NatsServer::builder()
        .config(
            "accounts { TEAM { users: [{user: team, password: team}], jetstream { max_bytes_required: true } } }\n\
             no_auth_user: team",
        )
        .start()
        .await
        .unwrap();
    let world = world_on(server).await;
    // Not told of it: NATS's answer is what people are told.
    let operator = world.operator("a").await;
    world.apply::<EventStream>("orders", json!({})).await;
    world
        .apply::<Projection>("order-status", order_status("state"))
        .await;
    for said in [
        world.expect::<EventStream>("orders", "Refused").await,
        world.expect::<Projection>("order-status", "Refused").await,
    ] {
        assert!(said.contains("max bytes"), "{said}");
    }
    operator.stop().await;

    let settings = json!({"maxStreamBytes": "16Mi"});
    let operator = world.operator_with("a", settings).await;
    world.an_order_becomes_a_row().await;
    world.apply::<Saga>("fulfilment", saga()).await;
    world.expect::<Saga>("fulfilment", "WorkersNotReady").await;
    let limit = async |stream: &str| world.config(stream).await["max_bytes"].clone();
    for stream in [
        "shop_orders",
        "KV_shop_order-status_rows",
        "shop_order-status_projection_parked",
        "shop_fulfilment_log",
        "shop_fulfilment_saga_parked",
        "KV_tidemill_counters",
    ] {
        assert_eq!(limit(stream).await, 16 << 20, "{stream}");
    }
    // What the spec says comes first.
    let spec = json!({"limits": {"maxBytes": "1Mi"}});
    world.apply::<EventStream>("orders", spec).await;
    world.expect::<EventStream>("orders", "InForce").await;
    assert_eq!(limit("shop_orders").await, 1 << 20);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_may_be_on_a_leaf_node() {
    let port = Port::reserve().unwrap();
    let number = port.number();
    let hub = NatsServer::builder()
        .domain("hub")
        .config(&format!("leafnodes {{ listen: \"127.0.0.1:{number}\" }}"));
    let hub = hub.start().await.unwrap();
    let edge = NatsServer::builder()
        .domain("edge")
        .config(&format!(
            "leafnodes {{ remotes: [{{url: \"nats-leaf://127.0.0.1:{number}\"}}] }}"
        ))
        .start()
        .await
        .unwrap();
    let mut world = world_on(hub).await;
    // Reached through the hub: so are the streams of the leaf.
    let connection = Connection {
        jetstream_domain: Some("edge".to_owned()),
        ..Connection::plain(&world.url)
    };
    world.nats = Nats::connect(&connection, "test").await.unwrap();
    let operator = world.operator_with("a", json!({"nats": connection})).await;
    world.an_order_becomes_a_row().await;
    operator.stop().await;
    let stored = async |server: &NatsServer| {
        let nats = Nats::connect(&Connection::plain(&server.url()), "look").await;
        nats.unwrap().stream_state("shop_orders").await
    };
    assert_eq!(stored(&edge).await.unwrap().messages, 1);
    assert!(stored(world.server()).await.is_err());
}
