//! The worker as a process: what it says when it can't start, while NATS is away, and how it ends.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tidemill_core::contract::{Connection, Contract};
use tidemill_core::names::{Kind, ResourceId};
use tidemill_nats::Nats;
use tidemill_nats::provision::{Mark, StreamPlan, ensure};
use tidemill_testbed::process::Process;
use tidemill_testbed::{NatsServer, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CAP: Duration = Duration::from_secs(60);

fn resource() -> ResourceId {
    ResourceId::new(Kind::Saga, "shop", "orders")
}

fn contract(server: &str) -> Contract {
    let retry = json!({ "maxAttempts": 5, "initialBackoffMs": 100, "maxBackoffMs": 1000 });
    let contract = json!({
        "version": 1,
        "resource": resource(),
        "connection": Connection::plain(server),
        "streams": [],
        "workload": { "saga": {
            "definition": {
                "semantics": 1,
                "steps": [{
                    "name": "reserve",
                    "after": [],
                    "action": { "request": { "subject": "inventory.reserve", "data": {} } },
                    "timeoutMs": 1000,
                    "stepTimeoutMs": 10000,
                    "retry": retry,
                }],
                "timeoutMs": 60000,
            },
            "starts": [],
            "logStream": resource().log_stream(),
            "parkedStream": resource().parked_stream(),
            "partitions": 4,
        }},
    });
    Contract::parse(contract.to_string().as_bytes()).unwrap()
}

async fn provision(server: &NatsServer) {
    let nats = Nats::connect(&Connection::plain(&server.url()), "test")
        .await
        .unwrap();
    let mark = Mark::of("dev", &resource(), "one");
    let mut plans = vec![
        StreamPlan::saga_log(&resource(), "_tm", mark.clone()),
        StreamPlan::parked(&resource(), "_tm", mark),
    ];
    plans.extend(StreamPlan::shared_buckets("one"));
    for plan in &plans {
        ensure(&nats, plan).await.unwrap();
    }
}

struct Worker {
    process: Process,
    ready_file: PathBuf,
    _folder: TempDir,
}

fn start(contract: &str, listen: &str) -> Worker {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("contract.json");
    std::fs::write(&file, contract).unwrap();
    let ready_file = folder.path().join("address");
    let process = Process::builder(env!("CARGO_BIN_EXE_tidemill-worker"))
        .args([
            "--contract".as_ref(),
            file.as_path(),
            "--ready-file".as_ref(),
            ready_file.as_path(),
        ])
        .args(["--listen", listen, "--pod", "orders-0"])
        .spawn()
        .unwrap();
    Worker {
        process,
        ready_file,
        _folder: folder,
    }
}

async fn address(file: &Path) -> String {
    eventually("the bound address", CAP, async || {
        std::fs::read_to_string(file)
    })
    .await
    .trim()
    .to_owned()
}

async fn get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes(),
        )
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn answers(address: &str, path: &str, wanted: &[&str]) {
    eventually(format!("{path} says {wanted:?}"), CAP, async || {
        let answer = get(address, path)
            .await
            .unwrap_or_else(|error| error.to_string());
        if wanted.iter().all(|wanted| answer.contains(wanted)) {
            Ok(())
        } else {
            Err(answer)
        }
    })
    .await;
}

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
    provision(&server).await;
    let url = server.url();
    server.stop().await.unwrap();

    let mut worker = start(&contract(&url).to_json(), "127.0.0.1:0");
    let address = address(&worker.ready_file).await;
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
    let nats = Nats::connect(&Connection::plain(&url), "test")
        .await
        .unwrap();
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
    provision(&server).await;
    let mut worker = start(&contract(&server.url()).to_json(), "127.0.0.1:0");
    let address = address(&worker.ready_file).await;
    answers(&address, "/readyz", &["200 OK"]).await;
    server.kill9();
    answers(&address, "/readyz", &["503"]).await;
    worker.process.terminate().unwrap();
    let status = worker.process.wait_exit(CAP).await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", worker.process.stderr());
}
