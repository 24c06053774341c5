//! Summaries per instance, written behind into KV for lists. Derived: they may lag and can be rebuilt.

use crate::engine::Engine;
use crate::metrics::SagaMetrics;
use prometheus_client::metrics::counter::Counter;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tidemill_core::contract::SagaWorkload;
use tidemill_core::names::{LogKind, ResourceId, SUMMARIES_BUCKET, encode_token, partition};
use tidemill_core::planted::{Bug, planted};
use tidemill_core::status::InstanceSummary;
use tidemill_nats::{Guard, KvBucket, KvWrite, PublishError, Publisher};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How long a change may wait, so that an instance which is quickly done costs one write.
const WRITE_INTERVAL: Duration = Duration::from_millis(250);
/// Summaries waiting to be written; with more, writing no longer waits for the interval, and folding waits for it.
const WAITING_MAX: usize = 20_000;
/// Tries in one flush: what an earlier owner wrote is found out in the first.
const ROUNDS: usize = 3;
/// Revisions remembered; beyond, all are read again as they are needed.
const KNOWN_MAX: usize = 100_000;
/// Longest wait of the fold for room: summaries are derived, so they may not stop the work for ever.
const ROOM_MAX: Duration = Duration::from_secs(5);

pub(crate) struct Summaries {
    /// Whether any are written.
    wanted: bool,
    bucket: KvBucket,
    resource: ResourceId,
    partitions: u16,
    waiting: Mutex<HashMap<String, InstanceSummary>>,
    /// Revisions of what this worker wrote of instances that go on. Each write is guarded by the one before, so that what a frozen
    /// worker had sent can't replace what its successor says. Unknown: taken as not there, and read when that is wrong.
    revisions: Mutex<HashMap<String, u64>>,
    full: Notify,
    written: Notify,
    /// One writing at a time, else an older summary could overtake a newer one.
    writing: tokio::sync::Mutex<()>,
    dropped: Counter,
}

/// What became of summaries that weren't simply stored.
#[derive(Default)]
struct Written {
    /// Somebody else wrote of the instance before; they wait again.
    overtaken: usize,
    /// Of partitions that are another's by now.
    lost: usize,
    failed: Vec<(InstanceSummary, PublishError)>,
}

impl Summaries {
    pub(crate) fn new(
        publisher: &Publisher,
        resource: &ResourceId,
        workload: &SagaWorkload,
        metrics: &SagaMetrics,
    ) -> Self {
        Summaries {
            wanted: workload.summaries,
            bucket: KvBucket::shared(publisher, SUMMARIES_BUCKET),
            resource: resource.clone(),
            partitions: workload.partitions,
            waiting: Mutex::default(),
            revisions: Mutex::default(),
            full: Notify::new(),
            written: Notify::new(),
            writing: tokio::sync::Mutex::new(()),
            dropped: metrics.summaries_dropped.clone(),
        }
    }

    pub(crate) fn put(&self, summary: InstanceSummary) {
        if !self.wanted {
            return;
        }
        let mut waiting = self.lock();
        if planted(Bug::OlderSummaryStays) && waiting.contains_key(&summary.id) {
            return;
        }
        waiting.insert(summary.id.clone(), summary);
        if waiting.len() == WAITING_MAX {
            self.full.notify_one();
        }
    }

    /// Waits while more summaries wait than should.
    pub(crate) async fn room(&self) {
        if self.lock().len() < WAITING_MAX {
            return;
        }
        let written = self.written.notified();
        tokio::pin!(written);
        // From here on no writing is missed.
        written.as_mut().enable();
        self.full.notify_one();
        let _ = tokio::time::timeout(ROOM_MAX, written).await;
    }

