//! Several pods of one resource on a real server: who owns what, who answers, what is counted.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::contract::{Connection, Contract};
use tidemill_core::names::{Kind, ResourceId};
use tidemill_nats::provision::{Outcome, StreamPlan, ensure};
use tidemill_nats::{Nats, Publisher, publish};
use tidemill_testbed::nats_server::round_trip;
use tidemill_testbed::{NatsServer, eventually};
use tidemill_worker_runtime::control::{self, Answers, AskError};
use tidemill_worker_runtime::counters::Counters;
use tidemill_worker_runtime::ownership::view::{BEAT_MS, DEAD_MS};
use tidemill_worker_runtime::ownership::{Owned, Ownership, RENEW_MAX, rendezvous};
use tidemill_worker_runtime::{Health, Metrics, WorkerContext};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const CAP: Duration = match cfg!(feature = "planted-bugs") {
    // With a bug planted, most waits are in vain.
    true => Duration::from_secs(12),
    false => Duration::from_secs(60),
};
const PARTITIONS: u16 = 64;

fn resource() -> ResourceId {
    ResourceId::new(Kind::Projection, "shop", "orders")
}

async fn server() -> NatsServer {
    #[cfg(feature = "planted-bugs")]
    tidemill_testbed::planted::plant_as_told().unwrap();
    let server = NatsServer::start().await.unwrap();
    let nats = connect(&server).await;
    for plan in StreamPlan::shared_buckets("abc") {
        assert_eq!(ensure(&nats, &plan).await.unwrap(), Outcome::Created);
    }
    server
}

async fn connect(server: &NatsServer) -> Nats {
    Nats::connect(&Connection::plain(&server.url()), "test")
        .await
        .unwrap()
}

async fn context(server: &NatsServer, pod: &str) -> WorkerContext {
    let contract = json!({
        "version": 1,
        "resource": resource(),
        "connection": Connection::plain(&server.url()),
        "streams": [],
        "workload": { "projection": {
            "definition": { "semantics": 1, "sources": [], "key": "event.subject", "handlers": [] },
            "policy": { "onError": "Park", "maxParkedKeys": 10 },
            "starts": [],
            "rowsBucket": "shop_orders_rows",
            "parkedStream": "shop_orders_projection_parked",
        }},
    });
    WorkerContext {
        contract: Arc::new(Contract::parse(contract.to_string().as_bytes()).unwrap()),
        nats: connect(server).await,
        pod: pod.to_owned(),
        health: Health::new(),
        metrics: Metrics::new(),
        shutdown: CancellationToken::new(),
    }
}

async fn pod(server: &NatsServer, name: &str) -> Ownership {
    let context = context(server, name).await;
    let publisher = Publisher::new(&context.nats, publish::IN_FLIGHT);
    Ownership::start(&context, &publisher, PARTITIONS)
}

/// A pod's name and what it owns.
type Share<'a> = (&'a str, &'a watch::Receiver<Owned>);

