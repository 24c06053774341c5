//! Every kind on the model, stopped anywhere.

use crate::model::{Model, Stop};
use nkeys::{KeyPair, KeyPairType};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tidemill_core::contract::Connection;
use tidemill_crds::projection::Projection;
use tidemill_crds::saga::Saga;
use tidemill_operator::cluster_id::ClusterClaim;
use tidemill_operator::config::Config;
use tidemill_operator::context::Context;
use tidemill_operator::credentials::{Issue, Issuer, Seeds};
use tidemill_operator::error::Error;
use tidemill_operator::lease::Claim;
use tidemill_operator::meters::Meters;
use tidemill_operator::workload::Runs;
use tidemill_operator::{eventstream, workload};
use tidemill_service::Metrics;

/// Longest reconcile, in calls, that is tried: none may need as many.
const CALLS_MAX: u32 = 200;

/// A context as a fresh operator has it.
fn context(model: &Model) -> Arc<Context<Model, Model>> {
    let config = json!({
        "nats": {"servers": ["nats://nats:4222"]},
        "workers": {"image": "worker:1"},
    });
    let config: Config = serde_json::from_value(config).unwrap();
    let (jetstream, kubernetes) = (model.clone(), model.clone());
    let mut context = Context::new(
        jetstream,
        kubernetes,
        &config,
        (Claim::alone(), ClusterClaim::alone()),
        Meters::register(&Metrics::new()),
    );
    // Another each time; where worlds are compared, all are the same.
    context.incarnation = || {
        static MADE: AtomicU64 = AtomicU64::new(0);
        format!("i-{}", MADE.fetch_add(1, Ordering::Relaxed))
    };
    Arc::new(context.with_issuer(Some(issuer())))
}

/// One that makes the same credentials each time.
fn issuer() -> Issuer {
    static ISSUER: OnceLock<Issuer> = OnceLock::new();
    ISSUER.get_or_init(new_issuer).clone()
}

fn new_issuer() -> Issuer {
    let seed = |kind| {
        KeyPair::new_from_raw(kind, [7; 32])
            .unwrap()
            .seed()
            .unwrap()
    };
    let seeds = Seeds {
        operator: seed(KeyPairType::Operator),
        account: seed(KeyPairType::Account),
    };
    let issue = Issue {
        prefix: "tidemill-nats".to_owned(),
        rotation: 0,
    };
    Issuer::new(&issue, seeds, &Connection::plain("nats://nats:4222")).unwrap()
}

fn resource(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "tidemill.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "shop", "generation": 1, "uid": name},
        "spec": spec,
    })
}

fn key(resource: &Value) -> String {
    let name = resource["metadata"]["name"].as_str().unwrap();
    format!("{}/shop/{name}", resource["kind"].as_str().unwrap())
}

/// A world in which these were applied.
fn world(resources: &[Value]) -> Model {
    let model = Model::default();
    for resource in resources {
        model.with(|state| state.objects.insert(key(resource), resource.clone()));
    }
    model
}

/// One pass over all resources, as a fresh operator makes it; the first error.
async fn pass(model: &Model, resources: &[Value]) -> Result<(), Error> {
    let context = context(model);
    for resource in resources {
        // One that is gone is looked at no more.
        let Some(now) = model.with(|state| state.objects.get(&key(resource)).cloned()) else {
            continue;
        };
        let context = Arc::clone(&context);
        match now["kind"].as_str().unwrap() {
            "EventStream" => eventstream::reconcile(parsed(now), context).await?,
            "Projection" => workload::reconcile::<_, _, Projection>(parsed(now), context).await?,
            _ => workload::reconcile::<_, _, Saga>(parsed(now), context).await?,
        };
    }
    Ok(())
}

fn parsed<T: DeserializeOwned>(object: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(object).unwrap())
}

async fn settle(model: &Model, resources: &[Value]) {
    model.stop_at(None);
    for _ in 0..3 {
        pass(model, resources).await.unwrap();
    }
}

