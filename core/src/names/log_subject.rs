//! Subjects of the input log: what kind of input a message is comes from here and never from its payload.

use super::{
    REPLY_TOKEN_CHARS, ReplyToken, ResourceId, TokenError, decode_token, encode_token, partition,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Whether something belongs to a step's action or to its compensation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// What the step does; `a` in subjects.
    Action,
    /// What takes it back; `c` in subjects.
    Compensation,
}

impl Side {
    fn parse(token: &str) -> Option<Self> {
        match token {
            "a" => Some(Side::Action),
            "c" => Some(Side::Compensation),
            _ => None,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Action => "a",
            Side::Compensation => "c",
        })
    }
}

/// A timer of an instance. Its id says all there is to know, so a timer is valid or stale by its id alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimerId {
    /// An attempt has waited for its answer for as long as it may: `o-<step>-<a|c>-<attempt>`.
    Attempt(String, Side, u32),
    /// The wait before the attempt after this one is over: `b-<step>-<a|c>-<attempt>`.
    Backoff(String, Side, u32),
    /// The step as a whole has taken too long: `w-<step>-<a|c>-<first attempt of the series>`.
    Step(String, Side, u32),
    /// The saga as a whole has taken too long: `z-<decisions taken before>`. Each decision gives it more time, so a
    /// timer from before one is stale.
    Saga(u32),
}

impl fmt::Display for TimerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TimerId::Attempt(step, side, attempt) => write!(f, "o-{step}-{side}-{attempt}"),
            TimerId::Backoff(step, side, attempt) => write!(f, "b-{step}-{side}-{attempt}"),
            TimerId::Step(step, side, attempt) => write!(f, "w-{step}-{side}-{attempt}"),
            TimerId::Saga(decisions) => write!(f, "z-{decisions}"),
        }
    }
}

impl TimerId {
    /// Reads what `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(decisions) = text.strip_prefix("z-") {
            return parse_number(decisions).map(TimerId::Saga);
        }
        let mut parts = text.split('-');
        let (kind, step, side, attempt) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || step.is_empty() {
            return None;
        }
        let (step, side, attempt) = (step.to_owned(), Side::parse(side)?, parse_number(attempt)?);
        match kind {
            "o" => Some(TimerId::Attempt(step, side, attempt)),
            "b" => Some(TimerId::Backoff(step, side, attempt)),
            "w" => Some(TimerId::Step(step, side, attempt)),
            _ => None,
        }
    }
}

/// What a message of the log is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LogKind {
    /// `s`: the instance was started.
    Started,
    /// `r.<step>.<a|c>.<attempt>.<token>`: a participant's answer.
    Reply {
        /// Name of the step.
        step: String,
        /// Action or compensation.
        side: Side,
        /// Which attempt is answered.
        attempt: u32,
        /// Proof that the request was ours; see [`super::Run::reply_token`].
        token: ReplyToken,
    },
    /// `x.<step>.<a|c>.<attempt>`: what the worker saw itself of an attempt.
    Observed {
        /// Name of the step.
        step: String,
        /// Action or compensation.
        side: Side,
        /// Which attempt.
        attempt: u32,
    },
    /// `p.<effect>`: a publish is stored in its stream.
    Published(String),
    /// `t.<timer id>`: a timer fired.
    Timer(TimerId),
    /// `g`: a signal (reserved).
    Signal,
    /// `c`: somebody asked to cancel.
    Cancel,
    /// `d`: somebody decided about what is parked.
    Decision,
    /// `k`: carried-forward state (reserved).
    Checkpoint,
    /// `e`: erased (reserved).
    Erased,
}

/// A parsed subject of the input log, without the prefix that all subjects of one log share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogSubject {
    /// Partition of the instance id.
    pub partition: u16,
    /// Id of the instance, decoded.
    pub instance: String,
    /// What the message is.
    pub kind: LogKind,
}

/// A subject below the log's prefix that is none of ours; the message is counted and left alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{subject}` is not a subject of an input log")]
pub struct LogSubjectError {
    /// The subject, cut to 200 characters; what looks like a reply token is left out.
    pub subject: String,
}

impl LogSubject {
    /// The subject of an input of an instance.
    ///
    /// # Errors
    /// [`TokenError::TooLong`] for an id of more than 200 bytes.
    pub fn new(instance: &str, partitions: u16, kind: LogKind) -> Result<Self, TokenError> {
        let token = encode_token(instance)?;
        Ok(LogSubject {
            partition: partition(&token, partitions),
            instance: instance.to_owned(),
            kind,
        })
    }

