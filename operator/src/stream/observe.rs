//! What is in JetStream.

use super::plan::Observed;
use crate::jetstream::JetStream;
use tidemill_nats::ApiError;
use tidemill_nats::provision::{Decision, Overlap, StreamPlan, decide, owner_of};

/// Looks at the stream, and where something is to be written at what it would take from others.
pub(super) async fn observe<S: JetStream>(
    jetstream: &S,
    wanted: &StreamPlan,
) -> Result<Observed, ApiError> {
    let stream = jetstream.stream(&wanted.name).await?;
    let decision = stream.as_ref().map(|present| decide(wanted, present));
    let mut losses = Vec::new();
    if let (Some(present), Some(Decision::Update { config, changed })) = (&stream, &decision)
        && !wanted.may_lose
    {
        losses = jetstream.losses(present, config, changed).await?;
    }
    let overlap = match &decision {
        None => overlap(jetstream, wanted).await?,
        Some(Decision::Update { changed, .. }) if changed.iter().any(|key| key == "subjects") => {
            overlap(jetstream, wanted).await?
        }
        Some(_) => None,
    };
    Ok(Observed {
        stream,
        overlap,
        losses,
    })
}

/// The first other stream that takes one of the subjects.
async fn overlap<S: JetStream>(
    jetstream: &S,
    wanted: &StreamPlan,
) -> Result<Option<Overlap>, ApiError> {
    for subject in &wanted.subjects {
        let streams = jetstream.streams_on(subject).await?;
        if let Some(other) = streams.into_iter().find(|name| *name != wanted.name) {
            let state = jetstream.stream(&other).await?;
            return Ok(Some(Overlap {
                wanting: wanted.name.clone(),
                owner: state.and_then(|state| owner_of(&state.metadata())),
                stream: other,
                subject: subject.clone(),
            }));
        }
    }
    Ok(None)
}
