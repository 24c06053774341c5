//! What `docs/guide` says of core is what core does.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use tidemill_core::expression::{
    BYTES_MAX, LOOPS_MAX, NESTING_MAX, SOURCE_MAX, STEPS_MAX, TOKENS_MAX, functions,
};
use tidemill_core::names::{PROJECTION_PARTITIONS, TOKEN_SOURCE_BYTES_MAX};
use tidemill_core::{decimal, envelope, json, projection, retry};

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs/guide")
        .join(name);
    std::fs::read_to_string(path).unwrap()
}

/// The rows of the table below a marker.
fn table(page: &str, marker: &str) -> Vec<String> {
    let below = page.lines().skip_while(|line| !line.contains(marker));
    let rows = below.skip(3).take_while(|line| line.starts_with('|'));
    rows.map(str::to_owned).collect()
}

#[test]
fn the_functions_are_all_there_are() {
    let expected: Vec<String> = functions()
        .map(|(name, usage)| format!("| `{name}` | `{}` |", usage.replace(" or ", "` or `")))
        .collect();
    let written = table(
        &page("expressions.md"),
        "Held current by core/tests/documentation.rs",
    );
    assert_eq!(
        written,
        expected,
        "docs/guide/expressions.md should have\n{}",
        expected.join("\n")
    );
}

#[test]
fn numbers_are_those_of_the_code() {
    let thousands = |number: usize| {
        let digits = number.to_string();
        let mut grouped = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        grouped
    };
    assert_eq!(thousands(1_234_567), "1,234,567");
    let default = retry::Retry::default();
    for (file, phrase) in [
        (
            "expressions.md",
            format!(
                "{} bytes, {} words and signs, {NESTING_MAX} levels of brackets",
                thousands(SOURCE_MAX),
                thousands(TOKENS_MAX)
            ),
        ),
        (
            "expressions.md",
            format!("{} steps", thousands(usize::try_from(STEPS_MAX).unwrap())),
        ),
        (
            "expressions.md",
            format!("{} MiB of built values", BYTES_MAX >> 20),
        ),
        (
            "events.md",
            format!("nested {} levels at most", json::DEPTH_MAX),
        ),
        (
            "events.md",
            format!("at most {}: your own", envelope::EXTENSIONS_MAX),
        ),
        (
            "events.md",
            format!("{TOKEN_SOURCE_BYTES_MAX} bytes at most"),
        ),
        (
            "projections.md",
            format!("Beyond {} digits", decimal::DIGITS_MAX),
        ),
        (
            "projections.md",
            format!("at most {TOKEN_SOURCE_BYTES_MAX} bytes"),
        ),
        (
            "projections.md",
            format!("at most {} bytes", thousands(projection::ROW_BYTES_MAX)),
        ),
        (
            "projections.md",
            format!("each of the {PROJECTION_PARTITIONS} partitions"),
        ),
        (
            "projections.md",
            format!("{} events", thousands(projection::parked::WAITING_MAX)),
        ),
        (
            "sagas.md",
            format!("`retry.maxAttempts` | {} |", default.max_attempts),
        ),
        (
            "sagas.md",
            format!(
                "{}ms, {}s",
                default.initial_backoff_ms,
                default.max_backoff_ms / 1000
            ),
        ),
    ] {
        // Lines are broken anywhere.
        let text = page(file).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(&phrase), "docs/guide/{file}: `{phrase}`");
    }
    assert_eq!(LOOPS_MAX, 2, "docs/guide/expressions.md: two nested loops");
}
