//! What can't be folded waits for a person, and nothing else does.

use crate::numbers::*;
use crate::support::*;
use serde_json::json;
use std::time::Duration;
use tidemill_core::definition::OnError;
use tidemill_core::names::headers;
use tidemill_core::projection::KEYLESS_TOKEN;
use tidemill_core::status::SourceProgress;
use tidemill_testbed::nats_server::publish_raw;
use tidemill_testbed::wait::within;
use tidemill_worker_runtime::control;

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_event_parks_its_key_only_and_skipping_it_frees_what_follows() {
    let mut world = World::start().await;
    let definition = numbers();
    let worker = world.worker("a", &definition).await;
    publish(
        &mut world,
        &[
            ("a", json!(1)),
            ("b", json!(1)),
            ("a", json!(null)),
            ("a", json!(2)),
            ("b", json!(2)),
            ("a", json!(3)),
        ],
    )
    .await;
    world
        .expect_rows(
            "b goes on",
            &rows(&[
                ("a", r#"{"last":1,"sum":1}"#),
                ("b", r#"{"last":2,"sum":3}"#),
            ]),
        )
        .await;
    expect_parked(&world, 3).await;
    world
        .expect_counters("one key is parked", |counters| {
            counters.parked_keys == 1 && counters.seen == 6
        })
        .await;

    // Also after restarts, and nothing is parked twice.
    worker.kill().await;
    let worker = world.worker("a", &definition).await;
    publish(&mut world, &[("a", json!(4)), ("b", json!(3))]).await;
    world
        .expect_rows(
            "still",
            &rows(&[
                ("a", r#"{"last":1,"sum":1}"#),
                ("b", r#"{"last":3,"sum":6}"#),
            ]),
        )
        .await;
    expect_parked(&world, 4).await;

    // Trying again gives the same; a key that isn't parked can't be tried.
    assert_eq!(
        refused(world.ask("redrive", json!({"key": "a"})).await),
        "NoSuchKey"
    );
    assert_eq!(
        refused(world.ask("redrive", json!({"key": "b"})).await),
        "NotParked"
    );
    assert_eq!(parked_messages(&world).await, 4);

    let answer = skip(&world, "a").await;
    assert_eq!(answer["message"], "1 key: 3 events folded, 1 left out");
    world
        .expect_rows(
            "in order",
            &rows(&[
                ("a", r#"{"last":4,"sum":10}"#),
                ("b", r#"{"last":3,"sum":6}"#),
            ]),
        )
        .await;
    assert_eq!(parked_messages(&world).await, 0);
    world
        .expect_counters("none is parked", |counters| {
            counters.parked_keys == 0 && counters.left_out == 1
        })
        .await;
    publish(&mut world, &[("a", json!(5))]).await;
    world
        .expect_rows(
            "it goes on",
            &rows(&[
                ("a", r#"{"last":5,"sum":15}"#),
                ("b", r#"{"last":3,"sum":6}"#),
            ]),
        )
        .await;
    worker.stop().await;

    // The decision holds for every later revision.
    let mut later = numbers();
    later
        .handlers
        .push(serde_json::from_value(json!({"set": {"all": true}})).unwrap());
    let worker = world.worker("a", &later).await;
    let expected = rows(&[
        ("a", r#"{"all":true,"last":5,"sum":15}"#),
        ("b", r#"{"all":true,"last":3,"sum":6}"#),
    ]);
    world.expect_rows("a later revision", &expected).await;
    assert_eq!(parked_messages(&world).await, 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mended_definition_folds_what_its_predecessor_parked() {
    let mut world = World::start().await;
    let worker = world.worker("a", &numbers()).await;
    publish(
        &mut world,
        &[("a", json!(1)), ("a", json!(null)), ("a", json!(2))],
    )
    .await;
    expect_parked(&world, 2).await;
    worker.stop().await;
    let mended = definition(
        json!([{"type": "N", "set": {"last": "=has(event.data.n) ? event.data.n : 0"}}]),
    );
    let worker = world.worker("a", &mended).await;
    world
        .expect_rows("mended", &rows(&[("a", r#"{"last":2}"#)]))
        .await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_key_or_is_no_event_waits_alone() {
    let mut world = World::start().await;
    let definition = numbers();
    let worker = world.worker("a", &definition).await;
    world
        .publisher
        .publish(tidemill_nats::Publish::new("shop.orders.x.y", "no event"))
        .await
        .await
        .unwrap();
    let mut keyless = event("N", "x", json!({"n": 1}));
    keyless.subject = None;
    world.publish_to(PREFIX, &[keyless]).await;
    publish(&mut world, &[("a", json!(1))]).await;
    world
        .expect_rows("others go on", &rows(&[("a", r#"{"last":1,"sum":1}"#)]))
        .await;
    expect_parked(&world, 2).await;
    world
        .expect_counters("they count as one key", |counters| {
            counters.parked_keys == 1 && counters.seen == 3
        })
        .await;
    assert_eq!(
        refused(world.ask("redrive", json!({"key": KEYLESS_TOKEN})).await),
        "Undecodable"
    );
    let both = first(&world, KEYLESS_TOKEN).await;
    skip(&world, KEYLESS_TOKEN).await;
    expect_parked(&world, 0).await;
    // One that comes later isn't meant, however often the same is asked.
    let mut later = event("N", "x", json!({"n": 1}));
    later.subject = None;
    world.publish_to(PREFIX, &[later]).await;
    expect_parked(&world, 1).await;
    let again = world
        .ask("skip", json!({"key": KEYLESS_TOKEN, "position": both}))
        .await
        .unwrap();
    let message = again["message"].as_str().unwrap();
    assert!(message.contains("was left out already"), "{message}");
    assert_eq!(parked_messages(&world).await, 1);
    skip(&world, KEYLESS_TOKEN).await;
    expect_parked(&world, 0).await;
    // A key may have that name too.
    publish(&mut world, &[("=nokey", json!(null))]).await;
    expect_parked(&world, 1).await;
    assert_eq!(
        refused(world.ask("first", json!({"key": KEYLESS_TOKEN})).await),
        "NotParked"
    );
    skip(&world, "==nokey").await;
    expect_parked(&world, 0).await;
    // They are left out for ever, whatever is folded again.
    world.ask("rebuild", json!({})).await.unwrap();
    let rebuilt = format!("{}-1", definition.revision());
    world
        .expect_status("rebuilt", |status| status["live"] == json!(rebuilt))
        .await;
    world
        .expect_counters("nothing is parked", |counters| {
            counters.parked_keys == 0 && counters.left_out == 4
        })
        .await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_that_stops_on_errors_goes_on_when_the_event_is_skipped() {
    let mut world = World::start().await;
    world.policy.on_error = OnError::Stop;
    let definition = numbers();
    let worker = world.worker("a", &definition).await;
    publish(
        &mut world,
        &[
            ("a", json!(1)),
            ("b", json!(null)),
            ("b", json!(null)),
            ("a", json!(2)),
        ],
    )
    .await;
    let status = world.expect_stopped("FoldError").await;
    assert_eq!(status["stoppedKey"], "b", "{status}");
    assert!(
        status["stopped"]["message"]
            .as_str()
            .unwrap()
            .contains("handlers[0].set.last"),
        "{status}"
    );
    let advice = "`tidemill parked skip shop/order-status 'b' --why";
    let message = status["stopped"]["message"].as_str().unwrap();
    assert!(message.contains(advice), "{status}");
    assert_eq!(
        refused(world.ask("redrive", json!({"key": "c"})).await),
        "NotParked"
    );
    assert_eq!(
        refused(world.ask("redrive", json!({"key": "b"})).await),
        "FoldError"
    );
    // It isn't read any more, but it is known how much waits.
    let many: Vec<_> = (0..5_000).map(|n| ("a", json!(n))).collect();
    publish(&mut world, &many).await;
    world
        .expect_status("all of it waits", |status| {
            status["sources"]["shop/orders"]["lag"] == 5_003
        })
        .await;
    world
        .expect_counters("counters too", |counters| {
            let lag = |source: &SourceProgress| source.lag == 5_003;
            counters.sources.values().all(lag) && !counters.sources.is_empty()
        })
        .await;
    // Asked again it doesn't leave out the next.
    let named = json!({"key": "b", "position": first(&world, "b").await});
    for _ in 0..2 {
        world.ask("skip", named.clone()).await.unwrap();
        assert_ne!(named["position"], first(&world, "b").await);
    }
    skip(&world, "b").await;
    world
        .expect_rows("on", &rows(&[("a", r#"{"last":4999,"sum":12497503}"#)]))
        .await;
    world
        .expect_status("nothing waits", |status| {
            status["stopped"].is_null()
                && status["sources"]["shop/orders"]["lag"] == 0
                && status["leftOut"] == 2
        })
        .await;
    assert_eq!(parked_messages(&world).await, 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_that_skips_errors_counts_them() {
    let mut world = World::start().await;
    world.policy.on_error = OnError::Skip;
    let definition = numbers();
    let worker = world.worker("a", &definition).await;
    publish(
        &mut world,
        &[("a", json!(1)), ("a", json!(null)), ("a", json!(2))],
    )
    .await;
    world
        .expect_rows("on", &rows(&[("a", r#"{"last":2,"sum":3}"#)]))
        .await;
    world
        .expect_counters("counted", |counters| {
            counters.left_out == 1 && counters.matched == 3
        })
        .await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_keys_are_found_by_whoever_takes_their_partition() {
    let mut world = World::start().await;
    let definition = numbers();
    let a = world.worker("a", &definition).await;
    let keys: Vec<String> = (0..40).map(|n| format!("k{n}")).collect();
    let poison: Vec<(&str, serde_json::Value)> =
        keys.iter().map(|key| (key.as_str(), json!(null))).collect();
    publish(&mut world, &poison).await;
    expect_parked(&world, 40).await;
    let b = world.worker("b", &definition).await;
    let follow: Vec<(&str, serde_json::Value)> =
        keys.iter().map(|key| (key.as_str(), json!(1))).collect();
    publish(&mut world, &follow).await;
    expect_parked(&world, 80).await;
    a.kill().await;
    publish(&mut world, &follow).await;
    expect_parked(&world, 120).await;
    world
        .expect_counters("all", |counters| counters.parked_keys == 40)
        .await;
    let c = world.worker("c", &definition).await;
    for key in &keys {
        // The owner may just be changing: then nobody answers.
        let ask = async |verb, body: serde_json::Value| {
            let answered = within(CAP, async || {
                let within = Duration::from_secs(10);
                control::ask(&world.nats, &resource(), verb, &body, within).await
            });
            answered.await.unwrap()
        };
        let first = ask("first", json!({ "key": key })).await;
        let named = json!({"key": key, "position": first["ok"]["position"]});
        ask("skip", named).await;
    }
    let expected = keys
        .iter()
        .map(|key| (key.clone(), r#"{"last":1,"sum":2}"#.to_owned()))
        .collect();
    world.expect_rows("all are folded", &expected).await;
    expect_parked(&world, 0).await;
    b.stop().await;
    c.stop().await;
}

/// Each name gets longer in a copy, and JetStream takes 64 KiB of headers.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_headers_are_too_many_for_a_copy_waits_in_its_stream() {
    let mut world = World::start().await;
    let worker = world.worker("a", &numbers()).await;
    publish_wide(&world, "a", json!({})).await;
    publish(&mut world, &[("a", json!(1)), ("b", json!(1))]).await;
    let b = ("b", r#"{"last":1,"sum":1}"#);
    world.expect_rows("b goes on", &rows(&[b])).await;
    expect_parked(&world, 2).await;
    let stream = "shop_order-status_projection_parked";
    let kept = world.nats.read_at(stream, 1).await.unwrap().unwrap();
    let headers = kept.headers.unwrap();
    assert_eq!(headers.get(headers::SUBJECT), None);
    assert_eq!(headers.get(headers::PARKED).unwrap().as_str(), "NoSuchKey");
    // It is read from there.
    let tried = world.ask("redrive", json!({"key": "a"})).await;
    assert_eq!(refused(tried), "NoSuchKey");
    let answer = skip(&world, "a").await;
    assert_eq!(answer["message"], "1 key: 1 event folded, 1 left out");
    let both = rows(&[("a", r#"{"last":1,"sum":1}"#), b]);
    world.expect_rows("freed", &both).await;
    expect_parked(&world, 0).await;
    worker.stop().await;
}

/// Header blocks that the client can't take break the connection at their delivery: they are found, and stop nobody.
#[tokio::test(flavor = "multi_thread")]
async fn headers_that_break_the_connection_stop_nobody() {
    let mut world = World::start().await;
    let definition = orders();
    let mut dice = Dice::new(9);
    world.publish_all(order_events(&mut dice, 500, 50)).await;
    let bad = b"NATS/1.0\r\nce-specversion: 1.0\r\nce-id: b\r\nce-source: /b\r\nce-type: X\r\nce-subject: \xff\xfe\r\n\r\n";
    for _ in 0..3 {
        publish_raw(&world.server, "shop.orders.x.X", bad, b"{}")
            .await
            .unwrap();
    }
    world.publish_all(order_events(&mut dice, 50, 50)).await;
    let _worker = world.worker("a", &definition).await;
    world.expect_reference("around them", &definition).await;
    // As they come, too.
    publish_raw(&world.server, "shop.orders.x.X", bad, b"{}")
        .await
        .unwrap();
    world.publish_all(order_events(&mut dice, 50, 50)).await;
    world.expect_reference("behind the last", &definition).await;
    world
        .expect_counters("counters", |counters| counters.seen == 604)
        .await;
}
