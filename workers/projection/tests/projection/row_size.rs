//! A row that the sink refuses for its size parks its key, and nothing else waits.

use crate::support::*;
use async_nats::jetstream;
use serde_json::json;
use std::collections::BTreeMap;
use tidemill_core::definition::ProjectionDefinition;
use tidemill_core::envelope::Event;
use tidemill_testbed::NatsServer;
use tidemill_worker_runtime::control::AskError;

/// Rows three times as large as their events.
fn texts() -> ProjectionDefinition {
    let text = "=event.data.text";
    let columns = json!({"first": text, "second": text, "third": text});
    definition(json!([{"type": "Said", "set": columns, "increment": {"count": 1}}]))
}

fn said(entity: &str, bytes: usize) -> Event {
    Event {
        id: format!("{entity} {bytes}"),
        ..event("Said", entity, json!({"text": "x".repeat(bytes)}))
    }
}

/// Limits the messages of the rows bucket, headers included; -1 = no limit.
async fn limit_bucket(world: &World, bytes: i32) {
    let jetstream = jetstream::new(world.server.client().await.unwrap());
    let bucket = format!("KV_{}", resource().rows_bucket());
    let bucket = jetstream.get_stream(bucket).await.unwrap();
    let mut config = bucket.cached_info().config.clone();
    config.max_message_size = bytes;
    jetstream.update_stream(config).await.unwrap();
}

/// Waits until one key is parked because its row is too large.
async fn expect_one_too_large(world: &World, key: &str) {
    world
        .expect_counters("one key waits", |counters| counters.parked_keys == 1)
        .await;
    let still = world.ask("redrive", json!({ "key": key })).await;
    let Err(AskError::Refused {
        reason, message, ..
    }) = still
    else {
        panic!("not refused: {still:?}");
    };
    assert_eq!(reason, "RowTooLarge");
    assert!(message.contains("bytes that can be stored"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_larger_than_the_bucket_takes_parks_its_key_until_there_is_room() {
    let mut world = World::start().await;
    let definition = texts();
    let worker = world.worker("a", &definition).await;
    world.publish(said("a", 1)).await;
    world.expect_reference("small", &definition).await;
    // Under a worker that doesn't know of it.
    limit_bucket(&world, 4096).await;
    let mut expected: BTreeMap<String, String> = world.rows().await;
    world.publish(said("b", 2000)).await;
    expect_one_too_large(&world, "b").await;
    world.publish_all(vec![said("b", 1), said("c", 1)]).await;
    expected.insert("c".to_owned(), expected["a"].clone());
    world.expect_rows("others go on", &expected).await;
    limit_bucket(&world, -1).await;
    world.ask("redrive", json!({"key": "b"})).await.unwrap();
    world
        .expect_reference("all of it, in order", &definition)
        .await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_larger_than_the_server_takes_parks_its_key() {
    let server = NatsServer::builder().max_payload(16 * 1024).start();
    let mut world = World::on(server.await.unwrap()).await;
    let definition = texts();
    world
        .publish_all(vec![said("a", 6 * 1024), said("b", 1)])
        .await;
    let worker = world.worker("a", &definition).await;
    expect_one_too_large(&world, "a").await;
    let (_, small) = world.published.pop().unwrap();
    world.published = vec![(2, small)];
    world.expect_reference("others go on", &definition).await;
    worker.stop().await;
}
