//! Whatever a document holds, there is an answer: a plan that the machines take, or problems. `FUZZ_CASES` (default
//! 2,000; CI sets it) says how many documents are tried.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test, also outside of its #[test] functions"
)]

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};
use tidemill_core::envelope::Decoder;
use tidemill_core::projection::Projection;
use tidemill_core::saga::CompiledSaga;
use tidemill_crds::manifest::{self, Plan, Resource};

/// Documents with every field there is.
const DOCUMENTS: [&str; 4] = [
    "
apiVersion: tidemill.dev/v1alpha1
kind: EventStream
metadata: {name: orders, namespace: shop, labels: {a: b}}
spec:
  prefix: shop.orders
  streamName: shop_orders
  description: all orders
  capture: [{subjects: [legacy.*.placed, old.>], format: Json, type: message.data.kind, entity: message.data.id, time: message.data.at}, {subjects: [x]}]
  storage: File
  replicas: 1
  limits: {maxBytes: 10Gi, maxAge: 720h, maxMessages: 1000000, onFull: Reject}
  duplicateWindow: 2m
  maxMessageSize: 64Ki
  maxMessagesPerSubject: 5
  compression: S2
  durability: Standard
  placement: {cluster: a, tags: [b]}
  managementPolicy: Manage
  deletionPolicy: Retain
  adoptionPolicy: Never
  onLoss: Report
  allowedReaders: {namespaces: All}
",
    "
apiVersion: tidemill.dev/v1alpha1
kind: Projection
metadata: {name: order-status, namespace: shop}
spec:
  from: [{stream: {name: orders}, start: {from: Beginning}}, {stream: {name: payments, namespace: other}, start: {position: 5}}]
  key: event.subject
  handlers:
    - {stream: {name: orders}, type: OrderPlaced, when: event.data.total > 0, set: {status: placed, total: =event.data.total, deep: [{a: =row.status}]}}
    - {stream: {name: payments, namespace: other}, key: event.data.order, increment: {payments: 1, sum: =event.data.total}}
  sink: {kv: {bucket: b, replicas: 1, maxBytes: 1Gi, placement: {tags: [x]}}}
  onError: {then: Park, maxParkedKeys: 10000}
  replicas: 1
  suspend: false
",
    "
apiVersion: tidemill.dev/v1alpha1
kind: Saga
metadata: {name: fulfil, namespace: shop}
spec:
  startOn: [{stream: {name: orders}, type: OrderPlaced, when: event.data.total > 0, id: event.subject, start: {time: '2026-01-31T12:00:00Z'}}]
  steps:
    - name: reserve
      request: {subject: inventory.reserve, data: {orderId: =input.data.orderId, channel: web}, allowLongReplies: true}
      compensate: {request: {subject: inventory.release, data: {command: =steps.reserve.commandId}}, timeout: 3s, stepTimeout: 1m, retry: {maxAttempts: 3}}
      timeout: 5s
      stepTimeout: 5m
      retry: {maxAttempts: 5, initialBackoff: 200ms, maxBackoff: 30s}
    - {name: check, after: [], when: has(input.data.gift), http: {url: =input.data.url, method: PUT, headers: [{name: X-A, value: web}], body: {a: =saga.id}}, onUnknown: Park}
    - {name: ship, after: [reserve, check], publish: {stream: {name: orders}, type: Shipped, entity: =input.subject, data: {x: =steps.reserve.output}}, pivot: true}
  onCompleted: [{publish: {stream: {name: orders}, type: Done, entity: =input.subject, data: {t: =steps.ship.commandId}}}]
  onCompensated: [{publish: {stream: {name: orders}, type: Rejected, entity: =input.subject, data: {reason: =failure.reason}}}]
  timeout: 1h
  replies: Relayed
  log: {replicas: 1, streamName: s, maxBytes: 1Gi}
  onDelete: Stop
  partitions: 64
",
    "
apiVersion: tidemill.dev/v1alpha1
kind: Saga
metadata: {name: later}
spec:
  steps:
    - {name: a, command: {subject: x, data: 1, headers: [{name: X-A, valueFrom: {secretKeyRef: {name: a, key: b}}}]}}
    - {name: b, wait: {event: {stream: {name: orders}, type: Paid, when: event.subject == input.subject}}}
    - {name: c, sleep: {duration: 5m}}
  retention: {finished: 24h, maxFinished: 10}
  natsRef: {name: other}
",
];

