//! What is made before a worker starts: streams and buckets. The operator and `tidemill dev` make them, workers never do.
//!
//! A [`StreamPlan`] says what is wanted; [`ensure`] makes it so: creates, or updates what differs, and nothing else. It never deletes
//! or recreates anything, nor lets a smaller limit delete messages unless the plan says so, never touches what carries another owner's
//! mark, and leaves every setting alone that the plan doesn't name.

mod loss;

use crate::api::{ApiError, INCARNATION_KEY, StreamState};
use crate::connection::Nats;
use crate::kv::{stream_of, subject_of};
pub use loss::{Loss, losses};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tidemill_core::names::{self, ResourceId};
use tidemill_core::planted::{Bug, planted};

/// Duplicate window unless said otherwise; the server's own default.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// Whose a stream or bucket is: `tidemill.dev/{cluster,namespace,kind,name,incarnation}` in its metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Cluster id; `dev` without Kubernetes.
    pub cluster: String,
    /// Namespace of the resource; empty for what the whole connection shares.
    pub namespace: String,
    /// `eventstream`, `projection`, `saga`, or `shared`.
    pub kind: String,
    /// Name of the resource; empty for what is shared.
    pub name: String,
    /// Random; given to the stream when it is made and kept for its life. Positions are only worth anything together with it.
    pub incarnation: String,
}

impl Mark {
    /// The mark of what belongs to a Projection or a Saga.
    pub fn of(cluster: &str, resource: &ResourceId, incarnation: &str) -> Self {
        Mark {
            cluster: cluster.to_owned(),
            namespace: resource.namespace.clone(),
            kind: resource.kind.to_string(),
            name: resource.name.clone(),
            incarnation: incarnation.to_owned(),
        }
    }

    /// The mark of an EventStream's stream.
    pub fn event_stream(cluster: &str, namespace: &str, name: &str, incarnation: &str) -> Self {
        Mark {
            cluster: cluster.to_owned(),
            namespace: namespace.to_owned(),
            kind: "eventstream".to_owned(),
            name: name.to_owned(),
            incarnation: incarnation.to_owned(),
        }
    }

    fn shared(incarnation: &str) -> Self {
        Mark {
            cluster: String::new(),
            namespace: String::new(),
            kind: "shared".to_owned(),
            name: String::new(),
            incarnation: incarnation.to_owned(),
        }
    }

    /// Who owns it, without the incarnation.
    fn owner(&self) -> [(&'static str, &str); 4] {
        [
            ("tidemill.dev/cluster", &self.cluster),
            ("tidemill.dev/namespace", &self.namespace),
            ("tidemill.dev/kind", &self.kind),
            ("tidemill.dev/name", &self.name),
        ]
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}/{}/{}",
            self.cluster, self.namespace, self.kind, self.name
        )
    }
}

/// Where messages are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// On disk.
    #[default]
    File,
    /// In memory; gone with the server.
    Memory,
}

/// When messages leave a stream; `None` = never for that reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all messages.
    pub bytes_max: Option<u64>,
    /// Age of a message.
    pub age_max: Option<Duration>,
    /// Number of messages.
    pub messages_max: Option<u64>,
    /// Number of messages of one subject.
    pub messages_per_subject_max: Option<u64>,
}

/// What happens when a limit of size or number is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFull {
    /// New messages are refused.
    #[default]
    Reject,
    /// The oldest messages leave.
    DropOldest,
}

/// A field of a resource that can't change while its stream is there, whatever became of the resource: it is in the stream's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// Its key in the metadata.
    pub key: &'static str,
    /// Its path in the resource.
    pub field: &'static str,
    /// What it is.
    pub value: String,
    /// Why it can't be changed, and what would do.
    pub why: &'static str,
}

/// Whether a stream that carries another mark, or none, becomes the plan's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Take {
    /// Never.
    #[default]
    Never,
    /// If it carries no mark.
    IfUnowned,
    /// If it carries this one's: `<cluster>/<namespace>/<name>`, of the same kind.
    From(String),
}

