//! A real Kubernetes on this machine, for tests.
//!
//! [`ControlPlane`]: etcd and kube-apiserver on free ports of 127.0.0.1, which is all that an operator talks to. No controllers
//! and no nodes: what is applied stays as it is, so a test plays those itself where it needs them.
//!
//! The programs are built from source by `scripts/kubernetes.sh` (a Go module with pinned sums) into a cache folder.

mod control_plane;
mod identity;
mod programs;

pub use control_plane::{ControlPlane, ControlPlaneError};
pub use programs::{Programs, ProgramsError};
