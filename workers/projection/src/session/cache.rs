//! Rows in memory: those being folded, and as many others as fit.

use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;
use tidemill_core::projection::Row;

/// Most bytes of rows kept in memory by one session, as estimated by [`cost`]. Rows that are being written don't leave, so it can be
/// exceeded by what one flush holds (32 MiB).
pub(crate) const CACHE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// What is freed at a time: sweeping looks at every row, so it must be rare.
const FREED_SHARE: usize = 8;

/// Rows by token, with the revisions to guard their next write with.
///
/// A row is found by its token once per event; from then on its place in memory is known, and keeps being its place while
/// it is to be written or being written.
#[derive(Debug)]
pub(crate) struct Cache {
    places: Vec<Option<Cached>>,
    free: Vec<Place>,
    by_token: HashTable<Place>,
    hasher: DefaultHashBuilder,
    bytes: usize,
    bytes_max: usize,
    /// Whether a row that isn't here doesn't exist: the key space was empty and nothing has left.
    complete: bool,
    /// Moves on with every sweep; what was used since the last one stays if anything else can go.
    age: u32,
    /// Rows to be written next, each once.
    dirty: Vec<Place>,
    dirty_bytes: usize,
}

/// Where a row is, until the next [`Cache::sweep`] or, if it is to be written, until [`Cache::written`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u32);

/// A row and its revision in KV.
#[derive(Debug)]
pub(crate) struct Cached {
    pub(crate) token: Box<str>,
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

/// Memory that a row takes, roughly: its tree is some three times its JSON, and the entry, token and positions come on top.
fn cost(token: &str, row: &Row) -> usize {
    3 * row.bytes() + token.len() + 192
}

impl Cache {
    /// `complete`: a row that isn't in it doesn't exist.
    pub(crate) fn new(bytes_max: usize, complete: bool) -> Cache {
        Cache {
            places: Vec::new(),
            free: Vec::new(),
            by_token: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            bytes: 0,
            bytes_max,
            complete,
            age: 0,
            dirty: Vec::new(),
            dirty_bytes: 0,
        }
    }

    fn find(&self, token: &str) -> Option<Place> {
        let is_it = |place: &Place| {
            self.at(*place)
                .is_some_and(|cached| *cached.token == *token)
        };
        self.by_token
            .find(self.hasher.hash_one(token), is_it)
            .copied()
    }

    /// The row at a place; `None` only if it has left.
    pub(crate) fn at(&self, place: Place) -> Option<&Cached> {
        self.places.get(place.0 as usize)?.as_ref()
    }

    /// See [`Cache::at`]. Tell [`Cache::changed`] what was changed.
    pub(crate) fn at_mut(&mut self, place: Place) -> Option<&mut Cached> {
        self.places.get_mut(place.0 as usize)?.as_mut()
    }

    /// Whether the row must be read before it is folded.
    pub(crate) fn is_cold(&self, token: &str) -> bool {
        !self.complete && self.find(token).is_none()
    }

    /// Where the row is, which isn't cold; one that doesn't exist is made.
    pub(crate) fn locate(&mut self, token: &str) -> Place {
        let place = match self.find(token) {
            Some(place) => place,
            None => self.add(token, Row::missing(), 0),
        };
        let age = self.age;
        if let Some(cached) = self.at_mut(place) {
            cached.used = age;
        }
        place
    }

    /// Bytes of all rows, estimated.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a row as it is stored; one that is there already stays.
    pub(crate) fn insert(&mut self, token: &str, row: Row, revision: u64) {
        if self.find(token).is_none() {
            self.add(token, row, revision);
        }
    }

