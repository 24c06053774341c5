//! Texts of the spec as values, with their defaults.

use std::collections::BTreeMap;

use tidemill_core::definition::{self, StreamRef};
use tidemill_core::retry;
use tidemill_core::timestamp::Timestamp;

use super::findings::Findings;
use crate::common::{
    DeletionPolicy, Durability, LocalRef, POSITION_MAX, Placement, Retry, Start, StartFrom,
    WorkerSettings, WorkerUpdate,
};
use crate::problem::{FieldPath, Reason};
use crate::quantity::Quantity;
use crate::text::{ByteSize, Duration};

/// Where something is stored: a stream or a bucket of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageSettings {
    /// Its JetStream name.
    pub name: String,
    /// Servers that hold a copy; `None` = the connection's default.
    pub replicas: Option<u32>,
    /// Which servers; `None` = any.
    pub placement: Option<Placement>,
    /// Most bytes on each replica; `None` = unlimited.
    pub max_bytes: Option<u64>,
}

/// A duration in milliseconds, if the field is there and of the right form.
pub(super) fn milliseconds(
    findings: &mut Findings,
    path: &FieldPath,
    duration: Option<&Duration>,
) -> Option<u64> {
    findings.take(path, duration?.milliseconds())
}

/// An amount of bytes, if the field is there and of the right form.
pub(super) fn bytes(
    findings: &mut Findings,
    path: &FieldPath,
    size: Option<&ByteSize>,
) -> Option<u64> {
    findings.take(path, size?.bytes())
}

/// A number of messages, if the field is there and within what JetStream counts.
pub(super) fn messages(
    findings: &mut Findings,
    path: &FieldPath,
    count: Option<i64>,
) -> Option<u64> {
    let count = count?;
    if !(1..=POSITION_MAX).contains(&count) {
        let message = format!("{count} is out of bounds: from 1 to {POSITION_MAX}");
        findings.error(path, Reason::Malformed, message);
        return None;
    }
    u64::try_from(count).ok()
}

/// A reference in full.
pub(super) fn stream(reference: &crate::common::StreamRef, namespace: &str) -> StreamRef {
    StreamRef {
        namespace: reference
            .namespace
            .as_ref()
            .map_or(namespace, |namespace| namespace.as_str())
            .to_owned(),
        name: reference.name.as_str().to_owned(),
    }
}

/// How something is tried again. A backoff that isn't given gives way to the one that is.
pub(super) fn retry(
    findings: &mut Findings,
    path: &FieldPath,
    spec: Option<&Retry>,
    default: retry::Retry,
) -> retry::Retry {
    let Some(spec) = spec else { return default };
    let (initial_path, max_path) = (path.field("initialBackoff"), path.field("maxBackoff"));
    let initial = milliseconds(findings, &initial_path, spec.initial_backoff.as_ref());
    let max = milliseconds(findings, &max_path, spec.max_backoff.as_ref());
    let (initial_backoff_ms, max_backoff_ms) = match (initial, max) {
        (None, None) => (default.initial_backoff_ms, default.max_backoff_ms),
        (Some(initial), None) => (initial, default.max_backoff_ms.max(initial)),
        (None, Some(max)) => (default.initial_backoff_ms.min(max), max),
        (Some(initial), Some(max)) => {
            if initial > max {
                findings.error(
                    path,
                    Reason::Malformed,
                    "initialBackoff must not be longer than maxBackoff",
                );
            }
            (initial, max)
        }
    };
    retry::Retry {
        max_attempts: spec.max_attempts.unwrap_or(default.max_attempts).max(1),
        initial_backoff_ms,
        max_backoff_ms,
    }
}

/// Where reading begins; `None` where the spec leaves it open.
pub(super) fn start(
    findings: &mut Findings,
    path: &FieldPath,
    spec: Option<&Start>,
) -> Option<definition::Start> {
    let Start {
        from,
        position,
        time,
    } = spec?;
    match (from, position, time) {
        (Some(StartFrom::Beginning), None, None) => Some(definition::Start::Beginning),
        (Some(StartFrom::New), None, None) => Some(definition::Start::New),
        (None, Some(position), None) => match u64::try_from(*position) {
            Ok(position) if position > 0 => Some(definition::Start::Position(position)),
            _ => {
                findings.error(
                    &path.field("position"),
                    Reason::Malformed,
                    "positions are counted from 1",
                );
                None
            }
        },
        (None, None, Some(time)) => match Timestamp::parse(time) {
            Some(time) => Some(definition::Start::Time(time)),
            None => {
                let message = format!(
                    "`{time}` is not a time: write it as RFC 3339 does, such as 2026-01-31T12:00:00Z"
                );
                findings.error(&path.field("time"), Reason::Malformed, message);
                None
            }
        },
        _ => {
            findings.error(
                path,
                Reason::Malformed,
                "start takes exactly one of from, position and time",
            );
            None
        }
    }
}