/// Changes the spec of what was applied.
fn change(model: &Model, resource: &Value, spec: Value) {
    model.with(|state| {
        let object = state.objects.get_mut(&key(resource)).unwrap();
        object["spec"] = spec;
        object["metadata"]["generation"] = json!(2);
    });
}

/// Deletes what was applied, as the API server does: what has finalizers waits for them.
fn delete(model: &Model, resource: &Value) {
    model.with(|state| {
        let object = state.objects.get_mut(&key(resource)).unwrap();
        let finalizers = object["metadata"]["finalizers"].as_array();
        if finalizers.is_none_or(Vec::is_empty) {
            state.objects.remove(&key(resource));
        } else {
            let now = k8s_openapi::jiff::Timestamp::now().to_string();
            object["metadata"]["deletionTimestamp"] = json!(now);
        }
    });
}

/// Tries a change with a stop after each call, done and not done; counts how many stops there were.
async fn converges(resources: &[Value], what: &str, changed: impl Fn(&Model)) -> u32 {
    let undisturbed = world(resources);
    settle(&undisturbed, resources).await;
    changed(&undisturbed);
    settle(&undisturbed, resources).await;
    let expected = undisturbed.lasting();
    let mut stops = 0;
    for after in 0..CALLS_MAX {
        for done in [false, true] {
            let model = world(resources);
            settle(&model, resources).await;
            changed(&model);
            model.stop_at(Some(Stop { after, done }));
            // The operator dies with the first call that fails.
            let ended = pass(&model, resources).await;
            let reached = model.with(|state| state.calls > after);
            if !reached {
                assert!(ended.is_ok(), "{what}: {ended:?}");
                return stops;
            }
            stops += 1;
            settle(&model, resources).await;
            assert_eq!(
                model.lasting(),
                expected,
                "{what}, stopped after {after} calls ({done})"
            );
            model.stop_at(None);
            pass(&model, resources).await.unwrap();
            let writes = model.with(|state| state.writes);
            assert_eq!(writes, 0, "{what}: nothing is left to write");
        }
    }
    panic!("{what}: more than {CALLS_MAX} calls");
}

/// Of each kind one that can be had, and two that can't.
fn resources() -> Vec<Value> {
    let stream = json!({"name": "orders"});
    let projection = json!({
        "from": [{"stream": stream}],
        "key": "event.subject",
        "handlers": [{"set": {"state": "placed"}}],
        "sink": {"kv": {}},
    });
    let saga = json!({
        "startOn": [{"stream": stream, "id": "event.subject"}],
        "steps": [{"name": "reserve", "request": {"subject": "inventory.reserve"}}],
    });
    vec![
        resource("EventStream", "orders", json!({})),
        resource("EventStream", "all", json!({"prefix": "shop.orders"})),
        resource("EventStream", "legacy", json!({"prefix": "other"})),
        resource("Projection", "order-status", projection),
        resource("Saga", "fulfilment", saga),
    ]
}

