//! Participants that are away, silent, late or garbled, and others that answer in their place.

use async_nats::HeaderMap;
use futures::StreamExt;
use tidemill_core::definition::SagaDefinition;
use tidemill_core::json::Value;
use tidemill_core::status::InstanceState;
use tidemill_testbed::fulfilment::{
    CAP, counted, definition, done, participants, ready, said, settled, start, subjects,
};
use tidemill_testbed::participants::Conduct;
use tidemill_testbed::{Lab, NatsServer, eventually};

/// Gives a step up after its second attempt.
fn impatient() -> SagaDefinition {
    let mut definition = definition();
    for step in &mut definition.steps {
        step.retry.max_attempts = 2;
        step.timeout_ms = 500;
    }
    definition
}

/// Waits until this much was seen of an instance's attempts.
async fn observed(lab: &Lab, id: &str, count: usize, what: &str) {
    let kind = ".x.";
    eventually(format!("{count} times {what}"), CAP, || async {
        let log = lab.messages("shop_fulfilment_log", Vec::new()).await?;
        let seen = log
            .iter()
            .filter(|message| message.subject.contains(&format!(".{id}.")))
            .filter(|message| message.subject.contains(kind))
            .filter(|message| String::from_utf8_lossy(&message.payload).contains(what))
            .count();
        if seen >= count {
            Ok(())
        } else {
            Err(anyhow::anyhow!("{seen}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn participants_that_are_away_use_up_no_attempt() {
    let lab = Lab::saga("fulfilment", impatient()).await.expect("a lab");
    let _worker = lab.worker("a").expect("a worker");
    assert!(start(&lab, "early").await);
    observed(&lab, "early", 4, "noResponders").await;
    let participants = participants(&lab, |_| Conduct::Do).await;
    let end = settled(&lab, "early").await;
    assert_eq!(end.summary.state, InstanceState::Completed, "{end:#?}");
    participants.ledger(|ledger| assert_eq!(ledger.standing_of("early"), 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_on_a_requests_subject_is_said_and_answers_nothing() {
    let lab = Lab::saga("fulfilment", impatient()).await.expect("a lab");
    // It may not look whether that stream acknowledges, and takes it that it does.
    let lab = lab.refusing("$JS.API.STREAM.INFO.captor");
    let participants = participants(&lab, |_| Conduct::Do).await;
    let jetstream = async_nats::jetstream::new(lab.server.client().await.expect("a client"));
    let stream = |name: &str, subject: &str| async_nats::jetstream::stream::Config {
        name: name.to_owned(),
        subjects: vec![subject.to_owned()],
        ..Default::default()
    };
    jetstream
        .create_stream(stream("captor", "charge.do"))
        .await
        .expect("a stream");
    let _worker = lab.worker("a").expect("a worker");
    said(&lab, "a", "SubjectCaptured").await;
    assert!(start(&lab, "captured").await);
    observed(&lab, "captured", 3, "captor").await;
    participants.ledger(|ledger| assert_eq!(ledger.done.len(), 1, "{ledger:?}"));
    jetstream.delete_stream("captor").await.expect("deleted");
    let end = settled(&lab, "captured").await;
    assert_eq!(end.summary.state, InstanceState::Completed, "{end:#?}");
    ready(&lab, "a").await;

    // Made while the worker runs: the stream's acknowledgement is no answer of the participant.
    jetstream
        .create_stream(stream("captor", "ship.do"))
        .await
        .expect("a stream");
    assert!(start(&lab, "later").await);
    let end = settled(&lab, "later").await;
    assert_eq!(end.summary.state, InstanceState::Completed, "{end:#?}");
    let output = end.steps.last().map(|step| step.output.clone());
    assert!(
        output.is_some_and(|output| output.get("done").is_some()),
        "{end:#?}"
    );
    let answers = lab.metric("a", "saga_stream_answers_total").await;
    assert_eq!(answers.expect("metrics"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_is_not_published_where_it_could_leave_again_unseen() {
    let lab = Lab::saga("fulfilment", definition()).await.expect("a lab");
    let _participants = participants(&lab, |_| Conduct::Do).await;
    let jetstream = async_nats::jetstream::new(lab.server.client().await.expect("a client"));
    let stream = jetstream.get_stream("shop_orders").await.expect("a stream");
    let mut config = stream.cached_info().config.clone();
    config.max_messages_per_subject = 1000;
    jetstream.update_stream(config).await.expect("updated");
    let _worker = lab.worker("a").expect("a worker");
    assert!(start(&lab, "unsaid").await);
    let end = settled(&lab, "unsaid").await;
    assert_eq!(end.summary.state, InstanceState::Parked, "{end:#?}");
    let why = format!("{:?}", end.summary.message);
    assert!(why.contains("limits the messages of a subject"), "{why}");
    let events = lab.messages("shop_orders", Vec::new()).await;
    assert!(
        events
            .expect("events")
            .iter()
            .all(|event| event.subject.ends_with(".OrderPlaced")),
        "it was published all the same"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_and_late_replies_change_nothing_and_are_counted() {
    let mut definition = definition();
    definition.steps[1].timeout_ms = 300;
    definition.steps[2].timeout_ms = 60_000;
    let lab = Lab::saga("fulfilment", definition).await.expect("a lab");
    let participants = participants(&lab, |command| match command.rsplit('/').next() {
        Some("charge" | "ship") => Conduct::HoldFirstAnswer,
        _ => Conduct::Do,
    })
    .await;
    let mut worker = lab.worker("a").expect("a worker");
    assert!(start(&lab, "forged").await);
    // The first charge is late; the second was answered; the shipment waits.
    done(&participants, "two answers kept back", |ledger| {
        ledger.held() == 2
    })
    .await;
    let replies = participants.ledger(|ledger| ledger.replies.clone());
    let shipment = replies.last().expect("a reply subject");
    let (attempt, token) = shipment.rsplit_once('.').expect("a token");
    assert_eq!(token.len(), 20, "{shipment}");
    let forged = [
        format!("{attempt}.{}", "a".repeat(20)),
        // An attempt that was never made, with a token of another.
        shipment.replace(".ship.a.1.", ".ship.a.7."),
    ];
    let client = lab.server.client().await.expect("a client");
    for subject in forged {
        client
            .publish(subject, "{\"done\":\"somebody else\"}".into())
            .await
            .expect("sent");
    }
    counted(&lab, "two forged replies", |counters| {
        counters.forged_replies == 2 && counters.running == 1
    })
    .await;
    participants.release().await.expect("released");
    let end = settled(&lab, "forged").await;
    assert_eq!(end.summary.state, InstanceState::Completed, "{end:#?}");
    let output = |step: usize| end.steps[step].output.to_json();
    assert!(!output(2).contains("somebody"), "{end:#?}");
    counted(&lab, "one late reply", |counters| {
        (counters.late_replies, counters.forged_replies) == (1, 2)
    })
    .await;
    // After its end as well.
    client
        .publish(shipment.clone(), "{\"done\":\"late\"}".into())
        .await
        .expect("sent");
    counted(&lab, "two late replies", |counters| {
        counters.late_replies == 2 && counters.completed == 1
    })
    .await;
    participants.ledger(|ledger| assert_eq!(ledger.standing_of("forged"), 3));
    // Tokens are secrets.
    assert!(!worker.stderr().contains(token), "{}", worker.stderr());
    assert!(worker.ended().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_no_json_and_requests_that_are_too_large_fail_the_step() {
    let mut definition = impatient();
    // Four times the input is more than the server takes.
    definition.steps[2].action = match definition.steps[2].action.clone() {
        tidemill_core::definition::Action::Request { subject, .. } => {
            let text =
                br#"{"a":"=input.data","b":"=input.data","c":"=input.data","d":"=input.data"}"#;
            let data = Value::parse(text).expect("JSON");
            tidemill_core::definition::Action::Request { subject, data }
        }
        other => other,
    };
    let server = NatsServer::builder()
        .refuse_strangers()
        .max_payload(256 * 1024);
    let server = server.start().await;
    let lab = Lab::on(server.expect("a server"), "fulfilment", definition)
        .await
        .expect("a lab");
    let participants = participants(&lab, |command| {
        let garbles = command.contains("/garbled/") && command.ends_with("/charge");
        if garbles {
            Conduct::Garble
        } else {
            Conduct::Do
        }
    })
    .await;
    let _worker = lab.worker("a").expect("a worker");
    assert!(start(&lab, "garbled").await);
    let end = settled(&lab, "garbled").await;
    assert_eq!(end.summary.state, InstanceState::Compensated, "{end:#?}");
    assert_eq!(end.summary.reason.as_deref(), Some("Exhausted"), "{end:#?}");
    let bad = end
        .timeline
        .iter()
        .filter(|entry| entry.detail.contains("BadReply"));
    assert_eq!(bad.count(), 2, "{end:#?}");
    participants.ledger(|ledger| {
        // It may have been done, and was: so it is taken back, after two attempts.
        assert_eq!(ledger.standing_of("garbled"), 0, "{ledger:?}");
        assert_eq!(ledger.taken_back.len(), 2, "{ledger:?}");
        assert!(ledger.done.values().any(|asked| *asked == 2), "{ledger:?}");
    });

    let blob = "x".repeat(100 * 1024);
    let data = format!("{{\"orderId\":\"large\",\"total\":1,\"blob\":\"{blob}\"}}");
    let request = tidemill_core::control::StartRequest {
        id: "large".to_owned(),
        data: Value::parse(data.as_bytes()).expect("JSON"),
        subject: None,
        correlation_id: None,
    };
    let started: tidemill_core::control::StartReply =
        lab.ask("start", &request).await.expect("started");
    assert!(started.started);
    let end = settled(&lab, "large").await;
    assert_eq!(end.summary.state, InstanceState::Compensated, "{end:#?}");
    let reason = end.summary.reason.clone();
    assert_eq!(reason.as_deref(), Some("Unsendable"), "{end:#?}");
    participants.ledger(|ledger| {
        assert_eq!(ledger.standing_of("large"), 0, "{ledger:?}");
        assert!(
            !ledger
                .asked
                .keys()
                .any(|command| command.contains("/large/") && command.contains("/ship"))
        );
    });
}

/// An answer is written into the log by who gives it, with the headers that it has.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_would_roll_up_the_log_takes_nothing_from_it() {
    #[cfg(feature = "planted-bugs")]
    tidemill_testbed::planted::plant_as_told().expect("a bug");
    let mut definition = definition();
    for step in &mut definition.steps {
        step.timeout_ms = 2000;
    }
    let subject = subjects(&definition).remove(0);
    let lab = Lab::saga("fulfilment", definition).await.expect("a lab");
    let client = lab.server.client().await.expect("a client");
    let mut requests = client.subscribe(subject.clone()).await.expect("requests");
    let _worker = lab.worker("a").expect("a worker");
    for rollup in ["all", "sub"] {
        assert!(start(&lab, rollup).await);
        let request = tokio::time::timeout(CAP, requests.next()).await;
        let request = request.expect("an attempt in time").expect("an attempt");
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Rollup", rollup);
        let reply = request.reply.expect("a reply subject");
        client
            .publish_with_headers(reply, headers, "{\"done\":1}".into())
            .await
            .expect("answered");
    }
    drop(requests);
    let _participants = participants(&lab, |_| Conduct::Do).await;
    for id in ["all", "sub"] {
        let end = settled(&lab, id).await;
        assert_eq!(end.summary.state, InstanceState::Completed, "{end:#?}");
    }
    let log = lab.nats.stream_state("shop_fulfilment_log").await;
    let log = log.expect("the log");
    assert_eq!((log.first, log.messages), (1, log.last));
}
