//! A stream's messages in order: none skipped, none repeated.
//!
//! A [`Reader`] holds a *session*: an ephemeral consumer without acknowledgements, asked for messages in bounded requests.
//! Whatever breaks it (a reconnect, silence, a gap in the deliveries, a consumer that is gone) ends the session; the next one
//! begins after the last message that was handed out, and first looks whether the stream is still the one it was: same
//! incarnation, and that last message, if it is still there, with the same stored time. If not, reading ends with an error,
//! since going on would skip or repeat.
//!
//! Requests (pull) instead of deliveries at the server's will (push): measured on the same machine both read more than
//! 300,000 messages a second, but what a push consumer may send ahead grows to 32 MiB for each reader, without a setting for it.
//!
//! [`Reader::open_within`] asks only for what its filter names, so that a connection needs no right on the rest of the stream; it can't
//! compare the stream with what it was, and begins at its start again after a break.
//!
//! What it can't know: messages that the stream's limits removed before they were read. [`Reader::trimmed`] tells when
//! the stream's beginning had moved past the position at the start of a session.

mod open;
mod session;

use crate::api::{ApiError, StreamState};
use crate::connection::Nats;
use crate::message::StoredMessage;
use crate::pull::Mode;
use async_nats::Message;
use futures::FutureExt;
use futures::StreamExt;
use futures::future::BoxFuture;
use open::{Opened, open};
use session::{Heard, Session, Taken};
use std::fmt;
use tidemill_core::timestamp::Timestamp;

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// At the first message that is there.
    First,
    /// At the first message after this sequence. 0 is the same as [`ReadFrom::First`].
    After(u64),
    /// At the first message stored at or after this time.
    Time(Timestamp),
    /// At the first message stored after the reader was opened.
    New,
    /// At the stream's last message; within a filter ([`Reader::open_within`]), at the last one of that.
    Last,
}

/// Why reading ended. Nothing was skipped: a new reader may begin after the last message that was handed out.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The stream isn't there (any more).
    #[error("stream {0} doesn't exist")]
    StreamMissing(String),
    /// The stream isn't the one that was read, or it was set back.
    #[error("stream {stream} was set back or replaced: {reason}")]
    Lost {
        /// The stream.
        stream: String,
        /// What shows it.
        reason: String,
    },
    /// The connection may not read it.
    #[error("no permission for {0}: see `tidemill permissions`")]
    Denied(String),
    /// The server refuses to let it be read in this way.
    #[error("stream {stream} can't be read")]
    Refused {
        /// The stream.
        stream: String,
        /// What the server says.
        source: ApiError,
    },
}

/// The stream's beginning had moved past the position: what was between is gone unread (limits or a purge).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trimmed {
    /// The position reading was at.
    pub after: u64,
    /// The stream's first sequence then.
    pub first: u64,
}

/// Whether a reader waits for what is stored after it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// It waits at the end of the stream.
    AtTheEnd,
    /// It ends there.
    Never,
}

/// Reads one stream in order. See the module.
pub struct Reader {
    source: Source,
    from: ReadFrom,
    /// The last message handed out.
    position: Option<(u64, Timestamp)>,
    state: StreamState,
    pending: u64,
    trimmed: Option<Trimmed>,
    session: Option<Session>,
    /// The session's first message, if it had to be read in another way, until it is handed out.
    rescued: Option<StoredMessage>,
    /// Kept over calls, so that a caller that gives up waiting again and again still gets there.
    opening: Option<BoxFuture<'static, Result<Opened, ReadError>>>,
    /// Sessions since the first.
    sessions: u64,
    ended: bool,
}

/// What doesn't change over a reader's life.
#[derive(Clone)]
struct Source {
    nats: Nats,
    stream: String,
    filters: Vec<String>,
    mode: Mode,
    reach: Reach,
}

/// What a reader may ask of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Anything.
    Stream,
    /// What its one filter names.
    Filter,
}

