//! Participants of the saga bench in a process of their own: over NATS and over HTTP. They answer at once, refuse the
//! given share at the last step, and count what they did.

use anyhow::Result;
use async_nats::HeaderMap;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use clap::Parser;
use futures::StreamExt;
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
    client.flush().await?;
    let http = Router::new()
        .route("/do", post(async || (StatusCode::OK, "{\"done\":true}")))
        .route("/undo", post(async || (StatusCode::OK, "{\"done\":true}")));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("ready {}", listener.local_addr()?.port());
    tokio::spawn(async move { axum::serve(listener, http).await });
    while let Some(request) = requests.next().await {
        let Some(reply) = request.reply.clone() else {
            continue;
        };
        let command = request
            .headers
            .as_ref()
            .and_then(|headers| headers.get("Tidemill-Command-Id"));
        let id = command
            .and_then(|command| command.as_str().split('/').nth(2))
            .unwrap_or_default();
        if &*request.subject == "bench.ship.do" && is_refused(id, args.refused) {
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
    Ok(())
}
