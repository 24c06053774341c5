//! What there is to see: figures of workers and streams, kept up to date in the background.

use crate::figures::Figures;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidemill_core::contract::StreamBinding;
use tidemill_core::names::{COUNTERS_BUCKET, ResourceId, parse_counters_key};
use tidemill_nats::{KvBucket, KvEntry, KvError, Nats, Publisher};
use tokio::task::JoinHandle;

/// Pause before the counters are watched anew, after an error.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Entries taken at once.
const BATCH: usize = 256;
/// Streams that are asked about at each look; a person looks at no more.
const STREAMS_MAX: usize = 50;

type Counted = BTreeMap<ResourceId, BTreeMap<u16, Vec<u8>>>;

/// Follows the counters until it is dropped.
#[derive(Debug)]
pub(crate) struct Observer {
    nats: Nats,
    counted: Arc<Mutex<Counted>>,
    task: JoinHandle<()>,
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a stream holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamFigures {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Observer {
    /// Begins to follow.
    pub(crate) fn start(nats: &Nats) -> Self {
        let counted = Arc::<Mutex<Counted>>::default();
        let bucket = KvBucket::new(&Publisher::new(nats, 1), COUNTERS_BUCKET);
        let task = tokio::spawn({
            let counted = Arc::clone(&counted);
            async move {
                loop {
                    if let Err(error) = follow(&bucket, &counted).await {
                        tracing::debug!(%error, "counters are read again");
                    }
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        });
        Observer {
            nats: nats.clone(),
            counted,
            task,
        }
    }

    /// The figures of a resource.
    pub(crate) fn figures(&self, resource: &ResourceId) -> Figures {
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let partitions = counted.get(resource).into_iter().flat_map(BTreeMap::values);
        Figures::sum(resource.kind, partitions.map(Vec::as_slice))
    }

    /// What streams hold now; those that don't answer are left out.
    pub(crate) async fn streams(
        &self,
        bindings: &[StreamBinding],
    ) -> BTreeMap<String, StreamFigures> {
        let asked = bindings.iter().take(STREAMS_MAX).map(|binding| async move {
            let state = self.nats.stream_state(&binding.name).await.ok()?;
            Some((
                binding.stream.to_string(),
                StreamFigures {
                    messages: state.messages,
                    bytes: state.bytes,
                },
            ))
        });
        futures::future::join_all(asked)
            .await
            .into_iter()
            .flatten()
            .collect()
    }
}

async fn follow(bucket: &KvBucket, counted: &Mutex<Counted>) -> Result<(), KvError> {
    let mut reader = bucket.watch("").await?;
    counted
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clear();
    let mut batch: Vec<KvEntry> = Vec::new();
    loop {
        reader.next_batch(BATCH, &mut batch).await?;
        let mut counted = counted.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in batch.drain(..) {
            if let Some((resource, partition)) = parse_counters_key(&entry.key) {
                counted
                    .entry(resource)
                    .or_default()
                    .insert(partition, entry.value.to_vec());
            }
        }
    }
}
