//! Pauses between a driver's sessions.

use std::time::Duration;

/// First pause: most interruptions are over by then.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause: what was repaired is noticed within it.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Doubles from 100 ms to 5 s, and begins anew when something worked.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after one more failure.
    pub fn next_pause(&mut self) -> Duration {
        let pause = (PAUSE_MIN * 2_u32.pow(self.failures.min(10))).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        pause
    }

    /// Something worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_limit_and_begin_anew() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..8).map(|_| backoff.next_pause().as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        backoff.reset();
        assert_eq!(backoff.next_pause(), PAUSE_MIN);
    }
}
