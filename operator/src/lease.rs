//! Which of several operators works: a Lease of the API server. What to do is decided by a pure function; the loop around it is thin.
//!
//! A leader that can't renew stops before anybody else may begin: it gives up `RENEW_MAX` after the last renewal that it knows to have
//! succeeded, others take over [`DURATION`] after they saw the lease change last, by their own clocks. Writes look at the [`Claim`].

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How long others wait for a leader that is silent.
const DURATION: Duration = Duration::from_secs(15);
/// How often the leader renews, and others look.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long after its last renewal a leader still works.
const RENEW_MAX: Duration = Duration::from_secs(10);

/// Whether this operator leads, as of now. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Claim(Arc<Mutex<Option<Instant>>>);

impl Claim {
    /// Whether writes are allowed.
    pub fn holds(&self) -> bool {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// A claim that holds for ever: for an operator that is alone.
    pub fn alone() -> Claim {
        let claim = Claim::default();
        claim.set(Instant::now().checked_add(Duration::from_secs(u64::from(u32::MAX))));
        claim
    }

    fn set(&self, until: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

/// What is seen of the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who holds it; empty = nobody.
    pub holder: String,
    /// For how long it has not changed, by the observer's clock.
    pub unchanged: Duration,
}

/// What is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// The lease is written with our name: it is free, expired or ours.
    Take,
    /// Another one leads.
    Wait,
}

/// Decides. `None` = there is no lease.
pub fn decide(lease: Option<&Seen>, me: &str) -> Move {
    match lease {
        Some(seen) if !seen.holder.is_empty() && seen.holder != me && seen.unchanged < DURATION => {
            Move::Wait
        }
        _ => Move::Take,
    }
}

/// Who takes part in an election.
#[derive(Clone)]
pub struct Candidate {
    /// Leases of the operator's namespace.
    pub leases: Api<Lease>,
    /// Name of the lease.
    pub name: String,
    /// Who this is: the pod's name.
    pub me: String,
}

impl Candidate {
    /// Keeps `claim` up to date until `stop`, then gives the lease back.
    pub async fn run(self, claim: Claim, stop: CancellationToken) {
        let mut last: Option<(String, Instant)> = None;
        let mut held: Option<Lease> = None;
        loop {
            match self.attempt(&mut last, &mut held).await {
                Ok(Some(since)) => {
                    if !claim.holds() {
                        tracing::info!(lease = self.name, me = self.me, "this operator leads");
                    }
                    claim.set(Some(since + RENEW_MAX));
                }
                Ok(None) => claim.set(None),
                // The claim runs out by itself.
                Err(error) => {
                    tracing::warn!(lease = self.name, %error, "the lease can't be renewed")
                }
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
        if claim.holds() {
            claim.set(None);
            if let Err(error) = self.give_back().await {
                tracing::warn!(lease = self.name, %error, "the lease can't be given back: others wait until it runs out");
            }
        }
    }

    /// One look, and a write if it is ours to take; `Some` = we lead since then. `last` is the version seen last, and since when;
    /// `held` the lease as we wrote it last, which needs no look: if it isn't so any more, the write is refused.
    async fn attempt(
        &self,
        last: &mut Option<(String, Instant)>,
        held: &mut Option<Lease>,
    ) -> Result<Option<Instant>, kube::Error> {
        let begin = Instant::now();
        let known = held.take();
        let was_known = known.is_some();
        let present = match known {
            Some(held) => Some(held),
            None => self.leases.get_opt(&self.name).await?,
        };
        let seen = present.as_ref().map(|lease| {
            let version = lease.metadata.resource_version.clone().unwrap_or_default();
            let since = match last {
                Some((known, since)) if *known == version => *since,
                _ => begin,
            };
            *last = Some((version, since));
            Seen {
                holder: holder(lease).to_owned(),
                unchanged: begin.saturating_duration_since(since),
            }
        });
        if decide(seen.as_ref(), &self.me) == Move::Wait {
            return Ok(None);
        }
        let wanted = self.lease(present.as_ref());
        let posted = PostParams::default();
        let written = match &present {
            None => self.leases.create(&posted, &wanted).await,
            Some(_) => self.leases.replace(&self.name, &posted, &wanted).await,
        };
        match written {
            Ok(written) => {
                *held = Some(written);
                Ok(Some(begin))
            }
            // Somebody else wrote it, or it is gone.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => match was_known {
                true => Box::pin(self.attempt(last, held)).await,
                false => Ok(None),
            },
            Err(error) => Err(error),
        }
    }

    fn lease(&self, present: Option<&Lease>) -> Lease {
        let spec = present
            .and_then(|lease| lease.spec.clone())
            .unwrap_or_default();
        let ours = spec.holder_identity.as_deref() == Some(&self.me);
        let now = Some(MicroTime(Timestamp::now()));
        let changes = spec.lease_transitions.unwrap_or_default();
        Lease {
            // Labels stay, and the resource version: only what was seen is replaced.
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                managed_fields: None,
                ..present.map_or_else(ObjectMeta::default, |lease| lease.metadata.clone())
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.me.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: if ours { spec.acquire_time } else { now.clone() },
                renew_time: now,
                lease_transitions: Some(changes.saturating_add(i32::from(!ours))),
                ..LeaseSpec::default()
            }),
        }
    }

    async fn give_back(&self) -> Result<(), kube::Error> {
        let Some(mut lease) = self.leases.get_opt(&self.name).await? else {
            return Ok(());
        };
        if holder(&lease) != self.me {
            return Ok(());
        }
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
        }
        let posted = PostParams::default();
        self.leases.replace(&self.name, &posted, &lease).await?;
        Ok(())
    }
}

fn holder(lease: &Lease) -> &str {
    let spec = lease.spec.as_ref();
    spec.and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_when_nobody_can_be_working_any_more() {
        let seen = |holder: &str, seconds| Seen {
            holder: holder.to_owned(),
            unchanged: Duration::from_secs(seconds),
        };
        for (lease, expected) in [
            (None, Move::Take),
            (Some(seen("", 0)), Move::Take),
            (Some(seen("me", 0)), Move::Take),
            (Some(seen("other", 0)), Move::Wait),
            (Some(seen("other", 14)), Move::Wait),
            (Some(seen("other", 15)), Move::Take),
        ] {
            assert_eq!(decide(lease.as_ref(), "me"), expected, "{lease:?}");
        }
        assert!(RENEW_MAX < DURATION, "a leader stops before another begins");
    }

    #[test]
    fn a_claim_runs_out() {
        let claim = Claim::default();
        assert!(!claim.holds());
        claim.set(Some(Instant::now() + Duration::from_secs(60)));
        assert!(claim.holds());
        claim.set(Some(Instant::now()));
        assert!(!claim.holds());
        assert!(Claim::alone().holds());
    }
}
