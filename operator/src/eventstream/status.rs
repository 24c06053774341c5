//! The status of an EventStream: pure.

use crate::conditions::{Verdict, conditions};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use tidemill_crds::compile::EventStreamPlan;
use tidemill_crds::eventstream::{Compression, EffectiveStream, Storage};
use tidemill_crds::eventstream::{EventStream, EventStreamStatus};
use tidemill_nats::StreamState;

/// Condition of a stream that was lost and made again.
const DATA_LOST: &str = "DataLost";

/// The new status. What isn't known stays: a figure of before is better than none, and the incarnation is needed to tell a lost stream.
pub(super) fn status(
    resource: &EventStream,
    plan: Option<&EventStreamPlan>,
    stream: Option<&StreamState>,
    verdict: &Verdict,
    now: Timestamp,
) -> EventStreamStatus {
    let mut status = resource.status.clone().unwrap_or_default();
    let generation = resource.metadata.generation;
    status.observed_generation = generation;
    status.conditions = conditions(&status.conditions, verdict, generation, now);
    if let (Some(plan), Some(stream)) = (plan, stream) {
        let number = |number: u64| Some(i64::try_from(number).unwrap_or(i64::MAX));
        status.messages = number(stream.messages);
        status.bytes = number(stream.bytes);
        status.first_sequence = number(stream.first);
        status.last_sequence = number(stream.last);
        status.incarnation = Some(stream.incarnation.clone());
        status.effective = Some(effective(plan, stream));
    }
    status
}

/// Notes that events are lost; the condition stays until a person removes it.
pub(super) fn note_loss(status: &mut EventStreamStatus, lost: String, now: Timestamp) {
    status
        .conditions
        .retain(|condition| condition.type_ != DATA_LOST);
    status.conditions.push(Condition {
        type_: DATA_LOST.to_owned(),
        status: "True".to_owned(),
        reason: "Recreated".to_owned(),
        message: lost,
        observed_generation: status.observed_generation,
        last_transition_time: Time(now),
    });
}

fn effective(plan: &EventStreamPlan, stream: &StreamState) -> EffectiveStream {
    let limit = |key: &str| {
        let limit = stream.config.get(key).and_then(serde_json::Value::as_i64);
        limit.filter(|&limit| limit > 0)
    };
    let text = |key: &str| stream.config.get(key).and_then(serde_json::Value::as_str);
    EffectiveStream {
        stream_name: stream.name.clone(),
        prefix: plan.binding.prefix.clone(),
        subjects: stream.subjects(),
        storage: text("storage").map(|storage| match storage {
            "memory" => Storage::Memory,
            _ => Storage::File,
        }),
        replicas: limit("num_replicas").and_then(|replicas| u32::try_from(replicas).ok()),
        compression: text("compression").map(|compression| match compression {
            "s2" => Compression::S2,
            _ => Compression::None,
        }),
        max_bytes: limit("max_bytes"),
        max_messages: limit("max_msgs"),
        ..EffectiveStream::default()
    }
}
