//! The three resources of Tidemill: their Rust types, their CustomResourceDefinitions, and what a spec means.
//!
//! ```text
//! YAML document --manifest::read--> Resource --compile--> core definition (or every error, each with its field path)
//! ```
//!
//! Everything here is pure. The operator and the CLI use the same code, so that `tidemill lint`, the API server and
//! `tidemill dev` give the same answers: the schema and its CEL rules are generated from the types, and checked here as the
//! API server checks them ([`check`]).

pub mod check;
#[allow(
    unreachable_pub,
    reason = "KubeSchema copies each struct into a function"
)]
pub mod common;
pub mod compile;
pub mod crd;
#[allow(
    unreachable_pub,
    reason = "KubeSchema copies each struct into a function"
)]
pub mod eventstream;
pub mod manifest;
pub mod problem;
#[allow(
    unreachable_pub,
    reason = "KubeSchema copies each struct into a function"
)]
pub mod projection;
pub mod quantity;
#[allow(
    unreachable_pub,
    reason = "KubeSchema copies each struct into a function"
)]
pub mod saga;
pub mod text;

pub use crd::{ResourceKind, all_crds};
pub use eventstream::{EventStream, EventStreamSpec, EventStreamStatus};
pub use problem::{FieldPath, Problem, Reason, Segment};
pub use projection::{Projection, ProjectionSpec, ProjectionStatus};
pub use saga::{Saga, SagaSpec, SagaStatus};

/// API group of all kinds.
pub const GROUP: &str = "tidemill.dev";
/// API version of all kinds.
pub const VERSION: &str = "v1alpha1";

/// The rule for names of our resources: NATS names and subjects are made of them.
fn resource_name() -> kube::core::Rule {
    kube::core::Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$')").message(
        "metadata.name must have at most 40 lower-case letters, digits and `-`, and begin and end with a letter or digit: names in NATS are made of it",
    )
}
