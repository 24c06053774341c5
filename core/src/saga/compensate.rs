//! Taking back what was done: in reverse order, one at a time, once every action has settled.

use super::compiled::CompiledSaga;
use super::effect::Effect;
use super::state::{Instance, Outcome, ParkedReason, Phase, Progress};
use crate::names::Side;
use crate::planted::{Bug, planted};

impl Instance {
    /// After a failure: waits for the actions in flight, then turns round.
    pub(super) fn turn_back(&mut self, saga: &CompiledSaga) -> bool {
        for index in 0..self.steps.len() {
            let backing_off = self
                .steps
                .get(index)
                .is_some_and(|step| matches!(step.action.progress, Progress::BackingOff(_)));
            if backing_off {
                // No further attempt is made for something that would be taken back at once.
                self.set_progress(index, Side::Action, Progress::GivenUp);
                self.settle_failed(
                    saga,
                    index,
                    Side::Action,
                    "Abandoned",
                    "another step failed",
                    0,
                );
                return true;
            }
        }
        if self.has_active_action() && !planted(Bug::CompensatedBesideActions) {
            return false;
        }
        if let Some(index) = self.open_unknown(saga) {
            self.park_action(ParkedReason::UnknownOutcome(index), index);
            return false;
        }
        if self.pivot_began(saga) && !planted(Bug::FailureAfterPivotTurnsBack) {
            return self.fail_forward(saga);
        }
        self.phase = Phase::Backward;
        true
    }

    /// A failure with the pivot behind it: somebody must decide about the step that failed.
    fn fail_forward(&mut self, saga: &CompiledSaga) -> bool {
        let Some(failure) = &self.failure else {
            return false;
        };
        let of = failure
            .step
            .as_deref()
            .and_then(|name| saga.step_index(name));
        let is_open = |index: &usize| {
            let step = self.steps.get(*index);
            step.is_some_and(|step| !step.action.progress.is_done())
        };
        match of.filter(is_open).or_else(|| self.failed_action()) {
            Some(index) => {
                let message = format!("{}: {}", failure.reason, failure.message);
                self.park(ParkedReason::FailedAfterPivot(index), &message);
                false
            }
            // The pivot happened after all, when something else had failed that doesn't stand in the way.
            None => {
                self.failure = None;
                true
            }
        }
    }

    /// Begins the next compensation, or concludes when there is none left.
    pub(super) fn go_backward(&mut self, saga: &CompiledSaga, effects: &mut Vec<Effect>) -> bool {
        let progress = |index: usize| {
            self.steps
                .get(index)
                .map_or(Progress::Done, |step| step.compensation.progress)
        };
        let needed = |index: usize| saga.compensation(index).is_some();
        if self
            .happened
            .iter()
            .any(|index| progress(*index).is_active())
            && !planted(Bug::CompensatedAllAtOnce)
        {
            return false;
        }
        let failed = self
            .happened
            .iter()
            .rev()
            .copied()
            .find(|index| matches!(progress(*index), Progress::GivenUp | Progress::Refused));
        if let Some(index) = failed {
            self.park(
                ParkedReason::CompensationFailed(index),
                "the compensation failed",
            );
            return false;
        }
        let mut left = self
            .happened
            .iter()
            .rev()
            .copied()
            .filter(|index| needed(*index) && progress(*index) == Progress::Waiting);
        let next = if planted(Bug::CompensatedForwards) {
            left.next_back()
        } else {
            left.next()
        };
        match next {
            Some(index) => self.begin_series(saga, index, Side::Compensation, effects),
            None => self.begin_conclusion(saga, Outcome::Compensated, effects),
        }
        true
    }
}
