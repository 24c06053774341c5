//! No line of `tidemill permissions` is superfluous: in a run of all that workers do, each is used. (That no more is needed every test
//! with workers shows: they run with these permissions only, and a test fails if a worker was refused anything.)
//!
//! The server traces what it is sent, so what a worker used is what the server saw. No line covers another (`nats/tests/permissions.rs`),
//! so without a line that was used the server would have refused what it was used for.

use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use tidemill_core::contract::{Contract, Workload};
use tidemill_core::control::{Accepted, CancelRequest, InstanceRequest};
use tidemill_core::definition::{
    Action, Compensation, ProjectionDefinition, PublishDefinition, SagaDefinition,
};
use tidemill_core::json::Value;
use tidemill_nats::permissions::{self, Grant, covers};
use tidemill_nats::{Publish, Publisher};
use tidemill_testbed::fulfilment::{self, CAP, by_number, completed, done, place, settled, start};
use tidemill_testbed::participants::{Conduct, Participants};
use tidemill_testbed::{Lab, NatsServer, User, eventually, lab};

/// A server that says what it is sent.
async fn server() -> NatsServer {
    let tracing = NatsServer::builder().config("trace: true\nmax_traced_msg_len: 1");
    let server = tracing.refuse_strangers().start().await;
    server.expect("a server")
}

/// What workers published to and subscribed to.
#[derive(Default)]
struct Used {
    publish: BTreeSet<String>,
    subscribe: BTreeSet<String>,
}

impl Used {
    /// Adds what a log holds.
    fn read(&mut self, log: &str) {
        for line in log.lines().filter(|line| line.contains("tidemill-worker ")) {
            let Some((_, operation)) = line.split_once(" - <<- [") else {
                continue;
            };
            let mut words = operation.trim_end_matches(']').split(' ');
            let (operation, subject) = (words.next(), words.next().unwrap_or_default());
            match operation {
                Some("PUB" | "HPUB") => self.publish.insert(subject.to_owned()),
                Some("SUB") => self.subscribe.insert(subject.to_owned()),
                _ => false,
            };
        }
    }

    /// The lines of a list that none of it needed.
    fn unused(&self, contract: &Contract) -> Vec<String> {
        let list = permissions::worker(contract);
        let unused = |grants: Vec<Grant>, used: &BTreeSet<String>| {
            let unused = grants
                .into_iter()
                .filter(|grant| !used.iter().any(|subject| covers(&grant.subject, subject)));
            unused.map(|grant| grant.subject).collect::<Vec<_>>()
        };
        let mut all = unused(list.publish, &self.publish);
        all.extend(unused(list.subscribe, &self.subscribe));
        all
    }

    /// Waits until nothing of a list is unused.
    async fn everything(&self, lab: &Lab) {
        eventually("every line is used", CAP, || async {
            let mut used = Used {
                publish: self.publish.clone(),
                subscribe: self.subscribe.clone(),
            };
            used.read(&lab.server.log());
            match used.unused(&lab.contract) {
                unused if unused.is_empty() => Ok(()),
                unused => Err(unused.join(", ")),
            }
        })
        .await;
    }
}

async fn traced(lab: &Lab, what: &str) {
    eventually(format!("{what} in the trace"), CAP, || async {
        match lab.server.log().contains(what) {
            true => Ok(()),
            false => Err("not yet"),
        }
    })
    .await;
}

/// Another process under the same pod's name: the later works, and the earlier looks whose heartbeat it found.
async fn twice(lab: &Lab) -> tidemill_testbed::Process {
    let later = lab.worker("a").expect("a worker");
    let own = format!("$KV.tidemill_owners.{}", lab.contract.resource.key_prefix());
    traced(lab, &format!("DIRECT.GET.KV_tidemill_owners.{own}")).await;
    later
}

async fn publish(lab: &Lab, entity: &str, kind: &str, data: &str) {
    let mut event = Publish::new(format!("shop.orders.{entity}.{kind}"), data.to_owned());
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-source", "/test"),
        ("ce-type", kind),
        ("ce-id", &format!("{entity}-{kind}-{data}")),
        ("ce-subject", entity),
    ] {
        event.headers.insert(name, value);
    }
    let stored = Publisher::new(&lab.nats, 1).publish(event).await.await;
    stored.expect("stored");
}

