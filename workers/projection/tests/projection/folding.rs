//! Whatever is killed, the rows are those of the events.

use crate::support::*;
use serde_json::json;
use tidemill_core::contract::StreamBinding;
use tidemill_core::envelope::Event;
use tidemill_core::names::headers::{POSITION, REVISION};
use tidemill_nats::provision::{Mark, StreamPlan, ensure};
use tidemill_nats::{Guard, HeaderMap, KvWrite, Publish};
use tidemill_testbed::eventually;
use tidemill_worker_projection::Options;

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_those_of_the_events() {
    let mut world = World::start().await;
    let definition = orders();
    let mut dice = Dice::new(1);
    world.publish_all(order_events(&mut dice, 3_000, 100)).await;
    let worker = world.worker("a", &definition).await;
    world.expect_reference("what was there", &definition).await;
    // Near the head, one by one.
    for event in order_events(&mut dice, 50, 100) {
        world.publish(event).await;
    }
    world.expect_reference("what came later", &definition).await;

    let unmatched = world.published.iter().filter(|(_, event)| {
        event.event_type == "OrderSeen"
            || event.event_type == "OrderNoted"
                && event
                    .data
                    .get("total")
                    .unwrap()
                    .as_number()
                    .unwrap()
                    .as_f64()
                    <= 50.0
    });
    let skipped = unmatched.count() as u64;
    world
        .expect_counters("counters", |counters| {
            counters.seen == 3_050
                && counters.skipped == skipped
                && counters.matched == 3_050 - skipped
                && counters.parked_keys == 0
        })
        .await;
    let status = world
        .expect_status("status", |status| status["seen"] == 3_050)
        .await;
    assert_eq!(status["sources"]["shop/orders"]["position"], 3_050);
    assert_eq!(status["sources"]["shop/orders"]["lag"], 0);
    assert_eq!(status["live"], json!(definition.revision()));
    assert!(worker.health.report().ready);

    // Every row says what it was made of; deleted ones, too, which others see as "not found".
    let entries = world.entries().await;
    assert!(entries.values().any(|entry| entry.deleted));
    for entry in entries.values() {
        let headers = entry.headers.as_ref().unwrap();
        let position = headers.get(POSITION).unwrap().as_str();
        assert!(position.starts_with("shop/orders=orders-1:"), "{position}");
        assert_eq!(
            headers.get(REVISION).unwrap().as_str(),
            definition.revision().as_str()
        );
        assert_eq!(entry.deleted, headers.get("KV-Operation").is_some());
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_stopped_reads_nothing_twice() {
    let mut world = World::start().await;
    let definition = orders();
    let mut dice = Dice::new(2);
    world.publish_all(order_events(&mut dice, 500, 50)).await;
    let worker = world.worker("a", &definition).await;
    world.expect_reference("before", &definition).await;
    worker.stop().await;
    let before = world.counters().await;
    assert_eq!(before.seen, 500);
    let puts_before = world
        .nats
        .stream_state("KV_shop_order-status_rows")
        .await
        .unwrap()
        .last;
    let worker = world.worker("a", &definition).await;
    world.publish(event("OrderPaid", "new", json!({}))).await;
    world.expect_reference("after", &definition).await;
    worker.stop().await;
    let after = world.counters().await;
    assert_eq!((after.seen, after.puts), (501, before.puts + 1));
    // One row and at most one checkpoint of each partition.
    let puts = world
        .nats
        .stream_state("KV_shop_order-status_rows")
        .await
        .unwrap()
        .last
        - puts_before;
    assert!(puts <= 1 + 64, "{puts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_right_whatever_is_killed() {
    let mut world = World::start().await;
    let definition = orders();
    let mut dice = Dice::new(3);
    for round in 0..6 {
        world.publish_all(order_events(&mut dice, 4_000, 300)).await;
        let worker = world.worker("a", &definition).await;
        // Somewhere in the middle.
        let wanted = dice.roll(2_000);
        eventually("some rows", CAP, async || {
            match world.nats.stream_state("KV_shop_order-status_rows").await {
                Ok(state) if state.last > wanted => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        if round % 2 == 1 {
            world.server.kill9();
            world.restart().await;
        }
        worker.kill().await;
    }
    let worker = world.worker("a", &definition).await;
    world.expect_reference("after all", &definition).await;
    world
        .expect_counters("nothing is counted twice", |counters| {
            counters.seen == 24_000
        })
        .await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_survives_its_server() {
    let mut world = World::start().await;
    let definition = orders();
    let mut dice = Dice::new(4);
    let worker = world.worker("a", &definition).await;
    for _ in 0..3 {
        world.publish_all(order_events(&mut dice, 500, 50)).await;
        world.expect_reference("before", &definition).await;
        world.server.kill9();
        world.restart().await;
    }
    world.publish_all(order_events(&mut dice, 500, 50)).await;
    world.expect_reference("after", &definition).await;
    world
        .expect_counters("nothing is counted twice", |counters| {
            counters.seen == 2_000
        })
        .await;
    worker.stop().await;
}

/// Parking is for what a person has to decide about; a store that doesn't answer comes back by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_parks_nothing() {
    let mut world = World::start().await;
    let definition = orders();
    let mut dice = Dice::new(4);
    let worker = world.worker("a", &definition).await;
    world.publish_all(order_events(&mut dice, 100, 50)).await;
    world.expect_reference("before", &definition).await;
    // The events are there, and nobody takes the rows.
    let jetstream = world.nats.jetstream();
    let bucket = jetstream.get_stream("KV_shop_order-status_rows").await;
    let bucket = bucket.unwrap().cached_info().config.clone();
    let mut deaf = bucket.clone();
    deaf.subjects = vec!["$KV.shop_order-status_rows.nothing".to_owned()];
    jetstream.update_stream(&deaf).await.unwrap();
    world.publish_all(order_events(&mut dice, 100, 50)).await;
    world.expect_not_ready(&worker).await;
    world.server.kill9();
    world.restart().await;
    world.expect_not_ready(&worker).await;
    let jetstream = world.nats.jetstream();
    jetstream.update_stream(&bucket).await.unwrap();
    world.expect_reference("after", &definition).await;
    let parked = "shop_order-status_projection_parked";
    let parked = world.nats.stream_state(parked).await.unwrap();
    assert_eq!((parked.last, parked.messages), (0, 0));
    world
        .expect_counters("all of them, once", |counters| {
            (counters.seen, counters.parked_keys) == (200, 0)
        })
        .await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_share_the_partitions_and_take_over() {
    let mut world = World::start().await;
    let definition = orders();
    let mut dice = Dice::new(5);
    let a = world.worker("a", &definition).await;
    let b = world.worker("b", &definition).await;
    world.publish_all(order_events(&mut dice, 2_000, 100)).await;
    world.expect_reference("both", &definition).await;
    a.kill().await;
    world.publish_all(order_events(&mut dice, 2_000, 100)).await;
    world.expect_reference("one is gone", &definition).await;
    let c = world.worker("c", &definition).await;
    world.publish_all(order_events(&mut dice, 2_000, 100)).await;
    world
        .expect_reference("another one has come", &definition)
        .await;
    world
        .expect_counters("nothing is counted twice", |counters| {
            counters.seen == 6_000
        })
        .await;
    b.stop().await;
    c.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_do_not_fit_in_memory_are_read_again() {
    let mut world = World::start().await;
    let definition = orders();
    let mut dice = Dice::new(6);
    // Room for some 30 rows of 500.
    let options = Options::default().with_cache_bytes_max(20_000);
    world.publish_all(order_events(&mut dice, 4_000, 500)).await;
    let worker = world.worker_with("a", &definition, options).await;
    world.expect_reference("catching up", &definition).await;
    for event in order_events(&mut dice, 100, 500) {
        world.publish(event).await;
    }
    world.expect_reference("near the head", &definition).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_json_of_others_is_folded_as_events() {
    let mut world = World::start().await;
    let mark = Mark::event_stream("dev", "shop", "legacy", "legacy-1");
    let plan = StreamPlan::new("shop_legacy", vec!["legacy.>".to_owned()], mark);
    ensure(&world.nats, &plan).await.unwrap();
    world.bindings.push(StreamBinding {
        stream: stream_ref("legacy"),
        name: "shop_legacy".to_owned(),
        prefix: "shop.legacy".to_owned(),
        capture: serde_json::from_value(json!([{
            "subjects": ["legacy.>"], "format": "Json", "type": "message.data.kind", "entity": "message.data.id"
        }]))
        .unwrap(),
    });
    let mut definition =
        definition(json!([{"type": "paid", "increment": {"sum": "=event.data.amount"}}]));
    definition.sources = vec![stream_ref("legacy")];
    for (kind, id, amount) in [
        ("paid", 1, "1.10"),
        ("paid", 1, "2.20"),
        ("other", 1, "5"),
        ("paid", 2, "0.05"),
    ] {
        let body = format!(r#"{{"kind":"{kind}","id":{id},"amount":{amount}}}"#);
        world
            .publisher
            .publish(Publish::new("legacy.x", body))
            .await
            .await
            .unwrap();
    }
    let worker = world.worker("a", &definition).await;
    let expected = [("1", r#"{"sum":3.30}"#), ("2", r#"{"sum":0.05}"#)];
    let expected = expected
        .into_iter()
        .map(|(key, row)| (key.to_owned(), row.to_owned()))
        .collect();
    world.expect_rows("sums", &expected).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_hands_out_messages_once_is_no_source() {
    let mut world = World::start().await;
    let mark = Mark::event_stream("dev", "shop", "jobs", "jobs-1");
    let mut plan = StreamPlan::new("shop_jobs", vec!["shop.jobs.>".to_owned()], mark);
    plan.further
        .insert("retention".to_owned(), json!("workqueue"));
    ensure(&world.nats, &plan).await.unwrap();
    world.bindings.push(StreamBinding {
        stream: stream_ref("jobs"),
        name: "shop_jobs".to_owned(),
        prefix: "shop.jobs".to_owned(),
        capture: Vec::new(),
    });
    let mut definition = orders();
    definition.sources = vec![stream_ref("jobs")];
    let worker = world.worker("a", &definition).await;
    world.expect_stopped("NotASource").await;
    worker.stop().await;
}

/// Rows are written 16,384 at a time: what is folded while the first are written goes with those that follow, and the
/// checkpoint waits for all of them.
#[tokio::test(flavor = "multi_thread")]
async fn more_rows_than_are_written_at_a_time_are_right_after_a_kill_in_between() {
    let mut world = World::start().await;
    let definition = orders();
    let mut dice = Dice::new(7);
    world
        .publish_all(order_events(&mut dice, 30_000, 25_000))
        .await;
    let worker = world.worker("a", &definition).await;
    let stream = world.rows_bucket().stream().to_owned();
    eventually("some of the rows", CAP, async || {
        let stored = world.nats.stream_state(&stream).await.unwrap().messages;
        if stored > 12_000 { Ok(()) } else { Err(stored) }
    })
    .await;
    worker.kill().await;
    let _second = world.worker("b", &definition).await;
    world.expect_reference("after the kill", &definition).await;
    world
        .expect_counters("counters", |counters| counters.seen == 30_000)
        .await;
}

/// An owner that stalled goes on with the row as it knew it. What its successor has made of the row since stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_owner_overwrites_nothing_of_its_successor() {
    let mut world = World::start().await;
    let definition = definition(json!([{"set": {"n": "=event.data.n"}}]));
    let events = |range: std::ops::Range<u64>| -> Vec<Event> {
        let number = |n| event("N", "k", json!({ "n": n }));
        range.map(number).collect()
    };
    world.publish_all(events(1..2)).await;
    let worker = world.worker("a", &definition).await;
    world.expect_reference("the owner's row", &definition).await;
    // The successor has read on, to the third event.
    let mut headers = HeaderMap::new();
    headers.insert(POSITION, "shop/orders=orders-1:3");
    headers.insert(REVISION, definition.revision().as_str());
    let of_successor = r#"{"by":"successor","n":3}"#;
    let write = KvWrite {
        key: format!("{}.k", definition.revision()),
        value: Some(of_successor.into()),
        headers,
        guard: Guard::None,
    };
    world.rows_bucket().write(write).await.unwrap();
    let mut late = events(2..4);
    late.push(event("N", "other", json!({ "n": 4 })));
    world.publish_all(late).await;
    let expected = [("k", of_successor), ("other", r#"{"n":4}"#)];
    let expected = expected.map(|(key, row)| (key.to_owned(), row.to_owned()));
    world.expect_rows("both rows", &expected.into()).await;
    worker.stop().await;
}
