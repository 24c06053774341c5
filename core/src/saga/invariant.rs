//! What holds of every instance after every input. Simulation and tests check these; each has a name that a failure tells.

use super::compiled::CompiledSaga;
use super::state::{Instance, Outcome, Phase, Progress, PublishProgress};

/// A broken invariant: a bug of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub invariant: &'static str,
    /// Where.
    pub detail: String,
}

/// Every invariant that this state breaks.
pub fn violations(saga: &CompiledSaga, instance: &Instance) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut check = |invariant: &'static str, holds: bool, detail: String| {
        if !holds {
            found.push(Violation { invariant, detail });
        }
    };
    let compensating = instance
        .steps
        .iter()
        .filter(|step| step.compensation.progress.is_active())
        .count();
    check(
        "one-compensation-at-a-time",
        compensating <= 1,
        format!("{compensating} are active"),
    );
    let turned = !matches!(instance.phase, Phase::Forward);
    let acting = instance
        .steps
        .iter()
        .any(|step| step.action.progress.is_active());
    check(
        "no-compensation-beside-an-action",
        !(turned && acting),
        "an action is active".to_owned(),
    );
    for (index, (definition, state)) in saga
        .definition
        .steps
        .iter()
        .zip(&instance.steps)
        .enumerate()
    {
        let name = || definition.name.clone();
        let happened = instance.happened.contains(&index);
        let has_compensation = definition.compensation.is_some();
        check(
            "compensation-only-for-what-may-have-happened",
            state.compensation.attempt == 0 || happened,
            name(),
        );
        check(
            "done-is-known",
            state.action.progress != Progress::Done || happened,
            name(),
        );
        check(
            "sent-before-settled",
            state.action.attempt > 0
                || matches!(
                    state.action.progress,
                    Progress::Waiting | Progress::Skipped | Progress::GivenUp
                ),
            name(),
        );
        let taken_back = !happened || !has_compensation || state.compensation.progress.is_done();
        let compensated = matches!(
            instance.phase,
            Phase::Concluding(Outcome::Compensated) | Phase::Finished(Outcome::Compensated)
        );
        check(
            "compensated-leaves-nothing",
            !compensated || taken_back,
            name(),
        );
        let completed = matches!(
            instance.phase,
            Phase::Concluding(Outcome::Completed) | Phase::Finished(Outcome::Completed)
        );
        check(
            "completed-did-everything",
            !completed || state.action.progress.is_done(),
            name(),
        );
        let taking_back = matches!(instance.phase, Phase::Backward) || compensated;
        check(
            "what-may-have-happened-is-taken-back",
            !(taking_back && state.action.delivered) || happened,
            name(),
        );
        let pivot_done = definition.pivot && state.action.progress == Progress::Done;
        let begun_back = instance
            .steps
            .iter()
            .any(|step| step.compensation.attempt > 0);
        check(
            "nothing-back-after-the-pivot",
            !(pivot_done && begun_back),
            name(),
        );
        let after_done = definition.after.iter().all(|before| {
            let before = saga
                .step_index(before)
                .and_then(|index| instance.steps.get(index));
            before.is_some_and(|step| step.action.progress.is_done())
        });
        check("in-order", state.action.attempt == 0 || after_done, name());
    }
    let finished = instance.is_finished();
    let open = instance.publishes.iter().any(|publish| {
        matches!(
            publish,
            PublishProgress::Outstanding | PublishProgress::Failed
        )
    });
    check(
        "finished-published-everything",
        !(finished && open),
        String::new(),
    );
    check(
        "finished-waits-for-nothing",
        !finished || instance.parked.is_none(),
        "it is parked".to_owned(),
    );
    check(
        "forward-goes-on",
        instance.phase != Phase::Forward
            || instance.failure.is_some()
            || instance.parked.is_some()
            || acting,
        "nothing but the saga's timeout will move it".to_owned(),
    );
    let idle = !finished
        && instance.parked.is_none()
        && instance.outstanding(saga).is_empty()
        && instance.next_timer(saga).is_none();
    check(
        "never-stuck",
        !idle,
        "neither effect nor timer nor decision will move it".to_owned(),
    );
    found
}
