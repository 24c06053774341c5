//! What runs a Projection or a Saga in Kubernetes: the objects of its workers. Pure.
//!
//! | object | name | what for |
//! |---|---|---|
//! | ConfigMap | `tidemill-<kind>-<name>-<hash>` | the contract, immutable, named by its content |
//! | ServiceAccount | `tidemill-<kind>-<name>` | an identity without rights and without a token |
//! | Deployment | the same | the workers |
//! | PodDisruptionBudget | the same | with more than one worker: one at a time goes |
//! | Secret | `tidemill-<kind>-<name>-nats-<hash>` | credentials of NATS, if the operator makes them ([`crate::credentials`]) |

use crate::credentials::Issued;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tidemill_core::contract::Contract;
use tidemill_core::definition::Revision;
use tidemill_core::names::ResourceId;
use tidemill_crds::common::WorkerStatus;
use tidemill_crds::compile::ContainerResources;

/// What is the same for the workers of all resources.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkerDefaults {
    /// Image of the worker.
    pub image: String,
    /// Requests and limits of its container.
    #[serde(default = "resources")]
    pub resources: Value,
    /// Secret in the resource's namespace with the file `nats.creds`; absent = NATS asks for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret: Option<String>,
}

/// What quotas and restricted namespaces accept. Canonical quantities, as the API server gives them back.
fn resources() -> Value {
    json!({
        "requests": {"cpu": "50m", "memory": "64Mi"},
        "limits": {"cpu": "1", "memory": "512Mi"},
    })
}

/// What the workers of one resource need.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// What they run, with the connection as they reach it.
    pub contract: &'a Contract,
    /// The resource that owns the objects.
    pub owner: OwnerReference,
    /// How many.
    pub replicas: u32,
    /// What they run, as it is recorded per resource: it doesn't follow the operator's image by itself (`workerUpdate`).
    pub run: &'a WorkerStatus,
    /// Requests and limits of this resource's own.
    pub resources: Option<&'a ContainerResources>,
    /// For all resources.
    pub defaults: &'a WorkerDefaults,
    /// Credentials that the operator made for them.
    pub credentials: Option<Credentials<'a>>,
}

/// Credentials that the operator made for the workers of one resource.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// Those in force.
    pub issued: &'a Issued,
    /// Names of the Secrets of before, which pods may still refer to.
    pub earlier: &'a [String],
}

/// The objects of the workers, to be applied in this order.
#[derive(Clone, Debug, PartialEq)]
pub struct Objects {
    /// With the contract.
    pub config_map: Value,
    /// Without a token.
    pub service_account: Value,
    /// The workers.
    pub deployment: Value,
    /// `None` = one worker or none, of which none could ever go.
    pub disruption_budget: Option<Value>,
}

/// Where the contract is in the pod.
const CONTRACT_FOLDER: &str = "/etc/tidemill/contract";
/// Where the credentials are in the pod.
pub const CREDENTIALS_FOLDER: &str = "/etc/tidemill/nats";
/// Uid and gid of the worker: nobody in particular.
const USER: u32 = 65_532;
/// Workers finish what is in flight, 15 s at most (docs/guide/operations.md).
const GRACE_SECONDS: u32 = 30;
const PORT: u32 = 9090;
/// Annotation of the ServiceAccount: [`Credentials::earlier`], since Secrets can't be listed. Not of the Deployment, whose controller would
/// have to see each change.
const EARLIER: &str = "tidemill.dev/earlier-credentials";

