//! What somebody else wrote where only the worker writes: nothing is folded over it, and a person is told which key it is.

use crate::numbers::*;
use crate::support::*;
use serde_json::json;
use tidemill_core::names::{
    COUNTERS_BUCKET, PROJECTION_PARTITIONS, partition, rebuild_key, source_key,
};
use tidemill_core::projection::KeySpace;
use tidemill_nats::KvBucket;
use tidemill_testbed::eventually;

/// What a person is told, once it has stopped for a key.
async fn expect_foreign(world: &World, worker: &Worker, key: &str) -> String {
    let status = world
        .expect_status(key, |status| {
            let stopped = &status["stopped"];
            let message = stopped["message"].as_str().unwrap_or_default();
            stopped["reason"] == "ForeignKey" && message.contains(&format!("key {key} in "))
        })
        .await;
    let message = status["stopped"]["message"].as_str().unwrap().to_owned();
    eventually("readiness to say the same", CAP, async || {
        match worker.health.report().reasons.remove("projection") {
            Some(reason) if reason == message => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(message.contains("elete the key"), "{message}");
    message
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_somebody_else_wrote_stops_it_until_the_key_is_deleted_and_all_is_rebuilt() {
    let mut world = World::start().await;
    let definition = numbers();
    let revision = definition.revision();
    let worker = world.worker("a", &definition).await;
    publish(&mut world, &[("a", json!(1)), ("b", json!(1))]).await;
    world.expect_reference("its own rows", &definition).await;
    // It has the row in memory and knows nothing of this.
    let key = format!("{revision}.a");
    let by_hand = r#"{"last":7}"#;
    world.rows_bucket().put(&key, by_hand).await.unwrap();
    publish(&mut world, &[("a", json!(2))]).await;
    let message = expect_foreign(&world, &worker, &key).await;
    assert!(
        message.contains("has no header `Tidemill-Pos`") && message.contains("then rebuild"),
        "{message}"
    );
    // So it is to whoever comes next, and nothing has become of the row.
    worker.stop().await;
    let worker = world.worker("b", &definition).await;
    expect_foreign(&world, &worker, &key).await;
    assert_eq!(world.rows().await["a"], by_hand);
    assert_eq!(parked_messages(&world).await, 0);

    world.rows_bucket().delete(&key).await.unwrap();
    world.ask("rebuild", json!({})).await.unwrap();
    let rebuilt = format!("{revision}-1");
    world
        .expect_status("rebuilt", |status| {
            status["live"] == json!(rebuilt) && status["stopped"].is_null()
        })
        .await;
    let expected = rows(&[
        ("a", r#"{"last":2,"sum":3}"#),
        ("b", r#"{"last":1,"sum":1}"#),
    ]);
    world.expect_rows("all of it", &expected).await;
    assert_eq!(parked_messages(&world).await, 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_no_row_stops_it_until_it_is_put_back() {
    let mut world = World::start().await;
    let definition = numbers();
    let revision = definition.revision();
    let worker = world.worker("a", &definition).await;
    publish(&mut world, &[("a", json!(1))]).await;
    world.expect_reference("first", &definition).await;
    world.ask("rebuild", json!({})).await.unwrap();
    let space = KeySpace::parse(&format!("{revision}-1")).unwrap();
    world
        .expect_status("rebuilt", |status| {
            status["live"] == json!(space.to_string())
        })
        .await;
    worker.stop().await;

    let rows = world.rows_bucket();
    let counters = KvBucket::new(&world.publisher, COUNTERS_BUCKET);
    let orders = stream_ref("orders");
    for (n, (bucket, key)) in [
        (&rows, "live".to_owned()),
        (&rows, rebuild_key(&revision)),
        (&rows, source_key(&orders)),
        (
            &rows,
            space.checkpoint_key(partition("a", PROJECTION_PARTITIONS)),
        ),
        (&counters, resource().start_key(&orders)),
    ]
    .into_iter()
    .enumerate()
    {
        let held = bucket.get(&key).await.unwrap().unwrap().value;
        bucket.put(&key, "by hand!").await.unwrap();
        let before = world.rows_bucket().entries("").await.unwrap();
        let worker = world.worker("a", &definition).await;
        let message = expect_foreign(&world, &worker, &key).await;
        assert!(message.contains("Put back what it held"), "{message}");
        publish(&mut world, &[("a", json!(n))]).await;
        worker.stop().await;
        assert_eq!(
            world.rows_bucket().entries("").await.unwrap().len(),
            before.len()
        );
        bucket.put(&key, held).await.unwrap();
        let worker = world.worker("a", &definition).await;
        world.expect_reference(&key, &definition).await;
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pointer_that_is_spoilt_while_it_works_is_written_anew_once_it_is_deleted() {
    let mut world = World::start().await;
    let definition = numbers();
    let worker = world.worker("a", &definition).await;
    publish(&mut world, &[("a", json!(1))]).await;
    world.expect_reference("first", &definition).await;
    world
        .rows_bucket()
        .put("live", [0xff, 0xfe].as_slice())
        .await
        .unwrap();
    expect_foreign(&world, &worker, "live").await;
    publish(&mut world, &[("a", json!(2))]).await;
    world.rows_bucket().delete("live").await.unwrap();
    world.expect_reference("it goes on", &definition).await;
    worker.stop().await;
}
