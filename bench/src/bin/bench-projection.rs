//! `make bench-projection`: how quickly a projection catches up, and how soon an event is seen in its row.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};
use tidemill_bench::latency::Percentiles;
use tidemill_bench::projection_load::{Expected, Mixture, Planned, publish_one};
use tidemill_bench::say;
use tidemill_core::control::{ProjectionStatus, projection_verb};
use tidemill_core::decimal::Decimal;
use tidemill_core::definition::{Handler, ProjectionDefinition};
use tidemill_core::json::Value;
use tidemill_nats::kv::subject_of;
use tidemill_nats::provision::{Mark, StreamPlan, ensure as ensure_stream};
use tidemill_nats::{KvBucket, KvWrite, Nats, Publisher, ReadFrom, Reader};
use tidemill_testbed::{Lab, NatsServer, lab};

/// Measures a projection into KV on this machine: server, worker and load are processes on loopback.
#[derive(Parser)]
struct Args {
    /// Events of the catch-up.
    #[arg(long, default_value_t = 1_000_000)]
    events: usize,
    /// Percent of as many events that a projection of its own folds before, on the same server; its streams are deleted then.
    #[arg(long, default_value_t = 5)]
    warm_up: usize,
    /// Distinct keys.
    #[arg(long, default_value_t = 250_000)]
    keys: usize,
    /// Bytes of padding in each event; with 180 an event has about 400 in all.
    #[arg(long, default_value_t = 180)]
    padding: usize,
    /// Events of the measurement of visible latency, at 1,000 a second.
    #[arg(long, default_value_t = 10_000)]
    paced: usize,
    /// Decides the events.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The server syncs every write.
    #[arg(long)]
    fsync: bool,
}

/// Longest catch-up.
const CATCH_UP_MAX: Duration = Duration::from_secs(600);

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let mut server = NatsServer::builder();
    if args.fsync {
        server = server.sync_always();
    }
    let lab = Lab::projection(server.start().await?, "warm", definition()).await?;
    warm_up(&lab, &args).await?;
    let lab = lab.another_projection("bench", definition()).await?;
    let mixture = Mixture {
        seed: args.seed,
        events: args.events,
        keys: args.keys,
        padding: args.padding,
    };
    say(&format!("publishing {} events", args.events));
    mixture.publish(&lab.nats).await?;
    let state = lab.nats.stream_state("shop_orders").await?;
    let event_bytes = state.bytes / state.messages.max(1);

    say("reading them alone");
    let raw_read = raw_read(&lab.nats).await?;
    say("the projection catches up");
    let begin = Instant::now();
    let worker = lab.worker("bench")?;
    let status = wait_for(&lab, state.last).await?;
    let seconds = begin.elapsed().as_secs_f64();
    let rss = worker.rss_mib()?;
    say("checking its rows");
    let rows = check(&lab, &status, &mixture).await?;
    let puts = lab.nats.stream_state("KV_shop_bench_rows").await?.last;
    say(&format!(
        "{rows} rows are right; {} events at 1,000 a second",
        args.paced
    ));
    let visible = visible(&lab, &status, &args).await?;
    let raw_put = raw_put(&lab.nats, args.keys.min(250_000)).await?;

    let events_per_s = args.events as f64 / seconds;
    let kv = json!({
        "events_per_s": events_per_s.round(),
        "puts_per_event": round(puts as f64 / args.events as f64),
        "visible": visible,
        "rss_mib": { "worker": round(rss), "server": round(lab.server.rss_mib()?) },
    });
    println!(
        "{}",
        json!({
            "events_per_s": events_per_s.round(),
            "sinks": { "kv": kv },
            "puts_per_event": round(puts as f64 / args.events as f64),
            "raw_read_per_s": raw_read.round(),
            "raw_put_per_s": raw_put.round(),
            "to_raw_read_ratio": round(events_per_s / raw_read),
            "puts_to_raw_put_ratio": round(puts as f64 / seconds / raw_put),
            "visible": visible,
            "rss_mib": round(rss),
            "events": args.events,
            "keys": args.keys,
            "event_bytes": event_bytes,
            "rows_checked": rows,
        })
    );
    Ok(())
}

