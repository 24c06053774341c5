//! What workers are asked on `_tm.ctl.<ns>.<kind>.<name>.<verb>`, as JSON. The command line asks; only workers write.

use crate::definition::{Revision, StreamRef};
use crate::names::Side;
use crate::status::{InstanceState, InstanceSummary};
use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Largest request read, in bytes.
pub const REQUEST_BYTES_MAX: usize = 512 * 1024;
/// Longest detail of a timeline's entry in an answer, in characters.
const DETAIL_CHARS_MAX: usize = 1000;
/// An output of so many bytes of JSON is never left out of an answer: saying so takes up to as many.
const OUTPUT_KEPT: usize = 64;

/// Verbs of a saga.
pub mod saga_verb {
    /// [`super::StartRequest`] → [`super::StartReply`].
    pub const START: &str = "start";
    /// [`super::InstanceRequest`] → [`super::Described`].
    pub const DESCRIBE: &str = "describe";
    /// [`super::InstanceRequest`] → [`super::Described`], once the instance is finished or parked.
    pub const AWAIT: &str = "await";
    /// [`super::CancelRequest`] → [`super::Accepted`].
    pub const CANCEL: &str = "cancel";
    /// [`super::DecisionRequest`] → [`super::Accepted`].
    pub const DECIDE: &str = "decide";
    /// [`super::AcceptSourceRequest`] → [`super::Accepted`]: a trigger stream that was set back or replaced is read on
    /// from its present end.
    pub const ACCEPT_SOURCE: &str = "accept-source";
    /// `{}` → [`super::SagaStatus`].
    pub const STATUS: &str = "status";
}

/// Verbs of a projection.
pub mod projection_verb {
    /// `{}` → [`super::ProjectionStatus`].
    pub const STATUS: &str = "status";
    /// `{}` → [`super::Accepted`]: folds everything again into a new key space, then switches.
    pub const REBUILD: &str = "rebuild";
    /// [`super::AcceptSourceRequest`] → [`super::Accepted`].
    pub const ACCEPT_SOURCE: &str = "accept-source";
    /// [`super::ParkedRequest`] of a key → [`super::Accepted`] with the position of what the key waits for.
    pub const FIRST: &str = "first";
    /// [`super::ParkedRequest`] → [`super::Accepted`].
    pub const REDRIVE: &str = "redrive";
    /// [`super::ParkedRequest`] of a key and a position → [`super::Accepted`]. Asked again, it changes nothing.
    pub const SKIP: &str = "skip";
}

/// Any answer: either what was asked for, or why not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reply<T> {
    /// What was asked for.
    Ok(T),
    /// Why not.
    Error(ControlError),
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ControlError {
    /// Stable CamelCase word: `NotFound`, `AlreadyFinished`, `AlreadyCompensating`, `PivotPassed`, `NotParked`, `NotFirst`,
    /// `AlreadyFolded`, `RowIsAhead`, `RowElsewhere`, `KeyWaits`, `Closing`, `Invalid`, `Unavailable`.
    pub reason: String,
    /// For people: what is wrong and what to do.
    pub message: String,
}

impl ControlError {
    /// An error of a reason.
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        ControlError {
            reason: reason.to_owned(),
            message: message.into(),
        }
    }
}

/// Starts an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StartRequest {
    /// Id of the instance.
    pub id: String,
    /// `input.data` of its expressions.
    #[serde(default)]
    pub data: crate::json::Value,
    /// `input.subject`; absent = the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// `correlationid` of everything it causes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
}

/// Whether an instance was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StartReply {
    /// Id of the instance.
    pub id: String,
    /// False: an instance of this id was there already, nothing was done.
    pub started: bool,
}

/// Names an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstanceRequest {
    /// Its id.
    pub id: String,
}

/// Asks an instance to stop and take back what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CancelRequest {
    /// Id of the instance.
    pub id: String,
    /// Who asks.
    #[serde(default)]
    pub by: String,
    /// Why.
    #[serde(default)]
    pub why: String,
}

/// A decision about a parked instance. Asked again it changes nothing: it is the one decision that follows so many others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DecisionRequest {
    /// Id of the instance.
    pub id: String,
    /// What to do.
    pub decision: Decision,
    /// Decisions taken about it before this one, as [`Described::decisions`] says.
    pub after: u32,
    /// Who decides.
    #[serde(default)]
    pub by: String,
    /// Why.
    #[serde(default)]
    pub why: String,
}

