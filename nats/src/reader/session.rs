//! One consumer, from its creation until something breaks it.

use super::Source;
use crate::connection::ConnectionStatus;
use crate::message::{Delivery, StoredMessage};
use crate::pull::{Ended, Mode, Pulls, SILENCE_MAX};
use async_nats::{Message, StatusCode, Subscriber};
use futures::StreamExt;
use futures::future::BoxFuture;
use std::pin::Pin;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

pub(super) struct Session {
    pub(super) source: Source,
    pub(super) consumer: String,
    pub(super) inbox: String,
    pub(super) subscriber: Subscriber,
    pub(super) status: watch::Receiver<ConnectionStatus>,
    pub(super) reconnects: u64,
    pub(super) pulls: Pulls,
    /// Deliveries so far.
    pub(super) delivered: u64,
    /// Sequence of the last one, at first of the message before.
    pub(super) last: u64,
    /// It ended with its connection.
    pub(super) broke: bool,
    pub(super) silence: Pin<Box<Sleep>>,
    pub(super) denied: BoxFuture<'static, String>,
}

/// What ended the wait for a message.
pub(super) enum Heard {
    Message(Box<Message>),
    Reconnect,
    Silence,
    Denied(String),
}

/// What a delivery is.
pub(super) enum Taken {
    Stored(StoredMessage),
    Control,
    /// The session is over.
    Broken(&'static str),
    /// No more is there.
    End,
}

impl Session {
    /// Asks for more if there is room.
    pub(super) async fn ask(&mut self) {
        while let Some((id, body)) = self.pulls.wanted() {
            let subject = self.source.nats.api_subject(&format!(
                "CONSUMER.MSG.NEXT.{}.{}",
                self.source.stream, self.consumer
            ));
            let reply = format!("{}.{id}", self.inbox);
            let client = self.source.nats.client();
            // It fails only when the client is closed; silence ends the session then.
            if client
                .publish_with_reply(subject, reply, body.to_string().into())
                .await
                .is_err()
            {
                return;
            }
            // With nothing asked for the server was silent by right.
            self.silence.as_mut().reset(Instant::now() + SILENCE_MAX);
            self.pulls.sent(id);
        }
    }

    pub(super) async fn hear(&mut self) -> Heard {
        let reconnects = self.reconnects;
        loop {
            let heard = tokio::select! {
                biased;
                message = self.subscriber.next() => message.map_or(Heard::Reconnect, |message| Heard::Message(Box::new(message))),
                () = async {
                    let _ = self.status.wait_for(|status| status.reconnects != reconnects).await;
                } => Heard::Reconnect,
                subject = &mut self.denied => Heard::Denied(subject),
                () = &mut self.silence => Heard::Silence,
            };
            self.silence.as_mut().reset(Instant::now() + SILENCE_MAX);
            // While NATS is away silence means nothing; the reconnect ends the session.
            if !matches!(heard, Heard::Silence) || self.status.borrow().connected {
                return heard;
            }
        }
    }

    pub(super) fn take(&mut self, message: Message) -> Taken {
        // Only what carries a delivery's reply subject is a stored message, whatever status its headers claim.
        let Some(delivery) = message.reply.as_deref().and_then(Delivery::parse) else {
            return self.control(&message);
        };
        if delivery.consumer_sequence != self.delivered + 1 {
            return Taken::Broken("a delivery is missing");
        }
        self.delivered += 1;
        self.last = delivery.stream_sequence;
        self.pulls.delivered();
        Taken::Stored(StoredMessage {
            subject: message.subject,
            sequence: delivery.stream_sequence,
            stored_at: delivery.stored_at,
            headers: message.headers,
            payload: message.payload,
            pending: delivery.pending,
        })
    }

    fn control(&mut self, message: &Message) -> Taken {
        let number = |name: &str| {
            let value = message.headers.as_ref()?.get_last(name)?;
            value.as_str().parse::<u64>().ok()
        };
        let Some(status) = message.status else {
            return Taken::Control;
        };
        if status == StatusCode::IDLE_HEARTBEAT {
            let in_step = number("Nats-Last-Consumer").is_none_or(|last| last == self.delivered);
            return if in_step {
                Taken::Control
            } else {
                Taken::Broken("a delivery is missing")
            };
        }
        let id = message
            .subject
            .rsplit('.')
            .next()
            .and_then(|id| id.parse::<u64>().ok());
        if let (Some(id), Some(messages), Some(bytes)) = (
            id,
            number("Nats-Pending-Messages"),
            number("Nats-Pending-Bytes"),
        ) {
            let refused = status.as_u16() == 409;
            self.pulls.ended(
                id,
                &Ended {
                    messages,
                    bytes,
                    refused,
                },
            );
            return Taken::Control;
        }
        match (self.source.mode, status) {
            (Mode::ToEnd, StatusCode::NOT_FOUND) => Taken::End,
            _ => Taken::Broken("the server ended the consumer"),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Source { nats, stream, .. } = &self.source;
        if self.broke || self.status.borrow().reconnects != self.reconnects {
            nats.undeliverable().broke(stream, self.last);
        }
        // The server drops it after a while anyhow; this is politeness.
        let subject = self.source.nats.api_subject(&format!(
            "CONSUMER.DELETE.{}.{}",
            self.source.stream, self.consumer
        ));
        let client = self.source.nats.client();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { client.publish(subject, bytes::Bytes::new()).await });
        }
    }
}