impl Take {
    /// Whether a stream of this owner, as [`owner_of`] shows it, becomes the plan's of this kind.
    pub fn permits(&self, owner: Option<&str>, kind: &str) -> bool {
        match (self, owner) {
            (Take::IfUnowned, None) => true,
            (Take::From(wanted), Some(owner)) => {
                let wanted: Vec<&str> = wanted.split('/').collect();
                let owner: Vec<&str> = owner.split('/').collect();
                matches!((wanted.as_slice(), owner.as_slice()),
                    ([cluster, namespace, name], [c, ns, k, n])
                        if cluster == c && namespace == ns && kind == *k && name == n)
            }
            _ => false,
        }
    }
}

/// What a stream shall be.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamPlan {
    /// Its name.
    pub name: String,
    /// What it takes.
    pub subjects: Vec<String>,
    /// For people.
    pub description: String,
    /// Where it keeps messages; can't be changed later.
    pub storage: Storage,
    /// Copies.
    pub replicas: usize,
    /// When messages leave.
    pub limits: Limits,
    /// What happens at a limit.
    pub on_full: OnFull,
    /// How long message ids are remembered.
    pub duplicate_window: Duration,
    /// Largest message in bytes; `None` = the server's limit.
    pub message_bytes_max: Option<u32>,
    /// Whether the server compresses what it stores.
    pub compression: bool,
    /// Whether changed limits may delete messages that are there.
    pub may_lose: bool,
    /// Whose it is.
    pub mark: Mark,
    /// Whether it is taken where another has it.
    pub take: Take,
    /// What can't change any more once it is there.
    pub fixed: Vec<Fixed>,
    /// Further settings, as JetStream's API names them; they win over the others.
    pub further: BTreeMap<String, Value>,
}

impl StreamPlan {
    /// A stream without limits, on disk, one copy.
    pub fn new(name: &str, subjects: Vec<String>, mark: Mark) -> Self {
        StreamPlan {
            name: name.to_owned(),
            subjects,
            description: String::new(),
            storage: Storage::File,
            replicas: 1,
            limits: Limits::default(),
            on_full: OnFull::Reject,
            duplicate_window: DUPLICATE_WINDOW,
            message_bytes_max: None,
            compression: false,
            may_lose: false,
            mark,
            take: Take::Never,
            fixed: Vec::new(),
            further: BTreeMap::new(),
        }
    }

    /// A Saga's input log: nothing leaves it, nothing but plain messages enters it.
    pub fn saga_log(saga: &ResourceId, root: &str, mark: Mark) -> Self {
        let mut plan = Self::new(
            &saga.log_stream(),
            vec![format!("{}.>", saga.log_prefix(root))],
            mark,
        );
        plan.description = format!("Input log of Saga {}/{}", saga.namespace, saga.name);
        if planted(Bug::LogRolledUp) {
            plan.further
                .insert("allow_rollup_hdrs".to_owned(), json!(true));
        }
        plan
    }

    /// What a Projection or a Saga has parked.
    pub fn parked(resource: &ResourceId, root: &str, mark: Mark) -> Self {
        StreamPlan {
            description: format!(
                "What {} {}/{} has parked",
                resource.kind, resource.namespace, resource.name
            ),
            ..Self::new(
                &resource.parked_stream(),
                vec![format!("{}.>", resource.parked_prefix(root))],
                mark,
            )
        }
    }

    /// A KV bucket that keeps the last entry of each key.
    pub fn bucket(bucket: &str, mark: Mark) -> Self {
        let mut plan = Self::new(&stream_of(bucket), vec![subject_of(bucket, ">")], mark);
        plan.limits.messages_per_subject_max = Some(1);
        // Only the last entry of a key is one.
        plan.may_lose = true;
        // What makes it a bucket for every client: purges by rollup, no deletion of single messages.
        plan.further = BTreeMap::from([
            ("allow_rollup_hdrs".to_owned(), json!(true)),
            ("deny_delete".to_owned(), json!(true)),
        ]);
        plan
    }

