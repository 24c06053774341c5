//! When the next attempt is made: exponential backoff with seeded jitter.

use crate::planted::{Bug, planted, whim};
use serde::{Deserialize, Serialize};

/// How often and how patiently something is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retry {
    /// Attempts in all, the first included; at least 1.
    pub max_attempts: u32,
    /// Wait after the first failure, in milliseconds. It doubles with each further failure.
    pub initial_backoff_ms: u64,
    /// Longest wait, in milliseconds.
    pub max_backoff_ms: u64,
}

impl Default for Retry {
    fn default() -> Self {
        Retry {
            max_attempts: 5,
            initial_backoff_ms: 200,
            max_backoff_ms: 30_000,
        }
    }
}

impl Retry {
    /// Milliseconds to wait after the `failures`-th failure (counted from 1).
    ///
    /// The doubled backoff is lowered by up to a quarter, so that what failed together is not tried again together;
    /// by how much is decided by `seed` alone, so that every replay waits equally long.
    pub fn backoff_ms(&self, failures: u32, seed: &str) -> u64 {
        let doublings = match planted(Bug::BackoffConstant) {
            true => 0,
            false => failures.saturating_sub(1).min(63),
        };
        let full = self
            .initial_backoff_ms
            .saturating_mul(1_u64 << doublings)
            .min(self.max_backoff_ms);
        let share = match planted(Bug::JitterFromElsewhere) {
            true => whim() % 1024,
            false => u64::from(crate::names::partition(seed, 1024)),
        };
        full - (u128::from(full) * u128::from(share) / 4096) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn backoff_doubles_within_its_limits(failures in 1_u32..200, initial in 0_u64..100_000, max in 0_u64..10_000_000, seed in ".{0,8}") {
            let retry = Retry { max_attempts: 5, initial_backoff_ms: initial, max_backoff_ms: max };
            let full = (u128::from(initial) << (failures - 1).min(64)).min(u128::from(max)) as u64;
            let wait = retry.backoff_ms(failures, &seed);
            prop_assert!(wait <= full && wait >= full - full / 4 - 1);
            prop_assert_eq!(wait, retry.backoff_ms(failures, &seed));
        }
    }
}
