//! `tidemill dev` as a process, and a participant for its sagas.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "each test file uses a part; a test fails by panicking"
)]

use crate::support::{Ran, Shell, words};
use futures::StreamExt as _;
use std::time::Duration;
use tidemill_testbed::nats_server::find_binary;
use tidemill_testbed::{Process, eventually};

pub(crate) const CAP: Duration = Duration::from_secs(180);

/// A running `dev` on the folder `manifests` of a shell.
pub(crate) struct Dev {
    pub(crate) process: Process,
    pub(crate) url: String,
}

impl Dev {
    pub(crate) fn spawn(shell: &Shell, args: &str) -> Process {
        Process::builder(env!("CARGO_BIN_EXE_tidemill"))
            .current_dir(shell.path())
            .args(["dev", "manifests"])
            .args(words(args))
            .env("TIDEMILL_NATS_SERVER", find_binary().unwrap())
            .env_remove("TIDEMILL_NATS")
            .name("dev")
            .spawn()
            .unwrap()
    }

    /// Returns when the first screen is complete.
    pub(crate) async fn start(shell: &Shell, args: &str) -> Dev {
        let mut process = Self::spawn(shell, args);
        let line = process
            .wait_for_line("its address", CAP, |line| line.starts_with("NATS: "))
            .await
            .unwrap();
        process
            .wait_for_line("the next commands", CAP, |line| line.starts_with("Next, "))
            .await
            .unwrap();
        let url = line.split(' ').nth(1).unwrap().to_owned();
        Dev { process, url }
    }

    pub(crate) async fn line(&mut self, wanted: &str) {
        self.process
            .wait_for_line(wanted, CAP, |line| line.contains(wanted))
            .await
            .unwrap();
    }

    /// Ctrl-C, and everything it said.
    pub(crate) async fn stop(mut self) -> String {
        self.process.interrupt().unwrap();
        let status = self.process.wait_exit(CAP).await.unwrap();
        assert!(
            status.success(),
            "{status}: {}{}",
            self.process.stdout(),
            self.process.stderr()
        );
        self.process.stdout()
    }
}

/// Runs a command until its standard output satisfies a condition.
pub(crate) async fn until(shell: &Shell, line: &str, wanted: impl Fn(&Ran) -> bool) -> Ran {
    eventually(format!("`{line}`"), CAP, async || {
        let ran = shell.run(line);
        if wanted(&ran) {
            Ok(ran)
        } else {
            Err(ran.seen())
        }
    })
    .await
}

/// Answers `test.<step>`: what `do` of the payload says for this step: `ok` (default), `refuse`, `silent`.
pub(crate) async fn participant(url: &str) -> tokio::task::JoinHandle<()> {
    let client = async_nats::connect(url).await.unwrap();
    let mut requests = client.subscribe("test.>").await.unwrap();
    client.flush().await.unwrap();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let step = request
                .subject
                .strip_prefix("test.")
                .unwrap_or_default()
                .to_owned();
            let body: serde_json::Value =
                serde_json::from_slice(&request.payload).unwrap_or_default();
            let Some(reply) = request.reply else { continue };
            match body
                .pointer(&format!("/do/{step}"))
                .and_then(serde_json::Value::as_str)
            {
                Some("silent") => {}
                Some("refuse") => {
                    let mut headers = async_nats::HeaderMap::new();
                    headers.insert("Nats-Service-Error-Code", "409");
                    headers.insert("Nats-Service-Error", "out of stock");
                    client
                        .publish_with_headers(reply, headers, "".into())
                        .await
                        .unwrap();
                }
                _ => client
                    .publish(reply, "{\"number\": 7}".into())
                    .await
                    .unwrap(),
            }
        }
    })
}

/// A stream, a projection and a saga.
pub(crate) fn write_manifests(shell: &Shell) {
    shell.write(
        "manifests/stream.yaml",
        "\
apiVersion: tidemill.dev/v1alpha1
kind: EventStream
metadata: {name: orders}
spec: {}
",
    );
    shell.write("manifests/status.yaml", STATUS);
    shell.write(
        "manifests/fulfilment.yaml",
        "\
apiVersion: tidemill.dev/v1alpha1
kind: Saga
metadata: {name: fulfilment}
spec:
  startOn: [{stream: {name: orders}, type: OrderPlaced, id: event.subject}]
  steps:
    - name: reserve
      request: {subject: test.reserve, data: =input.data}
      compensate:
        request: {subject: test.release, data: =input.data}
        retry: {maxAttempts: 1}
      retry: {maxAttempts: 1}
    - name: charge
      request: {subject: test.charge, data: =input.data}
      retry: {maxAttempts: 1}
      timeout: 30s
  onCompleted:
    - publish: {stream: {name: orders}, type: OrderConfirmed, entity: =input.subject}
",
    );
}

pub(crate) const STATUS: &str = "\
apiVersion: tidemill.dev/v1alpha1
kind: Projection
metadata: {name: status}
spec:
  from: [{stream: {name: orders}}]
  key: event.subject
  handlers:
    - type: OrderPlaced
      set: {state: placed, total: =event.data.total}
    - type: OrderConfirmed
      set: {state: confirmed}
  sink: {kv: {}}
";
