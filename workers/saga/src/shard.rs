//! A shard: the partitions that were taken together, their instances, and the loop that folds their log.
//!
//! Order: read a message, fold it, and only then run its effects; what they give comes back through the log. While the
//! log is caught up with, effects are dropped: what is in flight is asked of the states at the end.

mod asks;

use crate::describe;
use crate::effects::Of;
use crate::engine::{Claim, Engine};
use crate::live::{Live, Timers};
use crate::revisions::RevisionError;
use futures::FutureExt;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::contract::Closing;
use tidemill_core::control::Described;
use tidemill_core::definition::{Replies, Revision};
use tidemill_core::names::{LogKind, LogSubject, Side};
use tidemill_core::planted::{Bug, planted};
use tidemill_core::saga::{Effect, Input, Instance, Note, Started, decode_input};
use tidemill_core::status::{InstanceState, InstanceSummary};
use tidemill_nats::{HeaderMap, ReadError, ReadFrom, Reader, StoredMessage, StreamState};
use tidemill_worker_runtime::ownership::{Owned, RENEW_MAX};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use asks::{Answer, Ask};

/// Condition of readiness: the log is folded.
pub(crate) const LOG: &str = "log";
/// Condition of readiness: every instance's definition is there.
const DEFINITIONS: &str = "definitions";
/// Messages folded before timers and requests are looked at again.
const BATCH_MAX: usize = 512;
/// How long a stalled owner may hold what it read; older owners have forgotten everything.
const FORGET_AFTER: Duration = RENEW_MAX;
/// Requests waiting for a shard.
pub(crate) const ASKED_MAX: usize = 1024;
/// Requests answered between two batches.
const ASKED_AT_ONCE: usize = 64;
/// How often it is looked whether the definition of an instance that can't be run has turned up.
const REVISION_LOOK: Duration = Duration::from_secs(10);

/// Why a shard ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It was told to.
    Told,
    /// The log was set back or replaced: it is to be folded again from what is there.
    LogReset(String),
    /// A definition that was missing has turned up: the instances it is of are to be folded.
    Refold,
    /// The log can't be read.
    Unreadable(ReadError),
}

/// How far the log was folded, and of which life of the stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Folded {
    incarnation: String,
    sequence: u64,
    /// It was set back while it was read.
    lost: bool,
}

pub(crate) struct Shard {
    engine: Arc<Engine>,
    /// With their epochs.
    partitions: Owned,
    /// Partitions of which nobody else ever was the owner.
    first_owner: bool,
    taken_at: Instant,
    live: HashMap<String, Live>,
    timers: Timers,
    caught_up: watch::Sender<bool>,
    awaiting: HashMap<String, Vec<Answer<Described>>>,
    /// The log's end when reading began.
    fold_until: u64,
    folded: Folded,
    /// The log was found set back to here, or another (0): what lists say of instances that it no longer knows is wrong.
    reset_to: Option<u64>,
    /// Instances whose definition isn't there, by its revision.
    unrunnable: HashMap<String, Revision>,
    revisions_looked_at: Instant,
    stop: CancellationToken,
}

impl Shard {
    pub(crate) fn new(
        engine: &Arc<Engine>,
        partitions: Owned,
        first_owner: bool,
        caught_up: watch::Sender<bool>,
        stop: &CancellationToken,
    ) -> Self {
        Shard {
            engine: Arc::clone(engine),
            partitions,
            first_owner,
            taken_at: Instant::now(),
            live: HashMap::new(),
            timers: Timers::default(),
            caught_up,
            awaiting: HashMap::new(),
            fold_until: 0,
            folded: Folded::default(),
            reset_to: None,
            unrunnable: HashMap::new(),
            revisions_looked_at: Instant::now(),
            stop: stop.clone(),
        }
    }

    fn filters(&self) -> Vec<String> {
        let prefix = &self.engine.log_prefix;
        if self.partitions.len() == usize::from(self.engine.workload.partitions) {
            return vec![format!("{prefix}.>")];
        }
        self.partitions
            .keys()
            .map(|partition| format!("{prefix}.{partition}.>"))
            .collect()
    }

