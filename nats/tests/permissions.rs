//! A worker that may do exactly what is listed can do all its kinds of work, and nothing beside it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use serde_json::json;
use tidemill_core::contract::{Connection, Contract};
use tidemill_core::names::{self, Kind, ResourceId};
use tidemill_nats::provision::{Mark, StreamPlan, ensure};
use tidemill_nats::{
    KvBucket, Nats, Publish, PublishError, Publisher, ReadError, ReadFrom, Reader, permissions,
};
use tidemill_testbed::{NatsServer, User};

fn contract(kind: Kind) -> Contract {
    let resource = ResourceId::new(kind, "shop", "orders");
    let stream = json!({ "namespace": "shop", "name": "events" });
    let workload = match kind {
        Kind::Projection => json!({ "projection": {
            "definition": { "semantics": 1, "sources": [stream], "key": "event.subject", "handlers": [] },
            "policy": { "onError": "Park", "maxParkedKeys": 10 },
            "starts": ["beginning"],
            "rowsBucket": resource.rows_bucket(),
            "parkedStream": resource.parked_stream(),
        }}),
        Kind::Saga => json!({ "saga": {
            "definition": { "semantics": 1, "triggers": [], "steps": [], "onCompleted": [], "onCompensated": [], "timeoutMs": 1000, "replies": "Direct" },
            "starts": [],
            "logStream": resource.log_stream(),
            "parkedStream": resource.parked_stream(),
            "partitions": 64,
        }}),
    };
    let contract = json!({
        "version": 1,
        "resource": resource,
        "connection": Connection::plain("nats://127.0.0.1:1"),
        "streams": [{ "stream": stream, "name": "shop_events", "prefix": "shop.events" }],
        "workload": workload,
    });
    Contract::parse(contract.to_string().as_bytes()).unwrap()
}

