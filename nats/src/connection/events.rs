//! What the client tells of its connection: state, refusals by permission, lost messages.

use super::ConnectionStatus;
use async_nats::{Client, ClientError, Event, ServerError, Statistics};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{broadcast, watch};

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
    client: Mutex<Counted>,
}

/// The present client, as far as it may be held here: the client itself would keep itself alive.
#[derive(Default)]
struct Counted {
    /// Which client it is; events of others are late.
    generation: u64,
    /// `None` while it is dead and not replaced yet.
    statistics: Option<Arc<Statistics>>,
    /// Connects of the clients before it.
    connects_before: u64,
}

impl Events {
    pub(super) fn new() -> Self {
        Events {
            status: watch::Sender::new(ConnectionStatus::default()),
            denials: broadcast::Sender::new(DENIALS_BUFFER),
            denied: AtomicU64::new(0),
            slow: AtomicU64::new(0),
            client: Mutex::default(),
        }
    }

    /// Which client the next one to be made is.
    pub(super) fn generation(&self) -> u64 {
        self.counted().generation + 1
    }

    /// A client is in use from now on.
    pub(super) fn begin(&self, client: &Client) {
        let mut counted = self.counted();
        counted.generation += 1;
        counted.statistics = Some(client.statistics());
        drop(counted);
        self.reconcile(client);
    }

    /// The client in use is dead.
    pub(super) fn end(&self) {
        let mut counted = self.counted();
        if let Some(statistics) = counted.statistics.take() {
            counted.connects_before += statistics.connects.load(Ordering::Relaxed);
        }
        drop(counted);
        self.status
            .send_if_modified(|status| std::mem::take(&mut status.connected));
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hear(&self, generation: u64, event: &Event) {
        match event {
            Event::Connected | Event::Disconnected if self.counted().generation != generation => {}
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

    pub(super) fn complain(&self, text: String) {
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
        let reconnects = {
            let counted = self.counted();
            let Some(statistics) = &counted.statistics else {
                return;
            };
            let connects = counted.connects_before + statistics.connects.load(Ordering::Relaxed);
            connects.saturating_sub(1)
        };
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
