//! Limits of EventStreams that would delete events which are there: not without a word.

use crate::error::{CliError, Result};
use crate::manifests::{Declared, Manifests, Severity};
use crate::output::count;
use std::collections::BTreeSet;
use tidemill_core::definition::StreamRef;
use tidemill_crds::compile::EventStreamPlan;
use tidemill_crds::manifest::Plan;
use tidemill_crds::{FieldPath, Problem, Reason};
use tidemill_nats::provision::Loss;

/// What is said of a limit that isn't in force, as it would delete events.
pub(super) fn held(declared: &Declared, plan: &EventStreamPlan, loss: &Loss) -> String {
    let (spec, limits) = (FieldPath::spec(), FieldPath::spec().field("limits"));
    let (path, lost) = match *loss {
        Loss::Older(events) => (
            limits.field("maxAge"),
            format!("{} older than that", count(events, "event")),
        ),
        Loss::Beyond(events) => (
            limits.field("maxMessages"),
            format!("the oldest {} (onFull: DropOldest)", count(events, "event")),
        ),
        Loss::Bytes(bytes) => (
            limits.field("maxBytes"),
            format!(
                "the oldest events, at least {} (onFull: DropOldest)",
                count(bytes, "byte")
            ),
        ),
        Loss::Superseded(events) => (
            spec.field("maxMessagesPerSubject"),
            format!(
                "{} with newer ones on the same subject",
                count(events, "event")
            ),
        ),
    };
    let message = format!(
        "this would delete at once {lost}; limits, onFull and duplicateWindow stay as they are in NATS until `tidemill dev` runs with --allow-loss {}",
        plan.stream
    );
    let problem = Problem {
        path,
        reason: Reason::Unsound,
        message,
    };
    // Not of the manifest: it is good.
    declared.finding(Severity::Error, &problem).to_string()
}

/// The EventStreams that are named NAME or NAMESPACE/NAME.
///
/// # Errors
/// There is none of that name, or more than one.
pub(crate) fn named(names: &[String], manifests: &Manifests) -> Result<BTreeSet<StreamRef>> {
    let plans = manifests.resources.iter().filter_map(|declared| {
        let Some(Plan::EventStream(plan)) = &declared.plan else {
            return None;
        };
        Some(&plan.stream)
    });
    let streams: Vec<&StreamRef> = plans.collect();
    let mut named = BTreeSet::new();
    for name in names {
        let mut found = streams
            .iter()
            .filter(|stream| *name == stream.name || *name == stream.to_string());
        match (found.next(), found.next()) {
            (Some(stream), None) => named.insert((*stream).clone()),
            (None, _) => {
                let what = format!("--allow-loss {name}: no manifest has an EventStream {name}");
                return Err(CliError::usage(what).remedy("name one of the folder"));
            }
            (Some(_), Some(_)) => {
                let what =
                    format!("--allow-loss {name}: several namespaces have an EventStream {name}");
                return Err(CliError::usage(what).remedy("write NAMESPACE/NAME"));
            }
        };
    }
    Ok(named)
}
