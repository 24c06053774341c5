//! What is said of a resource: one verdict, and the conditions `Ready`, `Reconciling` and `Stalled` that come of it, as kstatus
//! defines them, so that Argo CD, Flux and `kubectl wait` understand.

use crate::error::Error;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use std::time::Duration;

/// Why a resource is as it is: a stable word for `reason`, with its class. The table in the documentation is made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// What the spec says is in force.
    InForce,
    /// NATS doesn't answer, or refuses for the moment.
    NatsUnavailable,
    /// The spec doesn't compile.
    Invalid,
    /// The namespace may not use this subject or this name.
    NotAllowed,
    /// Another stream takes the same subjects.
    Conflict,
    /// The stream is there and another's, or nobody's.
    NotOwned,
    /// What would have to change can't be changed in JetStream.
    Immutable,
    /// The limits would delete events that are there.
    WouldLoseEvents,
    /// The stream was there and is gone.
    StreamLost,
    /// The stream is made by somebody else, and isn't there yet.
    StreamMissing,
    /// NATS refuses the settings.
    Refused,
    /// An EventStream that the definition names isn't there, or can't be used so.
    StreamUnusable,
    /// The objects are as they shall be, but the workers aren't ready yet.
    WorkersNotReady,
    /// The stream is observed, and can't be read as events are.
    Unreadable,
    /// Another cluster has this cluster's id.
    ClusterIdTaken,
    /// Its instances were left unfinished long ago; they go on when a person says so.
    ResumeHeld,
    /// It was deleted, and goes when its data is gone.
    Deleting,
}

/// What a reason means for whoever waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Nothing is to be done.
    Ready,
    /// It goes on by itself.
    Progressing,
    /// It waits for a person.
    Stalled,
}

impl Reason {
    /// Every reason, in the order of the table.
    pub const ALL: [Reason; 17] = [
        Reason::InForce,
        Reason::NatsUnavailable,
        Reason::Invalid,
        Reason::NotAllowed,
        Reason::Conflict,
        Reason::NotOwned,
        Reason::Immutable,
        Reason::WouldLoseEvents,
        Reason::StreamLost,
        Reason::StreamMissing,
        Reason::Refused,
        Reason::StreamUnusable,
        Reason::WorkersNotReady,
        Reason::Unreadable,
        Reason::ClusterIdTaken,
        Reason::ResumeHeld,
        Reason::Deleting,
    ];

