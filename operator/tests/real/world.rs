//! A cluster without nodes, NATS, and operators as tasks.

use crate::credentials::{issue, text};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, CustomResourceExt};
use serde::Serialize;
use serde_json::{Value, json};
use std::time::Duration;
use tidemill_core::contract::Connection;
use tidemill_crds::eventstream::EventStream;
use tidemill_crds::projection::Projection;
use tidemill_crds::saga::Saga;
use tidemill_nats::{Credentials, Nats};
use tidemill_operator::config::Config;
use tidemill_operator::credentials::{self, Issue};
use tidemill_operator::kubernetes::Object;
use tidemill_operator::runtime::Runtime;
use tidemill_service::{Health, Metrics};
use tidemill_testbed::NatsServer;
use tidemill_testbed::wait::within;
use tidemill_testbed_cluster::ControlPlane;
use tokio_util::sync::CancellationToken;

pub(crate) const CAP: Duration = Duration::from_secs(180);

/// A cluster, NATS, and operators as tasks.
pub(crate) struct World {
    pub(crate) plane: ControlPlane,
    pub(crate) url: String,
    server: Option<NatsServer>,
    pub(crate) client: Client,
    pub(crate) nats: Nats,
    /// How its operators make credentials, if they do.
    issue: Option<Issue>,
}

/// One namespace of it.
pub(crate) struct In {
    client: Client,
    namespace: &'static str,
}

pub(crate) struct Operator {
    stop: CancellationToken,
    pub(crate) health: Health,
    metrics: Metrics,
    task: tokio::task::JoinHandle<()>,
}

impl World {
    pub(crate) async fn start() -> World {
        let (plane, server) = tokio::join!(ControlPlane::start(), NatsServer::start());
        let (plane, server) = (plane.unwrap(), server.unwrap());
        let client = plane.client().await.unwrap();
        let crds = [EventStream::crd(), Projection::crd(), Saga::crd()];
        plane.install(crds).await.unwrap();
        World::of(plane, server, client).await
    }

    /// With a server that asks for credentials, which the operators make. What is seen of NATS is seen as admin.
    pub(crate) async fn issuing() -> World {
        let plane = ControlPlane::start().await.unwrap();
        let client = plane.client().await.unwrap();
        let crds = [EventStream::crd(), Projection::crd(), Saga::crd()];
        plane.install(crds).await.unwrap();
        // As on a cluster: the server waits for what the operator makes.
        let (issue, somewhere) = (issue(), Connection::plain("nats://127.0.0.1:4222"));
        let made = credentials::prepare(client.clone(), "default", &issue, &somewhere);
        made.await.unwrap();
        let secrets: Api<Secret> = Api::namespaced(client.clone(), "default");
        let auth = text(&secrets, "tidemill-nats-auth", "auth.conf").await;
        let server = NatsServer::builder().config(&auth).start().await.unwrap();
        let admin = text(&secrets, "tidemill-nats-admin", "nats.creds").await;
        World::issued(plane, server, client, &admin).await
    }

    /// Of a server that asks for credentials.
    pub(crate) async fn issued(
        plane: ControlPlane,
        server: NatsServer,
        client: Client,
        admin: &str,
    ) -> World {
        let (url, admin) = (server.url(), Credentials::new(admin));
        let nats = Nats::connect_with(&Connection::plain(&url), Some(&admin), "test").await;
        let world = World {
            plane,
            client,
            nats: nats.unwrap(),
            url,
            server: Some(server),
            issue: Some(issue()),
        };
        world.namespace("shop").await;
        world
    }

    /// A connection of an application.
    pub(crate) async fn app(&self, file: &str) -> Nats {
        let credentials = Credentials::new(file);
        let connection = Connection::plain(&self.url);
        Nats::connect_with(&connection, Some(&credentials), "app")
            .await
            .unwrap()
    }

    /// Of a cluster that knows the kinds.
    pub(crate) async fn of(plane: ControlPlane, server: NatsServer, client: Client) -> World {
        let url = server.url();
        World::with(plane, client, url, Some(server)).await
    }

    /// Another cluster that knows the kinds, with the same NATS.
    pub(crate) async fn beside(&self, plane: ControlPlane, client: Client) -> World {
        World::with(plane, client, self.url.clone(), None).await
    }

    async fn with(
        plane: ControlPlane,
        client: Client,
        url: String,
        server: Option<NatsServer>,
    ) -> World {
        let nats = Nats::connect(&Connection::plain(&url), "test")
            .await
            .unwrap();
        let world = World {
            plane,
            client,
            nats,
            url,
            server,
            issue: None,
        };
        world.namespace("shop").await;
        world
    }

    /// The NATS server, to be stopped and started.
    pub(crate) fn server(&mut self) -> &mut NatsServer {
        self.server.as_mut().unwrap()
    }

    pub(crate) async fn namespace(&self, name: &str) {
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(self.client.clone());
        let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .unwrap();
    }

