//! Trying again what waits, by request, and leaving out what a person gives up.

mod outcome;

use super::intake::{self, Incoming};
use super::named::{Named, key_of, not_parked};
use super::{Halted, Session};
use crate::error::SessionError;
use outcome::Outcome;
use tidemill_core::control::{Accepted, ControlError};
use tidemill_core::names::{
    KEYLESS_TOKEN, PROJECTION_PARTITIONS, WHOLE_TOKEN, decision_key, partition,
};
use tidemill_core::parked::Kept;
use tidemill_core::planted::{Bug, planted};
use tidemill_core::projection::parked::{
    Decision, DecisionKind, Entry, Redriven, Waiting, redriven,
};
use tidemill_core::projection::{Position, Positions, Touch, token_of_key};
use tidemill_core::timestamp::Timestamp;
use tidemill_nats::{StoredMessage, header_map};
use tokio::sync::oneshot;

/// What a person wants done about parked keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Row key, or [`KEYLESS_TOKEN`] for what has none; `None` = all that wait.
    pub(crate) key: Option<String>,
    pub(crate) want: Want,
    /// Where the event stands that is meant, as rows' headers write it.
    pub(crate) position: Option<String>,
    pub(crate) by: String,
    pub(crate) why: String,
    pub(crate) at: Timestamp,
}

/// What is wanted of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// Say what it waits for.
    First,
    /// Try again.
    Redrive,
    /// Leave out what it waits for, and try the rest again.
    Skip,
}

/// An [`Ask`] and where its answer goes; `None` = it concerns no key of this session.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) ask: Ask,
    pub(crate) answer: oneshot::Sender<Option<Result<Accepted, ControlError>>>,
}

/// A waiting event, read anew.
enum Found {
    Event(Box<Incoming>),
    /// It wasn't copied, and its stream has dropped it: nobody has it any more.
    Gone,
    /// What is kept of it can't be used: why.
    Unreadable(String),
}

