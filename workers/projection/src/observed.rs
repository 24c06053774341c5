//! How a session is, for status requests, counters and metrics.

use crate::session::progress::Progress;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tidemill_core::control::ControlError;
use tidemill_core::names::{PROJECTION_PARTITIONS, partition};
use tidemill_core::projection::parked::ParkedKeys;
use tidemill_core::projection::{KeySpace, Sources};
use tidemill_core::status::{ProjectionCounters, SourceProgress};

/// What a session last said of itself. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observer(Arc<Mutex<Option<Observed>>>);

/// How a session is at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    /// Per owned partition.
    pub(crate) partitions: BTreeMap<u16, ProjectionCounters>,
    /// Per source.
    pub(crate) sources: BTreeMap<String, SourceProgress>,
    /// It reads, but folds nothing.
    pub(crate) stopped: Option<ControlError>,
    /// Key of the event before which it stopped.
    pub(crate) stopped_key: Option<String>,
    /// Counted once for the session, not per partition.
    pub(crate) parked_keys: u64,
}

/// Where a stream ended at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamEnd {
    first: u64,
    last: u64,
    messages: u64,
}

impl StreamEnd {
    pub(crate) fn of(state: &tidemill_nats::StreamState) -> StreamEnd {
        StreamEnd {
            first: state.first,
            last: state.last,
            messages: state.messages,
        }
    }

    /// Messages behind a sequence; with some deleted between them, at most so many.
    pub(crate) fn waiting_after(&self, sequence: u64) -> u64 {
        let begin = sequence.max(self.first.saturating_sub(1));
        self.last.saturating_sub(begin).min(self.messages)
    }
}

impl Observer {
    pub(crate) fn set(&self, observed: Observed) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(observed);
    }

    pub(crate) fn get(&self) -> Option<Observed> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Observed {
    pub(crate) fn of(
        space: &KeySpace,
        sources: &Sources,
        progress: &Progress,
        parked: &ParkedKeys,
        pending: &[u64],
        stopped: Option<(ControlError, String)>,
    ) -> Observed {
        let (stopped, stopped_key) = stopped.unzip();
        let mut parked_keys: BTreeMap<u16, u64> = BTreeMap::new();
        for token in parked.tokens() {
            *parked_keys
                .entry(partition(token, PROJECTION_PARTITIONS))
                .or_default() += 1;
        }
        let of_source = |index: usize, position: u64| SourceProgress {
            position,
            incarnation: sources
                .get(index)
                .map_or("", |source| source.lineage.incarnation())
                .to_owned(),
            lag: pending.get(index).copied().unwrap_or(0),
        };
        let partitions = progress.owned().iter().map(|partition| {
            let checkpoint = progress.checkpoint(partition);
            let tally = checkpoint.tally;
            let counters = ProjectionCounters {
                revision: space.to_string(),
                live: String::new(),
                seen: tally.seen,
                matched: tally.matched,
                skipped: tally.skipped,
                left_out: tally.left_out,
                folded: tally.folded,
                puts: tally.puts,
                gone: (0..sources.len()).map(|index| checkpoint.gone(index)).sum(),
                parked_keys: parked_keys.get(&partition).copied().unwrap_or(0),
                sources: sources
                    .iter()
                    .enumerate()
                    .map(|(index, source)| {
                        (
                            source.stream.to_string(),
                            of_source(index, checkpoint.source(index).position.sequence),
                        )
                    })
                    .collect(),
            };
            (partition, counters)
        });
        Observed {
            partitions: partitions.collect(),
            sources: sources
                .iter()
                .enumerate()
                .map(|(index, source)| {
                    let position = progress.stored_position(index, sources).unwrap_or_default();
                    (
                        source.stream.to_string(),
                        of_source(index, position.sequence),
                    )
                })
                .collect(),
            stopped,
            stopped_key,
            parked_keys: parked.keys() as u64,
        }
    }
}
