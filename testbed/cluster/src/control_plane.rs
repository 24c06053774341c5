//! etcd and kube-apiserver as child processes.

use crate::identity::{Identity, IdentityError, User};
use crate::namespace::{Entrance, NODE};
use crate::programs::{Programs, ProgramsError};
use crate::relay::Relay;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tidemill_testbed::Process;
use tidemill_testbed::ports::Port;
use tidemill_testbed::process::{ProcessBuilder, ProcessError};
use tidemill_testbed::wait::within;

/// Longest wait for the API server to be ready: 5 s on an idle machine.
const READY_MAX: Duration = Duration::from_secs(120);
/// Longest wait for one to be gone that was told to stop: it drains first.
const STOP_MAX: Duration = Duration::from_secs(90);
/// The addresses of services.
const SERVICES: &str = "10.96.0.0/16";
/// Names of the API server: on loopback, for pods, and as a service, whose address is the first of all.
const NAMES: [&str; 5] = [
    "127.0.0.1",
    "localhost",
    "192.168.127.1",
    "10.96.0.1",
    "kubernetes.default.svc",
];

/// What can go wrong with a control plane.
#[derive(Debug, thiserror::Error)]
pub enum ControlPlaneError {
    /// No programs.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// A child process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Certificates and keys.
    #[error("the control plane's certificates can't be made: {0}")]
    Identity(String),
    /// A folder, port or file.
    #[error("control plane: {what} failed")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// It runs, but isn't ready.
    #[error("kube-apiserver wasn't ready within {READY_MAX:?}: {0}")]
    NotReady(String),
    /// No client can be made.
    #[error("no client for the API server")]
    Client(#[from] kube::Error),
    /// Its own configuration isn't taken.
    #[error("the kubeconfig isn't usable")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
}

impl From<IdentityError> for ControlPlaneError {
    fn from(error: IdentityError) -> Self {
        ControlPlaneError::Identity(error.to_string())
    }
}

/// A running etcd and kube-apiserver. Dropping it kills both.
#[derive(Debug)]
pub struct ControlPlane {
    programs: Programs,
    identity: Identity,
    // With a node: where it runs, and the way to it.
    inside: Option<Entrance>,
    _relay: Option<Relay>,
    port: Port,
    etcd_url: String,
    // Before etcd, so that it is killed first.
    apiserver: Option<Process>,
    _etcd: Process,
    _etcd_ports: [Port; 2],
    kubeconfig: PathBuf,
    folder: TempDir,
}

impl ControlPlane {
    /// Starts both and waits until the API server says that it is ready.
    ///
    /// # Errors
    /// [`ControlPlaneError`]
    pub async fn start() -> Result<ControlPlane, ControlPlaneError> {
        ControlPlane::start_in(None).await
    }

    /// As [`ControlPlane::start`], inside of a node's namespaces. It is reached from inside and from outside at the same address.
    pub(crate) async fn start_in(
        inside: Option<Entrance>,
    ) -> Result<ControlPlane, ControlPlaneError> {
        let programs = Programs::find()?;
        let io = |what| move |source| ControlPlaneError::Io { what, source };
        let folder = tempfile::Builder::new()
            .prefix("tidemill-kubernetes-")
            .tempdir_in(match &inside {
                None => std::env::temp_dir(),
                Some(inside) => inside.folder().to_owned(),
            })
            .map_err(io("making its folder"))?;
        let identity = Identity::make(folder.path(), &NAMES)?;
        let reserve = || Port::reserve().map_err(io("finding a free port"));
        let (port, etcd_ports) = (reserve()?, [reserve()?, reserve()?]);
        let relay = inside.as_ref().map(|inside| {
            let to = (Ipv4Addr::LOCALHOST, port.number()).into();
            Relay::start(inside, port.number(), to)
        });
        let relay = relay.transpose().map_err(io("starting its relay"))?;
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(
            &kubeconfig,
            kubeconfig_text(&identity, &port, identity.token(User::Admin)),
        )
        .map_err(io("writing the kubeconfig"))?;
        let url = |port: &Port| format!("http://127.0.0.1:{}", port.number());
        let [clients, peers] = [url(&etcd_ports[0]), url(&etcd_ports[1])];
        let etcd = process(inside.as_ref(), programs.path("etcd")?)
            .arg("--data-dir")
            .arg(folder.path().join("etcd"))
            .args(["--listen-client-urls", &clients])
            .args(["--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", &peers])
            .args(["--initial-advertise-peer-urls", &peers])
            .args(["--initial-cluster", &format!("default={peers}")])
            // A test's data needn't survive a power loss.
            .arg("--unsafe-no-fsync")
            .args(["--log-level", "warn"])
            .spawn()?;
        let mut plane = ControlPlane {
            programs,
            identity,
            inside,
            _relay: relay,
            port,
            etcd_url: clients,
            apiserver: None,
            _etcd: etcd,
            _etcd_ports: etcd_ports,
            kubeconfig,
            folder,
        };
        plane.start_apiserver().await?;
        Ok(plane)
    }

