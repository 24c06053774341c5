//! The worker as a process: what it says when it can't start, while NATS is away, and how it ends.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod shared;

use shared::{CAP, answers, connect, contract, provision, start};
use tidemill_testbed::NatsServer;
use tidemill_testbed::process::Process;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_it_from_starting_is_one_line() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let good = contract("nats://127.0.0.1:1").to_json();
    for (contract, listen, wanted) in [
        ("{", "127.0.0.1:0", "the contract can't be read"),
        (
            r#"{"version": 99}"#,
            "127.0.0.1:0",
            "the contract has version 99",
        ),
        (good.as_str(), taken.as_str(), "can't listen on 127.0.0.1"),
        (
            &good.replace("nats://127", "http://127"),
            "127.0.0.1:0",
            "the NATS connection is wrong",
        ),
    ] {
        let mut worker = start(contract, listen);
        let status = worker.process.wait_exit(CAP).await.unwrap();
        assert_eq!(status.code(), Some(1));
        let said = worker.process.stderr();
        let lines: Vec<&str> = said
            .lines()
            .filter(|line| line.starts_with("tidemill-worker: "))
            .collect();
        assert!(lines.len() == 1 && lines[0].contains(wanted), "{said}");
        // The cause is said once.
        assert!(lines[0].matches("os error").count() <= 1, "{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    let mut worker = Process::builder(env!("CARGO_BIN_EXE_tidemill-worker"))
        .args(["--contract", "/nowhere/contract.json", "--pod", "a"])
        .spawn()
        .unwrap();
    assert_eq!(worker.wait_exit(CAP).await.unwrap().code(), Some(1));
    assert!(
        worker
            .stderr()
            .contains("contract /nowhere/contract.json: No such file"),
        "{}",
        worker.stderr()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_follows_nats_and_sigterm_ends_it_well() {
    let mut server = NatsServer::start().await.unwrap();
    provision(&connect(&server).await).await;
    let url = server.url();
    server.stop().await.unwrap();

    let mut worker = start(&contract(&url).to_json(), "127.0.0.1:0");
    let address = worker.address().await;
    answers(
        &address,
        "/readyz",
        &["503", "nats: connecting to nats://127.0.0.1"],
    )
    .await;
    answers(&address, "/livez", &["200 OK"]).await;
    server.restart().await.unwrap();
    answers(&address, "/readyz", &["200 OK"]).await;
    answers(
        &address,
        "/metrics",
        &[
            "tidemill_nats_connected 1",
            "tidemill_process_resident_memory_bytes",
        ],
    )
    .await;

    server.kill9();
    answers(
        &address,
        "/readyz",
        &["503", &format!("nats: NATS at {url} is away")],
    )
    .await;
    server.restart().await.unwrap();
    answers(&address, "/readyz", &["200 OK"]).await;
    answers(&address, "/metrics", &["tidemill_nats_reconnects_total 1"]).await;

    worker.process.terminate().unwrap();
    let status = worker.process.wait_exit(CAP).await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", worker.process.stderr());
    // It said good-bye: nobody has to wait until it is taken as dead.
    let nats = connect(&server).await;
    let owners =
        tidemill_nats::KvBucket::new(&tidemill_nats::Publisher::new(&nats, 1), "tidemill_owners");
    let beat = owners
        .get("shop.saga.orders.pod.orders-0")
        .await
        .unwrap()
        .unwrap();
    assert!(beat.deleted);
    let said = worker.process.stderr();
    assert!(
        said.lines().all(|line| line.starts_with('{')),
        "a line isn't JSON: {said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_while_nats_is_away_ends_it_too() {
    let mut server = NatsServer::start().await.unwrap();
    provision(&connect(&server).await).await;
    let mut worker = start(&contract(&server.url()).to_json(), "127.0.0.1:0");
    let address = worker.address().await;
    answers(&address, "/readyz", &["200 OK"]).await;
    server.kill9();
    answers(&address, "/readyz", &["503"]).await;
    worker.process.terminate().unwrap();
    let status = worker.process.wait_exit(CAP).await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", worker.process.stderr());
}
