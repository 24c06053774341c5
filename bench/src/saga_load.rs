//! A closed loop of saga instances: a fixed number in flight, each next one begun when one is done.

use crate::latency::Percentiles;
use anyhow::{Result, bail};
use futures::StreamExt;
use serde::Serialize;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tidemill_core::names::{encode_token, partition};
use tidemill_nats::{Nats, Publish, Publisher};

/// One run.
#[derive(Clone, Debug)]
pub struct Load {
    /// First part of the ids, unique per run.
    pub tag: String,
    /// Instances measured.
    pub instances: usize,
    /// Instances before the measurement.
    pub warm_up: usize,
    /// Instances in flight.
    pub in_flight: usize,
    /// Bytes of padding in the event's data.
    pub payload: usize,
    /// Percent of instances that are refused; see [`is_refused`].
    pub refused: u16,
    /// Where ends are seen.
    pub ends: Vec<End>,
}

/// Messages that show an instance's end.
#[derive(Clone, Debug)]
pub struct End {
    /// Their subject.
    pub subject: String,
    /// Which token of it holds the id.
    pub token: usize,
    /// Whether they are those of refused instances, or of the others.
    pub refused: bool,
}

/// What a run gave.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Finished per second.
    pub instances_per_s: f64,
    /// From the publish of the event to the end being seen.
    #[serde(flatten)]
    pub latency: Percentiles,
}

/// No instance may take longer: then the run is broken.
const STUCK: Duration = Duration::from_secs(30);

/// Runs a load. Every instance is seen to end, or there is no figure.
///
/// # Errors
/// If an event can't be published or instances don't end.
pub async fn run(nats: &Nats, load: &Load) -> Result<Figures> {
    let mut ends = Vec::new();
    for end in &load.ends {
        ends.push(
            nats.client()
                .subscribe(end.subject.clone())
                .await?
                .map(move |message| (end, message)),
        );
    }
    nats.client().flush().await?;
    let mut ends = futures::stream::select_all(ends);
    let publisher = Publisher::new(nats, load.in_flight.max(64));
    let padding = "x".repeat(load.payload);
    let total = load.warm_up + load.instances;
    let mut begun: HashMap<String, Instant> = HashMap::with_capacity(load.in_flight * 2);
    let (mut next, mut done) = (0, 0);
    let mut micros = Vec::with_capacity(load.instances);
    let mut measured_from = Instant::now();
    while done < total {
        while next < total && begun.len() < load.in_flight {
            let id = format!("{}-{next}", load.tag);
            begun.insert(id.clone(), Instant::now());
            // The acknowledgement is not waited for: an event that isn't stored shows as an instance that doesn't end.
            drop(publisher.publish(event(&id, &padding)).await);
            next += 1;
        }
        let Ok(Some((end, message))) = tokio::time::timeout(STUCK, ends.next()).await else {
            bail!("{} instances didn't end within {STUCK:?}", begun.len());
        };
        let id = message
            .subject
            .split('.')
            .nth(end.token)
            .unwrap_or_default();
        if is_refused(id, load.refused) != end.refused {
            continue;
        }
        let Some(since) = begun.remove(id) else {
            continue;
        };
        done += 1;
        if done == load.warm_up {
            measured_from = Instant::now();
        } else if done > load.warm_up {
            micros.push(u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
    }
    let seconds = measured_from.elapsed().as_secs_f64();
    Ok(Figures {
        instances_per_s: load.instances as f64 / seconds,
        latency: Percentiles::of(micros),
    })
}

fn event(id: &str, padding: &str) -> Publish {
    let payload = format!("{{\"orderId\":\"{id}\",\"total\":25,\"note\":\"{padding}\"}}");
    let mut message = Publish::new(format!("shop.orders.{id}.OrderPlaced"), payload);
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-source", "/bench"),
        ("ce-type", "OrderPlaced"),
    ] {
        message.headers.insert(name, value);
    }
    message.headers.insert("ce-id", id);
    message.headers.insert("ce-subject", id);
    message
}

/// Whether an id's instance is one of the refused: decided by its hash, so that load and participants agree.
pub fn is_refused(id: &str, percent: u16) -> bool {
    encode_token(id).is_ok_and(|token| partition(&token, 100) < percent)
}
