//! Seeded events for a projection, and what its rows must be, computed beside it with integers only.

use anyhow::Result;
use std::collections::HashMap;
use tidemill_nats::{Nats, Publish, PublishError, Publisher};
use tidemill_testbed::simulation::Random;

/// The mixture of events.
#[derive(Clone, Copy, Debug)]
pub struct Mixture {
    /// Decides everything.
    pub seed: u64,
    /// Events in all.
    pub events: usize,
    /// Distinct keys.
    pub keys: usize,
    /// Bytes of padding in each event.
    pub padding: usize,
}

/// What a row must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// The status that was set last.
    pub status: &'static str,
    /// How many payments were added up.
    pub payments: i64,
    /// Their sum, in cents.
    pub paid_cents: i64,
}

/// One event.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its key.
    pub key: usize,
    /// Its type.
    pub event_type: &'static str,
    /// Amount in cents.
    pub cents: i64,
}

impl Mixture {
    /// The events in order: half of them new orders or changes, some payments, a few deletions.
    pub fn events(&self) -> impl Iterator<Item = Planned> + use<> {
        let mut random = Random::new(self.seed);
        let keys = self.keys as u64;
        (0..self.events).map(move |_| {
            let key = usize::try_from(random.below(keys)).unwrap_or(0);
            let event_type = match random.below(100) {
                0..50 => "OrderPlaced",
                50..98 => "OrderPaid",
                _ => "OrderPurged",
            };
            Planned {
                key,
                event_type,
                cents: i64::try_from(random.below(100_000)).unwrap_or(0),
            }
        })
    }

    /// What the rows must be after all events.
    pub fn expected(&self) -> HashMap<usize, Expected> {
        let mut rows: HashMap<usize, Expected> = HashMap::new();
        for event in self.events() {
            match event.event_type {
                "OrderPurged" => {
                    rows.remove(&event.key);
                }
                "OrderPaid" => {
                    let row = rows.entry(event.key).or_default();
                    row.status = "paid";
                    row.payments += 1;
                    row.paid_cents += event.cents;
                }
                _ => rows.entry(event.key).or_default().status = "placed",
            }
        }
        rows
    }

    /// Publishes all events.
    ///
    /// # Errors
    /// If one is refused.
    pub async fn publish(&self, nats: &Nats) -> Result<()> {
        let publisher = Publisher::new(nats, 2000);
        let padding = "x".repeat(self.padding);
        let mut acks = std::collections::VecDeque::new();
        for (index, event) in self.events().enumerate() {
            acks.push_back(publisher.publish(message(&event, index, &padding)).await);
            if acks.len() > 4000
                && let Some(ack) = acks.pop_front()
            {
                ack.await?;
            }
        }
        for ack in acks {
            ack.await?;
        }
        Ok(())
    }
}

/// The message of an event.
pub fn message(event: &Planned, index: usize, padding: &str) -> Publish {
    let Planned {
        key,
        event_type,
        cents,
    } = event;
    let payload = format!(
        "{{\"orderId\":\"k-{key}\",\"amount\":{}.{:02},\"customer\":{{\"id\":\"c-{}\"}},\"note\":\"{padding}\"}}",
        cents / 100,
        cents % 100,
        key % 1000,
    );
    let mut message = Publish::new(format!("shop.orders.k-{key}.{event_type}"), payload);
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-source", "/bench"),
        ("ce-type", *event_type),
    ] {
        message.headers.insert(name, value);
    }
    message.headers.insert("ce-id", format!("e-{index}"));
    message.headers.insert("ce-subject", format!("k-{key}"));
    message
}

/// Publishes one event and waits until it is stored.
///
/// # Errors
/// What the stream says.
pub async fn publish_one(
    publisher: &Publisher,
    event: &Planned,
    index: usize,
    padding: &str,
) -> Result<u64, PublishError> {
    Ok(publisher
        .publish(message(event, index, padding))
        .await
        .await?
        .sequence)
}
