//! From manifests to streams, buckets and contracts.

use super::starts;
use crate::context::api_error;
use crate::error::{Result, chain};
use crate::manifests::{Declared, Manifests};
use std::collections::BTreeMap;
use std::time::Duration;
use tidemill_core::contract::{CONTRACT_VERSION, Connection, Contract, StreamBinding};
use tidemill_core::names::ResourceId;
use tidemill_crds::common::Placement;
use tidemill_crds::compile::{EventStreamPlan, StorageSettings};
use tidemill_crds::eventstream::{Compression, OnFull, Storage};
use tidemill_crds::manifest::Plan;
use tidemill_nats::provision::{self, Mark, Outcome, StreamPlan, ensure};
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
}

/// Makes what the manifests ask for, and nothing twice. Nothing is ever deleted.
///
/// # Errors
/// NATS away, or no permission. A resource that can't be had is in [`Applied::refused`].
pub(crate) async fn apply(
    nats: &Nats,
    connection: &Connection,
    manifests: &Manifests,
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
                if make(nats, &event_stream(&plan), &shown, &mut applied).await? {
                    applied.streams.push(plan.binding.clone());
                }
            }
            Plan::Projection(plan) => {
                let mark = Mark::of(CLUSTER, &plan.resource, &incarnation());
                let mut rows = StreamPlan::bucket(&plan.rows.name, mark.clone());
                rows.description = format!("Rows of {shown}");
                let rows = with_settings(rows, &plan.rows);
                let parked = StreamPlan::parked(&plan.resource, &connection.subject_root, mark);
                if make(nats, &rows, &shown, &mut applied).await?
                    && make(nats, &parked, &shown, &mut applied).await?
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
                if make(nats, &log, &shown, &mut applied).await?
                    && make(nats, &parked, &shown, &mut applied).await?
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

/// True if it is there as planned.
async fn make(
    nats: &Nats,
    plan: &StreamPlan,
    resource: &str,
    applied: &mut Applied,
) -> Result<bool> {
    match ensure(nats, plan).await {
        Ok(Outcome::Unchanged) => {}
        Ok(Outcome::Created) => applied
            .done
            .push(format!("{resource}: stream {} made", plan.name)),
        Ok(Outcome::Updated(changed)) => {
            applied.done.push(format!(
                "{resource}: stream {} changed ({})",
                plan.name,
                changed.join(", ")
            ));
        }
        Ok(Outcome::Conflict(reason)) => {
            applied.refused.push((resource.to_owned(), reason));
            return Ok(false);
        }
        Err(
            error @ (ApiError::Refused { .. } | ApiError::StreamMissing(_) | ApiError::Form(..)),
        ) => {
            applied.refused.push((resource.to_owned(), chain(&error)));
            return Ok(false);
        }
        Err(error) => return Err(api_error(&error)),
    }
    Ok(true)
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
