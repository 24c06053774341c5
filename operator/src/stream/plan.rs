//! What is to be done about a stream: pure.

use crate::conditions::{Reason, Verdict};
use serde_json::{Map, Value, json};
use tidemill_nats::StreamState;
use tidemill_nats::provision::{
    Decision, Loss, Overlap, Refusal, StreamPlan, Take, decide, owner_of,
};

/// What was seen of the stream.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    /// The stream; `None` = there is none of that name.
    pub stream: Option<StreamState>,
    /// Another stream that takes one of the subjects.
    pub overlap: Option<Overlap>,
    /// What the planned configuration would delete of what is in the stream.
    pub losses: Vec<Loss>,
}

/// What the status knows of the stream that was there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Its incarnation; `None` = there never was one.
    pub incarnation: Option<String>,
    /// Its last sequence.
    pub last: u64,
}

/// What may be done about a stream besides changing it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// It is looked at and never written (`managementPolicy: Observe`).
    pub observe: bool,
    /// One that was lost is made again, empty (`onLoss: Recreate`).
    pub recreate: bool,
    /// What would be taken over if the namespace might, and why it may not.
    pub denied: Option<(Take, String)>,
}

/// One call that makes it so.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Nothing is written.
    Nothing,
    /// The stream is made.
    Create(Map<String, Value>),
    /// The stream is changed.
    Update {
        /// Its whole new configuration.
        config: Map<String, Value>,
        /// The settings that change, as JetStream's API names them.
        changed: Vec<String>,
    },
}

/// What is done, and what is said once it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Planned {
    /// The call.
    pub step: Step,
    /// What holds after it.
    pub verdict: Verdict,
    /// What was lost for good by what is done.
    pub data_lost: Option<String>,
}

/// Decides. Nothing that is there is ever deleted or taken from another owner.
pub(super) fn plan(
    wanted: &StreamPlan,
    policy: &Policy,
    known: &Known,
    observed: &Observed,
) -> Planned {
    let mut planned = decided(wanted, policy, known, observed);
    // Whoever made it again, and even if it was this operator before it died and could say so.
    if let (Some(incarnation), Some(present)) = (&known.incarnation, &observed.stream) {
        let is_ours =
            policy.observe || owner_of(&present.metadata()) == Some(wanted.mark.to_string());
        if is_ours && *incarnation != present.incarnation {
            planned.data_lost = Some(made_again(wanted, incarnation, known.last));
        }
    }
    planned
}

fn decided(wanted: &StreamPlan, policy: &Policy, known: &Known, observed: &Observed) -> Planned {
    let stay = |reason, message: String| Planned {
        step: Step::Nothing,
        verdict: Verdict::new(reason, message),
        data_lost: None,
    };
    let in_force = || {
        let message = format!("stream {} is as the spec says", wanted.name);
        Verdict::new(Reason::InForce, message)
    };
    if policy.observe {
        return match &observed.stream {
            // What is acknowledged leaves such a stream, so nobody else could read it from its beginning.
            Some(stream) if stream.retention() != "limits" => stay(
                Reason::Unreadable,
                format!(
                    "stream {} has retention {}: messages leave it once they are acknowledged, so rows and sagas can't be made of it; use a stream with retention limits",
                    wanted.name,
                    stream.retention()
                ),
            ),
            Some(_) => stay(
                Reason::InForce,
                format!("stream {} is there, and only observed", wanted.name),
            ),
            None => stay(
                Reason::StreamMissing,
                format!(
                    "stream {} isn't there, and managementPolicy: Observe makes none: it is waited for",
                    wanted.name
                ),
            ),
        };
    }
    let Some(present) = &observed.stream else {
        if let Some(overlap) = &observed.overlap {
            return stay(Reason::Conflict, overlap.to_string());
        }
        if let Some(incarnation) = &known.incarnation {
            if policy.recreate {
                return recreated(wanted, incarnation, known.last, in_force());
            }
            return stay(Reason::StreamLost, lost(wanted, incarnation, known.last));
        }
        return Planned {
            step: Step::Create(wanted.config()),
            verdict: in_force(),
            data_lost: None,
        };
    };
    match decide(wanted, present) {
        Decision::Nothing => Planned {
            step: Step::Nothing,
            verdict: in_force(),
            data_lost: None,
        },
        Decision::Refuse(refusal) => {
            let Verdict { reason, message } = said(&refusal, policy, wanted);
            stay(reason, message)
        }
        Decision::Update { .. } if !observed.losses.is_empty() => stay(
            Reason::WouldLoseEvents,
            would_lose(wanted, &observed.losses),
        ),
        Decision::Update { config, changed } => match (&observed.overlap, takes_more(&changed)) {
            (Some(overlap), true) => stay(Reason::Conflict, overlap.to_string()),
            _ => Planned {
                step: Step::Update { config, changed },
                verdict: in_force(),
                data_lost: None,
            },
        },
    }
}

