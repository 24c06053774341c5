//! What people and programs are told when NATS isn't there, says no, or goes away.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::time::Duration;
use tidemill_core::contract::Connection;
use tidemill_nats::provision::{Mark, StreamPlan, ensure};
use tidemill_nats::{
    ApiError, ConnectError, KvBucket, Nats, Publish, PublishError, Publisher, ReadError, ReadFrom,
    Reader, Subscription,
};
use tidemill_testbed::nats_server::round_trip;
use tidemill_testbed::{NatsServer, User, eventually};

const CAP: Duration = Duration::from_secs(180);

async fn make_stream(nats: &Nats) {
    let mark = Mark::event_stream("dev", "shop", "orders", "one");
    ensure(
        nats,
        &StreamPlan::new("shop_orders", vec!["shop.orders.>".to_owned()], mark),
    )
    .await
    .unwrap();
}

async fn refused(connection: &Connection) -> ConnectError {
    Nats::connect(connection, "test").await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_the_first_connect_are_one_clear_line() {
    let mut server = NatsServer::builder()
        .user(User::new("worker"))
        .start()
        .await
        .unwrap();
    let url = server.url();
    let without = refused(&Connection::plain(&url)).await;
    assert!(
        matches!(without, ConnectError::Refused { .. }) && without.may_pass(),
        "{without}"
    );
    let wrong = refused(&Connection::plain(
        &url.replace("nats://", "nats://worker:secret@"),
    ))
    .await;
    assert!(
        wrong
            .to_string()
            .starts_with(&format!("NATS at {url} refuses the credentials")),
        "{wrong}"
    );
    assert!(!format!("{wrong:?}").contains("secret"));

    // A user and password from a file, and from a URL.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("creds").display().to_string();
    let mut connection = Connection {
        credentials_file: Some(file.clone()),
        ..Connection::plain(&url)
    };
    let missing = refused(&connection).await;
    assert!(
        matches!(missing, ConnectError::Credentials { .. }) && !missing.may_pass(),
        "{missing}"
    );
    std::fs::write(&file, "worker:worker\n").unwrap();
    Nats::connect(&connection, "test").await.unwrap();
    Nats::connect(&Connection::plain(&server.url_for("worker")), "test")
        .await
        .unwrap();
    connection.jetstream_domain = Some("a".to_owned());
    connection.jetstream_api_prefix = Some("b".to_owned());
    assert!(matches!(
        refused(&connection).await,
        ConnectError::Settings(_)
    ));

    server.stop().await.unwrap();
    let away = refused(&Connection::plain(&url)).await.to_string();
    assert!(
        away.starts_with(&format!("can't reach NATS at {url} (")) && !away.contains('\n'),
        "{away}"
    );
    let nonsense = refused(&Connection::plain("http://example.org")).await;
    assert!(matches!(nonsense, ConnectError::Settings(_)), "{nonsense}");

    // Waiting instead.
    let connection = Connection::plain(&server.url_for("worker"));
    let waiting = tokio::spawn(async move { Nats::connect_waiting(&connection, "test").await });
    server.restart().await.unwrap();
    waiting.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishes_across_a_kill_are_unknown_or_wait_and_none_is_lost() {
    let mut server = NatsServer::start().await.unwrap();
    let nats = Nats::connect(&Connection::plain(&server.url()), "test")
        .await
        .unwrap();
    make_stream(&nats).await;
    let publisher = Publisher::new(&nats, 64);
    let mut acks = Vec::new();
    let mut number = 0_u64;
    let mut send = async |publisher: &Publisher| {
        number += 1;
        (
            number,
            publisher
                .publish(Publish::new("shop.orders.a.Placed", number.to_string()))
                .await,
        )
    };
    for _ in 0..64 {
        acks.push(send(&publisher).await);
    }
    server.sigstop().await.unwrap();
    let (stuck, ack) = send(&publisher).await;
    server.kill9();
    let lost = tokio::time::timeout(CAP, ack).await.unwrap();
    assert!(matches!(lost, Err(PublishError::Unknown(_))), "{lost:?}");
    eventually("NATS is away", CAP, async || {
        let status = nats.status().borrow().clone();
        if status.connected {
            Err(format!("{status:?}"))
        } else {
            Ok(())
        }
    })
    .await;
    // What is published meanwhile waits, and isn't lost.
    let waiting = tokio::spawn({
        let publisher = publisher.clone();
        async move {
            publisher
                .publish(Publish::new("shop.orders.a.Placed", "last"))
                .await
                .await
        }
    });
    server.restart().await.unwrap();
    let last = tokio::time::timeout(CAP, waiting)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    eventually("the reconnect is counted", CAP, async || {
        let status = nats.status().borrow().clone();
        if status.connected && status.reconnects == 1 {
            Ok(())
        } else {
            Err(format!("{status:?}"))
        }
    })
    .await;

    let mut stored = Vec::new();
    let mut reader = Reader::open_to_end(&nats, "shop_orders", Vec::new(), ReadFrom::First)
        .await
        .unwrap();
    while reader.next_batch(100, &mut stored).await.unwrap() > 0 {}
    assert_eq!(stored.last().unwrap().sequence, last.sequence);
    let bodies: Vec<&[u8]> = stored.iter().map(|message| &message.payload[..]).collect();
    for (number, ack) in acks {
        // An acknowledgement is a promise; without one, both is possible.
        if let Ok(acked) = ack.await {
            assert_eq!(
                bodies[usize::try_from(acked.sequence).unwrap() - 1],
                number.to_string().as_bytes()
            );
        }
    }
    assert!(
        bodies
            .iter()
            .filter(|body| **body == stuck.to_string().as_bytes())
            .count()
            <= 1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_permission_is_named_at_once() {
    let server = NatsServer::builder()
        .user(
            User::new("narrow")
                .publish(["$JS.API.STREAM.INFO.>", "shop.orders.allowed.>"])
                .subscribe(["_INBOX.>"]),
        )
        .user(
            User::new("deaf")
                .publish(["$JS.API.>"])
                .subscribe(["_INBOX.*"]),
        )
        .start()
        .await
        .unwrap();
    let admin = Nats::connect(&Connection::plain(&server.url_for("admin")), "test")
        .await
        .unwrap();
    make_stream(&admin).await;
    let nats = Nats::connect(&Connection::plain(&server.url_for("narrow")), "test")
        .await
        .unwrap();
    // Sooner than any time-out.
    let soon = Duration::from_secs(3);
    let publisher = Publisher::new(&nats, 16);
    let denied = publisher
        .publish(Publish::new("shop.orders.a.Placed", "1"))
        .await;
    let allowed = publisher
        .publish(Publish::new("shop.orders.allowed.Placed", "1"))
        .await;
    let denied = tokio::time::timeout(soon, denied).await.unwrap();
    assert_eq!(
        denied,
        Err(PublishError::Denied("shop.orders.a.Placed".to_owned()))
    );
    allowed.await.unwrap();

    let denied = tokio::time::timeout(soon, nats.read_at("shop_orders", 1))
        .await
        .unwrap()
        .unwrap_err();
    assert!(
        matches!(&denied, ApiError::Denied(subject) if subject == "$JS.API.STREAM.MSG.GET.shop_orders"),
        "{denied}"
    );
    let denied = tokio::time::timeout(
        soon,
        Reader::open(&nats, "shop_orders", vec![], ReadFrom::First),
    )
    .await
    .unwrap();
    assert!(matches!(denied, Err(ReadError::Denied(_))), "{denied:?}");
    let bucket = KvBucket::new(&publisher, "tidemill_owners");
    let denied = tokio::time::timeout(soon, bucket.get("a"))
        .await
        .unwrap()
        .unwrap_err()
        .to_string();
    assert!(denied.contains("no permission to publish to $JS.API.DIRECT.GET.KV_tidemill_owners.$KV.tidemill_owners.a"), "{denied}");
    assert!(nats.permission_violations() >= 4);
}

/// A header value with a lone carriage return: the client of async-nats 0.51 panics when it gets one.
async fn poison(server: &NatsServer, subject: &str) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", server.port()))
        .await
        .unwrap();
    let headers = "NATS/1.0\r\na: b\rc\r\n\r\n";
    let size = headers.len();
    let text = format!(
        "CONNECT {{\"headers\":true}}\r\nHPUB {subject} {size} {size}\r\n{headers}\r\nPING\r\n"
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(4).any(|window| window == b"PONG") {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_kills_the_client_stops_nothing() {
    let server = NatsServer::start().await.unwrap();
    let nats = Nats::connect(&Connection::plain(&server.url()), "test")
        .await
        .unwrap();
    make_stream(&nats).await;
    let publisher = Publisher::new(&nats, 16);
    publisher
        .publish(Publish::new("shop.orders.a.Placed", "1"))
        .await
        .await
        .unwrap();
    let mut one = Subscription::open(&nats, "ask.one", None).await.unwrap();
    let mut all = Subscription::open(&nats, "ask.*", Some("group"))
        .await
        .unwrap();
    for round in 1..=3_u64 {
        // Both subscriptions are the present client's, and the server knows them.
        round_trip(&nats.client()).await.unwrap();
        poison(&server, "ask.one").await;
        eventually("another client", CAP, async || {
            let status = nats.status().borrow().clone();
            if status.connected && status.reconnects == round {
                Ok(())
            } else {
                Err(format!("{status:?}"))
            }
        })
        .await;
        let asking = server.client().await.unwrap();
        eventually("both subscriptions again", CAP, async || {
            asking
                .publish("ask.one", round.to_string().into())
                .await
                .unwrap();
            asking.flush().await.unwrap();
            let soon = std::time::Duration::from_millis(100);
            let heard = (
                tokio::time::timeout(soon, one.next())
                    .await
                    .map(|message| message.payload),
                tokio::time::timeout(soon, all.next())
                    .await
                    .map(|message| message.payload),
            );
            if heard.0.is_ok() && heard.1.is_ok() {
                Ok(())
            } else {
                Err(format!("{heard:?}"))
            }
        })
        .await;
        let acked = publisher
            .publish(Publish::new("shop.orders.a.Placed", "2"))
            .await
            .await
            .unwrap();
        assert_eq!(acked.sequence, round + 1);
        assert_eq!(
            nats.jetstream()
                .get_stream("shop_orders")
                .await
                .unwrap()
                .cached_info()
                .state
                .messages,
            round + 1
        );
    }
}
