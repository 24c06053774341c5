//! The command line as `kubectl tidemill`, with nothing but a kubeconfig: it finds NATS, and comes to it through a forwarded port.

use crate::shop::{CAP, Shop};
use serde_json::Value;
use std::os::unix::fs::symlink;
use std::process::Stdio;
use tidemill_testbed::binaries::tidemill;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// A folder with the command under the name by which kubectl finds it.
struct Plugin(tempfile::TempDir);

impl Plugin {
    fn new() -> Plugin {
        let folder = tempfile::tempdir().unwrap();
        symlink(tidemill().unwrap(), folder.path().join("kubectl-tidemill")).unwrap();
        Plugin(folder)
    }

    /// Of the example's namespace.
    fn command(&self, shop: &Shop, line: &str, output: &str) -> Command {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let others = std::env::split_paths(&path);
        let folders = std::iter::once(self.0.path().to_owned()).chain(others);
        let mut kubectl = shop.node.plane().kubectl().unwrap();
        kubectl
            .arg("tidemill")
            .args(line.split_whitespace())
            .args(["--namespace", "shop", "-o", output])
            .env("PATH", std::env::join_paths(folders).unwrap())
            .env_remove("TIDEMILL_NATS")
            .current_dir(self.0.path())
            .kill_on_drop(true);
        kubectl
    }
}

impl Shop {
    async fn kubectl_tidemill(&self, line: &str) -> Result<Value, String> {
        let plugin = Plugin::new();
        let output = plugin.command(self, line, "json").output().await.unwrap();
        match output.status.success() {
            true => serde_json::from_slice(&output.stdout).map_err(|_| format!("{output:?}")),
            false => Err(format!("{output:?}")),
        }
    }

    /// A command that waits goes on with the NATS that is there after a crash, through another forward.
    pub(crate) async fn command_outlives_a_crash_of_nats(&self) {
        let plugin = Plugin::new();
        let mut tail = plugin.command(self, "event tail orders --limit 1", "table");
        let tail = tail.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut tail = tail.spawn().unwrap();
        let before = self.nats_restarts().await;
        // The words by which it says that it is there.
        let mut said = BufReader::new(tail.stderr.take().unwrap()).lines();
        let waiting = said.next_line().await.unwrap();
        self.node
            .kill("tidemill", "tidemill-nats-0", "nats")
            .await
            .unwrap();
        self.until("NATS is back", async || match self.nats_restarts().await {
            (now, true) if now > before.0 => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        // No workload of the example knows the type.
        let publish = "event publish orders --type Noted --subject o-0 --data {}";
        self.until("an event is published", async || {
            let output = plugin.command(self, publish, "table").output().await;
            let output = output.unwrap();
            let done = output.status.success();
            done.then_some(()).ok_or_else(|| format!("{output:?}"))
        })
        .await;
        let output = tokio::time::timeout(CAP, tail.wait_with_output()).await;
        let output = output.unwrap_or_else(|_| panic!("it waits for ever: {waiting:?}"));
        let output = output.unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("Noted"),
            "{output:?}"
        );
    }

    /// How often NATS was restarted, and whether it is ready.
    async fn nats_restarts(&self) -> (u64, bool) {
        let pods = "pods -n tidemill -l app.kubernetes.io/name=tidemill-nats";
        let status = &self.list(pods).await[0]["status"]["containerStatuses"][0];
        let ready = status["ready"] == true;
        (status["restartCount"].as_u64().unwrap_or_default(), ready)
    }

    /// Waits until the command says what the resources' status says.
    pub(crate) async fn command_says_what_kubectl_shows(&self) {
        self.until("the command's figures", async || {
            for (list, kind, figures) in [
                (
                    "saga list",
                    "sagas",
                    ["started", "running", "completed", "compensated", "parked"].as_slice(),
                ),
                (
                    "projection list --context testbed",
                    "projections",
                    &["lag", "parkedKeys"],
                ),
            ] {
                let said = self.kubectl_tidemill(list).await?;
                let shown = self.list(&format!("{kind} -n shop")).await;
                let said = said.as_array().ok_or_else(|| said.to_string())?;
                assert_eq!(said.len(), shown.len(), "{said:?}");
                for one in said {
                    let same = |other: &&Value| other["metadata"]["name"] == one["name"];
                    let status = &shown.iter().find(same).unwrap()["status"];
                    for figure in figures {
                        if one[figure] != status[figure] || !one[figure].is_u64() {
                            return Err(format!("{figure}: {one} and {status}"));
                        }
                    }
                }
            }
            Ok(())
        })
        .await;
    }
}
