//! The Secrets with the workers' credentials of NATS, if the operator makes them: made and deleted, never read and never listed. What it may
//! not read nobody reads through it.

use super::Parts;
use super::objects::Workers;
use crate::context::Context;
use crate::credentials::{Issued, of_worker};
use crate::error::Error;
use crate::jetstream::JetStream;
use crate::kubernetes::{Child, Kubernetes};
use crate::worker;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::Value;
use tidemill_core::contract::{Contract, Workload};
use tidemill_core::names::ResourceId;

/// The credentials for a contract; `None` = somebody else makes them.
///
/// Instances go on with the definition that they were started with, and what is stored of a Saga doesn't say which definitions have none
/// left. So its workers have the rights of every definition that is stored, for as long as its data is.
pub(super) async fn issue<S: JetStream, K: Kubernetes>(
    contract: &Contract,
    owner: &str,
    context: &Context<S, K>,
) -> Result<Option<Issued>, Error> {
    let Some(issuer) = &context.issuer else {
        return Ok(None);
    };
    let earlier = match &contract.workload {
        Workload::Projection(_) => Vec::new(),
        Workload::Saga(_) => context.jetstream.definitions(&contract.resource).await?,
    };
    Ok(Some(issuer.worker(contract, earlier, owner)?))
}

/// Has the Secret made, if pods may look for it; gives the names of those of before.
pub(super) async fn provide<S: JetStream, K: Kubernetes>(
    issued: &Issued,
    owner: &OwnerReference,
    parts: &Parts<'_>,
    context: &Context<S, K>,
) -> Result<Vec<String>, Error> {
    let id = parts.resource;
    let name = worker::name(id);
    let kubernetes = &context.kubernetes;
    let child = async |kind| kubernetes.child(kind, &id.namespace, &name).await;
    let account = child(Child::ServiceAccount).await?;
    let present = child(Child::Deployment).await?;
    let mounted = present.as_ref().and_then(worker::mounted_credentials);
    // Whether it is there isn't asked: that takes a right on all Secrets. Pods that run have it; when one of them is missing it is made.
    let workers = Workers::of(present.as_ref().unwrap_or(&Value::Null), parts.replicas);
    if mounted != Some(issued.name.as_str()) || !workers.are_ready() {
        context.fence()?;
        let secret = of_worker(issued, id, owner);
        kubernetes.create(Child::Secret, &secret).await?;
    }
    let (account, present) = (account.as_ref(), present.as_ref());
    Ok(worker::earlier_credentials(
        account,
        present,
        id,
        &issued.name,
    ))
}

/// Deletes the Secrets of before that no pod refers to, and forgets them.
pub(super) async fn prune<S: JetStream, K: Kubernetes>(
    earlier: &[String],
    account: &Value,
    id: &ResourceId,
    context: &Context<S, K>,
) -> Result<(), Error> {
    if earlier.is_empty() {
        return Ok(());
    }
    let kubernetes = &context.kubernetes;
    let pods = kubernetes
        .pods(&id.namespace, &worker::selector(id))
        .await?;
    let is_used = |name: &&String| pods.iter().any(|pod| pod.secrets.contains(*name));
    let (used, unused): (Vec<&String>, Vec<&String>) = earlier.iter().partition(is_used);
    for name in &unused {
        context.fence()?;
        kubernetes
            .delete(Child::Secret, &id.namespace, name)
            .await?;
    }
    if !unused.is_empty() {
        let mut account = account.clone();
        let used: Vec<&str> = used.into_iter().map(String::as_str).collect();
        account["metadata"]["annotations"] = worker::remember_credentials(&used);
        context.fence()?;
        kubernetes.apply(Child::ServiceAccount, &account).await?;
    }
    Ok(())
}
