//! `tidemill orphans delete`.

use super::find::{Orphan, Orphans, all_streams, mark_of};
use super::{Of, table};
use crate::cluster::resources::{Named, Type};
use crate::context::{Context, api_error};
use crate::error::{CliError, Exit, Result};
use crate::output::{count, grouped};
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use tidemill_core::names::{Kind, ResourceId};
use tidemill_nats::ApiError;
use tidemill_nats::provision::{self, owner_of};

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Streams, as `orphans list` shows them
    #[arg(value_name = "STREAM", required_unless_present = "all")]
    streams: Vec<String>,
    /// Every one that `orphans list` shows
    #[arg(long, conflicts_with = "streams")]
    all: bool,
    /// Don't ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    of: Of,
}

/// What became of one.
#[derive(Serialize)]
struct Outcome {
    stream: String,
    deleted: bool,
    /// Why it stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    let found = Orphans::find(&args.of, context).await?;
    let chosen = match args.all {
        true => found.orphans.clone(),
        false => chosen(&found, &args.streams, context)?,
    };
    if chosen.is_empty() {
        return match context.for_people() {
            true => context.output.line("there is nothing to delete"),
            false => context.output.document(&chosen),
        };
    }
    if !args.yes {
        confirm(&chosen, context)?;
    }
    let mut outcomes = Vec::new();
    for orphan in &chosen {
        let why = delete(orphan, &found).await?;
        let outcome = Outcome {
            stream: orphan.stream.clone(),
            deleted: why.is_none(),
            why,
        };
        if context.for_people() {
            context.output.line(match &outcome.why {
                None => format!("{} is deleted", outcome.stream),
                Some(why) => format!("{} stays: {why}", outcome.stream),
            })?;
        }
        outcomes.push(outcome);
    }
    forget(&chosen, &found).await?;
    if !context.for_people() {
        context.output.document(&outcomes)?;
    }
    match outcomes.iter().all(|outcome| outcome.deleted) {
        true => Ok(()),
        false => Err(CliError::said(Exit::Refused)),
    }
}

/// The orphans of these names; all or none.
fn chosen(found: &Orphans, names: &[String], context: &Context) -> Result<Vec<Orphan>> {
    let mut chosen = Vec::new();
    let names: BTreeSet<&String> = names.iter().collect();
    for name in names {
        let orphan = found.orphans.iter().find(|orphan| orphan.stream == *name);
        chosen.push(
            orphan
                .cloned()
                .ok_or_else(|| no_orphan(found, name, context))?,
        );
    }
    Ok(chosen)
}

fn no_orphan(found: &Orphans, name: &str, context: &Context) -> CliError {
    let Some(stream) = found.streams.iter().find(|stream| stream.name == name) else {
        return CliError::not_found(format!("there is no stream `{name}`; nothing was deleted"))
            .remedy("see `tidemill orphans list`");
    };
    let why = match mark_of(stream) {
        None => "it has no resource's mark".to_owned(),
        Some((cluster, _)) if cluster != found.cluster_id => {
            format!(
                "it has the mark of cluster `{cluster}`, not of `{}`",
                found.cluster_id
            )
        }
        Some((_, resource)) => match context.given_namespace() {
            Some(only) if only != resource.namespace => format!("it isn't of namespace {only}"),
            _ => format!("{resource} is there"),
        },
    };
    let what = format!("stream `{name}` is no orphan: {why}; nothing was deleted");
    CliError::new(Exit::Refused, what)
}

/// Asks a person.
fn confirm(chosen: &[Orphan], context: &Context) -> Result<()> {
    let messages = grouped(chosen.iter().map(|orphan| orphan.messages).sum());
    let streams = count(chosen.len() as u64, "stream");
    if !std::io::stdin().is_terminal() {
        let what = format!("{streams} with {messages} messages would be deleted; nothing was");
        return Err(CliError::usage(what).remedy("say --yes"));
    }
    if context.for_people() {
        table(chosen, "", context)?;
    }
    eprint!("Delete {streams} with {messages} messages for good? [y/N] ");
    // Whoever can't see the question doesn't say yes.
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    match read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        true => Ok(()),
        false => Err(CliError::failed("nothing was deleted")),
    }
}

/// Deletes one, if it is still what was listed and its resource still isn't there; gives why it stays.
async fn delete(orphan: &Orphan, found: &Orphans) -> Result<Option<String>> {
    let present = match found.nats.stream_state(&orphan.stream).await {
        Ok(present) => present,
        Err(ApiError::StreamMissing(_)) => return Ok(None),
        Err(error) => return Err(api_error(&error)),
    };
    let is_same = owner_of(&present.metadata()).as_deref() == Some(&orphan.owner)
        && present.incarnation == orphan.incarnation;
    if !is_same {
        return Ok(Some(
            "it isn't the stream any more that was listed".to_owned(),
        ));
    }
    // Last, so that as little time as can be lies between this and the deletion.
    if found.cluster.has(&orphan.resource).await? {
        return Ok(Some(format!("{} is there by now", orphan.resource)));
    }
    provision::remove(&found.nats, &orphan.stream)
        .await
        .map_err(|error| api_error(&error))?;
    Ok(None)
}

/// Deletes what the shared buckets hold of those that have no stream left, of any cluster.
async fn forget(chosen: &[Orphan], found: &Orphans) -> Result<()> {
    let left = all_streams(&found.nats).await?;
    let left: BTreeSet<Named> = left
        .iter()
        .filter_map(|stream| Some(mark_of(stream)?.1))
        .collect();
    let gone: BTreeSet<&Named> = chosen.iter().map(|orphan| &orphan.resource).collect();
    for resource in gone {
        let kind = match resource.of {
            Type::EventStream => continue,
            Type::Projection => Kind::Projection,
            Type::Saga => Kind::Saga,
        };
        if left.contains(resource) || found.cluster.has(resource).await? {
            continue;
        }
        let id = ResourceId::new(kind, &resource.namespace, &resource.name);
        provision::forget(&found.nats, &id)
            .await
            .map_err(|error| api_error(&error))?;
    }
    Ok(())
}
