//! The summaries of a saga's instances, which its workers write for lists.

use crate::error::{CliError, Result, chain};
use std::collections::HashMap;
use tidemill_core::names::{ResourceId, SUMMARIES_BUCKET};
use tidemill_core::status::InstanceSummary;
use tidemill_nats::{KvBucket, KvEntry, KvError, Nats, Publisher, ReadError};

/// Entries taken at once.
const BATCH: usize = 1000;

/// The instances that are wanted, oldest first.
///
/// # Errors
/// They can't be read; a bucket that isn't there holds none.
pub(crate) async fn read(
    nats: &Nats,
    saga: &ResourceId,
    wanted: impl Fn(&InstanceSummary) -> bool,
) -> Result<Vec<InstanceSummary>> {
    let failed = |error: &KvError| {
        CliError::failed(format!(
            "the instances of {saga} can't be listed: {}",
            chain(error)
        ))
    };
    let bucket = KvBucket::new(&Publisher::new(nats, 1), SUMMARIES_BUCKET);
    let mut reader = match bucket.read(&saga.key_prefix()).await {
        Ok(reader) => reader,
        Err(KvError::Read {
            source: ReadError::StreamMissing(_),
            ..
        }) => return Ok(Vec::new()),
        Err(error) => return Err(failed(&error)),
    };
    let mut found: HashMap<String, InstanceSummary> = HashMap::new();
    let mut batch: Vec<KvEntry> = Vec::new();
    while reader
        .next_batch(BATCH, &mut batch)
        .await
        .map_err(|error| failed(&error))?
        > 0
    {
        for entry in batch.drain(..) {
            // What changes while we read comes again, and may no longer be wanted.
            match serde_json::from_slice::<InstanceSummary>(&entry.value) {
                Ok(summary) if !entry.deleted && wanted(&summary) => {
                    found.insert(entry.key, summary)
                }
                _ => found.remove(&entry.key),
            };
        }
    }
    let mut found: Vec<InstanceSummary> = found.into_values().collect();
    found.sort_by(|a, b| (a.started_at, &a.id).cmp(&(b.started_at, &b.id)));
    Ok(found)
}
