//! Whether new rows would lack events that the rows before them were folded from.
//!
//! A stream may lose messages at its beginning (limits, a purge) and in the middle (limits per subject, a deletion). What is gone stays
//! gone, so every key space counts the sequences it found gone on its way: new rows that are as far as the old ones and counted more
//! lack what the old ones have. A stream that was set back or replaced loses its end: rows that outlived that hold it, and say how much.
//! Nothing else can be missing.

use super::lead::Live;
use super::load;
use super::progress::{Partitions, Progress};
use crate::error::{SessionError, Stopped};
use crate::store::Store;
use tidemill_core::contract::ProjectionWorkload;
use tidemill_core::definition::StreamRef;
use tidemill_core::names::{PROJECTION_PARTITIONS, headers};
use tidemill_core::planted::{Bug, planted};
use tidemill_core::projection::{KeySpace, Positions, Source, Sources};

/// Rows read at a time.
const ROWS_BATCH: usize = 512;
use tidemill_nats::{ReadFrom, Reader};

/// What rows lack of a source, and what they hold of it that it lost later, both in sequences.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    /// See [`Checkpoint::gone`](tidemill_core::projection::Checkpoint::gone).
    pub(super) gone: u64,
    /// See [`Checkpoint::outlived`](tidemill_core::projection::Checkpoint::outlived).
    pub(super) outlived: u64,
}

impl Found {
    /// At most how many events `old` has that these rows haven't: outlived sequences without an event, or before the start, count too.
    fn lost_since(self, old: Found) -> u64 {
        (self.gone + old.outlived).saturating_sub(old.gone + self.outlived)
    }
}

/// Refuses to build rows of which so much was `found`, by the source's index, if the rows that readers see have more.
///
/// # Errors
/// [`Stopped::HistoryTruncated`]
pub(super) async fn refuse_lost(
    store: &Store,
    live: &Live,
    sources: &Sources,
    found: &[Found],
) -> Result<(), SessionError> {
    let Live::At {
        space,
        streams,
        accepted: false,
        ..
    } = live
    else {
        return Ok(());
    };
    // The old rows hold nothing of a source that only the new ones have.
    let shared = shared(sources, streams.as_deref());
    let old = found_in(store, space, &shared).await?;
    for (source, old) in shared.iter().zip(old) {
        let index = sources.iter().position(|one| one.stream == source.stream);
        let new = index.and_then(|index| found.get(index)).copied();
        let lost = new.unwrap_or_default().lost_since(old);
        if lost > 0 && !planted(Bug::TruncationUnseen) {
            return Err(Stopped::HistoryTruncated {
                stream: source.stream.clone(),
                lost,
            }
            .into());
        }
    }
    Ok(())
}

/// At most how many events the rows that readers see have and those of `target` will lack, by what can be read of both now: what any
/// worker that builds them would find, or more.
pub(crate) async fn would_lack(
    store: &Store,
    workload: &ProjectionWorkload,
    live: &KeySpace,
    target: &KeySpace,
) -> Result<u64, SessionError> {
    let mut known = Vec::new();
    for stream in &workload.definition.sources {
        // One that was never read holds nothing that any rows have.
        if let (Some(binding), Some(lineage)) = (
            store.contract.binding(stream),
            store.known_lineage(stream).await?,
        ) {
            let stream = stream.clone();
            let lineage = lineage.value;
            known.push((binding, Source { stream, lineage }));
        }
    }
    let sources = Sources::new(known.iter().map(|(_, source)| source.clone()).collect());
    let checkpoints = store
        .checkpoints(target, &sources, 0..PROJECTION_PARTITIONS)
        .await?;
    let all: Partitions = (0..PROJECTION_PARTITIONS).collect();
    let progress = Progress::new(all, &sources, checkpoints);
    let streams = match live.revision == target.revision {
        true => Some(workload.definition.sources.clone()),
        false => {
            let definition = store.definition(&live.revision).await?;
            definition.map(|definition| definition.sources)
        }
    };
    let shared = shared(&sources, streams.as_deref());
    let old = found_in(store, live, &shared).await?;
    let mut lost = 0;
    for (index, (binding, source)) in known.iter().enumerate() {
        let mut pairs = shared.iter().zip(&old);
        let Some((_, old)) = pairs.find(|(one, _)| one.stream == source.stream) else {
            continue;
        };
        let state = store.nats.stream_state(&binding.name).await?;
        let start = load::start_of(store, &source.stream);
        let start = store.start_after(&source.stream, start, &state).await?;
        let from = load::resume_after(&progress, index, source, start);
        let reader = Reader::open(
            &store.nats,
            &binding.name,
            Vec::new(),
            ReadFrom::After(from),
        )
        .await?;
        lost += load::found(&progress, index, from, &reader).lost_since(*old);
    }
    Ok(lost)
}

