//! `replicas` of Projections and Sagas: here is one worker of each, or none.

use crate::manifests::{Declared, Manifests, Severity};
use tidemill_core::names::ResourceId;
use tidemill_crds::manifest::Plan;
use tidemill_crds::{FieldPath, Problem, Reason};

/// A resource that asks for another number of workers than one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Other {
    pub(crate) resource: ResourceId,
    /// How many it asks for.
    pub(crate) replicas: u32,
    /// What becomes of that, for people.
    pub(crate) warning: String,
}

/// All that do.
pub(crate) fn other_than_one(manifests: &Manifests) -> Vec<Other> {
    manifests.resources.iter().filter_map(other).collect()
}

fn other(declared: &Declared) -> Option<Other> {
    let (resource, replicas) = match declared.plan.as_ref()? {
        Plan::Projection(plan) => (&plan.resource, plan.replicas),
        Plan::Saga(plan) => (&plan.resource, plan.replicas),
        Plan::EventStream(_) => return None,
    };
    let message = match replicas {
        0 => "0, so `tidemill dev` runs no worker of it".to_owned(),
        1 => return None,
        more => format!("{more}; `tidemill dev` runs one worker of it"),
    };
    let problem = Problem {
        path: FieldPath::spec().field("replicas"),
        reason: Reason::NotInThisVersion,
        message,
    };
    Some(Other {
        resource: resource.clone(),
        replicas,
        // That it is a warning is said where it is shown.
        warning: declared.finding(Severity::Error, &problem).to_string(),
    })
}
