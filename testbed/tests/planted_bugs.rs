//! Bugs planted in the machines, and the worlds that must show them: a simulation that finds nothing proves nothing.
//!
//! That each law has a test of its own which catches its bugs is shown in `core/tests/laws/planted.rs`. Here it is the
//! judge of the simulation that must notice, knowing nothing of the bug. What changes only when something is done, and
//! not whether it is right in the end (a backoff, a timeout, whom a person is told of), no simulation can show.
//!
//! `cargo test -p tidemill-testbed --features planted-bugs --test planted_bugs`

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test, also outside of its #[test] functions"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use tidemill_core::planted::{Bug, plant};
use tidemill_testbed::simulation::saga::{Faults, Plan, run};
use tidemill_testbed::simulation::{Random, projection, shapes};

/// What breaks the world so that anybody sees it.
const SHOWN: &[Bug] = &[
    Bug::JitterFromElsewhere,
    Bug::OutstandingForgotten,
    Bug::TokenNotChecked,
    Bug::StreamAckIsSuccess,
    Bug::CommandIdPerAttempt,
    Bug::CommandIdWithoutRun,
    Bug::CompensatesNothing,
    Bug::UnknownNotCompensated,
    Bug::SoleIgnored,
    Bug::SecondQuestionForgotten,
    Bug::CompensatedBesideActions,
    Bug::CompensatedAllAtOnce,
    Bug::FailedCompensationLeft,
    Bug::AfterIgnored,
    Bug::FailureAfterPivotTurnsBack,
    Bug::ConcludedBeforeStored,
    Bug::PublishIdPerTime,
    Bug::PublishTimeIsNow,
    Bug::RefusedPublishLeft,
];

/// Worlds of each shape that a bug may take to show itself.
const SEEDS: u64 = 12;

/// The first world that shows the bug: shape, seed and what was wrong in it.
fn shown_by(bug: Bug) -> Option<(&'static str, u64, String)> {
    let _planted = plant(bug);
    let shapes = shapes::all();
    for seed in 1..=SEEDS {
        for (name, saga) in &shapes {
            let plan = Plan {
                seed,
                instances: 6,
                owners: 1 + usize::try_from(seed % 2).unwrap(),
                faults: Faults::seeded(&mut Random::new(seed)),
            };
            let problem = match catch_unwind(AssertUnwindSafe(|| run(saga, &plan))) {
                Ok(report) => report.problems.first().cloned(),
                Err(_) => Some("it panicked".to_owned()),
            };
            if let Some(problem) = problem {
                return Some((name, seed, problem));
            }
        }
    }
    None
}

#[test]
fn the_simulation_shows_the_bugs_of_the_saga_machine() {
    let mut missed = Vec::new();
    for bug in SHOWN {
        match shown_by(*bug) {
            Some((shape, seed, problem)) => {
                println!("{:28} {shape}, seed {seed}: {problem}", bug.name());
            }
            None => missed.push(bug.name()),
        }
    }
    assert_eq!(missed, Vec::<&str>::new(), "planted, and no world shows it");
}

/// The same of the projection machine.
const SHOWN_BY_ROWS: &[Bug] = &[
    Bug::SetReplacesRow,
    Bug::OwnKeyIgnored,
    Bug::KeylessLost,
    Bug::PositionNotChecked,
    Bug::OnePositionForAllSources,
    Bug::TombstoneForgotten,
    Bug::IncrementInBinary,
    Bug::HandlersSeeNewColumns,
    Bug::NullRemovesColumn,
    Bug::FirstHandlerOnly,
    Bug::HalfAnEventFolded,
    Bug::FollowersPass,
    Bug::PoisonStopsOthers,
    Bug::PoisonLeftOut,
    Bug::WaitsTwice,
    Bug::DecisionIgnored,
    Bug::DigitsLost,
];

#[test]
fn the_simulation_shows_the_bugs_of_the_projection_machine() {
    let mut missed = Vec::new();
    for bug in SHOWN_BY_ROWS {
        let shown = (1..=SEEDS * 3).find_map(|seed| {
            let plan = projection::Plan {
                seed,
                sources: 1 + usize::try_from(seed % 3).unwrap(),
                events: 150,
                owners: 2,
                faults: projection::Faults::seeded(&mut Random::new(seed)),
                flaw: None,
            };
            let _planted = plant(*bug);
            match catch_unwind(AssertUnwindSafe(|| projection::run(&plan))) {
                Ok(report) => Some((seed, report.problems.into_iter().next()?)),
                Err(_) => Some((seed, "it panicked".to_owned())),
            }
        });
        match shown {
            Some((seed, problem)) => println!("{:28} seed {seed}: {problem:.160}", bug.name()),
            None => missed.push(bug.name()),
        }
    }
    assert_eq!(missed, Vec::<&str>::new(), "planted, and no world shows it");
}
