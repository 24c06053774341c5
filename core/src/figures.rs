//! What workers count, summed over the partitions of a resource: for lists and for status.

use crate::names::KeySpace;
use crate::status::{ProjectionCounters, SagaCounters, SourceProgress};
use serde::Serialize;
use std::collections::BTreeMap;

/// Figures of a Projection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProjectionFigures {
    /// Events read.
    pub seen: u64,
    /// Events that a handler matched.
    pub matched: u64,
    /// Events that none matched.
    pub skipped: u64,
    /// Events not folded yet; unknown where nobody looks.
    pub lag: Option<u64>,
    /// Keys parked now.
    pub parked_keys: u64,
    /// Events left out: `onError: Skip`, or a person's decision.
    pub left_out: u64,
    /// Events that were gone from the stream before they were folded.
    pub gone: u64,
}

/// Figures of a Saga.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SagaFigures {
    /// Events of trigger streams read.
    pub seen: u64,
    /// Events that matched a trigger.
    pub matched: u64,
    /// Events that matched none.
    pub skipped: u64,
    /// Parked trigger events: they can't be read or give no id, and started nothing.
    pub parked_triggers: u64,
    /// Instances started, ever.
    pub started: u64,
    /// Instances that go on now.
    pub running: u64,
    /// Instances completed, ever.
    pub completed: u64,
    /// Instances compensated, ever.
    pub compensated: u64,
    /// Instances parked now.
    pub parked: u64,
    /// Attempts made again.
    pub retried: u64,
    /// Replies that came too late.
    pub late_replies: u64,
    /// Replies with a wrong token.
    pub forged_replies: u64,
    /// Times the log was set back.
    pub log_resets: u64,
}

impl ProjectionFigures {
    /// Nothing was counted.
    #[must_use]
    pub fn none() -> Self {
        ProjectionFigures {
            lag: Some(0),
            ..ProjectionFigures::default()
        }
    }

    /// The sum over partitions, each as it is in the bucket. What can't be read counts nothing: another version wrote it.
    #[must_use]
    pub fn sum<'a>(partitions: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let read = partitions
            .into_iter()
            .filter_map(|bytes| serde_json::from_slice(bytes).ok());
        read.fold(ProjectionFigures::none(), ProjectionFigures::and)
    }

    fn and(mut self, counters: ProjectionCounters) -> Self {
        self.seen += counters.seen;
        self.matched += counters.matched;
        self.skipped += counters.skipped;
        self.parked_keys += counters.parked_keys;
        // Each partition tells the lag of the whole stream as it was when it was written.
        let lag: u64 = counters.sources.values().map(|source| source.lag).sum();
        self.lag = self.lag.max(Some(lag));
        self.left_out += counters.left_out;
        // The same of the whole stream.
        self.gone = self.gone.max(counters.gone);
        self
    }
}

/// Which rows of a Projection readers see, which are built beside them, and how far those of its definition are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProjectionProgress {
    /// Key space that readers see; `None` = none yet, or nobody has said.
    pub live: Option<KeySpace>,
    /// Key space that isn't read yet.
    pub building: Option<KeySpace>,
    /// Per source (`<namespace>/<name>`): what all partitions have folded.
    pub sources: BTreeMap<String, SourceProgress>,
}

impl ProjectionProgress {
    /// What partitions say together, each as it is in the bucket. While workers change, those that know more count: what readers see is
    /// what most say, and a source is as far as its last partition.
    #[must_use]
    pub fn of<'a>(partitions: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let read: Vec<ProjectionCounters> = partitions
            .into_iter()
            .filter_map(|bytes| serde_json::from_slice(bytes).ok())
            .collect();
        let live = said_most(read.iter().map(|counters| counters.live.as_str()));
        let target = said_most(read.iter().map(|counters| counters.revision.as_str()));
        let building = target
            .clone()
            .filter(|target| live.as_ref() != Some(target));
        let mut sources: BTreeMap<String, SourceProgress> = BTreeMap::new();
        let present = target.map(|target| target.to_string()).unwrap_or_default();
        for counters in read
            .into_iter()
            .filter(|counters| counters.revision == present)
        {
            for (stream, progress) in counters.sources {
                let slot = sources.entry(stream).or_insert_with(|| progress.clone());
                let lag = slot.lag.max(progress.lag);
                if progress.position < slot.position {
                    *slot = progress;
                }
                slot.lag = lag;
            }
        }
        ProjectionProgress {
            live,
            building,
            sources,
        }
    }
}

/// The key space that is named most often.
fn said_most<'a>(names: impl Iterator<Item = &'a str>) -> Option<KeySpace> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in names.filter(|name| !name.is_empty()) {
        *counts.entry(name).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count)?;
    KeySpace::parse(most.0)
}

impl SagaFigures {
    /// The sum over partitions, each as it is in the bucket. What can't be read counts nothing: another version wrote it.
    #[must_use]
    pub fn sum<'a>(partitions: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let read = partitions
            .into_iter()
            .filter_map(|bytes| serde_json::from_slice(bytes).ok());
        read.fold(SagaFigures::default(), SagaFigures::and)
    }

    fn and(mut self, counters: SagaCounters) -> Self {
        for trigger in counters.triggers.values() {
            self.seen += trigger.seen;
            self.matched += trigger.matched;
            self.skipped += trigger.skipped;
            self.parked_triggers += trigger.parked;
        }
        self.started += counters.started;
        self.running += counters.running;
        self.completed += counters.completed;
        self.compensated += counters.compensated;
        self.parked += counters.parked;
        self.retried += counters.retried;
        self.late_replies += counters.late_replies;
        self.forged_replies += counters.forged_replies;
        // Every partition sees every one.
        self.log_resets = self.log_resets.max(counters.log_resets);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn progress(partitions: &[serde_json::Value]) -> ProjectionProgress {
        let texts: Vec<String> = partitions.iter().map(ToString::to_string).collect();
        ProjectionProgress::of(texts.iter().map(String::as_bytes))
    }

    #[test]
    fn a_source_is_as_far_as_its_last_partition() {
        let counted = |revision: &str, live: &str, position: u64, lag: u64| {
            json!({"revision": revision, "live": live, "sources": {
                "shop/orders": {"position": position, "incarnation": "i", "lag": lag}}})
        };
        let (old, new) = ("0123456789abcdef", "fedcba9876543210-2");
        let names = |progress: &ProjectionProgress| {
            let name = |space: &Option<KeySpace>| space.as_ref().map(ToString::to_string);
            (name(&progress.live), name(&progress.building))
        };
        assert_eq!(progress(&[]), ProjectionProgress::default());
        // The first rows: nobody sees them yet.
        let first = progress(&[counted(old, "", 3, 5)]);
        assert_eq!(names(&first), (None, Some(old.to_owned())));
        // Others are built; one partition hasn't been told of them yet.
        let built = progress(&[
            counted(new, old, 7, 1),
            counted(new, old, 4, 2),
            counted(old, old, 1, 0),
        ]);
        assert_eq!(names(&built), (Some(old.to_owned()), Some(new.to_owned())));
        let source = &built.sources["shop/orders"];
        assert_eq!((source.position, source.lag), (4, 2));
        // They are read.
        let read = progress(&[counted(new, new, 8, 0)]);
        assert_eq!(names(&read), (Some(new.to_owned()), None));
    }
}
