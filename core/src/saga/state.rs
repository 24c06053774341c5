//! The state of one instance: the fold of its inputs.

use super::input::{Published, SourcePosition};
use crate::definition::Revision;
use crate::envelope::Event;
use crate::json::Value;
use crate::names::{Run, Side};
use crate::timestamp::Timestamp;

/// One run of a saga.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// Random identity of this run.
    pub run: Run,
    /// First 8 hex digits of the hash of `run`, as command ids hold it.
    pub run8: String,
    /// Revision of the definition it runs with.
    pub revision: Revision,
    /// `input` of its expressions.
    pub input: Event,
    /// Correlation id of everything it causes.
    pub correlation_id: String,
    /// Where the event that started it stands.
    pub position: Option<SourcePosition>,
    /// When it was started.
    pub started_at: Timestamp,
    /// Largest stored time of its inputs.
    pub at: Timestamp,
    /// When the saga as a whole has taken too long.
    pub deadline: Timestamp,
    /// Decisions that were taken about it. Each moves the deadline, and a timer of an earlier one is stale.
    pub decisions: u32,
    /// When its outcome was decided: the time of its outcome's events, whenever they are published.
    pub concluded_at: Option<Timestamp>,
    /// Where it is on its way.
    pub phase: Phase,
    /// Why it turned back; absent while it goes forward.
    pub failure: Option<Failure>,
    /// Waits for a decision; nothing new is begun meanwhile.
    pub parked: Option<Parked>,
    /// Per step of the definition.
    pub steps: Vec<StepState>,
    /// Steps whose action happened, or may have, in the order they settled. Compensations run in reverse.
    pub happened: Vec<usize>,
    /// Per publish of `onCompleted` or `onCompensated`, once that is decided.
    pub publishes: Vec<PublishProgress>,
    /// Attempts that were made again.
    pub retried: u64,
    /// Replies that came after their step was settled.
    pub late_replies: u64,
    /// Replies with a wrong token.
    pub forged_replies: u64,
}

/// Where an instance is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Actions are done, or those in flight are settling after a failure.
    Forward,
    /// Compensations run.
    Backward,
    /// The events of this outcome are being published.
    Concluding(Outcome),
    /// Nothing more will happen.
    Finished(Outcome),
}

/// How an instance ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every step is done.
    Completed,
    /// Everything that was done is taken back.
    Compensated,
}

/// Why an instance turned back; `failure` in expressions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Stable CamelCase word: `Refused`, `Exhausted`, `StepTimeout`, `Timeout`, `Cancelled`, `ExpressionError`, ….
    pub reason: String,
    /// For people: the participant's words where it refused.
    pub message: String,
    /// The participant's code, 0 for none.
    pub code: u32,
    /// The step, unless the saga as a whole failed.
    pub step: Option<String>,
}

/// What waits for a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// Which decision is needed.
    pub reason: ParkedReason,
    /// For people.
    pub message: String,
}

/// Which decision is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParkedReason {
    /// A compensation failed for good. Retry it, or skip it as done by hand.
    CompensationFailed(usize),
    /// Nobody knows whether an action happened. Retry it, or skip: take it as not happened.
    UnknownOutcome(usize),
    /// An action after the pivot failed for good. Retry it, or skip it and go on.
    FailedAfterPivot(usize),
    /// The saga took too long after its pivot. Either decision lets it go on.
    TimeoutAfterPivot,
    /// An outcome's event can't be published. Retry it, or leave it out.
    PublishFailed(usize),
    /// A publish step's stream refused the event. Retry it, or skip: take it as not happened.
    PublishRefused(usize, Side),
}

