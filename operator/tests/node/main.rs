//! Tidemill as users have it: charts, resources, pods of workers and participants, on a real node.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod command;
mod listing;
mod orders;
mod shop;
