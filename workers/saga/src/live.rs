//! Instances in memory and their timers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tidemill_core::names::{Side, TimerId};
use tidemill_core::saga::{CompiledSaga, Instance, Progress};
use tidemill_core::status::InstanceState;
use tidemill_core::timestamp::Timestamp;

/// Longest sleep without a timer, so that a clock that was set is noticed.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// How long a timer that was appended may take to come back before it is looked at again.
const LOOK_AGAIN_MS: u64 = 1000;

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
#[derive(Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Timestamp, String)>>,
    /// Milliseconds that the server's clock is behind this machine's (negative: ahead), at least.
    behind_ms: Option<i64>,
}

impl Timers {
    /// Learns the server's clock from a message that was stored just now: no message is older than its delivery.
    pub(crate) fn observe(&mut self, stored_at: Timestamp) {
        let behind = local_millis() - stored_at.millis();
        // A clock that was set forward would never be believed again; a little is forgotten each time.
        self.behind_ms = Some(self.behind_ms.map_or(behind, |least| behind.min(least + 1)));
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_millis(local_millis() - self.behind_ms.unwrap_or(0))
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

    /// Ids that are due, taken off.
    pub(crate) fn due(&mut self) -> Vec<String> {
        let now = self.now();
        let mut due = Vec::new();
        while let Some(Reverse((at, _))) = self.heap.peek()
            && *at <= now
            && let Some(Reverse((_, id))) = self.heap.pop()
        {
            due.push(id);
        }
        due
    }
}

fn local_millis() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
