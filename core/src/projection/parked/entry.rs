//! What a projection's worker makes of a message of its parked stream.

use super::super::fold::FoldError;
use super::super::position::Position;
use super::super::row::{RowError, Source, Sources};
use crate::names::{EventPosition, KeySpace, headers};
use crate::parked::{Failure, Kept, Parked, ParkedError};
use crate::timestamp::Timestamp;

/// An event that waits, by the sources of one definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The rows it waits for.
    pub key_space: KeySpace,
    /// Index of its source.
    pub source: usize,
    /// Its position there.
    pub position: Position,
    /// Why it can't be folded; `None` if it only follows.
    pub failure: Option<Failure>,
    /// When its source stored it.
    pub stored_at: Timestamp,
    /// The event.
    pub kept: Kept,
}

/// Why a message of the parked stream can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// It isn't what workers write.
    #[error(transparent)]
    Parked(#[from] ParkedError),
    /// Its position is in none of the sources, or in a history that the source never had.
    #[error("position of the parked event")]
    Position(#[from] RowError),
}

impl From<&FoldError> for Failure {
    fn from(error: &FoldError) -> Failure {
        Failure::new(error.reason(), error.to_string())
    }
}

impl Entry {
    /// As it is stored. `source` is the one that [`Entry::source`] names.
    #[must_use]
    pub fn to_parked(&self, source: &Source) -> Parked {
        Parked {
            key_space: Some(self.key_space.clone()),
            position: source.event_position(self.position),
            failure: self.failure.clone(),
            stored_at: self.stored_at,
            kept: self.kept.clone(),
        }
    }

    /// Reads a message of the parked stream.
    ///
    /// # Errors
    /// [`EntryError`]
    pub fn read(
        sources: &Sources,
        message: &[(&str, &str)],
        payload: &[u8],
    ) -> Result<Entry, EntryError> {
        let Parked {
            key_space,
            position,
            failure,
            stored_at,
            kept,
        } = Parked::read(message, payload)?;
        let (source, position) = sources.find(&position)?;
        Ok(Entry {
            key_space: key_space.ok_or(ParkedError::Header(headers::REVISION))?,
            source,
            position,
            failure,
            stored_at,
            kept,
        })
    }
}

impl Source {
    /// A position as headers and people write it.
    #[must_use]
    pub fn event_position(&self, position: Position) -> EventPosition {
        EventPosition {
            stream: self.stream.clone(),
            incarnation: self
                .lineage
                .incarnation_of(position.generation)
                .unwrap_or_default()
                .to_owned(),
            generation: u64::from(position.generation),
            sequence: position.sequence,
        }
    }
}
