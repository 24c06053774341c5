//! `tidemill parked redrive` and `tidemill parked skip`.

use super::Target;
use super::waiting;
use crate::ask;
use crate::commands::saga::show::describe;
use crate::context::Context;
use crate::error::{CliError, Exit, Result};
use crate::output::count;
use crate::summaries;
use std::collections::BTreeSet;
use tidemill_core::control::{
    Accepted, Decision, DecisionRequest, ParkedRequest, projection_verb, saga_verb,
};
use tidemill_core::names::{Kind, ResourceId};
use tidemill_core::status::InstanceState;
use tidemill_nats::Nats;
use tidemill_worker_runtime::control::AskError;

/// Shown at the end of the help of `redrive`.
pub(crate) const REDRIVE_EXAMPLES: &str = "\
Examples:
  tidemill parked redrive order-status o-1
  tidemill parked redrive order-status --all
  tidemill parked redrive order-fulfilment o-1 --why 'payments is back'

Events of a key are folded again in their order; an instance gets fresh attempts of what failed.";

/// Shown at the end of the help of `skip`.
pub(crate) const SKIP_EXAMPLES: &str = "\
Examples:
  tidemill parked skip order-status o-1 --why 'test data'
  tidemill parked skip order-fulfilment o-1 --why 'refunded by hand'

Of a projection's key, the event that can't be folded is left out for good, and those behind it are folded. After an answer that never \
came, say --position with what was meant: it is left out once, however often it is asked. For a saga's instance it \
depends on the reason: a compensation counts as done by hand (CompensationFailed), an action as not happened, so that the rest is taken back (UnknownOutcome, \
PublishRefused), a step behind the pivot or an event is left out (FailedAfterPivot, PublishFailed).";

/// Arguments of both.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// Row key or instance, as `parked list` shows it
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    key: Option<String>,
    /// Everything that this resource has parked
    #[arg(long)]
    all: bool,
    /// Of a projection: where the event stands that is meant, as `parked show` shows it [default: the one that waits first]
    #[arg(long, value_name = "POSITION", conflicts_with = "all")]
    position: Option<String>,
    /// Why, for the log
    #[arg(long, value_name = "TEXT", default_value = "")]
    why: String,
    /// Who decides, for the log [default: USER]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

/// What is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Redrive,
    Skip,
}

pub(super) async fn run(args: Args, way: Way, nats: &Nats, context: &Context) -> Result<()> {
    let resource = args.target.resource(context, nats).await?;
    let by = ask::asked_by(args.by.as_deref());
    match resource.kind {
        Kind::Projection => {
            let request = ParkedRequest {
                key: args.key,
                position: args.position,
                by,
                why: args.why,
            };
            match (way, &request.key) {
                (Way::Redrive, _) => redrive(nats, &resource, request, context).await,
                (Way::Skip, Some(_)) => {
                    let accepted = skip(nats, &resource, request).await?;
                    say(&accepted, context)
                }
                (Way::Skip, None) => skip_all(nats, &resource, request, context).await,
            }
        }
        Kind::Saga if args.position.is_some() => {
            Err(CliError::usage("an instance waits at no position")
                .remedy("leave --position out: a decision about an instance is taken once anyhow"))
        }
        Kind::Saga => {
            let decision = match way {
                Way::Redrive => Decision::Retry,
                Way::Skip => Decision::Skip,
            };
            let all = args.key.is_none();
            let ids = match args.key {
                Some(id) => vec![id],
                None => {
                    let parked = summaries::read(nats, &resource, |summary| {
                        summary.state == InstanceState::Parked
                    })
                    .await?;
                    parked.into_iter().map(|summary| summary.id).collect()
                }
            };
            let given = Given {
                decision,
                by,
                why: args.why,
            };
            decide_all(nats, &resource, ids, &given, context).await?;
            if !all {
                return Ok(());
            }
            say_left(nats, &resource, context).await
        }
    }
}

fn say(accepted: &Accepted, context: &Context) -> Result<()> {
    if context.for_people() {
        context.output.line(&accepted.message)
    } else {
        context.output.document(accepted)
    }
}

/// Folding again what waits can be asked twice: what is in its row stays as it is.
async fn redrive(
    nats: &Nats,
    projection: &ResourceId,
    request: ParkedRequest,
    context: &Context,
) -> Result<()> {
    let verb = projection_verb::REDRIVE;
    let accepted: Accepted =
        ask::request_again(nats, projection, verb, &request, ask::ANSWER_MAX).await?;
    say(&accepted, context)
}

