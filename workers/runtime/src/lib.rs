//! What every worker stands on besides [`tidemill_service`]: control requests, counters, and who owns which partition.
//!
//! A worker binary and `tidemill dev` make a [`WorkerContext`] and give it to a driver (projection or saga).

pub mod backoff;
pub mod control;
pub mod counters;
pub mod ownership;

use std::sync::Arc;
use tidemill_core::contract::Contract;
use tidemill_core::planted::{Bug, planted};
use tidemill_nats::Nats;
use tokio_util::sync::CancellationToken;

pub use tidemill_service::{Health, Metrics, health, http, metrics, shutdown, telemetry};

/// Everything a driver is given. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WorkerContext {
    /// What to run.
    pub contract: Arc<Contract>,
    /// The one connection of this worker.
    pub nats: Nats,
    /// Name of this pod, unique among those that run at the same time; a restarted pod keeps it.
    pub pod: String,
    /// Where the driver says whether it is ready.
    pub health: Health,
    /// Where the driver registers its metrics.
    pub metrics: Metrics,
    /// Cancelled when the worker shall finish what is in flight, hand over, and return.
    pub shutdown: CancellationToken,
}

impl WorkerContext {
    /// Shows the connection in metrics and, as condition `nats`, in readiness, until the worker shuts down. For whoever makes the
    /// context, before the driver runs; the driver fulfils the condition named by its kind (`projection`, `saga`).
    pub fn show_connection(&self) {
        self.metrics.show_connection(&self.nats);
        // The driver's own condition, so that a connection alone doesn't look like readiness before the driver says more.
        self.health
            .not_ready(self.contract.resource.kind.as_str(), "it is starting");
        let (nats, health, shutdown) = (
            self.nats.clone(),
            self.health.clone(),
            self.shutdown.clone(),
        );
        tokio::spawn(async move {
            let mut status = nats.status();
            loop {
                let now = status.borrow_and_update().clone();
                if now.connected {
                    health.ready("nats");
                } else if !planted(Bug::SilenceWhileAway) {
                    let why = now
                        .last_error
                        .map(|error| format!(" ({error})"))
                        .unwrap_or_default();
                    health.not_ready("nats", format!("NATS at {} is away{why}", nats.servers()));
                }
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    changed = status.changed() => if changed.is_err() {
                        return;
                    },
                }
            }
        });
    }
}