    /// The rows of a Projection.
    pub fn rows(projection: &ResourceId, mark: Mark) -> Self {
        StreamPlan {
            description: format!(
                "Rows of Projection {}/{}",
                projection.namespace, projection.name
            ),
            ..Self::bucket(&projection.rows_bucket(), mark)
        }
    }

    /// The four buckets that every resource of a NATS connection shares.
    pub fn shared_buckets(incarnation: &str) -> [Self; 4] {
        [
            (
                names::OWNERS_BUCKET,
                "Claims and heartbeats of Tidemill's workers",
            ),
            (
                names::COUNTERS_BUCKET,
                "Cumulative counters of Tidemill's workers",
            ),
            (names::REVISIONS_BUCKET, "Compiled definitions by revision"),
            (names::SUMMARIES_BUCKET, "Summaries of saga instances"),
        ]
        .map(|(bucket, description)| {
            let mut plan = Self::bucket(bucket, Mark::shared(incarnation));
            plan.description = description.to_owned();
            // Heartbeats of pods that are gone leave by themselves.
            plan.further.insert(
                "allow_msg_ttl".to_owned(),
                json!(bucket == names::OWNERS_BUCKET),
            );
            plan
        })
    }

    /// The settings that the plan decides, as JetStream's API names them.
    pub fn config(&self) -> Map<String, Value> {
        let limit = |limit: Option<u64>| limit.map_or_else(|| json!(-1), |limit| json!(limit));
        let nanoseconds =
            |duration: Duration| json!(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
        let StreamPlan {
            name,
            subjects,
            description,
            storage,
            replicas,
            limits,
            on_full,
            duplicate_window,
            message_bytes_max,
            compression,
            may_lose: _,
            mark,
            take: _,
            fixed,
            further,
        } = self;
        let metadata = mark
            .owner()
            .into_iter()
            .chain([(INCARNATION_KEY, mark.incarnation.as_str())])
            .chain(fixed.iter().map(|fixed| (fixed.key, fixed.value.as_str())));
        let metadata: Map<String, Value> = metadata
            .map(|(key, value)| (key.to_owned(), json!(value)))
            .collect();
        let mut config = Map::new();
        for (key, value) in [
            ("name", json!(name)),
            ("subjects", json!(subjects)),
            ("description", json!(description)),
            ("retention", json!("limits")),
            (
                "storage",
                json!(match storage {
                    Storage::File => "file",
                    Storage::Memory => "memory",
                }),
            ),
            ("num_replicas", json!(replicas)),
            ("max_bytes", limit(limits.bytes_max)),
            ("max_age", nanoseconds(limits.age_max.unwrap_or_default())),
            ("max_msgs", limit(limits.messages_max)),
            (
                "max_msgs_per_subject",
                limit(limits.messages_per_subject_max),
            ),
            (
                "discard",
                json!(match on_full {
                    OnFull::Reject => "new",
                    OnFull::DropOldest => "old",
                }),
            ),
            // The server refuses a window beyond the age limit.
            (
                "duplicate_window",
                nanoseconds(
                    limits
                        .age_max
                        .map_or(*duplicate_window, |age| age.min(*duplicate_window)),
                ),
            ),
            ("max_msg_size", limit(message_bytes_max.map(u64::from))),
            (
                "compression",
                json!(if *compression { "s2" } else { "none" }),
            ),
            ("allow_direct", json!(true)),
            ("allow_rollup_hdrs", json!(false)),
            ("allow_msg_ttl", json!(false)),
            ("allow_msg_schedules", json!(false)),
            ("allow_msg_counter", json!(false)),
            ("metadata", Value::Object(metadata)),
        ] {
            config.insert(key.to_owned(), value);
        }
        config.extend(
            further
                .iter()
                .map(|(key, value)| (key.clone(), value.clone())),
        );
        config
    }
}

/// What [`ensure`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It wasn't there and is now.
    Created,
    /// It is as it shall be; nothing was written.
    Unchanged,
    /// These settings were changed, as JetStream's API names them.
    Updated(Vec<String>),
    /// The limits stay as they are, as the plan's would delete what is there; these other settings were changed.
    Held {
        /// As in [`Outcome::Updated`].
        changed: Vec<String>,
        /// What the plan's limits would delete.
        losses: Vec<Loss>,
    },
    /// Nothing was written; the reason says what would have to change.
    Conflict(String),
}

