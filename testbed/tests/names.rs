//! Names and formats stand in `core::names`, JetStream's subjects in `nats`: what is written twice drifts apart.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;
use tidemill_testbed::binaries::workspace_root;

/// What may be written in which folder only.
const OWNED: &[(&str, &str)] = &[
    ("\"Tidemill-", "core/src/names/"),
    ("\"_tm", "core/src/names"),
    ("\"$KV", "nats/src/"),
    ("\"$JS", "nats/src/"),
];

/// Lines of shipped code that write a name which isn't theirs. Comments and tests may.
fn foreign_names(path: &str, source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.trim_start().starts_with("//"));
    lines
        .flat_map(|(number, line)| {
            let found = OWNED
                .iter()
                .filter(|(name, home)| line.contains(name) && !path.starts_with(home));
            found
                .map(move |(name, home)| format!("{path}:{}: {name} belongs to {home}", number + 1))
        })
        .collect()
}

#[test]
fn names_are_written_where_they_belong() {
    let root = workspace_root();
    let listed = Command::new("git")
        .args([
            "ls-files",
            "core/src",
            "crds/src",
            "nats/src",
            "workers/*/src",
            "cli/src",
        ])
        .current_dir(root)
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let files = listed
        .lines()
        .filter(|path| path.ends_with(".rs") && !path.ends_with("tests.rs"));
    let found: Vec<String> = files
        .flat_map(|path| {
            // One that is deleted and not yet committed.
            let source = std::fs::read_to_string(root.join(path)).unwrap_or_default();
            foreign_names(path, &source)
        })
        .collect();
    assert!(listed.lines().count() > 100);
    assert_eq!(found, [""; 0]);
}

#[test]
fn the_checker_sees_them() {
    let source = "// \"$KV.a\"\nlet a = \"$KV.a\";\n#[cfg(test)]\nlet b = \"$JS.b\";";
    assert_eq!(
        foreign_names("cli/src/a.rs", source),
        ["cli/src/a.rs:2: \"$KV belongs to nats/src/"]
    );
    assert!(foreign_names("nats/src/a.rs", source).is_empty());
}
