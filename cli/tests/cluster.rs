//! The command line on a cluster: a real kube-apiserver, a real nats-server and the operator as a process. What takes a node, the forwarded
//! port, is in the operator's tests of a node.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Child, Stdio};
use std::time::Duration;
use support::{Ran, Shell};
use tidemill_core::contract::Connection;
use tidemill_core::names::{COUNTERS_BUCKET, OWNERS_BUCKET, cluster_key};
use tidemill_nats::provision::{self, Mark, StreamPlan};
use tidemill_nats::{KvBucket, KvWrite, Nats, Publisher};
use tidemill_testbed::binaries::{program, workspace_root};
use tidemill_testbed::wait::within;
use tidemill_testbed::{NatsServer, Process};
use tidemill_testbed_cluster::ControlPlane;

const CAP: Duration = Duration::from_secs(90);

const PROJECTION: &str = "
apiVersion: tidemill.dev/v1alpha1
kind: Projection
metadata: {name: status, namespace: shop}
spec:
  from: [{stream: {name: orders}}]
  key: event.subject
  handlers: [{type: OrderPlaced, set: {state: placed}}]
  sink: {kv: {}}
";

const SAGA: &str = "
apiVersion: tidemill.dev/v1alpha1
kind: Saga
metadata: {name: fulfilment, namespace: shop}
spec:
  startOn: [{stream: {name: orders}, type: OrderPlaced, id: event.subject}]
  steps: [{name: reserve, request: {subject: inventory.reserve}}]
";

fn stream(name: &str) -> String {
    format!(
        "apiVersion: tidemill.dev/v1alpha1\nkind: EventStream\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{}}\n"
    )
}

/// A cluster that knows Tidemill's kinds, and NATS.
struct World {
    plane: ControlPlane,
    server: NatsServer,
    nats: Nats,
    shell: Shell,
}

impl World {
    async fn start() -> World {
        let (plane, server) = tokio::join!(ControlPlane::start(), NatsServer::start());
        let (plane, server) = (plane.unwrap(), server.unwrap());
        let nats = Nats::connect(&Connection::plain(&server.url()), "test").await;
        let world = World {
            plane,
            nats: nats.unwrap(),
            server,
            shell: Shell::new(),
        };
        for kind in ["eventstream", "projection", "saga"] {
            let crd = workspace_root().join(format!("crds/{kind}.yaml"));
            world.kubectl(&format!("create -f {}", crd.display())).await;
        }
        world
            .kubectl("wait --for=condition=Established crd --all")
            .await;
        world.kubectl("create namespace shop").await;
        world
    }

    async fn kubectl(&self, line: &str) -> String {
        let mut kubectl = self.plane.kubectl().unwrap();
        let output = kubectl
            .current_dir(self.shell.path())
            .args(line.split_whitespace())
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "kubectl {line}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    async fn apply(&self, manifest: &str) {
        self.shell.write("manifest.yaml", manifest);
        self.kubectl("apply -f manifest.yaml").await;
    }

    /// With workers of an image.
    fn operator(&self, image: &str) -> Process {
        let config =
            json!({"nats": Connection::plain(&self.server.url()), "workers": {"image": image}});
        self.shell.write("operator.yaml", &config.to_string());
        Process::builder(program("tidemill-operator", "tidemill-operator").unwrap())
            .arg("--config")
            .arg(self.shell.path().join("operator.yaml"))
            .args([
                "--listen",
                "127.0.0.1:0",
                "--namespace",
                "default",
                "--pod",
                image,
            ])
            .env("KUBECONFIG", self.plane.kubeconfig())
            .spawn()
            .unwrap()
    }

