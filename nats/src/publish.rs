//! Acknowledged publishes, thousands in flight over one inbox.
//!
//! What is refused and what is merely unknown are told apart: see [`PublishError`].

use crate::connection::{Denial, Live, Nats};
use async_nats::client::PublishErrorKind;
use async_nats::{HeaderMap, Message, StatusCode, Subject, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

/// Publishes in flight unless said otherwise. Measured: more than some 1,000 give nothing on one machine; the rest is for networks.
pub const IN_FLIGHT: usize = 4096;
/// Wait for an acknowledgement. Longer than a leader election of a replicated stream (2 s measured).
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// How often time-outs are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);

const WRONG_LAST_SEQUENCE: u64 = 10071;
const WRONG_LAST_SEQUENCE_CONSTANT: u64 = 10164;
const TOO_LARGE: u64 = 10054;

/// One message to publish.
#[derive(Clone, Debug, Default)]
pub struct Publish {
    /// Where to.
    pub subject: String,
    /// Its headers, without those that the other fields make.
    pub headers: HeaderMap,
    /// Its body.
    pub payload: Bytes,
    /// `Nats-Msg-Id`: a second message with it within the stream's duplicate window is acknowledged and not stored.
    pub message_id: Option<String>,
    /// The sequence of the last message on this subject, 0 = there is none: else [`PublishError::Conflict`].
    pub expected_last_subject_sequence: Option<u64>,
}

impl Publish {
    /// A message without headers and conditions.
    pub fn new(subject: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Publish {
            subject: subject.into(),
            payload: payload.into(),
            ..Publish::default()
        }
    }

    fn into_headers(self) -> (Subject, HeaderMap, Bytes) {
        let Publish {
            subject,
            mut headers,
            payload,
            message_id,
            expected_last_subject_sequence,
        } = self;
        if let Some(id) = message_id {
            headers.insert(async_nats::header::NATS_MESSAGE_ID, id.as_str());
        }
        if let Some(sequence) = expected_last_subject_sequence {
            headers.insert(
                async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
                sequence.to_string(),
            );
        }
        (Subject::from(subject), headers, payload)
    }
}

/// A stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acked {
    /// The stream that took it.
    pub stream: String,
    /// Its sequence there; for a duplicate, the first one's.
    pub sequence: u64,
    /// Its message id was seen within the duplicate window, so it was not stored again.
    pub duplicate: bool,
}

/// Why a publish isn't known to be stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Not stored: the expected last sequence isn't the subject's (10071, and 10164 on replicated streams).
    #[error("the subject's last sequence is another than expected")]
    Conflict,
    /// Not stored: the stream refuses it; see [`PublishError::may_pass`].
    #[error("the stream refuses the message: {description} ({code})")]
    Refused {
        /// JetStream's error code.
        code: u64,
        /// What it says.
        description: String,
    },
    /// Not stored: no stream takes this subject.
    #[error("no stream takes {0}")]
    NoStream(String),
    /// Not stored: the connection may not publish to this subject.
    #[error("no permission to publish to {0}: see `tidemill permissions`")]
    Denied(String),
    /// It may or may not be stored, now or a little later: no answer came.
    #[error("whether the message is stored is unknown: {0}")]
    Unknown(&'static str),
}

impl PublishError {
    /// Whether the same publish may succeed later without anybody doing anything. `Conflict` may not: it has to be looked at.
    pub fn may_pass(&self) -> bool {
        match self {
            PublishError::Conflict | PublishError::Denied(_) => false,
            PublishError::Refused { code, .. } => may_pass(*code),
            // Right after a stream was made in a cluster, and while a single server starts, nobody answers.
            PublishError::NoStream(_) | PublishError::Unknown(_) => true,
        }
    }
}

/// Whether an error of JetStream passes by itself. For good are, among others, 10077 (a stream that is full and discards new
/// messages; also what else its store refuses), 10054 and 10097 (message or headers too large), 10109 (sealed).
pub(crate) fn may_pass(code: u64) -> bool {
    matches!(
        code,
        10004 // incomplete results
        | 10007 // cluster not assigned to this server
        | 10008 // temporarily unavailable
        | 10009 // not the leader
        | 10023 // insufficient resources
        | 10041 // Raft error
        | 10118 | 10194 // stream offline
        | 10158 // the same message id is being stored right now
        | 10163 // expected last sequence temporarily unavailable
        | 10167 // too many requests
    )
}

