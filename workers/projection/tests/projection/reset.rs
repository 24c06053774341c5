//! A source that isn't any more what was folded is never folded on in silence.

use crate::support::*;
use serde_json::json;
use tidemill_core::definition::ProjectionDefinition;
use tidemill_nats::provision::{Mark, StreamPlan, ensure};

fn sums() -> ProjectionDefinition {
    definition(
        json!([{"set": {"last": "=event.data.n"}, "increment": {"sum": "=event.data.n", "count": 1}}]),
    )
}

fn events(from: u64, to: u64) -> Vec<tidemill_core::envelope::Event> {
    (from..to)
        .map(|n| event("N", &format!("k{}", n % 7), json!({ "n": n })))
        .collect()
}

/// Loses the end of the source and nothing else, as when the rows are in another place: 100 events are folded, the last 40 vanish.
async fn set_back(world: &mut World) {
    world.publish_all(events(0, 60)).await;
    let worker = world.worker("a", &sums()).await;
    world.expect_reference("the first", &sums()).await;
    worker.stop().await;
    world.server.stop().await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    world.server.copy_store(copy.path()).unwrap();
    world.restart().await;
    world.publish_all(events(60, 100)).await;
    let worker = world.worker("a", &sums()).await;
    world.expect_reference("the rest", &sums()).await;
    worker.stop().await;
    world.server.stop().await.unwrap();
    // Only the stream `shop_orders` is set back.
    let stream = |store: &std::path::Path| {
        store
            .join("jetstream")
            .join("$G")
            .join("streams")
            .join("shop_orders")
    };
    let (now, then) = (stream(world.server.store_dir()), stream(copy.path()));
    assert!(then.exists(), "{}", then.display());
    std::fs::remove_dir_all(&now).unwrap();
    std::fs::rename(&then, &now).unwrap();
    world.restart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_lost_its_end_is_noticed_and_read_on_when_it_is_accepted() {
    let mut world = World::start().await;
    set_back(&mut world).await;
    let before = world.rows().await;
    let worker = world.worker("a", &sums()).await;
    world.expect_stopped("SourceReset").await;
    world.expect_not_ready(&worker).await;
    // Written on beyond where it was: its length tells nothing any more.
    let written: Vec<_> = world.published.drain(..).collect();
    world.publish_all(events(1_000, 1_080)).await;
    worker.stop().await;
    let worker = world.worker("a", &sums()).await;
    world.expect_stopped("SourceReset").await;
    assert_eq!(world.rows().await, before, "nothing was folded");

    world.ask("accept-source", json!({})).await.unwrap();
    // The rows keep what was lost, and have what came instead, each once.
    let new: Vec<_> = world
        .published
        .iter()
        .map(|(sequence, event)| (sequence + 1_000, event.clone()))
        .collect();
    let all: Vec<_> = written.into_iter().chain(new).collect();
    world
        .expect_rows("what is new", &reference(&sums(), &all))
        .await;
    world
        .expect_status("it runs", |status| status["stopped"].is_null())
        .await;
    worker.kill().await;
    let worker = world.worker("a", &sums()).await;
    world.publish_to(PREFIX, &events(5_000, 5_001)).await;
    let mut all = all;
    all.extend(events(5_000, 5_001).into_iter().map(|event| (9_000, event)));
    world.expect_rows("and on", &reference(&sums(), &all)).await;
    worker.stop().await;

    // Another definition has only what the stream still holds: somebody has to know that, however long ago it was lost.
    let counts = definition(json!([{"increment": {"count": 1}}]));
    let worker = world.worker("a", &counts).await;
    let status = world.expect_stopped("HistoryTruncated").await;
    let message = status["stopped"]["message"].as_str().unwrap();
    assert!(message.contains("up to 40 of the events"), "{message}");
    world
        .expect_rows("the old rows stay", &reference(&sums(), &all))
        .await;
    world.ask("accept-source", json!({})).await.unwrap();
    all.retain(|(sequence, _)| !(61..=100).contains(sequence));
    world
        .expect_rows("what is left", &reference(&counts, &all))
        .await;
    // These never had what is gone.
    world.ask("rebuild", json!({})).await.unwrap();
    let rebuilt = format!("{}-1", counts.revision());
    world
        .expect_status("rebuilt", |status| status["live"] == json!(rebuilt))
        .await;
    world
        .expect_rows("the same", &reference(&counts, &all))
        .await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_lost_its_end_can_be_folded_anew() {
    let mut world = World::start().await;
    set_back(&mut world).await;
    let worker = world.worker("a", &sums()).await;
    world.expect_stopped("SourceReset").await;
    world.published.truncate(60);
    world.ask("rebuild", json!({})).await.unwrap();
    world.expect_reference("what is left", &sums()).await;
    world.publish_all(events(2_000, 2_050)).await;
    world.expect_reference("and on", &sums()).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_was_replaced_is_noticed() {
    let mut world = World::start().await;
    world.publish_all(events(0, 20)).await;
    let worker = world.worker("a", &sums()).await;
    world.expect_reference("before", &sums()).await;
    worker.stop().await;
    let jetstream = world.nats.jetstream().clone();
    jetstream.delete_stream("shop_orders").await.unwrap();
    let mark = Mark::event_stream("dev", "shop", "orders", "orders-2");
    ensure(
        &world.nats,
        &StreamPlan::new("shop_orders", vec!["shop.orders.>".to_owned()], mark),
    )
    .await
    .unwrap();
    let before: Vec<_> = world.published.drain(..).collect();
    world.publish_all(events(100, 130)).await;
    let worker = world.worker("a", &sums()).await;
    world.expect_stopped("SourceReset").await;
    world
        .ask(
            "accept-source",
            json!({"stream": {"namespace": "shop", "name": "orders"}}),
        )
        .await
        .unwrap();
    let new: Vec<_> = world
        .published
        .iter()
        .map(|(sequence, event)| (sequence + 1_000, event.clone()))
        .collect();
    let all: Vec<_> = before.into_iter().chain(new).collect();
    world.expect_rows("both", &reference(&sums(), &all)).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_store_that_was_set_back_is_folded_on() {
    let mut world = World::start().await;
    world.publish_all(events(0, 50)).await;
    let worker = world.worker("a", &sums()).await;
    world.expect_reference("before", &sums()).await;
    world.server.stop().await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    world.server.copy_store(copy.path()).unwrap();
    world.restart().await;
    let kept = world.published.clone();
    world.publish_all(events(100, 150)).await;
    world.expect_reference("later", &sums()).await;
    world.server.stop().await.unwrap();
    world.server.set_store_back(copy.path()).unwrap();
    world.restart().await;
    world.published = kept;
    world.publish_all(events(200, 230)).await;
    // Rows and checkpoints went back with the source, so they fit: what the worker had in memory doesn't matter.
    world
        .expect_reference("as if nothing had been", &sums())
        .await;
    worker.stop().await;
}
