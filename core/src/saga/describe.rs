//! What people see of an instance.

use super::compiled::CompiledSaga;
use super::input::{Asked, Input};
use super::machine::Note;
use super::state::{Instance, Outcome, Phase, Progress, Work};
use crate::control::{Decision, StepStatus, TimelineEntry};
use crate::json::Value;
use crate::names::{Side, TimerId};
use crate::status::{InstanceState, InstanceSummary};
use crate::timestamp::Timestamp;

impl Instance {
    /// Where it is, for lists.
    pub fn state(&self) -> InstanceState {
        match self.phase {
            _ if self.parked.is_some() => InstanceState::Parked,
            Phase::Forward if self.failure.is_none() => InstanceState::Running,
            Phase::Forward | Phase::Backward | Phase::Concluding(Outcome::Compensated) => {
                InstanceState::Compensating
            }
            Phase::Concluding(Outcome::Completed) => InstanceState::Running,
            Phase::Finished(Outcome::Completed) => InstanceState::Completed,
            Phase::Finished(Outcome::Compensated) => InstanceState::Compensated,
        }
    }

    /// Its summary, as of a position of the log.
    pub fn summary(&self, saga: &CompiledSaga, log_sequence: u64) -> InstanceSummary {
        let active = saga
            .definition
            .steps
            .iter()
            .zip(&self.steps)
            .find(|(_, state)| {
                state.action.progress.is_active() || state.compensation.progress.is_active()
            });
        let failure = self.failure.as_ref();
        let at_step = active.map(|(step, _)| step.name.clone());
        InstanceSummary {
            id: self.id.clone(),
            state: self.state(),
            step: self
                .parked
                .as_ref()
                .and_then(|parked| parked.reason.step())
                .and_then(|index| saga.definition.steps.get(index))
                .map(|step| step.name.clone())
                .or_else(|| failure.and_then(|failure| failure.step.clone()))
                .or(at_step),
            reason: match &self.parked {
                Some(parked) => Some(parked.reason.as_str().to_owned()),
                None => failure.map(|failure| failure.reason.clone()),
            },
            message: match &self.parked {
                Some(parked) => Some(parked.message.clone()),
                None => failure.map(|failure| failure.message.clone()),
            },
            revision: self.revision.clone(),
            started_at: self.started_at,
            updated_at: self.at,
            correlation_id: Some(self.correlation_id.clone()).filter(|id| !id.is_empty()),
            log_sequence,
        }
    }

    /// Its steps, in the order of the definition.
    pub fn step_statuses(&self, saga: &CompiledSaga) -> Vec<StepStatus> {
        let steps = saga.definition.steps.iter().zip(&self.steps);
        // What hasn't begun when the way forward is over never will.
        let over = self.phase != Phase::Forward;
        let action = |work: &Work| match work.progress {
            Progress::Waiting if over => "not-begun",
            _ => word(work),
        };
        steps
            .map(|(step, state)| StepStatus {
                name: step.name.clone(),
                action: action(&state.action).to_owned(),
                compensation: (state.compensation.progress != Progress::Waiting)
                    .then(|| word(&state.compensation).to_owned()),
                attempts: state.action.attempt,
                compensation_attempts: Some(state.compensation.attempt).filter(|made| *made > 0),
                output: state.action.output.clone().unwrap_or(Value::Null),
                output_left_out: None,
            })
            .collect()
    }

