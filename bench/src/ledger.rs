//! What participants did for each instance, and whether that is what its end says.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use tidemill_core::status::SagaCounters;

/// Subject at which the participants say their [`Tally`]; none of a request's.
pub const STATS_SUBJECT: &str = "bench-stats";

/// The steps, in order.
const STEPS: [&str; 3] = ["reserve", "charge", "ship"];

/// Everything that was asked of the participants.
#[derive(Debug, Default)]
pub struct Ledger {
    instances: HashMap<Box<str>, Account>,
    repeated: u64,
    foreign: u64,
}

/// What was done for one instance: one bit for each step.
#[derive(Debug, Default, PartialEq, Eq)]
struct Account {
    done: u8,
    undone: u8,
    refused: u8,
}

/// A [`Ledger`] in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Instances of which all steps were done, and nothing undone or refused.
    pub completed: u64,
    /// Instances of which the last step was refused and the others were done and undone.
    pub compensated: u64,
    /// Any other instances.
    pub others: u64,
    /// Commands that came again.
    pub repeated: u64,
    /// Requests that are no command of these steps.
    pub foreign: u64,
    /// One of `others`, for people.
    pub example: Option<String>,
}

impl Ledger {
    /// Notes a command by its id; `refused`: it was not carried out.
    pub fn take(&mut self, command: &str, refused: bool) {
        let mut parts = command.trim_matches('"').split('/').skip(2);
        let (instance, _run, step) = (parts.next(), parts.next(), parts.next());
        let index = STEPS.iter().position(|name| Some(*name) == step);
        let (Some(instance), Some(index)) = (instance, index) else {
            self.foreign += 1;
            return;
        };
        let account = match self.instances.get_mut(instance) {
            Some(account) => account,
            None => self.instances.entry(instance.into()).or_default(),
        };
        let bits = match (parts.next(), refused) {
            (_, true) => &mut account.refused,
            (Some(_), false) => &mut account.undone,
            (None, false) => &mut account.done,
        };
        if *bits & 1 << index != 0 {
            self.repeated += 1;
        }
        *bits |= 1 << index;
    }

    /// It in numbers.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let mut tally = Tally {
            repeated: self.repeated,
            foreign: self.foreign,
            ..Tally::default()
        };
        for (instance, account) in &self.instances {
            match (account.done, account.undone, account.refused) {
                (0b111, 0, 0) => tally.completed += 1,
                (0b011, 0b011, 0b100) => tally.compensated += 1,
                _ => {
                    tally.others += 1;
                    tally.example = Some(format!("{instance}: {account:?}"));
                }
            }
        }
        tally
    }
}

impl Tally {
    /// Compares it with how the worker says that its instances ended.
    ///
    /// # Errors
    /// If an effect is missing, is there without need, or came twice without a retry.
    pub fn agrees_with(&self, counters: &SagaCounters) -> Result<()> {
        let ends = (counters.completed, counters.compensated);
        ensure!(
            (self.completed, self.compensated) == ends && self.others == 0 && self.foreign == 0,
            "the participants say {self:?}, the worker {counters:?}"
        );
        ensure!(
            self.repeated <= counters.retried,
            "{} commands came again, {} attempts were made again",
            self.repeated,
            counters.retried
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(completed: u64, compensated: u64, retried: u64) -> SagaCounters {
        SagaCounters {
            completed,
            compensated,
            retried,
            ..SagaCounters::default()
        }
    }

    #[test]
    fn a_ledger_agrees_with_the_ends_it_shows_and_with_no_others() {
        let mut ledger = Ledger::default();
        for step in STEPS {
            ledger.take(&format!("shop/bench/a/0/{step}"), false);
            ledger.take(&format!("shop/bench/b/0/{step}"), step == "ship");
        }
        ledger.take("\"shop/bench/b/0/charge/compensate\"", false);
        assert!(
            ledger.tally().agrees_with(&counters(1, 1, 0)).is_err(),
            "b is half undone"
        );
        ledger.take("shop/bench/b/0/reserve/compensate", false);
        for (ends, agrees) in [((1, 1, 0), true), ((2, 0, 0), false), ((2, 1, 0), false)] {
            let counters = counters(ends.0, ends.1, ends.2);
            assert_eq!(
                ledger.tally().agrees_with(&counters).is_ok(),
                agrees,
                "{ends:?}"
            );
        }
        ledger.take("shop/bench/a/0/ship", false);
        assert!(
            ledger.tally().agrees_with(&counters(1, 1, 0)).is_err(),
            "twice"
        );
        assert!(
            ledger.tally().agrees_with(&counters(1, 1, 1)).is_ok(),
            "a retry"
        );
        ledger.take("", false);
        assert!(
            ledger.tally().agrees_with(&counters(1, 1, 1)).is_err(),
            "foreign"
        );
    }
}
