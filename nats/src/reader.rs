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
//! What it can't know: messages that the stream's limits removed before they were read. [`Reader::trimmed`] tells when
//! the stream's beginning had moved past the position at the start of a session.

use crate::api::{ApiError, StreamState};
use crate::connection::{ConnectionStatus, Denial, Nats};
use crate::message::{Delivery, StoredMessage};
use crate::pull::{Ended, Mode, Pulls, SILENCE_MAX};
use async_nats::{Message, StatusCode, Subscriber};
use futures::FutureExt;
use futures::StreamExt;
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};
use std::fmt;
use std::pin::Pin;
use std::time::Duration;
use tidemill_core::timestamp::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

/// How long the server keeps a consumer that nobody asks.
const INACTIVE_MAX: Duration = Duration::from_secs(30);
/// Pauses between two tries to begin a session: doubling between these.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(50);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Reconnects in a row without any message, after which the next message is suspected of breaking the connection.
const STALLS_MAX: u32 = 2;

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
    /// Kept over calls, so that a caller that gives up waiting again and again still gets there.
    opening: Option<BoxFuture<'static, Result<Opened, ReadError>>>,
    /// Sessions in a row that ended by a reconnect without a message.
    stalls: u32,
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
}

struct Session {
    source: Source,
    consumer: String,
    inbox: String,
    subscriber: Subscriber,
    status: watch::Receiver<ConnectionStatus>,
    reconnects: u64,
    pulls: Pulls,
    /// Deliveries so far.
    delivered: u64,
    silence: Pin<Box<Sleep>>,
    denied: BoxFuture<'static, String>,
}

struct Opened {
    session: Session,
    state: StreamState,
    pending: u64,
    /// The next message, read in another way because its delivery seems to break the connection.
    rescued: Option<StoredMessage>,
    start: ReadFrom,
}

/// What ended the wait for a message.
enum Heard {
    Message(Box<Message>),
    Reconnect,
    Silence,
    Denied(String),
}

/// What a delivery is.
enum Taken {
    Stored(StoredMessage),
    Control,
    /// The session is over.
    Broken(&'static str),
    /// No more is there.
    End,
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
        Self::open_in(nats, stream, filters, from, Mode::Follow).await
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
        Self::open_in(nats, stream, filters, from, Mode::ToEnd).await
    }

    async fn open_in(
        nats: &Nats,
        stream: &str,
        filters: Vec<String>,
        from: ReadFrom,
        mode: Mode,
    ) -> Result<Reader, ReadError> {
        let source = Source {
            nats: nats.clone(),
            stream: stream.to_owned(),
            filters,
            mode,
        };
        let opened = open(source.clone(), from, None, None, false).await?;
        let mut reader = Reader {
            source,
            from,
            position: None,
            state: opened.state.clone(),
            pending: 0,
            trimmed: None,
            session: None,
            opening: None,
            stalls: 0,
            sessions: 0,
            ended: false,
        };
        reader.begin(opened);
        Ok(reader)
    }

