//! Waiting on a condition.

use std::fmt::Display;
use std::future::Future;
use std::panic::Location;
use std::time::Duration;

use tokio::time::{Instant, timeout};

/// First pause between two looks at a condition; most conditions hold at the second look.
const PAUSE_MIN: Duration = Duration::from_millis(2);
/// Longest pause: short against any cap a test would use, long enough to leave a 2-core machine to the programs under test.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Waits until `condition` gives `Ok` and returns its value.
///
/// The condition is looked at again and again with a pause that doubles from 2 ms to 100 ms. `Err` says what was seen instead.
/// `what` completes the sentence "waited for …".
///
/// # Panics
/// When `cap` has passed, with `what`, the last observation and the caller's place. A condition that itself hangs is cut off at `cap`.
///
/// ```
/// # use std::time::Duration;
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let mut looks = 0;
/// let n = tidemill_testbed::eventually("three looks", Duration::from_secs(5), async || {
///     looks += 1;
///     if looks == 3 { Ok(looks) } else { Err(format!("{looks} looks")) }
/// })
/// .await;
/// assert_eq!(n, 3);
/// # });
/// ```
#[track_caller]
pub fn eventually<T, E: Display>(
    what: impl Display,
    cap: Duration,
    condition: impl AsyncFnMut() -> Result<T, E>,
) -> impl Future<Output = T> {
    let place = Location::caller();
    async move {
        match within(cap, condition).await {
            Ok(value) => value,
            #[expect(clippy::panic, reason = "this is how a test fails")]
            Err(last) => panic!("{place}: waited {cap:?} for {what}; last seen: {last}"),
        }
    }
}

/// As [`eventually`], but gives the last observation back when `cap` has passed.
///
/// # Errors
/// The last observation, as text.
pub async fn within<T, E: Display>(
    cap: Duration,
    mut condition: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, String> {
    let deadline = Instant::now() + cap;
    let mut pause = PAUSE_MIN;
    let mut last = String::from("nothing, the condition never answered");
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match timeout(left, condition()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(seen)) => last = seen.to_string(),
            Err(_elapsed) => return Err(last),
        }
        if Instant::now() + pause >= deadline {
            return Err(last);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn gives_the_last_observation_when_time_is_up() {
        let mut looks = 0;
        let seen = within(Duration::from_secs(1), async || {
            looks += 1;
            Err::<(), _>(format!("look {looks}"))
        })
        .await
        .unwrap_err();
        assert!(looks > 5, "{looks}");
        assert_eq!(seen, format!("look {looks}"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_condition_that_hangs_is_cut_off() {
        let hang = async || {
            std::future::pending::<()>().await;
            Ok::<(), &str>(())
        };
        assert!(within(Duration::from_secs(1), hang).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "for the moon; last seen: clouds")]
    async fn panics_with_what_was_awaited() {
        eventually("the moon", Duration::from_secs(1), async || {
            Err::<(), _>("clouds")
        })
        .await;
    }
}
