//! Where in a source an event stands, over everything that may happen to a stream.

use crate::names::{decode_token, incarnation_token, place, split_place};
use crate::planted::{Bug, planted};
use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Most generations a source may have; each takes a person's decision (`accept-source`).
pub const GENERATIONS_MAX: usize = 1000;

/// Where an event stands: positions of one source are ordered as their events happened.
///
/// The generation stands for the incarnation of the stream (see [`Lineage`]). Sequence 0 is before every event.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position {
    /// Index into the source's [`Lineage`].
    pub generation: u32,
    /// Sequence in the stream.
    pub sequence: u64,
}

/// The histories that a source has had, one after another: the stream as it was first read, and what it was each time
/// a person said that a stream that was set back or replaced is to be read on (`accept-source`).
///
/// An event that two generations share is given the position of the earlier one, so that positions of one source are
/// totally ordered and a set-back stream neither doubles what is left of it nor hides what was written afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Generation>", into = "Vec<Generation>")]
pub struct Lineage {
    generations: Vec<Generation>,
}

/// One history of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Generation {
    /// Incarnation of the stream, as its metadata says.
    pub incarnation: String,
    /// Up to this sequence its events are those of the generation before; 0 = it shares none.
    pub shared: u64,
}

/// Why a position or a lineage can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PositionError {
    /// Not what this version writes.
    #[error("`{0}` is no position: <incarnation>:<sequence>")]
    Form(String),
    /// A generation that the source doesn't have.
    #[error("`{0}` is of an incarnation that this source never had")]
    UnknownIncarnation(String),
    /// Nothing was ever read.
    #[error("a source has 1 to {GENERATIONS_MAX} generations")]
    Generations,
}

impl Lineage {
    /// A source that is read for the first time.
    #[must_use]
    pub fn first(incarnation: &str) -> Lineage {
        let incarnation = incarnation.to_owned();
        Lineage {
            generations: vec![Generation {
                incarnation,
                shared: 0,
            }],
        }
    }

    /// The present generation's index.
    #[must_use]
    pub fn current(&self) -> u32 {
        // At most GENERATIONS_MAX.
        u32::try_from(self.generations.len() - 1).unwrap_or(u32::MAX)
    }

    /// The incarnation that the stream must have.
    #[must_use]
    pub fn incarnation(&self) -> &str {
        self.incarnation_of(self.current()).unwrap_or_default()
    }

    pub(crate) fn incarnation_of(&self, generation: u32) -> Option<&str> {
        let index = usize::try_from(generation).ok()?;
        self.generations
            .get(index)
            .map(|generation| &*generation.incarnation)
    }

    /// A lineage that goes on with a stream of `incarnation`, which shares its first `shared` events with the present one.
    ///
    /// # Errors
    /// [`PositionError::Generations`]
    pub fn accept(&self, incarnation: &str, shared: u64) -> Result<Lineage, PositionError> {
        let mut generations = self.generations.clone();
        generations.push(Generation {
            incarnation: incarnation.to_owned(),
            shared,
        });
        generations.try_into()
    }

    /// Position of an event that is read from the stream now.
    #[must_use]
    pub fn position(&self, sequence: u64) -> Position {
        let mut generation = self.current();
        for (index, of) in self.generations.iter().enumerate().skip(1).rev() {
            if sequence > of.shared {
                break;
            }
            generation = u32::try_from(index - 1).unwrap_or(u32::MAX);
        }
        Position {
            generation,
            sequence,
        }
    }

    /// The sequence in the present stream after which everything is new to one who has everything up to `position`.
    #[must_use]
    pub fn resume_after(&self, position: Position) -> u64 {
        let generation = usize::try_from(position.generation).unwrap_or(usize::MAX);
        let later = self.generations.iter().skip(generation.saturating_add(1));
        later.fold(position.sequence, |sequence, generation| {
            sequence.min(generation.shared)
        })
    }

    /// The text of a position: `<incarnation token>:<sequence>`, with `.<generation>` before the colon where the source has had several.
    #[must_use]
    pub fn write(&self, position: Position) -> String {
        let incarnation = self.incarnation_of(position.generation).unwrap_or_default();
        place(
            incarnation,
            u64::from(position.generation),
            position.sequence,
        )
    }

    /// Reads what [`Lineage::write`] writes.
    ///
    /// # Errors
    /// [`PositionError`]
    pub fn read(&self, text: &str) -> Result<Position, PositionError> {
        let form = || PositionError::Form(text.chars().take(300).collect());
        let (incarnation, generation, sequence) = split_place(text).ok_or_else(form)?;
        let generation = u32::try_from(generation).map_err(|_| form())?;
        decode_token(incarnation).map_err(|_| form())?;
        match self.incarnation_of(generation) {
            Some(known) if incarnation_token(known) == incarnation => Ok(Position {
                generation,
                sequence,
            }),
            _ => Err(PositionError::UnknownIncarnation(
                text.chars().take(300).collect(),
            )),
        }
    }
}