/// Warms the server, its disk and the processor up with a projection that is thrown away.
async fn warm_up(lab: &Lab, args: &Args) -> Result<()> {
    let events = args.events * args.warm_up / 100;
    if events == 0 {
        return Ok(());
    }
    say(&format!("warming up with {events} events"));
    let mixture = Mixture {
        seed: args.seed.wrapping_add(1),
        events,
        keys: (args.keys * args.warm_up / 100).max(1),
        padding: args.padding,
    };
    mixture.publish(&lab.nats).await?;
    let last = lab.nats.stream_state("shop_orders").await?.last;
    let worker = lab.worker("warm")?;
    wait_for(lab, last).await?;
    drop(worker);
    let resource = &lab.contract.resource;
    let rows = format!("KV_{}", resource.rows_bucket());
    for stream in ["shop_orders", &rows, &resource.parked_stream()] {
        lab.nats.jetstream().delete_stream(stream).await?;
    }
    Ok(())
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn definition() -> ProjectionDefinition {
    let columns = |columns: &[(&str, &str)]| -> BTreeMap<String, Value> {
        columns
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Value::from(*value)))
            .collect()
    };
    let on = |event_type: &str| Handler {
        event_type: Some(event_type.to_owned()),
        ..Handler::default()
    };
    let mut definition = ProjectionDefinition::new(vec![lab::orders()], "event.subject");
    definition.handlers = vec![
        Handler {
            set: columns(&[
                ("status", "placed"),
                ("customer", "=event.data.customer.id"),
                ("total", "=event.data.amount"),
            ]),
            ..on("OrderPlaced")
        },
        Handler {
            when: Some("event.data.amount >= 0".to_owned()),
            set: columns(&[("status", "paid")]),
            increment: [
                ("payments".to_owned(), Value::from(1_i64)),
                ("paid".to_owned(), Value::from("=event.data.amount")),
            ]
            .into(),
            ..on("OrderPaid")
        },
        Handler {
            delete: true,
            ..on("OrderPurged")
        },
    ];
    definition
}

