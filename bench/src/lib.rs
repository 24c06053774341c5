//! Benchmarks: whole processes over loopback, checked results, one JSON object on the last line.

pub mod latency;
pub mod ledger;
pub mod projection_load;
pub mod raw;
pub mod requests;
pub mod saga_load;

/// Prints a line about what is going on; the last line of standard output is kept for the figures.
pub fn say(line: &str) {
    eprintln!("{line}");
}
