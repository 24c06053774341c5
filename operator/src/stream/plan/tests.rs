#![allow(clippy::panic, reason = "a test fails by panicking")]

use super::*;
use serde_json::json;
use tidemill_core::timestamp::Timestamp;
use tidemill_nats::provision::{Mark, Take};

fn wanted() -> StreamPlan {
    let mark = Mark::event_stream("main", "shop", "orders", "i-1");
    StreamPlan::new("shop_orders", vec!["shop.orders.>".to_owned()], mark)
}

/// The stream as the plan would make it, with some settings changed.
fn there(changes: serde_json::Value) -> StreamState {
    let mut config = wanted().config();
    if let Value::Object(changes) = changes {
        config.extend(changes);
    }
    StreamState {
        name: "shop_orders".to_owned(),
        incarnation: "i-1".to_owned(),
        created: Timestamp::from_millis(0),
        first: 1,
        last: 0,
        messages: 0,
        bytes: 0,
        subjects_count: 0,
        last_stored_at: Timestamp::from_millis(0),
        server_time: None,
        config: Value::Object(config),
    }
}

fn seen(stream: Option<StreamState>) -> Observed {
    Observed {
        stream,
        overlap: None,
        losses: Vec::new(),
    }
}

fn overlapped(stream: Option<StreamState>) -> Observed {
    Observed {
        overlap: Some(Overlap {
            wanting: "shop_orders".to_owned(),
            stream: "shop_all".to_owned(),
            owner: Some("main/shop/eventstream/all".to_owned()),
            subject: "shop.orders.>".to_owned(),
        }),
        ..seen(stream)
    }
}

/// What is done and said, in one line.
fn decided(known: &Known, observed: &Observed) -> String {
    decided_by(&wanted(), &Policy::default(), known, observed)
}

fn decided_by(wanted: &StreamPlan, policy: &Policy, known: &Known, observed: &Observed) -> String {
    let Planned {
        step,
        verdict,
        data_lost,
    } = plan(wanted, policy, known, observed);
    let step = match step {
        Step::Nothing => "nothing".to_owned(),
        Step::Create(config) => match config.get("first_seq") {
            Some(first) => format!("create from {first}"),
            None => "create".to_owned(),
        },
        Step::Update { changed, .. } => format!("update {}", changed.join(",")),
    };
    let lost = data_lost.map_or(String::new(), |lost| format!(" | DataLost: {lost}"));
    format!(
        "{step}: {} {}{lost}",
        verdict.reason.word(),
        verdict.message
    )
}

#[test]
fn each_situation_has_its_step_and_its_reason() {
    let new = Known::default();
    let known = Known {
        incarnation: Some("i-1".to_owned()),
        last: 41,
    };
    let foreign = there(
        json!({"metadata": {"tidemill.dev/cluster": "other", "tidemill.dev/namespace": "shop",
        "tidemill.dev/kind": "eventstream", "tidemill.dev/name": "orders"}}),
    );
    let mut loses = seen(Some(there(json!({"max_age": 1}))));
    loses.losses = vec![Loss::Older(7), Loss::Beyond(2)];
    let all: Vec<String> = [
        (&new, seen(None)),
        (&known, seen(None)),
        (&new, overlapped(None)),
        (&new, seen(Some(there(json!({}))))),
        (&known, seen(Some(there(json!({"max_msgs": 5, "num_replicas": 3}))))),
        (&known, seen(Some(there(json!({"placement": {"cluster": "x"}, "metadata": there(json!({})).config["metadata"]}))))),
        (&known, overlapped(Some(there(json!({"subjects": ["shop.old.>"]}))))),
        (&known, overlapped(Some(there(json!({"max_msgs": 5}))))),
        (&known, loses),
        (&known, seen(Some(there(json!({"storage": "memory"}))))),
        (&known, seen(Some(foreign))),
        (&known, seen(Some(there(json!({"metadata": {}}))))),
    ]
    .iter()
    .map(|(known, observed)| decided(known, observed))
    .collect();
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn policies_permit_more_or_less() {
    let known = Known {
        incarnation: Some("i-1".to_owned()),
        last: 41,
    };
    let owned_by = |cluster: &str| {
        there(
            json!({"metadata": {"tidemill.dev/cluster": cluster, "tidemill.dev/namespace": "shop",
            "tidemill.dev/kind": "eventstream", "tidemill.dev/name": "orders", "tidemill.dev/incarnation": "i-0"}}),
        )
    };
    let unowned = there(json!({"metadata": {"other": "tool"}}));
    let observe = Policy {
        observe: true,
        ..Policy::default()
    };
    let recreate = Policy {
        recreate: true,
        ..Policy::default()
    };
    let taking = |take: Take| StreamPlan { take, ..wanted() };
    let from = |owner: &str| taking(Take::From(owner.to_owned()));
    let plain = Policy::default();
    let denied = Policy {
        denied: Some((Take::IfUnowned, "it may not".to_owned())),
        ..Policy::default()
    };
    let all: Vec<String> = [
        (wanted(), &observe, seen(None)),
        (wanted(), &observe, seen(Some(owned_by("other")))),
        (
            wanted(),
            &observe,
            seen(Some(there(json!({"retention": "workqueue"})))),
        ),
        (wanted(), &recreate, seen(None)),
        (wanted(), &recreate, seen(Some(there(json!({}))))),
        (taking(Take::IfUnowned), &plain, seen(Some(unowned.clone()))),
        (
            taking(Take::IfUnowned),
            &plain,
            seen(Some(owned_by("other"))),
        ),
        (
            from("other/shop/orders"),
            &plain,
            seen(Some(owned_by("other"))),
        ),
        (
            from("another/shop/orders"),
            &plain,
            seen(Some(owned_by("other"))),
        ),
        (
            from("other/shop/orders"),
            &plain,
            seen(Some(unowned.clone())),
        ),
        (wanted(), &denied, seen(Some(unowned.clone()))),
        (wanted(), &denied, seen(Some(owned_by("other")))),
    ]
    .iter()
    .map(|(wanted, policy, observed)| decided_by(wanted, policy, &known, observed))
    .collect();
    insta::assert_snapshot!(all.join("\n"));

    // What is taken keeps its incarnation and what other tools wrote.
    let metadata = |wanted: &StreamPlan, stream: StreamState| match plan(
        wanted,
        &plain,
        &known,
        &seen(Some(stream)),
    )
    .step
    {
        Step::Update { config, .. } => config["metadata"].clone(),
        other => panic!("{other:?}"),
    };
    let taken = metadata(&from("other/shop/orders"), owned_by("other"));
    assert_eq!(taken["tidemill.dev/cluster"], "main");
    assert_eq!(taken["tidemill.dev/incarnation"], "i-0");
    let adopted = metadata(&taking(Take::IfUnowned), unowned);
    assert_eq!(adopted["other"], "tool");
    assert_eq!(
        adopted["tidemill.dev/incarnation"], "i-1",
        "as the state says, which is when it was made"
    );
}
