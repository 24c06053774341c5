//! A changed definition is built beside the rows that readers see.

use crate::numbers::{refused, skip};
use crate::support::*;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tidemill_core::contract::Connection;
use tidemill_core::definition::{OnError, Start};
use tidemill_core::names::{PROJECTION_PARTITIONS, partition};
use tidemill_core::projection::KeySpace;
use tidemill_nats::{KvBucket, Nats, Publisher};
use tidemill_testbed::eventually;
use tidemill_worker_runtime::ownership::rendezvous;

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_no_gap_when_a_definition_changes() {
    let mut world = World::start().await;
    let first = definition(json!([{"type": "N", "set": {"n": "=event.data.n"}}]));
    let second = definition(
        json!([{"type": "N", "set": {"n": "=event.data.n", "twice": "=event.data.n * 2"}}]),
    );
    let events = |from: u64, to: u64| {
        (from..to)
            .map(|n| event("N", &format!("k{}", n % 10), json!({ "n": n })))
            .collect::<Vec<_>>()
    };
    world.publish_all(events(0, 5_000)).await;
    let worker = world.worker("a", &first).await;
    world.expect_reference("first", &first).await;
    worker.stop().await;

    // A reader that follows `live`: every row is always there and never goes back.
    let stop = Arc::new(AtomicBool::new(false));
    let nats = Nats::connect(&Connection::plain(&world.server.url()), "reader")
        .await
        .unwrap();
    let reader = tokio::spawn({
        let stop = Arc::clone(&stop);
        async move {
            let rows = KvBucket::new(&Publisher::new(&nats, 1), &resource().rows_bucket());
            let (mut last, mut spaces) = ([0_u64; 10], std::collections::BTreeSet::new());
            while !stop.load(Ordering::Relaxed) {
                let live = rows.get("live").await.unwrap().expect("`live` is there");
                let live = String::from_utf8(live.value.to_vec()).unwrap();
                for (key, last) in last.iter_mut().enumerate() {
                    let row = rows
                        .get(&format!("{live}.k{key}"))
                        .await
                        .unwrap()
                        .expect("the row is there");
                    let row: serde_json::Value = serde_json::from_slice(&row.value).unwrap();
                    let n = row["n"].as_u64().unwrap();
                    assert!(n >= *last, "k{key} went back from {last} to {n} in {live}");
                    *last = n;
                }
                spaces.insert(live);
            }
            spaces.len()
        }
    });
    let worker = world.worker("a", &second).await;
    world.expect_reference("second", &second).await;
    world.publish_all(events(5_000, 6_000)).await;
    world.expect_reference("and on", &second).await;
    stop.store(true, Ordering::Relaxed);
    assert_eq!(reader.await.unwrap(), 2, "the reader saw both");
    world
        .expect_status("live", |status| {
            status["live"] == json!(second.revision()) && status["building"].is_null()
        })
        .await;

    // Back to the first: its rows are still there and go on from where they were.
    worker.stop().await;
    let worker = world.worker("a", &first).await;
    world.expect_reference("first again", &first).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_folds_everything_again_and_then_leads_over() {
    let mut world = World::start().await;
    let definition = orders();
    let mut dice = Dice::new(7);
    world.publish_all(order_events(&mut dice, 1_000, 50)).await;
    let worker = world.worker("a", &definition).await;
    world.expect_reference("before", &definition).await;
    // Somebody broke a row by hand.
    let entries = world.entries().await;
    let (key, _) = entries.iter().find(|(_, entry)| !entry.deleted).unwrap();
    let token = tidemill_core::names::encode_token(key).unwrap();
    world
        .rows_bucket()
        .put(&format!("{}.{token}", definition.revision()), "{}")
        .await
        .unwrap();
    let answer = world.ask("rebuild", json!({})).await.unwrap();
    assert!(
        answer["message"].as_str().unwrap().contains("-1 is built"),
        "{answer}"
    );
    world.expect_reference("rebuilt", &definition).await;
    let rebuilt = format!("{}-1", definition.revision());
    world
        .expect_status("live", |status| status["live"] == json!(rebuilt))
        .await;
    world.publish_all(order_events(&mut dice, 100, 50)).await;
    world.expect_reference("and on", &definition).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_begins_where_the_definition_says_and_no_later_one_changes_that() {
    let mut world = World::start().await;
    let first = definition(json!([{"set": {"n": "=event.data.n"}}]));
    world
        .publish_all(
            (0..5)
                .map(|n| event("N", &format!("k{n}"), json!({ "n": n })))
                .collect(),
        )
        .await;
    world.starts = vec![Start::Position(4)];
    let worker = world.worker("a", &first).await;
    let from_fourth = world.published.split_off(3);
    world.published = from_fourth;
    world.expect_reference("from the fourth", &first).await;
    worker.stop().await;
    let second = definition(json!([{"set": {"m": "=event.data.n"}}]));
    world.starts = vec![Start::Beginning];
    let worker = world.worker("a", &second).await;
    world.expect_reference("still", &second).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_events_only_means_those_after_the_projection_was_made() {
    let mut world = World::start().await;
    let definition = definition(json!([{"set": {"n": "=event.data.n"}}]));
    world.publish(event("N", "old", json!({"n": 1}))).await;
    world.starts = vec![Start::New];
    let worker = world.worker("a", &definition).await;
    world
        .expect_status("it reads", |status| status["live"].is_string())
        .await;
    world.published.clear();
    world.publish(event("N", "new", json!({"n": 2}))).await;
    world.expect_reference("new ones", &definition).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sources_are_folded_into_one_row() {
    let mut world = World::start().await;
    world.add_stream("payments", "payments-1").await;
    let mut definition = definition(json!([
        {"stream": {"namespace": "shop", "name": "orders"}, "set": {"order": "=event.data.n"}},
        {"stream": {"namespace": "shop", "name": "payments"}, "set": {"payment": "=event.data.n"}},
        {"increment": {"events": 1}},
    ]));
    definition.sources.push(stream_ref("payments"));
    let worker = world.worker("a", &definition).await;
    for n in 0..50 {
        world
            .publish_to(
                PREFIX,
                &[event("N", &format!("k{}", n % 5), json!({ "n": n }))],
            )
            .await;
        world
            .publish_to(
                "shop.payments",
                &[event("N", &format!("k{}", n % 3), json!({ "n": n }))],
            )
            .await;
    }
    let row = |order: u32, payment: Option<u32>, events: u32| match payment {
        Some(payment) => format!(r#"{{"events":{events},"order":{order},"payment":{payment}}}"#),
        None => format!(r#"{{"events":{events},"order":{order}}}"#),
    };
    let expected = [
        ("k0", row(45, Some(48), 27)),
        ("k1", row(46, Some(49), 27)),
        ("k2", row(47, Some(47), 26)),
        ("k3", row(48, None, 10)),
        ("k4", row(49, None, 10)),
    ];
    let expected = expected
        .into_iter()
        .map(|(key, row)| (key.to_owned(), row))
        .collect();
    world.expect_rows("both", &expected).await;
    let entries = world.entries().await;
    let position = entries["k0"]
        .headers
        .as_ref()
        .unwrap()
        .get("Tidemill-Pos")
        .unwrap()
        .as_str()
        .to_owned();
    assert_eq!(
        position,
        "shop/orders=orders-1:46;shop/payments=payments-1:49"
    );
    worker.kill().await;
    let worker = world.worker("a", &definition).await;
    world.expect_rows("after a restart", &expected).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_lead_over_when_both_have_caught_up() {
    let mut world = World::start().await;
    let first = orders();
    let mut dice = Dice::new(8);
    world.publish_all(order_events(&mut dice, 2_000, 100)).await;
    let a = world.worker("a", &first).await;
    let b = world.worker("b", &first).await;
    world.expect_reference("first", &first).await;
    a.stop().await;
    b.stop().await;
    let mut second = orders();
    second.handlers.truncate(3);
    let a = world.worker("a", &second).await;
    let b = world.worker("b", &second).await;
    world.expect_reference("second", &second).await;
    world.publish_all(order_events(&mut dice, 500, 100)).await;
    world.expect_reference("and on", &second).await;
    a.kill().await;
    world.publish_all(order_events(&mut dice, 500, 100)).await;
    world.expect_reference("with one", &second).await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_would_lose_what_is_gone_is_refused_and_the_rows_go_on() {
    let mut world = World::start().await;
    let definition = definition(json!([{"increment": {"count": 1}}]));
    let events = |n: u64| {
        (0..n)
            .map(|n| event("N", &format!("k{}", n % 5), json!({ "n": n })))
            .collect::<Vec<_>>()
    };
    world.publish_all(events(50)).await;
    let worker = world.worker("a", &definition).await;
    world.expect_reference("before", &definition).await;
    let stream = world
        .nats
        .jetstream()
        .get_stream("shop_orders")
        .await
        .unwrap();
    stream.purge().sequence(21).await.unwrap();
    world.ask("rebuild", json!({})).await.unwrap();
    let status = world.expect_stopped("HistoryTruncated").await;
    assert_eq!(status["live"], json!(definition.revision()));
    world.publish_all(events(10)).await;
    world
        .expect_reference("the old rows go on", &definition)
        .await;
    worker.stop().await;
}

/// What is gone from the middle is as gone as what is gone from the beginning.
#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_would_lose_what_was_deleted_is_refused_until_a_person_accepts_it() {
    let mut world = World::start().await;
    let definition = definition(json!([{"increment": {"count": 1, "sum": "=event.data.n"}}]));
    let events = (0..20).map(|n| event("N", &format!("k{}", n % 3), json!({ "n": n })));
    world.publish_all(events.collect()).await;
    let stream = world
        .nats
        .jetstream()
        .get_stream("shop_orders")
        .await
        .unwrap();
    // Never folded: no rows lack it that had it before.
    stream.delete_message(3).await.unwrap();
    world.published.retain(|(sequence, _)| *sequence != 3);
    let worker = world.worker("a", &definition).await;
    world.expect_reference("before", &definition).await;
    let revision = definition.revision();
    let rebuilt = async |number: u32, gone: u64| {
        world.ask("rebuild", json!({})).await.unwrap();
        let live = format!("{revision}-{number}");
        let led = |status: &serde_json::Value| {
            status["live"] == json!(live) && status["gone"] == json!(gone)
        };
        world.expect_status("readers are led over", led).await;
    };
    rebuilt(1, 1).await;

    stream.delete_message(7).await.unwrap();
    stream.delete_message(9).await.unwrap();
    world.ask("rebuild", json!({})).await.unwrap();
    let status = world.expect_stopped("HistoryTruncated").await;
    assert_eq!(status["live"], json!(format!("{revision}-1")));
    assert_eq!(status["building"], json!(format!("{revision}-2")));
    let message = status["stopped"]["message"].as_str().unwrap();
    assert!(message.contains("holds up to 2 of the events"), "{message}");
    world.publish(event("N", "k1", json!({"n": 100}))).await;
    world
        .expect_reference("the old rows go on", &definition)
        .await;

    world.ask("accept-source", json!({})).await.unwrap();
    world
        .published
        .retain(|(sequence, _)| !matches!(sequence, 7 | 9));
    world
        .expect_reference("what the stream still holds", &definition)
        .await;
    // The rows lack it already: nothing more would be lost.
    let led = |status: &serde_json::Value| {
        status["live"] == json!(format!("{revision}-3")) && status["gone"] == 3
    };
    world.ask("rebuild", json!({})).await.unwrap();
    world.expect_status("readers are led over", led).await;
    world.expect_reference("the same", &definition).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_is_overtaken_by_a_purge_leaves_the_old_rows() {
    let mut world = World::start().await;
    world.policy.on_error = OnError::Stop;
    let first = definition(json!([{"increment": {"events": 1}}]));
    // It can't fold an event without `n`: there it stands until it is told to go on, with most of the stream unread.
    let second = definition(json!([{"increment": {"events": 1, "sum": "=event.data.n"}}]));
    world.publish(event("N", "k", json!({}))).await;
    let events = (0..10_000).map(|n| event("N", &format!("k{}", n % 7), json!({ "n": n })));
    world.publish_all(events.collect()).await;
    let worker = world.worker("a", &first).await;
    world.expect_reference("first", &first).await;
    worker.stop().await;
    let worker = world.worker("a", &second).await;
    world.expect_stopped("FoldError").await;
    // Nothing is gone yet: consent now would be consent to whatever goes later.
    let asked = world.ask("accept-source", json!({})).await;
    assert_eq!(refused(asked), "NotReset");
    let stream = world
        .nats
        .jetstream()
        .get_stream("shop_orders")
        .await
        .unwrap();
    stream.purge().sequence(9_990).await.unwrap();
    skip(&world, "k").await;
    let status = world.expect_stopped("HistoryTruncated").await;
    assert_eq!(status["live"], json!(first.revision()));
    world.publish(event("N", "k1", json!({"n": 1}))).await;
    world.expect_reference("the old rows go on", &first).await;
    // Nor does it forget that.
    worker.kill().await;
    let worker = world.worker("a", &second).await;
    world.expect_stopped("HistoryTruncated").await;
    world.expect_reference("still", &first).await;
    world.ask("accept-source", json!({})).await.unwrap();
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_were_gone_before_they_were_folded_are_counted() {
    let mut world = World::start().await;
    let definition = definition(json!([{"increment": {"count": 1}}]));
    let events = |n: u64| {
        (0..n)
            .map(|n| event("N", &format!("k{}", n % 5), json!({ "n": n })))
            .collect::<Vec<_>>()
    };
    world.publish_all(events(100)).await;
    let worker = world.worker("a", &definition).await;
    world.expect_reference("before", &definition).await;
    worker.stop().await;
    world.publish_all(events(100)).await;
    let stream = world
        .nats
        .jetstream()
        .get_stream("shop_orders")
        .await
        .unwrap();
    stream.purge().sequence(181).await.unwrap();
    world
        .published
        .retain(|(sequence, _)| !(101..181).contains(sequence));
    let gone = |gone: u64| move |status: &serde_json::Value| status["gone"] == gone;
    let worker = world.worker("a", &definition).await;
    world.expect_reference("what is there", &definition).await;
    world.expect_status("80 are missed", gone(80)).await;
    world
        .expect_counters("on disk too", |counters| counters.gone == 80)
        .await;
    worker.kill().await;
    let worker = world.worker("a", &definition).await;
    world.publish_all(events(1)).await;
    world.expect_reference("and on", &definition).await;
    world.expect_status("once", gone(80)).await;
    worker.stop().await;
}

/// New rows are those of all workers: while one of them stands still, its readers would see rows of long ago.
#[tokio::test(flavor = "multi_thread")]
async fn readers_are_led_on_when_the_slowest_worker_has_caught_up() {
    const PODS: [&str; 2] = ["a", "b"];
    let of = |key: &str| rendezvous::owner(partition(key, PROJECTION_PARTITIONS), PODS).unwrap();
    let key_of = |pod: &str| {
        let mut keys = (0..).map(|number| format!("k{number}"));
        keys.find(|key| of(key) == pod).unwrap()
    };
    // Who has partition 0 leads readers on.
    let leader = rendezvous::owner(0, PODS).unwrap();
    let slow = PODS.into_iter().find(|pod| *pod != leader).unwrap();
    let (leaders, slows) = (key_of(leader), key_of(slow));

    let mut world = World::start().await;
    world.policy.on_error = OnError::Stop;
    let first = definition(json!([{"increment": {"events": 1}}]));
    // It can't fold an event without `n`.
    let second = definition(json!([{"set": {"n": "=event.data.n"}, "increment": {"events": 1}}]));
    let poison = event("N", &slows, json!({}));
    let good = |key: &str, n: u64| event("N", key, json!({ "n": n }));
    let events = vec![good(&leaders, 1), good(&slows, 2), poison, good(&slows, 3)];
    world.publish_all(events).await;
    let (a, b) = (
        world.worker("a", &first).await,
        world.worker("b", &first).await,
    );
    world.expect_reference("first", &first).await;
    a.stop().await;
    b.stop().await;
    let (a, b) = (
        world.worker("a", &second).await,
        world.worker("b", &second).await,
    );
    // Each checkpoint of the leader comes with a look whether readers may be led on; the last look but one is surely over.
    let space = KeySpace::parse(second.revision().as_str()).unwrap();
    let checkpoint = space.checkpoint_key(partition(&leaders, PROJECTION_PARTITIONS));
    let mut seen = 0;
    for n in 4..8 {
        world.publish(good(&leaders, n)).await;
        seen = eventually("another checkpoint", CAP, async || {
            match world.rows_bucket().get(&checkpoint).await {
                Ok(Some(entry)) if entry.revision > seen => Ok(entry.revision),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
    assert_eq!(
        world.live().await.as_deref(),
        Some(first.revision().as_str())
    );
    world.expect_reference("the old rows go on", &first).await;
    skip(&world, &slows).await;
    world.expect_reference("all rows", &second).await;
    a.stop().await;
    b.stop().await;
}

/// A decision holds for rows that are still on their way to the event, too.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_while_other_rows_are_built_is_left_out_of_them() {
    let mut world = World::start().await;
    world.policy.on_error = OnError::Stop;
    let sum = |column: &str| {
        let value = format!("=event.data.{column}");
        definition(json!([{"type": "N", "increment": {"sum": value}}]))
    };
    let (first, second) = (sum("n"), sum("m"));
    let events = [
        // The second definition can't fold this, and stands before it.
        event("N", "j", json!({"n": 1})),
        // Nor the first this.
        event("N", "k", json!({"m": 5})),
        event("N", "k", json!({"n": 2, "m": 3})),
    ];
    world.publish_all(events.to_vec()).await;
    let worker = world.worker("a", &first).await;
    world.expect_stopped("FoldError").await;
    worker.stop().await;
    let worker = world.worker("a", &second).await;
    for key in ["k", "j"] {
        world
            .expect_status("it stands still", |status| {
                status["building"] == json!(second.revision()) && status["stoppedKey"] == key
            })
            .await;
        skip(&world, key).await;
    }
    world
        .expect_status("built", |status| status["live"] == json!(second.revision()))
        .await;
    let expected = crate::numbers::rows(&[("k", r#"{"sum":3}"#)]);
    world.expect_rows("without the first of k", &expected).await;
    worker.stop().await;
}

/// Rows may be ahead of their checkpoints; what they hold never counts as gone before it was folded.
#[tokio::test(flavor = "multi_thread")]
async fn what_rows_hold_is_not_gone_although_no_checkpoint_says_so() {
    let mut world = World::start().await;
    let definition = definition(json!([{"increment": {"count": 1}}]));
    let events = (0..20).map(|n| event("N", &format!("k{}", n % 3), json!({ "n": n })));
    world.publish_all(events.collect()).await;
    let worker = world.worker("a", &definition).await;
    world.expect_reference("before", &definition).await;
    worker.kill().await;
    // As if it had been killed before it wrote any.
    let space = format!("{}", definition.revision());
    let bucket = world.rows_bucket();
    for partition in 0..64 {
        let key = KeySpace::parse(&space).unwrap().checkpoint_key(partition);
        if bucket.get(&key).await.unwrap().is_some() {
            bucket.delete(&key).await.unwrap();
        }
    }
    let jetstream = world.nats.jetstream().clone();
    let stream = jetstream.get_stream("shop_orders").await.unwrap();
    stream.purge().sequence(21).await.unwrap();
    world.publish(event("N", "k0", json!({"n": 20}))).await;
    let worker = world.worker("a", &definition).await;
    world.expect_reference("and on", &definition).await;
    let status = world
        .expect_status("nothing is missed", |status| status["gone"] == 0)
        .await;
    assert!(status["stopped"].is_null());
    world.ask("rebuild", json!({})).await.unwrap();
    world.expect_stopped("HistoryTruncated").await;
    world.expect_reference("the rows stay", &definition).await;
    worker.stop().await;
}

/// Of a stream whose end is gone nothing more comes: nobody waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn readers_are_led_on_although_the_stream_lost_its_end() {
    let mut world = World::start().await;
    let first = definition(json!([{"increment": {"count": 1}}]));
    let second = definition(json!([{"increment": {"events": 1}}]));
    let events = (0..20).map(|n| event("N", &format!("k{}", n % 3), json!({ "n": n })));
    world.publish_all(events.collect()).await;
    let worker = world.worker("a", &first).await;
    world.expect_reference("before", &first).await;
    worker.stop().await;
    let jetstream = world.nats.jetstream().clone();
    let stream = jetstream.get_stream("shop_orders").await.unwrap();
    stream.purge().await.unwrap();
    let worker = world.worker("a", &second).await;
    world.expect_stopped("HistoryTruncated").await;
    world.ask("accept-source", json!({})).await.unwrap();
    let live = json!(second.revision());
    world
        .expect_status("readers are led over", |status| status["live"] == live)
        .await;
    assert!(world.rows().await.is_empty());
    worker.stop().await;
}
