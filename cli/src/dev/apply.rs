//! From manifests to streams, buckets and contracts.

use super::limits;
use crate::catalog::stream_of_owner;
use crate::context::api_error;
use crate::error::{CliError, Result, chain};
use crate::manifests::{Declared, Manifests};
use std::collections::{BTreeMap, BTreeSet};
use tidemill_core::contract::{Connection, Contract, StreamBinding};
use tidemill_core::definition::StreamRef;
use tidemill_core::names::ResourceId;
use tidemill_crds::manifest::Plan;
use tidemill_nats::provision::{Loss, Outcome, StreamPlan, ensure, refusal};
use tidemill_nats::{ApiError, Nats};
use tidemill_provision::Installation;
use tidemill_provision::starts::{self, StartError};

/// Cluster id without Kubernetes.
const CLUSTER: &str = "dev";

/// What applying manifests came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Applied {
    /// What each Projection and Saga runs.
    pub(crate) contracts: BTreeMap<ResourceId, Contract>,
    /// The EventStreams.
    pub(crate) streams: Vec<StreamBinding>,
    /// What was done to streams and buckets, for people.
    pub(crate) done: Vec<String>,
    /// Resources that can't run, and why.
    pub(crate) refused: Vec<(String, String)>,
    /// Limits that would delete events and are not in force, for people.
    pub(crate) held: Vec<String>,
}

/// Makes what the manifests ask for, and nothing twice. Nothing is ever deleted, but by the limits of streams that may lose events.
///
/// # Errors
/// NATS away, or no permission. A resource that can't be had is in [`Applied::refused`].
pub(crate) async fn apply(
    nats: &Nats,
    connection: &Connection,
    manifests: &Manifests,
    may_lose: &BTreeSet<StreamRef>,
) -> Result<Applied> {
    let mut applied = Applied::default();
    let installation = Installation {
        cluster: CLUSTER.to_owned(),
        subject_root: connection.subject_root.clone(),
        // One server holds one copy.
        replicas: 1,
        bytes_max: None,
    };
    for plan in installation.shared_buckets(&incarnation()) {
        make(nats, &plan, "shared buckets", &mut applied).await?;
    }
    let planned = |declared: &Declared| declared.plan.clone().map(|plan| (declared.clone(), plan));
    // Streams first: workers read them.
    let mut planned: Vec<(Declared, Plan)> =
        manifests.resources.iter().filter_map(planned).collect();
    planned.sort_by_key(|(_, plan)| !matches!(plan, Plan::EventStream(_)));
    let mut refused = BTreeSet::new();
    for (declared, plan) in planned {
        let shown = declared.shown();
        if let Some(stream) = first_refused(&declared, &refused) {
            let why = format!("EventStream {stream} can't be had (see there)");
            applied.refused.push((shown, why));
            continue;
        }
        match plan {
            Plan::EventStream(plan) => {
                let mut made = installation.event_stream(&plan, &incarnation());
                made.may_lose = may_lose.contains(&plan.stream);
                let losses = match elsewhere(nats, &made).await? {
                    Some(why) => {
                        applied.refused.push((shown, why));
                        None
                    }
                    None => make(nats, &made, &shown, &mut applied).await?,
                };
                if losses.is_none() {
                    refused.insert(plan.stream.clone());
                }
                if let Some(losses) = losses {
                    applied.streams.push(plan.binding.clone());
                    let held = losses
                        .iter()
                        .map(|loss| limits::held(&declared, &plan, loss));
                    applied.held.extend(held);
                }
            }
            Plan::Projection(plan) => {
                let [parked, rows] = installation.projection(&plan, &incarnation());
                if make_both(nats, &parked, &rows, &shown, &mut applied).await?
                    && let Some(contract) = declared.contract(connection)
                {
                    remember(nats, &contract).await?;
                    applied.contracts.insert(plan.resource.clone(), contract);
                }
            }
            Plan::Saga(plan) => {
                let [parked, log] = installation.saga(&plan, &incarnation());
                if make_both(nats, &parked, &log, &shown, &mut applied).await?
                    && let Some(contract) = declared.contract(connection)
                {
                    remember(nats, &contract).await?;
                    applied.contracts.insert(plan.resource.clone(), contract);
                }
            }
        }
    }
    Ok(applied)
}

