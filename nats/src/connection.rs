//! One connection to NATS, made from the `connection` of a contract.

use crate::credentials;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::{
    Client, ClientError, ConnectErrorKind, ConnectOptions, Event, ServerAddr, ServerError,
    Statistics,
};
use std::error::Error as _;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tidemill_core::contract::Connection;
use tokio::sync::{broadcast, watch};

/// Silence after which a server is asked whether it is alive; the connection is given up after two more.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// Longest try to reach one server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the answer to a request that sets no limit of its own.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses between two tries to connect: at once, then doubling between these.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(50);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);
/// How often the state is read from the client itself: it drops events when more than 128 of them wait.
const RECONCILE_INTERVAL: Duration = Duration::from_millis(500);
/// Refusals by permission that a slow listener may be behind before it misses some; a listener that misses one times out instead.
const DENIALS_BUFFER: usize = 1024;

/// A connection to NATS that reconnects by itself, for ever. Cheap to clone; the connection ends with the last clone.
#[derive(Clone)]
pub struct Nats(Arc<Inner>);

struct Inner {
    client: Client,
    jetstream: async_nats::jetstream::Context,
    /// With a dot at its end.
    api_prefix: String,
    root: String,
    servers: String,
    events: Arc<Events>,
    /// Ends with this; it would keep the connection alive.
    reconcile: tokio::task::AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.reconcile.abort();
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

/// A refusal by permissions. The server tells it apart from the request that caused it, by subject only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Denial {
    Publish(String),
    Subscribe(String),
}

struct Events {
    status: watch::Sender<ConnectionStatus>,
    denials: broadcast::Sender<Denial>,
    denied: AtomicU64,
    slow: AtomicU64,
    /// Set once the client is there; the client itself in here would keep itself alive.
    statistics: OnceLock<Arc<Statistics>>,
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
        let settings = Settings::new(connection)?;
        let events = Arc::new(Events::new());
        let heard = Arc::clone(&events);
        let mut options = settings
            .options(connection)
            .await?
            .name(name)
            .connection_timeout(CONNECT_TIMEOUT)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .ping_interval(PING_INTERVAL)
            .reconnect_delay_callback(retry_pause)
            .event_callback(move |event| {
                heard.hear(&event);
                std::future::ready(())
            });
        if let Some(prefix) = &connection.inbox_prefix {
            options = options.custom_inbox_prefix(prefix);
        }
        let client = options
            .connect(settings.addresses.as_slice())
            .await
            .map_err(|error| settings.explain(&error))?;

