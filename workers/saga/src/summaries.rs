//! Summaries per instance, written behind into KV for lists. Derived: they may lag and can be rebuilt.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tidemill_core::names::{ResourceId, SUMMARIES_BUCKET, encode_token};
use tidemill_core::status::InstanceSummary;
use tidemill_nats::{KvBucket, KvWrite, Publisher};
use tokio_util::sync::CancellationToken;

/// How long a change may wait, so that an instance which is quickly done costs one write.
const WRITE_INTERVAL: Duration = Duration::from_millis(250);
/// Summaries waiting to be written; with more, writing no longer waits for the interval.
const WAITING_MAX: usize = 20_000;

pub(crate) struct Summaries {
    bucket: KvBucket,
    prefix: String,
    waiting: Mutex<HashMap<String, InstanceSummary>>,
    /// One flush at a time: of two, the older could write last.
    flushing: tokio::sync::Mutex<()>,
    full: tokio::sync::Notify,
}

impl Summaries {
    pub(crate) fn new(publisher: &Publisher, resource: &ResourceId) -> Self {
        Summaries {
            bucket: KvBucket::new(publisher, SUMMARIES_BUCKET),
            prefix: resource.key_prefix(),
            waiting: Mutex::default(),
            flushing: tokio::sync::Mutex::default(),
            full: tokio::sync::Notify::new(),
        }
    }

    pub(crate) fn put(&self, summary: InstanceSummary) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(summary.id.clone(), summary);
        if waiting.len() >= WAITING_MAX {
            self.full.notify_one();
        }
    }

    /// Writes until shut down, and once more then.
    pub(crate) async fn run(&self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(WRITE_INTERVAL) => {}
                () = self.full.notified() => {}
                () = shutdown.cancelled() => {}
            }
            self.flush().await;
        }
    }

    pub(crate) async fn flush(&self) {
        let _flushing = self.flushing.lock().await;
        let waiting =
            std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let mut pending = Vec::with_capacity(waiting.len());
        for (id, summary) in waiting {
            let (Ok(token), Ok(value)) = (encode_token(&id), serde_json::to_vec(&summary)) else {
                continue;
            };
            let write = KvWrite {
                key: format!("{}.{token}", self.prefix),
                value: Some(value.into()),
                ..KvWrite::default()
            };
            pending.push((summary, self.bucket.send(write).await));
        }
        for (summary, acknowledgement) in pending {
            if let Err(error) = acknowledgement.await {
                tracing::warn!(%error, instance = %summary.id, "a summary is written again later");
                if error.may_pass() {
                    let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                    // A newer one, put in the meantime, stays.
                    waiting.entry(summary.id.clone()).or_insert(summary);
                }
            }
        }
    }
}