    /// Writes until shut down.
    pub(crate) async fn run(&self, engine: &Engine, shutdown: &CancellationToken) {
        while !shutdown.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(WRITE_INTERVAL) => {}
                () = self.full.notified() => {}
                () = shutdown.cancelled() => return,
            }
            self.flush(engine).await;
        }
    }

    /// Writes what waits; false if not all of it was, since it failed or its partition is lost. Then no counters may say that
    /// summaries are written as far as they count: the next owner goes by that.
    ///
    /// Nothing is written while it is unsure whether this worker is still the owner: the next owner may have newer ones.
    pub(crate) async fn flush(&self, engine: &Engine) -> bool {
        let _turn = self.writing.lock().await;
        for _ in 0..ROUNDS {
            if !engine.is_fresh() {
                return self.lock().is_empty();
            }
            let Written {
                overtaken,
                lost,
                failed,
            } = self.write(engine).await;
            self.written.notify_waiters();
            if !self.again(failed) || lost > 0 {
                return false;
            }
            if overtaken == 0 {
                return true;
            }
        }
        false
    }

    /// Writes what waits once.
    async fn write(&self, engine: &Engine) -> Written {
        let mut written = Written::default();
        let waiting = std::mem::take(&mut *self.lock());
        let mut pending = Vec::with_capacity(waiting.len());
        for (id, summary) in waiting {
            let (Ok(token), Ok(value)) = (encode_token(&id), serde_json::to_vec(&summary)) else {
                continue;
            };
            if !engine.owns(partition(&token, self.partitions)) {
                written.lost += 1;
                continue;
            }
            let known = self.known().get(&id).copied();
            let key = self.resource.summary_key(&token);
            let write = KvWrite {
                key: key.clone(),
                value: Some(value.into()),
                guard: Guard::Revision(known.unwrap_or(0)),
                ..KvWrite::default()
            };
            pending.push((key, summary, self.bucket.send(write).await));
        }
        for (key, summary, acknowledgement) in pending {
            match acknowledgement.await {
                Ok(acked) => self.remember(&summary, acked.sequence),
                Err(PublishError::Conflict) => {
                    written.overtaken += 1;
                    self.overtake(&key, summary).await;
                }
                Err(error) => written.failed.push((summary, error)),
            }
        }
        written
    }

    /// Lets go of what waits to be said of lost partitions. It would be written when they are taken again, over what their
    /// owner in between said.
    pub(crate) fn leave(&self, partitions: &BTreeSet<u16>) {
        let is_of = |id: &String| {
            encode_token(id)
                .is_ok_and(|token| partitions.contains(&partition(&token, self.partitions)))
        };
        self.lock().retain(|id, _| !is_of(id));
        self.known().retain(|id, _| !is_of(id));
    }

    /// Deletes what lists say of instances that a log which was set back to `end` no longer knows.
    pub(crate) async fn forget_unknown(&self, engine: &Engine, partitions: &[u16], end: u64) {
        let entries = match self.bucket.entries(&self.resource.key_prefix()).await {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(%error, "lists may still show instances that the log no longer knows");
                return;
            }
        };
        let mut forgotten = 0_u64;
        for entry in entries.into_values().filter(|entry| !entry.deleted) {
            let Ok(summary) = serde_json::from_slice::<InstanceSummary>(&entry.value) else {
                continue;
            };
            let of = encode_token(&summary.id).map(|token| partition(&token, self.partitions));
            if summary.log_sequence <= end || !of.is_ok_and(|of| partitions.contains(&of)) {
                continue;
            }
            let Some(start) = engine.log_subject(&summary.id, LogKind::Started) else {
                continue;
            };
            let log = &engine.workload.log_stream;
            if let Ok(None) = engine.nats.last_at_leader(log, &start).await {
                let write = KvWrite {
                    key: entry.key,
                    // An instance that was started anew meanwhile has a newer entry.
                    guard: Guard::Revision(entry.revision),
                    ..KvWrite::default()
                };
                forgotten += u64::from(self.bucket.write(write).await.is_ok());
            }
        }
        tracing::warn!(
            forgotten,
            "instances that the log no longer knows left the lists"
        );
    }

    fn again(&self, failed: Vec<(InstanceSummary, PublishError)>) -> bool {
        let Some((_, error)) = failed.first() else {
            return true;
        };
        tracing::warn!(%error, summaries = failed.len(), "summaries can't be written");
        let mut waiting = self.lock();
        for (summary, error) in failed {
            if !error.may_pass() || waiting.len() >= WAITING_MAX {
                self.dropped.inc();
                continue;
            }
            // A newer one, put in the meantime, stays.
            waiting.entry(summary.id.clone()).or_insert(summary);
        }
        false
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, u64>> {
        self.revisions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, summary: &InstanceSummary, revision: u64) {
        let mut known = self.known();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        if summary.state.is_finished() {
            known.remove(&summary.id);
        } else {
            known.insert(summary.id.clone(), revision);
        }
    }

    /// Somebody else wrote of this instance, an earlier owner most likely. It is written again if this worker is still the owner.
    async fn overtake(&self, key: &str, summary: InstanceSummary) {
        match self.bucket.get(key).await {
            Ok(entry) => {
                let revision = entry.map_or(0, |entry| entry.revision);
                self.known().insert(summary.id.clone(), revision);
            }
            Err(error) => {
                tracing::debug!(%error, instance = summary.id, "a summary can't be read; it is tried again");
            }
        }
        let mut waiting = self.lock();
        waiting.entry(summary.id.clone()).or_insert(summary);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, InstanceSummary>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
