//! Starting instances from a stream: events are read in order, without acknowledgements; what was done about them is a
//! position per partition, which never runs ahead of the truth.

use crate::append::Appended;
use crate::engine::Engine;
use crate::shard::header_pairs;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::contract::StreamBinding;
use tidemill_core::definition::{StreamRef, Trigger};
use tidemill_core::envelope::{Decoder, Event, RawMessage};
use tidemill_core::expression::{Bindings, Bound, CompileError, Expression, Scope};
use tidemill_core::json::Value;
use tidemill_core::names::{LogKind, Run, encode_token, partition};
use tidemill_core::saga::{SourcePosition, Started};
use tidemill_core::status::TriggerCounters;
use tidemill_nats::{HeaderMap, Publish, ReadError, ReadFrom, Reader, StoredMessage};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Events read at once.
const BATCH_MAX: usize = 256;
/// Starts on their way to the log; reading waits beyond.
const STARTING_MAX: usize = 1024;
/// Instances running in this worker beyond which none are started from streams: memory and participants have limits.
const RUNNING_MAX: u64 = 20_000;
/// Pause while too many are running, or after an error.
const PAUSE: Duration = Duration::from_millis(100);

/// What an event of a trigger stream means.
enum Meaning {
    /// It starts this instance.
    Start(String),
    /// No trigger matches.
    Skip,
    /// It can't be used; why.
    Park(String),
}

struct CompiledTrigger {
    event_type: Option<String>,
    when: Option<Expression>,
    id: Expression,
}

/// Reads one stream for the partitions of this worker.
pub(crate) struct TriggerReader {
    engine: Arc<Engine>,
    binding: StreamBinding,
    key: String,
    decoder: Decoder,
    triggers: Vec<CompiledTrigger>,
}

/// Per partition: what is under way, so that its position stays below it.
#[derive(Default)]
struct Frontier {
    under_way: BTreeMap<u16, BTreeSet<u64>>,
}

/// A start that is done.
struct Done {
    partition: u16,
    sequence: u64,
    appended: Appended,
}

impl TriggerReader {
    pub(crate) fn new(engine: &Arc<Engine>, stream: &StreamRef) -> Result<Self, crate::RunError> {
        let binding = engine
            .binding(stream)
            .ok_or_else(|| crate::RunError::Unbound(stream.clone()))?
            .clone();
        let expression = |error: CompileError| crate::RunError::Trigger(stream.clone(), error);
        let triggers = engine
            .workload
            .definition
            .triggers
            .iter()
            .filter(|trigger| &trigger.stream == stream);
        Ok(TriggerReader {
            engine: Arc::clone(engine),
            key: stream.to_string(),
            decoder: Decoder::new(&binding).map_err(expression)?,
            triggers: triggers
                .map(compile)
                .collect::<Result<_, _>>()
                .map_err(expression)?,
            binding,
        })
    }

    /// Reads until told to stop; then waits for the starts under way.
    pub(crate) async fn run(
        &self,
        partitions: &BTreeSet<u16>,
        after: u64,
        stop: &CancellationToken,
    ) -> Result<(), ReadError> {
        let positions = |partition: u16| {
            let stored = self.engine.tally.read(partition, |counters| {
                counters
                    .triggers
                    .get(&self.key)
                    .map_or(0, |trigger| trigger.position)
            });
            stored.unwrap_or(0).max(after)
        };
        let begin: HashMap<u16, u64> = partitions
            .iter()
            .map(|partition| (*partition, positions(*partition)))
            .collect();
        let from = begin.values().copied().min().unwrap_or(after);
        let mut reader = tokio::select! {
            reader = Reader::open(&self.engine.nats, &self.binding.name, Vec::new(), ReadFrom::After(from)) => reader?,
            () = stop.cancelled() => return Ok(()),
        };
        let incarnation = reader.state().incarnation.clone();
        let (done_tx, mut done) = mpsc::channel::<Done>(STARTING_MAX);
        let mut frontier = Frontier::default();
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut starting = 0_usize;
        loop {
            let busy = starting >= STARTING_MAX;
            let crowded = self.engine.tally.running() >= RUNNING_MAX;
            tokio::select! {
                () = stop.cancelled() => break,
                Some(finished) = done.recv() => {
                    starting -= 1;
                    self.finish(&mut frontier, &finished);
                }
                () = tokio::time::sleep(PAUSE), if crowded => {}
                read = reader.next_batch(BATCH_MAX, &mut batch), if !busy && !crowded => {
                    read?;
                    for message in batch.drain(..) {
                        starting += usize::from(self.take(&message, &begin, &mut frontier, &incarnation, &done_tx).await);
                    }
                }
            }
        }
        while starting > 0 {
            let Some(finished) = done.recv().await else {
                break;
            };
            starting -= 1;
            self.finish(&mut frontier, &finished);
        }
        Ok(())
    }