/// `reserve`, `charge`, `tell` (publishes), `ship`.
fn definition() -> SagaDefinition {
    let mut definition = fulfilment::definition();
    let publish = |event_type: &str| {
        Action::Publish(PublishDefinition {
            stream: lab::orders(),
            event_type: event_type.to_owned(),
            entity: Value::parse(b"\"=input.subject\"").expect("JSON"),
            data: Value::Null,
        })
    };
    let mut tell = definition.steps[2].clone();
    tell.name = "tell".to_owned();
    tell.action = publish("Told");
    tell.compensation = tell.compensation.map(|back| Compensation {
        action: publish("Untold"),
        ..back
    });
    definition.steps[2].after = vec!["tell".to_owned()];
    // Nothing comes after it for which it would be taken back.
    definition.steps[2].compensation = None;
    definition.steps.insert(2, tell);
    definition
}

/// Participants that may do what `tidemill permissions --participant` says.
async fn participants(lab: &Lab) -> Participants {
    let subjects = permissions::request_subjects(&lab.contract);
    let subjects: Vec<String> = subjects.map(str::to_owned).collect();
    let list = permissions::participant("*.*", [&lab.contract]);
    let user = User::new("participant").permissions(list);
    lab.server.add_user(user).expect("a user");
    let client = eventually("a participant that is let in", CAP, || {
        lab.server.client_for("participant")
    })
    .await;
    let decide = |command: &str| match fulfilment::number(command) {
        8 if command.ends_with("/charge") => Conduct::HoldAnswers,
        _ => by_number(command),
    };
    let started = Participants::start(&client, &subjects, Arc::new(decide)).await;
    started.expect("participants")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_sagas_list_is_used() {
    let lab = Lab::on(server().await, "fulfilment", definition()).await;
    let mut lab = lab.expect("a lab");
    let participants = participants(&lab).await;
    // Events are looked for where their subject has others already.
    for (entity, kind) in [
        ("o-0", "Told"),
        ("o-0", "OrderConfirmed"),
        ("o-2", "Untold"),
        ("o-2", "OrderRejected"),
    ] {
        publish(&lab, entity, kind, "0").await;
    }
    let mut first = lab.worker("a").expect("a worker");
    place(&lab, 0..9).await;
    // No event: it is parked.
    let junk = Publish::new("shop.orders.x.y", "no event");
    let stored = Publisher::new(&lab.nats, 1).publish(junk).await.await;
    stored.expect("stored");
    completed(&lab, 5).await;
    done(&participants, "a charge that waits", |ledger| {
        ledger.held() > 0
    })
    .await;
    let mut second = twice(&lab).await;
    first.kill9();

    // Later the participant's answers to what it was asked on an earlier connection are refused, as its page says. One attempt may be sent
    // more than once (its worker's partitions moved); the second answer to it is refused, and nobody misses it: all came to their end.
    let is_second_answer = |line: &String| {
        line.contains("user:participant") && line.contains("Subject \"_tm.log.shop.fulfilment.")
    };
    let mut refused = lab.server.refused();
    refused.retain(|line| !is_second_answer(line));
    assert!(refused.is_empty(), "{refused:#?}");
    let mut used = Used::default();
    used.read(&lab.server.log());
    let copy = tempfile::tempdir().expect("a folder");
    let earlier = copy.path().join("store");
    lab.server.stop().await.expect("stopped");
    lab.server.copy_store(&earlier).expect("copied");
    lab.server.restart().await.expect("the server again");
    assert!(start(&lab, "by-hand").await);
    settled(&lab, "by-hand").await;

    used.read(&lab.server.log());
    lab.server.kill9();
    let log = lab.contract.resource.log_stream();
    lab.server
        .set_stream_back(&earlier, &log)
        .expect("set back");
    lab.server.restart().await.expect("the server again");
    // What the log no longer knows leaves the lists.
    traced(&lab, "CONSUMER.CREATE.KV_tidemill_summaries").await;
    let known = InstanceRequest {
        id: "by-hand".to_owned(),
    };
    let gone = lab.ask::<serde_json::Value>("describe", &known).await;
    assert!(gone.is_err(), "{gone:?}");
    let cancel = CancelRequest {
        id: "o-8".to_owned(),
        by: "a test".to_owned(),
        why: "to see".to_owned(),
    };
    let accepted: Accepted = lab.ask("cancel", &cancel).await.expect("cancelling");
    assert!(!accepted.message.is_empty());
    participants.release().await.expect("released");
    settled(&lab, "o-8").await;

    let _third = lab.worker("b").expect("a worker");
    second.terminate().expect("SIGTERM");
    second.wait_exit(CAP).await.expect("an end");
    used.everything(&lab).await;
}

fn rows(handlers: &str) -> ProjectionDefinition {
    let mut definition = ProjectionDefinition::new(vec![lab::orders()], "event.subject");
    definition.handlers = serde_json::from_str(handlers).expect("handlers");
    definition
}

/// Waits until the live rows are as many as these, in all key spaces of a definition.
async fn holds(lab: &Lab, key: &str, wanted: &str) {
    let bucket = lab.bucket(&lab.contract.resource.rows_bucket());
    eventually(format!("{key} is {wanted}"), CAP, || async {
        let live = bucket
            .get("live")
            .await
            .map_err(|error| error.to_string())?;
        let live = live.ok_or("nothing is live")?.value;
        let live = String::from_utf8_lossy(&live).into_owned();
        let row = bucket.get(&format!("{live}.{key}")).await;
        let row = row.map_err(|error| error.to_string())?;
        match row.filter(|row| !row.deleted).map(|row| row.value) {
            Some(value) if value == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_projections_list_is_used() {
    let paid =
        r#"[{"type":"Paid","set":{"total":"=event.data.total"}},{"type":"Closed","delete":true}]"#;
    let lab = Lab::projection(server().await, "accounts", rows(paid)).await;
    let mut lab = lab.expect("a lab");
    publish(&lab, "a", "Paid", r#"{"total":1}"#).await;
    let mut first = lab.worker("a").expect("a worker");
    holds(&lab, "a", r#"{"total":1}"#).await;
    // It parks its key, with what follows.
    publish(&lab, "b", "Paid", "{}").await;
    publish(&lab, "b", "Paid", r#"{"total":2}"#).await;
    publish(&lab, "c", "Paid", r#"{"total":3}"#).await;
    publish(&lab, "a", "Closed", "{}").await;
    holds(&lab, "c", r#"{"total":3}"#).await;
    let key = json!({ "key": "b" });
    let first_of_b: Accepted = eventually("b is parked", CAP, || lab.ask("first", &key)).await;
    let skip = json!({ "key": "b", "position": first_of_b.position });
    let _: Accepted = lab.ask("skip", &skip).await.expect("skipped");
    holds(&lab, "b", r#"{"total":2}"#).await;
    let mut second = twice(&lab).await;
    first.kill9();

    let mut used = Used::default();
    used.read(&lab.server.log());
    lab.server.restart().await.expect("the server again");
    publish(&lab, "d", "Paid", r#"{"total":4}"#).await;
    holds(&lab, "d", r#"{"total":4}"#).await;
    second.terminate().expect("SIGTERM");
    second.wait_exit(CAP).await.expect("an end");

    // Another definition, whose rows are folded beside the old ones, by two workers.
    let mut changed = lab.contract.clone();
    if let Workload::Projection(workload) = &mut changed.workload {
        workload.definition = rows(r#"[{"type":"Paid","set":{"sum":"=event.data.total"}}]"#);
    }
    let _third = lab.worker_with("a", &changed, |builder| builder);
    let _fourth = lab.worker_with("b", &changed, |builder| builder);
    holds(&lab, "d", r#"{"sum":4}"#).await;
    used.everything(&lab).await;
}
