//! A Projection or a Saga that goes with its data: its workers end first, so that nobody writes what is being deleted.

use super::{Reached, Runs, objects, settle_status};
use crate::conditions::{Reason, SETTLED, Verdict};
use crate::context::Context;
use crate::deletion::{self, Departure};
use crate::error::Error;
use crate::jetstream::JetStream;
use crate::kubernetes::{Child, Kubernetes};
use crate::worker;
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeSet;
use std::time::Duration;
use tidemill_nats::provision::Mark;

/// How soon it is looked again whether the workers have ended.
const SOON: Duration = Duration::from_secs(1);

/// Deletes its data, if the spec says so, and lets it go.
///
/// # Errors
/// [`Error`]
pub(super) async fn depart<S: JetStream, K: Kubernetes, R: Runs>(
    resource: &R,
    plan: Option<&R::Plan>,
    context: &Context<S, K>,
) -> Result<Duration, Error> {
    let meta = resource.meta();
    if !deletion::is_held(meta) {
        return Ok(SETTLED);
    }
    let id = resource.id();
    let going = resource.deletes_data();
    let now = Timestamp::now();
    let is_overdue = deletion::is_overdue(meta, now, context.deletion_deadline);
    if going {
        objects::remove(Child::Deployment, &id, context).await?;
        let labels = worker::selector(&id);
        let pods = context.kubernetes.pods(&id.namespace, &labels).await?;
        let running = pods.iter().filter(|pod| !pod.has_ended).count();
        if running > 0 && !is_overdue {
            let message = format!("its data is deleted once its workers have ended: {running} run");
            let reached = Reached::of(Verdict::new(Reason::Deleting, message));
            settle_status(resource, plan, reached, Vec::new(), context).await?;
            return Ok(SOON);
        }
    }
    // As they were made, and as they would be made: each may be known without the other.
    let mut streams: BTreeSet<String> = BTreeSet::new();
    if going {
        streams.extend(
            resource
                .recorded()
                .streams
                .iter()
                .map(|made| made.name.clone()),
        );
        let planned = plan.map(|plan| R::streams(plan, &context.installation, ""));
        streams.extend(planned.into_iter().flatten().map(|planned| planned.name));
    }
    let streams: Vec<String> = streams.into_iter().collect();
    let owner = Mark::of(&context.installation.cluster, &id, "").to_string();
    let mut attempt = deletion::delete_streams(streams.clone(), &owner, context).await;
    if going && attempt.is_ok() {
        context.fence_nats()?;
        if let Err(error) = context.jetstream.forget(&id).await {
            attempt = Err(error.into());
        }
    }
    let departure = deletion::judge(attempt, is_overdue)?;
    if let Some(said) = deletion::said(&departure, &streams) {
        context.kubernetes.say(resource, said).await;
    }
    if let Departure::Waiting(error) = departure {
        let verdict = Verdict::new(Reason::Deleting, deletion::waiting(&error));
        settle_status(resource, plan, Reached::of(verdict), Vec::new(), context).await?;
        return Err(error);
    }
    deletion::hold(resource, false, context).await?;
    Ok(SETTLED)
}