/// Waits until each of these pods owns what shall be its own, and nothing else. (That every partition has one owner is true
/// for moments while partitions still move.)
async fn settled(what: &str, pods: &[Share<'_>]) -> Vec<Owned> {
    let names = || pods.iter().map(|(name, _)| *name);
    eventually(what, CAP, async || {
        let shares: Vec<Owned> = pods
            .iter()
            .map(|(_, owned)| owned.borrow().clone())
            .collect();
        let is_there = pods.iter().zip(&shares).all(|((name, _), share)| {
            let wanted = (0..PARTITIONS)
                .filter(|partition| rendezvous::owner(*partition, names()) == Some(name));
            share.keys().copied().eq(wanted)
        });
        let sizes: Vec<usize> = shares.iter().map(BTreeMap::len).collect();
        if is_there {
            Ok(shares)
        } else {
            Err(format!("{sizes:?}"))
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_spread_and_go_over_when_a_pod_dies_or_leaves() {
    let server = server().await;
    let a = pod(&server, "a").await;
    let alone = settled("a alone", &[("a", &a.owned())]).await;
    let (b, c) = (pod(&server, "b").await, pod(&server, "c").await);
    let (of_a, of_b, of_c) = (a.owned(), b.owned(), c.owned());
    let three = settled("three pods", &[("a", &of_a), ("b", &of_b), ("c", &of_c)]).await;
    // What stayed with `a` kept its epoch.
    assert!(
        three[0]
            .iter()
            .all(|(partition, epoch)| alone[0].get(partition) == Some(epoch))
    );

    // Without a good-bye, as by SIGKILL.
    drop(b);
    let two = settled("b's share taken over", &[("a", &of_a), ("c", &of_c)]).await;
    assert!(
        three[0]
            .iter()
            .all(|(partition, epoch)| two[0].get(partition) == Some(epoch))
    );
    assert!(two[0].len() > three[0].len() || two[1].len() > three[2].len());

    // With one.
    c.release().await;
    assert!(of_c.borrow().is_empty());
    settled("c's share handed over", &[("a", &of_a)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_costs_nobody_a_partition() {
    let mut server = server().await;
    let (a, b) = (pod(&server, "a").await, pod(&server, "b").await);
    let (mut of_a, of_b) = (a.owned(), b.owned());
    let before = settled("two pods", &[("a", &of_a), ("b", &of_b)]).await;
    of_a.mark_unchanged();
    let renewed = async |server: &NatsServer| {
        let probe = connect(server).await;
        let bucket = tidemill_nats::KvBucket::new(&Publisher::new(&probe, 1), "tidemill_owners");
        let revision = async |pod: &str| {
            let key = format!("shop.projection.orders.pod.{pod}");
            bucket.get(&key).await.unwrap().unwrap().revision
        };
        let (first, second) = (revision("a").await, revision("b").await);
        // Two beats of each, at least.
        eventually("heartbeats after the outage", CAP, async || {
            let now = (revision("a").await, revision("b").await);
            if now.0 > first + 4 && now.1 > second + 4 {
                Ok(())
            } else {
                Err(format!("{now:?}"))
            }
        })
        .await;
    };
    // Frozen for as long as makes any pod dead (the last heartbeat came up to a beat before). Time itself is the matter: it
    // passes, and nobody may notice. All that could be waited for is that a pod is taken for dead.
    server.sigstop().await.unwrap();
    tokio::time::sleep(Duration::from_millis(DEAD_MS + BEAT_MS)).await;
    server.sigcont().unwrap();
    renewed(&server).await;
    server.kill9();
    server.restart().await.unwrap();
    renewed(&server).await;
    assert_eq!([of_a.borrow().clone(), of_b.borrow().clone()], before[..]);
    assert!(!of_a.has_changed().unwrap(), "partitions moved");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_could_not_renew_for_long_forgets_what_it_holds() {
    let mut server = server().await;
    let context = context(&server, "a").await;
    let publisher = Publisher::new(&context.nats, publish::IN_FLIGHT);
    let renew_max = Duration::from_millis(3 * BEAT_MS);
    let pod = Ownership::start_with(&context, &publisher, PARTITIONS, renew_max);
    let owned = pod.owned();
    let before = settled("alone", &[("a", &owned)]).await;
    server.kill9();
    // Though nobody can have taken anything from it: what was read is to be read anew.
    eventually("it forgets", CAP, async || match owned.borrow().len() {
        0 => Ok(()),
        still => Err(still),
    })
    .await;
    assert!(!context.health.report().ready);
    server.restart().await.unwrap();
    let after = settled("alone again", &[("a", &owned)]).await;
    let is_newer = |(partition, epoch): (&u16, &u64)| before[0][partition] < *epoch;
    assert!(after[0].iter().all(is_newer), "{before:?} {after:?}");
}

/// Workers count on each other's time, and people on what is written.
#[test]
fn owners_forget_when_the_guide_says() {
    let guide = include_str!("../../../docs/guide/operations.md");
    let said = format!("could not renew for {} s forgets", RENEW_MAX.as_secs());
    assert!(guide.contains(&said), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_pod_takes_over_from_its_earlier_self_at_once() {
    let server = server().await;
    let earlier = pod(&server, "a").await;
    let of_earlier = earlier.owned();
    let before = settled("the first process", &[("a", &of_earlier)]).await;
    let later = pod(&server, "a").await;
    let after = settled("the second process", &[("a", &later.owned())]).await;
    assert!(
        after[0]
            .iter()
            .all(|(partition, epoch)| before[0][partition] < *epoch)
    );
    eventually("the first stands by", CAP, async || {
        let owned = of_earlier.borrow().len();
        if owned == 0 { Ok(()) } else { Err(owned) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_reach_the_owner_or_any_pod() {
    let server = server().await;
    let client = connect(&server).await;
    let ask = async |verb: &str, body| control::ask(&client, &resource(), verb, &body, CAP).await;
    let nobody = ask("describe", json!({})).await.unwrap_err();
    assert!(matches!(nobody, AskError::NoWorker(_)), "{nobody}");

    let contexts = [context(&server, "a").await, context(&server, "b").await];
    for context in &contexts {
        let mut requests = control::listen(
            context,
            &[("describe", Answers::Owner), ("list", Answers::Any)],
        )
        .await
        .unwrap();
        let pod = context.pod.clone();
        tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                match request.verb {
                    "describe" if request.body["of"] == json!(pod) => {
                        request.answer(&json!({ "pod": pod })).await
                    }
                    "describe" => drop(request),
                    _ => request.refuse("NotToday", "try tomorrow").await,
                }
            }
        });
        round_trip(&context.nats.client()).await.unwrap();
    }
    for pod in ["a", "b", "b", "a"] {
        assert_eq!(
            ask("describe", json!({ "of": pod })).await.unwrap(),
            json!({ "pod": pod })
        );
    }
    let refused = ask("list", json!({})).await.unwrap_err();
    assert_eq!(refused.to_string(), "try tomorrow (NotToday)");
    let subject = resource().control_subject("_tm", "list");
    for body in ["{", ""] {
        let broken = client.client().request(subject.clone(), body.into()).await;
        let broken = String::from_utf8_lossy(&broken.unwrap().payload).into_owned();
        assert!(broken.contains("\"NotJson\""), "{broken}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_are_written_behind_and_survive_an_outage() {
    let mut server = server().await;
    let context = context(&server, "a").await;
    let publisher = Publisher::new(&context.nats, publish::IN_FLIGHT);
    let counters = Counters::start(&context, &publisher);
    let written = async |partition, wanted: serde_json::Value| {
        eventually("counters", CAP, async || {
            match counters.read(partition).await {
                Ok(Some(value)) if value == wanted => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    };
    counters.set(3, json!({ "started": 1 }));
    written(3, json!({ "started": 1 })).await;
    server.kill9();
    counters.set(3, json!({ "started": 2 }));
    counters.set(4, json!({ "started": 1 }));
    server.restart().await.unwrap();
    written(3, json!({ "started": 2 })).await;
    written(4, json!({ "started": 1 })).await;
}

#[cfg(feature = "planted-bugs")]
#[test]
fn each_planted_bug_of_who_owns_what_is_caught() {
    use tidemill_core::planted::Bug;
    use tidemill_testbed::planted::each_is_caught;
    let caught = [
        (
            Bug::OwnedWithoutClaim,
            "a_restarted_pod_takes_over_from_its_earlier_self_at_once",
        ),
        (
            Bug::OthersTakenForDead,
            "partitions_spread_and_go_over_when_a_pod_dies_or_leaves",
        ),
        (
            Bug::ClaimedAgain,
            "only_the_first_owner_of_all_is_the_first",
        ),
        (
            Bug::NeverForgotten,
            "an_owner_that_could_not_renew_for_long_forgets_what_it_holds",
        ),
    ];
    each_is_caught(&caught, Bug::OF_OWNERSHIP).unwrap();
}

/// Whoever claims what nobody ever had knows that nobody else can be doing its work, and only they do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_first_owner_of_all_is_the_first() {
    let server = server().await;
    let a = pod(&server, "a").await;
    settled("a alone", &[("a", &a.owned())]).await;
    let first = |pod: &Ownership| -> Vec<u16> {
        (0..PARTITIONS)
            .filter(|partition| pod.is_first(*partition))
            .collect()
    };
    assert_eq!(first(&a), (0..PARTITIONS).collect::<Vec<u16>>());
    let b = pod(&server, "b").await;
    let shares = settled("two pods", &[("a", &a.owned()), ("b", &b.owned())]).await;
    assert_eq!(first(&b), Vec::<u16>::new());
    b.release().await;
    settled("a alone again", &[("a", &a.owned())]).await;
    let kept: Vec<u16> = shares[0].keys().copied().collect();
    assert_eq!(first(&a), kept);
}