fn user(name: &str, list: &permissions::Permissions) -> User {
    User::new(name)
        .publish(&list.publish)
        .subscribe(&list.subscribe)
        .allow_responses()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_listed_permissions_suffice_and_are_narrow() {
    let contracts = [contract(Kind::Projection), contract(Kind::Saga)];
    let participant = permissions::participant(&["inventory.*".to_owned()]);
    let requests = ["inventory.>".to_owned()];
    let mut server = NatsServer::builder().user(user("participant", &participant));
    for contract in &contracts {
        server = server.user(user(
            contract.resource.kind.as_str(),
            &permissions::worker(contract, &requests),
        ));
    }
    let server = server.start().await.unwrap();
    let connect = async |user: &str| {
        Nats::connect(&Connection::plain(&server.url_for(user)), "test")
            .await
            .unwrap()
    };

    let admin = connect("admin").await;
    let [projection, saga] = contracts.each_ref().map(|contract| &contract.resource);
    let mark = |resource| Mark::of("dev", resource, "one");
    let mut plans = vec![
        StreamPlan::new(
            "shop_events",
            vec!["shop.events.>".to_owned()],
            Mark::event_stream("dev", "shop", "events", "one"),
        ),
        StreamPlan::new(
            "other_events",
            vec!["other.events.>".to_owned()],
            Mark::event_stream("dev", "other", "events", "one"),
        ),
        StreamPlan::rows(projection, mark(projection)),
        StreamPlan::parked(projection, "_tm", mark(projection)),
        StreamPlan::parked(saga, "_tm", mark(saga)),
        StreamPlan::saga_log(saga, "_tm", mark(saga)),
    ];
    plans.extend(StreamPlan::shared_buckets("one"));
    for plan in &plans {
        ensure(&admin, plan).await.unwrap();
    }
    Publisher::new(&admin, 1)
        .publish(Publish::new("shop.events.a.b", "{}"))
        .await
        .await
        .unwrap();

    let answering = connect("participant").await;
    let mut asked = answering
        .client()
        .subscribe("inventory.reserve")
        .await
        .unwrap();

    for contract in &contracts {
        let resource = &contract.resource;
        let nats = connect(resource.kind.as_str()).await;
        let publisher = Publisher::new(&nats, 16);
        nats.client()
            .subscribe(resource.control_subject("_tm", "start"))
            .await
            .unwrap();
        nats.client()
            .queue_subscribe(
                resource.control_subject("_tm", "list"),
                "tidemill".to_owned(),
            )
            .await
            .unwrap();

        let log = format!("{}.1.x.s", resource.log_prefix("_tm"));
        let parked = format!("{}.1.x", resource.parked_prefix("_tm"));
        let mut own = vec![
            ("shop_events", None),
            (resource.parked_stream().leak() as &str, Some(parked)),
        ];
        if resource.kind == Kind::Saga {
            own.push((resource.log_stream().leak(), Some(log)));
        }
        for (stream, subject) in own {
            if let Some(subject) = subject {
                publisher
                    .publish(Publish::new(subject, "{}"))
                    .await
                    .await
                    .unwrap();
            }
            for filters in [
                vec![],
                vec![">".to_owned()],
                vec!["a.>".to_owned(), "b.*".to_owned()],
            ] {
                drop(
                    Reader::open(&nats, stream, filters, ReadFrom::First)
                        .await
                        .unwrap(),
                );
            }
            let mut reader = Reader::open_to_end(&nats, stream, vec![], ReadFrom::First)
                .await
                .unwrap();
            assert!(reader.next_batch(10, &mut Vec::new()).await.unwrap() > 0);
            nats.read_at(stream, 1).await.unwrap().unwrap();
        }
        let mut buckets = vec![
            (names::OWNERS_BUCKET, resource.key_prefix()),
            (names::COUNTERS_BUCKET, resource.key_prefix()),
            (names::REVISIONS_BUCKET, resource.key_prefix()),
            (names::SUMMARIES_BUCKET, resource.key_prefix()),
        ];
        if resource.kind == Kind::Projection {
            buckets.push((resource.rows_bucket().leak(), "abc".to_owned()));
        }
        for (bucket, prefix) in buckets {
            let kv = KvBucket::new(&publisher, bucket);
            kv.put(&format!("{prefix}.a"), "1").await.unwrap();
            assert_eq!(
                kv.get(&format!("{prefix}.a")).await.unwrap().unwrap().value,
                "1"
            );
            assert_eq!(kv.entries(&prefix).await.unwrap().len(), 1);
            kv.delete(&format!("{prefix}.a")).await.unwrap();
        }
        if resource.kind == Kind::Saga {
            assert_eq!(nats.streams_on("inventory.reserve").await.unwrap(), [""; 0]);
            // A Direct reply: the participant has no right on the log, but may answer.
            use futures::StreamExt;
            let reply = format!("{}.1.x.r.reserve.a.1.token", resource.log_prefix("_tm"));
            nats.client()
                .publish_with_reply("inventory.reserve", reply.clone(), "{}".into())
                .await
                .unwrap();
            let request = asked.next().await.unwrap();
            answering
                .client()
                .publish(request.reply.unwrap(), "{\"ok\":true}".into())
                .await
                .unwrap();
            let filters = vec![reply];
            let mut reader = Reader::open(&nats, &resource.log_stream(), filters, ReadFrom::First)
                .await
                .unwrap();
            let mut replies = Vec::new();
            reader.next_batch(1, &mut replies).await.unwrap();
            assert_eq!(&replies[0].payload[..], b"{\"ok\":true}");
        }
        assert_eq!(
            nats.permission_violations(),
            0,
            "{:?}",
            nats.status().borrow()
        );

        // Nothing beside it.
        for subject in [
            "shop.events.a.b",
            "other.events.a.b",
            "_tm.log.shop.other.1.x.s",
            "$KV.tidemill_owners.shop.saga.other.claim.1",
        ] {
            let denied = publisher.publish(Publish::new(subject, "{}")).await.await;
            assert_eq!(denied, Err(PublishError::Denied(subject.to_owned())));
        }
        let denied = Reader::open(&nats, "other_events", vec![], ReadFrom::First).await;
        assert!(matches!(denied, Err(ReadError::Denied(_))), "{denied:?}");
        let owners = KvBucket::new(&publisher, names::OWNERS_BUCKET);
        assert!(owners.get("other.saga.x.claim.1").await.is_err());
    }
}
