//! Tests that run again as processes of their own, in which a bug is planted.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use tidemill_core::planted::{Bug, plant_everywhere};

/// Names the bug that a process is to have everywhere; empty: none, but it is one of these processes.
pub const VARIABLE: &str = "PLANTED_BUG";

/// Most of a test's time is waiting, and tests of timing must not be held up by each other.
const AT_ONCE: usize = 2;

/// Plants what this process was told to, if anything.
///
/// # Errors
/// If there is no such bug.
pub fn plant_as_told() -> Result<(), String> {
    match std::env::var(VARIABLE) {
        Ok(name) if !name.is_empty() => {
            let bug = Bug::named(&name).ok_or_else(|| format!("{VARIABLE}: no bug {name}"))?;
            plant_everywhere(bug);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Runs tests of the running test program again, each with its bug, which must fail, and once without any, which must not.
///
/// # Errors
/// Every bug of `bugs` that no test is named for, every one that nobody noticed, every test that isn't there or fails as it is.
pub fn each_is_caught(caught: &[(Bug, &str)], bugs: &[Bug]) -> Result<(), String> {
    let tests: BTreeSet<&str> = caught.iter().map(|(_, test)| *test).collect();
    let without = tests.into_iter().map(|test| (None, test));
    let with = caught.iter().map(|(bug, test)| (Some(*bug), *test));
    let runs: Vec<(Option<Bug>, &str)> = without.chain(with).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut problems = Vec::new();
        while let Some((bug, test)) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
            problems.extend(run(*bug, test).err());
        }
        problems
    };
    let mut problems: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        let ended = workers.into_iter().map(|worker| {
            let ended = worker.join();
            ended.unwrap_or_else(|_| vec!["a run panicked".to_owned()])
        });
        ended.flatten().collect()
    });
    let listed = |bug: &Bug| caught.iter().any(|(known, _)| known == bug);
    let unlisted = bugs.iter().filter(|bug| !listed(bug));
    problems.extend(unlisted.map(|bug| format!("{}: no test is named for it", bug.name())));
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems.join("\n"))
    }
}

/// Waits are short under the feature, so that a bug is noticed soon: a test that fails without one may just have been slow
/// beside others, and is asked once more. Some bugs show only if a kill comes at the right moment, and get two more chances.
fn run(bug: Option<Bug>, test: &str) -> Result<(), String> {
    let chances = if bug.is_some() { 3 } else { 2 };
    for _ in 1..chances {
        if run_once(bug, test).is_ok() {
            return Ok(());
        }
    }
    run_once(bug, test)
}

fn run_once(bug: Option<Bug>, test: &str) -> Result<(), String> {
    let began = std::time::Instant::now();
    let failed = |error: std::io::Error| format!("{test}: {error}");
    let output = Command::new(std::env::current_exe().map_err(failed)?)
        .args(["--exact", test])
        .env(VARIABLE, bug.map_or("", Bug::name))
        // Of snapshots nothing is written.
        .env("INSTA_UPDATE", "no")
        .stdin(Stdio::null())
        .output()
        .map_err(failed)?;
    let said = String::from_utf8_lossy(&output.stdout);
    let name = bug.map_or("no bug", Bug::name);
    println!("{:5.1} s  {name}: {test}", began.elapsed().as_secs_f32());
    if !said.contains("running 1 test") {
        return Err(format!("there is no test {test}"));
    }
    match (bug, output.status.success()) {
        (None, true) | (Some(_), false) => {
            // Why it failed, for who asks whether it is the bug that failed it.
            let why = said.lines().find(|line| line.contains("panicked at"));
            let reason = said
                .lines()
                .skip_while(|line| !line.contains("panicked at"));
            for line in reason.take(3).filter(|_| why.is_some()) {
                println!("           {:.240}", line);
            }
            Ok(())
        }
        (None, false) => Err(format!("{test} fails without a bug:\n{said}")),
        (Some(bug), true) => Err(format!("{}: planted, and {test} didn't notice", bug.name())),
    }
}
