//! Participants of the saga bench in a process of their own: over NATS and over HTTP. They answer at once, refuse the
//! given share at the last step, and say what they did when they are asked for it.

use anyhow::Result;
use async_nats::HeaderMap;
use axum::Router;
use axum::extract::State;
use axum::routing::post;
use clap::Parser;
use futures::StreamExt;
use std::sync::{Arc, Mutex, PoisonError};
use tidemill_bench::ledger::{Ledger, STATS_SUBJECT};
use tidemill_bench::saga_load::is_refused;

#[derive(Parser)]
struct Args {
    /// Server.
    #[arg(long)]
    nats: String,
    /// Percent of instances refused at `ship`.
    #[arg(long, default_value_t = 0)]
    refused: u16,
}

// One thread: a message that wakes a second one would be measured with the engine.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let client = async_nats::connect(&args.nats).await?;
    let mut requests = client.subscribe("bench.*.*").await?;
    let mut stats = client.subscribe(STATS_SUBJECT).await?;
    client.flush().await?;
    let ledger: Shared = Arc::default();
    let http = Router::new()
        .route("/do", post(carry_out))
        .route("/undo", post(carry_out))
        .with_state(Arc::clone(&ledger));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("ready {}", listener.local_addr()?.port());
    tokio::spawn(async move { axum::serve(listener, http).await });
    loop {
        let request = tokio::select! {
            biased;
            request = requests.next() => request,
            asked = stats.next() => {
                if let Some(reply) = asked.and_then(|asked| asked.reply) {
                    let tally = serde_json::to_vec(&lock(&ledger).tally())?;
                    client.publish(reply, tally.into()).await?;
                }
                continue;
            }
        };
        let Some(request) = request else {
            return Ok(());
        };
        let Some(reply) = request.reply.clone() else {
            continue;
        };
        let command = request
            .headers
            .as_ref()
            .and_then(|headers| headers.get("Tidemill-Command-Id"));
        let command = command.map_or("", |command| command.as_str());
        let id = command.split('/').nth(2).unwrap_or_default();
        let refused = &*request.subject == "bench.ship.do" && is_refused(id, args.refused);
        lock(&ledger).take(command, refused);
        if refused {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Service-Error", "refused");
            headers.insert("Nats-Service-Error-Code", "422");
            client
                .publish_with_headers(reply, headers, "".into())
                .await?;
        } else {
            client.publish(reply, "{\"done\":true}".into()).await?;
        }
    }
}

type Shared = Arc<Mutex<Ledger>>;

fn lock(ledger: &Shared) -> std::sync::MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn carry_out(State(ledger): State<Shared>, headers: axum::http::HeaderMap) -> &'static str {
    let command = headers.get("idempotency-key");
    let command = command.and_then(|command| command.to_str().ok());
    lock(&ledger).take(command.unwrap_or_default(), false);
    "{\"done\":true}"
}