    /// The stream as it was when the present session began.
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
            (None, ReadFrom::First | ReadFrom::Time(_) | ReadFrom::New) => 0,
        }
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
            if let Some(rescued) = self.resume().await? {
                into.push(rescued);
                return Ok(1);
            }
            let Some(session) = &mut self.session else {
                continue;
            };
            session.ask().await;
            let message = match session.hear().await {
                Heard::Message(message) => *message,
                Heard::Reconnect => {
                    self.stalls += u32::from(session.delivered == 0);
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

    /// Makes sure there is a session. Gives a message only if one had to be read in another way.
    async fn resume(&mut self) -> Result<Option<StoredMessage>, ReadError> {
        if self.session.is_some() {
            return Ok(None);
        }
        let opening = self.opening.get_or_insert_with(|| {
            let rescue = self.stalls >= STALLS_MAX;
            let known = Some(self.state.incarnation.clone());
            open(self.source.clone(), self.from, self.position, known, rescue).boxed()
        });
        let opened = opening.await;
        self.opening = None;
        let opened = opened?;
        self.sessions += 1;
        Ok(self.begin(opened))
    }

    fn begin(&mut self, opened: Opened) -> Option<StoredMessage> {
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
            self.stalls = 0;
        }
        rescued
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
                self.stalls = 0;
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

impl Session {
    /// Asks for more if there is room.
    async fn ask(&mut self) {
        while let Some((id, body)) = self.pulls.wanted() {
            let subject = self.source.nats.api_subject(&format!(
                "CONSUMER.MSG.NEXT.{}.{}",
                self.source.stream, self.consumer
            ));
            let reply = format!("{}.{id}", self.inbox);
            let client = self.source.nats.client();
            // It fails only when the client is closed; silence ends the session then.
            if client
                .publish_with_reply(subject, reply, body.to_string().into())
                .await
                .is_err()
            {
                return;
            }
            // With nothing asked for the server was silent by right.
            self.silence.as_mut().reset(Instant::now() + SILENCE_MAX);
            self.pulls.sent(id);
        }
    }

    async fn hear(&mut self) -> Heard {
        let reconnects = self.reconnects;
        loop {
            let heard = tokio::select! {
                biased;
                message = self.subscriber.next() => message.map_or(Heard::Reconnect, |message| Heard::Message(Box::new(message))),
                () = async {
                    let _ = self.status.wait_for(|status| status.reconnects != reconnects).await;
                } => Heard::Reconnect,
                subject = &mut self.denied => Heard::Denied(subject),
                () = &mut self.silence => Heard::Silence,
            };
            self.silence.as_mut().reset(Instant::now() + SILENCE_MAX);
            // While NATS is away silence means nothing; the reconnect ends the session.
            if !matches!(heard, Heard::Silence) || self.status.borrow().connected {
                return heard;
            }
        }
    }

    fn take(&mut self, message: Message) -> Taken {
        // Only what carries a delivery's reply subject is a stored message, whatever status its headers claim.
        let Some(delivery) = message.reply.as_deref().and_then(Delivery::parse) else {
            return self.control(&message);
        };
        if delivery.consumer_sequence != self.delivered + 1 {
            return Taken::Broken("a delivery is missing");
        }
        self.delivered += 1;
        self.pulls.delivered();
        Taken::Stored(StoredMessage {
            subject: message.subject,
            sequence: delivery.stream_sequence,
            stored_at: delivery.stored_at,
            headers: message.headers,
            payload: message.payload,
            pending: delivery.pending,
        })
    }

    fn control(&mut self, message: &Message) -> Taken {
        let number = |name: &str| {
            let value = message.headers.as_ref()?.get_last(name)?;
            value.as_str().parse::<u64>().ok()
        };
        let Some(status) = message.status else {
            return Taken::Control;
        };
        if status == StatusCode::IDLE_HEARTBEAT {
            let in_step = number("Nats-Last-Consumer").is_none_or(|last| last == self.delivered);
            return if in_step {
                Taken::Control
            } else {
                Taken::Broken("a delivery is missing")
            };
        }
        let id = message
            .subject
            .rsplit('.')
            .next()
            .and_then(|id| id.parse::<u64>().ok());
        if let (Some(id), Some(messages), Some(bytes)) = (
            id,
            number("Nats-Pending-Messages"),
            number("Nats-Pending-Bytes"),
        ) {
            let refused = status.as_u16() == 409;
            self.pulls.ended(
                id,
                &Ended {
                    messages,
                    bytes,
                    refused,
                },
            );
            return Taken::Control;
        }
        match (self.source.mode, status) {
            (Mode::ToEnd, StatusCode::NOT_FOUND) => Taken::End,
            _ => Taken::Broken("the server ended the consumer"),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The server drops it after a while anyhow; this is politeness.
        let subject = self.source.nats.api_subject(&format!(
            "CONSUMER.DELETE.{}.{}",
            self.source.stream, self.consumer
        ));
        let client = self.source.nats.client().clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { client.publish(subject, bytes::Bytes::new()).await });
        }
    }
}

/// Begins a session after `position`, else at `from`; tries until it succeeds or an error is for good.
async fn open(
    source: Source,
    from: ReadFrom,
    position: Option<(u64, Timestamp)>,
    known: Option<String>,
    rescue: bool,
) -> Result<Opened, ReadError> {
    let mut pause = RETRY_PAUSE_MIN;
    loop {
        let mut status = source.nats.status();
        // It fails only when the connection is dropped, and this holds it.
        let _ = status.wait_for(|status| status.connected).await;
        match try_open(&source, from, position, known.as_deref(), rescue).await {
            Err(ReadError::Refused { source: error, .. }) if error.may_pass() => {
                tracing::debug!(stream = %source.stream, %error, "reading can't begin yet");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_PAUSE_MAX);
            }
            done => return done,
        }
    }
}

