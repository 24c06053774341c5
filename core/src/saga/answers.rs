//! What an attempt's answer means for its step.

use super::compiled::{CompiledAction, CompiledSaga};
use super::forward::patience;
use super::machine::Note;
use super::outcome::{Answer, Failed, short};
use super::state::{Instance, ParkedReason, Phase, Progress};
use crate::json::Value;
use crate::names::Side;
use crate::planted::{Bug, planted};

impl Instance {
    /// Folds what became of an attempt.
    pub(super) fn on_answer(
        &mut self,
        saga: &CompiledSaga,
        index: usize,
        side: Side,
        attempt: u32,
        answer: &Answer,
    ) -> Note {
        let work = self.steps.get(index).map(|step| step.side(side));
        let Some((progress, current)) = work.map(|work| (work.progress, work.attempt)) else {
            return Note::Ignored;
        };
        let is_old = attempt < current;
        let ignored = match answer {
            Answer::Success(_) => is_old && planted(Bug::SuccessOfOldAttemptIgnored),
            Answer::Refused { .. } => is_old && planted(Bug::RefusalOfOldAttemptIgnored),
            Answer::Failed(_) => false,
        };
        if ignored {
            return Note::Late;
        }
        match (progress.is_active(), answer) {
            (true, Answer::Success(output)) => {
                self.settle_done(index, side, output);
                Note::Success
            }
            (true, Answer::Refused { code, message }) => {
                self.set_progress(index, side, Progress::Refused);
                if planted(Bug::RefusalForgetsDelivery) || planted(Bug::RefusedIsCompensated) {
                    let delivered = planted(Bug::RefusedIsCompensated);
                    self.set_delivered(index, side, delivered);
                }
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
        let is_old = work.attempt != attempt && !planted(Bug::FailureOfOldAttemptCounts);
        let again =
            !matches!(work.progress, Progress::InFlight(_)) && !planted(Bug::FailureCountsTwice);
        if is_old || again {
            self.late_replies += 1;
            return Note::Late;
        }
        work.error = Some(format!("{}: {}", failed.reason, short(&failed.message)));
        if failed.counts {
            work.failures = work.failures.saturating_add(1);
        } else {
            work.misses = work.misses.saturating_add(1);
        }
        let exhausted =
            work.failures >= patience.retry.max_attempts && !planted(Bug::AttemptsUnlimited);
        let once = side == Side::Compensation && planted(Bug::CompensationTriedOnce);
        let give_up =
            exhausted || once || !failed.retryable || (side == Side::Action && turning_back);
        if !give_up {
            let backoff = patience
                .retry
                .backoff_ms(work.failures.saturating_add(work.misses), &seed);
            let asked = failed
                .retry_after_ms
                .filter(|_| !planted(Bug::RetryAfterIgnored));
            work.progress = Progress::BackingOff(now.plus_millis(backoff.max(asked.unwrap_or(0))));
            return Note::Failed;
        }
        work.progress = Progress::GivenUp;
        if publishes && failed.reason == "PublishRefused" && !planted(Bug::RefusedPublishLeft) {
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
                if step.compensation.attempt == 0 || planted(Bug::LateOutputAlwaysAdded) {
                    step.action.output = Some(output.clone());
                }
                step.action.delivered = true;
                // It did happen after all, so it is taken back like the rest.
                if !planted(Bug::LateSuccessForgotten) {
                    self.note_happened(index);
                }
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
}
