//! Credentials that the operator makes, on a server that asks for them.

use crate::workloads::{DEPLOYMENT, order_status};
use crate::world::{CAP, World};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, ListParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tidemill_core::contract::Connection;
use tidemill_core::names::REVISIONS_BUCKET;
use tidemill_crds::eventstream::EventStream;
use tidemill_crds::projection::Projection;
use tidemill_crds::saga::Saga;
use tidemill_nats::{ConnectError, Credentials, KvBucket, Nats, Publisher};
use tidemill_operator::credentials::{Issue, Issuer, KeepError, prepare};
use tidemill_testbed::NatsServer;
use tidemill_testbed::wait::within;
use tidemill_testbed_cluster::ControlPlane;

const SAGA: &str = "tidemill-saga-fulfilment";

pub(crate) fn issue() -> Issue {
    serde_json::from_value(json!({"prefix": "tidemill-nats"})).unwrap()
}

fn rotated(rotation: u32) -> Issue {
    Issue {
        rotation,
        ..issue()
    }
}

/// One entry of a Secret.
pub(crate) async fn text(secrets: &Api<Secret>, name: &str, key: &str) -> String {
    let data = secrets.get(name).await.unwrap().data.unwrap();
    String::from_utf8(data[key].0.clone()).unwrap()
}

/// Secrets as they are but for what the API server says of them, and how often they were written.
async fn all(secrets: &Api<Secret>) -> BTreeMap<String, (Value, String)> {
    let found = secrets.list(&ListParams::default()).await.unwrap();
    let entry = |secret: Secret| {
        let content = json!([secret.data, secret.metadata.labels, secret.immutable]);
        let version = secret.resource_version().unwrap();
        (secret.name_any(), (content, version))
    };
    found.items.into_iter().map(entry).collect()
}

fn contents(secrets: &BTreeMap<String, (Value, String)>) -> BTreeMap<&String, &Value> {
    secrets
        .iter()
        .map(|(name, (content, _))| (name, content))
        .collect()
}

async fn prepared(client: &Client) -> Result<(), KeepError> {
    let connection = Connection::plain("nats://127.0.0.1:4222");
    let prepared = prepare(client.clone(), "default", &issue(), &connection).await;
    prepared.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn all_operators_end_with_the_same_keys_and_bring_back_what_is_lost() {
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client().await.unwrap();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "default");
    let at_once = (0..8).map(|_| prepared(&client));
    for prepared in futures::future::join_all(at_once).await {
        prepared.unwrap();
    }
    let first = all(&secrets).await;
    let names: Vec<&str> = first.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "tidemill-nats-admin",
            "tidemill-nats-app",
            "tidemill-nats-auth",
            "tidemill-nats-keys"
        ]
    );
    // Nothing is written that is there.
    prepared(&client).await.unwrap();
    assert_eq!(all(&secrets).await, first);
    // What follows from the seeds comes back as it was.
    for name in names.iter().filter(|name| !name.ends_with("keys")) {
        secrets
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
    }
    prepared(&client).await.unwrap();
    assert_eq!(contents(&all(&secrets).await), contents(&first));
    // The seeds don't: others would be another account.
    secrets
        .delete("tidemill-nats-keys", &DeleteParams::default())
        .await
        .unwrap();
    let lost = prepared(&client).await.unwrap_err();
    assert!(matches!(lost, KeepError::Lost { .. }), "{lost}");
    assert_eq!(all(&secrets).await.len(), 3);
}

impl World {
    /// The Secret that the pods of a Deployment refer to.
    async fn credentials_of(&self, deployment: &str) -> (String, String) {
        let deployment = self.api::<Deployment>().get(deployment).await.unwrap();
        let pod = deployment.spec.unwrap().template.spec.unwrap();
        let volumes = pod.volumes.unwrap();
        let mut names = volumes
            .into_iter()
            .filter_map(|volume| volume.secret?.secret_name);
        let name = names.next().unwrap();
        let file = text(&self.api(), &name, "nats.creds").await;
        (name, file)
    }

    async fn worker_of(&self, resource: &str, file: &str) -> Nats {
        let connection = Connection {
            inbox_prefix: Some(format!("_tm.inbox.shop.{resource}")),
            ..Connection::plain(&self.url)
        };
        let credentials = Credentials::new(file);
        Nats::connect_with(&connection, Some(&credentials), "worker")
            .await
            .unwrap()
    }
}

