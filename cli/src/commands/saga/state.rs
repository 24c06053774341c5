//! How a saga is: what its worker says, and whether its streams were set back.

use crate::ask;
use crate::error::{CliError, Result, chain};
use crate::figures::{Figures, parked_triggers};
use crate::output::{Text, Tone};
use serde::Serialize;
use tidemill_core::control::{SagaStatus, saga_verb};
use tidemill_core::names::{COUNTERS_BUCKET, ResourceId};
use tidemill_core::status::ResolvedStart;
use tidemill_nats::{KvBucket, Nats, Publisher};

/// In one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Word {
    /// Nobody answers.
    NoWorker,
    /// A stream was set back or replaced: nothing of it starts anything until somebody accepts that.
    SourceReset,
    /// The worker doesn't do its work, or not all of it.
    NotReady,
    /// Starts nothing from streams.
    Suspended,
    /// As it should be.
    Ready,
}

/// The word, and more for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct State {
    /// The word.
    #[serde(rename = "state")]
    pub(super) word: Word,
    /// Why, and what would do; empty when all is well.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) note: String,
}

impl State {
    /// What is so now.
    ///
    /// # Errors
    /// NATS away, or no permission.
    pub(super) async fn read(nats: &Nats, saga: &ResourceId, figures: &Figures) -> Result<Self> {
        let status: Option<SagaStatus> = ask::status(nats, saga, saga_verb::STATUS).await?;
        let resets = match &status {
            Some(status) => resets(nats, saga, status).await?,
            None => Vec::new(),
        };
        let mut state = Self::of(saga, status, &resets);
        if let Figures::Saga(figures) = figures {
            state.add_log_resets(saga, figures.log_resets);
            state.add_parked_triggers(saga, parked_triggers(figures));
        }
        Ok(state)
    }

    /// The worker goes on by itself, so that is no state; what was lost is to be known all the same.
    fn add_log_resets(&mut self, saga: &ResourceId, resets: u64) {
        let times = match resets {
            0 => return,
            1 => String::new(),
            more => format!(" ({more} times)"),
        };
        self.add(&format!(
            "LogReset{times}: the log was set back or made again, and instances whose start it lost are gone from lists: \
             start again what has to be with `tidemill saga start {}/{}`",
            saga.namespace, saga.name
        ));
    }

    /// They are no instances, and the column counts those.
    fn add_parked_triggers(&mut self, saga: &ResourceId, parked: Option<String>) {
        let Some(parked) = parked else { return };
        self.add(&format!(
            "{parked}: `tidemill parked list {}/{}` says why they started nothing",
            saga.namespace, saga.name
        ));
    }

    fn add(&mut self, note: &str) {
        if !self.note.is_empty() {
            self.note.push_str("; ");
        }
        self.note.push_str(note);
    }

    fn of(saga: &ResourceId, status: Option<SagaStatus>, resets: &[ResolvedStart]) -> Self {
        let Some(mut status) = status else {
            let note =
                "the figures are those of the last worker; events may have come since".to_owned();
            return State {
                word: Word::NoWorker,
                note,
            };
        };
        let mut notes = Vec::new();
        for ResolvedStart { stream, reset, .. } in resets {
            // Said in the words of what is stored, with the command that helps.
            status.not_ready.remove(&format!("trigger {stream}"));
            notes.push(format!(
                "stream {stream} was set back or replaced ({}): no event of it starts anything until `tidemill saga accept-source {}/{}`",
                reset.as_deref().unwrap_or_default(),
                saga.namespace,
                saga.name
            ));
        }
        let reasons = status.not_ready.into_iter();
        notes.extend(reasons.map(|(condition, reason)| format!("{condition}: {reason}")));
        let word = match (resets.is_empty(), notes.is_empty(), status.suspended) {
            (false, _, _) => Word::SourceReset,
            (true, false, _) => Word::NotReady,
            (true, true, true) => {
                notes.push("no event starts anything; what runs goes on".to_owned());
                Word::Suspended
            }
            (true, true, false) => Word::Ready,
        };
        State {
            word,
            note: notes.join("; "),
        }
    }

