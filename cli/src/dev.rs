//! What `tidemill dev` is made of: everything without Kubernetes, in one process and one child.
//!
//! ```text
//! folder ─▶ manifests ─▶ apply (streams, buckets) ─▶ contracts ─▶ workers (tasks of this process)
//!    ▲ watch                                                        │ counters
//!    └── a change: only what differs is stopped and started         ▼
//!                                                         observe ─▶ view (terminal) | plain (lines)
//! ```

pub(crate) mod apply;
pub(crate) mod folder;
pub(crate) mod limits;
pub(crate) mod log;
pub(crate) mod next;
pub(crate) mod observe;
pub(crate) mod replicas;
pub(crate) mod screen;
pub(crate) mod server;
pub(crate) mod watch;
pub(crate) mod workers;
