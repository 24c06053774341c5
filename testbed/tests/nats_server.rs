//! The test server keeps its promises.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::convert::Infallible;
use std::time::Duration;

use async_nats::jetstream::{self, kv, stream};
use async_nats::{Client, Event};
use futures::StreamExt;
use tidemill_testbed::{NatsServer, User, eventually, round_trip};

const CAP: Duration = Duration::from_secs(180);

async fn make_stream(client: &Client) -> jetstream::Context {
    let context = jetstream::new(client.clone());
    let config = stream::Config {
        name: "S".into(),
        subjects: vec!["s.>".into()],
        ..Default::default()
    };
    context.create_stream(config).await.unwrap();
    context
}

async fn publish(context: &jetstream::Context, count: usize) {
    for n in 0..count {
        context
            .publish(format!("s.{n}"), n.to_string().into())
            .await
            .unwrap()
            .await
            .unwrap();
    }
}

/// Messages in the stream, asked until the server answers.
async fn messages(context: &jetstream::Context) -> u64 {
    eventually("the stream to answer", CAP, async || {
        let mut stream = context.get_stream("S").await.map_err(|e| e.to_string())?;
        stream
            .info()
            .await
            .map(|info| info.state.messages)
            .map_err(|e| e.to_string())
    })
    .await
}

#[tokio::test]
async fn starts_with_jetstream_on_loopback() {
    let server = NatsServer::start().await.unwrap();
    let client = server.client().await.unwrap();
    let context = make_stream(&client).await;
    publish(&context, 3).await;
    assert_eq!(messages(&context).await, 3);
    assert!(server.url().starts_with("nats://127.0.0.1:"));
    assert!(server.rss_mib().unwrap() > 1.0);
    assert!(server.store_dir().join("jetstream").is_dir());
}

#[tokio::test]
async fn a_restart_keeps_port_and_data_and_clients_reconnect() {
    let mut server = NatsServer::start().await.unwrap();
    let client = server.client().await.unwrap();
    let context = make_stream(&client).await;
    publish(&context, 10).await;
    let (url, pid) = (server.url(), server.pid());
    server.restart().await.unwrap();
    assert_eq!(server.url(), url);
    assert_ne!(server.pid(), pid);
    assert_eq!(messages(&context).await, 10, "the old connection goes on");
}

#[tokio::test]
async fn acknowledged_messages_survive_kill_9() {
    let mut server = NatsServer::start().await.unwrap();
    let client = server.client().await.unwrap();
    let context = make_stream(&client).await;
    publish(&context, 100).await;
    server.kill9();
    assert_eq!(server.pid(), None);
    server.restart().await.unwrap();
    assert_eq!(messages(&context).await, 100);
}

#[tokio::test]
async fn a_frozen_server_answers_nothing_and_goes_on_afterwards() {
    let mut server = NatsServer::start().await.unwrap();
    let client = server.client().await.unwrap();
    let context = make_stream(&client).await;
    publish(&context, 1).await;
    server.sigstop().await.unwrap();
    let asked = context
        .publish("s.frozen", "x".into())
        .await
        .unwrap()
        .into_future();
    let mut asked = Box::pin(asked);
    // Nothing can arrive from a stopped process; the look only shows that no answer was there before.
    assert!(futures::poll!(&mut asked).is_pending());
    server.sigcont().unwrap();
    asked.await.unwrap();
    assert_eq!(messages(&context).await, 2);
}

