//! The projection machine: how events become rows. Pure and deterministic; the worker adds reading, storing and time.
//!
//! # How
//! [`Projection::compile`] makes a definition ready. [`Projection::touches`] says which rows an event is for,
//! [`Projection::fold`] folds it into one of them. A [`Row`] carries the [`Positions`] of the last events folded into it.
//!
//! # Promises
//! - An event at or below a row's position changes nothing: replaying from anywhere at or below the truth, any number of times,
//!   gives the same rows. Events of one row must come in the order of their positions, source by source; nothing else matters.
//! - An event that can't be folded changes no row. It concerns the rows it touches and no others: they wait ([`parked`]).
//! - A stream that was set back or replaced is noticed ([`verify_source`]) where the checkpointed message tells it.
//!
//! # Doesn't
//! It can't notice a stream that lost its end and regained, at the checkpointed sequence, no message at all.

mod checkpoint;
mod compiled;
mod fold;
pub mod parked;
mod position;
mod row;
mod switch;

pub use crate::names::{
    DECISIONS_PREFIX, KEYLESS_TOKEN, KeySpace, LIVE_KEY, accepted_key, decision_key, key_of_token,
    parse_decision_key, rebuild_key, source_key, token_of_key,
};
pub use checkpoint::{Checkpoint, CheckpointError, SourceCheckpoint, Tally};
pub use compiled::{CompileError, Problem, Projection};
pub use fold::{FoldError, Folded, Touch, event_partition};
pub use position::{
    GENERATIONS_MAX, Generation, Lineage, Position, PositionError, SourceReset, SourceSeen,
    verify_source,
};
pub use row::{Positions, ROW_BYTES_MAX, Row, RowError, Source, Sources};
pub use switch::{NotYet, Progress, may_switch};

#[cfg(test)]
mod tests;
