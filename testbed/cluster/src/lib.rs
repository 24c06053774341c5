//! A real Kubernetes on this machine, for tests.
//!
//! * [`ControlPlane`]: etcd and kube-apiserver on free ports of 127.0.0.1, which is all that an operator talks to. No controllers
//!   and no nodes: what is applied stays as it is, so a test plays those itself where it needs them. Runs for any user.
//! * [`Node`]: all of Kubernetes with one node that runs pods, in namespaces of its own. Linux, root and some programs of the
//!   distribution: a test asks [`why_no_node`] first, and [`skip`]s where it can't be.
//! * [`Image`]: container images from a list of files; [`images`]: those of Tidemill.
//!
//! The programs of Kubernetes are built from source by `scripts/kubernetes.sh` (a Go module with pinned sums) into a cache folder.

mod components;
mod containers;
mod control_plane;
mod dns;
mod identity;
mod image;
pub mod images;
mod namespace;
mod node;
mod programs;
mod relay;
mod slot;
mod volumes;

pub use control_plane::{ControlPlane, ControlPlaneError};
pub use image::{Image, ImageError};
pub use node::{Node, NodeError};
pub use programs::{Programs, ProgramsError, skip, why_no_node};
