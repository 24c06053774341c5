//! What the server alone does (its subjects are none that participants answer): the ceiling that figures are given as ratios of.

use anyhow::Result;
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
    let plan = StreamPlan::new(
        "bench_raw",
        vec!["raw.bench.>".to_owned()],
        Mark::event_stream("bench", "bench", "raw", "1"),
    );
    ensure(nats, &plan).await?;
    let publisher = Publisher::new(nats, IN_FLIGHT);
    let body = bytes::Bytes::from(vec![b'x'; payload]);
    let begin = Instant::now();
    let mut acks = Vec::with_capacity(count);
    for index in 0..count {
        acks.push(
            publisher
                .publish(Publish::new(
                    format!("raw.bench.{}", index % 1000),
                    body.clone(),
                ))
                .await,
        );
    }
    for ack in acks {
        ack.await?;
    }
    Ok(count as f64 / begin.elapsed().as_secs_f64())
}
