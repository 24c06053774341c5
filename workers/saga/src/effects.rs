//! Running effects. Each may be run twice, by two workers, at any time: ids make that harmless.

use crate::append::Appended;
use crate::engine::{Claim, Engine};
use crate::relay::Answer;
use std::sync::Arc;
use tidemill_core::names::LogKind;
use tidemill_core::planted::{Bug, planted};
use tidemill_core::saga::{Effect, Observed, RequestEffect};
use tidemill_core::timestamp::Timestamp;
use tidemill_nats::HeaderMap;

/// Headers of an answer that say how it went; a relayed one keeps them.
const ERROR_HEADERS: [&str; 2] = ["Nats-Service-Error", "Nats-Service-Error-Code"];

/// Whose effect it is.
#[derive(Clone, Debug)]
pub(crate) struct Of {
    pub(crate) instance: String,
    pub(crate) started_at: Timestamp,
    /// No other worker can have made this attempt (docs/adr/0003) before this claim, nor can while it is held.
    pub(crate) sole: Option<Claim>,
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
        let known = self.subjects.stream_on(&request.subject);
        if let Some(stream) = known {
            return self.send_unless(of, request, stream).await;
        }
        // Of an older revision, whose subjects nobody has looked at yet.
        let engine = Arc::clone(self);
        self.work.spawn(async move {
            engine.look_until_known(&request.subject).await;
            if let Some(stream) = engine.subjects.stream_on(&request.subject) {
                engine.send_unless(of, request, stream).await;
            }
        });
    }

    /// Sends a request unless a stream would answer it.
    async fn send_unless(self: &Arc<Self>, of: Of, request: RequestEffect, stream: Option<String>) {
        match stream {
            None => self.send(of, request).await,
            Some(stream) => {
                let silence = move |sole| Observed::SubjectCaptured {
                    stream: stream.clone(),
                    sole,
                };
                let engine = Arc::clone(self);
                self.work.spawn(async move {
                    let kind = observed(&request);
                    engine
                        .append_silence(&of.instance, kind, of.sole, silence)
                        .await;
                });
            }
        }
    }

    async fn send(self: &Arc<Self>, of: Of, mut request: RequestEffect) {
        let headers = std::mem::take(&mut request.headers);
        let bytes = request.payload.len()
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
            return self.observe(&of, &request, &Observed::Unsendable { message });
        }
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            match value.parse::<async_nats::header::HeaderValue>() {
                Ok(value) => map.insert(name, value),
                Err(error) => {
                    let message = format!("header {name}: {error}");
                    return self.observe(&of, &request, &Observed::Unsendable { message });
                }
            }
        }
        self.metrics.attempts.inc();
        if of.relayed {
            let engine = Arc::clone(self);
            self.work
                .spawn(async move { engine.relay(of, request, map).await });
            return;
        }
        let payload = std::mem::take(&mut request.payload);
        let Some(reply) = self.log_subject(&of.instance, request.reply.clone()) else {
            return;
        };
        // The attempt's timeout is the law; what is not sent now will be sent by then or count as lost.
        if let Err(error) = self
            .nats
            .client()
            .publish_with_reply_and_headers(request.subject.clone(), reply, map, payload.into())
            .await
        {
            let message = error.to_string();
            self.observe(&of, &request, &Observed::Unsendable { message });
        }
    }

    fn observe(self: &Arc<Self>, of: &Of, request: &RequestEffect, what: &Observed) {
        self.append_later(of.instance.clone(), observed(request), what.to_json());
    }

    /// Sends a request whose answer comes to this worker, which appends it.
    async fn relay(self: Arc<Self>, of: Of, mut request: RequestEffect, headers: HeaderMap) {
        let payload = std::mem::take(&mut request.payload).into();
        let subject = std::mem::take(&mut request.subject);
        match self.relay.request(subject, headers, payload).await {
            Answer::Came(answer) => {
                let mut kept = HeaderMap::new();
                for name in ERROR_HEADERS {
                    if planted(Bug::RelayedErrorLost) {
                        break;
                    }
                    let values = answer.headers.as_ref();
                    if let Some(value) = values.and_then(|headers| headers.get(name)) {
                        kept.insert(name, value.clone());
                    }
                }
                let reply = request.reply.clone();
                let appended = self
                    .append_with(&of.instance, reply, kept, answer.payload)
                    .await;
                if let Appended::Refused(why) = appended {
                    let message = format!("the log refuses the answer: {why}");
                    let what = Observed::Lost { message };
                    self.append(&of.instance, observed(&request), what.to_json())
                        .await;
                }
            }
            Answer::NoResponders => {
                let kind = observed(&request);
                let silence = |sole| Observed::NoResponders { sole };
                self.append_silence(&of.instance, kind, of.sole, silence)
                    .await;
            }
            // The timer of the attempt is the law.
            Answer::None(why) => tracing::debug!(
                instance = of.instance,
                step = request.step,
                side = ?request.side,
                attempt = request.attempt,
                reason = why,
                "no answer"
            ),
        }
    }
}

fn observed(request: &RequestEffect) -> LogKind {
    LogKind::Observed {
        step: request.step.clone(),
        side: request.side,
        attempt: request.attempt,
    }
}