    /// The timeline's entry of an input that was just applied.
    pub fn timeline_entry(
        &self,
        saga: &CompiledSaga,
        input: &Input,
        note: Note,
        at: Timestamp,
        sequence: u64,
    ) -> TimelineEntry {
        let mut entry = TimelineEntry {
            at,
            sequence,
            what: String::new(),
            step: None,
            side: None,
            attempt: None,
            outcome: note.as_str().to_owned(),
            detail: String::new(),
            took_ms: None,
        };
        let attempt_of = |entry: &mut TimelineEntry, step: &str, side: Side, attempt: u32| {
            entry.step = Some(step.to_owned());
            entry.side = Some(side);
            entry.attempt = Some(attempt);
        };
        match input {
            Input::Started(started) => {
                entry.what = "started".to_owned();
                entry.detail = match &started.position {
                    Some(position) => format!(
                        "by {} at {} {}",
                        started.input.event_type, position.stream, position.sequence
                    ),
                    None => "by request".to_owned(),
                };
            }
            Input::Reply {
                step,
                side,
                attempt,
                ..
            } => {
                entry.what = "reply".to_owned();
                attempt_of(&mut entry, step, *side, *attempt);
                self.add_attempt(saga, &mut entry, note, at);
            }
            Input::Observed {
                step,
                side,
                attempt,
                ..
            } => {
                entry.what = "observed".to_owned();
                attempt_of(&mut entry, step, *side, *attempt);
                self.add_attempt(saga, &mut entry, note, at);
            }
            Input::Published { effect, at } => {
                entry.what = "published".to_owned();
                entry.detail = format!("{effect} at {} {}", at.stream, at.sequence);
            }
            Input::Timer(timer) => {
                entry.what = "timer".to_owned();
                match timer {
                    TimerId::Saga(_) => entry.detail = "the saga's timeout".to_owned(),
                    TimerId::Attempt(step, side, attempt) => {
                        attempt_of(&mut entry, step, *side, *attempt);
                        entry.detail = "no answer in time".to_owned();
                    }
                    TimerId::Backoff(step, side, attempt) => {
                        attempt_of(&mut entry, step, *side, *attempt);
                        entry.detail = "tried again".to_owned();
                    }
                    TimerId::Step(step, side, attempt) => {
                        attempt_of(&mut entry, step, *side, *attempt);
                        entry.detail = "the step took too long".to_owned();
                    }
                }
            }
            Input::Cancel(asked) => {
                entry.what = "cancel".to_owned();
                entry.detail = by_and_why(asked);
            }
            Input::Decision {
                decision, asked, ..
            } => {
                entry.what = "decision".to_owned();
                let word = match decision {
                    Decision::Retry => "redrive",
                    Decision::Skip => "skip",
                };
                entry.detail = format!("{word} {}", by_and_why(asked)).trim().to_owned();
            }
        }
        entry
    }

    fn add_attempt(
        &self,
        saga: &CompiledSaga,
        entry: &mut TimelineEntry,
        note: Note,
        at: Timestamp,
    ) {
        let step = entry
            .step
            .as_deref()
            .and_then(|name| saga.step_index(name))
            .and_then(|index| self.steps.get(index));
        let (Some(step), Some(side)) = (step, entry.side) else {
            return;
        };
        let work = step.side(side);
        if entry.attempt == Some(work.attempt) {
            entry.took_ms = Some(at.millis_since(work.sent_at));
        }
        if matches!(note, Note::Refused | Note::Failed) {
            entry.detail = work.error.clone().unwrap_or_default();
        }
    }
}

/// `by ann: the card was lost`, as far as it was said.
fn by_and_why(asked: &Asked) -> String {
    let Asked { by, why } = asked;
    match (by.is_empty(), why.is_empty()) {
        (true, _) => why.clone(),
        (false, true) => format!("by {by}"),
        (false, false) => format!("by {by}: {why}"),
    }
}

fn word(work: &Work) -> &'static str {
    match work.progress {
        Progress::Waiting => "waiting",
        Progress::InFlight(_) => "running",
        Progress::BackingOff(_) => "backing-off",
        Progress::Done => "done",
        Progress::Skipped => "skipped",
        Progress::Refused if work.delivered => "unknown",
        Progress::Refused => "refused",
        Progress::GivenUp if work.delivered => "unknown",
        Progress::GivenUp => "failed",
    }
}
