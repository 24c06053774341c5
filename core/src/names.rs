//! Every name and format that users' data depends on: NATS stream names, subjects, KV keys, tokens,
//! partitions, headers, positions, command ids and reply tokens.
//!
//! Nothing here may change once somebody has data: each function is held by property tests and golden values.

pub mod headers;
mod keys;
mod log_subject;
mod parked_subject;
mod position;
mod rows;
mod token;

pub use keys::{OwnerKey, cluster_key, parse_counters_key, pod_token};
pub use log_subject::{LogKind, LogSubject, LogSubjectError, Side, TimerId};
pub use parked_subject::ParkedSubject;
pub use position::EventPosition;
pub(crate) use position::{incarnation_token, place, split_place};
pub use rows::{
    DECISIONS_PREFIX, KEYLESS_TOKEN, KeySpace, LIVE_KEY, POINTER_KEYS, WHOLE_TOKEN, accepted_key,
    decision_key, key_of_token, parse_decision_key, rebuild_key, source_key, token_of_key,
};
pub use token::{TOKEN_SOURCE_BYTES_MAX, TokenError, decode_token, encode_token};

use crate::planted::{Bug, planted};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// Root of all subjects that are Tidemill's own. No namespace can produce it, as namespaces hold no `_`.
pub const SUBJECT_ROOT: &str = "_tm";
/// KV bucket of claims and heartbeats, one per NATS connection.
pub const OWNERS_BUCKET: &str = "tidemill_owners";
/// KV bucket of cumulative counters and positions, one per NATS connection.
pub const COUNTERS_BUCKET: &str = "tidemill_counters";
/// KV bucket of compiled definitions by revision, one per NATS connection.
pub const REVISIONS_BUCKET: &str = "tidemill_revisions";
/// KV bucket of one summary per saga instance, one per NATS connection.
pub const SUMMARIES_BUCKET: &str = "tidemill_summaries";
/// Partitions of a Projection; constant, so that checkpoints of every revision line up.
pub const PROJECTION_PARTITIONS: u16 = 64;
/// Metadata key of a Saga's input log: the number of its partitions, which is that of its first day.
pub const LOG_PARTITIONS_KEY: &str = "tidemill.dev/partitions";
/// Metadata key of an EventStream's stream: what the subjects of its events begin with.
pub const PREFIX_KEY: &str = "tidemill.dev/prefix";
/// Metadata key of a Saga's parked stream: the input log of its instances.
pub const LOG_STREAM_KEY: &str = "tidemill.dev/log";
/// Metadata key of a Projection's parked stream: the bucket that the rows are in.
pub const ROWS_BUCKET_KEY: &str = "tidemill.dev/bucket";

/// Which of the two workloads a name belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A Projection.
    Projection,
    /// A Saga.
    Saga,
}

impl Kind {
    /// The lower-case word used in subjects and keys.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Projection => "projection",
            Kind::Saga => "saga",
        }
    }
}

impl std::str::FromStr for Kind {
    type Err = String;
    fn from_str(word: &str) -> Result<Self, String> {
        let kinds = [Kind::Projection, Kind::Saga];
        let found = kinds.into_iter().find(|kind| kind.as_str() == word);
        found.ok_or_else(|| format!("`{}` is no kind", word.chars().take(40).collect::<String>()))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One workload resource, as every derived name needs it.
///
/// Namespace and name are Kubernetes names (checked where manifests are read), so they hold neither `.` nor `_`
/// and no derived name of one resource can equal that of another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceId {
    /// Kubernetes namespace, `default` where there is none.
    pub namespace: String,
    /// Projection or Saga.
    pub kind: Kind,
    /// Name of the resource.
    pub name: String,
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.kind, self.name)
    }
}

impl ResourceId {
    /// A resource of a kind.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        ResourceId {
            namespace: namespace.to_owned(),
            kind,
            name: name.to_owned(),
        }
    }

    /// Stream that holds the input log of a Saga.
    pub fn log_stream(&self) -> String {
        format!("{}_{}_log", self.namespace, self.name)
    }

    /// Stream of what this resource has parked.
    pub fn parked_stream(&self) -> String {
        format!("{}_{}_{}_parked", self.namespace, self.name, self.kind)
    }

    /// KV bucket of a Projection's rows, one for all its revisions.
    pub fn rows_bucket(&self) -> String {
        format!("{}_{}_rows", self.namespace, self.name)
    }

    /// `_tm.log.<ns>.<saga>`: every subject of the input log begins with it.
    pub fn log_prefix(&self, root: &str) -> String {
        format!("{root}.log.{}.{}", self.namespace, self.name)
    }

    /// `_tm.ctl.<ns>.<kind>.<name>.<verb>`: where workers are asked.
    pub fn control_subject(&self, root: &str, verb: &str) -> String {
        format!(
            "{root}.ctl.{}.{}.{}.{verb}",
            self.namespace, self.kind, self.name
        )
    }

    /// `_tm.parked.<ns>.<kind>.<name>`: prefix of parked messages.
    pub fn parked_prefix(&self, root: &str) -> String {
        format!(
            "{root}.parked.{}.{}.{}",
            self.namespace, self.kind, self.name
        )
    }

    /// `_tm.inbox.<ns>.<kind>.<name>`: prefix of the inboxes of this resource's workers, unless the connection names another. Who may
    /// subscribe to all of `_INBOX.>` hears what every other client is answered.
    pub fn inbox_prefix(&self, root: &str) -> String {
        format!(
            "{root}.inbox.{}.{}.{}",
            self.namespace, self.kind, self.name
        )
    }

    /// `<ns>.<kind>.<name>`: prefix of this resource's keys in the shared KV buckets.
    pub fn key_prefix(&self) -> String {
        format!("{}.{}.{}", self.namespace, self.kind, self.name)
    }

    /// CloudEvents `source` of what this resource publishes.
    pub fn source(&self) -> String {
        format!("/tidemill/{}/{}/{}", self.namespace, self.kind, self.name)
    }
}