impl Session {
    /// Does what is asked and answers.
    pub(super) async fn obey(&mut self, command: Command) -> Result<(), SessionError> {
        let answer = match self.redrive(&command.ask).await {
            Ok(answer) => answer,
            Err(error @ SessionError::Superseded(_)) => {
                let message = format!("{error}: what waits is read anew, ask again");
                let refused = Err(ControlError::new("Superseded", message));
                let _ = command.answer.send(Some(refused));
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        // Whoever asked may have gone; it is done all the same.
        let _ = command.answer.send(answer);
        self.observe();
        Ok(())
    }

    async fn redrive(
        &mut self,
        ask: &Ask,
    ) -> Result<Option<Result<Accepted, ControlError>>, SessionError> {
        let refuse = |reason, message: String| Ok(Some(Err(ControlError::new(reason, message))));
        let token = match ask.key.as_deref().map(token_of_key).transpose() {
            Ok(token) => token,
            Err(error) => return refuse("Invalid", error.to_string()),
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
        // Whoever asks may have made room for a row that was too large.
        self.limit_rows().await?;
        let mut outcome = Outcome::default();
        let mut skip = None;
        match (ask.want, &token, &ask.position) {
            (Want::First, Some(token), _) => return Ok(Some(self.first(token))),
            (Want::First, None, _) | (_, None, Some(_)) => {
                return refuse("Invalid", "a position is of a key: name the key".to_owned());
            }
            (Want::Skip, _, None) => {
                let message =
                    "a skip names a key and the position it waits for, which `first` says";
                return refuse("Invalid", message.to_owned());
            }
            (Want::Redrive, _, None) => {}
            (want, Some(token), Some(position)) => {
                let positions = match self.sources.read(position) {
                    Ok(positions) if !positions.is_empty() => positions,
                    Ok(_) => return refuse("Invalid", "the position is empty".to_owned()),
                    Err(_) => {
                        let message = format!(
                            "`{position}` is no position in a source of this projection: `first` and `parked show` say them"
                        );
                        return refuse("Invalid", message);
                    }
                };
                outcome.position = Some(position.clone());
                match (want, self.named(token, &positions).await?) {
                    (Want::Skip, Ok(Named::First)) => skip = Some(positions),
                    (_, Ok(Named::First)) => {}
                    (Want::Skip, Ok(Named::Folded)) => {
                        let message = format!("{position} was folded meanwhile: it is in the row");
                        return refuse("AlreadyFolded", message);
                    }
                    (_, Ok(Named::LeftOut)) => outcome.already = Some("was left out already"),
                    (_, Ok(Named::Folded)) => outcome.already = Some("is in the row already"),
                    (want, Err(error)) => {
                        if want == Want::Skip && !planted(Bug::SkipUnheard) {
                            // The rows that readers see may have been asked before these: what is left out there is left out here too,
                            // when its turn comes.
                            self.decisions = self.store.decisions(&self.sources).await?;
                        }
                        return Ok(Some(Err(error)));
                    }
                }
            }
        }
        let halted_here = self
            .halted
            .as_ref()
            .is_some_and(|halted| token.as_deref().is_none_or(|token| token == &*halted.token));
        let tokens: Vec<Box<str>> = match &token {
            None => self.parked.tokens().map(Into::into).collect(),
            Some(token) if !self.parked.waiting(token).is_empty() => vec![token.as_str().into()],
            Some(_) if halted_here || outcome.already.is_some() => Vec::new(),
            Some(token) => return Ok(Some(Err(not_parked(token)))),
        };
        let mut done = Vec::new();
        for token in tokens {
            outcome.keys.insert(token.clone());
            self.redrive_key(&token, ask, skip.as_ref(), &mut outcome, &mut done)
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
            let skip = skip.as_ref().filter(|_| halted_here);
            self.go_on(ask, skip, &mut outcome).await?;
        }
        Ok(Some(outcome.answer()))
    }

    /// Tries a key's events in order until one can't be folded.
    async fn redrive_key(
        &mut self,
        token: &str,
        ask: &Ask,
        skip: Option<&Positions>,
        outcome: &mut Outcome,
        done: &mut Vec<u64>,
    ) -> Result<(), SessionError> {
        // Events without a key don't wait for each other.
        let keyless = token == KEYLESS_TOKEN;
        for waiting in self.parked.waiting(token).to_vec() {
            // What is named is what waits first: nothing behind it stands at or before it.
            if skip.is_some_and(|skip| waiting.position <= skip.get(waiting.source)) {
                let event = match keyless {
                    true => match self.fetch(token, &waiting).await? {
                        Found::Event(event) => Some(event),
                        Found::Gone | Found::Unreadable(_) => None,
                    },
                    false => None,
                };
                self.decide(
                    token,
                    waiting.source,
                    waiting.position,
                    event.as_deref(),
                    ask,
                )
                .await?;
                self.leave_out(token, &waiting, done);
                outcome.left_out += 1;
                continue;
            }
            let incoming = match self.fetch(token, &waiting).await? {
                Found::Event(incoming) => incoming,
                Found::Gone => {
                    self.warn_of(
                        token,
                        &waiting,
                        "a parked event is gone from its stream: it is left out",
                    );
                    self.leave_out(token, &waiting, done);
                    outcome.left_out += 1;
                    outcome.gone += 1;
                    continue;
                }
                Found::Unreadable(why) => {
                    self.warn_of(
                        token,
                        &waiting,
                        &format!("a parked event can't be read and goes on waiting: {why}"),
                    );
                    let message = format!("{why}: it can only be left out");
                    outcome.waiting.push((token.into(), "Unreadable", message));
                    match keyless {
                        true => continue,
                        false => return Ok(()),
                    }
                }
            };
            let (reason, message) = match self.fold_waiting(token, &incoming).await? {
                Redriven::Done => {
                    self.leave(token, &waiting, done);
                    outcome.folded += 1;
                    continue;
                }
                Redriven::RowIsAhead => {
                    ("RowIsAhead", "its row has gone on without it: it can only be left out, or everything be rebuilt".to_owned())
                }
                Redriven::RowElsewhere => {
                    ("RowElsewhere", "its row is another worker's: let one worker run (`replicas: 1`) and redrive again, or leave it out".to_owned())
                }
                Redriven::KeyWaits(token) => {
                    ("KeyWaits", format!("its key `{}` is parked itself: decide about that first", key_of(&token)))
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

    /// What a person gave up, or nobody has any more.
    fn leave_out(&mut self, token: &str, waiting: &Waiting, done: &mut Vec<u64>) {
        self.leave(token, waiting, done);
        self.count(partition(token, PROJECTION_PARTITIONS), |tally| {
            tally.left_out += 1
        });
    }

    fn warn_of(&self, token: &str, waiting: &Waiting, what: &str) {
        let source = self.sources.get(waiting.source);
        tracing::warn!(
            key = token,
            stream = source.map(|source| source.stream.to_string()),
            position = %waiting.position,
            parked_at = waiting.kept_at,
            "{what}"
        );
    }

    fn leave(&mut self, token: &str, waiting: &Waiting, done: &mut Vec<u64>) {
        self.parked.remove(token, waiting.source, waiting.position);
        done.push(waiting.kept_at);
    }

    /// Stores that an event is left out of a row, for this and every later revision. `event`: of what has no key, if it is still there.
    /// One that no handler has a key for is left out of all rows, as it may get a key later.
    async fn decide(
        &mut self,
        token: &str,
        source: usize,
        position: Position,
        event: Option<&Incoming>,
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
        let stream = of.stream.clone();
        let is_whole = token == KEYLESS_TOKEN
            && !planted(Bug::KeylessSkipForgotten)
            && event.is_some_and(|event| event.touches.iter().all(Touch::is_keyless));
        for token in [WHOLE_TOKEN, token]
            .into_iter()
            .skip(usize::from(!is_whole))
        {
            let key = decision_key(&stream, position, token);
            self.store.rows.put(&key, json.clone()).await?;
            self.decisions.insert((source, position, token.into()));
        }
        Ok(())
    }

    /// The event that waits, read anew.
    async fn fetch(&self, token: &str, waiting: &Waiting) -> Result<Found, SessionError> {
        let unreadable = |why: &str| Ok(Found::Unreadable(why.to_owned()));
        let (Some(preparation), Some(source)) = (
            self.preparations.get(waiting.source),
            self.sources.get(waiting.source),
        ) else {
            return unreadable("its stream is no source of this projection");
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
            if planted(Bug::GoneWithItsCopy) {
                return Ok(Found::Gone);
            }
            // By hand, or by another owner, which may have kept another copy of it: the next session sees which.
            return Err(SessionError::Superseded("what is parked"));
        };
        let headers = intake::borrowed_headers(message.headers.as_ref());
        let entry = match Entry::read(&self.sources, &headers, &message.payload) {
            Ok(entry) => entry,
            Err(error) => {
                let at = waiting.kept_at;
                return unreadable(&format!("message {at} of the parked stream: {error}"));
            }
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
                headers: Some(header_map(headers)),
                payload: payload.into(),
                pending: 0,
            },
            Kept::InSource => {
                let Some(binding) = self.store.contract.binding(&source.stream) else {
                    return unreadable("it isn't copied, and this worker may not read its stream");
                };
                let found = self
                    .store
                    .nats
                    .read_at(&binding.name, entry.position.sequence)
                    .await?;
                // Another time: the stream was set back, and this is another event.
                match found.filter(|found| found.stored_at == entry.stored_at) {
                    Some(message) => message,
                    None => return Ok(Found::Gone),
                }
            }
        };
        let mut incoming = preparation.prepare(message);
        incoming.position = entry.position;
        Ok(Found::Event(Box::new(incoming)))
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
            return Ok(Redriven::RowElsewhere);
        }
        if keyless && !planted(Bug::KeylessPasses) {
            // Rows that it has a key for have it already, or it waits for them: nothing of it may pass what waits there.
            let still = touches.iter().find(|touch| touch.is_keyless());
            if let Some(error) = still.and_then(|touch| touch.error()) {
                return Ok(Redriven::Fails(error.clone()));
            }
            let parked = touches
                .iter()
                .find(|touch| !self.parked.waiting(&touch.token).is_empty());
            if let Some(touch) = parked {
                return Ok(Redriven::KeyWaits(touch.token.clone()));
            }
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
        skip: Option<&Positions>,
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
        let skipped = skip.is_some_and(|skip| position <= skip.get(source));
        let held = std::mem::take(&mut self.held);
        if skipped {
            // It stopped before the first that is held back.
            self.decide(&token, source, position, held.front(), ask)
                .await?;
            outcome.left_out += 1;
        }
        self.fold_all(held).await?;
        let halted = self.halted.as_ref();
        if halted.is_none_or(|halted| (halted.source, halted.position) != (source, position)) {
            // There may be room to park it now.
            let folded = !skipped && self.parked.waiting(&token).is_empty();
            outcome.folded += usize::from(folded);
            outcome.keys.insert(token);
        }
        outcome.stopped = halted.map(|halted| {
            let reason = halted.reason.reason();
            (halted.token.clone(), reason, halted.message.clone())
        });
        Ok(())
    }
}
