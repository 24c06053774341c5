//! The worker as a process, with nothing but the permissions that `tidemill_nats::permissions` lists.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod shared;

use futures::StreamExt;
use serde_json::json;
use shared::{CAP, answers, contract, provision, resource, start};
use tidemill_core::contract::Connection;
use tidemill_nats::{Nats, permissions};
use tidemill_testbed::{NatsServer, User, eventually};
use tidemill_worker_runtime::control;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saga_runs_with_the_listed_permissions_only() {
    let may = permissions::worker(
        &contract("nats://127.0.0.1:1"),
        &["inventory.reserve".to_owned()],
    );
    let participant = permissions::participant(&["inventory.reserve".to_owned()]);
    let server = NatsServer::builder()
        .user(
            User::new("worker")
                .publish(may.publish)
                .subscribe(may.subscribe)
                .allow_responses(),
        )
        .user(
            User::new("participant")
                .publish(participant.publish)
                .subscribe(participant.subscribe)
                .allow_responses(),
        )
        .start()
        .await
        .unwrap();
    let admin = Nats::connect(&Connection::plain(&server.url_for("admin")), "test")
        .await
        .unwrap();
    provision(&admin).await;

    let inventory = server.client_for("participant").await.unwrap();
    let mut asked = inventory.subscribe("inventory.reserve").await.unwrap();
    inventory.flush().await.unwrap();
    tokio::spawn(async move {
        while let Some(request) = asked.next().await {
            inventory
                .publish(request.reply.unwrap(), "{}".into())
                .await
                .unwrap();
        }
    });

    let worker = start(
        &contract(&server.url_for("worker")).to_json(),
        "127.0.0.1:0",
    );
    let address = worker.address().await;
    answers(&address, "/readyz", &["200 OK"]).await;
    let ask = async |verb: &str| {
        control::ask(&admin, &resource(), verb, &json!({ "id": "o-1" }), CAP).await
    };
    ask("start").await.unwrap();
    let ended = ask("await").await.unwrap();
    assert!(ended.to_string().contains("completed"), "{ended}");
    // What is written behind, too.
    eventually("counters and a summary", CAP, async || {
        let bucket = |name: &str| {
            tidemill_nats::KvBucket::new(&tidemill_nats::Publisher::new(&admin, 1), name)
        };
        let written = (
            bucket("tidemill_counters")
                .entries("shop.saga.orders")
                .await
                .unwrap()
                .len(),
            bucket("tidemill_summaries")
                .entries("shop.saga.orders")
                .await
                .unwrap()
                .len(),
        );
        if written.0 > 0 && written.1 > 0 {
            Ok(())
        } else {
            Err(format!("{written:?}"))
        }
    })
    .await;
    answers(
        &address,
        "/metrics",
        &["tidemill_nats_permission_violations_total 0"],
    )
    .await;
}
