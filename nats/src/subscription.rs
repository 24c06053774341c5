//! Core subscriptions that last: they outlive reconnects, and a client that died and was replaced.

use crate::connection::Nats;
use async_nats::{Message, Subscriber};
use futures::StreamExt;
use std::time::Duration;

/// Pause between two tries to subscribe while the client is being replaced.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A subject that isn't one.
#[derive(Clone, Debug, thiserror::Error)]
#[error("can't subscribe to {subject}: {reason}")]
pub struct SubscriptionError {
    subject: String,
    reason: String,
}

/// Messages of a subject. While NATS is away they are lost, as core messages are.
#[derive(Debug)]
pub struct Subscription {
    nats: Nats,
    subject: String,
    queue: Option<String>,
    subscriber: Subscriber,
}

impl Subscription {
    /// Subscribes; with a queue group each message reaches one of its members only.
    ///
    /// # Errors
    /// [`SubscriptionError`]
    pub async fn open(
        nats: &Nats,
        subject: &str,
        queue: Option<&str>,
    ) -> Result<Self, SubscriptionError> {
        let queue = queue.map(str::to_owned);
        let subscriber = subscribe(nats, subject, queue.as_deref()).await?;
        Ok(Subscription {
            nats: nats.clone(),
            subject: subject.to_owned(),
            queue,
            subscriber,
        })
    }

    /// The next message. It may be given up at any point without losing anything.
    pub async fn next(&mut self) -> Message {
        loop {
            if let Some(message) = self.subscriber.next().await {
                return message;
            }
            match subscribe(&self.nats, &self.subject, self.queue.as_deref()).await {
                Ok(subscriber) => self.subscriber = subscriber,
                Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
            }
        }
    }
}

async fn subscribe(
    nats: &Nats,
    subject: &str,
    queue: Option<&str>,
) -> Result<Subscriber, SubscriptionError> {
    let client = nats.client();
    let subscribed = match queue {
        None => client.subscribe(subject.to_owned()).await,
        Some(queue) => {
            client
                .queue_subscribe(subject.to_owned(), queue.to_owned())
                .await
        }
    };
    subscribed.map_err(|error| SubscriptionError {
        subject: subject.to_owned(),
        reason: error.to_string(),
    })
}
