//! An instance in full: its inputs are read from the log and folded again.

use crate::engine::Engine;
use crate::shard::decode;
use std::sync::Arc;
use tidemill_core::control::{Accepted, CancelRequest, ControlError, DecisionRequest, Described};
use tidemill_core::names::{LogSubject, encode_token, partition};
use tidemill_core::saga::{CompiledSaga, Input, Instance, Note};
use tidemill_core::status::InstanceState;
use tidemill_nats::{ReadFrom, Reader};

/// Entries of a timeline that are shown; of more, the newest.
const TIMELINE_MAX: usize = 500;

/// Bytes of an answer besides what is described, rounded up.
const ANSWER_AROUND: usize = 256;

/// Reads and folds one instance. `saga` is its definition, if that is known already.
pub(crate) async fn describe(
    engine: &Engine,
    id: &str,
    saga: Option<Arc<CompiledSaga>>,
) -> Result<Described, ControlError> {
    let unavailable = |error: &dyn std::fmt::Display| {
        ControlError::new("Unavailable", format!("the log can't be read: {error}"))
    };
    let not_found = || {
        ControlError::new(
            "NotFound",
            format!("no instance {id} was ever started: see `tidemill saga list`"),
        )
    };
    let token =
        encode_token(id).map_err(|error| ControlError::new("Invalid", error.to_string()))?;
    let of = partition(&token, engine.workload.partitions);
    let filter = format!("{}.{of}.{token}.>", engine.log_prefix);
    let stream = &engine.workload.log_stream;
    let mut reader = Reader::open_to_end(&engine.nats, stream, vec![filter], ReadFrom::First)
        .await
        .map_err(|error| unavailable(&error))?;
    let mut batch = Vec::new();
    let mut folded: Option<(Instance, Arc<CompiledSaga>)> = None;
    let mut timeline = Vec::new();
    let (mut sequence, mut omitted) = (0, 0);
    while reader
        .next_batch(256, &mut batch)
        .await
        .map_err(|error| unavailable(&error))?
        > 0
    {
        for message in batch.drain(..) {
            let Ok(subject) = LogSubject::parse(&message.subject, &engine.log_prefix) else {
                continue;
            };
            let Ok(input) = decode(subject.kind, &message) else {
                continue;
            };
            let note = match (&mut folded, &input) {
                (Some((instance, saga)), input) => {
                    instance.apply(saga, input, message.stored_at).note
                }
                (None, Input::Started(started)) => {
                    let saga = match &saga {
                        Some(saga) if saga.definition.revision() == started.revision => {
                            Arc::clone(saga)
                        }
                        _ => engine
                            .revisions
                            .get(&started.revision)
                            .await
                            .map_err(|error| ControlError::new("Unavailable", error.to_string()))?,
                    };
                    let (instance, _) =
                        Instance::start(&saga, id, (**started).clone(), message.stored_at);
                    folded = Some((instance, saga));
                    Note::Applied
                }
                // An instance without its start folds to nothing.
                (None, _) => continue,
            };
            sequence = message.sequence;
            if let Some((instance, saga)) = &folded {
                if timeline.len() == TIMELINE_MAX {
                    timeline.remove(0);
                    omitted += 1;
                }
                timeline.push(instance.timeline_entry(
                    saga,
                    &input,
                    note,
                    message.stored_at,
                    message.sequence,
                ));
            }
        }
    }
    let (instance, saga) = folded.ok_or_else(not_found)?;
    let described = Described {
        summary: instance.summary(&saga, sequence),
        steps: instance.step_statuses(&saga),
        timeline,
        omitted,
        decisions: instance.decisions,
    };
    Ok(described.within(engine.nats.max_payload().saturating_sub(ANSWER_AROUND)))
}

/// The answer to a decision about an instance that isn't running: taken already, or there is nothing to decide.
pub(crate) async fn decided(
    engine: &Engine,
    request: &DecisionRequest,
) -> Result<Accepted, ControlError> {
    let described = describe(engine, &request.id, None).await?;
    let state = described.summary.state;
    if request.after < described.decisions {
        return Ok(already_decided(&request.id, state));
    }
    if state.is_finished() {
        let message = format!("instance {} is {}, not parked", request.id, state.as_str());
        return Err(ControlError::new("NotParked", message));
    }
    Err(not_folded_yet(&request.id))
}

/// Why an instance that isn't running can't be cancelled.
pub(crate) async fn not_cancelled(engine: &Engine, request: &CancelRequest) -> ControlError {
    match describe(engine, &request.id, None).await {
        Ok(described) if described.summary.state.is_finished() => ControlError::new(
            "AlreadyFinished",
            format!(
                "there is nothing to cancel: instance {} is {}",
                request.id,
                described.summary.state.as_str()
            ),
        ),
        Ok(_) => not_folded_yet(&request.id),
        Err(error) => error,
    }
}

/// Its start is stored, and it isn't among those that run.
fn not_folded_yet(id: &str) -> ControlError {
    ControlError::new(
        "Unavailable",
        format!("instance {id} is just being taken on: ask again"),
    )
}

/// The answer to a decision that was taken before.
pub(crate) fn already_decided(id: &str, state: InstanceState) -> Accepted {
    let state = state.as_str();
    Accepted::new(format!(
        "it was decided already: nothing is changed, and instance {id} is {state}"
    ))
}
