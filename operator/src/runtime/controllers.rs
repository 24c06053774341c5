//! One controller per kind: what makes it look at which object.

use super::feed::{Feed, News};
use crate::context::Context;
use crate::error::{Error, wait_after};
use crate::eventstream;
use crate::jetstream::JetStream;
use crate::kubernetes::{Kubernetes, Object, shown};
use crate::meters::Meters;
use crate::pace::Key;
use crate::status::Reports;
use crate::survey::Difference;
use crate::workload::{self, Runs};
use futures::{FutureExt, Stream, StreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{Action, Config as ControllerConfig, Controller};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::Event;
use kube::runtime::{Predicate, WatchStreamExt, predicates, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemill_core::definition::StreamRef;
use tidemill_crds::eventstream::EventStream;
use tokio_util::sync::CancellationToken;

/// Resources of one kind that are reconciled at the same time.
const CONCURRENCY: u16 = 16;
/// Label of everything that the operator makes in Kubernetes.
const OURS: &str = "app.kubernetes.io/managed-by=tidemill-operator";

pub(super) async fn event_streams<S: JetStream, K: Kubernetes>(
    client: Client,
    context: Arc<Context<S, K>>,
    feed: Feed,
    stop: CancellationToken,
) {
    let (controller, known) = controller::<EventStream>(client, stop.clone());
    let unlisted = stopped_before_it_began(known.clone(), stop);
    let counted = count(known.clone(), context.meters.clone());
    let pace = context.pace.clone();
    let changed = feed.news().flat_map(move |news| {
        let all = known.state().into_iter();
        futures::stream::iter(match news {
            News::Everything => references(all),
            News::Stream(stream, Difference::Figures) => {
                let concerned = all.filter(|resource| has_stream(resource, &stream));
                concerned.for_each(|resource| pace.want(resource.key()));
                Vec::new()
            }
            // Whoever waits for something may have it now.
            News::Stream(stream, Difference::Settings) => references(
                all.filter(|resource| has_stream(resource, &stream) || !is_ready(&**resource)),
            ),
        })
    });
    let run = controller
        .reconcile_on(changed)
        .reconcile_on(feed.turns::<EventStream>().map(reference))
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
    until_stopped(run, unlisted, counted).await;
}

pub(super) async fn workloads<S: JetStream, K: Kubernetes, R: Runs>(
    client: Client,
    context: Arc<Context<S, K>>,
    feed: Feed,
    stop: CancellationToken,
) {
    let (controller, known) = controller::<R>(client.clone(), stop.clone());
    let unlisted = stopped_before_it_began(known.clone(), stop);
    let counted = count(known.clone(), context.meters.clone());
    let all = {
        let known = known.clone();
        move || known.state().into_iter()
    };
    // Whoever names a stream waits for it, and follows its changes; its figures are no change.
    let streams = specified_or_gone(watcher(
        Api::<EventStream>::all(client.clone()),
        watcher::Config::default(),
    ));
    let users = {
        let all = all.clone();
        move |stream: EventStream| {
            let named = StreamRef {
                namespace: stream.namespace().unwrap_or_default(),
                name: stream.name_any(),
            };
            references(all().filter(|user| names(&**user, &named)))
        }
    };
    // Whoever may read a stream by the labels of its namespace.
    let namespaces = watcher(
        Api::<PartialObjectMeta<Namespace>>::all(client.clone()),
        watcher::Config::default(),
    )
    .touched_objects()
    .predicate_filter(predicates::labels, Default::default());
    let here = {
        let all = all.clone();
        move |namespace: PartialObjectMeta<Namespace>| {
            let name = namespace.name_any();
            references(all().filter(|resource| resource.namespace().as_ref() == Some(&name)))
        }
    };
    // Its own streams, changed or gone. Their messages are no change.
    let changed = feed.news().flat_map(move |news| {
        futures::stream::iter(match news {
            News::Everything => references(all()),
            News::Stream(_, Difference::Figures) => Vec::new(),
            News::Stream(stream, Difference::Settings) => references(all().filter(|resource| {
                let made = resource.recorded().streams;
                made.iter().any(|made| made.name == stream)
            })),
        })
    });
    let ours = watcher::Config::default().labels(OURS);
    let run = controller
        .watches_stream(streams, users)
        .watches_stream(namespaces, here)
        .owns(Api::<Deployment>::all(client.clone()), ours)
        .owns_stream(metadata::<ConfigMap>(&client))
        .owns_stream(metadata::<ServiceAccount>(&client))
        .owns_stream(metadata::<PodDisruptionBudget>(&client))
        .reconcile_on(changed)
        .reconcile_on(feed.turns::<R>().map(reference))
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
    until_stopped(run, unlisted, counted).await;
}

/// Changes of the children that are only there or not: their content is looked at when their owner is.
fn metadata<C>(
    client: &Client,
) -> impl Stream<Item = watcher::Result<PartialObjectMeta<C>>> + Send + 'static
where
    C: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    watcher(
        Api::<PartialObjectMeta<C>>::all(client.clone()),
        watcher::Config::default().labels(OURS),
    )
    .touched_objects()
}

/// Objects whose spec is new, and those that are gone; a predicate on generations would pass over the latter.
fn specified_or_gone<K: Object>(
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
) -> impl Stream<Item = watcher::Result<K>> + Send + 'static {
    let mut generations: HashMap<(String, String), Option<i64>> = HashMap::new();
    events.default_backoff().filter_map(move |event| {
        let place = |object: &K| (object.namespace().unwrap_or_default(), object.name_any());
        let passed = match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => {
                let generation = object.meta().generation;
                let known = generations.insert(place(&object), generation);
                (known != Some(generation)).then_some(Ok(object))
            }
            Ok(Event::Delete(object)) => {
                generations.remove(&place(&object));
                Some(Ok(object))
            }
            Ok(Event::Init | Event::InitDone) => None,
            Err(error) => Some(Err(error)),
        };
        futures::future::ready(passed)
    })
}

