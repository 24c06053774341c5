//! A definition that changes while instances run: each keeps the one it was started with.

use tidemill_core::contract::{Contract, Workload};
use tidemill_core::definition::{Action, SagaDefinition};
use tidemill_core::status::InstanceState;
use tidemill_testbed::Lab;
use tidemill_testbed::fulfilment::{
    CAP, counted, definition, done, number, place, ready, settled, subjects,
};
use tidemill_testbed::participants::{Conduct, Participants};

/// With `deliver` in place of `ship`.
fn changed(definition: &SagaDefinition) -> SagaDefinition {
    let mut definition = definition.clone();
    let step = &mut definition.steps[2];
    step.name = "deliver".to_owned();
    step.compensation = None;
    if let Action::Request { subject, data } = &mut step.action {
        *subject = "deliver.do".to_owned();
        *data = tidemill_core::json::Value::Null;
    }
    definition
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_keep_the_definition_they_were_started_with() {
    let mut old = definition();
    for step in &mut old.steps {
        step.timeout_ms = 60_000;
    }
    let new = changed(&old);
    let lab = Lab::saga("fulfilment", old.clone()).await.expect("a lab");
    let client = lab.server.client().await.expect("a client");
    let all = [subjects(&old), vec!["deliver.do".to_owned()]].concat();
    let participants = Participants::start(
        &client,
        &all,
        std::sync::Arc::new(|command: &str| match number(command) {
            0..20 if command.ends_with("/charge") => Conduct::HoldFirstAnswer,
            _ => Conduct::Do,
        }),
    )
    .await
    .expect("participants");
    let mut first = lab.worker("a").expect("a worker");
    place(&lab, 0..20).await;
    done(&participants, "charges that wait", |ledger| {
        ledger.held() == 18
    })
    .await;
    let mut contract = lab.contract.clone();
    set(&mut contract, &new);
    // Both at once, as while a Deployment is rolled; then only the new one.
    let mut second = lab
        .worker_with("b", &contract, |builder| builder)
        .expect("a worker");
    ready(&lab, "b").await;
    first.terminate().expect("SIGTERM");
    let end = first.wait_exit(CAP).await.expect("an end");
    assert!(end.success(), "{}", first.stderr());
    place(&lab, 20..40).await;
    counted(&lab, "the new ones", |counters| counters.completed >= 18).await;
    participants.release().await.expect("released");
    counted(&lab, "all of them", |counters| {
        (counters.started, counters.completed, counters.running) == (36, 36, 0)
    })
    .await;
    for order in (0..40).filter(|order| order % 10 != 9) {
        let id = format!("o-{order}");
        let end = settled(&lab, &id).await;
        assert_eq!(end.summary.state, InstanceState::Completed, "{end:#?}");
        let (definition, last) = match order {
            0..20 => (&old, "ship"),
            _ => (&new, "deliver"),
        };
        assert_eq!(end.summary.revision, definition.revision(), "{id}");
        let steps: Vec<&str> = end.steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(steps, ["reserve", "charge", last], "{id}");
        participants.ledger(|ledger| {
            let asked = |command: &&String| number(command) == order && command.contains("/o-");
            let commands: Vec<&str> = ledger
                .done
                .keys()
                .filter(asked)
                .filter_map(|command| command.rsplit('/').next())
                .collect();
            let mut wanted = ["reserve", "charge", last];
            wanted.sort_unstable();
            assert_eq!(commands, wanted, "{id}");
        });
    }
    assert!(second.ended().is_none(), "{}", second.stderr());
}

fn set(contract: &mut Contract, definition: &SagaDefinition) {
    if let Workload::Saga(workload) = &mut contract.workload {
        workload.definition = definition.clone();
    }
}
