//! The operator on a real kube-apiserver and a real nats-server.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod accounts;
mod chart;
mod closing;
mod credentials;
mod eventstreams;
mod namespaces;
mod outages;
mod policies;
mod readiness;
mod upgrades;
mod workloads;
mod world;
mod wrong;
