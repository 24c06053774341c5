//! Trying again what waits, and leaving it out.

use crate::numbers::*;
use crate::support::*;
use serde_json::json;
use std::time::Duration;
use tidemill_core::contract::{Capture, CaptureFormat};
use tidemill_core::names::{OWNERS_BUCKET, PROJECTION_PARTITIONS, partition};
use tidemill_core::projection::KEYLESS_TOKEN;
use tidemill_nats::provision::{Mark, Outcome, StreamPlan, ensure};
use tidemill_nats::{KvBucket, Publish};
use tidemill_testbed::eventually;
use tidemill_testbed::wait::within;
use tidemill_worker_runtime::control::{self, AskError};
use tidemill_worker_runtime::ownership::rendezvous;

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
    let answer = world.ask("redrive", json!({"key": KEYLESS_TOKEN})).await;
    assert_eq!(refused(answer), "NoSuchKey");
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

/// What waits in its stream only may be dropped there.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_gone_from_its_stream_is_said_to_be_left_out() {
    let mut world = World::start().await;
    let worker = world.worker("a", &numbers()).await;
    publish_wide(&world, "a", json!({})).await;
    let second = publish_wide(&world, "a", json!({"n": 1})).await;
    publish(&mut world, &[("a", json!(2))]).await;
    expect_parked(&world, 3).await;
    for sequence in 1..=second {
        let deleted = world.nats.delete_message("shop_orders", sequence).await;
        deleted.unwrap();
    }
    let answer = world.ask("redrive", json!({"key": "a"})).await.unwrap();
    assert_eq!(
        answer["message"],
        "1 key: 1 event folded, 2 left out; 2 events left out are gone from their streams"
    );
    let expected = rows(&[("a", r#"{"last":2,"sum":2}"#)]);
    world.expect_rows("the follower", &expected).await;
    expect_parked(&world, 0).await;
    world
        .expect_counters("they are counted", |counters| {
            counters.left_out == 2 && counters.parked_keys == 0
        })
        .await;
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

/// What is left out stays out, also when it has a key by then.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_out_without_a_key_is_folded_by_no_later_revision() {
    let mut world = World::start().await;
    let first = definition(json!([
        {"type": "N", "key": "event.data.id", "increment": {"sum": "=event.data.n"}},
        {"type": "M", "increment": {"sum": "=event.data.n"}},
        {"type": "M", "key": "event.data.id", "increment": {"others": "=event.data.n"}},
    ]));
    let events = [
        event("N", "a", json!({"n": 1})),
        // It has one row, and no key for another.
        event("M", "a", json!({"n": 10})),
        event("N", "a", json!({"id": "a", "n": 100})),
    ];
    world.publish_all(events.to_vec()).await;
    let worker = world.worker("a", &first).await;
    let expected = rows(&[("a", r#"{"sum":110}"#)]);
    world.expect_rows("what has a key", &expected).await;
    expect_parked(&world, 2).await;
    skip(&world, KEYLESS_TOKEN).await;
    assert_eq!(parked_messages(&world).await, 0);
    worker.stop().await;

    let second = definition(json!([
        {"type": "N", "increment": {"sum": "=event.data.n"}},
        {"type": "M", "increment": {"sum": "=event.data.n"}},
    ]));
    let worker = world.worker("a", &second).await;
    world
        .expect_status("built anew", |status| {
            status["live"] == json!(second.revision())
        })
        .await;
    assert_eq!(world.rows().await, expected);
    world
        .expect_counters("it is counted", |counters| counters.left_out == 1)
        .await;
    worker.stop().await;
}

/// An event that has a key now is told why it has to wait for its row.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_new_key_is_parked_or_anothers_is_not_said_to_be_too_late() {
    let mut world = World::start().await;
    let mark = Mark::event_stream("dev", "shop", "orders", "orders-1");
    let subjects = ["shop.orders.>", "legacy.>"].map(str::to_owned);
    let plan = StreamPlan::new("shop_orders", subjects.to_vec(), mark);
    ensure(&world.nats, &plan).await.unwrap();
    // The worker that has what has no key, and two keys: one of its own, one of the other worker's.
    const PODS: [&str; 2] = ["a", "b"];
    let of = |token: &str| rendezvous::owner(partition(token, PROJECTION_PARTITIONS), PODS);
    let key_of = |own: bool| {
        let mut keys = (0..).map(|number| format!("k{number}"));
        keys.find(|key| (of(key) == of(KEYLESS_TOKEN)) == own)
            .unwrap()
    };
    let (own, others) = (key_of(true), key_of(false));
    let definition = numbers();
    let worker = world.worker("a", &definition).await;
    publish(&mut world, &[(&own, json!(null))]).await;
    for key in [&own, &others] {
        let body = json!({"key": key, "n": 1}).to_string();
        let message = Publish::new("legacy.n", body);
        world.publisher.publish(message).await.await.unwrap();
    }
    expect_parked(&world, 3).await;
    worker.stop().await;
    world.bindings[0].capture = vec![Capture {
        subjects: vec!["legacy.>".to_owned()],
        format: CaptureFormat::Json,
        event_type: Some("'N'".to_owned()),
        entity: Some("message.data.key".to_owned()),
        time: None,
    }];
    let workers = [
        world.worker("a", &definition).await,
        world.worker("b", &definition).await,
    ];
    // A worker that still owned all of them would fold what it has no key for.
    let owners = KvBucket::new(&world.publisher, OWNERS_BUCKET);
    eventually("each has its own", CAP, async || {
        for token in [KEYLESS_TOKEN, &own, &others] {
            let claim = resource().claim_key(partition(token, PROJECTION_PARTITIONS));
            let claim = owners
                .get(&claim)
                .await
                .map_err(|error| error.to_string())?;
            let value = claim.map(|claim| claim.value).unwrap_or_default();
            let value = String::from_utf8_lossy(&value).into_owned();
            let wanted = json!({"pod": of(token)}).to_string();
            if !value.starts_with(wanted.trim_end_matches('}')) {
                return Err(value);
            }
        }
        Ok(())
    })
    .await;
    let key = json!({"key": KEYLESS_TOKEN});
    let soon = Duration::from_secs(1);
    let redriven = async |what: &str, reason: &str| {
        eventually(what, CAP, async || {
            match control::ask(&world.nats, &resource(), "redrive", &key, soon).await {
                Err(AskError::Refused { reason: said, .. }) if said == reason => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    };
    redriven("its key is parked", "KeyWaits").await;
    skip(&world, &own).await;
    // The first of them is folded by then.
    redriven("another has its row", "RowElsewhere").await;
    let [a, b] = workers;
    a.stop().await;
    b.stop().await;
    let worker = world.worker("a", &definition).await;
    eventually(
        "folded by the only worker",
        CAP,
        async || match control::ask(&world.nats, &resource(), "redrive", &key, soon).await {
            Ok(answer) => Ok(answer),
            other => Err(format!("{other:?}")),
        },
    )
    .await;
    let row = r#"{"last":1,"sum":1}"#;
    let expected = rows(&[(&own, row), (&others, row)]);
    world.expect_rows("both", &expected).await;
    worker.stop().await;
}