/// Where something is stored.
pub(super) fn storage(
    findings: &mut Findings,
    path: &FieldPath,
    name: String,
    (replicas, placement, max_bytes): (Option<u32>, Option<&Placement>, Option<&ByteSize>),
) -> StorageSettings {
    StorageSettings {
        name,
        replicas,
        placement: placement.cloned(),
        max_bytes: bytes(findings, &path.field("maxBytes"), max_bytes),
    }
}

/// What the operator does with the workers of a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadLifecycle {
    /// Workers follow the operator's image by themselves.
    pub update: WorkerUpdate,
    /// Image of the workers; `None` = the operator's.
    pub image: Option<String>,
    /// Requests and limits, as the API server writes them; `None` = the operator's.
    pub resources: Option<ContainerResources>,
}

/// Requests and limits of a container, each amount in its canonical form.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ContainerResources {
    /// What is set aside.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, String>,
    /// Most that it may take.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, String>,
}

pub(super) fn workload_lifecycle(
    findings: &mut Findings,
    worker_update: Option<WorkerUpdate>,
    worker: Option<&WorkerSettings>,
) -> WorkloadLifecycle {
    let path = FieldPath::spec().field("worker").field("resources");
    let mut amounts = |field: &str, amounts: &BTreeMap<String, Quantity>| {
        let mut canonical = BTreeMap::new();
        for (resource, amount) in amounts {
            match amount.canonical() {
                Some(amount) => drop(canonical.insert(resource.clone(), amount)),
                None => findings.error(
                    &path.field(field).field(resource),
                    Reason::Malformed,
                    amount.wrong(),
                ),
            }
        }
        canonical
    };
    let resources = worker.and_then(|worker| worker.resources.as_ref());
    let resources = resources.map(|resources| ContainerResources {
        requests: amounts("requests", &resources.requests),
        limits: amounts("limits", &resources.limits),
    });
    WorkloadLifecycle {
        update: worker_update.unwrap_or_default(),
        image: worker.and_then(|worker| worker.image.clone()),
        resources,
    }
}

/// Fields of every kind that only the operator will run.
pub(super) struct Lifecycle<'a> {
    pub(super) deletion_policy: Option<DeletionPolicy>,
    pub(super) worker_update: Option<WorkerUpdate>,
    pub(super) worker: Option<&'a WorkerSettings>,
    pub(super) durability: Option<Durability>,
    pub(super) nats_ref: Option<&'a LocalRef>,
}

/// Refuses what isn't run yet of them, and says what runs in a cluster only. `durability` is the field's path below the spec.
pub(super) fn unlike_dev(
    findings: &mut Findings,
    lifecycle: &Lifecycle<'_>,
    durability: &FieldPath,
) {
    let spec = FieldPath::spec();
    if lifecycle.deletion_policy == Some(DeletionPolicy::Delete) {
        findings.unlike_dev(
            &spec.field("deletionPolicy"),
            "`tidemill dev` keeps the data of a manifest that is removed; --fresh empties its store",
        );
    }
    if lifecycle.worker_update == Some(WorkerUpdate::Auto) {
        findings.unlike_dev(
            &spec.field("workerUpdate"),
            "`tidemill dev` runs workers in its own process",
        );
    }
    if lifecycle.worker.is_some() {
        findings.unlike_dev(
            &spec.field("worker"),
            "`tidemill dev` runs workers in its own process",
        );
    }
    if lifecycle.durability == Some(Durability::Strict) {
        findings.not_yet(durability, "only Standard is run yet; a server with `sync_interval: always` syncs every write all the same");
    }
    if lifecycle.nats_ref.is_some() {
        findings.not_yet(
            &spec.field("natsRef"),
            "remove the field, there is one connection",
        );
    }
}
