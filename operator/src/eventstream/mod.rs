//! EventStream → JetStream stream.
//!
//! validate (pure) → observe → plan (pure) → apply → status (pure). Only `observe`, `apply` and the write of the status call anybody.

mod status;
pub(crate) mod validate;

use crate::conditions::{Reason, SETTLED, Verdict};
use crate::context::Context;
use crate::deletion::{self, Departure};
use crate::error::Error;
use crate::jetstream::JetStream;
use crate::kubernetes::Kubernetes;
use crate::status::Reports;
use crate::stream::{self, Known, Settled};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tidemill_crds::common::DeletionPolicy;
use tidemill_crds::compile;
use tidemill_crds::eventstream::{EventStream, EventStreamStatus};
use tidemill_nats::provision::Mark;

/// Makes the stream as the resource says, and the status as the stream is; gives when to look again.
///
/// # Errors
/// [`Error`]: it is tried again by the error's class. What is wrong with the resource is in its status.
pub async fn reconcile<S: JetStream, K: Kubernetes>(
    resource: Arc<EventStream>,
    context: Arc<Context<S, K>>,
) -> Result<Duration, Error> {
    if resource.metadata.deletion_timestamp.is_some() {
        return depart(&resource, &context).await;
    }
    let (installation, tenancy) = (&context.installation, &context.tenancy);
    let valid = match context.cluster.taken() {
        Some(message) => Err(Verdict::new(Reason::ClusterIdTaken, message)),
        None => validate::validate(&resource, installation, tenancy, &(context.incarnation)()),
    };
    let (valid, settled) = match valid {
        Err(verdict) => (None, Settled::of(None, verdict)),
        Ok(valid) => {
            // Before there is anything that it would hold.
            deletion::hold(&*resource, valid.plan.policy.delete, &context).await?;
            let settled = stream::settle(
                &*resource,
                &valid.stream,
                &valid.policy,
                &known(&resource),
                &context,
            )
            .await?;
            (Some(valid), settled)
        }
    };
    let Settled {
        stream,
        verdict,
        data_lost,
        error,
    } = settled;
    let plan = valid.as_ref().map(|valid| &valid.plan);
    let now = Timestamp::now();
    let mut wanted = status::status(&resource, plan, stream.as_ref(), &verdict, now);
    if let Some(lost) = data_lost {
        status::note_loss(&mut wanted, lost, now);
    }
    crate::status::write(&*resource, &wanted, &verdict, &context).await?;
    // Said first, so that whoever waits knows why; then it is tried again as any error is.
    error.map_or(Ok(verdict.look_again()), Err)
}

/// It is going: deletes its stream, if the spec says so.
async fn depart<S: JetStream, K: Kubernetes>(
    resource: &EventStream,
    context: &Context<S, K>,
) -> Result<Duration, Error> {
    let meta = &resource.metadata;
    if !deletion::is_held(meta) {
        return Ok(SETTLED);
    }
    let (namespace, name) = (
        resource.namespace().unwrap_or_default(),
        resource.name_any(),
    );
    let owner =
        Mark::event_stream(&context.installation.cluster, &namespace, &name, "").to_string();
    let status = resource.status.as_ref();
    let effective = status.and_then(|status| status.effective.as_ref());
    // As it was made, and as it would be made: each may be known without the other.
    let made = effective.map(|effective| effective.stream_name.clone());
    let planned = compile::event_stream(resource).plan;
    let planned = planned.map(|plan| plan.settings.name);
    let streams: BTreeSet<String> = match resource.spec.deletion_policy {
        Some(DeletionPolicy::Delete) => made.into_iter().chain(planned).collect(),
        _ => BTreeSet::new(),
    };
    let streams: Vec<String> = streams.into_iter().collect();
    let now = Timestamp::now();
    let attempt = deletion::delete_streams(streams.clone(), &owner, context).await;
    let departure = deletion::judge(
        attempt,
        deletion::is_overdue(meta, now, context.deletion_deadline),
    )?;
    if let Some(said) = deletion::said(&departure, &streams) {
        context.kubernetes.say(resource, said).await;
    }
    if let Departure::Waiting(error) = departure {
        let verdict = Verdict::new(Reason::Deleting, deletion::waiting(&error));
        let wanted = status::status(resource, None, None, &verdict, now);
        crate::status::write(resource, &wanted, &verdict, context).await?;
        return Err(error);
    }
    deletion::hold(resource, false, context).await?;
    Ok(SETTLED)
}

impl Reports for EventStream {
    type Status = EventStreamStatus;
    const FIGURES: &'static [&'static str] =
        &["messages", "bytes", "firstSequence", "lastSequence"];
    const KIND: &'static str = "EventStream";

    fn present(&self) -> Option<&EventStreamStatus> {
        self.status.as_ref()
    }

    fn conditions(&self) -> &[Condition] {
        self.status
            .as_ref()
            .map_or(&[], |status| &status.conditions)
    }
}

/// What the status remembers of the stream.
fn known(resource: &EventStream) -> Known {
    let status = resource.status.as_ref();
    let last = status.and_then(|status| status.last_sequence);
    Known {
        incarnation: status.and_then(|status| status.incarnation.clone()),
        last: last.and_then(|last| u64::try_from(last).ok()).unwrap_or(0),
    }
}
