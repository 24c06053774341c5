//! Where readers are led.

use crate::numbers::*;
use crate::support::*;
use futures::poll;
use serde_json::json;
use tidemill_core::names::{PROJECTION_PARTITIONS, REVISIONS_BUCKET, partition};
use tidemill_core::projection::KeySpace;
use tidemill_nats::{KvBucket, Publisher};
use tidemill_testbed::eventually;
use tidemill_worker_projection::{Options, run_with};

/// A worker that looked where readers are led, and then stalled, finds that a newer one has led them elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn readers_stay_where_a_newer_owner_has_led_them() {
    let mut world = World::start().await;
    publish(&mut world, &[("a", json!(1))]).await;
    let definition = numbers();
    let context = world.context("a", &definition).await;
    let shutdown = context.shutdown.clone();
    // On the worker's own connection what it has sent is answered before what is asked here.
    let kept = KvBucket::new(&Publisher::new(&context.nats, 1), REVISIONS_BUCKET);
    let key = resource().revision_key(&definition.revision());
    let mut work = Box::pin(run_with(context, Options::default()));
    // Having looked, it keeps its definition, and doesn't get to know that it is kept.
    eventually("the definition is kept", CAP, async || {
        assert!(poll!(&mut work).is_pending());
        match kept.get(&key).await {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;

    // Rows that are further than this worker can get, so that it has no reason to lead readers on either.
    let newer = KeySpace::parse("fedcba9876543210").unwrap();
    let checkpoint = json!({"sources": {"shop/orders": {"position": "orders-1:1000"}}});
    let far = newer.checkpoint_key(partition("a", PROJECTION_PARTITIONS));
    let bucket = world.rows_bucket();
    bucket.put(&far, checkpoint.to_string()).await.unwrap();
    let led = bucket.create("live", newer.to_string()).await.unwrap();
    assert!(led.is_some(), "nobody has led readers before");

    let work = tokio::spawn(work);
    let space = KeySpace::parse(definition.revision().as_str()).unwrap();
    world
        .expect_status("it builds rows beside those", |status| {
            status["live"] == newer.to_string() && status["building"] == space.to_string()
        })
        .await;
    publish(&mut world, &[("a", json!(2))]).await;
    eventually("its rows are as far", CAP, async || {
        match bucket.get(&space.row_key("a")).await.unwrap() {
            Some(row) if *row.value == *br#"{"last":2,"sum":3}"# => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(world.live().await, Some(newer.to_string()));
    assert_eq!(
        bucket
            .get("live")
            .await
            .unwrap()
            .map(|entry| entry.revision),
        led
    );
    shutdown.cancel();
    work.await.unwrap().unwrap();
}
