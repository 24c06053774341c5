//! What a spec permits: observing, taking over, making again, deleting, opening to others.

use crate::world::{CAP, World};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tidemill_core::names::{COUNTERS_BUCKET, bucket_stream};
use tidemill_crds::eventstream::EventStream;
use tidemill_crds::projection::Projection;
use tidemill_nats::provision::{self, Mark, StreamPlan};
use tidemill_nats::{ApiError, KvBucket, Publisher};
use tidemill_operator::kubernetes::Object;
use tidemill_testbed::wait::within;

fn may_adopt() -> Value {
    json!({"tenancy": {"grants": [{"namespaces": ["shop"], "adopt": true}]}})
}

impl World {
    /// Makes a stream as somebody else would.
    async fn stream_of_others(&self, name: &str, subjects: &str, settings: Value) {
        let mut config = json!({"name": name, "subjects": [subjects]});
        for (setting, value) in settings.as_object().unwrap() {
            config[setting] = value.clone();
        }
        let config = config.as_object().unwrap().clone();
        provision::create(&self.nats, name, &config).await.unwrap();
    }

    async fn is_gone(&self, stream: &str) {
        let gone = within(CAP, async || match self.nats.stream_state(stream).await {
            Err(ApiError::StreamMissing(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        gone.await.unwrap();
    }

    async fn delete<K: Object>(&self, name: &str) {
        let params = DeleteParams::default();
        self.api::<K>().delete(name, &params).await.unwrap();
    }

    async fn has_gone<K: Object>(&self, name: &str) {
        let gone = within(CAP, async || match self.api::<K>().get_opt(name).await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        gone.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observed_stream_is_read_and_never_written() {
    let world = World::start().await;
    let operator = world.operator("a").await;
    let observe = json!({"managementPolicy": "Observe", "prefix": "shop.legacy", "streamName": "shop_LEGACY"});
    world.apply::<EventStream>("legacy", observe).await;
    world.expect::<EventStream>("legacy", "StreamMissing").await;
    // It comes: by somebody else.
    let settings = json!({"max_msgs": 7, "storage": "memory"});
    world
        .stream_of_others("shop_LEGACY", "shop.legacy.>", settings)
        .await;
    let before = world.config("shop_LEGACY").await;
    world.expect::<EventStream>("legacy", "InForce").await;
    let status = world
        .api::<EventStream>()
        .get("legacy")
        .await
        .unwrap()
        .status
        .unwrap();
    let effective = serde_json::to_value(status.effective.unwrap()).unwrap();
    assert_eq!(effective["maxMessages"], 7);
    assert_eq!(effective["storage"], "Memory");
    assert_eq!(world.config("shop_LEGACY").await, before);
    world.delete::<EventStream>("legacy").await;
    world.has_gone::<EventStream>("legacy").await;
    assert_eq!(world.config("shop_LEGACY").await, before);

    let queue = json!({"retention": "workqueue"});
    world
        .stream_of_others("shop_QUEUE", "shop.queue.>", queue)
        .await;
    let observe =
        json!({"managementPolicy": "Observe", "prefix": "shop.queue", "streamName": "shop_QUEUE"});
    world.apply::<EventStream>("queue", observe).await;
    let said = world.expect::<EventStream>("queue", "Unreadable").await;
    assert!(said.contains("retention workqueue"), "{said}");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_taken_over_only_when_everybody_agrees() {
    let world = World::start().await;
    let operator = world.operator("a").await;
    world
        .stream_of_others(
            "shop_orders",
            "shop.orders.>",
            json!({"metadata": {"team": "blue"}}),
        )
        .await;
    let created = world
        .nats
        .stream_state("shop_orders")
        .await
        .unwrap()
        .created;
    // Nobody said that it may.
    world.apply::<EventStream>("orders", json!({})).await;
    let said = world.expect::<EventStream>("orders", "NotOwned").await;
    assert!(said.contains("spec.adoptionPolicy: IfUnowned"), "{said}");
    // The spec does, the operator's configuration doesn't.
    let adopt = json!({"adoptionPolicy": "IfUnowned"});
    world.apply::<EventStream>("orders", adopt).await;
    let said = world.expect::<EventStream>("orders", "NotAllowed").await;
    assert!(
        said.contains("tenancy.grants: [{namespaces: [shop], adopt: true}]"),
        "{said}"
    );
    operator.stop().await;
    // Both do.
    let operator = world.operator_with("b", may_adopt()).await;
    world.expect::<EventStream>("orders", "InForce").await;
    let metadata = world.config("shop_orders").await["metadata"].clone();
    assert_eq!(metadata["team"], "blue");
    assert_eq!(metadata["tidemill.dev/name"], "orders");
    let incarnation = metadata["tidemill.dev/incarnation"].as_str().unwrap();
    let status = world
        .api::<EventStream>()
        .get("orders")
        .await
        .unwrap()
        .status
        .unwrap();
    assert_eq!(status.incarnation.as_deref(), Some(incarnation));
    // To the second: the server writes it more exactly than a timestamp of ours.
    let second = |time: &str| time.get(..19).map(str::to_owned);
    assert_eq!(second(incarnation), second(&created.to_string()));

    // Another cluster's.
    let mark = Mark::event_stream("other", "store", "payments", "i-1");
    let plan = StreamPlan::new("shop_payments", vec!["shop.payments.>".to_owned()], mark);
    provision::create(&world.nats, &plan.name, &plan.config())
        .await
        .unwrap();
    world.apply::<EventStream>("payments", json!({})).await;
    let said = world.expect::<EventStream>("payments", "NotOwned").await;
    assert!(
        said.contains("tidemill.dev/take-from: other/store/payments"),
        "{said}"
    );
    let patch =
        json!({"metadata": {"annotations": {"tidemill.dev/take-from": "other/store/payments"}}});
    let streams = world.api::<EventStream>();
    streams
        .patch("payments", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    world.expect::<EventStream>("payments", "InForce").await;
    let metadata = world.config("shop_payments").await["metadata"].clone();
    assert_eq!(metadata["tidemill.dev/cluster"], "main");
    assert_eq!(metadata["tidemill.dev/incarnation"], "i-1");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_stream_is_made_again_if_the_spec_says_so() {
    let world = World::start().await;
    let operator = world.operator("a").await;
    world
        .apply::<EventStream>("orders", json!({"onLoss": "Recreate"}))
        .await;
    world.expect::<EventStream>("orders", "InForce").await;
    let first = world
        .nats
        .stream_state("shop_orders")
        .await
        .unwrap()
        .incarnation;
    for order in ["o-1", "o-2", "o-3"] {
        world.place(order).await;
    }
    let known = within(CAP, async || {
        let found = world.api::<EventStream>().get("orders").await.unwrap();
        match found.status.and_then(|status| status.last_sequence) {
            Some(3) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    known.await.unwrap();
    world
        .nats
        .jetstream()
        .delete_stream("shop_orders")
        .await
        .unwrap();
    let again = within(CAP, async || {
        match world.nats.stream_state("shop_orders").await {
            Ok(stream) if stream.incarnation != first => Ok(stream),
            other => Err(format!("{other:?}")),
        }
    });
    let again = again.await.unwrap();
    assert_eq!(again.first, 4, "positions of before mean nothing else");
    let lost = within(CAP, async || {
        let found = world.api::<EventStream>().get("orders").await.unwrap();
        let conditions = found.status.unwrap().conditions;
        let lost = conditions
            .into_iter()
            .find(|condition| condition.type_ == "DataLost");
        lost.ok_or("no condition says so")
    });
    let lost = lost.await.unwrap();
    assert!(lost.message.contains(&first), "{}", lost.message);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_delete_events_only_when_a_person_says_so() {
    let world = World::start().await;
    let operator = world.operator("a").await;
    let limited = |number: u32| json!({"limits": {"maxMessages": number, "onFull": "DropOldest"}});
    world.apply::<EventStream>("orders", limited(10)).await;
    world.expect::<EventStream>("orders", "InForce").await;
    for order in 1..=4 {
        world.place(&format!("o-{order}")).await;
    }
    world.apply::<EventStream>("orders", limited(3)).await;
    let said = world
        .expect::<EventStream>("orders", "WouldLoseEvents")
        .await;
    assert!(
        said.contains("limits.maxMessages: the oldest 1 events"),
        "{said}"
    );
    assert_eq!(world.config("shop_orders").await["max_msgs"], 10);
    let allowed = json!({"metadata": {"annotations": {"tidemill.dev/allow-loss": "true"}}});
    let streams = world.api::<EventStream>();
    let params = PatchParams::default();
    streams
        .patch("orders", &params, &Patch::Merge(allowed))
        .await
        .unwrap();
    world.expect::<EventStream>("orders", "InForce").await;
    assert_eq!(
        world.nats.stream_state("shop_orders").await.unwrap().first,
        2
    );
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_goes_with_its_resource_only_if_the_spec_says_so() {
    let mut world = World::start().await;
    let operator = world.operator("a").await;
    world.apply::<EventStream>("kept", json!({})).await;
    world
        .apply::<EventStream>("orders", json!({"deletionPolicy": "Delete"}))
        .await;
    let projection = json!({
        "from": [{"stream": {"name": "kept"}, "start": {"from": "New"}}],
        "key": "event.subject",
        "handlers": [{"set": {"state": "placed"}}],
        "sink": {"kv": {}},
        "deletionPolicy": "Delete",
    });
    world.apply::<Projection>("rows", projection.clone()).await;
    world.apply::<Projection>("rows-too", projection).await;
    for name in ["kept", "orders"] {
        world.expect::<EventStream>(name, "InForce").await;
    }
    for name in ["rows", "rows-too"] {
        world.expect::<Projection>(name, "WorkersNotReady").await;
    }
    let publisher = Publisher::new(&world.nats, 1);
    let counters = KvBucket::new(&publisher, COUNTERS_BUCKET);
    for name in ["rows", "rows-too"] {
        counters
            .put(&format!("shop.projection.{name}.0"), "{}")
            .await
            .unwrap();
    }
    world.delete::<EventStream>("kept").await;
    world.has_gone::<EventStream>("kept").await;
    world.delete::<EventStream>("orders").await;
    world.has_gone::<EventStream>("orders").await;
    world.is_gone("shop_orders").await;
    // What was taken from it stays: it is another's now.
    world
        .apply::<EventStream>("sold", json!({"deletionPolicy": "Delete"}))
        .await;
    world.expect::<EventStream>("sold", "InForce").await;
    let mut config = world.config("shop_sold").await.as_object().unwrap().clone();
    config["metadata"]["tidemill.dev/cluster"] = json!("other");
    provision::update(&world.nats, "shop_sold", &config)
        .await
        .unwrap();
    world.delete::<EventStream>("sold").await;
    world.has_gone::<EventStream>("sold").await;
    world.nats.stream_state("shop_sold").await.unwrap();
    world.nats.stream_state("shop_kept").await.unwrap();
    world.delete::<Projection>("rows").await;
    world.has_gone::<Projection>("rows").await;
    world.is_gone("KV_shop_rows_rows").await;
    world.is_gone("shop_rows_projection_parked").await;
    // What others have stays.
    world
        .nats
        .stream_state("KV_shop_rows-too_rows")
        .await
        .unwrap();
    let left = counters.entries("shop.projection").await.unwrap();
    let left: Vec<&String> = left.keys().collect();
    let theirs = |key: &&&String| key.starts_with("shop.projection.rows-too.");
    assert!(
        !left.is_empty() && left.iter().filter(theirs).count() == left.len(),
        "{left:?}"
    );
    world
        .nats
        .stream_state(&bucket_stream(COUNTERS_BUCKET))
        .await
        .unwrap();
    operator.stop().await;

    // NATS is away: the resource waits, says why, and goes when the time is over.
    let operator = world
        .operator_with("b", json!({"deletionDeadlineSeconds": 3}))
        .await;
    world
        .apply::<EventStream>("late", json!({"deletionPolicy": "Delete"}))
        .await;
    world.expect::<EventStream>("late", "InForce").await;
    world.server().stop().await.unwrap();
    world.delete::<EventStream>("late").await;
    world.has_gone::<EventStream>("late").await;
    world.server().restart().await.unwrap();
    let left = within(CAP, async || world.nats.stream_state("shop_late").await);
    left.await.unwrap();
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_open_to_namespaces_by_their_labels() {
    let world = World::start().await;
    let operator = world.operator("a").await;
    world.namespace("reports").await;
    let readers = json!({"namespaces": "Selector", "selector": {"matchLabels": {"team": "data"}}});
    world
        .apply::<EventStream>("orders", json!({"allowedReaders": readers}))
        .await;
    world.expect::<EventStream>("orders", "InForce").await;
    let spec = json!({
        "from": [{"stream": {"name": "orders", "namespace": "shop"}}],
        "key": "event.subject",
        "handlers": [{"set": {"state": "placed"}}],
        "sink": {"kv": {}},
    });
    let reports = world.at("reports");
    reports.apply::<Projection>("order-status", spec).await;
    let said = reports
        .expect::<Projection>("order-status", "StreamUnusable")
        .await;
    assert!(
        said.contains("spec.from[0].stream") && said.contains("labels of that namespace"),
        "{said}"
    );
    // The namespace is labelled: it recovers by itself.
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    let patch = json!({"metadata": {"labels": {"team": "data"}}});
    namespaces
        .patch("reports", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    reports
        .expect::<Projection>("order-status", "WorkersNotReady")
        .await;
    operator.stop().await;
}
