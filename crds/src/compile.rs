//! What a spec means: defaults resolved, references named in full, expressions compiled, everything checked that the schema
//! can't say. Pure, and total: whatever the spec, the answer is a plan or every problem there is, each with its field path.
//!
//! A field that this version doesn't run is refused by its path; no field is accepted and ignored.
//!
//! | resource | plan | what it holds |
//! |---|---|---|
//! | EventStream | [`EventStreamPlan`] | the JetStream stream to make, and how its messages are read |
//! | Projection | [`ProjectionPlan`] | the definition that workers fold with, its revision, names of bucket and parked stream |
//! | Saga | [`SagaPlan`] | the definition that workers run, its revision, names of log and parked stream |
//!
//! What concerns several resources (streams that a definition names, subjects that two claim) is in [`together`].

mod constants;
mod eventstream;
mod expressions;
mod findings;
mod projection;
mod saga;
pub mod together;
mod values;

use tidemill_core::definition::StreamRef;

use crate::problem::{FieldPath, Problem};

pub use eventstream::{EventStreamPlan, StreamSettings, event_stream};
pub use projection::{ProjectionPlan, projection};
pub use saga::{SagaPlan, saga};
pub use values::{ContainerResources, StorageSettings, WorkloadLifecycle};

/// Largest compiled definition, as JSON, in bytes: it is kept in a KV bucket and carried in a ConfigMap.
pub const DEFINITION_BYTES_MAX: usize = 512 * 1024;

/// Namespace of a resource that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// What became of a spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Report<T> {
    /// The plan; there is one exactly when `errors` is empty.
    pub plan: Option<T>,
    /// Everything that stands in the way, in the order of the fields.
    pub errors: Vec<Problem>,
    /// What would run, and is likely not meant.
    pub warnings: Vec<Problem>,
    /// What runs in a cluster only.
    pub in_cluster: Vec<InCluster>,
}

/// A field that says what the operator does in a cluster, where `tidemill dev` does something else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InCluster {
    /// The field, and what is done without a cluster.
    pub problem: Problem,
    /// Whether something else would be wrong, and not only simpler: then `dev` refuses it.
    pub needed: bool,
}

impl<T> Report<T> {
    /// The same report on something made of the plan.
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Report<U> {
        Report {
            plan: self.plan.map(make),
            errors: self.errors,
            warnings: self.warnings,
            in_cluster: self.in_cluster,
        }
    }
}

/// An EventStream that a definition names, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamUse {
    /// The field.
    pub path: FieldPath,
    /// The stream.
    pub stream: StreamRef,
    /// What for.
    pub access: Access,
}

/// What a stream is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Events are read.
    Read,
    /// Events are published.
    Publish,
}

fn namespace_of(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> String {
    metadata
        .namespace
        .clone()
        .filter(|namespace| !namespace.is_empty())
        .unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned())
}
