//! `tidemill rollout`.

use super::permissions;
use crate::clock::now;
use crate::cluster::Cluster;
use crate::cluster::resources::{Named, Seen};
use crate::context::Context;
use crate::error::{CliError, Exit, Result};
use serde::Serialize;
use std::time::Duration;
use tidemill_core::names::Kind;
use tidemill_crds::common::ROLLOUT;
use tokio::time::Instant;

/// Shown at the end of the help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  tidemill rollout projection/order-status
  tidemill rollout projection/order-status saga/order-fulfilment -n shop
  tidemill rollout saga/order-fulfilment --no-wait

After an upgrade of the operator workers run on with the image they have (status.outdatedWorkers counts them). This moves them to \
the operator's, one after another, and waits until all are ready. It changes the resource in the cluster (annotation \
tidemill.dev/rollout) and asks NATS nothing.";

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Projections and Sagas, such as saga/order-fulfilment
    #[arg(required = true, value_name = "KIND/NAME", value_parser = permissions::resource)]
    resources: Vec<(Kind, String)>,
    /// Don't wait until the workers are ready
    #[arg(long)]
    no_wait: bool,
    /// Longest wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300, conflicts_with = "no_wait", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rolled {
    kind: Kind,
    namespace: String,
    name: String,
    /// What its workers ran before, if any did.
    image_before: Option<String>,
    /// What they run now; absent where nothing was waited for.
    image: Option<String>,
    #[serde(skip)]
    message: String,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<()> {
    let cluster = context.cluster().await?;
    let mut asked = Vec::new();
    // All are looked at first: a wrong name changes nothing.
    for (kind, name) in &args.resources {
        let resource = context.named(&cluster, (*kind).into(), name)?;
        let before = cluster.get(&resource).await?;
        asked.push((*kind, resource, before.text(IMAGE).map(str::to_owned)));
    }
    let value = now().to_string();
    for (_, resource, _) in &asked {
        cluster.annotate(resource, ROLLOUT, &value).await?;
    }
    let end = Instant::now() + Duration::from_secs(args.timeout);
    let mut all = Vec::new();
    for (kind, resource, image_before) in asked {
        let (image, message) = match args.no_wait {
            true => (None, format!("{resource}: asked for")),
            false => {
                let (image, ready) =
                    finished(&cluster, &resource, &value, end, args.timeout).await?;
                let moved = match &image_before {
                    Some(before) if *before == image => format!("they run {image}, as before"),
                    Some(before) => format!("moved from {before} to {image}"),
                    None => format!("they run {image}"),
                };
                (Some(image), format!("{resource}: {ready}; {moved}"))
            }
        };
        let rolled = Rolled {
            kind,
            namespace: resource.namespace,
            name: resource.name,
            image_before,
            image,
            message,
        };
        if context.for_people() {
            context.output.line(&rolled.message)?;
        }
        all.push(rolled);
    }
    match context.for_people() {
        true => Ok(()),
        false => context.output.document(&all),
    }
}

const IMAGE: &str = "/worker/image";

enum Said {
    Ready { image: String, message: String },
    Stalled(String),
}

fn is_taken(seen: &Seen, value: &str) -> bool {
    seen.text("/worker/rollout") == Some(value)
}

/// Waits until all workers run what they shall; gives their image, and what is said of them.
async fn finished(
    cluster: &Cluster,
    resource: &Named,
    value: &str,
    end: Instant,
    seconds: u64,
) -> Result<(String, String)> {
    let seen = cluster.wait(resource, end, |seen| {
        let stalled = seen.condition("Stalled");
        if stalled.holds && seen.is_current() {
            return Some(Said::Stalled(stalled.to_string()));
        }
        let ready = seen.condition("Ready");
        let done = is_taken(seen, value) && ready.holds && seen.is_current();
        done.then(|| Said::Ready {
            image: seen.text(IMAGE).unwrap_or_default().to_owned(),
            message: ready.message,
        })
    });
    match seen.await? {
        Ok(Said::Ready { image, message }) => Ok((image, message)),
        Ok(Said::Stalled(why)) => Err(CliError::new(
            Exit::Refused,
            format!("{resource} is stalled ({why})"),
        )
        .remedy("its workers move once that is mended")),
        Err(seen) if is_taken(&seen, value) => Err(CliError::failed(format!(
            "{resource}: not all workers were ready within {seconds} s ({})",
            seen.condition("Ready")
        ))
        .remedy("it goes on; see `kubectl get pods`, or give a longer --timeout")),
        Err(_) => Err(CliError::new(
            Exit::Unreachable,
            format!("{resource}: no operator has taken it up within {seconds} s"),
        )
        .remedy("is Tidemill's operator running? It does so once it runs")),
    }
}
