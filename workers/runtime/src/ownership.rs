//! Who does the work of which partition: claims and heartbeats in the shared bucket `tidemill_owners`.
//!
//! * A partition's owner is who its claim key `<ns>.<kind>.<name>.claim.<partition>` names; the key is written at takeover only,
//!   guarded, and its revision is the owner's *epoch*.
//! * Each pod writes its heartbeat `<ns>.<kind>.<name>.pod.<pod>` every second. Partitions go to live pods by rendezvous hash.
//! * A pod is dead when others don't see its heartbeat change for 4 s of their own connected time: see [`view`].
//! * A pod that could not renew its heartbeat for 60 s gives everything up and begins anew with new epochs.
//! * Two processes of one pod name: the later wins, the earlier stands by.
//!
//! For moments two pods may both believe that they own a partition. Engines are built so that this is wasteful, never wrong.

pub mod rendezvous;
pub mod view;

use crate::WorkerContext;
use crate::backoff::Backoff;
use futures::FutureExt;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidemill_core::names::{OWNERS_BUCKET, OwnerKey, ResourceId, pod_token};
use tidemill_core::planted::{Bug, planted};
use tidemill_nats::{
    Guard, HeaderMap, KvBucket, KvEntry, KvError, KvReader, KvWrite, PublishError, Publisher,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use view::{BEAT_MS, DEAD_MS, Take, View};

/// An owner that could not renew for this long forgets what it holds. Others count on it: after as long nobody who was the owner before
/// still is, in its own eyes.
pub const RENEW_MAX: Duration = Duration::from_secs(60);
/// Heartbeats leave the bucket by themselves: pods' names are used once.
const BEAT_TTL: &str = "10m";
/// Longest wait for the good-bye to be stored.
const RELEASE_MAX: Duration = Duration::from_secs(2);
/// Longest wait for one more of the entries that are there at the start.
const LOAD_MAX: Duration = Duration::from_secs(2);
/// Entries read at once.
const BATCH: usize = 512;

/// Partitions and the epochs they are owned with.
pub type Owned = BTreeMap<u16, u64>;

/// This pod's share of the partitions, kept up to date in the background. Dropping it ends that without a good-bye, as a crash does.
#[derive(Debug)]
pub struct Ownership {
    owned: watch::Receiver<Owned>,
    confirmed: Arc<Mutex<Option<Instant>>>,
    first: First,
    release: CancellationToken,
    task: JoinHandle<()>,
}

/// Partitions that this process claimed before anybody else ever did.
type First = Arc<Mutex<BTreeSet<u16>>>;

/// A heartbeat older than this may be one of a worker that others are about to take for dead. Shorter than [`view::DEAD_MS`], so that
/// what is done while it is younger is done by the owner.
const FRESH_MAX: Duration = Duration::from_millis(3000);

/// Whether this worker is surely still the owner of what it believes to own. Cheap to clone.
///
/// A worker that was stopped for a while and goes on believes for moments what was true before. Its work is harmless, as ids and
/// expected sequences make sure; what has neither (derived figures, "nobody else can have done it") must ask here first.
#[derive(Clone, Debug)]
pub struct Standing {
    owned: watch::Receiver<Owned>,
    /// When the last heartbeat was sent that has come back through the reading, and with it every claim before it.
    confirmed: Arc<Mutex<Option<Instant>>>,
}

impl Standing {
    /// Whether a heartbeat has come back that is so young that nobody can have taken this worker for dead since.
    pub fn is_fresh(&self) -> bool {
        let confirmed = *self
            .confirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        confirmed.is_some_and(|at| at.elapsed() < FRESH_MAX)
    }

    /// Whether a partition has surely been this worker's, and nobody else's, ever since it was taken with this epoch.
    pub fn has_held(&self, partition: u16, epoch: u64) -> bool {
        // In this order: whoever comes back after a pause learns what was taken meanwhile before it is fresh again.
        self.is_fresh() && self.owned.borrow().get(&partition) == Some(&epoch)
    }

    /// Whether a partition is this worker's, as far as it knows; see [`Standing::is_fresh`].
    pub fn owns(&self, partition: u16) -> bool {
        self.owned.borrow().contains_key(&partition)
    }
}

impl Drop for Ownership {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Ownership {
    /// Starts taking part in the work of `partitions` partitions.
    pub fn start(context: &WorkerContext, publisher: &Publisher, partitions: u16) -> Self {
        Self::start_with(context, publisher, partitions, RENEW_MAX)
    }

    /// As [`Ownership::start`], with another time after which what could not be renewed is forgotten.
    pub fn start_with(
        context: &WorkerContext,
        publisher: &Publisher,
        partitions: u16,
        renew_max: Duration,
    ) -> Self {
        let (sender, owned) = watch::channel(Owned::new());
        let release = CancellationToken::new();
        let resource = context.contract.resource.clone();
        let token = pod_token(&context.pod);
        let run = context.nats.client().new_inbox();
        let member = Member {
            context: context.clone(),
            bucket: KvBucket::shared(publisher, OWNERS_BUCKET),
            beat_key: resource.heartbeat_key(&token),
            resource,
            token,
            run: run.rsplit('.').next().unwrap_or_default().to_owned(),
            partitions,
            renew_max,
            owned: sender,
            first: First::default(),
            beat_revision: 0,
            beats: Beats::default(),
            stand_by: false,
        };
        let first = Arc::clone(&member.first);
        let confirmed = Arc::clone(&member.beats.confirmed);
        let task = tokio::spawn(member.run(release.clone()));
        Ownership {
            owned,
            confirmed,
            first,
            release,
            task,
        }
    }

    /// What is owned, and its changes. Empty while nothing is.
    pub fn owned(&self) -> watch::Receiver<Owned> {
        self.owned.clone()
    }

    /// Whether this worker is surely still the owner of what it believes to own.
    pub fn standing(&self) -> Standing {
        Standing {
            owned: self.owned.clone(),
            confirmed: Arc::clone(&self.confirmed),
        }
    }

    /// Whether nobody owned this partition before this process did: then nobody else can still be doing its work.
    pub fn is_first(&self, partition: u16) -> bool {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.contains(&partition)
    }

    /// Gives everything up and says good-bye, so that others take over at once. Finish what is in flight before.
    pub async fn release(mut self) {
        self.release.cancel();
        let _ = tokio::time::timeout(RELEASE_MAX, &mut self.task).await;
    }
}

/// Value of a heartbeat and of a claim.
#[derive(Debug, Serialize, Deserialize)]
struct Value {
    pod: String,
    run: String,
}

#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Bucket(#[from] KvError),
    #[error("the heartbeat could not be renewed for {0:?}")]
    NotRenewed(Duration),
    #[error("another worker runs as pod {0}: give every worker a name of its own")]
    SameName(String),
}

struct Member {
    context: WorkerContext,
    bucket: KvBucket,
    resource: ResourceId,
    /// The pod's name as a token of keys.
    token: String,
    /// Tells this process from another one of the same pod name.
    run: String,
    beat_key: String,
    partitions: u16,
    renew_max: Duration,
    owned: watch::Sender<Owned>,
    first: First,
    beat_revision: u64,
    beats: Beats,
    /// Another process has our name: wait until it is silent.
    stand_by: bool,
}

/// Own heartbeats on their way: sent, acknowledged, read back.
#[derive(Default)]
struct Beats {
    sent_at: Option<Instant>,
    /// The last one that was acknowledged, and when it was sent.
    acknowledged: Option<(u64, Instant)>,
    read: u64,
    confirmed: Arc<Mutex<Option<Instant>>>,
}

impl Beats {
    /// Only one is under way at a time, so the last one sent is the one that is acknowledged.
    fn sent(&mut self) {
        self.sent_at = Some(Instant::now());
    }

    fn acknowledged(&mut self, revision: u64) {
        self.acknowledged = self.sent_at.map(|sent_at| (revision, sent_at));
    }

    fn read(&mut self, revision: u64) {
        self.read = revision;
    }

    /// Call it once what was read has been acted on: fresh must not be seen before what is owned.
    fn confirm(&self) {
        if let Some((revision, sent_at)) = self.acknowledged
            && self.read >= revision
        {
            *self
                .confirmed
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(sent_at);
        }
    }

    fn forget(&mut self) {
        let confirmed = Arc::clone(&self.confirmed);
        *confirmed.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self = Beats {
            confirmed,
            ..Beats::default()
        };
    }
}

impl Member {
    async fn run(mut self, release: CancellationToken) {
        let mut backoff = Backoff::default();
        loop {
            let started = Instant::now();
            let end = tokio::select! {
                end = self.live() => end,
                () = release.cancelled() => {
                    self.own(Owned::new());
                    return self.say_good_bye().await;
                }
            };
            self.own(Owned::new());
            self.beats.forget();
            self.context.health.not_ready("ownership", end.to_string());
            tracing::warn!(reason = %end, "giving up all partitions and beginning anew");
            self.stand_by = matches!(end, End::SameName(_));
            if started.elapsed() > self.renew_max {
                backoff.reset();
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next_pause()) => {}
                () = release.cancelled() => return,
            }
        }
    }

    /// One life: from the first heartbeat until something is wrong.
    async fn live(&mut self) -> End {
        match self.try_live().await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn try_live(&mut self) -> Result<std::convert::Infallible, End> {
        let clock = Instant::now();
        let at = || u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut view = View::new(&self.token);
        let mut reader = self.bucket.watch(&self.resource.key_prefix()).await?;
        let mut batch = Vec::new();
        while reader.pending() > 0 {
            // What is pending may also expire instead of coming.
            let Ok(read) =
                tokio::time::timeout(LOAD_MAX, reader.next_batch(BATCH, &mut batch)).await
            else {
                break;
            };
            read?;
            self.apply(&mut view, &mut batch, at());
        }
        if self.stand_by {
            self.wait_for_silence(&mut reader).await?;
            self.stand_by = false;
        }
        // Not guarded: an earlier process of this pod is dead, or gives way.
        self.beats.sent();
        self.beat_revision = self.bucket.write(self.beat(Guard::None)).await?;
        self.beats.acknowledged(self.beat_revision);
        view.begin(self.beat_revision);
        self.context.health.ready("ownership");

        let mut renewed = Instant::now();
        let mut renewing: Option<BoxFuture<'static, Result<u64, KvError>>> = None;
        let mut taking = FuturesUnordered::new();
        // Claims under way (`None`), and those that are stored with a revision and not read back yet: until then the view doesn't know
        // them, and a second claim would find the first in its way and take it for another's.
        let mut taken: BTreeMap<u16, Option<u64>> = BTreeMap::new();
        let mut tick = tokio::time::interval(Duration::from_millis(BEAT_MS));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                read = reader.next_batch(BATCH, &mut batch) => {
                    read?;
                    self.apply(&mut view, &mut batch, at());
                }
                _ = tick.tick() => {
                    if renewed.elapsed() > self.renew_max && !planted(Bug::NeverForgotten) {
                        return Err(End::NotRenewed(self.renew_max));
                    }
                    if renewing.is_none() {
                        self.beats.sent();
                        let write = self.beat(Guard::Revision(self.beat_revision));
                        let bucket = self.bucket.clone();
                        renewing = Some(async move { bucket.write(write).await }.boxed());
                    }
                }
                result = async { match &mut renewing { Some(renewing) => renewing.await, None => std::future::pending().await } } => {
                    renewing = None;
                    if self.renewed(result).await? {
                        renewed = Instant::now();
                    }
                }
                Some((partition, result)) = taking.next(), if !taking.is_empty() => {
                    self.explain_take(partition, &result);
                    match result {
                        Ok(revision) => taken.insert(partition, Some(revision)),
                        Err(_) => taken.remove(&partition),
                    };
                }
            }
            self.own(view.owned());
            self.beats.confirm();
            taken.retain(|partition, stored| {
                !planted(Bug::ClaimedAgain)
                    && stored.is_none_or(|revision| view.epoch(*partition) < revision)
            });
            for Take {
                partition,
                expected,
            } in view.decide(self.partitions, at())
            {
                if let Entry::Vacant(vacant) = taken.entry(partition) {
                    vacant.insert(None);
                    self.note_first(partition, expected == 0);
                    let (bucket, write) = (self.bucket.clone(), self.claim(partition, expected));
                    taking.push(async move { (partition, bucket.write(write).await) });
                }
            }
        }
    }

    fn apply(&mut self, view: &mut View, entries: &mut Vec<KvEntry>, at: u64) {
        for entry in entries.drain(..) {
            let value = || serde_json::from_slice::<Value>(&entry.value).ok();
            match self.resource.parse_owner_key(&entry.key) {
                Some(OwnerKey::Heartbeat(pod)) if entry.deleted => view.left(pod),
                // An own heartbeat is one of this process.
                Some(OwnerKey::Heartbeat(pod))
                    if pod != self.token || value().is_some_and(|value| value.run == self.run) =>
                {
                    if pod == self.token {
                        self.beats.read(entry.revision);
                    }
                    view.beat(pod, at);
                }
                Some(OwnerKey::Claim(partition)) => {
                    let pod = value().map(|value| value.pod).unwrap_or_default();
                    view.claimed(partition, &pod, entry.revision);
                }
                _ => {}
            }
        }
    }

    /// Whether the heartbeat was renewed.
    async fn renewed(&mut self, result: Result<u64, KvError>) -> Result<bool, End> {
        match result {
            Ok(revision) => {
                self.beat_revision = revision;
                self.beats.acknowledged(revision);
                Ok(true)
            }
            Err(KvError::Write {
                source: PublishError::Conflict,
                ..
            }) => {
                // Either ours, whose acknowledgement was lost, or somebody else's, or it expired.
                let Some(entry) = self.bucket.get(&self.beat_key).await? else {
                    self.beat_revision = 0;
                    return Ok(false);
                };
                let value = serde_json::from_slice::<Value>(&entry.value).ok();
                if !entry.deleted && value.is_none_or(|value| value.run != self.run) {
                    return Err(End::SameName(self.context.pod.clone()));
                }
                self.beat_revision = entry.revision;
                Ok(!entry.deleted)
            }
            // May pass; if it doesn't, the renewal is missed and everything is given up.
            Err(error) => {
                tracing::debug!(%error, "the heartbeat wasn't renewed");
                Ok(false)
            }
        }
    }

    async fn wait_for_silence(&self, reader: &mut KvReader) -> Result<(), KvError> {
        let mut batch = Vec::new();
        let mut silent_at = Instant::now() + Duration::from_millis(DEAD_MS);
        loop {
            tokio::select! {
                read = reader.next_batch(BATCH, &mut batch) => {
                    read?;
                    if batch.drain(..).any(|entry| entry.key == self.beat_key && !entry.deleted) {
                        silent_at = Instant::now() + Duration::from_millis(DEAD_MS);
                    }
                }
                () = tokio::time::sleep_until(silent_at) => return Ok(()),
            }
        }
    }

    fn explain_take(&self, partition: u16, result: &Result<u64, KvError>) {
        match result {
            Ok(_) => {}
            // Somebody was quicker: the reading tells who.
            Err(KvError::Write {
                source: PublishError::Conflict,
                ..
            }) => self.note_first(partition, false),
            Err(error) => tracing::debug!(partition, %error, "a partition couldn't be claimed"),
        }
    }

    fn note_first(&self, partition: u16, is_first: bool) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if is_first {
            first.insert(partition);
        } else {
            first.remove(&partition);
        }
    }

    fn own(&self, owned: Owned) {
        self.owned.send_if_modified(|now| {
            if *now == owned {
                return false;
            }
            let gained = owned
                .iter()
                .filter(|(partition, epoch)| now.get(partition) != Some(epoch))
                .count();
            let lost = now
                .keys()
                .filter(|partition| !owned.contains_key(partition))
                .count();
            tracing::info!(owned = owned.len(), gained, lost, "partitions");
            *now = owned;
            true
        });
    }

    async fn say_good_bye(&self) {
        let write = KvWrite {
            key: self.beat_key.clone(),
            value: None,
            headers: ttl(),
            guard: Guard::Revision(self.beat_revision),
        };
        // The guard: the heartbeat may be another process's by now. A renewal under way may be ahead of us: once more, then.
        if let Err(KvError::Write {
            source: PublishError::Conflict,
            ..
        }) = self.bucket.write(write.clone()).await
            && let Ok(Some(entry)) = self.bucket.get(&self.beat_key).await
            && serde_json::from_slice::<Value>(&entry.value)
                .is_ok_and(|value| value.run == self.run)
        {
            let guard = Guard::Revision(entry.revision);
            let _ = self.bucket.write(KvWrite { guard, ..write }).await;
        }
    }

    fn beat(&self, guard: Guard) -> KvWrite {
        KvWrite {
            key: self.beat_key.clone(),
            value: Some(self.value()),
            headers: ttl(),
            guard,
        }
    }

    fn claim(&self, partition: u16, expected: u64) -> KvWrite {
        KvWrite {
            key: self.resource.claim_key(partition),
            value: Some(self.value()),
            headers: HeaderMap::new(),
            guard: Guard::Revision(expected),
        }
    }

    fn value(&self) -> bytes::Bytes {
        let value = Value {
            pod: self.token.clone(),
            run: self.run.clone(),
        };
        // Two strings always serialise.
        serde_json::to_vec(&value).unwrap_or_default().into()
    }
}

fn ttl() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-TTL", BEAT_TTL);
    headers
}
