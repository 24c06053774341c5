//! Keys in the KV buckets that all resources of a connection share: `<ns>.<kind>.<name>.…`.

use super::ResourceId;
use super::position::number;
use super::token::encode_token;
use crate::definition::{Revision, StreamRef};

/// Whose heartbeat or claim a key of [`super::OWNERS_BUCKET`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerKey<'a> {
    /// Heartbeat of the worker of this token.
    Heartbeat(&'a str),
    /// Claim of this partition.
    Claim(u16),
}

impl ResourceId {
    /// [`super::OWNERS_BUCKET`]: heartbeat of a worker, by its [`pod_token`].
    pub fn heartbeat_key(&self, pod_token: &str) -> String {
        format!("{}.pod.{pod_token}", self.key_prefix())
    }

    /// [`super::OWNERS_BUCKET`]: who owns a partition.
    pub fn claim_key(&self, partition: u16) -> String {
        format!("{}.claim.{partition}", self.key_prefix())
    }

    /// Reads what [`ResourceId::heartbeat_key`] and [`ResourceId::claim_key`] write.
    pub fn parse_owner_key<'a>(&self, key: &'a str) -> Option<OwnerKey<'a>> {
        let rest = key.strip_prefix(&self.key_prefix())?.strip_prefix('.')?;
        match rest.split_once('.')? {
            ("pod", pod) if !pod.is_empty() && !pod.contains('.') => Some(OwnerKey::Heartbeat(pod)),
            ("claim", partition) => Some(OwnerKey::Claim(u16::try_from(number(partition)?).ok()?)),
            _ => None,
        }
    }

    /// [`super::COUNTERS_BUCKET`]: what was counted in a partition.
    pub fn counters_key(&self, partition: u16) -> String {
        format!("{}.{partition}", self.key_prefix())
    }

    /// [`super::COUNTERS_BUCKET`]: where a stream is begun, resolved once.
    pub fn start_key(&self, stream: &StreamRef) -> String {
        format!(
            "{}.start.{}.{}",
            self.key_prefix(),
            stream.namespace,
            stream.name
        )
    }

    /// [`super::REVISIONS_BUCKET`]: a compiled definition.
    pub fn revision_key(&self, revision: &Revision) -> String {
        format!("{}.{revision}", self.key_prefix())
    }

    /// [`super::SUMMARIES_BUCKET`]: summary of an instance, by its id's token.
    pub fn summary_key(&self, token: &str) -> String {
        format!("{}.{token}", self.key_prefix())
    }
}

/// [`super::OWNERS_BUCKET`]: heartbeat of the cluster that a cluster id belongs to. No namespace begins with `_`.
pub fn cluster_key(cluster: &str) -> String {
    let token = encode_token(cluster).unwrap_or_default();
    format!("_cluster.{token}")
}

/// Reads what [`ResourceId::counters_key`] writes, of any resource; `None` for every other key.
pub fn parse_counters_key(key: &str) -> Option<(ResourceId, u16)> {
    let mut tokens = key.split('.');
    let (namespace, kind, name) = (tokens.next()?, tokens.next()?, tokens.next()?);
    let partition = u16::try_from(number(tokens.next()?)?).ok()?;
    let resource = ResourceId::new(kind.parse().ok()?, namespace, name);
    tokens.next().is_none().then_some((resource, partition))
}

/// A worker's name as one token of a key. One that is too long can't come from Kubernetes; its first bytes must do.
pub fn pod_token(pod: &str) -> String {
    encode_token(pod).unwrap_or_else(|_| {
        let first = pod.bytes().take(60);
        first.map(|byte| format!("={byte:02X}")).collect()
    })
}
