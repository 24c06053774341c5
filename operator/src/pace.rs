//! How often figures of statuses are written: at most every 10 s per object and 5 times a second for the whole operator, so that load
//! on NATS isn't load on the API server. Conditions aren't held back. What is written when is decided by a pure queue; the loop
//! around it is in [`crate::runtime`].

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Least time between two writes of one object's figures.
pub const PER_OBJECT: Duration = Duration::from_secs(10);
/// Least time between two writes of any figures.
pub const BETWEEN: Duration = Duration::from_millis(200);
/// How long a turn lasts: less than `PER_OBJECT`, so that it can't be added to the next.
const TURN_MAX: Duration = Duration::from_secs(5);

/// An object whose figures are written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Its kind.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Who waits, and who may.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Key>,
    is_waiting: HashSet<Key>,
    /// When each object that may write got its turn: one that finds nothing to write lets it pass.
    allowed: HashMap<Key, Instant>,
    /// When each object had its turn; those of before `PER_OBJECT` are forgotten.
    turns: HashMap<Key, Instant>,
}

impl Queue {
    fn want(&mut self, key: Key) {
        if self.is_waiting.insert(key.clone()) {
            self.waiting.push_back(key);
        }
    }

    /// The next object that may, at the moment of its turn.
    fn next(&mut self, now: Instant) -> Option<Key> {
        self.turns
            .retain(|_, turn| now.saturating_duration_since(*turn) < PER_OBJECT);
        let at = self
            .waiting
            .iter()
            .position(|key| !self.turns.contains_key(key))?;
        let key = self.waiting.remove(at)?;
        self.is_waiting.remove(&key);
        self.turns.insert(key.clone(), now);
        self.allowed
            .retain(|_, turn| now.saturating_duration_since(*turn) < TURN_MAX);
        self.allowed.insert(key.clone(), now);
        Some(key)
    }

    /// Takes the permission of an object, if it has it.
    fn take(&mut self, key: &Key, now: Instant) -> bool {
        let turn = self.allowed.remove(key);
        turn.is_some_and(|turn| now.saturating_duration_since(turn) < TURN_MAX)
    }
}

/// The queue, shared. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Pace(Arc<Mutex<Queue>>);

impl Pace {
    fn with<T>(&self, act: impl FnOnce(&mut Queue) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The object's figures have changed: it gets its turn.
    pub fn want(&self, key: Key) {
        self.with(|queue| queue.want(key));
    }

    /// The object whose turn it is; to be asked every [`BETWEEN`].
    pub fn next(&self, now: Instant) -> Option<Key> {
        self.with(|queue| queue.next(now))
    }

    /// Whether the object's figures may be written now. If not, it gets its turn.
    pub fn may_write(&self, key: Key, now: Instant) -> bool {
        self.with(|queue| {
            let may = queue.take(&key, now);
            if !may {
                queue.want(key);
            }
            may
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: impl Into<String>) -> Key {
        Key {
            kind: "EventStream",
            namespace: "shop".to_owned(),
            name: name.into(),
        }
    }

    #[test]
    fn an_object_waits_for_its_turn_and_writes_once() {
        let (pace, begin) = (Pace::default(), Instant::now());
        assert!(!pace.may_write(key("a"), begin), "it hasn't had its turn");
        pace.want(key("a"));
        assert_eq!(pace.next(begin), Some(key("a")));
        assert_eq!(pace.next(begin), None, "it waited once");
        assert!(pace.may_write(key("a"), begin));
        assert!(!pace.may_write(key("a"), begin));
        let early = begin + PER_OBJECT - Duration::from_millis(1);
        assert_eq!(pace.next(early), None);
        // Others aren't held back by it.
        pace.want(key("b"));
        assert_eq!(pace.next(early), Some(key("b")));
        assert_eq!(pace.next(begin + PER_OBJECT), Some(key("a")));
    }

    #[test]
    fn a_turn_that_was_not_needed_silences_nobody() {
        let (pace, begin) = (Pace::default(), Instant::now());
        pace.want(key("a"));
        assert_eq!(pace.next(begin), Some(key("a")));
        // There was nothing to write; there is now.
        pace.want(key("a"));
        let next = begin + PER_OBJECT;
        assert_eq!(pace.next(next), Some(key("a")));
        assert!(
            !pace.may_write(key("a"), next + TURN_MAX),
            "it let its turn pass"
        );
        assert_eq!(pace.next(next + PER_OBJECT), Some(key("a")));
    }

    #[test]
    fn all_get_their_turn_in_the_order_in_which_they_asked() {
        let (pace, begin) = (Pace::default(), Instant::now());
        let mut written: HashMap<Key, Vec<Duration>> = HashMap::new();
        // All of 100 change all the time, for two minutes.
        for turn in 0..600 {
            let now = begin + BETWEEN * turn;
            (0..100).for_each(|name| pace.want(key(name.to_string())));
            let next = pace
                .next(now)
                .filter(|key| pace.may_write(key.clone(), now));
            if let Some(key) = next {
                written.entry(key).or_default().push(now - begin);
            }
        }
        assert_eq!(written.len(), 100);
        for (key, times) in written {
            assert_eq!(times.len(), 6, "{key:?}");
            let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
            assert!(gaps.min().is_some_and(|gap| gap >= PER_OBJECT), "{key:?}");
        }
    }
}
