//! What the tests of this crate share: one saga, its contract, the worker as a process.

#![allow(dead_code, reason = "no test needs everything")]

use serde_json::json;
use std::path::PathBuf;
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

pub(crate) const CAP: Duration = Duration::from_secs(180);

pub(crate) fn resource() -> ResourceId {
    ResourceId::new(Kind::Saga, "shop", "orders")
}

pub(crate) fn contract(server: &str) -> Contract {
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

pub(crate) async fn connect(server: &NatsServer) -> Nats {
    Nats::connect(&Connection::plain(&server.url()), "test")
        .await
        .unwrap()
}

/// Everything that the worker expects to be there.
pub(crate) async fn provision(nats: &Nats) {
    let mark = Mark::of("dev", &resource(), "one");
    let mut plans = vec![
        StreamPlan::saga_log(&resource(), "_tm", mark.clone()),
        StreamPlan::parked(&resource(), "_tm", mark),
    ];
    plans.extend(StreamPlan::shared_buckets("one"));
    for plan in &plans {
        ensure(nats, plan).await.unwrap();
    }
}

pub(crate) struct Worker {
    pub(crate) process: Process,
    ready_file: PathBuf,
    _folder: TempDir,
}

pub(crate) fn start(contract: &str, listen: &str) -> Worker {
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

impl Worker {
    /// Where it serves its health.
    pub(crate) async fn address(&self) -> String {
        let read = async || std::fs::read_to_string(&self.ready_file);
        eventually("the bound address", CAP, read)
            .await
            .trim()
            .to_owned()
    }
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

pub(crate) async fn answers(address: &str, path: &str, wanted: &[&str]) {
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
