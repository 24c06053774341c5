//! Which cluster a cluster id belongs to. Two clusters that share a NATS account and an id would take each other's streams for their
//! own, so the leading operator keeps a heartbeat in NATS with the uid of its cluster, and the other cluster writes nothing.
//! What to do is decided by a pure function; the loop around it is thin.

use crate::jetstream::JetStream;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tidemill_core::names::{OWNERS_BUCKET, bucket_stream, cluster_key};
use tidemill_nats::{Guard, KvBucket, KvError, KvWrite, Nats, PublishError, Publisher};
use tidemill_provision::Installation;
use tokio_util::sync::CancellationToken;

/// How often the heartbeat is written.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long after the last heartbeat that is known to be written this cluster still writes. Less than `ABANDONED`: it stops before
/// another one begins.
const VALID: Duration = Duration::from_secs(30);
/// How old a heartbeat is when its cluster is taken to be gone: a rebuilt cluster takes its id over then.
const ABANDONED: Duration = Duration::from_secs(60);
/// The namespace whose uid is a cluster's identity: it lives as long as the cluster.
const CLUSTER: &str = "kube-system";
/// Longest wait for the first decision.
const DECISION_MAX: Duration = Duration::from_secs(10);
/// Wait after a failure.
const RETRY: Duration = Duration::from_secs(2);

/// The heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Beat {
    /// Uid of the namespace kube-system, which is a cluster's identity for as long as it lives.
    uid: String,
}

/// Whether this cluster has its id, as of now. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ClusterClaim {
    state: Arc<Mutex<State>>,
    problem: Arc<Mutex<Option<Unkept>>>,
}

/// Why the heartbeat wasn't kept.
#[derive(Clone, Debug)]
pub struct Unkept {
    /// In words.
    pub problem: String,
    /// Whether that may pass by itself.
    pub may_pass: bool,
}

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Unknown,
    Held {
        until: Option<Instant>,
    },
    Taken(String),
}

impl ClusterClaim {
    /// One that holds for ever: where nobody else can be.
    pub fn alone() -> ClusterClaim {
        let claim = ClusterClaim::default();
        claim.set(State::Held { until: None });
        claim
    }

    /// Whether streams may be written.
    pub fn holds(&self) -> bool {
        match &*self.lock() {
            State::Held { until } => until.is_none_or(|until| Instant::now() < until),
            State::Unknown | State::Taken(_) => false,
        }
    }

