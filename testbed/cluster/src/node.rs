//! A whole Kubernetes with one node.

use crate::components;
use crate::containers::Containers;
use crate::control_plane::{ControlPlane, ControlPlaneError};
use crate::dns;
use crate::image::{Image, ImageError};
use crate::namespace::Namespace;
use crate::programs::{Programs, ProgramsError, why_no_node};
use crate::relay::Relay;
use crate::slot::Slot;
use crate::volumes;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tidemill_testbed::Process;
use tidemill_testbed::process::ProcessError;
use tidemill_testbed::wait::within;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Longest wait for the node, and then for its DNS: together 15 s on an idle machine.
const READY_MAX: Duration = Duration::from_secs(180);

/// What can go wrong with a node. Its debug form is its text: whoever unwraps it wants to read the logs in it.
#[derive(thiserror::Error)]
pub enum NodeError {
    /// This machine can't run one.
    #[error("no node on this machine: {0}")]
    Machine(String),
    /// etcd or kube-apiserver.
    #[error(transparent)]
    ControlPlane(#[from] ControlPlaneError),
    /// No programs.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// A child process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// An image.
    #[error(transparent)]
    Image(ImageError),
    /// A folder or a file.
    #[error("node: {what} failed: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A program that should have done something.
    #[error("{command} failed: {said}")]
    Command {
        /// What was run.
        command: String,
        /// What it said.
        said: String,
    },
    /// It runs, but isn't ready.
    #[error("{what} wasn't ready in time: {seen}")]
    NotReady {
        /// What was awaited.
        what: String,
        /// The last observation, with the ends of all logs.
        seen: String,
    },
}

impl std::fmt::Debug for NodeError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, formatter)
    }
}

impl NodeError {
    pub(crate) fn io(what: &'static str, source: std::io::Error) -> NodeError {
        NodeError::Io { what, source }
    }

    /// What a command printed, if it ended well.
    pub(crate) async fn of_command(command: &mut Command) -> Result<String, NodeError> {
        let output = command.output().await;
        let output = output.map_err(|source| NodeError::io("running a command", source))?;
        NodeError::of_output(&format!("{:?}", command.as_std()), &output)
    }

    pub(crate) fn of_output(command: &str, output: &Output) -> Result<String, NodeError> {
        let [stdout, stderr] =
            [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
        match output.status.success() {
            true => Ok(stdout),
            false => Err(NodeError::Command {
                command: command.to_owned(),
                said: format!("{} {stdout}{stderr}", output.status),
            }),
        }
    }
}

/// A running Kubernetes with one node that runs pods, with cluster DNS and services. Dropping it ends everything.
///
/// It has processes, mounts and a network of its own, in which no device leads out: pods reach each other and the API server and nothing
/// else. The API server listens inside; a relay, a thread of this process, carries connections from the same port of 127.0.0.1 to it, so
/// one kubeconfig serves inside and outside, and the addresses inside are nobody's outside. [`Node::forward`] does that for any address.
///
/// Claims of volumes that name no class get folders of this machine, 32 in all.
///
/// Images come by [`Node::load`], since there is no registry: pods must say `imagePullPolicy: Never` or `IfNotPresent`.
///
/// Several may run at once. What an owner leaves that was killed ends with it, but for files and empty cgroups; the next start clears them.
#[derive(Debug)]
pub struct Node {
    // In the order in which they go. The namespaces end first of all (see `drop`), so there is nobody left to be killed.
    relays: Mutex<Vec<Relay>>,
    components: Vec<Process>,
    plane: ControlPlane,
    containers: Containers,
    namespace: Namespace,
    slot: Slot,
}

impl Node {
    /// Starts everything and waits until the node is ready and DNS answers.
    ///
    /// # Errors
    /// [`NodeError`]. Whoever may do without asks [`why_no_node`] first.
    pub async fn start() -> Result<Node, NodeError> {
        if let Some(reason) = why_no_node() {
            return Err(NodeError::Machine(reason));
        }
        let programs = Programs::find()?;
        let slot = Slot::take().map_err(|source| NodeError::io("making its place", source))?;
        // Of a start that fails as well, all goes: the namespaces before the slot, since it was made after it.
        let namespace = Namespace::make(slot.folder(), &programs.path("pause")?).await?;
        let inside = namespace.entrance();
        let (plane, containers) = tokio::try_join!(
            async {
                let plane = ControlPlane::start_in(Some(inside.clone())).await;
                plane.map_err(NodeError::from)
            },
            Containers::start(inside, &programs),
        )?;
        let components = components::start(inside, &plane, slot.cgroup())?;
        let node = Node {
            relays: Mutex::default(),
            components,
            plane,
            containers,
            namespace,
            slot,
        };
        node.apply(dns::MANIFESTS).await?;
        let volumes = volumes::make(&node.slot.folder().join("lib"))?;
        node.apply(&volumes).await?;
        node.ready().await?;
        Ok(node)
    }

    async fn ready(&self) -> Result<(), NodeError> {
        let mut wait = self.plane.kubectl()?;
        let whole = format!("--timeout={}s", READY_MAX.as_secs());
        wait.args(["wait", "--for=create", "node", components::NAME, &whole]);
        let mut ready = self.plane.kubectl()?;
        ready.args(["wait", "--for=condition=Ready", "node", components::NAME]);
        ready.arg(&whole);
        let steps = async {
            NodeError::of_command(&mut wait).await?;
            NodeError::of_command(&mut ready).await
        };
        if let Err(error) = steps.await {
            return Err(self.late("the node", &error.to_string()).await);
        }
        let answers = within(READY_MAX, async || {
            dns::answers(self.namespace.entrance()).await
        });
        match answers.await {
            Ok(()) => Ok(()),
            Err(seen) => Err(self.late("cluster DNS", &seen).await),
        }
    }

