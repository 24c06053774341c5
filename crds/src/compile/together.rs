//! What can only be said of several resources together: whether the streams that a definition names are there and may be
//! used, and whether two resources claim the same subjects or names.

mod claims;

use std::collections::BTreeMap;

pub use claims::{NameConflict, name_conflicts};
use tidemill_core::contract::StreamBinding;
use tidemill_core::definition::StreamRef;

use crate::eventstream::{AllowedReaders, ReaderNamespaces};

use super::{Access, EventStreamPlan, ProjectionPlan, SagaPlan, StreamUse};
use crate::check::closest;
use crate::problem::{FieldPath, Problem, Reason};

/// The EventStreams there are, by name.
pub type Streams = BTreeMap<StreamRef, EventStreamPlan>;

/// Labels of a namespace.
pub type Labels = BTreeMap<String, String>;

/// What a worker of a Projection is told of its streams. `labels` are those of its namespace; where they aren't known, every
/// selector is taken to match.
///
/// # Errors
/// A stream isn't there, or isn't open to the Projection's namespace.
pub fn bind_projection(
    plan: &ProjectionPlan,
    streams: &Streams,
    labels: Option<&Labels>,
) -> Result<Vec<StreamBinding>, Vec<Problem>> {
    bind((&plan.resource.namespace, labels), &plan.streams, streams)
}

/// What a Projection counts from streams that drop the older events of a subject: rows that are made anew would lack them.
#[must_use]
pub fn uncountable(plan: &ProjectionPlan, streams: &Streams) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, handler) in plan.definition.handlers.iter().enumerate() {
        if handler.increment.is_empty() {
            continue;
        }
        let path = FieldPath::spec()
            .field("handlers")
            .index(index)
            .field("increment");
        let read = plan.definition.sources.iter().filter(|source| {
            let own = handler.stream.as_ref();
            own.is_none_or(|own| own == *source)
        });
        for stream in read {
            let limit = streams
                .get(stream)
                .and_then(|stream| stream.settings.max_messages_per_subject);
            let Some(limit) = limit else { continue };
            let message = format!(
                "EventStream {stream} drops older events of each subject (maxMessagesPerSubject: {limit}), so rows made anew would count less than the present ones: remove that limit, or `set` what each event says of the whole"
            );
            problems.push(Problem::new(path.clone(), Reason::Unsound, message));
        }
    }
    problems
}

/// What a worker of a Saga is told of its streams. `labels` as for [`bind_projection`].
///
/// # Errors
/// A stream isn't there, isn't open to the Saga's namespace, can't be published to exactly once, or takes in the subject of
/// a request.
pub fn bind_saga(
    plan: &SagaPlan,
    streams: &Streams,
    labels: Option<&Labels>,
) -> Result<Vec<StreamBinding>, Vec<Problem>> {
    let captured = plan.requests.iter().filter_map(|(path, subject)| {
        let stream = streams.values().find(|stream| stream.settings.subjects.iter().any(|taken| overlap(taken, subject)))?;
        let message = format!(
            "EventStream {} takes in `{subject}`, so the server would answer each request in place of the participant: use a subject outside of its subjects",
            stream.stream
        );
        Some(Problem::new(path.clone(), Reason::Conflict, message))
    });
    let captured: Vec<Problem> = captured.collect();
    match bind((&plan.resource.namespace, labels), &plan.streams, streams) {
        Ok(bindings) if captured.is_empty() => Ok(bindings),
        Ok(_) => Err(captured),
        Err(mut problems) => {
            problems.extend(captured);
            problems.sort();
            Err(problems)
        }
    }
}

fn bind(
    reader: (&str, Option<&Labels>),
    uses: &[StreamUse],
    streams: &Streams,
) -> Result<Vec<StreamBinding>, Vec<Problem>> {
    let mut bindings: BTreeMap<&StreamRef, StreamBinding> = BTreeMap::new();
    let mut problems = Vec::new();
    for StreamUse {
        path,
        stream,
        access,
    } in uses
    {
        let Some(plan) = streams.get(stream) else {
            problems.push(Problem::new(
                path.clone(),
                Reason::Reference,
                missing(stream, streams),
            ));
            continue;
        };
        if let Some(message) = closed(plan, reader) {
            problems.push(Problem::new(path.clone(), Reason::Reference, message));
        }
        if *access == Access::Publish && plan.settings.max_messages_per_subject.is_some() {
            let message = format!(
                "EventStream {stream} keeps maxMessagesPerSubject events of each kind, so it couldn't be told whether an event was published already: remove that limit, or publish to another stream"
            );
            problems.push(Problem::new(path.clone(), Reason::Unsound, message));
        }
        bindings
            .entry(stream)
            .or_insert_with(|| plan.binding.clone());
    }
    if problems.is_empty() {
        Ok(bindings.into_values().collect())
    } else {
        Err(problems)
    }
}