/// Leaves out the event that is named; else the one that the key waits for now, whatever becomes of the answer.
async fn skip(
    nats: &Nats,
    projection: &ResourceId,
    mut request: ParkedRequest,
) -> Result<Accepted> {
    if request.position.is_none() {
        let first = projection_verb::FIRST;
        let first: Accepted =
            ask::request_again(nats, projection, first, &request, ask::ANSWER_MAX).await?;
        request.position = first.position;
    }
    let verb = projection_verb::SKIP;
    let answer = ask::request_again(nats, projection, verb, &request, ask::ANSWER_MAX).await;
    match (answer, &request.position) {
        (Err(error), Some(position)) if error.exit() == Exit::Unreachable => Err(error.remedy(format!(
            "ask again with --position '{position}': it is left out once, however often it is asked"
        ))),
        (answer, _) => answer,
    }
}

/// Leaves out what each key waits for.
async fn skip_all(
    nats: &Nats,
    projection: &ResourceId,
    request: ParkedRequest,
    context: &Context,
) -> Result<()> {
    let parked = waiting::read(nats, projection).await?;
    let keys: BTreeSet<String> = parked
        .into_iter()
        .filter(|one| !one.foreign)
        .map(|one| one.key)
        .collect();
    let (mut done, mut refused) = (0_u64, 0_u64);
    for key in keys {
        let request = ParkedRequest {
            key: Some(key.clone()),
            ..request.clone()
        };
        let first = projection_verb::FIRST;
        let first = ask::asked(nats, projection, first, &request, ask::ANSWER_MAX, 3).await;
        if matches!(&first, Err(AskError::Refused { reason, .. }) if reason == "NotParked") {
            // Of rows that nobody reads any more, or somebody was faster.
            continue;
        }
        let first: Result<Accepted> = ask::read(projection, first);
        let answer = match first {
            Ok(first) => {
                let position = first.position;
                skip(
                    nats,
                    projection,
                    ParkedRequest {
                        position,
                        ..request
                    },
                )
                .await
            }
            Err(error) => Err(error),
        };
        match answer {
            Ok(accepted) => {
                done += 1;
                context
                    .output
                    .line(format!("{key}: {}", accepted.message))?;
            }
            Err(error) => {
                refused += 1;
                context.output.line(format!("{key}: {error}"))?;
            }
        }
    }
    match (done, refused) {
        (0, 0) => context
            .output
            .line(format!("no key of {projection} is parked")),
        (_, 0) => Ok(()),
        (done, refused) => Err(CliError::failed(format!(
            "{refused} of {} were not decided",
            count(done + refused, "key")
        ))),
    }
}

/// A decision about instances.
struct Given {
    decision: Decision,
    by: String,
    why: String,
}

async fn decide(nats: &Nats, saga: &ResourceId, id: &str, given: &Given) -> Result<Accepted> {
    let request = DecisionRequest {
        id: id.to_owned(),
        decision: given.decision,
        after: describe(nats, saga, id).await?.decisions,
        by: given.by.clone(),
        why: given.why.clone(),
    };
    ask::request_again(nats, saga, saga_verb::DECIDE, &request, ask::ANSWER_MAX).await
}

async fn decide_all(
    nats: &Nats,
    saga: &ResourceId,
    ids: Vec<String>,
    given: &Given,
    context: &Context,
) -> Result<()> {
    if ids.is_empty() {
        return context
            .output
            .line(format!("no instance of {saga} is parked"));
    }
    let (all, mut refused) = (ids.len(), 0);
    for id in ids {
        match decide(nats, saga, &id, given).await {
            Ok(accepted) => context.output.line(format!("{id}: {}", accepted.message))?,
            // One is what was asked for; of many, the others are decided all the same.
            Err(error) if all == 1 && is_event(&id) && error.exit() == Exit::NotFound => {
                return Err(CliError::new(
                    Exit::Refused,
                    format!(
                        "{id} started nothing, and what started nothing can't be decided about in this version",
                    ),
                )
                .remedy("publish it again as it should be"));
            }
            Err(error) if all == 1 => return Err(error),
            Err(error) => {
                refused += 1;
                context.output.line(format!("{id}: {error}"))?;
            }
        }
    }
    if refused > 0 {
        return Err(CliError::new(
            Exit::Failed,
            format!(
                "{} of {} were not decided",
                refused,
                count(all as u64, "instance")
            ),
        ));
    }
    Ok(())
}

/// Says that trigger events stay parked: of all that is parked, nothing can be decided about them.
async fn say_left(nats: &Nats, saga: &ResourceId, context: &Context) -> Result<()> {
    let parked = waiting::read(nats, saga).await?;
    let left = parked.iter().filter(|one| !one.foreign).count() as u64;
    if left == 0 {
        return Ok(());
    }
    context.output.line(format!(
        "{} left: nothing can be decided about them in this version, publish them again as they should be (`tidemill parked list {}/{}`)",
        count(left, "parked trigger event"),
        saga.namespace,
        saga.name
    ))
}

/// Whether it is what `parked list` calls a parked trigger event.
fn is_event(key: &str) -> bool {
    key.strip_prefix("event ")
        .is_some_and(|position| position.parse::<u64>().is_ok())
}