/// Stream of an EventStream unless `streamName` says otherwise.
pub fn event_stream(namespace: &str, name: &str) -> String {
    format!("{namespace}_{name}")
}

/// Stream behind a KV bucket.
pub fn bucket_stream(bucket: &str) -> String {
    format!("KV_{bucket}")
}

/// Subject of an event: `<prefix>.<entity>.<type>`, entity and type each one encoded token.
///
/// # Errors
/// [`TokenError::TooLong`] if entity or type has more than [`TOKEN_SOURCE_BYTES_MAX`] bytes.
pub fn event_subject(prefix: &str, entity: &str, event_type: &str) -> Result<String, TokenError> {
    Ok(format!(
        "{prefix}.{}.{}",
        encode_token(entity)?,
        encode_token(event_type)?
    ))
}

/// Partition of an encoded token: FNV-1a (32 bits) modulo `partitions`, which is what the server's
/// `partition()` subject transform computes, so that client and server agree.
pub fn partition(token: &str, partitions: u16) -> u16 {
    const OFFSET_BASIS: u32 = 2_166_136_261;
    const PRIME: u32 = 16_777_619;
    let hash = token.bytes().fold(OFFSET_BASIS, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(PRIME)
    });
    u16::try_from(hash % u32::from(partitions.max(1))).unwrap_or(0)
}

/// The random identity of one run of a saga instance: 128 bits drawn by the worker that started it.
///
/// It keys the reply tokens, so it is a secret between the log and its owner: `Debug` doesn't show it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Run([u8; 16]);

impl Run {
    /// A run of these bits.
    pub const fn new(bits: [u8; 16]) -> Self {
        Run(bits)
    }

    /// The first 8 hex digits of SHA-256 of the run: part of command ids, so that an instance started again under
    /// the same id gives other commands.
    pub fn run8(&self) -> String {
        hex(&Sha256::digest(self.0), 8)
    }

    /// 20 base32 characters of HMAC-SHA256(run; step, side, attempt): proves that a reply answers a request of
    /// this run. Never show it in a status, log line or output.
    pub fn reply_token(&self, step: &str, side: Side, attempt: u32) -> ReplyToken {
        // HMAC accepts keys of any length, so this arm cannot be taken; an empty token is in no subject.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else {
            return ReplyToken(String::new());
        };
        let attempt = match planted(Bug::TokenForAnyAttempt) {
            true => 1,
            false => attempt,
        };
        mac.update(format!("{step}.{side}.{attempt}").as_bytes());
        ReplyToken(base32(&mac.finalize().into_bytes(), REPLY_TOKEN_CHARS))
    }
}

/// Characters of a reply token.
const REPLY_TOKEN_CHARS: usize = 20;

/// The last token of a reply's subject. A secret between the log, its owner and the participant that was asked: only
/// the subject itself shows it, `Debug` doesn't.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ReplyToken(String);

impl ReplyToken {
    /// A token as somebody sent it.
    pub fn new(text: &str) -> Self {
        ReplyToken(text.to_owned())
    }
}

impl fmt::Debug for ReplyToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match planted(Bug::TokenShown) {
            true => f.write_str(&self.0),
            false => f.write_str("ReplyToken(…)"),
        }
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Run({}…)", self.run8())
    }
}

impl TryFrom<String> for Run {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let mut bits = [0_u8; 16];
        if text.len() != 32 || !text.is_ascii() {
            return Err("a run is 32 hex digits".to_owned());
        }
        for (index, byte) in bits.iter_mut().enumerate() {
            let digits = text.get(index * 2..index * 2 + 2).unwrap_or_default();
            *byte = u8::from_str_radix(digits, 16).map_err(|error| error.to_string())?;
        }
        Ok(Run(bits))
    }
}

impl From<Run> for String {
    fn from(run: Run) -> String {
        hex(&run.0, 32)
    }
}

/// Id of a step's command, the same over all its attempts: `<ns>/<saga>/<instance>/<run8>/<step>`, and
/// `…/<step>/compensate` for its compensation. The instance stands there as its token: an id with a line break or a
/// letter outside ASCII is no header value.
pub fn command_id(saga: &ResourceId, instance: &str, run8: &str, step: &str, side: Side) -> String {
    // An id that is too long for a token is in no log, so it has no commands; its hash keeps this total.
    let instance =
        encode_token(instance).unwrap_or_else(|_| hex(&Sha256::digest(instance.as_bytes()), 32));
    let action = format!("{}/{}/{instance}/{run8}/{step}", saga.namespace, saga.name);
    match side {
        Side::Action => action,
        Side::Compensation => format!("{action}/compensate"),
    }
}

/// The first `digits` lower-case hex digits of `bytes`.
pub(crate) fn hex(bytes: &[u8], digits: usize) -> String {
    let halves = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    halves
        .take(digits)
        .filter_map(|half| char::from_digit(u32::from(half), 16))
        .collect()
}

/// The first `characters` of the lower-case base32 form (RFC 4648 alphabet) of `bytes`.
fn base32(bytes: &[u8], characters: usize) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bit = |index: usize| {
        bytes
            .get(index / 8)
            .map_or(0, |byte| usize::from(byte >> (7 - index % 8) & 1))
    };
    (0..characters)
        .map(|character| {
            let value = (0..5).fold(0, |value, offset| value << 1 | bit(character * 5 + offset));
            char::from(ALPHABET.get(value).copied().unwrap_or(b'a'))
        })
        .collect()
}

#[cfg(test)]
mod tests;
