//! What workers may do is narrow: of two resources none reaches anything of the other, whatever it asks for and however. That it
//! suffices, and that every line is needed, `testbed/tests/permissions.rs` tries with real workers.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use futures::StreamExt;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tidemill_core::contract::{Connection, Contract};
use tidemill_core::names::{self, Kind, ResourceId};
use tidemill_nats::permissions::{self, covers};
use tidemill_nats::provision::{Mark, StreamPlan, ensure};
use tidemill_nats::{KvBucket, Nats, Publish, PublishError, Publisher, ReadFrom, Reader, Waits};
use tidemill_testbed::{NatsServer, User};

fn contract(kind: Kind, namespace: &str) -> Contract {
    let resource = ResourceId::new(kind, namespace, "orders");
    let stream = json!({ "namespace": namespace, "name": "events" });
    let step = json!({
        "name": "reserve", "after": [], "timeoutMs": 300_000, "stepTimeoutMs": 300_000,
        "action": { "request": { "subject": "inventory.reserve" } },
        "retry": { "maxAttempts": 1, "initialBackoffMs": 1, "maxBackoffMs": 1 },
    });
    let workload = match kind {
        Kind::Projection => json!({ "projection": {
            "definition": { "semantics": 1, "sources": [stream], "key": "event.subject", "handlers": [] },
            "policy": { "onError": "Park", "maxParkedKeys": 10 },
            "starts": ["beginning"],
            "rowsBucket": resource.rows_bucket(),
            "parkedStream": resource.parked_stream(),
        }}),
        Kind::Saga => json!({ "saga": {
            "definition": {
                "semantics": 1, "triggers": [], "steps": [step], "timeoutMs": 1000,
                "onCompleted": [{ "stream": stream, "type": "Order done", "entity": "e" }],
            },
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
        "streams": [{ "stream": stream, "name": format!("{namespace}_events"), "prefix": format!("{namespace}.events") }],
        "workload": workload,
    });
    Contract::parse(contract.to_string().as_bytes()).unwrap()
}

const KINDS: [Kind; 2] = [Kind::Projection, Kind::Saga];

fn user_name(contract: &Contract) -> String {
    permissions::user_name(&contract.resource)
}

/// A server with a user for each resource of two namespaces, and everything made for them.
async fn server() -> (NatsServer, Vec<Contract>) {
    let contracts: Vec<Contract> = ["shop", "other"]
        .into_iter()
        .flat_map(|namespace| KINDS.map(|kind| contract(kind, namespace)))
        .collect();
    let mut server = NatsServer::builder();
    for contract in &contracts {
        let list = permissions::worker(contract);
        server = server.user(User::new(user_name(contract)).permissions(list));
    }
    let participant = permissions::participant("inventory.*", &contracts);
    server = server.user(User::new("participant").permissions(participant));
    let server = server.start().await.unwrap();
    let admin = connect(&server, "admin", None).await;
    let mut plans = Vec::from(StreamPlan::shared_buckets("one"));
    for contract in &contracts {
        let resource = &contract.resource;
        let mark = Mark::of("dev", resource, "one");
        let namespace = &resource.namespace;
        let events = Mark::event_stream("dev", namespace, "events", "one");
        plans.extend([
            StreamPlan::new(
                &format!("{namespace}_events"),
                vec![format!("{namespace}.events.>")],
                events,
            ),
            StreamPlan::parked(resource, "_tm", mark.clone()),
            match resource.kind {
                Kind::Projection => StreamPlan::rows(resource, mark),
                Kind::Saga => StreamPlan::saga_log(resource, "_tm", mark),
            },
        ]);
    }
    for plan in &plans {
        ensure(&admin, plan).await.unwrap();
    }
    (server, contracts)
}

async fn connect(server: &NatsServer, user: &str, contract: Option<&Contract>) -> Nats {
    let mut connection = contract.map_or_else(
        || Connection::plain(""),
        |contract| contract.worker_connection(),
    );
    connection.servers = vec![server.url_for(user)];
    Nats::connect(&connection, user).await.unwrap()
}

/// Something of each kind that belongs to a resource.
fn subjects_of(resource: &ResourceId) -> Vec<String> {
    let keys = resource.key_prefix();
    let mut subjects = vec![
        format!("{}.1.x", resource.parked_prefix("_tm")),
        resource.control_subject("_tm", "status"),
        format!("{}.x.1", resource.inbox_prefix("_tm")),
    ];
    for bucket in [
        names::OWNERS_BUCKET,
        names::COUNTERS_BUCKET,
        names::REVISIONS_BUCKET,
        names::SUMMARIES_BUCKET,
    ] {
        subjects.push(format!("$KV.{bucket}.{keys}.a"));
    }
    subjects.push(match resource.kind {
        Kind::Projection => format!("$KV.{}.live", resource.rows_bucket()),
        Kind::Saga => format!("{}.1.x.s", resource.log_prefix("_tm")),
    });
    subjects
}

/// Every call that reads, deletes or reveals something of a stream.
fn calls(stream: &str, subject: &str) -> Vec<String> {
    [
        format!("STREAM.INFO.{stream}"),
        format!("STREAM.MSG.GET.{stream}"),
        format!("STREAM.MSG.DELETE.{stream}"),
        format!("STREAM.PURGE.{stream}"),
        format!("STREAM.UPDATE.{stream}"),
        format!("STREAM.DELETE.{stream}"),
        format!("STREAM.SNAPSHOT.{stream}"),
        format!("CONSUMER.NAMES.{stream}"),
        format!("CONSUMER.LIST.{stream}"),
        format!("CONSUMER.CREATE.{stream}"),
        format!("CONSUMER.CREATE.{stream}.x"),
        format!("CONSUMER.CREATE.{stream}.x.{subject}"),
        format!("CONSUMER.CREATE.{stream}.x.>"),
        format!("CONSUMER.DURABLE.CREATE.{stream}.x"),
        format!("DIRECT.GET.{stream}"),
        format!("DIRECT.GET.{stream}.{subject}"),
    ]
    .map(|call| format!("$JS.API.{call}"))
    .into()
}

/// The calls that a list permits.
fn permitted<'a>(list: &permissions::Permissions, subjects: &'a [String]) -> Vec<&'a str> {
    let may = |subject: &str| {
        let mut grants = list.publish.iter();
        grants.any(|grant| covers(&grant.subject, subject))
    };
    let permitted = subjects.iter().map(String::as_str);
    permitted.filter(|subject| may(subject)).collect()
}

