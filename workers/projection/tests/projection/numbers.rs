//! A definition that adds up numbers, and what is to be seen of those it parks.

use crate::support::*;
use serde_json::json;
use std::collections::BTreeMap;
use tidemill_core::definition::ProjectionDefinition;
use tidemill_nats::{HeaderMap, Publish};
use tidemill_testbed::eventually;
use tidemill_worker_runtime::control::AskError;

/// Keeps the last number and adds them up; fails where there is none.
pub(crate) fn numbers() -> ProjectionDefinition {
    definition(
        json!([{"type": "N", "set": {"last": "=event.data.n"}, "increment": {"sum": "=event.data.n"}}]),
    )
}

pub(crate) async fn publish(world: &mut World, list: &[(&str, serde_json::Value)]) {
    let events = list.iter().map(|(key, n)| {
        event(
            "N",
            key,
            if n.is_null() {
                json!({})
            } else {
                json!({ "n": n })
            },
        )
    });
    world.publish_all(events.collect()).await;
}

/// Publishes an event whose headers are too many for a copy; gives its sequence.
pub(crate) async fn publish_wide(world: &World, key: &str, data: serde_json::Value) -> u64 {
    let encoded = event("N", key, data).encode(PREFIX).unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in &encoded.headers {
        headers.insert(name.as_str(), value.as_str());
    }
    for number in 0..1_500 {
        headers.insert(format!("x-{number:04}"), "v".repeat(26));
    }
    let message = Publish {
        headers,
        ..Publish::new(encoded.subject, encoded.payload)
    };
    let stored = world.publisher.publish(message).await.await;
    stored.unwrap().sequence
}

pub(crate) fn rows(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    list.iter()
        .map(|(key, row)| ((*key).to_owned(), (*row).to_owned()))
        .collect()
}

pub(crate) async fn parked_messages(world: &World) -> u64 {
    world
        .nats
        .stream_state("shop_order-status_projection_parked")
        .await
        .unwrap()
        .messages
}

pub(crate) async fn expect_parked(world: &World, messages: u64) {
    eventually("parked messages", CAP, async || {
        match parked_messages(world).await {
            found if found == messages => Ok(()),
            found => Err(found),
        }
    })
    .await;
}

/// Leaves out what a key waits for.
pub(crate) async fn skip(world: &World, key: &str) -> serde_json::Value {
    let position = first(world, key).await;
    let named = json!({"key": key, "position": position, "by": "me", "why": "a test"});
    world.ask("skip", named).await.unwrap()
}

/// Position of what a key waits for.
pub(crate) async fn first(world: &World, key: &str) -> String {
    let first = world.ask("first", json!({ "key": key })).await.unwrap();
    first["position"].as_str().unwrap().to_owned()
}

pub(crate) fn refused(answer: Result<serde_json::Value, AskError>) -> String {
    match answer {
        Err(AskError::Refused { reason, .. }) => reason,
        other => panic!("not refused: {other:?}"),
    }
}
