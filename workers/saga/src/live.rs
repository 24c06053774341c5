//! Instances in memory and their timers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tidemill_core::names::{Side, TimerId};
use tidemill_core::saga::{CompiledSaga, Instance, Note, Progress};
use tidemill_core::status::InstanceState;
use tidemill_core::timestamp::Timestamp;

/// Longest sleep without a timer, so that a clock that was set is noticed.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// How long a timer that was appended may take to come back before it is looked at again.
const LOOK_AGAIN_MS: u64 = 1000;
/// Entries of the heap below which those of finished instances don't matter.
const HEAP_MIN: usize = 4096;

/// An instance that isn't finished.
pub(crate) struct Live {
    pub(crate) instance: Instance,
    pub(crate) saga: Arc<CompiledSaga>,
    pub(crate) partition: u16,
    /// Log position of its last input.
    pub(crate) sequence: u64,
    /// The timer that was appended and hasn't come back yet.
    pub(crate) firing: Option<TimerId>,
    /// Attempts that were made before this time, by somebody else, get their whole time again from it.
    pub(crate) patient_until: Timestamp,
    /// Attempts that this worker was not the first to make.
    pub(crate) resent: Vec<(String, Side, u32)>,
    /// When it is due in [`Timers`]; it may be looked at earlier than its timer, never later.
    pub(crate) scheduled: Option<Timestamp>,
}

/// What counters are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) state: InstanceState,
    pub(crate) retried: u64,
}

impl Live {
    pub(crate) fn new(
        instance: Instance,
        saga: Arc<CompiledSaga>,
        partition: u16,
        sequence: u64,
    ) -> Self {
        let patient_until = Timestamp::from_millis(i64::MIN);
        Live {
            instance,
            saga,
            partition,
            sequence,
            firing: None,
            patient_until,
            resent: Vec::new(),
            scheduled: None,
        }
    }

    /// Says in the log what a person wants to know of without being asked.
    pub(crate) fn tell(&self, note: Note, before: InstanceState) {
        let instance = &self.instance;
        if let Some(parked) = &instance.parked
            && before != InstanceState::Parked
        {
            let step = instance.summary(&self.saga, self.sequence).step;
            tracing::warn!(
                instance = instance.id,
                event_id = instance.input.id,
                correlation_id = instance.correlation_id,
                step,
                reason = parked.reason.as_str(),
                // `message` is the name of the line's own text.
                error = parked.message,
                "parked: it waits for a decision"
            );
        } else if note == Note::Forged {
            tracing::warn!(
                instance = instance.id,
                event_id = instance.input.id,
                correlation_id = instance.correlation_id,
                sequence = self.sequence,
                "a reply with a wrong token; it changes nothing"
            );
        }
    }

    /// Says in the log that an attempt of a step is made; `again`: by whoever was the owner before, too.
    pub(crate) fn tell_attempt(&self, (step, side, attempt): (&str, Side, u32), again: bool) {
        let instance = &self.instance;
        tracing::debug!(
            instance = instance.id,
            event_id = instance.input.id,
            correlation_id = instance.correlation_id,
            step,
            ?side,
            attempt,
            again,
            "an attempt is made"
        );
    }

    pub(crate) fn facts(&self) -> Facts {
        Facts {
            state: self.instance.state(),
            retried: self.instance.retried,
        }
    }

    /// The instance's next timer, with the patience that a takeover asks for.
    pub(crate) fn next_timer(&self) -> Option<(Timestamp, TimerId)> {
        let (due, timer) = self.instance.next_timer(&self.saga)?;
        let TimerId::Attempt(step, side, _) = &timer else {
            return Some((due, timer));
        };
        let index = self.saga.step_index(step)?;
        let work = self.instance.steps.get(index)?.side(*side);
        match work.progress {
            Progress::InFlight(Some(deadline)) if work.sent_at < self.patient_until => {
                let due = self
                    .patient_until
                    .plus_millis(deadline.millis_since(work.sent_at));
                Some((due, timer))
            }
            _ => Some((due, timer)),
        }
    }
}