#[test]
fn no_resource_may_ask_for_anything_of_another() {
    let all: Vec<Contract> = ["shop", "other"]
        .into_iter()
        .flat_map(|namespace| KINDS.map(|kind| contract(kind, namespace)))
        .collect();
    for one in &all {
        let list = permissions::worker(one);
        for grant in list.publish.iter().chain(&list.subscribe) {
            assert!(!grant.why.is_empty(), "{grant:?}");
        }
        for (direction, grants) in [("publish", &list.publish), ("subscribe", &list.subscribe)] {
            for grant in grants {
                let wider = grants
                    .iter()
                    .find(|wide| *wide != grant && covers(&wide.subject, &grant.subject));
                assert_eq!(wider, None, "{direction}: {} is superfluous", grant.subject);
            }
        }
        for other in all.iter().filter(|other| other.resource != one.resource) {
            let subjects = subjects_of(&other.resource);
            assert_eq!(permitted(&list, &subjects), [""; 0], "{}", one.resource);
            let hears = |subject: &String| {
                let mut grants = list.subscribe.iter();
                grants.any(|grant| covers(&grant.subject, subject))
            };
            assert!(!subjects.iter().any(hears), "{}", one.resource);
            let mut streams = vec![
                other.resource.parked_stream(),
                match other.resource.kind {
                    Kind::Projection => format!("KV_{}", other.resource.rows_bucket()),
                    Kind::Saga => other.resource.log_stream(),
                },
            ];
            if other.resource.namespace != one.resource.namespace {
                streams.push(format!("{}_events", other.resource.namespace));
            }
            for stream in streams {
                let calls = calls(&stream, "a");
                assert_eq!(permitted(&list, &calls), [""; 0], "{}", one.resource);
            }
            for bucket in [
                names::OWNERS_BUCKET,
                names::COUNTERS_BUCKET,
                names::REVISIONS_BUCKET,
                names::SUMMARIES_BUCKET,
            ] {
                let key = format!("$KV.{bucket}.{}.a", other.resource.key_prefix());
                let calls = calls(&format!("KV_{bucket}"), &key);
                assert_eq!(permitted(&list, &calls), [""; 0], "{}", one.resource);
            }
        }
    }
}

