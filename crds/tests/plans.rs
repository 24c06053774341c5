//! What specs come to: definitions, revisions, and what holds over several resources.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test, also outside of its #[test] functions"
)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::{document, plan};
use serde_json::Value;
use tidemill_core::contract::{CONTRACT_VERSION, Connection, Contract};
use tidemill_core::definition::StreamRef;
use tidemill_crds::ResourceKind::{self, EventStream as E, Projection as P, Saga as S};
use tidemill_crds::compile::together::{
    Streams, bind_projection, bind_saga, conflicts, name_conflicts,
};
use tidemill_crds::compile::{EventStreamPlan, ProjectionPlan, SagaPlan};
use tidemill_crds::manifest::{self, Plan};

fn stream(snippet: &str) -> EventStreamPlan {
    match plan(E, snippet) {
        Plan::EventStream(plan) => *plan,
        other => panic!("{other:?}"),
    }
}

fn projection(snippet: &str) -> ProjectionPlan {
    match plan(P, snippet) {
        Plan::Projection(plan) => *plan,
        other => panic!("{other:?}"),
    }
}

fn saga(snippet: &str) -> SagaPlan {
    match plan(S, snippet) {
        Plan::Saga(plan) => *plan,
        other => panic!("{other:?}"),
    }
}

fn revision(kind: ResourceKind, snippet: &str) -> String {
    match plan(kind, snippet) {
        Plan::Projection(plan) => plan.revision.to_string(),
        Plan::Saga(plan) => plan.revision.to_string(),
        Plan::EventStream(_) => panic!("an EventStream has no revision"),
    }
}

/// Every YAML file below a folder, in the order of their names.
fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files.extend(yaml_files(&path));
        } else if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            files.push(path);
        }
    }
    files
}

/// The resources of the order example.
fn orders() -> (Streams, Vec<Plan>) {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../k8s/examples/orders/manifests");
    let mut streams = Streams::new();
    let mut plans = Vec::new();
    for file in yaml_files(&examples) {
        let text = std::fs::read_to_string(&file).unwrap();
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        for document in documents
            .iter()
            .filter(|document| manifest::is_ours(document))
        {
            let report = manifest::lint(document);
            assert!(
                report.warnings.is_empty(),
                "{}: {:#?}",
                file.display(),
                report.warnings
            );
            match report
                .plan
                .unwrap_or_else(|| panic!("{}: {:#?}", file.display(), report.errors))
            {
                Plan::EventStream(plan) => drop(streams.insert(plan.stream.clone(), *plan)),
                plan => plans.push(plan),
            }
        }
    }
    (streams, plans)
}

#[test]
fn the_order_example_comes_to_these_definitions() {
    let (streams, plans) = orders();
    let mut written = String::new();
    for stream in streams.values() {
        written.push_str(&format!("{:#?}\n", stream.settings));
    }
    for plan in &plans {
        let (revision, workload) = match plan {
            Plan::Projection(plan) => (&plan.revision, plan.workload()),
            Plan::Saga(plan) => (&plan.revision, plan.workload()),
            Plan::EventStream(_) => continue,
        };
        let json = serde_json::to_string_pretty(&workload).unwrap();
        written.push_str(&format!("revision {revision}\n{json}\n"));
    }
    insta::with_settings!({omit_expression => true}, { insta::assert_snapshot!(written) });
}

#[test]
fn what_is_compiled_here_is_what_the_machines_and_workers_take() {
    let (streams, plans) = orders();
    assert!(conflicts(&streams).is_empty());
    for plan in &plans {
        let (resource, workload, streams) = match plan {
            Plan::Projection(plan) => {
                tidemill_core::projection::Projection::compile(&plan.definition).unwrap();
                (
                    plan.resource.clone(),
                    plan.workload(),
                    bind_projection(plan, &streams, None).unwrap(),
                )
            }
            Plan::Saga(plan) => {
                tidemill_core::saga::CompiledSaga::new(
                    plan.resource.clone(),
                    plan.definition.clone(),
                )
                .unwrap();
                (
                    plan.resource.clone(),
                    plan.workload(),
                    bind_saga(plan, &streams, None).unwrap(),
                )
            }
            Plan::EventStream(_) => continue,
        };
        let connection = Connection::plain("nats://127.0.0.1:4222");
        let contract = Contract {
            version: CONTRACT_VERSION,
            resource,
            connection,
            streams,
            workload,
        };
        assert_eq!(
            Contract::parse(contract.to_json().as_bytes()).unwrap(),
            contract
        );
    }
}

