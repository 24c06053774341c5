//! What each folded input does to the counters.

use crate::engine::Engine;
use crate::live::{Facts, Live};
use tidemill_core::saga::Note;
use tidemill_core::status::{InstanceState, SagaCounters};

impl Engine {
    pub(crate) fn note_started(&self, partition: u16, facts: Facts, sequence: u64) {
        self.tally.change(partition, |counters| {
            counters.started += 1;
            counters.log_sequence = sequence;
            enter(counters, facts.state);
        });
    }

    pub(crate) fn note(
        &self,
        partition: u16,
        note: Note,
        before: Facts,
        after: Facts,
        sequence: u64,
    ) {
        self.tally.change(partition, |counters| {
            counters.log_sequence = sequence;
            counters.retried += after.retried.saturating_sub(before.retried);
            counters.late_replies += u64::from(note == Note::Late);
            counters.forged_replies += u64::from(note == Note::Forged);
            if before.state != after.state {
                leave(counters, before.state);
                enter(counters, after.state);
            }
        });
    }

    /// Metrics are cumulative over what happened while this worker looked on, not over what it reads again at its start.
    pub(crate) fn measure(&self, note: Note, before: Option<Facts>, after: Facts) {
        let metrics = &self.metrics;
        match note {
            Note::Late => metrics.late_replies.inc(),
            Note::Forged => metrics.forged_replies.inc(),
            Note::StreamAnswered => metrics.stream_answers.inc(),
            _ => 0,
        };
        if before.is_none() {
            metrics.started.inc();
        }
        if before.map(|before| before.state) != Some(after.state) {
            match after.state {
                InstanceState::Completed => metrics.completed.inc(),
                InstanceState::Compensated => metrics.compensated.inc(),
                InstanceState::Parked => metrics.parked.inc(),
                InstanceState::Running | InstanceState::Compensating => 0,
            };
        }
    }

    /// An instance that finished while the log was folded again: its last summary may not have been written.
    pub(crate) fn summarize_again(&self, live: &Live) {
        // The position itself too: counters may have been written between an input's count and its summary.
        if live.sequence >= self.tally.summarized_through(live.partition) {
            self.summaries
                .put(live.instance.summary(&live.saga, live.sequence));
        }
    }
}

fn enter(counters: &mut SagaCounters, state: InstanceState) {
    match state {
        InstanceState::Running | InstanceState::Compensating => counters.running += 1,
        InstanceState::Parked => counters.parked += 1,
        InstanceState::Completed => counters.completed += 1,
        InstanceState::Compensated => counters.compensated += 1,
    }
}

fn leave(counters: &mut SagaCounters, state: InstanceState) {
    match state {
        InstanceState::Running | InstanceState::Compensating => {
            counters.running = counters.running.saturating_sub(1)
        }
        InstanceState::Parked => counters.parked = counters.parked.saturating_sub(1),
        // Nothing leaves its end.
        InstanceState::Completed | InstanceState::Compensated => {}
    }
}
