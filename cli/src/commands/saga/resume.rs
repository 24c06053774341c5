//! `tidemill saga resume`.

use crate::cluster::resources::Type;
use crate::context::Context;
use crate::error::{CliError, Exit, Result};
use serde_json::json;
use std::time::Duration;
use tidemill_crds::common::RESUME;
use tokio::time::Instant;

/// Shown at the end of the help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  tidemill saga resume order-fulfilment
  tidemill saga resume order-fulfilment -n shop

For a Saga that was deleted, left unfinished instances behind, and was applied again much later (ResumeHeld in `kubectl describe`): \
they would go on charging cards and sending mails of long ago, so it waits for somebody who has looked at them (`tidemill saga list`). \
One that isn't held is left as it is, and the command says so (exit code 0).";

/// The reason of `Ready` while it is held.
const HELD: &str = "ResumeHeld";

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The Saga: NAME or NAMESPACE/NAME
    saga: String,
    /// Longest wait for the operator, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<()> {
    let cluster = context.cluster().await?;
    let saga = context.named(&cluster, Type::Saga, &args.saga)?;
    let before = cluster.get(&saga).await?.condition("Ready");
    let was_held = before.reason == HELD;
    let now = match was_held {
        false => before,
        true => {
            cluster.annotate(&saga, RESUME, "true").await?;
            let end = Instant::now() + Duration::from_secs(args.timeout);
            let seen = cluster.wait(&saga, end, |seen| {
                let ready = seen.condition("Ready");
                (ready.reason != HELD).then_some(ready)
            });
            seen.await?.map_err(|_| {
                let what = format!(
                    "{saga}: no operator has taken it up within {} s",
                    args.timeout
                );
                CliError::new(Exit::Unreachable, what)
                    .remedy("is Tidemill's operator running? It does so once it runs")
            })?
        }
    };
    if !context.for_people() {
        let document = json!({
            "namespace": saga.namespace,
            "name": saga.name,
            "wasHeld": was_held,
            "reason": now.reason,
            "message": now.message,
        });
        return context.output.document(&document);
    }
    context.output.line(match was_held {
        true => format!("{saga} goes on ({now})"),
        false => format!("{saga} isn't held ({now}); nothing was changed"),
    })
}
