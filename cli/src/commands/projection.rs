//! `tidemill projection`.

use crate::ask;
use crate::catalog;
use crate::context::Context;
use crate::error::Result;
use crate::figures::{self, Figures};
use crate::output::{Text, Tone, grouped};
use clap::Subcommand;
use serde::Serialize;
use serde_json::json;
use tidemill_core::control::{ProjectionStatus, projection_verb};
use tidemill_core::names::{Kind, ResourceId};
use tidemill_nats::Nats;

/// Shown at the end of the help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  tidemill projection list
  tidemill projection rebuild order-status
  tidemill projection accept-source order-status --stream orders";

/// Shown at the end of the help of `list`.
const LIST_EXAMPLES: &str = "\
Examples:
  tidemill projection list
  tidemill projection list -o json";

/// Shown at the end of the help of `rebuild`.
const REBUILD_EXAMPLES: &str = "\
Examples:
  tidemill projection rebuild order-status

Folds everything again from the beginning, beside the rows that are there. Readers see the old rows until the new ones are as far.";

/// Shown at the end of the help of `accept-source`.
const ACCEPT_EXAMPLES: &str = "\
Examples:
  tidemill projection accept-source order-status
  tidemill projection accept-source order-status --stream shop/orders

For a projection that stopped with SourceReset: its stream was set back or replaced. The rows stay as they are, and what is new in \
the stream is folded into them. `tidemill projection rebuild` makes the rows anew from what the stream holds now.

For one that stopped with HistoryTruncated while new rows were built: they are made without what the stream no longer holds.";

/// Commands on projections.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List projections and how far they are
    #[command(after_help = LIST_EXAMPLES)]
    List,
    /// Fold everything again, then switch
    #[command(after_help = REBUILD_EXAMPLES)]
    Rebuild(Rebuild),
    /// Go on with a source that was set back, was replaced or has lost events
    #[command(after_help = ACCEPT_EXAMPLES)]
    AcceptSource(AcceptSource),
}

/// Arguments of `rebuild`.
#[derive(Debug, clap::Args)]
pub(crate) struct Rebuild {
    /// The Projection: NAME or NAMESPACE/NAME
    projection: String,
}

/// Arguments of `accept-source`.
#[derive(Debug, clap::Args)]
pub(crate) struct AcceptSource {
    /// The Projection: NAME or NAMESPACE/NAME
    projection: String,
    /// The EventStream [default: every source that was reset]
    #[arg(long, value_name = "STREAM")]
    stream: Option<String>,
}

pub(crate) async fn run(command: Command, context: &Context) -> Result<()> {
    let nats = context.connect().await?;
    match command {
        Command::List => list(&nats, context).await,
        Command::Rebuild(args) => {
            let projection =
                catalog::resource(context, &nats, Kind::Projection, &args.projection).await?;
            let nothing = json!({});
            ask::tell(
                &nats,
                &projection,
                projection_verb::REBUILD,
                &nothing,
                context,
            )
            .await
        }
        Command::AcceptSource(args) => {
            let projection =
                catalog::resource(context, &nats, Kind::Projection, &args.projection).await?;
            let request = ask::accept_source(args.stream.as_deref(), context);
            let verb = projection_verb::ACCEPT_SOURCE;
            ask::tell(&nats, &projection, verb, &request, context).await
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    namespace: String,
    name: String,
    /// Whether a worker answered.
    running: bool,
    #[serde(flatten)]
    status: ProjectionStatus,
    /// Events that wait; absent where nobody knows.
    lag: Option<u64>,
}

async fn list(nats: &Nats, context: &Context) -> Result<()> {
    let mut all = Vec::new();
    for projection in catalog::listed(context, nats, Kind::Projection).await? {
        all.push(listed(nats, projection).await?);
    }
    if !context.for_people() {
        return context.output.document(&all);
    }
    let rows = all.iter().map(|listed| {
        let status = &listed.status;
        let (state, note) = match (&status.stopped, &status.building) {
            _ if !listed.running => (
                Text::toned("no worker", Tone::Attention),
                "the figures are those of the last worker; events may have come since".to_owned(),
            ),
            (Some(stopped), _) => (
                Text::toned(&stopped.reason, Tone::Bad),
                stopped.message.clone(),
            ),
            (None, Some(building)) => (
                "building".into(),
                format!("{building} is being built; readers see the rows before it"),
            ),
            (None, None) if status.live.is_none() => ("starting".into(), String::new()),
            (None, None) => (Text::toned("ready", Tone::Good), String::new()),
        };
        let losses = figures::losses(status.left_out, status.gone);
        let notes = Some(note).filter(|note| !note.is_empty());
        let note = notes.into_iter().chain(losses).collect::<Vec<_>>();
        let parked = grouped(status.parked_keys);
        let parked = if status.parked_keys > 0 {
            Text::toned(parked, Tone::Attention)
        } else {
            parked.into()
        };
        let mut row = vec![
            format!("{}/{}", listed.namespace, listed.name).into(),
            state,
        ];
        row.extend(
            [status.seen, status.matched, status.skipped].map(|figure| Text::from(grouped(figure))),
        );
        row.extend([
            listed.lag.map_or_else(|| "-".to_owned(), grouped).into(),
            parked,
            Text::toned(status.live.as_deref().unwrap_or(""), Tone::Faint),
            note.join("; ").into(),
        ]);
        row
    });
    let heads = [
        "name", "state", "seen", "matched", "skipped", "lag", "parked", "revision", "note",
    ];
    let none = catalog::none_listed(context, Kind::Projection);
    context.output.table(&heads, rows.collect(), &none)
}

/// What the worker says of itself; nothing if none answers.
pub(crate) async fn status(
    nats: &Nats,
    projection: &ResourceId,
) -> Result<Option<ProjectionStatus>> {
    ask::status(nats, projection, projection_verb::STATUS).await
}

/// Events that wait, as the worker says; nothing where it doesn't read.
pub(crate) fn lag(status: &ProjectionStatus) -> Option<u64> {
    let lags = status.sources.values().map(|source| source.lag);
    (!status.sources.is_empty()).then(|| lags.sum())
}

/// What the worker says; without one, what it has counted.
async fn listed(nats: &Nats, projection: ResourceId) -> Result<Listed> {
    let status = status(nats, &projection).await?;
    let (running, status) = (status.is_some(), status.unwrap_or_default());
    let mut listed = Listed {
        lag: lag(&status),
        namespace: projection.namespace.clone(),
        name: projection.name.clone(),
        running,
        status,
    };
    // Workers answer for the partitions they own; the counters are of all.
    if let Figures::Projection(figures) = figures::read(nats, &projection).await?
        && figures.seen >= listed.status.seen
    {
        let status = &mut listed.status;
        (status.seen, status.matched, status.skipped) =
            (figures.seen, figures.matched, figures.skipped);
        if !running {
            status.parked_keys = figures.parked_keys;
            (status.left_out, status.gone) = (figures.left_out, figures.gone);
        }
    }
    Ok(listed)
}