/// A controller that looks at what people change: a status that it writes itself is no change.
fn controller<K: Object>(client: Client, stop: CancellationToken) -> (Controller<K>, Store<K>) {
    let (known, writer) = reflector::store();
    let changed = predicates::generation
        .combine(predicates::annotations)
        .combine(predicates::finalizers);
    let objects = watcher(Api::<K>::all(client), watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .touched_objects()
        .predicate_filter(changed, Default::default());
    let controller = Controller::for_stream(objects, known.clone())
        .with_config(ControllerConfig::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(async move { stop.cancelled().await });
    (controller, known)
}

/// Ends when a controller was stopped that hasn't listed its objects yet, and so has begun nothing: by itself it would wait for that
/// list for ever, as it no longer asks for it (kube-runtime 5.0: the runner is held until the store is ready).
async fn stopped_before_it_began<K: Object>(objects: Store<K>, stop: CancellationToken) {
    stop.cancelled().await;
    if objects.wait_until_ready().now_or_never().is_some() {
        std::future::pending::<()>().await;
    }
}

/// How often it is counted how the resources are.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);

/// Counts how the resources are, for ever.
async fn count<R: Reports>(known: Store<R>, meters: Meters) {
    loop {
        meters.count(&known.state());
        tokio::time::sleep(COUNT_INTERVAL).await;
    }
}

/// Runs a controller until it ends, or was stopped before it began.
async fn until_stopped(
    run: impl Future<Output = ()>,
    unlisted: impl Future<Output = ()>,
    count: impl Future<Output = ()>,
) {
    tokio::select! {
        () = run => {}
        () = unlisted => {}
        () = count => {}
    }
}

/// One reconcile, counted.
async fn tracked<S: JetStream, K: Kubernetes, O: Reports>(
    reconcile: impl Future<Output = Result<Duration, Error>>,
    object: Arc<O>,
    context: Arc<Context<S, K>>,
) -> Result<Action, Error> {
    let begin = Instant::now();
    let ended = reconcile.await;
    let class = ended.as_ref().err().map(Error::class);
    context.meters.reconciled(O::KIND, class, begin.elapsed());
    let again = ended?;
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

fn references<K: Object>(objects: impl IntoIterator<Item = Arc<K>>) -> Vec<ObjectRef<K>> {
    let objects = objects.into_iter();
    objects
        .map(|object| ObjectRef::from_obj(&*object))
        .collect()
}

fn reference<K: Object>(key: Key) -> ObjectRef<K> {
    ObjectRef::new(&key.name).within(&key.namespace)
}

/// Whether a definition names a stream.
fn names<R: Runs>(resource: &R, stream: &StreamRef) -> bool {
    let plan = resource.compile();
    plan.is_ok_and(|plan| {
        let used = R::parts(&plan).streams;
        used.iter().any(|used| used.stream == *stream)
    })
}

/// Whether a resource's stream has this name.
fn has_stream(resource: &EventStream, name: &str) -> bool {
    let status = resource.status.as_ref();
    let effective = status.and_then(|status| status.effective.as_ref());
    effective.is_some_and(|effective| effective.stream_name == name)
}

fn is_ready(resource: &impl Reports) -> bool {
    let mut conditions = resource.conditions().iter();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
