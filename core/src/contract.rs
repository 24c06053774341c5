//! What a worker is told: one versioned JSON file. Workers know no other configuration and no Kubernetes.

use crate::definition::{
    Action, ProjectionDefinition, ProjectionPolicy, SagaDefinition, Start, StreamRef,
};
use crate::names::{ResourceId, SUBJECT_ROOT};
use crate::planted::{Bug, planted};
use serde::{Deserialize, Serialize};

/// The version this code writes.
pub const CONTRACT_VERSION: u32 = 1;
/// Longest contract file read, in bytes (a ConfigMap holds 1 MiB).
pub const CONTRACT_BYTES_MAX: usize = 1 << 20;

/// Everything one worker needs to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Contract {
    /// [`CONTRACT_VERSION`]; any other is refused.
    pub version: u32,
    /// Whom this worker works for.
    pub resource: ResourceId,
    /// How NATS is reached. Every JetStream call goes through it.
    pub connection: Connection,
    /// Every EventStream the definition names.
    pub streams: Vec<StreamBinding>,
    /// What to run.
    pub workload: Workload,
}

/// What a worker runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Workload {
    /// A read model.
    Projection(ProjectionWorkload),
    /// A saga.
    Saga(SagaWorkload),
}

/// A projection to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProjectionWorkload {
    /// What its rows are.
    pub definition: ProjectionDefinition,
    /// What changes without a new revision.
    pub policy: ProjectionPolicy,
    /// Where each source of the definition is begun, in the order of `definition.sources`. Used once, when nothing is stored.
    pub starts: Vec<Start>,
    /// KV bucket of its rows.
    pub rows_bucket: String,
    /// Stream of what it has parked.
    pub parked_stream: String,
    /// Folds nothing, answers requests.
    #[serde(default)]
    pub suspend: bool,
}

/// A saga to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SagaWorkload {
    /// The definition new instances are started with.
    pub definition: SagaDefinition,
    /// Where each trigger stream is begun, one per distinct stream of the triggers, in order of first mention.
    /// Used once, when nothing is stored.
    pub starts: Vec<Start>,
    /// Stream of the input log.
    pub log_stream: String,
    /// Stream of what it has parked (trigger events that can't be decoded or give no id).
    pub parked_stream: String,
    /// Partitions of the log; immutable.
    pub partitions: u16,
    /// Starts nothing from streams; what runs goes on.
    #[serde(default)]
    pub suspend: bool,
    /// Starts nothing at all, since the Saga is being deleted; absent = it isn't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closing: Option<Closing>,
    /// Whether a summary of each instance is written, which is what lists show. Without them an instance costs the server one
    /// message less, and is found by its id only.
    #[serde(default = "yes")]
    pub summaries: bool,
}

/// What becomes of the unfinished instances of a Saga that is being deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Closing {
    /// They are finished.
    Drain,
    /// They are cancelled, as far as they can be: behind a pivot they are finished.
    Compensate,
}

fn yes() -> bool {
    true
}

/// An EventStream and the JetStream stream behind it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StreamBinding {
    /// The resource.
    pub stream: StreamRef,
    /// Name of the JetStream stream.
    pub name: String,
    /// Prefix of its events' subjects.
    pub prefix: String,
    /// Further subjects with events of others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capture: Vec<Capture>,
}

/// Events that others publish on subjects of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Capture {
    /// Subjects, wildcards allowed.
    pub subjects: Vec<String>,
    /// What the messages are.
    #[serde(default)]
    pub format: CaptureFormat,
    /// CEL over `message` (`message.subject`, `message.data`, `message.headers`): the event's type. Json only.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// CEL over `message`: the event's entity. Json only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<String>,
    /// CEL over `message`: the event's time, an RFC 3339 string; absent = stored time. Json only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

/// What captured messages are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CaptureFormat {
    /// CloudEvents, binary or structured.
    #[default]
    CloudEvents,
    /// Any JSON document.
    Json,
}

/// How NATS is reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Connection {
    /// Server URLs, without credentials.
    pub servers: Vec<String>,
    /// File with a user's JWT and seed, or with a user and a password (see the guide); absent = none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<String>,
    /// TLS; absent = as the servers ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// JetStream domain, for leaf nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jetstream_domain: Option<String>,
    /// JetStream API prefix, for imported JetStream; not together with a domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jetstream_api_prefix: Option<String>,
    /// Prefix of inboxes; absent = for workers that of their resource ([`ResourceId::inbox_prefix`]), for everybody else `_INBOX`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbox_prefix: Option<String>,
    /// Root of Tidemill's own subjects.
    #[serde(default = "default_root")]
    pub subject_root: String,
    /// What is known of the server's syncing.
    #[serde(default)]
    pub sync_always: SyncAlways,
}

