//! What workers run: Projection and Saga → streams, contract, Deployment. The two kinds differ in what they compile to and in their
//! status; everything else is here.
//!
//! compile (pure) → streams that it names → tenancy (pure) → its own streams → starts → objects → status.

use crate::conditions::{Class, Reason, Verdict, conditions};
use crate::context::Context;
use crate::error::Error;
use crate::jetstream::JetStream;
use crate::kubernetes::{Child, Kubernetes, Object};
use crate::stream::{self, Known, Policy, Settled};
use crate::subset;
use crate::worker::{self, Objects, Wanted};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::contract::{CONTRACT_VERSION, Contract, StreamBinding, Workload};
use tidemill_core::names::ResourceId;
use tidemill_crds::common::POSITION_MAX;
use tidemill_crds::compile::together::Streams;
use tidemill_crds::compile::{self, StreamUse};
use tidemill_crds::{Problem, eventstream::EventStream};
use tidemill_nats::provision::StreamPlan;
use tidemill_provision::Installation;

/// How often a resource is looked at that nobody said anything about.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// A kind that workers run.
pub trait Runs: Object {
    /// Its plan.
    type Plan: Send + Sync;
    /// Its status.
    type Status: Serialize + PartialEq + Send + Sync;

    /// Compiles it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    fn compile(&self) -> Result<Self::Plan, Vec<Problem>>;

    /// What is the same for both kinds.
    fn parts(plan: &Self::Plan) -> Parts<'_>;

    /// What its workers are told of the streams it names.
    ///
    /// # Errors
    /// A stream isn't there, isn't open to its namespace, or can't be used so.
    fn bind(plan: &Self::Plan, streams: &Streams) -> Result<Vec<StreamBinding>, Vec<Problem>>;

    /// Its own streams, in the order in which they are made.
    fn streams(
        plan: &Self::Plan,
        installation: &Installation,
        incarnation: &str,
    ) -> [StreamPlan; 2];

    /// Its conditions.
    fn conditions(&self) -> &[Condition];

    /// Its status with other conditions and what is known of its workers; `None` = nothing was compiled, so the rest stays as it is.
    fn status(
        &self,
        conditions: Vec<Condition>,
        seen: Option<&Seen<'_, Self::Plan>>,
    ) -> Self::Status;

    /// Its status as it is.
    fn present(&self) -> Option<&Self::Status>;
}

/// What is the same for both kinds.
#[derive(Debug)]
pub struct Parts<'a> {
    /// Its name everywhere in NATS.
    pub resource: &'a ResourceId,
    /// The streams that the definition names.
    pub streams: &'a [StreamUse],
    /// How many workers.
    pub replicas: u32,
    /// What they run.
    pub workload: Workload,
}

/// What a status is made of.
#[derive(Debug)]
pub struct Seen<'a, P> {
    /// The plan.
    pub plan: &'a P,
    /// Pods that there are.
    pub pods: u32,
    /// What the workers have counted, partition by partition, as it is stored.
    pub counters: Vec<Vec<u8>>,
    /// Label selector of the pods, for autoscalers.
    pub selector: String,
}

/// How far one reconcile came.
struct Reached {
    verdict: Verdict,
    pods: u32,
    error: Option<Error>,
}

impl Reached {
    fn stopped(reason: Reason, message: impl Into<String>) -> Reached {
        Reached {
            verdict: Verdict::new(reason, message),
            pods: 0,
            error: None,
        }
    }
}

/// Makes everything as the resource says, and the status as it is; gives when to look again.
///
/// # Errors
/// [`Error`]: it is tried again by the error's class. What is wrong with the resource is in its status.
pub async fn reconcile<S: JetStream, K: Kubernetes, R: Runs>(
    resource: Arc<R>,
    context: Arc<Context<S, K>>,
) -> Result<Duration, Error> {
    if resource.meta().deletion_timestamp.is_some() {
        // Streams and rows stay (`deletionPolicy: Retain`); the objects go with their owner.
        return Ok(LOOK_INTERVAL);
    }
    let plan = resource.compile();
    let Reached {
        verdict,
        pods,
        error,
    } = match &plan {
        Ok(plan) => reach(&*resource, plan, &context).await?,
        Err(problems) => Reached::stopped(Reason::Invalid, all(problems)),
    };
    let counters = match &plan {
        Ok(plan) if error.is_none() => context.jetstream.counters(R::parts(plan).resource).await?,
        _ => Vec::new(),
    };
    let seen = plan.as_ref().ok().map(|plan| Seen {
        plan,
        pods,
        counters,
        selector: selector(R::parts(plan).resource),
    });
    let generation = resource.meta().generation;
    let now = Timestamp::now();
    let wanted = conditions(resource.conditions(), &verdict, generation, now);
    let wanted = resource.status(wanted, seen.as_ref());
    if resource.present() != Some(&wanted) {
        context.fence()?;
        context.kubernetes.write_status(&*resource, &wanted).await?;
    }
    error.map_or(Ok(LOOK_INTERVAL), Err)
}

