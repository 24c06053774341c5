//! The generic worker: reads one contract file and runs the projection or the saga in it.

use anyhow::Context;
use clap::Parser;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tidemill_core::contract::{CONTRACT_BYTES_MAX, Contract, Workload};
use tidemill_nats::Nats;
use tidemill_worker_runtime::telemetry::{self, LogFormat};
use tidemill_worker_runtime::{Health, Metrics, WorkerContext, http, shutdown};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs one Projection or one Saga of Tidemill.
///
/// It needs no rights on Kubernetes: all it knows is in the contract file. SIGTERM finishes what is in flight, hands over to
/// other workers, and ends with 0.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Example:\n  tidemill-worker --contract contract.json --listen 127.0.0.1:0 --pod orders-0 --log-format text"
)]
struct Args {
    /// The contract: what to run and how NATS is reached.
    #[arg(long, env = "TIDEMILL_CONTRACT", value_name = "FILE")]
    contract: PathBuf,
    /// Address of /livez, /readyz and /metrics; port 0 = any free one.
    #[arg(
        long,
        env = "TIDEMILL_LISTEN",
        default_value = "0.0.0.0:9090",
        value_name = "ADDRESS"
    )]
    listen: String,
    /// Name of this worker, unique among the workers of the same resource; a restarted worker keeps it.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pod: String,
    /// Form of log lines: json or text. What is logged: TIDEMILL_LOG, as in `info,tidemill_worker_saga=debug`.
    #[arg(
        long,
        env = "TIDEMILL_LOG_FORMAT",
        default_value = "json",
        value_name = "FORMAT"
    )]
    log_format: LogFormat,
    /// Write the bound address to this file once it is served.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

pub(crate) fn main() -> ExitCode {
    let args = Args::parse();
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line for people, whatever the log format is.
            eprintln!("tidemill-worker: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: Args) -> anyhow::Result<()> {
    telemetry::init(args.log_format).map_err(anyhow::Error::msg)?;
    let contract = read_contract(&args.contract)?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Workload::Saga(_) = contract.workload {
        // A saga's messages pass through several tasks and wait for the server in between; every hop to another thread wakes
        // a core that sleeps (docs/dev/performance.md). More throughput than one thread gives is what replicas are for.
        runtime.worker_threads(1);
    }
    let runtime = runtime.enable_all().build()?;
    // As a task: what `block_on` runs itself is on a thread of its own, and every message to it would wake that.
    runtime.block_on(runtime.spawn(run(args, contract)))?
}

async fn run(args: Args, contract: Contract) -> anyhow::Result<()> {
    let signals = shutdown::on_signals().context("listening to signals")?;
    let (health, metrics) = (Health::new(), Metrics::new());
    health.not_ready(
        "nats",
        format!("connecting to {}", contract.connection.servers.join(", ")),
    );

    // Served until the very end, so that one sees why a worker isn't ready.
    let serving = CancellationToken::new();
    let bound = http::serve(
        &args.listen,
        health.clone(),
        metrics.clone(),
        serving.clone(),
    )
    .await?;
    if let Some(file) = &args.ready_file {
        http::write_address(file, bound)?;
    }

    let name = format!("tidemill-worker {} {}", contract.resource, args.pod);
    let connection = contract.worker_connection();
    let nats = tokio::select! {
        connected = Nats::connect_waiting(&connection, &name) => connected?,
        () = signals.cancelled() => return Ok(()),
    };
    let context = WorkerContext {
        contract: Arc::new(contract),
        nats,
        pod: args.pod,
        health,
        metrics,
        shutdown: signals.clone(),
    };
    context.show_connection();
    tracing::info!(resource = %context.contract.resource, pod = context.pod, "starting");
    let ended = shutdown::within_grace(&signals, Box::pin(drive(context))).await;
    serving.cancel();
    match ended {
        Some(result) => result,
        None => {
            tracing::warn!("what was in flight wasn't finished in time; others will do it again");
            Ok(())
        }
    }
}

async fn drive(context: WorkerContext) -> anyhow::Result<()> {
    match &context.contract.workload {
        Workload::Projection(_) => Ok(tidemill_worker_projection::run(context).await?),
        Workload::Saga(_) => Ok(tidemill_worker_saga::run(context).await?),
    }
}

fn read_contract(file: &Path) -> anyhow::Result<Contract> {
    let what = || format!("contract {}", file.display());
    let open = std::fs::File::open(file).with_context(what)?;
    let mut bytes = Vec::new();
    // One byte more than allowed is enough to see that it is too large.
    open.take(CONTRACT_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .with_context(what)?;
    Contract::parse(&bytes).with_context(what)
}
