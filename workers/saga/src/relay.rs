//! Answers that come to this worker, which appends them to the log (`replies: Relayed`).
//!
//! One inbox for all requests, as a request of the client costs memory for ever when it isn't answered.

use async_nats::{HeaderMap, Message, StatusCode};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidemill_nats::subscription::SubscriptionError;
use tidemill_nats::{Nats, Subscription};
use tokio::sync::{OnceCell, oneshot};

/// How long an answer is waited for. The attempt's timeout is the law; a success counts from any attempt, however late.
/// It is what the server grants a responder by default.
const ANSWER_MAX: Duration = Duration::from_secs(120);

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Message>>>>;

/// What came of a request.
pub(crate) enum Answer {
    Came(Message),
    NoResponders,
    /// No answer in time, or the request could not be sent; why.
    None(String),
}

pub(crate) struct Relay {
    nats: Nats,
    waiting: Waiting,
    last_id: AtomicU64,
    /// `<inbox>.`, once it is subscribed to.
    inbox: OnceCell<(String, tokio::task::AbortHandle)>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some((_, listener)) = self.inbox.get() {
            listener.abort();
        }
    }
}

impl Relay {
    pub(crate) fn new(nats: &Nats) -> Self {
        Relay {
            nats: nats.clone(),
            waiting: Waiting::default(),
            last_id: AtomicU64::new(0),
            inbox: OnceCell::new(),
        }
    }

    /// Sends a request and waits for its answer, for 2 minutes at most.
    pub(crate) async fn request(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Answer {
        let (inbox, _) = match self.inbox.get_or_try_init(|| self.listen()).await {
            Ok(inbox) => inbox,
            Err(error) => return Answer::None(error.to_string()),
        };
        let id = self.last_id.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        let _waits = Waits::begin(&self.waiting, id, sender);
        let sent = self
            .nats
            .client()
            .publish_with_reply_and_headers(subject, format!("{inbox}{id}"), headers, payload)
            .await;
        if let Err(error) = sent {
            return Answer::None(error.to_string());
        }
        match tokio::time::timeout(ANSWER_MAX, answer).await {
            Ok(Ok(message)) if message.status == Some(StatusCode::NO_RESPONDERS) => {
                Answer::NoResponders
            }
            Ok(Ok(message)) => Answer::Came(message),
            Ok(Err(_)) | Err(_) => Answer::None("no answer".to_owned()),
        }
    }

    async fn listen(&self) -> Result<(String, tokio::task::AbortHandle), SubscriptionError> {
        let inbox = self.nats.client().new_inbox();
        let mut answers = Subscription::open(&self.nats, &format!("{inbox}.*"), None).await?;
        let waiting = Arc::clone(&self.waiting);
        let listener = tokio::spawn(async move {
            loop {
                let message = answers.next().await;
                let id = message
                    .subject
                    .rsplit('.')
                    .next()
                    .and_then(|id| id.parse().ok());
                let waits = id.and_then(|id| lock(&waiting).remove(&id));
                if let Some(waits) = waits {
                    let _ = waits.send(message);
                }
            }
        });
        Ok((format!("{inbox}."), listener.abort_handle()))
    }
}

/// Takes a request out of the list, however its waiting ends.
struct Waits<'a>(&'a Waiting, u64);

impl<'a> Waits<'a> {
    fn begin(waiting: &'a Waiting, id: u64, sender: oneshot::Sender<Message>) -> Self {
        lock(waiting).insert(id, sender);
        Waits(waiting, id)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        lock(self.0).remove(&self.1);
    }
}

fn lock(waiting: &Waiting) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Message>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
