//! EventStream → JetStream stream.
//!
//! validate (pure) → observe → plan (pure) → apply → status (pure). Only `observe`, `apply` and the write of the status call anybody.

mod status;
mod validate;

use crate::context::Context;
use crate::error::Error;
use crate::jetstream::JetStream;
use crate::kubernetes::Kubernetes;
use crate::stream::{self, Known, Settled};
use k8s_openapi::jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tidemill_crds::eventstream::EventStream;

/// How often a stream is looked at that nobody said anything about.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// Makes the stream as the resource says, and the status as the stream is; gives when to look again.
///
/// # Errors
/// [`Error`]: it is tried again by the error's class. What is wrong with the resource is in its status.
pub async fn reconcile<S: JetStream, K: Kubernetes>(
    resource: Arc<EventStream>,
    context: Arc<Context<S, K>>,
) -> Result<Duration, Error> {
    if resource.metadata.deletion_timestamp.is_some() {
        // What it made stays (`deletionPolicy: Retain`).
        return Ok(LOOK_INTERVAL);
    }
    let (installation, tenancy) = (&context.installation, &context.tenancy);
    let valid = validate::validate(&resource, installation, tenancy, &(context.incarnation)());
    let (valid, settled) = match valid {
        Err(verdict) => (None, Settled::of(None, verdict)),
        Ok(valid) => {
            let settled = stream::settle(
                &*resource,
                &valid.stream,
                valid.policy,
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
    if resource.status.as_ref() != Some(&wanted) {
        context.fence()?;
        context.kubernetes.write_status(&*resource, &wanted).await?;
    }
    // Said first, so that whoever waits knows why; then it is tried again as any error is.
    error.map_or(Ok(LOOK_INTERVAL), |error| Err(error.into()))
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
