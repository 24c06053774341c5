//! What people get wrong in a manifest, and what `tidemill lint` says: file, line and column, field, reason, what would do.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::Shell;
use support::mistakes::{MISTAKES, RIGHT, made};

#[test]
fn each_says_where_and_what_would_do() {
    let shell = Shell::new();
    let mut seen = String::new();
    for (right, wrong) in MISTAKES {
        let (manifest, what) = made(right, wrong);
        shell.write("hotel.yaml", &manifest);
        let ran = shell.run("lint hotel.yaml");
        seen.push_str(&what);
        seen.push('\n');
        let findings = ran
            .stdout
            .lines()
            .filter(|line| line.starts_with("hotel.yaml:"));
        let before = seen.len();
        for finding in findings {
            seen.push_str(&format!("  {finding}\n"));
        }
        assert!(
            seen.len() > before,
            "nothing is said of `{wrong}`: {}",
            ran.seen()
        );
    }
    insta::assert_snapshot!("mistakes", seen);
}

#[test]
fn the_right_one_is_right() {
    let shell = Shell::new();
    shell.write("hotel.yaml", RIGHT);
    shell.run("lint --strict hotel.yaml").ok();
}