    /// The operator's configuration as the chart writes it.
    async fn configuration(&self, name: &str, cluster_id: &str) {
        let map = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "tidemill-operator"}},
            "data": {"config.yaml": format!("clusterId: {cluster_id}\nnats: {{}}\n")},
        });
        self.apply(&map.to_string()).await;
    }

    /// A command line with NATS and the cluster.
    fn line(&self, line: &str) -> String {
        let (url, file) = (self.server.url(), self.plane.kubeconfig().display());
        format!("{line} --nats {url} --kubeconfig {file}")
    }

    async fn run(&self, line: &str) -> Ran {
        let mut ran = tokio::task::block_in_place(|| self.shell.run(&self.line(line)));
        ran.line = line.to_owned();
        ran
    }

    fn spawn(&self, line: &str, stdin: Stdio) -> Child {
        let mut command = self.shell.command(&self.line(line));
        command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// Names of the streams that `orphans list` shows.
    async fn orphans(&self, more: &str) -> Vec<String> {
        let ran = self.run(&format!("orphans list -o json {more}")).await.ok();
        let rows = ran.json();
        let rows = rows.as_array().unwrap().iter();
        rows.map(|row| row["stream"].as_str().unwrap().to_owned())
            .collect()
    }

    async fn has(&self, stream: &str) -> bool {
        self.nats.stream_state(stream).await.is_ok()
    }

    async fn wait_for(&self, stream: &str) {
        let there = within(CAP, async || self.nats.stream_state(stream).await.map(drop));
        there.await.unwrap();
    }

    async fn object(&self, kind: &str, name: &str) -> Value {
        let line = format!("get {kind} {name} -n shop -o json");
        serde_json::from_str(&self.kubectl(&line).await).unwrap()
    }

    /// Waits for `Ready` with a reason.
    async fn expect(&self, kind: &str, name: &str, reason: &str) {
        let seen = within(CAP, async || {
            let object = self.object(kind, name).await;
            let conditions = object["status"]["conditions"].as_array().cloned();
            let mut conditions = conditions.into_iter().flatten();
            match conditions.any(|one| one["type"] == "Ready" && one["reason"] == reason) {
                true => Ok(()),
                false => Err(object["status"].to_string()),
            }
        });
        seen.await.unwrap();
    }

    /// What a Deployment controller would say once all its pods are ready.
    async fn pods_are_ready(&self, name: &str) {
        let generation = &self.object("deployment", name).await["metadata"]["generation"];
        let status = json!({"status": {
            "observedGeneration": generation, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1,
        }});
        self.shell.write("status.json", &status.to_string());
        let patch = "--subresource status --type merge --patch-file status.json";
        self.kubectl(&format!("patch deployment {name} -n shop {patch}"))
            .await;
    }

    /// A kubeconfig, whose user may do what a role lets it, or nothing; its context has the namespace `shop`.
    async fn somebody(&self, name: &str, role: Option<&str>) -> String {
        self.kubectl(&format!("create serviceaccount {name}")).await;
        if let Some(role) = role {
            let bind = "create clusterrolebinding";
            self.kubectl(&format!(
                "{bind} {name} --clusterrole {role} --serviceaccount default:{name}"
            ))
            .await;
        }
        let token = self.kubectl(&format!("create token {name}")).await;
        let text = std::fs::read_to_string(self.plane.kubeconfig()).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config["users"][0]["user"] = json!({"token": token.trim()});
        config["contexts"][0]["name"] = json!(name);
        config["contexts"][0]["context"]["namespace"] = json!("shop");
        config["current-context"] = json!(name);
        self.shell.write(name, &config.to_string());
        name.to_owned()
    }
}

