//! JetStream's API as far as it is needed: facts of streams, single messages. Every call goes through the domain or prefix
//! of the connection, has a time limit, and tells a missing permission from a server that is away.

use crate::connection::{Denial, Nats};
use crate::message::{self, RawMessage, StoredMessage};
use async_nats::{Message, StatusCode};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tidemill_core::timestamp::Timestamp;
use tokio::sync::broadcast::error::RecvError;

/// Metadata key of a stream's incarnation.
pub const INCARNATION_KEY: &str = "tidemill.dev/incarnation";

/// Where the server says that a stream was made, changed or deleted, whoever did it; the last token is the stream's name.
pub const STREAM_ADVISORIES: &str = "$JS.EVENT.ADVISORY.STREAM.>";

const STREAM_NOT_FOUND: u64 = 10059;
const MESSAGE_NOT_FOUND: u64 = 10037;

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ApiError {
    /// The stream (or bucket) isn't there.
    #[error("stream {0} doesn't exist")]
    StreamMissing(String),
    /// The connection may not do this.
    #[error("no permission to publish to {0}: see `tidemill permissions`")]
    Denied(String),
    /// Nobody answers calls of JetStream; to direct reads, or nobody has the stream.
    #[error(
        "nobody answers {0}: {what}JetStream is off for this account, or its domain or prefix is wrong",
        what = if .0.starts_with("DIRECT.") { "the stream or bucket isn't there, or " } else { "" }
    )]
    NoJetStream(String),
    /// No answer in time; the call may have been carried out.
    #[error("no answer to {0} in time")]
    TimedOut(String),
    /// The connection broke; the call may have been carried out.
    #[error("the connection to NATS broke during {0}")]
    Disconnected(String),
    /// The server refused.
    #[error("the server refuses {call}: {description} ({code})")]
    Refused {
        /// The call.
        call: String,
        /// JetStream's error code, 0 if it gave none.
        code: u64,
        /// What it says.
        description: String,
    },
    /// The answer wasn't what this version understands.
    #[error("the answer to {0} can't be read: {1}")]
    Form(String, String),
}

impl ApiError {
    /// JetStream's error code, if the server gave one.
    pub fn code(&self) -> Option<u64> {
        match self {
            ApiError::Refused { code, .. } if *code > 0 => Some(*code),
            _ => None,
        }
    }

    /// Whether the same call may succeed later without anybody doing anything.
    pub fn may_pass(&self) -> bool {
        match self {
            ApiError::TimedOut(_) | ApiError::Disconnected(_) | ApiError::NoJetStream(_) => true,
            ApiError::Refused { code, .. } => crate::publish::may_pass(*code),
            ApiError::StreamMissing(_) | ApiError::Denied(_) | ApiError::Form(..) => false,
        }
    }
}

/// What is known of a stream at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamState {
    /// Its name.
    pub name: String,
    /// `tidemill.dev/incarnation` of its metadata, else the server's creation time. Another value = another stream, whatever its name.
    pub incarnation: String,
    /// When it was made.
    pub created: Timestamp,
    /// Sequence of its first message that is still there; of the next one if it is empty.
    pub first: u64,
    /// The last sequence it gave; 0 if none.
    pub last: u64,
    /// Messages in it.
    pub messages: u64,
    /// Their bytes, as the server counts them.
    pub bytes: u64,
    /// Distinct subjects.
    pub subjects_count: u64,
    /// When its last message was stored.
    pub last_stored_at: Timestamp,
    /// The server's clock when it answered; absent from old servers.
    pub server_time: Option<Timestamp>,
    /// Its configuration as the server writes it.
    pub config: Value,
}

impl StreamState {
    /// Of a stream that wasn't looked at.
    pub(crate) fn unknown(name: &str) -> Self {
        StreamState {
            name: name.to_owned(),
            incarnation: String::new(),
            created: Timestamp::default(),
            first: 0,
            last: 0,
            messages: 0,
            bytes: 0,
            subjects_count: 0,
            last_stored_at: Timestamp::default(),
            server_time: None,
            config: Value::Null,
        }
    }

