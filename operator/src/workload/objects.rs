//! The objects of the workers: makes them as they shall be, and looks how the workers are.

use super::credentials::{self, issue, provide};
use super::image;
use super::{Parts, Reached, Runs};
use crate::conditions::{Reason, Verdict};
use crate::context::Context;
use crate::error::Error;
use crate::jetstream::JetStream;
use crate::kubernetes::{Child, Kubernetes};
use crate::subset;
use crate::worker::{self, Credentials, Objects, Wanted};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::Value;
use tidemill_core::contract::Contract;
use tidemill_core::names::ResourceId;
use tidemill_crds::common::ROLLOUT;

/// Makes the objects, and looks how the workers are.
pub(super) async fn run<S: JetStream, K: Kubernetes, R: Runs>(
    resource: &R,
    parts: &Parts<'_>,
    contract: &Contract,
    context: &Context<S, K>,
) -> Result<Reached, Error> {
    let meta = resource.meta();
    let owner = OwnerReference {
        api_version: R::api_version(&()).into_owned(),
        kind: R::kind(&()).into_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    let rollout = meta.annotations.as_ref();
    let rollout = rollout.and_then(|annotations| annotations.get(ROLLOUT));
    let contract_name = worker::contract_name(contract);
    let run = image::worker(
        parts.lifecycle,
        resource.recorded().worker,
        &context.workers.image,
        &contract_name,
        rollout.map(String::as_str),
    );
    let issued = issue(contract, &owner.uid, context).await?;
    let earlier = match &issued {
        Some(issued) => provide(issued, &owner, parts, context).await?,
        None => Vec::new(),
    };
    let Objects {
        config_map,
        service_account,
        deployment,
        disruption_budget,
    } = worker::objects(&Wanted {
        contract,
        owner: owner.clone(),
        replicas: parts.replicas,
        run: &run,
        resources: parts.lifecycle.resources.as_ref(),
        defaults: &context.workers,
        credentials: issued.as_ref().map(|issued| Credentials {
            issued,
            earlier: &earlier,
        }),
    });
    ensure(Child::ConfigMap, &config_map, context).await?;
    ensure(Child::ServiceAccount, &service_account, context).await?;
    match &disruption_budget {
        Some(budget) => {
            ensure(Child::PodDisruptionBudget, budget, context).await?;
        }
        None => remove(Child::PodDisruptionBudget, parts.resource, context).await?,
    }
    let present = ensure(Child::Deployment, &deployment, context).await?;
    let workers = Workers::of(&present, parts.replicas);
    if workers.all_are_new() {
        prune(resource, parts.resource, &contract_name, context).await?;
        credentials::prune(&earlier, &service_account, parts.resource, context).await?;
    }
    let outdated = match image::is_outdated(&run, &context.workers.image) {
        true => workers.pods,
        false => 0,
    };
    Ok(Reached {
        pods: Some(workers.pods),
        outdated: Some(outdated),
        worker: Some(run),
        ..Reached::of(workers.verdict())
    })
}

/// What a Deployment says of its pods.
pub(super) struct Workers {
    wanted: u32,
    pods: u32,
    ready: u32,
    updated: u32,
    /// Whether its controller has seen what is wanted now.
    is_seen: bool,
}

impl Workers {
    pub(super) fn of(deployment: &Value, wanted: u32) -> Workers {
        let number = |pointer: &str| {
            let number = deployment.pointer(pointer);
            number.and_then(Value::as_u64).unwrap_or(0)
        };
        let count = |pointer: &str| u32::try_from(number(pointer)).unwrap_or(u32::MAX);
        Workers {
            wanted,
            pods: count("/status/replicas"),
            ready: count("/status/readyReplicas"),
            updated: count("/status/updatedReplicas"),
            is_seen: number("/status/observedGeneration") >= number("/metadata/generation"),
        }
    }

    /// No pod runs what was wanted before.
    fn all_are_new(&self) -> bool {
        self.is_seen && self.updated == self.pods && self.pods == self.wanted
    }

    pub(super) fn are_ready(&self) -> bool {
        self.is_seen && self.ready.min(self.updated) >= self.wanted
    }

    fn verdict(&self) -> Verdict {
        let message = format!("{} of {} workers are ready", self.ready, self.wanted);
        Verdict::new(
            match self.are_ready() {
                true => Reason::InForce,
                false => Reason::WorkersNotReady,
            },
            message,
        )
    }
}

/// Deletes the contracts of before, once no pod refers to them. Once per contract is enough.
async fn prune<S: JetStream, K: Kubernetes, R: Runs>(
    resource: &R,
    id: &ResourceId,
    present: &str,
    context: &Context<S, K>,
) -> Result<(), Error> {
    let uid = resource.meta().uid.clone().unwrap_or_default();
    if context.is_pruned(&uid, present) {
        return Ok(());
    }
    let labels = worker::selector(id);
    let contracts = context
        .kubernetes
        .children(Child::ConfigMap, &id.namespace, &labels)
        .await?;
    let old: Vec<String> = contracts
        .into_iter()
        .filter(|name| name != present)
        .collect();
    if !old.is_empty() {
        let pods = context.kubernetes.pods(&id.namespace, &labels).await?;
        for name in old {
            if pods.iter().any(|pod| pod.config_maps.contains(&name)) {
                // Looked at again when that pod is gone: the Deployment tells.
                return Ok(());
            }
            context.fence()?;
            context
                .kubernetes
                .delete(Child::ConfigMap, &id.namespace, &name)
                .await?;
        }
    }
    context.pruned(&uid, present);
    Ok(())
}

/// Makes a child so, if it isn't; gives it as it is then.
async fn ensure<S: JetStream, K: Kubernetes>(
    kind: Child,
    wanted: &Value,
    context: &Context<S, K>,
) -> Result<Value, Error> {
    let text = |pointer: &str| {
        wanted
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    let present = context.kubernetes.child(kind, namespace, name).await?;
    match present {
        Some(present) if subset::says(&present, wanted) => Ok(present),
        _ => {
            context.fence()?;
            Ok(context.kubernetes.apply(kind, wanted).await?)
        }
    }
}

/// Deletes the child that has the name of the workers, if there is one.
pub(super) async fn remove<S: JetStream, K: Kubernetes>(
    kind: Child,
    resource: &ResourceId,
    context: &Context<S, K>,
) -> Result<(), Error> {
    let (namespace, name) = (&resource.namespace, worker::name(resource));
    if context
        .kubernetes
        .child(kind, namespace, &name)
        .await?
        .is_some()
    {
        context.fence()?;
        context.kubernetes.delete(kind, namespace, &name).await?;
    }
    Ok(())
}
