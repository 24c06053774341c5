//! What the first screen offers to do next.

use super::apply::Applied;
use std::path::{Path, PathBuf};
use tidemill_core::contract::Workload;
use tidemill_core::definition::{Action, PublishDefinition, SagaDefinition, StreamRef};
use tidemill_core::expression::{Expression, Sample, Scope};
use tidemill_core::json::Value;
use tidemill_core::names::Kind;

/// Events to publish: JSON lines among the manifests, else `events.jsonl` beside their folder.
pub(crate) fn events_file(folder: &Path) -> Option<PathBuf> {
    among(folder).or_else(|| {
        let beside = folder.join("..").join("events.jsonl");
        // As people would write it.
        let beside = match (folder.file_name(), folder.parent()) {
            (Some(_), Some(parent)) => parent.join("events.jsonl"),
            _ => beside,
        };
        beside.is_file().then_some(beside)
    })
}

/// The first by name.
fn among(folder: &Path) -> Option<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "jsonl")
        })
        .collect();
    files.sort();
    files.into_iter().next()
}

/// Three commands that do something with what is there. `events`: a file of events to publish.
pub(crate) fn next_commands(
    applied: &Applied,
    namespace: &str,
    events: Option<&Path>,
) -> Vec<String> {
    let shown = |of: &str, name: &str| {
        if of == namespace {
            name.to_owned()
        } else {
            format!("{of}/{name}")
        }
    };
    let mut commands = Vec::new();
    if let Some(binding) = applied.streams.first() {
        let stream = shown(&binding.stream.namespace, &binding.stream.name);
        let what = match events {
            Some(file) => format!("--file {}", file.display()),
            None => {
                let event_type = event_type(applied, &binding.stream);
                let event_type = event_type.as_deref().unwrap_or("SomethingHappened");
                let data = sample_data(applied, &binding.stream, event_type);
                format!("--type {event_type} --subject id-1 --data '{data}'")
            }
        };
        commands.push(format!("tidemill event publish {stream} {what}"));
        commands.push(format!("tidemill event tail {stream} --from beginning"));
    }
    let of_kind = |kind: Kind| {
        applied
            .contracts
            .keys()
            .find(|resource| resource.kind == kind)
    };
    let mut more = Vec::new();
    if let Some(projection) = of_kind(Kind::Projection) {
        more.push(format!(
            "tidemill query {}",
            shown(&projection.namespace, &projection.name)
        ));
    }
    if let Some(saga) = of_kind(Kind::Saga) {
        more.push(format!(
            "tidemill saga list {}",
            shown(&saga.namespace, &saga.name)
        ));
    }
    commands.truncate(3 - more.len());
    commands.extend(more);
    commands
}

/// A type that something waits for: one that starts a saga, else one that a projection folds.
fn event_type(applied: &Applied, stream: &StreamRef) -> Option<String> {
    let of = |workload: &Workload| match workload {
        Workload::Projection(workload) => {
            let mut handlers = workload.definition.handlers.iter();
            handlers.find_map(|handler| {
                let reads = handler.stream.as_ref().is_none_or(|of| of == stream);
                handler.event_type.clone().filter(|_| reads)
            })
        }
        Workload::Saga(workload) => {
            let mut triggers = workload.definition.triggers.iter();
            triggers.find_map(|trigger| {
                trigger
                    .event_type
                    .clone()
                    .filter(|_| trigger.stream == *stream)
            })
        }
    };
    let of_kind = |kind: Kind| {
        let contracts = applied.contracts.iter();
        let mut contracts = contracts.filter(move |(resource, _)| resource.kind == kind);
        contracts.find_map(|(_, contract)| of(&contract.workload))
    };
    of_kind(Kind::Saga).or_else(|| of_kind(Kind::Projection))
}