    /// The subjects it takes.
    pub fn subjects(&self) -> Vec<String> {
        let subjects = self.config.get("subjects").and_then(Value::as_array);
        let texts = subjects.into_iter().flatten().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    }

    /// Its metadata.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let metadata = self.config.get("metadata").and_then(Value::as_object);
        let pairs = metadata.into_iter().flatten();
        pairs
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect()
    }

    /// Whether messages leave it by themselves: by age, number or size.
    pub fn has_limits(&self) -> bool {
        let positive = |key: &str| {
            self.config
                .get(key)
                .and_then(Value::as_i64)
                .is_some_and(|limit| limit > 0)
        };
        ["max_age", "max_msgs", "max_bytes", "max_msgs_per_subject"]
            .into_iter()
            .any(positive)
    }

    /// Most messages of one subject it keeps; `None` = any number.
    pub fn messages_per_subject_max(&self) -> Option<u64> {
        let limit = self
            .config
            .get("max_msgs_per_subject")
            .and_then(Value::as_i64)?;
        u64::try_from(limit).ok().filter(|&limit| limit > 0)
    }

    /// Largest message it takes, headers included, in bytes; `None` = what the server takes.
    pub fn message_bytes_max(&self) -> Option<usize> {
        let limit = self.config.get("max_msg_size").and_then(Value::as_i64)?;
        usize::try_from(limit).ok().filter(|&limit| limit > 0)
    }

    /// Whether it stores under other subjects than were published to.
    pub fn transforms_subjects(&self) -> bool {
        self.config
            .get("subject_transform")
            .is_some_and(|transform| !transform.is_null())
    }

    /// `limits`, `workqueue` or `interest`.
    pub fn retention(&self) -> &str {
        self.config
            .get("retention")
            .and_then(Value::as_str)
            .unwrap_or("limits")
    }

    /// Whether a publish with a reply address is acknowledged.
    pub fn acknowledges(&self) -> bool {
        self.config.get("no_ack").and_then(Value::as_bool) != Some(true)
    }

    /// Whether single messages may be read from any replica; if not, the API is asked.
    pub fn allows_direct(&self) -> bool {
        self.config.get("allow_direct").and_then(Value::as_bool) == Some(true)
    }
}

#[derive(Deserialize)]
struct Info {
    config: Value,
    created: String,
    #[serde(default)]
    ts: String,
    state: InfoState,
}

#[derive(Deserialize)]
struct InfoState {
    messages: u64,
    bytes: u64,
    first_seq: u64,
    last_seq: u64,
    last_ts: String,
    #[serde(default)]
    num_subjects: u64,
}

