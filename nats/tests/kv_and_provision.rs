//! Streams and buckets are made once and left alone, and buckets read as they were written.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
use std::time::Duration;
use tidemill_core::contract::Connection;
use tidemill_core::names::{Kind, ResourceId};
use tidemill_nats::provision::{Limits, Mark, Outcome, StreamPlan, ensure};
use tidemill_nats::{
    Guard, HeaderMap, KvBucket, KvError, KvWrite, Nats, Publish, PublishError, Publisher, publish,
};
use tidemill_testbed::NatsServer;

async fn connect(server: &NatsServer) -> Nats {
    Nats::connect(&Connection::plain(&server.url()), "test")
        .await
        .unwrap()
}

/// Calls of this kind that the server has answered since it started.
async fn api_calls(nats: &Nats) -> u64 {
    nats.jetstream()
        .query_account()
        .await
        .unwrap()
        .requests
        .total
}

#[tokio::test]
async fn ensuring_twice_writes_once() {
    let server = NatsServer::start().await.unwrap();
    let nats = connect(&server).await;
    let saga = ResourceId::new(Kind::Saga, "shop", "orders");
    let projection = ResourceId::new(Kind::Projection, "shop", "orders");
    let mark = |resource| Mark::of("dev", resource, "abc");
    let mut events = StreamPlan::new(
        "shop_orders",
        vec!["shop.orders.>".to_owned(), "legacy.>".to_owned()],
        Mark::event_stream("dev", "shop", "orders", "abc"),
    );
    events.limits = Limits {
        bytes_max: Some(1 << 20),
        age_max: Some(Duration::from_secs(60)),
        messages_max: Some(10),
        messages_per_subject_max: None,
    };
    events.compression = true;
    events.message_bytes_max = Some(1000);
    let mut plans = vec![
        events.clone(),
        StreamPlan::saga_log(&saga, "_tm", mark(&saga)),
        StreamPlan::parked(&saga, "_tm", mark(&saga)),
        StreamPlan::parked(&projection, "_tm", mark(&projection)),
        StreamPlan::rows(&projection, mark(&projection)),
    ];
    plans.extend(StreamPlan::shared_buckets("abc"));
    for plan in &plans {
        assert_eq!(
            ensure(&nats, plan).await.unwrap(),
            Outcome::Created,
            "{}",
            plan.name
        );
    }
    let before = api_calls(&nats).await;
    for plan in &plans {
        assert_eq!(
            ensure(&nats, plan).await.unwrap(),
            Outcome::Unchanged,
            "{}",
            plan.name
        );
    }
    // One look for each plan, and the two questions for the number of calls.
    let calls = api_calls(&nats).await - before;
    assert!(calls <= plans.len() as u64 + 1, "{calls}");

    events.limits.messages_max = Some(20);
    events.mark.incarnation = "another".to_owned();
    assert_eq!(
        ensure(&nats, &events).await.unwrap(),
        Outcome::Updated(vec!["max_msgs".to_owned()])
    );
    let state = nats.stream_state("shop_orders").await.unwrap();
    assert_eq!(
        (
            state.incarnation.as_str(),
            state.config["max_msgs"].as_u64()
        ),
        ("abc", Some(20))
    );

    events.mark.namespace = "other".to_owned();
    let Outcome::Conflict(reason) = ensure(&nats, &events).await.unwrap() else {
        panic!("another's stream was taken");
    };
    assert!(
        reason.contains("belongs to dev/shop/eventstream/orders"),
        "{reason}"
    );

    // Subjects that overlap another stream's.
    let overlap = StreamPlan::new(
        "x",
        vec!["shop.orders.a.>".to_owned()],
        Mark::event_stream("dev", "x", "x", "abc"),
    );
    let Outcome::Conflict(reason) = ensure(&nats, &overlap).await.unwrap() else {
        panic!("overlapping subjects were accepted");
    };
    assert!(
        reason.contains(
            "stream shop_orders, which belongs to dev/shop/eventstream/orders, takes it already"
        ),
        "{reason}"
    );
}

