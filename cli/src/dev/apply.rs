//! From manifests to streams, buckets and contracts.

use super::{limits, starts};
use crate::context::api_error;
use crate::error::{Result, chain};
use crate::manifests::{Declared, Manifests};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tidemill_core::contract::{CONTRACT_VERSION, Connection, Contract, StreamBinding};
use tidemill_core::definition::StreamRef;
use tidemill_core::names::ResourceId;
use tidemill_crds::common::Placement;
use tidemill_crds::compile::{EventStreamPlan, StorageSettings};
use tidemill_crds::eventstream::{Compression, OnFull, Storage};
use tidemill_crds::manifest::Plan;
use tidemill_nats::provision::{self, Loss, Mark, Outcome, StreamPlan, ensure};
use tidemill_nats::{ApiError, Nats};

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
    for plan in StreamPlan::shared_buckets(&incarnation()) {
        make(nats, &plan, "shared buckets", &mut applied).await?;
    }
    let planned = |declared: &Declared| declared.plan.clone().map(|plan| (declared.clone(), plan));
    // Streams first: workers read them.
    let mut planned: Vec<(Declared, Plan)> =
        manifests.resources.iter().filter_map(planned).collect();
    planned.sort_by_key(|(_, plan)| !matches!(plan, Plan::EventStream(_)));
    for (declared, plan) in planned {
        let shown = declared.shown();
        match plan {
            Plan::EventStream(plan) => {
                let mut made = event_stream(&plan);
                made.may_lose = may_lose.contains(&plan.stream);
                let losses = make(nats, &made, &shown, &mut applied).await?;
                if let Some(losses) = losses {
                    applied.streams.push(plan.binding.clone());
                    let held = losses
                        .iter()
                        .map(|loss| limits::held(&declared, &plan, loss));
                    applied.held.extend(held);
                }
            }
            Plan::Projection(plan) => {
                let mark = Mark::of(CLUSTER, &plan.resource, &incarnation());
                let mut rows = StreamPlan::bucket(&plan.rows.name, mark.clone());
                rows.description = format!("Rows of {shown}");
                let rows = with_settings(rows, &plan.rows);
                let parked = StreamPlan::parked(&plan.resource, &connection.subject_root, mark);
                if make(nats, &rows, &shown, &mut applied).await?.is_some()
                    && make(nats, &parked, &shown, &mut applied).await?.is_some()
                {
                    let contract = contract(&plan.resource, connection, &declared, plan.workload());
                    starts::remember(nats, &contract).await?;
                    applied.contracts.insert(plan.resource.clone(), contract);
                }
            }
            Plan::Saga(plan) => {
                let mark = Mark::of(CLUSTER, &plan.resource, &incarnation());
                let log =
                    StreamPlan::saga_log(&plan.resource, &connection.subject_root, mark.clone());
                let log = with_settings(
                    StreamPlan {
                        name: plan.log.name.clone(),
                        ..log
                    },
                    &plan.log,
                );
                let parked = StreamPlan::parked(&plan.resource, &connection.subject_root, mark);
                if make(nats, &log, &shown, &mut applied).await?.is_some()
                    && make(nats, &parked, &shown, &mut applied).await?.is_some()
                {
                    let contract = contract(&plan.resource, connection, &declared, plan.workload());
                    starts::remember(nats, &contract).await?;
                    applied.contracts.insert(plan.resource.clone(), contract);
                }
            }
        }
    }
    Ok(applied)
}

fn contract(
    resource: &ResourceId,
    connection: &Connection,
    declared: &Declared,
    workload: tidemill_core::contract::Workload,
) -> Contract {
    Contract {
        version: CONTRACT_VERSION,
        resource: resource.clone(),
        connection: connection.clone(),
        streams: declared.bindings.clone(),
        workload,
    }
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

fn event_stream(plan: &EventStreamPlan) -> StreamPlan {
    let EventStreamPlan {
        stream, settings, ..
    } = plan;
    let mark = Mark::event_stream(CLUSTER, &stream.namespace, &stream.name, &incarnation());
    let mut made = StreamPlan::new(&settings.name, settings.subjects.clone(), mark);
    made.description = settings
        .description
        .clone()
        .unwrap_or_else(|| format!("EventStream {stream}"));
    made.storage = match settings.storage {
        Storage::File => provision::Storage::File,
        Storage::Memory => provision::Storage::Memory,
    };
    made.replicas = replicas(settings.replicas);
    made.limits = provision::Limits {
        bytes_max: settings.max_bytes,
        age_max: settings.max_age_ms.map(Duration::from_millis),
        messages_max: settings.max_messages,
        messages_per_subject_max: settings.max_messages_per_subject,
    };
    made.on_full = match settings.on_full {
        OnFull::Reject => provision::OnFull::Reject,
        OnFull::DropOldest => provision::OnFull::DropOldest,
    };
    made.duplicate_window = Duration::from_millis(settings.duplicate_window_ms);
    made.message_bytes_max = settings
        .max_message_size
        .and_then(|size| u32::try_from(size).ok());
    made.compression = settings.compression == Compression::S2;
    place(&mut made, settings.placement.as_ref());
    made
}

fn with_settings(mut plan: StreamPlan, settings: &StorageSettings) -> StreamPlan {
    plan.replicas = replicas(settings.replicas);
    plan.limits.bytes_max = settings.max_bytes;
    place(&mut plan, settings.placement.as_ref());
    plan
}

/// One server holds one copy.
fn replicas(wanted: Option<u32>) -> usize {
    wanted.map_or(1, |wanted| usize::try_from(wanted).unwrap_or(usize::MAX))
}

fn place(plan: &mut StreamPlan, placement: Option<&Placement>) {
    if let Some(placement) = placement {
        // Written as JetStream's API has it.
        let value = serde_json::to_value(placement).unwrap_or_default();
        plan.further.insert("placement".to_owned(), value);
    }
}

fn incarnation() -> String {
    let bits: u128 = rand::random();
    format!("{bits:032x}")
}
