//! How far a partition has been folded and stored.

use super::position::{Lineage, Position, PositionError};
use super::row::Sources;
use crate::definition::StreamRef;
use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How far one partition of one key space is. It may lag behind the rows, never run ahead of them: the rows' positions
/// make what is folded again harmless.
///
/// The counters belong to the positions beside them and are stored with them, so a restart counts nothing twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Per source, by its index in the definition.
    sources: Vec<SourceCheckpoint>,
    /// What became of the events up to here.
    pub tally: Tally,
    /// Per source, by its index: see [`Checkpoint::gone`].
    gone: Vec<u64>,
    /// Per source, by its index: what the stream had lost by being set back or replaced when the position went on in what came instead.
    outlived: Vec<u64>,
}

/// How far one source is in one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceCheckpoint {
    /// Everything of the partition at or below it is stored.
    pub position: Position,
    /// When the stream stored the event at `position`; `None` before the first one.
    pub stored_at: Option<Timestamp>,
}

/// What became of the events of one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tally {
    /// Events read. An event belongs to the partition of its entity's token.
    pub seen: u64,
    /// Events that at least one handler matched.
    pub matched: u64,
    /// Events that no handler matched.
    pub skipped: u64,
    /// Events that could not be folded and were left out (`onError: Skip`, or a person's decision).
    pub left_out: u64,
    /// Times an event was folded into a row of the partition.
    pub folded: u64,
    /// Rows written, counted once for every put.
    pub puts: u64,
}

/// Why a stored checkpoint can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Not what this version writes.
    #[error("the stored checkpoint can't be read")]
    Form(#[source] serde_json::Error),
    /// A position of an incarnation that the source never had.
    #[error("the stored checkpoint of source {0}")]
    Position(StreamRef, #[source] PositionError),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    sources: BTreeMap<String, StoredSource>,
    #[serde(default)]
    tally: Tally,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredSource {
    position: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stored_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "is_zero")]
    gone: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    outlived: u64,
}

