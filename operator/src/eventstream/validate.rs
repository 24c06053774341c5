//! Whether an EventStream can be had at all: pure.

use crate::conditions::{Reason, Verdict};
use crate::stream::Policy;
use crate::tenancy::Tenancy;
use kube::ResourceExt;
use tidemill_crds::compile::{self, EventStreamPlan};
use tidemill_crds::eventstream::EventStream;
use tidemill_nats::provision::{StreamPlan, Take};
use tidemill_provision::Installation;

/// Annotation by which a person takes a stream from its present owner, `<clusterId>/<namespace>/<name>`.
pub(crate) const TAKE_FROM: &str = "tidemill.dev/take-from";
/// Annotation by which a person allows that changed limits delete events.
pub(super) const ALLOW_LOSS: &str = "tidemill.dev/allow-loss";

/// An EventStream that can be had.
#[derive(Clone, Debug)]
pub(super) struct Valid {
    /// What it means.
    pub plan: EventStreamPlan,
    /// The stream to make.
    pub stream: StreamPlan,
    /// What may be done about it.
    pub policy: Policy,
}

/// Compiles it, and looks whether its namespace may use what it names. `incarnation` is for a stream that isn't there yet.
///
/// # Errors
/// What is wrong, with the field's path.
pub(super) fn validate(
    resource: &EventStream,
    installation: &Installation,
    tenancy: &Tenancy,
    incarnation: &str,
) -> Result<Valid, Verdict> {
    let report = compile::event_stream(resource);
    let Some(plan) = report.plan else {
        let problems: Vec<String> = report.errors.iter().map(ToString::to_string).collect();
        return Err(Verdict::new(Reason::Invalid, problems.join("; ")));
    };
    let subjects = plan.settings.subjects.iter().map(String::as_str);
    tenancy
        .check(&plan.stream.namespace, &plan.settings.name, subjects)
        .map_err(|error| Verdict::new(Reason::NotAllowed, error.to_string()))?;
    let mut stream = installation.event_stream(&plan, incarnation);
    let mut policy = Policy {
        observe: plan.policy.observe,
        recreate: plan.policy.recreate,
        denied: None,
    };
    let from = resource.annotations().get(TAKE_FROM);
    let take = match from {
        Some(owner) => Take::From(owner.clone()),
        None if plan.policy.adopt => Take::IfUnowned,
        None => Take::Never,
    };
    match tenancy.check_adoption(&plan.stream.namespace) {
        Ok(()) => stream.take = take,
        Err(error) => policy.denied = Some((take, error.to_string())),
    }
    stream.may_lose = resource
        .annotations()
        .get(ALLOW_LOSS)
        .is_some_and(|value| value == "true");
    Ok(Valid {
        plan,
        stream,
        policy,
    })
}
