//! What workers write to KV for people and for the operator. All of it is derived: it may lag, and it can be rebuilt.

use crate::definition::{Revision, StreamRef};
use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Counters of one partition of a saga: bucket `tidemill_counters`, key `<ns>.saga.<name>.<partition>`.
///
/// Those of instances come from the fold of the log; those of triggers belong to the position beside them and are
/// written together with it, so that neither is counted twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SagaCounters {
    /// Instances started, ever.
    pub started: u64,
    /// Completed, ever.
    pub completed: u64,
    /// Compensated, ever.
    pub compensated: u64,
    /// Running now (compensating ones included, parked ones not).
    pub running: u64,
    /// Parked now.
    pub parked: u64,
    /// Attempts that were made again, ever.
    pub retried: u64,
    /// Replies that came after their step was settled.
    pub late_replies: u64,
    /// Replies with a wrong token; never an outcome.
    pub forged_replies: u64,
    /// Messages of the log that could not be read.
    pub unreadable: u64,
    /// Log position this is as of.
    pub log_sequence: u64,
    /// Incarnation of the log that position is in; empty where nobody said.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub log_incarnation: String,
    /// Times the log was found set back since the counters were begun.
    pub log_resets: u64,
    /// Per trigger stream (`<namespace>/<name>`).
    pub triggers: BTreeMap<String, TriggerCounters>,
}

/// What became of the events of one trigger stream in one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TriggerCounters {
    /// Every event of the partition at or below it is dealt with.
    pub position: u64,
    /// When the event at `position` was stored: another time there means that the stream was set back and has grown again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored_at: Option<Timestamp>,
    /// Incarnation of the stream the position is of.
    pub incarnation: String,
    /// [`ResolvedStart::accepted`] when the position was reached.
    pub accepted: u64,
    /// Events read.
    pub seen: u64,
    /// Events that matched a trigger.
    pub matched: u64,
    /// Events that matched none.
    pub skipped: u64,
    /// Matched, but the instance was there already.
    pub existing: u64,
    /// Parked trigger events: they can't be decoded or give no id.
    pub parked: u64,
}

/// Counters of one partition of a projection: bucket `tidemill_counters`, key `<ns>.projection.<name>.<partition>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProjectionCounters {
    /// Key space these are of: the revision, with `-<n>` after its n-th rebuild.
    pub revision: String,
    /// Key space whose rows readers see, written as the other; empty as long as there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub live: String,
    /// Events read.
    pub seen: u64,
    /// Events that at least one handler matched.
    pub matched: u64,
    /// Events that no handler matched.
    pub skipped: u64,
    /// Events that could not be folded and were left out: `onError: Skip`, or a person's decision.
    pub left_out: u64,
    /// Times an event was folded into a row of the partition.
    pub folded: u64,
    /// Rows written, counted once for every put.
    pub puts: u64,
    /// Keys parked now.
    pub parked_keys: u64,
    /// Sequences of the sources that were gone from the streams before they could be read: the rows lack what they held.
    pub gone: u64,
    /// Per source (`<namespace>/<name>`): position and lag.
    pub sources: BTreeMap<String, SourceProgress>,
}

/// How far a source has been folded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SourceProgress {
    /// Last sequence that is folded and stored.
    pub position: u64,
    /// Incarnation of the stream.
    pub incarnation: String,
    /// Events of the whole stream not yet folded when this was written.
    pub lag: u64,
}

/// Where an instance is, for lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceState {
    /// Its steps are being done.
    Running,
    /// What was done is being taken back.
    Compensating,
    /// Waits for a person's decision.
    Parked,
    /// Every step is done.
    Completed,
    /// Everything that was done is taken back.
    Compensated,
}

impl InstanceState {
    /// The word shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            InstanceState::Running => "running",
            InstanceState::Compensating => "compensating",
            InstanceState::Parked => "parked",
            InstanceState::Completed => "completed",
            InstanceState::Compensated => "compensated",
        }
    }

    /// Whether nothing more will happen.
    pub fn is_finished(self) -> bool {
        matches!(self, InstanceState::Completed | InstanceState::Compensated)
    }
}

/// Summary of one instance: bucket `tidemill_summaries`, key `<ns>.saga.<name>.<id token>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceSummary {
    /// Its id.
    pub id: String,
    /// Where it is.
    pub state: InstanceState,
    /// The step it is at, or failed at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Why it failed or is parked: a stable CamelCase word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same for people, at most 200 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Revision of its definition.
    pub revision: Revision,
    /// When it was started.
    pub started_at: Timestamp,
    /// When its last input was stored.
    pub updated_at: Timestamp,
    /// Correlation id, for logs and traces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// Log position this is as of.
    pub log_sequence: u64,
}

/// The stored resolution of where a trigger stream or a source is begun: bucket `tidemill_counters`, key
/// `<ns>.<kind>.<name>.start.<stream namespace>.<stream name>`. Written once, create-only, before anything is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedStart {
    /// The stream.
    pub stream: StreamRef,
    /// Its incarnation then.
    pub incarnation: String,
    /// Events after this sequence are read; 0 = all.
    pub after: u64,
    /// How often a stream that was set back or replaced was accepted since. Positions of an earlier number mean nothing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub accepted: u64,
    /// Why nothing is read, if so: the stream was set back or replaced, and nobody has accepted that yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<String>,
}

impl ResolvedStart {
    /// A stream that is begun after this sequence.
    pub fn new(stream: StreamRef, incarnation: String, after: u64) -> Self {
        ResolvedStart {
            stream,
            incarnation,
            after,
            accepted: 0,
            reset: None,
        }
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
