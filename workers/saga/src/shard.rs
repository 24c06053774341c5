//! A shard: the partitions that were taken together, their instances, and the loop that folds their log.
//!
//! Order: read a message, fold it, and only then run its effects; what they give comes back through the log. While the
//! log is caught up with, effects are dropped: what is in flight is asked of the states at the end.

use crate::describe;
use crate::effects::Of;
use crate::engine::Engine;
use crate::live::{Live, Timers};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::control::{Accepted, CancelRequest, ControlError, DecisionRequest, Described};
use tidemill_core::definition::Replies;
use tidemill_core::names::{LogKind, LogSubject};
use tidemill_core::saga::{Asked, Effect, Input, Instance, Note, Observed, Parked, decode_input};
use tidemill_nats::{HeaderMap, ReadError, ReadFrom, Reader, StoredMessage};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Messages folded before timers and requests are looked at again.
const BATCH_MAX: usize = 512;
/// How long a stalled owner may hold what it read; older owners have forgotten everything (design: 60 s).
const FORGET_AFTER: Duration = Duration::from_secs(60);
/// Requests waiting for a shard.
pub(crate) const ASKED_MAX: usize = 1024;

/// What a shard is asked by other tasks of the worker.
pub(crate) enum Ask {
    /// The server says that nobody listens to an attempt's request.
    NoResponders(LogSubject),
    Describe(String, Answer<Described>),
    /// Like `Describe`, once the instance is finished or parked.
    Await(String, Answer<Described>),
    Cancel(CancelRequest, Answer<Accepted>),
    Decide(DecisionRequest, Answer<Accepted>),
}

pub(crate) type Answer<T> = oneshot::Sender<Result<T, ControlError>>;

/// Why a shard ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It was told to.
    Told,
    /// The log was set back or replaced: it is to be folded again from what is there.
    LogReset,
    /// The log can't be read.
    Unreadable(ReadError),
}

pub(crate) struct Shard {
    engine: Arc<Engine>,
    partitions: Vec<u16>,
    /// Partitions of which nobody else ever was the owner.
    first_owner: bool,
    taken_at: Instant,
    live: HashMap<String, Live>,
    timers: Timers,
    caught_up: watch::Sender<bool>,
    awaiting: HashMap<String, Vec<Answer<Described>>>,
    /// The log's end when reading began.
    fold_until: u64,
}

