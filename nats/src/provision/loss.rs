//! What changed limits would delete at once of what a stream holds now.

use crate::api::{ApiError, StreamState};
use crate::connection::Nats;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use tidemill_core::timestamp::Timestamp;

/// The settings that say when messages leave, as JetStream's API names them; the window goes with the age, which bounds it.
pub(super) const LIMITS: [&str; 6] = [
    "max_age",
    "max_msgs",
    "max_bytes",
    "max_msgs_per_subject",
    "discard",
    "duplicate_window",
];
/// How long the server keeps the consumer that counts, should its deletion get lost.
const COUNTING_NANOS: u64 = 5_000_000_000;

/// What a limit would delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// `max_age`: so many messages are older.
    Older(u64),
    /// `max_msgs` where the oldest leave: so many are beyond it.
    Beyond(u64),
    /// `max_bytes` where the oldest leave: the oldest messages of at least so many bytes.
    Bytes(u64),
    /// `max_msgs_per_subject`: so many messages have enough newer ones on their subject.
    Superseded(u64),
}

/// Everything that is in the stream now and that its new configuration would delete, by limit: one message may count under several.
/// What the server does: the limits of number and size only bite where the oldest leave (`discard: old`), age and
/// the limit of a subject always.
///
/// # Errors
/// [`ApiError`]: NATS away or no permission.
pub async fn losses(
    nats: &Nats,
    present: &StreamState,
    config: &Map<String, Value>,
    changed: &[String],
) -> Result<Vec<Loss>, ApiError> {
    let is_changed = |key: &str| changed.iter().any(|changed| changed == key);
    let limit = |key: &str| {
        let limit = config.get(key).and_then(Value::as_u64);
        limit.filter(|&limit| limit > 0)
    };
    let mut losses = Vec::new();
    if present.messages == 0 {
        return Ok(losses);
    }
    if let Some(age) = limit("max_age").filter(|_| is_changed("max_age")) {
        losses.push(Loss::Older(older(nats, present, age).await?));
    }
    if config.get("discard").and_then(Value::as_str) == Some("old") {
        for (key, holds, loss) in [
            (
                "max_msgs",
                present.messages,
                Loss::Beyond as fn(u64) -> Loss,
            ),
            ("max_bytes", present.bytes, Loss::Bytes),
        ] {
            let may = is_changed(key) || is_changed("discard");
            if let Some(limit) = limit(key).filter(|_| may) {
                losses.push(loss(holds.saturating_sub(limit)));
            }
        }
    }
    const PER_SUBJECT: &str = "max_msgs_per_subject";
    if let Some(limit) = limit(PER_SUBJECT).filter(|_| is_changed(PER_SUBJECT)) {
        losses.push(Loss::Superseded(superseded(nats, present, limit).await?));
    }
    losses.retain(|loss| {
        let (Loss::Older(lost) | Loss::Beyond(lost) | Loss::Bytes(lost) | Loss::Superseded(lost)) =
            *loss;
        lost > 0
    });
    Ok(losses)
}

/// Messages stored longer ago than `age` nanoseconds.
async fn older(nats: &Nats, present: &StreamState, age: u64) -> Result<u64, ApiError> {
    #[derive(Deserialize)]
    struct Made {
        name: String,
        num_pending: u64,
    }
    let stream = &present.name;
    let now = present.server_time.unwrap_or(present.last_stored_at);
    let age = i64::try_from(age / 1_000_000).unwrap_or(i64::MAX);
    let since = Timestamp::from_millis(now.millis().saturating_sub(age));
    let body = json!({
        "stream_name": stream,
        "config": {
            "deliver_policy": "by_start_time",
            "opt_start_time": since.to_string(),
            "ack_policy": "none",
            "mem_storage": true,
            "num_replicas": 1,
            "inactive_threshold": COUNTING_NANOS,
        },
    });
    let call = format!("CONSUMER.CREATE.{stream}");
    let made: Made = nats.stream_call(stream, &call, &body).await?;
    let call = format!("CONSUMER.DELETE.{stream}.{}", made.name);
    // It goes by itself too.
    let _ = nats.stream_call::<Value>(stream, &call, &Value::Null).await;
    Ok(present.messages.saturating_sub(made.num_pending))
}

/// Messages that aren't among the last `limit` of their subject.
async fn superseded(nats: &Nats, present: &StreamState, limit: u64) -> Result<u64, ApiError> {
    #[derive(Deserialize)]
    struct Info {
        state: State,
    }
    #[derive(Deserialize)]
    struct State {
        #[serde(default)]
        subjects: HashMap<String, u64>,
    }
    let stream = &present.name;
    let call = format!("STREAM.INFO.{stream}");
    let (mut looked_at, mut lost) = (0, 0);
    // The server tells 100,000 subjects at once.
    loop {
        let request = json!({ "subjects_filter": ">", "offset": looked_at });
        let Info { state } = nats.stream_call(stream, &call, &request).await?;
        if state.subjects.is_empty() {
            return Ok(lost);
        }
        looked_at += state.subjects.len();
        let beyond = state
            .subjects
            .values()
            .map(|held| held.saturating_sub(limit));
        lost += beyond.sum::<u64>();
        if looked_at as u64 >= present.subjects_count {
            return Ok(lost);
        }
    }
}