#[test]
fn a_revision_is_the_meaning_and_nothing_else() {
    let step = "name: a, request: {subject: x}";
    let same = [
        (P, "", "key: event.subject".to_owned()),
        (P, "", "{replicas: 5, suspend: true, onError: {then: Skip}}".to_owned()),
        (P, "", "from: [{stream: {name: orders, namespace: shop}, start: {from: New}}]".to_owned()),
        (P, "", "sink: {kv: {maxBytes: 1Gi, replicas: 3}}".to_owned()),
        (P, "handlers: [{set: {a: 1, b: 2}}]", "handlers: [{delete: false, set: {b: 2, a: 1}}]".to_owned()),
        (S, &format!("steps: [{{{step}}}]"), format!("steps: [{{{step}, after: [], timeout: 5000ms, stepTimeout: 300s, pivot: false, onUnknown: Compensate}}]")),
        (S, &format!("steps: [{{{step}}}]"), format!("{{steps: [{{{step}, retry: {{maxAttempts: 5, initialBackoff: 200ms, maxBackoff: 30s}}}}], timeout: 60m, replies: Direct}}")),
        (S, &format!("steps: [{{{step}}}]"), format!("{{steps: [{{{step}}}], replicas: 3, partitions: 8, onDelete: Stop, log: {{replicas: 3}}, suspend: true}}")),
        (S, "steps: [{name: a, request: {subject: x}}, {name: b, request: {subject: x}}, {name: c, after: [a, b], request: {subject: x}}]", "steps: [{name: a, request: {subject: x}}, {name: b, after: [a], request: {subject: x}}, {name: c, after: [b, a], request: {subject: x}}]".to_owned()),
        (S, "startOn: [{stream: {name: orders}, id: event.id}]", "startOn: [{stream: {name: orders}, id: event.id, start: {from: Beginning}}]".to_owned()),
    ];
    for (kind, left, right) in same {
        assert_eq!(
            revision(kind, left),
            revision(kind, &right),
            "{left} = {right}"
        );
    }
    let different = [
        (P, "", "key: event.id"),
        (P, "", "handlers: [{set: {status: placed2}}]"),
        (P, "", "handlers: [{type: A, set: {status: placed}}]"),
        (P, "", "from: [{stream: {name: other}}]"),
        (
            P,
            "handlers: [{set: {a: 1}}]",
            "handlers: [{set: {a: 1.0}}]",
        ),
        (
            P,
            "handlers: [{set: {a: 1}}, {set: {b: 1}}]",
            "handlers: [{set: {b: 1}}, {set: {a: 1}}]",
        ),
        (S, "", "timeout: 2h"),
        (S, "", "replies: Relayed"),
        (
            S,
            "",
            "steps: [{name: reserve, request: {subject: inventory.reserve}, timeout: 6s}]",
        ),
        (
            S,
            "",
            "steps: [{name: reserve, request: {subject: inventory.reserve, data: {}}}]",
        ),
        (
            S,
            "",
            "steps: [{name: reserve, request: {subject: inventory.reserve}, pivot: true}]",
        ),
    ];
    for (kind, left, right) in different {
        assert_ne!(
            revision(kind, left),
            revision(kind, right),
            "{left} / {right}"
        );
    }
}

