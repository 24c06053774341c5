//! Clients, the lease, and one controller per kind: the only file that knows all kinds.

use crate::config::Config;
use crate::context::Context;
use crate::error::{Error, wait_after};
use crate::eventstream;
use crate::jetstream::JetStream;
use crate::kubernetes::{Cluster, Kubernetes, Object, shown};
use crate::lease::{Candidate, Claim};
use crate::workload::{self, Runs};
use futures::{FutureExt, Stream, StreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{Action, Config as ControllerConfig, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{WatchStreamExt, predicates, watcher};
use kube::{Api, Client, ResourceExt};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::definition::StreamRef;
use tidemill_crds::eventstream::EventStream;
use tidemill_crds::projection::Projection;
use tidemill_crds::saga::Saga;
use tidemill_nats::{Nats, STREAM_ADVISORIES};
use tidemill_service::Health;
use tokio_util::sync::CancellationToken;

/// Name of the Lease that says which operator works.
const LEASE: &str = "tidemill-operator";
/// Resources of one kind that are reconciled at the same time.
const CONCURRENCY: u16 = 16;
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
            let changed = match advisories(&self.nats).await {
                Some(changed) => changed.boxed(),
                None => futures::stream::pending().boxed(),
            };
            let client = || self.client.clone();
            let controllers = [
                tokio::spawn(event_streams(
                    client(),
                    Arc::clone(&context),
                    changed,
                    term.clone(),
                )),
                tokio::spawn(workloads::<_, _, Projection>(
                    client(),
                    Arc::clone(&context),
                    term.clone(),
                )),
                tokio::spawn(workloads::<_, _, Saga>(client(), context, term.clone())),
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
            futures::future::join_all(controllers).await;
        }
        release.cancel();
        let _ = election.await;
    }
}

async fn event_streams<S: JetStream, K: Kubernetes>(
    client: Client,
    context: Arc<Context<S, K>>,
    changed: impl Stream<Item = String> + Send + 'static,
    stop: CancellationToken,
) {
    let controller = controller::<EventStream>(client, stop.clone());
    let known = controller.store();
    let unlisted = stopped_before_it_began(known.clone(), stop);
    let changed = changed.flat_map(move |name| {
        let of = |resource: &EventStream| has_stream(resource, &name);
        let resource = known.find(of);
        futures::stream::iter(resource.map(|resource| ObjectRef::from_obj(&*resource)))
    });
    let run = controller
        .reconcile_on(changed)
        .run(
            |resource, context| {
                tracked(
                    eventstream::reconcile(Arc::clone(&resource), Arc::clone(&context)),
                    resource,
                    context,
                )
            },
            again,
            context,
        )
        .for_each(log_trouble);
    either(run, unlisted).await;
}

async fn workloads<S: JetStream, K: Kubernetes, R: Runs>(
    client: Client,
    context: Arc<Context<S, K>>,
    stop: CancellationToken,
) {
    let controller = controller::<R>(client.clone(), stop.clone());
    let known = controller.store();
    let inhabitants = known.clone();
    let unlisted = stopped_before_it_began(known.clone(), stop);
    // Whoever names a stream waits for it, and follows its changes; its figures are no change.
    let streams = watcher(
        Api::<EventStream>::all(client.clone()),
        watcher::Config::default(),
    )
    .touched_objects()
    .predicate_filter(predicates::generation, Default::default());
    let users = move |stream: EventStream| {
        let named = StreamRef {
            namespace: stream.namespace().unwrap_or_default(),
            name: stream.name_any(),
        };
        let users = known
            .state()
            .into_iter()
            .filter(move |user| names(&**user, &named));
        users
            .map(|user| ObjectRef::from_obj(&*user))
            .collect::<Vec<_>>()
    };
    // Whoever may read a stream by the labels of its namespace.
    let namespaces = watcher(
        Api::<PartialObjectMeta<Namespace>>::all(client.clone()),
        watcher::Config::default(),
    )
    .touched_objects()
    .predicate_filter(predicates::labels, Default::default());
    let here = move |namespace: PartialObjectMeta<Namespace>| {
        let name = namespace.name_any();
        let here = inhabitants.state().into_iter();
        here.filter(move |resource| resource.namespace().as_ref() == Some(&name))
            .map(|resource| ObjectRef::from_obj(&*resource))
            .collect::<Vec<_>>()
    };
    let ours = watcher::Config::default().labels("app.kubernetes.io/managed-by=tidemill-operator");
    let run = controller
        .watches_stream(streams, users)
        .watches_stream(namespaces, here)
        .owns(Api::<Deployment>::all(client), ours)
        .run(
            |resource, context| {
                tracked(
                    workload::reconcile(Arc::clone(&resource), Arc::clone(&context)),
                    resource,
                    context,
                )
            },
            again,
            context,
        )
        .for_each(log_trouble);
    either(run, unlisted).await;
}