/// Waits until everything up to `last` is folded and stored.
async fn wait_for(lab: &Lab, last: u64) -> Result<ProjectionStatus> {
    let deadline = Instant::now() + CATCH_UP_MAX;
    loop {
        let status: ProjectionStatus = lab.ask(projection_verb::STATUS, &json!({})).await?;
        let position = status
            .sources
            .values()
            .map(|source| source.position)
            .min()
            .unwrap_or(0);
        if position >= last && status.live.is_some() {
            return Ok(status);
        }
        // At the beginning its partitions aren't taken yet.
        let stopped = status
            .stopped
            .filter(|error| error.reason != "NoPartitions");
        ensure!(stopped.is_none(), "it stopped: {stopped:?}");
        ensure!(
            Instant::now() < deadline,
            "at {position} of {last} after {CATCH_UP_MAX:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Compares every row with what it must be; gives their number.
async fn check(lab: &Lab, status: &ProjectionStatus, mixture: &Mixture) -> Result<usize> {
    let live = status.live.clone().context("no live key space")?;
    let expected = mixture.expected();
    let bucket = KvBucket::new(&Publisher::new(&lab.nats, 64), "shop_bench_rows");
    let mut found: HashMap<usize, Expected> = HashMap::new();
    for (key, entry) in bucket.entries(&live).await? {
        let Some(number) = key
            .rsplit('.')
            .next()
            .and_then(|row| row.strip_prefix("k-"))
            .and_then(|n| n.parse().ok())
        else {
            continue;
        };
        if entry.deleted {
            continue;
        }
        let row =
            Value::parse(&entry.value).map_err(|error| anyhow::anyhow!("row {key}: {error}"))?;
        let status = match row.get("status").and_then(Value::as_str) {
            Some("paid") => "paid",
            Some("placed") => "placed",
            other => anyhow::bail!("row {key}: status {other:?}"),
        };
        found.insert(
            number,
            Expected {
                status,
                payments: row.get("payments").and_then(Value::as_i64).unwrap_or(0),
                paid_cents: row.get("paid").map_or(Ok(0), cents)?,
            },
        );
    }
    ensure!(
        found.len() == expected.len(),
        "{} rows, {} are expected",
        found.len(),
        expected.len()
    );
    for (key, row) in &expected {
        ensure!(
            found.get(key) == Some(row),
            "row k-{key} is {:?}, {row:?} is expected",
            found.get(key)
        );
    }
    Ok(found.len())
}

fn cents(value: &Value) -> Result<i64> {
    let text = value.to_json();
    let (whole, part) = text.split_once('.').unwrap_or((&text, "0"));
    let part = format!("{part:0<2}");
    ensure!(
        part.len() == 2 && Decimal::parse(&text).is_ok(),
        "{text} is no sum of cents"
    );
    Ok(whole.parse::<i64>()? * 100 + part.parse::<i64>()?)
}

/// Time from the publish of an event until its row is read with its position, at 1,000 events a second.
async fn visible(lab: &Lab, status: &ProjectionStatus, args: &Args) -> Result<Percentiles> {
    let live = status.live.clone().context("no live key space")?;
    let mut rows = lab
        .nats
        .client()
        .subscribe(subject_of("shop_bench_rows", &format!("{live}.>")))
        .await?;
    lab.nats.client().flush().await?;
    let publisher = Publisher::new(&lab.nats, 1000);
    let paced = args.paced;
    let publishing = tokio::spawn(async move {
        let mut sent = HashMap::with_capacity(paced);
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        for index in 0..paced {
            tick.tick().await;
            // A key for each, so that its row's put is its own.
            let event = Planned {
                key: 10_000_000 + index,
                event_type: "OrderPlaced",
                cents: 100,
            };
            let at = Instant::now();
            publish_one(&publisher, &event, index, "").await?;
            sent.insert(format!("k-{}", event.key), at);
        }
        anyhow::Ok(sent)
    });
    let mut seen: HashMap<String, Instant> = HashMap::with_capacity(paced);
    while seen.len() < paced {
        let message =
            tokio::time::timeout(Duration::from_secs(30), futures::StreamExt::next(&mut rows))
                .await;
        let message = message
            .context("rows don't come")?
            .context("the subscription ended")?;
        let key = message.subject.rsplit('.').next().unwrap_or_default();
        if key.starts_with("k-1") && key.len() == 10 {
            seen.entry(key.to_owned()).or_insert_with(Instant::now);
        }
    }
    let sent = publishing.await??;
    let micros = sent
        .iter()
        .filter_map(|(key, at)| Some(seen.get(key)?.duration_since(*at).as_micros()));
    Ok(Percentiles::of(
        micros
            .map(|micros| u64::try_from(micros).unwrap_or(u64::MAX))
            .collect(),
    ))
}

async fn raw_read(nats: &Nats) -> Result<f64> {
    let begin = Instant::now();
    let mut reader = Reader::open_to_end(nats, "shop_orders", Vec::new(), ReadFrom::First).await?;
    let (mut batch, mut read) = (Vec::new(), 0);
    loop {
        let got = reader.next_batch(1024, &mut batch).await?;
        if got == 0 {
            return Ok(read as f64 / begin.elapsed().as_secs_f64());
        }
        read += got;
        batch.clear();
    }
}

/// Asynchronous puts of rows of the same size into a bucket of their own.
async fn raw_put(nats: &Nats, keys: usize) -> Result<f64> {
    let plan = StreamPlan::bucket(
        "bench_raw",
        Mark::event_stream("bench", "bench", "raw", "1"),
    );
    ensure_stream(nats, &plan).await?;
    let bucket = KvBucket::new(&Publisher::new(nats, 2000), "bench_raw");
    let begin = Instant::now();
    let mut acks = Vec::with_capacity(keys);
    for key in 0..keys {
        let value = Some(bytes::Bytes::from_static(b"{\"customer\":\"c-123\",\"paid\":123.45,\"payments\":1,\"status\":\"paid\",\"total\":543.21}"));
        acks.push(
            bucket
                .send(KvWrite {
                    key: format!("r.k-{key}"),
                    value,
                    ..KvWrite::default()
                })
                .await,
        );
    }
    for ack in acks {
        ack.await?;
    }
    Ok(keys as f64 / begin.elapsed().as_secs_f64())
}
