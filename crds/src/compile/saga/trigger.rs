//! Which events start an instance.

use tidemill_core::definition::{Start, StreamRef, Trigger};

use crate::compile::constants::Gives;
use crate::compile::expressions::{Names, expression};
use crate::compile::findings::Findings;
use crate::compile::values;
use crate::compile::{Access, StreamUse};
use crate::problem::{FieldPath, Reason};
use crate::saga::StartOn;

/// The triggers, where each of their streams is begun, and the streams.
pub(super) fn compile(
    findings: &mut Findings,
    start_on: &[StartOn],
    namespace: &str,
) -> (Vec<Trigger>, Vec<Start>, Vec<StreamUse>) {
    let mut triggers: Vec<Trigger> = Vec::with_capacity(start_on.len());
    let mut streams = Vec::with_capacity(start_on.len());
    let mut starts: Vec<(StreamRef, Option<Start>)> = Vec::new();
    let event = Names::event();
    for (
        index,
        StartOn {
            stream,
            event_type,
            when,
            id,
            start,
        },
    ) in start_on.iter().enumerate()
    {
        let path = FieldPath::spec().field("startOn").index(index);
        let trigger = Trigger {
            stream: values::stream(stream, namespace),
            event_type: event_type.as_ref().map(|event_type| event_type.0.clone()),
            when: when.as_ref().map(|when| when.0.clone()),
            id: id.0.clone(),
        };
        if let Some(when) = when {
            expression(
                findings,
                &path.field("when"),
                when.as_str(),
                &event,
                Gives::Bool,
            );
        }
        expression(
            findings,
            &path.field("id"),
            id.as_str(),
            &event,
            Gives::Text,
        );
        let start = values::start(findings, &path.field("start"), start.as_ref());
        share_start(findings, &path, &mut starts, &trigger.stream, start);
        if let Some(first) = triggers
            .iter()
            .position(|earlier| takes_all_of(earlier, &trigger))
        {
            let message = format!(
                "this never starts anything: spec.startOn[{first}] stands above it and takes the same events"
            );
            findings.warn(&path, Reason::Unsound, message);
        }
        streams.push(StreamUse {
            path: path.field("stream"),
            stream: trigger.stream.clone(),
            access: Access::Read,
        });
        triggers.push(trigger);
    }
    let starts = starts
        .into_iter()
        .map(|(_, start)| start.unwrap_or(Start::New))
        .collect();
    (triggers, starts, streams)
}

/// A stream is read once, however many entries name it, so it has one start.
fn share_start(
    findings: &mut Findings,
    path: &FieldPath,
    starts: &mut Vec<(StreamRef, Option<Start>)>,
    stream: &StreamRef,
    start: Option<Start>,
) {
    match starts.iter_mut().find(|(known, _)| known == stream) {
        None => starts.push((stream.clone(), start)),
        Some((_, known)) => match (&known, start) {
            (_, None) => {}
            (None, Some(_)) => *known = start,
            (Some(known), Some(start)) if *known != start => {
                let message = format!(
                    "stream {stream} is read once for all entries that name it, so they share one start: give it once, or the same each time"
                );
                findings.error(&path.field("start"), Reason::Conflict, message);
            }
            (Some(_), Some(_)) => {}
        },
    }
}

/// Whether a trigger leaves no event for another that stands below it.
fn takes_all_of(above: &Trigger, below: &Trigger) -> bool {
    let same_events = above.event_type.is_none() || above.event_type == below.event_type;
    above.stream == below.stream
        && same_events
        && (above.when.is_none() || above.when == below.when)
}
