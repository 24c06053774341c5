//! Trying again what waits, and leaving it out.

use crate::numbers::*;
use crate::support::*;
use serde_json::json;
use std::time::Duration;
use tidemill_core::contract::{Capture, CaptureFormat};
use tidemill_core::projection::KEYLESS_TOKEN;
use tidemill_nats::Publish;
use tidemill_nats::provision::{Mark, Outcome, StreamPlan, ensure};
use tidemill_testbed::eventually;
use tidemill_testbed::wait::within;
use tidemill_worker_runtime::control::{self, AskError};

/// An answer may be lost: whoever asks again must not leave out more than was meant.
#[tokio::test(flavor = "multi_thread")]
async fn a_skip_that_is_asked_twice_leaves_out_one_event() {
    let mut world = World::start().await;
    let definition = numbers();
    let worker = world.worker("a", &definition).await;
    publish(
        &mut world,
        &[
            ("a", json!(1)),
            ("a", json!(null)),
            ("a", json!(2)),
            ("a", json!(null)),
            ("a", json!(3)),
        ],
    )
    .await;
    expect_parked(&world, 4).await;
    let named = |position: &str| json!({"key": "a", "position": position});
    let poison = first(&world, "a").await;
    let at = |sequence: &str| {
        let (before, _) = poison.rsplit_once(':').unwrap();
        format!("{before}:{sequence}")
    };
    assert_eq!(poison, at("2"));
    // Nothing happens to what isn't named, or isn't first.
    assert_eq!(
        refused(world.ask("skip", json!({"key": "a"})).await),
        "Invalid"
    );
    assert_eq!(
        refused(world.ask("skip", json!({ "position": poison })).await),
        "Invalid"
    );
    assert_eq!(
        refused(world.ask("skip", named("shop/others=x:2")).await),
        "Invalid"
    );
    assert_eq!(
        refused(world.ask("skip", named(&at("1"))).await),
        "AlreadyFolded"
    );
    for verb in ["skip", "redrive"] {
        match world.ask(verb, named(&at("3"))).await {
            Err(AskError::Refused { reason, message }) => {
                assert_eq!(reason, "NotFirst");
                assert!(message.contains(&poison), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
    expect_parked(&world, 4).await;

    let answer = world.ask("skip", named(&poison)).await.unwrap();
    assert_eq!(answer["position"], json!(poison));
    let message = answer["message"].as_str().unwrap();
    assert!(
        message.starts_with("1 key: 1 event folded, 1 left out"),
        "{message}"
    );
    let next = first(&world, "a").await;
    assert_eq!(next, at("4"));
    let expected = rows(&[("a", r#"{"last":2,"sum":3}"#)]);
    // Also by another owner.
    let mut worker = worker;
    for _ in 0..2 {
        let again = world.ask("skip", named(&poison)).await.unwrap();
        let message = again["message"].as_str().unwrap();
        assert!(
            message.starts_with(&format!("{poison} was left out already")),
            "{message}"
        );
        assert_eq!(first(&world, "a").await, next);
        world.expect_rows("up to the next", &expected).await;
        assert_eq!(parked_messages(&world).await, 2);
        worker.stop().await;
        worker = world.worker("b", &definition).await;
        let taken_over = within(CAP, async || {
            let (key, soon) = (json!({"key": "a"}), Duration::from_secs(1));
            control::ask(&world.nats, &resource(), "first", &key, soon).await
        });
        taken_over.await.unwrap();
    }
    skip(&world, "a").await;
    let expected = rows(&[("a", r#"{"last":3,"sum":6}"#)]);
    world.expect_rows("all of it", &expected).await;
    for position in [&poison, &next] {
        world.ask("skip", named(position)).await.unwrap();
    }
    let again = world.ask("redrive", named(&at("5"))).await.unwrap();
    let message = again["message"].as_str().unwrap();
    assert!(message.contains("is in the row already"), "{message}");
    assert_eq!(
        refused(world.ask("first", json!({"key": "a"})).await),
        "NotParked"
    );
    world
        .expect_counters("two are left out", |counters| {
            counters.parked_keys == 0 && counters.left_out == 2
        })
        .await;
    worker.stop().await;
}

/// An event may have a key for one row and none for another.
#[tokio::test(flavor = "multi_thread")]
async fn trying_again_what_has_no_key_passes_nothing_that_waits_for_another_row() {
    let mut world = World::start().await;
    let definition = definition(json!([
        {"type": "N", "increment": {"sum": "=event.data.n"}},
        {"type": "N", "key": "event.data.other", "increment": {"others": "=event.data.n"}},
    ]));
    let worker = world.worker("a", &definition).await;
    let events = [
        json!({"other": "x"}),
        json!({"n": 1, "other": "y"}),
        json!({"n": 2}),
    ];
    let events = events.map(|data| event("N", "a", data));
    world.publish_all(events.to_vec()).await;
    // Of the first both rows, of the second one, of the third one and what has no key.
    expect_parked(&world, 5).await;
    refused(world.ask("redrive", json!({"key": KEYLESS_TOKEN})).await);
    for key in ["a", "x", KEYLESS_TOKEN] {
        skip(&world, key).await;
    }
    let expected = rows(&[("a", r#"{"sum":3}"#), ("y", r#"{"others":1}"#)]);
    world.expect_rows("all of it", &expected).await;
    worker.stop().await;
}

/// Owners that overlap copy an event twice; a later one clears away the second copy, which may be the one that the earlier remembers.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_copy_is_gone_is_folded_from_the_other_one() {
    let mut world = World::start().await;
    let worker = world.worker("a", &numbers()).await;
    publish(&mut world, &[("a", json!(null)), ("a", json!(2))]).await;
    expect_parked(&world, 2).await;
    let stream = "shop_order-status_projection_parked";
    let kept = world.nats.read_at(stream, 2).await.unwrap().unwrap();
    let copy = Publish {
        headers: kept.headers.unwrap(),
        ..Publish::new(kept.subject.to_string(), kept.payload)
    };
    world.publisher.publish(copy).await.await.unwrap();
    world.nats.delete_message(stream, 2).await.unwrap();
    let named = json!({"key": "a", "position": first(&world, "a").await});
    assert_eq!(refused(world.ask("skip", named).await), "Superseded");
    eventually("the other copy is folded", CAP, async || {
        let (key, soon) = (json!({"key": "a"}), Duration::from_secs(1));
        let answer = control::ask(&world.nats, &resource(), "redrive", &key, soon).await;
        match parked_messages(&world).await {
            0 => Ok(()),
            left => Err(format!("{left}: {answer:?}")),
        }
    })
    .await;
    let expected = rows(&[("a", r#"{"last":2,"sum":2}"#)]);
    world.expect_rows("the follower counts", &expected).await;
    worker.stop().await;
}

/// Messages that no `capture` is for have no key, until one is declared: then they would come too late for some rows.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_gets_its_key_too_late_is_not_folded_behind_its_row() {
    let mut world = World::start().await;
    let mark = Mark::event_stream("dev", "shop", "orders", "orders-1");
    let subjects = ["shop.orders.>", "legacy.>"].map(str::to_owned);
    let plan = StreamPlan::new("shop_orders", subjects.to_vec(), mark);
    let widened = ensure(&world.nats, &plan).await.unwrap();
    assert_eq!(widened, Outcome::Updated(vec!["subjects".to_owned()]));
    let definition = numbers();
    let worker = world.worker("a", &definition).await;
    for body in [r#"{"key":"a","n":1}"#, r#"{"key":"b","n":5}"#] {
        let message = Publish::new("legacy.n", body);
        world.publisher.publish(message).await.await.unwrap();
    }
    publish(&mut world, &[("a", json!(2))]).await;
    let a = r#"{"last":2,"sum":2}"#;
    world.expect_rows("a goes on", &rows(&[("a", a)])).await;
    expect_parked(&world, 2).await;
    let redrive = async |world: &World| world.ask("redrive", json!({"key": KEYLESS_TOKEN})).await;
    assert_eq!(refused(redrive(&world).await), "Undecodable");
    worker.stop().await;

    world.bindings[0].capture = vec![Capture {
        subjects: vec!["legacy.>".to_owned()],
        format: CaptureFormat::Json,
        event_type: Some("'N'".to_owned()),
        entity: Some("message.data.key".to_owned()),
        time: None,
    }];
    let worker = world.worker("a", &definition).await;
    let has_read = |status: &serde_json::Value| status["parkedKeys"] == 1;
    world.expect_status("what waits is read", has_read).await;
    let answer = redrive(&world).await.unwrap();
    let why = "its row has gone on without it: it can only be left out, or everything be rebuilt";
    let expected = format!(
        "1 key: 1 event folded, 0 left out; 1 key still parked, such as {KEYLESS_TOKEN}: {why}"
    );
    assert_eq!(answer["message"], expected);
    let both = rows(&[("a", a), ("b", r#"{"last":5,"sum":5}"#)]);
    world.expect_rows("b had no row", &both).await;
    // However often it is tried, by whomever.
    worker.stop().await;
    let worker = world.worker("b", &definition).await;
    world.expect_status("what waits is read", has_read).await;
    match redrive(&world).await {
        Err(AskError::Refused { reason, message }) => {
            assert_eq!(reason, "RowIsAhead");
            assert!(message.ends_with(why), "{message}");
        }
        other => panic!("not refused: {other:?}"),
    }
    assert_eq!(world.rows().await, both);
    assert_eq!(parked_messages(&world).await, 1);
    assert_eq!(world.status().await["parkedKeys"], 1);

    // As it was said.
    world.ask("rebuild", json!({})).await.unwrap();
    let rebuilt = format!("{}-1", definition.revision());
    world
        .expect_status("rebuilt", |status| {
            status["live"] == json!(rebuilt) && status["parkedKeys"] == 0
        })
        .await;
    let expected = rows(&[
        ("a", r#"{"last":2,"sum":3}"#),
        ("b", r#"{"last":5,"sum":5}"#),
    ]);
    world.expect_rows("in its place", &expected).await;
    worker.stop().await;
}