async fn try_open(
    source: &Source,
    from: ReadFrom,
    position: Option<(u64, Timestamp)>,
    known: Option<&str>,
    rescue: bool,
) -> Result<Opened, ReadError> {
    let Source {
        nats,
        stream,
        filters,
        mode,
    } = source;
    let fail = |error: ApiError| match error {
        ApiError::StreamMissing(stream) => ReadError::StreamMissing(stream),
        ApiError::Denied(subject) => ReadError::Denied(subject),
        source => ReadError::Refused {
            stream: stream.clone(),
            source,
        },
    };
    let status = nats.status();
    let reconnects = status.borrow().reconnects;
    let state = nats.stream_state(stream).await.map_err(fail)?;
    check(source, &state, from, position, known).await?;

    let mut start = match (position, from) {
        (Some((sequence, _)), _) => ReadFrom::After(sequence),
        // Held as a position, so that a reconnect before the first message skips nothing.
        (None, ReadFrom::New) => ReadFrom::After(state.last),
        (None, from) => from,
    };
    let rescued = if rescue {
        next_by_api(source, start).await.map_err(fail)?
    } else {
        None
    };
    if let Some(message) = &rescued {
        start = ReadFrom::After(message.sequence);
    }

    let inbox = nats.client().new_inbox();
    let consumer = inbox.rsplit('.').next().unwrap_or("reader").to_owned();
    let denied = denied(nats, stream, &consumer, &inbox);
    let subscriber = nats
        .client()
        .subscribe(format!("{inbox}.*"))
        .await
        .map_err(|_| fail(ApiError::Disconnected("SUB".to_owned())))?;
    let (call, body) = consumer_request(stream, &consumer, filters, start);
    let info: ConsumerInfo = nats.stream_call(stream, &call, &body).await.map_err(fail)?;
    Ok(Opened {
        session: Session {
            source: source.clone(),
            consumer,
            inbox,
            subscriber,
            status,
            reconnects,
            pulls: Pulls::new(*mode),
            delivered: 0,
            silence: Box::pin(tokio::time::sleep(SILENCE_MAX)),
            denied,
        },
        state,
        pending: info.num_pending,
        rescued,
        start,
    })
}

#[derive(Deserialize)]
struct ConsumerInfo {
    #[serde(default)]
    num_pending: u64,
}

fn consumer_request(
    stream: &str,
    consumer: &str,
    filters: &[String],
    start: ReadFrom,
) -> (String, Value) {
    let mut config = json!({
        "name": consumer,
        "ack_policy": "none",
        "replay_policy": "instant",
        "mem_storage": true,
        "num_replicas": 1,
        "inactive_threshold": u64::try_from(INACTIVE_MAX.as_nanos()).unwrap_or(u64::MAX),
    });
    match start {
        ReadFrom::First | ReadFrom::After(0) => config["deliver_policy"] = json!("all"),
        ReadFrom::New => config["deliver_policy"] = json!("new"),
        ReadFrom::After(sequence) => {
            config["deliver_policy"] = json!("by_start_sequence");
            config["opt_start_seq"] = json!(sequence.saturating_add(1));
        }
        ReadFrom::Time(time) => {
            config["deliver_policy"] = json!("by_start_time");
            config["opt_start_time"] = json!(time.to_string());
        }
    }
    let mut call = format!("CONSUMER.CREATE.{stream}.{consumer}");
    match filters {
        [] => {}
        // One filter stands in the call's subject, so that permissions can be given by it.
        [filter] => {
            config["filter_subject"] = json!(filter);
            call = format!("{call}.{filter}");
        }
        filters => config["filter_subjects"] = json!(filters),
    }
    (
        call,
        json!({ "stream_name": stream, "config": config, "action": "create" }),
    )
}

