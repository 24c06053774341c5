//! What the controllers are told besides what the API server tells them: streams that changed, and whose figures may be written.

use crate::pace::{self, Key, Pace};
use crate::status::Reports;
use crate::survey::{self, Difference, Sightings};
use futures::{Stream, StreamExt};
use std::time::{Duration, Instant};
use tidemill_core::names::{COUNTERS_BUCKET, Kind, parse_counters_key};
use tidemill_crds::projection::Projection;
use tidemill_crds::saga::Saga;
use tidemill_nats::{KvBucket, KvError, Nats, Publisher, STREAM_ADVISORIES};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Messages kept for a controller that is behind. What is dropped is found by the next look.
const BUFFERED: usize = 4096;
/// Counters read at a time.
const BATCH: usize = 512;
/// Wait before the counters are watched again that couldn't be.
const RETRY: Duration = Duration::from_secs(5);

/// The feed. Cheap to clone.
#[derive(Clone)]
pub(super) struct Feed {
    streams: broadcast::Sender<(String, Difference)>,
    turns: broadcast::Sender<Key>,
    pace: Pace,
}

impl Feed {
    pub(super) fn new(pace: Pace) -> Feed {
        Feed {
            streams: broadcast::Sender::new(BUFFERED),
            turns: broadcast::Sender::new(BUFFERED),
            pace,
        }
    }

    /// Streams that changed, by name.
    pub(super) fn streams(&self) -> impl Stream<Item = (String, Difference)> + Send + 'static {
        received(self.streams.subscribe())
    }

    /// Objects of one kind whose figures may be written now.
    pub(super) fn turns<R: Reports>(&self) -> impl Stream<Item = Key> + Send + 'static {
        let mine = |key: &Key| futures::future::ready(key.kind == R::KIND);
        received(self.turns.subscribe()).filter(mine)
    }

    /// Feeds until `stop`.
    pub(super) async fn run(self, nats: Nats, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            ((), (), (), ()) = async {
                tokio::join!(
                    self.give_turns(),
                    self.survey(&nats),
                    self.listen(&nats),
                    self.watch_counters(&nats),
                )
            } => {}
        }
    }

    async fn give_turns(&self) {
        let mut tick = every(pace::BETWEEN);
        loop {
            tick.tick().await;
            if let Some(key) = self.pace.next(Instant::now()) {
                // Nobody listens only while the controllers end.
                let _ = self.turns.send(key);
            }
        }
    }

    async fn survey(&self, nats: &Nats) {
        let mut tick = every(survey::INTERVAL);
        let mut before: Option<Sightings> = None;
        loop {
            tick.tick().await;
            let now = match survey::survey(nats).await {
                Ok(now) => now,
                Err(error) => {
                    tracing::debug!(%error, "the streams can't be listed");
                    continue;
                }
            };
            // Every resource is looked at when the operator starts: what was before needn't be told.
            let differences = before.map(|before| before.differences(&now));
            for difference in differences.into_iter().flatten() {
                let _ = self.streams.send(difference);
            }
            before = Some(now);
        }
    }

    /// Servers tell when a stream is made, changed or deleted, whoever did it.
    async fn listen(&self, nats: &Nats) {
        match nats.client().subscribe(STREAM_ADVISORIES).await {
            Ok(mut messages) => {
                while let Some(message) = messages.next().await {
                    if let Some(name) = message.subject.rsplit('.').next() {
                        let told = (name.to_owned(), Difference::Settings);
                        let _ = self.streams.send(told);
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the server's advisories can't be had: changes are seen when all streams are listed");
            }
        }
        std::future::pending().await
    }

    /// Workers write what they counted when it has changed.
    async fn watch_counters(&self, nats: &Nats) {
        loop {
            if let Err(error) = self.follow_counters(nats).await {
                // The bucket is made with the first Projection or Saga.
                tracing::debug!(%error, "the workers' counters can't be followed");
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn follow_counters(&self, nats: &Nats) -> Result<(), KvError> {
        let bucket = KvBucket::new(&Publisher::new(nats, 1), COUNTERS_BUCKET);
        let mut counters = bucket.watch("").await?;
        let mut batch = Vec::new();
        loop {
            counters.next_batch(BATCH, &mut batch).await?;
            for entry in batch.drain(..) {
                let Some((resource, _)) = parse_counters_key(&entry.key) else {
                    continue;
                };
                self.pace.want(Key {
                    kind: match resource.kind {
                        Kind::Projection => Projection::KIND,
                        Kind::Saga => Saga::KIND,
                    },
                    namespace: resource.namespace,
                    name: resource.name,
                });
            }
        }
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut tick = tokio::time::interval(period);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

fn received<T: Clone + Send + 'static>(
    receiver: broadcast::Receiver<T>,
) -> impl Stream<Item = T> + Send + 'static {
    futures::stream::unfold(receiver, |mut receiver| async {
        loop {
            match receiver.recv().await {
                Ok(told) => return Some((told, receiver)),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    })
}
