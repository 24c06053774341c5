//! One connection to NATS, made from the `connection` of a contract.
//!
//! The client (async-nats 0.51) reconnects by itself, with one exception: a message whose headers hold a lone carriage return makes
//! it panic, and it is dead from then on. Anybody who may publish could stop a worker so; the dead client is replaced here, which
//! looks like a reconnect from outside, except that subscriptions made with [`Nats::client`] end.

mod events;
mod settings;
mod supervise;

use crate::credentials::Credentials;
use crate::undeliverable::Undeliverable;
use async_nats::Client;
use events::Events;
use settings::Settings;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use supervise::{Dial, supervise};
use tidemill_core::contract::Connection;
use tokio::sync::{broadcast, watch};

pub(crate) use events::Denial;

/// Pauses between two tries to connect: at once, then doubling between these.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(50);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// A connection to NATS that reconnects by itself, for ever. Cheap to clone; the connection ends with the last clone.
#[derive(Clone)]
pub struct Nats(Arc<Inner>);

struct Inner {
    live: Slot,
    /// With a dot at its end.
    api_prefix: String,
    root: String,
    servers: String,
    events: Arc<Events>,
    undeliverable: Undeliverable,
    /// Ends with this; it would keep the connection alive.
    supervisor: tokio::task::AbortHandle,
}

/// The client that is used now.
type Slot = Arc<RwLock<Arc<Live>>>;

/// One client, until it is replaced.
pub(crate) struct Live {
    pub(crate) client: Client,
    jetstream: async_nats::jetstream::Context,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

/// What is known of a connection right now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionStatus {
    /// Whether it stands.
    pub connected: bool,
    /// How often it was made again. Whatever was read or sent across a change of this number may be lost.
    pub reconnects: u64,
    /// The last thing the server or the client complained of.
    pub last_error: Option<String>,
}

/// Why no connection could be made. Each message is one line that names the servers without credentials.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The contract's connection itself is wrong; trying again is useless.
    #[error("the NATS connection is wrong: {0}")]
    Settings(String),
    /// The credentials file can't be used; trying again is useless.
    #[error("the NATS credentials file {file} can't be used: {reason}")]
    Credentials {
        /// Its path.
        file: String,
        /// What is wrong, without what it holds.
        reason: String,
    },
    /// Nobody answered.
    #[error(
        "can't reach NATS at {servers} ({reason}): is a server running there, and is the address right?"
    )]
    Unreachable {
        /// The servers tried.
        servers: String,
        /// The last thing that went wrong.
        reason: String,
    },
    /// The server answered and refused.
    #[error(
        "NATS at {servers} refuses the credentials ({reason}): check the credentials file and the server's users"
    )]
    Refused {
        /// The servers tried.
        servers: String,
        /// What it said.
        reason: String,
    },
    /// TLS could not be agreed upon.
    #[error(
        "TLS with NATS at {servers} failed ({reason}): check the certificate files of the connection"
    )]
    Tls {
        /// The servers tried.
        servers: String,
        /// What went wrong.
        reason: String,
    },
}

impl ConnectError {
    /// Whether the same settings may work later.
    pub fn may_pass(&self) -> bool {
        match self {
            ConnectError::Settings(_) | ConnectError::Credentials { .. } => false,
            ConnectError::Unreachable { .. }
            | ConnectError::Refused { .. }
            | ConnectError::Tls { .. } => true,
        }
    }
}

impl Nats {
    /// Connects, trying each server once. `name` is what the server's monitoring shows.
    ///
    /// Once connected, it reconnects for ever in the background; see [`Nats::status`].
    ///
    /// # Errors
    /// [`ConnectError`]
    pub async fn connect(connection: &Connection, name: &str) -> Result<Nats, ConnectError> {
        Nats::connect_with(connection, None, name).await
    }

    /// As [`Nats::connect`]; credentials that are given go before those that the connection names.
    ///
    /// # Errors
    /// [`ConnectError`]
    pub async fn connect_with(
        connection: &Connection,
        credentials: Option<&Credentials>,
        name: &str,
    ) -> Result<Nats, ConnectError> {
        Nats::connect_by(connection, credentials, name, false).await
    }

    /// As [`Nats::connect_with`], through a forwarded port: only the addresses of the connection are used, never those that the server
    /// names, which nobody reaches from outside of its network.
    ///
    /// # Errors
    /// [`ConnectError`]
    pub async fn connect_forwarded(
        connection: &Connection,
        credentials: Option<&Credentials>,
        name: &str,
    ) -> Result<Nats, ConnectError> {
        Nats::connect_by(connection, credentials, name, true).await
    }