async fn reach<S: JetStream, K: Kubernetes, R: Runs>(
    resource: &R,
    plan: &R::Plan,
    context: &Context<S, K>,
) -> Result<Reached, Error> {
    let Parts {
        resource: id,
        streams: uses,
        replicas,
        workload,
    } = R::parts(plan);
    let bindings = match R::bind(plan, &named(uses, context).await?) {
        Ok(bindings) => bindings,
        Err(problems) => return Ok(Reached::stopped(Reason::StreamUnusable, all(&problems))),
    };
    let own = R::streams(plan, &context.installation, &(context.incarnation)());
    for wanted in &own {
        // A bucket is named without the prefix of its stream.
        let name = wanted.name.strip_prefix("KV_").unwrap_or(&wanted.name);
        if let Err(error) = context.tenancy.check(&id.namespace, name, []) {
            return Ok(Reached::stopped(Reason::NotAllowed, error.to_string()));
        }
    }
    context.shared_buckets().await?;
    // The parked stream pins the name of the other, so it is made last: a name that can't be had can still be changed.
    let [parked, main] = &own;
    if let Some(verdict) = stream::refused(parked, context).await? {
        return Ok(Reached {
            verdict,
            pods: 0,
            error: None,
        });
    }
    for wanted in [main, parked] {
        let policy = Policy::default();
        let Settled { verdict, error, .. } =
            stream::settle(resource, wanted, policy, &Known::default(), context).await?;
        if verdict.reason.class() != Class::Ready {
            return Ok(Reached {
                verdict,
                pods: 0,
                error: error.map(Error::from),
            });
        }
    }
    let contract = Contract {
        version: CONTRACT_VERSION,
        resource: id.clone(),
        connection: context.worker_connection.clone(),
        streams: bindings,
        workload,
    };
    context.fence()?;
    context.jetstream.remember_starts(&contract).await?;
    run(resource, &contract, replicas, context).await
}

/// The streams that a definition names, as far as they are there.
async fn named<S: JetStream, K: Kubernetes>(
    uses: &[StreamUse],
    context: &Context<S, K>,
) -> Result<Streams, Error> {
    let mut streams = Streams::new();
    for used in uses {
        if streams.contains_key(&used.stream) {
            continue;
        }
        let found: Option<EventStream> = context.kubernetes.event_stream(&used.stream).await?;
        // One that doesn't compile isn't there for those who name it: its own status says why.
        if let Some(plan) = found.and_then(|found| compile::event_stream(&found).plan) {
            streams.insert(used.stream.clone(), plan);
        }
    }
    Ok(streams)
}

/// Makes the objects, and looks how the workers are.
async fn run<S: JetStream, K: Kubernetes, R: Runs>(
    resource: &R,
    contract: &Contract,
    replicas: u32,
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
    let wanted = Wanted {
        contract,
        owner,
        replicas,
        image: &context.workers.image,
        defaults: &context.workers,
    };
    let Objects {
        config_map,
        service_account,
        deployment,
        disruption_budget,
    } = worker::objects(&wanted);
    ensure(Child::ConfigMap, &config_map, context).await?;
    ensure(Child::ServiceAccount, &service_account, context).await?;
    match &disruption_budget {
        Some(budget) => {
            ensure(Child::PodDisruptionBudget, budget, context).await?;
        }
        None => remove(Child::PodDisruptionBudget, &contract.resource, context).await?,
    }
    let present = ensure(Child::Deployment, &deployment, context).await?;
    Ok(workers(present.as_ref(), replicas))
}

/// How the workers are.
fn workers(deployment: Option<&Value>, replicas: u32) -> Reached {
    let number = |pointer: &str| {
        let number = deployment.and_then(|deployment| deployment.pointer(pointer));
        number.and_then(Value::as_u64).unwrap_or(0)
    };
    let (ready, updated) = (
        number("/status/readyReplicas"),
        number("/status/updatedReplicas"),
    );
    let pods = u32::try_from(number("/status/replicas")).unwrap_or(u32::MAX);
    let is_seen = number("/status/observedGeneration") >= number("/metadata/generation");
    let message = format!("{ready} of {replicas} workers are ready");
    let all = ready.min(updated) >= u64::from(replicas) && is_seen && deployment.is_some();
    let reason = match all {
        true => Reason::InForce,
        false => Reason::WorkersNotReady,
    };
    Reached {
        verdict: Verdict::new(reason, message),
        pods,
        error: None,
    }
}

/// Makes a child so, if it isn't; gives it as it was seen.
async fn ensure<S: JetStream, K: Kubernetes>(
    kind: Child,
    wanted: &Value,
    context: &Context<S, K>,
) -> Result<Option<Value>, Error> {
    let text = |pointer: &str| {
        wanted
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    let present = context.kubernetes.child(kind, namespace, name).await?;
    if present
        .as_ref()
        .is_none_or(|present| !subset::says(present, wanted))
    {
        context.fence()?;
        context.kubernetes.apply(kind, wanted).await?;
    }
    Ok(present)
}

async fn remove<S: JetStream, K: Kubernetes>(
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

/// A number as a status holds it: exactly, for every JSON reader.
pub fn shown(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX).min(POSITION_MAX)
}

fn all(problems: &[Problem]) -> String {
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    problems.join("; ")
}

fn selector(resource: &ResourceId) -> String {
    let labels = worker::selector(resource);
    let labels: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    labels.join(",")
}