    /// Whether its partition is the instance's own: nothing of another is an input, or the one who owns that partition would
    /// fold what a reader of the instance never sees.
    pub fn is_in_own_partition(&self, partitions: u16) -> bool {
        encode_token(&self.instance)
            .is_ok_and(|token| partition(&token, partitions) == self.partition)
    }

    /// The whole subject, below the log of this saga.
    ///
    /// # Errors
    /// [`TokenError::TooLong`] for an id of more than 200 bytes.
    pub fn to_subject(&self, saga: &ResourceId, root: &str) -> Result<String, TokenError> {
        let token = encode_token(&self.instance)?;
        Ok(format!(
            "{}.{}.{token}.{}",
            saga.log_prefix(root),
            self.partition,
            self.kind
        ))
    }

    /// Reads a subject of this saga's log.
    ///
    /// # Errors
    /// [`LogSubjectError`] for anything that [`LogSubject::to_subject`] doesn't write.
    pub fn parse(subject: &str, log_prefix: &str) -> Result<Self, LogSubjectError> {
        Self::parse_parts(subject, log_prefix).ok_or_else(|| LogSubjectError {
            subject: without_reply_tokens(subject),
        })
    }

    fn parse_parts(subject: &str, log_prefix: &str) -> Option<Self> {
        let rest = subject.strip_prefix(log_prefix)?.strip_prefix('.')?;
        let mut tokens = rest.splitn(3, '.');
        let partition = u16::try_from(parse_number(tokens.next()?)?).ok()?;
        let instance = decode_token(tokens.next()?).ok()?;
        Some(LogSubject {
            partition,
            instance,
            kind: LogKind::parse(tokens.next()?)?,
        })
    }
}

impl LogKind {
    fn parse(text: &str) -> Option<Self> {
        let mut tokens = text.split('.');
        let kind = match tokens.next()? {
            "s" => LogKind::Started,
            "g" => LogKind::Signal,
            "c" => LogKind::Cancel,
            "d" => LogKind::Decision,
            "k" => LogKind::Checkpoint,
            "e" => LogKind::Erased,
            "p" => LogKind::Published(tokens.next()?.to_owned()),
            "t" => LogKind::Timer(TimerId::parse(tokens.next()?)?),
            "x" => {
                let (step, side, attempt) = (
                    tokens.next()?,
                    Side::parse(tokens.next()?)?,
                    parse_number(tokens.next()?)?,
                );
                LogKind::Observed {
                    step: step.to_owned(),
                    side,
                    attempt,
                }
            }
            "r" => {
                let (step, side, attempt) = (
                    tokens.next()?,
                    Side::parse(tokens.next()?)?,
                    parse_number(tokens.next()?)?,
                );
                LogKind::Reply {
                    step: step.to_owned(),
                    side,
                    attempt,
                    token: ReplyToken(tokens.next()?.to_owned()),
                }
            }
            _ => return None,
        };
        tokens.next().is_none().then_some(kind)
    }
}

impl fmt::Display for LogKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogKind::Started => f.write_str("s"),
            LogKind::Signal => f.write_str("g"),
            LogKind::Cancel => f.write_str("c"),
            LogKind::Decision => f.write_str("d"),
            LogKind::Checkpoint => f.write_str("k"),
            LogKind::Erased => f.write_str("e"),
            LogKind::Published(effect) => write!(f, "p.{effect}"),
            LogKind::Timer(timer) => write!(f, "t.{timer}"),
            LogKind::Observed {
                step,
                side,
                attempt,
            } => write!(f, "x.{step}.{side}.{attempt}"),
            LogKind::Reply {
                step,
                side,
                attempt,
                token,
            } => write!(f, "r.{step}.{side}.{attempt}.{}", token.0),
        }
    }
}

fn without_reply_tokens(subject: &str) -> String {
    let is_base32 = |byte: u8| matches!(byte, b'a'..=b'z' | b'2'..=b'7');
    let shown = subject.split('.').map(|token| {
        match token.len() == REPLY_TOKEN_CHARS && token.bytes().all(is_base32) {
            true => "…",
            false => token,
        }
    });
    let shown: Vec<&str> = shown.collect();
    shown.join(".").chars().take(200).collect()
}

/// A decimal number in its one spelling: no sign, no leading zero.
fn parse_number(text: &str) -> Option<u32> {
    let canonical =
        text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    if canonical { text.parse().ok() } else { None }
}
