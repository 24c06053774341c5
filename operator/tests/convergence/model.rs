//! API server and JetStream in memory, with a budget of calls: the call that exceeds it fails, before it did anything or after.

use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use tidemill_core::contract::Contract;
use tidemill_core::definition::{SagaDefinition, StreamRef};
use tidemill_core::names::ResourceId;
use tidemill_core::timestamp::Timestamp;
use tidemill_crds::compile::together::{Labels, overlap};
use tidemill_crds::eventstream::EventStream;
use tidemill_nats::provision::{Loss, StreamPlan};
use tidemill_nats::{ApiError, KvError, StreamState};
use tidemill_operator::jetstream::JetStream;
use tidemill_operator::kubernetes::{Child, Kubernetes, Namespace, Object, Pod, Said};
use tidemill_provision::starts::StartError;

/// JetStream's codes: the name is taken, subjects overlap.
const NAME_TAKEN: u64 = 10058;
const OVERLAP: u64 = 10065;

/// When a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    /// Calls that succeed before.
    pub(crate) after: u32,
    /// Whether the failing call was carried out, and only its answer lost.
    pub(crate) done: bool,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) streams: BTreeMap<String, StreamState>,
    /// Objects as JSON, by kind, namespace and name.
    pub(crate) objects: BTreeMap<String, Value>,
    /// Children as JSON, by kind, namespace and name.
    pub(crate) children: BTreeMap<String, Value>,
    /// Pods, each with its namespace and the labels by which it is found.
    pub(crate) pods: Vec<((String, Labels), Pod)>,
    pub(crate) namespaces: BTreeMap<String, Namespace>,
    /// Definitions of Sagas that workers have stored, by resource.
    pub(crate) definitions: BTreeMap<String, Vec<SagaDefinition>>,
    /// Resources whose starts are stored.
    starts: BTreeSet<String>,
    pub(crate) said: Vec<Said>,
    pub(crate) calls: u32,
    pub(crate) writes: u32,
    stop: Option<Stop>,
}

/// Cheap to clone; all clones are the same world.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model(Arc<Mutex<State>>);

/// What a call does under its budget: nothing, everything, or everything with a lost answer.
enum Fate {
    Lost,
    DoneAndLost,
    Answered,
}

impl Model {
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    /// From now on calls are counted anew.
    pub(crate) fn stop_at(&self, stop: Option<Stop>) {
        self.with(|state| (state.stop, state.calls, state.writes) = (stop, 0, 0));
    }

    fn call<T>(&self, lost: impl FnOnce() -> T, carry_out: impl FnOnce(&mut State) -> T) -> T {
        self.with(|state| {
            let fate = match state.stop {
                Some(stop) if state.calls >= stop.after && stop.done => Fate::DoneAndLost,
                Some(stop) if state.calls >= stop.after => Fate::Lost,
                _ => Fate::Answered,
            };
            state.calls += 1;
            match fate {
                Fate::Lost => lost(),
                Fate::DoneAndLost => {
                    carry_out(state);
                    lost()
                }
                Fate::Answered => carry_out(state),
            }
        })
    }

    fn jetstream<T>(
        &self,
        carry_out: impl FnOnce(&mut State) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        self.call(|| Err(ApiError::TimedOut("a call".to_owned())), carry_out)
    }

    fn kubernetes<T>(&self, carry_out: impl FnOnce(&mut State) -> T) -> Result<T, kube::Error> {
        let lost = || Err(kube::Error::Service("the connection broke".into()));
        self.call(lost, |state| Ok(carry_out(state)))
    }

    /// What lasts: streams without their times, objects without theirs.
    pub(crate) fn lasting(&self) -> Value {
        self.with(|state| {
            let streams: BTreeMap<&String, &Value> = state
                .streams
                .iter()
                .map(|(name, stream)| (name, &stream.config))
                .collect();
            let mut objects = json!(state.objects);
            for object in objects.as_object_mut().unwrap().values_mut() {
                if let Some(conditions) = object.pointer_mut("/status/conditions") {
                    for condition in conditions.as_array_mut().unwrap() {
                        condition["lastTransitionTime"] = Value::Null;
                    }
                }
            }
            let all = json!({
                "streams": streams,
                "starts": state.starts,
                "objects": objects,
                "children": state.children,
            });
            without_incarnations(&all)
        })
    }
}

/// The same with one incarnation, `i-`, in place of `i-<number>`.
fn without_incarnations(all: &Value) -> Value {
    let text = all.to_string();
    let mut parts = text.split("i-");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        kept.push_str("i-");
        kept.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    serde_json::from_str(&kept).unwrap()
}

