//! Running effects. Each may be run twice, by two workers, at any time: ids make that harmless.

use crate::append::Appended;
use crate::engine::Engine;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::json::Value;
use tidemill_core::names::{LogKind, Side};
use tidemill_core::saga::{Effect, HttpEffect, Observed, PublishEffect, Published, RequestEffect};
use tidemill_core::timestamp::Timestamp;
use tidemill_nats::{HeaderMap, Publish, PublishError, ReadFrom, Reader};

/// Largest answer of an HTTP participant that is read, in bytes; the log's messages have a limit too.
const HTTP_BODY_BYTES_MAX: usize = 512 * 1024;
/// Pause before a publish is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// Whose effect it is.
#[derive(Clone, Debug)]
pub(crate) struct Of {
    pub(crate) instance: String,
    pub(crate) started_at: Timestamp,
    /// No other worker can have made this attempt (docs/adr/0003).
    pub(crate) sole: bool,
    pub(crate) relayed: bool,
}

impl Engine {
    pub(crate) async fn execute(self: &Arc<Self>, of: Of, effect: Effect) {
        match effect {
            Effect::Request(request) => self.request(of, request).await,
            Effect::Http(http) => {
                let engine = Arc::clone(self);
                self.work.spawn(async move { engine.http(of, http).await });
            }
            Effect::Publish(publish) => {
                let engine = Arc::clone(self);
                self.work
                    .spawn(async move { engine.publish(of, publish).await });
            }
        }
    }

