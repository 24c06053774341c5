//! Cumulative counters per partition, written behind into the shared bucket: when they changed, at most once a second per key.

use crate::WorkerContext;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidemill_core::names::{COUNTERS_BUCKET, ResourceId};
use tidemill_nats::{KvBucket, KvError, KvWrite, Publisher};

/// How often changed counters are written.
const INTERVAL: Duration = Duration::from_secs(1);

/// The counters of this worker's partitions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Counters {
    bucket: KvBucket,
    resource: ResourceId,
    changed: Arc<Mutex<BTreeMap<u16, Value>>>,
}

impl Counters {
    /// Starts writing behind, until the worker shuts down; call [`Counters::flush`] at its end.
    pub fn start(context: &WorkerContext, publisher: &Publisher) -> Self {
        let counters = Counters {
            bucket: KvBucket::shared(publisher, COUNTERS_BUCKET),
            resource: context.contract.resource.clone(),
            changed: Arc::default(),
        };
        let writer = counters.clone();
        let shutdown = context.shutdown.clone();
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(INTERVAL);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    _ = tick.tick() => writer.flush().await,
                }
            }
        });
        counters
    }

    /// The counters of a partition are now these.
    pub fn set(&self, partition: u16, counters: Value) {
        self.lock().insert(partition, counters);
    }

    /// Forgets what isn't written yet of a partition: it is another pod's now.
    pub fn forget(&self, partition: u16) {
        self.lock().remove(&partition);
    }

    /// What is written of a partition.
    ///
    /// # Errors
    /// [`KvError`]
    pub async fn read(&self, partition: u16) -> Result<Option<Value>, KvError> {
        let entry = self
            .bucket
            .get(&self.resource.counters_key(partition))
            .await?;
        // Unreadable = nothing: they are derived, and the next write replaces them.
        Ok(entry
            .filter(|entry| !entry.deleted)
            .and_then(|entry| serde_json::from_slice(&entry.value).ok()))
    }

    /// Writes what changed. What can't be written stays changed.
    pub async fn flush(&self) {
        let changed = std::mem::take(&mut *self.lock());
        let mut sent = Vec::with_capacity(changed.len());
        for (partition, counters) in changed {
            let write = KvWrite {
                key: self.resource.counters_key(partition),
                value: Some(counters.to_string().into()),
                ..KvWrite::default()
            };
            sent.push((partition, counters, self.bucket.send(write).await));
        }
        for (partition, counters, ack) in sent {
            if let Err(error) = ack.await {
                tracing::debug!(partition, %error, "counters will be written later");
                self.lock().entry(partition).or_insert(counters);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u16, Value>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