        let _ = events.statistics.set(client.statistics());
        events.reconcile(&client);
        let reconcile = tokio::spawn(reconcile(client.clone(), Arc::clone(&events))).abort_handle();
        let jetstream = ContextBuilder::new()
            .api_prefix(settings.api_prefix.clone())
            .timeout(REQUEST_TIMEOUT)
            .build(client.clone());
        Ok(Nats(Arc::new(Inner {
            client,
            jetstream,
            api_prefix: format!("{}.", settings.api_prefix),
            root: connection.subject_root.clone(),
            servers: settings.shown,
            events,
            reconcile,
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
        let mut tries = 0;
        let mut said = String::new();
        loop {
            match Nats::connect(connection, name).await {
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

    /// The client, for core NATS: requests, subscriptions.
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// JetStream with this connection's domain or prefix.
    pub fn jetstream(&self) -> &async_nats::jetstream::Context {
        &self.0.jetstream
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

    /// Largest message the server takes, headers included, in bytes.
    pub fn max_payload(&self) -> usize {
        self.0.client.max_payload()
    }

    /// How often the server refused something for lack of permission, since the start.
    pub fn permission_violations(&self) -> u64 {
        self.0.events.denied.load(Ordering::Relaxed)
    }

    /// How often a subscription was too slow and lost a message, since the start.
    pub fn slow_consumers(&self) -> u64 {
        self.0.events.slow.load(Ordering::Relaxed)
    }

    /// `$JS.API.<call>` with this connection's domain or prefix.
    pub(crate) fn api_subject(&self, call: &str) -> String {
        format!("{}{call}", self.0.api_prefix)
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

/// What of a contract's connection is understood before anything is tried.
struct Settings {
    addresses: Vec<ServerAddr>,
    /// The addresses without credentials.
    shown: String,
    /// Credentials given in a URL; the contract says there are none, people's `--nats` may have some.
    url_user: Option<(String, String)>,
    api_prefix: String,
}

impl Settings {
    fn new(connection: &Connection) -> Result<Self, ConnectError> {
        let wrong = |reason: String| Err(ConnectError::Settings(reason));
        if connection.servers.is_empty() {
            return wrong("it names no server".to_owned());
        }
        let mut addresses = Vec::new();
        let mut shown = Vec::new();
        let mut url_user = None;
        for server in &connection.servers {
            // The text isn't quoted as it is: it may hold a password.
            let Ok(address) = server.parse::<ServerAddr>() else {
                let end = server.rsplit('@').next().unwrap_or_default();
                return wrong(format!("`{end}` is no address; write nats://host:port"));
            };
            if address.is_websocket() {
                return wrong(format!(
                    "{}: WebSocket isn't supported, use nats:// or tls://",
                    address.host()
                ));
            }
            if let (None, Some(user)) = (&url_user, address.username()) {
                let password = address.password().unwrap_or_default();
                url_user = Some((decode_percent(user), decode_percent(password)));
            }
            shown.push(format!(
                "{}://{}:{}",
                address.scheme(),
                bracketed(address.host()),
                address.port()
            ));
            addresses.push(address);
        }
        let api_prefix = match (
            &connection.jetstream_domain,
            &connection.jetstream_api_prefix,
        ) {
            (Some(_), Some(_)) => {
                return wrong(
                    "it has a JetStream domain and an API prefix; give one of them".to_owned(),
                );
            }
            (Some(domain), None) => format!("$JS.{domain}.API"),
            (None, Some(prefix)) => prefix.trim_end_matches('.').to_owned(),
            (None, None) => "$JS.API".to_owned(),
        };
        Ok(Settings {
            addresses,
            shown: shown.join(", "),
            url_user,
            api_prefix,
        })
    }

    async fn options(&self, connection: &Connection) -> Result<ConnectOptions, ConnectError> {
        let mut options =
            match (&connection.credentials_file, &self.url_user) {
                (Some(file), _) => credentials::from_file(file).await.map_err(|reason| {
                    ConnectError::Credentials {
                        file: file.clone(),
                        reason,
                    }
                })?,
                (None, Some((user, password))) => {
                    ConnectOptions::with_user_and_password(user.clone(), password.clone())
                }
                (None, None) => ConnectOptions::new(),
            };
        if let Some(tls) = &connection.tls {
            options = options.require_tls(true);
            for file in [&tls.ca_file, &tls.certificate_file, &tls.key_file]
                .into_iter()
                .flatten()
            {
                if let Err(error) = tokio::fs::metadata(file).await {
                    return Err(ConnectError::Settings(format!("{file}: {error}")));
                }
            }
            if let Some(file) = &tls.ca_file {
                options = options.add_root_certificates(PathBuf::from(file));
            }
            options = match (&tls.certificate_file, &tls.key_file) {
                (Some(certificate), Some(key)) => {
                    options.add_client_certificate(PathBuf::from(certificate), PathBuf::from(key))
                }
                (None, None) => options,
                _ => {
                    return Err(ConnectError::Settings(
                        "a client certificate needs its key, and a key its certificate".to_owned(),
                    ));
                }
            };
        }
        Ok(options)
    }

    fn explain(&self, error: &async_nats::ConnectError) -> ConnectError {
        let servers = self.shown.clone();
        let reason = error
            .source()
            .map_or_else(|| error.to_string(), ToString::to_string);
        match error.kind() {
            ConnectErrorKind::ServerParse => ConnectError::Settings(reason),
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                ConnectError::Refused { servers, reason }
            }
            ConnectErrorKind::Tls => ConnectError::Tls { servers, reason },
            ConnectErrorKind::Dns
            | ConnectErrorKind::TimedOut
            | ConnectErrorKind::Io
            | ConnectErrorKind::MaxReconnects => ConnectError::Unreachable { servers, reason },
        }
    }
}

impl Events {
    fn new() -> Self {
        Events {
            status: watch::Sender::new(ConnectionStatus::default()),
            denials: broadcast::Sender::new(DENIALS_BUFFER),
            denied: AtomicU64::new(0),
            slow: AtomicU64::new(0),
            statistics: OnceLock::new(),
        }
    }

    fn hear(&self, event: &Event) {
        match event {
            Event::Connected => self.note(true),
            Event::Disconnected => {
                tracing::warn!("NATS is away");
                self.note(false);
            }
            Event::LameDuckMode => tracing::info!("the NATS server is about to stop"),
            Event::Draining | Event::Closed => {}
            Event::SlowConsumer(subscription) => {
                self.slow.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    subscription,
                    "a subscription was too slow and lost a message"
                );
            }
            Event::ServerError(error) => {
                let text = match error {
                    ServerError::Other(text) => text.clone(),
                    ServerError::AuthorizationViolation | ServerError::SlowConsumer(_) => {
                        error.to_string()
                    }
                };
                if let Some(denial) = denial(&text) {
                    self.denied.fetch_add(1, Ordering::Relaxed);
                    // No listener is no fault.
                    let _ = self.denials.send(denial);
                }
                tracing::warn!(error = %text, "NATS refuses something");
                self.complain(text);
            }
            Event::ClientError(ClientError::Other(text)) => self.complain(text.clone()),
            Event::ClientError(error) => self.complain(error.to_string()),
        }
    }

    fn complain(&self, text: String) {
        self.status.send_if_modified(|status| {
            let news = status.last_error.as_ref() != Some(&text);
            status.last_error = Some(text);
            news
        });
    }

    /// The client drops events when many wait, so its state is looked at as well.
    fn reconcile(&self, client: &Client) {
        self.note(client.connection_state() == async_nats::connection::State::Connected);
    }

    fn note(&self, connected: bool) {
        let connects = self
            .statistics
            .get()
            .map_or(0, |statistics| statistics.connects.load(Ordering::Relaxed));
        let reconnects = connects.saturating_sub(1);
        self.status.send_if_modified(|status| {
            let news = status.connected != connected || status.reconnects != reconnects;
            if reconnects > status.reconnects {
                tracing::info!(reconnects, "NATS is back");
            }
            status.connected = connected;
            status.reconnects = reconnects;
            news
        });
    }
}

async fn reconcile(client: Client, events: Arc<Events>) {
    loop {
        tokio::time::sleep(RECONCILE_INTERVAL).await;
        events.reconcile(&client);
    }
}

/// The server tells a refusal by a text only: `Permissions Violation for Publish to "a.b"`, for subscriptions
/// `… for Subscription to "a.b"`, with ` using queue "q"` after it at times.
fn denial(text: &str) -> Option<Denial> {
    let rest = text.strip_prefix("Permissions Violation for ")?;
    let (what, rest) = rest.split_once(" to \"")?;
    let subject = rest.split('"').next()?.to_owned();
    match what {
        "Publish" => Some(Denial::Publish(subject)),
        "Subscription" => Some(Denial::Subscribe(subject)),
        _ => None,
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

fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

/// Decodes `%HH` of a URL's user part; what isn't such a code stays as it is.
fn decode_percent(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = (byte == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        at += if code.is_some() { 3 } else { 1 };
        decoded.push(code.unwrap_or(byte));
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_their_subject() {
        assert_eq!(
            denial("Permissions Violation for Publish to \"shop.orders.1\""),
            Some(Denial::Publish("shop.orders.1".to_owned()))
        );
        assert_eq!(
            denial("Permissions Violation for Subscription to \"a.>\" using queue \"q\""),
            Some(Denial::Subscribe("a.>".to_owned()))
        );
        assert_eq!(denial("Maximum Payload Violation"), None);
    }

    #[test]
    fn pauses_double_and_end() {
        assert_eq!(retry_pause(1), Duration::ZERO);
        assert_eq!(retry_pause(2), RETRY_PAUSE_MIN);
        assert_eq!(retry_pause(3), RETRY_PAUSE_MIN * 2);
        assert_eq!(retry_pause(usize::MAX), RETRY_PAUSE_MAX);
    }

    #[test]
    fn passwords_are_never_shown() {
        for server in [
            "nats://me:s%40cret@host:1",
            "nats://me:s%40cret@:x",
            "ws://me:s%40cret@host",
        ] {
            match Settings::new(&Connection::plain(server)) {
                Ok(settings) => {
                    assert_eq!(settings.shown, "nats://host:1");
                    assert_eq!(
                        settings.url_user,
                        Some(("me".to_owned(), "s@cret".to_owned()))
                    );
                }
                Err(error) => assert!(!error.to_string().contains("cret"), "{error}"),
            }
        }
    }
}
