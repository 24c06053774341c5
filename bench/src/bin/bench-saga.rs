//! `make bench-saga`: how many saga instances a worker carries through, and how quickly.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::{Map, Value as Json, json};
use std::collections::HashSet;
use std::time::Duration;
use tidemill_bench::ledger::{STATS_SUBJECT, Tally};
use tidemill_bench::saga_load::{End, Figures, Load, is_refused, run};
use tidemill_bench::{raw, say};
use tidemill_core::definition::{
    Action, Compensation, HttpMethod, OnUnknown, PublishDefinition, Replies, SEMANTICS,
    SagaDefinition, StepDefinition, StreamRef, Trigger,
};
use tidemill_core::json::{Object, Value};
use tidemill_core::retry::Retry;
use tidemill_core::status::SagaCounters;
use tidemill_nats::{ReadFrom, Reader};
use tidemill_testbed::{Lab, NatsServer, Process, eventually};

/// Measures sagas of three request steps on this machine: server, worker, participants and load are processes on loopback.
#[derive(Parser)]
struct Args {
    /// Instances measured at 256 in flight; the other runs take a share of it.
    #[arg(long, default_value_t = 40_000)]
    instances: usize,
    /// Instances in flight of the headline figure.
    #[arg(long, default_value_t = 256)]
    in_flight: usize,
    /// Bytes of padding in each event's data and in each request.
    #[arg(long, default_value_t = 256)]
    payload: usize,
    /// Percent of instances refused at the last step, in the run that refuses.
    #[arg(long, default_value_t = 10)]
    refused: u16,
    /// The server syncs every write.
    #[arg(long)]
    fsync: bool,
    /// Only the headline run.
    #[arg(long)]
    headline: bool,
}

/// One way to run the saga.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    in_flight: usize,
    /// Share of `--instances`, as a divisor.
    divisor: usize,
    outcome: bool,
    summaries: bool,
    relayed: bool,
    http: bool,
    refused: u16,
    /// Threads of the server, if not one per core.
    server_threads: Option<usize>,
}

/// Longest wait for a process to be ready.
const WAIT: Duration = Duration::from_secs(30);

// One thread: a message that wakes a second one would be measured with the engine.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let mut shapes = vec![Shape {
        name: "headline",
        ..base(&args)
    }];
    if !args.headline {
        shapes.extend(further_runs(&args));
    }
    let mut runs = Map::new();
    let mut headline = Json::Null;
    for shape in shapes {
        let figures = measure(&args, shape)
            .await
            .with_context(|| format!("run {}", shape.name))?;
        say(&format!("{:30} {figures}", shape.name));
        if shape.name == "headline" {
            headline = figures;
        } else {
            runs.insert(shape.name.to_owned(), figures);
        }
    }
    if let Json::Object(headline) = &mut headline {
        headline.insert("runs".to_owned(), Json::Object(runs));
    }
    println!("{headline}");
    Ok(())
}

fn base(args: &Args) -> Shape {
    Shape {
        name: "",
        in_flight: args.in_flight,
        divisor: 1,
        outcome: false,
        summaries: true,
        relayed: false,
        http: false,
        refused: 0,
        server_threads: None,
    }
}

/// The runs beside the headline.
fn further_runs(args: &Args) -> Vec<Shape> {
    let headline = |name: &'static str, divisor: usize| Shape {
        name,
        divisor,
        ..base(args)
    };
    let one = |name: &'static str| Shape {
        in_flight: 1,
        ..headline(name, 10)
    };
    let some = |name: &'static str| Shape {
        in_flight: 64,
        ..headline(name, 2)
    };
    let with_outcome = |shape: Shape| Shape {
        outcome: true,
        ..shape
    };
    let without_summaries = |shape: Shape| Shape {
        summaries: false,
        ..shape
    };
    let single_threaded_server = |shape: Shape| Shape {
        server_threads: Some(1),
        ..shape
    };
    vec![
        one("in_flight_1"),
        with_outcome(one("outcome_publish_in_flight_1")),
        without_summaries(one("no_summaries_in_flight_1")),
        single_threaded_server(one("server_of_1_thread_in_flight_1")),
        some("in_flight_64"),
        with_outcome(some("outcome_publish_in_flight_64")),
        without_summaries(some("no_summaries_in_flight_64")),
        with_outcome(headline("outcome_publish", 2)),
        without_summaries(headline("no_summaries", 2)),
        single_threaded_server(headline("server_of_1_thread", 2)),
        Shape {
            relayed: true,
            ..headline("relayed", 2)
        },
        Shape {
            http: true,
            ..headline("http", 4)
        },
        Shape {
            refused: args.refused,
            ..headline("refused", 2)
        },
    ]
}

