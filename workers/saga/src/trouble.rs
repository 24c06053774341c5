//! A condition of readiness that many tasks may break and any success mends.

use std::sync::atomic::{AtomicBool, Ordering};
use tidemill_worker_runtime::Health;

/// One condition. Asking whether it is broken costs nothing, so that a hot path may say at every success that it isn't.
pub(crate) struct Trouble {
    condition: &'static str,
    now: AtomicBool,
}

impl Trouble {
    pub(crate) fn new(condition: &'static str) -> Self {
        Trouble {
            condition,
            now: AtomicBool::new(false),
        }
    }

    pub(crate) fn begin(&self, health: &Health, why: String) {
        if !self.now.swap(true, Ordering::Relaxed) {
            tracing::error!(condition = self.condition, reason = why, "work is held up");
        }
        health.not_ready(self.condition, why);
    }

    pub(crate) fn over(&self, health: &Health) {
        if self.now.load(Ordering::Relaxed) && self.now.swap(false, Ordering::Relaxed) {
            health.ready(self.condition);
        }
    }
}
