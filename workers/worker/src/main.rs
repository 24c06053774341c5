//! The generic worker: reads one contract file and runs the projection or the saga in it.

use anyhow::Context;
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tidemill_core::contract::{CONTRACT_BYTES_MAX, Contract, Workload};
use tidemill_nats::Nats;
use tidemill_worker_runtime::telemetry::{self, LogFormat};
use tidemill_worker_runtime::{Health, Metrics, WorkerContext, http, shutdown};
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

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

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = telemetry::init(args.log_format) {
        eprintln!("tidemill-worker: {error}");
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("tidemill-worker: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line for people, whatever the log format is.
            eprintln!("tidemill-worker: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let signals = shutdown::on_signals().context("listening to signals")?;
    let contract = read_contract(&args.contract).await?;
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
    let nats = tokio::select! {
        connected = Nats::connect_waiting(&contract.connection, &name) => connected?,
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
    let ended = shutdown::within_grace(&signals, drive(context)).await;
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

async fn read_contract(file: &PathBuf) -> anyhow::Result<Contract> {
    let what = || format!("contract {}", file.display());
    let open = tokio::fs::File::open(file).await.with_context(what)?;
    let mut bytes = Vec::new();
    // One byte more than allowed is enough to see that it is too large.
    open.take(CONTRACT_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .await
        .with_context(what)?;
    Contract::parse(&bytes).with_context(what)
}
