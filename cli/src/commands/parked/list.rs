//! `tidemill parked list`.

use super::KindArgument;
use super::waiting::{by_key, read};
use crate::catalog;
use crate::clock::now;
use crate::context::Context;
use crate::error::Result;
use crate::figures;
use crate::output::{Text, Tone, count, grouped, short_duration};
use crate::summaries;
use serde::Serialize;
use tidemill_core::names::{Kind, ResourceId};
use tidemill_core::status::{InstanceState, InstanceSummary};
use tidemill_core::timestamp::Timestamp;
use tidemill_nats::Nats;

/// Shown at the end of the help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  tidemill parked list
  tidemill parked list order-status
  tidemill parked list order-fulfilment --kind saga -o json";

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The Projection or Saga: NAME or NAMESPACE/NAME; all without it
    name: Option<String>,
    /// Only this kind
    #[arg(long, value_name = "KIND")]
    kind: Option<KindArgument>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Parked {
    kind: Kind,
    namespace: String,
    name: String,
    /// Row key, instance, `event <position>` for an event that started nothing, `message <sequence>` for what no worker wrote.
    key: String,
    /// Instances and keys can be tried again or given up; events that started nothing are only kept.
    decidable: bool,
    reason: String,
    message: String,
    /// Events that wait, the one that can't be folded included.
    waiting: usize,
    /// Milliseconds since 1970; absent for what isn't parked, but stops its projection.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<i64>,
}

pub(super) async fn run(args: Args, nats: &Nats, context: &Context) -> Result<()> {
    let wanted = args.name.as_deref().map(|name| context.qualify(name));
    let (mut parked, mut counted) = (Vec::new(), Vec::new());
    for kind in [Kind::Projection, Kind::Saga] {
        if args.kind.is_some_and(|only| only.kind() != kind) {
            continue;
        }
        let known = match &wanted {
            None => catalog::listed(context, nats, kind).await?,
            // In the namespace that it is named with.
            Some(_) => catalog::resources(context, nats, kind).await?,
        };
        for resource in known {
            if wanted.as_ref().is_none_or(|(namespace, name)| {
                (&resource.namespace, &resource.name) == (namespace, name)
            }) {
                parked.extend(of(nats, &resource).await?);
                counted.push(resource);
            }
        }
    }
    if counted.is_empty()
        && let Some(name) = &args.name
    {
        // Says which there are.
        catalog::resource(
            context,
            nats,
            args.kind.map_or(Kind::Projection, KindArgument::kind),
            name,
        )
        .await?;
    }
    if !context.for_people() {
        context.output.document(&parked)?;
        for resource in counted {
            figures::note(nats, &resource).await;
        }
        return Ok(());
    }
    let now = now();
    let rows = parked.iter().map(|one| {
        vec![
            one.kind.as_str().into(),
            format!("{}/{}", one.namespace, one.name).into(),
            Text::id(&one.key),
            Text::toned(&one.reason, Tone::Bad),
            // Nothing waits behind an instance.
            match one.waiting {
                0 => Text::default(),
                waiting => grouped(waiting as u64).into(),
            },
            one.since.map_or_else(Text::default, |since| {
                let since = now.millis_since(Timestamp::from_millis(since));
                Text::toned(short_duration(since), Tone::Faint)
            }),
            one.message.as_str().into(),
        ]
    });
    context.output.table(
        &[
            "kind", "name", "key", "reason", "waiting", "since", "message",
        ],
        rows.collect(),
        "nothing is parked",
    )?;
    for resource in counted {
        let line = figures::read(nats, &resource).await?.line();
        context.output.line(format!("{resource}: {line}"))?;
    }
    Ok(())
}

async fn of(nats: &Nats, resource: &ResourceId) -> Result<Vec<Parked>> {
    let new = |key: String,
               reason: String,
               message: String,
               waiting: usize,
               since: Option<i64>,
               decidable: bool| Parked {
        kind: resource.kind,
        namespace: resource.namespace.clone(),
        name: resource.name.clone(),
        key,
        decidable,
        reason,
        message,
        waiting,
        since,
    };
    let mut parked = Vec::new();
    for (first, waiting) in by_key(read(nats, resource).await?) {
        // Nothing waits behind what isn't ours, and everything behind what stops all.
        let waiting = if first.foreign || first.stops {
            0
        } else {
            waiting
        };
        let (reason, message) = first
            .failure
            .unwrap_or_else(|| ("Follower".to_owned(), count(waiting as u64, "event")));
        parked.push(new(
            first.key,
            reason,
            message,
            waiting,
            first.since,
            resource.kind == Kind::Projection && !first.foreign,
        ));
    }
    if resource.kind == Kind::Saga {
        let instances = summaries::read(nats, resource, |summary| {
            summary.state == InstanceState::Parked
        })
        .await?;
        for InstanceSummary {
            id,
            reason,
            message,
            updated_at,
            ..
        } in instances
        {
            parked.push(new(
                id,
                reason.unwrap_or_default(),
                message.unwrap_or_default(),
                0,
                Some(updated_at.millis()),
                true,
            ));
        }
    }
    Ok(parked)
}
