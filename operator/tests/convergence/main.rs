//! Stopped after any call and started again, a reconcile comes to the same state as one that was never stopped, and then writes
//! nothing. On a model of API server and JetStream, which is itself compared with the real ones.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod model;
mod real;
mod stops;
