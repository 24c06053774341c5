//! The order example runs as a whole, with the programs of this build, and comes to what its check computes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use tidemill_testbed::binaries::{program, python, tidemill, workspace_root};
use tidemill_testbed::{Process, nats_server};

/// The demo gives up by itself after five minutes.
const CAP: Duration = Duration::from_secs(400);

#[tokio::test]
async fn the_demo_ends_well_and_leaves_nothing_running() {
    let programs = tidemill().unwrap().parent().unwrap().to_owned();
    program("inventory", "inventory").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Process::builder(python().unwrap())
        .name("demo")
        .arg(workspace_root().join("scripts/demo.py"))
        .arg("--programs")
        .arg(programs)
        .env("TIDEMILL_DEMO_DIR", folder.path().join("demo"))
        .env("TIDEMILL_NATS_SERVER", nats_server::find_binary().unwrap())
        .spawn()
        .unwrap();
    let status = demo.wait_exit(CAP).await.unwrap();
    let said = demo.stdout();
    assert!(status.success(), "{status}\n{said}\n{}", demo.stderr());
    assert!(said.contains("checked: 981 orders"), "{said}");
    assert!(said.contains(": all equal"), "{said}");
    assert_eq!(demo.stderr(), "");
    // Every program of the run has its folder on its command line or as its working folder.
    let left = std::process::Command::new("pgrep")
        .arg("-f")
        .arg(folder.path())
        .output();
    if let Ok(left) = left {
        assert_eq!(String::from_utf8_lossy(&left.stdout), "", "left running");
    }
}