/// Ends when a controller was stopped that hasn't listed its objects yet, and so has begun nothing: by itself it would wait for that
/// list for ever, as it no longer asks for it (kube-runtime 5.0: the runner is held until the store is ready).
async fn stopped_before_it_began<K: Object>(objects: Store<K>, stop: CancellationToken) {
    stop.cancelled().await;
    if objects.wait_until_ready().now_or_never().is_some() {
        std::future::pending::<()>().await;
    }
}

async fn either(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    tokio::select! {
        () = one => {}
        () = other => {}
    }
}

fn controller<K: Object>(client: Client, stop: CancellationToken) -> Controller<K> {
    Controller::new(Api::<K>::all(client), watcher::Config::default())
        .with_config(ControllerConfig::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(async move { stop.cancelled().await })
}

/// One reconcile, counted.
async fn tracked<S: JetStream, K: Kubernetes, O: Object>(
    reconcile: impl Future<Output = Result<Duration, Error>>,
    object: Arc<O>,
    context: Arc<Context<S, K>>,
) -> Result<Action, Error> {
    let again = reconcile.await?;
    context.succeeded(&shown(&*object));
    Ok(Action::requeue(again))
}

/// When a reconcile that failed is tried again.
fn again<S: JetStream, K: Kubernetes, O: Object>(
    object: Arc<O>,
    error: &Error,
    context: Arc<Context<S, K>>,
) -> Action {
    let name = shown(&*object);
    let failures = context.failed(&name);
    let wait = wait_after(error.class(), failures, rand::random());
    tracing::warn!(resource = name, %error, failures, ?wait, "a reconcile failed");
    Action::requeue(wait)
}

async fn log_trouble<T, E: std::fmt::Display>(done: Result<T, E>) {
    if let Err(error) = done {
        tracing::debug!(%error, "controller");
    }
}

/// Whether a definition names a stream.
fn names<R: Runs>(resource: &R, stream: &StreamRef) -> bool {
    let plan = resource.compile();
    plan.is_ok_and(|plan| {
        R::parts(&plan)
            .streams
            .iter()
            .any(|used| used.stream == *stream)
    })
}

/// Names of streams that the server says were made, changed or deleted, whoever did it.
async fn advisories(nats: &Nats) -> Option<impl Stream<Item = String> + Send + 'static> {
    match nats.client().subscribe(STREAM_ADVISORIES).await {
        Ok(messages) => Some(messages.filter_map(|message| async move {
            let name = message.subject.rsplit('.').next();
            name.map(str::to_owned)
        })),
        Err(error) => {
            tracing::warn!(%error, "the server's advisories can't be had: changes are seen at the next look");
            None
        }
    }
}

/// Whether a resource's stream has this name.
fn has_stream(resource: &EventStream, name: &str) -> bool {
    let status = resource.status.as_ref();
    let effective = status.and_then(|status| status.effective.as_ref());
    effective.is_some_and(|effective| effective.stream_name == name)
}
