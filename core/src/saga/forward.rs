//! Actions: beginning them, their attempts, and what follows when they fail for good.

use super::compiled::{CompiledAction, CompiledSaga};
use super::effect::Effect;
use super::outcome::short;
use super::state::{Failure, Instance, Outcome, ParkedReason, Progress, Work};
use super::variables::Variables;
use crate::definition::OnUnknown;
use crate::json::Value;
use crate::names::Side;
use crate::planted::{Bug, planted};
use crate::retry::Retry;

/// How long a side of a step may take, and how it is tried again.
pub(super) struct Patience {
    timeout_ms: u64,
    step_timeout_ms: u64,
    pub(super) retry: Retry,
}

pub(super) fn patience(saga: &CompiledSaga, index: usize, side: Side) -> Option<Patience> {
    let step = saga.definition.steps.get(index)?;
    Some(match side {
        Side::Action => Patience {
            timeout_ms: step.timeout_ms,
            step_timeout_ms: step.step_timeout_ms,
            retry: step.retry,
        },
        Side::Compensation => {
            let compensation = step.compensation.as_ref()?;
            Patience {
                timeout_ms: compensation.timeout_ms,
                step_timeout_ms: compensation.step_timeout_ms,
                retry: compensation.retry,
            }
        }
    })
}

impl Instance {
    /// Begins every step that is ready. True if anything was begun or settled.
    pub(super) fn go_forward(&mut self, saga: &CompiledSaga, effects: &mut Vec<Effect>) -> bool {
        if let Some(index) = self.failed_action()
            && !planted(Bug::SecondQuestionForgotten)
        {
            return self.ask_about(saga, index);
        }
        let mut moved = false;
        for (index, step) in saga.steps.iter().enumerate() {
            let progress = |index: usize| self.steps.get(index).map(|step| step.action.progress);
            let ready = progress(index) == Some(Progress::Waiting)
                && step.after.iter().all(|before| {
                    progress(*before).is_some_and(Progress::is_done) || planted(Bug::AfterIgnored)
                });
            if !ready {
                continue;
            }
            moved = true;
            match step
                .when
                .as_ref()
                .map(|when| Variables::new(self, saga).with(|bindings| when.evaluate(bindings)))
            {
                None | Some(Ok(Value::Bool(true))) => {
                    self.begin_series(saga, index, Side::Action, effects)
                }
                Some(Ok(Value::Bool(false))) if planted(Bug::WhenIgnored) => {
                    self.begin_series(saga, index, Side::Action, effects)
                }
                Some(Ok(Value::Bool(false))) => {
                    self.set_progress(index, Side::Action, Progress::Skipped)
                }
                Some(Ok(_)) => {
                    self.fail_step(saga, index, "ExpressionError", "`when` gives no boolean", 0)
                }
                Some(Err(error)) => {
                    self.fail_step(saga, index, "ExpressionError", &format!("when: {error}"), 0)
                }
            }
            if self.failure.is_some() {
                return true;
            }
        }
        if !moved && self.steps.iter().all(|step| step.action.progress.is_done()) {
            self.begin_conclusion(saga, Outcome::Completed, effects);
            return true;
        }
        moved
    }

    /// An action that failed for good, and there is no failure to turn back for: it failed beside one that is waiting
    /// for, or has got, a person's decision.
    fn ask_about(&mut self, saga: &CompiledSaga, index: usize) -> bool {
        if self.has_active_action() {
            return false;
        }
        let reason = if self.open_unknown(saga) == Some(index) {
            ParkedReason::UnknownOutcome(index)
        } else if self.pivot_began(saga) {
            ParkedReason::FailedAfterPivot(index)
        } else if matches!(
            saga.action(index, Side::Action),
            Some(CompiledAction::Publish(_))
        ) {
            ParkedReason::PublishRefused(index, Side::Action)
        } else {
            self.fail_step(saga, index, "Abandoned", "it failed before", 0);
            return true;
        };
        self.park_action(reason, index);
        false
    }

    pub(super) fn park_action(&mut self, reason: ParkedReason, index: usize) {
        let error = self
            .steps
            .get(index)
            .and_then(|step| step.action.error.clone());
        self.park(reason, &error.unwrap_or_default());
    }

    /// The first action that failed for good.
    pub(super) fn failed_action(&self) -> Option<usize> {
        self.steps
            .iter()
            .position(|step| matches!(step.action.progress, Progress::Refused | Progress::GivenUp))
    }

    /// The first action that may have happened, of which a person is to say whether it did.
    pub(super) fn open_unknown(&self, saga: &CompiledSaga) -> Option<usize> {
        let steps = saga.definition.steps.iter().zip(&self.steps);
        steps.enumerate().position(|(index, (definition, state))| {
            let settled = matches!(state.action.progress, Progress::Refused | Progress::GivenUp);
            let asks = definition.pivot || definition.on_unknown == OnUnknown::Park;
            settled
                && asks
                && state.action.delivered
                && !self.happened.contains(&index)
                && !planted(Bug::SecondQuestionForgotten)
        })
    }

