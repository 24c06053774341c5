//! `replies: Relayed`: answers come to the worker, which appends them.

use tidemill_core::definition::{Replies, SagaDefinition};
use tidemill_core::status::InstanceState;
use tidemill_testbed::fulfilment::{
    CAP, by_number, check, completed, definition, participants, place, settled, start,
};
use tidemill_testbed::participants::Conduct;
use tidemill_testbed::{Lab, eventually};

fn relayed() -> SagaDefinition {
    SagaDefinition {
        replies: Replies::Relayed,
        ..definition()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn relayed_answers_survive_their_worker_and_their_server() {
    let mut lab = Lab::saga("fulfilment", relayed()).await.expect("a lab");
    let participants = participants(&lab, by_number).await;
    let mut first = lab.worker("a").expect("a worker");
    place(&lab, 0..100).await;
    completed(&lab, 10).await;
    first.kill9();
    let mut second = lab.worker("b").expect("a worker");
    place(&lab, 100..150).await;
    completed(&lab, 50).await;
    lab.server.kill9();
    lab.server.restart().await.expect("the server again");
    place(&lab, 150..200).await;
    check(&lab, &participants, 200).await;
    participants.ledger(|ledger| {
        let direct = ledger
            .replies
            .iter()
            .find(|reply| reply.starts_with("_tm.log."));
        assert_eq!(direct, None, "a participant was given a subject of the log");
    });
    assert!(second.ended().is_none(), "{}", second.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_listening_uses_up_no_attempt_and_an_answer_too_late_for_its_attempt_counts() {
    let mut definition = relayed();
    for step in &mut definition.steps {
        step.retry.max_attempts = 2;
    }
    // The first attempt is given up before its answer comes.
    definition.steps[2].timeout_ms = 300;
    definition.steps[2].retry.initial_backoff_ms = 60_000;
    definition.steps[2].retry.max_backoff_ms = 60_000;
    let lab = Lab::saga("fulfilment", definition).await.expect("a lab");
    let _worker = lab.worker("a").expect("a worker");
    assert!(start(&lab, "one").await);
    let log = "shop_fulfilment_log";
    eventually("three attempts", CAP, || async {
        let messages = lab.messages(log, Vec::new()).await?;
        let observed = messages
            .iter()
            .filter(|message| message.subject.contains(".x."));
        match observed.count() {
            seen if seen >= 3 => Ok(()),
            seen => Err(anyhow::anyhow!("{seen}")),
        }
    })
    .await;
    let participants = participants(&lab, |command| match command.ends_with("/ship") {
        true => Conduct::HoldFirstAnswer,
        false => Conduct::Do,
    })
    .await;
    eventually("a timed out attempt", CAP, || async {
        let messages = lab.messages(log, Vec::new()).await?;
        match messages
            .iter()
            .any(|message| message.subject.contains(".t.") && message.subject.contains("ship"))
        {
            true => Ok(()),
            false => Err(anyhow::anyhow!("{} messages", messages.len())),
        }
    })
    .await;
    participants.release().await.expect("released");
    let end = settled(&lab, "one").await;
    assert_eq!(end.summary.state, InstanceState::Completed, "{end:#?}");
    participants.ledger(|ledger| {
        assert_eq!(ledger.standing_of("one"), 3, "{ledger:?}");
        assert!(ledger.done.values().all(|asked| *asked == 1), "{ledger:?}");
    });
}
