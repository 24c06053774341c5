//! Which image the workers of a resource run: pure. An upgrade of the operator moves nobody's workers; a changed definition does, and
//! whoever asks for it.

use tidemill_crds::common::{WorkerStatus, WorkerUpdate};
use tidemill_crds::compile::WorkloadLifecycle;

/// What the workers shall run. `current` is the operator's image, `contract` the ConfigMap they are told to run, `rollout` the value
/// of the annotation.
pub fn worker(
    lifecycle: &WorkloadLifecycle,
    recorded: Option<&WorkerStatus>,
    current: &str,
    contract: &str,
    rollout: Option<&str>,
) -> WorkerStatus {
    let stays = |recorded: &&WorkerStatus| {
        lifecycle.update == WorkerUpdate::Manual
            && !recorded.image_is_own
            && recorded.contract == contract
            && recorded.rollout.as_deref() == rollout
    };
    let own = lifecycle.image.as_deref();
    let kept = || {
        recorded
            .filter(stays)
            .map(|recorded| recorded.image.as_str())
    };
    WorkerStatus {
        image: own.or_else(kept).unwrap_or(current).to_owned(),
        contract: contract.to_owned(),
        image_is_own: own.is_some(),
        rollout: rollout.map(str::to_owned),
    }
}

/// Whether a newer image than theirs is there for the workers.
pub fn is_outdated(worker: &WorkerStatus, current: &str) -> bool {
    !worker.image_is_own && worker.image != current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_move_when_told_and_only_then() {
        let recorded = WorkerStatus {
            image: "worker:1".to_owned(),
            contract: "c-1".to_owned(),
            image_is_own: false,
            rollout: None,
        };
        let own = WorkerStatus {
            image: "mine:1".to_owned(),
            image_is_own: true,
            ..recorded.clone()
        };
        let lifecycle = |update, image: Option<&str>| WorkloadLifecycle {
            update,
            image: image.map(str::to_owned),
            ..WorkloadLifecycle::default()
        };
        let manual = lifecycle(WorkerUpdate::Manual, None);
        let auto = lifecycle(WorkerUpdate::Auto, None);
        let mine = lifecycle(WorkerUpdate::Manual, Some("mine:2"));
        for (what, lifecycle, recorded, contract, rollout, expected) in [
            ("first", &manual, None, "c-1", None, "worker:2"),
            (
                "operator upgraded",
                &manual,
                Some(&recorded),
                "c-1",
                None,
                "worker:1",
            ),
            (
                "definition changed",
                &manual,
                Some(&recorded),
                "c-2",
                None,
                "worker:2",
            ),
            (
                "rollout asked for",
                &manual,
                Some(&recorded),
                "c-1",
                Some("1"),
                "worker:2",
            ),
            (
                "follows by itself",
                &auto,
                Some(&recorded),
                "c-1",
                None,
                "worker:2",
            ),
            (
                "an image of its own",
                &mine,
                Some(&recorded),
                "c-1",
                None,
                "mine:2",
            ),
            ("no longer", &manual, Some(&own), "c-1", None, "worker:2"),
        ] {
            let worker = worker(lifecycle, recorded, "worker:2", contract, rollout);
            assert_eq!(worker.image, expected, "{what}");
            let is_old = is_outdated(&worker, "worker:2");
            assert_eq!(is_old, expected == "worker:1", "{what}");
        }
    }
}
