//! EventStreams, Projections and Sagas as the API server has them.

use super::{Cluster, FIELD_MANAGER};
use crate::error::{CliError, Exit, Result};
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use tidemill_core::names::Kind;
use tidemill_crds::eventstream::EventStream;
use tidemill_crds::projection::Projection;
use tidemill_crds::saga::Saga;
use tokio::time::Instant;

/// How often a status is looked at that somebody waits for.
const LOOK_INTERVAL: Duration = Duration::from_millis(300);
/// Resources that are listed at once.
const PAGE: u32 = 500;

/// A kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Type {
    EventStream,
    Projection,
    Saga,
}

impl Type {
    pub(crate) const ALL: [Type; 3] = [Type::EventStream, Type::Projection, Type::Saga];

    /// As marks and command lines write it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Type::EventStream => "eventstream",
            Type::Projection => "projection",
            Type::Saga => "saga",
        }
    }

    /// As manifests write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Type::EventStream => "EventStream",
            Type::Projection => "Projection",
            Type::Saga => "Saga",
        }
    }

    fn api_resource(self) -> ApiResource {
        match self {
            Type::EventStream => ApiResource::erase::<EventStream>(&()),
            Type::Projection => ApiResource::erase::<Projection>(&()),
            Type::Saga => ApiResource::erase::<Saga>(&()),
        }
    }
}

impl From<Kind> for Type {
    fn from(kind: Kind) -> Type {
        match kind {
            Kind::Projection => Type::Projection,
            Kind::Saga => Type::Saga,
        }
    }
}

/// One resource, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Named {
    pub(crate) of: Type,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.of.name(), self.namespace, self.name)
    }
}

/// What a resource says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    status: Value,
    generation: Option<i64>,
}

/// One condition of a status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Condition {
    /// Whether it is true.
    pub(crate) holds: bool,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Seen {
    fn of(object: DynamicObject) -> Seen {
        let mut data = object.data;
        Seen {
            status: data.get_mut("status").map(Value::take).unwrap_or_default(),
            generation: object.metadata.generation,
        }
    }

    /// Text of its status at a JSON pointer.
    pub(crate) fn text(&self, pointer: &str) -> Option<&str> {
        self.status.pointer(pointer)?.as_str()
    }

    /// A condition of its status.
    pub(crate) fn condition(&self, wanted: &str) -> Condition {
        let conditions = self.status.get("conditions").and_then(Value::as_array);
        let mut conditions = conditions.into_iter().flatten();
        let Some(found) = conditions.find(|one| one["type"] == wanted) else {
            return Condition::default();
        };
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        Condition {
            holds: found["status"] == "True",
            reason: text("reason"),
            message: text("message"),
        }
    }

    /// Whether its status is about its present spec.
    pub(crate) fn is_current(&self) -> bool {
        let observed = self
            .status
            .get("observedGeneration")
            .and_then(Value::as_i64);
        observed.is_some() && observed >= self.generation
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.reason.as_str() {
            "" => f.write_str("nothing is said of it yet"),
            reason => write!(f, "{reason}: {}", self.message),
        }
    }
}

impl Cluster {
    fn api(&self, of: Type, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &of.api_resource())
    }

    /// The resource as it is.
    ///
    /// # Errors
    /// It isn't there, or may not be read.
    pub(crate) async fn get(&self, resource: &Named) -> Result<Seen> {
        let api = self.api(resource.of, &resource.namespace);
        let what = format!("{resource} can't be read");
        let found = self.ask(&what, api.get(&resource.name)).await?;
        Ok(Seen::of(found))
    }

    /// Gives it an annotation.
    ///
    /// # Errors
    /// It isn't there, or may not be changed.
    pub(crate) async fn annotate(&self, resource: &Named, key: &str, value: &str) -> Result<()> {
        let api = self.api(resource.of, &resource.namespace);
        let patch = json!({"metadata": {"annotations": {key: value}}});
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let what = format!("{resource} can't be annotated");
        let patch = Patch::Merge(patch);
        let patched = api.patch(&resource.name, &params, &patch);
        self.ask(&what, patched).await.map(drop)
    }

    /// Looks at a resource until something can be said, or until `end`: then gives how it was last seen.
    ///
    /// # Errors
    /// As [`Cluster::get`].
    pub(crate) async fn wait<T>(
        &self,
        resource: &Named,
        end: Instant,
        say: impl Fn(&Seen) -> Option<T>,
    ) -> Result<std::result::Result<T, Seen>> {
        loop {
            let seen = self.get(resource).await?;
            if let Some(said) = say(&seen) {
                return Ok(Ok(said));
            }
            if Instant::now() >= end {
                return Ok(Err(seen));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Whether a resource is there: only what the API server says itself counts.
    ///
    /// # Errors
    /// It can't be known.
    pub(crate) async fn has(&self, resource: &Named) -> Result<bool> {
        let api = self.api(resource.of, &resource.namespace);
        let what = format!("whether {resource} is there can't be known");
        let found = async {
            match api.get_metadata(&resource.name).await {
                Ok(_) => Ok(true),
                // An API server that doesn't know the kind at all says 404 in other words.
                Err(kube::Error::Api(status))
                    if status.code == 404 && status.reason == "NotFound" =>
                {
                    Ok(false)
                }
                Err(error) => Err(error),
            }
        };
        self.ask(&what, found).await
    }

    /// Every resource of a kind, of one namespace or of all; those too that are being deleted.
    ///
    /// # Errors
    /// They can't all be listed.
    pub(crate) async fn all(&self, of: Type, namespace: Option<&str>) -> Result<BTreeSet<Named>> {
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => self.api(of, namespace),
            None => Api::all_with(self.client.clone(), &of.api_resource()),
        };
        let what = format!("{}s can't be listed", of.name());
        let (mut all, mut from) = (BTreeSet::new(), None);
        loop {
            let params = ListParams {
                limit: Some(PAGE),
                continue_token: from,
                ..ListParams::default()
            };
            let page = self.ask(&what, api.list_metadata(&params)).await;
            let page = page.map_err(|error| match error.exit() {
                Exit::NotFound => CliError::failed(format!(
                    "{} doesn't know {}s: are Tidemill's definitions (chart tidemill-crds) installed?",
                    self.shown(),
                    of.name()
                )),
                _ => error,
            })?;
            all.extend(page.items.into_iter().filter_map(|item| {
                Some(Named {
                    of,
                    namespace: item.metadata.namespace?,
                    name: item.metadata.name?,
                })
            }));
            from = page.metadata.continue_.filter(|token| !token.is_empty());
            if from.is_none() {
                return Ok(all);
            }
        }
    }
}