fn output(child: Child) -> (Option<i32>, String) {
    let output = tokio::task::block_in_place(|| child.wait_with_output()).unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

/// A terminal, near and far end.
fn terminal() -> (File, File) {
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&near).unwrap();
    unlockpt(&near).unwrap();
    let name = ptsname(&near, Vec::new()).unwrap();
    let path = std::ffi::OsStr::from_bytes(name.as_bytes());
    let far = OpenOptions::new().read(true).write(true).open(path);
    (File::from(near), far.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_what_no_resource_stands_for() {
    let world = World::start().await;
    let _operator = world.operator("worker:1");
    world.apply(&stream("orders")).await;
    world.apply(&stream("old")).await;
    world.apply(PROJECTION).await;
    let rows = "KV_shop_status_rows";
    let parked = "shop_status_projection_parked";
    for stream in ["shop_orders", "shop_old", rows, parked] {
        world.wait_for(stream).await;
    }
    world.expect("eventstream", "old", "InForce").await;
    world
        .expect("projection", "status", "WorkersNotReady")
        .await;
    // Another cluster's, with the name of nothing that is here; and somebody else's.
    let mark = Mark::event_stream("other", "shop", "ghost", "i-1");
    let ghost = StreamPlan::new("shop_ghost", vec!["shop.ghost.>".to_owned()], mark);
    provision::create(&world.nats, "shop_ghost", &ghost.config())
        .await
        .unwrap();
    let plain = json!({"name": "plain", "subjects": ["plain"]});
    provision::create(&world.nats, "plain", plain.as_object().unwrap())
        .await
        .unwrap();

    // Whose id isn't known has no orphans that are known.
    let ran = world.run("orphans list").await;
    assert_eq!(ran.code, Some(3), "{}", ran.seen());
    assert!(ran.stderr.contains("--cluster-id"), "{}", ran.seen());
    world.configuration("config", "main").await;
    let none = Vec::<String>::new();
    assert_eq!(world.orphans("").await, none);

    world
        .kubectl("delete eventstream/old projection/status -n shop --wait")
        .await;
    assert_eq!(world.orphans("").await, [rows, "shop_old", parked]);
    assert_eq!(world.orphans("-n elsewhere").await, none);
    let people = world.run("orphans list").await.ok();
    assert!(people.stdout.contains("shop/old"), "{}", people.seen());

    // What is none is refused, and with it everything else of the line.
    for (name, why) in [
        ("shop_orders", "EventStream shop/orders is there"),
        ("shop_ghost", "mark of cluster `other`"),
        ("plain", "no resource's mark"),
    ] {
        let ran = world
            .run(&format!("orphans delete shop_old {name} --yes"))
            .await;
        assert_eq!(ran.code, Some(5), "{}", ran.seen());
        assert!(ran.stderr.contains(why), "{}", ran.seen());
    }
    let ran = world.run("orphans delete --all").await;
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    assert!(world.has("shop_old").await && world.has(rows).await);

    // While a person thinks, a resource is applied and a stream made anew: they stay.
    let (mut near, far) = terminal();
    let mut asking = world.spawn("orphans delete --all", far.into());
    let mut question = Vec::new();
    let stderr = asking.stderr.as_mut().unwrap();
    while !question.ends_with(b"[y/N] ") {
        let mut byte = [0];
        stderr.read_exact(&mut byte).unwrap();
        question.push(byte[0]);
    }
    let question = String::from_utf8(question).unwrap();
    assert!(question.contains("Delete 3 streams"), "{question}");
    world.apply(&stream("old")).await;
    provision::remove(&world.nats, parked).await.unwrap();
    let mark = Mark {
        kind: "projection".to_owned(),
        name: "status".to_owned(),
        ..Mark::event_stream("main", "shop", "status", "i-2")
    };
    let anew = StreamPlan::new(parked, vec!["anew".to_owned()], mark);
    provision::create(&world.nats, parked, &anew.config())
        .await
        .unwrap();
    near.write_all(b"y\n").unwrap();
    let (code, said) = output(asking);
    assert_eq!(code, Some(5), "{said}");
    assert!(
        said.contains("EventStream shop/old is there by now"),
        "{said}"
    );
    assert!(said.contains("isn't the stream any more"), "{said}");
    assert!(world.has("shop_old").await && world.has(parked).await);
    assert!(!world.has(rows).await);

    // The rest goes, and what is counted of it; nobody else's.
    let counters = KvBucket::new(&Publisher::new(&world.nats, 1), COUNTERS_BUCKET);
    for name in ["status", "stays"] {
        let count = KvWrite {
            key: format!("shop.projection.{name}.0"),
            value: Some("{}".into()),
            ..KvWrite::default()
        };
        counters.write(count).await.unwrap();
    }
    let deleted = world.run("orphans delete --all --yes -o json").await.ok();
    assert_eq!(deleted.json(), json!([{"stream": parked, "deleted": true}]));
    assert_eq!(world.orphans("").await, none);
    assert!(
        counters
            .get("shop.projection.status.0")
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        counters
            .get("shop.projection.stays.0")
            .await
            .unwrap()
            .is_some()
    );
    for stream in ["shop_ghost", "shop_orders", "plain"] {
        assert!(world.has(stream).await, "{stream}");
    }

    // A cluster that was taken down has orphans only; one that is alive has none here.
    assert_eq!(world.orphans("--cluster-id other").await, ["shop_ghost"]);
    let owners = KvBucket::new(&Publisher::new(&world.nats, 1), OWNERS_BUCKET);
    let beat = KvWrite {
        key: cluster_key("other"),
        value: Some(r#"{"uid": "of-another"}"#.into()),
        ..KvWrite::default()
    };
    owners.write(beat).await.unwrap();
    let ran = world
        .run("orphans delete --all --yes --cluster-id other")
        .await;
    assert_eq!(ran.code, Some(5), "{}", ran.seen());
    assert!(ran.stderr.contains("is alive"), "{}", ran.seen());
    assert!(world.has("shop_ghost").await);

    // Resources that can't be listed aren't gone.
    let nobody = world.somebody("nobody", None).await;
    let url = world.server.url();
    let line =
        format!("orphans delete --all --yes --cluster-id main --kubeconfig {nobody} --nats {url}");
    let ran = tokio::task::block_in_place(|| world.shell.run(&line));
    assert_eq!(ran.code, Some(5), "{}", ran.seen());
    world.kubectl("delete crd eventstreams.tidemill.dev").await;
    let ran = world.run("orphans delete --all --yes").await;
    assert_eq!(ran.code, Some(1), "{}", ran.seen());
    assert!(
        ran.stderr.contains("doesn't know EventStreams"),
        "{}",
        ran.seen()
    );
    assert!(world.has("shop_orders").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_rolled_out_and_held_sagas_go_on() {
    let world = World::start().await;
    let mut operator = world.operator("worker:1");
    world.apply(&stream("orders")).await;
    world.apply(PROJECTION).await;
    world
        .expect("projection", "status", "WorkersNotReady")
        .await;
    let deployment = "tidemill-projection-status";
    world.pods_are_ready(deployment).await;
    world.expect("projection", "status", "InForce").await;
    operator.terminate().unwrap();
    operator.wait_exit(CAP).await.unwrap();
    let operator = world.operator("worker:2");

    // A wrong name changes nothing, of the others either.
    let ran = world
        .run("rollout projection/status saga/nothing -n shop")
        .await;
    assert_eq!(ran.code, Some(3), "{}", ran.seen());
    let annotations = &world.object("projection", "status").await["metadata"]["annotations"];
    assert!(
        annotations["tidemill.dev/rollout"].is_null(),
        "{annotations}"
    );

    let waiting = world.spawn("rollout projection/status -n shop", Stdio::null());
    let moved = within(CAP, async || {
        let deployment = world.object("deployment", deployment).await;
        let image = &deployment["spec"]["template"]["spec"]["containers"][0]["image"];
        match image == "worker:2" {
            true => Ok(()),
            false => Err(image.to_string()),
        }
    });
    moved.await.unwrap();
    world
        .expect("projection", "status", "WorkersNotReady")
        .await;
    world.pods_are_ready(deployment).await;
    let (code, said) = output(waiting);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        said,
        "Projection shop/status: 1 of 1 workers are ready; moved from worker:1 to worker:2\n"
    );
    // Asked again it is asked for again, and nothing moves.
    let again = world.run("rollout projection/shop/status").await.ok();
    assert!(
        again.stdout.contains("they run worker:2, as before"),
        "{}",
        again.seen()
    );

    // Unfinished instances, and a log in which nothing has happened for long.
    let counters = KvBucket::new(&Publisher::new(&world.nats, 1), COUNTERS_BUCKET);
    let count = KvWrite {
        key: "shop.saga.fulfilment.0".to_owned(),
        value: Some(r#"{"started": 1, "running": 1}"#.into()),
        ..KvWrite::default()
    };
    counters.write(count).await.unwrap();
    world.apply(SAGA).await;
    world.expect("saga", "fulfilment", "ResumeHeld").await;
    let ran = world.run("rollout saga/fulfilment -n shop").await;
    assert_eq!(ran.code, Some(5), "{}", ran.seen());
    assert!(ran.stderr.contains("ResumeHeld"), "{}", ran.seen());
    let resumed = world.run("saga resume fulfilment -n shop").await.ok();
    let beginning = "Saga shop/fulfilment goes on (WorkersNotReady";
    assert!(resumed.stdout.starts_with(beginning), "{}", resumed.seen());
    let again = world.run("saga resume shop/fulfilment -o json").await.ok();
    assert_eq!(again.json()["wasHeld"], false);

    // Nobody takes it up.
    drop(operator);
    let ran = world
        .run("rollout projection/status -n shop --timeout 1")
        .await;
    assert_eq!(ran.code, Some(4), "{}", ran.seen());
    assert!(ran.stderr.contains("no operator"), "{}", ran.seen());
}

/// A Service of NATS as the chart makes it.
fn service(name: &str) -> String {
    let labels = json!({"app.kubernetes.io/name": "tidemill-nats"});
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop", "labels": labels},
        "spec": {"selector": labels, "ports": [{"name": "client", "port": 4222, "targetPort": "client"}]},
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nats_is_not_found_it_is_said_what_would_do() {
    let world = World::start().await;
    let mut seen = String::new();
    let url = format!("https://127.0.0.1:{}", {
        let text = std::fs::read_to_string(world.plane.kubeconfig()).unwrap();
        let config: Value = serde_json::from_str(&text).unwrap();
        let server = config["clusters"][0]["cluster"]["server"].as_str().unwrap();
        server.rsplit(':').next().unwrap().to_owned()
    });
    let mut look = |line: &str, kubeconfig: &str| {
        let mut command = world.shell.command(line);
        if !kubeconfig.is_empty() {
            command.env("KUBECONFIG", kubeconfig);
        }
        let output = tokio::task::block_in_place(|| command.output()).unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let said = said
            .replace(&url, "https://SERVER")
            .replace(&*world.shell.path().to_string_lossy(), "DIR");
        let code = output.status.code().unwrap();
        seen.push_str(&format!("$ tidemill {line}\n! {said}exit code {code}\n"));
    };
    let there = world.plane.kubeconfig().to_str().unwrap();
    look("saga list", "");
    look("saga list --context staging", there);
    look("saga list --kubeconfig missing.yaml", there);
    look("saga list", there);
    look("saga list --tidemill-namespace shop", there);
    world.apply(&service("a-nats")).await;
    look("saga list", there);
    world.apply(&service("b-nats")).await;
    look("saga list", there);
    let nobody = world.somebody("nobody", None).await;
    look("saga list", &nobody);
    look("saga list --tidemill-namespace tidemill", &nobody);
    look("rollout projection/status", &nobody);
    look("saga resume nothing", there);
    world.shell.write(
        "away",
        &std::fs::read_to_string(there)
            .unwrap()
            .replace(&url, "https://127.0.0.1:1"),
    );
    look("saga list", "away");
    insta::assert_snapshot!("nats_not_found", support::redact(&seen));
}

#[test]
fn by_the_name_of_a_plugin_it_is_kubectls() {
    let shell = Shell::new();
    let plugin = shell.path().join("kubectl-tidemill");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_tidemill"), &plugin).unwrap();
    let said = |args: &[&str]| {
        let output = std::process::Command::new(&plugin)
            .args(args)
            .output()
            .unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let help = said(&["saga", "list", "--help"]);
    assert!(help.contains("Usage: kubectl tidemill saga list"), "{help}");
    assert!(
        help.contains("\n  kubectl tidemill saga list order-fulfilment\n"),
        "{help}"
    );
    let wrong = said(&["saga", "lst"]);
    assert!(wrong.contains("Usage: kubectl tidemill saga"), "{wrong}");
}