#[test]
fn a_backoff_or_timeout_that_is_not_given_gives_way_to_the_one_that_is() {
    let retry = |snippet: &str| {
        let step = format!("steps: [{{name: a, request: {{subject: x}}{snippet}}}]");
        let retry = saga(&step).definition.steps.first().unwrap().retry;
        (
            retry.max_attempts,
            retry.initial_backoff_ms,
            retry.max_backoff_ms,
        )
    };
    assert_eq!(retry(""), (5, 200, 30_000));
    assert_eq!(retry(", retry: {initialBackoff: 1m}"), (5, 60_000, 60_000));
    assert_eq!(
        retry(", retry: {maxBackoff: 50ms, maxAttempts: 2}"),
        (2, 50, 50)
    );
    let timeouts = |fields: &str| {
        let plan = saga(&format!(
            "steps: [{{name: a, request: {{subject: x, allowLongReplies: true}}{fields}}}]"
        ));
        let step = plan.definition.steps.first().unwrap().clone();
        (step.timeout_ms, step.step_timeout_ms)
    };
    assert_eq!(timeouts(""), (5_000, 300_000));
    assert_eq!(timeouts(", timeout: 10m"), (600_000, 600_000));
    assert_eq!(timeouts(", stepTimeout: 2s"), (2_000, 2_000));
    assert_eq!(
        stream("limits: {maxAge: 1m}").settings.duplicate_window_ms,
        60_000
    );
    assert_eq!(
        stream("limits: {maxAge: 1h}").settings.duplicate_window_ms,
        120_000
    );
}

#[test]
fn entries_of_one_stream_share_a_start() {
    let starts = |snippet: &str| format!("{:?}", saga(snippet).starts);
    let a = "stream: {name: a}, id: event.id";
    let b = "stream: {name: b}, id: event.id";
    assert_eq!(
        starts(&format!(
            "startOn: [{{{a}, type: X}}, {{{a}, type: Z, start: {{position: 7}}}}, {{{b}}}]"
        )),
        "[Position(7), New]"
    );
    assert_eq!(starts(""), "[]");
}

#[test]
fn names_can_be_chosen() {
    assert_eq!(stream("").settings.name, "shop_orders");
    assert_eq!(stream("").settings.subjects, ["shop.orders.>"]);
    let chosen = stream("{streamName: X, prefix: a.b, capture: [{subjects: [c.*]}]}");
    assert_eq!(
        (
            chosen.settings.name.as_str(),
            chosen.binding.name.as_str(),
            chosen.binding.prefix.as_str()
        ),
        ("X", "X", "a.b")
    );
    assert_eq!(chosen.settings.subjects, ["a.b.>", "c.*"]);
    assert_eq!(projection("").rows.name, "shop_orders_rows");
    assert_eq!(projection("sink: {kv: {bucket: mine}}").rows.name, "mine");
    assert_eq!(saga("").log.name, "shop_orders_log");
    assert_eq!(saga("log: {streamName: mine}").log.name, "mine");
}

/// EventStreams, each given as `namespace/name` and a snippet.
fn streams(given: &[(&str, &str)]) -> Streams {
    let plans = given.iter().map(|(id, snippet)| {
        let (namespace, name) = id.split_once('/').unwrap();
        let mut document = document(E, snippet);
        document["metadata"]["name"] = name.into();
        document["metadata"]["namespace"] = namespace.into();
        match manifest::lint(&document).plan {
            Some(Plan::EventStream(plan)) => (plan.stream.clone(), *plan),
            other => panic!("{other:?}"),
        }
    });
    plans.collect::<BTreeMap<StreamRef, EventStreamPlan>>()
}

