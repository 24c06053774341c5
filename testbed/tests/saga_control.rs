//! What people and programs ask of running sagas: start, describe, cancel, decide.

use async_nats::jetstream::stream::Config;
use futures::future::join_all;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tidemill_core::control::{
    Accepted, CancelRequest, Decision, DecisionRequest, Described, InstanceRequest, StartReply,
};
use tidemill_core::names::{LogKind, LogSubject};
use tidemill_core::status::InstanceState;
use tidemill_nats::{Publish, PublishError, Publisher};
use tidemill_testbed::fulfilment::{
    CAP, completed, counted, definition, done, participants, place, ready, settled, start,
};
use tidemill_testbed::participants::Conduct;
use tidemill_testbed::{Lab, eventually};

async fn cancel(lab: &Lab, id: &str) -> Result<Accepted, String> {
    let request = CancelRequest {
        id: id.to_owned(),
        by: "a test".to_owned(),
        why: "to see".to_owned(),
    };
    let answer = lab.ask("cancel", &request).await;
    answer.map_err(|error| error.to_string())
}

async fn decide(lab: &Lab, id: &str, decision: Decision, after: u32) -> Result<Accepted, String> {
    let request = DecisionRequest {
        id: id.to_owned(),
        decision,
        after,
        by: "a test".to_owned(),
        why: "to see".to_owned(),
    };
    let answer = lab.ask("decide", &request).await;
    answer.map_err(|error| error.to_string())
}

async fn describe(lab: &Lab, id: &str) -> Result<Described, String> {
    let request = InstanceRequest { id: id.to_owned() };
    let answer = lab.ask("describe", &request).await;
    answer.map_err(|error| error.to_string())
}

