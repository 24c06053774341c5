//! `apply`: one input, one state, its effects.

use super::compiled::{CompiledAction, CompiledSaga};
use super::effect::{Effect, outcome_publish_id, step_publish_id};
use super::input::{Input, Observed, Published, Started};
use super::outcome::{Answer, Failed};
use super::state::{
    Instance, Outcome, Parked, ParkedReason, Phase, Progress, PublishProgress, StepState,
};
use crate::json::Value;
use crate::names::{ReplyToken, Side, TimerId};
use crate::planted::{Bug, planted};
use crate::timestamp::Timestamp;

/// What became of an input.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// What is to be done now.
    pub effects: Vec<Effect>,
    /// What the input meant.
    pub note: Note,
}

/// What an input meant; for the timeline, for counters and for whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The instance began, or a timer, a cancel or a decision took effect.
    Applied,
    /// A step's attempt succeeded.
    Success,
    /// A participant refused.
    Refused,
    /// An attempt failed.
    Failed,
    /// A publish is stored.
    Stored,
    /// An answer after its step was settled; recorded, changes nothing.
    Late,
    /// A reply with a wrong token, or to an attempt that was never made: never an outcome.
    Forged,
    /// A stream answered in the participant's place: never an outcome.
    StreamAnswered,
    /// Nothing to change: a stale timer, a second start, a decision about nothing.
    Ignored,
    /// A cancel after the pivot.
    PivotPassed,
}

impl Note {
    /// The word shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Note::Applied => "applied",
            Note::Success => "success",
            Note::Refused => "refused",
            Note::Failed => "failed",
            Note::Stored => "stored",
            Note::Late => "late",
            Note::Forged => "forged",
            Note::StreamAnswered => "stream-answered",
            Note::Ignored => "ignored",
            Note::PivotPassed => "pivot-passed",
        }
    }
}

impl Instance {
    /// The instance that `s` starts, and its first effects.
    pub fn start(
        saga: &CompiledSaga,
        id: &str,
        started: Started,
        at: Timestamp,
    ) -> (Instance, Vec<Effect>) {
        let mut instance = Instance {
            id: id.to_owned(),
            run8: started.run.run8(),
            run: started.run,
            revision: started.revision,
            input: started.input,
            correlation_id: started.correlation_id,
            position: started.position,
            started_at: at,
            at,
            deadline: at.plus_millis(saga.definition.timeout_ms),
            decisions: 0,
            concluded_at: None,
            phase: Phase::Forward,
            failure: None,
            parked: None,
            steps: vec![StepState::default(); saga.definition.steps.len()],
            happened: Vec::new(),
            publishes: Vec::new(),
            retried: 0,
            late_replies: 0,
            forged_replies: 0,
        };
        let mut effects = Vec::new();
        instance.advance(saga, &mut effects);
        (instance, effects)
    }

    /// Folds one input, stored at `at`.
    pub fn apply(&mut self, saga: &CompiledSaga, input: &Input, at: Timestamp) -> Applied {
        self.at = if planted(Bug::TimeGoesBack) {
            at
        } else {
            self.at.max(at)
        };
        let mut effects = Vec::new();
        let note = match input {
            Input::Started(started) if planted(Bug::StartedTwice) => {
                let id = self.id.clone();
                (*self, effects) = Instance::start(saga, &id, (**started).clone(), at);
                Note::Applied
            }
            Input::Started(_) => Note::Ignored,
            Input::Reply {
                step,
                side,
                attempt,
                token,
                answer,
            } => self.on_reply(saga, step, *side, *attempt, token, answer.as_ref()),
            Input::Observed {
                step,
                side,
                attempt,
                what,
            } => self.on_observed(saga, step, *side, *attempt, what),
            Input::Published { effect, at } => self.on_published(saga, effect, at),
            Input::Timer(timer) => self.on_timer(saga, timer, &mut effects),
            Input::Cancel(asked) => self.on_cancel(saga, asked),
            Input::Decision {
                decision, after, ..
            } => self.on_decision(saga, *decision, *after, &mut effects),
        };
        self.advance(saga, &mut effects);
        Applied { effects, note }
    }

    fn on_reply(
        &mut self,
        saga: &CompiledSaga,
        step: &str,
        side: Side,
        attempt: u32,
        token: &ReplyToken,
        answer: Option<&Answer>,
    ) -> Note {
        let expected = self.run.reply_token(step, side, attempt);
        let index = match saga.step_index(step) {
            Some(index)
                if (expected == *token || planted(Bug::TokenNotChecked))
                    && (self.was_made(index, side, attempt) || planted(Bug::AttemptNotChecked)) =>
            {
                index
            }
            _ => {
                self.forged_replies += 1;
                return Note::Forged;
            }
        };
        match answer {
            Some(answer) => self.on_answer(saga, index, side, attempt, answer),
            None => Note::StreamAnswered,
        }
    }

    fn was_made(&self, index: usize, side: Side, attempt: u32) -> bool {
        let made = self
            .steps
            .get(index)
            .map_or(0, |step| step.side(side).attempt);
        (1..=made).contains(&attempt)
    }