impl TryFrom<Vec<Generation>> for Lineage {
    type Error = PositionError;
    fn try_from(generations: Vec<Generation>) -> Result<Lineage, PositionError> {
        if (1..=GENERATIONS_MAX).contains(&generations.len()) {
            Ok(Lineage { generations })
        } else {
            Err(PositionError::Generations)
        }
    }
}

impl From<Lineage> for Vec<Generation> {
    fn from(lineage: Lineage) -> Vec<Generation> {
        lineage.generations
    }
}

/// What a source looks like now, to be compared with what was folded of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSeen {
    /// Incarnation in its metadata.
    pub incarnation: String,
    /// Its last sequence.
    pub last_sequence: u64,
    /// Stored time of the message at the sequence asked for; `None` where there is none (gaps are normal).
    pub stored_at: Option<Timestamp>,
}

/// A source that is no longer the stream that was folded. Nothing is folded until a person says how to go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceReset {
    /// Another stream under the same name.
    #[error("the stream has incarnation {found}, what was folded is of {expected}")]
    Replaced {
        /// Incarnation of what was folded.
        expected: String,
        /// Incarnation of the stream.
        found: String,
    },
    /// It lost its end.
    #[error("the stream ends at {last}, but {folded} is folded")]
    Shorter {
        /// Last sequence folded.
        folded: u64,
        /// Last sequence of the stream.
        last: u64,
    },
    /// It lost its end and was written on.
    #[error("the message at {sequence} was stored at {found}, the one folded at {expected}")]
    Rewritten {
        /// The sequence compared.
        sequence: u64,
        /// Stored time of what was folded.
        expected: Timestamp,
        /// Stored time of what is there.
        found: Timestamp,
    },
}

impl SourceReset {
    /// What a person can do about it.
    pub const ADVICE: &str = "`tidemill projection rebuild` folds what is there now from its beginning; \
                              `tidemill projection accept-source` keeps the rows and goes on with what is new";
}

