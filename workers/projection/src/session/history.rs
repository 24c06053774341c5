//! Whether new rows would lack events that the rows before them were folded from.
//!
//! A stream may lose messages at its beginning (limits, a purge) and in the middle (limits per subject, a deletion). What is gone stays
//! gone, so every key space counts the sequences it found gone on its way: new rows that are as far as the old ones and counted more
//! lack what the old ones have, and nothing else can be missing.

use super::lead::Live;
use crate::error::{SessionError, Stopped};
use crate::store::Store;
use tidemill_core::definition::StreamRef;
use tidemill_core::names::PROJECTION_PARTITIONS;
use tidemill_core::planted::{Bug, planted};
use tidemill_core::projection::{KeySpace, Sources};

/// Refuses to build rows of sources in which so many sequences are `gone`, by the source's index, if the rows that readers see have more.
///
/// # Errors
/// [`Stopped::HistoryTruncated`]
pub(super) async fn refuse_lost(
    store: &Store,
    live: &Live,
    sources: &Sources,
    gone: &[u64],
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
    let missed = found_gone(store, space, &shared).await?;
    for (source, missed) in shared.iter().zip(missed) {
        let index = sources.iter().position(|one| one.stream == source.stream);
        let gone = index.and_then(|index| gone.get(index)).copied();
        if let Some(lost) = gone.unwrap_or(0).checked_sub(missed)
            && lost > 0
            && !planted(Bug::TruncationUnseen)
        {
            return Err(Stopped::HistoryTruncated {
                stream: source.stream.clone(),
                lost,
            }
            .into());
        }
    }
    Ok(())
}

/// Those of the sources that are among the streams; all if it isn't known which those are.
pub(super) fn shared(sources: &Sources, streams: Option<&[StreamRef]>) -> Sources {
    let shared = sources
        .iter()
        .filter(|source| streams.is_none_or(|streams| streams.contains(&source.stream)));
    Sources::new(shared.cloned().collect())
}

/// Per source, most sequences that any partition of a key space has found gone.
pub(super) async fn found_gone(
    store: &Store,
    space: &KeySpace,
    sources: &Sources,
) -> Result<Vec<u64>, SessionError> {
    let checkpoints = store
        .checkpoints(space, sources, 0..PROJECTION_PARTITIONS)
        .await?;
    let most = |index| {
        checkpoints
            .iter()
            .map(|(_, _, checkpoint)| checkpoint.gone(index))
            .max()
            .unwrap_or(0)
    };
    Ok((0..sources.len()).map(most).collect())
}
