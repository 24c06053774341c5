//! Which keys are parked, and what waits for each.

use super::super::position::Position;
use super::WAITING_MAX;
use crate::planted::{Bug, planted};
use std::collections::BTreeMap;

/// One event that waits for one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Sequence of its first copy in the parked stream.
    pub kept_at: u64,
    /// Index of its source.
    pub source: usize,
    /// Its position there.
    pub position: Position,
    /// Why it can't be folded: a stable word; `None` for one that only follows.
    pub reason: Option<Box<str>>,
}

/// Every key that waits, by its token.
#[derive(Clone, Debug)]
pub struct ParkedKeys {
    keys: BTreeMap<Box<str>, Vec<Waiting>>,
    events: usize,
    events_max: usize,
}

impl Default for ParkedKeys {
    fn default() -> Self {
        ParkedKeys::with_events_max(WAITING_MAX)
    }
}

impl ParkedKeys {
    /// Nothing is parked.
    #[must_use]
    pub fn new() -> ParkedKeys {
        ParkedKeys::default()
    }

    /// Nothing is parked, and so many events may be instead of [`WAITING_MAX`].
    #[must_use]
    pub fn with_events_max(events_max: usize) -> ParkedKeys {
        ParkedKeys {
            keys: BTreeMap::new(),
            events: 0,
            events_max,
        }
    }

    /// What waits for a key, in the order in which it must be folded.
    #[must_use]
    pub fn waiting(&self, token: &str) -> &[Waiting] {
        self.keys.get(token).map_or(&[], Vec::as_slice)
    }

    /// Adds an event; false if it waits already, and then nothing changes: the copy is superfluous.
    pub fn add(&mut self, token: &str, waiting: Waiting) -> bool {
        let queue = match self.keys.get_mut(token) {
            Some(queue) => queue,
            None => self.keys.entry(token.into()).or_default(),
        };
        let same_source = |entry: &&Waiting| entry.source == waiting.source;
        if queue
            .iter()
            .filter(same_source)
            .any(|entry| entry.position == waiting.position)
        {
            return false;
        }
        // Overlapping owners may have copied events of one source out of order.
        let before = queue
            .iter()
            .position(|entry| entry.source == waiting.source && entry.position > waiting.position);
        queue.insert(before.unwrap_or(queue.len()), waiting);
        self.events += 1;
        true
    }

    /// Notes where the first copy of an event is.
    pub fn kept(&mut self, token: &str, source: usize, position: Position, at: u64) {
        let queue = self.keys.get_mut(token).into_iter().flatten();
        for entry in queue.filter(|entry| (entry.source, entry.position) == (source, position)) {
            entry.kept_at = at;
        }
    }

    /// Removes an event that waits no more.
    pub fn remove(&mut self, token: &str, source: usize, position: Position) -> Option<Waiting> {
        let queue = self.keys.get_mut(token)?;
        let index = queue
            .iter()
            .position(|entry| (entry.source, entry.position) == (source, position))?;
        let removed = queue.remove(index);
        if queue.is_empty() {
            self.keys.remove(token);
        }
        self.events -= 1;
        Some(removed)
    }

    /// Number of keys that wait; all events without a key count as one.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Number of events that wait.
    #[must_use]
    pub fn events(&self) -> usize {
        self.events
    }

    /// Most events that may wait.
    #[must_use]
    pub fn events_max(&self) -> usize {
        self.events_max
    }

    /// Whether no further event may wait. What was parked before is kept, even if it is more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.events >= self.events_max && !planted(Bug::ParkedEventsUnlimited)
    }

    /// The tokens of all keys that wait, in order.
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(|token| &**token)
    }
}
