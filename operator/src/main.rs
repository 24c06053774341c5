//! The program `tidemill-operator`.

use anyhow::Context;
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tidemill_core::contract::Connection;
use tidemill_nats::Nats;
use tidemill_operator::config::Config;
use tidemill_operator::credentials::{self, Issue, Issuer};
use tidemill_operator::runtime::Runtime;
use tidemill_service::telemetry::{self, LogFormat};
use tidemill_service::{Health, Metrics, http, shutdown};
use tokio_util::sync::CancellationToken;

/// Pause between two tries to make credentials.
const CREDENTIALS_RETRY: Duration = Duration::from_secs(2);

/// Turns EventStreams, Projections and Sagas of Kubernetes into streams and workers.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The configuration: cluster id, NATS, tenancy.
    #[arg(long, env = "TIDEMILL_CONFIG", value_name = "FILE")]
    config: PathBuf,
    /// Address of /livez, /readyz and /metrics; port 0 = any free one.
    #[arg(
        long,
        env = "TIDEMILL_LISTEN",
        default_value = "0.0.0.0:9090",
        value_name = "ADDRESS"
    )]
    listen: String,
    /// Namespace of the operator.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME")]
    namespace: String,
    /// Name of this operator, unique among those that run at the same time.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pod: String,
    /// Form of log lines: json or text. What is logged: TIDEMILL_LOG.
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
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidemill-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: Args) -> anyhow::Result<()> {
    telemetry::init(args.log_format).map_err(anyhow::Error::msg)?;
    let config = Config::read(&args.config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(args, config))
}

async fn run(args: Args, config: Config) -> anyhow::Result<()> {
    let signals = shutdown::on_signals().context("listening to signals")?;
    let (health, metrics) = (Health::new(), Metrics::new());
    health.not_ready(
        "nats",
        format!("connecting to {}", config.nats.servers.join(", ")),
    );
    health.not_ready("operator", "it is starting");
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
    let client = kube::Client::try_default()
        .await
        .context("no way to the API server")?;
    let name = format!("tidemill-operator {}", args.pod);
    let connecting = async {
        let (issuer, connection, credentials) = match &config.credentials {
            None => (None, config.nats.clone(), None),
            Some(issue) => {
                let issuer = issuer(&client, &args.namespace, issue, &config.nats, &health).await;
                let (connection, credentials) = issuer.operator()?;
                (Some(issuer), connection, Some(credentials))
            }
        };
        let nats = Nats::connect_waiting_with(&connection, credentials.as_ref(), &name).await?;
        anyhow::Ok((issuer, nats))
    };
    let (issuer, nats) = tokio::select! {
        connected = connecting => connected?,
        () = signals.cancelled() => return Ok(()),
    };
    let runtime = Runtime {
        client,
        nats,
        config,
        issuer,
        namespace: args.namespace,
        pod: args.pod,
        health,
        metrics,
    };
    runtime.run(signals).await;
    serving.cancel();
    Ok(())
}

/// Has the Secrets with credentials of NATS made, trying until they are there.
async fn issuer(
    client: &kube::Client,
    namespace: &str,
    issue: &Issue,
    connection: &Connection,
    health: &Health,
) -> Issuer {
    let mut said = String::new();
    loop {
        match credentials::prepare(client.clone(), namespace, issue, connection).await {
            Ok(issuer) => {
                health.ready("credentials");
                return issuer;
            }
            Err(error) => {
                let text = error.to_string();
                if text != said {
                    tracing::error!(error = %text, "credentials of NATS can't be made");
                    health.not_ready("credentials", text.clone());
                    said = text;
                }
            }
        }
        tokio::time::sleep(CREDENTIALS_RETRY).await;
    }
}
