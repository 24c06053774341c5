//! `/livez`, `/readyz` and `/metrics`.

use crate::health::Health;
use crate::metrics::Metrics;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use std::net::SocketAddr;
use std::path::Path;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Why the address can't be served.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Taken, or not an address of this machine.
    #[error("can't listen on {address} (choose another, or port 0 for any free one)")]
    Bind {
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file for the bound address.
    #[error("can't write the address to {file}")]
    File {
        /// Its path.
        file: String,
        /// Why.
        source: std::io::Error,
    },
}

#[derive(Clone)]
struct Shared {
    health: Health,
    metrics: Metrics,
}

/// Serves until `shutdown` is cancelled; gives the address that is bound. With port 0 the system chooses a free one.
///
/// # Errors
/// [`HttpError::Bind`]
pub async fn serve(
    address: &str,
    health: Health,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<SocketAddr, HttpError> {
    let fail = |source| HttpError::Bind {
        address: address.to_owned(),
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(fail)?;
    let bound = listener.local_addr().map_err(fail)?;
    tracing::info!(address = %bound, "serving /livez, /readyz and /metrics");
    let router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .with_state(Shared { health, metrics });
    tokio::spawn(async move {
        let served =
            axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned());
        if let Err(error) = served.await {
            tracing::error!(%error, "the health endpoints ended");
        }
    });
    Ok(bound)
}

/// Writes the bound address for those who started this process: whole or not at all.
///
/// # Errors
/// [`HttpError::File`]
pub fn write_address(file: &Path, bound: SocketAddr) -> Result<(), HttpError> {
    let fail = |source| HttpError::File {
        file: file.display().to_string(),
        source,
    };
    let draft = file.with_extension("draft");
    std::fs::write(&draft, format!("{bound}\n")).map_err(fail)?;
    std::fs::rename(&draft, file).map_err(fail)
}

async fn readyz(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let report = shared.health.report();
    let status = if report.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("json")) {
        let body = json!({ "ready": report.ready, "reasons": report.reasons }).to_string();
        return (status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
    }
    let mut text = if report.ready {
        "ready\n".to_owned()
    } else {
        "not ready\n".to_owned()
    };
    for (condition, reason) in &report.reasons {
        text.push_str(&format!("{condition}: {reason}\n"));
    }
    (status, text).into_response()
}

async fn metrics_text(State(shared): State<Shared>) -> Response {
    match shared.metrics.encode() {
        Ok(text) => {
            let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, format)], text).into_response()
        }
        Err(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "the metrics can't be written\n",
        )
            .into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn ask(address: SocketAddr, path: &str, accept: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn readiness_says_why_not() {
        let (health, shutdown) = (Health::new(), CancellationToken::new());
        let address = serve(
            "127.0.0.1:0",
            health.clone(),
            Metrics::new(),
            shutdown.clone(),
        )
        .await
        .unwrap();
        health.not_ready("nats", "NATS is away");
        let answer = ask(address, "/readyz", "*/*").await;
        assert!(
            answer.starts_with("HTTP/1.1 503")
                && answer.ends_with("not ready\nnats: NATS is away\n"),
            "{answer}"
        );
        let answer = ask(address, "/readyz", "application/json").await;
        assert!(
            answer.ends_with(r#"{"ready":false,"reasons":{"nats":"NATS is away"}}"#),
            "{answer}"
        );
        health.ready("nats");
        assert!(
            ask(address, "/readyz", "*/*")
                .await
                .starts_with("HTTP/1.1 200")
        );
        assert!(ask(address, "/livez", "*/*").await.ends_with("ok\n"));
        assert!(ask(address, "/metrics", "*/*").await.contains("# EOF"));

        let taken = serve(&address.to_string(), health, Metrics::new(), shutdown)
            .await
            .unwrap_err();
        assert!(
            taken
                .to_string()
                .starts_with(&format!("can't listen on {address} (")),
            "{taken}"
        );
    }
}
