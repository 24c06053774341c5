//! Which shard has which partition, and how the rest of the worker reaches it.

use crate::engine::Engine;
use crate::shard::{ASKED_MAX, Ask, Ended, Folded, LOG, Shard};
use futures::future::try_join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tidemill_worker_runtime::ownership::{Owned, Ownership};
use tokio::sync::{RwLock, mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Longest wait for a shard's end: it may be held up by a connection that isn't there.
const END_MAX: Duration = Duration::from_secs(3);
/// Pause before a log that could not be read is read again.
const PAUSE: Duration = Duration::from_secs(1);

/// The partitions this worker has.
#[derive(Default)]
pub(crate) struct Partitions {
    asks: RwLock<BTreeMap<u16, mpsc::Sender<Ask>>>,
}

/// Partitions that were taken together. Losing one of them ends the shard; those that stay are taken again.
struct Group {
    /// With the epochs they were taken with: one that was another's in between is taken anew.
    partitions: Owned,
    /// Also when it is dropped: no shard outlives its group.
    stop: DropGuard,
    task: tokio::task::JoinHandle<()>,
    caught_up: watch::Receiver<bool>,
}

impl Partitions {
    /// Asks the shard of a partition. False if this worker doesn't have it.
    pub(crate) async fn ask(&self, partition: u16, ask: Ask) -> bool {
        let sender = self.asks.read().await.get(&partition).cloned();
        match sender {
            Some(sender) => sender.send(ask).await.is_ok(),
            None => false,
        }
    }

    pub(crate) async fn has(&self, partition: u16) -> bool {
        self.asks.read().await.contains_key(&partition)
    }
}

/// Follows ownership: starts shards for what is taken, stops those that lost something.
pub(crate) struct Groups {
    engine: Arc<Engine>,
    partitions: Arc<Partitions>,
    groups: Vec<Group>,
}

impl Groups {
    pub(crate) fn new(engine: &Arc<Engine>, partitions: &Arc<Partitions>) -> Self {
        Groups {
            engine: Arc::clone(engine),
            partitions: Arc::clone(partitions),
            groups: Vec::new(),
        }
    }

    /// Makes the shards those of what is owned now.
    pub(crate) async fn follow(
        &mut self,
        owned: &Owned,
        ownership: &Ownership,
    ) -> Result<(), tidemill_nats::KvError> {
        let (kept, ended): (Vec<Group>, Vec<Group>) = std::mem::take(&mut self.groups)
            .into_iter()
            .partition(|group| {
                group
                    .partitions
                    .iter()
                    .all(|(partition, epoch)| owned.get(partition) == Some(epoch))
            });
        self.groups = kept;
        for group in ended {
            self.end(group).await;
        }
        let held: BTreeSet<u16> = self
            .groups
            .iter()
            .flat_map(|group| group.partitions.keys().copied())
            .collect();
        let partitions: Owned = owned
            .iter()
            .filter(|(partition, _)| !held.contains(partition))
            .map(|(partition, epoch)| (*partition, *epoch))
            .collect();
        let taken: Vec<u16> = partitions.keys().copied().collect();
        if taken.is_empty() {
            return Ok(());
        }
        let tally = &self.engine.tally;
        try_join_all(taken.iter().map(|partition| tally.take(*partition))).await?;
        let first_owner = taken.iter().all(|partition| ownership.is_first(*partition));
        let (asks, receiver) = mpsc::channel(ASKED_MAX);
        {
            let mut senders = self.partitions.asks.write().await;
            for partition in &taken {
                senders.insert(*partition, asks.clone());
            }
        }
        let stop = CancellationToken::new();
        let (caught_up_tx, caught_up) = watch::channel(false);
        let task = tokio::spawn(keep_running(
            Arc::clone(&self.engine),
            partitions.clone(),
            first_owner,
            receiver,
            caught_up_tx,
            stop.clone(),
        ));
        self.groups.push(Group {
            partitions,
            stop: stop.drop_guard(),
            task,
            caught_up,
        });
        Ok(())
    }

    /// Waits until every shard has folded its log.
    pub(crate) async fn caught_up(&mut self) {
        for group in &mut self.groups {
            // A shard that ended is no longer waited for.
            let _ = group.caught_up.wait_for(|caught_up| *caught_up).await;
        }
    }

    /// Ends every shard.
    pub(crate) async fn end_all(&mut self) {
        for group in std::mem::take(&mut self.groups) {
            self.end(group).await;
        }
    }

    async fn end(&self, group: Group) {
        let Group {
            partitions,
            stop,
            mut task,
            ..
        } = group;
        {
            let mut senders = self.partitions.asks.write().await;
            for partition in partitions.keys() {
                senders.remove(partition);
            }
        }
        drop(stop);
        match tokio::time::timeout(END_MAX, &mut task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "a shard ended badly"),
            Err(_) => task.abort(),
        }
        // Of what is still owned (when shutting down); what is lost, its new owner counts.
        let engine = &self.engine;
        let flush = async {
            engine.tally.flush(engine).await;
            engine.summaries.flush(engine).await;
        };
        if tokio::time::timeout(END_MAX, flush).await.is_err() {
            tracing::warn!("the last counters can't be written: the next owner counts again");
        }
        engine
            .summaries
            .leave(&partitions.keys().copied().collect());
        for partition in partitions.keys() {
            engine.tally.release(*partition);
        }
    }
}

/// Runs a shard, and again from the log's start if the log was set back or could not be read.
async fn keep_running(
    engine: Arc<Engine>,
    taken: Owned,
    first_owner: bool,
    mut asks: mpsc::Receiver<Ask>,
    caught_up: watch::Sender<bool>,
    stop: CancellationToken,
) {
    // Only the first fold can be the first owner's: later ones don't know what the earlier sent.
    let mut first_owner = first_owner;
    let mut folded: Option<Folded> = None;
    loop {
        let shard = Shard::new(
            &engine,
            taken.clone(),
            first_owner,
            caught_up.clone(),
            &stop,
        );
        let ended = shard.run(&mut asks, &mut folded).await;
        caught_up.send_replace(false);
        first_owner = false;
        let pause = match ended {
            Ended::Told => return,
            Ended::Refold => Duration::ZERO,
            Ended::LogReset(reason) => {
                let health = &engine.health;
                health.not_ready(LOG, format!("LogReset: {reason}; it is folded again"));
                PAUSE
            }
            Ended::Unreadable(error) => {
                engine.health.not_ready(LOG, error.to_string());
                PAUSE
            }
        };
        for partition in taken.keys() {
            engine.tally.refold(*partition);
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}
