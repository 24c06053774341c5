//! The names that expressions of a saga see: `input`, `steps`, `saga` and, where something failed, `failure`.

use super::compiled::CompiledSaga;
use super::state::{Failure, Instance, Progress, StepState};
use crate::envelope::Event;
use crate::expression::{Bindings, Bound, Fields};
use crate::names::{ResourceId, Side, command_id};
use std::cell::OnceCell;

pub(super) struct Variables<'a> {
    input: &'a Event,
    steps: Steps<'a>,
    saga: SagaFields<'a>,
    failure: Option<&'a Failure>,
}

impl<'a> Variables<'a> {
    pub(super) fn new(instance: &'a Instance, saga: &'a CompiledSaga) -> Self {
        let names = saga.definition.steps.iter().map(|step| step.name.as_str());
        let steps = names.zip(&instance.steps).map(|(name, state)| StepFields {
            name,
            state,
            instance,
            resource: &saga.resource,
            command_id: OnceCell::new(),
        });
        Variables {
            input: &instance.input,
            steps: Steps(steps.collect()),
            saga: SagaFields {
                instance,
                resource: &saga.resource,
            },
            failure: instance.failure.as_ref(),
        }
    }

    /// Evaluates something under these names, in the order of the scopes in `compiled.rs`.
    pub(super) fn with<T>(&self, evaluate: impl FnOnce(&Bindings<'_>) -> T) -> T {
        let failure = self
            .failure
            .map_or(Bound::Missing, |failure| Bound::Object(failure));
        let slots = [
            Bound::Object(self.input),
            Bound::Object(&self.steps),
            Bound::Object(&self.saga),
            failure,
        ];
        evaluate(&Bindings::new(&slots))
    }
}

struct Steps<'a>(Vec<StepFields<'a>>);

impl Fields for Steps<'_> {
    fn get(&self, name: &str) -> Option<Bound<'_>> {
        self.0
            .iter()
            .find(|step| step.name == name)
            .map(|step| Bound::Object(step))
    }

    fn names(&self) -> Vec<&str> {
        self.0.iter().map(|step| step.name).collect()
    }
}

struct StepFields<'a> {
    name: &'a str,
    state: &'a StepState,
    instance: &'a Instance,
    resource: &'a ResourceId,
    command_id: OnceCell<String>,
}

impl Fields for StepFields<'_> {
    fn get(&self, name: &str) -> Option<Bound<'_>> {
        match name {
            "commandId" => Some(Bound::Str(self.command_id.get_or_init(|| {
                command_id(
                    self.resource,
                    &self.instance.id,
                    &self.instance.run8,
                    self.name,
                    Side::Action,
                )
            }))),
            "output" => self.state.action.output.as_ref().map(Bound::Value),
            "skipped" => Some(Bound::Bool(self.state.action.progress == Progress::Skipped)),
            _ => None,
        }
    }

    fn names(&self) -> Vec<&str> {
        let mut names = vec!["commandId"];
        names.extend(self.state.action.output.as_ref().map(|_| "output"));
        names.push("skipped");
        names
    }
}

struct SagaFields<'a> {
    instance: &'a Instance,
    resource: &'a ResourceId,
}

impl Fields for SagaFields<'_> {
    fn get(&self, name: &str) -> Option<Bound<'_>> {
        match name {
            "id" => Some(Bound::Str(&self.instance.id)),
            "name" => Some(Bound::Str(&self.resource.name)),
            "namespace" => Some(Bound::Str(&self.resource.namespace)),
            _ => None,
        }
    }

    fn names(&self) -> Vec<&str> {
        vec!["id", "name", "namespace"]
    }
}

impl Fields for Failure {
    fn get(&self, name: &str) -> Option<Bound<'_>> {
        match name {
            "reason" => Some(Bound::Str(&self.reason)),
            "message" => Some(Bound::Str(&self.message)),
            "code" => Some(Bound::Int(i64::from(self.code))),
            "step" => self.step.as_deref().map(Bound::Str),
            _ => None,
        }
    }

    fn names(&self) -> Vec<&str> {
        let mut names = vec!["code", "message", "reason"];
        names.extend(self.step.as_ref().map(|_| "step"));
        names
    }
}