    /// The word, CamelCase.
    pub fn word(self) -> &'static str {
        match self {
            Reason::InForce => "InForce",
            Reason::NatsUnavailable => "NatsUnavailable",
            Reason::Invalid => "Invalid",
            Reason::NotAllowed => "NotAllowed",
            Reason::Conflict => "Conflict",
            Reason::NotOwned => "NotOwned",
            Reason::Immutable => "Immutable",
            Reason::WouldLoseEvents => "WouldLoseEvents",
            Reason::StreamLost => "StreamLost",
            Reason::StreamMissing => "StreamMissing",
            Reason::Refused => "Refused",
            Reason::StreamUnusable => "StreamUnusable",
            Reason::WorkersNotReady => "WorkersNotReady",
            Reason::Unreadable => "Unreadable",
            Reason::ClusterIdTaken => "ClusterIdTaken",
            Reason::ResumeHeld => "ResumeHeld",
            Reason::Deleting => "Deleting",
        }
    }

    /// What it means, and what a person does about it: two sentences of the table in the documentation.
    pub fn explained(self) -> (&'static str, &'static str) {
        match self {
            Reason::InForce => ("What the spec says is in force.", "Nothing."),
            Reason::NatsUnavailable => (
                "NATS doesn't answer, or refuses for the moment.",
                "It is tried again by itself. If it lasts, look at NATS and at the operator's log.",
            ),
            Reason::Invalid => (
                "The spec doesn't compile; nothing was changed.",
                "Mend the field that the message names. `tidemill lint` says the same before it is applied.",
            ),
            Reason::NotAllowed => (
                "The namespace may not use this subject or stream name, or may not take over streams.",
                "Use the namespace's own prefix, or have the operator's configuration grant it (`tenancy.grants`).",
            ),
            Reason::Conflict => (
                "Another stream takes one of the subjects; the message names it and its owner.",
                "Change the subjects of one of them.",
            ),
            Reason::NotOwned => (
                "A stream of this name is there and belongs to another resource, or to nobody.",
                "Use another name, or take it over as the message says.",
            ),
            Reason::Immutable => (
                "The spec asks for something that can't be changed any more.",
                "Write the old value, or make another resource.",
            ),
            Reason::WouldLoseEvents => (
                "The new limits would delete events at once; the stream stays as it is.",
                "Widen the limit, or annotate the resource with `tidemill.dev/allow-loss: \"true\"`.",
            ),
            Reason::StreamLost => (
                "A stream, log or bucket was there and is gone.",
                "Restore NATS from a backup; or set `onLoss: Recreate` (EventStream), or delete and apply the resource to begin with an empty one.",
            ),
            Reason::StreamMissing => (
                "The stream is observed, and isn't there yet.",
                "It is waited for.",
            ),
            Reason::Refused => (
                "NATS refuses the settings; the message holds its answer.",
                "Change the spec, or the limits of the NATS account. If it demands a limit of every stream: `nats.maxStreamBytes` in the chart.",
            ),
            Reason::StreamUnusable => (
                "An EventStream that the definition names isn't there, isn't open to this namespace, or can't be used so.",
                "Apply the EventStream, or mend the field that the message names. It recovers by itself.",
            ),
            Reason::WorkersNotReady => (
                "The objects are as they shall be, but not all workers are ready yet.",
                "Wait. If it lasts: `kubectl describe deployment`, `kubectl logs`.",
            ),
            Reason::Unreadable => (
                "The observed stream loses messages once they are acknowledged.",
                "Observe a stream with retention `limits`.",
            ),
            Reason::ClusterIdTaken => (
                "Another live cluster with the same cluster id uses this NATS account; nothing is written to NATS.",
                "Give one of them another `clusterId`; or set `takeover` if the other one is gone.",
            ),
            Reason::ResumeHeld => (
                "A Saga was applied anew, and its unfinished instances were left long ago.",
                "Look at them, then `tidemill saga resume NAME` (annotation `tidemill.dev/resume: \"true\"`).",
            ),
            Reason::Deleting => (
                "The resource was deleted, and goes when its instances are finished or its data is gone.",
                "Wait. The message says what is left, and there is a deadline.",
            ),
        }
    }

    /// What it means for whoever waits.
    pub fn class(self) -> Class {
        match self {
            Reason::InForce => Class::Ready,
            Reason::NatsUnavailable
            | Reason::StreamMissing
            | Reason::WorkersNotReady
            | Reason::Deleting => Class::Progressing,
            Reason::Invalid
            | Reason::NotAllowed
            | Reason::Conflict
            | Reason::NotOwned
            | Reason::Immutable
            | Reason::WouldLoseEvents
            | Reason::StreamLost
            | Reason::StreamUnusable
            | Reason::Unreadable
            | Reason::ClusterIdTaken
            | Reason::ResumeHeld
            | Reason::Refused => Class::Stalled,
        }
    }
}

/// How a resource is, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The stable word.
    pub reason: Reason,
    /// For people: what is wrong, where, and what would do.
    pub message: String,
}

/// How soon a resource that is as it shall be is looked at again, when nobody said anything of it: changes are told by watches,
/// advisories and the survey.
pub const SETTLED: Duration = Duration::from_secs(600);
/// How soon one that isn't.
const UNSETTLED: Duration = Duration::from_secs(30);

impl Verdict {
    /// How soon the resource is looked at again when nobody says anything of it.
    pub fn look_again(&self) -> Duration {
        match self.reason.class() {
            Class::Ready => SETTLED,
            Class::Progressing | Class::Stalled => UNSETTLED,
        }
    }

    /// A verdict.
    pub fn new(reason: Reason, message: impl Into<String>) -> Verdict {
        Verdict {
            reason,
            message: message.into(),
        }
    }

