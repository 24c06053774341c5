//! A projection under load while the server and its workers die, freeze, come and go: rows and figures are exactly those of
//! the events.

use anyhow::{Result, anyhow};
use futures::future::join;
use std::collections::BTreeMap;
use std::ops::Range;
use tidemill_core::definition::ProjectionDefinition;
use tidemill_core::names::{COUNTERS_BUCKET, decode_token};
use tidemill_core::status::ProjectionCounters;
use tidemill_nats::{Publish, Publisher};
use tidemill_testbed::fulfilment::CAP;
use tidemill_testbed::{Lab, NatsServer, eventually};

/// Accounts that the events are about.
const ACCOUNTS: usize = 400;
/// Events that a worker has to catch up with.
const BEHIND: usize = 20_000;
const ROWS: &str = "KV_shop_accounts_rows";

fn definition() -> ProjectionDefinition {
    let handlers = r#"[
        {"type":"Paid","increment":{"count":1,"sum":"=event.data.amount"},"set":{"last":"=event.data.number"}},
        {"type":"Paid","key":"'region ' + event.data.region","increment":{"count":1,"sum":"=event.data.amount"}},
        {"type":"Closed","delete":true}
    ]"#;
    let mut definition =
        ProjectionDefinition::new(vec![tidemill_testbed::lab::orders()], "event.subject");
    definition.handlers = serde_json::from_str(handlers).expect("handlers");
    definition
}

async fn lab() -> Lab {
    let server = NatsServer::builder().refuse_strangers().start().await;
    let server = server.expect("a server");
    let lab = Lab::projection(server, "accounts", definition()).await;
    lab.expect("a lab")
}

/// One of seven closes its account, one of eleven means nothing to the projection.
fn kind(number: usize) -> &'static str {
    match number {
        number if number % 11 == 10 => "Seen",
        number if number % 7 == 6 => "Closed",
        _ => "Paid",
    }
}

/// Scattered over all accounts, the same ones again and again.
fn account(number: usize) -> usize {
    number * 7919 % ACCOUNTS
}

fn cents(number: usize) -> usize {
    number % 997 + 1
}

fn event(number: usize) -> Publish {
    let (account, cents) = (account(number), cents(number));
    let data = format!(
        "{{\"number\":{number},\"amount\":{}.{:02},\"region\":\"r{}\"}}",
        cents / 100,
        cents % 100,
        account % 5
    );
    let mut message = Publish::new(format!("shop.orders.a-{account}.{}", kind(number)), data);
    let id = format!("e-{number}");
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-source", "/test"),
        ("ce-type", kind(number)),
        ("ce-id", &id),
        ("ce-subject", &format!("a-{account}")),
    ] {
        message.headers.insert(name, value);
    }
    message.message_id = Some(id);
    message
}

/// Publishes these in order; the server must stay. Order matters: deletes and `last` don't commute.
async fn publish(lab: &Lab, numbers: Range<usize>) {
    let publisher = Publisher::new(&lab.nats, 512);
    let mut acks = Vec::new();
    for number in numbers {
        acks.push((number, publisher.publish(event(number)).await));
    }
    for (number, ack) in acks {
        let stored = ack.await;
        assert!(stored.is_ok(), "event {number}: {stored:?}");
    }
}

/// What the projection must hold after events `0..events`, counted without it: count, cents and last number by key.
#[derive(Default)]
struct Expected {
    count: usize,
    cents: usize,
    last: Option<usize>,
}

fn expected(events: usize) -> BTreeMap<String, serde_json::Value> {
    let mut rows: BTreeMap<String, Expected> = BTreeMap::new();
    for number in 0..events {
        let account = account(number);
        let key = format!("a-{account}");
        match kind(number) {
            "Closed" => {
                rows.remove(&key);
            }
            "Paid" => {
                for key in [key, format!("region r{}", account % 5)] {
                    let row = rows.entry(key.clone()).or_default();
                    row.count += 1;
                    row.cents += cents(number);
                    row.last = key.starts_with("a-").then_some(number);
                }
            }
            _ => {}
        }
    }
    let json = |row: Expected| match row.last {
        Some(last) => serde_json::json!([row.count, row.cents, last]),
        None => serde_json::json!([row.count, row.cents]),
    };
    rows.into_iter()
        .map(|(key, row)| (key, json(row)))
        .collect()
}

/// The rows that readers see, in the same form.
async fn rows(lab: &Lab) -> Result<BTreeMap<String, serde_json::Value>> {
    let bucket = lab.bucket(&lab.contract.resource.rows_bucket());
    let live = bucket
        .get("live")
        .await?
        .ok_or_else(|| anyhow!("nothing is live"))?;
    let live = String::from_utf8(live.value.to_vec())?;
    let mut rows = BTreeMap::new();
    for (key, entry) in bucket.entries(&live).await? {
        let token = key.strip_prefix(&format!("{live}.")).unwrap_or_default();
        let Ok(key) = decode_token(token) else {
            continue; // a checkpoint
        };
        if entry.deleted || token.starts_with("_.") {
            continue;
        }
        let row: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&entry.value)?;
        rows.insert(key, in_cents(&row)?);
    }
    Ok(rows)
}

