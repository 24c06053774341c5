//! What a cancel or a decision will do, in words for whoever asks: it is tried on a copy before it is in the log.

use super::compiled::CompiledSaga;
use super::input::{Asked, Input};
use super::machine::Note;
use super::state::{Instance, Outcome, Parked, ParkedReason, Phase};
use crate::control::{ControlError, Decision};
use crate::names::Side;

impl Instance {
    /// What a cancel does now.
    ///
    /// # Errors
    /// It changes nothing: `PivotPassed`, `AlreadyCompensating` or `AlreadyFinished`.
    pub fn foretell_cancel(
        &self,
        saga: &CompiledSaga,
        asked: &Asked,
    ) -> Result<String, ControlError> {
        let mut after = self.clone();
        let (id, parked) = (&self.id, self.still_parked(saga));
        match after
            .apply(saga, &Input::Cancel(asked.clone()), self.at)
            .note
        {
            Note::PivotPassed => Err(ControlError::new(
                "PivotPassed",
                format!(
                    "instance {id} has passed its pivot: from there it only goes forward{parked}"
                ),
            )),
            Note::Ignored => Err(match self.phase {
                Phase::Forward | Phase::Backward => ControlError::new(
                    "AlreadyCompensating",
                    format!("instance {id} is turned back already{parked}"),
                ),
                Phase::Concluding(outcome) | Phase::Finished(outcome) => {
                    let done = match outcome {
                        Outcome::Completed => "all its steps are done",
                        Outcome::Compensated => "all it did is taken back already",
                    };
                    ControlError::new(
                        "AlreadyFinished",
                        format!("there is nothing to cancel: of instance {id} {done}{parked}"),
                    )
                }
            }),
            _ if after.parked.is_some() => Ok(format!(
                "cancelled, but nothing is taken back yet{}",
                after.still_parked(saga)
            )),
            _ => Ok(format!("cancelled: {}", after.what_follows(saga))),
        }
    }

    /// What a decision about what is parked does now; nothing if nothing is.
    pub fn foretell_decision(&self, saga: &CompiledSaga, decision: Decision) -> Option<String> {
        let parked = self.parked.as_ref()?;
        let done = self.decided(saga, parked.reason, decision);
        let mut after = self.clone();
        let input = Input::Decision {
            decision,
            after: None,
            asked: Asked::default(),
        };
        after.apply(saga, &input, self.at);
        let follows = match &after.parked {
            Some(parked) => format!("it is parked again, {}", question(saga, parked)),
            None => after.what_follows(saga).to_owned(),
        };
        Some(format!(
            "{done} (it was {}); {follows}",
            parked.reason.as_str()
        ))
    }

    /// What becomes of what it was parked for.
    fn decided(&self, saga: &CompiledSaga, reason: ParkedReason, decision: Decision) -> String {
        let step = step_name(saga, reason).unwrap_or_default();
        match (reason, decision) {
            (
                ParkedReason::CompensationFailed(_)
                | ParkedReason::PublishRefused(_, Side::Compensation),
                Decision::Retry,
            ) => format!("the compensation of {step} is tried again"),
            (
                ParkedReason::CompensationFailed(_)
                | ParkedReason::PublishRefused(_, Side::Compensation),
                Decision::Skip,
            ) => format!("the compensation of {step} counts as done by hand"),
            (
                ParkedReason::UnknownOutcome(_) | ParkedReason::PublishRefused(_, Side::Action),
                Decision::Skip,
            ) => format!("{step} counts as not happened"),
            (ParkedReason::PublishRefused(_, Side::Action), Decision::Retry)
                if self.failure.is_some() =>
            {
                format!("{step} is not published again, as it is turned back anyhow")
            }
            (
                ParkedReason::UnknownOutcome(_)
                | ParkedReason::FailedAfterPivot(_)
                | ParkedReason::PublishRefused(_, Side::Action),
                Decision::Retry,
            ) => format!("{step} is tried again"),
            (ParkedReason::FailedAfterPivot(_), Decision::Skip) => format!("{step} is left out"),
            (ParkedReason::TimeoutAfterPivot, _) => "it has as much time again".to_owned(),
            (ParkedReason::PublishFailed(_), Decision::Retry) => {
                "the event is published again".to_owned()
            }
            (ParkedReason::PublishFailed(_), Decision::Skip) => "the event is left out".to_owned(),
        }
    }

    /// What goes on now by itself; of an instance that isn't parked.
    fn what_follows(&self, saga: &CompiledSaga) -> &'static str {
        match self.phase {
            Phase::Forward if self.failure.is_none() => "it goes on",
            Phase::Forward if self.pivot_began(saga) => {
                "what is under way is waited for, then it goes on or asks again"
            }
            Phase::Forward => "what is under way is waited for, then what was done is taken back",
            Phase::Backward => "what was done is taken back",
            Phase::Concluding(Outcome::Completed) => {
                "every step is done, and its outcome is published"
            }
            Phase::Concluding(Outcome::Compensated) => {
                "nothing is left to be taken back, and its outcome is published"
            }
            Phase::Finished(Outcome::Completed) => "it is completed",
            Phase::Finished(Outcome::Compensated) => {
                "nothing is left to be taken back: it is compensated"
            }
        }
    }

    /// What it waits for all the same; empty if it isn't parked.
    fn still_parked(&self, saga: &CompiledSaga) -> String {
        self.parked.as_ref().map_or_else(String::new, |parked| {
            format!(
                "; it is parked, {}, until somebody decides about that (`tidemill parked redrive` or `skip`)",
                question(saga, parked)
            )
        })
    }
}

fn question(saga: &CompiledSaga, parked: &Parked) -> String {
    let word = parked.reason.as_str();
    match step_name(saga, parked.reason) {
        Some(step) => format!("{word} at step {step}"),
        None => word.to_owned(),
    }
}

fn step_name(saga: &CompiledSaga, reason: ParkedReason) -> Option<&str> {
    let step = saga.definition.steps.get(reason.step()?)?;
    Some(&step.name)
}