fn set(numbers: &mut Vec<u64>, index: usize, number: u64) {
    if number > 0 && numbers.len() <= index {
        numbers.resize(index + 1, 0);
    }
    if let Some(slot) = numbers.get_mut(index) {
        *slot = number;
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Checkpoint {
    /// Sequences of the source that the stream no longer held when it was read up to the position: limits, a purge, a deletion. What
    /// is gone stays gone, so rows that lack more of them than other rows lack events that those were folded from.
    #[must_use]
    pub fn gone(&self, index: usize) -> u64 {
        self.gone.get(index).copied().unwrap_or_default()
    }

    /// Notes how many sequences of the source were gone.
    pub fn set_gone(&mut self, index: usize, sequences: u64) {
        set(&mut self.gone, index, sequences);
    }

    /// Sequences of the source up to the position that the stream lost later, when it was set back or replaced: the rows still hold their
    /// events. Rows that are folded anew don't.
    #[must_use]
    pub fn outlived(&self, index: usize, lineage: &Lineage) -> u64 {
        let position = self.source(index).position;
        let lost_since = position.sequence - lineage.resume_after(position);
        let lost_before = self.outlived.get(index).copied().unwrap_or_default();
        lost_before.saturating_add(lost_since)
    }

    /// Notes what the source lost before the generation that the position is of now.
    pub fn set_outlived(&mut self, index: usize, sequences: u64) {
        set(&mut self.outlived, index, sequences);
    }

    /// Whether it has counted anything that an earlier one hasn't.
    #[must_use]
    pub fn has_counted_since(&self, earlier: &Checkpoint) -> bool {
        self.tally != earlier.tally || self.gone != earlier.gone
    }

    /// How far the source of this index is.
    #[must_use]
    pub fn source(&self, index: usize) -> SourceCheckpoint {
        self.sources.get(index).copied().unwrap_or_default()
    }

    /// Notes that everything of the source up to this event is stored.
    pub fn set_source(&mut self, index: usize, to: SourceCheckpoint) {
        if self.sources.len() <= index {
            self.sources.resize(index + 1, SourceCheckpoint::default());
        }
        if let Some(slot) = self.sources.get_mut(index) {
            *slot = to;
        }
    }

    /// The sequence after which the source is to be read, in the stream as it is now.
    #[must_use]
    pub fn resume_after(&self, index: usize, lineage: &Lineage) -> u64 {
        lineage.resume_after(self.source(index).position)
    }

    /// JSON, as it is stored.
    #[must_use]
    pub fn to_json(&self, sources: &Sources) -> String {
        let stored = Stored {
            sources: sources
                .iter()
                .enumerate()
                .map(|(index, source)| {
                    let SourceCheckpoint {
                        position,
                        stored_at,
                    } = self.source(index);
                    (
                        source.stream.to_string(),
                        StoredSource {
                            position: source.lineage.write(position),
                            stored_at,
                            gone: self.gone(index),
                            outlived: self.outlived.get(index).copied().unwrap_or_default(),
                        },
                    )
                })
                .collect(),
            tally: self.tally,
        };
        // Strings, numbers and maps with string keys always serialise.
        serde_json::to_string(&stored).unwrap_or_default()
    }

    /// Reads what [`Checkpoint::to_json`] writes. A source that isn't in it is at its beginning.
    ///
    /// # Errors
    /// [`CheckpointError`]
    pub fn parse(sources: &Sources, json: &[u8]) -> Result<Checkpoint, CheckpointError> {
        let stored: Stored = serde_json::from_slice(json).map_err(CheckpointError::Form)?;
        let mut checkpoint = Checkpoint {
            sources: Vec::with_capacity(sources.len()),
            tally: stored.tally,
            gone: Vec::new(),
            outlived: Vec::new(),
        };
        for (index, source) in sources.iter().enumerate() {
            if let Some(of) = stored.sources.get(&source.stream.to_string()) {
                let position = source
                    .lineage
                    .read(&of.position)
                    .map_err(|error| CheckpointError::Position(source.stream.clone(), error))?;
                checkpoint.set_source(
                    index,
                    SourceCheckpoint {
                        position,
                        stored_at: of.stored_at,
                    },
                );
                checkpoint.set_gone(index, of.gone);
                checkpoint.set_outlived(index, of.outlived);
            }
        }
        Ok(checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::Source;
    use super::*;
    use proptest::prelude::*;

    fn sources() -> Sources {
        let source = |name: &str, lineage| Source {
            stream: StreamRef {
                namespace: "shop".to_owned(),
                name: name.to_owned(),
            },
            lineage,
        };
        Sources::new(vec![
            source("b", Lineage::first("x")),
            source("a", Lineage::first("y").accept("y", 3).unwrap()),
        ])
    }

    #[test]
    fn the_stored_form() {
        let mut checkpoint = Checkpoint::default();
        checkpoint.set_source(
            1,
            SourceCheckpoint {
                position: Position {
                    generation: 1,
                    sequence: 9,
                },
                stored_at: Some(Timestamp::from_millis(5)),
            },
        );
        checkpoint.tally.seen = 2;
        let json = checkpoint.to_json(&sources());
        assert_eq!(
            json,
            r#"{"sources":{"shop/a":{"position":"y.1:9","storedAt":5},"shop/b":{"position":"x:0"}},"tally":{"seen":2,"matched":0,"skipped":0,"leftOut":0,"folded":0,"puts":0}}"#
        );
        let read = Checkpoint::parse(&sources(), json.as_bytes()).unwrap();
        assert_eq!(read.source(1), checkpoint.source(1));
        assert_eq!(read.tally, checkpoint.tally);
        assert_eq!(read.resume_after(0, &Lineage::first("x")), 0);
    }

    #[test]
    fn rows_outlive_what_their_stream_loses() {
        let mut lineage = Lineage::first("y");
        let mut checkpoint = Checkpoint::default();
        let at = |generation, sequence| SourceCheckpoint {
            position: Position {
                generation,
                sequence,
            },
            stored_at: None,
        };
        checkpoint.set_source(0, at(0, 10));
        assert_eq!(checkpoint.outlived(0, &lineage), 0);
        lineage = lineage.accept("y", 3).unwrap();
        assert_eq!(checkpoint.outlived(0, &lineage), 7);
        // It goes on in what came instead.
        checkpoint.set_outlived(0, 7);
        checkpoint.set_source(0, at(1, 9));
        assert_eq!(checkpoint.outlived(0, &lineage), 7);
        lineage = lineage.accept("z", 0).unwrap();
        assert_eq!(checkpoint.outlived(0, &lineage), 16);
        // Rows that began after all that hold nothing else.
        let mut later = Checkpoint::default();
        later.set_source(0, at(2, 5));
        assert_eq!(later.outlived(0, &lineage), 0);
    }

    #[test]
    fn what_was_never_written_here_is_refused() {
        for json in [
            "",
            "{}",
            "[]",
            r#"{"sources":{"shop/a":{"position":"z:1"}}}"#,
            r#"{"sources":{"shop/a":{"position":"1"}}}"#,
        ] {
            assert!(
                Checkpoint::parse(&sources(), json.as_bytes()).is_err(),
                "{json}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_checkpoint_is_read_as_it_was_written(b in any::<u64>(), a in any::<u64>(), at in proptest::option::of(0..i64::from(u32::MAX)), seen in any::<u64>(), gone in any::<u64>(), outlived in any::<u64>()) {
            let stored_at = at.map(Timestamp::from_millis);
            let mut checkpoint = Checkpoint::default();
            checkpoint.set_source(0, SourceCheckpoint { position: Position { generation: 0, sequence: b }, stored_at });
            checkpoint.set_source(1, SourceCheckpoint { position: Position { generation: 1, sequence: a }, stored_at });
            checkpoint.tally.seen = seen;
            checkpoint.set_gone(1, gone);
            checkpoint.set_outlived(0, outlived);
            let read = Checkpoint::parse(&sources(), checkpoint.to_json(&sources()).as_bytes()).unwrap();
            prop_assert_eq!(read, checkpoint);
        }
    }
}
