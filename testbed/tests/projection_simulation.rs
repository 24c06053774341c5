//! The projection machine in seeded worlds. `SIMULATION_SEEDS` (default 60) says how many seeds are tried with each number of sources,
//! `SIMULATION_FIRST` with which one they begin.

use std::collections::BTreeMap;
use tidemill_testbed::simulation::Random;
use tidemill_testbed::simulation::projection::{Faults, Flaw, Plan, run};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn plan(seed: u64, sources: usize, faults: Faults) -> Plan {
    Plan {
        seed,
        sources,
        events: 150,
        owners: 1 + usize::try_from(seed % 3).unwrap_or(0),
        faults,
        flaw: None,
    }
}

fn check(plan: &Plan) -> BTreeMap<&'static str, usize> {
    let report = run(plan);
    assert!(
        report.problems.is_empty(),
        "{} sources, seed {}: {:#?}\n{}\nagain: SIMULATION_FIRST={} SIMULATION_SEEDS=1 cargo test -p tidemill-testbed --test projection_simulation",
        plan.sources,
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
    report.counts
}

#[test]
fn in_a_good_world_the_rows_are_those_of_the_plain_calculation() {
    for sources in 1..=3 {
        let counts = check(&plan(1, sources, Faults::NONE));
        assert!(!counts.contains_key("crashes"), "{counts:?}");
    }
}

#[test]
fn in_any_world_the_rows_are_those_of_the_plain_calculation() {
    let (first, seeds) = (
        number("SIMULATION_FIRST", 1),
        number("SIMULATION_SEEDS", 60),
    );
    for sources in 1..=3 {
        let mut all = BTreeMap::new();
        for seed in first..first + seeds {
            let faults = Faults::seeded(&mut Random::new(seed));
            for (what, count) in check(&plan(seed, sources, faults)) {
                *all.entry(what).or_insert(0) += count;
            }
        }
        println!("{sources} sources: {all:?}");
        if seeds < 20 {
            continue;
        }
        // A world in which one of these never happens would prove nothing about it.
        for what in [
            "crashes",
            "acknowledgements lost",
            "stalls",
            "conflicts",
            "passed",
            "parked",
            "follow",
            "waits already",
            "left out",
            "freed",
            "superfluous copies",
        ] {
            assert!(all.contains_key(what), "never: {what}: {all:?}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for sources in 1..=3 {
        let plan = plan(7, sources, Faults::seeded(&mut Random::new(7)));
        assert_eq!(run(&plan).trace, run(&plan).trace);
    }
}

#[test]
fn a_worker_that_does_one_thing_wrong_is_found_out() {
    for flaw in Flaw::ALL {
        let found = (1..=200).find_map(|seed| {
            let faults = Faults::seeded(&mut Random::new(seed));
            let plan = Plan {
                flaw: Some(*flaw),
                ..plan(seed, 1 + usize::try_from(seed % 2).unwrap_or(0), faults)
            };
            let problem = run(&plan).problems.into_iter().next()?;
            Some((seed, problem))
        });
        println!("{flaw:?}: {found:.200?}");
        assert!(found.is_some(), "{flaw:?}, and no world shows it");
    }
}