    pub(crate) async fn operator(&self, pod: &str) -> Operator {
        self.operator_with(pod, json!({})).await
    }

    /// With other settings than the usual.
    pub(crate) async fn operator_with(&self, pod: &str, settings: Value) -> Operator {
        let client = self.plane.client().await.unwrap();
        self.operator_as(client, pod, settings).await
    }

    /// With the rights of a client.
    pub(crate) async fn operator_as(&self, client: Client, pod: &str, settings: Value) -> Operator {
        let connection = Connection::plain(&self.url);
        let mut config = json!({"nats": connection, "workers": {"image": "worker:1"}});
        for (setting, value) in settings.as_object().unwrap() {
            config[setting] = value.clone();
        }
        if self.issue.is_some() {
            config["credentials"] = json!({"prefix": "tidemill-nats"});
        }
        let config: Config = serde_json::from_value(config).unwrap();
        let (issuer, nats) = match &self.issue {
            None => (None, Nats::connect(&config.nats, pod).await.unwrap()),
            Some(issue) => {
                let prepared = credentials::prepare(client.clone(), "default", issue, &config.nats);
                let issuer = prepared.await.unwrap();
                let (connection, credentials) = issuer.operator().unwrap();
                let nats = Nats::connect_with(&connection, Some(&credentials), pod).await;
                (Some(issuer), nats.unwrap())
            }
        };
        let (stop, health) = (CancellationToken::new(), Health::new());
        let metrics = Metrics::new();
        let runtime = Runtime {
            client,
            nats,
            config,
            namespace: "default".to_owned(),
            issuer,
            pod: pod.to_owned(),
            health: health.clone(),
            metrics: metrics.clone(),
        };
        let task = tokio::spawn(runtime.run(stop.clone()));
        Operator {
            stop,
            health,
            metrics,
            task,
        }
    }

    /// A token with which EventStreams, Projections and Sagas can be read, and nothing else.
    pub(crate) async fn account_that_only_reads(&self) -> String {
        let manifest = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader", "namespace": "default"}},
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "reader"},
             "rules": [{"apiGroups": ["tidemill.dev"], "resources": ["*"], "verbs": ["get", "list", "watch"]}]},
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "reader"},
             "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
             "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "default"}]},
        ]});
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("reader.json");
        std::fs::write(&file, manifest.to_string()).unwrap();
        let kubectl = async |args: &[&str]| {
            let mut kubectl = self.plane.kubectl().unwrap();
            let output = kubectl.args(args).output().await.unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        kubectl(&["apply", "-f", file.to_str().unwrap()]).await;
        kubectl(&["create", "token", "reader"]).await
    }

    /// Of one namespace.
    pub(crate) fn at(&self, namespace: &'static str) -> In {
        let client = self.client.clone();
        In { client, namespace }
    }

    pub(crate) fn api<K: Object>(&self) -> Api<K> {
        self.at("shop").api()
    }

    pub(crate) async fn apply<K: Object + Serialize>(&self, name: &str, spec: Value) {
        self.at("shop").apply::<K>(name, spec).await;
    }

    pub(crate) async fn expect<K: Object + Serialize>(&self, name: &str, reason: &str) -> String {
        self.at("shop").expect::<K>(name, reason).await
    }

    pub(crate) async fn config(&self, stream: &str) -> Value {
        self.nats.stream_state(stream).await.unwrap().config
    }
}

impl In {
    pub(crate) fn api<K: Object>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), self.namespace)
    }

    pub(crate) async fn apply<K: Object + Serialize>(&self, name: &str, spec: Value) {
        let patch = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"name": name},
            "spec": spec,
        });
        let params = PatchParams::apply("test").force();
        self.api::<K>()
            .patch(name, &params, &Patch::Apply(patch))
            .await
            .unwrap();
    }

    /// Waits for `Ready` with this reason; gives its message.
    pub(crate) async fn expect<K: Object + Serialize>(&self, name: &str, reason: &str) -> String {
        let seen = within(CAP, async || {
            let found = self.api::<K>().get(name).await;
            let found = found.map_err(|error| error.to_string())?;
            let object = serde_json::to_value(found).unwrap();
            let (status, generation) = (&object["status"], &object["metadata"]["generation"]);
            let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
            let ready = conditions.iter().find(|one| one["type"] == "Ready");
            match ready {
                Some(ready)
                    if ready["reason"] == reason && status["observedGeneration"] == *generation =>
                {
                    Ok(ready["message"].as_str().unwrap().to_owned())
                }
                _ => Err(status.to_string()),
            }
        });
        seen.await
            .unwrap_or_else(|last| panic!("{name} isn't {reason}: {last}"))
    }
}

impl Operator {
    /// What its `/metrics` shows.
    pub(crate) fn metrics(&self) -> String {
        self.metrics.encode().unwrap()
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}
