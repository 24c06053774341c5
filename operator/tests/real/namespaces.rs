//! A namespace that is deleted with everything in it, by Kubernetes' own controller.

use crate::closing::fulfilment;
use crate::workloads::order_status;
use crate::world::{CAP, World};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use tidemill_crds::eventstream::EventStream;
use tidemill_crds::projection::Projection;
use tidemill_crds::saga::Saga;
use tidemill_testbed::Process;
use tidemill_testbed::wait::within;

/// What the three resources of a test are stored in.
const STREAMS: [&str; 5] = [
    "shop_orders",
    "KV_shop_order-status_rows",
    "shop_order-status_projection_parked",
    "shop_fulfilment_log",
    "shop_fulfilment_saga_parked",
];

fn deletes(mut spec: Value) -> Value {
    spec["deletionPolicy"] = json!("Delete");
    spec
}

impl World {
    fn namespaces(&self) -> (Api<Namespace>, Process) {
        let controllers = self.plane.controllers(&["namespace-controller"]);
        (Api::all(self.client.clone()), controllers.unwrap())
    }

    /// All three kinds; what they store goes with them, unless it is said otherwise.
    async fn three(&self, change: impl Fn(Value) -> Value) {
        self.apply::<EventStream>("orders", change(json!({}))).await;
        self.expect::<EventStream>("orders", "InForce").await;
        let projection = change(order_status("state"));
        self.apply::<Projection>("order-status", projection).await;
        self.apply::<Saga>("fulfilment", change(fulfilment("Drain")))
            .await;
        self.expect::<Projection>("order-status", "WorkersNotReady")
            .await;
        self.expect::<Saga>("fulfilment", "WorkersNotReady").await;
    }

    async fn is_deleted(&self, namespaces: &Api<Namespace>) {
        let gone = within(CAP, async || match namespaces.get_opt("shop").await {
            Ok(None) => Ok(()),
            // What is left, as Kubernetes says it.
            Ok(Some(left)) => Err(serde_json::to_string(&left.status).unwrap()),
            Err(error) => Err(error.to_string()),
        });
        gone.await.unwrap();
    }

    async fn stored(&self) -> Vec<&'static str> {
        let mut there = Vec::new();
        for stream in STREAMS {
            if self.nats.stream_state(stream).await.is_ok() {
                there.push(stream);
            }
        }
        there
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn its_resources_go_with_it_and_their_data_as_they_say() {
    let world = World::start().await;
    let operator = world.operator("a").await;
    world.three(deletes).await;
    let (namespaces, _controllers) = world.namespaces();
    let params = DeleteParams::default();
    namespaces.delete("shop", &params).await.unwrap();
    world.is_deleted(&namespaces).await;
    assert_eq!(world.stored().await, Vec::<&str>::new());

    // What is kept is there for the next namespace of that name.
    world.namespace("shop").await;
    world.three(|spec| spec).await;
    namespaces.delete("shop", &params).await.unwrap();
    world.is_deleted(&namespaces).await;
    assert_eq!(world.stored().await, STREAMS);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_operator_it_waits_for_what_shall_be_deleted() {
    let world = World::start().await;
    let operator = world.operator("a").await;
    world.three(deletes).await;
    operator.stop().await;
    let (namespaces, _controllers) = world.namespaces();
    let params = DeleteParams::default();
    namespaces.delete("shop", &params).await.unwrap();
    // Only what nobody has deleted holds it, and it says so.
    let held = within(CAP, async || {
        let found = namespaces
            .get("shop")
            .await
            .map_err(|error| error.to_string())?;
        let status = serde_json::to_value(found.status).unwrap().to_string();
        match status.contains("tidemill.dev/data") {
            true => Ok(()),
            false => Err(status),
        }
    });
    held.await.unwrap();
    assert_eq!(world.stored().await, STREAMS);
    let operator = world.operator("b").await;
    world.is_deleted(&namespaces).await;
    assert_eq!(world.stored().await, Vec::<&str>::new());
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_nats_it_goes_after_the_deadline_and_the_data_stays() {
    let mut world = World::start().await;
    let settings = json!({"deletionDeadlineSeconds": 1});
    let operator = world.operator_with("a", settings).await;
    world
        .three(|spec| {
            // Nothing is waited for but the data.
            let mut spec = deletes(spec);
            if spec.get("onDelete").is_some() {
                spec["onDelete"] = json!("Stop");
            }
            spec
        })
        .await;
    world.server().stop().await.unwrap();
    let (namespaces, _controllers) = world.namespaces();
    let params = DeleteParams::default();
    namespaces.delete("shop", &params).await.unwrap();
    world.is_deleted(&namespaces).await;
    operator.stop().await;
    world.server().restart().await.unwrap();
    assert_eq!(world.stored().await, STREAMS);
}