    /// The word as people read it.
    pub(super) fn words(&self) -> &'static str {
        match self.word {
            Word::NoWorker => "no worker",
            Word::SourceReset => "SourceReset",
            Word::NotReady => "not ready",
            Word::Suspended => "suspended",
            Word::Ready => "ready",
        }
    }

    /// The same in its colour.
    pub(super) fn text(&self) -> Text {
        let tone = match self.word {
            Word::NoWorker | Word::Suspended => Tone::Attention,
            Word::SourceReset | Word::NotReady => Tone::Bad,
            Word::Ready => Tone::Good,
        };
        Text::toned(self.words(), tone)
    }
}

/// The streams it is started from that were set back or replaced.
async fn resets(nats: &Nats, saga: &ResourceId, status: &SagaStatus) -> Result<Vec<ResolvedStart>> {
    let bucket = KvBucket::new(&Publisher::new(nats, 1), COUNTERS_BUCKET);
    let mut resets = Vec::new();
    for stream in &status.triggers {
        let key = format!(
            "{}.start.{}.{}",
            saga.key_prefix(),
            stream.namespace,
            stream.name
        );
        let entry = bucket.get(&key).await;
        let entry = entry.map_err(|error| CliError::failed(chain(&error)))?;
        let start: Option<ResolvedStart> = entry
            .filter(|entry| !entry.deleted)
            .and_then(|entry| serde_json::from_slice(&entry.value).ok());
        resets.extend(start.filter(|start| start.reset.is_some()));
    }
    Ok(resets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_core::definition::StreamRef;
    use tidemill_core::names::Kind;

    #[test]
    fn the_worst_is_the_word_and_all_is_said() {
        let saga = ResourceId::new(Kind::Saga, "shop", "fulfilment");
        let stream = StreamRef {
            namespace: "shop".to_owned(),
            name: "orders".to_owned(),
        };
        let status = |reasons: &[(&str, &str)], suspended: bool| {
            let reasons = reasons.iter();
            Some(SagaStatus {
                suspended,
                not_ready: reasons
                    .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                    .collect(),
                ..SagaStatus::default()
            })
        };
        let mut reset = ResolvedStart::new(stream, "i".to_owned(), 0);
        reset.reset = Some("it ends at 3".to_owned());
        let reset = [reset];
        let both = [
            ("trigger shop/orders", "SourceReset: …"),
            ("log", "LogReset"),
        ];
        for (status, resets, word, note) in [
            (
                None,
                &[][..],
                Word::NoWorker,
                "the figures are those of the last worker",
            ),
            (status(&[], false), &[], Word::Ready, ""),
            (
                status(&[], true),
                &[],
                Word::Suspended,
                "no event starts anything",
            ),
            (
                status(&both[1..], true),
                &[],
                Word::NotReady,
                "log: LogReset",
            ),
            (
                status(&both, false),
                &reset,
                Word::SourceReset,
                "stream shop/orders was set back or replaced (it ends at 3): no event of it starts anything until \
                 `tidemill saga accept-source shop/fulfilment`; log: LogReset",
            ),
        ] {
            let state = State::of(&saga, status, resets);
            assert_eq!(state.word, word);
            assert!(state.note.starts_with(note), "{}", state.note);
        }
        let mut state = State::of(&saga, status(&[], true), &[]);
        state.add_log_resets(&saga, 0);
        assert!(!state.note.contains("LogReset"), "{}", state.note);
        state.add_log_resets(&saga, 2);
        let both = "what runs goes on; LogReset (2 times): the log was set back or made again, ";
        assert!(state.note.contains(both), "{}", state.note);
        let mut state = State::of(&saga, status(&[], false), &[]);
        state.add_parked_triggers(&saga, None);
        assert_eq!(state.note, "");
        state.add_parked_triggers(&saga, Some("1 parked trigger event".to_owned()));
        let wanted = "1 parked trigger event: `tidemill parked list shop/fulfilment` says why they started nothing";
        assert_eq!((state.word, &*state.note), (Word::Ready, wanted));
    }
}
