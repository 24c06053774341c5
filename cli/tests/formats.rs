//! What programs read (`-o json`, `-o yaml`) and what is printed for shells and logs: all of it as processes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/dev.rs"]
mod dev;
mod support;

use dev::{CAP, Dev, participant, until, write_manifests};
use std::fmt::Write as _;
use support::{Shell, redact};
use tidemill_testbed::eventually;

/// Durations differ from run to run.
fn without_durations(seen: &str) -> String {
    let lines = seen.lines().map(|line| {
        let (name, value) = line.split_once("tookMs: ").unwrap_or((line, ""));
        match value {
            "" => line.to_owned(),
            _ => format!("{name}tookMs: <ms>"),
        }
    });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn every_list_and_every_single_thing_is_there_for_programs() {
    let shell = Shell::new();
    write_manifests(&shell);
    let mut dev = Dev::start(&shell, "").await;
    let participant = participant(&dev.url).await;
    dev.line("Saga default/fulfilment: ready").await;
    let refused = "{\"total\": 1, \"do\": {\"charge\": \"refuse\", \"release\": \"refuse\"}}";
    shell
        .run(&format!(
            "event publish orders -t OrderPlaced -e o-1 --id o-1 --data '{refused}'"
        ))
        .ok();
    // The same options by their other names: what one command calls the entity, the others understand.
    shell
        .run("event publish orders --type OrderConfirmed --entity o-2 --id o-2")
        .ok();
    assert_eq!(
        shell
            .run("event get orders -s o-2 -t OrderConfirmed -o json")
            .ok()
            .json_lines()
            .len(),
        1
    );
    until(&shell, "parked list -o json", |ran| {
        ran.json().as_array().unwrap().len() == 1
    })
    .await;
    for (list, wanted) in [
        ("saga list -o json", "\"parked\": 1"),
        ("saga list -o json", "\"seen\": 2"),
        ("projection list -o json", "\"seen\": 2"),
        // The counters, which are written behind.
        ("query status", "seen 2"),
    ] {
        until(&shell, list, |ran| ran.stdout.contains(wanted)).await;
    }
    let mut seen = String::new();
    for line in [
        "event get orders --entity o-2 -o json",
        "event get orders --entity o-2 -o yaml",
        "event tail orders --from beginning --entity o-2 --limit 1 -o json",
        "query status -o yaml",
        "query status o-2 -o yaml",
        "saga list -o yaml",
        "saga list fulfilment -o yaml",
        "saga show fulfilment o-1 -o yaml",
        "projection list -o yaml",
        "parked list -o yaml",
        "lint manifests -o yaml",
        "projection rebuild status",
    ] {
        seen.push_str(&shell.run(line).ok().seen());
        seen.push('\n');
    }
    insta::assert_snapshot!("for_programs", without_durations(&seen));
    participant.abort();
    dev.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_says_each_change_in_a_line_of_its_own() {
    let shell = Shell::new();
    write_manifests(&shell);
    std::fs::remove_file(shell.path().join("manifests/fulfilment.yaml")).unwrap();
    let mut dev = Dev::start(&shell, "--plain").await;
    dev.line("Projection default/status: ready").await;
    // What the first screen offers does something: it is folded, not parked.
    let offered = "event publish orders --type OrderPlaced --subject id-1 --data '{\"total\":1}'";
    shell.run(offered).ok();
    dev.line("Projection default/status: seen 1, matched 1, skipped 0, lag 0")
        .await;
    shell
        .run("event publish orders --type OrderPlaced --subject o-2 --id poison --data '{}'")
        .ok();
    // In either order.
    eventually("the parked key in figures and warnings", CAP, async || {
        let said = dev.process.stdout();
        let figures = said.contains("seen 2, matched 2, skipped 0, lag 0, 1 key parked");
        if figures && said.contains("an event can't be folded: its key is parked") {
            Ok(())
        } else {
            Err(said)
        }
    })
    .await;
    let url = dev.url.clone();
    let said = dev.stop().await;
    let mut seen = String::new();
    // How far a start has come when it is looked at is a matter of chance, and what comes first of a figure and a warning.
    let warning = |line: &&str| line.starts_with("warning: ");
    let lines = said.lines().filter(|line| !line.contains("not ready"));
    let (warnings, lines): (Vec<_>, Vec<_>) = lines.partition(warning);
    for line in lines.into_iter().chain(warnings) {
        let _ = writeln!(seen, "{}", line.replace(&url, "<url>"));
    }
    insta::assert_snapshot!("plain_lines", redact(&seen));
    assert!(said.contains(&format!("  tidemill {offered}\n")), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_matched_says_where_to_look() {
    let shell = Shell::new();
    write_manifests(&shell);
    let dev = Dev::start(&shell, "").await;
    shell
        .run("event publish orders --type OrderPlacd --subject o-1")
        .ok();
    let mut seen = String::new();
    for list in ["query status", "saga list fulfilment"] {
        seen.push_str(
            &until(&shell, list, |ran| ran.stdout.contains("seen 1"))
                .await
                .seen(),
        );
    }
    insta::assert_snapshot!("nothing_matched", seen);
    dev.stop().await;
}

#[test]
fn completion_is_there_for_every_shell() {
    let shell = Shell::new();
    let mut seen = String::new();
    for (name, wanted) in [
        ("bash", "complete -F _tidemill"),
        ("zsh", "#compdef tidemill"),
        ("fish", "complete -c tidemill"),
        ("elvish", "edit:completion:arg-completer[tidemill]"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let ran = shell.run(&format!("completion {name}")).ok();
        assert!(ran.stdout.contains(wanted), "{name}");
        for command in ["accept-source", "redrive", "publish"] {
            assert!(ran.stdout.contains(command), "{name} {command}");
        }
    }
    seen.push_str(&shell.run("completion tcsh").seen());
    seen.push_str(&shell.run("completion").seen());
    insta::assert_snapshot!("completion", seen);
}

#[test]
fn help_is_read_on_eighty_columns_too() {
    let shell = Shell::new();
    let mut seen = String::new();
    for line in ["--help", "parked skip --help"] {
        let output = shell.command(line).env("COLUMNS", "80").output().unwrap();
        let _ = writeln!(
            seen,
            "$ tidemill {line}\n{}",
            String::from_utf8(output.stdout).unwrap()
        );
    }
    insta::assert_snapshot!("help", seen);
}