fn in_cents(row: &BTreeMap<String, serde_json::Value>) -> Result<serde_json::Value> {
    let sum = row.get("sum").map(ToString::to_string).unwrap_or_default();
    let (whole, part) = sum.split_once('.').unwrap_or((&sum, "0"));
    let cents = whole.parse::<usize>()? * 100 + format!("{part:0<2}").parse::<usize>()?;
    let count = row.get("count").ok_or_else(|| anyhow!("no count"))?;
    Ok(match row.get("last") {
        Some(last) => serde_json::json!([count, cents, last]),
        None => serde_json::json!([count, cents]),
    })
}

async fn counters(lab: &Lab) -> Result<ProjectionCounters> {
    let prefix = lab.contract.resource.key_prefix();
    let mut sum = ProjectionCounters::default();
    for entry in lab.bucket(COUNTERS_BUCKET).entries(&prefix).await?.values() {
        let one: ProjectionCounters = serde_json::from_slice(&entry.value)?;
        sum.seen += one.seen;
        sum.matched += one.matched;
        sum.skipped += one.skipped;
        sum.left_out += one.left_out;
        sum.parked_keys += one.parked_keys;
    }
    Ok(sum)
}

/// Waits until every event is folded, then compares everything exactly.
async fn check(lab: &Lab, events: usize) {
    let counters = eventually("every event counted", CAP, || async {
        match counters(lab).await? {
            counters if counters.seen >= events as u64 => Ok(counters),
            counters => Err(anyhow!("{counters:?}")),
        }
    })
    .await;
    let of = |wanted| (0..events).filter(|number| kind(*number) == wanted).count();
    let skipped = of("Seen");
    assert_eq!(
        (
            counters.seen,
            counters.matched,
            counters.skipped,
            counters.left_out,
            counters.parked_keys
        ),
        (
            events as u64,
            (events - skipped) as u64,
            skipped as u64,
            0,
            0
        ),
        "{counters:?}"
    );
    let rows = eventually("rows for readers", CAP, || rows(lab)).await;
    let expected = expected(events);
    let wrong: Vec<_> = expected
        .iter()
        .filter(|(key, row)| rows.get(*key) != Some(row))
        .map(|(key, row)| format!("{key}: {:?} instead of {row}", rows.get(key)))
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {}: {:?}",
        wrong.len(),
        expected.len(),
        wrong.first()
    );
    let more: Vec<_> = rows
        .keys()
        .filter(|key| !expected.contains_key(*key))
        .collect();
    assert!(more.is_empty(), "{more:?}");
}

/// Waits until so many writes to the rows bucket are stored.
async fn written(lab: &Lab, count: u64) {
    eventually(format!("{count} writes"), CAP, || async {
        match lab.nats.stream_state(ROWS).await? {
            state if state.last >= count => Ok(()),
            state => Err(anyhow!("{}", state.last)),
        }
    })
    .await;
}

async fn last_write(lab: &Lab) -> u64 {
    let state = lab.nats.stream_state(ROWS).await;
    state.expect("the rows bucket").last
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_in_mid_catch_up_folds_nothing_twice() {
    let lab = lab().await;
    for round in 0..4 {
        let (begin, end) = (round * BEHIND, (round + 1) * BEHIND);
        publish(&lab, begin..end).await;
        let before = last_write(&lab).await;
        let mut worker = lab.worker("a").expect("a worker");
        // The first rows of this round are there; its checkpoints come later.
        written(&lab, before + 50).await;
        worker.kill9();
    }
    let _worker = lab.worker("a").expect("a worker");
    check(&lab, 4 * BEHIND).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_costs_nothing_but_time() {
    let mut lab = lab().await;
    let mut worker = lab.worker("a").expect("a worker");
    for round in 0..3 {
        let (begin, end) = (round * BEHIND, (round + 1) * BEHIND);
        let before = last_write(&lab).await;
        publish(&lab, begin..end).await;
        written(&lab, before + 50).await;
        lab.server.kill9();
        lab.server.restart().await.expect("the server again");
        lab.nats = tidemill_nats::Nats::connect(&lab.contract.connection, "lab")
            .await
            .expect("connected");
    }
    check(&lab, 3 * BEHIND).await;
    assert!(worker.ended().is_none(), "{}", worker.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_worker_that_goes_on_beside_its_successor_overwrites_nothing() {
    let lab = lab().await;
    publish(&lab, 0..BEHIND).await;
    let mut frozen = lab.worker("a").expect("a worker");
    written(&lab, 50).await;
    frozen.sigstop().await.expect("frozen");
    let _successor = lab.worker("b").expect("a worker");
    // Nothing but a successor can bring this about.
    check(&lab, BEHIND).await;
    // Both believe that they are the owner now, one with rows of long ago, and both have work.
    let going_on = async { frozen.sigcont().expect("it goes on") };
    join(publish(&lab, BEHIND..2 * BEHIND), going_on).await;
    check(&lab, 2 * BEHIND).await;
    assert!(frozen.ended().is_none(), "{}", frozen.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_handed_over_while_events_come() {
    let lab = lab().await;
    let mut leaves = lab.worker("a").expect("a worker");
    publish(&lab, 0..BEHIND).await;
    written(&lab, 50).await;
    let _stays = lab.worker("b").expect("a worker");
    publish(&lab, BEHIND..2 * BEHIND).await;
    leaves.terminate().expect("SIGTERM");
    publish(&lab, 2 * BEHIND..3 * BEHIND).await;
    check(&lab, 3 * BEHIND).await;
    let end = leaves.wait_exit(CAP).await.expect("an end");
    assert!(end.success(), "{}", leaves.stderr());
}