    /// Folds the log and runs what follows from it until told to stop. `before`: how far an earlier shard got, from now
    /// on how far this one does.
    pub(crate) async fn run(
        mut self,
        asks: &mut mpsc::Receiver<Ask>,
        before: &mut Option<Folded>,
    ) -> Ended {
        let stop = self.stop.clone();
        let stream = self.engine.workload.log_stream.clone();
        let opened = tokio::select! {
            opened = Reader::open(&self.engine.nats, &stream, self.filters(), ReadFrom::First) => opened,
            () = stop.cancelled() => return Ended::Told,
        };
        let mut reader = match opened {
            Ok(reader) => reader,
            Err(error) => return Ended::Unreadable(error),
        };
        self.begin_fold(reader.state(), before.as_ref());
        if reader.pending() == 0 {
            self.begin_work().await;
        }
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            let wake = self.timers.next_in();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ended::Told,
                Some(ask) = asks.recv() => {
                    self.answer(ask).await;
                    // Others may wait as well, but the log must not wait for all of them.
                    for _ in 1..ASKED_AT_ONCE {
                        let Ok(ask) = asks.try_recv() else { break };
                        self.answer(ask).await;
                    }
                    if let Some(read) = reader.next_batch(BATCH_MAX, &mut batch).now_or_never()
                        && let Some(ended) = self.fold_batch(read, &mut batch).await
                    {
                        *before = Some(self.folded);
                        return ended;
                    }
                }
                read = reader.next_batch(BATCH_MAX, &mut batch) => {
                    if let Some(ended) = self.fold_batch(read, &mut batch).await {
                        *before = Some(self.folded);
                        return ended;
                    }
                }
                () = tokio::time::sleep(wake), if self.is_caught_up() => {}
            }
            if self.is_caught_up() {
                self.fire_timers();
            }
            let live = &self.live;
            self.timers.compact(live.len(), |id, due| {
                live.get(id).is_some_and(|live| live.scheduled == Some(due))
            });
            self.engine.summaries.room().await;
            if !self.unrunnable.is_empty() && self.has_definition_turned_up().await {
                *before = Some(self.folded);
                return Ended::Refold;
            }
        }
    }

    /// What is to be folded, and whether it is what it was before.
    fn begin_fold(&mut self, log: &StreamState, before: Option<&Folded>) {
        // Under load there is always more; what was there at the beginning is what has to be folded first.
        self.fold_until = log.last;
        self.folded.incarnation.clone_from(&log.incarnation);
        if let Some(clock) = log.server_time {
            self.timers.observe(clock);
        }
        let shorter = before.is_some_and(|before| before.lost || before.sequence > log.last);
        let another = before.is_some_and(|before| before.incarnation != log.incarnation);
        for &partition in self.partitions.keys() {
            // Also what an earlier owner has folded: the log may have been set back, or made again and grown, while nobody looked.
            let tally = &self.engine.tally;
            let another = another || tally.knows_another_log(partition, &log.incarnation);
            let is_reset = another || shorter || tally.known_through(partition) > log.last;
            if is_reset && !planted(Bug::LogResetUnseen) {
                let end = if another { 0 } else { log.last };
                self.reset_to = Some(self.reset_to.map_or(end, |known| known.min(end)));
                tally.log_was_reset(partition, end);
            }
            tally.folds(partition, &log.incarnation);
        }
        if self.reset_to.is_some() {
            tracing::error!(
                log = log.name,
                ends_at = log.last,
                "LogReset: the log was set back, or is another than was folded; instances go on as the log knows them"
            );
        }
    }

    async fn fold_batch(
        &mut self,
        read: Result<usize, ReadError>,
        batch: &mut Vec<StoredMessage>,
    ) -> Option<Ended> {
        // Also before an error: what came is in order.
        for message in batch.drain(..) {
            self.fold(&message).await;
        }
        match read {
            Ok(_) => None,
            Err(ReadError::Lost { reason, .. }) => {
                self.folded.lost = true;
                Some(Ended::LogReset(reason))
            }
            Err(error) => Some(Ended::Unreadable(error)),
        }
    }

    /// Whether the definition of an instance that couldn't be run is there by now.
    async fn has_definition_turned_up(&mut self) -> bool {
        if self.revisions_looked_at.elapsed() < REVISION_LOOK {
            return false;
        }
        self.revisions_looked_at = Instant::now();
        let missing: BTreeSet<Revision> = self.unrunnable.values().cloned().collect();
        for revision in missing {
            if self.engine.revisions.get(&revision).await.is_ok() {
                return true;
            }
        }
        false
    }

    /// The claim under which nobody else can be making attempts; `None` if a stalled owner still may.
    fn sole_claim(&self, partition: u16) -> Option<Claim> {
        let alone = self.first_owner || self.taken_at.elapsed() >= FORGET_AFTER;
        let epoch = *self.partitions.get(&partition)?;
        alone.then_some(Claim { partition, epoch })
    }

    fn is_caught_up(&self) -> bool {
        *self.caught_up.borrow()
    }

    async fn fold(&mut self, message: &StoredMessage) {
        let was_caught_up = self.is_caught_up();
        self.folded.sequence = message.sequence;
        if was_caught_up {
            self.timers.observe(message.stored_at);
        }
        // The error is dropped: a subject that is nearly a reply's may hold a token.
        match LogSubject::parse(&message.subject, &self.engine.log_prefix).ok() {
            Some(subject) if self.is_in_its_place(&subject) => {
                self.fold_input(subject, message).await;
            }
            subject => {
                match subject {
                    Some(LogSubject { partition, .. }) => self.count_unreadable(partition),
                    None => {
                        self.engine.metrics.unreadable.inc();
                    }
                }
                tracing::warn!(
                    sequence = message.sequence,
                    "a message of the log is left alone: its subject is none of an input"
                );
            }
        }
        if !was_caught_up && (message.pending == 0 || message.sequence >= self.fold_until) {
            self.begin_work().await;
        }
    }

    fn count_unreadable(&self, partition: u16) {
        self.engine.metrics.unreadable.inc();
        self.engine
            .tally
            .change(partition, |counters| counters.unreadable += 1);
    }

    fn is_in_its_place(&self, subject: &LogSubject) -> bool {
        subject.is_in_own_partition(self.engine.workload.partitions)
            || planted(Bug::PartitionUnchecked)
    }

    async fn fold_input(&mut self, subject: LogSubject, message: &StoredMessage) {
        let LogSubject {
            partition,
            instance: id,
            kind,
        } = subject;
        let input = match decode(kind, message) {
            Ok(input) => input,
            Err(error) => {
                self.count_unreadable(partition);
                let instance = self.live.get(&id).map(|live| &live.instance);
                tracing::warn!(
                    instance = id,
                    event_id = instance.map(|instance| instance.input.id.as_str()),
                    correlation_id = instance.map(|instance| instance.correlation_id.as_str()),
                    sequence = message.sequence,
                    %error,
                    "an input can't be read"
                );
                return;
            }
        };
        if matches!(input, Input::Started(_))
            && !self.engine.is_start(&id, message, &self.stop).await
        {
            self.count_unreadable(partition);
            tracing::warn!(instance = %id, sequence = message.sequence, "a start is left alone: no worker wrote it, and the instance had one before");
            return;
        }
        let caught_up = self.is_caught_up();
        let effects = match (self.live.entry(id.clone()), input) {
            (Entry::Occupied(mut entry), input) => {
                let live = entry.get_mut();
                let before = live.facts();
                let applied = live.instance.apply(&live.saga, &input, message.stored_at);
                live.sequence = message.sequence;
                live.firing = None;
                let after = live.facts();
                self.engine
                    .note(partition, applied.note, before, after, message.sequence);
                if caught_up {
                    self.engine.measure(applied.note, Some(before), after);
                    live.tell(applied.note, before.state);
                }
                applied.effects
            }
            (Entry::Vacant(entry), Input::Started(started)) => {
                let saga = match self.engine.revisions.known(&started.revision) {
                    Some(saga) => Ok(saga),
                    None => {
                        self.engine
                            .revisions
                            .find(&started.revision, &self.stop)
                            .await
                    }
                };
                let saga = match saga {
                    Ok(saga) => saga,
                    Err(RevisionError::Abandoned) => return,
                    Err(error) => {
                        drop(entry);
                        self.hold(id, partition, &started, message, &error);
                        return;
                    }
                };
                let (instance, effects) =
                    Instance::start(&saga, entry.key(), *started, message.stored_at);
                let live = entry.insert(Live::new(instance, saga, partition, message.sequence));
                let facts = live.facts();
                self.engine.note_started(partition, facts, message.sequence);
                if caught_up {
                    self.engine.measure(Note::Applied, None, facts);
                }
                effects
            }
            (Entry::Vacant(_), _) if self.unrunnable.contains_key(&id) => return,
            // Finished, or never started: an answer that came too late, or a stale timer.
            (Entry::Vacant(_), Input::Reply { .. } | Input::Observed { .. }) => {
                self.engine
                    .tally
                    .change(partition, |counters| counters.late_replies += 1);
                if caught_up {
                    self.engine.metrics.late_replies.inc();
                }
                return;
            }
            (Entry::Vacant(_), _) => return,
        };
        self.after(&id, effects).await;
    }

    /// An instance that can't be run, as its definition isn't there. It is shown, waits, and stops nobody else.
    fn hold(
        &mut self,
        id: String,
        partition: u16,
        started: &Started,
        message: &StoredMessage,
        error: &RevisionError,
    ) {
        let instance = id.as_str();
        tracing::error!(
            instance,
            event_id = started.input.id,
            correlation_id = started.correlation_id,
            %error,
            "an instance can't be run"
        );
        let health = &self.engine.health;
        health.not_ready(DEFINITIONS, format!("instance {instance}: {error}"));
        self.engine.tally.change(partition, |counters| {
            counters.started += 1;
            counters.parked += 1;
            counters.log_sequence = message.sequence;
        });
        self.engine.summaries.put(InstanceSummary {
            id: id.clone(),
            state: InstanceState::Parked,
            step: None,
            reason: Some("DefinitionMissing".to_owned()),
            message: Some(error.to_string()),
            revision: started.revision.clone(),
            started_at: message.stored_at,
            updated_at: message.stored_at,
            correlation_id: Some(started.correlation_id.clone()),
            log_sequence: message.sequence,
        });
        self.unrunnable.insert(id, started.revision.clone());
    }

    /// What follows when an instance has folded an input.
    async fn after(&mut self, id: &str, effects: Vec<Effect>) {
        let caught_up = self.is_caught_up();
        let partition = self.live.get(id).map(|live| live.partition);
        let sole = partition.and_then(|partition| self.sole_claim(partition));
        let Some(live) = self.live.get_mut(id) else {
            return;
        };
        if caught_up {
            let of = of(live, sole);
            tracing::debug!(
                instance = id,
                event_id = live.instance.input.id,
                correlation_id = live.instance.correlation_id,
                sequence = live.sequence,
                effects = effects.len(),
                "folded"
            );
            for effect in effects {
                live.tell_attempt(attempt_of(&effect), false);
                self.engine.execute(of.clone(), effect).await;
            }
            self.timers.schedule(live);
        } else if planted(Bug::EffectsWhileFolding) {
            let of = of(live, None);
            for effect in effects {
                self.engine.execute(of.clone(), effect).await;
            }
        }
        let state = live.instance.state();
        if caught_up {
            self.engine
                .summaries
                .put(live.instance.summary(&live.saga, live.sequence));
        }
        if tidemill_core::control::is_settled(state)
            && let Some(waiting) = self.awaiting.remove(id)
        {
            for answer in waiting {
                let engine = Arc::clone(&self.engine);
                let (id, saga) = (id.to_owned(), Arc::clone(&live.saga));
                self.engine.work.spawn(async move {
                    let _ = answer.send(describe::describe(&engine, &id, Some(saga)).await);
                });
            }
        }
        if state.is_finished() {
            let finished = self.live.remove(id);
            if !caught_up && let Some(live) = finished {
                // It may have finished after its last summary was written; one more write is harmless.
                self.engine.summarize_again(&live);
            }
        }
    }

    /// The end of the log is reached: from now on effects are run as inputs come. What was in flight is sent again.
    async fn begin_work(&mut self) {
        self.caught_up.send_replace(true);
        self.taken_at = Instant::now();
        self.engine.health.ready(LOG);
        if self.unrunnable.is_empty() {
            self.engine.health.ready(DEFINITIONS);
        }
        if let Some(end) = self.reset_to {
            let engine = Arc::clone(&self.engine);
            let partitions: Vec<u16> = self.partitions.keys().copied().collect();
            self.engine.work.spawn(async move {
                engine
                    .summaries
                    .forget_unknown(&engine, &partitions, end)
                    .await;
            });
        }
        let now = self.timers.now();
        let ids: Vec<String> = self.live.keys().cloned().collect();
        tracing::info!(
            partitions = self.partitions.len(),
            running = ids.len(),
            "the log is folded"
        );
        for id in ids {
            let Some(live) = self.live.get_mut(&id) else {
                continue;
            };
            // Attempts made by whoever was the owner before get their whole time again.
            live.patient_until = now;
            let effects = live.instance.outstanding(&live.saga);
            let of = of(live, None);
            self.timers.schedule(live);
            self.engine
                .summaries
                .put(live.instance.summary(&live.saga, live.sequence));
            if planted(Bug::NothingSentAgain) {
                continue;
            }
            for effect in effects {
                let (step, side, attempt) = attempt_of(&effect);
                live.tell_attempt((step, side, attempt), true);
                live.resent.push((step.to_owned(), side, attempt));
                self.engine.execute(of.clone(), effect).await;
            }
        }
        if self.engine.workload.closing == Some(Closing::Compensate) {
            self.cancel_all();
        }
    }

    fn fire_timers(&mut self) {
        for (at, id) in self.timers.due() {
            let Some(live) = self.live.get_mut(&id) else {
                continue;
            };
            if live.scheduled != Some(at) {
                // It was put forward since, and looked at then.
                continue;
            }
            let now = self.timers.now();
            live.scheduled = None;
            match live.next_timer() {
                Some((due, timer)) if due <= now && live.firing.as_ref() != Some(&timer) => {
                    live.firing = Some(timer.clone());
                    self.engine
                        .append_later(id, LogKind::Timer(timer), Vec::new());
                }
                // It is on its way to the log.
                Some((due, _)) if due <= now => self.timers.look_again(live),
                _ => self.timers.schedule(live),
            }
        }
    }
}