#[test]
fn a_saga_that_only_publishes_to_a_stream_may_not_read_the_rest_of_it() {
    let list = permissions::worker(&contract(Kind::Saga, "shop"));
    let calls = calls("shop_events", "shop.events.a.Placed");
    assert_eq!(
        permitted(&list, &calls),
        ["$JS.API.STREAM.INFO.shop_events"]
    );
    let own = ["shop.events.a.Order=20done", "shop.events.a.Placed"].map(str::to_owned);
    assert_eq!(permitted(&list, &own), ["shop.events.a.Order=20done"]);
}

#[test]
fn while_instances_of_an_earlier_definition_run_its_lines_are_needed_too() {
    let [old, new] = [Kind::Saga, Kind::Projection].map(|kind| contract(kind, "shop"));
    let (old, new) = (permissions::worker(&old), permissions::worker(&new));
    let both = new.clone().and(old.clone());
    for (both, old, new) in [
        (&both.publish, &old.publish, &new.publish),
        (&both.subscribe, &old.subscribe, &new.subscribe),
    ] {
        let subjects = |grants: &[permissions::Grant]| -> BTreeSet<String> {
            grants.iter().map(|grant| grant.subject.clone()).collect()
        };
        assert_eq!(subjects(both), &subjects(old) | &subjects(new));
        assert_eq!(subjects(both).len(), both.len(), "none is there twice");
    }
    assert_eq!(new.clone().and(new.clone()), new);
}