    fn add(&mut self, token: &str, row: Row, revision: u64) -> Place {
        let cached = Cached {
            token: token.into(),
            cost: cost(token, &row),
            row,
            revision,
            state: State::Clean,
            used: self.age,
        };
        self.bytes += cached.cost;
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            // 4,294,967,295 rows need more memory than a cache may have.
            Place(u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX))
        });
        if let Some(free) = self.places.get_mut(place.0 as usize) {
            *free = Some(cached);
        }
        let (places, hasher) = (&self.places, &self.hasher);
        let hash_of = |place: &Place| {
            let cached = places.get(place.0 as usize).and_then(Option::as_ref);
            hasher.hash_one(cached.map_or("", |cached| &*cached.token))
        };
        self.by_token
            .insert_unique(hasher.hash_one(token), place, hash_of);
        place
    }

    /// Notes that a row was changed.
    pub(crate) fn changed(&mut self, place: Place) {
        let Some(Some(cached)) = self.places.get_mut(place.0 as usize) else {
            return;
        };
        let now = cost(&cached.token, &cached.row);
        self.bytes = self.bytes + now - cached.cost;
        cached.cost = now;
        let (state, is_new) = match cached.state {
            State::Clean => (State::Dirty, true),
            State::InFlight => (State::DirtyInFlight, true),
            dirty @ (State::Dirty | State::DirtyInFlight) => (dirty, false),
        };
        cached.state = state;
        if is_new {
            self.dirty.push(place);
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

    /// Takes the list of what is to be written, oldest change first. Each is handed to [`Cache::begin_write`] once; until then
    /// further changes go with it.
    pub(crate) fn take_dirty(&mut self) -> Vec<Place> {
        self.dirty_bytes = 0;
        std::mem::take(&mut self.dirty)
    }

    /// A row that is written from now on, as it is. It must not be in flight.
    pub(crate) fn begin_write(&mut self, place: Place) -> Option<&Cached> {
        let cached = self.at_mut(place)?;
        cached.state = State::InFlight;
        Some(cached)
    }

    /// Notes that a row was written.
    pub(crate) fn written(&mut self, place: Place, revision: u64) {
        if let Some(cached) = self.at_mut(place) {
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
        let (places, free) = (&mut self.places, &mut self.free);
        for spare_used in [true, false] {
            self.by_token.retain(|place| {
                let Some(slot) = places.get_mut(place.0 as usize) else {
                    return false;
                };
                let leaves = slot.as_ref().is_none_or(|cached| {
                    bytes > wanted
                        && cached.state == State::Clean
                        && !(spare_used && cached.used == age)
                });
                if leaves {
                    bytes -= slot.take().map_or(0, |cached| cached.cost);
                    free.push(*place);
                }
                !leaves
            });
        }
        self.complete = self.complete && bytes == self.bytes;
        self.bytes = bytes;
        self.age = age.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(cache: &mut Cache, token: &str) {
        let place = cache.locate(token);
        cache.changed(place);
    }

    fn flush(cache: &mut Cache) -> Vec<(String, u64)> {
        let mut sent = Vec::new();
        for place in cache.take_dirty() {
            let cached = cache.begin_write(place).unwrap();
            sent.push((cached.token.to_string(), cached.revision));
        }
        sent
    }

    fn written(cache: &mut Cache, token: &str, revision: u64) {
        let place = cache.find(token).unwrap();
        cache.written(place, revision);
    }

    fn revision(cache: &mut Cache, token: &str) -> u64 {
        let place = cache.locate(token);
        cache.at(place).unwrap().revision
    }

    #[test]
    fn a_row_changed_while_it_is_written_is_written_again() {
        let mut cache = Cache::new(1 << 20, true);
        change(&mut cache, "a");
        change(&mut cache, "a");
        assert_eq!(flush(&mut cache), [("a".to_owned(), 0)]);
        change(&mut cache, "a");
        change(&mut cache, "b");
        assert_eq!(cache.dirty(), 2);
        written(&mut cache, "a", 7);
        assert_eq!(
            flush(&mut cache),
            [("a".to_owned(), 7), ("b".to_owned(), 0)]
        );
        written(&mut cache, "a", 8);
        written(&mut cache, "b", 9);
        assert_eq!(flush(&mut cache), []);
        assert_eq!(
            (revision(&mut cache, "a"), revision(&mut cache, "b")),
            (8, 9)
        );
    }

    #[test]
    fn a_row_changed_before_its_turn_goes_with_it() {
        let mut cache = Cache::new(1 << 20, true);
        change(&mut cache, "a");
        let places = cache.take_dirty();
        change(&mut cache, "a");
        assert_eq!(cache.dirty(), 0);
        for place in places {
            assert_eq!(&*cache.begin_write(place).unwrap().token, "a");
        }
        change(&mut cache, "a");
        assert_eq!(cache.dirty(), 1);
    }

    #[test]
    fn what_left_must_be_read_again_and_what_is_unwritten_stays() {
        let mut cache = Cache::new(2_000, true);
        for token in ["a", "b", "c", "d", "e"] {
            assert!(!cache.is_cold(token));
            change(&mut cache, token);
        }
        cache.sweep();
        for token in ["a", "b", "c", "d", "e"] {
            assert!(!cache.is_cold(token));
        }
        flush(&mut cache);
        for token in ["a", "b", "c", "d"] {
            written(&mut cache, token, 1);
        }
        for token in 0..20 {
            cache.locate(&format!("f{token}"));
        }
        cache.sweep();
        assert!(!cache.is_cold("e"), "it is being written");
        assert!(
            cache.is_cold("x"),
            "nothing is known of what isn't here any more"
        );
        assert!(cache.bytes <= 2_000);
    }

    #[test]
    fn rows_keep_their_tokens_whatever_leaves_and_comes() {
        let mut cache = Cache::new(20_000, false);
        for round in 0..50_u64 {
            for number in 0..40 {
                let token = format!("r{round}-{number}");
                cache.insert(&token, Row::missing(), round * 100 + number);
            }
            cache.sweep();
            for number in 0..40 {
                let token = format!("r{round}-{number}");
                if let Some(place) = cache.find(&token) {
                    let cached = cache.at(place).unwrap();
                    assert_eq!(
                        (&*cached.token, cached.revision),
                        (&*token, round * 100 + number)
                    );
                }
            }
        }
        assert!(cache.bytes <= 20_000);
        assert!(cache.places.len() < 200, "places are used again");
        assert_eq!(
            cache.by_token.len() + cache.free.len(),
            cache.places.len(),
            "a place is taken or free"
        );
    }
}
