//! Names of JetStream streams that two resources claim. A stream is made once, and whoever comes second would find another's.

use std::collections::BTreeMap;

use tidemill_core::names::{
    self, COUNTERS_BUCKET, OWNERS_BUCKET, REVISIONS_BUCKET, ResourceId, SUMMARIES_BUCKET,
};

use crate::manifest::Plan;
use crate::problem::{FieldPath, Problem, Reason};

/// A resource that claims what another has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameConflict {
    /// Its place among the plans that were given.
    pub index: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

/// A stream that a resource has.
struct Claim {
    /// Of which plan.
    index: usize,
    /// `Saga shop/orders`.
    owner: String,
    /// The JetStream name.
    name: String,
    /// What it is to its owner.
    what: &'static str,
    /// The field that can give it another name, and whether it has; nothing if the name follows from the owner's.
    field: Option<(FieldPath, bool)>,
}

impl Claim {
    /// Whether somebody has chosen this name.
    fn chosen(&self) -> bool {
        matches!(self.field, Some((_, true)))
    }
}

/// Plans whose streams, logs or rows have a name that another's have, or one that all share. The one whose name was chosen is at
/// fault; of two alike, the second.
#[must_use]
pub fn name_conflicts(plans: &[&Plan]) -> Vec<NameConflict> {
    let mut claims: Vec<Claim> = Vec::new();
    for (index, plan) in plans.iter().enumerate() {
        claims.extend(claims_of(index, plan));
    }
    claims.sort_by_key(Claim::chosen);
    let mut taken: BTreeMap<&str, String> = BTreeMap::new();
    let shared = [
        OWNERS_BUCKET,
        COUNTERS_BUCKET,
        REVISIONS_BUCKET,
        SUMMARIES_BUCKET,
    ]
    .map(names::bucket_stream);
    for name in &shared {
        taken.insert(name, "every worker keeps its state in".to_owned());
    }
    let mut found = Vec::new();
    for claim in &claims {
        let Some(other) = taken.get(claim.name.as_str()) else {
            let said = format!("{} has as {}", claim.owner, claim.what);
            taken.insert(&claim.name, said);
            continue;
        };
        let message = match &claim.field {
            Some(_) => format!(
                "{other} the JetStream stream `{}` too: give this one another name",
                claim.name
            ),
            None => format!(
                "{other} the JetStream stream `{}` too, which is the {} of this: change one of the names",
                claim.name, claim.what
            ),
        };
        let path = match &claim.field {
            Some((path, _)) => path.clone(),
            None => FieldPath::root().field("metadata").field("name"),
        };
        found.push(NameConflict {
            index: claim.index,
            problem: Problem::new(path, Reason::Conflict, message),
        });
    }
    found.sort_by_key(|conflict| conflict.index);
    found
}

fn claims_of(index: usize, plan: &Plan) -> Vec<Claim> {
    let spec = FieldPath::spec();
    let (owner, name, usual, what, path) = match plan {
        Plan::EventStream(plan) => (
            format!("EventStream {}", plan.stream),
            plan.settings.name.clone(),
            names::event_stream(&plan.stream.namespace, &plan.stream.name),
            "its stream",
            spec.field("streamName"),
        ),
        Plan::Projection(plan) => (
            format!(
                "Projection {}/{}",
                plan.resource.namespace, plan.resource.name
            ),
            names::bucket_stream(&plan.rows.name),
            names::bucket_stream(&plan.resource.rows_bucket()),
            "its rows",
            spec.field("sink").field("kv").field("bucket"),
        ),
        Plan::Saga(plan) => (
            format!("Saga {}/{}", plan.resource.namespace, plan.resource.name),
            plan.log.name.clone(),
            plan.resource.log_stream(),
            "its log",
            spec.field("log").field("streamName"),
        ),
    };
    let parked = |resource: &ResourceId| Claim {
        index,
        owner: owner.clone(),
        name: resource.parked_stream(),
        what: "its parked events",
        field: None,
    };
    let parked = match plan {
        Plan::EventStream(_) => None,
        Plan::Projection(plan) => Some(parked(&plan.resource)),
        Plan::Saga(plan) => Some(parked(&plan.resource)),
    };
    let chosen = name != usual;
    let own = Claim {
        index,
        owner: owner.clone(),
        name,
        what,
        field: Some((path, chosen)),
    };
    std::iter::once(own).chain(parked).collect()
}
