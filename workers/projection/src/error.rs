//! Why a session ended, and what only a person can mend.

use tidemill_core::control::ControlError;
use tidemill_core::definition::StreamRef;
use tidemill_core::projection::parked::StopReason;
use tidemill_core::projection::{CompileError, PositionError, RowError, SourceReset};
use tidemill_nats::{ApiError, KvError, PublishError, ReadError};

/// Why a session ended that nobody asked to end. Everything in memory is forgotten and the next session begins at the checkpoints:
/// rows carry their positions, so nothing is lost or done twice.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// A call to JetStream.
    #[error("JetStream")]
    Api(#[from] ApiError),
    /// A bucket.
    #[error("a bucket")]
    Kv(#[from] KvError),
    /// Reading source or parked stream.
    #[error("reading")]
    Read(#[from] ReadError),
    /// A row was not written, or nobody knows.
    #[error("writing row {key}")]
    Row {
        /// Its key.
        key: String,
        /// Why.
        source: PublishError,
    },
    /// An event was not parked, or nobody knows.
    #[error("parking an event for row token {token}")]
    Park {
        /// Token of the row.
        token: String,
        /// Why.
        source: PublishError,
    },
    /// What was in flight on the old connection is unknown, and buckets and streams may have been set back.
    #[error("the connection to NATS was made again")]
    Reconnected,
    /// Another worker changed what this one was about to change.
    #[error("another worker changed {0}")]
    Superseded(&'static str),
    /// A task of ours ended early.
    #[error("{0} ended unexpectedly")]
    Task(&'static str),
    /// Waiting doesn't help.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl SessionError {
    /// Whether the row is refused for good, as far as the server says (the bucket is full, or its limit was lowered).
    pub fn is_refusal(&self) -> bool {
        match self {
            SessionError::Row { source, .. } | SessionError::Park { source, .. } => {
                !source.may_pass() && !matches!(source, PublishError::Conflict)
            }
            _ => false,
        }
    }
}

/// Why nothing is folded until a person does something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Stopped {
    /// A source was set back or replaced.
    #[error("source {stream}: {reset}; {}", SourceReset::ADVICE)]
    SourceReset {
        /// The source.
        stream: StreamRef,
        /// What shows it.
        reset: SourceReset,
    },
    /// A stream that hands its messages out once can't be folded again.
    #[error(
        "source {stream} has retention `{retention}`: only streams with `limits` can be folded"
    )]
    Retention {
        /// The source.
        stream: StreamRef,
        /// Its retention.
        retention: String,
    },
    /// Rows exist, but the events they were made of are gone: a new key space would lack them.
    #[error(
        "source {stream} no longer holds up to {lost} of the events that the rows readers see were folded from: new rows would lack them. \
         The old rows stay and are kept up to date; `tidemill projection accept-source` has the new ones made without what is gone"
    )]
    HistoryTruncated {
        /// The source.
        stream: StreamRef,
        /// At most how many.
        lost: u64,
    },
    /// Something else wrote into the rows bucket.
    #[error(
        "key {key} in the rows bucket isn't as Tidemill writes it ({source}): delete the key, then rebuild"
    )]
    ForeignRow {
        /// The key.
        key: String,
        /// What is wrong.
        source: RowError,
    },
    /// The same for keys that aren't rows.
    #[error(
        "key {key} in bucket {bucket} isn't as Tidemill writes it: {problem}. Put back what it held, or delete the key: \
         then it is written anew from what is there now"
    )]
    ForeignKey {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
        /// What is wrong.
        problem: String,
    },
    /// The sources had too many histories.
    #[error("source {stream}: {error}")]
    Lineage {
        /// The source.
        stream: StreamRef,
        /// What is wrong.
        error: PositionError,
    },
    /// The definition doesn't compile in this version.
    #[error("{0}")]
    Compile(CompileError),
    /// The expressions of a `capture` don't compile in this version.
    #[error("capture of stream {stream}: {error}")]
    Capture {
        /// The stream.
        stream: StreamRef,
        /// What is wrong.
        error: tidemill_core::expression::CompileError,
    },
    /// A source isn't in the contract.
    #[error("the contract doesn't say where stream {0} is")]
    Unbound(StreamRef),
    /// What failed to fold asks for a person.
    #[error("{reason}: key `{key}`, position {position}: {message}; {}", .reason.advice(.projection, .key))]
    Fold {
        /// Why.
        reason: StopReason,
        /// `<namespace>/<name>`.
        projection: String,
        /// Key of the event before which it stopped, as people write it.
        key: String,
        /// Where that event stands.
        position: String,
        /// Why it can't be folded.
        message: String,
    },
}

impl Stopped {
    /// A stable word for conditions and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Stopped::SourceReset { .. } => "SourceReset",
            Stopped::Retention { .. } => "NotASource",
            Stopped::HistoryTruncated { .. } => "HistoryTruncated",
            Stopped::ForeignRow { .. } | Stopped::ForeignKey { .. } => "ForeignKey",
            Stopped::Lineage { .. } => "SourceReset",
            Stopped::Compile(_) | Stopped::Capture { .. } | Stopped::Unbound(_) => "Invalid",
            Stopped::Fold { reason, .. } => reason.reason(),
        }
    }

    /// As a status shows it.
    pub fn to_control(&self) -> ControlError {
        ControlError::new(self.reason(), self.to_string())
    }
}

/// An error with its causes.
pub(crate) fn full_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        // Some errors print their source themselves.
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}