    async fn connect_by(
        connection: &Connection,
        credentials: Option<&Credentials>,
        name: &str,
        forwarded: bool,
    ) -> Result<Nats, ConnectError> {
        let settings = Settings::new(connection)?.with(credentials);
        let dial = Dial {
            connection: connection.clone(),
            settings,
            forwarded,
            name: name.to_owned(),
            events: Arc::new(Events::new()),
        };
        let live = Arc::new(dial.dial().await?);
        dial.events.begin(&live.client);
        let live: Slot = Arc::new(RwLock::new(live));
        let (events, shown) = (Arc::clone(&dial.events), dial.settings.shown.clone());
        let api_prefix = format!("{}.", dial.settings.api_prefix);
        let supervisor = tokio::spawn(supervise(dial, Arc::clone(&live))).abort_handle();
        Ok(Nats(Arc::new(Inner {
            live,
            api_prefix,
            root: connection.subject_root.clone(),
            servers: shown,
            events,
            undeliverable: Undeliverable::default(),
            supervisor,
        })))
    }

    /// Connects, trying until it succeeds; every new reason why not is logged once.
    ///
    /// # Errors
    /// Only what no waiting mends: see [`ConnectError::may_pass`].
    pub async fn connect_waiting(
        connection: &Connection,
        name: &str,
    ) -> Result<Nats, ConnectError> {
        Nats::connect_waiting_with(connection, None, name).await
    }

    /// As [`Nats::connect_waiting`], with credentials as in [`Nats::connect_with`].
    ///
    /// # Errors
    /// Only what no waiting mends: see [`ConnectError::may_pass`].
    pub async fn connect_waiting_with(
        connection: &Connection,
        credentials: Option<&Credentials>,
        name: &str,
    ) -> Result<Nats, ConnectError> {
        let mut tries = 0;
        let mut said = String::new();
        loop {
            match Nats::connect_with(connection, credentials, name).await {
                Err(error) if error.may_pass() => {
                    let text = error.to_string();
                    if text != said {
                        tracing::warn!(error = %text, "waiting for NATS");
                        said = text;
                    }
                    tries += 1;
                    tokio::time::sleep(retry_pause(tries + 1)).await;
                }
                done => return done,
            }
        }
    }

    /// The client, for core NATS: requests, subscriptions. Ask again for each use: it is replaced when it dies, and then its
    /// subscriptions end ([`crate::subscription`] makes lasting ones).
    pub fn client(&self) -> Client {
        self.live().client.clone()
    }

    /// JetStream with this connection's domain or prefix.
    pub fn jetstream(&self) -> async_nats::jetstream::Context {
        self.live().jetstream.clone()
    }

    pub(crate) fn live(&self) -> Arc<Live> {
        let live = self.0.live.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&live)
    }

    /// Root of Tidemill's own subjects, `_tm` unless the contract says otherwise.
    pub fn root(&self) -> &str {
        &self.0.root
    }

    /// The servers as a person may see them: without credentials.
    pub fn servers(&self) -> &str {
        &self.0.servers
    }

    /// What is known of the connection, and its changes.
    pub fn status(&self) -> watch::Receiver<ConnectionStatus> {
        self.0.events.status.subscribe()
    }

    /// Waits until it is connected; gives the number of reconnects so far, or `None` if it is closed for good.
    pub(crate) async fn when_connected(&self) -> Option<u64> {
        {
            let now = self.0.events.status.borrow();
            if now.connected {
                return Some(now.reconnects);
            }
        }
        let mut status = self.status();
        let connected = status.wait_for(|status| status.connected).await;
        connected.ok().map(|status| status.reconnects)
    }

    /// Largest message the server takes, headers included, in bytes.
    pub fn max_payload(&self) -> usize {
        self.live().client.max_payload()
    }

    /// How often the server refused something for lack of permission, since the start.
    pub fn permission_violations(&self) -> u64 {
        self.0.events.denied.load(Ordering::Relaxed)
    }

    /// How often a subscription was too slow and lost a message, since the start.
    pub fn slow_consumers(&self) -> u64 {
        self.0.events.slow.load(Ordering::Relaxed)
    }

    /// `$JS.API`, or what this connection's domain or prefix makes of it.
    pub(crate) fn api(&self) -> &str {
        self.0.api_prefix.trim_end_matches('.')
    }

    /// `$JS.API.<call>` with this connection's domain or prefix.
    pub(crate) fn api_subject(&self, call: &str) -> String {
        format!("{}{call}", self.0.api_prefix)
    }

    pub(crate) fn undeliverable(&self) -> &Undeliverable {
        &self.0.undeliverable
    }

    pub(crate) fn denials(&self) -> broadcast::Receiver<Denial> {
        self.0.events.denials.subscribe()
    }
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats")
            .field("servers", &self.0.servers)
            .field("status", &*self.0.events.status.borrow())
            .finish_non_exhaustive()
    }
}

fn retry_pause(tries: usize) -> Duration {
    let doublings = u32::try_from(tries.saturating_sub(2))
        .unwrap_or(u32::MAX)
        .min(10);
    match tries {
        0 | 1 => Duration::ZERO,
        _ => (RETRY_PAUSE_MIN * 2_u32.pow(doublings)).min(RETRY_PAUSE_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end() {
        assert_eq!(retry_pause(1), Duration::ZERO);
        assert_eq!(retry_pause(2), RETRY_PAUSE_MIN);
        assert_eq!(retry_pause(3), RETRY_PAUSE_MIN * 2);
        assert_eq!(retry_pause(usize::MAX), RETRY_PAUSE_MAX);
    }
}