    async fn request(self: &Arc<Self>, of: Of, request: RequestEffect) {
        let RequestEffect {
            step,
            side,
            attempt,
            reply,
            subject,
            headers,
            payload,
        } = request;
        let observe = |what: Observed| {
            let kind = LogKind::Observed {
                step: step.clone(),
                side,
                attempt,
            };
            self.append_later(of.instance.clone(), kind, what.to_json());
        };
        if let Some(stream) = self.captured.read().await.get(&subject) {
            observe(Observed::SubjectCaptured {
                stream: stream.clone(),
                sole: of.sole,
            });
            return;
        }
        let bytes = payload.len()
            + headers
                .iter()
                .map(|(name, value)| name.len() + value.len() + 4)
                .sum::<usize>()
            + 12;
        if bytes > self.nats.max_payload() {
            let message = format!(
                "the request has {bytes} bytes, the server takes {}",
                self.nats.max_payload()
            );
            observe(Observed::Unsendable { message });
            return;
        }
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(name, value.as_str());
        }
        self.metrics.attempts.inc();
        if of.relayed {
            let engine = Arc::clone(self);
            self.work.spawn(async move {
                engine
                    .relay(of, (step, side, attempt), reply, subject, map, payload)
                    .await
            });
            return;
        }
        let Some(reply) = self.log_subject(&of.instance, reply) else {
            return;
        };
        // The attempt's timeout is the law; what is not sent now will be sent by then or count as lost.
        if let Err(error) = self
            .nats
            .client()
            .publish_with_reply_and_headers(subject, reply, map, payload.into())
            .await
        {
            observe(Observed::Unsendable {
                message: error.to_string(),
            });
        }
    }

    /// Sends a request whose answer comes to this worker, which appends it.
    async fn relay(
        self: Arc<Self>,
        of: Of,
        (step, side, attempt): (String, Side, u32),
        reply: LogKind,
        subject: String,
        headers: HeaderMap,
        payload: Vec<u8>,
    ) {
        let request = async_nats::Request::new()
            .headers(headers)
            .payload(payload.into())
            .timeout(None);
        match self.nats.client().send_request(subject, request).await {
            Ok(answer) => {
                let Some(subject) = self.log_subject(&of.instance, reply) else {
                    return;
                };
                let mut message = Publish::new(subject, answer.payload);
                for name in ["Nats-Service-Error", "Nats-Service-Error-Code"] {
                    if let Some(value) = answer
                        .headers
                        .as_ref()
                        .and_then(|headers| headers.get(name))
                    {
                        message.headers.insert(name, value.clone());
                    }
                }
                // If it isn't stored the attempt times out and is made again.
                if let Err(error) = self.publisher.publish(message).await.await {
                    tracing::warn!(%error, instance = %of.instance, step, attempt, "an answer could not be relayed");
                }
            }
            Err(error) if error.kind() == async_nats::RequestErrorKind::NoResponders => {
                let what = Observed::NoResponders { sole: of.sole };
                self.append(
                    &of.instance,
                    LogKind::Observed {
                        step,
                        side,
                        attempt,
                    },
                    what.to_json(),
                )
                .await;
            }
            // The timer of the attempt is the law for everything else.
            Err(error) => {
                tracing::debug!(%error, instance = %of.instance, step, attempt, "no answer")
            }
        }
    }

    async fn http(self: Arc<Self>, of: Of, effect: HttpEffect) {
        let Ok(_permit) = Arc::clone(&self.http_permits).acquire_owned().await else {
            return;
        };
        self.metrics.attempts.inc();
        let timeout = Duration::from_millis(effect.timeout_ms);
        let kind = LogKind::Observed {
            step: effect.step.clone(),
            side: effect.side,
            attempt: effect.attempt,
        };
        // The timer of the attempt says when it is lost; this only frees the connection.
        let Ok(what) = tokio::time::timeout(timeout, self.http_answer(&of, effect)).await else {
            return;
        };
        self.append(&of.instance, kind, what.to_json()).await;
    }

    async fn http_answer(&self, of: &Of, effect: HttpEffect) -> Observed {
        let method = reqwest::Method::from_bytes(effect.method.as_str().as_bytes())
            .unwrap_or(reqwest::Method::POST);
        let mut request = self.http.request(method, &effect.url);
        for (name, value) in &effect.headers {
            request = request.header(name, value);
        }
        if let Some(body) = effect.body {
            request = request
                .header("content-type", "application/json")
                .body(body);
        }
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_builder() => {
                return Observed::Unsendable {
                    message: plain(&error),
                };
            }
            Err(error) if error.is_connect() => {
                return Observed::Unreachable {
                    sole: of.sole,
                    message: plain(&error),
                };
            }
            Err(error) => {
                return Observed::Lost {
                    message: plain(&error),
                };
            }
        };
        let status = u32::from(response.status().as_u16());
        let retry_after = response
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok());
        let retry_after_ms = retry_after
            .and_then(|text| text.trim().parse::<u64>().ok())
            .map(|s| s.saturating_mul(1000));
        let mut bytes = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if bytes.len() + chunk.len() <= HTTP_BODY_BYTES_MAX => {
                    bytes.extend_from_slice(&chunk)
                }
                Ok(Some(_)) => {
                    return Observed::Http {
                        status,
                        body: None,
                        retry_after_ms,
                    };
                }
                Ok(None) => break,
                Err(error) => {
                    return Observed::Lost {
                        message: plain(&error),
                    };
                }
            }
        }
        let body = if bytes.is_empty() {
            Some(Value::Null)
        } else {
            Value::parse(&bytes).ok()
        };
        Observed::Http {
            status,
            body,
            retry_after_ms,
        }
    }

    /// Publishes an event until it is known to be stored, once, and appends where.
    async fn publish(self: Arc<Self>, of: Of, effect: PublishEffect) {
        let Some(binding) = self.binding(&effect.stream) else {
            self.publish_refused(
                &of,
                &effect,
                format!("stream {} is not known to this worker", effect.stream),
            )
            .await;
            return;
        };
        let stream = binding.name.clone();
        let encoded = match effect.event.encode(&binding.prefix) {
            Ok(encoded) => encoded,
            Err(error) => {
                self.publish_refused(&of, &effect, error.to_string()).await;
                return;
            }
        };
        let mut headers = HeaderMap::new();
        for (name, value) in &encoded.headers {
            headers.insert(name.as_str(), value.as_str());
        }
        // As the header holds it, percent-encoded.
        let id = headers
            .get("ce-id")
            .map(|value| value.as_str().to_owned())
            .unwrap_or_default();
        let mut expected = 0;
        let sequence = loop {
            let message = Publish {
                headers: headers.clone(),
                message_id: Some(encoded.message_id.clone()),
                expected_last_subject_sequence: Some(expected),
                ..Publish::new(encoded.subject.clone(), encoded.payload.clone())
            };
            match self.publisher.publish(message).await.await {
                Ok(acknowledged) => break acknowledged.sequence,
                Err(PublishError::Conflict | PublishError::Unknown(_)) => {
                    match self
                        .find(&stream, &encoded.subject, of.started_at, &id)
                        .await
                    {
                        Ok(Found::There(sequence)) => break sequence,
                        Ok(Found::Last(last)) => expected = last,
                        Err(error) => {
                            tracing::warn!(%error, instance = %of.instance, effect = %effect.effect, "a publish is looked for again");
                            if self.pause().await {
                                return;
                            }
                        }
                    }
                }
                Err(error) if error.may_pass() => {
                    tracing::warn!(%error, instance = %of.instance, effect = %effect.effect, "a publish is tried again");
                    if self.pause().await {
                        return;
                    }
                }
                Err(error) => {
                    self.publish_refused(&of, &effect, error.to_string()).await;
                    return;
                }
            }
        };
        let published = Published { stream, sequence };
        let payload = serde_json::to_vec(&published).unwrap_or_default();
        self.append(&of.instance, LogKind::Published(effect.effect), payload)
            .await;
    }

    /// Waits a little; true if the worker is shutting down.
    async fn pause(&self) -> bool {
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => false,
            () = self.shutdown.cancelled() => true,
        }
    }

    async fn publish_refused(&self, of: &Of, effect: &PublishEffect, message: String) {
        tracing::error!(instance = %of.instance, effect = %effect.effect, stream = %effect.stream, message, "a publish is refused");
        let (step, side, attempt) = effect.attempt.clone();
        let kind = LogKind::Observed {
            step,
            side,
            attempt,
        };
        let what = Observed::PublishRefused { message };
        if self.append(&of.instance, kind, what.to_json()).await == Appended::Refused {
            tracing::error!(instance = %of.instance, "the log refuses to hold that a publish was refused");
        }
    }

    /// Looks for an event on its subject, from the instance's start on.
    async fn find(
        &self,
        stream: &str,
        subject: &str,
        from: Timestamp,
        event_id: &str,
    ) -> Result<Found, tidemill_nats::ReadError> {
        // The stream's clock may differ from the log's by little; a minute more costs nothing.
        let from = Timestamp::from_millis(from.millis() - 60_000);
        let mut reader = Reader::open_to_end(
            &self.nats,
            stream,
            vec![subject.to_owned()],
            ReadFrom::Time(from),
        )
        .await?;
        let mut batch = Vec::new();
        let mut last = 0;
        while reader.next_batch(256, &mut batch).await? > 0 {
            for message in batch.drain(..) {
                last = message.sequence;
                let id = message
                    .headers
                    .as_ref()
                    .and_then(|headers| headers.get("ce-id"))
                    .map(|value| value.as_str());
                if id.is_some_and(|id| id == event_id) {
                    return Ok(Found::There(message.sequence));
                }
            }
        }
        if last == 0 {
            // Nothing since the instance began, but the subject may hold older events.
            let older = self.nats.last_for_subject(stream, subject).await;
            last = older.ok().flatten().map_or(0, |message| message.sequence);
        }
        Ok(Found::Last(last))
    }
}

enum Found {
    There(u64),
    Last(u64),
}

/// An error of the HTTP client without the URL, which may hold what isn't for logs.
fn plain(error: &reqwest::Error) -> String {
    use std::error::Error as _;
    let mut text = match error {
        _ if error.is_timeout() => "timed out".to_owned(),
        _ if error.is_connect() => "can't connect".to_owned(),
        _ => "the request failed".to_owned(),
    };
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