/// Publishes and waits for acknowledgements. Cheap to clone; all clones share the limit of publishes in flight.
#[derive(Clone)]
pub struct Publisher(Arc<Inner>);

struct Inner {
    nats: Nats,
    permits: Arc<Semaphore>,
    last_id: AtomicU64,
    pending: Arc<Pending>,
    /// Where answers come; made at the first publish, and anew for another client.
    inbox: RwLock<Option<Arc<Inbox>>>,
    /// Held while it is made.
    making: tokio::sync::Mutex<()>,
}

struct Inbox {
    live: Arc<Live>,
    /// `<inbox>.`
    prefix: String,
    listener: tokio::task::AbortHandle,
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

#[derive(Default)]
struct Pending(Mutex<HashMap<u64, Waiting>>);

struct Waiting {
    subject: Subject,
    since: Instant,
    /// On which of the connection's lives it was sent.
    reconnects: u64,
    answer: oneshot::Sender<Result<Acked, PublishError>>,
    _permit: OwnedSemaphorePermit,
}

/// The acknowledgement to come. Dropping it forgets the answer, not the message.
#[derive(Debug)]
pub struct PendingAck(oneshot::Receiver<Result<Acked, PublishError>>);

impl Future for PendingAck {
    type Output = Result<Acked, PublishError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|answer| answer.unwrap_or(Err(PublishError::Unknown("the publisher ended"))))
    }
}

impl Publisher {
    /// A publisher with at most `in_flight` publishes without an answer; see [`IN_FLIGHT`].
    pub fn new(nats: &Nats, in_flight: usize) -> Self {
        Publisher(Arc::new(Inner {
            nats: nats.clone(),
            permits: Arc::new(Semaphore::new(in_flight.max(1))),
            last_id: AtomicU64::new(0),
            pending: Arc::default(),
            inbox: RwLock::default(),
            making: tokio::sync::Mutex::default(),
        }))
    }

    /// The connection it publishes on.
    pub fn nats(&self) -> &Nats {
        &self.0.nats
    }

    /// Publishes without an answer so far.
    pub fn in_flight(&self) -> usize {
        self.0.pending.lock().len()
    }

    /// Sends a message; waits while NATS is away or too many publishes are in flight. Messages of one task go out in the order of
    /// the calls.
    ///
    /// The answer comes with the [`PendingAck`]. If this future is given up, nothing was sent, or the answer is lost.
    pub async fn publish(&self, message: Publish) -> PendingAck {
        let Inner {
            nats,
            permits,
            last_id,
            pending,
            inbox: _,
            making: _,
        } = &*self.0;
        let (answer, ack) = oneshot::channel();
        let ack = PendingAck(ack);
        let (subject, headers, payload) = message.into_headers();

        let Ok(permit) = Arc::clone(permits).acquire_owned().await else {
            return ack;
        };
        // What is sent while NATS is away would be sent when it is back, long after its sender was told that it is lost.
        let Some(reconnects) = nats.when_connected().await else {
            return ack;
        };
        let inbox = match self.inbox().await {
            Ok(inbox) => inbox,
            Err(error) => {
                let _ = answer.send(Err(error));
                return ack;
            }
        };
        let id = last_id.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting {
            subject: subject.clone(),
            since: Instant::now(),
            reconnects,
            answer,
            _permit: permit,
        };
        pending.lock().insert(id, waiting);
        let reply = format!("{}{id}", inbox.prefix);
        let client = &inbox.live.client;
        let sent = if headers.is_empty() {
            client.publish_with_reply(subject, reply, payload).await
        } else {
            client
                .publish_with_reply_and_headers(subject, reply, headers, payload)
                .await
        };
        if let Err(error) = sent {
            let refused = |code| PublishError::Refused {
                code,
                description: error.to_string(),
            };
            pending.settle(
                id,
                Err(match error.kind() {
                    PublishErrorKind::MaxPayloadExceeded => refused(TOO_LARGE),
                    PublishErrorKind::InvalidSubject => refused(0),
                    PublishErrorKind::Send => PublishError::Unknown("the connection is closed"),
                }),
            );
        }
        ack
    }

