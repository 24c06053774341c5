//! The laws of sagas (design: "Saga engine") and of events, each a test of its own that is named as a sentence.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test, also outside of its #[test] functions"
)]

mod codec;
mod compensation;
mod decisions;
mod envelope;
mod fuzz;
mod given;
mod outcomes;
mod pivot;
mod publishing;
mod replies;
mod retries;
mod unknown;