    async fn start_apiserver(&mut self) -> Result<(), ControlPlaneError> {
        let identity = &self.identity;
        let process = process(self.inside.as_ref(), self.programs.path("kube-apiserver")?);
        let process = match &self.inside {
            None => process
                .args(["--bind-address", "127.0.0.1"])
                // Loopback is no address that endpoints may have.
                .args(["--endpoint-reconciler-type", "none"])
                // No controller gives accounts to pods here.
                .args(["--disable-admission-plugins", "ServiceAccount"])
                .args(["--authorization-mode", "RBAC"]),
            Some(_) => process
                .args(["--bind-address", "0.0.0.0"])
                .args(["--advertise-address", &NODE.to_string()])
                // Nobody knows the node by its name.
                .args(["--kubelet-preferred-address-types", "InternalIP"])
                .arg("--kubelet-client-certificate")
                .arg(&identity.kubelet_client.certificate)
                .arg("--kubelet-client-key")
                .arg(&identity.kubelet_client.key)
                .args(["--enable-admission-plugins", "NodeRestriction"])
                .args(["--authorization-mode", "Node,RBAC"])
                .arg("--allow-privileged"),
        };
        let mut process = process
            .args(["--etcd-servers", &self.etcd_url])
            .args(["--secure-port", &self.port.number().to_string()])
            .arg("--tls-cert-file")
            .arg(&identity.server.certificate)
            .arg("--tls-private-key-file")
            .arg(&identity.server.key)
            .arg("--service-account-key-file")
            .arg(&identity.accounts_public_key)
            .arg("--service-account-signing-key-file")
            .arg(&identity.accounts_key)
            .args(["--service-account-issuer", "https://kubernetes.default.svc"])
            .arg("--token-auth-file")
            .arg(&identity.tokens_file)
            .args(["--service-cluster-ip-range", SERVICES])
            .spawn()?;
        let client = client(&self.kubeconfig).await?;
        let ready = within(READY_MAX, async || {
            if let Some(status) = process.ended() {
                // No use waiting.
                return Ok(Err(format!("it ended ({status})")));
            }
            let request = http::Request::get("/readyz").body(Vec::new());
            let request = request.map_err(|error| error.to_string())?;
            let answer = client.request_text(request).await;
            answer.map(Ok).map_err(|error| error.to_string())
        })
        .await;
        match ready {
            Ok(Ok(_)) => {
                self.apiserver = Some(process);
                Ok(())
            }
            Ok(Err(seen)) | Err(seen) => Err(ControlPlaneError::NotReady(format!(
                "{seen}\n{}",
                process.stderr()
            ))),
        }
    }

    /// A client with every right.
    ///
    /// # Errors
    /// If none can be made.
    pub async fn client(&self) -> Result<kube::Client, ControlPlaneError> {
        client(&self.kubeconfig).await
    }

    /// Installs definitions and waits until they are served.
    ///
    /// # Errors
    /// If they aren't taken.
    pub async fn install(
        &self,
        definitions: impl IntoIterator<Item = CustomResourceDefinition>,
    ) -> Result<(), ControlPlaneError> {
        let api: Api<CustomResourceDefinition> = Api::all(self.client().await?);
        for definition in definitions {
            let created = api.create(&PostParams::default(), &definition).await?;
            let name = created.metadata.name.unwrap_or_default();
            let established = within(READY_MAX, async || {
                let now = api.get(&name).await.map_err(|error| error.to_string())?;
                let conditions = now.status.and_then(|status| status.conditions);
                let mut conditions = conditions.iter().flatten();
                match conditions.any(|one| one.type_ == "Established" && one.status == "True") {
                    true => Ok(()),
                    false => Err(format!("{name} isn't established")),
                }
            });
            established.await.map_err(ControlPlaneError::NotReady)?;
        }
        Ok(())
    }

