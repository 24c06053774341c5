//! What workers count, summed over the partitions of a resource: for lists and for status.

use crate::status::{ProjectionCounters, SagaCounters};
use serde::Serialize;

/// Figures of a Projection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProjectionFigures {
    /// Events read.
    pub seen: u64,
    /// Events that a handler matched.
    pub matched: u64,
    /// Events that none matched.
    pub skipped: u64,
    /// Events not folded yet; unknown where nobody looks.
    pub lag: Option<u64>,
    /// Keys parked now.
    pub parked_keys: u64,
    /// Events left out: `onError: Skip`, or a person's decision.
    pub left_out: u64,
    /// Events that were gone from the stream before they were folded.
    pub gone: u64,
}

/// Figures of a Saga.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SagaFigures {
    /// Events of trigger streams read.
    pub seen: u64,
    /// Events that matched a trigger.
    pub matched: u64,
    /// Events that matched none.
    pub skipped: u64,
    /// Parked trigger events: they can't be read or give no id, and started nothing.
    pub parked_triggers: u64,
    /// Instances started, ever.
    pub started: u64,
    /// Instances that go on now.
    pub running: u64,
    /// Instances completed, ever.
    pub completed: u64,
    /// Instances compensated, ever.
    pub compensated: u64,
    /// Instances parked now.
    pub parked: u64,
    /// Attempts made again.
    pub retried: u64,
    /// Replies that came too late.
    pub late_replies: u64,
    /// Replies with a wrong token.
    pub forged_replies: u64,
    /// Times the log was set back.
    pub log_resets: u64,
}

impl ProjectionFigures {
    /// Nothing was counted.
    #[must_use]
    pub fn none() -> Self {
        ProjectionFigures {
            lag: Some(0),
            ..ProjectionFigures::default()
        }
    }

    /// The sum over partitions, each as it is in the bucket. What can't be read counts nothing: another version wrote it.
    #[must_use]
    pub fn sum<'a>(partitions: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let read = partitions
            .into_iter()
            .filter_map(|bytes| serde_json::from_slice(bytes).ok());
        read.fold(ProjectionFigures::none(), ProjectionFigures::and)
    }

    fn and(mut self, counters: ProjectionCounters) -> Self {
        self.seen += counters.seen;
        self.matched += counters.matched;
        self.skipped += counters.skipped;
        self.parked_keys += counters.parked_keys;
        // Each partition tells the lag of the whole stream as it was when it was written.
        let lag: u64 = counters.sources.values().map(|source| source.lag).sum();
        self.lag = self.lag.max(Some(lag));
        self.left_out += counters.left_out;
        // The same of the whole stream.
        self.gone = self.gone.max(counters.gone);
        self
    }
}

impl SagaFigures {
    /// The sum over partitions, each as it is in the bucket. What can't be read counts nothing: another version wrote it.
    #[must_use]
    pub fn sum<'a>(partitions: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let read = partitions
            .into_iter()
            .filter_map(|bytes| serde_json::from_slice(bytes).ok());
        read.fold(SagaFigures::default(), SagaFigures::and)
    }

    fn and(mut self, counters: SagaCounters) -> Self {
        for trigger in counters.triggers.values() {
            self.seen += trigger.seen;
            self.matched += trigger.matched;
            self.skipped += trigger.skipped;
            self.parked_triggers += trigger.parked;
        }
        self.started += counters.started;
        self.running += counters.running;
        self.completed += counters.completed;
        self.compensated += counters.compensated;
        self.parked += counters.parked;
        self.retried += counters.retried;
        self.late_replies += counters.late_replies;
        self.forged_replies += counters.forged_replies;
        // Every partition sees every one.
        self.log_resets = self.log_resets.max(counters.log_resets);
        self
    }
}
