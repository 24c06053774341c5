//! A Projection or a Saga that goes: unfinished instances are finished first if the spec says so; then, if its data goes with it, its
//! workers end, so that nobody writes what is being deleted.

use super::{Reached, Runs, objects, reach, settle_status};
use crate::conditions::{Reason, SETTLED, Verdict};
use crate::context::Context;
use crate::deletion::{self, Departure};
use crate::error::Error;
use crate::jetstream::JetStream;
use crate::kubernetes::{Child, Kubernetes, Said};
use crate::worker;
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tidemill_core::contract::Closing;
use tidemill_core::figures::SagaFigures;
use tidemill_nats::provision::Mark;

/// How soon it is looked again whether the workers have ended.
const SOON: Duration = Duration::from_secs(1);
/// For how long nothing may run before it is believed: workers count once a second, and what was being started comes a little later.
const QUIET: Duration = Duration::from_secs(3);

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
    let closing = resource.closing().zip(plan);
    let deadline = context.deletion_deadline
        + closing.map_or(Duration::ZERO, |(_, plan)| R::closing_max(plan));
    let is_overdue = deletion::is_overdue(meta, now, deadline);
    if let Some((closing, plan)) = closing {
        let progress = close(resource, plan, closing, is_overdue, context).await?;
        if let Some(again) = progress {
            return Ok(again);
        }
    }
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
        let forgotten = match context.fence_nats() {
            Ok(()) => context.jetstream.forget(&id).await.map_err(Error::from),
            Err(error) => Err(error),
        };
        attempt = forgotten.and(attempt);
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

/// Tells the workers to finish what runs; gives when to look again, nothing once all is finished or the deadline is over.
async fn close<S: JetStream, K: Kubernetes, R: Runs>(
    resource: &R,
    plan: &R::Plan,
    closing: Closing,
    is_overdue: bool,
    context: &Context<S, K>,
) -> Result<Option<Duration>, Error> {
    let id = resource.id();
    // A namespace that goes takes its workers with it: nothing is finished any more.
    let namespace = context.kubernetes.namespace(&id.namespace).await?;
    if namespace.is_some_and(|namespace| namespace.is_going) {
        return Ok(None);
    }
    let counted = context.jetstream.counters(&id).await;
    let left = match &counted {
        Ok(counters) => left(counters),
        Err(_) => "how many are left isn't known".to_owned(),
    };
    if is_overdue {
        let rest = match resource.deletes_data() {
            true => "they go with the log (deletionPolicy: Delete)",
            false => "they are in the log and go on if the Saga is applied again",
        };
        let note = format!("onDelete: {closing:?} wasn't finished in time: {left}; {rest}");
        let said = Said {
            warning: true,
            reason: "LeftUnfinished",
            note,
        };
        context.kubernetes.say(resource, said).await;
        return Ok(None);
    }
    let mut reached = reach(resource, plan, Some(closing), context).await?;
    let is_known = counted.is_ok();
    let counters = counted.unwrap_or_else(|error| {
        reached.error.get_or_insert_with(|| error.into());
        Vec::new()
    });
    let figures = SagaFigures::sum(counters.iter().map(Vec::as_slice));
    let is_finished = is_known && figures.running + figures.parked == 0;
    let uid = resource.meta().uid.clone().unwrap_or_default();
    let told = reached.verdict.reason == Reason::InForce;
    let quiet = context.quiet_for(&uid, told && is_finished, Instant::now());
    if quiet >= QUIET {
        return Ok(None);
    }
    let message = match told {
        true => format!("onDelete: {closing:?}: {left}"),
        false => format!(
            "onDelete: {closing:?}: the workers are being told ({}); {left}",
            reached.verdict.message
        ),
    };
    let error = reached.error.take();
    reached.verdict = Verdict::new(Reason::Deleting, message);
    settle_status(resource, Some(plan), reached, counters, context).await?;
    match error {
        Some(error) => Err(error),
        None => Ok(Some(SOON)),
    }
}

/// How many instances are left, for people.
fn left(counters: &[Vec<u8>]) -> String {
    let figures = SagaFigures::sum(counters.iter().map(Vec::as_slice));
    format!(
        "running: {}, parked: {} (those wait for a person: `tidemill parked list`)",
        figures.running, figures.parked
    )
}
