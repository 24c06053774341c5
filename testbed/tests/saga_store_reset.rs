//! Stores that are set back to an earlier copy, as a restore from a backup or a power loss does: the reset is said, nothing is
//! started twice, and what is left goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tempfile::TempDir;
use tidemill_core::control::{AcceptSourceRequest, Accepted};
use tidemill_core::definition::SagaDefinition;
use tidemill_core::status::{InstanceState, TriggerCounters};
use tidemill_testbed::fulfilment::{
    CAP, completed, definition, done, number, participants, place, ready, said,
};
use tidemill_testbed::participants::{Conduct, Participants};
use tidemill_testbed::{Lab, Process, eventually};

const LOG: &str = "shop_fulfilment_log";
const ORDERS: &str = "shop_orders";

/// Attempts that wait for their answers as long as the test likes.
fn patient() -> SagaDefinition {
    let mut definition = definition();
    for step in &mut definition.steps {
        step.timeout_ms = 60_000;
    }
    definition
}

/// Answers orders from 10 to 19 about their charge when they are released, or asked again.
fn holding(command: &str) -> Conduct {
    match number(command) {
        10..20 if command.ends_with("/charge") => Conduct::HoldFirstAnswer,
        _ => Conduct::Do,
    }
}

async fn copy_store(lab: &mut Lab) -> TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    lab.server.stop().await.expect("stopped");
    lab.server
        .copy_store(&copy.path().join("store"))
        .expect("copied");
    lab.server.restart().await.expect("the server again");
    copy
}

fn earlier(copy: &TempDir) -> std::path::PathBuf {
    copy.path().join("store")
}

/// Sets one stream back to what it was, while nobody can see it.
async fn set_back(lab: &mut Lab, copy: &TempDir, stream: &str) {
    lab.server.kill9();
    lab.server
        .set_stream_back(&earlier(copy), stream)
        .expect("set back");
    lab.server.restart().await.expect("the server again");
}

/// The same under a worker that survives it, or after one that is followed by another; gives the pod and worker that go on.
async fn set_back_with(
    lab: &mut Lab,
    mut worker: Process,
    survives: bool,
    copy: &TempDir,
    stream: &str,
) -> (&'static str, Process) {
    if survives {
        set_back(lab, copy, stream).await;
        return ("a", worker);
    }
    ended(&mut worker).await;
    set_back(lab, copy, stream).await;
    ("b", lab.worker("b").expect("a worker"))
}

async fn ended(worker: &mut Process) {
    worker.terminate().expect("SIGTERM");
    worker.wait_exit(CAP).await.expect("an end");
}

/// Says that the trigger stream is read on as it is.
async fn accept(lab: &Lab) {
    let accepted: Accepted = lab
        .ask("accept-source", &AcceptSourceRequest { stream: None })
        .await
        .expect("accepted");
    assert!(accepted.message.contains("shop/orders"), "{accepted:?}");
}

async fn held(participants: &Participants, count: usize) {
    done(participants, "charges that wait", |ledger| {
        ledger.held() == count
    })
    .await;
}

/// Waits until these orders' instances are all that lists know, each completed.
async fn only(lab: &Lab, orders: impl IntoIterator<Item = usize>) {
    let known: BTreeSet<String> = orders
        .into_iter()
        .filter(|number| number % 10 != 9)
        .map(|number| format!("o-{number}"))
        .collect();
    eventually("summaries of what the log knows", CAP, || async {
        let summaries = lab.summaries().await?;
        let done: BTreeSet<String> = summaries
            .iter()
            .filter(|(_, summary)| summary.state == InstanceState::Completed)
            .map(|(id, _)| id.clone())
            .collect();
        if done == known && summaries.len() == known.len() {
            Ok(())
        } else {
            Err(anyhow::anyhow!("{:?}", summaries.keys()))
        }
    })
    .await;
}

/// Every instance was run once: a second start would ask with other command ids.
fn nothing_twice(participants: &Participants) {
    participants.ledger(|ledger| {
        let mut runs: BTreeMap<usize, BTreeSet<&str>> = BTreeMap::new();
        for command in ledger.asked.keys() {
            let run = command.split('/').nth(3).unwrap_or_default();
            runs.entry(number(command)).or_default().insert(run);
        }
        runs.retain(|_, runs| runs.len() != 1);
        assert!(runs.is_empty(), "{runs:?}");
        assert!(ledger.taken_back.is_empty());
    });
}

