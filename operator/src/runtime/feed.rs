//! What the controllers are told besides what the API server tells them: streams that changed, and whose figures may be written.

use crate::pace::{self, Key, Pace};
use crate::status::Reports;
use crate::survey::{self, Difference, Sightings};
use futures::{Stream, StreamExt};
use std::time::{Duration, Instant};
use tidemill_core::names::{COUNTERS_BUCKET, Kind, parse_counters_key};
use tidemill_crds::projection::Projection;
use tidemill_crds::saga::Saga;
use tidemill_nats::{ConnectionStatus, KvBucket, KvError, Nats, Publisher, STREAM_ADVISORIES};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Messages kept for a controller that is behind. What is dropped is found by the next look.
const BUFFERED: usize = 4096;
/// Counters read at a time.
const BATCH: usize = 512;
/// Wait before the counters are watched again that couldn't be.
const RETRY: Duration = Duration::from_secs(5);

/// How long NATS is away before every resource says so: a server that is restarted needn't be told of in a thousand statuses.
const AWAY: Duration = Duration::from_secs(10);

/// What is told of NATS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// A stream, by name, is different.
    Stream(String, Difference),
    /// NATS went away, or came back.
    Everything,
}

/// The feed. Cheap to clone.
#[derive(Clone)]
pub(super) struct Feed {
    news: broadcast::Sender<News>,
    turns: broadcast::Sender<Key>,
    pace: Pace,
}

impl Feed {
    pub(super) fn new(pace: Pace) -> Feed {
        Feed {
            news: broadcast::Sender::new(BUFFERED),
            turns: broadcast::Sender::new(BUFFERED),
            pace,
        }
    }

    /// What happens in NATS.
    pub(super) fn news(&self) -> impl Stream<Item = News> + Send + 'static {
        received(self.news.subscribe())
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
            ((), (), (), (), ()) = async {
                tokio::join!(
                    self.give_turns(),
                    self.survey(&nats),
                    self.listen(&nats),
                    self.watch_counters(&nats),
                    self.watch_connection(&nats),
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
            for (stream, difference) in differences.into_iter().flatten() {
                let _ = self.news.send(News::Stream(stream, difference));
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
                        let told = News::Stream(name.to_owned(), Difference::Settings);
                        let _ = self.news.send(told);
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the server's advisories can't be had: changes are seen when all streams are listed");
            }
        }
        std::future::pending().await
    }

    /// Every resource says that NATS is away, once it is for a while. When it is back all are looked at, however short it was: a
    /// server may come back with an earlier copy of its store.
    async fn watch_connection(&self, nats: &Nats) {
        let mut status = nats.status();
        let mut known = status.borrow().reconnects;
        loop {
            // Also when it was away and is back before anybody looked.
            let broke = |status: &ConnectionStatus| !status.connected || status.reconnects != known;
            if status.wait_for(broke).await.is_err() {
                // The connection lives as long as this program.
                break;
            }
            let back = status.wait_for(|status| status.connected);
            let is_back = tokio::time::timeout(AWAY, back).await.is_ok();
            if !is_back {
                let _ = self.news.send(News::Everything);
                let _ = status.wait_for(|status| status.connected).await;
            }
            let _ = self.news.send(News::Everything);
            known = status.borrow().reconnects;
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
