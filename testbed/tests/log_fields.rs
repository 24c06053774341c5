//! What workers log, as programs read it: the fields of docs/guide/operations.md.

use serde_json::{Value, json};
use tidemill_core::contract::Workload;
use tidemill_core::definition::{OnError, ProjectionDefinition};
use tidemill_nats::{Publish, Publisher};
use tidemill_testbed::fulfilment::{CAP, definition, done, order, participants};
use tidemill_testbed::participants::Conduct;
use tidemill_testbed::{Lab, NatsServer, Process};

/// A worker that logs JSON, with what it says of each instance.
fn worker(lab: &Lab, pod: &str) -> Process {
    let worker = lab.worker_with(pod, &lab.contract, |builder| {
        let wanted = "info,async_nats=off,tidemill_worker_saga=debug";
        builder
            .env("TIDEMILL_LOG_FORMAT", "json")
            .env("TIDEMILL_LOG", wanted)
    });
    worker.expect("a worker")
}

/// Every line so far.
fn lines(worker: &Process) -> Vec<Value> {
    let text = worker.stderr();
    let lines = text.lines().map(|line| {
        let parsed: Result<Value, _> = serde_json::from_str(line);
        parsed.expect(line)
    });
    lines.collect()
}

/// Waits for a line with this text, of this id if it isn't empty.
async fn line(worker: &mut Process, text: &str, id: &str) -> Value {
    let wanted = |line: &str| line.contains(text) && line.contains(id);
    let line = worker.wait_for_line(text, CAP, wanted).await;
    serde_json::from_str(&line.expect("the line")).expect("JSON")
}

fn fields(line: &Value, names: &[&str]) -> Value {
    names.iter().map(|name| line[name].clone()).collect()
}

async fn publish(lab: &Lab, event: Publish) {
    let stored = Publisher::new(&lab.nats, 1).publish(event).await.await;
    stored.expect("stored");
}

