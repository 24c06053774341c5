//! What must be true at the end.

use super::{Report, World};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidemill_core::definition::{Action, StepDefinition};
use tidemill_core::names::{Side, command_id};
use tidemill_core::saga::{Instance, Outcome, Phase, Progress, PublishProgress, StepState};

impl World {
    pub(super) fn judge(mut self) -> Report {
        let mut ended = BTreeMap::new();
        for index in 1..self.owners.len() {
            if self.owners[index].instances != self.owners[0].instances {
                self.problems
                    .push(format!("owner {index} holds another state than owner 0"));
            }
        }
        let held = self.owners[0].begin_again();
        self.faulty = false;
        for _ in 0..self.log.len() {
            self.fold_next(0);
        }
        if self.owners[0].instances != held {
            self.problems
                .push("folding the log again gives another state".to_owned());
        }
        for (id, instance) in &held {
            *ended.entry(instance.state().as_str()).or_insert(0) += 1;
            self.judge_instance(*id, instance);
        }
        if held.len() != self.plan.instances {
            self.problems.push(format!(
                "{} of {} instances were started",
                held.len(),
                self.plan.instances
            ));
        }
        Report {
            trace: self.trace,
            ended,
            problems: self.problems,
        }
    }

    fn judge_instance(&mut self, id: usize, instance: &Instance) {
        if !instance.is_finished() && instance.parked.is_none() {
            self.problems
                .push(format!("instance {id} never ended: {:?}", instance.phase));
            return;
        }
        let Phase::Finished(outcome) = instance.phase else {
            return;
        };
        // A log that lost its tail forgets what was done meanwhile (the guide says what a power loss can cost): then
        // only that everything ends, and that everybody agrees, is promised.
        if self.plan.faults.set_back {
            return;
        }
        let saga = Arc::clone(&self.saga);
        for (definition, state) in saga.definition.steps.iter().zip(&instance.steps) {
            if self.by_hand.contains(&(id, definition.name.clone())) {
                continue;
            }
            let problem = match definition.action {
                Action::Publish(_) => self.judge_publish(instance, definition, state, outcome),
                Action::Request { .. } | Action::Http { .. } => {
                    self.judge_step(instance, definition, state, outcome)
                }
            };
            let problem = problem.map(|problem| format!("instance {id} {problem}"));
            self.problems.extend(problem);
        }
        self.judge_outcome(id, instance, outcome);
    }

    fn judge_step(
        &self,
        instance: &Instance,
        definition: &StepDefinition,
        state: &StepState,
        outcome: Outcome,
    ) -> Option<String> {
        let name = &definition.name;
        let participant = self.participants.get(name)?;
        let command = self.command(instance, name);
        let standing: BTreeSet<&str> = participant
            .standing()
            .filter(|standing| *standing == command)
            .collect();
        let left_out = state.action.progress == Progress::Skipped;
        match outcome {
            Outcome::Completed if standing.len() != 1 && state.action.attempt > 0 && !left_out => {
                Some(format!(
                    "is completed, {name} was done {} times",
                    standing.len()
                ))
            }
            Outcome::Compensated if !standing.is_empty() && definition.compensation.is_some() => {
                Some(format!("is compensated, {name} still stands"))
            }
            Outcome::Completed | Outcome::Compensated => None,
        }
    }

    fn judge_publish(
        &self,
        instance: &Instance,
        definition: &StepDefinition,
        state: &StepState,
        outcome: Outcome,
    ) -> Option<String> {
        let name = &definition.name;
        let is_there = |side: &str| {
            let id = self.command(instance, &format!("{name}-{side}"));
            self.published.contains_key(&id)
        };
        match outcome {
            Outcome::Completed if state.action.progress == Progress::Done && !is_there("a") => {
                Some(format!("is completed, {name} was not published"))
            }
            Outcome::Compensated
                if is_there("a") && !is_there("c") && definition.compensation.is_some() =>
            {
                Some(format!("is compensated, what {name} published stands"))
            }
            Outcome::Completed | Outcome::Compensated => None,
        }
    }

    fn judge_outcome(&mut self, id: usize, instance: &Instance, outcome: Outcome) {
        let word = match outcome {
            Outcome::Completed => "completed",
            Outcome::Compensated => "compensated",
        };
        for (index, publish) in instance.publishes.iter().enumerate() {
            let event = self.command(instance, &format!("{word}-{index}"));
            let wanted = matches!(publish, PublishProgress::Stored(_));
            if wanted && !self.published.contains_key(&event) {
                self.problems
                    .push(format!("instance {id} is {word} and didn't say so"));
            }
        }
        let other = match outcome {
            Outcome::Completed => "compensated-0",
            Outcome::Compensated => "completed-0",
        };
        if self.published.contains_key(&self.command(instance, other)) {
            self.problems
                .push(format!("instance {id} is {word} and said otherwise"));
        }
    }

    fn command(&self, instance: &Instance, step: &str) -> String {
        let resource = &self.saga.resource;
        command_id(resource, &instance.id, &instance.run8, step, Side::Action)
    }
}
