//! Requests that a kube-apiserver has answered, as its metrics count them.

use anyhow::{Context, Result};
use kube::Client;

/// Cumulative counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Requests {
    /// All but long-running ones (watches) and what the server asks of itself for its health.
    pub all: u64,
    /// Those of them that write resources of any kind but leases.
    pub writes: u64,
    /// Writes of leases.
    pub lease_writes: u64,
}

impl Requests {
    /// As they are now.
    ///
    /// # Errors
    /// The API server doesn't answer.
    pub async fn of(client: &Client) -> Result<Requests> {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        let text = client
            .request_text(request)
            .await
            .context("reading the API server's metrics")?;
        let mut requests = Requests::default();
        for line in text.lines() {
            let Some(line) = line.strip_prefix("apiserver_request_total{") else {
                continue;
            };
            let Some((labels, count)) = line.rsplit_once("} ") else {
                continue;
            };
            let label = |name: &str| {
                let (_, rest) = labels.split_once(&format!("{name}=\""))?;
                rest.split('"').next()
            };
            let (verb, resource) = (label("verb").unwrap_or(""), label("resource").unwrap_or(""));
            // A resource is named; health, metrics and discovery are not.
            if resource.is_empty() || verb == "WATCH" {
                continue;
            }
            let count: f64 = count.trim().parse()?;
            let count = count as u64;
            requests.all += count;
            if matches!(
                verb,
                "POST" | "PUT" | "PATCH" | "APPLY" | "DELETE" | "DELETECOLLECTION"
            ) {
                match resource {
                    "leases" => requests.lease_writes += count,
                    // Asking what one may do writes nothing.
                    "selfsubjectaccessreviews" => {}
                    _ => requests.writes += count,
                }
            }
        }
        Ok(requests)
    }

    /// What came since.
    #[must_use]
    pub fn since(&self, before: &Requests) -> Requests {
        Requests {
            all: self.all.saturating_sub(before.all),
            writes: self.writes.saturating_sub(before.writes),
            lease_writes: self.lease_writes.saturating_sub(before.lease_writes),
        }
    }
}