async fn measure(args: &Args, shape: Shape) -> Result<Json> {
    let mut server = NatsServer::builder();
    if args.fsync {
        server = server.sync_always();
    }
    if let Some(threads) = shape.server_threads {
        server = server.threads(threads);
    }
    let server = server.start().await?;
    let mut participants = Process::builder(tidemill_testbed::binaries::program(
        "tidemill-bench",
        "bench-participants",
    )?)
    .args([
        "--nats",
        &server.url(),
        "--refused",
        &shape.refused.to_string(),
    ])
    .name("participants")
    .spawn()?;
    let line = participants
        .wait_for_line("ready", WAIT, |line| line.starts_with("ready"))
        .await?;
    let port = line.rsplit(' ').next().unwrap_or_default().to_owned();
    let mut lab = Lab::on(server, "bench", definition(shape, &port)).await?;
    if !shape.summaries {
        lab = lab.without_summaries();
    }
    let mut worker = lab.worker("bench")?;
    let load = Load {
        tag: "b".to_owned(),
        instances: (args.instances / shape.divisor).max(100),
        warm_up: (args.instances / shape.divisor / 10).max(shape.in_flight * 2),
        in_flight: shape.in_flight,
        payload: args.payload,
        refused: shape.refused,
        ends: ends(shape),
    };
    worker
        .wait_for_line("the log is folded", WAIT, |line| {
            line.contains("the log is folded")
        })
        .await?;
    let figures = run(&lab.nats, &load).await?;
    let total = load.instances + load.warm_up;
    let counters = check(&lab, shape, &load, total).await?;
    let log = lab.nats.stream_state("shop_bench_log").await?;
    let events = lab.nats.stream_state("shop_orders").await?;
    let summaries = lab.nats.stream_state("KV_tidemill_summaries").await?;
    let expected = if shape.summaries { total as u64 } else { 0 };
    ensure!(
        summaries.messages == expected,
        "{} summaries for {total} instances",
        summaries.messages
    );
    let raw = raw::publish_per_s(&lab.nats, 100_000, args.payload).await?;
    let raw_p50 = raw::publish_p50_ms(&lab.nats, 2_000, args.payload).await?;
    let messages = (log.last + events.last + summaries.last) as f64 / total as f64;
    let stored = log.last as f64 / total as f64;
    Ok(report(
        &figures,
        &counters,
        &[
            ("in_flight", json!(shape.in_flight)),
            ("log_messages_per_instance", json!(round(stored))),
            ("messages_per_instance", json!(round(messages))),
            (
                "server_bytes_per_instance",
                json!(((log.bytes + events.bytes + summaries.bytes) as f64 / total as f64).round()),
            ),
            (
                "rss_mib",
                json!({ "worker": round(worker.rss_mib()?), "server": round(lab.server.rss_mib()?) }),
            ),
            ("raw_publish_per_s", json!(raw.round())),
            ("raw_publish_p50_ms", json!(raw_p50)),
            (
                "p50_to_raw_ratio",
                json!(round(figures.latency.p50_ms / raw_p50)),
            ),
            (
                "messages_to_raw_ratio",
                json!(round(figures.instances_per_s * messages / raw)),
            ),
        ],
    ))
}

fn report(figures: &Figures, counters: &SagaCounters, more: &[(&str, Json)]) -> Json {
    let mut object = match serde_json::to_value(figures) {
        Ok(Json::Object(object)) => object,
        _ => Map::new(),
    };
    object.insert(
        "instances_per_s".to_owned(),
        json!(figures.instances_per_s.round()),
    );
    object.insert("completed".to_owned(), json!(counters.completed));
    object.insert("compensated".to_owned(), json!(counters.compensated));
    object.extend(
        more.iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone())),
    );
    Json::Object(object)
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Every instance ended, and ended as it had to: else there is no figure.
async fn check(lab: &Lab, shape: Shape, load: &Load, total: usize) -> Result<SagaCounters> {
    let counters = eventually(
        "every instance finished",
        Duration::from_secs(60),
        || async {
            let counters = lab.counters().await?;
            let done = counters.completed + counters.compensated;
            if done == total as u64 {
                Ok(counters)
            } else {
                Err(anyhow::anyhow!("{counters:?}"))
            }
        },
    )
    .await;
    let refused = (0..total)
        .filter(|index| is_refused(&format!("{}-{index}", load.tag), shape.refused))
        .count();
    ensure!(
        counters.compensated == refused as u64,
        "{} compensated, {refused} were refused",
        counters.compensated
    );
    ensure!(
        counters.started == total as u64 && counters.parked == 0 && counters.running == 0,
        "{counters:?}"
    );
    let told = lab.nats.client().request(STATS_SUBJECT, "".into()).await;
    let told = told.context("what the participants did")?;
    let tally: Tally = serde_json::from_slice(&told.payload)?;
    tally.agrees_with(&counters)?;
    check_outcomes(lab, shape, &counters).await?;
    Ok(counters)
}

