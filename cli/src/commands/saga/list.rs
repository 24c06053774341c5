//! `tidemill saga list`.

use super::state::State;
use crate::catalog;
use crate::clock::now;
use crate::context::Context;
use crate::error::Result;
use crate::figures::{self, Figures};
use crate::output::{Text, Tone, grouped, short_duration};
use crate::summaries;
use serde::Serialize;
use tidemill_core::names::{Kind, ResourceId};
use tidemill_core::status::{InstanceState, InstanceSummary};
use tidemill_nats::Nats;

/// Shown at the end of the help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  tidemill saga list
  tidemill saga list order-fulfilment
  tidemill saga list order-fulfilment --state parked --state running
  tidemill saga list order-fulfilment --reason Refused --limit 10
  tidemill saga list order-fulfilment -o json";

/// Instances shown to people unless they say otherwise.
const LIMIT_FOR_PEOPLE: usize = 50;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The Saga: NAME or NAMESPACE/NAME; all sagas without it
    saga: Option<String>,
    /// Only instances in this state; may be repeated
    #[arg(long, value_name = "STATE", requires = "saga", value_parser = state)]
    state: Vec<InstanceState>,
    /// Only instances that failed or are parked for this reason
    #[arg(long, value_name = "REASON", requires = "saga")]
    reason: Option<String>,
    /// At most so many instances, the latest; 0 = all [default: 50 in a table, all in JSON and YAML]
    #[arg(long, value_name = "NUMBER", requires = "saga")]
    limit: Option<usize>,
}

fn state(text: &str) -> std::result::Result<InstanceState, String> {
    serde_json::from_value(text.into())
        .map_err(|_| "say running, compensating, parked, completed or compensated".to_owned())
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<()> {
    let nats = context.connect().await?;
    match &args.saga {
        None => sagas(&nats, context).await,
        Some(name) => {
            let saga = catalog::resource(context, &nats, Kind::Saga, name).await?;
            instances(&args, &saga, &nats, context).await
        }
    }
}

#[derive(Serialize)]
struct Overview<'a> {
    namespace: &'a str,
    name: &'a str,
    #[serde(flatten)]
    state: State,
    #[serde(flatten)]
    figures: Figures,
}

async fn sagas(nats: &Nats, context: &Context) -> Result<()> {
    let sagas = catalog::listed(context, nats, Kind::Saga).await?;
    let mut overviews = Vec::new();
    for saga in &sagas {
        let figures = figures::read(nats, saga).await?;
        overviews.push(Overview {
            namespace: &saga.namespace,
            name: &saga.name,
            state: State::read(nats, saga, &figures).await?,
            figures,
        });
    }
    if !context.for_people() {
        return context.output.document(&overviews);
    }
    let rows = overviews.iter().filter_map(|overview| {
        let Figures::Saga(figures) = &overview.figures else {
            return None;
        };
        let name = format!("{}/{}", overview.namespace, overview.name);
        let parked = grouped(figures.parked);
        let parked = if figures.parked > 0 {
            Text::toned(parked, Tone::Attention)
        } else {
            parked.into()
        };
        let mut row: Vec<Text> = vec![name.into(), overview.state.text()];
        let counts = [
            figures.seen,
            figures.matched,
            figures.skipped,
            figures.started,
            figures.running,
            figures.completed,
            figures.compensated,
        ];
        row.extend(counts.map(|count| Text::from(grouped(count))));
        row.push(parked);
        row.push(overview.state.note.as_str().into());
        Some(row)
    });
    let heads = [
        "name",
        "state",
        "seen",
        "matched",
        "skipped",
        "started",
        "running",
        "completed",
        "compensated",
        "parked",
        "note",
    ];
    let none = catalog::none_listed(context, Kind::Saga);
    context.output.table(&heads, rows.collect(), &none)
}

async fn instances(args: &Args, saga: &ResourceId, nats: &Nats, context: &Context) -> Result<()> {
    let wanted = |summary: &InstanceSummary| {
        (args.state.is_empty() || args.state.contains(&summary.state))
            && args
                .reason
                .as_ref()
                .is_none_or(|reason| summary.reason.as_ref() == Some(reason))
    };
    let mut found = summaries::read(nats, saga, wanted).await?;
    let all = found.len();
    let limit = match args.limit {
        Some(0) => usize::MAX,
        Some(limit) => limit,
        None if context.for_people() => LIMIT_FOR_PEOPLE,
        None => usize::MAX,
    };
    found.drain(..all.saturating_sub(limit));
    if !context.for_people() {
        context.output.document(&found)?;
        figures::note(nats, saga).await;
        return Ok(());
    }
    let figures = figures::read(nats, saga).await?;
    context.output.line(format!(
        "Saga {}/{}: {}",
        saga.namespace,
        saga.name,
        figures.line()
    ))?;
    let state = State::read(nats, saga, &figures).await?;
    if !state.note.is_empty() {
        context
            .output
            .line(format!("{}: {}", state.words(), state.note))?;
    }
    if let Some(hint) = figures.hint() {
        context.output.line(hint)?;
    }
    let now = now();
    let shown = found.len();
    // The latest first: that is what people look for.
    let rows = found.into_iter().rev().map(|summary| {
        let InstanceSummary {
            id,
            state,
            step,
            reason,
            message,
            started_at,
            updated_at,
            ..
        } = summary;
        vec![
            Text::id(&id),
            state_text(state),
            step.unwrap_or_default().into(),
            reason.unwrap_or_default().into(),
            Text::toned(short_duration(now.millis_since(started_at)), Tone::Faint),
            Text::toned(short_duration(now.millis_since(updated_at)), Tone::Faint),
            message.unwrap_or_default().into(),
        ]
    });
    let heads = [
        "instance", "state", "step", "reason", "started", "changed", "message",
    ];
    let filtered = !args.state.is_empty() || args.reason.is_some();
    let empty = if filtered {
        "no instance matches"
    } else {
        "no instance was started yet"
    };
    context.output.table(&heads, rows.collect(), empty)?;
    if shown < all {
        context.output.line(format!(
            "the latest {shown} of {}; --limit 0 shows all",
            grouped(all as u64)
        ))?;
    }
    Ok(())
}

/// A state in its colour.
pub(crate) fn state_text(state: InstanceState) -> Text {
    let tone = match state {
        InstanceState::Running | InstanceState::Compensating => return state.as_str().into(),
        InstanceState::Completed => Tone::Good,
        InstanceState::Parked => Tone::Bad,
        InstanceState::Compensated => Tone::Attention,
    };
    Text::toned(state.as_str(), tone)
}
