//! How fast the publisher and the reader are, on a server given by its URL: `throughput nats://127.0.0.1:4222 [messages] [bytes]`.
//! It makes the stream `tidemill_throughput` and deletes it at the end.

use std::time::Instant;
use tidemill_core::contract::Connection;
use tidemill_nats::provision::{Mark, StreamPlan, ensure};
use tidemill_nats::{Nats, Publish, Publisher, ReadFrom, Reader, publish};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let url = args.next().ok_or("give the server's URL")?;
    let number = |text: Option<String>, or: u64| text.map_or(Ok(or), |text| text.parse());
    let (messages, bytes) = (number(args.next(), 1_000_000)?, number(args.next(), 256)?);

    let nats = Nats::connect(&Connection::plain(&url), "throughput").await?;
    let stream = "tidemill_throughput";
    let mark = Mark::event_stream("bench", "tidemill", "throughput", "0");
    ensure(
        &nats,
        &StreamPlan::new(stream, vec!["tidemill.throughput.>".to_owned()], mark),
    )
    .await?;
    let publisher = Publisher::new(&nats, publish::IN_FLIGHT);
    let body = bytes::Bytes::from(vec![b'x'; usize::try_from(bytes)?]);

    let started = Instant::now();
    let mut acks = Vec::with_capacity(10_000);
    for number in 0..messages {
        let mut message = Publish::new(
            format!("tidemill.throughput.e{}.Placed", number % 1000),
            body.clone(),
        );
        message.headers.insert("ce-id", number.to_string().as_str());
        message.headers.insert("ce-type", "Placed");
        acks.push(publisher.publish(message).await);
        if acks.len() == 10_000 {
            for ack in acks.drain(..) {
                ack.await?;
            }
        }
    }
    for ack in acks {
        ack.await?;
    }
    rate("published", messages, started);

    let started = Instant::now();
    let mut reader = Reader::open(&nats, stream, Vec::new(), ReadFrom::First).await?;
    let (mut batch, mut read) = (Vec::new(), 0);
    while read < messages {
        batch.clear();
        read += u64::try_from(reader.next_batch(1024, &mut batch).await?)?;
    }
    rate("read", messages, started);
    nats.jetstream().delete_stream(stream).await?;
    Ok(())
}

fn rate(what: &str, messages: u64, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate for people"
    )]
    let rate = (messages as f64 / seconds) as u64;
    println!("{what} {messages} messages in {seconds:.2} s: {rate}/s");
}
