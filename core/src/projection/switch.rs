//! When readers may be led to a new key space.

use super::checkpoint::Checkpoint;
use super::position::Position;
use super::row::Sources;
use crate::definition::StreamRef;
use crate::planted::{Bug, planted};
use std::collections::BTreeMap;

/// How far every partition of a key space is: per source, the position of each partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    sources: BTreeMap<StreamRef, BTreeMap<u16, Position>>,
}

impl Progress {
    /// Progress without any partition.
    #[must_use]
    pub fn new() -> Progress {
        Progress::default()
    }

    /// Notes a partition's checkpoint. What a source has lost since, by a person's decision, is not waited for.
    pub fn add(&mut self, partition: u16, checkpoint: &Checkpoint, sources: &Sources) {
        for (index, source) in sources.iter().enumerate() {
            let resumed = checkpoint.resume_after(index, &source.lineage);
            let position = source.lineage.position(resumed);
            self.sources
                .entry(source.stream.clone())
                .or_default()
                .insert(partition, position);
        }
    }

    /// Notes that a partition passed what it seemed to lack: nothing of the stream is there.
    pub fn pass(&mut self, what: &NotYet) {
        let partitions = self.sources.entry(what.stream.clone()).or_default();
        partitions.insert(what.partition, what.old);
    }

    fn at(&self, stream: &StreamRef, partition: u16) -> Option<Position> {
        self.sources.get(stream)?.get(&partition).copied()
    }
}

/// The first thing that keeps `live` where it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("partition {partition} of the new rows is at {new} in {stream}, the old rows are at {old}")]
pub struct NotYet {
    /// Partition that is behind.
    pub partition: u16,
    /// Source it is behind in.
    pub stream: StreamRef,
    /// Where the new rows are.
    pub new: Position,
    /// Where they must be.
    pub old: Position,
}

/// Whether `live` may go from the key space at `old` to the one at `new`: every partition's new checkpoint is at or past the old one's.
///
/// `heads` are the ends of the sources that only the new definition has, as they were when it was begun: the old rows say nothing about
/// those. Sources that only the old definition has don't matter any more.
///
/// # Errors
/// [`NotYet`]
pub fn may_switch(
    old: &Progress,
    new: &Progress,
    heads: &BTreeMap<StreamRef, Position>,
    partitions: u16,
) -> Result<(), NotYet> {
    for (stream, positions) in &new.sources {
        for partition in 0..partitions {
            let head = || heads.get(stream).copied().unwrap_or_default();
            let old = match old.sources.contains_key(stream) {
                true => old.at(stream, partition).unwrap_or_default(),
                false => head(),
            };
            let new = positions.get(&partition).copied().unwrap_or_default();
            if new < old && !planted(Bug::SwitchedEarly) {
                return Err(NotYet {
                    partition,
                    stream: stream.clone(),
                    new,
                    old,
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::checkpoint::SourceCheckpoint;
    use super::super::position::Lineage;
    use super::super::row::Source;
    use super::*;

    fn stream(name: &str) -> StreamRef {
        StreamRef {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
        }
    }

    fn sources(streams: &[(&str, Lineage)]) -> Sources {
        let source = |(name, lineage): &(&str, Lineage)| Source {
            stream: stream(name),
            lineage: lineage.clone(),
        };
        Sources::new(streams.iter().map(source).collect())
    }

    fn progress(streams: &[&str], partitions: &[&[u64]]) -> Progress {
        let streams: Vec<(&str, Lineage)> = streams
            .iter()
            .map(|name| (*name, Lineage::first("i")))
            .collect();
        let sources = sources(&streams);
        let mut progress = Progress::new();
        for (partition, sequences) in (0..).zip(partitions) {
            let mut checkpoint = Checkpoint::default();
            for (index, sequence) in sequences.iter().enumerate() {
                let position = Position {
                    generation: 0,
                    sequence: *sequence,
                };
                checkpoint.set_source(
                    index,
                    SourceCheckpoint {
                        position,
                        stored_at: None,
                    },
                );
            }
            progress.add(partition, &checkpoint, &sources);
        }
        progress
    }

    #[test]
    fn what_a_source_has_lost_is_not_waited_for() {
        let lineage = Lineage::first("i").accept("i", 50).unwrap();
        let sources = sources(&[("a", lineage)]);
        let at = |generation, sequence| {
            let mut checkpoint = Checkpoint::default();
            let position = Position {
                generation,
                sequence,
            };
            checkpoint.set_source(
                0,
                SourceCheckpoint {
                    position,
                    stored_at: None,
                },
            );
            let mut progress = Progress::new();
            progress.add(0, &checkpoint, &sources);
            progress
        };
        let none = BTreeMap::new();
        assert!(may_switch(&at(0, 100), &at(0, 50), &none, 1).is_ok());
        assert!(may_switch(&at(0, 100), &at(0, 49), &none, 1).is_err());
        assert!(may_switch(&at(1, 60), &at(0, 50), &none, 1).is_err());
    }

    #[test]
    fn readers_are_led_on_when_no_partition_is_behind() {
        let old = progress(&["a", "b"], &[&[10, 5], &[12, 0]]);
        let none = BTreeMap::new();
        for (new, allowed) in [
            (progress(&["a", "b"], &[&[10, 5], &[12, 0]]), true),
            (progress(&["b", "a"], &[&[5, 10], &[0, 12]]), true),
            (progress(&["a", "b"], &[&[99, 99], &[99, 99]]), true),
            (progress(&["a", "b"], &[&[10, 4], &[12, 0]]), false),
            (progress(&["a", "b"], &[&[10, 5], &[11, 9]]), false),
            // A partition without a checkpoint has folded nothing.
            (progress(&["a", "b"], &[&[10, 5]]), false),
            // A source that is gone doesn't hold anything up.
            (progress(&["a"], &[&[10], &[12]]), true),
        ] {
            assert_eq!(may_switch(&old, &new, &none, 2).is_ok(), allowed, "{new:?}");
        }
    }

    #[test]
    fn a_source_that_is_new_must_be_read_to_where_it_ended() {
        let old = progress(&["a"], &[&[10], &[12]]);
        let heads = BTreeMap::from([(
            stream("c"),
            Position {
                generation: 0,
                sequence: 7,
            },
        )]);
        assert!(
            may_switch(
                &old,
                &progress(&["a", "c"], &[&[10, 7], &[12, 7]]),
                &heads,
                2
            )
            .is_ok()
        );
        let error = may_switch(
            &old,
            &progress(&["a", "c"], &[&[10, 7], &[12, 6]]),
            &heads,
            2,
        )
        .unwrap_err();
        assert_eq!((error.partition, error.stream.name.as_str()), (1, "c"));
    }
}