/// Outcome events by instance, each once.
async fn confirmed(lab: &Lab) -> BTreeSet<usize> {
    let mut confirmed = BTreeSet::new();
    for event in lab.events().await.expect("events") {
        let entity = event.subject.strip_prefix("shop.orders.o-");
        if let Some(order) = entity.and_then(|rest| rest.strip_suffix(".OrderConfirmed")) {
            assert!(
                confirmed.insert(order.parse().expect("a number")),
                "{order} twice"
            );
        }
    }
    confirmed
}

async fn trigger(lab: &Lab) -> TriggerCounters {
    let counters = lab.counters().await.expect("counters");
    let trigger = counters.triggers.get("shop/orders").cloned();
    trigger.unwrap_or_default()
}

fn sound(worker: &mut Process) {
    let status = worker.ended();
    let text = worker.stderr();
    assert!(status.is_none() && !text.contains("panicked"), "{text}");
}

/// The log is set back: what it knows goes on from there, with the same ids; what it doesn't know is gone from lists, and
/// not started anew, as its events were dealt with.
async fn log_set_back(survives: bool) {
    let mut lab = Lab::saga("fulfilment", patient()).await.expect("a lab");
    let participants = participants(&lab, holding).await;
    let worker = lab.worker("a").expect("a worker");
    place(&lab, 0..20).await;
    completed(&lab, 9).await;
    held(&participants, 9).await;
    let copy = copy_store(&mut lab).await;
    participants.release().await.expect("released");
    place(&lab, 20..30).await;
    only(&lab, 0..30).await;
    // Written with what is in the log: how a later worker knows that it ended later.
    completed(&lab, 27).await;
    let (pod, mut worker) = set_back_with(&mut lab, worker, survives, &copy, LOG).await;
    only(&lab, 0..20).await;
    assert!(worker.stderr().contains("LogReset"), "{}", worker.stderr());
    ready(&lab, pod).await;
    place(&lab, 30..40).await;
    only(&lab, (0..20).chain(30..40)).await;
    eventually("counters of what the log knows", CAP, || async {
        let counters = lab.counters().await?;
        let seen = (
            counters.started,
            counters.completed,
            counters.running,
            counters.log_resets,
        );
        if seen == (27, 27, 0, 1) {
            Ok(())
        } else {
            Err(anyhow::anyhow!("{counters:?}"))
        }
    })
    .await;
    nothing_twice(&participants);
    let all = (0..40).filter(|number| number % 10 != 9).collect();
    assert_eq!(confirmed(&lab).await, all);
    let trigger = trigger(&lab).await;
    assert_eq!((trigger.matched, trigger.existing), (36, 0), "{trigger:?}");
    sound(&mut worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_set_back_under_a_worker_is_said_and_folded_again() {
    log_set_back(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_set_back_while_no_worker_ran_is_said_too() {
    log_set_back(false).await;
}

/// The log is deleted and made again while no worker runs, and late answers make it longer than what was folded of the old one.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_made_again_and_has_grown_is_said() {
    let lab = Lab::saga("fulfilment", definition()).await.expect("a lab");
    let participants = participants(&lab, |_| Conduct::Do).await;
    let mut worker = lab.worker("a").expect("a worker");
    place(&lab, 0..3).await;
    only(&lab, 0..3).await;
    completed(&lab, 3).await;
    ended(&mut worker).await;
    let client = lab.server.client().await.expect("a client");
    let jetstream = async_nats::jetstream::new(client);
    let mut log = jetstream.get_stream(LOG).await.expect("the log");
    let config = log.info().await.expect("its state").config.clone();
    let length = log.cached_info().state.messages;
    jetstream.delete_stream(LOG).await.expect("deleted");
    let mut again = config.clone();
    again
        .metadata
        .insert("tidemill.dev/incarnation".to_owned(), "another".to_owned());
    jetstream.create_stream(again).await.expect("made again");
    let subject = config.subjects[0].replace('>', "0.late");
    for _ in 0..2 * length {
        let published = jetstream.publish(subject.clone(), "{}".into()).await;
        published.expect("sent").await.expect("stored");
    }
    let mut worker = lab.worker("b").expect("a worker");
    only(&lab, []).await;
    assert!(worker.stderr().contains("LogReset"), "{}", worker.stderr());
    ready(&lab, "b").await;
    place(&lab, 10..13).await;
    only(&lab, 10..13).await;
    eventually("counters of the new log", CAP, || async {
        let counters = lab.counters().await?;
        match (counters.started, counters.completed, counters.log_resets) {
            (3, 3, 1) => Ok(()),
            _ => Err(anyhow::anyhow!("{counters:?}")),
        }
    })
    .await;
    nothing_twice(&participants);
    sound(&mut worker);
}

/// The trigger stream is set back: nothing of it starts anything until somebody accepts that.
async fn source_set_back(survives: bool) {
    let mut lab = Lab::saga("fulfilment", definition()).await.expect("a lab");
    let participants = participants(&lab, |_| Conduct::Do).await;
    let worker = lab.worker("a").expect("a worker");
    place(&lab, 0..10).await;
    only(&lab, 0..10).await;
    let copy = copy_store(&mut lab).await;
    place(&lab, 10..30).await;
    only(&lab, 0..30).await;
    eventually("outcomes read as well", CAP, || async {
        let seen = trigger(&lab).await.seen;
        if seen == 57 { Ok(()) } else { Err(seen) }
    })
    .await;
    let (pod, mut worker) = set_back_with(&mut lab, worker, survives, &copy, ORDERS).await;
    said(&lab, pod, "SourceReset").await;
    // A producer that lost them says some again, and something new; the stream grows past where it was.
    place(&lab, 10..20).await;
    place(&lab, 40..100).await;
    // Another worker says the same.
    let _other = lab.worker("c").expect("a worker");
    said(&lab, "c", "SourceReset").await;
    only(&lab, 0..30).await;
    accept(&lab).await;
    // Of 20 to 29 nobody has said anything since; they are there already. The others are new.
    place(&lab, 20..30).await;
    place(&lab, 100..110).await;
    only(&lab, (0..30).chain(100..110)).await;
    eventually("those that are there already are counted", CAP, || async {
        let trigger = trigger(&lab).await;
        match (trigger.existing, trigger.matched) {
            (9, 45) => Ok(()),
            _ => Err(anyhow::anyhow!("{trigger:?}")),
        }
    })
    .await;
    ready(&lab, pod).await;
    nothing_twice(&participants);
    let counters = lab.counters().await.expect("counters");
    assert_eq!((counters.started, counters.log_resets), (36, 0));
    sound(&mut worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_stream_set_back_under_a_worker_starts_nothing_until_accepted() {
    source_set_back(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_stream_set_back_while_no_worker_ran_starts_nothing_until_accepted() {
    source_set_back(false).await;
}

/// The same, and producers go on before any worker looks again: the stream is longer than ever, and yet another.
#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_stream_that_was_set_back_and_has_grown_since_starts_nothing_until_accepted() {
    let mut lab = Lab::saga("fulfilment", definition()).await.expect("a lab");
    let participants = participants(&lab, |_| Conduct::Do).await;
    let mut worker = lab.worker("a").expect("a worker");
    place(&lab, 0..10).await;
    only(&lab, 0..10).await;
    let copy = copy_store(&mut lab).await;
    place(&lab, 10..20).await;
    only(&lab, 0..20).await;
    ended(&mut worker).await;
    set_back(&mut lab, &copy, ORDERS).await;
    place(&lab, 40..140).await;
    let mut worker = lab.worker("b").expect("a worker");
    said(&lab, "b", "SourceReset").await;
    only(&lab, 0..20).await;
    nothing_twice(&participants);
    sound(&mut worker);
}

/// Everything is set back under a worker that goes on: owners, counters, summaries, log and events.
#[tokio::test(flavor = "multi_thread")]
async fn a_whole_store_set_back_is_said_and_work_goes_on_once_accepted() {
    let mut lab = Lab::saga("fulfilment", patient()).await.expect("a lab");
    let participants = participants(&lab, holding).await;
    let mut worker = lab.worker("a").expect("a worker");
    place(&lab, 0..20).await;
    completed(&lab, 9).await;
    held(&participants, 9).await;
    let copy = copy_store(&mut lab).await;
    participants.release().await.expect("released");
    place(&lab, 20..30).await;
    only(&lab, 0..30).await;
    lab.server.kill9();
    lab.server
        .set_store_back(&earlier(&copy))
        .expect("set back");
    lab.server.restart().await.expect("the server again");
    said(&lab, "a", "SourceReset").await;
    only(&lab, 0..20).await;
    assert!(worker.stderr().contains("LogReset"), "{}", worker.stderr());
    accept(&lab).await;
    place(&lab, 30..40).await;
    only(&lab, (0..20).chain(30..40)).await;
    ready(&lab, "a").await;
    nothing_twice(&participants);
    let again: BTreeSet<usize> = (0..20).chain(30..40).filter(|n| n % 10 != 9).collect();
    assert_eq!(confirmed(&lab).await, again);
    sound(&mut worker);
    worker.terminate().expect("SIGTERM");
    let end = worker.wait_exit(Duration::from_secs(30)).await;
    assert!(end.expect("an end").success(), "{}", worker.stderr());
}
