//! Which step runs after which.

use crate::check::closest;
use crate::compile::findings::Findings;
use crate::problem::{FieldPath, Reason};
use crate::saga::Step;
use tidemill_core::planted::{Bug, planted};

/// The order of steps. A step follows steps above it only, so there are no circles.
pub(super) struct Order {
    /// Per step the steps it names, each once, in their order.
    after: Vec<Vec<usize>>,
    /// Per step which steps are done or skipped when it begins.
    before: Vec<Vec<bool>>,
}

impl Order {
    pub(super) fn of(findings: &mut Findings, steps: &[Step], names: &[&str]) -> Self {
        let mut order = Self {
            after: Vec::with_capacity(steps.len()),
            before: Vec::with_capacity(steps.len()),
        };
        for (index, step) in steps.iter().enumerate() {
            let path = FieldPath::spec().field("steps").index(index);
            if let Some(first) = names
                .iter()
                .take(index)
                .position(|name| *name == step.name.as_str())
            {
                let message = format!(
                    "`{}` stands here twice, spec.steps[{first}] has it already",
                    step.name
                );
                findings.error(&path.field("name"), Reason::Conflict, message);
            }
            let after = match &step.after {
                Some(after) => named(findings, &path.field("after"), index, after, names),
                None => index.checked_sub(1).into_iter().collect(),
            };
            let mut before = vec![false; steps.len()];
            for &direct in &after {
                let reached = order.before.get(direct).cloned().unwrap_or_default();
                for (mark, reached) in before.iter_mut().zip(reached) {
                    *mark |= reached;
                }
                if let Some(mark) = before.get_mut(direct) {
                    *mark = true;
                }
            }
            order.after.push(after);
            order.before.push(before);
        }
        order
    }

    /// The steps that a step directly follows.
    pub(super) fn after(&self, step: usize) -> &[usize] {
        self.after.get(step).map_or(&[], Vec::as_slice)
    }

    /// Per step whether it is done or skipped when this one begins.
    pub(super) fn before(&self, step: usize) -> Vec<bool> {
        self.before.get(step).cloned().unwrap_or_default()
    }
}

fn named(
    findings: &mut Findings,
    path: &FieldPath,
    step: usize,
    after: &[crate::text::StepName],
    names: &[&str],
) -> Vec<usize> {
    let mut found = Vec::with_capacity(after.len());
    for (at, name) in after.iter().enumerate() {
        let path = path.index(at);
        match names.iter().position(|known| *known == name.as_str()) {
            Some(before) if before < step || planted(Bug::AfterStepBelow) => found.push(before),
            Some(itself) if itself == step => {
                findings.error(&path, Reason::Reference, "a step can't follow itself");
            }
            Some(_) => {
                let message = format!(
                    "`{name}` stands below this step, and a step follows steps above it only: move `{name}` up"
                );
                findings.error(&path, Reason::Reference, message);
            }
            None => {
                let above = names.iter().take(step).copied();
                let hint = closest(name.as_str(), above)
                    .map(|meant| format!("; did you mean `{meant}`?"))
                    .unwrap_or_default();
                findings.error(
                    &path,
                    Reason::Reference,
                    format!("there is no step `{name}`{hint}"),
                );
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}
