//! Starting instances from a stream: events are read in order, without acknowledgements; what was done about them is a
//! position per partition, which never runs ahead of the truth.

use crate::append::Appended;
use crate::engine::Engine;
use crate::frontier::{Dealt, Frontier, Reached};
use crate::shard::{decode, header_pairs};
use crate::source::{Source, SourceError};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::contract::StreamBinding;
use tidemill_core::definition::Trigger;
use tidemill_core::envelope::{DecodeError, Decoder, Event, RawMessage};
use tidemill_core::expression::{Bindings, Bound, CompileError, Expression, Scope};
use tidemill_core::json::Value;
use tidemill_core::names::{LogKind, Run, encode_token, partition};
use tidemill_core::parked::Failure;
use tidemill_core::planted::{Bug, planted};
use tidemill_core::saga::{Input, SourcePosition, Started};
use tidemill_core::status::{ResolvedStart, TriggerCounters};
use tidemill_core::timestamp::Timestamp;
use tidemill_nats::{ReadFrom, Reader, StoredMessage};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Events read at once.
const BATCH_MAX: usize = 256;
/// Starts on their way to the log; reading waits beyond.
const STARTING_MAX: usize = 1024;
/// Pause while too many are running, or after an error.
const PAUSE: Duration = Duration::from_millis(100);
/// How often partitions without events get the position of those with: after a restart reading begins at the smallest.
const ADVANCE_INTERVAL: Duration = Duration::from_secs(30);

/// What an event of a trigger stream means.
enum Meaning {
    /// It starts this instance.
    Start(String),
    /// No trigger matches.
    Skip,
    /// It can't be used; why.
    Park(Failure),
}

struct CompiledTrigger {
    /// Its place in `startOn`.
    index: usize,
    event_type: Option<String>,
    when: Option<Expression>,
    id: Expression,
}

/// Reads one stream for the partitions of this worker.
pub(crate) struct TriggerReader {
    pub(crate) engine: Arc<Engine>,
    pub(crate) source: Arc<Source>,
    /// `<namespace>/<name>` of the stream.
    pub(crate) key: String,
    decoder: Decoder,
    triggers: Vec<CompiledTrigger>,
}

/// A start that is done.
struct Done {
    partition: u16,
    sequence: u64,
    appended: Appended,
}

impl TriggerReader {
    pub(crate) fn new(
        engine: &Arc<Engine>,
        source: &Arc<Source>,
        binding: &StreamBinding,
    ) -> Result<Self, crate::RunError> {
        let stream = &source.stream;
        let expression = |error: CompileError| crate::RunError::Trigger(stream.clone(), error);
        let triggers = engine
            .workload
            .definition
            .triggers
            .iter()
            .enumerate()
            .filter(|(_, trigger)| &trigger.stream == stream);
        Ok(TriggerReader {
            engine: Arc::clone(engine),
            source: Arc::clone(source),
            key: stream.to_string(),
            decoder: Decoder::new(binding).map_err(expression)?,
            triggers: triggers
                .map(|(index, trigger)| compile(index, trigger))
                .collect::<Result<_, _>>()
                .map_err(expression)?,
        })
    }

    /// The position that a partition has reached in the stream as it is `resolved` now.
    fn position(&self, partition: u16, resolved: &ResolvedStart) -> u64 {
        let stored = self.engine.tally.read(partition, |counters| {
            let counters = counters.triggers.get(&self.key)?;
            is_of(counters, resolved).then_some(counters.position)
        });
        stored.flatten().unwrap_or(0).max(resolved.after)
    }

    /// What shows that the stream was set back and has grown beyond the furthest position since, if anything does: the event
    /// there is another one. If it is gone, nothing can be said.
    async fn rewritten(
        &self,
        partitions: &BTreeSet<u16>,
        resolved: &ResolvedStart,
        furthest: u64,
    ) -> Result<Option<String>, SourceError> {
        let known = partitions.iter().find_map(|partition| {
            let known = self.engine.tally.read(*partition, |counters| {
                let counters = counters.triggers.get(&self.key)?;
                let is_it = is_of(counters, resolved) && counters.position == furthest;
                counters.stored_at.filter(|_| is_it)
            });
            known.flatten()
        });
        let Some(known) = known else {
            return Ok(None);
        };
        let there = self.engine.nats.read_at(&self.source.name, furthest).await;
        let there =
            there.map_err(|error| SourceError::Stream(self.source.stream.clone(), error))?;
        Ok(there
            .map(|message| message.stored_at)
            .filter(|stored_at| *stored_at != known)
            .map(|stored_at| {
                format!("event {furthest} was stored at {known} and is now one of {stored_at}")
            }))
    }

