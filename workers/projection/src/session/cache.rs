//! Rows in memory: those being folded, and as many others as fit.

use std::collections::HashMap;
use tidemill_core::projection::Row;

/// Most bytes of rows kept in memory by one session, as estimated by [`cost`]. Rows that are being written don't leave, so it can be
/// exceeded by what one flush holds (32 MiB).
pub(crate) const CACHE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// What is freed at a time: sweeping looks at every row, so it must be rare.
const FREED_SHARE: usize = 8;

/// Rows by token, with the revisions to guard their next write with.
#[derive(Debug)]
pub(crate) struct Cache {
    rows: HashMap<Box<str>, Cached>,
    bytes: usize,
    bytes_max: usize,
    /// Whether a row that isn't here doesn't exist: the key space was empty and nothing has left.
    complete: bool,
    /// Moves on with every sweep; what was used since the last one stays if anything else can go.
    age: u32,
    /// Tokens to be written next, each once.
    dirty: Vec<Box<str>>,
    dirty_bytes: usize,
}

/// A row and its revision in KV.
#[derive(Debug)]
pub(crate) struct Cached {
    pub(crate) row: Row,
    /// 0: there is nothing in KV.
    pub(crate) revision: u64,
    state: State,
    cost: usize,
    used: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Clean,
    /// To be written.
    Dirty,
    /// Being written.
    InFlight,
    /// Being written, and changed since.
    DirtyInFlight,
}

/// Memory that a row takes, roughly: its tree is some three times its JSON, and the map's entry, token and positions come on top.
fn cost(token: &str, row: &Row) -> usize {
    3 * row.bytes() + token.len() + 192
}

impl Cache {
    /// `complete`: a row that isn't in it doesn't exist.
    pub(crate) fn new(bytes_max: usize, complete: bool) -> Cache {
        Cache {
            rows: HashMap::new(),
            bytes: 0,
            bytes_max,
            complete,
            age: 0,
            dirty: Vec::new(),
            dirty_bytes: 0,
        }
    }

    /// Whether the row must be read before it is folded.
    pub(crate) fn is_cold(&self, token: &str) -> bool {
        !self.complete && !self.rows.contains_key(token)
    }

    /// The row, which isn't cold; one that doesn't exist is made.
    pub(crate) fn row(&mut self, token: &str) -> &mut Cached {
        // Looked up twice rather than cloning the token for an entry: nearly always it is there.
        if !self.rows.contains_key(token) {
            self.insert(token, Row::missing(), 0);
        }
        let age = self.age;
        let cached = self
            .rows
            .get_mut(token)
            .expect("the row was inserted above if it was missing");
        cached.used = age;
        cached
    }

    /// Bytes of all rows, estimated.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a row as it is stored; one that is there already stays.
    pub(crate) fn insert(&mut self, token: &str, row: Row, revision: u64) {
        if self.rows.contains_key(token) {
            return;
        }
        let cached = Cached {
            used: self.age,
            ..Cached::new(token, row, revision)
        };
        self.bytes += cached.cost;
        self.rows.insert(token.into(), cached);
    }

    /// Notes that a row was changed.
    pub(crate) fn changed(&mut self, token: &str) {
        let Some(cached) = self.rows.get_mut(token) else {
            return;
        };
        let now = cost(token, &cached.row);
        self.bytes = self.bytes + now - cached.cost;
        cached.cost = now;
        let (state, is_new) = match cached.state {
            State::Clean => (State::Dirty, true),
            State::InFlight => (State::DirtyInFlight, true),
            dirty @ (State::Dirty | State::DirtyInFlight) => (dirty, false),
        };
        cached.state = state;
        if is_new {
            self.dirty.push(token.into());
            self.dirty_bytes += cached.row.bytes();
        }
    }

    /// Rows to be written.
    pub(crate) fn dirty(&self) -> usize {
        self.dirty.len()
    }

    /// Their bytes, about.
    pub(crate) fn dirty_bytes(&self) -> usize {
        self.dirty_bytes
    }

    /// Begins to write all dirty rows: `each` gets their token, row and revision. Call it only when nothing is in flight.
    pub(crate) fn begin_flush(&mut self, mut each: impl FnMut(&str, &Row, u64)) {
        self.dirty_bytes = 0;
        for token in std::mem::take(&mut self.dirty) {
            if let Some(cached) = self.rows.get_mut(&token) {
                cached.state = State::InFlight;
                each(&token, &cached.row, cached.revision);
            }
        }
    }

    /// Notes that a row was written.
    pub(crate) fn written(&mut self, token: &str, revision: u64) {
        if let Some(cached) = self.rows.get_mut(token) {
            cached.revision = revision;
            cached.state = match cached.state {
                State::DirtyInFlight => State::Dirty,
                State::Clean | State::InFlight => State::Clean,
                State::Dirty => State::Dirty,
            };
        }
    }

    /// Frees memory where there is too much in use. Rows that are dirty or being written stay.
    pub(crate) fn sweep(&mut self) {
        if self.bytes <= self.bytes_max {
            return;
        }
        let wanted = self.bytes_max - self.bytes_max / FREED_SHARE;
        let age = self.age;
        let mut bytes = self.bytes;
        for spare_used in [true, false] {
            self.rows.retain(|_, cached| {
                let keep = bytes <= wanted
                    || cached.state != State::Clean
                    || (spare_used && cached.used == age);
                if !keep {
                    bytes -= cached.cost;
                }
                keep
            });
        }
        self.complete = self.complete && bytes == self.bytes;
        self.bytes = bytes;
        self.age = age.wrapping_add(1);
    }
}

impl Cached {
    fn new(token: &str, row: Row, revision: u64) -> Cached {
        let cost = cost(token, &row);
        Cached {
            row,
            revision,
            state: State::Clean,
            cost,
            used: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flush(cache: &mut Cache) -> Vec<(String, u64)> {
        let mut sent = Vec::new();
        cache.begin_flush(|token, _, revision| sent.push((token.to_owned(), revision)));
        sent
    }

    #[test]
    fn a_row_changed_while_it_is_written_is_written_again() {
        let mut cache = Cache::new(1 << 20, true);
        cache.row("a");
        cache.changed("a");
        cache.changed("a");
        assert_eq!(flush(&mut cache), [("a".to_owned(), 0)]);
        cache.changed("a");
        cache.row("b");
        cache.changed("b");
        assert_eq!(cache.dirty(), 2);
        cache.written("a", 7);
        assert_eq!(
            flush(&mut cache),
            [("a".to_owned(), 7), ("b".to_owned(), 0)]
        );
        cache.written("a", 8);
        cache.written("b", 9);
        assert_eq!(flush(&mut cache), []);
        assert_eq!((cache.row("a").revision, cache.row("b").revision), (8, 9));
    }

    #[test]
    fn what_left_must_be_read_again_and_what_is_unwritten_stays() {
        let mut cache = Cache::new(2_000, true);
        for token in ["a", "b", "c", "d", "e"] {
            assert!(!cache.is_cold(token));
            cache.row(token);
            cache.changed(token);
        }
        cache.sweep();
        for token in ["a", "b", "c", "d", "e"] {
            assert!(!cache.is_cold(token));
        }
        flush(&mut cache);
        for token in ["a", "b", "c", "d"] {
            cache.written(token, 1);
        }
        for token in 0..20 {
            cache.row(&format!("f{token}"));
        }
        cache.sweep();
        assert!(!cache.is_cold("e"), "it is being written");
        assert!(
            cache.is_cold("x"),
            "nothing is known of what isn't here any more"
        );
        assert!(cache.bytes <= 2_000);
    }
}