/// What would be taken over if the namespace might.
fn denied<'a>(
    policy: &'a Policy,
    owner: Option<&str>,
    wanted: &StreamPlan,
) -> Option<&'a (Take, String)> {
    let denied = policy.denied.as_ref();
    denied.filter(|(take, _)| take.permits(owner, &wanted.mark.kind))
}

/// Why a stream can't become what is planned.
pub(super) fn refused(
    wanted: &StreamPlan,
    policy: &Policy,
    present: &StreamState,
) -> Option<Verdict> {
    match decide(wanted, present) {
        Decision::Refuse(refusal) => Some(said(&refusal, policy, wanted)),
        Decision::Nothing | Decision::Update { .. } => None,
    }
}

fn said(refusal: &Refusal, policy: &Policy, wanted: &StreamPlan) -> Verdict {
    if let Refusal::Foreign { owner, .. } = refusal
        && let Some((_, why)) = denied(policy, owner.as_deref(), wanted)
    {
        return Verdict::new(Reason::NotAllowed, why.clone());
    }
    let reason = match refusal {
        Refusal::Foreign { .. } => Reason::NotOwned,
        Refusal::Immutable { .. } | Refusal::Fixed { .. } => Reason::Immutable,
        Refusal::Unreadable { .. } => Reason::Refused,
    };
    Verdict::new(reason, permitted_by(refusal, &wanted.mark.kind))
}

/// What is wrong, and what would permit it.
fn permitted_by(refusal: &Refusal, kind: &str) -> String {
    let permit = match refusal {
        Refusal::Foreign { owner: None, .. } => {
            ", or let it be taken over with spec.adoptionPolicy: IfUnowned".to_owned()
        }
        Refusal::Foreign {
            owner: Some(owner), ..
        } => match owner.split('/').collect::<Vec<_>>().as_slice() {
            [cluster, namespace, of, name] if *of == kind => format!(
                ", or take it over with the annotation tidemill.dev/take-from: {cluster}/{namespace}/{name}"
            ),
            _ => String::new(),
        },
        Refusal::Immutable { .. } | Refusal::Fixed { .. } | Refusal::Unreadable { .. } => {
            String::new()
        }
    };
    format!("{refusal}{permit}")
}

/// A lost stream is made again. Its sequences go on where the old one's ended, so that no position means two events.
fn recreated(wanted: &StreamPlan, incarnation: &str, last: u64, verdict: Verdict) -> Planned {
    let mut config = wanted.config();
    config.insert("first_seq".to_owned(), json!(last.saturating_add(1)));
    Planned {
        step: Step::Create(config),
        verdict,
        data_lost: Some(made_again(wanted, incarnation, last)),
    }
}

fn made_again(wanted: &StreamPlan, incarnation: &str, last: u64) -> String {
    format!(
        "stream {} (incarnation {incarnation}) was gone and was made again: its events up to {last} are lost; what is folded of them says SourceReset until a person accepts it",
        wanted.name
    )
}

fn takes_more(changed: &[String]) -> bool {
    changed.iter().any(|setting| setting == "subjects")
}

fn lost(wanted: &StreamPlan, incarnation: &str, last: u64) -> String {
    format!(
        "stream {} (incarnation {incarnation}{}) is gone from NATS: restore it from a backup, \
         or delete and apply this resource again to begin with an empty one",
        wanted.name,
        match last {
            0 => String::new(),
            last => format!(", last event {last}"),
        }
    )
}

fn would_lose(wanted: &StreamPlan, losses: &[Loss]) -> String {
    let losses: Vec<String> = losses
        .iter()
        .map(|loss| match loss {
            Loss::Older(events) => format!("limits.maxAge: {events} events are older"),
            Loss::Beyond(events) => format!("limits.maxMessages: the oldest {events} events"),
            Loss::Bytes(bytes) => format!("limits.maxBytes: the oldest {bytes} bytes of events"),
            Loss::Superseded(events) => {
                format!("maxMessagesPerSubject: {events} events with newer ones on their subject")
            }
        })
        .collect();
    format!(
        "stream {} stays as it is: the spec would delete events at once ({}); widen the limit, or annotate the resource \
         with tidemill.dev/allow-loss: \"true\"",
        wanted.name,
        losses.join("; ")
    )
}

#[cfg(test)]
mod tests;
