//! Making clients, and replacing one that is dead.

use super::events::Events;
use super::settings::Settings;
use super::{ConnectError, Live, Slot, retry_pause};
use async_nats::Client;
use async_nats::jetstream::context::ContextBuilder;
use futures::StreamExt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tidemill_core::contract::Connection;

/// Silence after which a server is asked whether it is alive; the connection is given up after two more.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// Longest try to reach one server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the answer to a request that sets no limit of its own.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the state is read from the client itself: it drops events when more than 128 of them wait.
const RECONCILE_INTERVAL: Duration = Duration::from_millis(500);

/// Everything that is needed to connect.
pub(super) struct Dial {
    pub(super) connection: Connection,
    pub(super) settings: Settings,
    pub(super) forwarded: bool,
    pub(super) name: String,
    pub(super) events: Arc<Events>,
}

impl Dial {
    /// Connects, trying each server once. Files are read again each time.
    pub(super) async fn dial(&self) -> Result<Live, ConnectError> {
        let Dial {
            connection,
            settings,
            forwarded,
            name,
            events,
        } = self;
        let generation = events.generation();
        let heard = Arc::clone(events);
        let mut options = settings
            .options(connection)
            .await?
            .name(name)
            .connection_timeout(CONNECT_TIMEOUT)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .ping_interval(PING_INTERVAL)
            .reconnect_delay_callback(retry_pause)
            .event_callback(move |event| {
                heard.hear(generation, &event);
                std::future::ready(())
            });
        if *forwarded {
            options = options.ignore_discovered_servers();
        }
        if let Some(prefix) = &connection.inbox_prefix {
            options = options.custom_inbox_prefix(prefix);
        }
        let client = options
            .connect(settings.addresses.as_slice())
            .await
            .map_err(|error| settings.explain(&error))?;
        let jetstream = ContextBuilder::new()
            .api_prefix(settings.api_prefix.clone())
            .timeout(REQUEST_TIMEOUT)
            .build(client.clone());
        Ok(Live { client, jetstream })
    }
}

/// Watches over the client in the slot, and puts another there when it is dead. Ends only by being aborted.
pub(super) async fn supervise(dial: Dial, slot: Slot) {
    loop {
        let client = slot
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .client
            .clone();
        until_dead(&dial.events, &client).await;
        tracing::error!(
            "the NATS client died, most likely of headers it can't read; it is replaced"
        );
        dial.events.end();
        let mut tries = 1;
        let live = loop {
            match dial.dial().await {
                Ok(live) => break Arc::new(live),
                Err(error) => {
                    tracing::debug!(%error, "NATS can't be reached yet");
                    dial.events.complain(error.to_string());
                    tries += 1;
                    tokio::time::sleep(retry_pause(tries)).await;
                }
            }
        };
        *slot.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&live);
        dial.events.begin(&live.client);
    }
}

/// Ends when the client's own task has ended: its subscriptions end with it.
async fn until_dead(events: &Events, client: &Client) {
    let Ok(mut probe) = client.subscribe(client.new_inbox()).await else {
        return;
    };
    loop {
        tokio::select! {
            message = probe.next() => if message.is_none() {
                return;
            },
            () = tokio::time::sleep(RECONCILE_INTERVAL) => events.reconcile(client),
        }
    }
}
