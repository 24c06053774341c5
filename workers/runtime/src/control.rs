//! Requests to workers: `_tm.ctl.<ns>.<kind>.<name>.<verb>`, JSON in, JSON out.
//!
//! What concerns one partition must reach its owner: every pod hears such a request and only the owner answers. What concerns
//! none is answered by any one pod. An error is `{"error": {"reason": …, "message": …}}`.

use crate::WorkerContext;
use async_nats::Subject;
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::names::ResourceId;
use tidemill_nats::{Nats, Subscription};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Largest request in bytes: that of a message NATS takes by default.
const BODY_MAX: usize = 1 << 20;
/// Requests of one verb in work at once; more wait in their subscription. Each verb has its own, so that those that take long
/// (waiting for an instance's end) don't hold up the others.
const IN_FLIGHT_MAX: usize = 1024;
/// Queue group of verbs that any pod answers.
const QUEUE: &str = "tidemill";

/// Who answers a verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// Any one pod.
    Any,
    /// Every pod is asked, and only the one whose partition it is answers: the others drop the request.
    Owner,
}

/// A request, to be answered, refused, or dropped by those it doesn't concern.
#[derive(Debug)]
pub struct Request {
    /// Last token of the subject.
    pub verb: &'static str,
    /// The JSON body; null if empty.
    pub body: Value,
    /// Headers, for trace context and correlation.
    pub headers: Option<async_nats::HeaderMap>,
    reply: Subject,
    nats: Nats,
    _permit: OwnedSemaphorePermit,
}

impl Request {
    /// Answers.
    pub async fn answer(self, answer: &Value) {
        self.send(answer).await;
    }

    /// Refuses: a stable reason in CamelCase, and what a person can do.
    pub async fn refuse(self, reason: &str, message: &str) {
        self.send(&refusal(reason, message)).await;
    }

    async fn send(&self, answer: &Value) {
        send(&self.nats, self.reply.clone(), answer).await;
    }
}

fn refusal(reason: &str, message: &str) -> Value {
    json!({ "error": { "reason": reason, "message": message } })
}

async fn send(nats: &Nats, reply: Subject, answer: &Value) {
    let client = nats.client();
    let body = Bytes::from(answer.to_string());
    if let Err(error) = client.publish(reply.clone(), body).await {
        tracing::warn!(%error, "an answer couldn't be sent");
        let too_large = refusal("AnswerTooLarge", &error.to_string()).to_string();
        let _ = client.publish(reply, Bytes::from(too_large)).await;
    }
}

/// Why requests can't be heard.
pub use tidemill_nats::subscription::SubscriptionError as ControlError;

/// Hears requests until the worker shuts down, and hands them over.
///
/// # Errors
/// [`ControlError`]
pub async fn listen(
    context: &WorkerContext,
    verbs: &[(&'static str, Answers)],
) -> Result<mpsc::Receiver<Request>, ControlError> {
    let (requests, receiver) = mpsc::channel(IN_FLIGHT_MAX);
    for &(verb, answers) in verbs {
        let subject = context
            .contract
            .resource
            .control_subject(context.nats.root(), verb);
        let queue = match answers {
            Answers::Any => Some(QUEUE),
            Answers::Owner => None,
        };
        let messages = Subscription::open(&context.nats, &subject, queue).await?;
        let hear = hear(verb, messages, context.nats.clone(), requests.clone());
        let shutdown = context.shutdown.clone();
        tokio::spawn(async move { shutdown.run_until_cancelled(hear).await });
    }
    Ok(receiver)
}

async fn hear(
    verb: &'static str,
    mut messages: Subscription,
    nats: Nats,
    requests: mpsc::Sender<Request>,
) {
    let permits = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    loop {
        let message = messages.next().await;
        let Some(reply) = message.reply else {
            continue;
        };
        let body = match parse(&message.payload) {
            Ok(body) => body,
            Err((reason, text)) => {
                send(&nats, reply, &refusal(reason, &text)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let request = Request {
            verb,
            body,
            headers: message.headers,
            reply,
            nats: nats.clone(),
            _permit: permit,
        };
        if requests.send(request).await.is_err() {
            return;
        }
    }
}

fn parse(payload: &[u8]) -> Result<Value, (&'static str, String)> {
    if payload.len() > BODY_MAX {
        return Err((
            "TooLarge",
            format!("a request has at most {BODY_MAX} bytes"),
        ));
    }
    if payload.is_empty() {
        // A request without a key is for every key: nobody means that by sending nothing.
        return Err((
            "NotJson",
            "a request has a JSON body, `{}` at least".to_owned(),
        ));
    }
    serde_json::from_slice(payload).map_err(|error| ("NotJson", error.to_string()))
}

/// Why a worker's answer isn't there.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No worker of this resource hears requests.
    #[error("no worker of {0} is running")]
    NoWorker(ResourceId),
    /// Nobody answered in time: the owner of the partition may just be changing.
    #[error("no worker of {0} answered in time")]
    TimedOut(ResourceId),
    /// The worker refused.
    #[error("{message} ({reason})")]
    Refused {
        /// Stable, CamelCase.
        reason: String,
        /// For people.
        message: String,
    },
    /// The request couldn't be sent or the answer not be read.
    #[error("{0}")]
    Failed(String),
}

/// Asks the workers of a resource; for the CLI and tests.
///
/// # Errors
/// [`AskError`]
pub async fn ask(
    nats: &Nats,
    resource: &ResourceId,
    verb: &str,
    body: &Value,
    within: Duration,
) -> Result<Value, AskError> {
    let subject = resource.control_subject(nats.root(), verb);
    let payload = Bytes::from(body.to_string());
    let request = async_nats::Request::new()
        .payload(payload)
        .timeout(Some(within));
    let answer = nats
        .client()
        .send_request(subject, request)
        .await
        .map_err(|error| match error.kind() {
            async_nats::RequestErrorKind::NoResponders => AskError::NoWorker(resource.clone()),
            async_nats::RequestErrorKind::TimedOut => AskError::TimedOut(resource.clone()),
            async_nats::RequestErrorKind::InvalidSubject
            | async_nats::RequestErrorKind::MaxPayloadExceeded
            | async_nats::RequestErrorKind::Other => AskError::Failed(error.to_string()),
        })?;
    let answer: Value = serde_json::from_slice(&answer.payload)
        .map_err(|error| AskError::Failed(error.to_string()))?;
    let Some(error) = answer.get("error") else {
        return Ok(answer);
    };
    let text = |key: &str| {
        error
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    Err(AskError::Refused {
        reason: text("reason"),
        message: text("message"),
    })
}
