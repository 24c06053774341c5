//! A server with everything a projection needs, events, and what the rows must be.

use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::contract::{Connection, Contract, ProjectionWorkload, StreamBinding, Workload};
use tidemill_core::definition::{ProjectionDefinition, ProjectionPolicy, Start, StreamRef};
use tidemill_core::envelope::Event;
use tidemill_core::json::Value;
use tidemill_core::names::{COUNTERS_BUCKET, Kind, ResourceId, decode_token};
use tidemill_core::projection::{Folded, Position, Projection, Row};
use tidemill_core::status::ProjectionCounters;
use tidemill_core::timestamp::Timestamp;
use tidemill_nats::provision::{Mark, Outcome, StreamPlan, ensure};
use tidemill_nats::{HeaderMap, KvBucket, KvEntry, Nats, Publish, Publisher};
use tidemill_testbed::NatsServer;
use tidemill_testbed::wait::within;
use tidemill_worker_projection::{Options, RunError, run_with};
use tidemill_worker_runtime::control::{self, AskError};
use tidemill_worker_runtime::{Health, Metrics, WorkerContext};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest wait for anything; with a bug planted, most waits are in vain.
pub(crate) const CAP: Duration = match cfg!(feature = "planted-bugs") {
    true => Duration::from_secs(15),
    false => Duration::from_secs(60),
};
pub(crate) const PREFIX: &str = "shop.orders";

pub(crate) fn stream_ref(name: &str) -> StreamRef {
    StreamRef {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    }
}

pub(crate) fn resource() -> ResourceId {
    ResourceId::new(Kind::Projection, "shop", "order-status")
}

/// A server, its streams, and what was published.
pub(crate) struct World {
    pub(crate) server: NatsServer,
    pub(crate) nats: Nats,
    pub(crate) publisher: Publisher,
    pub(crate) policy: ProjectionPolicy,
    pub(crate) starts: Vec<Start>,
    pub(crate) bindings: Vec<StreamBinding>,
    /// What was published to `orders`, with its sequence.
    pub(crate) published: Vec<(u64, Event)>,
}

impl World {
    pub(crate) async fn start() -> World {
        World::on(NatsServer::start().await.unwrap()).await
    }

    pub(crate) async fn on(server: NatsServer) -> World {
        #[cfg(feature = "planted-bugs")]
        tidemill_testbed::planted::plant_as_told().unwrap();
        let nats = Nats::connect(&Connection::plain(&server.url()), "test")
            .await
            .unwrap();
        let mark = Mark::of("dev", &resource(), "rows-1");
        let mut plans = StreamPlan::shared_buckets("shared-1").to_vec();
        plans.push(StreamPlan::rows(&resource(), mark.clone()));
        plans.push(StreamPlan::parked(&resource(), "_tm", mark));
        for plan in plans {
            assert_eq!(ensure(&nats, &plan).await.unwrap(), Outcome::Created);
        }
        let publisher = Publisher::new(&nats, 1000);
        let mut world = World {
            server,
            nats,
            publisher,
            policy: ProjectionPolicy::default(),
            starts: Vec::new(),
            bindings: Vec::new(),
            published: Vec::new(),
        };
        world.add_stream("orders", "orders-1").await;
        world
    }

    /// Makes an EventStream's stream, subjects `shop.<name>.>`.
    pub(crate) async fn add_stream(&mut self, name: &str, incarnation: &str) {
        let mark = Mark::event_stream("dev", "shop", name, incarnation);
        let plan = StreamPlan::new(
            &format!("shop_{name}"),
            vec![format!("shop.{name}.>")],
            mark,
        );
        assert_eq!(ensure(&self.nats, &plan).await.unwrap(), Outcome::Created);
        self.bindings
            .retain(|binding| binding.stream != stream_ref(name));
        self.bindings.push(StreamBinding {
            stream: stream_ref(name),
            name: format!("shop_{name}"),
            prefix: format!("shop.{name}"),
            capture: Vec::new(),
        });
    }

