//! Whether a worker is ready, and why not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Named conditions, each fulfilled or not for a reason. Ready = all are fulfilled, and there is one at least. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<BTreeMap<String, Option<String>>>>);

/// The conditions at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether the worker does its work.
    pub ready: bool,
    /// The reasons why not, by condition.
    pub reasons: BTreeMap<String, String>,
}

impl Health {
    /// No condition yet, so not ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// The condition is fulfilled.
    pub fn ready(&self, condition: &str) {
        self.set(condition, None);
    }

    /// The condition isn't fulfilled, for a reason that a person can act on.
    pub fn not_ready(&self, condition: &str, reason: impl Into<String>) {
        self.set(condition, Some(reason.into()));
    }

    fn set(&self, condition: &str, reason: Option<String>) {
        let mut conditions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if conditions.get(condition) != Some(&reason) {
            match &reason {
                Some(reason) => tracing::info!(condition, reason, "not ready"),
                None => tracing::info!(condition, "ready"),
            }
            conditions.insert(condition.to_owned(), reason);
        }
    }

    /// The conditions now.
    pub fn report(&self) -> Report {
        let conditions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reasons: BTreeMap<String, String> = conditions
            .iter()
            .filter_map(|(condition, reason)| Some((condition.clone(), reason.clone()?)))
            .collect();
        if conditions.is_empty() {
            reasons.insert("started".to_owned(), "it is starting".to_owned());
        }
        Report {
            ready: reasons.is_empty(),
            reasons,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_condition_is_fulfilled() {
        let health = Health::new();
        assert!(!health.report().ready);
        health.not_ready("nats", "away");
        health.ready("caught-up");
        let report = health.report();
        assert_eq!(
            (report.ready, report.reasons["nats"].as_str()),
            (false, "away")
        );
        health.ready("nats");
        assert!(health.report().ready);
    }
}
