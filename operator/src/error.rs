//! What can go wrong in one reconcile, and when it is tried again.

use crate::cluster_id::Unkept;
use crate::credentials::IssueError;
use std::time::Duration;
use tidemill_nats::{ApiError, KvError};
use tidemill_provision::starts::StartError;

/// Why a reconcile didn't come to its end. What is wrong with the resource itself is a verdict, not an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The API server.
    #[error("the API server: {0}")]
    Kubernetes(#[from] kube::Error),
    /// JetStream.
    #[error("JetStream: {0}")]
    JetStream(#[from] ApiError),
    /// What workers have counted can't be read.
    #[error("the workers' counters: {0}")]
    Counters(Box<KvError>),
    /// Where a stream is begun can't be stored.
    #[error(transparent)]
    Start(Box<StartError>),
    /// The workers' credentials can't be made.
    #[error(transparent)]
    Credentials(#[from] IssueError),
    /// It isn't known whether the cluster id is this cluster's.
    #[error("the heartbeat of the cluster id is not written yet{}", .0.as_ref().map(|why| format!(": {}", why.problem)).unwrap_or_default())]
    ClusterUnclaimed(Option<Unkept>),
    /// Another operator has the lease.
    #[error("another operator leads")]
    Fenced,
}

impl From<KvError> for Error {
    fn from(error: KvError) -> Error {
        Error::Counters(Box::new(error))
    }
}

impl From<StartError> for Error {
    fn from(error: StartError) -> Error {
        Error::Start(Box::new(error))
    }
}

/// What kind of error it is: it decides when the next attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The object was changed meanwhile: the next attempt sees the change.
    Conflict,
    /// It may pass by itself.
    Transient,
    /// Nothing is to be tried by this operator.
    Fenced,
}

impl Error {
    /// Whether NATS couldn't be asked, or mustn't be.
    pub fn is_of_nats(&self) -> bool {
        match self {
            Error::JetStream(_)
            | Error::Counters(_)
            | Error::Start(_)
            | Error::ClusterUnclaimed(_) => true,
            Error::Kubernetes(_) | Error::Credentials(_) | Error::Fenced => false,
        }
    }

    /// Whether NATS won't do it until somebody changes something.
    pub fn is_refusal(&self) -> bool {
        match self {
            Error::JetStream(error) => !error.may_pass(),
            Error::ClusterUnclaimed(Some(unkept)) => !unkept.may_pass,
            _ => false,
        }
    }

    /// Its class.
    pub fn class(&self) -> Class {
        match self {
            Error::Kubernetes(kube::Error::Api(status)) if status.code == 409 => Class::Conflict,
            Error::Kubernetes(_)
            | Error::JetStream(_)
            | Error::Counters(_)
            | Error::Start(_)
            | Error::Credentials(_)
            | Error::ClusterUnclaimed(_) => Class::Transient,
            Error::Fenced => Class::Fenced,
        }
    }
}

/// First and longest wait after a transient error.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// Wait after a conflict.
const SOON: Duration = Duration::from_millis(100);

/// When the next attempt is made after `failures` in a row. `jitter` is in [0, 1): up to a quarter is taken off, so that many that
/// failed together don't come back together.
pub fn wait_after(class: Class, failures: u32, jitter: f64) -> Duration {
    match class {
        Class::Conflict => SOON,
        Class::Fenced => BACKOFF.1,
        Class::Transient => {
            let doubled = BACKOFF
                .0
                .saturating_mul(1 << failures.saturating_sub(1).min(16));
            doubled
                .min(BACKOFF.1)
                .mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 4.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute() {
        let waits = [1, 2, 3, 8, 1_000]
            .map(|failures| wait_after(Class::Transient, failures, 0.0).as_millis());
        assert_eq!(waits, [500, 1_000, 2_000, 60_000, 60_000]);
        assert_eq!(wait_after(Class::Transient, 1, 1.0).as_millis(), 375);
        assert_eq!(wait_after(Class::Conflict, 9, 0.5), SOON);
    }
}
