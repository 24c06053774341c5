//! The projection worker on a real server.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod folding;
mod foreign;
mod limits;
mod numbers;
mod parking;
#[cfg(feature = "planted-bugs")]
mod planted;
mod pointer;
mod redrive;
mod reset;
mod revisions;
mod row_size;
mod support;