#[derive(Deserialize)]
struct AnswerError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl Nats {
    /// What is known of a stream.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn stream_state(&self, stream: &str) -> Result<StreamState, ApiError> {
        let info: Info = self
            .stream_call(stream, &format!("STREAM.INFO.{stream}"), &Value::Null)
            .await?;
        Ok(state_of(stream, info))
    }

    /// A page of the account's streams, in the order of their names, from the `offset`th on; empty = there are no more.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn streams_from(&self, offset: usize) -> Result<Vec<StreamState>, ApiError> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            streams: Option<Vec<Info>>,
        }
        let page: Page = self
            .call("STREAM.LIST", &json!({ "offset": offset }))
            .await?;
        let streams = page.streams.unwrap_or_default().into_iter();
        let named = streams.map(|info| {
            let name = info.config.get("name").and_then(Value::as_str);
            let name = name.unwrap_or_default().to_owned();
            state_of(&name, info)
        });
        Ok(named.collect())
    }

    /// Names of all streams of the account that take messages on a subject (wildcards allowed).
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn streams_on(&self, subject: &str) -> Result<Vec<String>, ApiError> {
        #[derive(Deserialize)]
        struct Names {
            #[serde(default)]
            streams: Option<Vec<String>>,
        }
        let names: Names = self
            .call("STREAM.NAMES", &json!({ "subject": subject }))
            .await?;
        Ok(names.streams.unwrap_or_default())
    }

    /// The message at a sequence; `None` if it is gone or never was. Answered by the stream's leader, never by a replica
    /// that is behind, and whatever its headers are (a header block that isn't UTF-8 breaks an ordinary delivery).
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn read_at(
        &self,
        stream: &str,
        sequence: u64,
    ) -> Result<Option<StoredMessage>, ApiError> {
        self.get_by_api(stream, &json!({ "seq": sequence })).await
    }

    /// The first message of a subject (wildcards allowed) at or after a sequence; as [`Nats::read_at`].
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn next_for_subject(
        &self,
        stream: &str,
        subject: &str,
        sequence: u64,
    ) -> Result<Option<StoredMessage>, ApiError> {
        self.get_by_api(stream, &json!({ "seq": sequence, "next_by_subj": subject }))
            .await
    }

    /// Deletes one message; nothing happens if it is gone already.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn delete_message(&self, stream: &str, sequence: u64) -> Result<(), ApiError> {
        let call = format!("STREAM.MSG.DELETE.{stream}");
        // Not overwritten on disk: it is deleted because it is done, not because it must not be known.
        let request = json!({ "seq": sequence, "no_erase": true });
        match self.stream_call::<Value>(stream, &call, &request).await {
            Ok(_) => Ok(()),
            // The server answers a message that is gone in several ways, by text.
            Err(error @ ApiError::Refused { .. }) => match self.read_at(stream, sequence).await? {
                None => Ok(()),
                Some(_) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// The last message of a subject without wildcards. Quick: with `allow_direct` any replica answers, which may be behind.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn last_for_subject(
        &self,
        stream: &str,
        subject: &str,
    ) -> Result<Option<StoredMessage>, ApiError> {
        match self.last_by_direct(stream, subject).await {
            // Either the stream is missing or it doesn't allow direct reads: only the API knows.
            Err(ApiError::NoJetStream(_)) => {
                self.get_by_api(stream, &json!({ "last_by_subj": subject }))
                    .await
            }
            done => done,
        }
    }

    /// As [`Nats::last_for_subject`], of a stream that allows direct reads: the subject stands in the call's subject, so that permissions
    /// can be given by it. A stream that isn't there is [`ApiError::NoJetStream`].
    pub(crate) async fn last_by_direct(
        &self,
        stream: &str,
        subject: &str,
    ) -> Result<Option<StoredMessage>, ApiError> {
        self.direct(format!("DIRECT.GET.{stream}.{subject}"), Bytes::new())
            .await
    }

    /// As [`Nats::last_for_subject`], answered by the stream's leader: never one that is behind.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn last_at_leader(
        &self,
        stream: &str,
        subject: &str,
    ) -> Result<Option<StoredMessage>, ApiError> {
        self.get_by_api(stream, &json!({ "last_by_subj": subject }))
            .await
    }

    async fn direct(&self, call: String, body: Bytes) -> Result<Option<StoredMessage>, ApiError> {
        let message = self.request(&call, body).await?;
        match message.status {
            None => message::from_direct(message)
                .map(Some)
                .ok_or_else(|| ApiError::Form(call, "it isn't a stored message".to_owned())),
            Some(StatusCode::NOT_FOUND) => Ok(None),
            Some(status) => Err(ApiError::Refused {
                call,
                code: 0,
                description: format!(
                    "{} {}",
                    status.as_u16(),
                    message.description.unwrap_or_default()
                ),
            }),
        }
    }

    async fn get_by_api(
        &self,
        stream: &str,
        request: &Value,
    ) -> Result<Option<StoredMessage>, ApiError> {
        let Some(message) = self.get_raw(stream, request).await? else {
            return Ok(None);
        };
        message.into_stored().map(Some).ok_or_else(|| {
            let call = format!("STREAM.MSG.GET.{stream}");
            ApiError::Form(call, "it isn't a stored message".to_owned())
        })
    }

    /// The first message at or after a sequence: its sequence, and whether the client can take its delivery.
    pub(crate) async fn delivers_at(
        &self,
        stream: &str,
        sequence: u64,
    ) -> Result<Option<(u64, bool)>, ApiError> {
        let request = json!({ "seq": sequence, "next_by_subj": ">" });
        let message = self.get_raw(stream, &request).await?;
        Ok(message.map(|message| message.delivers()))
    }

    async fn get_raw(&self, stream: &str, request: &Value) -> Result<Option<RawMessage>, ApiError> {
        #[derive(Deserialize)]
        struct Got {
            message: RawMessage,
        }
        let call = format!("STREAM.MSG.GET.{stream}");
        match self.stream_call::<Got>(stream, &call, request).await {
            Ok(got) => Ok(Some(got.message)),
            Err(ApiError::Refused {
                code: MESSAGE_NOT_FOUND,
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A call about one stream.
    pub(crate) async fn stream_call<T: DeserializeOwned>(
        &self,
        stream: &str,
        call: &str,
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        self.call(call, body).await.map_err(|error| match error {
            ApiError::Refused {
                code: STREAM_NOT_FOUND,
                ..
            } => ApiError::StreamMissing(stream.to_owned()),
            error => error,
        })
    }

    /// Any call that is answered by JSON.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        call: &str,
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        let form = |error: serde_json::Error| ApiError::Form(call.to_owned(), error.to_string());
        let body = serde_json::to_vec(body).map_err(form)?;
        let body = if body == b"null" {
            Bytes::new()
        } else {
            Bytes::from(body)
        };
        let message = self.request(call, body).await?;
        let mut answer: Value = serde_json::from_slice(&message.payload).map_err(form)?;
        if let Some(error) = answer.get_mut("error").map(Value::take) {
            let error: AnswerError = serde_json::from_value(error).map_err(form)?;
            return Err(ApiError::Refused {
                call: call.to_owned(),
                code: error.err_code,
                description: error.description,
            });
        }
        serde_json::from_value(answer).map_err(form)
    }

    /// A request to the API; a missing permission is told from a time-out.
    async fn request(&self, call: &str, body: Bytes) -> Result<Message, ApiError> {
        let subject = self.api_subject(call);
        let denied = self.denied_publish(&subject);
        let client = self.client();
        let answer = client.request(subject.clone(), body);
        tokio::select! {
            biased;
            answer = answer => answer.map_err(|error| match error.kind() {
                async_nats::RequestErrorKind::NoResponders => ApiError::NoJetStream(call.to_owned()),
                async_nats::RequestErrorKind::TimedOut => ApiError::TimedOut(call.to_owned()),
                async_nats::RequestErrorKind::MaxPayloadExceeded
                | async_nats::RequestErrorKind::InvalidSubject => ApiError::Refused {
                    call: call.to_owned(),
                    code: 0,
                    description: error.to_string(),
                },
                async_nats::RequestErrorKind::Other => ApiError::Disconnected(call.to_owned()),
            }),
            () = denied => Err(ApiError::Denied(subject)),
        }
    }

    /// Ends when the server refuses a publish to this subject for lack of permission.
    pub(crate) fn denied_publish(&self, subject: &str) -> impl Future<Output = ()> + Send + use<> {
        self.denied(Denial::Publish(subject.to_owned()))
    }

    /// Ends when the server refuses just this for lack of permission.
    pub(crate) fn denied(&self, what: Denial) -> impl Future<Output = ()> + Send + use<> {
        let mut denials = self.denials();
        async move {
            loop {
                match denials.recv().await {
                    Ok(denial) if denial == what => return,
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => std::future::pending().await,
                }
            }
        }
    }
}

fn state_of(stream: &str, info: Info) -> StreamState {
    let time = |text: &str| Timestamp::parse(text).unwrap_or_default();
    let mark = info
        .config
        .get("metadata")
        .and_then(|metadata| metadata.get(INCARNATION_KEY));
    StreamState {
        name: stream.to_owned(),
        incarnation: mark
            .and_then(Value::as_str)
            .unwrap_or(&info.created)
            .to_owned(),
        created: time(&info.created),
        first: info.state.first_seq,
        last: info.state.last_seq,
        messages: info.state.messages,
        bytes: info.state.bytes,
        subjects_count: info.state.num_subjects,
        last_stored_at: time(&info.state.last_ts),
        server_time: Timestamp::parse(&info.ts),
        config: info.config,
    }
}
