//! What the server alone does (its subjects are none that participants answer): the ceiling that figures are given as ratios of.

use crate::latency::Percentiles;
use anyhow::Result;
use bytes::Bytes;
use std::time::Instant;
use tidemill_nats::provision::{Mark, StreamPlan, ensure};
use tidemill_nats::{Nats, Publish, Publisher};

/// Publishes in flight of the raw figure.
const IN_FLIGHT: usize = 1000;

/// Publishes `count` messages of `payload` bytes to a stream of their own; gives messages per second.
///
/// # Errors
/// If the stream can't be made or a message is refused.
pub async fn publish_per_s(nats: &Nats, count: usize, payload: usize) -> Result<f64> {
    let (publisher, body) = begin(nats, payload).await?;
    let begin = Instant::now();
    let mut acks = Vec::with_capacity(count);
    for index in 0..count {
        acks.push(publisher.publish(message(index, &body)).await);
    }
    for ack in acks {
        ack.await?;
    }
    Ok(count as f64 / begin.elapsed().as_secs_f64())
}

/// The same one at a time; gives the time of half of them in milliseconds: one message stored, one answer.
///
/// # Errors
/// If the stream can't be made or a message is refused.
pub async fn publish_p50_ms(nats: &Nats, count: usize, payload: usize) -> Result<f64> {
    let (publisher, body) = begin(nats, payload).await?;
    let mut micros = Vec::with_capacity(count);
    for index in 0..count {
        let begin = Instant::now();
        publisher.publish(message(index, &body)).await.await?;
        micros.push(u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    Ok(Percentiles::of(micros).p50_ms)
}

async fn begin(nats: &Nats, payload: usize) -> Result<(Publisher, Bytes)> {
    let plan = StreamPlan::new(
        "bench_raw",
        vec!["raw.bench.>".to_owned()],
        Mark::event_stream("bench", "bench", "raw", "1"),
    );
    ensure(nats, &plan).await?;
    Ok((
        Publisher::new(nats, IN_FLIGHT),
        Bytes::from(vec![b'x'; payload]),
    ))
}

fn message(index: usize, body: &Bytes) -> Publish {
    Publish::new(format!("raw.bench.{}", index % 1000), body.clone())
}