    /// Starts the server again after it was stopped or killed. The test goes on with a connection that knows nothing of that.
    pub(crate) async fn restart(&mut self) {
        self.server.restart().await.unwrap();
        self.nats = Nats::connect(&Connection::plain(&self.server.url()), "test")
            .await
            .unwrap();
        self.publisher = Publisher::new(&self.nats, 1000);
    }

    pub(crate) async fn expect_not_ready(&self, worker: &Worker) {
        let ready = within(CAP, async || match worker.health.report() {
            report if report.ready => Err("it is ready"),
            _ => Ok(()),
        });
        ready.await.unwrap();
    }

    pub(crate) fn contract(&self, definition: &ProjectionDefinition) -> Contract {
        let contract = Contract {
            version: 1,
            resource: resource(),
            connection: Connection::plain(&self.server.url()),
            streams: self.bindings.clone(),
            workload: Workload::Projection(ProjectionWorkload {
                definition: definition.clone(),
                policy: self.policy.clone(),
                starts: self.starts.clone(),
                rows_bucket: resource().rows_bucket(),
                parked_stream: resource().parked_stream(),
                suspend: false,
            }),
        };
        Contract::parse(contract.to_json().as_bytes()).unwrap()
    }

    /// Starts a worker in this process, with a connection of its own.
    pub(crate) async fn worker(&self, pod: &str, definition: &ProjectionDefinition) -> Worker {
        self.worker_with(pod, definition, Options::default()).await
    }

    pub(crate) async fn worker_with(
        &self,
        pod: &str,
        definition: &ProjectionDefinition,
        options: Options,
    ) -> Worker {
        let context = self.context(pod, definition).await;
        let (shutdown, health) = (context.shutdown.clone(), context.health.clone());
        Worker {
            shutdown,
            health,
            task: Some(tokio::spawn(run_with(context, options))),
        }
    }

    /// What a worker is given, a connection of its own among it.
    pub(crate) async fn context(
        &self,
        pod: &str,
        definition: &ProjectionDefinition,
    ) -> WorkerContext {
        WorkerContext {
            contract: Arc::new(self.contract(definition)),
            nats: Nats::connect(&Connection::plain(&self.server.url()), pod)
                .await
                .unwrap(),
            pod: pod.to_owned(),
            health: Health::new(),
            metrics: Metrics::new(),
            shutdown: CancellationToken::new(),
        }
    }

    /// Publishes an event to `orders`.
    pub(crate) async fn publish(&mut self, event: Event) {
        self.publish_all(vec![event]).await;
    }

    /// Publishes events to `orders` in order.
    pub(crate) async fn publish_all(&mut self, events: Vec<Event>) {
        let sequences = self.publish_to(PREFIX, &events).await;
        self.published.extend(sequences.into_iter().zip(events));
    }

    /// Publishes events in order; gives their sequences.
    pub(crate) async fn publish_to(&self, prefix: &str, events: &[Event]) -> Vec<u64> {
        let mut acks = Vec::new();
        for event in events {
            let encoded = event.encode(prefix).unwrap();
            let mut headers = HeaderMap::new();
            for (name, value) in &encoded.headers {
                headers.insert(name.as_str(), value.as_str());
            }
            let message = Publish {
                headers,
                ..Publish::new(encoded.subject, encoded.payload)
            };
            acks.push(self.publisher.publish(message).await);
        }
        let mut sequences = Vec::new();
        for ack in acks {
            sequences.push(ack.await.unwrap().sequence);
        }
        sequences
    }

    pub(crate) fn rows_bucket(&self) -> KvBucket {
        KvBucket::new(&self.publisher, &resource().rows_bucket())
    }

    pub(crate) async fn live(&self) -> Option<String> {
        let entry = self.rows_bucket().get("live").await.unwrap()?;
        Some(String::from_utf8(entry.value.to_vec()).unwrap())
    }

    /// Entries of the rows that readers see, by key.
    pub(crate) async fn entries(&self) -> BTreeMap<String, KvEntry> {
        let Some(live) = self.live().await else {
            return BTreeMap::new();
        };
        let entries = self.rows_bucket().entries(&live).await.unwrap();
        let rows = entries.into_iter().filter_map(|(key, entry)| {
            let token = key.strip_prefix(&format!("{live}."))?;
            Some((decode_token(token).ok()?, entry))
        });
        rows.collect()
    }

