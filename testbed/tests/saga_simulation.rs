//! The saga machine in seeded worlds. `SIMULATION_SEEDS` (default 60) says how many seeds each shape is tried with,
//! `SIMULATION_FIRST` with which one it begins.

use std::sync::Arc;
use tidemill_core::saga::CompiledSaga;
use tidemill_testbed::simulation::saga::{Faults, Plan, run};
use tidemill_testbed::simulation::{Random, shapes};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn plan(seed: u64, faults: Faults) -> Plan {
    // One owner alone knows more than two that may be in each other's way.
    Plan {
        seed,
        instances: 6,
        owners: 1 + usize::try_from(seed % 2).unwrap_or(0),
        faults,
    }
}

fn check(
    name: &str,
    saga: &Arc<CompiledSaga>,
    plan: &Plan,
) -> std::collections::BTreeMap<&'static str, usize> {
    let report = run(saga, plan);
    assert!(
        report.problems.is_empty(),
        "{name}, seed {}: {:#?}\n{}\nagain: SIMULATION_FIRST={} SIMULATION_SEEDS=1 cargo test -p tidemill-testbed --test saga_simulation",
        plan.seed,
        report.problems,
        report
            .trace
            .lines()
            .rev()
            .take(60)
            .collect::<Vec<_>>()
            .join("\n"),
        plan.seed,
    );
    report.ended
}

#[test]
fn in_a_good_world_everything_completes() {
    for (name, saga) in shapes::all() {
        let ended = check(name, &saga, &plan(1, Faults::NONE));
        assert_eq!(ended.get("completed"), Some(&6), "{name}: {ended:?}");
    }
}

#[test]
fn in_any_world_every_instance_ends_as_its_ledgers_say() {
    let (first, seeds) = (
        number("SIMULATION_FIRST", 1),
        number("SIMULATION_SEEDS", 60),
    );
    for (name, saga) in shapes::all() {
        let mut all = std::collections::BTreeMap::new();
        for seed in first..first + seeds {
            let faults = Faults::seeded(&mut Random::new(seed));
            for (state, count) in check(name, &saga, &plan(seed, faults)) {
                *all.entry(state).or_insert(0) += count;
            }
        }
        println!("{name}: {all:?}");
        // A world in which nothing ever fails, or nothing ever works, would prove nothing.
        if seeds >= 20 {
            assert!(
                all.contains_key("completed")
                    && (all.contains_key("compensated") || all.contains_key("parked")),
                "{name}: {all:?}"
            );
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for (name, saga) in shapes::all() {
        let plan = plan(7, Faults::seeded(&mut Random::new(7)));
        assert_eq!(run(&saga, &plan).trace, run(&saga, &plan).trace, "{name}");
    }
}
