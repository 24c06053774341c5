//! Trying again what waits, by request, and leaving out what a person gives up.

use super::intake::{self, Incoming};
use super::{Halted, Session};
use crate::error::SessionError;
use tidemill_core::control::{Accepted, ControlError};
use tidemill_core::names::{PROJECTION_PARTITIONS, TokenError, encode_token, partition};
use tidemill_core::projection::parked::{
    Decision, DecisionKind, Entry, Kept, Redriven, Waiting, redriven,
};
use tidemill_core::projection::{KEYLESS_TOKEN, decision_key};
use tidemill_core::timestamp::Timestamp;
use tidemill_nats::StoredMessage;
use tokio::sync::oneshot;

/// What a person wants done about parked keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Row key, or [`KEYLESS_TOKEN`] for what has none; `None` = all that wait.
    pub(crate) key: Option<String>,
    /// Leave out the event that each key waits for, before the rest is tried again.
    pub(crate) skip: bool,
    pub(crate) by: String,
    pub(crate) why: String,
    pub(crate) at: Timestamp,
}

/// An [`Ask`] and where its answer goes; `None` = it concerns no key of this session.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) ask: Ask,
    pub(crate) answer: oneshot::Sender<Option<Result<Accepted, ControlError>>>,
}

/// What became of the keys asked for.
#[derive(Debug, Default)]
struct Outcome {
    keys: usize,
    folded: usize,
    left_out: usize,
    /// Token and reason of keys that still wait.
    waiting: Vec<(Box<str>, &'static str, String)>,
}

impl Session {
    /// Does what is asked and answers.
    pub(super) async fn obey(&mut self, command: Command) -> Result<(), SessionError> {
        let answer = self.redrive(&command.ask).await?;
        // Whoever asked may have gone; it is done all the same.
        let _ = command.answer.send(answer);
        self.observe();
        Ok(())
    }

    async fn redrive(
        &mut self,
        ask: &Ask,
    ) -> Result<Option<Result<Accepted, ControlError>>, SessionError> {
        let token = match ask.key.as_deref().map(token_of).transpose() {
            Ok(token) => token,
            Err(error) => return Ok(Some(Err(ControlError::new("Invalid", error.to_string())))),
        };
        if let Some(token) = &token
            && !self
                .progress
                .owned()
                .contains(partition(token, PROJECTION_PARTITIONS))
        {
            return Ok(None);
        }
        self.settle().await?;
        let halted_here = self
            .halted
            .as_ref()
            .is_some_and(|halted| token.as_deref().is_none_or(|token| token == &*halted.token));
        let tokens: Vec<Box<str>> = match &token {
            None => self.parked.tokens().map(Into::into).collect(),
            Some(token) if !self.parked.waiting(token).is_empty() => vec![token.as_str().into()],
            Some(_) if halted_here => Vec::new(),
            Some(token) => {
                let key = ask.key.as_deref().unwrap_or(token);
                return Ok(Some(Err(ControlError::new(
                    "NotParked",
                    format!("`{key}` isn't parked"),
                ))));
            }
        };
        let mut outcome = Outcome::default();
        let mut done = Vec::new();
        for token in tokens {
            outcome.keys += 1;
            self.redrive_key(&token, ask, &mut outcome, &mut done)
                .await?;
        }
        // The rows first: what is deleted before them would be lost.
        self.settle().await?;
        for sequence in done {
            self.store
                .nats
                .delete_message(&self.store.parked_stream, sequence)
                .await?;
        }
        if halted_here || self.halted.is_some() && outcome.folded + outcome.left_out > 0 {
            self.go_on(ask, halted_here, &mut outcome).await?;
        }
        Ok(Some(outcome.answer()))
    }

    /// Tries a key's events in order until one can't be folded.
    async fn redrive_key(
        &mut self,
        token: &str,
        ask: &Ask,
        outcome: &mut Outcome,
        done: &mut Vec<u64>,
    ) -> Result<(), SessionError> {
        let mut skip = ask.skip;
        // Events without a key don't wait for each other.
        let keyless = token == KEYLESS_TOKEN;
        for waiting in self.parked.waiting(token).to_vec() {
            if skip {
                self.decide(token, waiting.source, waiting.position, ask)
                    .await?;
                skip = keyless && ask.skip;
                self.leave(token, &waiting, done);
                self.count(partition(token, PROJECTION_PARTITIONS), |tally| {
                    tally.left_out += 1
                });
                outcome.left_out += 1;
                continue;
            }
            let result = match self.fetch(token, &waiting).await? {
                Some(incoming) => self.fold_waiting(token, &incoming).await?,
                // Deleted by hand: nothing is left to fold.
                None => Redriven::Done,
            };
            let (reason, message) = match result {
                Redriven::Done => {
                    self.leave(token, &waiting, done);
                    outcome.folded += 1;
                    continue;
                }
                Redriven::RowIsAhead => {
                    ("RowIsAhead", "its row has gone on without it: it can only be left out, or everything be rebuilt".to_owned())
                }
                Redriven::Fails(error) => (error.reason(), error.to_string()),
            };
            outcome.waiting.push((token.into(), reason, message));
            if !keyless {
                return Ok(());
            }
        }
        Ok(())
    }