    /// The file that says how it is reached, with every right.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A client with the rights of a bearer token.
    ///
    /// # Errors
    /// If none can be made.
    pub async fn client_as(&self, token: &str) -> Result<kube::Client, ControlPlaneError> {
        client(&self.kubeconfig_of(token, "kubeconfig-of-token")?).await
    }

    /// The file with which one of the cluster's own programs reaches it.
    pub(crate) fn kubeconfig_as(&self, user: User) -> Result<PathBuf, ControlPlaneError> {
        self.kubeconfig_of(self.identity.token(user), &format!("kubeconfig-{user:?}"))
    }

    fn kubeconfig_of(&self, token: &str, name: &str) -> Result<PathBuf, ControlPlaneError> {
        let path = self.folder.path().join(name);
        let text = kubeconfig_text(&self.identity, &self.port, token);
        let written = std::fs::write(&path, text).map(|()| path);
        written.map_err(|source| ControlPlaneError::Io {
            what: "writing a kubeconfig",
            source,
        })
    }

    pub(crate) fn programs(&self) -> &Programs {
        &self.programs
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Starts some of Kubernetes' own controllers, such as `namespace-controller`; dropping them kills them.
    ///
    /// # Errors
    /// If the program isn't there or doesn't start.
    pub fn controllers(&self, names: &[&str]) -> Result<Process, ControlPlaneError> {
        // Each controller has rights of its own, which the account of the program hasn't.
        let kubeconfig = &self.kubeconfig;
        let process = Process::builder(self.programs.path("kube-controller-manager")?)
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["--controllers", &names.join(",")])
            .args(["--leader-elect=false", "--secure-port=0"])
            .spawn()?;
        Ok(process)
    }

    /// A kubectl that talks to it.
    ///
    /// # Errors
    /// If the program isn't there.
    pub fn kubectl(&self) -> Result<tokio::process::Command, ControlPlaneError> {
        self.command("kubectl")
    }

    /// A helm that talks to it.
    ///
    /// # Errors
    /// If the program isn't there.
    pub fn helm(&self) -> Result<tokio::process::Command, ControlPlaneError> {
        self.command("helm")
    }

    fn command(&self, program: &str) -> Result<tokio::process::Command, ControlPlaneError> {
        let mut command = tokio::process::Command::new(self.programs.path(program)?);
        // Whatever they keep, they keep here.
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", self.folder.path());
        Ok(command)
    }

    /// Stops the API server as an upgrade would, and starts it again on the same port with the same data.
    ///
    /// # Errors
    /// [`ControlPlaneError`]
    pub async fn restart_apiserver(&mut self) -> Result<(), ControlPlaneError> {
        self.stop_apiserver().await?;
        self.start_apiserver().await
    }

    /// Stops the API server; [`ControlPlane::restart_apiserver`] starts it again.
    ///
    /// # Errors
    /// [`ControlPlaneError`]
    pub async fn stop_apiserver(&mut self) -> Result<(), ControlPlaneError> {
        if let Some(mut process) = self.apiserver.take() {
            process.terminate()?;
            // It drains, and keeps its port until it is gone.
            process.wait_exit(STOP_MAX).await?;
        }
        Ok(())
    }
}

/// A program of the control plane: on the machine, or inside of a node's namespaces.
fn process(inside: Option<&Entrance>, program: PathBuf) -> ProcessBuilder {
    match inside {
        None => Process::builder(program),
        Some(inside) => inside.process(program),
    }
}

async fn client(kubeconfig: &Path) -> Result<kube::Client, ControlPlaneError> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    Ok(kube::Client::try_from(config)?)
}

/// Text of a kubeconfig: JSON is YAML.
fn kubeconfig_text(identity: &Identity, port: &Port, token: &str) -> String {
    let name = "testbed";
    let server = format!("https://127.0.0.1:{}", port.number());
    let text = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority": identity.authority}}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    });
    text.to_string()
}