/// Those of the sources that are among the streams; all if it isn't known which those are.
pub(super) fn shared(sources: &Sources, streams: Option<&[StreamRef]>) -> Sources {
    let shared = sources
        .iter()
        .filter(|source| streams.is_none_or(|streams| streams.contains(&source.stream)));
    Sources::new(shared.cloned().collect())
}

/// Per source, the most that any partition of a key space has found.
pub(super) async fn found_in(
    store: &Store,
    space: &KeySpace,
    sources: &Sources,
) -> Result<Vec<Found>, SessionError> {
    let checkpoints = store
        .checkpoints(space, sources, 0..PROJECTION_PARTITIONS)
        .await?;
    let most = |(index, source): (usize, &Source)| {
        let mut found = Found::default();
        for (_, _, checkpoint) in &checkpoints {
            found.gone = found.gone.max(checkpoint.gone(index));
            let outlived = checkpoint.outlived(index, &source.lineage);
            found.outlived = found.outlived.max(outlived);
        }
        found
    };
    Ok(sources.iter().enumerate().map(most).collect())
}

/// Per source, the sequence up to which anything of a key space is known to have been folded: by its checkpoints, of all workers, and by
/// its rows, which may be ahead of them. All rows are read: only for a source that turns out to have lost something. Rows at or behind
/// `firsts`, the first sequences that the sources still hold, tell nothing: who made them had met what is gone, or not.
pub(super) async fn folded(
    store: &Store,
    space: &KeySpace,
    sources: &Sources,
    firsts: &[u64],
) -> Result<Vec<u64>, SessionError> {
    let mut folded = vec![0; sources.len()];
    let all = store.checkpoints(space, sources, 0..PROJECTION_PARTITIONS);
    for (_, _, checkpoint) in all.await? {
        for (index, (folded, source)) in folded.iter_mut().zip(sources.iter()).enumerate() {
            *folded = checkpoint.resume_after(index, &source.lineage).max(*folded);
        }
    }
    let mut note = |positions: &Positions| {
        let known = folded.iter_mut().zip(sources.iter()).zip(firsts);
        for (index, ((folded, source), first)) in known.enumerate() {
            let row = source.lineage.resume_after(positions.get(index));
            if row < *first {
                *folded = row.max(*folded);
            }
        }
    };
    let filter = vec![store.rows.subject(&space.all_keys())];
    let stream = store.rows.stream();
    let mut reader = Reader::open_to_end(&store.nats, stream, filter, ReadFrom::First).await?;
    let mut rows = Vec::new();
    while reader.next_batch(ROWS_BATCH, &mut rows).await? > 0 {
        for row in rows.drain(..) {
            let header = row
                .headers
                .as_ref()
                .and_then(|headers| headers.get(headers::POSITION));
            // What isn't ours tells nothing.
            if let Some(positions) = header.and_then(|text| sources.read(text.as_str()).ok()) {
                note(&positions);
            }
        }
    }
    Ok(folded)
}