    fn leave(&mut self, token: &str, waiting: &Waiting, done: &mut Vec<u64>) {
        self.parked.remove(token, waiting.source, waiting.position);
        done.push(waiting.kept_at);
    }

    /// Stores that an event is left out of a row, for this and every later revision.
    async fn decide(
        &mut self,
        token: &str,
        source: usize,
        position: tidemill_core::projection::Position,
        ask: &Ask,
    ) -> Result<(), SessionError> {
        let Some(of) = self.sources.get(source) else {
            return Ok(());
        };
        let decision = Decision {
            decision: DecisionKind::Skip,
            by: ask.by.clone(),
            why: ask.why.clone(),
            at: ask.at,
        };
        let json = serde_json::to_string(&decision).unwrap_or_default();
        self.store
            .rows
            .put(&decision_key(&of.stream, position, token), json)
            .await?;
        self.decisions.insert((source, position, token.into()));
        Ok(())
    }

    /// The event that waits, read anew; `None` if it is nowhere any more.
    async fn fetch(
        &self,
        token: &str,
        waiting: &Waiting,
    ) -> Result<Option<Incoming>, SessionError> {
        let (Some(preparation), Some(source)) = (
            self.preparations.get(waiting.source),
            self.sources.get(waiting.source),
        ) else {
            return Ok(None);
        };
        let Some(message) = self
            .store
            .nats
            .read_at(&self.store.parked_stream, waiting.kept_at)
            .await?
        else {
            tracing::warn!(
                key = token,
                sequence = waiting.kept_at,
                "a parked event is gone from the parked stream"
            );
            return Ok(None);
        };
        let headers = intake::borrowed_headers(message.headers.as_ref());
        let Ok(entry) = Entry::read(&self.sources, &headers, &message.payload) else {
            return Ok(None);
        };
        let message = match entry.kept {
            Kept::Copied {
                subject,
                headers,
                payload,
            } => StoredMessage {
                subject: subject.into(),
                sequence: entry.position.sequence,
                stored_at: entry.stored_at,
                headers: Some(super::header_map(headers)),
                payload: payload.into(),
                pending: 0,
            },
            Kept::InSource => {
                let Some(binding) = self.store.contract.binding(&source.stream) else {
                    return Ok(None);
                };
                let found = self
                    .store
                    .nats
                    .read_at(&binding.name, entry.position.sequence)
                    .await?;
                // Another time: the stream was set back, and this is another event.
                match found.filter(|found| found.stored_at == entry.stored_at) {
                    Some(message) => message,
                    None => return Ok(None),
                }
            }
        };
        let mut incoming = preparation.prepare(message);
        incoming.position = entry.position;
        Ok(Some(incoming))
    }

    async fn fold_waiting(
        &mut self,
        token: &str,
        incoming: &Incoming,
    ) -> Result<Redriven, SessionError> {
        let keyless = token == KEYLESS_TOKEN;
        let touches: Vec<_> = incoming
            .touches
            .iter()
            .filter(|touch| keyless || &*touch.token == token)
            .collect();
        if touches
            .iter()
            .any(|touch| !self.progress.owned().contains(touch.partition))
        {
            return Ok(Redriven::RowIsAhead);
        }
        let cold = touches
            .iter()
            .filter(|touch| !touch.is_keyless() && self.cache.is_cold(&touch.token));
        let cold = cold.map(|touch| touch.token.clone()).collect();
        self.warm(cold).await?;
        for touch in touches {
            let folded = self.fold_into_row(incoming, touch, None);
            match redriven(keyless, folded) {
                Redriven::Done => {}
                other => return Ok(other),
            }
        }
        Ok(Redriven::Done)
    }

    /// Goes on with what is held back since the session halted.
    async fn go_on(
        &mut self,
        ask: &Ask,
        halted_here: bool,
        outcome: &mut Outcome,
    ) -> Result<(), SessionError> {
        let Some(Halted {
            token,
            source,
            position,
            ..
        }) = self.halted.take()
        else {
            return Ok(());
        };
        if ask.skip && halted_here && self.parked.waiting(&token).is_empty() {
            self.decide(&token, source, position, ask).await?;
            outcome.left_out += 1;
        }
        let held = std::mem::take(&mut self.held);
        self.fold_all(held).await?;
        if let Some(halted) = &self.halted {
            outcome.waiting.push((
                halted.token.clone(),
                halted.reason.reason(),
                halted.message.clone(),
            ));
        }
        Ok(())
    }
}

impl Outcome {
    fn answer(self) -> Result<Accepted, ControlError> {
        let counted = |number: usize, noun: &str| {
            format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
        };
        let mut message = format!(
            "{}: {} folded, {} left out",
            counted(self.keys, "key"),
            counted(self.folded, "event"),
            self.left_out
        );
        let Some((token, reason, error)) = self.waiting.first() else {
            return Ok(Accepted { message });
        };
        message.push_str(&format!(
            "; {} still parked, such as {token}: {error}",
            counted(self.waiting.len(), "key")
        ));
        match self.folded + self.left_out {
            0 => Err(ControlError::new(reason, message)),
            _ => Ok(Accepted { message }),
        }
    }
}

/// Token of a key as people write it.
pub(crate) fn token_of(key: &str) -> Result<String, TokenError> {
    if key == KEYLESS_TOKEN {
        Ok(key.to_owned())
    } else {
        encode_token(key)
    }
}
