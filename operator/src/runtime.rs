//! Clients, the lease, and one controller per kind.

mod controllers;
mod feed;

use crate::config::Config;
use crate::context::Context;
use crate::kubernetes::Cluster;
use crate::lease::{Candidate, Claim};
use feed::Feed;
use kube::{Api, Client};
use std::sync::Arc;
use std::time::Duration;
use tidemill_crds::projection::Projection;
use tidemill_crds::saga::Saga;
use tidemill_nats::Nats;
use tidemill_service::Health;
use tokio_util::sync::CancellationToken;

/// Name of the Lease that says which operator works.
const LEASE: &str = "tidemill-operator";
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
    /// Its own namespace, where the Lease is.
    pub namespace: String,
    /// Its own name.
    pub pod: String,
    /// Where it says whether it is ready.
    pub health: Health,
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
        self.health.ready("operator");
        while !stop.is_cancelled() {
            if !claim.holds() {
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(LEAD_INTERVAL) => continue,
                }
            }
            let term = stop.child_token();
            let context = Arc::new(Context::new(
                self.nats.clone(),
                Cluster::new(&self.client, &self.pod),
                &self.config,
                claim.clone(),
            ));
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
        }
        release.cancel();
        let _ = election.await;
    }
}
