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
use tidemill_core::contract::{Connection, Contract};
use tidemill_core::names::{Kind, ResourceId, event_subject};
use tidemill_nats::provision::{Mark, StreamPlan, ensure};
use tidemill_nats::{KvBucket, Nats, Publish, Publisher, permissions};
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

fn projection() -> ResourceId {
    ResourceId::new(Kind::Projection, "shop", "status")
}

fn projection_contract(server: &str) -> Contract {
    let stream = json!({ "namespace": "shop", "name": "orders" });
    let contract = json!({
        "version": 1,
        "resource": projection(),
        "connection": Connection::plain(server),
        "streams": [{ "stream": stream, "name": "shop_orders", "prefix": "shop.orders" }],
        "workload": { "projection": {
            "definition": {
                "semantics": 1,
                "sources": [stream],
                "key": "event.subject",
                "handlers": [{ "type": "Placed", "set": { "total": "=event.data.total" } }],
            },
            "policy": {
                "onError": "Park",
                "maxParkedKeys": 10,
            },
            "starts": ["beginning"],
            "rowsBucket": projection().rows_bucket(),
            "parkedStream": projection().parked_stream(),
        }},
    });
    Contract::parse(contract.to_string().as_bytes()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_projection_runs_with_the_listed_permissions_only() {
    let may = permissions::worker(&projection_contract("nats://127.0.0.1:1"), &[]);
    let server = NatsServer::builder()
        .user(
            User::new("worker")
                .publish(may.publish)
                .subscribe(may.subscribe)
                .allow_responses(),
        )
        .start()
        .await
        .unwrap();
    let admin = Nats::connect(&Connection::plain(&server.url_for("admin")), "test")
        .await
        .unwrap();
    let mark = Mark::of("dev", &projection(), "one");
    let events = Mark::event_stream("dev", "shop", "orders", "one");
    let mut plans = vec![
        StreamPlan::new("shop_orders", vec!["shop.orders.>".to_owned()], events),
        StreamPlan::rows(&projection(), mark.clone()),
        StreamPlan::parked(&projection(), "_tm", mark),
    ];
    plans.extend(StreamPlan::shared_buckets("one"));
    for plan in &plans {
        ensure(&admin, plan).await.unwrap();
    }
    let publisher = Publisher::new(&admin, 16);
    let publish = async |entity: &str, data: &'static str| {
        let mut event = Publish::new(
            event_subject("shop.orders", entity, "Placed").unwrap(),
            data,
        );
        for (name, value) in [
            ("specversion", "1.0"),
            ("id", entity),
            ("source", "/test"),
            ("type", "Placed"),
            ("subject", entity),
        ] {
            event.headers.insert(format!("ce-{name}").as_str(), value);
        }
        publisher.publish(event).await.await.unwrap();
    };
    publish("o-1", r#"{"total": 5}"#).await;

    let worker = start(
        &projection_contract(&server.url_for("worker")).to_json(),
        "127.0.0.1:0",
    );
    let address = worker.address().await;
    answers(&address, "/readyz", &["200 OK"]).await;
    // One that is folded near the head, and one that is parked.
    publish("o-2", r#"{"total": 6}"#).await;
    publish("o-3", "{}").await;
    eventually("two rows and a parked event", CAP, async || {
        let rows = KvBucket::new(&publisher, &projection().rows_bucket())
            .entries("")
            .await
            .unwrap();
        let rows = rows
            .values()
            .filter(|row| row.value.starts_with(b"{\"total\":"))
            .count();
        let parked = admin
            .stream_state(&projection().parked_stream())
            .await
            .unwrap()
            .messages;
        if (rows, parked) == (2, 1) {
            Ok(())
        } else {
            Err(format!("{rows} rows, {parked} parked"))
        }
    })
    .await;
    control::ask(&admin, &projection(), "status", &json!({}), CAP)
        .await
        .unwrap();
    let key = json!({"key": "o-3"});
    let first = control::ask(&admin, &projection(), "first", &key, CAP)
        .await
        .unwrap();
    let named = json!({"key": "o-3", "position": first["ok"]["position"]});
    control::ask(&admin, &projection(), "skip", &named, CAP)
        .await
        .unwrap();
    let parked = admin.stream_state(&projection().parked_stream()).await;
    assert_eq!(parked.unwrap().messages, 0);
    answers(
        &address,
        "/metrics",
        &["tidemill_nats_permission_violations_total 0"],
    )
    .await;
}