    /// Reads until told to stop; then waits for the starts under way. `opened` is called once reading has begun.
    pub(crate) async fn run(
        &self,
        partitions: &BTreeSet<u16>,
        resolved: &ResolvedStart,
        opened: impl FnOnce(),
        stop: &CancellationToken,
    ) -> Result<(), SourceError> {
        let begin: HashMap<u16, u64> = partitions
            .iter()
            .map(|partition| (*partition, self.position(*partition, resolved)))
            .collect();
        let furthest = begin.values().copied().max().unwrap_or(resolved.after);
        let state = self.source.state().await?;
        if let Some(reason) = self.source.difference(resolved, &state, furthest) {
            return Err(self.source.reset(reason));
        }
        if let Some(reason) = self.rewritten(partitions, resolved, furthest).await? {
            return Err(self.source.reset(reason));
        }
        let from = begin.values().copied().min().unwrap_or(resolved.after);
        let mut reader = tokio::select! {
            reader = Reader::open(&self.engine.nats, &self.source.name, Vec::new(), ReadFrom::After(from)) => reader.map_err(|error| self.source.unread(error))?,
            () = stop.cancelled() => return Ok(()),
        };
        if let Some(reason) = self.source.difference(resolved, reader.state(), furthest) {
            return Err(self.source.reset(reason));
        }
        opened();
        let mut session = Session {
            reader: self,
            resolved,
            begin,
            frontier: Frontier::default(),
        };
        let (done_tx, mut done) = mpsc::channel::<Done>(STARTING_MAX);
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut starting = 0_usize;
        let mut crowded = false;
        let running_max = self.engine.options.running_max;
        let mut advance = tokio::time::interval(ADVANCE_INTERVAL);
        advance.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ended = loop {
            let busy = starting >= STARTING_MAX;
            let was_crowded =
                std::mem::replace(&mut crowded, self.engine.tally.running() >= running_max);
            if crowded && !was_crowded {
                tracing::info!(stream = %self.key, running_max, "as many instances are running as may: events wait");
            }
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                Some(finished) = done.recv() => {
                    starting -= 1;
                    session.finish(finished).await;
                }
                _ = advance.tick() => session.advance(reader.last()),
                () = tokio::time::sleep(PAUSE), if crowded => {}
                read = reader.next_batch(BATCH_MAX, &mut batch), if !busy && !crowded => {
                    // Also before an error: what came is in order, and counts as read.
                    for message in batch.drain(..) {
                        starting += usize::from(session.take(&message, &done_tx).await);
                    }
                    if let Err(error) = read {
                        break Err(self.source.unread(error));
                    }
                }
            }
        };
        while starting > 0 {
            let Some(finished) = done.recv().await else {
                break;
            };
            starting -= 1;
            session.finish(finished).await;
        }
        session.advance(reader.last());
        ended
    }

    fn meaning(&self, message: &StoredMessage) -> (Meaning, Option<Event>) {
        match self.decode(message) {
            Ok(event) => (self.match_triggers(&event), Some(event)),
            Err(error) => (
                Meaning::Park(Failure::new("Undecodable", error.in_full())),
                None,
            ),
        }
    }

    /// The event in a message.
    pub(crate) fn decode(&self, message: &StoredMessage) -> Result<Event, DecodeError> {
        let headers: Vec<(&str, &str)> = message
            .headers
            .as_ref()
            .map(header_pairs)
            .unwrap_or_default();
        let raw = RawMessage {
            subject: &message.subject,
            headers: &headers,
            payload: &message.payload,
            sequence: message.sequence,
            stored_at: message.stored_at,
        };
        self.decoder.decode(&raw)
    }

    fn match_triggers(&self, event: &Event) -> Meaning {
        let slots = [Bound::Object(event)];
        let bindings = Bindings::new(&slots);
        for trigger in &self.triggers {
            if trigger
                .event_type
                .as_ref()
                .is_some_and(|wanted| *wanted != event.event_type)
            {
                continue;
            }
            match trigger
                .when
                .as_ref()
                .map(|when| when.evaluate_bool(&bindings))
            {
                Some(Ok(false)) => continue,
                Some(Err(error)) => {
                    let message = format!("startOn[{}].when: {error}", trigger.index);
                    return Meaning::Park(Failure::new(error.reason(), message));
                }
                None | Some(Ok(true)) => {}
            }
            return match trigger.id.evaluate(&bindings) {
                Ok(Value::String(id)) if !id.is_empty() => Meaning::Start(id.to_string()),
                Ok(id @ (Value::Number(_) | Value::Bool(_))) => Meaning::Start(id.to_json()),
                Ok(_) => {
                    let message = format!(
                        "startOn[{}].id: gives neither text nor a number, or nothing",
                        trigger.index
                    );
                    Meaning::Park(Failure::new("KeyType", message))
                }
                Err(error) => {
                    let message = format!("startOn[{}].id: {error}", trigger.index);
                    Meaning::Park(Failure::new(error.reason(), message))
                }
            };
        }
        Meaning::Skip
    }
}