fn refused<T: std::fmt::Debug>(answer: Result<T, String>, reason: &str) {
    let error = answer.expect_err("a refusal");
    assert!(error.starts_with(reason), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cancelled_before_the_pivot_is_taken_back_and_after_it_goes_on() {
    let mut definition = definition();
    definition.steps[1].pivot = true;
    for step in &mut definition.steps {
        step.timeout_ms = 60_000;
    }
    for step in &mut definition.steps[1..] {
        step.compensation = None;
    }
    let lab = Lab::saga("fulfilment", definition).await.expect("a lab");
    let participants = participants(&lab, |command| {
        let waits = ["/before/reserve", "/after/ship"];
        let command: Vec<&str> = command.split('/').collect();
        let step = format!("/{}/{}", command[2], command[4]);
        if waits.contains(&step.as_str()) {
            Conduct::HoldFirstAnswer
        } else {
            Conduct::Do
        }
    })
    .await;
    let _worker = lab.worker("a").expect("a worker");
    refused(cancel(&lab, "nobody").await, "NotFound");
    assert!(start(&lab, "before").await);
    assert!(start(&lab, "after").await);
    done(&participants, "two answers kept back", |ledger| {
        ledger.held() == 2
    })
    .await;
    cancel(&lab, "before").await.expect("cancelling");
    refused(cancel(&lab, "after").await, "PivotPassed");
    participants.release().await.expect("released");
    let before = settled(&lab, "before").await;
    assert_eq!(
        before.summary.state,
        InstanceState::Compensated,
        "{before:#?}"
    );
    assert_eq!(
        before.summary.reason.as_deref(),
        Some("Cancelled"),
        "{before:#?}"
    );
    let after = settled(&lab, "after").await;
    assert_eq!(after.summary.state, InstanceState::Completed, "{after:#?}");
    participants.ledger(|ledger| {
        assert_eq!(ledger.standing_of("before"), 0, "{ledger:?}");
        assert_eq!(ledger.taken_back.len(), 1, "{ledger:?}");
        // Nothing was begun after it.
        let charged =
            |command: &String| command.contains("/before/") && command.contains("/charge");
        assert!(!ledger.asked.keys().any(charged), "{ledger:?}");
        assert_eq!(ledger.standing_of("after"), 3, "{ledger:?}");
    });
    refused(cancel(&lab, "before").await, "AlreadyFinished");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_instance_waits_for_its_decision_whatever_happens_to_workers() {
    let lab = Lab::saga("fulfilment", definition()).await.expect("a lab");
    let mended = Arc::new(AtomicBool::new(false));
    let refuses = Arc::clone(&mended);
    let participants = participants(&lab, move |command| {
        let compensates = command.ends_with("/reserve/compensate");
        let refused = compensates && !refuses.load(Ordering::Relaxed);
        if refused || command.ends_with("/charge") {
            Conduct::Refuse
        } else {
            Conduct::Do
        }
    })
    .await;
    let mut worker = lab.worker("a").expect("a worker");
    for id in ["retried", "skipped"] {
        assert!(start(&lab, id).await);
        let parked = settled(&lab, id).await;
        assert_eq!(parked.summary.state, InstanceState::Parked, "{parked:#?}");
        let reason = parked.summary.reason.as_deref();
        assert_eq!(reason, Some("CompensationFailed"), "{parked:#?}");
    }
    let parked = |count: u64| {
        move |counters: &tidemill_core::status::SagaCounters| {
            (counters.parked, counters.running, counters.compensated) == (count, 0, 2 - count)
        }
    };
    counted(&lab, "two parked", parked(2)).await;
    worker.kill9();
    let _worker = lab.worker("b").expect("a worker");
    ready(&lab, "b").await;
    mended.store(true, Ordering::Relaxed);
    // Taken on again, not tried again by itself.
    decide(&lab, "skipped", Decision::Skip, 0)
        .await
        .expect("skipped");
    let skipped = settled_as(&lab, "skipped").await;
    assert_eq!(
        skipped.summary.state,
        InstanceState::Compensated,
        "{skipped:#?}"
    );
    counted(&lab, "one parked", parked(1)).await;
    participants.ledger(|ledger| assert!(ledger.taken_back.is_empty(), "{ledger:?}"));
    decide(&lab, "retried", Decision::Retry, 0)
        .await
        .expect("retried");
    let retried = settled_as(&lab, "retried").await;
    assert_eq!(
        retried.summary.state,
        InstanceState::Compensated,
        "{retried:#?}"
    );
    counted(&lab, "none parked", parked(0)).await;
    participants.ledger(|ledger| {
        assert_eq!(ledger.standing_of("retried"), 0, "{ledger:?}");
        // A person has said that it is well as it is.
        assert_eq!(ledger.standing_of("skipped"), 1, "{ledger:?}");
    });
    // Whose answer was lost asks again: it was decided, and isn't decided twice.
    let again = decide(&lab, "retried", Decision::Retry, 0).await;
    let message = again.expect("decided already").message;
    assert!(message.contains("decided already"), "{message}");
    refused(
        decide(&lab, "retried", Decision::Retry, 1).await,
        "NotParked",
    );
    assert!(start(&lab, "refused").await);
    settled_as(&lab, "refused").await;
    refused(
        decide(&lab, "refused", Decision::Retry, 0).await,
        "NotParked",
    );
}

/// However often a decision is asked for, and however it turns out, it is taken once.
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_is_asked_for_again_is_taken_once() {
    let lab = Lab::saga("fulfilment", definition()).await.expect("a lab");
    let participants = participants(&lab, |command| {
        match command.ends_with("/reserve/compensate") || command.ends_with("/charge") {
            true => Conduct::Refuse,
            false => Conduct::Do,
        }
    })
    .await;
    let _worker = lab.worker("a").expect("a worker");
    assert!(start(&lab, "o").await);
    let parked = settled(&lab, "o").await;
    assert_eq!(
        (parked.summary.state, parked.decisions),
        (InstanceState::Parked, 0)
    );
    // At once: none of them has been folded when the next is asked for.
    let asked = (0..10).map(|_| decide(&lab, "o", Decision::Retry, 0));
    for answer in join_all(asked).await {
        answer.expect("an answer");
    }
    let parked = eventually("parked again", CAP, || async {
        match describe(&lab, "o").await? {
            end if end.summary.state == InstanceState::Parked && end.decisions > 0 => Ok(end),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(parked.decisions, 1, "{parked:#?}");
    // A skip that comes late, of somebody who saw it parked the first time.
    let late = decide(&lab, "o", Decision::Skip, 0).await;
    let message = late.expect("an answer").message;
    assert!(message.contains("decided already"), "{message}");
    refused(decide(&lab, "o", Decision::Skip, 2).await, "Invalid");
    let after = describe(&lab, "o").await.expect("described");
    assert_eq!(
        (after.summary.state, after.decisions),
        (InstanceState::Parked, 1)
    );
    participants.ledger(|ledger| {
        let compensations = |(command, _): &(&String, &u32)| command.ends_with("/compensate");
        let asked: Vec<_> = ledger.asked.iter().filter(compensations).collect();
        assert!(matches!(asked.as_slice(), [(_, 2)]), "{asked:?}");
    });
    decide(&lab, "o", Decision::Skip, 1).await.expect("skipped");
    let end = settled_as(&lab, "o").await;
    assert_eq!(end.summary.state, InstanceState::Compensated, "{end:#?}");
}

/// As `settled`, once the decision is folded.
async fn settled_as(lab: &Lab, id: &str) -> Described {
    eventually("an end", CAP, || async {
        match describe(lab, id).await? {
            end if end.summary.state.is_finished() => Ok(end),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_starts_once_whoever_asks_and_is_described_after_its_end() {
    let lab = Lab::saga("fulfilment", definition()).await.expect("a lab");
    let participants = participants(&lab, |_| Conduct::Do).await;
    let (mut one, _two) = (
        lab.worker("a").expect("a worker"),
        lab.worker("b").expect("a worker"),
    );
    let asked = (0..40).map(|number| {
        let (lab, id) = (&lab, format!("once {}", number % 4));
        async move { start(lab, &id).await }
    });
    let started = join_all(asked).await;
    // Fewer if an answer was lost and asked for again, never more.
    let started = started.iter().filter(|started| **started).count();
    assert!(started <= 4, "{started}");
    for number in 0..4 {
        let end = settled(&lab, &format!("once {number}")).await;
        assert_eq!(end.summary.state, InstanceState::Completed, "{end:#?}");
    }
    assert!(
        !start(&lab, "once 0").await,
        "finished ones are there as well"
    );
    counted(&lab, "four started", |counters| {
        (counters.started, counters.completed) == (4, 4)
    })
    .await;
    participants.ledger(|ledger| assert_eq!(ledger.done.len(), 12, "{ledger:?}"));

    one.kill9();
    let end = describe(&lab, "once 1").await.expect("described");
    assert_eq!(end.summary.state, InstanceState::Completed, "{end:#?}");
    let actions: Vec<&str> = end.steps.iter().map(|step| step.action.as_str()).collect();
    assert_eq!(actions, ["done", "done", "done"]);
    let what: Vec<&str> = end
        .timeline
        .iter()
        .map(|entry| entry.what.as_str())
        .collect();
    assert_eq!(what, ["started", "reply", "reply", "reply", "published"]);
    let shown = serde_json::to_string(&end).expect("JSON");
    participants.ledger(|ledger| {
        for reply in &ledger.replies {
            let token = reply.rsplit('.').next().expect("a token");
            assert!(!shown.contains(token), "a token in {shown}");
        }
    });
    refused(describe(&lab, "never").await, "NotFound");
    refused(describe(&lab, "").await, "Invalid");
    refused(describe(&lab, &"x".repeat(300)).await, "Invalid");
}

/// Somebody who may write to the log can't run an instance again that is finished, and that no worker remembers.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_in_the_log_starts_nothing() {
    const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
    let lab = Lab::saga("fulfilment", definition()).await.expect("a lab");
    let participants = participants(&lab, |_| Conduct::Do).await;
    let mut worker = lab.worker("a").expect("a worker");
    assert!(start(&lab, "o").await);
    settled(&lab, "o").await;
    let resource = &lab.contract.resource;
    let (log, root) = (resource.log_stream(), lab.nats.root());
    let subject = LogSubject::new("o", 64, LogKind::Started)
        .and_then(|subject| subject.to_subject(resource, root))
        .expect("a subject");
    let stored = lab.nats.last_at_leader(&log, &subject).await;
    let stored = stored.expect("read").expect("a start");
    assert!(stored.was_stored_as_first(), "{stored:?}");
    // Another run, so that another command would be sent.
    let text = String::from_utf8(stored.payload.to_vec()).expect("text");
    let run = text
        .split("\"run\":\"")
        .nth(1)
        .and_then(|rest| rest.get(..32));
    let forged = text.replace(run.expect("a run"), &"0123456789abcdef".repeat(2));
    assert_ne!(forged, text);
    let publisher = Publisher::new(&lab.nats, 8);
    let publish = async |subject: &str, headers: &[(&str, &str)]| {
        let mut message = Publish::new(subject, forged.clone());
        for (name, value) in headers {
            message.headers.insert(*name, *value);
        }
        publisher.publish(message).await.await
    };
    publish(&subject, &[]).await.expect("stored");
    publish(&subject, &[("nats-expected-last-subject-sequence", "0")])
        .await
        .expect("stored");
    let refused = publish(&subject, &[(EXPECTED, "0")]).await;
    assert_eq!(refused, Err(PublishError::Conflict));
    // About another subject, at which there is nothing. Some servers refuse that.
    let elsewhere = [
        (EXPECTED, "0"),
        (
            "Nats-Expected-Last-Subject-Sequence-Subject",
            "_tm.log.none",
        ),
    ];
    let _ = publish(&subject, &elsewhere).await;
    // In another partition nothing is before it.
    let mut parts: Vec<String> = subject.split('.').map(str::to_owned).collect();
    let partition: u16 = parts[4].parse().expect("a partition");
    parts[4] = ((partition + 1) % 64).to_string();
    publish(&parts.join("."), &[(EXPECTED, "0")])
        .await
        .expect("stored");
    // The first one starts an instance, whoever writes it.
    let own = LogSubject::new("by-hand", 64, LogKind::Started)
        .and_then(|subject| subject.to_subject(resource, root))
        .expect("a subject");
    publish(&own, &[]).await.expect("stored");
    let by_hand = settled(&lab, "by-hand").await;
    assert_eq!(
        by_hand.summary.state,
        InstanceState::Completed,
        "{by_hand:#?}"
    );
    // The same when the log is folded anew.
    for _ in 0..2 {
        counted(&lab, "two instances", |counters| {
            (counters.started, counters.completed, counters.running) == (2, 2, 0)
        })
        .await;
        participants.ledger(|ledger| assert_eq!(ledger.asked.len(), 6, "{ledger:?}"));
        worker.kill9();
        worker = lab.worker("b").expect("a worker");
        ready(&lab, "b").await;
        assert!(!start(&lab, "o").await);
    }
    assert!(
        worker.stderr().contains("a start is left alone"),
        "{}",
        worker.stderr()
    );
}

/// Whoever reads an instance reads its own partition, so nothing else may move it.
#[tokio::test(flavor = "multi_thread")]
async fn what_lies_in_a_partition_that_is_not_its_own_is_no_input() {
    let lab = Lab::saga("fulfilment", definition()).await.expect("a lab");
    let participants = participants(&lab, |command| {
        if command.contains("/held/") && command.ends_with("/reserve") {
            Conduct::HoldAnswers
        } else {
            Conduct::Do
        }
    })
    .await;
    let _worker = lab.worker("a").expect("a worker");
    assert!(start(&lab, "held").await);
    done(&participants, "an answer kept back", |ledger| {
        ledger.held() == 1
    })
    .await;
    let mut subject = LogSubject::new("held", 64, LogKind::Cancel).expect("a subject");
    subject.partition = (subject.partition + 1) % 64;
    let subject = subject.to_subject(&lab.contract.resource, lab.nats.root());
    let asked = b"{\"by\":\"somebody\",\"why\":\"to see\"}".to_vec();
    let message = Publish::new(subject.expect("a subject"), asked);
    let publisher = Publisher::new(&lab.nats, 8);
    publisher.publish(message).await.await.expect("stored");
    // It comes before this one.
    assert!(start(&lab, "next").await);
    settled(&lab, "next").await;
    participants.release().await.expect("released");
    let end = settled(&lab, "held").await;
    assert_eq!(end.summary.state, InstanceState::Completed, "{end:#?}");
    counted(
        &lab,
        "both completed, and one message left alone",
        |counters| {
            (
                counters.completed,
                counters.compensated,
                counters.unreadable,
            ) == (2, 0, 1)
        },
    )
    .await;
}

/// A start that the log couldn't be read for again would be acknowledged and lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_can_not_be_kept_is_refused() {
    let lab = Lab::saga("fulfilment", definition()).await.expect("a lab");
    let _participants = participants(&lab, |_| Conduct::Do).await;
    let _worker = lab.worker("a").expect("a worker");
    assert!(start(&lab, "first").await);
    let deep = |levels: usize| {
        let text = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON")
    };
    for (field, value) in [
        ("data", deep(65)),
        ("data", deep(100)),
        ("subject", "x".repeat(201).into()),
        ("correlationId", "x".repeat(5000).into()),
    ] {
        let mut request = serde_json::json!({"id": "odd"});
        request[field] = value;
        let answer = lab.ask::<StartReply>("start", &request).await;
        refused(answer.map_err(|error| error.to_string()), "Invalid");
    }
    // The id is free.
    let request = serde_json::json!({"id": "odd", "data": deep(60)});
    let answer: StartReply = lab.ask("start", &request).await.expect("an answer");
    assert!(answer.started);
    settled(&lab, "odd").await;
}

/// An answer has to fit into a message of NATS.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_described_however_much_was_said_of_it() {
    let lab = Lab::saga("fulfilment", definition()).await.expect("a lab");
    let participants = participants(&lab, |_| Conduct::HoldAnswers).await;
    let _worker = lab.worker("a").expect("a worker");
    assert!(start(&lab, "o").await);
    let client = lab.server.client().await.expect("a client");
    for steps in 1..=3 {
        done(&participants, "a request", |ledger| {
            ledger.replies.len() == steps
        })
        .await;
        let reply = participants.ledger(|ledger| ledger.replies.last().cloned());
        let answer = format!("{{\"text\":\"{}\"}}", "x".repeat(400_000 + steps));
        client
            .publish(reply.expect("a reply subject"), answer.into())
            .await
            .expect("sent");
    }
    let end = settled(&lab, "o").await;
    assert_eq!(
        end.summary.state,
        InstanceState::Completed,
        "{}",
        end.steps.len()
    );
    let left_out: Vec<_> = end.steps.iter().map(|step| step.output_left_out).collect();
    assert_eq!(left_out, [None, None, Some(400_014)]);
    let described = describe(&lab, "o").await.expect("described");
    assert_eq!(described.steps, end.steps);
}

/// What the worker says to the log it says until somebody takes it: it has already answered that it will be done.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_did_not_take_is_given_to_it_again() {
    let mut definition = definition();
    for step in &mut definition.steps {
        step.timeout_ms = 60_000;
    }
    let lab = Lab::saga("fulfilment", definition).await.expect("a lab");
    let participants = participants(&lab, |command| {
        match command.contains("/held/") && command.ends_with("/reserve") {
            true => Conduct::HoldFirstAnswer,
            false => Conduct::Do,
        }
    })
    .await;
    let _worker = lab.worker("a").expect("a worker");
    assert!(start(&lab, "held").await);
    done(&participants, "an answer kept back", |ledger| {
        ledger.held() == 1
    })
    .await;
    let jetstream = async_nats::jetstream::new(lab.server.client().await.expect("a client"));
    let log = jetstream.get_stream("shop_fulfilment_log").await;
    let log = log.expect("the log").cached_info().config.clone();
    // Participants' answers only: nobody takes what the worker has to say.
    let deaf = Config {
        subjects: vec!["_tm.log.shop.fulfilment.*.*.r.>".to_owned()],
        ..log.clone()
    };
    jetstream.update_stream(&deaf).await.expect("a deaf log");
    cancel(&lab, "held").await.expect("cancelling");
    place(&lab, 0..3).await;
    eventually(
        "a cancel and three starts without an answer",
        CAP,
        || async {
            match lab.metric("a", "saga_appends_retried_total").await? {
                tried if tried >= 4.0 => Ok(()),
                tried => Err(anyhow::anyhow!("{tried}")),
            }
        },
    )
    .await;
    // Nothing follows from what isn't stored.
    participants.ledger(|ledger| {
        let early = ledger.asked.keys().find(|command| command.contains("/o-"));
        assert_eq!(early, None, "acted on before it was in the log");
    });
    jetstream.update_stream(&log).await.expect("the whole log");
    let cancels = "_tm.log.shop.fulfilment.*.*.c";
    eventually("the cancel in the log", CAP, || async {
        let stored = lab.messages("shop_fulfilment_log", vec![cancels.to_owned()]);
        match stored.await?.len() {
            1 => Ok(()),
            stored => Err(anyhow::anyhow!("{stored}")),
        }
    })
    .await;
    participants.release().await.expect("released");
    let held = settled(&lab, "held").await;
    assert_eq!(held.summary.state, InstanceState::Compensated, "{held:#?}");
    completed(&lab, 3).await;
}