/// What is done about what is parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// Try it again, with fresh attempts.
    Retry,
    /// Go on as if it were done (or, for an action nobody knows about, as if it had not happened).
    Skip,
}

/// A request was taken on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    /// For people: what happens now.
    pub message: String,
    /// Of a projection's key: position of what it is about, as [`ParkedRequest::position`] takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
}

impl Accepted {
    /// With words for people.
    pub fn new(message: impl Into<String>) -> Self {
        Accepted {
            message: message.into(),
            position: None,
        }
    }
}

/// An instance in full.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Described {
    /// As in lists.
    pub summary: InstanceSummary,
    /// Per step, in the order of the definition.
    pub steps: Vec<StepStatus>,
    /// Every input, oldest first.
    pub timeline: Vec<TimelineEntry>,
    /// Inputs left out of `timeline` because there are too many.
    #[serde(default)]
    pub omitted: u64,
    /// Decisions taken about it so far.
    #[serde(default)]
    pub decisions: u32,
}

/// Where a step is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepStatus {
    /// Its name.
    pub name: String,
    /// Its action: `waiting`, `running`, `backing-off`, `done`, `skipped`, `refused`, `failed`, `unknown`.
    pub action: String,
    /// Its compensation: the same words; absent if it has none or needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensation: Option<String>,
    /// Attempts of the action.
    pub attempts: u32,
    /// Attempts of the compensation; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensation_attempts: Option<u32>,
    /// What it gave.
    #[serde(default)]
    pub output: crate::json::Value,
    /// Bytes of the output, if it is left out because the answer would be too large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_left_out: Option<usize>,
}

impl Described {
    /// The same in at most so many bytes of JSON: long details are cut, then the largest outputs are left out, then the oldest
    /// inputs.
    #[must_use]
    pub fn within(mut self, bytes: usize) -> Self {
        fn size(part: &impl Serialize) -> usize {
            serde_json::to_vec(part).map_or(0, |json| json.len())
        }
        for TimelineEntry { detail, .. } in &mut self.timeline {
            if let Some((end, _)) = detail.char_indices().nth(DETAIL_CHARS_MAX) {
                detail.replace_range(end.., "…");
            }
        }
        // Each is measured once: together they may be a hundred times what fits, and a worker has more to do.
        let mut excess = size(&self).saturating_sub(bytes);
        let outputs = self.steps.iter_mut();
        let mut outputs: Vec<_> = outputs.map(|step| (size(&step.output), step)).collect();
        outputs.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
        for (size, step) in outputs {
            if excess == 0 || size <= OUTPUT_KEPT {
                break;
            }
            step.output = crate::json::Value::Null;
            step.output_left_out = Some(size);
            excess = excess.saturating_sub(size - OUTPUT_KEPT);
        }
        while size(&self) > bytes && !self.timeline.is_empty() {
            let oldest = self.timeline.len().div_ceil(4);
            self.timeline.drain(..oldest);
            self.omitted += oldest as u64;
        }
        self
    }
}

/// One input of an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimelineEntry {
    /// When it was stored.
    pub at: Timestamp,
    /// Its position in the log.
    pub sequence: u64,
    /// `started`, `reply`, `observed`, `published`, `timer`, `cancel`, `decision`.
    pub what: String,
    /// The step it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Action or compensation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side: Option<Side>,
    /// Which attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// `success`, `refused`, `failed`, `ignored`, …
    pub outcome: String,
    /// For people: error or note; never a token.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Milliseconds from the attempt's request to this input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
}

/// Confirms that a source that was set back or replaced is to be read on from here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AcceptSourceRequest {
    /// The stream; absent = every source that was reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamRef>,
}

/// Names what a projection has parked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParkedRequest {
    /// The row key; absent = all, which only a redrive may mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Position of the event that is meant, `<namespace>/<stream>=<incarnation>:<sequence>`: the one that the key waits for. Of what
    /// has no key, everything up to there, per stream. A redrive may do without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// Who asks.
    #[serde(default)]
    pub by: String,
    /// Why.
    #[serde(default)]
    pub why: String,
}

