//! Metrics of the projection worker.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tidemill_worker_runtime::Metrics;

/// What is counted while folding. Since the process began; what is true over restarts is in the counters bucket.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meters {
    pub(crate) events: Counter,
    pub(crate) puts: Counter,
    pub(crate) parked: Counter,
    pub(crate) failures: Counter,
    pub(crate) lag: Gauge,
    pub(crate) parked_keys: Gauge,
    pub(crate) cached_bytes: Gauge,
}

impl Meters {
    pub(crate) fn register(metrics: &Metrics) -> Meters {
        Meters {
            events: metrics.register(
                "projection_events",
                "Events read and dealt with, those that no handler matches too",
                Counter::default(),
            ),
            puts: metrics.register("projection_puts", "Rows written", Counter::default()),
            parked: metrics.register(
                "projection_parked_events",
                "Events copied to the parked stream",
                Counter::default(),
            ),
            failures: metrics.register(
                "projection_session_failures",
                "Times folding began anew at the checkpoints after something unclear",
                Counter::default(),
            ),
            lag: metrics.register(
                "projection_lag_events",
                "Events of the sources not yet read",
                Gauge::default(),
            ),
            parked_keys: metrics.register(
                "projection_parked_keys",
                "Keys that wait for a person's decision",
                Gauge::default(),
            ),
            cached_bytes: metrics.register(
                "projection_cached_rows_bytes",
                "Rows in memory, estimated",
                Gauge::default(),
            ),
        }
    }
}
