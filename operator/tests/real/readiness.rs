//! What is missing is said, and its coming is noticed.

use crate::world::{CAP, World};
use kube::{Client, CustomResourceExt};
use serde_json::json;
use tidemill_crds::eventstream::EventStream;
use tidemill_crds::projection::Projection;
use tidemill_crds::saga::Saga;
use tidemill_service::Health;
use tidemill_testbed::NatsServer;
use tidemill_testbed::wait::within;
use tidemill_testbed_cluster::ControlPlane;

async fn says(health: &Health, condition: &str, words: &[&str]) {
    let said = within(CAP, async || {
        let report = health.report();
        match report.reasons.get(condition) {
            Some(reason) if words.iter().all(|word| reason.contains(word)) => Ok(()),
            _ => Err(format!("{report:?}")),
        }
    });
    said.await.unwrap();
}

async fn is_ready(health: &Health) {
    let ready = within(CAP, async || match health.report() {
        report if report.ready => Ok(()),
        report => Err(format!("{report:?}")),
    });
    ready.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_definition_or_permission_is_named() {
    let (plane, server) = tokio::join!(ControlPlane::start(), NatsServer::start());
    let (plane, server) = (plane.unwrap(), server.unwrap());
    let client: Client = plane.client().await.unwrap();
    plane
        .install([EventStream::crd(), Saga::crd()])
        .await
        .unwrap();
    let mut world = World::of(plane, server, client).await;
    let operator = world.operator("a").await;
    says(
        &operator.health,
        "definitions",
        &["projections.tidemill.dev", "tidemill-crds"],
    )
    .await;
    world.plane.install([Projection::crd()]).await.unwrap();
    is_ready(&operator.health).await;
    world.apply::<EventStream>("orders", json!({})).await;
    world.expect::<EventStream>("orders", "InForce").await;

    // NATS goes and comes back.
    world.server().stop().await.unwrap();
    says(&operator.health, "nats", &["connecting"]).await;
    world.server().restart().await.unwrap();
    is_ready(&operator.health).await;
    operator.stop().await;

    // An account that may look at streams, and nothing else.
    let token = world.account_that_only_reads().await;
    let stranger = world.plane.client_as(&token).await.unwrap();
    let operator = world.operator_as(stranger, "b", json!({})).await;
    says(
        &operator.health,
        "permissions",
        &[
            "create configmaps in all namespaces",
            "update leases.coordination.k8s.io in namespace default",
        ],
    )
    .await;
    let report = operator.health.report();
    assert!(
        !report.reasons["permissions"].contains("list eventstreams"),
        "{report:?}"
    );
    operator.stop().await;
}