impl Engine {
    /// A planted bug: acts on a start that isn't in the log.
    pub(crate) async fn act_unstored(self: &Arc<Self>, id: &str, started: Started) {
        let (saga, at) = (Arc::clone(&self.revisions.current), started.input.stored_at);
        let (instance, effects) = Instance::start(&saga, id, started, at);
        let of = of(&Live::new(instance, saga, 0, 0), None);
        for effect in effects {
            self.execute(of.clone(), effect).await;
        }
    }
}

fn of(live: &Live, sole: Option<Claim>) -> Of {
    Of {
        instance: live.instance.id.clone(),
        started_at: live.instance.started_at,
        sole,
        relayed: live.saga.definition.replies == Replies::Relayed && !planted(Bug::RelayedDirectly),
    }
}

fn attempt_of(effect: &Effect) -> (&str, Side, u32) {
    match effect {
        Effect::Request(request) => (&request.step, request.side, request.attempt),
        Effect::Http(http) => (&http.step, http.side, http.attempt),
        Effect::Publish(publish) => {
            let (step, side, attempt) = &publish.attempt;
            (step, *side, *attempt)
        }
    }
}

/// The input in a stored message.
pub(crate) fn decode(
    kind: LogKind,
    message: &StoredMessage,
) -> Result<Input, tidemill_core::saga::InputError> {
    let pairs: Vec<(&str, &str)> = match &message.headers {
        Some(headers) => header_pairs(headers),
        None => Vec::new(),
    };
    decode_input(kind, &pairs, &message.payload)
}

/// Headers as the core reads them; of several values of one name the first.
pub(crate) fn header_pairs(headers: &HeaderMap) -> Vec<(&str, &str)> {
    headers
        .iter()
        .filter_map(|(name, values)| Some((name.as_ref(), values.first()?.as_str())))
        .collect()
}
