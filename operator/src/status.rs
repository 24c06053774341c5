//! How a status is written: only if it differs; figures at their pace; and what changed for people is recorded as an event.

use crate::conditions::{Class, Verdict};
use crate::context::Context;
use crate::error::Error;
use crate::jetstream::JetStream;
use crate::kubernetes::{Kubernetes, Object, Said};
use crate::pace::Key;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use serde::Serialize;
use serde_json::Value;
use std::time::Instant;

/// A kind that has a status.
pub trait Reports: Object {
    /// Its status.
    type Status: Serialize + PartialEq + Send + Sync;
    /// Fields of the status that move with the load: they are written at their pace.
    const FIGURES: &'static [&'static str];
    /// The kind's name.
    const KIND: &'static str;

    /// Its status as it is.
    fn present(&self) -> Option<&Self::Status>;

    /// Its conditions as they are.
    fn conditions(&self) -> &[Condition];

    /// The key by which its figures wait for their turn.
    fn key(&self) -> Key {
        Key {
            kind: Self::KIND,
            namespace: self.namespace().unwrap_or_default(),
            name: self.name_any(),
        }
    }
}

/// Writes a status, if it differs from the present one and may be written now.
///
/// # Errors
/// [`Error::Fenced`], [`Error::Kubernetes`]
pub async fn write<S: JetStream, K: Kubernetes, R: Reports>(
    object: &R,
    wanted: &R::Status,
    verdict: &Verdict,
    context: &Context<S, K>,
) -> Result<(), Error> {
    let present = object.present();
    if present == Some(wanted) {
        return Ok(());
    }
    let only_figures = present.is_some_and(|present| only_differ_in(present, wanted, R::FIGURES));
    if only_figures && !context.pace.may_write(object.key(), Instant::now()) {
        return Ok(());
    }
    context.fence()?;
    context.kubernetes.write_status(object, wanted).await?;
    context.meters.status_written(R::KIND);
    if let Some(said) = said(object.conditions(), verdict) {
        context.kubernetes.say(object, said).await;
    }
    Ok(())
}

fn only_differ_in(one: &impl Serialize, other: &impl Serialize, fields: &[&str]) -> bool {
    let rest = |status: Result<Value, serde_json::Error>| match status {
        Ok(Value::Object(mut status)) => {
            status.retain(|field, _| !fields.contains(&field.as_str()));
            Some(status)
        }
        _ => None,
    };
    let (one, other) = (
        rest(serde_json::to_value(one)),
        rest(serde_json::to_value(other)),
    );
    one.is_some() && one == other
}

/// What is recorded: that a resource waits for a person, and that it no longer does.
fn said(before: &[Condition], verdict: &Verdict) -> Option<Said> {
    let holds = |type_: &str| {
        let mut conditions = before.iter();
        conditions.any(|condition| condition.type_ == type_ && condition.status == "True")
    };
    let ready = before.iter().find(|condition| condition.type_ == "Ready");
    let same = ready.is_some_and(|ready| ready.reason == verdict.reason.word());
    let warning = verdict.reason.class() == Class::Stalled;
    let recovered = verdict.reason.class() == Class::Ready && holds("Stalled");
    (!same && (warning || recovered)).then(|| Said {
        warning,
        reason: verdict.reason.word(),
        note: verdict.message.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::{Reason, conditions};
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    #[test]
    fn a_person_is_told_once_that_they_are_needed_and_when_they_arent_any_more() {
        let verdict = |reason| Verdict::new(reason, "why");
        let mut before = Vec::new();
        let mut told = Vec::new();
        for reason in [
            Reason::WorkersNotReady,
            Reason::InForce,
            Reason::Conflict,
            Reason::Conflict,
            Reason::NotOwned,
            Reason::InForce,
            Reason::InForce,
        ] {
            let verdict = verdict(reason);
            told.push(said(&before, &verdict).map(|said| (said.reason, said.warning)));
            before = conditions(&before, &verdict, None, Timestamp::UNIX_EPOCH);
        }
        assert_eq!(
            told,
            [
                None,
                None,
                Some(("Conflict", true)),
                None,
                Some(("NotOwned", true)),
                Some(("InForce", false)),
                None
            ]
        );
    }

    #[test]
    fn figures_are_told_from_the_rest() {
        let one = json!({"messages": 1, "conditions": [1]});
        let figures = &["messages", "bytes"];
        assert!(only_differ_in(
            &one,
            &json!({"messages": 2, "bytes": 3, "conditions": [1]}),
            figures
        ));
        assert!(!only_differ_in(
            &one,
            &json!({"messages": 2, "conditions": [2]}),
            figures
        ));
    }
}
