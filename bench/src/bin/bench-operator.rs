//! `make bench-operator`: how soon an operator has made what was applied, and what it costs when nothing happens.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::CustomResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tidemill_bench::requests::Requests;
use tidemill_bench::say;
use tidemill_crds::eventstream::EventStream;
use tidemill_crds::projection::Projection;
use tidemill_crds::saga::Saga;
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
            anyhow::Ok(begin.elapsed())
        },
        async {
            ready.await?;
            anyhow::Ok(begin.elapsed())
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
    operator.stop().await?;

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

/// An operator's process, and where it shows its metrics.
struct Operator {
    process: Process,
    ready_file: std::path::PathBuf,
}

impl Operator {
    fn rss_mib(&self) -> Result<f64> {
        Ok(self.process.rss_mib()?)
    }

    /// Ends it as an upgrade would.
    async fn stop(mut self) -> Result<()> {
        self.process.terminate()?;
        self.process.wait_exit(READY_MAX).await?;
        Ok(())
    }

    /// Reconciles of EventStreams that came to their end since it was started.
    async fn reconciles(&self) -> Result<u64> {
        let address = std::fs::read_to_string(&self.ready_file).context("it isn't up yet")?;
        let metrics = get(address.trim(), "/metrics").await?;
        let line = metrics.lines().find_map(|line| {
            let labels =
                "tidemill_operator_reconciles_total{kind=\"EventStream\",result=\"done\"} ";
            line.strip_prefix(labels)
        });
        Ok(line.map_or(Ok(0), str::parse)?)
    }
}

/// The body of an answer over plain HTTP.
async fn get(address: &str, path: &str) -> Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut connection = tokio::net::TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    let body = answer.split_once("\r\n\r\n").context("no HTTP")?.1;
    Ok(body.to_owned())
}

impl World {
    async fn start(args: Args) -> Result<World> {
        say("starting etcd, kube-apiserver and nats-server");
        let (plane, nats) = tokio::join!(ControlPlane::start(), NatsServer::start());
        let (plane, nats) = (plane?, nats?);
        let kinds = [EventStream::crd(), Projection::crd(), Saga::crd()];
        plane.install(kinds).await?;
        let client = plane.client().await?;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}}))?;
        namespaces
            .create(&PostParams::default(), &namespace)
            .await?;
        let config = tempfile::tempdir()?;
        let text = json!({"nats": {"servers": [nats.url()]}, "workers": {"image": "worker"}});
        std::fs::write(config.path().join("config.yaml"), text.to_string())?;
        Ok(World {
            plane,
            nats,
            client,
            config,
            args,
        })
    }

    fn operator(&self, pod: &str) -> Result<Operator> {
        let ready_file = self.config.path().join(pod);
        let process = Process::builder(program("tidemill-operator", "tidemill-operator")?)
            .arg("--config")
            .arg(self.config.path().join("config.yaml"))
            .args([
                "--listen",
                "127.0.0.1:0",
                "--namespace",
                "default",
                "--pod",
                pod,
            ])
            .arg("--ready-file")
            .arg(&ready_file)
            .env("KUBECONFIG", self.plane.kubeconfig())
            .env("TIDEMILL_LOG", "warn")
            .spawn()?;
        Ok(Operator {
            process,
            ready_file,
        })
    }

    async fn requests(&self) -> Result<Requests> {
        Requests::of(&self.client).await
    }

    fn streams(&self) -> Api<EventStream> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    async fn apply(&self) -> Result<()> {
        let streams = self.streams();
        stream::iter(0..self.args.streams)
            .map(|number| {
                let streams = streams.clone();
                async move {
                    let name = format!("stream-{number}");
                    let manifest = json!({
                        "apiVersion": "tidemill.dev/v1alpha1",
                        "kind": "EventStream",
                        "metadata": {"name": name},
                        "spec": {"limits": {"maxAge": "720h"}},
                    });
                    let params = PatchParams::apply("bench");
                    streams.patch(&name, &params, &Patch::Apply(manifest)).await
                }
            })
            .buffer_unordered(self.args.at_once)
            .try_for_each(|_| async { Ok(()) })
            .await?;
        Ok(())
    }

    /// Follows the streams until all are ready: one watch, so that waiting costs little.
    async fn all_ready(&self) -> Result<()> {
        let events = watcher(self.streams(), watcher::Config::default()).applied_objects();
        let mut events = std::pin::pin!(events);
        let mut ready = BTreeSet::new();
        let wait = async {
            while ready.len() < self.args.streams {
                let stream = events.try_next().await?.context("the watch ended")?;
                if is_ready(&stream) {
                    ready.insert(stream.metadata.name);
                }
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(READY_MAX, wait)
            .await
            .context("not all are ready")?
    }

    /// Waits until a new operator has looked at every stream.
    async fn settled(&self, operator: &Operator) -> Result<()> {
        let wanted = self.args.streams as u64;
        let settled = within(READY_MAX, async || {
            let done = operator
                .reconciles()
                .await
                .map_err(|error| error.to_string())?;
            match done >= wanted {
                true => Ok(()),
                false => Err(format!("{done} of {wanted} streams were looked at")),
            }
        });
        settled.await.map_err(anyhow::Error::msg)
    }

    /// Events into every stream, round by round, for the busy time; how many they were.
    async fn publish(&self) -> Result<u64> {
        let nats = self.nats.client().await?;
        let end = Instant::now() + Duration::from_secs(self.args.busy);
        let mut published = 0;
        while Instant::now() < end {
            for number in 0..self.args.streams {
                let subject = format!("{NAMESPACE}.stream-{number}.entity.type");
                nats.publish(subject, "{}".into()).await?;
                published += 1;
            }
            nats.flush().await?;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Ok(published)
    }

    /// The figures come to rest at what the streams hold.
    async fn check(&self, operator: &Operator) -> Result<()> {
        let jetstream = async_nats::jetstream::new(self.nats.client().await?);
        let mut wrong = 0;
        for stream in self.streams().list(&ListParams::default()).await?.items {
            let name = stream
                .status
                .and_then(|status| status.effective)
                .context("no status")?;
            let found = jetstream.get_stream(&name.stream_name).await?;
            wrong += usize::from(found.cached_info().state.messages == 0);
        }
        ensure!(wrong == 0, "{wrong} streams hold nothing");
        ensure!(operator.reconciles().await? > 0, "the operator is silent");
        Ok(())
    }
}

fn is_ready(stream: &EventStream) -> bool {
    let status = stream.status.as_ref();
    let mut conditions = status.iter().flat_map(|status| &status.conditions);
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
