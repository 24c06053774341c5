//! What people ask of a projection as a whole: to fold everything again, and to go on with a source that was reset.

use crate::error::SessionError;
use crate::session::history;
use crate::situation::Situation;
use crate::store::Store;
use std::time::{SystemTime, UNIX_EPOCH};
use tidemill_core::contract::ProjectionWorkload;
use tidemill_core::control::{Accepted, ControlError};
use tidemill_core::definition::StreamRef;
use tidemill_core::names::PROJECTION_PARTITIONS;
use tidemill_core::projection::{
    KeySpace, Source, SourceCheckpoint, SourceSeen, Sources, verify_source,
};
use tidemill_core::timestamp::Timestamp;
use tidemill_nats::StreamState;

/// An answer, unless NATS fails.
pub(crate) type Answer = Result<Result<Accepted, ControlError>, SessionError>;

/// The time now, for decisions and for nothing that is folded.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn refuse(reason: &str, message: impl Into<String>) -> Answer {
    Ok(Err(ControlError::new(reason, message)))
}

fn accept(message: impl Into<String>) -> Answer {
    Ok(Ok(Accepted::new(message)))
}

/// Begins a new key space for the present revision. Sources that were reset are accepted first: what is folded is what is there now.
pub(crate) async fn rebuild(store: &Store, workload: &ProjectionWorkload) -> Answer {
    let situation = Situation::read(store, workload).await?;
    match &situation.live {
        None => {
            return refuse(
                "Invalid",
                "nothing was folded yet: there is nothing to rebuild",
            );
        }
        Some(live) if *live != situation.target => {
            return refuse(
                "Building",
                format!("{} is being built already", situation.target),
            );
        }
        Some(_) => {}
    }
    let accepted = accept_reset(store, workload, &situation, None).await?;
    let revision = &situation.target.revision;
    let rebuilds = store.rebuilds(revision).await?;
    let number = rebuilds.value.saturating_add(1);
    if !store
        .set_rebuilds(revision, number, rebuilds.revision)
        .await?
    {
        return refuse("Building", "another rebuild was just begun");
    }
    let space = KeySpace {
        revision: revision.clone(),
        rebuild: number,
    };
    // Whoever asks for what is there after a reset has been told that it may be less.
    if !accepted.is_empty() {
        store.accept_history(&space).await?;
    }
    let also = if accepted.is_empty() {
        String::new()
    } else {
        format!("; accepted: {}", accepted.join(", "))
    };
    accept(format!(
        "{space} is built from the beginning; readers are led to it when it is as far as the present rows{also}"
    ))
}

/// Says that a source that was set back or replaced is to be read on from what is new in it. The rows stay as they are.
pub(crate) async fn accept_source(
    store: &Store,
    workload: &ProjectionWorkload,
    stream: Option<&StreamRef>,
) -> Answer {
    if let Some(stream) = stream
        && !workload.definition.sources.contains(stream)
    {
        return refuse(
            "NotFound",
            format!("{stream} is no source of this projection"),
        );
    }
    let situation = Situation::read(store, workload).await?;
    let mut accepted = accept_reset(store, workload, &situation, stream).await?;
    let lacking = match &situation.live {
        // Accepted in advance, it would hold for what is lost later, too.
        Some(live) if situation.is_building() && !situation.accepted && accepted.is_empty() => {
            history::would_lack(store, workload, live, &situation.target).await?
        }
        _ => 0,
    };
    let lost = lacking > 0 || !accepted.is_empty();
    if situation.is_building() && !situation.accepted && lost {
        store.accept_history(&situation.target).await?;
        tracing::warn!(space = %situation.target, "new rows may lack what the sources no longer hold");
        accepted.push(format!(
            "{} is built without what the sources no longer hold",
            situation.target
        ));
    }
    if accepted.is_empty() {
        let building = match situation.is_building() {
            true => format!(
                ", and the sources still hold all that {} is built from",
                situation.target
            ),
            false => String::new(),
        };
        return refuse(
            "NotReset",
            format!("no source was set back or replaced{building}: there is nothing to accept"),
        );
    }
    accept(accepted.join(", "))
}

/// Accepts every source that was reset; says which, and from where they are read on.
async fn accept_reset(
    store: &Store,
    workload: &ProjectionWorkload,
    situation: &Situation,
    only: Option<&StreamRef>,
) -> Result<Vec<String>, SessionError> {
    let mut accepted = Vec::new();
    for stream in workload
        .definition
        .sources
        .iter()
        .filter(|stream| only.is_none_or(|only| only == *stream))
    {
        let (Some(binding), Some(lineage)) = (
            store.contract.binding(stream),
            store.known_lineage(stream).await?,
        ) else {
            continue;
        };
        let state = store.nats.stream_state(&binding.name).await?;
        let source = Source {
            stream: stream.clone(),
            lineage: lineage.value.clone(),
        };
        let spaces = situation.live.iter().chain([&situation.target]);
        let mut furthest = SourceCheckpoint::default();
        let sources = Sources::new(vec![source]);
        for space in spaces {
            for (_, _, checkpoint) in store
                .checkpoints(space, &sources, 0..PROJECTION_PARTITIONS)
                .await?
            {
                if checkpoint.source(0).position > furthest.position {
                    furthest = checkpoint.source(0);
                }
            }
        }
        if !is_reset(store, &sources, &state, furthest).await? {
            continue;
        }
        let shared = match (
            state.incarnation == lineage.value.incarnation(),
            furthest.stored_at,
        ) {
            // What is left was stored no later than the last event folded, what is new was stored after the stream was set back.
            (true, Some(time)) => {
                let shared = store
                    .last_before(&state.name, time.plus_millis(1), state.last)
                    .await?;
                shared.min(furthest.position.sequence)
            }
            _ => 0,
        };
        let Ok(next) = lineage.value.accept(&state.incarnation, shared) else {
            continue;
        };
        if store.set_lineage(stream, &next, lineage.revision).await? {
            tracing::warn!(%stream, shared, "a source that was reset is read on");
            accepted.push(format!("{stream} is read on after {shared}"));
        }
    }
    Ok(accepted)
}

async fn is_reset(
    store: &Store,
    sources: &Sources,
    state: &StreamState,
    furthest: SourceCheckpoint,
) -> Result<bool, SessionError> {
    let Some(source) = sources.get(0) else {
        return Ok(false);
    };
    let sequence = furthest.position.sequence;
    let message = match sequence {
        0 => None,
        sequence => store.nats.read_at(&state.name, sequence).await?,
    };
    let seen = SourceSeen {
        incarnation: state.incarnation.clone(),
        last_sequence: state.last,
        stored_at: message.map(|message| message.stored_at),
    };
    Ok(verify_source(
        &source.lineage,
        furthest.position,
        furthest.stored_at,
        &seen,
    )
    .is_err())
}