/// Makes a stream as planned. A stream that is there keeps its incarnation.
///
/// # Errors
/// [`ApiError`]: NATS away or no permission. What the server refuses for the settings' sake is [`Outcome::Conflict`].
pub async fn ensure(nats: &Nats, plan: &StreamPlan) -> Result<Outcome, ApiError> {
    let present = match nats.stream_state(&plan.name).await {
        Ok(present) => present,
        Err(ApiError::StreamMissing(_)) => {
            return write(nats, plan, "CREATE", plan.config(), Outcome::Created).await;
        }
        Err(error) => return Err(error),
    };
    match decide(plan, &present) {
        Decision::Nothing => Ok(Outcome::Unchanged),
        Decision::Refuse(reason) => Ok(Outcome::Conflict(reason.to_string())),
        Decision::Update {
            mut config,
            mut changed,
        } => {
            let losses = match plan.may_lose {
                true => Vec::new(),
                false => losses(nats, &present, &config, &changed).await?,
            };
            if losses.is_empty() {
                return write(nats, plan, "UPDATE", config, Outcome::Updated(changed)).await;
            }
            // All of them: one that is larger may only make sense beside another that is smaller.
            for key in loss::LIMITS {
                match present.config.get(key) {
                    Some(value) => config.insert(key.to_owned(), value.clone()),
                    None => config.remove(key),
                };
            }
            changed.retain(|key| !loss::LIMITS.contains(&key.as_str()));
            let nothing_else = changed.is_empty();
            let held = Outcome::Held { changed, losses };
            match nothing_else {
                true => Ok(held),
                false => write(nats, plan, "UPDATE", config, held).await,
            }
        }
    }
}

