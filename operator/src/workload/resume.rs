//! Whether a Saga that is applied anew goes on by itself: pure. Its instances were left where they were when it was deleted; after a long
//! while nobody expects them to go on charging cards, so a person is asked.

use crate::conditions::{Reason, Verdict};
use std::time::Duration;
use tidemill_core::figures::SagaFigures;
use tidemill_crds::common::RESUME;

/// Why it is held, if it is. `idle` = for how long nothing has happened to its instances; `limit` = how long that may be.
pub fn held(figures: &SagaFigures, idle: Duration, limit: Duration) -> Option<Verdict> {
    let unfinished = figures.running + figures.parked;
    (unfinished > 0 && idle > limit).then(|| {
        let message = format!(
            "unfinished instances: {unfinished}; nothing has happened to them for {}, and they would go on now. Look at \
             them with `tidemill saga list`, and let them with `tidemill saga resume` (annotation {RESUME}: \"true\")",
            in_words(idle)
        );
        Verdict::new(Reason::ResumeHeld, message)
    })
}

fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_unfinished_and_old_is_held() {
        let limit = Duration::from_secs(3_600);
        let figures = |running, parked| SagaFigures {
            running,
            parked,
            ..SagaFigures::default()
        };
        let day = Duration::from_secs(86_400);
        assert_eq!(held(&figures(0, 0), day, limit), None);
        assert_eq!(held(&figures(5, 0), limit, limit), None);
        let verdict = held(&figures(5, 2), day, limit);
        let message = verdict.map(|verdict| verdict.message).unwrap_or_default();
        assert!(message.starts_with("unfinished instances: 7;"), "{message}");
        assert!(message.contains("for 24 h"), "{message}");
    }

    #[test]
    fn times_are_told_roughly() {
        let told = [59, 120, 7_200, 172_800].map(|seconds| in_words(Duration::from_secs(seconds)));
        assert_eq!(told, ["59 s", "2 min", "2 h", "2 days"]);
    }
}
