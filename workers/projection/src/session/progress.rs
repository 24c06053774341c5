//! How far a session is, partition by partition.

use tidemill_core::names::PROJECTION_PARTITIONS;
use tidemill_core::planted::{Bug, planted};
use tidemill_core::projection::{Checkpoint, Lineage, Position, SourceCheckpoint, Sources, Tally};

/// The partitions that a worker owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Partitions([bool; PROJECTION_PARTITIONS as usize]);

impl Partitions {
    /// None of them.
    pub(crate) fn none() -> Partitions {
        Partitions([false; PROJECTION_PARTITIONS as usize])
    }

    /// Whether a partition is among them.
    pub(crate) fn contains(&self, partition: u16) -> bool {
        self.0.get(usize::from(partition)).copied().unwrap_or(false)
    }

    /// In ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..PROJECTION_PARTITIONS).filter(|partition| self.contains(*partition))
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl FromIterator<u16> for Partitions {
    fn from_iter<I: IntoIterator<Item = u16>>(partitions: I) -> Partitions {
        let mut owned = Partitions::none();
        for partition in partitions {
            if let Some(slot) = owned.0.get_mut(usize::from(partition)) {
                *slot = true;
            }
        }
        owned
    }
}

/// What has been folded at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    sources: Vec<SourceCheckpoint>,
    tallies: Vec<Tally>,
    /// Per partition and source, see [`Checkpoint::gone`].
    gone: Vec<Vec<u64>>,
}

/// What has been folded, and what each partition's checkpoint says.
#[derive(Debug)]
pub(crate) struct Progress {
    owned: Partitions,
    now: Moment,
    /// Every row and parked event up to it is stored.
    stored: Moment,
    /// What was stored when the session began; a partition may be ahead of where reading began.
    begun: Vec<Checkpoint>,
    written: Vec<Written>,
    /// Per partition and source: only what is gone behind it counts. See [`Progress::count_gone_behind`].
    gone_behind: Vec<Vec<u64>>,
    /// Per partition and source, see [`Checkpoint::outlived`]: when the session began.
    outlived: Vec<Vec<u64>>,
}

/// What is in KV for one partition.
#[derive(Clone, Debug, Default)]
struct Written {
    revision: u64,
    checkpoint: Checkpoint,
}

impl Progress {
    /// Progress of the partitions with these checkpoints; `checkpoints` are partition, revision in KV (0 = none), checkpoint.
    pub(crate) fn new(
        owned: Partitions,
        sources: &Sources,
        checkpoints: Vec<(u16, u64, Checkpoint)>,
    ) -> Progress {
        let of_each = || vec![vec![0; sources.len()]; usize::from(PROJECTION_PARTITIONS)];
        let count = usize::from(PROJECTION_PARTITIONS);
        let mut begun = vec![Checkpoint::default(); count];
        let mut written = vec![Written::default(); count];
        let mut tallies = vec![Tally::default(); count];
        let (mut gone, mut outlived) = (of_each(), of_each());
        for (partition, revision, checkpoint) in checkpoints {
            let index = usize::from(partition);
            if let (Some(begun), Some(written), Some(tally), Some(gone), Some(outlived)) = (
                begun.get_mut(index),
                written.get_mut(index),
                tallies.get_mut(index),
                gone.get_mut(index),
                outlived.get_mut(index),
            ) {
                *tally = checkpoint.tally;
                let numbers = gone.iter_mut().zip(outlived);
                for (source, (of, (gone, outlived))) in sources.iter().zip(numbers).enumerate() {
                    *gone = checkpoint.gone(source);
                    *outlived = checkpoint.outlived(source, &of.lineage);
                }
                *written = Written {
                    revision,
                    checkpoint: checkpoint.clone(),
                };
                *begun = checkpoint;
            }
        }
        let now = Moment {
            sources: vec![SourceCheckpoint::default(); sources.len()],
            tallies,
            gone,
        };
        Progress {
            gone_behind: of_each(),
            outlived,
            owned,
            stored: now.clone(),
            now,
            begun,
            written,
        }
    }

    pub(crate) fn owned(&self) -> &Partitions {
        &self.owned
    }

    /// The sequence after which a source is to be read, so that no owned partition misses anything.
    pub(crate) fn resume_after(&self, source: usize, lineage: &Lineage) -> u64 {
        let partitions = self
            .owned
            .iter()
            .filter_map(|partition| self.begun.get(usize::from(partition)));
        partitions
            .map(|checkpoint| checkpoint.resume_after(source, lineage))
            .min()
            .unwrap_or(0)
    }