/// Why [`ensure`] would refuse the stream that is there; `None` = it wouldn't, or there is none. Writes nothing.
///
/// # Errors
/// [`ApiError`]: NATS away or no permission.
pub async fn refusal(nats: &Nats, plan: &StreamPlan) -> Result<Option<Refusal>, ApiError> {
    match nats.stream_state(&plan.name).await {
        Ok(present) => Ok(match decide(plan, &present) {
            Decision::Refuse(refusal) => Some(refusal),
            Decision::Nothing | Decision::Update { .. } => None,
        }),
        Err(ApiError::StreamMissing(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn write(
    nats: &Nats,
    plan: &StreamPlan,
    verb: &str,
    config: Map<String, Value>,
    done: Outcome,
) -> Result<Outcome, ApiError> {
    match call(nats, verb, &plan.name, &config).await {
        Ok(()) => Ok(done),
        Err(error) if error.may_pass() => Err(error),
        Err(error) if error.code() == Some(SUBJECTS_OVERLAP) => {
            let found = overlap(nats, plan).await?;
            let said = found.map_or_else(|| error.to_string(), |found| found.to_string());
            Ok(Outcome::Conflict(said))
        }
        Err(ApiError::Refused {
            description, code, ..
        }) => Ok(Outcome::Conflict(format!(
            "stream {}: {description} ({code})",
            plan.name
        ))),
        Err(error) => Err(error),
    }
}

/// Makes a stream of this configuration.
///
/// # Errors
/// [`ApiError`]
pub async fn create(nats: &Nats, name: &str, config: &Map<String, Value>) -> Result<(), ApiError> {
    call(nats, "CREATE", name, config).await
}

/// Gives a stream this configuration.
///
/// # Errors
/// [`ApiError`]
pub async fn update(nats: &Nats, name: &str, config: &Map<String, Value>) -> Result<(), ApiError> {
    call(nats, "UPDATE", name, config).await
}

/// Deletes a stream with all that is in it; that it is gone already is success.
///
/// # Errors
/// [`ApiError`]
pub async fn remove(nats: &Nats, name: &str) -> Result<(), ApiError> {
    match call(nats, "DELETE", name, &Map::new()).await {
        Err(ApiError::StreamMissing(_)) => Ok(()),
        done => done,
    }
}

/// Deletes what a stream holds on the subjects that a filter matches; that the stream is gone already is success.
///
/// # Errors
/// [`ApiError`]
pub async fn purge(nats: &Nats, name: &str, filter: &str) -> Result<(), ApiError> {
    let filter = Map::from_iter([("filter".to_owned(), json!(filter))]);
    match call(nats, "PURGE", name, &filter).await {
        Err(ApiError::StreamMissing(_)) => Ok(()),
        done => done,
    }
}

/// Deletes what the shared buckets hold of a resource.
///
/// # Errors
/// [`ApiError`]
pub async fn forget(nats: &Nats, resource: &ResourceId) -> Result<(), ApiError> {
    let keys = format!("{}.>", resource.key_prefix());
    for bucket in [
        names::OWNERS_BUCKET,
        names::COUNTERS_BUCKET,
        names::REVISIONS_BUCKET,
        names::SUMMARIES_BUCKET,
    ] {
        purge(nats, &stream_of(bucket), &subject_of(bucket, &keys)).await?;
    }
    Ok(())
}

async fn call(
    nats: &Nats,
    verb: &str,
    name: &str,
    config: &Map<String, Value>,
) -> Result<(), ApiError> {
    let call = format!("STREAM.{verb}.{name}");
    let _: Value = nats.stream_call(name, &call, config).await?;
    Ok(())
}

/// JetStream's code: another stream takes one of the subjects.
const SUBJECTS_OVERLAP: u64 = 10065;

/// A stream that takes a subject which another one wants.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "stream {wanting} can't take `{subject}`: stream {stream}, which {}, takes it already; change the subjects of one of them",
    belongs(.owner.as_deref())
)]
pub struct Overlap {
    /// The stream that can't have it.
    pub wanting: String,
    /// What it wants.
    pub subject: String,
    /// The stream that takes it.
    pub stream: String,
    /// Whose that is, as [`Mark`] shows it; `None` = Tidemill didn't make it.
    pub owner: Option<String>,
}

/// The first other stream that takes one of a plan's subjects.
///
/// # Errors
/// [`ApiError`]
pub async fn overlap(nats: &Nats, plan: &StreamPlan) -> Result<Option<Overlap>, ApiError> {
    for subject in &plan.subjects {
        let streams = nats.streams_on(subject).await?;
        let Some(stream) = streams.into_iter().find(|name| *name != plan.name) else {
            continue;
        };
        let owner = match nats.stream_state(&stream).await {
            Ok(state) => owner_of(&state.metadata()),
            Err(ApiError::StreamMissing(_)) => continue,
            Err(error) => return Err(error),
        };
        return Ok(Some(Overlap {
            wanting: plan.name.clone(),
            subject: subject.clone(),
            stream,
            owner,
        }));
    }
    Ok(None)
}

/// What a plan comes to beside the stream that is there.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It is as it shall be.
    Nothing,
    /// It is to be updated.
    Update {
        /// The whole configuration, with every setting that the plan doesn't name as it is.
        config: Map<String, Value>,
        /// The settings that differ, as JetStream's API names them.
        changed: Vec<String>,
    },
    /// It can't become so.
    Refuse(Refusal),
}

/// Why a stream that is there can't become what is planned. Nothing is written.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Somebody else's, or nobody's that is known.
    #[error("stream {stream} {}: give the resource another name or stream name", belongs(.owner.as_deref()))]
    Foreign {
        /// The stream.
        stream: String,
        /// Its owner as [`Mark`] shows it; `None` = Tidemill didn't make it.
        owner: Option<String>,
    },
    /// JetStream can't change this setting.
    #[error(
        "stream {stream}: {setting} is {now} and can't be changed to {wanted}: use another name, or delete the stream with what is in it"
    )]
    Immutable {
        /// The stream.
        stream: String,
        /// As JetStream's API names it.
        setting: String,
        /// What it is.
        now: Value,
        /// What it should be.
        wanted: Value,
    },
    /// The resource says something else than when the stream was made.
    #[error("{field} is {wanted}, but stream {stream} was made with {now}: {why}")]
    Fixed {
        /// The stream.
        stream: String,
        /// Path of the field.
        field: &'static str,
        /// What it was when the stream was made.
        now: String,
        /// What it should be.
        wanted: String,
        /// Why it can't be changed, and what would do.
        why: &'static str,
    },
    /// The server answered with something else.
    #[error("stream {stream}: its configuration can't be read")]
    Unreadable {
        /// The stream.
        stream: String,
    },
}

