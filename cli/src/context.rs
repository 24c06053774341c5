//! What every command starts from: options, output, where NATS is.

use crate::args::Global;
use crate::catalog::is_name;
use crate::cluster::forward::Forward;
use crate::cluster::resources::{Named, Type};
use crate::cluster::{self, Cluster};
use crate::dev_file::DevFile;
use crate::error::{CliError, Exit, Result};
use crate::output::{Format, Output};
use std::path::PathBuf;
use std::time::Duration;
use tidemill_core::contract::Connection;
use tidemill_nats::connection::ConnectError;
use tidemill_nats::{ApiError, Credentials, Nats};

/// An absence of NATS shorter than this is a restart, of which nothing is said.
const AWAY_UNSAID: Duration = Duration::from_secs(2);

/// Options, output and the `dev` that is running nearby.
pub(crate) struct Context {
    pub(crate) output: Output,
    global: Global,
    dev: Option<(PathBuf, DevFile)>,
}

/// Where an address came from, for messages.
enum Origin {
    Option,
    DevFile(PathBuf),
}

impl Context {
    pub(crate) fn new(global: Global) -> Self {
        // Given another address or a cluster, what the file says of streams and resources is of another server.
        let dev = match global.nats.is_some() || global.names_cluster() {
            true => None,
            false => std::env::current_dir()
                .ok()
                .and_then(|folder| DevFile::find(&folder)),
        };
        Context {
            output: Output::new(global.output.format().unwrap_or(Format::Table)),
            global,
            dev,
        }
    }

    /// The `dev` nearby, unless another server was named.
    pub(crate) fn dev(&self) -> Option<&DevFile> {
        self.dev.as_ref().map(|(_, dev)| dev)
    }

    /// The address given by option or environment, without the file.
    pub(crate) fn given_address(&self) -> Option<&str> {
        self.global.nats.as_deref()
    }

    /// The namespace given by option or environment.
    pub(crate) fn given_namespace(&self) -> Option<&str> {
        self.global.namespace.as_deref()
    }

    /// Whether people read the result.
    pub(crate) fn for_people(&self) -> bool {
        self.output.format == Format::Table
    }

    /// Namespace and name of `name` or `namespace/name`.
    pub(crate) fn qualify(&self, name: &str) -> (String, String) {
        match name.split_once('/') {
            Some((namespace, name)) => (namespace.to_owned(), name.to_owned()),
            None => (self.namespace(), name.to_owned()),
        }
    }

    /// The namespace of resources that are named without one.
    pub(crate) fn namespace(&self) -> String {
        let dev = self.dev().map(|dev| dev.namespace.as_str());
        if let Some(namespace) = self.given_namespace().or(dev) {
            return namespace.to_owned();
        }
        // An address by itself is of no cluster.
        let of_context = match self.global.nats.is_none() || self.global.names_cluster() {
            true => cluster::namespace(&self.global),
            false => None,
        };
        of_context.unwrap_or_else(|| "default".to_owned())
    }

    /// The cluster of the kubeconfig.
    ///
    /// # Errors
    /// There is no kubeconfig, or it can't be used.
    pub(crate) async fn cluster(&self) -> Result<Cluster> {
        let found = Cluster::find(&self.global).await?;
        found.ok_or_else(|| {
            CliError::new(Exit::Unreachable, "which cluster is meant isn't known")
                .remedy("there is no ~/.kube/config: give --kubeconfig FILE, or set KUBECONFIG")
        })
    }

    /// A resource of the cluster, of `name` or `namespace/name`. What runs on this machine has no say in its namespace.
    ///
    /// # Errors
    /// It can't be a name.
    pub(crate) fn named(&self, cluster: &Cluster, of: Type, name: &str) -> Result<Named> {
        let (namespace, name) = match name.split_once('/') {
            Some((namespace, name)) => (namespace, name),
            None => (self.given_namespace().unwrap_or(&cluster.namespace), name),
        };
        if !is_name(namespace) || !is_name(name) {
            let what = format!("`{namespace}/{name}` is no name of a {}", of.name());
            return Err(
                CliError::usage(what).remedy("names have lower-case letters, digits and `-`")
            );
        }
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Ok(Named {
            of,
            namespace,
            name,
        })
    }

    /// Namespace where the chart is, if it was said.
    pub(crate) fn tidemill_namespace(&self) -> Option<&str> {
        self.global.tidemill_namespace.as_deref()
    }

    /// Connection to a server, with the credentials that were given.
    pub(crate) fn connection(&self, address: &str) -> Connection {
        let mut connection = Connection::plain(address);
        connection.servers = address
            .split(',')
            .map(|server| server.trim().to_owned())
            .collect();
        connection.credentials_file.clone_from(&self.global.creds);
        connection
    }

