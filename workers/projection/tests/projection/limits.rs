//! As much is parked as may be.

use crate::numbers::*;
use crate::support::*;
use serde_json::json;
use tidemill_worker_projection::Options;

#[tokio::test(flavor = "multi_thread")]
async fn too_many_parked_keys_stop_the_projection_before_the_next_one() {
    let mut world = World::start().await;
    world.policy.max_parked_keys = 2;
    let definition = numbers();
    let worker = world.worker("a", &definition).await;
    let list = [
        ("a", json!(null)),
        ("b", json!(null)),
        ("a", json!(1)),
        ("c", json!(null)),
        ("d", json!(1)),
    ];
    publish(&mut world, &list).await;
    world.expect_stopped("TooManyParkedKeys").await;
    world.expect_not_ready(&worker).await;
    assert_eq!(world.rows().await, rows(&[]));
    assert_eq!(parked_messages(&world).await, 3);
    // So it is after a restart.
    worker.stop().await;
    let worker = world.worker("a", &definition).await;
    world.expect_stopped("TooManyParkedKeys").await;
    skip(&world, "a").await;
    world
        .expect_rows(
            "it goes on",
            &rows(&[
                ("a", r#"{"last":1,"sum":1}"#),
                ("d", r#"{"last":1,"sum":1}"#),
            ]),
        )
        .await;
    world
        .expect_status("no longer stopped", |status| {
            status["stopped"].is_null() && status["parkedKeys"] == 2
        })
        .await;
    for key in ["b", "c"] {
        skip(&world, key).await;
    }
    expect_parked(&world, 0).await;
    worker.stop().await;
}

/// Mostly it is what follows that fills the list: it counts as well.
#[tokio::test(flavor = "multi_thread")]
async fn too_many_parked_events_stop_the_projection_before_the_next_one() {
    let mut world = World::start().await;
    let definition = numbers();
    let three = Options::default().with_parked_events_max(3);
    let worker = world.worker_with("a", &definition, three).await;
    let list = [
        ("d", json!(1)),
        ("a", json!(null)),
        ("a", json!(1)),
        ("b", json!(null)),
        ("a", json!(2)),
        ("d", json!(2)),
        ("c", json!(null)),
        ("e", json!(null)),
        ("d", json!(3)),
    ];
    publish(&mut world, &list).await;
    let told = async |world: &World, key: &str| {
        let status = world
            .expect_status(key, |status| {
                status["stopped"]["reason"] == "TooManyParkedEvents" && status["stoppedKey"] == key
            })
            .await;
        let message = status["stopped"]["message"].as_str().unwrap().to_owned();
        let advice =
            "`tidemill parked list shop/order-status` shows what waits: redrive or skip it";
        assert!(
            message.starts_with("3 events wait") && message.ends_with(advice),
            "{message}"
        );
        message
    };
    let message = told(&world, "a").await;
    assert!(message.contains("its key waits for an event"), "{message}");
    world.expect_not_ready(&worker).await;
    let d = |n: u64, sum: u64| format!(r#"{{"last":{n},"sum":{sum}}}"#);
    let first = rows(&[("d", &d(1, 1))]);
    world.expect_rows("what came before", &first).await;
    assert_eq!(parked_messages(&world).await, 3);
    // So it is after a restart.
    worker.stop().await;
    let worker = world.worker_with("a", &definition, three).await;
    told(&world, "a").await;
    assert_eq!(world.rows().await, first);
    assert_eq!(parked_messages(&world).await, 3);
    // Trying again makes no room where nothing has changed.
    assert_eq!(
        refused(world.ask("redrive", json!({"key": "a"})).await),
        "NoSuchKey"
    );
    told(&world, "a").await;

    skip(&world, "a").await;
    let both = rows(&[("a", r#"{"last":2,"sum":3}"#), ("d", &d(3, 6))]);
    world.expect_rows("it goes on", &both).await;
    expect_parked(&world, 3).await;
    world
        .expect_status("b, c and e wait", |status| {
            status["stopped"].is_null() && status["parkedKeys"] == 3
        })
        .await;
    // One that fails itself.
    publish(&mut world, &[("f", json!(null)), ("d", json!(4))]).await;
    let message = told(&world, "f").await;
    assert!(message.contains("handlers[0].set.last"), "{message}");
    assert_eq!(world.rows().await, both);
    for key in ["b", "f"] {
        skip(&world, key).await;
    }
    let expected = rows(&[("a", r#"{"last":2,"sum":3}"#), ("d", &d(4, 10))]);
    world.expect_rows("all of it", &expected).await;
    expect_parked(&world, 2).await;
    worker.stop().await;
}