/// Certificates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tls {
    /// File with the authorities to trust, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// File with the client's certificate, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_file: Option<String>,
    /// File with the client's key, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
}

/// Whether the server syncs every write before it acknowledges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncAlways {
    /// Somebody says so.
    Declared,
    /// Read from the server.
    Observed,
    /// Nobody knows; taken as no.
    #[default]
    Unknown,
}

fn default_root() -> String {
    SUBJECT_ROOT.to_owned()
}

impl Connection {
    /// A connection without credentials.
    pub fn plain(server: &str) -> Self {
        Connection {
            servers: vec![server.to_owned()],
            credentials_file: None,
            tls: None,
            jetstream_domain: None,
            jetstream_api_prefix: None,
            inbox_prefix: None,
            subject_root: default_root(),
            sync_always: SyncAlways::Unknown,
        }
    }
}

/// Why a contract is refused.
#[derive(Debug, thiserror::Error)]
pub enum ContractError {
    /// Too large to be one.
    #[error("the contract has {0} bytes, at most {CONTRACT_BYTES_MAX} are read")]
    TooLarge(usize),
    /// Not JSON, or not of the form of a contract.
    #[error("the contract can't be read: {0}")]
    Form(serde_json::Error),
    /// Written by another version.
    #[error(
        "the contract has version {0}, this worker reads version {CONTRACT_VERSION}: use the worker image that fits the operator"
    )]
    Version(u64),
    /// Its expressions don't compile here.
    #[error(
        "the contract has expression semantics {0}, which this worker doesn't know: use a worker image that does"
    )]
    Semantics(u32),
    /// A stream that the definition names isn't bound.
    #[error("the contract names stream {0} without saying where it is")]
    UnboundStream(StreamRef),
}

impl Contract {
    /// Reads a contract and checks that this worker can run it.
    ///
    /// # Errors
    /// [`ContractError`]
    pub fn parse(bytes: &[u8]) -> Result<Self, ContractError> {
        if bytes.len() > CONTRACT_BYTES_MAX {
            return Err(ContractError::TooLarge(bytes.len()));
        }
        // The version is looked at first: another version's fields would give a misleading error.
        let any: serde_json::Value = serde_json::from_slice(bytes).map_err(ContractError::Form)?;
        if let Some(version) = any.get("version").and_then(serde_json::Value::as_u64)
            && version != u64::from(CONTRACT_VERSION)
        {
            return Err(ContractError::Version(version));
        }
        let contract: Contract = serde_json::from_value(any).map_err(ContractError::Form)?;
        contract.check()?;
        Ok(contract)
    }

    /// The contract as its file holds it.
    pub fn to_json(&self) -> String {
        // Strings, numbers and maps with string keys always serialise.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// How the workers of this contract connect: with inboxes of their own, which nobody else needs to be allowed to hear.
    #[must_use]
    pub fn worker_connection(&self) -> Connection {
        let mut connection = self.connection.clone();
        let own = || self.resource.inbox_prefix(&self.connection.subject_root);
        connection.inbox_prefix.get_or_insert_with(own);
        connection
    }

    /// Where a stream of the definition is.
    pub fn binding(&self, stream: &StreamRef) -> Option<&StreamBinding> {
        self.streams
            .iter()
            .find(|binding| &binding.stream == stream)
    }

    fn check(&self) -> Result<(), ContractError> {
        let (semantics, mut named): (u32, Vec<&StreamRef>) = match &self.workload {
            Workload::Projection(workload) => (
                workload.definition.semantics,
                workload.definition.sources.iter().collect(),
            ),
            Workload::Saga(workload) => {
                let definition = &workload.definition;
                let actions = definition.steps.iter().flat_map(|step| {
                    let compensation = step.compensation.as_ref();
                    [Some(&step.action), compensation.map(|back| &back.action)]
                });
                let publishes = actions.flatten().filter_map(|action| match action {
                    Action::Publish(publish) => Some(publish),
                    Action::Request { .. } | Action::Http { .. } => None,
                });
                let publishes = publishes
                    .chain(&definition.on_completed)
                    .chain(&definition.on_compensated);
                let named = definition.triggers.iter().map(|trigger| &trigger.stream);
                (
                    definition.semantics,
                    named
                        .chain(publishes.map(|publish| &publish.stream))
                        .collect(),
                )
            }
        };
        if semantics != crate::definition::SEMANTICS && !planted(Bug::SemanticsUnchecked) {
            return Err(ContractError::Semantics(semantics));
        }
        named.retain(|stream| self.binding(stream).is_none());
        match named.first() {
            Some(stream) => Err(ContractError::UnboundStream((*stream).clone())),
            None => Ok(()),
        }
    }
}
