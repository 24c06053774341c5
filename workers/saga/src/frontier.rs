//! How far a trigger stream is dealt with in each partition, and what to count with that: an event counts when the
//! position passes it, so that a crash makes nobody count it twice.

use std::collections::{BTreeMap, HashMap};
use tidemill_core::status::TriggerCounters;
use tidemill_core::timestamp::Timestamp;

/// What became of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dealt {
    pub(crate) seen: u64,
    pub(crate) matched: u64,
    pub(crate) skipped: u64,
    pub(crate) existing: u64,
    pub(crate) parked: u64,
}

impl Dealt {
    /// One event.
    pub(crate) const SEEN: Dealt = Dealt {
        seen: 1,
        matched: 0,
        skipped: 0,
        existing: 0,
        parked: 0,
    };

    pub(crate) fn count(self, counters: &mut TriggerCounters) {
        counters.seen += self.seen;
        counters.matched += self.matched;
        counters.skipped += self.skipped;
        counters.existing += self.existing;
        counters.parked += self.parked;
    }

    fn add(&mut self, other: Dealt) {
        self.seen += other.seen;
        self.matched += other.matched;
        self.skipped += other.skipped;
        self.existing += other.existing;
        self.parked += other.parked;
    }
}

/// A position that a partition has reached, and what became of the events on the way there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) position: u64,
    /// When the event at the position was stored.
    pub(crate) stored_at: Timestamp,
    pub(crate) dealt: Dealt,
}

/// Per partition, what is under way and what is done behind it.
#[derive(Default)]
pub(crate) struct Frontier {
    waiting: HashMap<u16, BTreeMap<u64, Stretch>>,
}

/// One event that is under way, or a stretch of events that are done.
struct Stretch {
    done: bool,
    until: u64,
    stored_at: Timestamp,
    dealt: Dealt,
}

impl Frontier {
    /// A start is under way: the position stays below it.
    pub(crate) fn begin(&mut self, of: u16, sequence: u64, stored_at: Timestamp) {
        let stretch = Stretch {
            done: false,
            until: sequence,
            stored_at,
            dealt: Dealt::default(),
        };
        self.waiting
            .entry(of)
            .or_default()
            .insert(sequence, stretch);
    }

    /// A start is done.
    pub(crate) fn end(&mut self, of: u16, sequence: u64, dealt: Dealt) -> Option<Reached> {
        let waiting = self.waiting.entry(of).or_default();
        if let Some(stretch) = waiting.get_mut(&sequence) {
            stretch.done = true;
            stretch.dealt = dealt;
        }
        let mut reached: Option<Reached> = None;
        while let Some(first) = waiting.first_entry()
            && first.get().done
        {
            let Stretch {
                until,
                stored_at,
                dealt,
                done: _,
            } = first.remove();
            let so_far = reached.get_or_insert_with(|| Reached {
                position: until,
                stored_at,
                dealt: Dealt::default(),
            });
            (so_far.position, so_far.stored_at) = (until, stored_at);
            so_far.dealt.add(dealt);
        }
        reached
    }

    /// Events up to a sequence without anything to wait for.
    pub(crate) fn pass(
        &mut self,
        of: u16,
        sequence: u64,
        stored_at: Timestamp,
        dealt: Dealt,
    ) -> Option<Reached> {
        let waiting = self.waiting.entry(of).or_default();
        let Some(mut last) = waiting.last_entry() else {
            return Some(Reached {
                position: sequence,
                stored_at,
                dealt,
            });
        };
        let stretch = last.get_mut();
        if stretch.until >= sequence {
            return None;
        }
        if stretch.done {
            // One stretch, however many events wait behind a start that takes long.
            (stretch.until, stretch.stored_at) = (sequence, stored_at);
            stretch.dealt.add(dealt);
        } else {
            let stretch = Stretch {
                done: true,
                until: sequence,
                stored_at,
                dealt,
            };
            waiting.insert(sequence, stretch);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(sequence: u64) -> Timestamp {
        Timestamp::from_millis(i64::try_from(sequence).expect("a small number") * 10)
    }

    const SKIPPED: Dealt = Dealt {
        skipped: 1,
        ..Dealt::SEEN
    };
    const MATCHED: Dealt = Dealt {
        matched: 1,
        ..Dealt::SEEN
    };

    #[test]
    fn the_position_and_what_is_counted_stay_below_what_is_under_way() {
        let mut frontier = Frontier::default();
        let reached = frontier.pass(1, 3, at(3), SKIPPED).unwrap();
        assert_eq!((reached.position, reached.dealt.seen), (3, 1));
        frontier.begin(1, 4, at(4));
        frontier.begin(1, 6, at(6));
        for sequence in 7..100 {
            assert_eq!(frontier.pass(1, sequence, at(sequence), SKIPPED), None);
        }
        assert_eq!(frontier.end(1, 6, MATCHED), None);
        // Another partition doesn't wait.
        assert_eq!(frontier.pass(2, 99, at(99), SKIPPED).unwrap().position, 99);
        let reached = frontier.end(1, 4, MATCHED).unwrap();
        let dealt = reached.dealt;
        assert_eq!((reached.position, reached.stored_at), (99, at(99)));
        assert_eq!((dealt.seen, dealt.matched, dealt.skipped), (95, 2, 93));
        assert_eq!(
            frontier
                .pass(1, 120, at(120), Dealt::default())
                .unwrap()
                .position,
            120
        );
    }

    #[test]
    fn what_waits_behind_a_start_takes_no_room() {
        let mut frontier = Frontier::default();
        frontier.begin(0, 1, at(1));
        for sequence in 2..10_000 {
            frontier.pass(0, sequence, at(sequence), SKIPPED);
        }
        assert_eq!(frontier.waiting[&0].len(), 2);
        // A late look at where reading is changes nothing.
        assert_eq!(frontier.pass(0, 5, at(5), Dealt::default()), None);
        assert_eq!(frontier.end(0, 1, MATCHED).unwrap().position, 9_999);
    }
}