#[test]
fn streams_that_a_definition_names_must_be_there_and_open_to_it() {
    let bind = |given: &[(&str, &str)], snippet: &str| match bind_saga(
        &saga(snippet),
        &streams(given),
        None,
    ) {
        Ok(bindings) => bindings
            .iter()
            .map(|binding| binding.name.clone())
            .collect::<Vec<_>>()
            .join(" "),
        Err(problems) => problems
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n"),
    };
    let reads = "startOn: [{stream: {name: orders}, id: event.id}]";
    let elsewhere = "startOn: [{stream: {name: orders, namespace: other}, id: event.id}]";
    let publishes =
        "onCompleted: [{publish: {stream: {name: orders}, type: Done, entity: =input.subject}}]";
    for (given, snippet, expected) in [
        (&[("shop/orders", "")][..], reads, "shop_orders"),
        (
            &[],
            reads,
            "spec.startOn[0].stream: there is no EventStream shop/orders; apply it, or mend the name",
        ),
        (
            &[("shop/order", "")],
            reads,
            "spec.startOn[0].stream: there is no EventStream shop/orders; did you mean `order`?",
        ),
        (
            &[("shop/payments", "")],
            reads,
            "spec.startOn[0].stream: there is no EventStream shop/orders; known here: payments",
        ),
        (
            &[("other/orders", "")],
            reads,
            "spec.startOn[0].stream: there is no EventStream shop/orders; namespace other has one: name it too",
        ),
        (
            &[("other/orders", "")],
            elsewhere,
            "spec.startOn[0].stream: EventStream other/orders is open to its own namespace only: set allowedReaders: {namespaces: All} on it, or use a stream of namespace shop",
        ),
        (
            &[("other/orders", "allowedReaders: {namespaces: All}")],
            elsewhere,
            "other_orders",
        ),
        (&[("shop/orders", "")], publishes, "shop_orders"),
        (
            &[("shop/orders", "maxMessagesPerSubject: 1")],
            publishes,
            "spec.onCompleted[0].publish.stream: EventStream shop/orders keeps maxMessagesPerSubject events of each kind, so it couldn't be told whether an event was published already: remove that limit, or publish to another stream",
        ),
        (
            &[("shop/orders", "maxMessagesPerSubject: 1")],
            reads,
            "shop_orders",
        ),
        (
            &[("shop/legacy", "capture: [{subjects: [inventory.>]}]")],
            "",
            "spec.steps[0].request.subject: EventStream shop/legacy takes in `inventory.reserve`, so the server would answer each request in place of the participant: use a subject outside of its subjects",
        ),
    ] {
        assert_eq!(bind(given, snippet), expected, "{given:?} {snippet}");
    }
    let problems = bind_projection(&projection(""), &streams(&[]), None).unwrap_err();
    assert_eq!(problems.len(), 1);
}