#[tokio::test]
async fn buckets_keep_headers_guards_and_markers() {
    let server = NatsServer::start().await.unwrap();
    let nats = connect(&server).await;
    let projection = ResourceId::new(Kind::Projection, "shop", "orders");
    ensure(
        &nats,
        &StreamPlan::rows(&projection, Mark::of("dev", &projection, "abc")),
    )
    .await
    .unwrap();
    let publisher = Publisher::new(&nats, publish::IN_FLIGHT);
    let rows = KvBucket::new(&publisher, &projection.rows_bucket());

    assert_eq!(rows.get("r1.a").await.unwrap(), None);
    let mut headers = HeaderMap::new();
    headers.insert("Tidemill-Pos", "1:7");
    let write = |key: &str, value: Option<&'static str>, guard| KvWrite {
        key: key.to_owned(),
        value: value.map(Into::into),
        headers: headers.clone(),
        guard,
    };
    let first = rows
        .write(write("r1.a", Some("{}"), Guard::Revision(0)))
        .await
        .unwrap();
    let conflict = rows
        .write(write("r1.a", Some("{}"), Guard::Revision(0)))
        .await
        .unwrap_err();
    assert!(
        matches!(
            conflict,
            KvError::Write {
                source: PublishError::Conflict,
                ..
            }
        ),
        "{conflict}"
    );
    let second = rows
        .write(write("r1.a", Some(r#"{"n":1}"#), Guard::Revision(first)))
        .await
        .unwrap();
    let entry = rows.get("r1.a").await.unwrap().unwrap();
    assert_eq!(
        (entry.revision, &entry.value[..], entry.deleted),
        (second, &br#"{"n":1}"#[..], false)
    );
    assert_eq!(
        entry.headers.unwrap().get("Tidemill-Pos").unwrap().as_str(),
        "1:7"
    );

    // Any client reads it.
    let other = nats
        .jetstream()
        .get_key_value(projection.rows_bucket())
        .await
        .unwrap();
    assert_eq!(other.get("r1.a").await.unwrap().unwrap(), r#"{"n":1}"#);

    rows.write(write("r1.a", None, Guard::Revision(second)))
        .await
        .unwrap();
    let entry = rows.get("r1.a").await.unwrap().unwrap();
    assert!(entry.deleted && entry.value.is_empty());
    assert_eq!(
        entry.headers.unwrap().get("Tidemill-Pos").unwrap().as_str(),
        "1:7"
    );
    assert_eq!(other.get("r1.a").await.unwrap(), None);
    assert!(rows.create("r1.a", "new").await.unwrap().is_some());
    assert_eq!(rows.create("r1.a", "newer").await.unwrap(), None);

    // By prefix, whole tokens only.
    for key in ["r1.b", "r1.c.d", "r11.x", "r2.y"] {
        rows.put(key, key.to_owned()).await.unwrap();
    }
    let keys =
        |entries: std::collections::BTreeMap<String, _>| entries.into_keys().collect::<Vec<_>>();
    assert_eq!(
        keys(rows.entries("r1").await.unwrap()),
        ["r1.a", "r1.b", "r1.c.d"]
    );
    assert_eq!(keys(rows.entries("none").await.unwrap()), [""; 0]);
    assert_eq!(rows.entries("").await.unwrap().len(), 5);
    let many = rows
        .get_many(&["r2.y", "none", "r1.b"].map(str::to_owned))
        .await
        .unwrap();
    let values: Vec<_> = many
        .iter()
        .map(|entry| entry.as_ref().map(|entry| &entry.value[..]))
        .collect();
    assert_eq!(values, [Some(&b"r2.y"[..]), None, Some(b"r1.b")]);

    let mut watch = rows.watch("r2").await.unwrap();
    let mut seen = Vec::new();
    watch.next_batch(10, &mut seen).await.unwrap();
    assert_eq!((seen[0].key.as_str(), watch.pending()), ("r2.y", 0));
    rows.delete("r2.y").await.unwrap();
    watch.next_batch(10, &mut seen).await.unwrap();
    assert!(seen[1].deleted);

    let missing = KvBucket::new(&publisher, "nowhere");
    let error = missing.get("a").await.unwrap_err().to_string();
    assert_eq!(error, "bucket nowhere: stream KV_nowhere doesn't exist");
    let error = missing.put("a", "b").await.unwrap_err().to_string();
    assert_eq!(
        error,
        "bucket nowhere, key a: no stream takes $KV.nowhere.a"
    );
}

/// Whoever may publish could otherwise take away what others have published, now or later.
#[tokio::test]
async fn no_header_takes_anything_out_of_logs_parked_events_and_events() {
    let server = NatsServer::start().await.unwrap();
    let nats = connect(&server).await;
    let saga = ResourceId::new(Kind::Saga, "shop", "orders");
    let projection = ResourceId::new(Kind::Projection, "shop", "orders");
    let mark = |resource| Mark::of("dev", resource, "abc");
    let of_events = Mark::event_stream("dev", "shop", "orders", "abc");
    let publisher = Publisher::new(&nats, 2);
    for (plan, subject) in [
        (
            StreamPlan::saga_log(&saga, "_tm", mark(&saga)),
            "_tm.log.shop.orders.0.a.s",
        ),
        (
            StreamPlan::parked(&saga, "_tm", mark(&saga)),
            "_tm.parked.shop.saga.orders.0.a",
        ),
        (
            StreamPlan::parked(&projection, "_tm", mark(&projection)),
            "_tm.parked.shop.projection.orders.0.a",
        ),
        (
            StreamPlan::new("shop_orders", vec!["shop.orders.>".to_owned()], of_events),
            "shop.orders.a.Placed",
        ),
    ] {
        ensure(&nats, &plan).await.unwrap();
        let send = async |headers: &[(&str, &str)]| {
            let mut message = Publish::new(subject, "1");
            for (name, value) in headers {
                message.headers.insert(*name, *value);
            }
            publisher.publish(message).await.await
        };
        send(&[]).await.unwrap();
        for headers in [
            &[("Nats-Rollup", "all")][..],
            &[("Nats-Rollup", "sub")],
            &[("Nats-TTL", "1s")],
            &[("Nats-TTL", "never")],
            &[("Nats-Incr", "+1")],
            &[
                ("Nats-Schedule", "@every 1s"),
                ("Nats-Schedule-Target", "shop.orders.b.Placed"),
            ],
        ] {
            let sent = send(headers).await;
            assert!(
                matches!(sent, Err(PublishError::Refused { .. })),
                "{subject} {headers:?}: {sent:?}"
            );
        }
        let state = nats.stream_state(&plan.name).await.unwrap();
        assert_eq!((state.first, state.last), (1, 1), "{subject}");
    }
}

#[tokio::test]
async fn publishes_tell_what_became_of_them() {
    let server = NatsServer::start().await.unwrap();
    let nats = connect(&server).await;
    let mut plan = StreamPlan::new(
        "s",
        vec!["s.>".to_owned()],
        Mark::event_stream("dev", "x", "s", "abc"),
    );
    plan.limits.messages_max = Some(3);
    plan.message_bytes_max = Some(100);
    ensure(&nats, &plan).await.unwrap();
    let publisher = Publisher::new(&nats, 2);
    let send = async |message: Publish| publisher.publish(message).await.await;

    let mut message = Publish::new("s.a", "1");
    message.message_id = Some("one".to_owned());
    let acked = send(message.clone()).await.unwrap();
    assert_eq!(
        (acked.stream.as_str(), acked.sequence, acked.duplicate),
        ("s", 1, false)
    );
    let acked = send(message.clone()).await.unwrap();
    assert_eq!((acked.sequence, acked.duplicate), (1, true));

    let mut guarded = Publish::new("s.a", "2");
    guarded.expected_last_subject_sequence = Some(0);
    assert_eq!(send(guarded.clone()).await, Err(PublishError::Conflict));
    guarded.expected_last_subject_sequence = Some(1);
    assert_eq!(send(guarded).await.unwrap().sequence, 2);

    assert_eq!(
        send(Publish::new("t.a", "1")).await,
        Err(PublishError::NoStream("t.a".to_owned()))
    );
    let Err(PublishError::Refused { code: 10054, .. }) =
        send(Publish::new("s.a", vec![0; 101])).await
    else {
        panic!("too large for the stream");
    };
    let too_large = send(Publish::new("s.a", vec![0; nats.max_payload() + 1]))
        .await
        .unwrap_err();
    assert!(
        matches!(too_large, PublishError::Refused { code: 10054, .. }) && !too_large.may_pass(),
        "{too_large}"
    );
    send(Publish::new("s.a", "3")).await.unwrap();
    let full = send(Publish::new("s.a", "4")).await.unwrap_err();
    assert!(
        matches!(full, PublishError::Refused { code: 10077, .. }) && !full.may_pass(),
        "{full}"
    );
    assert_eq!(publisher.in_flight(), 0);
}