/// How a projection is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProjectionStatus {
    /// Key space that readers follow.
    pub live: Option<String>,
    /// Key space being built beside it.
    pub building: Option<String>,
    /// Revision of the definition in force.
    pub revision: Option<Revision>,
    /// Why it stands still, if it does: `SourceReset`, `TooManyParkedKeys`, `Stopped`, `Suspended`, …
    pub stopped: Option<ControlError>,
    /// Key of the event before which it stopped, if it was an event.
    pub stopped_key: Option<String>,
    /// Per source (`<namespace>/<name>`): last folded sequence and lag in events.
    pub sources: BTreeMap<String, crate::status::SourceProgress>,
    /// Events read.
    pub seen: u64,
    /// Events at least one handler matched.
    pub matched: u64,
    /// Events none matched.
    pub skipped: u64,
    /// Parked keys.
    pub parked_keys: u64,
    /// Events that could not be folded and were left out: `onError: Skip`, or a person's decision.
    pub left_out: u64,
    /// Sequences of the sources that were gone from the streams before they could be read: the rows lack what they held.
    pub gone: u64,
}

/// How the worker of a saga is that answers. Streams that were set back are in the counters bucket
/// ([`crate::status::ResolvedStart::reset`]), where they can be read without a worker too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SagaStatus {
    /// Revision of the definition in force.
    pub revision: Option<Revision>,
    /// Nothing is started from streams: `suspend: true`.
    pub suspended: bool,
    /// The streams that instances are started from.
    pub triggers: Vec<StreamRef>,
    /// Why it isn't ready, by condition; empty = it is.
    pub not_ready: BTreeMap<String, String>,
}

/// What `state` of a finished or parked instance is; for `await`.
pub fn is_settled(state: InstanceState) -> bool {
    state.is_finished() || state == InstanceState::Parked
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn described(outputs: &[usize], details: &[usize]) -> Described {
        let text = |length: usize| "é".repeat(length / 2);
        let step = |(index, length): (usize, &usize)| StepStatus {
            name: format!("step-{index}"),
            action: "done".to_owned(),
            compensation: None,
            attempts: 1,
            compensation_attempts: None,
            output: text(*length).as_str().into(),
            output_left_out: None,
        };
        let entry = |(index, length): (usize, &usize)| TimelineEntry {
            at: Timestamp::from_millis(0),
            sequence: index as u64,
            what: "cancel".to_owned(),
            step: None,
            side: None,
            attempt: None,
            outcome: "applied".to_owned(),
            detail: text(*length),
            took_ms: None,
        };
        Described {
            summary: InstanceSummary {
                id: "o-1".to_owned(),
                state: InstanceState::Running,
                step: None,
                reason: None,
                message: None,
                revision: Revision::of(&0),
                started_at: Timestamp::from_millis(0),
                updated_at: Timestamp::from_millis(0),
                correlation_id: None,
                log_sequence: 1,
            },
            steps: outputs.iter().enumerate().map(step).collect(),
            timeline: details.iter().enumerate().map(entry).collect(),
            omitted: 0,
            decisions: 0,
        }
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        let whole = described(&[1000, 10], &[20, 1000]);
        assert_eq!(whole.clone().within(100_000), whole);
    }

    #[test]
    fn the_largest_output_goes_first() {
        let fitting = described(&[400_000, 300_000, 10], &[10]).within(500_000);
        let left_out: Vec<_> = fitting.steps.iter().map(|s| s.output_left_out).collect();
        assert_eq!(left_out, [Some(400_002), None, None]);
        assert_eq!((fitting.timeline.len(), fitting.omitted), (1, 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_fits_and_counts_what_is_left_out(
            outputs in prop::collection::vec(0_usize..50_000, 0..8),
            details in prop::collection::vec(0_usize..5_000, 0..60),
        ) {
            let fitting = described(&outputs, &details).within(6_000);
            prop_assert!(serde_json::to_vec(&fitting).unwrap_or_default().len() <= 6_000);
            prop_assert_eq!(fitting.timeline.len() + fitting.omitted as usize, details.len());
            // The newest stay.
            let newest = fitting.timeline.last().map(|entry| entry.sequence + 1);
            prop_assert!(newest.is_none() || newest == Some(details.len() as u64));
        }
    }
}