/// Whether the server lets it publish to a subject.
async fn may_publish(nats: &Nats, subject: &str) -> bool {
    let before = nats.permission_violations();
    let client = nats.client();
    // Nobody may publish to the second: once that is refused the first was judged.
    let end = format!("$SYS.end.{:x}", rand::random::<u64>());
    for subject in [subject, &end] {
        let (subject, reply) = (subject.to_owned(), client.new_inbox());
        client
            .publish_with_reply(subject, reply, "".into())
            .await
            .unwrap();
    }
    let judged = within(CAP, async || {
        let said = nats.status().borrow().last_error.clone();
        match &said {
            Some(error) if error.contains(&end) => Ok(()),
            _ => Err(format!("{said:?}")),
        }
    });
    judged.await.unwrap();
    nats.permission_violations() == before + 1
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_may_do_their_own_and_nothing_else() {
    let world = World::issuing().await;
    let operator = world.operator("a").await;
    world.apply::<EventStream>("orders", json!({})).await;
    world.apply::<EventStream>("payments", json!({})).await;
    for name in ["order-status", "others"] {
        world.apply::<Projection>(name, order_status("state")).await;
        world.expect::<Projection>(name, "WorkersNotReady").await;
    }
    let (name, file) = world.credentials_of(DEPLOYMENT).await;
    let (_, others) = world.credentials_of("tidemill-projection-others").await;
    assert_ne!(file, others);
    let worker = world.worker_of("projection.order-status", &file).await;
    for allowed in [
        "$JS.API.STREAM.INFO.shop_orders",
        "$KV.shop_order-status_rows.x",
        "_tm.parked.shop.projection.order-status.x",
    ] {
        assert!(may_publish(&worker, allowed).await, "{allowed}");
    }
    for denied in [
        "$JS.API.STREAM.INFO.shop_payments",
        "$JS.API.STREAM.DELETE.shop_orders",
        "$JS.API.STREAM.PURGE.KV_shop_order-status_rows",
        "$KV.shop_others_rows.x",
        "$KV.tidemill_owners.shop.projection.others.pod.x",
        "_tm.parked.shop.projection.others.x",
        "shop.orders.o-1.OrderPlaced",
        "$SYS.REQ.SERVER.PING",
    ] {
        assert!(!may_publish(&worker, denied).await, "{denied}");
    }
    let file = text(
        &Api::namespaced(world.client.clone(), "default"),
        "tidemill-nats-app",
        "nats.creds",
    )
    .await;
    let app = world.app(&file).await;
    for allowed in [
        "$JS.API.STREAM.INFO.shop_orders",
        "$JS.API.CONSUMER.CREATE.shop_orders",
        "inventory.reserve",
    ] {
        assert!(may_publish(&app, allowed).await, "{allowed}");
    }
    for denied in [
        "$JS.API.STREAM.CREATE.mine",
        "$JS.API.STREAM.UPDATE.shop_orders",
        "$JS.API.STREAM.DELETE.shop_orders",
        "$JS.API.STREAM.PURGE.shop_orders",
        "$JS.API.STREAM.MSG.DELETE.shop_orders",
        "$KV.shop_order-status_rows.x",
        "_tm.log.shop.fulfilment.0.x.s",
        "_tm.ctl.shop.saga.fulfilment.start",
    ] {
        assert!(!may_publish(&app, denied).await, "{denied}");
    }
    // It publishes events and answers requests whose reply is nothing that it may publish to.
    let publisher = Publisher::new(&app, 1);
    let placed = tidemill_nats::Publish::new("shop.orders.o-1.OrderPlaced", "{}");
    publisher.publish(placed).await.await.unwrap();
    let mut requests = app.client().subscribe("inventory.*").await.unwrap();
    app.client().flush().await.unwrap();
    let mut answers = world
        .nats
        .client()
        .subscribe("_tm.log.answer")
        .await
        .unwrap();
    let asking = world.nats.client();
    asking
        .publish_with_reply("inventory.reserve", "_tm.log.answer", "1".into())
        .await
        .unwrap();
    let request = futures::StreamExt::next(&mut requests).await.unwrap();
    app.client()
        .publish(request.reply.unwrap(), "2".into())
        .await
        .unwrap();
    let answer = futures::StreamExt::next(&mut answers).await.unwrap();
    assert_eq!(&answer.payload[..], b"2");
    // Nobody gets in without.
    assert!(
        Nats::connect(&Connection::plain(&world.url), "stranger")
            .await
            .is_err()
    );

    // Pods that aren't there yet need it: it comes back as it was.
    let secrets = world.api::<Secret>();
    let before = all(&secrets).await;
    secrets
        .delete(&name, &DeleteParams::default())
        .await
        .unwrap();
    world.touch("order-status").await;
    let back = within(CAP, async || {
        match contents(&all(&secrets).await) == contents(&before) {
            true => Ok(()),
            false => Err("it isn't back"),
        }
    });
    back.await.unwrap();
    // So do those of the installation.
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), "default");
    let before = all(&secrets).await;
    for name in before.keys() {
        secrets
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
    }
    let back = within(CAP, async || {
        match contents(&all(&secrets).await) == contents(&before) {
            true => Ok(()),
            false => Err("they aren't back"),
        }
    });
    back.await.unwrap();
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_operator_writes_nothing_and_moves_nobody() {
    let mut world = World::issuing().await;
    let operator = world.operator("a").await;
    world.apply::<EventStream>("orders", json!({})).await;
    world
        .apply::<Projection>("order-status", order_status("state"))
        .await;
    world
        .expect::<Projection>("order-status", "WorkersNotReady")
        .await;
    world.pods_are_ready(DEPLOYMENT).await;
    world.expect::<Projection>("order-status", "InForce").await;
    operator.stop().await;
    let here: Api<Secret> = Api::namespaced(world.client.clone(), "default");
    let state = async || {
        let deployment = world.api::<Deployment>().get(DEPLOYMENT).await.unwrap();
        (
            all(&world.api::<Secret>()).await,
            all(&here).await,
            deployment.resource_version(),
        )
    };
    let before = state().await;
    let newer = json!({"workers": {"image": "worker:2"}});
    let operator = world.operator_with("b", newer).await;
    let looked = within(CAP, async || {
        let found = world.api::<Projection>().get("order-status").await.unwrap();
        match found.status.and_then(|status| status.outdated_workers) {
            Some(1) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    looked.await.unwrap();
    assert_eq!(state().await, before);
    operator.stop().await;
    // Nobody else was there: what the operators did is what they may.
    assert_eq!(world.server().refused(), [""; 0]);
}

fn fulfilment(subject: &str) -> Value {
    json!({
        "startOn": [{"stream": {"name": "orders"}, "type": "OrderPlaced", "id": "event.subject"}],
        "steps": [{"name": "reserve", "request": {"subject": subject}}],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_that_changed_keeps_the_rights_of_its_instances() {
    let world = World::issuing().await;
    let operator = world.operator("a").await;
    world.apply::<EventStream>("orders", json!({})).await;
    world
        .apply::<Saga>("fulfilment", fulfilment("inventory.reserve"))
        .await;
    world.expect::<Saga>("fulfilment", "WorkersNotReady").await;
    world.pods_are_ready(SAGA).await;
    world.expect::<Saga>("fulfilment", "InForce").await;
    let (first, file) = world.credentials_of(SAGA).await;
    let old = world.worker_of("saga.fulfilment", &file).await;
    assert!(may_publish(&old, "inventory.reserve").await);
    assert!(!may_publish(&old, "stock.take").await);
    // As its worker does before it starts an instance.
    let (_, contract) = world.contract_of(SAGA).await;
    let tidemill_core::contract::Workload::Saga(saga) = &contract.workload else {
        panic!("{contract:?}");
    };
    let bucket = KvBucket::new(&Publisher::new(&world.nats, 1), REVISIONS_BUCKET);
    let key = contract.resource.revision_key(&saga.definition.revision());
    bucket
        .create(&key, serde_json::to_vec(&saga.definition).unwrap())
        .await
        .unwrap();

    world
        .apply::<Saga>("fulfilment", fulfilment("stock.take"))
        .await;
    world.expect::<Saga>("fulfilment", "WorkersNotReady").await;
    let (second, file) = world.credentials_of(SAGA).await;
    assert_ne!(first, second);
    let new = world.worker_of("saga.fulfilment", &file).await;
    for subject in ["inventory.reserve", "stock.take"] {
        assert!(may_publish(&new, subject).await, "{subject}");
    }
    // Pods may still refer to the first, until all are new.
    let secrets = world.api::<Secret>();
    assert!(secrets.get_opt(&first).await.unwrap().is_some());
    world.pods_are_ready(SAGA).await;
    world.expect::<Saga>("fulfilment", "InForce").await;
    let gone = within(CAP, async || match secrets.get_opt(&first).await.unwrap() {
        None => Ok(()),
        Some(_) => Err("it is still there"),
    });
    gone.await.unwrap();
    assert!(secrets.get_opt(&second).await.unwrap().is_some());
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rotation_nobody_of_before_gets_in() {
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client().await.unwrap();
    let somewhere = Connection::plain("nats://127.0.0.1:4222");
    let issuer = async |rotation| {
        let issue = rotated(rotation);
        prepare(client.clone(), "default", &issue, &somewhere)
            .await
            .unwrap()
    };
    let (before, after) = (issuer(0).await, issuer(1).await);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "default");
    let auth = text(&secrets, "tidemill-nats-auth-1", "auth.conf").await;
    let server = NatsServer::builder().config(&auth).start().await.unwrap();
    let connected = async |issuer: &Issuer| {
        let (connection, credentials) = issuer.operator().unwrap();
        let connection = Connection {
            servers: vec![server.url()],
            ..connection
        };
        Nats::connect_with(&connection, Some(&credentials), "operator").await
    };
    let refused = connected(&before).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Refused { .. }), "{refused}");
    connected(&after).await.unwrap();
}
