//! Sagas: a pure, total, deterministic machine over the inputs of one instance.
//!
//! Flow: inputs come back from the log, [`Instance::apply`] folds them one by one and says which effects to run, the
//! worker runs them, their results are appended to the log and come back as inputs.
//!
//! Guarantees: the same inputs give the same state, effects and timers on every machine and after every restart.
//! What is in flight can be asked of the state at any time ([`Instance::outstanding`]), so nothing is lost with a
//! worker. A compensation is never sent while an action is in flight, and never for what certainly didn't happen.
//!
//! Assumptions: inputs are given in log order; `at` is the time the log stored them.

mod answers;
mod compensate;
mod compiled;
mod decide;
mod describe;
mod effect;
mod foretell;
mod forward;
mod input;
mod invariant;
mod machine;
mod outcome;
mod state;
mod variables;

pub use compiled::{CompiledSaga, SagaCompileError, compensation_scope, step_scope};
pub use effect::{Effect, HttpEffect, PublishEffect, RequestEffect};
pub use input::{
    Asked, Input, InputError, Observed, Published, SourcePosition, Started, decode_input,
};
pub use invariant::{Violation, violations};
pub use machine::{Applied, Note};
pub use outcome::{Answer, Failed, classify_http, classify_reply};
pub use state::{
    Failure, Instance, Outcome, Parked, ParkedReason, Phase, Progress, PublishProgress, StepState,
    Work,
};
