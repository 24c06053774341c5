//! The tour of the README, as it stands there: its manifests, its program, its events, its commands and what they print.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/dev.rs"]
mod dev;
mod support;

use dev::{CAP, until};
use std::path::Path;
use support::Shell;
use tidemill_testbed::Process;
use tidemill_testbed::binaries::python;
use tidemill_testbed::nats_server::find_binary;

/// Fenced blocks: language and text.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in page.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some((_, text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, Some(language)) => open = Some((language.to_owned(), String::new())),
            (None, None) => {}
        }
    }
    found
}

/// A line without what differs from run to run: spacing and times.
fn plain(line: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    let mut all = line.split_whitespace().peekable();
    while let Some(word) = all.next() {
        let number = word.trim_end_matches(['s', 'm', 'h']);
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        if is_number && (number != word || all.peek() == Some(&"ms")) {
            all.next_if(|next| *next == "ms");
            words.push("<time>");
        } else {
            words.push(word);
        }
    }
    words.join(" ")
}

/// Whether everything that the README shows was printed: a line `…` stands for others.
fn is_shown(wanted: &str, printed: &str) -> bool {
    let lines = |text: &str| {
        let mut lines: Vec<String> = text
            .lines()
            .map(plain)
            .filter(|line| !line.is_empty())
            .collect();
        lines.sort();
        lines
    };
    let (mut wanted, printed) = (lines(wanted), lines(printed));
    let open = wanted.iter().any(|line| line == "…");
    wanted.retain(|line| line != "…");
    if open {
        wanted.iter().all(|line| printed.contains(line))
    } else {
        wanted == printed
    }
}

/// Commands of a block, each with what it prints.
fn commands(block: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix("$ tidemill "), found.last_mut()) {
            (Some(command), _) => found.push((command.to_owned(), String::new())),
            (None, Some((_, printed))) => {
                printed.push_str(line);
                printed.push('\n');
            }
            (None, None) => {}
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tour_goes_as_it_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let shell = Shell::new();
    let blocks = blocks(&readme);
    let first = |language: &str, holds: &str| {
        let found = blocks
            .iter()
            .find(|(of, text)| of == language && text.contains(holds));
        found.unwrap().1.clone()
    };
    shell.write("loans.yaml", &first("yaml", "kind: Saga"));
    shell.write("library.py", &first("python", "import nats"));
    shell.write("events.jsonl", &first("json", "LoanRequested"));
    shell.run("lint .").ok();
    let mut dev = Process::builder(env!("CARGO_BIN_EXE_tidemill"))
        .current_dir(shell.path())
        .args(["dev", "."])
        .env("TIDEMILL_NATS_SERVER", find_binary().unwrap())
        .env_remove("TIDEMILL_NATS")
        .name("dev")
        .spawn()
        .unwrap();
    dev.wait_for_line("the saga's worker", CAP, |line| {
        line == "Saga default/lend: ready"
    })
    .await
    .unwrap();
    let mut library = Process::builder(python().unwrap())
        .current_dir(shell.path())
        .args(["-u", "library.py"])
        .name("library")
        .spawn()
        .unwrap();
    library
        .wait_for_line("the services", CAP, |line| line == "ready")
        .await
        .unwrap();

    let mut ran = 0;
    for (command, printed) in blocks
        .iter()
        .filter(|(language, _)| language.is_empty())
        .flat_map(|(_, text)| commands(text))
    {
        ran += 1;
        let once = command.starts_with("event publish") || command.starts_with("parked skip");
        if once {
            let said = shell.run(&command).ok();
            assert!(
                is_shown(&printed, &said.stdout),
                "{command}\n{}",
                said.seen()
            );
        } else {
            until(&shell, &command, |said| is_shown(&printed, &said.stdout)).await;
        }
    }
    assert_eq!(ran, 9, "commands of the tour");
    dev.interrupt().unwrap();
    let status = dev.wait_exit(CAP).await.unwrap();
    assert!(status.success(), "{status}: {}", dev.stderr());
}

#[test]
fn only_times_and_spacing_may_differ() {
    assert_eq!(plain("12 ms  reply   take  1"), plain("7 ms reply take 1"));
    assert_eq!(
        plain("l-1  completed   6s  5s"),
        "l-1 completed <time> <time>"
    );
    assert!(is_shown("b 1\n…\n", "a\nb  1\n"));
    assert!(!is_shown("b 1\n", "a\nb  1\n"));
    assert!(!is_shown("b 2\n…\n", "b 1\n"));
}