/// Each instance has published its outcome, once, if its saga has any.
async fn check_outcomes(lab: &Lab, shape: Shape, counters: &SagaCounters) -> Result<()> {
    for (event_type, ended) in [
        ("OrderConfirmed", counters.completed),
        ("OrderRejected", counters.compensated),
    ] {
        let expected = if shape.outcome { ended } else { 0 };
        let filter = vec![format!("shop.orders.*.{event_type}")];
        let mut reader =
            Reader::open_to_end(&lab.nats, "shop_orders", filter, ReadFrom::First).await?;
        let (mut batch, mut events, mut instances) = (Vec::new(), 0, HashSet::new());
        while reader.next_batch(1024, &mut batch).await? > 0 {
            events += batch.len() as u64;
            instances.extend(batch.drain(..).map(|message| message.subject.to_string()));
        }
        ensure!(
            (events, instances.len() as u64) == (expected, expected),
            "{events} {event_type} of {} instances, {expected} are expected",
            instances.len()
        );
    }
    Ok(())
}

/// Where an instance's end is seen: its outcome's event, or the last answer in the log.
fn ends(shape: Shape) -> Vec<End> {
    let end = |subject: &str, token, refused| End {
        subject: subject.to_owned(),
        token,
        refused,
    };
    if shape.outcome {
        return vec![
            end("shop.orders.*.OrderConfirmed", 2, false),
            end("shop.orders.*.OrderRejected", 2, true),
        ];
    }
    if shape.http {
        return vec![end("_tm.log.shop.bench.*.*.x.ship.a.*", 5, false)];
    }
    vec![
        end("_tm.log.shop.bench.*.*.r.ship.a.*.*", 5, false),
        end("_tm.log.shop.bench.*.*.r.reserve.c.*.*", 5, true),
    ]
}

fn stream() -> StreamRef {
    StreamRef {
        namespace: "shop".to_owned(),
        name: "orders".to_owned(),
    }
}

fn object(entries: &[(&str, &str)]) -> Value {
    Value::Object(
        entries
            .iter()
            .map(|(name, value)| (*name, Value::from(*value)))
            .collect::<Object>(),
    )
}

fn definition(shape: Shape, port: &str) -> SagaDefinition {
    let publish = |event_type: &str| PublishDefinition {
        stream: stream(),
        event_type: event_type.to_owned(),
        entity: Value::from("=input.subject"),
        data: object(&[("total", "=input.data.total")]),
    };
    let (on_completed, on_compensated) = if shape.outcome {
        (
            vec![publish("OrderConfirmed")],
            vec![publish("OrderRejected")],
        )
    } else {
        (Vec::new(), Vec::new())
    };
    let trigger = Trigger {
        stream: stream(),
        event_type: Some("OrderPlaced".to_owned()),
        when: Some("event.data.total > 0".to_owned()),
        id: "event.subject".to_owned(),
    };
    let mut steps = Vec::new();
    for (index, name) in ["reserve", "charge", "ship"].into_iter().enumerate() {
        let after = steps
            .last()
            .map(|step: &StepDefinition| step.name.clone())
            .into_iter()
            .collect();
        let action = |verb: &str| match shape.http {
            true => Action::Http {
                method: HttpMethod::Post,
                url: Value::from(format!("http://127.0.0.1:{port}/{verb}").as_str()),
                headers: Default::default(),
                body: object(&[
                    ("order", "=input.data.orderId"),
                    ("note", "=input.data.note"),
                ]),
            },
            false => Action::Request {
                subject: format!("bench.{name}.{verb}"),
                data: object(&[
                    ("order", "=input.data.orderId"),
                    ("note", "=input.data.note"),
                ]),
            },
        };
        let retry = Retry::default();
        steps.push(StepDefinition {
            name: name.to_owned(),
            after,
            when: None,
            action: action("do"),
            compensation: (index < 2).then(|| Compensation {
                action: action("undo"),
                timeout_ms: 5_000,
                step_timeout_ms: 300_000,
                retry,
            }),
            timeout_ms: 5_000,
            step_timeout_ms: 300_000,
            retry,
            pivot: false,
            on_unknown: OnUnknown::Compensate,
        });
    }
    SagaDefinition {
        semantics: SEMANTICS,
        triggers: vec![trigger],
        steps,
        on_completed,
        on_compensated,
        timeout_ms: 3_600_000,
        replies: if shape.relayed {
            Replies::Relayed
        } else {
            Replies::Direct
        },
    }
}
