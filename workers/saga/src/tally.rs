//! Counters per partition, and the trigger positions that belong to them; written to KV when they changed.

use crate::engine::Engine;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tidemill_core::names::{COUNTERS_BUCKET, ResourceId};
use tidemill_core::status::SagaCounters;
use tidemill_nats::{KvBucket, KvError, KvWrite, Publisher};
use tokio_util::sync::CancellationToken;

/// At most one write per partition in this time.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) struct Tally {
    bucket: KvBucket,
    resource: ResourceId,
    partitions: Mutex<BTreeMap<u16, Entry>>,
    /// What was known of partitions when they were released. A store that was set back, and took the ownership with it,
    /// knows less.
    released: Mutex<BTreeMap<u16, Entry>>,
    /// One writing at a time, else older counters could overtake newer ones.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Clone, Default)]
struct Entry {
    counters: SagaCounters,
    changed: bool,
    /// Summaries of instances whose last input is at or below this position were written by an earlier owner.
    summarized_through: u64,
    /// The log was folded to here before, by this worker or an earlier owner.
    known_through: u64,
    /// Incarnation of the log that was folded before; empty if nobody said.
    known_log: String,
}

impl Tally {
    pub(crate) fn new(publisher: &Publisher, resource: &ResourceId) -> Self {
        let bucket = KvBucket::shared(publisher, COUNTERS_BUCKET);
        Tally {
            bucket,
            resource: resource.clone(),
            partitions: Mutex::default(),
            released: Mutex::default(),
            writing: tokio::sync::Mutex::new(()),
        }
    }

    fn key(&self, partition: u16) -> String {
        self.resource.counters_key(partition)
    }

    /// Takes a partition on: what its last owner wrote of triggers holds; what comes from the fold begins at 0.
    pub(crate) async fn take(&self, partition: u16) -> Result<(), KvError> {
        let entry = self.bucket.get(&self.key(partition)).await?;
        let stored = entry
            .and_then(|entry| serde_json::from_slice::<SagaCounters>(&entry.value).ok())
            .unwrap_or_default();
        let summarized_through = stored.log_sequence;
        let mut known_through = stored.log_sequence;
        let mut known_log = stored.log_incarnation.clone();
        let mut counters = SagaCounters {
            triggers: stored.triggers,
            log_resets: stored.log_resets,
            log_sequence: stored.log_sequence,
            log_incarnation: stored.log_incarnation,
            ..SagaCounters::default()
        };
        // It stays there: taking the other partitions may fail, and all are taken again then.
        let released = lock(&self.released).get(&partition).cloned();
        if let Some(released) = released {
            known_through = known_through.max(released.known_through);
            if known_log.is_empty() {
                known_log = released.known_log;
            }
            remember(&mut counters, released.counters);
        }
        self.lock().insert(
            partition,
            Entry {
                counters,
                changed: false,
                summarized_through,
                known_through,
                known_log,
            },
        );
        Ok(())
    }

    /// Counters of the fold begin at 0 again: the log is folded from its start. How far it was folded before stays, as this may be
    /// written and found by another owner before any of it is read again.
    pub(crate) fn refold(&self, partition: u16) {
        self.change(partition, |counters| {
            let triggers = std::mem::take(&mut counters.triggers);
            *counters = SagaCounters {
                triggers,
                log_resets: counters.log_resets,
                log_sequence: counters.log_sequence,
                log_incarnation: std::mem::take(&mut counters.log_incarnation),
                ..SagaCounters::default()
            };
        });
    }

    /// Whether another log was folded before, by this worker or an earlier owner.
    pub(crate) fn knows_another_log(&self, partition: u16, incarnation: &str) -> bool {
        let partitions = self.lock();
        let known = partitions.get(&partition).map(|entry| &entry.known_log);
        known.is_some_and(|known| !known.is_empty() && known != incarnation)
    }

    /// Which log is folded from now on.
    pub(crate) fn folds(&self, partition: u16, incarnation: &str) {
        if let Some(entry) = self.lock().get_mut(&partition) {
            incarnation.clone_into(&mut entry.known_log);
            // Written with what is counted of it.
            incarnation.clone_into(&mut entry.counters.log_incarnation);
        }
    }

    /// What was folded behind `end` is no longer in the log: it was set back, or is another (0).
    pub(crate) fn log_was_reset(&self, partition: u16, end: u64) {
        let mut partitions = self.lock();
        if let Some(entry) = partitions.get_mut(&partition) {
            entry.counters.log_resets += 1;
            entry.counters.log_sequence = entry.counters.log_sequence.min(end);
            entry.changed = true;
            entry.summarized_through = entry.summarized_through.min(end);
            entry.known_through = entry.known_through.min(end);
        }
    }