    /// Handles one event. True if a start is under way.
    async fn take(
        &self,
        message: &StoredMessage,
        begin: &HashMap<u16, u64>,
        frontier: &mut Frontier,
        incarnation: &str,
        done: &mpsc::Sender<Done>,
    ) -> bool {
        let (meaning, event) = self.meaning(message);
        let token = match (&meaning, &event) {
            (Meaning::Start(id), _) => encode_token(id),
            (_, Some(event)) => encode_token(event.entity()),
            // What isn't even an event belongs to the partition of nothing.
            (_, None) => encode_token(""),
        };
        let (meaning, token) = match token {
            Ok(token) => (meaning, token),
            Err(error) => (Meaning::Park(format!("id: {error}")), "=".to_owned()),
        };
        let of = partition(&token, self.engine.workload.partitions);
        let Some(&already) = begin.get(&of) else {
            return false;
        };
        if message.sequence <= already {
            return false;
        }
        let matched = matches!(meaning, Meaning::Start(_));
        self.count(of, incarnation, |counters| {
            counters.seen += 1;
            counters.matched += u64::from(matched);
            counters.skipped += u64::from(matches!(meaning, Meaning::Skip));
        });
        match (meaning, event) {
            (Meaning::Start(id), Some(event)) => {
                frontier.begin(of, message.sequence);
                self.start(
                    id,
                    event,
                    of,
                    message.sequence,
                    incarnation.to_owned(),
                    done.clone(),
                );
                true
            }
            (Meaning::Park(reason), _) => {
                self.park(message, of, &reason).await;
                self.count(of, incarnation, |counters| counters.parked += 1);
                self.move_on(frontier, of, message.sequence, incarnation);
                false
            }
            (Meaning::Skip | Meaning::Start(_), _) => {
                self.move_on(frontier, of, message.sequence, incarnation);
                false
            }
        }
    }