/// Why a stream isn't open to resources of a namespace.
fn closed(plan: &EventStreamPlan, (namespace, labels): (&str, Option<&Labels>)) -> Option<String> {
    let stream = &plan.stream;
    if stream.namespace == namespace {
        return None;
    }
    let AllowedReaders {
        namespaces,
        selector,
    } = &plan.readers;
    match namespaces {
        ReaderNamespaces::All => None,
        ReaderNamespaces::Same => Some(format!(
            "EventStream {stream} is open to its own namespace only: set allowedReaders: {{namespaces: All}} on it, or use a stream of namespace {namespace}"
        )),
        ReaderNamespaces::Selector => {
            let matches = |labels| {
                selector
                    .as_ref()
                    .is_some_and(|selector| selector.matches(labels))
            };
            (!labels.is_none_or(matches)).then(|| {
                format!(
                    "EventStream {stream} isn't open to namespace {namespace}: its allowedReaders.selector doesn't match the labels of that namespace; label the namespace, or widen the selector"
                )
            })
        }
    }
}

fn missing(stream: &StreamRef, streams: &Streams) -> String {
    let here: Vec<&str> = streams
        .keys()
        .filter(|known| known.namespace == stream.namespace)
        .map(|known| known.name.as_str())
        .collect();
    let elsewhere = streams.keys().find(|known| known.name == stream.name);
    let hint = match (closest(&stream.name, here.iter().copied()), elsewhere) {
        (Some(meant), _) => format!("; did you mean `{meant}`?"),
        (None, Some(other)) => format!("; namespace {} has one: name it too", other.namespace),
        // Who asks may know only some of those that there are.
        (None, None) if here.is_empty() => "; apply it, or mend the name".to_owned(),
        (None, None) => format!("; known here: {}", here.join(", ")),
    };
    format!("there is no EventStream {stream}{hint}")
}

/// Two EventStreams that claim the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamConflict {
    /// The one that comes second by name.
    pub stream: StreamRef,
    /// What is wrong with it.
    pub problem: Problem,
}

/// EventStreams whose subjects collide; the server would refuse the second.
#[must_use]
pub fn conflicts(streams: &Streams) -> Vec<StreamConflict> {
    let mut found = Vec::new();
    let plans: Vec<&EventStreamPlan> = streams.values().collect();
    for (index, plan) in plans.iter().enumerate() {
        for other in plans.iter().take(index) {
            let pairs = plan.settings.subjects.iter().flat_map(|mine| {
                other
                    .settings
                    .subjects
                    .iter()
                    .map(move |theirs| (mine, theirs))
            });
            for (mine, theirs) in pairs.filter(|(mine, theirs)| overlap(mine, theirs)) {
                let message = format!(
                    "`{mine}` overlaps `{theirs}` of EventStream {}: a message can be kept by one stream only",
                    other.stream
                );
                let problem = Problem::new(subject_path(plan, mine), Reason::Conflict, message);
                found.push(StreamConflict {
                    stream: plan.stream.clone(),
                    problem,
                });
            }
        }
    }
    found
}

/// The field that a subject of a stream comes from.
fn subject_path(plan: &EventStreamPlan, subject: &str) -> FieldPath {
    for (index, capture) in plan.binding.capture.iter().enumerate() {
        if let Some(at) = capture
            .subjects
            .iter()
            .position(|captured| captured == subject)
        {
            return FieldPath::spec()
                .field("capture")
                .index(index)
                .field("subjects")
                .index(at);
        }
    }
    FieldPath::spec().field("prefix")
}

/// Whether one message could match both subjects, wildcards of either side included.
#[must_use]
pub fn overlap(left: &str, right: &str) -> bool {
    let (mut left, mut right) = (left.split('.'), right.split('.'));
    loop {
        match (left.next(), right.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (None, _) | (_, None) => return false,
            (Some(a), Some(b)) if a == "*" || b == "*" || a == b => {}
            (Some(_), Some(_)) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_overlap_when_one_message_matches_both() {
        for (left, right, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.c", false),
            ("a.*", "a.c", true),
            ("a.*", "a", false),
            ("a.>", "a", false),
            ("a.>", "a.b.c", true),
            ("a.>", "a.>", true),
            ("a.*.c", "a.b.*", true),
            ("a.*.c", "a.b.d", false),
            ("a.*.>", "a.b", false),
            ("a.b.>", "a.*", false),
        ] {
            assert_eq!(overlap(left, right), expected, "{left} {right}");
            assert_eq!(overlap(right, left), expected, "{right} {left}");
        }
    }
}
