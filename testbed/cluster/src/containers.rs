//! containerd: the node's containers and images.

use crate::dns;
use crate::image::{Image, ImageError};
use crate::namespace::Entrance;
use crate::node::NodeError;
use crate::programs::{Programs, plugins};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidemill_testbed::Process;
use tidemill_testbed::wait::within;

/// Where containerd listens; /run is the node's own.
pub(crate) const SOCKET: &str = "/run/containerd/containerd.sock";
/// What holds the namespaces of a pod.
const PAUSE: &str = "localhost/tidemill/pause:testbed";
/// Addresses of pods: there is one node.
pub(crate) const PODS: &str = "10.244.0.0/16";
/// Longest wait for containerd: a second on an idle machine.
const READY_MAX: Duration = Duration::from_secs(60);

/// A running containerd.
#[derive(Debug)]
pub(crate) struct Containers {
    process: Process,
    inside: Entrance,
    folder: PathBuf,
}

impl Containers {
    /// Starts it, and gives it the images that the node itself needs.
    pub(crate) async fn start(
        inside: &Entrance,
        programs: &Programs,
    ) -> Result<Containers, NodeError> {
        let folder = inside.folder().join("containerd");
        let networks = folder.join("networks");
        let io = |source| NodeError::io("writing containerd's configuration", source);
        std::fs::create_dir_all(&networks).map_err(io)?;
        std::fs::write(networks.join("10-testbed.conflist"), network()).map_err(io)?;
        let config = folder.join("config.toml");
        std::fs::write(&config, configuration(&networks)).map_err(io)?;
        let process = inside
            .process("containerd")
            .arg("--config")
            .arg(config)
            .spawn()?;
        let mut containers = Containers {
            process,
            inside: inside.clone(),
            folder,
        };
        containers.ready().await?;
        let pause = Image::new(PAUSE).file("/pause", programs.path("pause")?);
        containers.load(&pause.entrypoint(["/pause"])).await?;
        containers.load(&dns::image(programs)?).await?;
        Ok(containers)
    }

    async fn ready(&mut self) -> Result<(), NodeError> {
        let ready = within(READY_MAX, async || {
            if let Some(status) = self.process.ended() {
                return Ok(Err(format!("it ended ({status})")));
            }
            let answer = NodeError::of_command(self.ctr().arg("version")).await;
            answer.map(|_| Ok(())).map_err(|error| error.to_string())
        })
        .await;
        match ready {
            Ok(Ok(())) => Ok(()),
            Ok(Err(seen)) | Err(seen) => Err(NodeError::NotReady {
                what: "containerd".to_owned(),
                seen: format!("{seen}\n{}", self.process.tails()),
            }),
        }
    }

    /// Takes an image in, so that pods can use it by its name.
    pub(crate) async fn load(&self, image: &Image) -> Result<(), NodeError> {
        let archive = tempfile::Builder::new()
            .suffix(".tar")
            .tempfile_in(&self.folder)
            .map_err(|source| NodeError::io("making a file for an image", source))?;
        let (image, path) = (image.clone(), archive.path().to_owned());
        let written = tokio::task::spawn_blocking(move || image.write(&path)).await;
        written.map_err(|error| NodeError::io("writing an image", error.into()))??;
        self.import(archive.path()).await
    }

    /// As [`Containers::load`], of an archive.
    pub(crate) async fn import(&self, archive: &Path) -> Result<(), NodeError> {
        // It runs in another folder.
        let archive = std::path::absolute(archive)
            .map_err(|source| NodeError::io("finding an image's archive", source))?;
        let mut command = self.ctr();
        command.args(["images", "import"]).arg(archive);
        NodeError::of_command(&mut command).await.map(|_| ())
    }

    /// containerd's own command, for Kubernetes' containers.
    pub(crate) fn ctr(&self) -> tokio::process::Command {
        let mut command = self.inside.command("ctr");
        command.args(["--address", SOCKET, "--namespace", "k8s.io"]);
        command
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }
}

impl From<ImageError> for NodeError {
    fn from(error: ImageError) -> NodeError {
        NodeError::Image(error)
    }
}

fn configuration(networks: &Path) -> String {
    // Only asked for after `why_no_node`; a folder that isn't there says so in containerd's log.
    let plugins = plugins().unwrap_or_default();
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
# The first makes a folder in /opt, the others need devices or file systems that aren't there.
disabled_plugins = [
    "io.containerd.internal.v1.opt",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = "{SOCKET}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
# Where CAP_SYS_RESOURCE is missing, runc fails on a score below its own.
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = {plugins:?}
conf_dir = {networks:?}

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"#
    )
}

/// One bridge for all pods.
fn network() -> String {
    let network = json!({
        "cniVersion": "0.4.0",
        "name": "testbed",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "pods",
                "isGateway": true,
                "ipMasq": true,
                // A pod may reach itself through its service.
                "hairpinMode": true,
                "ipam": {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]},
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    network.to_string()
}