/// The first of a resource's streams that can't be had.
fn first_refused<'a>(
    declared: &'a Declared,
    refused: &BTreeSet<StreamRef>,
) -> Option<&'a StreamRef> {
    let streams = declared.bindings.iter().map(|binding| &binding.stream);
    streams.into_iter().find(|stream| refused.contains(stream))
}

/// Where an EventStream's stream is, if it was made under another name: a second one beside it would leave the events behind.
async fn elsewhere(nats: &Nats, plan: &StreamPlan) -> Result<Option<String>> {
    match nats.stream_state(&plan.name).await {
        Ok(_) => return Ok(None),
        Err(ApiError::StreamMissing(_)) => {}
        Err(error) => return Err(api_error(&error)),
    }
    let other = stream_of_owner(nats, &plan.mark.to_string()).await?;
    Ok(other.map(|other| {
        format!(
            "spec.streamName is {}, but this EventStream was made with {other}: its events are there; write the old name, or make \
             another EventStream",
            plan.name
        )
    }))
}

/// Whether a resource's own stream (rows or log) and its parked stream could be had. The parked stream pins the name of the other, so
/// it is made last: a name that can't be had can still be changed.
async fn make_both(
    nats: &Nats,
    parked: &StreamPlan,
    own: &StreamPlan,
    resource: &str,
    applied: &mut Applied,
) -> Result<bool> {
    match refusal(nats, parked).await {
        Ok(None) => {}
        Ok(Some(refusal)) => {
            let why = refusal.to_string();
            applied.refused.push((resource.to_owned(), why));
            return Ok(false);
        }
        Err(error) => return Err(api_error(&error)),
    }
    Ok(make(nats, own, resource, applied).await?.is_some()
        && make(nats, parked, resource, applied).await?.is_some())
}

async fn remember(nats: &Nats, contract: &Contract) -> Result<()> {
    let remembered = starts::remember(nats, contract).await;
    remembered.map_err(|error| match error {
        StartError::Stream(error) => api_error(&error),
        error @ StartError::Store { .. } => CliError::failed(error.to_string()),
    })
}

/// Nothing if it can't be had, else what its limits would delete and are held for.
async fn make(
    nats: &Nats,
    plan: &StreamPlan,
    resource: &str,
    applied: &mut Applied,
) -> Result<Option<Vec<Loss>>> {
    let (changed, losses) = match ensure(nats, plan).await {
        Ok(Outcome::Unchanged) => (Vec::new(), Vec::new()),
        Ok(Outcome::Created) => {
            let made = format!("{resource}: stream {} made", plan.name);
            applied.done.push(made);
            (Vec::new(), Vec::new())
        }
        Ok(Outcome::Updated(changed)) => (changed, Vec::new()),
        Ok(Outcome::Held { changed, losses }) => (changed, losses),
        Ok(Outcome::Conflict(reason)) => {
            applied.refused.push((resource.to_owned(), reason));
            return Ok(None);
        }
        Err(
            error @ (ApiError::Refused { .. } | ApiError::StreamMissing(_) | ApiError::Form(..)),
        ) => {
            applied.refused.push((resource.to_owned(), chain(&error)));
            return Ok(None);
        }
        Err(error) => return Err(api_error(&error)),
    };
    if !changed.is_empty() {
        applied.done.push(format!(
            "{resource}: stream {} changed ({})",
            plan.name,
            changed.join(", ")
        ));
    }
    Ok(Some(losses))
}

fn incarnation() -> String {
    let bits: u128 = rand::random();
    format!("{bits:032x}")
}