impl Reader {
    /// Opens a stream for reading and waiting for what comes. Without filters every message is read.
    ///
    /// Waits while NATS is away.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn open(
        nats: &Nats,
        stream: &str,
        filters: Vec<String>,
        from: ReadFrom,
    ) -> Result<Reader, ReadError> {
        Self::open_in(nats, stream, filters, from, Mode::Follow, Reach::Stream).await
    }

    /// Opens a stream for reading what is there now: [`Reader::next_batch`] gives 0 at its end.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn open_to_end(
        nats: &Nats,
        stream: &str,
        filters: Vec<String>,
        from: ReadFrom,
    ) -> Result<Reader, ReadError> {
        Self::open_in(nats, stream, filters, from, Mode::ToEnd, Reach::Stream).await
    }

    /// As [`Reader::open`] with one filter, or as [`Reader::open_to_end`], but with no call that isn't about this filter only: permissions
    /// can be given by it. After whatever breaks it, it begins at `from` again: messages come again ([`Reader::sessions`] tells), and
    /// a stream that was set back shows in nothing else. A message that the client can't take is not read around.
    ///
    /// # Errors
    /// [`ReadError`], never [`ReadError::Lost`].
    pub async fn open_within(
        nats: &Nats,
        stream: &str,
        filter: String,
        from: ReadFrom,
        waits: Waits,
    ) -> Result<Reader, ReadError> {
        let mode = match waits {
            Waits::AtTheEnd => Mode::Follow,
            Waits::Never => Mode::ToEnd,
        };
        Self::open_in(nats, stream, vec![filter], from, mode, Reach::Filter).await
    }

    async fn open_in(
        nats: &Nats,
        stream: &str,
        filters: Vec<String>,
        from: ReadFrom,
        mode: Mode,
        reach: Reach,
    ) -> Result<Reader, ReadError> {
        let source = Source {
            nats: nats.clone(),
            stream: stream.to_owned(),
            filters,
            mode,
            reach,
        };
        let opened = open(source.clone(), from, None, None).await?;
        let mut reader = Reader {
            source,
            from,
            position: None,
            state: opened.state.clone(),
            pending: 0,
            trimmed: None,
            session: None,
            rescued: None,
            opening: None,
            sessions: 0,
            ended: false,
        };
        reader.begin(opened);
        Ok(reader)
    }

    /// The stream as it was when the present session began; of a reader within a filter nothing is known.
    pub fn state(&self) -> &StreamState {
        &self.state
    }

    /// Messages of the filters behind the last one handed out, as far as known; before the first: those to be read.
    pub fn pending(&self) -> u64 {
        self.pending
    }

    /// Sequence of the last message handed out; 0 if none was and reading began at the start.
    pub fn position(&self) -> u64 {
        match (self.position, self.from) {
            (Some((sequence, _)), _) | (None, ReadFrom::After(sequence)) => sequence,
            (None, ReadFrom::First | ReadFrom::Time(_) | ReadFrom::New | ReadFrom::Last) => 0,
        }
    }

    /// Sequence and stored time of the last message handed out, if any was.
    pub fn last(&self) -> Option<(u64, Timestamp)> {
        self.position
    }

    /// How often reading had to begin anew: reconnects, restarts, silence.
    pub fn sessions(&self) -> u64 {
        self.sessions
    }

    /// Whether messages were gone before they could be read, since this was last asked.
    pub fn trimmed(&mut self) -> Option<Trimmed> {
        self.trimmed.take()
    }

    /// Waits for a message and appends it and what has come with it, at most `max`, to `into`; gives their number.
    ///
    /// It may be given up at any point (in a `select!`) without losing anything. It waits while NATS is away; 0 is only given
    /// at the end of [`Reader::open_to_end`].
    ///
    /// # Errors
    /// [`ReadError`]. A further call tries to go on.
    pub async fn next_batch(
        &mut self,
        max: usize,
        into: &mut Vec<StoredMessage>,
    ) -> Result<usize, ReadError> {
        let before = into.len();
        while !self.ended {
            self.resume().await?;
            if let Some(rescued) = self.rescued.take() {
                into.push(rescued);
                return Ok(1);
            }
            let Some(session) = &mut self.session else {
                continue;
            };
            if session.pulls.is_done() {
                self.break_off("the next message is read by the API");
                continue;
            }
            session.ask().await;
            let message = match session.hear().await {
                Heard::Message(message) => *message,
                Heard::Reconnect => {
                    session.broke = true;
                    self.break_off("the connection was made again");
                    continue;
                }
                Heard::Silence => {
                    self.break_off("the server is silent");
                    continue;
                }
                Heard::Denied(subject) => {
                    self.session = None;
                    return Err(ReadError::Denied(subject));
                }
            };
            self.take(message, into)?;
            while into.len() - before < max
                && let Some(session) = &mut self.session
                // `unconstrained`: the task's budget would end a batch after some 100 messages.
                && let Some(Some(message)) = tokio::task::unconstrained(session.subscriber.next()).now_or_never()
            {
                self.take(message, into)?;
            }
            if into.len() > before {
                if let Some(session) = &mut self.session {
                    // Not waited for: what is in `into` must not be held back.
                    let _ = tokio::task::unconstrained(session.ask()).now_or_never();
                }
                return Ok(into.len() - before);
            }
        }
        Ok(0)
    }

    /// Makes sure there is a session.
    async fn resume(&mut self) -> Result<(), ReadError> {
        if self.session.is_some() {
            return Ok(());
        }
        if self.source.reach == Reach::Filter {
            self.position = None;
        }
        let opening = self.opening.get_or_insert_with(|| {
            let known = Some(self.state.incarnation.clone());
            open(self.source.clone(), self.from, self.position, known).boxed()
        });
        let opened = opening.await;
        self.opening = None;
        let opened = opened?;
        self.sessions += 1;
        self.begin(opened);
        Ok(())
    }

    fn begin(&mut self, opened: Opened) {
        let Opened {
            session,
            state,
            pending,
            rescued,
            start,
        } = opened;
        if let ReadFrom::After(after) = start
            && state.first > after + 1
            && after > 0
        {
            tracing::warn!(stream = %state.name, after, first = state.first, "messages were gone before they were read");
            self.trimmed = Some(Trimmed {
                after,
                first: state.first,
            });
        }
        self.from = start;
        self.state = state;
        self.pending = pending;
        self.session = Some(session);
        if let Some(message) = &rescued {
            tracing::warn!(stream = %self.source.stream, sequence = message.sequence,
                "a message was read by the API: its delivery broke the connection (are its headers UTF-8?)");
            self.position = Some((message.sequence, message.stored_at));
        }
        self.rescued = rescued;
    }

    fn break_off(&mut self, why: &str) {
        tracing::debug!(stream = %self.source.stream, position = self.position(), why, "reading begins anew");
        self.session = None;
    }

    fn take(&mut self, message: Message, into: &mut Vec<StoredMessage>) -> Result<(), ReadError> {
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        match session.take(message) {
            Taken::Stored(message) => {
                if let Some((last, _)) = self.position
                    && message.sequence <= last
                {
                    self.session = None;
                    return Err(ReadError::Lost {
                        stream: self.source.stream.clone(),
                        reason: format!("sequence {} came after {last}", message.sequence),
                    });
                }
                self.position = Some((message.sequence, message.stored_at));
                self.pending = message.pending;
                into.push(message);
            }
            Taken::Control => {}
            Taken::Broken(why) => self.break_off(why),
            Taken::End => {
                self.session = None;
                self.pending = 0;
                self.ended = true;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("stream", &self.source.stream)
            .field("filters", &self.source.filters)
            .field("position", &self.position())
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}
