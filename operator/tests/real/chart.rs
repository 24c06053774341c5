//! The charts: what they install is taken, and the operator gets along with the rights that they give it.

use crate::credentials::text;
use crate::world::{CAP, World};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, CustomResourceExt, ResourceExt};
use serde_json::json;
use tidemill_crds::eventstream::EventStream;
use tidemill_crds::projection::Projection;
use tidemill_nats::Nats;
use tidemill_operator::config::Config;
use tidemill_operator::credentials::{self, Names};
use tidemill_operator::runtime::Runtime;
use tidemill_service::{Health, Metrics};
use tidemill_testbed::NatsServer;
use tidemill_testbed::binaries::workspace_root;
use tidemill_testbed::wait::within;
use tidemill_testbed_cluster::ControlPlane;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

/// What a program printed, if it ended well.
async fn run(mut command: Command, line: &str) -> Result<String, String> {
    let output = command
        .current_dir(workspace_root())
        .args(line.split_whitespace())
        .output()
        .await
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_charts_install_is_enough_for_the_operator() {
    let plane = ControlPlane::start().await.unwrap();
    let server = NatsServer::start().await.unwrap();
    let helm = async |line: &str| run(plane.helm().unwrap(), line).await;
    // What people without Helm apply is what the charts render.
    let committed = std::fs::read_to_string(workspace_root().join("k8s/install.yaml")).unwrap();
    for chart in [
        "template tidemill-crds helm/tidemill-crds",
        "template tidemill helm/tidemill --namespace tidemill --set nats.enabled=true",
    ] {
        let rendered = helm(chart).await.unwrap();
        assert!(
            committed.contains(&rendered),
            "k8s/install.yaml is stale: run `make generate`"
        );
    }
    for setting in [
        "tenancy.grants[0].adopt=true,tenancy.grants[0].namespaces[0]=shop",
        "takeover=u-1",
        "deletionDeadlineSeconds=60",
    ] {
        let line = format!(
            "template tidemill helm/tidemill --set nats.servers[0]=nats://nats:4222,{setting}"
        );
        helm(&line).await.unwrap();
    }
    let secret =
        "template tidemill helm/tidemill --set nats.servers[0]=nats://bob:hunter2@nats:4222";
    helm(secret).await.unwrap_err();
    helm("install tidemill-crds helm/tidemill-crds")
        .await
        .unwrap();

    let refused = helm("install tidemill helm/tidemill").await.unwrap_err();
    assert!(
        refused.contains("nats") && refused.contains("servers"),
        "{refused}"
    );
    let both = "install tidemill helm/tidemill --set nats.enabled=true --set nats.servers[0]=nats://nats:4222";
    let refused = helm(both).await.unwrap_err();
    assert!(refused.contains("exclude each other"), "{refused}");
    let install = format!(
        "install tidemill helm/tidemill --namespace tidemill --create-namespace --set nats.servers[0]={}",
        server.url()
    );
    let notes = helm(&install).await.unwrap();
    assert!(
        notes.contains("kubectl get eventstreams,projections,sagas"),
        "{notes}"
    );

    let client = plane.client().await.unwrap();
    let of = |client: &Client| Api::<ConfigMap>::namespaced(client.clone(), "tidemill");
    let config = of(&client)
        .get("tidemill-operator")
        .await
        .unwrap()
        .data
        .unwrap();
    let config = Config::parse(&config["config.yaml"]).unwrap();
    assert_eq!(config.workers.image, "tidemill-worker:0.1.0");
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "tidemill");
    deployments.get("tidemill-operator").await.unwrap();

    // With the rights of its ServiceAccount and no others.
    let line = "create token tidemill-operator --namespace tidemill";
    let token = run(plane.kubectl().unwrap(), line).await.unwrap();
    let health = Health::new();
    let runtime = Runtime {
        client: plane.client_as(token.trim()).await.unwrap(),
        nats: Nats::connect(&config.nats, "operator").await.unwrap(),
        config,
        issuer: None,
        namespace: "tidemill".to_owned(),
        pod: "operator-1".to_owned(),
        health: health.clone(),
        metrics: Metrics::new(),
    };
    let stop = CancellationToken::new();
    let operator = tokio::spawn(runtime.run(stop.clone()));
    let world = World::of(plane, server, client).await;
    world.apply::<EventStream>("orders", json!({})).await;
    world.expect::<EventStream>("orders", "InForce").await;
    // Everything that it looks for was given.
    assert!(health.report().ready, "{:?}", health.report());
    let spec = json!({
        "from": [{"stream": {"name": "orders"}}],
        "key": "event.subject",
        "handlers": [{"set": {"state": "placed"}}],
        "sink": {"kv": {}},
        "replicas": 2,
    });
    world
        .apply::<Projection>("order-status", spec.clone())
        .await;
    world
        .expect::<Projection>("order-status", "WorkersNotReady")
        .await;
    // Takes back the disruption budget, too.
    let mut one = spec;
    one["replicas"] = json!(1);
    world.apply::<Projection>("order-status", one).await;
    let said = world
        .expect::<Projection>("order-status", "WorkersNotReady")
        .await;
    assert_eq!(said, "0 of 1 workers are ready");
    stop.cancel();
    operator.await.unwrap();

    // It led by the chart's own lease, which Helm still takes for its own.
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), "tidemill");
    let lease = leases.get("tidemill-operator").await.unwrap();
    assert!(lease.spec.unwrap().lease_transitions.is_some());
    assert!(lease.metadata.labels.unwrap().contains_key("helm.sh/chart"));

    // The definitions, and with them everything that people applied, outlive the charts.
    let plane = &world.plane;
    for line in [
        "uninstall tidemill --namespace tidemill",
        "uninstall tidemill-crds",
    ] {
        run(plane.helm().unwrap(), line).await.unwrap();
    }
    let name = EventStream::crd().metadata.name.unwrap();
    let kept = run(plane.kubectl().unwrap(), &format!("get crd {name}")).await;
    assert!(kept.is_ok(), "{kept:?}");
    world.api::<EventStream>().get("orders").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rendered_for_people_without_helm_is_taken() {
    let plane = ControlPlane::start().await.unwrap();
    let kubectl = async |line: &str| run(plane.kubectl().unwrap(), line).await.unwrap();
    kubectl("apply --server-side --filename k8s/install.yaml").await;
    let there = kubectl("get --namespace tidemill -o name deployments,statefulsets").await;
    assert_eq!(
        there,
        "deployment.apps/tidemill-operator\nstatefulset.apps/tidemill-nats\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_charts_own_nats_waits_for_what_the_operator_may_make() {
    let plane = ControlPlane::start().await.unwrap();
    let helm = async |line: &str| run(plane.helm().unwrap(), line).await;
    helm("install tidemill-crds helm/tidemill-crds")
        .await
        .unwrap();
    let install = "install tidemill helm/tidemill --namespace tidemill --create-namespace --set nats.enabled=true";
    let both = format!("{install} --set worker.credentialsSecret=mine");
    let refused = helm(&both).await.unwrap_err();
    assert!(refused.contains("nats.enabled excludes"), "{refused}");
    let notes = helm(&format!("{install} --set nats.rotation=2"))
        .await
        .unwrap();
    assert!(notes.contains("tidemill-nats-app"), "{notes}");

    let client = plane.client().await.unwrap();
    let config = Api::<ConfigMap>::namespaced(client.clone(), "tidemill");
    let config = config.get("tidemill-operator").await.unwrap().data.unwrap();
    let mut config = Config::parse(&config["config.yaml"]).unwrap();
    let issue = config.credentials.clone().unwrap();
    let names = Names::of(&issue);
    let line = "get --namespace tidemill statefulset tidemill-nats -o jsonpath={.spec.template.spec.volumes[0].projected.sources[1].secret.name}";
    let awaited = run(plane.kubectl().unwrap(), line).await.unwrap();
    assert_eq!(awaited, names.auth);

    // With the rights of the operator's ServiceAccount and no others.
    let line = "create token tidemill-operator --namespace tidemill";
    let token = run(plane.kubectl().unwrap(), line).await.unwrap();
    let theirs = plane.client_as(token.trim()).await.unwrap();
    let prepared = credentials::prepare(theirs.clone(), "tidemill", &issue, &config.nats);
    prepared.await.unwrap();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "tidemill");
    let auth = text(&secrets, &names.auth, "auth.conf").await;
    let server = NatsServer::builder().config(&auth).start().await.unwrap();
    config.nats.servers = vec![server.url()];
    let issuer = credentials::prepare(theirs.clone(), "tidemill", &issue, &config.nats);
    let issuer = issuer.await.unwrap();
    let (connection, own) = issuer.operator().unwrap();
    let health = Health::new();
    let runtime = Runtime {
        client: theirs.clone(),
        nats: Nats::connect_with(&connection, Some(&own), "operator")
            .await
            .unwrap(),
        config,
        issuer: Some(issuer),
        namespace: "tidemill".to_owned(),
        pod: "operator-1".to_owned(),
        health: health.clone(),
        metrics: Metrics::new(),
    };
    let stop = CancellationToken::new();
    let operator = tokio::spawn(runtime.run(stop.clone()));
    let admin = text(&secrets, &names.admin, "nats.creds").await;
    let world = World::issued(plane, server, client, &admin).await;
    world.apply::<EventStream>("orders", json!({})).await;
    let spec = json!({
        "from": [{"stream": {"name": "orders"}}],
        "key": "event.subject",
        "handlers": [{"set": {"state": "placed"}}],
        "sink": {"kv": {}},
    });
    world.apply::<Projection>("order-status", spec).await;
    world
        .expect::<Projection>("order-status", "WorkersNotReady")
        .await;
    assert!(health.report().ready, "{:?}", health.report());
    // Secrets of people it can neither read nor list.
    let of_people: Api<Secret> = Api::namespaced(theirs, "shop");
    assert!(of_people.list(&Default::default()).await.is_err());
    let workers: Api<Secret> = world.api();
    let name = workers.list(&Default::default()).await.unwrap().items[0].name_any();
    assert!(of_people.get(&name).await.is_err());
    // What somebody changes is changed back, by who may patch these.
    let patch = json!({"data": {"auth.conf": ""}});
    let there: Api<Secret> = Api::namespaced(world.client.clone(), "tidemill");
    there
        .patch(&names.auth, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    let back = within(CAP, async || {
        match text(&there, &names.auth, "auth.conf").await {
            now if now == auth => Ok(()),
            now => Err(now),
        }
    });
    back.await.unwrap();
    stop.cancel();
    operator.await.unwrap();
}
