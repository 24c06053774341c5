//! Whatever happens to the server, a reader skips nothing and repeats nothing, or says that it can't.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::time::Duration;
use tidemill_core::contract::Connection;
use tidemill_core::timestamp::Timestamp;
use tidemill_nats::provision::{Limits, Mark, OnFull, Outcome, StreamPlan, ensure};
use tidemill_nats::{
    Nats, Publish, Publisher, ReadError, ReadFrom, Reader, StoredMessage, publish,
};
use tidemill_testbed::nats_server::publish_raw;
use tidemill_testbed::{NatsServer, eventually};
use tokio::time::timeout;

const CAP: Duration = Duration::from_secs(180);

async fn connect(server: &NatsServer) -> Nats {
    Nats::connect(&Connection::plain(&server.url()), "test")
        .await
        .unwrap()
}

fn plan(incarnation: &str) -> StreamPlan {
    let mark = Mark::event_stream("dev", "shop", "orders", incarnation);
    StreamPlan::new("shop_orders", vec!["shop.orders.>".to_owned()], mark)
}

/// A server with the stream, and a connection.
async fn start() -> (NatsServer, Nats) {
    let server = NatsServer::start().await.unwrap();
    let nats = connect(&server).await;
    assert_eq!(ensure(&nats, &plan("one")).await.unwrap(), Outcome::Created);
    (server, nats)
}

/// Publishes `numbers` as bodies, on subjects of ten entities.
async fn fill(nats: &Nats, numbers: impl IntoIterator<Item = u64>) {
    let publisher = Publisher::new(nats, publish::IN_FLIGHT);
    let mut acks = Vec::new();
    for number in numbers {
        let subject = format!("shop.orders.e{}.Placed", number % 10);
        acks.push(
            publisher
                .publish(Publish::new(subject, number.to_string()))
                .await,
        );
    }
    for ack in acks {
        ack.await.unwrap();
    }
}

