//! Every example in the documentation is right: each page's manifests, taken together, pass `tidemill lint --strict`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::path::Path;
use support::{Shell, blocks, documented_manifests};

#[test]
fn every_documented_manifest_is_right() {
    let (mut linted, mut wrong) = (0, Vec::new());
    for (page, manifests) in documented_manifests() {
        let shell = Shell::new();
        for manifest in manifests {
            linted += 1;
            shell.write(&format!("page/block-{linted}.yaml"), &manifest);
        }
        let ran = shell.run("lint --strict page");
        if ran.code != Some(0) {
            wrong.push(format!("{}:\n{}", page.display(), ran.seen()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(linted >= 8, "only {linted} manifests were found");
}

#[test]
fn blocks_are_found_whatever_stands_around_them() {
    let page = "a\n```yaml\nx: 1\n```\n```sh\ny\n```\n- in a list\n  ```yaml\n  z: 1\n  ```\n";
    assert_eq!(blocks(page, "yaml"), ["x: 1\n", "  z: 1\n"]);
}

/// The names that a worker's metrics are registered under, read from its source: the first text after each of these words.
fn registered(source: &str, word: &str, prefix: &str) -> Vec<String> {
    let calls = source.split(word).skip(1).map(str::trim_start);
    let names = calls.filter_map(|rest| Some(rest.strip_prefix('"')?.split_once('"')?.0));
    names.map(|name| format!("{prefix}{name}")).collect()
}

#[test]
fn every_metric_is_in_the_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap();
    let table = read("docs/guide/operations.md");
    let mut names = registered(&read("workers/saga/src/metrics.rs"), "counter(", "saga_");
    names.extend(registered(
        &read("workers/projection/src/meters.rs"),
        "register(",
        "",
    ));
    assert!(names.len() >= 19, "{names:?}");
    // In full, or as `…_` and its end.
    let missing = names.iter().filter(|name| {
        let ends = name.match_indices('_').map(|(at, _)| &name[at..]);
        let mut forms = ends
            .map(|end| format!("`…{end}"))
            .chain([format!("`tidemill_{name}")]);
        !forms.any(|form| {
            table.contains(&format!("{form}`")) || table.contains(&format!("{form}_total`"))
        })
    });
    let missing: Vec<_> = missing.collect();
    assert!(missing.is_empty(), "{missing:?}");
}
