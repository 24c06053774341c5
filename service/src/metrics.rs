//! Metrics in the OpenMetrics text format. Names are `tidemill_<area>_<thing>_<unit>`, counters end with `_total`; labels come from
//! closed sets only, never names or ids.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Metric, Registry, Unit};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use tidemill_nats::Nats;

/// The metrics of one worker. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// With the memory of the process only.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("tidemill");
        registry.register_collector(Box::new(ProcessMemory));
        Metrics(Arc::new(Mutex::new(registry)))
    }

    /// Registers `tidemill_<name>` and gives the metric back. Help is one sentence.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        self.lock().register(name, help, metric.clone());
        metric
    }

    /// Shows the connection: whether it stands, reconnects, refusals by permission, slow subscriptions.
    pub fn show_connection(&self, nats: &Nats) {
        self.lock()
            .register_collector(Box::new(Connection(nats.clone())));
    }

    /// The text of `/metrics`.
    ///
    /// # Errors
    /// If a metric can't be written as text.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.lock())?;
        Ok(text)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Registry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

#[derive(Debug)]
struct ProcessMemory;

impl Collector for ProcessMemory {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(bytes) = resident_bytes() else {
            return Ok(());
        };
        let gauge = ConstGauge::new(bytes);
        let metric = encoder.encode_descriptor(
            "process_resident_memory",
            "Resident memory of the process",
            Some(&Unit::Bytes),
            gauge.metric_type(),
        )?;
        gauge.encode(metric)
    }
}

/// Resident memory of this process in bytes; `None` where the system doesn't say (only Linux does here).
pub fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[derive(Debug)]
struct Connection(Nats);

impl Collector for Connection {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let status = self.0.status().borrow().clone();
        let connected = ConstGauge::new(i64::from(status.connected));
        let metric = encoder.encode_descriptor(
            "nats_connected",
            "Whether the connection to NATS stands",
            None,
            connected.metric_type(),
        )?;
        connected.encode(metric)?;
        for (name, help, value) in [
            (
                "nats_reconnects",
                "Connections to NATS made again",
                status.reconnects,
            ),
            (
                "nats_permission_violations",
                "Refusals by NATS for lack of permission",
                self.0.permission_violations(),
            ),
            (
                "nats_slow_subscriptions",
                "Messages lost because a subscription was too slow",
                self.0.slow_consumers(),
            ),
        ] {
            let counter = ConstCounter::new(value);
            let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;

    #[test]
    fn metrics_have_our_prefix() {
        let metrics = Metrics::new();
        let counter = metrics.register("saga_inputs", "Inputs folded", Counter::<u64>::default());
        counter.inc();
        let text = metrics.encode().unwrap();
        assert!(text.contains("tidemill_saga_inputs_total 1\n"), "{text}");
        assert!(
            text.contains("tidemill_process_resident_memory_bytes "),
            "{text}"
        );
    }
}