/// Labels that all objects of a resource's workers carry, and by which they are found.
pub fn labels(resource: &ResourceId) -> BTreeMap<String, String> {
    let kind = resource.kind.to_string();
    [
        ("app.kubernetes.io/name", "tidemill-worker".to_owned()),
        (
            "app.kubernetes.io/instance",
            format!("{kind}-{}", resource.name),
        ),
        (
            "app.kubernetes.io/managed-by",
            "tidemill-operator".to_owned(),
        ),
        ("tidemill.dev/kind", kind),
        ("tidemill.dev/name", resource.name.clone()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// Name of the ServiceAccount, the Deployment and the budget.
pub fn name(resource: &ResourceId) -> String {
    format!("tidemill-{}-{}", resource.kind, resource.name)
}

/// Name of the ConfigMap of a contract: another content, another name (64 bits of its SHA-256).
pub fn contract_name(contract: &Contract) -> String {
    format!("{}-{}", name(&contract.resource), Revision::of(contract))
}

/// What names of Secrets with credentials for the workers begin with.
pub fn credentials_prefix(resource: &ResourceId) -> String {
    format!("{}-nats-", name(resource))
}

/// Names of the Secrets with credentials that a ServiceAccount remembers and a Deployment refers to, but for this one. Others than those of
/// the resource are none: who may only change these objects has no Secret deleted.
pub fn earlier_credentials(
    account: Option<&Value>,
    deployment: Option<&Value>,
    resource: &ResourceId,
    now: &str,
) -> Vec<String> {
    let annotations = account.and_then(|account| account.pointer("/metadata/annotations"));
    let remembered = annotations.and_then(|annotations| annotations.get(EARLIER));
    let remembered = remembered.and_then(Value::as_str).unwrap_or_default();
    let prefix = credentials_prefix(resource);
    let mut names: Vec<String> = remembered
        .split(',')
        .chain(deployment.and_then(mounted_credentials))
        .filter(|name| name.starts_with(&prefix) && *name != now)
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The annotations of a ServiceAccount that remembers these.
pub fn remember_credentials(earlier: &[impl AsRef<str>]) -> Value {
    let names: Vec<&str> = earlier.iter().map(AsRef::as_ref).collect();
    json!({EARLIER: names.join(",")})
}

/// The Secret with credentials that a Deployment's pods refer to.
pub fn mounted_credentials(deployment: &Value) -> Option<&str> {
    let volumes = deployment.pointer("/spec/template/spec/volumes")?;
    let names = volumes.as_array()?.iter();
    let mut names = names.filter_map(|volume| volume.pointer("/secret/secretName")?.as_str());
    names.next()
}

/// Makes the objects.
pub fn objects(wanted: &Wanted<'_>) -> Objects {
    let resource = &wanted.contract.resource;
    let contract = wanted.contract.to_json();
    let (name, contract_name) = (name(resource), &wanted.run.contract);
    let labels = labels(resource);
    let metadata = |name: &str| {
        json!({
            "name": name,
            "namespace": resource.namespace,
            "labels": labels,
            "ownerReferences": [wanted.owner],
        })
    };
    Objects {
        config_map: json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata(contract_name),
            "immutable": true,
            "data": {"contract.json": contract},
        }),
        service_account: json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": match wanted.credentials {
                None => metadata(&name),
                Some(credentials) => {
                    let mut metadata = metadata(&name);
                    metadata["annotations"] = remember_credentials(credentials.earlier);
                    metadata
                }
            },
            "automountServiceAccountToken": false,
        }),
        deployment: json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata(&name),
            "spec": {
                "replicas": wanted.replicas,
                "selector": {"matchLabels": selector(resource)},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": pod(wanted, &name),
                },
            },
        }),
        disruption_budget: (wanted.replicas > 1).then(|| {
            json!({
                "apiVersion": "policy/v1",
                "kind": "PodDisruptionBudget",
                "metadata": metadata(&name),
                "spec": {
                    "maxUnavailable": 1,
                    "selector": {"matchLabels": selector(resource)},
                },
            })
        }),
    }
}

/// The labels that say which pods are this resource's: they can't be changed later.
pub fn selector(resource: &ResourceId) -> BTreeMap<String, String> {
    let mut labels = labels(resource);
    labels.retain(|key, _| key.starts_with("tidemill.dev/"));
    labels
}

fn pod(wanted: &Wanted<'_>, account: &str) -> Value {
    let contract = &wanted.run.contract;
    let mut volumes = vec![json!({"name": "contract", "configMap": {"name": contract}})];
    let mut mounts =
        vec![json!({"name": "contract", "mountPath": CONTRACT_FOLDER, "readOnly": true})];
    let issued = wanted
        .credentials
        .map(|credentials| &credentials.issued.name);
    if let Some(secret) = issued.or(wanted.defaults.credentials_secret.as_ref()) {
        volumes.push(json!({"name": "nats", "secret": {"secretName": secret}}));
        mounts.push(json!({"name": "nats", "mountPath": CREDENTIALS_FOLDER, "readOnly": true}));
    }
    let probe = |path: &str| json!({"httpGet": {"path": path, "port": "health"}});
    json!({
        "serviceAccountName": account,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [{
            "name": "worker",
            "image": wanted.run.image,
            "env": [
                {"name": "TIDEMILL_CONTRACT", "value": format!("{CONTRACT_FOLDER}/contract.json")},
                {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            ],
            "ports": [{"name": "health", "containerPort": PORT}],
            "livenessProbe": probe("/livez"),
            "readinessProbe": probe("/readyz"),
            "resources": wanted.resources.map_or_else(|| wanted.defaults.resources.clone(), |own| json!(own)),
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": mounts,
        }],
        "volumes": volumes,
    })
}

#[cfg(test)]
mod tests;
