//! The projection worker: folds events of streams into rows of a KV bucket.
//!
//! [`run`] is all there is. It takes part in the ownership of 64 partitions, and for those it owns it runs *sessions*: one for the rows that
//! readers see, and one beside it for those of a changed definition (or of a rebuild) until they are as far, when readers are led over.
//!
//! # Guarantees
//! - Every event is folded into the rows it is for, in the order of its stream, as if once: whatever is killed, lost or repeated.
//! - A row that readers see was made by the events up to its position (header `Tidemill-Pos`) and by no others.
//! - An event that can't be folded is kept, with what follows it for the same key, until a person decides.
//! - A source that was set back or replaced is never folded on in silence.
//!
//! # Doesn't
//! - Tombstones of deleted rows and key spaces of older revisions are never removed in this version.
//! - Only the KV sink is there.

mod admin;
mod error;
mod meters;
mod observed;
mod session;
mod situation;
mod store;
mod worker;

pub use error::{SessionError, Stopped};
pub use worker::{Options, RunError, run, run_with};