fn numbers(messages: &[StoredMessage]) -> Vec<u64> {
    messages
        .iter()
        .map(|message| {
            std::str::from_utf8(&message.payload)
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect()
}

async fn read(reader: &mut Reader, count: usize) -> Vec<StoredMessage> {
    let mut messages = Vec::new();
    while messages.len() < count {
        timeout(
            CAP,
            reader.next_batch(count - messages.len(), &mut messages),
        )
        .await
        .unwrap_or_else(|_| panic!("{} of {count} messages came: {reader:?}", messages.len()))
        .unwrap();
    }
    messages
}

async fn open(nats: &Nats, from: ReadFrom) -> Reader {
    Reader::open(nats, "shop_orders", Vec::new(), from)
        .await
        .unwrap()
}

async fn error_of(reader: &mut Reader) -> ReadError {
    let mut messages = Vec::new();
    loop {
        match timeout(CAP, reader.next_batch(100, &mut messages))
            .await
            .unwrap()
        {
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_reading_begins_and_what_it_gives() {
    let (_server, nats) = start().await;
    fill(&nats, 1..=5).await;
    let mut new = open(&nats, ReadFrom::New).await;
    fill(&nats, 6..=10).await;
    assert_eq!(numbers(&read(&mut new, 5).await), [6, 7, 8, 9, 10]);

    let mut first = open(&nats, ReadFrom::First).await;
    assert_eq!((first.pending(), first.state().last), (10, 10));
    let messages = read(&mut first, 10).await;
    assert_eq!(numbers(&messages), (1..=10).collect::<Vec<_>>());
    assert_eq!(messages[2].subject.as_str(), "shop.orders.e3.Placed");
    assert_eq!((messages[2].sequence, messages[2].pending), (3, 7));
    assert!(messages.is_sorted_by_key(|message| message.stored_at));

    let mut after = open(&nats, ReadFrom::After(8)).await;
    assert_eq!(numbers(&read(&mut after, 2).await), [9, 10]);
    let filters = vec!["shop.orders.e3.>".to_owned(), "shop.orders.e7.*".to_owned()];
    let mut some = Reader::open(&nats, "shop_orders", filters, ReadFrom::First)
        .await
        .unwrap();
    assert_eq!(numbers(&read(&mut some, 2).await), [3, 7]);

    let mut end = Reader::open_to_end(&nats, "shop_orders", Vec::new(), ReadFrom::After(7))
        .await
        .unwrap();
    assert_eq!(numbers(&read(&mut end, 3).await), [8, 9, 10]);
    assert_eq!(end.next_batch(10, &mut Vec::new()).await.unwrap(), 0);
    let mut none = Reader::open_to_end(
        &nats,
        "shop_orders",
        vec!["shop.orders.x.y".to_owned()],
        ReadFrom::First,
    )
    .await
    .unwrap();
    assert_eq!(
        timeout(CAP, none.next_batch(10, &mut Vec::new()))
            .await
            .unwrap()
            .unwrap(),
        0
    );

    let later = eventually("another millisecond", CAP, async || {
        let probe = Timestamp::from_millis(messages[9].stored_at.millis() + 1);
        fill(&nats, [11]).await;
        let last = nats
            .last_for_subject("shop_orders", "shop.orders.e1.Placed")
            .await
            .unwrap()
            .unwrap();
        if last.stored_at >= probe {
            Ok(probe)
        } else {
            Err("the same millisecond")
        }
    })
    .await;
    let mut time = open(&nats, ReadFrom::Time(later)).await;
    assert_eq!(numbers(&read(&mut time, 1).await), [11]);

    let one = nats.read_at("shop_orders", 4).await.unwrap().unwrap();
    assert_eq!(
        (one.sequence, &one.payload[..], one.stored_at),
        (4, &b"4"[..], messages[3].stored_at)
    );
    assert_eq!(nats.read_at("shop_orders", 1000).await.unwrap(), None);
    let next = nats
        .next_for_subject("shop_orders", "shop.orders.e9.>", 2)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(next.sequence, 9);
    assert_eq!(
        nats.streams_on("shop.orders.a.b").await.unwrap(),
        ["shop_orders"]
    );
    assert_eq!(nats.streams_on("elsewhere").await.unwrap(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn giving_up_waiting_loses_nothing() {
    let (mut server, nats) = start().await;
    fill(&nats, 1..=3000).await;
    let mut reader = open(&nats, ReadFrom::First).await;
    let mut messages = Vec::new();
    let mut restarted = false;
    while messages.len() < 3000 {
        // Far too short for anything but what is there: each call is given up somewhere else.
        let _ = timeout(
            Duration::from_micros(50),
            reader.next_batch(7, &mut messages),
        )
        .await;
        if messages.len() > 1000 && !restarted {
            restarted = true;
            server.kill9();
            server.restart().await.unwrap();
        }
    }
    assert_eq!(numbers(&messages), (1..=3000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_and_restarts_in_the_middle_of_reading() {
    let (mut server, nats) = start().await;
    fill(&nats, 1..=40_000).await;
    let mut reader = open(&nats, ReadFrom::First).await;
    let mut messages = read(&mut reader, 6000).await;
    server.kill9();
    // What had come before the kill is still good.
    messages.extend(read(&mut reader, 1).await);
    server.restart().await.unwrap();
    messages.extend(read(&mut reader, 9999).await);
    server.restart().await.unwrap();
    messages.extend(read(&mut reader, 24_000).await);
    assert!(reader.sessions() >= 1, "{reader:?}");
    // At the end of the stream, waiting, too.
    server.restart().await.unwrap();
    let filler = tokio::spawn({
        let nats = nats.clone();
        async move { fill(&nats, 40_001..=40_010).await }
    });
    messages.extend(read(&mut reader, 10).await);
    filler.await.unwrap();
    assert_eq!(numbers(&messages), (1..=40_010).collect::<Vec<_>>());
    assert!(messages.is_sorted_by_key(|message| message.sequence));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_and_a_consumer_that_is_gone() {
    let (mut server, nats) = start().await;
    fill(&nats, 1..=100).await;
    let mut reader = open(&nats, ReadFrom::First).await;
    let mut messages = read(&mut reader, 100).await;
    server.sigstop().await.unwrap();
    // Long enough for a missed heartbeat, so that a session is begun at a server that doesn't answer.
    assert!(
        timeout(Duration::from_secs(6), reader.next_batch(1, &mut messages))
            .await
            .is_err()
    );
    server.sigcont().unwrap();
    fill(&nats, 101..=200).await;
    messages.extend(read(&mut reader, 100).await);
    assert_eq!(numbers(&messages), (1..=200).collect::<Vec<_>>());

    let admin = server.client().await.unwrap();
    let stream = async_nats::jetstream::new(admin)
        .get_stream("shop_orders")
        .await
        .unwrap();
    let consumers: Vec<String> = {
        use futures::TryStreamExt;
        stream.consumer_names().try_collect().await.unwrap()
    };
    assert!(!consumers.is_empty());
    for consumer in consumers {
        stream.delete_consumer(&consumer).await.unwrap();
    }
    fill(&nats, 201..=300).await;
    messages.extend(read(&mut reader, 100).await);
    assert_eq!(numbers(&messages), (1..=300).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_set_back_is_said() {
    let (mut server, nats) = start().await;
    fill(&nats, 1..=100).await;
    let backup = tempfile::tempdir().unwrap();
    let copy = backup.path().join("store");
    server.stop().await.unwrap();
    server.copy_store(&copy).unwrap();
    server.restart().await.unwrap();
    fill(&nats, 101..=150).await;
    let mut reader = open(&nats, ReadFrom::First).await;
    read(&mut reader, 150).await;

    // It ends below what was read.
    server.stop().await.unwrap();
    server.set_store_back(&copy).unwrap();
    server.restart().await.unwrap();
    let error = error_of(&mut reader).await.to_string();
    assert!(
        error.contains("it was read up to sequence 150 and ends at 100"),
        "{error}"
    );

    // It has grown past it again: length and creation time are plausible, the stored time isn't.
    fill(&nats, 201..=280).await;
    let error = error_of(&mut reader).await.to_string();
    assert!(error.contains("its message 150 was stored at"), "{error}");

    let error = Reader::open(&nats, "shop_orders", Vec::new(), ReadFrom::After(1000))
        .await
        .unwrap_err();
    assert!(matches!(error, ReadError::Lost { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_deleted_or_replaced_is_said() {
    let (server, nats) = start().await;
    fill(&nats, 1..=10).await;
    let mut reader = open(&nats, ReadFrom::First).await;
    let mut other = open(&nats, ReadFrom::First).await;
    read(&mut reader, 10).await;
    read(&mut other, 10).await;
    let admin = async_nats::jetstream::new(server.client().await.unwrap());
    admin.delete_stream("shop_orders").await.unwrap();
    let error = error_of(&mut reader).await;
    assert!(matches!(error, ReadError::StreamMissing(_)), "{error}");
    ensure(&nats, &plan("two")).await.unwrap();
    fill(&nats, 11..=30).await;
    let error = error_of(&mut other).await.to_string();
    assert!(
        error.contains("its incarnation was one and is two"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_limits_removed_before_it_was_read_is_told() {
    let server = NatsServer::start().await.unwrap();
    let nats = connect(&server).await;
    let mut plan = plan("one");
    plan.limits = Limits {
        messages_max: Some(10),
        ..Limits::default()
    };
    plan.on_full = OnFull::DropOldest;
    ensure(&nats, &plan).await.unwrap();
    fill(&nats, 1..=5).await;
    fill(&nats, 6..=30).await;
    let mut reader = open(&nats, ReadFrom::After(5)).await;
    let trimmed = reader.trimmed().unwrap();
    assert_eq!((trimmed.after, trimmed.first), (5, 21));
    assert_eq!(reader.trimmed(), None);
    assert_eq!(
        numbers(&read(&mut reader, 10).await),
        (21..=30).collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_larger_than_a_request_come_too() {
    let server = NatsServer::builder()
        .max_payload(8 << 20)
        .start()
        .await
        .unwrap();
    let nats = connect(&server).await;
    ensure(&nats, &plan("one")).await.unwrap();
    let publisher = Publisher::new(&nats, 4);
    let sizes = [10, 6 << 20, 10, 3 << 20, 3 << 20, 6 << 20, 7 << 20, 10];
    for size in sizes {
        publisher
            .publish(Publish::new("shop.orders.a.b", vec![b'x'; size]))
            .await
            .await
            .unwrap();
    }
    let mut reader = open(&nats, ReadFrom::First).await;
    let read_sizes: Vec<_> = read(&mut reader, sizes.len())
        .await
        .iter()
        .map(|message| message.payload.len())
        .collect();
    assert_eq!(read_sizes, sizes);
    let mut end = Reader::open_to_end(&nats, "shop_orders", Vec::new(), ReadFrom::First)
        .await
        .unwrap();
    assert_eq!(read(&mut end, sizes.len()).await.len(), sizes.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn header_blocks_that_break_the_connection_stop_nobody() {
    let (server, nats) = start().await;
    fill(&nats, 1..=3).await;
    publish_raw(
        &server,
        "shop.orders.e4.Placed",
        b"NATS/1.0\r\nce-type: \xff\xfe\r\nce-id: 4\r\n\r\n",
        b"4",
    )
    .await
    .unwrap();
    publish_raw(
        &server,
        "shop.orders.e5.Placed",
        b"NATS/1.0\r\nce-type: a\rb\r\n\r\n",
        b"5",
    )
    .await
    .unwrap();
    publish_raw(
        &server,
        "shop.orders.e6.Placed",
        b"NATS/1.0 503 No Responders\r\n\r\n",
        b"6",
    )
    .await
    .unwrap();
    publish_raw(
        &server,
        "shop.orders.e7.Placed",
        b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 99\r\n\r\n",
        b"7",
    )
    .await
    .unwrap();
    fill(&nats, 8..=10).await;
    for from in [
        ReadFrom::First,
        ReadFrom::After(3),
        ReadFrom::Time(Timestamp::from_millis(0)),
    ] {
        let mut reader = open(&nats, from).await;
        let skipped = if from == ReadFrom::After(3) { 3 } else { 0 };
        let messages = read(&mut reader, 10 - skipped).await;
        assert_eq!(
            numbers(&messages),
            (skipped as u64 + 1..=10).collect::<Vec<_>>()
        );
        let fourth = messages
            .iter()
            .find(|message| message.sequence == 4)
            .unwrap();
        let headers = fourth.headers.as_ref().unwrap();
        assert_eq!(headers.get("ce-id").unwrap().as_str(), "4");
        assert_eq!(headers.get("ce-type").unwrap().as_str(), "\u{fffd}\u{fffd}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_from_new_keeps_its_place_over_a_restart() {
    let (mut server, nats) = start().await;
    fill(&nats, 1..=5).await;
    let mut reader = open(&nats, ReadFrom::New).await;
    server.kill9();
    server.restart().await.unwrap();
    // Stored before the reader has a session again.
    fill(&nats, 6..=8).await;
    assert_eq!(numbers(&read(&mut reader, 3).await), [6, 7, 8]);
}
