//! What comes from outside of the steps: the saga's timeout, a cancel, and decisions about what is parked.

use super::compiled::CompiledSaga;
use super::effect::Effect;
use super::input::Asked;
use super::machine::Note;
use super::state::{Failure, Instance, ParkedReason, Phase, Progress, PublishProgress};
use crate::control::Decision;
use crate::names::Side;
use crate::planted::{Bug, planted};

impl Instance {
    pub(super) fn on_saga_timeout(&mut self, saga: &CompiledSaga) -> Note {
        let ignored = self.phase != Phase::Forward
            || self.failure.is_some()
            || self.parked.is_some()
            || planted(Bug::SagaTimeoutIgnored);
        if ignored {
            return Note::Ignored;
        }
        let message = "the saga as a whole took too long";
        if self.pivot_began(saga) && !planted(Bug::TimeoutAfterPivotTurnsBack) {
            self.park(ParkedReason::TimeoutAfterPivot, message);
        } else {
            self.fail(Failure {
                reason: "Timeout".to_owned(),
                message: message.to_owned(),
                code: 0,
                step: None,
            });
        }
        Note::Applied
    }

    pub(super) fn on_cancel(&mut self, saga: &CompiledSaga, asked: &Asked) -> Note {
        if self.phase != Phase::Forward {
            return Note::Ignored;
        }
        if self.pivot_began(saga) && !planted(Bug::CancelAfterPivot) {
            return Note::PivotPassed;
        }
        if self.failure.is_some() {
            return Note::Ignored;
        }
        // What was parked on the way forward is taken back like the rest; but whether an action happened is still a
        // person's to say (`onUnknown: Park`), and nothing is taken back before.
        match self.parked.as_ref().map(|parked| parked.reason) {
            Some(ParkedReason::UnknownOutcome(index)) if planted(Bug::CancelAnswersUnknown) => {
                self.parked = None;
                self.set_delivered(index, Side::Action, false);
            }
            Some(ParkedReason::UnknownOutcome(_)) => {}
            _ => self.parked = None,
        }
        let why = super::outcome::short(&asked.why);
        self.fail(Failure {
            reason: "Cancelled".to_owned(),
            message: why,
            code: 0,
            step: None,
        });
        Note::Applied
    }

    pub(super) fn on_decision(
        &mut self,
        saga: &CompiledSaga,
        decision: Decision,
        after: Option<u32>,
        effects: &mut Vec<Effect>,
    ) -> Note {
        // Asked again, and stored again: it was about what was parked then.
        if after.is_some_and(|after| after != self.decisions) {
            return Note::Ignored;
        }
        let Some(parked) = self.parked.take() else {
            return Note::Ignored;
        };
        // A decision gives the saga as much time as it had at its start.
        self.decisions = self.decisions.saturating_add(1);
        self.deadline = self.at.plus_millis(saga.definition.timeout_ms);
        match (parked.reason, decision) {
            (
                ParkedReason::CompensationFailed(index)
                | ParkedReason::PublishRefused(index, Side::Compensation),
                decision,
            ) => match decision {
                Decision::Retry => self.begin_series(saga, index, Side::Compensation, effects),
                Decision::Skip => self.set_progress(index, Side::Compensation, Progress::Skipped),
            },
            (
                ParkedReason::UnknownOutcome(index)
                | ParkedReason::PublishRefused(index, Side::Action),
                Decision::Skip,
            ) => {
                self.take_as_not_happened(saga, index);
            }
            (ParkedReason::FailedAfterPivot(index), Decision::Skip) => {
                self.failure = None;
                self.set_progress(index, Side::Action, Progress::Skipped);
            }
            // Another step's failure stands: if this one turns out to have happened, it is taken back with the rest.
            (ParkedReason::UnknownOutcome(index), Decision::Retry) => {
                if planted(Bug::DecisionForgetsFailure) {
                    self.failure = None;
                }
                self.begin_series(saga, index, Side::Action, effects);
            }
            (ParkedReason::PublishRefused(index, Side::Action), Decision::Retry) => {
                // After another step's failure it would only be published to be taken back at once.
                if self.failure.is_none() {
                    self.begin_series(saga, index, Side::Action, effects);
                }
            }
            (ParkedReason::FailedAfterPivot(index), Decision::Retry) => {
                self.failure = None;
                // A step that never began has its `when` to be tried again.
                let began = self
                    .steps
                    .get(index)
                    .is_some_and(|step| step.action.attempt > 0);
                if began {
                    self.begin_series(saga, index, Side::Action, effects);
                }
            }
            (ParkedReason::TimeoutAfterPivot, _) => {}
            (ParkedReason::PublishFailed(index), decision) => {
                if let Some(publish) = self.publishes.get_mut(index) {
                    *publish = PublishProgress::Skipped;
                    if decision == Decision::Retry {
                        *publish = PublishProgress::Outstanding;
                        self.publish_outcome(saga, index, effects);
                    }
                }
            }
        }
        Note::Applied
    }
}
