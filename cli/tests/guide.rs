//! The guide's manifests, page by page as they stand there, under `tidemill dev` on a real server, and its programs beside them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/dev.rs"]
mod dev;
mod support;

use dev::{CAP, Dev, until};
use std::collections::BTreeSet;
use std::path::Path;
use support::{Shell, blocks};
use tidemill_testbed::Process;
use tidemill_testbed::binaries::python;

/// What a page's programs are run after, and what they must print.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("events.md", "", "default_loans 1"),
    (
        "projections.md",
        "event publish loans --type LoanRequested --subject l-1 --data '{\"book\": \"dune\"}'",
        "'status': 'requested'",
    ),
];

/// `<kind> <namespace>/<name>` of what has a worker.
fn workloads(manifests: &[String]) -> BTreeSet<String> {
    let documents = manifests.iter().flat_map(|text| text.split("\n---\n"));
    let found = documents.filter_map(|text| {
        let of = |start: &str| text.lines().find_map(|line| line.strip_prefix(start));
        let kind = of("kind: ")?.trim();
        let name = of("metadata: {name: ")?.trim().trim_end_matches('}');
        (kind != "EventStream").then(|| format!("{kind} default/{name}"))
    });
    found.collect()
}

/// Runs `program.py`, and gives what it printed, or everything it said if it failed.
async fn program_says(shell: &Shell) -> String {
    let mut ran = Process::builder(python().unwrap())
        .current_dir(shell.path())
        .args(["-u", "program.py"])
        .name("program")
        .spawn()
        .unwrap();
    let status = ran.wait_exit(CAP).await.unwrap();
    match status.success() {
        true => ran.stdout(),
        false => format!("{}{}", ran.stdout(), ran.stderr()),
    }
}

/// Runs a page; gives how many workers became ready and how many programs ran.
async fn run(page: &str, text: &str) -> (usize, usize) {
    let manifests = blocks(text, "yaml");
    let manifests: Vec<String> = manifests
        .into_iter()
        .filter(|block| block.contains("apiVersion: tidemill.dev"))
        .collect();
    if manifests.is_empty() {
        return (0, 0);
    }
    let shell = Shell::new();
    for (index, manifest) in manifests.iter().enumerate() {
        shell.write(&format!("manifests/block-{index}.yaml"), manifest);
    }
    let mut dev = Dev::start(&shell, "").await;
    let workloads = workloads(&manifests);
    for workload in &workloads {
        dev.line(&format!("{workload}: ready")).await;
    }
    let programs = blocks(text, "python");
    for program in &programs {
        let (_, before, printed) = PROGRAMS.iter().find(|(of, ..)| *of == page).unwrap();
        if !before.is_empty() {
            shell.run(before).ok();
            until(&shell, "query loan-status l-1", |ran| ran.code == Some(0)).await;
        }
        // The address of the machine that the guide is read on.
        assert!(program.contains("nats://127.0.0.1:4222"), "{program}");
        let program = program.replace("nats://127.0.0.1:4222", &dev.url);
        shell.write("program.py", &program);
        let mut said = program_says(&shell).await;
        // Its client waits 2 to 5 seconds for anything, which a full machine may take; who reads the guide would start it again.
        for _ in 0..4 {
            if said.contains("TimeoutError") {
                said = program_says(&shell).await;
            }
        }
        assert!(said.contains(printed), "{page}: {said}");
    }
    let said = dev.stop().await;
    let bad = |line: &&str| line.starts_with("warning: ") || line.starts_with("error: ");
    let bad: Vec<&str> = said.lines().filter(bad).collect();
    assert!(bad.is_empty(), "{page}: {bad:#?}");
    (workloads.len(), programs.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_runs_as_it_stands() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide");
    let mut pages: Vec<_> = std::fs::read_dir(guide)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    pages.sort();
    let (mut ready, mut ran) = (0, 0);
    for page in pages {
        let name = page.file_name().unwrap().to_string_lossy().into_owned();
        let (workers, programs) = run(&name, &std::fs::read_to_string(&page).unwrap()).await;
        println!("{name}: {workers} workers, {programs} programs");
        ready += workers;
        ran += programs;
    }
    assert!(ready >= 5, "only {ready} workers");
    assert_eq!(ran, PROGRAMS.len(), "programs");
}
