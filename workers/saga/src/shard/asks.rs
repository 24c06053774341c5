//! What a shard is asked about its instances, and its answers.

use super::Shard;
use crate::describe;
use crate::live::Live;
use std::sync::Arc;
use tidemill_core::control::{Accepted, CancelRequest, ControlError, DecisionRequest, Described};
use tidemill_core::names::{LogKind, LogSubject};
use tidemill_core::saga::{Asked, Input, Observed};
use tokio::sync::oneshot;

/// What a shard is asked by other tasks of the worker.
pub(crate) enum Ask {
    /// The server says that nobody listens to an attempt's request.
    NoResponders(LogSubject),
    Describe(String, Answer<Described>),
    /// Like `Describe`, once the instance is finished or parked.
    Await(String, Answer<Described>),
    Cancel(CancelRequest, Answer<Accepted>),
    Decide(DecisionRequest, Answer<Accepted>),
}

pub(crate) type Answer<T> = oneshot::Sender<Result<T, ControlError>>;

impl Shard {
    pub(super) async fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::NoResponders(subject) => self.on_no_responders(subject),
            Ask::Describe(id, answer) => {
                let saga = self.live.get(&id).map(|live| Arc::clone(&live.saga));
                let engine = Arc::clone(&self.engine);
                self.engine.work.spawn(async move {
                    let _ = answer.send(describe::describe(&engine, &id, saga).await);
                });
            }
            Ask::Await(id, answer) => match self.live.get(&id) {
                Some(live) if !tidemill_core::control::is_settled(live.instance.state()) => {
                    self.awaiting.entry(id).or_default().push(answer);
                }
                _ => Box::pin(self.answer(Ask::Describe(id, answer))).await,
            },
            Ask::Cancel(request, answer) => {
                if self.live.contains_key(&request.id) || self.unrunnable.contains_key(&request.id)
                {
                    let _ = answer.send(self.cancel(request));
                    return;
                }
                let engine = Arc::clone(&self.engine);
                self.engine.work.spawn(async move {
                    let _ = answer.send(Err(describe::not_cancelled(&engine, &request).await));
                });
            }
            Ask::Decide(request, answer) => {
                if self.live.contains_key(&request.id) || self.unrunnable.contains_key(&request.id)
                {
                    let _ = answer.send(self.decide(request));
                    return;
                }
                // Finished, perhaps by this very decision, whose answer was lost.
                let engine = Arc::clone(&self.engine);
                self.engine.work.spawn(async move {
                    let _ = answer.send(describe::decided(&engine, &request).await);
                });
            }
        }
    }

    fn on_no_responders(&mut self, subject: LogSubject) {
        let LogKind::Reply {
            step,
            side,
            attempt,
            ..
        } = subject.kind
        else {
            return;
        };
        let Some(live) = self.live.get(&subject.instance) else {
            return;
        };
        let resent = live
            .resent
            .iter()
            .any(|sent| *sent == (step.clone(), side, attempt));
        let claim = self.sole_claim(subject.partition).filter(|_| !resent);
        let kind = LogKind::Observed {
            step,
            side,
            attempt,
        };
        let engine = Arc::clone(&self.engine);
        self.engine.work.spawn(async move {
            let silence = |sole| Observed::NoResponders { sole };
            engine
                .append_silence(&subject.instance, kind, claim, silence)
                .await;
        });
    }

    fn cancel(&mut self, request: CancelRequest) -> Result<Accepted, ControlError> {
        let live = self.running(&request.id)?;
        let asked = Asked {
            by: request.by,
            why: request.why,
        };
        let message = live.instance.foretell_cancel(&live.saga, &asked)?;
        self.engine
            .append_later(request.id, LogKind::Cancel, Input::cancel_json(&asked));
        Ok(Accepted::new(message))
    }

    /// Cancels every instance that can be: those that compensate already, or are behind their pivot, are left to it.
    pub(super) fn cancel_all(&mut self) {
        let ids: Vec<String> = self.live.keys().cloned().collect();
        for id in ids {
            let request = CancelRequest {
                id,
                by: "the operator".to_owned(),
                why: "the Saga is being deleted (onDelete: Compensate)".to_owned(),
            };
            if let Err(error) = self.cancel(request) {
                tracing::debug!(%error, "not cancelled");
            }
        }
    }

    fn decide(&mut self, request: DecisionRequest) -> Result<Accepted, ControlError> {
        let live = self.running(&request.id)?;
        let (decisions, state) = (live.instance.decisions, live.instance.state());
        if request.after < decisions {
            return Ok(describe::already_decided(&request.id, state));
        }
        let Some(message) = live
            .instance
            .foretell_decision(&live.saga, request.decision)
        else {
            let message = format!("instance {} is {}, not parked", request.id, state.as_str());
            return Err(ControlError::new("NotParked", message));
        };
        if request.after > decisions {
            let message = format!(
                "instance {} has had {decisions} decisions, not {}: look at it again",
                request.id, request.after
            );
            return Err(ControlError::new("Invalid", message));
        }
        let asked = Asked {
            by: request.by,
            why: request.why,
        };
        self.engine.append_later(
            request.id,
            LogKind::Decision,
            Input::decision_json(request.decision, Some(request.after), &asked),
        );
        Ok(Accepted::new(message))
    }

    fn running(&self, id: &str) -> Result<&Live, ControlError> {
        if let Some(revision) = self.unrunnable.get(id) {
            return Err(ControlError::new(
                "Unavailable",
                format!("instance {id} waits for its definition: revision {revision} is missing"),
            ));
        }
        self.live.get(id).ok_or_else(|| {
            ControlError::new(
                "NotFound",
                format!("no instance {id} is running: it is finished, or was never started"),
            )
        })
    }
}