/// Whether the stream is still the one that was read up to `position`.
async fn check(
    source: &Source,
    state: &StreamState,
    from: ReadFrom,
    position: Option<(u64, Timestamp)>,
    known: Option<&str>,
) -> Result<(), ReadError> {
    let lost = |reason: String| {
        Err(ReadError::Lost {
            stream: source.stream.clone(),
            reason,
        })
    };
    if let Some(known) = known
        && known != state.incarnation
    {
        return lost(format!(
            "its incarnation was {known} and is {}",
            state.incarnation
        ));
    }
    let sequence = match (position, from) {
        (Some((sequence, _)), _) | (None, ReadFrom::After(sequence)) => sequence,
        (None, ReadFrom::First | ReadFrom::Time(_) | ReadFrom::New) => return Ok(()),
    };
    if sequence > state.last {
        return lost(format!(
            "it was read up to sequence {sequence} and ends at {}",
            state.last
        ));
    }
    let Some((sequence, stored_at)) = position else {
        return Ok(());
    };
    match source.nats.read_at(&source.stream, sequence).await {
        Ok(Some(message)) if message.stored_at != stored_at => lost(format!(
            "its message {sequence} was stored at {stored_at} and is now one stored at {}",
            message.stored_at
        )),
        // Removed by a limit, a purge or a newer message of its subject.
        Ok(_) => Ok(()),
        Err(ApiError::StreamMissing(stream)) => Err(ReadError::StreamMissing(stream)),
        Err(ApiError::Denied(subject)) => Err(ReadError::Denied(subject)),
        Err(error) => Err(ReadError::Refused {
            stream: source.stream.clone(),
            source: error,
        }),
    }
}

/// The next message, read by the API: async-nats 0.51 gives up the whole connection when a message has a header block that it
/// can't parse (not UTF-8, a line without colon), and would do so again for ever.
async fn next_by_api(source: &Source, start: ReadFrom) -> Result<Option<StoredMessage>, ApiError> {
    let mut sequence = match start {
        ReadFrom::After(sequence) => sequence.saturating_add(1),
        ReadFrom::First | ReadFrom::Time(_) | ReadFrom::New => 1,
    };
    let everything = [">".to_owned()];
    let filters = if source.filters.is_empty() {
        &everything[..]
    } else {
        &source.filters[..]
    };
    loop {
        let mut next: Option<StoredMessage> = None;
        for filter in filters {
            let found = source
                .nats
                .next_for_subject(&source.stream, filter, sequence)
                .await?;
            if let Some(found) = found
                && next
                    .as_ref()
                    .is_none_or(|next| found.sequence < next.sequence)
            {
                next = Some(found);
            }
        }
        match (start, next) {
            (ReadFrom::Time(time), Some(message)) if message.stored_at < time => {
                sequence = message.sequence + 1
            }
            (_, next) => return Ok(next),
        }
    }
}

/// Ends with the subject when a permission is missing that the session needs and that shows only in an event.
fn denied(nats: &Nats, stream: &str, consumer: &str, inbox: &str) -> BoxFuture<'static, String> {
    let next =
        nats.denied_publish(&nats.api_subject(&format!("CONSUMER.MSG.NEXT.{stream}.{consumer}")));
    let next_subject = nats.api_subject(&format!("CONSUMER.MSG.NEXT.{stream}.*"));
    let subscription = nats.denied(Denial::Subscribe(format!("{inbox}.*")));
    let inbox = inbox.to_owned();
    async move {
        tokio::select! {
            () = next => next_subject,
            () = subscription => format!("{inbox}.*"),
        }
    }
    .boxed()
}
