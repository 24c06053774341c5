//! `tidemill saga show`.

use crate::ask;
use crate::catalog;
use crate::context::Context;
use crate::error::Result;
use crate::output::{Text, Tone, grouped, precise_duration};
use tidemill_core::control::{Described, InstanceRequest, StepStatus, TimelineEntry, saga_verb};
use tidemill_core::names::{Kind, ResourceId, Side};
use tidemill_nats::Nats;

/// Shown at the end of the help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  tidemill saga show order-fulfilment o-1
  tidemill saga show shop/order-fulfilment o-1 -o json";

/// Longest output of a step shown in a table, in characters.
const OUTPUT_CHARACTERS: usize = 80;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The Saga: NAME or NAMESPACE/NAME
    saga: String,
    /// Id of the instance
    instance: String,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<()> {
    let nats = context.connect().await?;
    let saga = catalog::resource(context, &nats, Kind::Saga, &args.saga).await?;
    let described = describe(&nats, &saga, &args.instance).await?;
    show(&described, &saga, context)
}

/// Asks the owner of an instance for everything about it.
pub(crate) async fn describe(nats: &Nats, saga: &ResourceId, instance: &str) -> Result<Described> {
    let request = InstanceRequest {
        id: instance.to_owned(),
    };
    ask::request(nats, saga, saga_verb::DESCRIBE, &request, ask::ANSWER_MAX).await
}

/// Shows an instance.
pub(crate) fn show(described: &Described, saga: &ResourceId, context: &Context) -> Result<()> {
    if !context.for_people() {
        return context.output.document(described);
    }
    let Described {
        summary,
        steps,
        timeline,
        omitted,
        ..
    } = described;
    let took = summary.updated_at.millis_since(summary.started_at);
    let out = &context.output;
    out.line(format!(
        "{}/{} {}: {}",
        saga.namespace,
        saga.name,
        summary.id,
        summary.state.as_str()
    ))?;
    if let Some(reason) = &summary.reason {
        let step = summary
            .step
            .as_ref()
            .map(|step| format!(" at step {step}"))
            .unwrap_or_default();
        let message = summary
            .message
            .as_ref()
            .filter(|message| !message.is_empty())
            .map(|message| format!(": {message}"))
            .unwrap_or_default();
        out.line(format!("{reason}{step}{message}"))?;
    }
    let correlation = summary
        .correlation_id
        .as_ref()
        .map(|id| format!(", correlation id {id}"))
        .unwrap_or_default();
    let ended = if summary.state.is_finished() {
        "took"
    } else {
        "last input after"
    };
    out.line(format!(
        "started {}, {ended} {}, revision {}{correlation}",
        summary.started_at,
        precise_duration(took),
        summary.revision
    ))?;
    out.line("")?;
    out.table(
        &["step", "action", "compensation", "attempts", "output"],
        steps.iter().map(step_row).collect(),
        "no steps",
    )?;
    out.line("")?;
    if *omitted > 0 {
        out.line(format!("{omitted} earlier inputs are not shown"))?;
    }
    let rows = timeline
        .iter()
        .map(|entry| timeline_row(entry, summary.started_at));
    out.table(
        &[
            "after", "input", "step", "attempt", "outcome", "took", "detail",
        ],
        rows.collect(),
        "no inputs",
    )
}

fn step_row(step: &StepStatus) -> Vec<Text> {
    let StepStatus {
        name,
        action,
        compensation,
        attempts,
        compensation_attempts,
        output,
        output_left_out,
    } = step;
    let output = match output_left_out {
        Some(bytes) => format!("{} bytes, too large to be shown", grouped(*bytes as u64)),
        None if output.is_null() => String::new(),
        None => output.to_json(),
    };
    vec![
        name.into(),
        Text::toned(action, tone(action)),
        compensation
            .as_deref()
            .map_or_else(Text::default, |word| Text::toned(word, tone(word))),
        match compensation_attempts {
            Some(back) => format!("{attempts}, compensation {back}").into(),
            None => attempts.into(),
        },
        shorten(&output).into(),
    ]
}

fn timeline_row(entry: &TimelineEntry, started: tidemill_core::timestamp::Timestamp) -> Vec<Text> {
    let TimelineEntry {
        at,
        what,
        step,
        side,
        attempt,
        outcome,
        detail,
        took_ms,
        ..
    } = entry;
    let step = match (step, side) {
        (Some(step), Some(Side::Compensation)) => format!("{step} (compensation)"),
        (Some(step), _) => step.clone(),
        (None, _) => String::new(),
    };
    vec![
        Text::toned(precise_duration(at.millis_since(started)), Tone::Faint),
        what.into(),
        step.into(),
        attempt
            .map(|attempt| attempt.to_string())
            .unwrap_or_default()
            .into(),
        Text::toned(outcome, tone(outcome)),
        took_ms.map(precise_duration).unwrap_or_default().into(),
        detail.into(),
    ]
}

fn tone(word: &str) -> Tone {
    match word {
        "done" | "success" | "stored" | "started" => Tone::Good,
        "refused" | "failed" | "unknown" | "parked" => Tone::Bad,
        "backing-off" | "running" => Tone::Attention,
        _ => Tone::Faint,
    }
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= OUTPUT_CHARACTERS {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(OUTPUT_CHARACTERS).collect();
    short.push('…');
    short
}