    /// Says what counts as gone: what is behind both the partition's checkpoint and `folded`, per source the sequence up to which anything
    /// of these rows is known to have been folded. A partition without events is checkpointed now and then only, and none is right
    /// before a crash. For rows that are being built it is 0: they are counted by the partition.
    pub(crate) fn count_gone_behind(&mut self, sources: &Sources, folded: &[u64]) {
        for (index, source) in sources.iter().enumerate() {
            let folded = folded.get(index).copied().unwrap_or(0);
            for (behind, begun) in self.gone_behind.iter_mut().zip(&self.begun) {
                if let Some(behind) = behind.get_mut(index) {
                    *behind = begun.resume_after(index, &source.lineage).max(folded);
                }
            }
        }
    }

    /// Notes that a source holds nothing between two sequences, which were read one after the other.
    pub(crate) fn gone_between(&mut self, source: usize, after: u64, next: u64) {
        for (gone, behind) in self.now.gone.iter_mut().zip(&self.gone_behind) {
            if let (Some(gone), Some(behind)) = (gone.get_mut(source), behind.get(source)) {
                *gone += next.saturating_sub(after.max(*behind) + 1);
            }
        }
    }

    /// Most sequences of a source that any owned partition has found gone, stored or not.
    pub(crate) fn gone(&self, source: usize) -> u64 {
        let of = |partition: u16| self.now.gone.get(usize::from(partition))?.get(source);
        self.owned.iter().filter_map(of).copied().max().unwrap_or(0)
    }

    /// Most sequences of a source that rows of any owned partition have outlived, when the session began.
    pub(crate) fn outlived(&self, source: usize) -> u64 {
        let of = |partition: u16| self.outlived.get(usize::from(partition))?.get(source);
        self.owned.iter().filter_map(of).copied().max().unwrap_or(0)
    }

    /// Distinct checkpointed positions of a source, to be compared with the stream.
    pub(crate) fn checkpointed(&self, source: usize) -> Vec<SourceCheckpoint> {
        let partitions = self
            .owned
            .iter()
            .filter_map(|partition| self.begun.get(usize::from(partition)));
        let mut all: Vec<SourceCheckpoint> = partitions
            .map(|checkpoint| checkpoint.source(source))
            .collect();
        all.sort_by_key(|checkpoint| checkpoint.position);
        all.dedup_by_key(|checkpoint| checkpoint.position);
        all
    }

    /// Whether this session must fold the event into rows of the partition: it owns it, and the event isn't in its checkpoint.
    pub(crate) fn is_due(&self, partition: u16, source: usize, position: Position) -> bool {
        self.owned.contains(partition)
            && self
                .begun
                .get(usize::from(partition))
                .is_some_and(|begun| position > begun.source(source).position)
    }

    /// What becomes of events of a partition.
    pub(crate) fn tally(&mut self, partition: u16) -> Option<&mut Tally> {
        self.now.tallies.get_mut(usize::from(partition))
    }

    /// Notes that everything of a source up to this event is folded.
    pub(crate) fn folded(&mut self, source: usize, to: SourceCheckpoint) {
        if let Some(slot) = self.now.sources.get_mut(source) {
            *slot = to;
        }
    }

    /// What has been folded until now.
    pub(crate) fn now(&self) -> Moment {
        self.now.clone()
    }

    /// Notes that everything folded at a moment is stored.
    pub(crate) fn stored(&mut self, moment: Moment) {
        self.stored = moment;
    }

    /// How far a partition is stored.
    pub(crate) fn checkpoint(&self, partition: u16) -> Checkpoint {
        let index = usize::from(partition);
        let mut checkpoint = self.begun.get(index).cloned().unwrap_or_default();
        let stored = match planted(Bug::CheckpointAhead) {
            true => &self.now,
            false => &self.stored,
        };
        for (source, reached) in stored.sources.iter().enumerate() {
            let before = checkpoint.source(source).position;
            if reached.position > before {
                if reached.position.generation > before.generation
                    && !planted(Bug::OutlivedForgotten)
                {
                    let outlived = self.outlived.get(index).and_then(|of| of.get(source));
                    checkpoint.set_outlived(source, outlived.copied().unwrap_or(0));
                }
                checkpoint.set_source(source, *reached);
            }
        }
        checkpoint.tally = stored.tallies.get(index).copied().unwrap_or_default();
        for (source, gone) in stored.gone.get(index).into_iter().flatten().enumerate() {
            checkpoint.set_gone(source, *gone);
        }
        checkpoint
    }

    /// The checkpoints to be written: partition, revision to guard with, checkpoint. `all`: whatever has moved at all; else those
    /// that counted something, and those that are so many events behind that reading them again would take long.
    pub(crate) fn to_write(&self, all: bool, behind_max: u64) -> Vec<(u16, u64, Checkpoint)> {
        let mut due = Vec::new();
        for partition in self.owned.iter() {
            let Some(written) = self.written.get(usize::from(partition)) else {
                continue;
            };
            let checkpoint = self.checkpoint(partition);
            let behind = (0..self.now.sources.len()).any(|source| {
                let (was, is) = (
                    written.checkpoint.source(source).position,
                    checkpoint.source(source).position,
                );
                is.generation != was.generation
                    || is.sequence.saturating_sub(was.sequence) > behind_max
            });
            if checkpoint != written.checkpoint
                && (all || behind || checkpoint.has_counted_since(&written.checkpoint))
            {
                due.push((partition, written.revision, checkpoint));
            }
        }
        due
    }