    fn meaning(&self, message: &StoredMessage) -> (Meaning, Option<Event>) {
        let headers: Vec<(&str, &str)> = message
            .headers
            .as_ref()
            .map(header_pairs)
            .unwrap_or_default();
        let raw = RawMessage {
            subject: &message.subject,
            headers: &headers,
            payload: &message.payload,
            stored_at: message.stored_at,
        };
        match self.decoder.decode(&raw) {
            Ok(event) => (self.match_triggers(&event), Some(event)),
            Err(error) => (Meaning::Park(error.to_string()), None),
        }
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
                Some(Err(error)) => return Meaning::Park(format!("when: {error}")),
                None | Some(Ok(true)) => {}
            }
            return match trigger.id.evaluate(&bindings) {
                Ok(Value::String(id)) if !id.is_empty() => Meaning::Start(id.to_string()),
                Ok(id @ (Value::Number(_) | Value::Bool(_))) => Meaning::Start(id.to_json()),
                Ok(_) => {
                    Meaning::Park("id: gives neither text nor a number, or nothing".to_owned())
                }
                Err(error) => Meaning::Park(format!("id: {error}")),
            };
        }
        Meaning::Skip
    }

    fn start(
        &self,
        id: String,
        event: Event,
        of: u16,
        sequence: u64,
        incarnation: String,
        done: mpsc::Sender<Done>,
    ) {
        let correlation_id = event
            .extension("correlationid")
            .unwrap_or(&event.id)
            .to_owned();
        let started = Started {
            run: Run::new(rand::random()),
            revision: self.engine.revisions.current_revision.clone(),
            input: event,
            correlation_id,
            position: Some(SourcePosition {
                stream: self.binding.stream.clone(),
                incarnation,
                sequence,
            }),
        };
        let engine = Arc::clone(&self.engine);
        self.engine.work.spawn(async move {
            let appended = engine
                .append(&id, LogKind::Started, started.to_json())
                .await;
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

    fn finish(&self, frontier: &mut Frontier, done: &Done) {
        match done.appended {
            Appended::Existing => self.change(done.partition, |counters| counters.existing += 1),
            Appended::Stored | Appended::Refused => {}
            // The position stays below it: whoever owns the partition next starts it.
            Appended::Abandoned => return,
        }
        let reached = frontier.end(done.partition, done.sequence);
        self.change(done.partition, |counters| {
            counters.position = counters.position.max(reached)
        });
    }

    fn move_on(&self, frontier: &mut Frontier, of: u16, sequence: u64, incarnation: &str) {
        let reached = frontier.pass(of, sequence);
        self.count(of, incarnation, |counters| {
            counters.position = counters.position.max(reached)
        });
    }

    fn count(&self, of: u16, incarnation: &str, change: impl FnOnce(&mut TriggerCounters)) {
        self.change(of, |counters| {
            if counters.incarnation.is_empty() {
                incarnation.clone_into(&mut counters.incarnation);
            }
            change(counters);
        });
    }

    fn change(&self, of: u16, change: impl FnOnce(&mut TriggerCounters)) {
        self.engine.tally.change(of, |counters| {
            change(counters.triggers.entry(self.key.clone()).or_default())
        });
    }

    /// Sets an event aside, with its reason. Tried until it is stored: the position must not pass it before.
    async fn park(&self, message: &StoredMessage, of: u16, reason: &str) {
        let prefix = self.engine.resource.parked_prefix(&self.engine.root);
        let mut headers = HeaderMap::new();
        for (name, value) in message
            .headers
            .as_ref()
            .map(header_pairs)
            .unwrap_or_default()
        {
            // The server's own headers would mean something to it again.
            if !name.to_ascii_lowercase().starts_with("nats-") {
                headers.append(name, value);
            }
        }
        let reason = reason.replace(['\r', '\n'], " ");
        headers.insert("Tidemill-Reason", reason.as_str());
        headers.insert("Tidemill-Stream", self.key.as_str());
        headers.insert("Tidemill-Subject", message.subject.as_str());
        headers.insert("Tidemill-Sequence", message.sequence.to_string());
        tracing::error!(stream = %self.key, sequence = message.sequence, reason, "a trigger event is parked");
        loop {
            let publish = Publish {
                headers: headers.clone(),
                // Parked twice it would be listed twice.
                expected_last_subject_sequence: Some(0),
                ..Publish::new(
                    format!("{prefix}.{of}.{}", message.sequence),
                    message.payload.clone(),
                )
            };
            match self.engine.publisher.publish(publish).await.await {
                Ok(_) | Err(tidemill_nats::PublishError::Conflict) => return,
                Err(error) => {
                    tracing::warn!(%error, "parking is tried again");
                    tokio::select! {
                        () = tokio::time::sleep(PAUSE * 5) => {}
                        () = self.engine.shutdown.cancelled() => return,
                    }
                }
            }
        }
    }
}

fn compile(trigger: &Trigger) -> Result<CompiledTrigger, CompileError> {
    let scope = Scope::new(&["event"]);
    Ok(CompiledTrigger {
        event_type: trigger.event_type.clone(),
        when: trigger
            .when
            .as_deref()
            .map(|source| Expression::compile(source, &scope))
            .transpose()?,
        id: Expression::compile(&trigger.id, &scope)?,
    })
}

impl Frontier {
    fn begin(&mut self, of: u16, sequence: u64) {
        self.under_way.entry(of).or_default().insert(sequence);
    }

    /// A start is done; gives the position that the partition has reached.
    fn end(&mut self, of: u16, sequence: u64) -> u64 {
        let under_way = self.under_way.entry(of).or_default();
        under_way.remove(&sequence);
        under_way.first().map_or(sequence, |first| first - 1)
    }

    /// An event without a start; gives the position that the partition has reached.
    fn pass(&mut self, of: u16, sequence: u64) -> u64 {
        self.under_way
            .get(&of)
            .and_then(BTreeSet::first)
            .map_or(sequence, |first| first - 1)
    }
}
