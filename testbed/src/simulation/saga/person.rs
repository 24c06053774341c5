//! People: they change their minds, and decide about what is parked. Before they say that something need not be done,
//! they see to it that it isn't: a decision is only as right as whoever takes it.

use super::{Happening, Message, World};
use std::fmt::Write as _;
use tidemill_core::control::Decision;
use tidemill_core::names::{LogKind, Side, command_id};
use tidemill_core::saga::{Asked, Input, ParkedReason};

/// Decisions about one instance; what is parked then stays parked.
const DECISIONS_MAX: u32 = 5;

impl World {
    pub(super) fn maybe_cancel(&mut self, instance: usize) {
        if self.chance(self.plan.faults.cancel) {
            let delay = self.random.below(20_000);
            let asked = Asked {
                by: "test".to_owned(),
                why: "changed mind".to_owned(),
            };
            let payload = Input::cancel_json(&asked);
            self.append_later(delay, Message::new(instance, LogKind::Cancel, payload));
        }
    }

    /// Puts a question to somebody, once.
    pub(super) fn ask_somebody(&mut self, instance: usize, decisions: u32) {
        let new = self.asked.insert((instance, decisions));
        if new && decisions < DECISIONS_MAX && self.random.percent(self.plan.faults.decide) {
            let delay = 1_000 + self.random.below(60_000);
            self.schedule(
                delay,
                Happening::Decide {
                    instance,
                    decisions,
                },
            );
        }
    }

    pub(super) fn decide(&mut self, id: usize, decisions: u32) {
        // Whoever knows most of the instance is asked about it.
        let known = self
            .owners
            .iter()
            .filter_map(|owner| owner.instances.get(&id))
            .max_by_key(|instance| instance.at);
        let parked = known
            .filter(|instance| instance.decisions == decisions)
            .and_then(|instance| Some((instance.parked.as_ref()?.reason, instance.run8.clone())));
        let Some((reason, run8)) = parked else {
            // Answered meanwhile, or the owners are away; somebody looks again when it is parked again.
            self.asked.remove(&(id, decisions));
            return;
        };
        let decision = if self.random.percent(60) {
            Decision::Retry
        } else {
            Decision::Skip
        };
        let _ = writeln!(self.trace, "{} {reason:?} {decision:?}", self.now);
        if decision == Decision::Skip {
            self.see_to_it(id, &run8, reason);
        }
        let payload = Input::decision_json(decision, Some(decisions), &Asked::default());
        self.append(Message::new(id, LogKind::Decision, payload));
    }

    fn see_to_it(&mut self, id: usize, run8: &str, reason: ParkedReason) {
        let step = match reason {
            ParkedReason::CompensationFailed(step)
            | ParkedReason::UnknownOutcome(step)
            | ParkedReason::PublishRefused(step, _) => step,
            ParkedReason::FailedAfterPivot(_)
            | ParkedReason::TimeoutAfterPivot
            | ParkedReason::PublishFailed(_) => return,
        };
        let saga = &self.saga;
        let Some(step) = saga.definition.steps.get(step) else {
            return;
        };
        let instance = format!("i-{id}");
        let command = command_id(&saga.resource, &instance, run8, &step.name, Side::Action);
        self.by_hand.insert((id, step.name.clone()));
        let participant = self.participants.entry(step.name.clone()).or_default();
        participant.take_back(command);
    }
}
