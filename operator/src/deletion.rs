//! What happens when a resource goes. Its data stays, unless `deletionPolicy: Delete` says otherwise: then a finalizer holds the resource
//! until its data is gone, or until the deadline is over, so that a NATS that is away blocks no namespace for ever.

use crate::context::Context;
use crate::error::Error;
use crate::jetstream::JetStream;
use crate::kubernetes::{Kubernetes, Object, Said};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use std::time::Duration;
use tidemill_nats::ApiError;
use tidemill_nats::provision::owner_of;

/// Finalizer of resources whose data goes with them.
pub const FINALIZER: &str = "tidemill.dev/data";

/// Whether the resource is going, and waits for us.
pub fn is_held(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some() && has(meta)
}

fn has(meta: &ObjectMeta) -> bool {
    let finalizers = meta.finalizers.iter().flatten();
    finalizers.into_iter().any(|name| name == FINALIZER)
}

/// The finalizers that it shall have, where they aren't those that it has. `hold`: its data goes with it.
pub fn finalizers(meta: &ObjectMeta, hold: bool) -> Option<Vec<String>> {
    let mut finalizers = meta.finalizers.clone().unwrap_or_default();
    match (has(meta), hold) {
        // One that is going gets no new ones: the API server would refuse it.
        (false, true) if meta.deletion_timestamp.is_none() => {
            finalizers.push(FINALIZER.to_owned());
        }
        (true, false) => finalizers.retain(|name| name != FINALIZER),
        _ => return None,
    }
    Some(finalizers)
}

/// Holds a resource, or lets it go.
///
/// # Errors
/// [`Error::Fenced`], [`Error::Kubernetes`]
pub async fn hold<S: JetStream, K: Kubernetes, O: Object>(
    object: &O,
    hold: bool,
    context: &Context<S, K>,
) -> Result<(), Error> {
    if let Some(finalizers) = finalizers(object.meta(), hold) {
        context.fence()?;
        context
            .kubernetes
            .set_finalizers(object, &finalizers)
            .await?;
    }
    Ok(())
}

/// Whether it has been going for longer than `deadline`.
pub fn is_overdue(meta: &ObjectMeta, now: Timestamp, deadline: Duration) -> bool {
    meta.deletion_timestamp.as_ref().is_some_and(|since| {
        let gone = now.duration_since(since.0);
        gone > k8s_openapi::jiff::SignedDuration::try_from(deadline).unwrap_or_default()
    })
}

/// Deletes those of the streams that carry this owner's mark; gives their names. What is another's, or gone already, stays as it is.
///
/// # Errors
/// [`Error::Fenced`], [`Error::JetStream`]
pub async fn delete_streams<S: JetStream, K: Kubernetes>(
    streams: impl IntoIterator<Item = String>,
    owner: &str,
    context: &Context<S, K>,
) -> Result<Vec<String>, Error> {
    let mut deleted = Vec::new();
    for name in streams {
        let present = context.jetstream.stream(&name).await?;
        let ours =
            present.is_some_and(|stream| owner_of(&stream.metadata()).as_deref() == Some(owner));
        if ours {
            context.fence_nats()?;
            context.jetstream.delete(&name).await?;
            tracing::info!(owner, "stream {name} was deleted with its resource");
            deleted.push(name);
        }
    }
    Ok(deleted)
}

/// What became of the data of a resource that is going.
#[derive(Debug)]
pub enum Departure {
    /// It is gone, or nothing was to be done.
    Done(Vec<String>),
    /// It can't be deleted now, and the deadline isn't over.
    Waiting(Error),
    /// It can't be deleted, and the deadline is over: it stays.
    GivenUp(Error),
}

/// Judges an attempt to delete the data.
///
/// # Errors
/// [`Error::Fenced`], [`Error::Kubernetes`]: nothing is said of the data.
pub fn judge(attempt: Result<Vec<String>, Error>, is_overdue: bool) -> Result<Departure, Error> {
    match attempt {
        Ok(deleted) => Ok(Departure::Done(deleted)),
        Err(error) if !error.is_of_nats() => Err(error),
        Err(error) if is_overdue => Ok(Departure::GivenUp(error)),
        Err(error) => Ok(Departure::Waiting(error)),
    }
}

/// What is recorded of what was deleted, or stays.
pub fn said(departure: &Departure, streams: &[String]) -> Option<Said> {
    match departure {
        Departure::Done(deleted) if deleted.is_empty() => None,
        Departure::Done(deleted) => Some(Said {
            warning: false,
            reason: "Deleted",
            note: format!("deletionPolicy: Delete: deleted {}", deleted.join(", ")),
        }),
        Departure::Waiting(_) => None,
        Departure::GivenUp(error) => Some(Said {
            warning: true,
            reason: "LeftBehind",
            note: format!(
                "{} could not be deleted in time and may still be in NATS ({error}), with the mark of this resource in their metadata",
                streams.join(", ")
            ),
        }),
    }
}

/// What is shown while it waits.
pub fn waiting(error: &Error) -> String {
    match error {
        Error::JetStream(ApiError::Refused { .. }) => {
            format!(
                "NATS refuses to delete the data: {error}; it is tried again until the deadline"
            )
        }
        _ => format!(
            "the data can't be deleted yet: {error}; it is tried again until the deadline, then it stays in NATS"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn meta(finalizers: &[&str], deleted_at: Option<i64>) -> ObjectMeta {
        ObjectMeta {
            finalizers: Some(finalizers.iter().map(|name| (*name).to_owned()).collect()),
            deletion_timestamp: deleted_at
                .map(|second| Time(Timestamp::from_second(second).unwrap_or_default())),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn only_our_finalizer_comes_and_goes() {
        let others = ["a/b"];
        let both = ["a/b", FINALIZER];
        let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(finalizers(&meta(&others, None), true), names(&both));
        assert_eq!(finalizers(&meta(&others, None), false), None);
        assert_eq!(finalizers(&meta(&both, None), true), None);
        assert_eq!(finalizers(&meta(&both, None), false), names(&others));
        assert_eq!(finalizers(&meta(&others, Some(1)), true), None);
        assert_eq!(finalizers(&meta(&both, Some(1)), false), names(&others));
        assert!(is_held(&meta(&both, Some(1))));
        assert!(!is_held(&meta(&others, Some(1))));
        assert!(!is_held(&meta(&both, None)));
    }

    #[test]
    fn the_deadline_is_counted_from_the_deletion() {
        let at = |second| Timestamp::from_second(second).unwrap_or_default();
        let deadline = Duration::from_secs(300);
        assert!(!is_overdue(&meta(&[], None), at(1_000), deadline));
        assert!(!is_overdue(&meta(&[], Some(100)), at(400), deadline));
        assert!(is_overdue(&meta(&[], Some(100)), at(401), deadline));
    }
}
