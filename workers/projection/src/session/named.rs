//! What a key waits for, and what the event that a request names is to it.

use super::Session;
use crate::error::SessionError;
use tidemill_core::control::{Accepted, ControlError};
use tidemill_core::projection::{KEYLESS_TOKEN, Position, Positions, key_of_token};

/// What the event that a request names is to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// The key waits for it.
    First,
    /// A person has left it out.
    LeftOut,
    /// The row has it.
    Folded,
}

impl Session {
    /// Where the event stands that a key waits for; of what has no key, the last of each source.
    fn waits_for(&self, token: &str) -> Option<Positions> {
        let waiting = self.parked.waiting(token);
        let meant = match token == KEYLESS_TOKEN {
            true => usize::MAX,
            false => 1,
        };
        let mut positions = Positions::default();
        for one in waiting.iter().take(meant) {
            positions.set(one.source, positions.get(one.source).max(one.position));
        }
        if let Some(halted) = &self.halted
            && positions.is_empty()
            && *halted.token == *token
        {
            positions.set(halted.source, halted.position);
        }
        (!positions.is_empty()).then_some(positions)
    }

    pub(super) fn first(&self, token: &str) -> Result<Accepted, ControlError> {
        let position = self.waits_for(token).ok_or_else(|| not_parked(token))?;
        let position = self.sources.write(&position);
        Ok(Accepted {
            message: format!("`{}` waits for {position}", key_of(token)),
            position: Some(position),
        })
    }

    /// What the event at these positions is to a key; an error if it is nothing, or not its turn.
    pub(super) async fn named(
        &mut self,
        token: &str,
        positions: &Positions,
    ) -> Result<Result<Named, ControlError>, SessionError> {
        let first = self.waits_for(token);
        let keyless = token == KEYLESS_TOKEN;
        let all: Vec<(usize, Position)> = (0..self.sources.len())
            .map(|source| (source, positions.get(source)))
            .collect();
        // They don't wait for each other, and more may have come since.
        let is_first = keyless
            && self
                .parked
                .waiting(token)
                .iter()
                .any(|waiting| waiting.position <= positions.get(waiting.source));
        let same = |first: &Positions| {
            all.iter()
                .all(|(source, position)| first.get(*source) == *position)
        };
        if is_first || first.as_ref().is_some_and(same) {
            return Ok(Ok(Named::First));
        }
        let mut named = all
            .iter()
            .filter(|(_, position)| *position != Position::default());
        if named
            .clone()
            .all(|(source, position)| self.decisions.contains(&(*source, *position, token.into())))
        {
            return Ok(Ok(Named::LeftOut));
        }
        if !keyless {
            if self.cache.is_cold(token) {
                self.warm(vec![token.into()]).await?;
            }
            let place = self.cache.locate(token);
            if let Some(cached) = self.cache.at(place)
                && named.all(|(source, position)| *position <= cached.row.positions().get(*source))
            {
                return Ok(Ok(Named::Folded));
            }
        }
        Ok(Err(match first {
            None => not_parked(token),
            Some(first) => ControlError::new(
                "NotFirst",
                format!(
                    "`{}` waits for {}, not for {}",
                    key_of(token),
                    self.sources.write(&first),
                    self.sources.write(positions)
                ),
            ),
        }))
    }
}

pub(super) fn not_parked(token: &str) -> ControlError {
    ControlError::new("NotParked", format!("`{}` isn't parked", key_of(token)))
}

/// A key as people write it.
pub(super) fn key_of(token: &str) -> String {
    key_of_token(token).unwrap_or_else(|_| token.to_owned())
}
