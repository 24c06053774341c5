//! What reconcilers ask of the API server: a port, so that they are tried against a model as well, and its adapter.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{
    self as core, ConfigMap, ObjectReference, Secret, ServiceAccount,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
};
use kube::core::NamespaceResourceScope;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::future::Future;
use tidemill_core::definition::StreamRef;
use tidemill_crds::compile::together::Labels;
use tidemill_crds::eventstream::EventStream;

/// The field manager of everything that the operator writes.
pub const FIELD_MANAGER: &str = "tidemill-operator";

/// Something that happened to an object, for people: `kubectl describe` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Whether a person should look.
    pub warning: bool,
    /// Stable, CamelCase.
    pub reason: &'static str,
    /// What happened.
    pub note: String,
}

/// A kind that the operator reconciles.
pub trait Object:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}

impl<K> Object for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// `Kind namespace/name`, as errors and logs name it.
pub fn shown<K: Object>(object: &K) -> String {
    let namespace = object.namespace().unwrap_or_default();
    format!("{} {namespace}/{}", K::kind(&()), object.name_any())
}

/// A kind of object that is made for a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Child {
    /// With a worker's contract.
    ConfigMap,
    /// Of the workers.
    ServiceAccount,
    /// The workers.
    Deployment,
    /// One worker at a time goes.
    PodDisruptionBudget,
    /// With a worker's credentials: made and deleted, never read.
    Secret,
}

impl Child {
    fn resource(self) -> ApiResource {
        match self {
            Child::ConfigMap => ApiResource::erase::<ConfigMap>(&()),
            Child::ServiceAccount => ApiResource::erase::<ServiceAccount>(&()),
            Child::Deployment => ApiResource::erase::<Deployment>(&()),
            Child::PodDisruptionBudget => ApiResource::erase::<PodDisruptionBudget>(&()),
            Child::Secret => ApiResource::erase::<Secret>(&()),
        }
    }
}

/// A worker's pod, as far as reconcilers look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Names of the ConfigMaps that it refers to.
    pub config_maps: Vec<String>,
    /// Names of the Secrets that it refers to.
    pub secrets: Vec<String>,
    /// Image of its worker.
    pub image: String,
    /// Whether it has ended for good.
    pub has_ended: bool,
}

impl Pod {
    fn of(pod: core::Pod) -> Pod {
        let phase = pod.status.and_then(|status| status.phase);
        let spec = pod.spec.unwrap_or_default();
        let volumes = spec.volumes.unwrap_or_default();
        let (mut config_maps, mut secrets) = (Vec::new(), Vec::new());
        for volume in volumes {
            config_maps.extend(volume.config_map.map(|config_map| config_map.name));
            secrets.extend(volume.secret.and_then(|secret| secret.secret_name));
        }
        Pod {
            name: pod.metadata.name.unwrap_or_default(),
            config_maps,
            secrets,
            image: spec
                .containers
                .into_iter()
                .find_map(|container| container.image)
                .unwrap_or_default(),
            has_ended: matches!(phase.as_deref(), Some("Succeeded" | "Failed")),
        }
    }
}

/// A namespace, as far as reconcilers look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Whether it is being deleted.
    pub is_going: bool,
    /// Its labels.
    pub labels: Labels,
}

/// Labels as a selector of the API server.
pub fn selector_text(labels: &Labels) -> String {
    let labels: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    labels.join(",")
}

/// The calls of the API server that reconcilers make.
pub trait Kubernetes: Clone + Send + Sync + 'static {
    /// Writes an object's status.
    fn write_status<K: Object>(
        &self,
        object: &K,
        status: &(impl Serialize + Sync),
    ) -> impl Future<Output = Result<(), kube::Error>> + Send;

    /// An EventStream as it is; `None` = there is none.
    fn event_stream(
        &self,
        stream: &StreamRef,
    ) -> impl Future<Output = Result<Option<EventStream>, kube::Error>> + Send;

    /// A child as it is, as JSON; `None` = there is none.
    fn child(
        &self,
        kind: Child,
        namespace: &str,
        name: &str,
    ) -> impl Future<Output = Result<Option<Value>, kube::Error>> + Send;

    /// Makes a child so, by server-side apply; gives it as it is then.
    fn apply(
        &self,
        kind: Child,
        child: &Value,
    ) -> impl Future<Output = Result<Value, kube::Error>> + Send;

    /// Makes a child that never changes; that it is there already is success, and needn't be looked at.
    fn create(
        &self,
        kind: Child,
        child: &Value,
    ) -> impl Future<Output = Result<(), kube::Error>> + Send;

    /// Deletes a child; that it is gone already is success.
    fn delete(
        &self,
        kind: Child,
        namespace: &str,
        name: &str,
    ) -> impl Future<Output = Result<(), kube::Error>> + Send;

    /// Names of the children of one kind that carry these labels.
    fn children(
        &self,
        kind: Child,
        namespace: &str,
        labels: &Labels,
    ) -> impl Future<Output = Result<Vec<String>, kube::Error>> + Send;

    /// The pods that carry these labels.
    fn pods(
        &self,
        namespace: &str,
        labels: &Labels,
    ) -> impl Future<Output = Result<Vec<Pod>, kube::Error>> + Send;

    /// A namespace; `None` = there is none.
    fn namespace(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<Option<Namespace>, kube::Error>> + Send;

    /// Gives an object these finalizers. One that is gone already is success; one that was changed meanwhile is a conflict.
    fn set_finalizers<K: Object>(
        &self,
        object: &K,
        finalizers: &[String],
    ) -> impl Future<Output = Result<(), kube::Error>> + Send;

    /// Records that something happened to an object. Nothing depends on it: that it can't be recorded is only logged.
    fn say<K: Object>(&self, object: &K, said: Said) -> impl Future<Output = ()> + Send;
}

