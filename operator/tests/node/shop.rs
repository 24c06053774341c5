//! A node with the order example on it.

use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use tidemill_testbed::binaries::{program, python, tidemill, worker, workspace_root};
use tidemill_testbed::wait::within;
use tidemill_testbed::{Process, nats_server};
use tidemill_testbed_cluster::{Node, Programs, images};

/// Longest wait for anything: a minute on an idle machine.
pub(crate) const CAP: Duration = Duration::from_secs(300);
/// What the chart asks for when nobody says otherwise.
const TAG: &str = env!("CARGO_PKG_VERSION");
/// A later version of the operator and the worker.
pub(crate) const NEXT: &str = "next";
/// Enough for two crashes in the middle.
pub(crate) const ORDERS: u64 = 6000;

pub(crate) struct Shop {
    pub(crate) node: Node,
    folder: tempfile::TempDir,
}

impl Shop {
    /// A node with all images, and nothing else yet; and orders in a folder.
    pub(crate) async fn start() -> Shop {
        let (operator, worker) = (env!("CARGO_BIN_EXE_tidemill-operator"), worker().unwrap());
        let inventory = program("inventory", "inventory").unwrap();
        let node = Node::start().await.unwrap();
        let orders = format!("tidemill-orders:{TAG}");
        let mut all = vec![
            images::of_program("nats:2.15.2", &nats_server::find_binary().unwrap()),
            images::orders(orders, &inventory, &python().unwrap()).unwrap(),
        ];
        for tag in [TAG, NEXT] {
            let name = |name: &str| format!("{name}:{tag}");
            all.push(images::of_program(
                name("tidemill-operator"),
                operator.as_ref(),
            ));
            all.push(images::of_program(name("tidemill-worker"), &worker));
        }
        for image in all {
            node.load(&image).await.unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let mut generate = tokio::process::Command::new(python().unwrap());
        generate
            .arg(workspace_root().join("k8s/examples/orders/generate.py"))
            .args(["--count", &ORDERS.to_string(), "--seed", "7"]);
        for (option, file) in [
            ("--events", "events.jsonl"),
            ("--stock", "stock.json"),
            ("--cards", "cards.json"),
        ] {
            generate.arg(option).arg(folder.path().join(file));
        }
        assert!(generate.status().await.unwrap().success());
        Shop { node, folder }
    }

    /// Begins a step of the demo.
    pub(crate) fn demo(&self, step: &str) -> Process {
        let kubectl = Programs::find().unwrap().path("kubectl").unwrap();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let others = std::env::split_paths(&path);
        let folders = kubectl.parent().map(PathBuf::from);
        let folders = folders.into_iter().chain(others);
        Process::builder(python().unwrap())
            .name(format!("demo {step}"))
            .arg(workspace_root().join("scripts/cluster_demo.py"))
            .arg("--programs")
            .arg(tidemill().unwrap().parent().unwrap())
            .arg("--orders")
            .arg(self.folder.path())
            .arg(step)
            .env("KUBECONFIG", self.node.kubeconfig())
            .env("HOME", self.folder.path())
            .env("PATH", std::env::join_paths(folders).unwrap())
            .env("TIDEMILL_DEMO_DIR", self.folder.path().join("demo"))
            .env_remove("REGISTRY")
            .env_remove("TAG")
            .spawn()
            .unwrap()
    }

    /// Waits for the end of a step, which must be a good one; gives what it printed.
    pub(crate) async fn ended(&self, mut step: Process) -> String {
        let status = step.wait_exit(2 * CAP).await.unwrap();
        let said = step.stdout();
        if !status.success() {
            let report = self.node.report().await;
            panic!("{status}\n{said}\n{}\n{report}", step.stderr());
        }
        said
    }

    pub(crate) async fn kubectl(&self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.node.kubectl(&words).await.unwrap()
    }

    pub(crate) async fn helm(&self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.node.helm(&words).await.unwrap()
    }

    /// Objects of a kind, with whatever the line says further.
    pub(crate) async fn list(&self, line: &str) -> Vec<Value> {
        let found: Value =
            serde_json::from_str(&self.kubectl(&format!("get -o json {line}")).await).unwrap();
        found["items"].as_array().unwrap().clone()
    }

    /// Uid and number of restarts of each worker pod, by its resource.
    pub(crate) async fn workers(&self) -> Vec<(String, String, u64)> {
        let pods = self
            .list("pods -n shop -l app.kubernetes.io/name=tidemill-worker")
            .await;
        let mut workers: Vec<_> = pods
            .iter()
            .map(|pod| {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let restarts = &pod["status"]["containerStatuses"][0]["restartCount"];
                (
                    text(&pod["metadata"]["labels"]["app.kubernetes.io/instance"]),
                    text(&pod["metadata"]["uid"]),
                    restarts.as_u64().unwrap_or_default(),
                )
            })
            .collect();
        workers.sort();
        workers
    }

    /// Kills the process of a resource's worker, as soon as one runs.
    pub(crate) async fn kill_worker(&self, instance: &str) {
        let line = format!("pods -n shop -l app.kubernetes.io/instance={instance}");
        let pods = self.list(&line).await;
        let pod = pods[0]["metadata"]["name"].as_str().unwrap();
        self.until("a worker to kill", async || {
            let killed = self.node.kill("shop", pod, "worker").await;
            killed.map_err(|error| error.to_string())
        })
        .await;
    }

    /// Waits until `look` says that there is nothing to wait for.
    pub(crate) async fn until(&self, what: &str, look: impl AsyncFn() -> Result<(), String>) {
        if let Err(seen) = within(CAP, look).await {
            panic!("{what}: {seen}\n{}", self.node.report().await);
        }
    }
}