/// One reading of the stream: from its opening until it is told to stop or something breaks.
pub(crate) struct Session<'a> {
    pub(crate) reader: &'a TriggerReader,
    pub(crate) resolved: &'a ResolvedStart,
    /// Where each partition was at its beginning.
    begin: HashMap<u16, u64>,
    frontier: Frontier,
}

impl Session<'_> {
    /// Handles one event. True if a start is under way.
    async fn take(&mut self, message: &StoredMessage, done: &mpsc::Sender<Done>) -> bool {
        let engine = &self.reader.engine;
        let (meaning, event) = self.reader.meaning(message);
        let token = match (&meaning, &event) {
            (Meaning::Start(id), _) => encode_token(id),
            (_, Some(event)) => encode_token(event.entity()),
            // What isn't even an event belongs to the partition of nothing.
            (_, None) => encode_token(""),
        };
        let (meaning, token) = match token {
            Ok(token) => (meaning, token),
            Err(error) => {
                let failure = Failure::new("KeyTooLong", format!("id: {error}"));
                (Meaning::Park(failure), "=".to_owned())
            }
        };
        let of = partition(&token, engine.workload.partitions);
        let Some(&already) = self.begin.get(&of) else {
            return false;
        };
        if message.sequence <= already {
            return false;
        }
        match (meaning, event) {
            (Meaning::Start(id), Some(event)) => {
                if planted(Bug::TriggerAhead) {
                    let dealt = Dealt {
                        matched: 1,
                        ..Dealt::SEEN
                    };
                    let reached =
                        self.frontier
                            .pass(of, message.sequence, message.stored_at, dealt);
                    self.reach(of, reached);
                } else {
                    self.frontier.begin(of, message.sequence, message.stored_at);
                }
                self.start(id, event, of, message.sequence, done.clone());
                return true;
            }
            (Meaning::Park(failure), _) => {
                self.frontier.begin(of, message.sequence, message.stored_at);
                if self.park(message, of, failure).await {
                    let dealt = Dealt {
                        parked: 1,
                        ..Dealt::SEEN
                    };
                    let reached = self.frontier.end(of, message.sequence, dealt);
                    self.reach(of, reached);
                }
            }
            (Meaning::Skip | Meaning::Start(_), _) => {
                let dealt = Dealt {
                    skipped: 1,
                    ..Dealt::SEEN
                };
                let reached = self
                    .frontier
                    .pass(of, message.sequence, message.stored_at, dealt);
                self.reach(of, reached);
            }
        }
        false
    }

    fn start(&self, id: String, event: Event, of: u16, sequence: u64, done: mpsc::Sender<Done>) {
        let engine = Arc::clone(&self.reader.engine);
        let correlation_id = correlation_id(&event).to_owned();
        tracing::debug!(
            stream = %self.reader.key,
            sequence,
            event_id = event.id,
            instance = id,
            correlation_id,
            traceparent = event.extension("traceparent"),
            "an event starts an instance"
        );
        let position = SourcePosition {
            stream: self.reader.source.stream.clone(),
            incarnation: self.resolved.incarnation.clone(),
            sequence,
        };
        let started = Started {
            run: Run::new(rand::random()),
            revision: engine.revisions.current_revision.clone(),
            input: event,
            correlation_id,
            position: Some(position.clone()),
        };
        let tracker = engine.work.clone();
        tracker.spawn(async move {
            if planted(Bug::ActedOnUnstored) {
                engine.act_unstored(&id, started.clone()).await;
            }
            let mut appended = engine
                .append(&id, LogKind::Started, started.to_json())
                .await;
            if appended == Appended::Existing && engine.is_started_by(&id, &position).await {
                // By this event, read before: by another worker, or before a crash.
                appended = Appended::Stored;
            }
            // The reader waits for every start before it ends.
            let _ = done
                .send(Done {
                    partition: of,
                    sequence,
                    appended,
                })
                .await;
        });
    }

    async fn finish(&mut self, done: Done) {
        let Done {
            partition: of,
            sequence,
            appended,
        } = done;
        let mut dealt = Dealt {
            matched: 1,
            ..Dealt::SEEN
        };
        match appended {
            Appended::Existing => dealt.existing = 1,
            Appended::Stored => {}
            Appended::Refused(reason) => {
                if !self.park_refused(of, sequence, &reason).await {
                    return;
                }
                dealt.parked = 1;
            }
            // The position stays below it: whoever owns the partition next starts it.
            Appended::Abandoned => return,
        }
        let reached = self.frontier.end(of, sequence, dealt);
        self.reach(of, reached);
    }

    /// What was read up to `last` is dealt with in every partition, save what is under way.
    fn advance(&mut self, last: Option<(u64, Timestamp)>) {
        let Some((position, stored_at)) = last else {
            return;
        };
        let partitions: Vec<u16> = self.begin.keys().copied().collect();
        for of in partitions {
            let reached = self
                .frontier
                .pass(of, position, stored_at, Dealt::default());
            let before = self.reader.position(of, self.resolved);
            self.reach(of, reached.filter(|reached| reached.position > before));
        }
    }

    fn reach(&self, of: u16, reached: Option<Reached>) {
        let Some(Reached {
            position,
            stored_at,
            dealt,
        }) = reached
        else {
            return;
        };
        self.change(of, |counters| {
            if position > counters.position {
                counters.position = position;
                counters.stored_at = Some(stored_at);
            }
            dealt.count(counters);
        });
    }

    fn change(&self, of: u16, change: impl FnOnce(&mut TriggerCounters)) {
        let TriggerReader { engine, key, .. } = self.reader;
        engine.tally.change(of, |counters| {
            let counters = counters.triggers.entry(key.clone()).or_default();
            if !is_of(counters, self.resolved) {
                counters.incarnation.clone_from(&self.resolved.incarnation);
                counters.accepted = self.resolved.accepted;
                counters.position = 0;
                counters.stored_at = None;
            }
            change(counters);
        });
    }
}

