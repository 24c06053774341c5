//! `tidemill dev` and limits that would delete events: not without a word.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/dev.rs"]
mod dev;
mod support;

use dev::{CAP, Dev};
use support::Shell;
use tidemill_testbed::eventually;

fn stream(shell: &Shell, spec: &str) {
    let text = format!(
        "apiVersion: tidemill.dev/v1alpha1\nkind: EventStream\nmetadata: {{name: orders}}\nspec:\n  description: a stream\n{spec}"
    );
    shell.write("manifests/stream.yaml", &text);
}

fn publish(shell: &Shell, subjects: impl IntoIterator<Item = &'static str>) {
    for subject in subjects {
        shell
            .run(&format!(
                "event publish orders --type OrderPlaced --subject {subject} --data '{{}}'"
            ))
            .ok();
    }
}

async fn config(dev: &Dev) -> async_nats::jetstream::stream::Info {
    let client = async_nats::connect(&dev.url).await.unwrap();
    let stream = async_nats::jetstream::new(client)
        .get_stream("default_orders")
        .await;
    stream.unwrap().cached_info().clone()
}

const HELD: &str = "; limits, onFull and duplicateWindow stay as they are in NATS until `tidemill dev` runs with --allow-loss default/orders";

#[tokio::test(flavor = "multi_thread")]
async fn smaller_limits_delete_nothing_until_that_is_allowed() {
    let shell = Shell::new();
    stream(&shell, "");
    let mut dev = Dev::start(&shell, "").await;
    publish(&shell, ["o-1", "o-1", "o-1", "o-2", "o-2"]);
    let held = async |dev: &mut Dev, spec: &str, wanted: &str| {
        stream(&shell, spec);
        dev.line(&format!("manifests/stream.yaml:{wanted}{HELD}"))
            .await;
        assert_eq!(config(dev).await.state.messages, 5);
    };
    held(
        &mut dev,
        "  limits: {maxMessages: 2, onFull: DropOldest}\n",
        "6:12: EventStream default/orders: spec.limits.maxMessages: this would delete at once the oldest 3 events (onFull: DropOldest)",
    )
    .await;
    held(
        &mut dev,
        "  maxMessagesPerSubject: 1\n",
        "6:3: EventStream default/orders: spec.maxMessagesPerSubject: this would delete at once 3 events with newer ones on the same subject",
    )
    .await;
    let bytes = config(&dev).await.state.bytes;
    held(
        &mut dev,
        &format!("  limits: {{maxBytes: \"{}\", onFull: DropOldest}}\n", bytes - 1),
        "6:12: EventStream default/orders: spec.limits.maxBytes: this would delete at once the oldest events, at least 1 byte (onFull: DropOldest)",
    )
    .await;
    // The rest of the manifest is in force, and what deletes nothing is too.
    stream(
        &shell,
        "  limits: {maxMessages: 2}\n  maxMessageSize: 64Ki\n",
    );
    dev.line("stream default_orders changed (max_msg_size, max_msgs)")
        .await;
    held(
        &mut dev,
        "  limits: {maxMessages: 3, onFull: DropOldest}\n  maxMessageSize: 32Ki\n",
        "6:12: EventStream default/orders: spec.limits.maxMessages: this would delete at once the oldest 2 events (onFull: DropOldest)",
    )
    .await;
    let now = config(&dev).await.config;
    assert_eq!((now.max_messages, now.max_message_size), (2, 32 * 1024));
    stream(&shell, "  limits: {maxMessages: 20, onFull: DropOldest}\n");
    dev.line("stream default_orders changed (discard, max_msg_size, max_msgs)")
        .await;
    assert_eq!(config(&dev).await.state.messages, 5);

    eventually("events that are 1 s old", CAP, async || {
        let info = config(&dev).await;
        let age = time::OffsetDateTime::now_utc() - info.state.last_timestamp;
        if age > time::Duration::milliseconds(1100) {
            Ok(())
        } else {
            Err(age)
        }
    })
    .await;
    stream(&shell, "  limits: {maxAge: 1s}\n");
    dev.line("spec.limits.maxAge: this would delete at once 5 events older than that; limits, ")
        .await;
    dev.stop().await;

    // Said at the start too, and done when it is allowed.
    let mut dev = Dev::start(&shell, "").await;
    dev.line("spec.limits.maxAge: this would delete at once 5 events older than that; limits, ")
        .await;
    assert_eq!(config(&dev).await.state.messages, 5);
    dev.stop().await;
    stream(&shell, "  limits: {maxMessages: 2, onFull: DropOldest}\n");
    let dev = Dev::start(&shell, "--allow-loss orders").await;
    assert_eq!(config(&dev).await.state.messages, 2);
    let said = dev.stop().await;
    assert!(!said.contains("would delete"), "{said}");

    let ran = shell.run("dev manifests --allow-loss payments");
    assert!(
        ran.code == Some(2)
            && ran
                .stderr
                .contains("no manifest has an EventStream payments"),
        "{}",
        ran.seen()
    );
}
