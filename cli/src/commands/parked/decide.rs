//! `tidemill parked redrive` and `tidemill parked skip`.

use super::Target;
use crate::ask;
use crate::commands::projection::tell;
use crate::context::Context;
use crate::error::{CliError, Exit, Result};
use crate::output::count;
use crate::summaries;
use tidemill_core::control::{
    Accepted, Decision, DecisionRequest, ParkedRequest, projection_verb, saga_verb,
};
use tidemill_core::names::{Kind, ResourceId};
use tidemill_core::status::InstanceState;
use tidemill_nats::Nats;

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

Of a projection's key, the event that can't be folded is left out for good, and those behind it are folded. For a saga's instance it \
depends on the reason: a compensation counts as done by hand (CompensationFailed), an action as not happened (UnknownOutcome, \
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
            let verb = match way {
                Way::Redrive => projection_verb::REDRIVE,
                Way::Skip => projection_verb::SKIP,
            };
            let request = ParkedRequest {
                key: args.key,
                by,
                why: args.why,
            };
            tell(nats, &resource, verb, &request, context).await
        }
        Kind::Saga => {
            let decision = match way {
                Way::Redrive => Decision::Retry,
                Way::Skip => Decision::Skip,
            };
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
            let requests = ids.into_iter().map(|id| DecisionRequest {
                id,
                decision,
                by: by.clone(),
                why: args.why.clone(),
            });
            decide(nats, &resource, requests.collect(), context).await
        }
    }
}

async fn decide(
    nats: &Nats,
    saga: &ResourceId,
    requests: Vec<DecisionRequest>,
    context: &Context,
) -> Result<()> {
    if requests.is_empty() {
        return context
            .output
            .line(format!("no instance of {saga} is parked"));
    }
    let (all, mut refused) = (requests.len(), 0);
    for request in requests {
        let answer: Result<Accepted> =
            ask::request(nats, saga, saga_verb::DECIDE, &request, ask::ANSWER_MAX).await;
        match answer {
            Ok(accepted) => context
                .output
                .line(format!("{}: {}", request.id, accepted.message))?,
            // One is what was asked for; of many, the others are decided all the same.
            Err(error) if all == 1 && is_event(&request.id) && error.exit() == Exit::NotFound => {
                return Err(CliError::new(
                    Exit::Refused,
                    format!(
                        "{} started nothing, and what started nothing can't be decided about in this version",
                        request.id
                    ),
                )
                .remedy("publish it again as it should be"));
            }
            Err(error) if all == 1 => return Err(error),
            Err(error) => {
                refused += 1;
                context.output.line(format!("{}: {error}", request.id))?;
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

/// Whether it is what `parked list` calls an event that a trigger set aside.
fn is_event(key: &str) -> bool {
    key.strip_prefix("event ")
        .is_some_and(|position| position.parse::<u64>().is_ok())
}