fn refused(call: &str, code: u64, description: &str) -> ApiError {
    ApiError::Refused {
        call: call.to_owned(),
        code,
        description: description.to_owned(),
    }
}

fn subjects(config: &Map<String, Value>) -> Vec<String> {
    let subjects = config.get("subjects").and_then(Value::as_array);
    let texts = subjects.into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

impl State {
    /// Makes or changes a stream as the server would.
    fn write(
        &mut self,
        call: &str,
        name: &str,
        config: &Map<String, Value>,
    ) -> Result<(), ApiError> {
        let present = self.streams.get(name);
        let missing = || Err(ApiError::StreamMissing(name.to_owned()));
        match (call, present) {
            ("CREATE", Some(present)) if present.config != Value::Object(config.clone()) => {
                let description = "stream name already in use with a different configuration";
                return Err(refused(call, NAME_TAKEN, description));
            }
            ("CREATE", Some(_)) => return Ok(()),
            ("UPDATE", None) => return missing(),
            _ => {}
        }
        let wanted = subjects(config);
        let taken = self.streams.values().any(|other| {
            let theirs = other.subjects();
            other.name != name
                && theirs
                    .iter()
                    .any(|theirs| wanted.iter().any(|ours| overlap(ours, theirs)))
        });
        if taken {
            let description = "subjects overlap with an existing stream";
            return Err(refused(call, OVERLAP, description));
        }
        self.writes += 1;
        let incarnation = config
            .get("metadata")
            .and_then(|all| all.get("tidemill.dev/incarnation"));
        let stream = StreamState {
            name: name.to_owned(),
            incarnation: incarnation
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            created: Timestamp::from_millis(0),
            first: 1,
            last: 0,
            messages: 0,
            bytes: 0,
            subjects_count: 0,
            last_stored_at: Timestamp::from_millis(0),
            server_time: None,
            config: Value::Object(config.clone()),
        };
        self.streams.insert(name.to_owned(), stream);
        Ok(())
    }
}

impl JetStream for Model {
    async fn stream(&self, name: &str) -> Result<Option<StreamState>, ApiError> {
        self.jetstream(|state| Ok(state.streams.get(name).cloned()))
    }

    async fn streams_on(&self, subject: &str) -> Result<Vec<String>, ApiError> {
        self.jetstream(|state| {
            let takes = |stream: &&StreamState| {
                let subjects = stream.subjects();
                subjects.iter().any(|theirs| overlap(theirs, subject))
            };
            let streams = state.streams.values().filter(takes);
            Ok(streams.map(|stream| stream.name.clone()).collect())
        })
    }

    async fn losses(
        &self,
        _: &StreamState,
        _: &Map<String, Value>,
        _: &[String],
    ) -> Result<Vec<Loss>, ApiError> {
        // Its streams are empty.
        self.jetstream(|_| Ok(Vec::new()))
    }

    async fn shared_buckets(&self, plans: [StreamPlan; 4]) -> Result<(), ApiError> {
        for plan in plans {
            self.jetstream(|state| match state.streams.contains_key(&plan.name) {
                true => Ok(()),
                false => state.write("CREATE", &plan.name, &plan.config()),
            })?;
        }
        Ok(())
    }

    async fn remember_starts(&self, contract: &Contract) -> Result<(), StartError> {
        // Written once, whatever comes later.
        let done: Result<(), ApiError> = self.jetstream(|state| {
            let resource = contract.resource.to_string();
            if state.starts.insert(resource) {
                state.writes += 1;
            }
            Ok(())
        });
        Ok(done?)
    }

    async fn counters(&self, _: &ResourceId) -> Result<Vec<Vec<u8>>, KvError> {
        let lost = || {
            Err(KvError::Get {
                bucket: "counters".to_owned(),
                source: ApiError::TimedOut("a call".to_owned()),
            })
        };
        self.call(lost, |_| Ok(Vec::new()))
    }

    async fn definitions(&self, resource: &ResourceId) -> Result<Vec<SagaDefinition>, KvError> {
        let lost = || {
            Err(KvError::Get {
                bucket: "revisions".to_owned(),
                source: ApiError::TimedOut("a call".to_owned()),
            })
        };
        let resource = resource.to_string();
        self.call(lost, |state| {
            let definitions = state.definitions.get(&resource);
            Ok(definitions.cloned().unwrap_or_default())
        })
    }

    async fn create(&self, name: &str, config: &Map<String, Value>) -> Result<(), ApiError> {
        self.jetstream(|state| state.write("CREATE", name, config))
    }

    async fn update(&self, name: &str, config: &Map<String, Value>) -> Result<(), ApiError> {
        self.jetstream(|state| state.write("UPDATE", name, config))
    }

    async fn delete(&self, name: &str) -> Result<(), ApiError> {
        self.jetstream(|state| {
            if state.streams.remove(name).is_some() {
                state.writes += 1;
            }
            Ok(())
        })
    }

    async fn forget(&self, resource: &ResourceId) -> Result<(), ApiError> {
        self.jetstream(|state| {
            if state.starts.remove(&resource.to_string()) {
                state.writes += 1;
            }
            Ok(())
        })
    }
}

/// Where an object is.
pub(crate) fn key<K: Object>(object: &K) -> String {
    let meta = object.meta();
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!(
        "{}/{}/{}",
        K::kind(&()),
        part(&meta.namespace),
        part(&meta.name)
    )
}

impl Kubernetes for Model {
    async fn write_status<K: Object>(
        &self,
        object: &K,
        status: &(impl Serialize + Sync),
    ) -> Result<(), kube::Error> {
        let status = serde_json::to_value(status).unwrap();
        self.kubernetes(|state| {
            let object = state.objects.get_mut(&key(object)).unwrap();
            if object["status"] != status {
                state.writes += 1;
                object["status"] = status;
            }
        })
    }

    async fn event_stream(&self, stream: &StreamRef) -> Result<Option<EventStream>, kube::Error> {
        let key = format!("EventStream/{}/{}", stream.namespace, stream.name);
        self.kubernetes(|state| {
            let found = state.objects.get(&key).cloned();
            found.map(|found| serde_json::from_value(found).unwrap())
        })
    }

    async fn child(
        &self,
        kind: Child,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, kube::Error> {
        let key = format!("{kind:?}/{namespace}/{name}");
        self.kubernetes(|state| state.children.get(&key).cloned())
    }

    async fn apply(&self, kind: Child, child: &Value) -> Result<Value, kube::Error> {
        let meta = |field: &str| child["metadata"][field].as_str().unwrap().to_owned();
        let key = format!("{kind:?}/{}/{}", meta("namespace"), meta("name"));
        self.kubernetes(|state| {
            state.writes += 1;
            state.children.insert(key, child.clone());
            child.clone()
        })
    }

    async fn create(&self, kind: Child, child: &Value) -> Result<(), kube::Error> {
        let meta = |field: &str| child["metadata"][field].as_str().unwrap().to_owned();
        let key = format!("{kind:?}/{}/{}", meta("namespace"), meta("name"));
        self.kubernetes(|state| {
            if !state.children.contains_key(&key) {
                state.writes += 1;
                state.children.insert(key, child.clone());
            }
        })
    }

    async fn delete(&self, kind: Child, namespace: &str, name: &str) -> Result<(), kube::Error> {
        let key = format!("{kind:?}/{namespace}/{name}");
        self.kubernetes(|state| {
            if state.children.remove(&key).is_some() {
                state.writes += 1;
            }
        })
    }

    async fn children(
        &self,
        kind: Child,
        namespace: &str,
        labels: &Labels,
    ) -> Result<Vec<String>, kube::Error> {
        let prefix = format!("{kind:?}/{namespace}/");
        self.kubernetes(|state| {
            let found = state.children.iter().filter(|(key, child)| {
                let has = |(name, value): (&String, &String)| {
                    child["metadata"]["labels"][name] == value.as_str()
                };
                key.starts_with(&prefix) && labels.iter().all(has)
            });
            found
                .map(|(key, _)| key[prefix.len()..].to_owned())
                .collect()
        })
    }

    async fn pods(&self, namespace: &str, labels: &Labels) -> Result<Vec<Pod>, kube::Error> {
        let wanted = (namespace.to_owned(), labels.clone());
        self.kubernetes(|state| {
            let pods = state.pods.iter().filter(|(of, _)| *of == wanted);
            pods.map(|(_, pod)| pod.clone()).collect()
        })
    }

    async fn namespace(&self, name: &str) -> Result<Option<Namespace>, kube::Error> {
        self.kubernetes(|state| state.namespaces.get(name).cloned())
    }

    async fn set_finalizers<K: Object>(
        &self,
        object: &K,
        finalizers: &[String],
    ) -> Result<(), kube::Error> {
        let key = key(object);
        self.kubernetes(|state| {
            let Some(object) = state.objects.get_mut(&key) else {
                return;
            };
            state.writes += 1;
            object["metadata"]["finalizers"] = json!(finalizers);
            let is_going = object["metadata"]["deletionTimestamp"].is_string();
            if is_going && finalizers.is_empty() {
                state.objects.remove(&key);
            }
        })
    }

    async fn say<K: Object>(&self, _: &K, said: Said) {
        self.call(|| {}, |state| state.said.push(said));
    }
}