/// Data in which the expressions on this event find what they read: an empty one would be parked by all of them.
fn sample_data(applied: &Applied, stream: &StreamRef, event_type: &str) -> String {
    let meant = |wanted: &Option<String>| wanted.as_deref().is_none_or(|of| of == event_type);
    let mut sample = Sampler(Sample::of(&["event", "input"]));
    for contract in applied.contracts.values() {
        match &contract.workload {
            Workload::Projection(workload) if workload.definition.sources.contains(stream) => {
                let handlers = workload.definition.handlers.iter();
                let of_stream = |of: &Option<StreamRef>| of.as_ref().is_none_or(|of| of == stream);
                for handler in handlers
                    .filter(|handler| meant(&handler.event_type) && of_stream(&handler.stream))
                {
                    sample.condition(handler.when.as_deref());
                    sample.text(handler.key.as_ref().unwrap_or(&workload.definition.key));
                    handler.set.values().for_each(|value| sample.value(value));
                    let numbers = handler.increment.values();
                    numbers.for_each(|value| sample.number(value));
                }
            }
            Workload::Saga(workload) => {
                let mut triggers = workload.definition.triggers.iter();
                let trigger = triggers.find(|one| one.stream == *stream && meant(&one.event_type));
                if let Some(trigger) = trigger {
                    sample.condition(trigger.when.as_deref());
                    sample.text(&trigger.id);
                    sample.saga(&workload.definition);
                }
            }
            Workload::Projection(_) => {}
        }
    }
    // Within the quotes of a shell.
    sample.0.field("data").to_json().replace('\'', "'\\''")
}

/// Gathers what expressions read. What doesn't compile has been refused before, and is left out.
struct Sampler(Sample);

impl Sampler {
    fn compiled(source: &str) -> Option<Expression> {
        let scope = Scope::new(&["event", "row", "input", "steps", "saga", "failure"]);
        Expression::compile(source, &scope).ok()
    }

    fn condition(&mut self, source: Option<&str>) {
        if let Some(expression) = source.and_then(Self::compiled) {
            self.0.add_condition(&expression);
        }
    }

    fn text(&mut self, source: &str) {
        if let Some(expression) = Self::compiled(source) {
            self.0.add(&expression);
        }
    }

    /// A template.
    fn value(&mut self, value: &Value) {
        match value {
            Value::String(text) => {
                if let Some(source) = text.strip_prefix('=') {
                    self.text(source);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.value(item)),
            Value::Object(fields) => fields.values().for_each(|field| self.value(field)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn number(&mut self, value: &Value) {
        let source = value.as_str().and_then(|text| text.strip_prefix('='));
        if let Some(expression) = source.and_then(Self::compiled) {
            self.0.add_number(&expression);
        }
    }

    fn saga(&mut self, saga: &SagaDefinition) {
        for step in &saga.steps {
            self.condition(step.when.as_deref());
            self.action(&step.action);
            if let Some(compensation) = &step.compensation {
                self.action(&compensation.action);
            }
        }
        for publish in saga.on_completed.iter().chain(&saga.on_compensated) {
            self.publish(publish);
        }
    }

    fn action(&mut self, action: &Action) {
        match action {
            Action::Request { data, .. } => self.value(data),
            Action::Http {
                url, headers, body, ..
            } => {
                self.value(url);
                headers.values().for_each(|header| self.value(header));
                self.value(body);
            }
            Action::Publish(publish) => self.publish(publish),
        }
    }

    fn publish(&mut self, publish: &PublishDefinition) {
        self.value(&publish.entity);
        self.value(&publish.data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_beside_the_manifests_are_what_to_publish_first() {
        let outer = tempfile::tempdir().expect("a folder");
        let folder = outer.path().join("manifests");
        std::fs::create_dir(&folder).expect("a folder");
        assert_eq!(events_file(&folder), None);
        let beside = outer.path().join("events.jsonl");
        std::fs::write(&beside, "").expect("a file");
        assert_eq!(events_file(&folder), Some(beside));
        for name in ["b.jsonl", "a.jsonl", "a.json"] {
            std::fs::write(folder.join(name), "").expect("a file");
        }
        assert_eq!(events_file(&folder), Some(folder.join("a.jsonl")));
    }
}