fn correlated(number: usize) -> Publish {
    let mut event = order(number);
    let id = format!("c-{number}");
    event.headers.insert("ce-correlationid", id.as_str());
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_about_an_instance_name_it_its_event_and_its_step() {
    let lab = Lab::saga("fulfilment", definition()).await.expect("a lab");
    let participants = participants(&lab, |command| {
        let refused = ["/charge", "/reserve/compensate"];
        if command.contains("/o-6/") {
            Conduct::HoldAnswers
        } else if refused.iter().any(|step| command.ends_with(step)) {
            Conduct::Refuse
        } else {
            Conduct::Do
        }
    })
    .await;
    let mut first = worker(&lab, "a");
    publish(&lab, correlated(5)).await;
    let about = ["level", "instance", "event_id", "correlation_id"];
    let ids = |level: &str| json!([level, "o-5", "e-5", "c-5"]);

    let parked = line(&mut first, "parked: it waits for a decision", "").await;
    assert_eq!(fields(&parked, &about), ids("WARN"));
    let why = fields(&parked, &["step", "reason"]);
    assert_eq!(why, json!(["reserve", "CompensationFailed"]));
    assert!(parked["error"].is_string(), "{parked}");

    let all = lines(&first);
    let of = |text: &str| -> Vec<&Value> { all.iter().filter(|l| l["message"] == text).collect() };
    let started = of("an event starts an instance");
    assert_eq!(started.len(), 1, "{started:?}");
    assert_eq!(fields(started[0], &about), ids("DEBUG"));
    let place = fields(started[0], &["stream", "sequence"]);
    assert_eq!(place, json!(["shop/orders", 1]));
    let attempts = of("an attempt is made");
    for attempt in &attempts {
        assert_eq!(fields(attempt, &about), ids("DEBUG"));
    }
    let attempt = ["step", "side", "attempt", "again"];
    let attempts: Value = attempts.iter().map(|line| fields(line, &attempt)).collect();
    let made = json!([
        ["reserve", "Action", 1, false],
        ["charge", "Action", 1, false],
        ["reserve", "Compensation", 1, false]
    ]);
    assert_eq!(attempts, made);

    // Somebody guesses a token.
    let reply = participants.ledger(|ledger| ledger.replies[0].clone());
    let (attempt, token) = reply.rsplit_once('.').expect("a token");
    let client = lab.server.client().await.expect("a client");
    let forged = format!("{attempt}.{}", "a".repeat(token.len()));
    client.publish(forged, "{}".into()).await.expect("sent");
    let forged = line(&mut first, "a reply with a wrong token", "").await;
    assert_eq!(fields(&forged, &about), ids("WARN"));

    // An event that can't start anything.
    let mut broken = correlated(8);
    broken.payload = "{}".into();
    publish(&lab, broken).await;
    let aside = line(&mut first, "a trigger event is parked", "").await;
    let event = fields(&aside, &["level", "event_id", "correlation_id", "stream"]);
    assert_eq!(event, json!(["ERROR", "e-8", "c-8", "shop/orders"]));
    assert!(aside["sequence"].is_u64(), "{aside}");
    assert_eq!(aside["reason"], "NoSuchKey", "{aside}");
    let error = aside["error"].as_str().expect("an error");
    assert!(error.starts_with("startOn[0].when: "), "{aside}");

    // Whoever takes over makes the same attempt again.
    publish(&lab, correlated(6)).await;
    done(&participants, "an answer kept back", |l| l.held() == 1).await;
    first.kill9();
    let mut second = worker(&lab, "b");
    let again = line(&mut second, "an attempt is made", "o-6").await;
    let of_six = fields(&again, &about);
    assert_eq!(of_six, json!(["DEBUG", "o-6", "e-6", "c-6"]));
    let attempt = fields(&again, &["step", "side", "attempt", "again"]);
    assert_eq!(attempt, json!(["reserve", "Action", 1, true]));

    for line in lines(&first).iter().chain(&lines(&second)) {
        if line["instance"].is_string() {
            let named = line["event_id"].is_string() && line["correlation_id"].is_string();
            assert!(named, "{line}");
        }
    }
    let said = first.stderr() + &second.stderr();
    participants.ledger(|ledger| {
        for reply in &ledger.replies {
            let token = reply.rsplit('.').next().expect("a token");
            assert!(!said.contains(token), "a token is shown");
        }
    });
}

/// An event of account `a-<number>`, whose handler needs the number `n`.
fn account(number: usize, data: &str) -> Publish {
    let mut event = correlated(number);
    event.subject = format!("shop.orders.a-{number}.Paid");
    event.headers.insert("ce-type", "Paid");
    let entity = format!("a-{number}");
    event.headers.insert("ce-subject", entity.as_str());
    event.payload = data.to_owned().into();
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_about_an_event_that_cannot_be_folded_name_it_and_its_key() {
    for (on_error, level, text, reason) in [
        (
            OnError::Park,
            "WARN",
            "an event can't be folded: its key is parked",
            "NoSuchKey",
        ),
        (
            OnError::Skip,
            "WARN",
            "an event can't be folded: it is left out",
            "NoSuchKey",
        ),
        (
            OnError::Stop,
            "ERROR",
            "the projection stops before an event",
            "FoldError",
        ),
    ] {
        let mut definition =
            ProjectionDefinition::new(vec![tidemill_testbed::lab::orders()], "event.subject");
        let handlers = r#"[{"type":"Paid","increment":{"sum":"=event.data.n"}}]"#;
        definition.handlers = serde_json::from_str(handlers).expect("handlers");
        let server = NatsServer::builder().refuse_strangers().start().await;
        let server = server.expect("a server");
        let lab = Lab::projection(server, "accounts", definition).await;
        let mut lab = lab.expect("a lab");
        if let Workload::Projection(workload) = &mut lab.contract.workload {
            workload.policy.on_error = on_error;
        }
        publish(&lab, account(1, "{\"n\":1}")).await;
        publish(&lab, account(2, "{}")).await;
        let mut worker = worker(&lab, "a");
        let said = line(&mut worker, text, "").await;
        let event = ["level", "event_id", "correlation_id", "key", "reason"];
        let expected = json!([level, "e-2", "c-2", "a-2", reason]);
        assert_eq!(fields(&said, &event), expected, "{said}");
        let place = fields(&said, &["stream", "position"]);
        assert_eq!(place, json!(["shop/orders", "2"]), "{said}");
        assert!(said["error"].is_string(), "{said}");
        if on_error == OnError::Park {
            // What is no event has no id, and no key.
            publish(&lab, Publish::new("shop.orders.a-3.Paid", "{}")).await;
            let said = line(&mut worker, text, "Undecodable").await;
            assert!(said["event_id"].is_null(), "{said}");
            assert_eq!(fields(&said, &["key", "position"]), json!(["=nokey", "3"]));
        }
        lines(&worker);
    }
}