    fn on_observed(
        &mut self,
        saga: &CompiledSaga,
        step: &str,
        side: Side,
        attempt: u32,
        what: &Observed,
    ) -> Note {
        match saga.step_index(step) {
            Some(index) if self.was_made(index, side, attempt) => {
                self.on_answer(saga, index, side, attempt, &what.answer())
            }
            Some(_) => Note::Ignored,
            None => self.on_outcome_refused(step, what),
        }
    }

    /// A stream refused an outcome's event for good.
    fn on_outcome_refused(&mut self, effect: &str, what: &Observed) -> Note {
        let (Phase::Concluding(outcome), Observed::PublishRefused { message }) = (self.phase, what)
        else {
            return Note::Ignored;
        };
        let index =
            (0..self.publishes.len()).find(|index| outcome_publish_id(outcome, *index) == effect);
        let Some(index) = index.filter(|_| !planted(Bug::RefusedPublishLeft)) else {
            return Note::Ignored;
        };
        match self.publishes.get_mut(index) {
            Some(publish @ PublishProgress::Outstanding) => {
                *publish = PublishProgress::Failed;
                self.park(ParkedReason::PublishFailed(index), message);
                Note::Failed
            }
            _ => Note::Ignored,
        }
    }

    fn on_published(&mut self, saga: &CompiledSaga, effect: &str, at: &Published) -> Note {
        if let Phase::Concluding(outcome) = self.phase {
            let index = (0..self.publishes.len())
                .find(|index| outcome_publish_id(outcome, *index) == effect);
            return match index.and_then(|index| self.publishes.get_mut(index)) {
                Some(publish @ (PublishProgress::Outstanding | PublishProgress::Failed)) => {
                    // It is there, whatever was said before: a decision is no longer needed for this one.
                    let about = index.map(ParkedReason::PublishFailed);
                    if self.parked.as_ref().map(|parked| parked.reason) == about {
                        self.parked = None;
                    }
                    *publish = PublishProgress::Stored(at.clone());
                    Note::Stored
                }
                Some(_) | None => Note::Ignored,
            };
        }
        for (index, step) in saga.definition.steps.iter().enumerate() {
            for side in [Side::Action, Side::Compensation] {
                let attempt = self
                    .steps
                    .get(index)
                    .map_or(0, |state| state.side(side).attempt);
                let publishes =
                    matches!(saga.action(index, side), Some(CompiledAction::Publish(_)));
                if publishes && attempt > 0 && step_publish_id(&step.name, side) == effect {
                    let output = [
                        (
                            "sequence",
                            Value::from(i64::try_from(at.sequence).unwrap_or(i64::MAX)),
                        ),
                        ("stream", Value::from(at.stream.as_str())),
                    ];
                    let output = Value::Object(output.into_iter().collect());
                    return match self.on_answer(
                        saga,
                        index,
                        side,
                        attempt,
                        &Answer::Success(output),
                    ) {
                        Note::Success => Note::Stored,
                        note => note,
                    };
                }
            }
        }
        Note::Ignored
    }

    fn on_timer(
        &mut self,
        saga: &CompiledSaga,
        timer: &TimerId,
        effects: &mut Vec<Effect>,
    ) -> Note {
        let find = |name: &str| saga.step_index(name);
        match timer {
            TimerId::Saga(decisions)
                if *decisions == self.decisions || planted(Bug::StaleSagaTimer) =>
            {
                self.on_saga_timeout(saga)
            }
            TimerId::Saga(_) => Note::Ignored,
            TimerId::Attempt(step, side, attempt) => match find(step) {
                Some(index)
                    if self.is_current(index, *side, *attempt, |p| match p {
                        Progress::InFlight(Some(due)) => {
                            due <= self.at || !planted(Bug::TimerValidByClock)
                        }
                        _ => false,
                    }) =>
                {
                    let failed = Failed::delivered("AttemptTimeout", "no answer in time");
                    self.on_answer(saga, index, *side, *attempt, &Answer::Failed(failed));
                    Note::Applied
                }
                _ => Note::Ignored,
            },
            TimerId::Backoff(step, side, attempt) => match find(step) {
                Some(index)
                    if self.is_current(index, *side, *attempt, |p| {
                        matches!(p, Progress::BackingOff(_))
                    }) =>
                {
                    self.retried += 1;
                    self.send(saga, index, *side, effects);
                    Note::Applied
                }
                _ => Note::Ignored,
            },
            TimerId::Step(step, side, series) => match find(step) {
                Some(index) if self.is_active_series(index, *side, *series) => {
                    self.on_step_timeout(saga, index, *side);
                    Note::Applied
                }
                _ => Note::Ignored,
            },
        }
    }

    fn is_current(
        &self,
        index: usize,
        side: Side,
        attempt: u32,
        at: impl Fn(Progress) -> bool,
    ) -> bool {
        self.steps.get(index).is_some_and(|step| {
            let work = step.side(side);
            work.attempt == attempt && at(work.progress)
        })
    }

