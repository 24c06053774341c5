//! What waits for a person's decision: an event that can't be folded parks its key, and what follows it for that key waits behind it.
//!
//! Entries are messages of the parked stream ([`crate::parked`]), in the order in which they must be folded. Each belongs to one key
//! space: another revision folds everything itself. An entry may be there more than once, because owners may overlap; only its first copy counts.

mod entry;
mod keys;

pub use entry::{Entry, EntryError};
pub use keys::{ParkedKeys, Waiting, WaitingFor};

use super::fold::{FoldError, Folded};
use super::position::Position;
use crate::definition::{OnError, ProjectionPolicy};
use crate::planted::{Bug, planted};
use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

/// Most events that one worker keeps waiting, over all keys. It holds where each of them is in memory: about 100 bytes.
pub const WAITING_MAX: usize = 1_000_000;

/// What is done with an event for one of its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is folded.
    Fold,
    /// It is in the row already.
    Passed,
    /// It waits in the parked stream already.
    Waits,
    /// The key is parked: it is added to what waits.
    Follows,
    /// A person decided to leave it out.
    LeftOut,
}

/// What is done with an event for one of its rows. `row` is the row's position in the event's source; `decided` says whether a
/// person decided to leave this event out of this row.
#[must_use]
pub fn admit(
    parked: &ParkedKeys,
    token: &str,
    source: usize,
    position: Position,
    row: Position,
    decided: bool,
) -> Admission {
    if position <= row && !planted(Bug::PositionNotChecked) {
        return Admission::Passed;
    }
    if planted(Bug::PoisonStopsOthers) && parked.keys() > 0 && parked.waiting(token).is_empty() {
        return Admission::Follows;
    }
    if decided && !planted(Bug::DecisionIgnored) {
        return Admission::LeftOut;
    }
    let waiting = parked.waiting(token);
    if waiting.is_empty() || token == crate::names::KEYLESS_TOKEN {
        // Events without a key have nothing in common: each is tried.
        return match waiting.contains(source, position) {
            true => Admission::Waits,
            false => Admission::Fold,
        };
    }
    if planted(Bug::FollowersPass) {
        return Admission::Fold;
    }
    if !planted(Bug::WaitsTwice) && waiting.contains(source, position) {
        return Admission::Waits;
    }
    match waiting.first_of(source).map(|first| first.position) {
        // It came before the one that parked the key, and the row that held it was not stored before a restart.
        Some(first) if position < first => Admission::Fold,
        // Of another source than the one that parked the key: the row doesn't depend on how sources interleave, so it may wait.
        Some(_) | None => Admission::Follows,
    }
}

/// What is done about an event that can't be folded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// It is copied to the parked stream, and its key waits.
    Park,
    /// It is counted and left out.
    LeaveOut,
    /// Nothing more is folded until a person does something.
    Stop(StopReason),
}

/// Why a projection doesn't go on by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// `onError: Stop`.
    #[error("an event can't be folded, and the projection says `onError: {{then: Stop}}`")]
    OnError,
    /// As many keys are parked as may be.
    #[error("{0} keys are parked, as many as `onError.maxParkedKeys` allows")]
    TooManyParkedKeys(u32),
    /// As many events wait as may.
    #[error("{0} events wait for a decision or behind such an event, as many as one worker keeps")]
    TooManyWaiting(usize),
}

impl StopReason {
    /// A stable word for conditions and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            StopReason::OnError => "FoldError",
            StopReason::TooManyParkedKeys(_) => "TooManyParkedKeys",
            StopReason::TooManyWaiting(_) => "TooManyParkedEvents",
        }
    }

    /// What a person can do. `projection` is `<namespace>/<name>`, `key` that of the event before which it stopped.
    #[must_use]
    pub fn advice(&self, projection: &str, key: &str) -> String {
        match self {
            // It isn't parked, but listed with what is.
            StopReason::OnError => format!(
                "`tidemill parked skip {projection} '{key}' --why …` leaves the event out, \
                 `tidemill parked redrive {projection} '{key}'` tries it again"
            ),
            StopReason::TooManyParkedKeys(_) | StopReason::TooManyWaiting(_) => {
                format!("`tidemill parked list {projection}` shows what waits: redrive or skip it")
            }
        }
    }
}

/// What is done about an event that can't be folded into the row of `token`.
#[must_use]
pub fn consequence(policy: &ProjectionPolicy, parked: &ParkedKeys, token: &str) -> Consequence {
    match policy.on_error {
        OnError::Park if planted(Bug::PoisonLeftOut) => Consequence::LeaveOut,
        OnError::Skip => Consequence::LeaveOut,
        OnError::Stop => Consequence::Stop(StopReason::OnError),
        OnError::Park if parked.is_full() => follow(parked),
        OnError::Park
            if parked.waiting(token).is_empty()
                && parked.keys() >= policy.max_parked_keys as usize
                && !planted(Bug::ParkedKeysUnlimited) =>
        {
            Consequence::Stop(StopReason::TooManyParkedKeys(policy.max_parked_keys))
        }
        OnError::Park => Consequence::Park,
    }
}

/// What is done about an event whose key waits already ([`Admission::Follows`]).
#[must_use]
pub fn follow(parked: &ParkedKeys) -> Consequence {
    match parked.is_full() {
        true => Consequence::Stop(StopReason::TooManyWaiting(parked.events_max())),
        false => Consequence::Park,
    }
}

/// What became of a waiting event that was folded again.
#[derive(Clone, Debug, PartialEq)]
pub enum Redriven {
    /// It is in the row, or there is nothing to fold: it leaves the parked stream once the row is stored.
    Done,
    /// It has a key now, but that row has gone on without it: folding it would put it out of order. It can only be left out.
    RowIsAhead,
    /// It has a key now, whose row this worker doesn't own.
    RowElsewhere,
    /// It has a key now that is parked itself: the token. Its turn comes after what waits there.
    KeyWaits(Box<str>),
    /// It still can't be folded, and what follows it goes on waiting.
    Fails(FoldError),
}

/// What became of a waiting event that was folded again into a row.
#[must_use]
pub fn redriven(keyless: bool, folded: Result<Folded, FoldError>) -> Redriven {
    match folded {
        Ok(Folded::Stored | Folded::Nothing) => Redriven::Done,
        // A row with a key can't pass what waits for it, so an earlier redrive was interrupted after the row was stored.
        Ok(Folded::Passed) if !keyless || planted(Bug::RowIsAheadIgnored) => Redriven::Done,
        Ok(Folded::Passed) => Redriven::RowIsAhead,
        Err(error) => Redriven::Fails(error),
    }
}

/// A person's decision about one event and one row. It holds for every later revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// What was decided.
    pub decision: DecisionKind,
    /// Who decided.
    #[serde(default)]
    pub by: String,
    /// Why.
    #[serde(default)]
    pub why: String,
    /// When.
    pub at: Timestamp,
}

/// What may be decided about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecisionKind {
    /// It is left out of the row.
    Skip,
}

#[cfg(test)]
mod tests;