impl Shard {
    pub(crate) fn new(
        engine: &Arc<Engine>,
        partitions: Vec<u16>,
        first_owner: bool,
        caught_up: watch::Sender<bool>,
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
        }
    }

    fn filters(&self) -> Vec<String> {
        let prefix = &self.engine.log_prefix;
        if self.partitions.len() == usize::from(self.engine.workload.partitions) {
            return vec![format!("{prefix}.>")];
        }
        self.partitions
            .iter()
            .map(|partition| format!("{prefix}.{partition}.>"))
            .collect()
    }

    /// Folds the log and runs what follows from it until told to stop.
    pub(crate) async fn run(
        mut self,
        asks: &mut mpsc::Receiver<Ask>,
        stop: CancellationToken,
    ) -> Ended {
        let stream = self.engine.workload.log_stream.clone();
        let opened = tokio::select! {
            opened = Reader::open(&self.engine.nats, &stream, self.filters(), ReadFrom::First) => opened,
            () = stop.cancelled() => return Ended::Told,
        };
        let mut reader = match opened {
            Ok(reader) => reader,
            Err(error) => return Ended::Unreadable(error),
        };
        // Under load there is always more; what was there at the beginning is what has to be folded first.
        self.fold_until = reader.state().last;
        if reader.pending() == 0 {
            self.begin_work().await;
        }
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            let wake = self.timers.next_in();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ended::Told,
                Some(ask) = asks.recv() => self.answer(ask).await,
                read = reader.next_batch(BATCH_MAX, &mut batch) => match read {
                    Ok(_) => {
                        for message in batch.drain(..) {
                            self.fold(&message).await;
                        }
                    }
                    Err(ReadError::Lost { reason, .. }) => {
                        tracing::error!(reason, "the log was set back: it is folded again from what is there");
                        return Ended::LogReset;
                    }
                    Err(error) => return Ended::Unreadable(error),
                },
                () = tokio::time::sleep(wake), if self.is_caught_up() => {}
            }
            if self.is_caught_up() {
                self.fire_timers();
            }
        }
    }

    fn is_caught_up(&self) -> bool {
        *self.caught_up.borrow()
    }

    async fn fold(&mut self, message: &StoredMessage) {
        let was_caught_up = self.is_caught_up();
        if was_caught_up {
            self.timers.observe(message.stored_at);
        }
        match LogSubject::parse(&message.subject, &self.engine.log_prefix) {
            Ok(subject) => self.fold_input(subject, message).await,
            Err(error) => {
                self.engine.metrics.unreadable.inc();
                tracing::warn!(%error, sequence = message.sequence, "a message of the log is left alone");
            }
        }
        if !was_caught_up && (message.pending == 0 || message.sequence >= self.fold_until) {
            self.begin_work().await;
        }
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
                self.engine.metrics.unreadable.inc();
                self.engine
                    .tally
                    .change(partition, |counters| counters.unreadable += 1);
                tracing::warn!(%error, instance = %id, sequence = message.sequence, "an input can't be read");
                return;
            }
        };
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
                applied.effects
            }
            (Entry::Vacant(entry), Input::Started(started)) => {
                let saga = match self.engine.revisions.known(&started.revision) {
                    Some(saga) => Ok(saga),
                    None => self.engine.revisions.get(&started.revision).await,
                };
                let saga = match saga {
                    Ok(saga) => saga,
                    Err(error) => {
                        self.engine.metrics.unreadable.inc();
                        self.engine
                            .tally
                            .change(partition, |counters| counters.unreadable += 1);
                        tracing::error!(%error, instance = %entry.key(), "an instance can't be run");
                        return;
                    }
                };
                let (instance, effects) =
                    Instance::start(&saga, entry.key(), *started, message.stored_at);
                let live = entry.insert(Live::new(instance, saga, partition, message.sequence));
                self.engine
                    .note_started(partition, live.facts(), message.sequence);
                effects
            }
            // Finished, or never started: an answer that came too late, or a stale timer.
            (Entry::Vacant(_), Input::Reply { .. } | Input::Observed { .. }) => {
                self.engine
                    .tally
                    .change(partition, |counters| counters.late_replies += 1);
                return;
            }
            (Entry::Vacant(_), _) => return,
        };
        self.after(&id, effects).await;
    }

    /// What follows when an instance has folded an input.
    async fn after(&mut self, id: &str, effects: Vec<Effect>) {
        let caught_up = self.is_caught_up();
        let Some(live) = self.live.get_mut(id) else {
            return;
        };
        if caught_up {
            let of = of(
                live,
                self.first_owner || self.taken_at.elapsed() >= FORGET_AFTER,
            );
            for effect in effects {
                self.engine.execute(of.clone(), effect).await;
            }
            self.timers.schedule(live);
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
            let of = of(live, false);
            self.timers.schedule(live);
            self.engine
                .summaries
                .put(live.instance.summary(&live.saga, live.sequence));
            for effect in effects {
                live.resent.push(attempt_of(&effect));
                self.engine.execute(of.clone(), effect).await;
            }
        }
    }

    fn fire_timers(&mut self) {
        for id in self.timers.due() {
            let Some(live) = self.live.get_mut(&id) else {
                continue;
            };
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

    async fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::NoResponders(subject) => self.on_no_responders(subject),
            Ask::Describe(id, answer) => {
                let saga = self.live.get(&id).map(|live| Arc::clone(&live.saga));
                let engine = Arc::clone(&self.engine);
                self.engine.work.spawn(async move {
                    let _ = answer.send(describe::describe(&engine, &id, saga).await);
                });
            }
            Ask::Await(id, answer) => match self.live.get(&id) {
                Some(live) if !tidemill_core::control::is_settled(live.instance.state()) => {
                    self.awaiting.entry(id).or_default().push(answer);
                }
                _ => Box::pin(self.answer(Ask::Describe(id, answer))).await,
            },
            Ask::Cancel(request, answer) => {
                let _ = answer.send(self.cancel(request));
            }
            Ask::Decide(request, answer) => {
                let _ = answer.send(self.decide(request));
            }
        }
    }

    fn on_no_responders(&mut self, subject: LogSubject) {
        let LogKind::Reply {
            step,
            side,
            attempt,
            ..
        } = subject.kind
        else {
            return;
        };
        let Some(live) = self.live.get(&subject.instance) else {
            return;
        };
        let resent = live
            .resent
            .iter()
            .any(|sent| *sent == (step.clone(), side, attempt));
        let sole = !resent && (self.first_owner || self.taken_at.elapsed() >= FORGET_AFTER);
        let kind = LogKind::Observed {
            step,
            side,
            attempt,
        };
        self.engine.append_later(
            subject.instance,
            kind,
            Observed::NoResponders { sole }.to_json(),
        );
    }

    fn cancel(&mut self, request: CancelRequest) -> Result<Accepted, ControlError> {
        let live = self.running(&request.id)?;
        // Tried on a copy: the answer says what folding the cancel will do.
        let asked = Asked {
            by: request.by,
            why: request.why,
        };
        let mut copy = live.instance.clone();
        match copy
            .apply(&live.saga, &Input::Cancel(asked.clone()), live.instance.at)
            .note
        {
            Note::PivotPassed => Err(ControlError::new(
                "PivotPassed",
                format!(
                    "instance {} has passed its pivot: from there it only goes forward",
                    request.id
                ),
            )),
            Note::Ignored => Err(ControlError::new(
                "AlreadyFinished",
                format!(
                    "instance {} is {}: there is nothing to cancel",
                    request.id,
                    live.instance.state().as_str()
                ),
            )),
            _ => {
                self.engine
                    .append_later(request.id, LogKind::Cancel, Input::cancel_json(&asked));
                Ok(Accepted {
                    message: "cancelling: what was done is taken back".to_owned(),
                })
            }
        }
    }

    fn decide(&mut self, request: DecisionRequest) -> Result<Accepted, ControlError> {
        let live = self.running(&request.id)?;
        let Some(Parked { reason, .. }) = &live.instance.parked else {
            let message = format!(
                "instance {} is {}, not parked",
                request.id,
                live.instance.state().as_str()
            );
            return Err(ControlError::new("NotParked", message));
        };
        let message = format!(
            "{} of a parked instance ({})",
            word(request.decision),
            reason.as_str()
        );
        let asked = Asked {
            by: request.by,
            why: request.why,
        };
        self.engine.append_later(
            request.id,
            LogKind::Decision,
            Input::decision_json(request.decision, &asked),
        );
        Ok(Accepted { message })
    }

    fn running(&self, id: &str) -> Result<&Live, ControlError> {
        self.live.get(id).ok_or_else(|| {
            ControlError::new(
                "NotFound",
                format!("no instance {id} is running: it is finished, or was never started"),
            )
        })
    }
}

fn word(decision: tidemill_core::control::Decision) -> &'static str {
    match decision {
        tidemill_core::control::Decision::Retry => "retry",
        tidemill_core::control::Decision::Skip => "skip",
    }
}

fn of(live: &Live, sole: bool) -> Of {
    Of {
        instance: live.instance.id.clone(),
        started_at: live.instance.started_at,
        sole,
        relayed: live.saga.definition.replies == Replies::Relayed,
    }
}

fn attempt_of(effect: &Effect) -> (String, tidemill_core::names::Side, u32) {
    match effect {
        Effect::Request(request) => (request.step.clone(), request.side, request.attempt),
        Effect::Http(http) => (http.step.clone(), http.side, http.attempt),
        Effect::Publish(publish) => publish.attempt.clone(),
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
