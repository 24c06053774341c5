//! What reconcilers may use.

use crate::cluster_id::ClusterClaim;
use crate::config::Config;
use crate::credentials::Issuer;
use crate::error::Error;
use crate::jetstream::JetStream;
use crate::kubernetes::Kubernetes;
use crate::lease::Claim;
use crate::meters::Meters;
use crate::pace::Pace;
use crate::tenancy::Tenancy;
use crate::worker::WorkerDefaults;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tidemill_core::contract::Connection;
use tidemill_provision::Installation;
use tokio::sync::OnceCell;

/// Everything that one reconcile is given. Cheap to clone.
#[derive(Clone)]
pub struct Context<S, K> {
    /// JetStream.
    pub jetstream: S,
    /// The API server.
    pub kubernetes: K,
    /// Cluster id and defaults.
    pub installation: Arc<Installation>,
    /// Who may use what.
    pub tenancy: Arc<Tenancy>,
    /// How workers reach NATS.
    pub worker_connection: Connection,
    /// What is the same for all workers.
    pub workers: Arc<WorkerDefaults>,
    /// Makes the workers' credentials; `None` = somebody else does, if they need any.
    pub issuer: Option<Arc<Issuer>>,
    /// How long a resource that goes waits for its data to be deleted.
    pub deletion_deadline: Duration,
    /// How long ago something must have happened to the instances of a Saga that is applied anew and goes on by itself.
    pub resume_limit: Duration,
    /// Whose figures may be written when.
    pub pace: Pace,
    /// What is counted.
    pub meters: Meters,
    /// Whether this operator leads: looked at before each write.
    pub claim: Claim,
    /// Whether the cluster id is this cluster's: looked at before each write to NATS.
    pub cluster: ClusterClaim,
    /// A new incarnation for each stream that is made.
    pub incarnation: fn() -> String,
    failures: Failures,
    /// The contract beside which an object has no other, by the object's uid.
    pruned: Arc<Mutex<HashMap<String, String>>>,
    /// Since when nothing runs of objects that are closing, by their uid.
    quiet: Arc<Mutex<HashMap<String, Instant>>>,
    shared: Arc<OnceCell<()>>,
}

/// How often each object failed in a row.
type Failures = Arc<Mutex<HashMap<String, u32>>>;

impl<S: JetStream, K: Kubernetes> Context<S, K> {
    /// A context of a configuration.
    pub fn new(
        jetstream: S,
        kubernetes: K,
        config: &Config,
        (claim, cluster): (Claim, ClusterClaim),
        meters: Meters,
    ) -> Self {
        Context {
            jetstream,
            kubernetes,
            installation: Arc::new(config.installation()),
            tenancy: Arc::new(config.tenancy.clone()),
            worker_connection: config.worker_connection(),
            workers: Arc::new(config.workers.clone()),
            issuer: None,
            deletion_deadline: Duration::from_secs(u64::from(config.deletion_deadline_seconds)),
            resume_limit: Duration::from_secs(u64::from(config.resume_limit_seconds)),
            pace: Pace::default(),
            meters,
            claim,
            cluster,
            incarnation: || format!("{:032x}", rand::random::<u128>()),
            failures: Failures::default(),
            pruned: Arc::default(),
            quiet: Arc::default(),
            shared: Arc::default(),
        }
    }

    /// With credentials made by this.
    #[must_use]
    pub fn with_issuer(mut self, issuer: Option<Issuer>) -> Self {
        self.issuer = issuer.map(Arc::new);
        self
    }

    /// Looked at before each write.
    ///
    /// # Errors
    /// [`Error::Fenced`]: another operator may lead.
    pub fn fence(&self) -> Result<(), Error> {
        match self.claim.holds() {
            true => Ok(()),
            false => Err(Error::Fenced),
        }
    }

    /// Looked at before each write to NATS.
    ///
    /// # Errors
    /// [`Error::Fenced`], [`Error::ClusterUnclaimed`]: another cluster may write what is marked as this one's.
    pub fn fence_nats(&self) -> Result<(), Error> {
        self.fence()?;
        match self.cluster.holds() {
            true => Ok(()),
            false => Err(Error::ClusterUnclaimed(self.cluster.problem())),
        }
    }

    /// Makes the buckets that all workers share, once.
    ///
    /// # Errors
    /// [`Error::Fenced`], [`Error::ClusterUnclaimed`], [`Error::JetStream`]
    pub async fn shared_buckets(&self) -> Result<(), Error> {
        let make = async || {
            self.fence_nats()?;
            let plans = self.installation.shared_buckets(&(self.incarnation)());
            Ok(self.jetstream.shared_buckets(plans).await?)
        };
        self.shared.get_or_try_init(make).await.map(|_| ())
    }

    /// Whether this operator has deleted all older contracts of an object.
    pub fn is_pruned(&self, uid: &str, contract: &str) -> bool {
        let pruned = self.pruned.lock().unwrap_or_else(PoisonError::into_inner);
        pruned.get(uid).is_some_and(|known| known == contract)
    }

    /// It has.
    pub fn pruned(&self, uid: &str, contract: &str) {
        let mut pruned = self.pruned.lock().unwrap_or_else(PoisonError::into_inner);
        pruned.insert(uid.to_owned(), contract.to_owned());
    }

    /// For how long nothing was seen to run any more of an object that is closing; `false` = something runs.
    pub fn quiet_for(&self, uid: &str, is_quiet: bool, now: Instant) -> Duration {
        let mut quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_quiet {
            quiet.remove(uid);
            return Duration::ZERO;
        }
        let since = *quiet.entry(uid.to_owned()).or_insert(now);
        now.saturating_duration_since(since)
    }

    /// Counts a failure of an object; gives how many there were in a row.
    pub fn failed(&self, object: &str) -> u32 {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(object.to_owned()).or_default();
        *count = count.saturating_add(1);
        *count
    }

    /// The object is well.
    pub fn succeeded(&self, object: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.remove(object);
    }
}