    /// Begins a series of attempts: the first one, or another after a decision to retry.
    pub(super) fn begin_series(
        &mut self,
        saga: &CompiledSaga,
        index: usize,
        side: Side,
        effects: &mut Vec<Effect>,
    ) {
        let Some(patience) = patience(saga, index, side) else {
            return;
        };
        let now = self.at;
        let deadline = now.plus_millis(patience.step_timeout_ms);
        if let Some(work) = self.work_mut(index, side) {
            if work.attempt == 0 {
                work.begun_at = now;
            }
            work.series = work.attempt.saturating_add(1);
            work.failures = 0;
            work.misses = 0;
            work.deadline = deadline;
        }
        self.send(saga, index, side, effects);
    }

    /// Makes the next attempt.
    pub(super) fn send(
        &mut self,
        saga: &CompiledSaga,
        index: usize,
        side: Side,
        effects: &mut Vec<Effect>,
    ) {
        let Some(patience) = patience(saga, index, side) else {
            return;
        };
        let due = match saga.action(index, side) {
            Some(CompiledAction::Publish(_)) => None,
            _ => Some(self.at.plus_millis(patience.timeout_ms)),
        };
        let now = self.at;
        if let Some(work) = self.work_mut(index, side) {
            work.attempt = work.attempt.saturating_add(1);
            work.sent_at = now;
            work.progress = Progress::InFlight(due);
        }
        match self.attempt_effect(saga, index, side) {
            Ok(effect) => effects.push(effect),
            Err(error) => {
                self.set_progress(index, side, Progress::GivenUp);
                self.settle_failed(saga, index, side, "ExpressionError", &error.to_string(), 0);
            }
        }
    }

    /// What follows when a side of a step has failed for good; its progress says how already.
    pub(super) fn settle_failed(
        &mut self,
        saga: &CompiledSaga,
        index: usize,
        side: Side,
        reason: &str,
        message: &str,
        code: u32,
    ) {
        if let Some(work) = self.work_mut(index, side) {
            work.error = Some(format!("{reason}: {}", short(message)));
        }
        if side == Side::Compensation && planted(Bug::FailedCompensationLeft) {
            self.set_progress(index, side, Progress::Skipped);
            return;
        }
        if side == Side::Compensation {
            self.park(
                ParkedReason::CompensationFailed(index),
                &format!("{reason}: {message}"),
            );
            return;
        }
        self.fail_step(saga, index, reason, message, code);
    }

    fn fail_step(
        &mut self,
        saga: &CompiledSaga,
        index: usize,
        reason: &str,
        message: &str,
        code: u32,
    ) {
        let Some(step) = saga.definition.steps.get(index) else {
            return;
        };
        let unknown = self
            .steps
            .get(index)
            .is_some_and(|step| step.action.delivered);
        let unknown = unknown || (step.pivot && planted(Bug::RefusedPivotParks));
        if unknown && !planted(Bug::UnknownNotCompensated) {
            let parks = (step.pivot && !planted(Bug::UnknownPivotCompensated))
                || (step.on_unknown == OnUnknown::Park && !planted(Bug::UnknownNotAsked));
            if parks {
                self.park(
                    ParkedReason::UnknownOutcome(index),
                    &format!("{reason}: {message}"),
                );
                return;
            }
            self.note_happened(index);
        }
        self.fail(Failure {
            reason: reason.to_owned(),
            message: short(message),
            code,
            step: Some(step.name.clone()),
        });
    }

    /// A person says that an action nobody knew about did not happen.
    pub(super) fn take_as_not_happened(&mut self, saga: &CompiledSaga, index: usize) {
        self.happened.retain(|happened| *happened != index);
        if let Some(work) = self.work_mut(index, Side::Action) {
            work.delivered = false;
            work.progress = Progress::GivenUp;
        }
        self.fail_step(
            saga,
            index,
            "NotHappened",
            "decided by hand: it did not happen",
            0,
        );
    }

    /// Turns back. The first failure is the one that counts.
    pub(super) fn fail(&mut self, failure: Failure) {
        if planted(Bug::LastFailureTold) {
            self.failure = Some(failure);
            return;
        }
        self.failure.get_or_insert(failure);
    }

    pub(super) fn note_happened(&mut self, index: usize) {
        if !self.happened.contains(&index) {
            self.happened.push(index);
        }
    }

    pub(super) fn set_progress(&mut self, index: usize, side: Side, progress: Progress) {
        if let Some(work) = self.work_mut(index, side) {
            work.progress = progress;
        }
    }

    pub(super) fn set_delivered(&mut self, index: usize, side: Side, delivered: bool) {
        if let Some(work) = self.work_mut(index, side) {
            work.delivered = delivered;
        }
    }

    pub(super) fn work_mut(&mut self, index: usize, side: Side) -> Option<&mut Work> {
        self.steps.get_mut(index).map(|step| step.side_mut(side))
    }

    /// Whether the pivot was sent and nobody has said that it didn't happen: from there on only forward.
    pub(super) fn pivot_began(&self, saga: &CompiledSaga) -> bool {
        saga.definition
            .steps
            .iter()
            .zip(&self.steps)
            .any(|(step, state)| {
                let action = &state.action;
                let did_not_happen =
                    matches!(action.progress, Progress::Refused | Progress::GivenUp)
                        && !action.delivered;
                step.pivot && action.attempt > 0 && !did_not_happen
            })
    }
}