/// A change: which node, what is done to it, and with which value or field.
type Change = (u16, u8, u16);

static VALUES: LazyLock<Vec<Value>> = LazyLock::new(values);

fn values() -> Vec<Value> {
    let texts = [
        "",
        " ",
        "=",
        "==",
        "=event.data",
        "='x'",
        "event.data",
        "event",
        "steps.reserve.output",
        "=steps.reserve.output.id",
        "=steps.nobody.output",
        "=steps",
        "failure.reason",
        "=row.a",
        "row",
        "reserve",
        "ship",
        "orders",
        "payments",
        "shop",
        "File",
        "Memory",
        "Json",
        "Park",
        "New",
        "Beginning",
        "1h",
        "0s",
        "999999h999999h",
        "10Gi",
        "0",
        "a.>",
        "*",
        ">",
        "_tm.x",
        "$JS",
        "a..b",
        "http://x/",
        "ftp://x",
        "é😀",
        "\u{0}",
        "a b",
        "]][[",
        "2026-01-31T12:00:00Z",
        "9999-99-99T99:99:99Z",
        "name",
        "request",
        "when",
        "all",
        "Ünïcode.é",
        "has(",
        "[1,2].map(x, x)",
    ];
    let mut values: Vec<Value> = texts.iter().map(|text| json!(text)).collect();
    values.extend([
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1),
        json!(64),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e300),
        json!(0.5),
    ]);
    values.extend([
        json!([]),
        json!({}),
        json!([null]),
        json!({"": {}}),
        json!({"name": "x"}),
        json!([[[[1]]]]),
        json!({"from": "New"}),
        json!("x".repeat(5000)),
        json!(vec![1; 300]),
    ]);
    let mut deep = json!(1);
    for _ in 0..90 {
        deep = json!({"d": deep});
    }
    values.push(deep);
    values
}

fn nodes(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(nodes).sum(),
        Value::Object(fields) => fields.values().map(nodes).sum(),
        _ => 0,
    }
}

/// The `at`-th node in the order of the document.
fn node<'a>(value: &'a mut Value, at: &mut usize) -> Option<&'a mut Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| node(item, at)),
        Value::Object(fields) => fields.values_mut().find_map(|field| node(field, at)),
        _ => None,
    }
}

fn change(document: &mut Value, (at, what, with): Change, values: &[Value]) {
    let count = nodes(document);
    let pick = |index: u16| values[usize::from(index) % values.len()].clone();
    let mut elsewhere = usize::from(with) % count;
    let copy = node(document, &mut elsewhere)
        .map(|node| node.clone())
        .unwrap_or_default();
    let mut at = usize::from(at) % count;
    let Some(target) = node(document, &mut at) else {
        return;
    };
    match (what % 6, target) {
        (0 | 1, target) => *target = pick(with),
        (2, target) if nodes(&copy) < 60 => *target = copy,
        (3, Value::Array(items)) => {
            let index = usize::from(with) % items.len().max(1);
            if with % 2 == 0 {
                items.extend(items.get(index).cloned());
            } else if index < items.len() {
                items.remove(index);
            }
        }
        (3 | 4, Value::Object(fields)) => {
            let key = fields
                .keys()
                .nth(usize::from(with) % fields.len().max(1))
                .cloned();
            drop(key.and_then(|key| fields.remove(&key)));
        }
        (5, Value::Object(fields)) => {
            let name = pick(with).as_str().unwrap_or("when").to_owned();
            fields.insert(name, copy);
        }
        _ => {}
    }
}

fn config() -> ProptestConfig {
    let cases = std::env::var("FUZZ_CASES").ok();
    let cases: Option<u32> = cases.and_then(|cases| cases.parse().ok());
    let kinds = u32::try_from(DOCUMENTS.len()).unwrap();
    ProptestConfig {
        cases: cases.unwrap_or(2_000).div_ceil(kinds),
        failure_persistence: None,
        // The default one takes a third of the time without optimisation.
        rng_algorithm: prop::test_runner::RngAlgorithm::XorShift,
        ..ProptestConfig::default()
    }
}

