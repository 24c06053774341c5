//! `tidemill event` as a process, on a real server.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::json;
use std::time::Duration;
use support::Shell;
use tidemill_nats::Nats;
use tidemill_nats::provision::{Mark, Outcome, StreamPlan, ensure};
use tidemill_testbed::{NatsServer, Process, eventually};

const CAP: Duration = Duration::from_secs(180);

async fn server_with_stream(namespace: &str, name: &str) -> NatsServer {
    let server = NatsServer::start().await.unwrap();
    let nats = Nats::connect(
        &tidemill_core::contract::Connection::plain(&server.url()),
        "test",
    )
    .await
    .unwrap();
    let mark = Mark::event_stream("dev", namespace, name, "i1");
    let plan = StreamPlan::new(
        &format!("{namespace}_{name}"),
        vec![format!("{namespace}.{name}.>")],
        mark,
    );
    assert_eq!(ensure(&nats, &plan).await.unwrap(), Outcome::Created);
    server
}

const EVENTS: &str = r#"{"type": "order.placed", "subject": "o-1", "id": "1", "data": {"total": 12.50}}
{"type": "order.placed", "subject": "o-2", "id": "2", "data": {"total": 7, "note": "line\nbreak"}}

{"type": "order.paid", "subject": "o-1", "id": "3", "time": "2026-01-31T12:00:00Z"}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn events_are_published_and_read_back() {
    let server = server_with_stream("default", "orders").await;
    let shell = Shell::on(&server.url());
    shell.write("events.jsonl", EVENTS);

    let mut seen = String::new();
    for line in [
        "event publish orders --file events.jsonl",
        "event publish orders --file events.jsonl",
        "event get orders",
        "event get orders --entity o-1",
        "event get orders --type order.placed --limit 1",
        "event get orders --from 2 -o json",
        "event get orders --from end",
        "event get orders --entity o-1 --from 2",
        "event get orders --type order.paid -o yaml",
        "event get orders --from 4",
        "event publish orders --type order.shipped --subject o-1 --id 4 --data '{\"by\": \"ship\"}' -a correlationid=abc -o json",
        "event tail orders --from beginning --limit 2",
    ] {
        seen.push_str(&shell.run(line).ok().seen());
        seen.push('\n');
    }
    insta::assert_snapshot!("events_are_published_and_read_back", seen);

    let events = shell.run("event get orders -o json").ok().json_lines();
    assert_eq!(events.len(), 4);
    assert_eq!(events[3]["correlationid"], "abc");
    assert_eq!(events[3]["position"], 4);
    assert_eq!(events[0]["data"], json!({"total": 12.50}));
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_lines_are_named_and_the_others_are_stored() {
    let server = server_with_stream("shop", "orders").await;
    let shell = Shell::on(&server.url());
    let input = "{\"type\": \"A\", \"subject\": \"o-1\"}\nnonsense\n{\"subject\": \"o-2\"}\n{\"type\": \"A\", \"subject\": \"o-3\"}\n";
    let mut seen = shell.run_with("event publish orders -n shop", input).seen();
    seen.push_str(
        &shell
            .run_with("event publish shop/orders -o json", "[]")
            .seen(),
    );
    let large = format!(
        "{{\"type\": \"A\", \"data\": \"{}\"}}\n{{\"type\": \"B\"}}",
        "x".repeat(2 << 20)
    );
    seen.push_str(&shell.run_with("event publish shop/orders", &large).seen());
    insta::assert_snapshot!("refused_lines_are_named_and_the_others_are_stored", seen);
    let events = shell.run("event get shop/orders -o json").ok().json_lines();
    assert_eq!(events.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_shows_what_comes_also_after_an_outage_and_says_that_there_is_one() {
    let mut server = server_with_stream("default", "orders").await;
    let shell = Shell::on(&server.url());
    shell
        .run("event publish orders --type A --subject o-1")
        .ok();
    let mut tail = Process::builder(env!("CARGO_BIN_EXE_tidemill"))
        .args([
            "event",
            "tail",
            "orders",
            "--entity",
            "o-2",
            "--limit",
            "2",
            "--nats",
            &server.url(),
        ])
        .spawn()
        .unwrap();
    tail.wait_for_line("the reader", CAP, |line| line.starts_with("following"))
        .await
        .unwrap();
    for (event_type, subject) in [("B", "o-2"), ("C", "o-1"), ("D", "o-2")] {
        shell
            .run(&format!(
                "event publish orders --type {event_type} --subject {subject}"
            ))
            .ok();
        if event_type == "B" {
            let says = |words: &'static str| {
                let tail = &tail;
                eventually(words, CAP, async move || {
                    let said = tail.stderr();
                    if said.contains(words) {
                        Ok(())
                    } else {
                        Err(said)
                    }
                })
            };
            server.kill9();
            says("is away").await;
            server.restart().await.unwrap();
            says("is back").await;
        }
    }
    assert!(tail.wait_exit(CAP).await.unwrap().success());
    let types: Vec<String> = tail
        .stdout()
        .lines()
        .filter_map(|line| Some(line.split("  ").nth(2)?.to_owned()))
        .collect();
    assert_eq!(types, ["B", "D"], "{}", tail.stdout());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_is_shown_with_its_reason() {
    let server = server_with_stream("default", "orders").await;
    let shell = Shell::on(&server.url());
    let client = server.client().await.unwrap();
    client
        .publish("default.orders.o-1.A", "not an event".into())
        .await
        .unwrap();
    client.flush().await.unwrap();
    shell
        .run("event publish orders --type A --subject o-1 --id 1")
        .ok();
    insta::assert_snapshot!(
        "what_is_no_event_is_shown_with_its_reason",
        shell.run("event get orders --entity o-1").ok().seen()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_addresses_and_names_give_one_clear_line() {
    let server = server_with_stream("default", "orders").await;
    let shell = Shell::on(&server.url());
    let mut seen = String::new();
    for line in [
        "event get payments",
        "event get orders -n shop",
        "event get 'or ders'",
        "saga list orders.>",
        "event get orders --nats nonsense://x",
        "event get orders --nats nats://127.0.0.1:1",
        "event get orders --from yesterday",
        "event get orders --from 99999999",
        "event tail orders --from 2",
        "event get orders --creds nothing.creds",
        "event publish orders --file nothing.jsonl",
        "event publish orders --type A --data nonsense",
        "event publish orders --type A --data '{\"a\": 1, \"a\": 2}'",
        "event publish orders --type A -a data=1",
        "event publish orders --type A -a id=1",
        "event publish orders --subject o-1",
    ] {
        seen.push_str(&shell.run(line).seen());
        seen.push('\n');
    }
    let alone = Shell::new();
    seen.push_str(&alone.run("event get orders").seen());
    alone.write(".tidemill/dev.json", &format!(
        "{{\"version\": 1, \"nats\": \"{}\", \"namespace\": \"shop\", \"pid\": 1, \"streams\": [], \"resources\": []}}",
        "nats://127.0.0.1:1",
    ));
    seen.push_str(&alone.run("event get orders").seen().replace(
        &alone.path().canonicalize().unwrap().display().to_string(),
        "<folder>",
    ));
    insta::assert_snapshot!("wrong_addresses_and_names_give_one_clear_line", seen);
}
