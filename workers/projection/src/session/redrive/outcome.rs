//! What is answered to whoever asked for keys to be tried again.

use crate::session::named::key_of;
use std::collections::BTreeSet;
use tidemill_core::control::{Accepted, ControlError};

/// What became of the keys asked for.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// What was asked for was done before: how.
    pub(super) already: Option<&'static str>,
    /// Where the event stands that was named.
    pub(super) position: Option<String>,
    /// Tokens of what was tried.
    pub(super) keys: BTreeSet<Box<str>>,
    pub(super) folded: usize,
    pub(super) left_out: usize,
    /// Those of them that nobody has any more.
    pub(super) gone: usize,
    /// Token and reason of keys that still wait.
    pub(super) waiting: Vec<(Box<str>, &'static str, String)>,
    /// The same of the event before which everything stands still; nothing of it is parked.
    pub(super) stopped: Option<(Box<str>, &'static str, String)>,
}

impl Outcome {
    pub(super) fn answer(self) -> Result<Accepted, ControlError> {
        let counted = |number: usize, noun: &str| {
            format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
        };
        let done = self.folded + self.left_out;
        let mut message = format!(
            "{}: {} folded, {} left out",
            counted(self.keys.len(), "key"),
            counted(self.folded, "event"),
            self.left_out
        );
        if self.gone > 0 {
            message.push_str(&format!(
                "; {} gone from {}",
                match self.gone {
                    1 => "1 event left out is".to_owned(),
                    gone => format!("{gone} events left out are"),
                },
                if self.gone == 1 {
                    "its stream"
                } else {
                    "their streams"
                },
            ));
        }
        if let Some(already) = self.already {
            let position = self.position.as_deref().unwrap_or_default();
            message = match done {
                0 => format!("{position} {already}"),
                _ => format!("{position} {already}; {message}"),
            };
        }
        if let Some((token, _, error)) = self.waiting.first() {
            // Events without a key are one key, and each of them is tried.
            let keys: BTreeSet<&str> = self.waiting.iter().map(|(token, ..)| &**token).collect();
            message.push_str(&format!(
                "; {} still parked, such as {}: {error}",
                counted(keys.len(), "key"),
                key_of(token)
            ));
        }
        if let Some((token, _, error)) = &self.stopped {
            let stopped = format!(
                "the projection is stopped before an event of `{}`: {error}",
                key_of(token)
            );
            message = match self.keys.is_empty() && self.already.is_none() {
                true => stopped,
                false => format!("{message}; {stopped}"),
            };
        }
        if let Some((_, reason, _)) = self.waiting.first().or(self.stopped.as_ref())
            && done == 0
            && self.already.is_none()
        {
            return Err(ControlError::new(reason, message));
        }
        Ok(Accepted {
            message,
            position: self.position,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_one_key_are_one_key() {
        let waiting = |token: &str| (token.into(), "NoSuchKey", "no total".to_owned());
        let check = |tokens: &[&str], wanted: &str| {
            let outcome = Outcome {
                keys: BTreeSet::from(["o-1".into()]),
                folded: 1,
                waiting: tokens.iter().map(|token| waiting(token)).collect(),
                ..Outcome::default()
            };
            let message = outcome.answer().unwrap().message;
            assert!(message.ends_with(wanted), "{message}");
        };
        check(
            &["=nokey", "=nokey"],
            "; 1 key still parked, such as =nokey: no total",
        );
        check(
            &["o=201", "o-2"],
            "; 2 keys still parked, such as o 1: no total",
        );
    }

    #[test]
    fn what_everything_stands_still_before_is_not_called_parked() {
        let stopped = || Some(("o-2".into(), "FoldError", "no total".to_owned()));
        let nothing = Outcome {
            stopped: stopped(),
            ..Outcome::default()
        };
        let refused = nothing.answer().unwrap_err();
        assert_eq!(refused.reason, "FoldError");
        let before = "the projection is stopped before an event of `o-2`: no total";
        assert_eq!(refused.message, before);
        let one = Outcome {
            keys: BTreeSet::from(["o-1".into()]),
            left_out: 1,
            stopped: stopped(),
            ..Outcome::default()
        };
        assert_eq!(
            one.answer().unwrap().message,
            format!("1 key: 0 events folded, 1 left out; {before}")
        );
    }

    #[test]
    fn what_is_gone_is_not_said_to_be_folded() {
        let check = |gone: usize, wanted: &str| {
            let outcome = Outcome {
                keys: BTreeSet::from(["o-1".into()]),
                folded: 1,
                left_out: gone,
                gone,
                ..Outcome::default()
            };
            assert_eq!(outcome.answer().unwrap().message, wanted);
        };
        check(
            1,
            "1 key: 1 event folded, 1 left out; 1 event left out is gone from its stream",
        );
        check(
            2,
            "1 key: 1 event folded, 2 left out; 2 events left out are gone from their streams",
        );
    }
}