fn belongs(owner: Option<&str>) -> String {
    owner.map_or_else(
        || "wasn't made by Tidemill".to_owned(),
        |owner| format!("belongs to {owner}"),
    )
}

/// Whose mark a stream carries, as [`Mark`] shows it; `None` = none at all.
pub fn owner_of(metadata: &BTreeMap<String, String>) -> Option<String> {
    let parts = ["cluster", "namespace", "kind", "name"].map(|part| {
        metadata
            .get(&format!("tidemill.dev/{part}"))
            .map_or("", String::as_str)
    });
    let marked = parts.iter().any(|part| !part.is_empty());
    marked.then(|| parts.join("/"))
}

/// Compares a plan with what is there.
pub fn decide(plan: &StreamPlan, present: &StreamState) -> Decision {
    let metadata = present.metadata();
    let owner = owner_of(&metadata);
    let is_taken = owner.as_deref() != Some(&plan.mark.to_string());
    if is_taken && !plan.take.permits(owner.as_deref(), &plan.mark.kind) {
        return Decision::Refuse(Refusal::Foreign {
            stream: plan.name.clone(),
            owner,
        });
    }
    let Value::Object(mut config) = present.config.clone() else {
        return Decision::Refuse(Refusal::Unreadable {
            stream: plan.name.clone(),
        });
    };
    let mut changed = Vec::new();
    for fixed in &plan.fixed {
        match metadata.get(fixed.key) {
            Some(now) if *now != fixed.value => {
                return Decision::Refuse(Refusal::Fixed {
                    stream: plan.name.clone(),
                    field: fixed.field,
                    now: now.clone(),
                    wanted: fixed.value.clone(),
                    why: fixed.why,
                });
            }
            _ => {}
        }
    }
    for (key, wanted) in plan.config() {
        if key == "metadata" {
            // It has our mark; the rest of it (the server's, other tools') and its incarnation stay.
            continue;
        }
        let now = config.get(&key).unwrap_or(&Value::Null);
        if same(now, &wanted) {
            continue;
        }
        if matches!(key.as_str(), "storage" | "retention") {
            return Decision::Refuse(Refusal::Immutable {
                stream: plan.name.clone(),
                now: now.clone(),
                setting: key,
                wanted,
            });
        }
        config.insert(key.clone(), wanted);
        changed.push(key);
    }
    if is_taken {
        let mut metadata: Map<String, Value> = metadata
            .into_iter()
            .map(|(key, value)| (key, json!(value)))
            .collect();
        // Positions in it stay what they were: it keeps its incarnation, which without a mark is its creation time.
        metadata
            .entry(INCARNATION_KEY)
            .or_insert_with(|| json!(present.incarnation));
        for (key, value) in plan.mark.owner() {
            metadata.insert(key.to_owned(), json!(value));
        }
        for fixed in &plan.fixed {
            metadata.insert(fixed.key.to_owned(), json!(fixed.value));
        }
        config.insert("metadata".to_owned(), Value::Object(metadata));
        changed.push("metadata".to_owned());
    }
    if changed.is_empty() {
        Decision::Nothing
    } else {
        Decision::Update { config, changed }
    }
}

/// Whether two settings mean the same: absent is false, 0 or empty; 0 and -1 both are "no limit".
fn same(now: &Value, wanted: &Value) -> bool {
    let nothing = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => matches!(number.as_i64(), Some(0 | -1)),
        Value::String(text) => text.is_empty() || text == "none",
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        Value::Bool(true) => false,
    };
    now == wanted || (nothing(now) && nothing(wanted))
}