fn changed(which: usize, changes: Vec<Change>) -> Value {
    static PARSED: LazyLock<Vec<Value>> = LazyLock::new(|| {
        DOCUMENTS
            .iter()
            .map(|document| serde_saphyr::from_str(document).unwrap())
            .collect()
    });
    let mut document = PARSED[which].clone();
    for one in changes {
        change(&mut document, one, &VALUES);
    }
    document
}

/// What is accepted here must never be refused by a worker.
fn taken_by_the_machines(plan: Plan) -> Result<(), TestCaseError> {
    let refused = match plan {
        Plan::EventStream(plan) => Decoder::new(&plan.binding)
            .err()
            .map(|error| error.to_string()),
        Plan::Projection(plan) => Projection::compile(&plan.definition)
            .err()
            .map(|error| error.to_string()),
        Plan::Saga(plan) => CompiledSaga::new(plan.resource, plan.definition)
            .err()
            .map(|error| error.to_string()),
    };
    refused.map_or(Ok(()), |error| Err(TestCaseError::fail(error)))
}

fn spec<T: serde::de::DeserializeOwned>(document: &Value) -> Option<T> {
    serde_json::from_value(document.clone()).ok()
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec(any::<Change>(), 0..8)
}

/// The check of the schema takes a hundred times as long as compiling, since its rules compile their regular expressions each
/// time, and it leaves little for the compiler to refuse: so most documents go to the compiler at once.
fn whole() -> impl Strategy<Value = bool> {
    (0..100).prop_map(|chance| chance == 0)
}

fn check(which: usize, changes: Vec<Change>, whole: bool) -> Result<(), TestCaseError> {
    let document = changed(which, changes);
    let resource = match which {
        0 => spec(&document).map(|resource| Resource::EventStream(Box::new(resource))),
        1 => spec(&document).map(|resource| Resource::Projection(Box::new(resource))),
        _ => spec(&document).map(|resource| Resource::Saga(Box::new(resource))),
    };
    if let Some(report) = resource.map(|resource| resource.compile()) {
        prop_assert_eq!(report.plan.is_some(), report.errors.is_empty());
        let mut problems = report.errors.iter().chain(&report.warnings);
        prop_assert!(problems.all(|problem| !problem.message.is_empty()));
        report.plan.map_or(Ok(()), taken_by_the_machines)?;
    }
    if whole {
        let report = manifest::lint(&document);
        prop_assert_eq!(report.plan.is_some(), report.errors.is_empty());
        let read =
            manifest::read(&document).is_ok_and(|resource| resource.compile().plan.is_some());
        prop_assert_eq!(
            read,
            report.plan.is_some(),
            "lint says what read and compile say: {:?}",
            report.errors
        );
        report.plan.map_or(Ok(()), taken_by_the_machines)?;
    }
    Ok(())
}

// One test per document, so that they run beside each other.
proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_event_stream_has_a_plan_or_problems(changes in changes(), whole in whole()) {
        check(0, changes, whole)?;
    }

    #[test]
    fn every_projection_has_a_plan_or_problems(changes in changes(), whole in whole()) {
        check(1, changes, whole)?;
    }

    #[test]
    fn every_saga_has_a_plan_or_problems(changes in changes(), whole in whole()) {
        check(2, changes, whole)?;
    }

    #[test]
    fn every_saga_with_fields_of_later_has_a_plan_or_problems(changes in changes(), whole in whole()) {
        check(3, changes, whole)?;
    }
}

#[test]
fn the_documents_hold_what_is_run_and_what_is_not_yet() {
    let accepted: Vec<bool> = DOCUMENTS
        .iter()
        .map(|document| {
            manifest::lint(&serde_saphyr::from_str(document).unwrap())
                .errors
                .is_empty()
        })
        .collect();
    assert_eq!(accepted, [true, true, true, false]);
}