    /// Waits until it is known whose the id is, or can't be known soon.
    pub async fn decided(&self) {
        let decided = async {
            while !self.holds() && self.taken().is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(DECISION_MAX, decided).await;
    }

    /// Why another cluster has the id, if one has.
    pub fn taken(&self) -> Option<String> {
        match &*self.lock() {
            State::Taken(message) => Some(message.clone()),
            State::Unknown | State::Held { .. } => None,
        }
    }

    /// Why the heartbeat wasn't kept when it was last tried.
    pub fn problem(&self) -> Option<Unkept> {
        let problem = self.problem.lock();
        problem.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, state: State) {
        *self.lock() = state;
        self.note(None);
    }

    fn note(&self, problem: Option<Unkept>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is seen of the heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    uid: String,
    /// By the clock of NATS.
    age: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    /// The id is ours, free or abandoned.
    Write,
    /// Another cluster has it.
    Wait,
}

/// Decides. `takeover` = the uid that a person said is gone.
fn decide(seen: Option<&Seen>, me: &str, takeover: Option<&str>) -> Move {
    match seen {
        Some(Seen { uid, age })
            if uid != me && *age < ABANDONED && takeover != Some(uid.as_str()) =>
        {
            Move::Wait
        }
        _ => Move::Write,
    }
}

fn taken(cluster: &str, seen: &Seen) -> String {
    let Seen { uid, age } = seen;
    format!(
        "cluster id `{cluster}` belongs to another cluster that is alive (kube-system uid {uid}, seen {} s ago), so nothing is written to \
         NATS: give this cluster another clusterId; or, if that cluster is gone, wait a minute, or set takeover: {uid}",
        age.as_secs()
    )
}

/// Who keeps a heartbeat.
#[derive(Clone)]
pub struct Heart {
    /// NATS.
    pub nats: Nats,
    /// With the cluster id.
    pub installation: Installation,
    /// Where this cluster's uid is.
    pub namespaces: Api<Namespace>,
    /// Uid of a cluster that a person said is gone.
    pub takeover: Option<String>,
}

/// Why the heartbeat can't be kept.
#[derive(Debug, thiserror::Error)]
enum BeatError {
    #[error("the uid of namespace {CLUSTER} can't be read: {0}")]
    Uid(#[from] kube::Error),
    #[error("namespace {CLUSTER} has no uid yet")]
    NoUid,
    #[error(transparent)]
    Bucket(#[from] KvError),
    #[error(transparent)]
    Api(#[from] tidemill_nats::ApiError),
}

impl BeatError {
    fn may_pass(&self) -> bool {
        match self {
            BeatError::Api(error) => error.may_pass(),
            BeatError::Uid(_) | BeatError::NoUid | BeatError::Bucket(_) => true,
        }
    }
}

impl Heart {
    /// Keeps `claim` up to date until `stop`.
    pub async fn run(self, claim: ClusterClaim, stop: CancellationToken) {
        let mut me = None;
        loop {
            let wait = match self.beat(&mut me).await {
                Ok((state, wait)) => {
                    if let State::Taken(message) = &state {
                        tracing::error!("{message}");
                    }
                    claim.set(state);
                    wait
                }
                // The claim runs out by itself.
                Err(error) => {
                    tracing::warn!(%error, "the heartbeat of the cluster id can't be kept");
                    claim.note(Some(Unkept {
                        may_pass: error.may_pass(),
                        problem: error.to_string(),
                    }));
                    RETRY
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
        claim.set(State::Unknown);
    }

    /// What has to be there first: this cluster's uid, and the bucket.
    async fn prepare(&self) -> Result<String, BeatError> {
        let namespace = self.namespaces.get_opt(CLUSTER).await?;
        let uid = namespace.and_then(|namespace| namespace.metadata.uid);
        let uid = uid.ok_or(BeatError::NoUid)?;
        let incarnation = format!("{:032x}", rand::random::<u128>());
        let plans = self.installation.shared_buckets(&incarnation);
        JetStream::shared_buckets(&self.nats, plans).await?;
        Ok(uid)
    }

    async fn beat(&self, me: &mut Option<String>) -> Result<(State, Duration), BeatError> {
        let me = match me {
            Some(me) => me,
            None => me.insert(self.prepare().await?),
        };
        let begin = Instant::now();
        let bucket = KvBucket::new(&Publisher::new(&self.nats, 1), OWNERS_BUCKET);
        let key = cluster_key(&self.installation.cluster);
        let entry = bucket.get(&key).await?;
        // What can't be read is nobody's: it was never written by an operator.
        let seen = match entry.as_ref().filter(|entry| !entry.deleted) {
            Some(entry) => {
                let stream = self
                    .nats
                    .stream_state(&bucket_stream(OWNERS_BUCKET))
                    .await?;
                let now = stream.server_time.unwrap_or(stream.last_stored_at);
                let age = now.millis().saturating_sub(entry.stored_at.millis());
                let beat: Option<Beat> = serde_json::from_slice(&entry.value).ok();
                beat.map(|beat| Seen {
                    uid: beat.uid,
                    age: Duration::from_millis(u64::try_from(age).unwrap_or(0)),
                })
            }
            None => None,
        };
        if let Some(seen) = &seen
            && decide(Some(seen), me, self.takeover.as_deref()) == Move::Wait
        {
            return Ok((
                State::Taken(taken(&self.installation.cluster, seen)),
                INTERVAL,
            ));
        }
        let beat = Beat { uid: me.clone() };
        let write = KvWrite {
            key,
            value: serde_json::to_vec(&beat).ok().map(Into::into),
            // Only what was seen is replaced: of two clusters that begin together one gets it.
            guard: Guard::Revision(entry.map_or(0, |entry| entry.revision)),
            ..KvWrite::default()
        };
        match bucket.write(write).await {
            Ok(_) => {
                let until = Some(begin + VALID);
                Ok((State::Held { until }, INTERVAL))
            }
            Err(KvError::Write {
                source: PublishError::Conflict,
                ..
            }) => Ok((State::Unknown, RETRY)),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_when_its_cluster_cannot_be_alive() {
        let seen = |uid: &str, seconds| Seen {
            uid: uid.to_owned(),
            age: Duration::from_secs(seconds),
        };
        for (what, seen, takeover, expected) in [
            ("free", None, None, Move::Write),
            ("ours", Some(seen("me", 0)), None, Move::Write),
            ("another's", Some(seen("other", 59)), None, Move::Wait),
            ("abandoned", Some(seen("other", 60)), None, Move::Write),
            (
                "said to be gone",
                Some(seen("other", 1)),
                Some("other"),
                Move::Write,
            ),
            (
                "another one is said to be gone",
                Some(seen("other", 1)),
                Some("third"),
                Move::Wait,
            ),
        ] {
            assert_eq!(decide(seen.as_ref(), "me", takeover), expected, "{what}");
        }
        assert!(VALID < ABANDONED, "one stops before another begins");
    }

    #[test]
    fn a_claim_runs_out_and_says_who_has_it() {
        let claim = ClusterClaim::default();
        assert!(!claim.holds());
        let until = |until| State::Held { until: Some(until) };
        claim.set(until(Instant::now() + Duration::from_secs(60)));
        assert!(claim.holds() && claim.taken().is_none());
        claim.set(until(Instant::now()));
        assert!(!claim.holds());
        claim.set(State::Taken("by x".to_owned()));
        assert!(!claim.holds());
        assert_eq!(claim.taken().as_deref(), Some("by x"));
        assert!(ClusterClaim::alone().holds());
    }
}