    /// Notes that a checkpoint was written.
    pub(crate) fn wrote(&mut self, partition: u16, revision: u64, checkpoint: Checkpoint) {
        if let Some(slot) = self.written.get_mut(usize::from(partition)) {
            *slot = Written {
                revision,
                checkpoint,
            };
        }
    }

    /// Last position of a source that is folded and stored.
    pub(crate) fn stored_position(&self, source: usize, sources: &Sources) -> Option<Position> {
        sources.get(source)?;
        let stored = self.stored.sources.get(source)?.position;
        // Before the first event of the session the checkpoints tell.
        let begun = self
            .owned
            .iter()
            .filter_map(|partition| self.begun.get(usize::from(partition)));
        begun
            .map(|checkpoint| checkpoint.source(source).position)
            .min()
            .map(|begun| begun.max(stored))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(sequence: u64) -> SourceCheckpoint {
        SourceCheckpoint {
            position: Position {
                generation: 0,
                sequence,
            },
            stored_at: None,
        }
    }

    fn sources() -> Sources {
        Sources::new(vec![tidemill_core::projection::Source {
            stream: tidemill_core::definition::StreamRef {
                namespace: "s".to_owned(),
                name: "a".to_owned(),
            },
            lineage: Lineage::first("i"),
        }])
    }

    fn checkpoint(sequence: u64, seen: u64) -> Checkpoint {
        let mut checkpoint = Checkpoint::default();
        checkpoint.set_source(0, at(sequence));
        checkpoint.tally.seen = seen;
        checkpoint
    }

    #[test]
    fn a_partition_that_was_ahead_stays_ahead() {
        let owned: Partitions = [3, 5].into_iter().collect();
        let mut progress = Progress::new(
            owned,
            &sources(),
            vec![(3, 1, checkpoint(10, 4)), (5, 2, checkpoint(20, 6))],
        );
        assert_eq!(progress.resume_after(0, &Lineage::first("i")), 10);
        let due = |progress: &Progress, partition, sequence| {
            progress.is_due(partition, 0, at(sequence).position)
        };
        assert!(due(&progress, 3, 11) && !due(&progress, 3, 10));
        assert!(due(&progress, 5, 21) && !due(&progress, 5, 20));
        assert!(!due(&progress, 4, 99), "not owned");
        progress.folded(0, at(15));
        if let Some(tally) = progress.tally(3) {
            tally.seen += 1;
        }
        assert!(
            progress.to_write(true, 0).is_empty(),
            "nothing of it is stored yet"
        );
        let moment = progress.now();
        progress.folded(0, at(16));
        progress.stored(moment);
        assert_eq!(progress.to_write(false, 100), [(3, 1, checkpoint(15, 5))]);
        assert_eq!(progress.checkpoint(5), checkpoint(20, 6));
        progress.wrote(3, 9, checkpoint(15, 5));
        let moment = progress.now();
        progress.stored(moment);
        assert!(
            progress.to_write(false, 100).is_empty(),
            "one event without anything to count isn't worth a write"
        );
        assert_eq!(progress.to_write(true, 100), [(3, 9, checkpoint(16, 5))]);
        assert_eq!(progress.to_write(false, 0), [(3, 9, checkpoint(16, 5))]);
    }

    #[test]
    fn what_is_gone_counts_once() {
        let sources = sources();
        for (folded, expected) in [(0, [26, 16]), (20, [16, 16]), (30, [6, 6])] {
            let owned: Partitions = [3, 5].into_iter().collect();
            let mut progress = Progress::new(
                owned,
                &sources,
                vec![(3, 1, checkpoint(10, 4)), (5, 2, checkpoint(20, 6))],
            );
            progress.count_gone_behind(&sources, &[folded]);
            progress.gone_between(0, 10, 31);
            progress.gone_between(0, 35, 42);
            assert!(
                progress.to_write(true, 0).is_empty(),
                "nothing of it is stored yet"
            );
            progress.folded(0, at(42));
            progress.stored(progress.now());
            let gone = [3, 5].map(|partition| progress.checkpoint(partition).gone(0));
            assert_eq!(gone, expected, "{folded}");
            assert_eq!(progress.gone(0), expected[0]);
            let due = progress.to_write(false, 1000);
            assert_eq!(due.len(), 2, "all of them counted something");
        }
    }
}
