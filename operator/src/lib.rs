//! The control plane: EventStream, Projection and Saga of Kubernetes become streams, buckets and workers.
//!
//! Each kind is a folder whose `mod.rs` reads as a sentence: validate → observe → plan → apply → status. What decides is pure;
//! what calls somebody goes through the ports [`jetstream`] and [`kubernetes`], which tests replace by models that stop anywhere.

pub mod cluster_id;
pub mod conditions;
pub mod config;
pub mod context;
pub mod credentials;
pub mod deletion;
pub mod error;
pub mod eventstream;
pub mod jetstream;
pub mod kubernetes;
pub mod lease;
pub mod meters;
pub mod pace;
pub mod projection;
pub mod readiness;
pub mod runtime;
pub mod saga;
pub mod status;
pub mod stream;
pub mod subset;
pub mod survey;
pub mod tenancy;
pub mod worker;
pub mod workload;
