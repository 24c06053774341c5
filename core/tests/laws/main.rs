//! The laws of sagas, projections, expressions and events, each a test of its own that is named as a sentence.
//!
//! With the feature `planted-bugs`, `planted.rs` plants a bug against each of them and expects the test to fail.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test, also outside of its #[test] functions"
)]

mod codec;
mod compensation;
mod decisions;
mod definitions;
mod envelope;
mod expressions;
mod foretold;
mod fuzz;
mod given;
mod outcomes;
mod pivot;
#[cfg(feature = "planted-bugs")]
mod planted;
mod projections;
mod publishing;
mod replies;
mod retries;
mod unknown;