    fn is_active_series(&self, index: usize, side: Side, series: u32) -> bool {
        self.steps.get(index).is_some_and(|step| {
            let work = step.side(side);
            work.series == series && work.progress.is_active()
        })
    }

    pub(super) fn park(&mut self, reason: ParkedReason, message: &str) {
        // The first reason stays: it is the one that a decision is about. Others are found again after it.
        let message = super::outcome::short(message);
        self.parked.get_or_insert(Parked { reason, message });
    }

    /// Begins whatever is ready, until nothing more is.
    pub(super) fn advance(&mut self, saga: &CompiledSaga, effects: &mut Vec<Effect>) {
        // Every turn but the last begins or settles something, and there are finitely many things.
        let turns_max =
            4 * (self.steps.len() + saga.on_completed.len() + saga.on_compensated.len()) + 8;
        for _ in 0..turns_max {
            if self.parked.is_some() {
                return;
            }
            let moved = match self.phase {
                Phase::Forward if self.failure.is_some() => self.turn_back(saga),
                Phase::Forward => self.go_forward(saga, effects),
                Phase::Backward => self.go_backward(saga, effects),
                Phase::Concluding(outcome) => self.conclude(outcome),
                Phase::Finished(_) => false,
            };
            if !moved {
                return;
            }
        }
    }

    /// Decides the outcome and publishes its events.
    pub(super) fn begin_conclusion(
        &mut self,
        saga: &CompiledSaga,
        outcome: Outcome,
        effects: &mut Vec<Effect>,
    ) {
        self.phase = Phase::Concluding(outcome);
        self.concluded_at = Some(self.at);
        let publishes = match outcome {
            Outcome::Completed => saga.on_completed.len(),
            Outcome::Compensated => saga.on_compensated.len(),
        };
        self.publishes = vec![PublishProgress::Outstanding; publishes];
        for index in 0..publishes {
            self.publish_outcome(saga, index, effects);
        }
    }

    pub(super) fn publish_outcome(
        &mut self,
        saga: &CompiledSaga,
        index: usize,
        effects: &mut Vec<Effect>,
    ) {
        let Phase::Concluding(outcome) = self.phase else {
            return;
        };
        match self.outcome_effect(saga, outcome, index) {
            Ok(effect) => effects.push(effect),
            Err(error) => {
                if let Some(publish) = self.publishes.get_mut(index) {
                    *publish = PublishProgress::Failed;
                }
                self.park(
                    ParkedReason::PublishFailed(index),
                    &format!("ExpressionError: {error}"),
                );
            }
        }
    }

    fn conclude(&mut self, outcome: Outcome) -> bool {
        let failed = self
            .publishes
            .iter()
            .position(|publish| *publish == PublishProgress::Failed);
        if let Some(index) = failed {
            // A second publish that failed while the first was waiting for its decision.
            self.park(
                ParkedReason::PublishFailed(index),
                "the event can't be published",
            );
            return false;
        }
        let open = self.publishes.contains(&PublishProgress::Outstanding)
            && !planted(Bug::ConcludedBeforeStored);
        if !open {
            self.phase = Phase::Finished(outcome);
        }
        !open
    }

    /// The next timer, if any: what it is and when it is due.
    pub fn next_timer(&self, saga: &CompiledSaga) -> Option<(Timestamp, TimerId)> {
        let mut next: Option<(Timestamp, TimerId)> = None;
        let mut consider = |due: Timestamp, timer: &dyn Fn() -> TimerId| {
            if next.as_ref().is_none_or(|(earliest, _)| due < *earliest) {
                next = Some((due, timer()));
            }
        };
        if self.phase == Phase::Forward && self.failure.is_none() && self.parked.is_none() {
            consider(self.deadline, &|| TimerId::Saga(self.decisions));
        }
        for (step, state) in saga.definition.steps.iter().zip(&self.steps) {
            for side in [Side::Action, Side::Compensation] {
                let work = state.side(side);
                let name = || step.name.clone();
                match work.progress {
                    Progress::InFlight(Some(due)) => {
                        if !planted(Bug::AttemptTimeoutIgnored) {
                            consider(due, &|| TimerId::Attempt(name(), side, work.attempt));
                        }
                        if !planted(Bug::StepTimeoutIgnored) {
                            consider(work.deadline, &|| TimerId::Step(name(), side, work.series));
                        }
                    }
                    Progress::BackingOff(due) => {
                        consider(due, &|| TimerId::Backoff(name(), side, work.attempt));
                        if !planted(Bug::StepTimeoutIgnored) {
                            consider(work.deadline, &|| TimerId::Step(name(), side, work.series));
                        }
                    }
                    // A publish waits for its stream for as long as it takes.
                    Progress::InFlight(None)
                    | Progress::Waiting
                    | Progress::Done
                    | Progress::Skipped
                    | Progress::Refused
                    | Progress::GivenUp => {}
                }
            }
        }
        next
    }
}