impl ParkedReason {
    /// The stable CamelCase word.
    pub fn as_str(self) -> &'static str {
        match self {
            ParkedReason::CompensationFailed(_) => "CompensationFailed",
            ParkedReason::UnknownOutcome(_) => "UnknownOutcome",
            ParkedReason::FailedAfterPivot(_) => "FailedAfterPivot",
            ParkedReason::TimeoutAfterPivot => "TimeoutAfterPivot",
            ParkedReason::PublishFailed(_) => "PublishFailed",
            ParkedReason::PublishRefused(..) => "PublishRefused",
        }
    }

    /// The step it is about, by its index.
    pub fn step(self) -> Option<usize> {
        match self {
            ParkedReason::CompensationFailed(step)
            | ParkedReason::UnknownOutcome(step)
            | ParkedReason::FailedAfterPivot(step)
            | ParkedReason::PublishRefused(step, _) => Some(step),
            ParkedReason::TimeoutAfterPivot | ParkedReason::PublishFailed(_) => None,
        }
    }

    /// Whether it is about what became of this side of this step.
    pub(super) fn is_about(self, step: usize, side: Side) -> bool {
        match (self, side) {
            (ParkedReason::PublishRefused(index, about), _) => index == step && about == side,
            (ParkedReason::CompensationFailed(index), Side::Compensation)
            | (
                ParkedReason::UnknownOutcome(index) | ParkedReason::FailedAfterPivot(index),
                Side::Action,
            ) => index == step,
            (
                ParkedReason::CompensationFailed(_)
                | ParkedReason::UnknownOutcome(_)
                | ParkedReason::FailedAfterPivot(_)
                | ParkedReason::TimeoutAfterPivot
                | ParkedReason::PublishFailed(_),
                _,
            ) => false,
        }
    }
}

/// A step: its action and its compensation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepState {
    /// What it does.
    pub action: Work,
    /// What takes it back.
    pub compensation: Work,
}

impl StepState {
    /// The work of a side.
    pub fn side(&self, side: Side) -> &Work {
        match side {
            Side::Action => &self.action,
            Side::Compensation => &self.compensation,
        }
    }

    pub(super) fn side_mut(&mut self, side: Side) -> &mut Work {
        match side {
            Side::Action => &mut self.action,
            Side::Compensation => &mut self.compensation,
        }
    }
}

/// An action or a compensation and its attempts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Work {
    /// Where it is.
    pub progress: Progress,
    /// Attempts made, ever; the number of the current one.
    pub attempt: u32,
    /// Number of the first attempt of the present series; a decision to retry begins another.
    pub series: u32,
    /// Attempts of the series that were used up.
    pub failures: u32,
    /// Attempts of the series that reached nobody.
    pub misses: u32,
    /// When the first attempt was made.
    pub begun_at: Timestamp,
    /// When the present attempt was made.
    pub sent_at: Timestamp,
    /// When the series has taken too long.
    pub deadline: Timestamp,
    /// Some attempt may have been delivered.
    pub delivered: bool,
    /// What it gave.
    pub output: Option<Value>,
    /// The last error, for people.
    pub error: Option<String>,
}

/// Where an action or a compensation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// Not begun.
    #[default]
    Waiting,
    /// An attempt waits for its answer until this time; without one (publishes) for as long as it takes.
    InFlight(Option<Timestamp>),
    /// The next attempt is made at this time.
    BackingOff(Timestamp),
    /// Done.
    Done,
    /// Left out: its `when` was false, or a person said so.
    Skipped,
    /// The participant refused it.
    Refused,
    /// Given up.
    GivenUp,
}

impl Progress {
    /// Whether it is under way.
    pub fn is_active(self) -> bool {
        matches!(self, Progress::InFlight(_) | Progress::BackingOff(_))
    }

    /// Whether what comes after it may begin.
    pub fn is_done(self) -> bool {
        matches!(self, Progress::Done | Progress::Skipped)
    }
}

/// A publish of an outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishProgress {
    /// Under way.
    Outstanding,
    /// Stored there.
    Stored(Published),
    /// Failed for good; the instance is parked.
    Failed,
    /// A person left it out.
    Skipped,
}

impl Instance {
    /// Whether nothing more will happen.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Finished(_))
    }

    /// Whether an action is under way.
    pub(super) fn has_active_action(&self) -> bool {
        self.steps
            .iter()
            .any(|step| step.action.progress.is_active())
    }
}