    pub(crate) fn release(&self, partition: u16) {
        let entry = self.lock().remove(&partition);
        if let Some(mut entry) = entry {
            entry.known_through = entry.known_through.max(entry.counters.log_sequence);
            lock(&self.released).insert(partition, entry);
        }
    }

    pub(crate) fn change(&self, partition: u16, change: impl FnOnce(&mut SagaCounters)) {
        if let Some(entry) = self.lock().get_mut(&partition) {
            change(&mut entry.counters);
            entry.changed = true;
        }
    }

    pub(crate) fn summarized_through(&self, partition: u16) -> u64 {
        self.lock()
            .get(&partition)
            .map_or(0, |entry| entry.summarized_through)
    }

    /// How far the log was folded before the partition was taken.
    pub(crate) fn known_through(&self, partition: u16) -> u64 {
        self.lock()
            .get(&partition)
            .map_or(0, |entry| entry.known_through)
    }

    pub(crate) fn read<T>(
        &self,
        partition: u16,
        read: impl FnOnce(&SagaCounters) -> T,
    ) -> Option<T> {
        self.lock()
            .get(&partition)
            .map(|entry| read(&entry.counters))
    }

    /// Instances that run or are parked in all partitions held.
    pub(crate) fn running(&self) -> u64 {
        self.lock()
            .values()
            .map(|entry| entry.counters.running)
            .sum()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u16, Entry>> {
        lock(&self.partitions)
    }

    /// Writes until shut down.
    pub(crate) async fn run(&self, engine: &Engine, shutdown: &CancellationToken) {
        while !shutdown.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(WRITE_INTERVAL) => {}
                () = shutdown.cancelled() => return,
            }
            self.flush(engine).await;
        }
    }

    /// Writes what changed. Summaries go first, so that those up to a written log position are known to be written.
    ///
    /// Nothing is written while it is unsure whether this worker is still the owner: the next owner's are newer.
    pub(crate) async fn flush(&self, engine: &Engine) {
        let _turn = self.writing.lock().await;
        if !engine.is_fresh() {
            return;
        }
        let changed: Vec<(u16, SagaCounters)> = {
            let mut partitions = self.lock();
            let changed = partitions
                .iter_mut()
                .filter(|(partition, entry)| entry.changed && engine.owns(**partition));
            changed
                .map(|(partition, entry)| {
                    entry.changed = false;
                    (*partition, entry.counters.clone())
                })
                .collect()
        };
        if changed.is_empty() {
            return;
        }
        // It may have been frozen in there.
        if !engine.summaries.flush(engine).await || !engine.is_fresh() {
            let mut partitions = self.lock();
            for (partition, _) in changed {
                if let Some(entry) = partitions.get_mut(&partition) {
                    entry.changed = true;
                }
            }
            return;
        }
        let mut pending = Vec::with_capacity(changed.len());
        for (partition, counters) in changed {
            if !engine.owns(partition) {
                // Lost meanwhile, and its summaries with it: the next owner writes both.
                continue;
            }
            let Ok(value) = serde_json::to_vec(&counters) else {
                continue;
            };
            let write = KvWrite {
                key: self.key(partition),
                value: Some(value.into()),
                ..KvWrite::default()
            };
            pending.push((partition, self.bucket.send(write).await));
        }
        for (partition, acknowledgement) in pending {
            if let Err(error) = acknowledgement.await {
                tracing::warn!(%error, partition, "counters are written again later");
                if let Some(entry) = self.lock().get_mut(&partition) {
                    entry.changed = true;
                }
            }
        }
    }
}

/// What was counted of triggers belongs to a position, so the further one holds, whoever counted.
fn remember(counters: &mut SagaCounters, released: SagaCounters) {
    counters.log_resets = counters.log_resets.max(released.log_resets);
    for (stream, known) in released.triggers {
        let Some(stored) = counters.triggers.get_mut(&stream) else {
            counters.triggers.insert(stream, known);
            continue;
        };
        if (&stored.incarnation, stored.accepted) == (&known.incarnation, known.accepted)
            && stored.position < known.position
        {
            *stored = known;
        }
    }
}

fn lock(entries: &Mutex<BTreeMap<u16, Entry>>) -> std::sync::MutexGuard<'_, BTreeMap<u16, Entry>> {
    entries.lock().unwrap_or_else(PoisonError::into_inner)
}
