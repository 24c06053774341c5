//! What the client tells of its connection: state, refusals by permission, lost messages.

use super::ConnectionStatus;
use async_nats::{Client, ClientError, Event, ServerError, Statistics};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{broadcast, watch};

/// How often the state is read from the client itself: it drops events when more than 128 of them wait.
const RECONCILE_INTERVAL: Duration = Duration::from_millis(500);
/// Refusals by permission that a slow listener may be behind before it misses some; a listener that misses one times out instead.
const DENIALS_BUFFER: usize = 1024;

/// A refusal by permissions. The server tells it apart from the request that caused it, by subject only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Denial {
    Publish(String),
    Subscribe(String),
}

pub(super) struct Events {
    pub(super) status: watch::Sender<ConnectionStatus>,
    pub(super) denials: broadcast::Sender<Denial>,
    pub(super) denied: AtomicU64,
    pub(super) slow: AtomicU64,
    /// Set once the client is there; the client itself in here would keep itself alive.
    pub(super) statistics: OnceLock<Arc<Statistics>>,
}

impl Events {
    pub(super) fn new() -> Self {
        Events {
            status: watch::Sender::new(ConnectionStatus::default()),
            denials: broadcast::Sender::new(DENIALS_BUFFER),
            denied: AtomicU64::new(0),
            slow: AtomicU64::new(0),
            statistics: OnceLock::new(),
        }
    }

    pub(super) fn hear(&self, event: &Event) {
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
    pub(super) fn reconcile(&self, client: &Client) {
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

pub(super) async fn reconcile(client: Client, events: Arc<Events>) {
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
}
