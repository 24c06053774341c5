//! Bugs planted in the worker, each caught by a test of this folder: run again as a process of its own, where the bug is.

use std::process::{Command, Stdio};
use tidemill_core::planted::{Bug, plant_everywhere};

/// Names the bug to the test that must fail.
const VARIABLE: &str = "PLANTED_BUG";

/// A bug of the worker or of its machine, and the test that must notice.
const CAUGHT: &[(Bug, &str)] = &[
    (
        Bug::StartResolvedAgain,
        "revisions::reading_begins_where_the_definition_says_and_no_later_one_changes_that",
    ),
    (
        Bug::ParkedNotLoaded,
        "parking::parked_keys_are_found_by_whoever_takes_their_partition",
    ),
    (
        Bug::PositionNotChecked,
        "folding::rows_are_right_whatever_is_killed",
    ),
    (
        Bug::RewrittenSourceUnseen,
        "reset::a_source_that_lost_its_end_is_noticed_and_read_on_when_it_is_accepted",
    ),
    (
        Bug::FollowersPass,
        "parking::a_poison_event_parks_its_key_only_and_skipping_it_frees_what_follows",
    ),
];

/// Plants what this process was told to, if anything.
pub(crate) fn plant() {
    if let Ok(name) = std::env::var(VARIABLE) {
        plant_everywhere(Bug::named(&name).unwrap());
    }
}

#[test]
fn each_planted_bug_is_caught_on_a_real_server() {
    let run = |test: &str, bug: &str| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test]).env(VARIABLE, bug);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    // All at once: most of their time is waiting.
    let running = CAUGHT.iter().map(|(bug, test)| run(test, bug.name()));
    let running: Vec<_> = running.collect();
    let mut missed = Vec::new();
    for ((bug, test), child) in CAUGHT.iter().zip(running) {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("running 1 test"), "there is no test {test}");
        if output.status.success() {
            missed.push(bug.name());
        }
    }
    assert_eq!(missed, Vec::<&str>::new(), "planted, and nobody noticed");
    for bug in Bug::OF_WORKERS {
        let listed = CAUGHT.iter().any(|(caught, _)| caught == bug);
        assert!(listed, "no test is named for {bug:?}");
    }
}
