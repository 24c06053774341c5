//! What every long-running program of Tidemill stands on, operator and workers alike: logs, metrics, health, signals.

pub mod health;
pub mod http;
pub mod metrics;
pub mod shutdown;
pub mod telemetry;

pub use health::Health;
pub use metrics::Metrics;
