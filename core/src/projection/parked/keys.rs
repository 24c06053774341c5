//! Which keys are parked, and what waits for each.

use super::super::position::Position;
use super::WAITING_MAX;
use crate::planted::{Bug, planted};
use std::collections::{BTreeMap, VecDeque};

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

/// Every key that waits, by its token. One key may have as many followers as there may be events, so nothing that is done for each
/// event looks at all of them.
#[derive(Clone, Debug)]
pub struct ParkedKeys {
    keys: BTreeMap<Box<str>, Queue>,
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
    pub fn waiting(&self, token: &str) -> WaitingFor<'_> {
        WaitingFor {
            queue: self.keys.get(token),
        }
    }

    /// Adds an event; false if it waits already, and then nothing changes: the copy is superfluous.
    pub fn add(&mut self, token: &str, waiting: Waiting) -> bool {
        let queue = match self.keys.get_mut(token) {
            Some(queue) => queue,
            None => self.keys.entry(token.into()).or_default(),
        };
        let added = queue.add(waiting);
        self.events += usize::from(added);
        added
    }

    /// Notes where the first copy of an event is.
    pub fn kept(&mut self, token: &str, source: usize, position: Position, at: u64) {
        let entries = self.keys.get_mut(token).map(|queue| &mut queue.sources);
        if let Some(entries) = entries.and_then(|sources| sources.get_mut(&source))
            && let Ok(index) = place(entries, position)
            && let Some(entry) = entries.get_mut(index)
        {
            entry.waiting.kept_at = at;
        }
    }

    /// Removes an event that waits no more.
    pub fn remove(&mut self, token: &str, source: usize, position: Position) -> Option<Waiting> {
        let queue = self.keys.get_mut(token)?;
        let entries = queue.sources.get_mut(&source)?;
        let removed = entries.remove(place(entries, position).ok()?)?;
        if entries.is_empty() {
            queue.sources.remove(&source);
        }
        if queue.sources.is_empty() {
            self.keys.remove(token);
        }
        self.events -= 1;
        Some(removed.waiting)
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

/// What waits for one key; never empty.
#[derive(Clone, Debug, Default)]
struct Queue {
    /// By source, in the order of positions; none of them is empty.
    sources: BTreeMap<usize, VecDeque<Placed>>,
    /// [`Placed::turn`] of the next event that comes last.
    next: u64,
}

#[derive(Clone, Debug)]
struct Placed {
    /// When its turn is, over all sources. Never less than that of what is before it in its source, and never that of another source.
    turn: u64,
    waiting: Waiting,
}

/// Where a position is among those of a source, or where it belongs.
fn place(entries: &VecDeque<Placed>, position: Position) -> Result<usize, usize> {
    // What is read goes forward, so nearly everything belongs at the end.
    match entries.back() {
        Some(last) if last.waiting.position < position => Err(entries.len()),
        _ => entries.binary_search_by_key(&position, |entry| entry.waiting.position),
    }
}

impl Queue {
    fn add(&mut self, waiting: Waiting) -> bool {
        let entries = self.sources.entry(waiting.source).or_default();
        let Err(index) = place(entries, waiting.position) else {
            return false;
        };
        // Overlapping owners may have copied events of one source out of order. Such an event goes right before the next of its source.
        let turn = entries.get(index).map_or(self.next, |after| after.turn);
        self.next = self.next.max(turn + 1);
        entries.insert(index, Placed { turn, waiting });
        true
    }
}

/// What waits for one key.
#[derive(Clone, Copy, Debug)]
pub struct WaitingFor<'a> {
    queue: Option<&'a Queue>,
}

impl<'a> WaitingFor<'a> {
    /// Whether nothing waits: the key isn't parked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_none()
    }

    /// Whether an event waits.
    #[must_use]
    pub fn contains(&self, source: usize, position: Position) -> bool {
        self.of(source)
            .is_some_and(|entries| place(entries, position).is_ok())
    }

    /// The first that waits of a source.
    #[must_use]
    pub fn first_of(&self, source: usize) -> Option<&'a Waiting> {
        Some(&self.of(source)?.front()?.waiting)
    }

    /// All, in the order in which they must be folded.
    pub fn iter(&self) -> impl Iterator<Item = &'a Waiting> + use<'a> {
        let sources = self
            .queue
            .into_iter()
            .flat_map(|queue| queue.sources.values());
        let mut rests: Vec<_> = sources.map(|entries| entries.iter().peekable()).collect();
        std::iter::from_fn(move || {
            let turn = |(index, rest): (usize, &mut std::iter::Peekable<_>)| {
                let next: Option<&&Placed> = rest.peek();
                next.map(|entry| (entry.turn, index))
            };
            let (_, next) = rests.iter_mut().enumerate().filter_map(turn).min()?;
            rests.get_mut(next)?.next().map(|entry| &entry.waiting)
        })
    }

    /// A copy of all, in the order in which they must be folded.
    #[must_use]
    pub fn to_vec(&self) -> Vec<Waiting> {
        self.iter().cloned().collect()
    }

    fn of(&self, source: usize) -> Option<&'a VecDeque<Placed>> {
        self.queue?.sources.get(&source)
    }
}