#[tokio::test]
async fn any_stop_comes_to_the_same_end() {
    let resources = resources();
    let [orders, .., projection, saga] = resources.as_slice() else {
        panic!("there are more");
    };
    type Change<'a> = &'a dyn Fn(&Model);
    let cases: [(&str, Change<'_>); 10] = [
        ("nothing changes", &|_| {}),
        ("a limit is set", &|model| {
            change(model, orders, json!({"limits": {"maxMessages": 5}}));
        }),
        ("a subject is added that is another's", &|model| {
            let capture = json!([{"subjects": ["shop.orders.x"]}]);
            change(model, orders, json!({"capture": capture}));
        }),
        ("the stream was changed", &|model| {
            model.with(|state| {
                let stream = state.streams.get_mut("shop_orders").unwrap();
                stream.config["max_msgs"] = json!(7);
            });
        }),
        ("a stream is gone and may be made again", &|model| {
            change(model, orders, json!({"onLoss": "Recreate"}));
            model.with(|state| state.streams.remove("shop_orders"));
        }),
        ("the streams are gone", &|model| {
            model.with(|state| {
                state
                    .streams
                    .retain(|name, _| name.starts_with("KV_tidemill"))
            });
        }),
        (
            "a definition changes, and there are more workers",
            &|model| {
                let mut spec = projection["spec"].clone();
                spec["handlers"][0]["set"] = json!({"other": "1"});
                spec["replicas"] = json!(3);
                change(model, projection, spec);
            },
        ),
        ("what can't change changes", &|model| {
            let mut spec = saga["spec"].clone();
            spec["partitions"] = json!(8);
            change(model, saga, spec);
        }),
        ("a Saga changes that has instances", &|model| {
            let plan = parsed::<Saga>(saga.clone()).compile().unwrap();
            let key = plan.resource.to_string();
            model.with(|state| state.definitions.insert(key, vec![plan.definition]));
            let mut spec = saga["spec"].clone();
            spec["steps"][0]["request"]["subject"] = json!("stock.take");
            change(model, saga, spec);
        }),
        ("the workers are gone", &|model| {
            model.with(|state| state.children.clear());
        }),
    ];
    for (what, changed) in cases {
        assert!(converges(&resources, what, changed).await > 4, "{what}");
    }
    // Data goes with its resource, or stays.
    let deleting = |resource: &Value| {
        let mut deleting = resource.clone();
        deleting["spec"]["deletionPolicy"] = json!("Delete");
        deleting
    };
    let going: Vec<Value> = vec![deleting(orders), deleting(projection), deleting(saga)];
    for resource in &going {
        let what = format!("{} goes with its data", key(resource));
        let deleted = |model: &Model| delete(model, resource);
        assert!(converges(&going, &what, deleted).await > 4, "{what}");
        let what = format!("{} goes without its data after all", key(resource));
        let kept = |model: &Model| {
            let mut spec = resource["spec"].clone();
            spec["deletionPolicy"] = json!("Retain");
            change(model, resource, spec);
            delete(model, resource);
        };
        converges(&going, &what, kept).await;
    }
    let model = world(&going);
    settle(&model, &going).await;
    assert!(model.with(|state| state.streams.contains_key("shop_fulfilment_log")));
    going.iter().for_each(|resource| delete(&model, resource));
    settle(&model, &going).await;
    let left: Vec<String> = model.with(|state| state.streams.keys().cloned().collect());
    assert!(
        left.iter().all(|name| name.starts_with("KV_tidemill_")),
        "{left:?}"
    );
    assert!(model.with(|state| state.objects.is_empty()));
    // From nothing.
    let expected = {
        let model = world(&resources);
        settle(&model, &resources).await;
        model.lasting()
    };
    for after in 0..CALLS_MAX {
        for done in [false, true] {
            let model = world(&resources);
            model.stop_at(Some(Stop { after, done }));
            let _ = pass(&model, &resources).await;
            settle(&model, &resources).await;
            assert_eq!(
                model.lasting(),
                expected,
                "stopped after {after} calls ({done})"
            );
        }
    }
}

#[tokio::test]
async fn without_the_lease_nothing_is_written() {
    let resources = resources();
    for resource in &resources {
        let model = world(&resources);
        let mut fenced = (*context(&model)).clone();
        fenced.claim = Claim::default();
        let (object, context) = (resource.clone(), Arc::new(fenced));
        let ended = match resource["kind"].as_str().unwrap() {
            "EventStream" => eventstream::reconcile(parsed(object), context).await,
            "Projection" => workload::reconcile::<_, _, Projection>(parsed(object), context).await,
            _ => workload::reconcile::<_, _, Saga>(parsed(object), context).await,
        };
        assert!(matches!(ended, Err(Error::Fenced)), "{ended:?}");
        assert_eq!(model.with(|state| state.writes), 0);
    }
}
