//! What every command starts from: options, output, where NATS is.

use crate::args::Global;
use crate::dev_file::DevFile;
use crate::error::{CliError, Exit, Result};
use crate::output::{Format, Output};
use std::path::PathBuf;
use std::time::Duration;
use tidemill_core::contract::Connection;
use tidemill_nats::connection::ConnectError;
use tidemill_nats::{ApiError, Nats};

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
        // Given another address, what the file says of streams and resources is of another server.
        let dev = match &global.nats {
            Some(_) => None,
            None => std::env::current_dir()
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
        self.given_namespace()
            .or(dev)
            .unwrap_or("default")
            .to_owned()
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
            (None, None) => {
                return Err(
                    CliError::new(Exit::Unreachable, "where NATS is isn't known")
                        .remedy("run `tidemill dev DIR` here, or give --nats nats://HOST:4222"),
                );
            }
        };
        let nats = Nats::connect(&self.connection(address), "tidemill")
            .await
            .map_err(|error| connect_error(&error, &origin))?;
        say_when_away(&nats);
        Ok(nats)
    }
}

/// Commands go on by themselves when NATS is back; until then whoever waits shall know what for.
fn say_when_away(nats: &Nats) {
    let (mut status, servers) = (nats.status(), nats.servers().to_owned());
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