    /// Connects to NATS.
    ///
    /// # Errors
    /// One line that says which address was tried, where it came from, and what would do.
    pub(crate) async fn connect(&self) -> Result<Nats> {
        let (address, origin) = match (&self.global.nats, &self.dev) {
            (Some(address), _) => (address.as_str(), Origin::Option),
            (None, Some((file, dev))) => (dev.nats.as_str(), Origin::DevFile(file.clone())),
            (None, None) => return self.connect_in_cluster().await,
        };
        let nats = Nats::connect(&self.connection(address), "tidemill")
            .await
            .map_err(|error| connect_error(&error, &origin))?;
        say_when_away(&nats, nats.servers().to_owned());
        Ok(nats)
    }

    /// As [`Context::connect`], for what is about a cluster: what runs on this machine isn't asked.
    ///
    /// # Errors
    /// As [`Context::connect`].
    pub(crate) async fn connect_for_cluster(&self) -> Result<Nats> {
        match &self.global.nats {
            Some(_) => self.connect().await,
            None => self.connect_in_cluster().await,
        }
    }

    /// Connects to the NATS of the chart, through a forwarded port.
    async fn connect_in_cluster(&self) -> Result<Nats> {
        let Some(cluster) = Cluster::find(&self.global).await? else {
            return Err(CliError::new(Exit::Unreachable, "where NATS is isn't known")
                .remedy("run `tidemill dev DIR` here, give --nats nats://HOST:4222, or name a cluster (--kubeconfig, KUBECONFIG)"));
        };
        let place = cluster.nats(self.tidemill_namespace()).await?;
        let credentials = match self.global.creds {
            Some(_) => None,
            None => place.credentials().await?,
        };
        let came_with = self.global.creds.is_some() || credentials.is_some();
        let forward = Forward::open(place.clone()).await?;
        let connection = self.connection(&format!("nats://{}", forward.address()));
        let credentials = credentials.map(Credentials::new);
        let nats = Nats::connect_forwarded(&connection, credentials.as_ref(), "tidemill").await;
        let nats = nats.map_err(|error| match &error {
            // What went wrong behind the port says more.
            ConnectError::Unreachable { .. } => {
                forward.failure().unwrap_or_else(|| not_connected(&error))
            }
            ConnectError::Refused { .. } if !came_with => {
                not_connected(&error).remedy(place.no_credentials())
            }
            _ => not_connected(&error),
        })?;
        say_when_away(&nats, format!("service {}", place.shown()));
        Ok(nats)
    }
}

/// Commands go on by themselves when NATS is back; until then whoever waits shall know what for.
fn say_when_away(nats: &Nats, servers: String) {
    let mut status = nats.status();
    tokio::spawn(async move {
        while status.wait_for(|status| !status.connected).await.is_ok() {
            let back = status.wait_for(|status| status.connected);
            if let Ok(back) = tokio::time::timeout(AWAY_UNSAID, back).await {
                if back.is_err() {
                    return;
                }
                continue;
            }
            eprintln!("NATS at {servers} is away: this goes on when it is back; Ctrl-C ends it");
            if status.wait_for(|status| status.connected).await.is_err() {
                return;
            }
            eprintln!("NATS at {servers} is back");
        }
    });
}

/// Why there is no connection, as an error of the command line.
pub(crate) fn not_connected(error: &ConnectError) -> CliError {
    let exit = match error {
        ConnectError::Settings(_) | ConnectError::Credentials { .. } => Exit::Usage,
        ConnectError::Unreachable { .. } | ConnectError::Tls { .. } => Exit::Unreachable,
        ConnectError::Refused { .. } => Exit::Refused,
    };
    CliError::new(exit, error)
}

fn connect_error(error: &ConnectError, origin: &Origin) -> CliError {
    let failed = not_connected(error);
    match (origin, error) {
        (Origin::DevFile(file), ConnectError::Unreachable { .. }) => failed.remedy(format!(
            "the address is from {}: does `tidemill dev` still run?",
            file.display()
        )),
        _ => failed,
    }
}

/// An error of JetStream's API as one of the command line.
pub(crate) fn api_error(error: &ApiError) -> CliError {
    let exit = match error {
        ApiError::StreamMissing(_) => Exit::NotFound,
        ApiError::Denied(_) => Exit::Refused,
        ApiError::TimedOut(_) | ApiError::Disconnected(_) | ApiError::NoJetStream(_) => {
            Exit::Unreachable
        }
        ApiError::Refused { .. } | ApiError::Form(..) => Exit::Failed,
    };
    CliError::new(exit, crate::error::chain(error))
}