#[tokio::test]
async fn permissions_are_enforced() {
    let server = NatsServer::builder()
        .user(
            User::new("reader")
                .publish(["allowed.>"])
                .subscribe(["news", "_INBOX.>"]),
        )
        .start()
        .await
        .unwrap();
    let admin = server.client().await.unwrap();
    let mut all = admin.subscribe(">").await.unwrap();
    round_trip(&admin).await.unwrap();

    let (told, mut events) = tokio::sync::mpsc::unbounded_channel();
    let reader = server
        .options(Some("reader"))
        .event_callback(move |event| {
            let told = told.clone();
            async move {
                let _ = told.send(event);
            }
        })
        .connect(server.url())
        .await
        .unwrap();
    reader.publish("denied", "1".into()).await.unwrap();
    reader.publish("allowed.x", "2".into()).await.unwrap();
    let arrived = eventually("what is allowed", CAP, async || match all.next().await {
        Some(message) if message.subject.starts_with("_INBOX") => Err("a round trip"),
        Some(message) => Ok(message.subject),
        None => Err("the end"),
    })
    .await;
    assert_eq!(
        arrived.as_str(),
        "allowed.x",
        "what is denied never arrives"
    );
    let denied = eventually("the denial", CAP, async || match events.recv().await {
        Some(Event::ServerError(error)) => Ok(error.to_string()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert!(
        denied.to_lowercase().contains("permissions violation"),
        "{denied}"
    );

    assert!(
        async_nats::connect(server.url()).await.is_err(),
        "nobody gets in without a user"
    );
}

#[tokio::test]
async fn a_responder_answers_without_rights_of_its_own() {
    let responder = User::new("responder")
        .publish(Vec::<String>::new())
        .subscribe(["ask"])
        .allow_responses();
    let server = NatsServer::builder().user(responder).start().await.unwrap();
    let responder = server.client_for("responder").await.unwrap();
    let mut questions = responder.subscribe("ask").await.unwrap();
    let answer = tokio::spawn(async move {
        let question = questions.next().await.unwrap();
        let reply = question.reply.unwrap();
        responder.publish("ask", "denied".into()).await.unwrap();
        responder.publish(reply, "yes".into()).await.unwrap();
        questions
    });
    let admin = server.client().await.unwrap();
    // No responders until the server has taken in the subscription.
    let reply = eventually("an answer", CAP, async || {
        let reply = admin.request("ask", "?".into()).await;
        reply.map_err(|error| error.to_string())
    })
    .await;
    assert_eq!(&reply.payload[..], b"yes");
    let mut questions = answer.await.unwrap();
    admin.publish("ask", "last".into()).await.unwrap();
    let next = questions.next().await.unwrap();
    assert_eq!(&next.payload[..], b"last", "what is denied never arrives");
}

#[tokio::test]
async fn a_store_set_back_has_lost_what_came_later() {
    let mut server = NatsServer::start().await.unwrap();
    let client = server.client().await.unwrap();
    let context = make_stream(&client).await;
    publish(&context, 5).await;
    let backup = tempfile::tempdir().unwrap();
    assert!(
        server.copy_store(backup.path()).is_err(),
        "not while it runs"
    );
    server.stop().await.unwrap();
    server.copy_store(backup.path()).unwrap();
    server.restart().await.unwrap();
    messages(&context).await;
    publish(&context, 7).await;
    assert_eq!(messages(&context).await, 12);
    server.kill9();
    server.set_store_back(backup.path()).unwrap();
    server.restart().await.unwrap();
    assert_eq!(messages(&context).await, 5);
}

#[tokio::test]
async fn two_servers_run_side_by_side() {
    let (one, two) = tokio::join!(NatsServer::start(), NatsServer::start());
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_ne!(one.url(), two.url());
    let context = make_stream(&one.client().await.unwrap()).await;
    publish(&context, 1).await;
    let other = jetstream::new(two.client().await.unwrap());
    assert!(other.get_stream("S").await.is_err(), "they share nothing");
}

#[tokio::test]
async fn settings_reach_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let server = NatsServer::builder()
        .store_dir(folder.path())
        .sync_always()
        .max_payload(4096)
        .config("max_connections: 77")
        .start()
        .await
        .unwrap();
    let client = server.client().await.unwrap();
    assert_eq!(client.server_info().max_payload, 4096);
    let context = jetstream::new(client);
    context
        .create_key_value(kv::Config {
            bucket: "b".into(),
            ..Default::default()
        })
        .await
        .unwrap();
    assert!(folder.path().join("jetstream").is_dir());
    let answer = get(&server, "/varz").await;
    assert!(answer.contains("\"max_connections\": 77"), "{answer}");
    assert!(answer.contains("\"sync_always\": true"), "{answer}");
}

#[tokio::test]
async fn a_bad_configuration_says_what_the_server_said() {
    let error = NatsServer::builder()
        .config("max_payload: [unfinished")
        .start()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("array terminator"), "{error}");
}

async fn get(server: &NatsServer, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = server
        .monitor_url()
        .trim_start_matches("http://")
        .to_owned();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn waiting_returns_what_the_condition_gives() {
    let value = eventually("nothing", CAP, async || Ok::<_, Infallible>(7)).await;
    assert_eq!(value, 7);
}