/// Which instance is to be looked at when. Time is the server's, as stored messages show it.
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Timestamp, String)>>,
    /// Milliseconds that the server's clock is behind this one (negative: ahead), at least.
    behind_ms: Option<i64>,
    /// This machine's time when `clock` was begun. Later setting of the system's clock changes nothing.
    began_ms: i64,
    clock: Instant,
}

impl Default for Timers {
    fn default() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timers {
            heap: BinaryHeap::new(),
            behind_ms: None,
            began_ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            clock: Instant::now(),
        }
    }
}

impl Timers {
    /// Learns the server's clock from a message that was stored just now: no message is older than its delivery.
    pub(crate) fn observe(&mut self, stored_at: Timestamp) {
        let behind = self.local_millis().saturating_sub(stored_at.millis());
        // A server's clock that was set back would never be believed again; a little is forgotten each time.
        self.behind_ms = Some(self.behind_ms.map_or(behind, |least| behind.min(least + 1)));
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_millis(
            self.local_millis()
                .saturating_sub(self.behind_ms.unwrap_or(0)),
        )
    }

    fn local_millis(&self) -> i64 {
        let since = i64::try_from(self.clock.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.began_ms.saturating_add(since)
    }

    /// Drops entries that `is_current` no longer knows, of instances that are finished or are looked at another time,
    /// once they are many.
    pub(crate) fn compact(&mut self, live: usize, is_current: impl Fn(&str, Timestamp) -> bool) {
        if self.heap.len() > HEAP_MIN && self.heap.len() / 4 > live {
            self.heap.retain(|Reverse((due, id))| is_current(id, *due));
            self.heap.shrink_to(HEAP_MIN.max(2 * self.heap.len()));
        }
    }

    /// Makes sure the instance is looked at when its next timer is due.
    pub(crate) fn schedule(&mut self, live: &mut Live) {
        let Some((due, _)) = live.next_timer() else {
            return;
        };
        if live.scheduled.is_none_or(|scheduled| due < scheduled) {
            live.scheduled = Some(due);
            self.heap.push(Reverse((due, live.instance.id.clone())));
        }
    }

    /// Looks at the instance again a little later.
    pub(crate) fn look_again(&mut self, live: &mut Live) {
        let due = self.now().plus_millis(LOOK_AGAIN_MS);
        live.scheduled = Some(due);
        self.heap.push(Reverse((due, live.instance.id.clone())));
    }

    pub(crate) fn next_in(&self) -> Duration {
        let Some(Reverse((due, _))) = self.heap.peek() else {
            return SLEEP_MAX;
        };
        Duration::from_millis(due.millis_since(self.now())).min(SLEEP_MAX)
    }

    /// What is due, taken off: ids, and what they were scheduled for.
    pub(crate) fn due(&mut self) -> Vec<(Timestamp, String)> {
        let now = self.now();
        let mut due = Vec::new();
        while let Some(Reverse((at, _))) = self.heap.peek()
            && *at <= now
            && let Some(Reverse(entry)) = self.heap.pop()
        {
            due.push(entry);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finished_instances_leave_the_heap() {
        let mut timers = Timers::default();
        let due = |number: i64| Timestamp::from_millis(4_000_000_000_000 + number);
        for number in 0..100_000 {
            timers
                .heap
                .push(Reverse((due(number), format!("o-{number}"))));
            // Ten of them run, the others are finished.
            timers.compact(10, |id, at| id.len() == 3 && at == due(id_number(id)));
            assert!(timers.heap.len() <= HEAP_MIN + 1);
        }
        let kept = timers.heap.iter().filter(|Reverse((_, id))| id.len() == 3);
        assert_eq!(kept.count(), 10);
    }

    fn id_number(id: &str) -> i64 {
        id.get(2..).and_then(|text| text.parse().ok()).unwrap_or(-1)
    }

    #[test]
    fn the_servers_clock_is_followed_and_nothing_fires_early() {
        let mut timers = Timers::default();
        let here = timers.now();
        // The server is an hour behind.
        let hour = 3_600_000;
        timers.observe(Timestamp::from_millis(here.millis() - hour));
        assert!(timers.now().millis() <= here.millis() - hour + 1000);
        // A message that was long on its way says nothing new.
        timers.observe(Timestamp::from_millis(here.millis() - 2 * hour));
        assert!(timers.now().millis() >= here.millis() - hour - 10);
    }
}