/// Whether a source still is what was folded up to `position`, whose message was stored at `stored_at`.
///
/// `seen.stored_at` is asked for at `position.sequence`. Positions that a later generation doesn't share were given up by
/// a person's decision: there is nothing to compare.
///
/// # Errors
/// [`SourceReset`]
pub fn verify_source(
    lineage: &Lineage,
    position: Position,
    stored_at: Option<Timestamp>,
    seen: &SourceSeen,
) -> Result<(), SourceReset> {
    if seen.incarnation != lineage.incarnation() && !planted(Bug::ReplacedSourceUnseen) {
        let expected = lineage.incarnation().to_owned();
        return Err(SourceReset::Replaced {
            expected,
            found: seen.incarnation.clone(),
        });
    }
    if lineage.resume_after(position) < position.sequence {
        return Ok(());
    }
    if seen.last_sequence < position.sequence && !planted(Bug::ShorterSourceUnseen) {
        return Err(SourceReset::Shorter {
            folded: position.sequence,
            last: seen.last_sequence,
        });
    }
    match (stored_at, seen.stored_at) {
        (Some(expected), Some(found))
            if expected != found && !planted(Bug::RewrittenSourceUnseen) =>
        {
            Err(SourceReset::Rewritten {
                sequence: position.sequence,
                expected,
                found,
            })
        }
        _ => Ok(()),
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.generation {
            0 => write!(f, "{}", self.sequence),
            generation => write!(f, "{} (generation {generation})", self.sequence),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_of_positions() {
        let lineage = Lineage::first("abc")
            .accept("abc", 50)
            .unwrap()
            .accept("2026-11-21T10:00:00Z", 0)
            .unwrap();
        for (generation, sequence, text) in [
            (0, 12, "abc:12"),
            (1, 60, "abc.1:60"),
            (2, 1, "2026-11-21T10=3A00=3A00Z.2:1"),
        ] {
            let position = Position {
                generation,
                sequence,
            };
            assert_eq!(lineage.write(position), text);
            assert_eq!(lineage.read(text), Ok(position));
        }
        for text in [
            "",
            "abc",
            "abc:",
            "abc:x",
            "abc:-1",
            "abc:01",
            "abc:+1",
            "abc.x:1",
            "abc.0x:1",
            "a b:1",
            "abc:99999999999999999999",
        ] {
            assert!(
                matches!(lineage.read(text), Err(PositionError::Form(_))),
                "{text}"
            );
        }
        for text in ["abd:1", "abc.2:1", "abc.3:1"] {
            assert!(
                matches!(
                    lineage.read(text),
                    Err(PositionError::UnknownIncarnation(_))
                ),
                "{text}"
            );
        }
    }

    #[test]
    fn a_stream_set_back_shares_what_is_left_of_it() {
        let lineage = Lineage::first("abc").accept("abc", 50).unwrap();
        let at = |generation, sequence| Position {
            generation,
            sequence,
        };
        assert_eq!(lineage.position(40), at(0, 40));
        assert_eq!(lineage.position(50), at(0, 50));
        assert_eq!(lineage.position(51), at(1, 51));
        // What was folded of the lost events doesn't hide those written in their place.
        assert!(lineage.position(60) > at(0, 100));
        // What is left isn't folded again.
        assert!(lineage.position(40) <= at(0, 100));
        assert_eq!(lineage.resume_after(at(0, 100)), 50);
        assert_eq!(lineage.resume_after(at(0, 30)), 30);
        assert_eq!(lineage.resume_after(at(1, 70)), 70);
        let again = lineage.accept("abc", 20).unwrap();
        assert_eq!(again.position(15), at(0, 15));
        assert_eq!(again.position(30), at(2, 30));
        assert_eq!(again.resume_after(at(1, 70)), 20);
        let replaced = again.accept("def", 0).unwrap();
        assert_eq!(replaced.position(1), at(3, 1));
        assert_eq!(replaced.resume_after(at(2, 70)), 0);
    }

    #[test]
    fn a_source_is_compared_with_what_was_folded() {
        let at = Timestamp::from_millis;
        let seen = |incarnation: &str, last_sequence, stored_at: Option<i64>| SourceSeen {
            incarnation: incarnation.to_owned(),
            last_sequence,
            stored_at: stored_at.map(at),
        };
        let lineage = Lineage::first("a");
        let folded = Position {
            generation: 0,
            sequence: 100,
        };
        let check = |seen: SourceSeen| verify_source(&lineage, folded, Some(at(5)), &seen);
        assert_eq!(check(seen("a", 100, Some(5))), Ok(()));
        assert_eq!(check(seen("a", 300, None)), Ok(()), "a gap is normal");
        assert!(matches!(
            check(seen("a", 99, None)),
            Err(SourceReset::Shorter { .. })
        ));
        assert!(matches!(
            check(seen("a", 130, Some(6))),
            Err(SourceReset::Rewritten { .. })
        ));
        assert!(matches!(
            check(seen("b", 100, Some(5))),
            Err(SourceReset::Replaced { .. })
        ));
        let accepted = lineage.accept("a", 50).unwrap();
        assert_eq!(
            verify_source(&accepted, folded, Some(at(5)), &seen("a", 80, None)),
            Ok(())
        );
        let nothing = Position::default();
        assert_eq!(
            verify_source(&lineage, nothing, None, &seen("a", 0, None)),
            Ok(())
        );
    }

    /// A stream that is written, set back and replaced again and again; every event has an identity of its own.
    fn history(steps: &[(u8, u8)]) -> (Lineage, Vec<u64>, Vec<(Position, u64)>) {
        let (mut lineage, mut stream, mut next, mut folded) =
            (Lineage::first("i0"), Vec::new(), 0_u64, Vec::new());
        for (round, (appended, cut)) in steps.iter().enumerate() {
            for _ in 0..*appended % 20 {
                next += 1;
                stream.push(next);
                folded.push((lineage.position(stream.len() as u64), next));
            }
            let keep = usize::from(*cut) % (stream.len() + 1);
            stream.truncate(keep);
            let incarnation = if keep == 0 {
                format!("i{round}")
            } else {
                lineage.incarnation().to_owned()
            };
            lineage = lineage.accept(&incarnation, keep as u64).unwrap();
        }
        (lineage, stream, folded)
    }

    proptest! {
        #[test]
        fn an_event_keeps_its_position_and_later_ones_come_after_it(steps in proptest::collection::vec((any::<u8>(), any::<u8>()), 0..12)) {
            let (lineage, stream, folded) = history(&steps);
            for pair in folded.windows(2) {
                prop_assert!(pair[0].0 < pair[1].0, "{pair:?}");
            }
            for (index, event) in stream.iter().enumerate() {
                let position = lineage.position(index as u64 + 1);
                prop_assert!(folded.contains(&(position, *event)));
            }
            for (position, _) in &folded {
                // After the point to go on from stands nothing that was folded at or below the position, before it nothing that wasn't.
                let after = lineage.resume_after(*position);
                for index in 0..stream.len() as u64 {
                    prop_assert_eq!(lineage.position(index + 1) <= *position, index < after);
                }
                prop_assert_eq!(lineage.read(&lineage.write(*position)), Ok(*position));
            }
        }

        #[test]
        fn no_text_panics(text in "[a-z0-9.:=]{0,12}|\\PC{0,20}") {
            let _ = Lineage::first("a").read(&text);
        }
    }
}
