//! Writing how far each partition is.

use super::{Session, Written, finished};
use crate::error::SessionError;
use tidemill_core::projection::Checkpoint;
use tidemill_nats::kv::{Guard, KvWrite};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// A checkpoint of a partition without any event of its own is written when it is so many events behind: reading them again takes a second.
const CHECKPOINT_BEHIND_MAX: u64 = 50_000;

impl Session {
    /// Writes every checkpoint that has moved, and waits for it.
    pub(super) async fn checkpoint_now(&mut self) -> Result<(), SessionError> {
        if self.checkpointing.is_some() {
            let written = finished(&mut self.checkpointing).await?;
            self.wrote(written)?;
        }
        self.begin_checkpoint(true);
        if self.checkpointing.is_some() {
            let written = finished(&mut self.checkpointing).await?;
            self.wrote(written)?;
        }
        Ok(())
    }

    /// Begins to write checkpoints. None may be in flight.
    pub(super) fn begin_checkpoint(&mut self, all: bool) {
        let due = self.progress.to_write(all, CHECKPOINT_BEHIND_MAX);
        self.checkpointed_at = Instant::now();
        if due.is_empty() {
            return;
        }
        let rows = self.store.rows.clone();
        let writes: Vec<(u16, Checkpoint, KvWrite)> = due
            .into_iter()
            .map(|(partition, revision, checkpoint)| {
                let write = KvWrite {
                    key: self.space.checkpoint_key(partition),
                    value: Some(checkpoint.to_json(&self.sources).into()),
                    guard: Guard::Revision(revision),
                    ..KvWrite::default()
                };
                (partition, checkpoint, write)
            })
            .collect();
        self.checkpointing = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let mut sent = Vec::with_capacity(writes.len());
            for (partition, checkpoint, write) in writes {
                let key = write.key.clone();
                sent.push((partition, checkpoint, key, rows.send(write).await));
            }
            let mut written = Vec::with_capacity(sent.len());
            for (partition, checkpoint, key, ack) in sent {
                let acked = ack
                    .await
                    .map_err(|source| SessionError::Row { key, source })?;
                written.push((partition, acked.sequence, checkpoint));
            }
            Ok(written)
        })));
    }

    pub(super) fn wrote(
        &mut self,
        written: Result<Written, SessionError>,
    ) -> Result<(), SessionError> {
        for (partition, revision, checkpoint) in written? {
            self.progress.wrote(partition, revision, checkpoint);
        }
        Ok(())
    }
}