    /// Where answers come, on the client that is used now.
    async fn inbox(&self) -> Result<Arc<Inbox>, PublishError> {
        let Inner {
            nats,
            pending,
            inbox,
            making,
            ..
        } = &*self.0;
        let present = |live: &Arc<Live>| {
            let inbox = inbox.read().unwrap_or_else(PoisonError::into_inner);
            inbox.clone().filter(|inbox| Arc::ptr_eq(&inbox.live, live))
        };
        let live = nats.live();
        if let Some(inbox) = present(&live) {
            return Ok(inbox);
        }
        let _making = making.lock().await;
        let live = nats.live();
        if let Some(inbox) = present(&live) {
            return Ok(inbox);
        }
        let name = live.client.new_inbox();
        let answers = live
            .client
            .subscribe(format!("{name}.*"))
            .await
            .map_err(|_| PublishError::Unknown("the connection is closed"))?;
        let listener = tokio::spawn(listen(nats.clone(), Arc::clone(pending), answers));
        let made = Arc::new(Inbox {
            live,
            prefix: format!("{name}."),
            listener: listener.abort_handle(),
        });
        *inbox.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&made));
        Ok(made)
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

impl Pending {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Waiting>> {
        // The map is whole between any two statements, so a panic elsewhere leaves it usable.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, id: u64, result: Result<Acked, PublishError>) {
        let waiting = self.lock().remove(&id);
        if let Some(waiting) = waiting {
            let _ = waiting.answer.send(result);
        }
    }

    fn settle_where(
        &self,
        chosen: impl Fn(&Waiting) -> bool,
        result: impl Fn(&Waiting) -> PublishError,
    ) {
        let settled: Vec<Waiting> = self
            .lock()
            .extract_if(|_, waiting| chosen(waiting))
            .map(|(_, waiting)| waiting)
            .collect();
        for waiting in settled {
            let error = result(&waiting);
            let _ = waiting.answer.send(Err(error));
        }
    }
}

/// Hands answers to those who wait for them, until it is aborted.
async fn listen(nats: Nats, pending: Arc<Pending>, mut answers: Subscriber) {
    let mut denials = nats.denials();
    let mut status = nats.status();
    status.mark_unchanged();
    let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        tokio::select! {
            biased;
            answer = answers.next() => match answer {
                Some(answer) => hand_over(&pending, &answer),
                // The client is dead, and what it had sent with it.
                None => {
                    pending.settle_where(|_| true, |_| PublishError::Unknown("the connection to NATS broke"));
                    return;
                }
            },
            denial = denials.recv() => match denial {
                Ok(Denial::Publish(subject)) => pending.settle_where(
                    |waiting| waiting.subject.as_str() == subject,
                    |waiting| PublishError::Denied(waiting.subject.to_string()),
                ),
                Ok(Denial::Subscribe(_)) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            changed = status.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = status.borrow_and_update().clone();
                // The answers to what was sent before went to the connection that broke.
                pending.settle_where(
                    |waiting| !now.connected || waiting.reconnects != now.reconnects,
                    |_| PublishError::Unknown("the connection to NATS broke"),
                );
            }
            now = sweep.tick() => pending.settle_where(
                |waiting| now.duration_since(waiting.since) > ACK_TIMEOUT,
                |_| PublishError::Unknown("no answer in time"),
            ),
        }
    }
}

fn hand_over(pending: &Pending, answer: &Message) {
    let Some(id) = answer
        .subject
        .rsplit('.')
        .next()
        .and_then(|id| id.parse().ok())
    else {
        return;
    };
    let Some(waiting) = pending.lock().remove(&id) else {
        return;
    };
    let result = read_answer(answer, &waiting.subject);
    let _ = waiting.answer.send(result);
}

#[derive(Deserialize)]
struct Ack<'a> {
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<AckError>,
}

#[derive(Deserialize)]
struct AckError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

fn read_answer(answer: &Message, subject: &str) -> Result<Acked, PublishError> {
    if answer.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(PublishError::NoStream(subject.to_owned()));
    }
    match serde_json::from_slice::<Ack<'_>>(&answer.payload) {
        Ok(Ack {
            error: Some(error), ..
        }) => Err(match error.err_code {
            WRONG_LAST_SEQUENCE | WRONG_LAST_SEQUENCE_CONSTANT => PublishError::Conflict,
            code => PublishError::Refused {
                code,
                description: error.description,
            },
        }),
        Ok(Ack {
            stream,
            seq,
            duplicate,
            error: None,
        }) if seq > 0 => Ok(Acked {
            stream: stream.into_owned(),
            sequence: seq,
            duplicate,
        }),
        // Somebody else answers on this subject: whether a stream took it too is unknown.
        Ok(_) | Err(_) => Err(PublishError::Unknown(
            "the answer is no acknowledgement of a stream",
        )),
    }
}
