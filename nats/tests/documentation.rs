//! The permissions in `docs/guide/operations.md` are those of the code, which `permissions.rs` tries on a server.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tidemill_core::contract::{Connection, Contract};
use tidemill_core::names::{Kind, ResourceId};
use tidemill_nats::permissions;

fn contract(kind: Kind, name: &str) -> Contract {
    let resource = ResourceId::new(kind, "shop", name);
    let stream = json!({ "namespace": "shop", "name": "orders" });
    let workload = match kind {
        Kind::Projection => json!({ "projection": {
            "definition": { "semantics": 1, "sources": [stream], "key": "event.subject", "handlers": [] },
            "policy": { "onError": "Park", "maxParkedKeys": 10 },
            "starts": ["beginning"],
            "rowsBucket": resource.rows_bucket(),
            "parkedStream": resource.parked_stream(),
        }}),
        Kind::Saga => json!({ "saga": {
            "definition": {
                "semantics": 1, "steps": [], "timeoutMs": 1000,
                "triggers": [{ "stream": stream, "id": "event.subject" }],
                "onCompleted": [{ "stream": stream, "type": "Confirmed", "entity": "e" }],
            },
            "starts": ["new"],
            "logStream": resource.log_stream(),
            "parkedStream": resource.parked_stream(),
            "partitions": 64,
        }}),
    };
    let contract = json!({
        "version": 1,
        "resource": resource,
        "connection": Connection::plain("nats://127.0.0.1:1"),
        "streams": [{ "stream": stream, "name": "shop_orders", "prefix": "shop.orders" }],
        "workload": workload,
    });
    Contract::parse(contract.to_string().as_bytes()).unwrap()
}

/// What the code lists, in the sections of the page.
fn listed(kind: Kind, name: &str, requests: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let requests: Vec<String> = requests.iter().map(|&subject| subject.to_owned()).collect();
    let list = permissions::worker(&contract(kind, name), &requests);
    let mut sections = BTreeMap::from([
        ("publish".to_owned(), list.publish.into_iter().collect()),
        ("subscribe".to_owned(), list.subscribe.into_iter().collect()),
    ]);
    if list.allow_responses {
        sections.insert("allow_responses".to_owned(), BTreeSet::new());
    }
    sections
}

/// The blocks of the page, written out: `publish, for each <x> of a b` stands for its subjects with a and with b.
fn documented() -> Vec<BTreeMap<String, BTreeSet<String>>> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide/operations.md");
    let page = std::fs::read_to_string(page).unwrap();
    let blocks = page
        .split("```\n")
        .filter(|block| block.starts_with("publish"));
    let read = |block: &str| {
        let mut sections: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let (mut section, mut each) = (String::new(), ("", vec![""]));
        for line in block.lines() {
            match line.strip_prefix("  ") {
                None => {
                    let (name, rest) = line.split_once(", for each ").unwrap_or((line, ""));
                    section = name.to_owned();
                    each = match rest.split_once(" of ") {
                        Some((variable, values)) => (variable, values.split(' ').collect()),
                        None => ("", vec![""]),
                    };
                    sections.entry(section.clone()).or_default();
                }
                Some(subject) => {
                    let written = each.1.iter().map(|value| match each.0 {
                        "" => subject.to_owned(),
                        variable => subject.replace(variable, value),
                    });
                    sections.entry(section.clone()).or_default().extend(written);
                }
            }
        }
        sections
    };
    blocks.map(read).collect()
}

#[test]
fn the_documented_permissions_are_those_of_the_code() {
    let requests = ["inventory.reserve", "inventory.release"];
    let expected = [
        listed(Kind::Projection, "order-status", &[]),
        listed(Kind::Saga, "fulfilment", &requests),
    ];
    assert_eq!(documented(), expected);
}
