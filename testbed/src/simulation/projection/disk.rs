//! What outlives every owner: the bucket of rows, with checkpoints and decisions, and the parked stream.

use std::collections::{BTreeMap, BTreeSet};
use tidemill_core::projection::Position;

/// A row as it is stored.
#[derive(Clone, Debug)]
pub(super) struct StoredRow {
    /// `None`: a tombstone.
    pub(super) value: Option<String>,
    /// Its position header.
    pub(super) positions: String,
    pub(super) revision: u64,
}

/// A message of the parked stream.
#[derive(Clone, Debug)]
pub(super) struct ParkedMessage {
    pub(super) partition: u16,
    pub(super) token: String,
    pub(super) headers: Vec<(String, String)>,
}

/// Source, position, row.
pub(super) type Decided = (usize, Position, String);

#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) rows: BTreeMap<String, StoredRow>,
    /// Revision and JSON, by partition.
    pub(super) checkpoints: BTreeMap<u16, (u64, String)>,
    pub(super) decisions: BTreeSet<Decided>,
    /// By sequence.
    pub(super) parked: BTreeMap<u64, ParkedMessage>,
    bucket_last: u64,
    parked_last: u64,
}

/// Somebody else has written it.
#[derive(Debug)]
pub(super) struct Conflict;

impl Disk {
    /// Stores a row if its revision is the expected one (0: there is none), or whatever it is.
    pub(super) fn put_row(
        &mut self,
        token: &str,
        expected: Option<u64>,
        value: Option<String>,
        positions: String,
    ) -> Result<u64, Conflict> {
        let found = self.rows.get(token).map_or(0, |row| row.revision);
        if expected.is_some_and(|expected| expected != found) {
            return Err(Conflict);
        }
        self.bucket_last += 1;
        let revision = self.bucket_last;
        let row = StoredRow {
            value,
            positions,
            revision,
        };
        self.rows.insert(token.to_owned(), row);
        Ok(revision)
    }

    /// Stores a checkpoint if its revision is the expected one.
    pub(super) fn put_checkpoint(
        &mut self,
        partition: u16,
        expected: u64,
        json: String,
    ) -> Result<u64, Conflict> {
        let found = self
            .checkpoints
            .get(&partition)
            .map_or(0, |stored| stored.0);
        if expected != found {
            return Err(Conflict);
        }
        self.bucket_last += 1;
        self.checkpoints.insert(partition, (self.bucket_last, json));
        Ok(self.bucket_last)
    }

    pub(super) fn park(&mut self, message: ParkedMessage) -> u64 {
        self.parked_last += 1;
        self.parked.insert(self.parked_last, message);
        self.parked_last
    }
}
