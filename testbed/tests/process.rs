//! Child processes: output, signals, and that they never outlive the test.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use tidemill_testbed::{Process, eventually};

const CAP: Duration = Duration::from_secs(180);

fn shell(script: &str) -> Process {
    Process::builder("sh").args(["-c", script]).spawn().unwrap()
}

fn runs(pid: u32) -> bool {
    std::process::Command::new("kill")
        .args(["-0", &pid.to_string()])
        .output()
        .unwrap()
        .status
        .success()
}

#[tokio::test]
async fn output_lines_and_exit_status_are_seen() {
    let mut child = Process::builder("sh")
        .args(["-c", "echo \"hello $WHO\"; echo bad >&2; exit 3"])
        .env("WHO", "you")
        .spawn()
        .unwrap();
    let line = child
        .wait_for_line("greeting", CAP, |line| line.starts_with("hello"))
        .await
        .unwrap();
    assert_eq!(line, "hello you");
    assert_eq!(child.wait_exit(CAP).await.unwrap().code(), Some(3));
    assert_eq!(child.stderr(), "bad\n");
    assert!(child.terminate().is_err(), "it has ended");
}

#[tokio::test]
async fn a_line_that_never_comes_is_an_error_with_the_output() {
    let mut child = shell("echo something else");
    let error = child
        .wait_for_line("a greeting", CAP, |line| line == "hello")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("a greeting") && error.contains("something else") && error.contains("ended"),
        "{error}"
    );
}

#[tokio::test]
async fn signals_reach_it() {
    let mut child = shell(
        "trap 'echo got TERM; exit 0' TERM; echo ready; while :; do read -r _ </dev/null; sleep 0.01; done",
    );
    child
        .wait_for_line("ready", CAP, |line| line == "ready")
        .await
        .unwrap();
    assert!(child.rss_mib().unwrap() > 0.0);
    child.sigstop().await.unwrap();
    child.terminate().unwrap();
    assert!(child.ended().is_none(), "a stopped process handles nothing");
    child.sigcont().unwrap();
    assert!(child.wait_exit(CAP).await.unwrap().success());
    assert_eq!(child.stdout(), "ready\ngot TERM\n");
}

#[tokio::test]
async fn dropping_kills_it_even_when_frozen() {
    let mut child = shell("while :; do sleep 1; done");
    child.sigstop().await.unwrap();
    let pid = child.pid();
    assert!(runs(pid));
    drop(child);
    assert!(!runs(pid));
}

/// Not a test of its own: the next test runs this one in another process and kills that.
#[tokio::test]
async fn inner_process_that_is_killed() {
    if std::env::var_os("TIDEMILL_TEST_INNER").is_none() {
        return;
    }
    let child = shell("while :; do sleep 1; done");
    println!("\nchild {}", child.pid());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn children_die_with_a_test_process_that_is_killed() {
    let mut outer = Process::builder(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "inner_process_that_is_killed"])
        .env("TIDEMILL_TEST_INNER", "1")
        .spawn()
        .unwrap();
    let line = outer
        .wait_for_line("pid of the child", CAP, |line| line.starts_with("child "))
        .await
        .unwrap();
    let pid = line.trim_start_matches("child ").parse().unwrap();
    assert!(runs(pid));
    outer.kill9();
    eventually("the child's end", CAP, async || {
        if runs(pid) { Err("it runs") } else { Ok(()) }
    })
    .await;
}
