//! Which shard has which partition, and how the rest of the worker reaches it.

use crate::engine::Engine;
use crate::shard::{ASKED_MAX, Ask, Ended, Shard};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tidemill_worker_runtime::Health;
use tidemill_worker_runtime::ownership::{Owned, Ownership};
use tokio::sync::{RwLock, mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Pause before a log that could not be read is read again.
const PAUSE: Duration = Duration::from_secs(1);

/// The partitions this worker has.
#[derive(Default)]
pub(crate) struct Partitions {
    asks: RwLock<BTreeMap<u16, mpsc::Sender<Ask>>>,
}

/// Partitions that were taken together. Losing one of them ends the shard; those that stay are taken again.
struct Group {
    partitions: Vec<u16>,
    stop: CancellationToken,
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
    health: Health,
    groups: Vec<Group>,
}

impl Groups {
    pub(crate) fn new(engine: &Arc<Engine>, partitions: &Arc<Partitions>, health: &Health) -> Self {
        Groups {
            engine: Arc::clone(engine),
            partitions: Arc::clone(partitions),
            health: health.clone(),
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
                    .all(|partition| owned.contains_key(partition))
            });
        self.groups = kept;
        for group in ended {
            self.end(group).await;
        }
        let held: BTreeSet<u16> = self
            .groups
            .iter()
            .flat_map(|group| group.partitions.iter().copied())
            .collect();
        let taken: Vec<u16> = owned
            .keys()
            .copied()
            .filter(|partition| !held.contains(partition))
            .collect();
        if taken.is_empty() {
            return Ok(());
        }
        for partition in &taken {
            self.engine.tally.take(*partition).await?;
        }
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
            taken.clone(),
            first_owner,
            receiver,
            (caught_up_tx, self.health.clone()),
            stop.clone(),
        ));
        self.groups.push(Group {
            partitions: taken,
            stop,
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
        {
            let mut senders = self.partitions.asks.write().await;
            for partition in &group.partitions {
                senders.remove(partition);
            }
        }
        group.stop.cancel();
        if let Err(error) = group.task.await {
            tracing::error!(%error, "a shard ended badly");
        }
        self.engine.tally.flush(&self.engine.summaries).await;
        for partition in &group.partitions {
            self.engine.tally.release(*partition);
        }
    }
}

/// Runs a shard, and again from the log's start if the log was set back or could not be read.
async fn keep_running(
    engine: Arc<Engine>,
    taken: Vec<u16>,
    first_owner: bool,
    mut asks: mpsc::Receiver<Ask>,
    (caught_up, health): (watch::Sender<bool>, Health),
    stop: CancellationToken,
) {
    // Only the first fold can be the first owner's: later ones don't know what the earlier sent.
    let mut first_owner = first_owner;
    loop {
        let shard = Shard::new(&engine, taken.clone(), first_owner, caught_up.clone());
        let ended = shard.run(&mut asks, stop.clone()).await;
        caught_up.send_replace(false);
        first_owner = false;
        match &ended {
            Ended::Told => return,
            Ended::LogReset => {
                health.not_ready("log", "LogReset: the log was set back and is folded again")
            }
            Ended::Unreadable(error) => {
                tracing::error!(%error, "the log can't be read; trying again");
                health.not_ready("log", error.to_string());
            }
        }
        for partition in &taken {
            engine
                .tally
                .refold(*partition, matches!(ended, Ended::LogReset));
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stop.cancelled() => return,
        }
        health.ready("log");
    }
}
