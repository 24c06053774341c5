//! Clients, the lease, and one controller per kind.

mod controllers;
mod feed;

use crate::cluster_id::{ClusterClaim, Heart};
use crate::config::Config;
use crate::context::Context;
use crate::credentials::{self, Issuer, Names};
use crate::kubernetes::Cluster;
use crate::lease::{Candidate, Claim};
use crate::meters::Meters;
use crate::readiness::{self, Missing};
use feed::Feed;
use kube::{Api, Client};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tidemill_crds::projection::Projection;
use tidemill_crds::saga::Saga;
use tidemill_nats::Nats;
use tidemill_service::{Health, Metrics};
use tokio_util::sync::CancellationToken;

/// Name of the Lease that says which operator works.
const LEASE: &str = "tidemill-operator";
/// How often it is looked whether what was missing is there.
const NEEDS_INTERVAL: Duration = Duration::from_secs(5);
/// How often it is looked whether this operator leads.
const LEAD_INTERVAL: Duration = Duration::from_millis(250);

/// What the operator runs with.
pub struct Runtime {
    /// The API server.
    pub client: Client,
    /// NATS.
    pub nats: Nats,
    /// Its configuration.
    pub config: Config,
    /// Makes credentials, if the configuration says so.
    pub issuer: Option<Issuer>,
    /// Its own namespace, where the Lease is.
    pub namespace: String,
    /// Its own name.
    pub pod: String,
    /// Where it says whether it is ready.
    pub health: Health,
    /// Where it shows what it does.
    pub metrics: Metrics,
}

impl Runtime {
    /// Works until `stop`: waits for the lease, reconciles for as long as it has it.
    pub async fn run(self, stop: CancellationToken) {
        let claim = Claim::default();
        let candidate = Candidate {
            leases: Api::namespaced(self.client.clone(), &self.namespace),
            name: LEASE.to_owned(),
            me: self.pod.clone(),
        };
        // Given back when everything that writes has ended.
        let release = CancellationToken::new();
        let election = tokio::spawn(candidate.run(claim.clone(), release.clone()));
        let meters = Meters::register(&self.metrics);
        self.metrics.show_connection(&self.nats);
        let can_begin = CancellationToken::new();
        let watching = [
            tokio::spawn(watch_needs(
                self.client.clone(),
                self.namespace.clone(),
                self.config.credentials.as_ref().map(Names::of),
                self.health.clone(),
                can_begin.clone(),
            )),
            tokio::spawn(watch_nats(self.nats.clone(), self.health.clone())),
        ];
        tokio::select! {
            () = can_begin.cancelled() => self.health.ready("operator"),
            () = stop.cancelled() => {}
        }
        while !stop.is_cancelled() {
            if !claim.holds() {
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(LEAD_INTERVAL) => continue,
                }
            }
            let term = stop.child_token();
            let cluster = ClusterClaim::default();
            let heart = tokio::spawn(self.heart(cluster.clone(), term.clone()));
            cluster.decided().await;
            let context = Context::new(
                self.nats.clone(),
                Cluster::new(&self.client, &self.pod),
                &self.config,
                (claim.clone(), cluster),
                meters.clone(),
            );
            let context = Arc::new(context.with_issuer(self.issuer.clone()));
            let keeping = tokio::spawn(self.keep_credentials(claim.clone(), term.clone()));
            meters.leads(true);
            let feed = Feed::new(context.pace.clone());
            let client = || self.client.clone();
            let tasks = [
                tokio::spawn(controllers::event_streams(
                    client(),
                    Arc::clone(&context),
                    feed.clone(),
                    term.clone(),
                )),
                tokio::spawn(controllers::workloads::<_, _, Projection>(
                    client(),
                    Arc::clone(&context),
                    feed.clone(),
                    term.clone(),
                )),
                tokio::spawn(controllers::workloads::<_, _, Saga>(
                    client(),
                    context,
                    feed.clone(),
                    term.clone(),
                )),
                tokio::spawn(feed.run(self.nats.clone(), term.clone())),
            ];
            while claim.holds() && !stop.is_cancelled() {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(LEAD_INTERVAL) => {}
                }
            }
            if !stop.is_cancelled() {
                tracing::warn!("the lease is lost: another operator may lead");
            }
            term.cancel();
            futures::future::join_all(tasks).await;
            let _ = heart.await;
            let _ = keeping.await;
            meters.leads(false);
        }
        release.cancel();
        let _ = election.await;
        for task in watching {
            task.abort();
        }
    }
}

impl Runtime {
    /// Keeps the heartbeat of the cluster id.
    fn heart(
        &self,
        claim: ClusterClaim,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        let heart = Heart {
            nats: self.nats.clone(),
            namespaces: Api::all(self.client.clone()),
            installation: self.config.installation(),
            takeover: self.config.takeover.clone(),
        };
        heart.run(claim, stop)
    }
}

impl Runtime {
    /// Keeps the Secrets with credentials of NATS, if it makes them.
    fn keep_credentials(
        &self,
        claim: Claim,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (client, namespace) = (self.client.clone(), self.namespace.clone());
        let issuer = self.issuer.clone();
        async move {
            if let Some(issuer) = issuer {
                let keep = credentials::keep(client, namespace, issuer, claim);
                let _ = stop.run_until_cancelled(keep).await;
            }
        }
    }
}

/// Says for as long as something is missing what it is; `can_begin` is cancelled as soon as the kinds are there: what a missing
/// permission stops says so by itself.
async fn watch_needs(
    client: Client,
    namespace: String,
    secrets: Option<Names>,
    health: Health,
    can_begin: CancellationToken,
) {
    loop {
        match readiness::missing(&client, &namespace, LEASE, secrets.as_ref()).await {
            Ok(missing) => {
                health.ready("kubernetes");
                if report(&missing, &health, &can_begin) {
                    return;
                }
            }
            Err(error) => {
                let reason = format!("the API server doesn't answer: {error}");
                health.not_ready("kubernetes", reason);
            }
        }
        tokio::time::sleep(NEEDS_INTERVAL).await;
    }
}

/// Whether nothing is missing.
fn report(missing: &Missing, health: &Health, can_begin: &CancellationToken) -> bool {
    let Missing {
        definitions,
        permissions,
    } = missing;
    let told = [
        (
            "definitions",
            definitions,
            "missing, install the chart tidemill-crds",
        ),
        (
            "permissions",
            permissions,
            "not granted to the operator's ServiceAccount, install the roles of the chart",
        ),
    ];
    for (condition, lacking, cure) in told {
        match lacking.is_empty() {
            true => health.ready(condition),
            false => health.not_ready(condition, format!("{cure}: {}", lacking.join(", "))),
        }
    }
    if definitions.is_empty() {
        can_begin.cancel();
    }
    definitions.is_empty() && permissions.is_empty()
}

/// Says whether NATS is there.
async fn watch_nats(nats: Nats, health: Health) {
    let mut status = nats.status();
    loop {
        let connected = status.borrow_and_update().connected;
        match connected {
            true => health.ready("nats"),
            false => health.not_ready("nats", format!("connecting to {}", nats.servers())),
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}
