//! `start: {from: New}` means: from the moment the resource was first accepted. That moment is here, before any worker runs
//! and before anybody is told the address: what is published from then on counts.

use tidemill_core::contract::{Contract, Workload};
use tidemill_core::definition::{Start, StreamRef};
use tidemill_core::names::{COUNTERS_BUCKET, ResourceId};
use tidemill_core::status::ResolvedStart;
use tidemill_nats::{ApiError, KvBucket, KvError, Nats, Publisher};

/// Why it isn't stored.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A stream can't be looked at.
    #[error(transparent)]
    Stream(#[from] ApiError),
    /// It can't be written down.
    #[error("where {resource} begins to read {stream} can't be stored: {source}")]
    Store {
        /// Who reads.
        resource: ResourceId,
        /// What.
        stream: StreamRef,
        /// Why not.
        source: KvError,
    },
}

/// Stores where the streams of a resource are begun that are begun at their end. What is stored already stays.
///
/// # Errors
/// [`StartError`]
pub async fn remember(nats: &Nats, contract: &Contract) -> Result<(), StartError> {
    let bucket = KvBucket::new(&Publisher::new(nats, 1), COUNTERS_BUCKET);
    for stream in begun_at_their_end(contract) {
        let Some(binding) = contract.binding(&stream) else {
            continue;
        };
        let key = contract.resource.start_key(&stream);
        let state = nats.stream_state(&binding.name).await?;
        let resolved = ResolvedStart::new(stream.clone(), state.incarnation, state.last);
        let value = serde_json::to_vec(&resolved).unwrap_or_default();
        let created = bucket.create(&key, value).await;
        created.map_err(|source| StartError::Store {
            resource: contract.resource.clone(),
            stream,
            source,
        })?;
    }
    Ok(())
}

fn begun_at_their_end(contract: &Contract) -> Vec<StreamRef> {
    let (mut streams, starts): (Vec<StreamRef>, &[Start]) = match &contract.workload {
        Workload::Projection(workload) => (workload.definition.sources.clone(), &workload.starts),
        Workload::Saga(workload) => {
            let triggers = workload.definition.triggers.iter();
            (
                triggers.map(|trigger| trigger.stream.clone()).collect(),
                &workload.starts,
            )
        }
    };
    // One start per distinct stream, in order of first mention.
    let mut seen = Vec::new();
    streams.retain(|stream| {
        let new = !seen.contains(stream);
        seen.push(stream.clone());
        new
    });
    let pairs = streams.into_iter().zip(starts);
    pairs
        .filter(|(_, start)| **start == Start::New)
        .map(|(stream, _)| stream)
        .collect()
}