    /// The rows that readers see.
    pub(crate) async fn rows(&self) -> BTreeMap<String, String> {
        let rows = self
            .entries()
            .await
            .into_iter()
            .filter(|(_, entry)| !entry.deleted);
        rows.map(|(key, entry)| (key, String::from_utf8(entry.value.to_vec()).unwrap()))
            .collect()
    }

    /// Waits until the rows that readers see are these.
    pub(crate) async fn expect_rows(&self, what: &str, expected: &BTreeMap<String, String>) {
        let seen = within(CAP, async || match self.rows().await {
            rows if rows == *expected => Ok(()),
            rows => Err(difference(&rows, expected)),
        });
        if let Err(last) = seen.await {
            panic!("{what}: {last}");
        }
    }

    pub(crate) async fn expect_reference(&self, what: &str, definition: &ProjectionDefinition) {
        self.expect_rows(what, &reference(definition, &self.published))
            .await;
    }

    /// Sums of the counters of all partitions.
    pub(crate) async fn counters(&self) -> ProjectionCounters {
        let bucket = KvBucket::new(&self.publisher, COUNTERS_BUCKET);
        let mut sum = ProjectionCounters::default();
        for partition in 0..64 {
            let key = format!("{}.{partition}", resource().key_prefix());
            let Some(entry) = bucket.get(&key).await.unwrap() else {
                continue;
            };
            let counters: ProjectionCounters = serde_json::from_slice(&entry.value).unwrap();
            sum.revision = counters.revision;
            sum.seen += counters.seen;
            sum.matched += counters.matched;
            sum.skipped += counters.skipped;
            sum.left_out += counters.left_out;
            sum.folded += counters.folded;
            sum.puts += counters.puts;
            sum.parked_keys += counters.parked_keys;
            sum.sources = counters.sources;
            sum.gone = sum.gone.max(counters.gone);
        }
        sum
    }

    pub(crate) async fn expect_counters(
        &self,
        what: &str,
        check: impl Fn(&ProjectionCounters) -> bool,
    ) {
        let seen = within(CAP, async || match self.counters().await {
            counters if check(&counters) => Ok(()),
            counters => Err(format!("{counters:?}")),
        });
        if let Err(last) = seen.await {
            panic!("{what}: {last}");
        }
    }

    pub(crate) async fn ask(
        &self,
        verb: &str,
        body: serde_json::Value,
    ) -> Result<serde_json::Value, AskError> {
        let mut answer = control::ask(&self.nats, &resource(), verb, &body, CAP).await?;
        Ok(answer["ok"].take())
    }

    /// Asks until a worker answers: it may just be starting.
    pub(crate) async fn status(&self) -> serde_json::Value {
        let asked = within(CAP, async || self.ask("status", json!(null)).await);
        asked.await.unwrap()
    }

    pub(crate) async fn expect_status(
        &self,
        what: &str,
        check: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        let seen = within(CAP, async || match self.status().await {
            status if check(&status) => Ok(status),
            status => Err(status.to_string()),
        });
        seen.await.unwrap_or_else(|last| panic!("{what}: {last}"))
    }

    /// Waits until it stands still for a reason.
    pub(crate) async fn expect_stopped(&self, reason: &str) -> serde_json::Value {
        self.expect_status(reason, |status| status["stopped"]["reason"] == reason)
            .await
    }
}

fn difference(rows: &BTreeMap<String, String>, expected: &BTreeMap<String, String>) -> String {
    let wrong: Vec<String> = expected
        .iter()
        .filter(|(key, value)| rows.get(*key) != Some(value))
        .take(3)
        .map(|(key, value)| format!("{key}: {:?} instead of {value}", rows.get(key)))
        .collect();
    let more: Vec<&String> = rows
        .keys()
        .filter(|key| !expected.contains_key(*key))
        .take(3)
        .collect();
    format!(
        "{} rows of {}; {wrong:?}; not expected: {more:?}",
        rows.len(),
        expected.len()
    )
}