/// The real one.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    recorder: Recorder,
}

impl Cluster {
    /// Of a client; `pod` is who it is, in what it records.
    pub fn new(client: &Client, pod: &str) -> Cluster {
        let reporter = Reporter {
            controller: FIELD_MANAGER.to_owned(),
            instance: Some(pod.to_owned()),
        };
        Cluster {
            client: client.clone(),
            recorder: Recorder::new(client.clone(), reporter),
        }
    }
}

impl Cluster {
    fn api_of(&self, kind: Child, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &kind.resource())
    }
}

impl Kubernetes for Cluster {
    async fn write_status<K: Object>(
        &self,
        object: &K,
        status: &(impl Serialize + Sync),
    ) -> Result<(), kube::Error> {
        let namespace = object.namespace().unwrap_or_default();
        let objects: Api<K> = Api::namespaced(self.client.clone(), &namespace);
        let patch = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "status": status,
        });
        let ours = PatchParams::apply(FIELD_MANAGER).force();
        objects
            .patch_status(&object.name_any(), &ours, &Patch::Apply(patch))
            .await?;
        Ok(())
    }

    async fn event_stream(&self, stream: &StreamRef) -> Result<Option<EventStream>, kube::Error> {
        let streams: Api<EventStream> = Api::namespaced(self.client.clone(), &stream.namespace);
        streams.get_opt(&stream.name).await
    }

    async fn child(
        &self,
        kind: Child,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, kube::Error> {
        let child = self.api_of(kind, namespace).get_opt(name).await?;
        child
            .map(|child| serde_json::to_value(child).map_err(kube::Error::SerdeError))
            .transpose()
    }

    async fn apply(&self, kind: Child, child: &Value) -> Result<Value, kube::Error> {
        let text = |pointer: &str| {
            child
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let ours = PatchParams::apply(FIELD_MANAGER).force();
        let applied = self
            .api_of(kind, namespace)
            .patch(name, &ours, &Patch::Apply(child))
            .await?;
        serde_json::to_value(applied).map_err(kube::Error::SerdeError)
    }

    async fn create(&self, kind: Child, child: &Value) -> Result<(), kube::Error> {
        let child = serde_json::from_value(child.clone());
        let child: DynamicObject = child.map_err(kube::Error::SerdeError)?;
        let namespace = child.namespace().unwrap_or_default();
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        match self.api_of(kind, &namespace).create(&params, &child).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn delete(&self, kind: Child, namespace: &str, name: &str) -> Result<(), kube::Error> {
        let params = DeleteParams::background();
        match self.api_of(kind, namespace).delete(name, &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn children(
        &self,
        kind: Child,
        namespace: &str,
        labels: &Labels,
    ) -> Result<Vec<String>, kube::Error> {
        let params = ListParams::default().labels(&selector_text(labels));
        let found = self.api_of(kind, namespace).list_metadata(&params).await?;
        Ok(found.items.iter().map(ResourceExt::name_any).collect())
    }

    async fn pods(&self, namespace: &str, labels: &Labels) -> Result<Vec<Pod>, kube::Error> {
        let api: Api<core::Pod> = Api::namespaced(self.client.clone(), namespace);
        let params = ListParams::default().labels(&selector_text(labels));
        let found = api.list(&params).await?;
        Ok(found.items.into_iter().map(Pod::of).collect())
    }

    async fn namespace(&self, name: &str) -> Result<Option<Namespace>, kube::Error> {
        let api: Api<core::Namespace> = Api::all(self.client.clone());
        let found = api.get_opt(name).await?;
        Ok(found.map(|found| Namespace {
            is_going: found.metadata.deletion_timestamp.is_some(),
            labels: found.metadata.labels.unwrap_or_default(),
        }))
    }

    async fn set_finalizers<K: Object>(
        &self,
        object: &K,
        finalizers: &[String],
    ) -> Result<(), kube::Error> {
        let namespace = object.namespace().unwrap_or_default();
        let objects: Api<K> = Api::namespaced(self.client.clone(), &namespace);
        // With the version that was seen: nobody else's finalizer is taken away.
        let patch = json!({"metadata": {
            "resourceVersion": object.resource_version(),
            "finalizers": finalizers,
        }});
        let params = PatchParams::default();
        match objects
            .patch(&object.name_any(), &params, &Patch::Merge(patch))
            .await
        {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn say<K: Object>(&self, object: &K, said: Said) {
        let Said {
            warning,
            reason,
            note,
        } = said;
        let event = Event {
            type_: match warning {
                true => EventType::Warning,
                false => EventType::Normal,
            },
            reason: reason.to_owned(),
            note: Some(note),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        let reference: ObjectReference = object.object_ref(&());
        if let Err(error) = self.recorder.publish(&event, &reference).await {
            tracing::warn!(object = object.name_any(), reason, %error, "an event can't be recorded");
        }
    }
}