#[test]
fn calls_follow_the_connection() {
    let mut contract = contract(Kind::Saga, "shop");
    contract.connection.jetstream_domain = Some("hub".to_owned());
    contract.connection.inbox_prefix = Some("_INBOX_shop".to_owned());
    let list = permissions::worker(&contract);
    let subjects: Vec<&str> = list.publish.iter().map(|g| g.subject.as_str()).collect();
    assert!(subjects.contains(&"$JS.hub.API.STREAM.NAMES"));
    assert!(
        !subjects
            .iter()
            .any(|subject| subject.starts_with("$JS.API."))
    );
    assert!(subjects.contains(&"_INBOX_shop.>"));
    assert_eq!(list.subscribe[0].subject, "_INBOX_shop.>");
    contract.connection.jetstream_domain = None;
    contract.connection.jetstream_api_prefix = Some("$JS.team.API.".to_owned());
    let list = permissions::worker(&contract);
    let names = |grant: &permissions::Grant| grant.subject == "$JS.team.API.STREAM.NAMES";
    assert!(list.publish.iter().any(names));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_keeps_them_apart() {
    let (server, contracts) = server().await;
    let admin = connect(&server, "admin", None).await;
    let admins = Publisher::new(&admin, 16);
    for contract in &contracts {
        let resource = &contract.resource;
        for bucket in [names::OWNERS_BUCKET, names::SUMMARIES_BUCKET] {
            let key = format!("{}.a", resource.key_prefix());
            let bucket = KvBucket::new(&admins, bucket);
            bucket.put(&key, resource.to_string()).await.unwrap();
        }
    }
    for contract in &contracts {
        let resource = &contract.resource;
        let nats = connect(&server, &user_name(contract), Some(contract)).await;
        let publisher = Publisher::new(&nats, 16);
        let owners = KvBucket::shared(&publisher, names::OWNERS_BUCKET);
        let own = format!("{}.a", resource.key_prefix());
        let value = owners.get(&own).await.unwrap().unwrap().value;
        assert_eq!(value, resource.to_string());
        // A filter of its own is read through the permitted call, and through no other body or name.
        let entries = owners.entries(&resource.key_prefix()).await.unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!(nats.permission_violations(), 0);

        let (stream, filter) = (
            "KV_tidemill_owners",
            format!("$KV.tidemill_owners.{}.>", resource.key_prefix()),
        );
        for (what, filters) in [
            ("all", json!({})),
            (
                "another",
                json!({ "filter_subject": "$KV.tidemill_owners.>" }),
            ),
            (
                "several",
                json!({ "filter_subjects": [filter, "$KV.tidemill_owners.>"] }),
            ),
            (
                "both",
                json!({ "filter_subject": filter, "filter_subjects": ["$KV.tidemill_owners.>"] }),
            ),
        ] {
            let mut config = json!({ "name": "x", "ack_policy": "none", "deliver_policy": "all" });
            config
                .as_object_mut()
                .unwrap()
                .extend(filters.as_object().unwrap().clone());
            let body = json!({ "stream_name": stream, "config": config, "action": "create" });
            let call = format!("$JS.API.CONSUMER.CREATE.{stream}.x.{filter}");
            let answer = nats
                .client()
                .request(call, body.to_string().into())
                .await
                .unwrap();
            let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
            assert!(answer["error"].is_object(), "{what}: {answer}");
        }
        for other in contracts.iter().filter(|other| other.resource != *resource) {
            for subject in subjects_of(&other.resource) {
                let denied = publisher.publish(Publish::new(&subject, "{}")).await.await;
                assert_eq!(denied, Err(PublishError::Denied(subject.clone())));
            }
            let key = format!("{}.a", other.resource.key_prefix());
            assert!(owners.get(&key).await.is_err());
            let foreign = format!("$KV.tidemill_owners.{}.>", other.resource.key_prefix());
            let read = Reader::open_within(&nats, stream, foreign, ReadFrom::First, Waits::Never);
            assert!(read.await.is_err());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_participant_answers_into_the_log_and_writes_nothing_else_there() {
    let (server, contracts) = server().await;
    let saga = contracts
        .iter()
        .find(|contract| contract.resource == ResourceId::new(Kind::Saga, "shop", "orders"))
        .unwrap();
    let list = permissions::participant("inventory.*", &contracts);
    // A step may take five minutes.
    assert_eq!(list.responses.unwrap().within.as_secs(), 300);

    let answers = server.client_for("participant").await.unwrap();
    let mut asked = answers
        .queue_subscribe("inventory.reserve", "copies".to_owned())
        .await
        .unwrap();
    answers.flush().await.unwrap();
    let nats = connect(&server, &user_name(saga), Some(saga)).await;
    let log = saga.resource.log_prefix("_tm");
    let reply = format!("{log}.1.x.r.reserve.a.1.token");
    let body = bytes::Bytes::from("{}");
    nats.client()
        .publish_with_reply("inventory.reserve", reply.clone(), body.clone())
        .await
        .unwrap();
    let request = asked.next().await.unwrap();
    answers
        .publish(request.reply.unwrap(), "{\"ok\":true}".into())
        .await
        .unwrap();
    // Once only, and nowhere else.
    for subject in [
        reply.clone(),
        format!("{log}.1.x.s"),
        "shop.events.a.b".to_owned(),
    ] {
        answers.publish(subject, body.clone()).await.unwrap();
    }
    let violations = || async {
        match server.log().matches("Publish Violation").count() {
            3 => Ok(()),
            other => Err(other),
        }
    };
    let cap = std::time::Duration::from_secs(60);
    tidemill_testbed::eventually("three refusals", cap, violations).await;
    let admin = connect(&server, "admin", None).await;
    let mut reader = Reader::open_to_end(
        &admin,
        &saga.resource.log_stream(),
        Vec::new(),
        ReadFrom::First,
    )
    .await
    .unwrap();
    let mut stored = Vec::new();
    while reader.next_batch(16, &mut stored).await.unwrap() > 0 {}
    assert_eq!(stored.len(), 1);
    assert_eq!(
        (stored[0].subject.as_str(), &stored[0].payload[..]),
        (reply.as_str(), &b"{\"ok\":true}"[..])
    );
}