    async fn late(&self, what: &str, seen: &str) -> NodeError {
        NodeError::NotReady {
            what: what.to_owned(),
            seen: format!("{seen}\n{}{}", self.report().await, self.tails()),
        }
    }

    /// The control plane: a client, kubectl, helm, the kubeconfig.
    pub fn plane(&self) -> &ControlPlane {
        &self.plane
    }

    /// A client with every right.
    ///
    /// # Errors
    /// If none can be made.
    pub async fn client(&self) -> Result<kube::Client, NodeError> {
        Ok(self.plane.client().await?)
    }

    /// The file that says how the API server is reached, with every right; from inside and from outside of the node's network.
    pub fn kubeconfig(&self) -> &Path {
        self.plane.kubeconfig()
    }

    /// What kubectl prints for these arguments.
    ///
    /// # Errors
    /// If it fails, with what it said.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String, NodeError> {
        NodeError::of_command(self.plane.kubectl()?.args(arguments)).await
    }

    /// Applies a manifest.
    ///
    /// # Errors
    /// If it isn't taken, with what kubectl said.
    pub async fn apply(&self, manifest: &str) -> Result<(), NodeError> {
        let mut kubectl = self.plane.kubectl()?;
        kubectl
            .args(["apply", "--server-side", "--filename", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let io = |source| NodeError::io("applying a manifest", source);
        let mut child = kubectl.spawn().map_err(io)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(manifest.as_bytes()).await.map_err(io)?;
        }
        let output = child.wait_with_output().await.map_err(io)?;
        NodeError::of_output("kubectl apply", &output).map(|_| ())
    }

    /// What helm prints for these arguments.
    ///
    /// # Errors
    /// If it fails, with what it said.
    pub async fn helm(&self, arguments: &[&str]) -> Result<String, NodeError> {
        NodeError::of_command(self.plane.helm()?.args(arguments)).await
    }

    /// Takes an image in, so that pods can use it by its name.
    ///
    /// # Errors
    /// If it can't be written or isn't taken.
    pub async fn load(&self, image: &Image) -> Result<(), NodeError> {
        self.containers.load(image).await
    }

    /// As [`Node::load`], of an archive that `docker save` or [`Image::write`] made.
    ///
    /// # Errors
    /// If it isn't taken.
    pub async fn load_archive(&self, archive: &Path) -> Result<(), NodeError> {
        self.containers.import(archive).await
    }

    /// Opens a port of 127.0.0.1 that leads to an address inside, such as a service's: the way from a test to a pod.
    ///
    /// # Errors
    /// If no port can be opened.
    pub fn forward(&self, inside: SocketAddr) -> Result<SocketAddr, NodeError> {
        let relay = Relay::start(self.namespace.entrance(), 0, inside);
        let relay = relay.map_err(|source| NodeError::io("starting a relay", source))?;
        let address = relay.address();
        let mut relays = self.relays.lock().unwrap_or_else(PoisonError::into_inner);
        relays.push(relay);
        Ok(address)
    }

    /// A program of this machine, to be run on the node: it sees the node's processes and network.
    pub fn command(&self, program: &str) -> Command {
        self.namespace.entrance().command(program)
    }

    /// Kills the first process of a container (SIGKILL), as a crash or the memory limit would.
    ///
    /// # Errors
    /// If there is no such container.
    pub async fn kill(&self, namespace: &str, pod: &str, container: &str) -> Result<(), NodeError> {
        let path = format!(
            "jsonpath={{.status.containerStatuses[?(@.name==\"{container}\")].containerID}}"
        );
        let get = ["get", "pod", "-n", namespace, pod, "-o", &path];
        let id = self.kubectl(&get).await?;
        let id = id.trim().trim_start_matches("containerd://");
        let mut ctr = self.containers.ctr();
        ctr.args(["task", "kill", "--signal", "SIGKILL", id]);
        NodeError::of_command(&mut ctr).await.map(|_| ())
    }

    /// The first process of the node, as the machine counts: for looking at the node from outside.
    pub fn pid(&self) -> u32 {
        self.namespace.entrance().pid()
    }

    /// The folders that hold everything of the node on this machine: its files, then its cgroups.
    ///
    /// # Errors
    /// If the cgroups can't be read.
    pub fn folders(&self) -> Result<Vec<std::path::PathBuf>, NodeError> {
        let cgroups = self.slot.cgroups();
        let mut all = cgroups.map_err(|source| NodeError::io("finding its cgroups", source))?;
        all.insert(0, self.slot.folder().to_owned());
        Ok(all)
    }

    /// What there is in the cluster and what happened, for the message of a test that fails.
    pub async fn report(&self) -> String {
        let mut text = String::new();
        for arguments in [
            ["get", "nodes,pods,services", "-A", "-o", "wide"].as_slice(),
            &["get", "events", "-A", "--sort-by=.lastTimestamp"],
        ] {
            let said = self.kubectl(arguments).await;
            let said = said.unwrap_or_else(|error| error.to_string());
            text.push_str(&format!("--- kubectl {}\n{said}\n", arguments.join(" ")));
        }
        text
    }

    /// The ends of all logs.
    fn tails(&self) -> String {
        let processes = self.components.iter();
        let processes = processes.chain([self.containers.process()]);
        processes.map(Process::tails).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.namespace.end();
    }
}