/// Whether a position is one in the stream as it is resolved now.
fn is_of(counters: &TriggerCounters, resolved: &ResolvedStart) -> bool {
    counters.incarnation == resolved.incarnation && counters.accepted == resolved.accepted
}

/// What connects an event with all that comes of it.
pub(crate) fn correlation_id(event: &Event) -> &str {
    event.extension("correlationid").unwrap_or(&event.id)
}

fn compile(index: usize, trigger: &Trigger) -> Result<CompiledTrigger, CompileError> {
    let scope = Scope::new(&["event"]);
    Ok(CompiledTrigger {
        index,
        event_type: trigger.event_type.clone(),
        when: trigger
            .when
            .as_deref()
            .map(|source| Expression::compile(source, &scope))
            .transpose()?,
        id: Expression::compile(&trigger.id, &scope)?,
    })
}

impl Engine {
    /// Whether an instance that is there was started by this event.
    async fn is_started_by(&self, id: &str, position: &SourcePosition) -> bool {
        let Some(subject) = self.log_subject(id, LogKind::Started) else {
            return false;
        };
        let log = &self.workload.log_stream;
        // If that can't be read now, it is merely counted as another's.
        let Ok(Some(message)) = self.nats.last_at_leader(log, &subject).await else {
            return false;
        };
        matches!(decode(LogKind::Started, &message), Ok(Input::Started(started)) if started.position.as_ref() == Some(position))
    }
}