    /// NATS didn't do it.
    pub fn undone(error: &Error) -> Verdict {
        match error.is_refusal() {
            true => Verdict::new(Reason::Refused, format!("NATS refuses it: {error}")),
            false => Verdict::new(
                Reason::NatsUnavailable,
                format!("NATS can't do it now: {error}; it is tried again"),
            ),
        }
    }
}

/// Longest message of a condition, in bytes: what the schema allows.
const MESSAGE_BYTES_MAX: usize = 32_768;

/// The conditions of a verdict. Those of other types stay, and a condition keeps its time for as long as its status is the same.
pub fn conditions(
    old: &[Condition],
    verdict: &Verdict,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let class = verdict.reason.class();
    let wanted = [
        ("Ready", class == Class::Ready),
        ("Reconciling", class == Class::Progressing),
        ("Stalled", class == Class::Stalled),
    ];
    let mut conditions: Vec<Condition> = wanted
        .into_iter()
        .map(|(type_, holds)| {
            let status = if holds { "True" } else { "False" };
            let same = old
                .iter()
                .find(|condition| condition.type_ == type_ && condition.status == status);
            // `Ready` always says why; of the others only the one that holds.
            let (reason, message) = match holds || type_ == "Ready" {
                true => (verdict.reason.word(), cut(&verdict.message)),
                false => (absent(type_), ""),
            };
            Condition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: reason.to_owned(),
                message: message.to_owned(),
                observed_generation: generation,
                last_transition_time: same.map_or(Time(now), |condition| {
                    condition.last_transition_time.clone()
                }),
            }
        })
        .collect();
    let others = old
        .iter()
        .filter(|condition| wanted.iter().all(|(type_, _)| condition.type_ != *type_));
    conditions.extend(others.cloned());
    conditions
}

/// Reason of a condition that doesn't hold.
fn absent(type_: &str) -> &'static str {
    match type_ {
        "Reconciling" => "Settled",
        _ => "NotStalled",
    }
}

fn cut(message: &str) -> &str {
    let mut end = message.len().min(MESSAGE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap_or_default()
    }

    fn shown(conditions: &[Condition]) -> Vec<String> {
        let line = |condition: &Condition| {
            let Condition {
                type_,
                status,
                reason,
                last_transition_time,
                ..
            } = condition;
            format!(
                "{type_}={status} {reason} @{}",
                last_transition_time.0.as_second()
            )
        };
        conditions.iter().map(line).collect()
    }

    #[test]
    fn a_verdict_is_one_of_three_and_times_are_those_of_changes() {
        let ready = Verdict::new(Reason::InForce, "stream shop_orders is as the spec says");
        let first = conditions(&[], &ready, Some(1), at(10));
        assert_eq!(
            shown(&first),
            [
                "Ready=True InForce @10",
                "Reconciling=False Settled @10",
                "Stalled=False NotStalled @10"
            ]
        );
        let again = conditions(&first, &ready, Some(1), at(20));
        assert_eq!(again, first, "the same verdict writes nothing new");
        let stalled = Verdict::new(Reason::Conflict, "…");
        let mut other = first[0].clone();
        other.type_ = "DataLost".to_owned();
        let old: Vec<Condition> = first.into_iter().chain([other]).collect();
        assert_eq!(
            shown(&conditions(&old, &stalled, Some(2), at(30))),
            [
                "Ready=False Conflict @30",
                "Reconciling=False Settled @10",
                "Stalled=True Conflict @30",
                "DataLost=True InForce @10"
            ]
        );
    }

    #[test]
    fn messages_are_cut_between_characters() {
        assert_eq!(cut("ä"), "ä");
        let long = "ä".repeat(MESSAGE_BYTES_MAX);
        assert_eq!(cut(&long).len(), MESSAGE_BYTES_MAX);
        let odd = format!("a{long}");
        assert_eq!(cut(&odd).len(), MESSAGE_BYTES_MAX - 1);
    }

    #[test]
    fn words_are_distinct() {
        let words: std::collections::BTreeSet<&str> =
            Reason::ALL.iter().map(|reason| reason.word()).collect();
        assert_eq!(words.len(), Reason::ALL.len());
    }
}