#[test]
fn streams_that_claim_the_same_are_told() {
    let told = |given: &[(&str, &str)]| {
        let told = conflicts(&streams(given));
        told.iter()
            .map(|conflict| format!("{}: {}", conflict.stream, conflict.problem))
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(told(&[("a/x", ""), ("a/y", ""), ("b/x", "")]), "");
    assert_eq!(
        told(&[("a/x", "prefix: p"), ("b/y", "prefix: p.q")]),
        "b/y: spec.prefix: `p.q.>` overlaps `p.>` of EventStream a/x: a message can be kept by one stream only"
    );
    assert_eq!(
        told(&[("a/x", ""), ("b/y", "capture: [{subjects: [c, a.x.y]}]")]),
        "b/y: spec.capture[0].subjects[1]: `a.x.y` overlaps `a.x.>` of EventStream a/x: a message can be kept by one stream only"
    );
}

#[test]
fn names_that_two_have_are_told() {
    let told = |given: &[(ResourceKind, &str, &str)]| {
        let plans: Vec<Plan> = given
            .iter()
            .map(|(kind, name, snippet)| {
                let mut document = document(*kind, snippet);
                document["metadata"]["name"] = (*name).into();
                let report = manifest::lint(&document);
                report.plan.unwrap_or_else(|| panic!("{:?}", report.errors))
            })
            .collect();
        let told = name_conflicts(&plans.iter().collect::<Vec<_>>());
        told.iter()
            .map(|conflict| format!("{}: {}", conflict.index, conflict.problem))
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(told(&[(E, "a", ""), (P, "a", ""), (S, "a", "")]), "");
    for (given, expected) in [
        (
            &[(E, "a", "streamName: s"), (E, "b", "streamName: s")][..],
            "1: spec.streamName: EventStream shop/a has as its stream the JetStream stream `s` too: give this one another name",
        ),
        // The one with the chosen name is at fault, wherever it stands.
        (
            &[(E, "a", "streamName: shop_b_log"), (S, "b", "")],
            "0: spec.streamName: Saga shop/b has as its log the JetStream stream `shop_b_log` too: give this one another name",
        ),
        (
            &[(P, "p", ""), (E, "a", "streamName: KV_shop_p_rows")],
            "1: spec.streamName: Projection shop/p has as its rows the JetStream stream `KV_shop_p_rows` too: give this one another name",
        ),
        (
            &[(E, "a", "streamName: KV_tidemill_owners")],
            "0: spec.streamName: every worker keeps its state in the JetStream stream `KV_tidemill_owners` too: give this one another name",
        ),
        (
            &[(S, "a", "log: {streamName: shop_b_log}"), (S, "b", "")],
            "0: spec.log.streamName: Saga shop/b has as its log the JetStream stream `shop_b_log` too: give this one another name",
        ),
        (
            &[(S, "a", "log: {streamName: shop_a_saga_parked}")],
            "0: spec.log.streamName: Saga shop/a has as its parked events the JetStream stream `shop_a_saga_parked` too: give this one another name",
        ),
        (
            &[
                (P, "p", ""),
                (P, "q", "sink: {kv: {bucket: shop_p_rows}}"),
                (P, "r", "sink: {kv: {bucket: tidemill_counters}}"),
            ],
            "1: spec.sink.kv.bucket: Projection shop/p has as its rows the JetStream stream `KV_shop_p_rows` too: give this one another name\n\
             2: spec.sink.kv.bucket: every worker keeps its state in the JetStream stream `KV_tidemill_counters` too: give this one another name",
        ),
    ] {
        assert_eq!(told(given), expected, "{given:?}");
    }
}

#[test]
fn documents_of_other_kinds_and_versions_are_told_apart() {
    let said = |path: &str, value: Option<&str>| {
        let mut document = document(E, "");
        match value {
            Some(value) => document[path] = value.into(),
            None => drop(document.as_object_mut().unwrap().remove(path)),
        }
        let errors = manifest::lint(&document).errors;
        errors
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(
        said("kind", Some("Sage")),
        "kind: kind `Sage` is unknown; did you mean Saga?"
    );
    assert_eq!(
        said("kind", Some("Deployment")),
        "kind: kind `Deployment` is unknown: Tidemill has the kinds EventStream, Projection and Saga"
    );
    assert_eq!(
        said("kind", None),
        "kind: the field is missing: write one of EventStream, Projection, Saga"
    );
    assert_eq!(
        said("apiVersion", Some("tidemill.dev/v1")),
        "apiVersion: `tidemill.dev/v1` is not known here: write tidemill.dev/v1alpha1"
    );
    assert_eq!(
        said("apiVersion", None),
        "apiVersion: the field is missing: write apiVersion: tidemill.dev/v1alpha1"
    );
    assert!(!manifest::is_ours(
        &serde_json::json!({"apiVersion": "apps/v1", "kind": "Deployment"})
    ));
    assert!(manifest::is_ours(
        &serde_json::json!({"apiVersion": "tidemill.dev/v2", "kind": "Saga"})
    ));
}

#[test]
fn a_resource_without_namespace_is_in_default() {
    let mut document = document(S, "startOn: [{stream: {name: orders}, id: event.id}]");
    document["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("namespace");
    let resource = manifest::read(&document).unwrap();
    assert_eq!(
        (resource.namespace(), resource.name(), resource.kind()),
        ("default", "orders", S)
    );
    let Some(Plan::Saga(plan)) = resource.compile().plan else {
        panic!("it compiles")
    };
    assert_eq!(plan.resource.to_string(), "default/saga/orders");
    assert_eq!(
        plan.definition.triggers.first().unwrap().stream.to_string(),
        "default/orders"
    );
}