/// A worker in this process.
pub(crate) struct Worker {
    shutdown: CancellationToken,
    pub(crate) health: Health,
    task: Option<JoinHandle<Result<(), RunError>>>,
}

impl Worker {
    /// Lets it finish and hand over.
    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        self.task.take().unwrap().await.unwrap().unwrap();
    }

    /// It is gone from one moment to the next, with what it had in memory and not sent.
    pub(crate) async fn kill(mut self) {
        let task = self.task.take().unwrap();
        task.abort();
        let _ = task.await;
        self.shutdown.cancel();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        self.shutdown.cancel();
    }
}

pub(crate) fn definition(handlers: serde_json::Value) -> ProjectionDefinition {
    let mut definition = ProjectionDefinition::new(vec![stream_ref("orders")], "event.subject");
    definition.handlers = serde_json::from_value(handlers).unwrap();
    definition
}

pub(crate) fn event(event_type: &str, entity: &str, data: serde_json::Value) -> Event {
    Event {
        id: format!("{event_type}-{entity}-{data}"),
        source: "/test".to_owned(),
        event_type: event_type.to_owned(),
        subject: Some(entity.to_owned()),
        time: None,
        extensions: BTreeMap::new(),
        data: Value::parse(data.to_string().as_bytes()).unwrap(),
        stored_at: Timestamp::from_millis(0),
    }
}

/// The rows that a definition makes of events, folded one by one in memory. Events that fail are left out.
pub(crate) fn reference(
    definition: &ProjectionDefinition,
    events: &[(u64, Event)],
) -> BTreeMap<String, String> {
    let projection = Projection::compile(definition).unwrap();
    let mut rows: BTreeMap<Box<str>, Row> = BTreeMap::new();
    for (sequence, event) in events {
        for touch in projection.touches(0, event) {
            let row = rows.entry(touch.token.clone()).or_insert_with(Row::missing);
            let position = Position {
                generation: 0,
                sequence: *sequence,
            };
            let folded = projection.fold(row, &touch, 0, position, event);
            assert_ne!(folded, Ok(Folded::Passed));
        }
    }
    let existing = rows.into_iter().filter(|(_, row)| row.exists());
    existing
        .map(|(token, row)| (decode_token(&token).unwrap(), row.value()))
        .collect()
}

/// A seeded stream of numbers.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// Handlers in which every kind of effect occurs, and events of another row.
pub(crate) fn orders() -> ProjectionDefinition {
    definition(json!([
        {"type": "OrderPlaced", "set": {"status": "placed", "total": "=event.data.total", "customer": "=event.data.customer"}},
        {"type": "OrderPlaced", "key": "'customer ' + event.data.customer", "increment": {"orders": 1, "spent": "=event.data.total"}},
        {"type": "OrderPaid", "set": {"status": "paid"}, "increment": {"payments": 1}},
        {"type": "OrderPurged", "delete": true},
        {"type": "OrderNoted", "when": "event.data.total > 50", "set": {"note": "=event.data.total", "before": "=has(row.note) ? row.note : null"}},
    ]))
}

/// Events for [`orders`], of which one in ten matches no handler.
pub(crate) fn order_events(dice: &mut Dice, count: usize, orders: u64) -> Vec<Event> {
    let mut events = Vec::new();
    for _ in 0..count {
        let order = format!("o {}", dice.roll(orders));
        let cents = dice.roll(10_000);
        let total: serde_json::Value =
            serde_json::from_str(&format!("{}.{:02}", cents / 100, cents % 100)).unwrap();
        let data = json!({"total": total, "customer": format!("c{}", dice.roll(orders / 4 + 1))});
        let kind = match dice.roll(10) {
            0..=3 => "OrderPlaced",
            4..=6 => "OrderPaid",
            7 => "OrderPurged",
            8 => "OrderNoted",
            _ => "OrderSeen",
        };
        events.push(event(kind, &order, data));
    }
    events
}
