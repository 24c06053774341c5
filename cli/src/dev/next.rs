//! What the first screen offers to do next.

use super::apply::Applied;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tidemill_core::contract::Workload;
use tidemill_core::definition::StreamRef;
use tidemill_core::names::Kind;

/// Events that lie beside the manifests, as JSON lines; the first by name.
pub(crate) fn events_file(folder: &Path) -> Option<PathBuf> {
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

/// Data with every field that expressions on this event read, each of them 1: an empty one would be parked by all of them.
fn sample_data(applied: &Applied, stream: &StreamRef, event_type: &str) -> String {
    let meant = |wanted: &Option<String>| wanted.as_deref().is_none_or(|of| of == event_type);
    let mut fields = BTreeSet::new();
    for contract in applied.contracts.values() {
        let sources = match &contract.workload {
            Workload::Projection(workload) if workload.definition.sources.contains(stream) => {
                let handlers = workload.definition.handlers.iter();
                let mut handlers = handlers
                    .filter(|handler| meant(&handler.event_type))
                    .peekable();
                if handlers.peek().is_none() {
                    continue;
                }
                let handlers: Vec<_> = handlers.collect();
                serde_json::to_string(&(&workload.definition.key, handlers))
            }
            Workload::Saga(workload) => {
                let mut triggers = workload.definition.triggers.iter();
                let started =
                    triggers.any(|trigger| trigger.stream == *stream && meant(&trigger.event_type));
                if !started {
                    continue;
                }
                serde_json::to_string(&workload.definition)
            }
            Workload::Projection(_) => continue,
        };
        let sources = sources.unwrap_or_default();
        for begin in ["event.data.", "input.data."] {
            fields.extend(sources.split(begin).skip(1).filter_map(|rest| {
                let name = rest.split(|next: char| !next.is_ascii_alphanumeric() && next != '_');
                name.map(str::to_owned)
                    .next()
                    .filter(|name| !name.is_empty())
            }));
        }
    }
    let fields: Vec<String> = fields.iter().map(|name| format!("\"{name}\": 1")).collect();
    format!("{{{}}}", fields.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_beside_the_manifests_are_what_to_publish_first() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(events_file(folder.path()), None);
        for name in ["b.jsonl", "a.jsonl", "a.json"] {
            std::fs::write(folder.path().join(name), "").expect("a file");
        }
        assert_eq!(
            events_file(folder.path()),
            Some(folder.path().join("a.jsonl"))
        );
    }
}
