//! `make bench-operator`: how soon an operator has made what was applied, and what it costs when nothing happens.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tidemill_bench::requests::Requests;
use tidemill_bench::say;
use tidemill_testbed::binaries::program;
use tidemill_testbed::wait::within;
use tidemill_testbed::{NatsServer, Process};
use tidemill_testbed_cluster::ControlPlane;

/// Measures the operator on this machine: etcd, kube-apiserver, nats-server and operator are processes on loopback.
#[derive(Parser)]
struct Args {
    /// EventStreams.
    #[arg(long, default_value_t = 1_000)]
    streams: usize,
    /// EventStreams that are applied at the same time.
    #[arg(long, default_value_t = 8)]
    at_once: usize,
    /// Seconds in which nothing happens; as long it is measured what the API server asks of itself.
    #[arg(long, default_value_t = 120)]
    idle: u64,
    /// Seconds in which every stream gets events all the time.
    #[arg(long, default_value_t = 60)]
    busy: u64,
}

/// Longest wait for all to be ready.
const READY_MAX: Duration = Duration::from_secs(300);
/// Namespace of everything.
const NAMESPACE: &str = "bench";

/// The servers, and an operator that can be restarted.
struct World {
    plane: ControlPlane,
    nats: NatsServer,
    client: kube::Client,
    config: TempDir,
    args: Args,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let world = World::start(args).await?;
    let begin = world.requests().await?;
    say(&format!(
        "{} idle seconds without an operator",
        world.args.idle
    ));
    tokio::time::sleep(Duration::from_secs(world.args.idle)).await;
    // What the API server asks of itself, and this program of it.
    let alone = world.requests().await?.since(&begin);

    let operator = world.operator("a")?;
    say(&format!("applying {} EventStreams", world.args.streams));
    let begin = Instant::now();
    let ready = world.all_ready();
    let (applied, ready) = tokio::try_join!(
        async {
            world.apply().await?;
            Ok(begin.elapsed())
        },
        async {
            ready.await?;
            Ok(begin.elapsed())
        },
    )?;
    say(&format!(
        "applied in {applied:.2?}, all ready in {ready:.2?}"
    ));

    // What was begun comes to its end: the last statuses, events for people.
    tokio::time::sleep(Duration::from_secs(15)).await;
    say(&format!("{} idle seconds", world.args.idle));
    let before = world.requests().await?;
    tokio::time::sleep(Duration::from_secs(world.args.idle)).await;
    let idle = world.requests().await?.since(&before);
    let rss = operator.rss_mib()?;
    drop(operator);

    say("restart");
    let before = world.requests().await?;
    let begin = Instant::now();
    let operator = world.operator("b")?;
    world.settled(&operator).await?;
    let restarted = begin.elapsed();
    let restart = world.requests().await?.since(&before);

    say(&format!("{} busy seconds", world.args.busy));
    let before = world.requests().await?;
    let published = world.publish().await?;
    let busy = world.requests().await?.since(&before);
    let busy_rss = operator.rss_mib()?;
    world.check(&operator).await?;

    let seconds = world.args.idle as f64;
    let figures = json!({
        "n": world.args.streams,
        "apply_s": round(applied.as_secs_f64()),
        "ready_s": round(ready.as_secs_f64()),
        "ready_ratio": round(ready.as_secs_f64() / applied.as_secs_f64()),
        "idle_s": world.args.idle,
        "idle_writes": idle.writes,
        "idle_requests_per_s": round((idle.all as f64 - alone.all as f64) / seconds),
        "idle_lease_writes": idle.lease_writes,
        "restart_s": round(restarted.as_secs_f64()),
        "restart_writes": restart.writes,
        "busy_s": world.args.busy,
        "busy_events": published,
        "busy_writes_per_s": round(busy.writes as f64 / world.args.busy as f64),
        "rss_mib": round(rss),
        "busy_rss_mib": round(busy_rss),
    });
    println!("{figures}");
    Ok(())
}

fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
