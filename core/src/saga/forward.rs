//! Actions: beginning them, their attempts and what their answers mean.

use super::compiled::{CompiledAction, CompiledSaga};
use super::effect::Effect;
use super::machine::Note;
use super::outcome::{Answer, Failed, short};
use super::state::{Failure, Instance, Outcome, ParkedReason, Phase, Progress, Work};
use super::variables::Variables;
use crate::definition::OnUnknown;
use crate::json::Value;
use crate::names::Side;
use crate::retry::Retry;

/// How long a side of a step may take, and how it is tried again.
struct Patience {
    timeout_ms: u64,
    step_timeout_ms: u64,
    retry: Retry,
}

fn patience(saga: &CompiledSaga, index: usize, side: Side) -> Option<Patience> {
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
        if let Some(index) = self.failed_action() {
            return self.ask_about(saga, index);
        }
        let mut moved = false;
        for (index, step) in saga.steps.iter().enumerate() {
            let progress = |index: usize| self.steps.get(index).map(|step| step.action.progress);
            let ready = progress(index) == Some(Progress::Waiting)
                && step
                    .after
                    .iter()
                    .all(|before| progress(*before).is_some_and(Progress::is_done));
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
            settled && asks && state.action.delivered && !self.happened.contains(&index)
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

    /// Folds what became of an attempt.
    pub(super) fn on_answer(
        &mut self,
        saga: &CompiledSaga,
        index: usize,
        side: Side,
        attempt: u32,
        answer: &Answer,
    ) -> Note {
        let Some(progress) = self.steps.get(index).map(|step| step.side(side).progress) else {
            return Note::Ignored;
        };
        match (progress.is_active(), answer) {
            (true, Answer::Success(output)) => {
                self.settle_done(index, side, output);
                Note::Success
            }
            (true, Answer::Refused { code, message }) => {
                self.set_progress(index, side, Progress::Refused);
                self.settle_failed(saga, index, side, "Refused", message, *code);
                Note::Refused
            }
            (true, Answer::Failed(failed)) => self.on_failed(saga, index, side, attempt, failed),
            (false, Answer::Success(output)) => self.on_late_success(saga, index, side, output),
            (false, Answer::Refused { .. } | Answer::Failed(_)) => {
                self.late_replies += 1;
                Note::Late
            }
        }
    }

    fn settle_done(&mut self, index: usize, side: Side, output: &Value) {
        if let Some(work) = self.work_mut(index, side) {
            work.progress = Progress::Done;
            work.output = Some(output.clone());
        }
        if side == Side::Action {
            self.note_happened(index);
        }
    }

    fn on_failed(
        &mut self,
        saga: &CompiledSaga,
        index: usize,
        side: Side,
        attempt: u32,
        failed: &Failed,
    ) -> Note {
        let (Some(patience), turning_back) = (patience(saga, index, side), self.failure.is_some())
        else {
            return Note::Ignored;
        };
        let publishes = matches!(saga.action(index, side), Some(CompiledAction::Publish(_)));
        let seed = format!("{} {index} {side} {attempt}", self.run8);
        let now = self.at;
        let Some(work) = self.work_mut(index, side) else {
            return Note::Ignored;
        };
        // Whenever it is heard of, an attempt that was delivered may have been done.
        work.delivered |= failed.delivered;
        // A failure counts only for the current attempt, and once.
        if work.attempt != attempt || !matches!(work.progress, Progress::InFlight(_)) {
            self.late_replies += 1;
            return Note::Late;
        }
        work.error = Some(format!("{}: {}", failed.reason, short(&failed.message)));
        if failed.counts {
            work.failures = work.failures.saturating_add(1);
        } else {
            work.misses = work.misses.saturating_add(1);
        }
        let exhausted = work.failures >= patience.retry.max_attempts;
        let give_up = exhausted || !failed.retryable || (side == Side::Action && turning_back);
        if !give_up {
            let backoff = patience
                .retry
                .backoff_ms(work.failures.saturating_add(work.misses), &seed);
            work.progress = Progress::BackingOff(
                now.plus_millis(backoff.max(failed.retry_after_ms.unwrap_or(0))),
            );
            return Note::Failed;
        }
        work.progress = Progress::GivenUp;
        if publishes && failed.reason == "PublishRefused" {
            // Whoever says so has looked for the event: it is not there.
            work.delivered = false;
            self.park(ParkedReason::PublishRefused(index, side), &failed.message);
        } else {
            let reason = if exhausted {
                "Exhausted"
            } else {
                failed.reason
            };
            self.settle_failed(
                saga,
                index,
                side,
                reason,
                &format!("{}: {}", failed.reason, failed.message),
                0,
            );
        }
        Note::Failed
    }

    /// A success after the step was given up or refused.
    fn on_late_success(
        &mut self,
        saga: &CompiledSaga,
        index: usize,
        side: Side,
        output: &Value,
    ) -> Note {
        let (phase, parked) = (self.phase, self.parked.as_ref());
        let asked = parked.is_some_and(|parked| parked.reason.is_about(index, side));
        let Some(step) = self.steps.get_mut(index) else {
            return Note::Ignored;
        };
        let failed = matches!(
            step.side(side).progress,
            Progress::GivenUp | Progress::Refused
        );
        match (side, phase) {
            (Side::Compensation, Phase::Backward) if failed => {
                step.compensation.progress = Progress::Done;
            }
            (Side::Action, Phase::Forward) if failed => {
                self.settle_done(index, side, output);
                // With the pivot behind it, what went well after all stands in nobody's way.
                let failure = self.failure.as_ref();
                let its_own = failure
                    .and_then(|failure| failure.step.as_deref())
                    .and_then(|name| saga.step_index(name))
                    == Some(index);
                if its_own && self.pivot_began(saga) {
                    self.failure = None;
                }
            }
            (Side::Action, Phase::Backward) if failed => {
                if step.compensation.attempt == 0 {
                    step.action.output = Some(output.clone());
                }
                step.action.delivered = true;
                // It did happen after all, so it is taken back like the rest.
                self.note_happened(index);
            }
            // Once the outcome is decided nothing changes any more: its events say what was known then.
            _ => {}
        }
        if failed && asked {
            // The question that was put to a person is answered.
            self.parked = None;
            return Note::Success;
        }
        self.late_replies += 1;
        Note::Late
    }

    pub(super) fn on_step_timeout(&mut self, saga: &CompiledSaga, index: usize, side: Side) {
        if let Some(work) = self.work_mut(index, side) {
            work.delivered |= matches!(work.progress, Progress::InFlight(_));
            work.progress = Progress::GivenUp;
        }
        self.settle_failed(
            saga,
            index,
            side,
            "StepTimeout",
            "the step took too long",
            0,
        );
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
        if unknown {
            if step.pivot || step.on_unknown == OnUnknown::Park {
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
        self.failure.get_or_insert(failure);
    }

    fn note_happened(&mut self, index: usize) {
        if !self.happened.contains(&index) {
            self.happened.push(index);
        }
    }

    pub(super) fn set_progress(&mut self, index: usize, side: Side, progress: Progress) {
        if let Some(work) = self.work_mut(index, side) {
            work.progress = progress;
        }
    }

    fn work_mut(&mut self, index: usize, side: Side) -> Option<&mut Work> {
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
