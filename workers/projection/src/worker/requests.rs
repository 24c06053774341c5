//! What people and programs ask of a projection, and its answers.

use super::{Running, Worker, json};
use crate::admin::{self, Answer};
use crate::error::full_text;
use crate::session::{Ask, Command, Want};
use std::sync::Arc;
use tidemill_core::control::{
    AcceptSourceRequest, Accepted, ControlError, ParkedRequest, ProjectionStatus, Reply,
    projection_verb,
};
use tidemill_core::names::{PROJECTION_PARTITIONS, partition};
use tidemill_core::projection::token_of_key;
use tidemill_worker_runtime::control::Request;
use tokio::sync::{mpsc, oneshot};

impl Worker {
    /// Answers a request, or has it answered, without waiting.
    pub(super) fn answer(&mut self, request: Request) {
        match request.verb {
            projection_verb::STATUS => {
                let status = self.status();
                tokio::spawn(async move { request.answer(&json(&Reply::Ok(status))).await });
            }
            projection_verb::REBUILD => {
                let (store, workload) = (self.store.clone(), Arc::clone(&self.workload));
                tokio::spawn(async move {
                    reply(request, admin::rebuild(&store, &workload).await).await
                });
            }
            projection_verb::ACCEPT_SOURCE => match body::<AcceptSourceRequest>(&request) {
                Ok(body) => {
                    let (store, workload) = (self.store.clone(), Arc::clone(&self.workload));
                    tokio::spawn(async move {
                        let answer =
                            admin::accept_source(&store, &workload, body.stream.as_ref()).await;
                        reply(request, answer).await;
                    });
                }
                Err(error) => refuse(request, error),
            },
            verb => match body::<ParkedRequest>(&request) {
                Ok(ParkedRequest {
                    key,
                    position,
                    by,
                    why,
                }) => {
                    let ask = Ask {
                        key,
                        want: match verb {
                            projection_verb::SKIP => Want::Skip,
                            projection_verb::REDRIVE => Want::Redrive,
                            _ => Want::First,
                        },
                        position,
                        by,
                        why,
                        at: admin::now(),
                    };
                    self.ask_sessions(request, ask);
                }
                Err(error) => refuse(request, error),
            },
        }
    }

    /// Hands a request to the sessions. Only who owns the key answers; for all keys, everyone that has any, and the owner of partition 0.
    fn ask_sessions(&self, request: Request, ask: Ask) {
        let token = ask.key.as_deref().map(token_of_key);
        let concerned = match token {
            Some(Err(error)) => {
                return refuse(request, ControlError::new("Invalid", error.to_string()));
            }
            Some(Ok(token)) => Some(partition(&token, PROJECTION_PARTITIONS)),
            None => None,
        };
        let waits = |session: &Running| {
            let observed = session.observer.get();
            observed.is_some_and(|observed| observed.parked_keys > 0 || observed.stopped.is_some())
        };
        let is_owner = self.owned.borrow().contains_key(&concerned.unwrap_or(0));
        if !is_owner && (concerned.is_some() || !self.sessions.iter().any(waits)) {
            return;
        }
        if self.sessions.is_empty() {
            let why = self
                .stops()
                .map_or_else(|| "it is starting".to_owned(), |stopped| stopped.message);
            return refuse(request, ControlError::new("Unavailable", why));
        }
        let sessions: Vec<mpsc::Sender<Command>> = self
            .sessions
            .iter()
            .map(|session| session.commands.clone())
            .collect();
        tokio::spawn(async move {
            let mut answers = Vec::new();
            for session in sessions {
                let (answer, answered) = oneshot::channel();
                if session
                    .send(Command {
                        ask: ask.clone(),
                        answer,
                    })
                    .await
                    .is_ok()
                    && let Ok(Some(answer)) = answered.await
                {
                    answers.push(answer);
                }
            }
            // What one of two key spaces did is done; else the refusal of the one in force, which comes last.
            let done: Vec<&Accepted> = answers.iter().filter_map(|one| one.as_ref().ok()).collect();
            let mut messages: Vec<&str> = done.iter().map(|one| one.message.as_str()).collect();
            messages.dedup();
            let accepted = Accepted {
                message: messages.join("; "),
                position: done.iter().find_map(|one| one.position.clone()),
            };
            match (done.is_empty(), answers.pop()) {
                (false, _) => reply(request, Ok(Ok(accepted))).await,
                (true, Some(answer)) => reply(request, Ok(answer)).await,
                (true, None) => {}
            }
        });
    }

    fn status(&self) -> ProjectionStatus {
        let live = self
            .situation
            .as_ref()
            .and_then(|situation| situation.live.clone());
        let target = self
            .situation
            .as_ref()
            .map(|situation| situation.target.clone());
        let shown = self
            .sessions
            .iter()
            .find(|session| Some(&session.plan.space) == live.as_ref())
            .or_else(|| self.sessions.last());
        let observed = shown
            .and_then(|session| session.observer.get())
            .unwrap_or_default();
        let sum = |of: fn(&tidemill_core::status::ProjectionCounters) -> u64| {
            observed.partitions.values().map(of).sum()
        };
        ProjectionStatus {
            building: target
                .filter(|target| live.as_ref().is_some_and(|live| live != target))
                .map(|target| target.to_string()),
            live: live.map(|live| live.to_string()),
            revision: Some(self.workload.definition.revision()),
            stopped: self.stops(),
            stopped_key: self
                .sessions
                .iter()
                .find_map(|session| session.observer.get()?.stopped_key),
            seen: sum(|counters| counters.seen),
            matched: sum(|counters| counters.matched),
            skipped: sum(|counters| counters.skipped),
            parked_keys: observed.parked_keys,
            left_out: sum(|counters| counters.left_out),
            // Each partition tells of the whole stream.
            gone: observed
                .partitions
                .values()
                .map(|counters| counters.gone)
                .max()
                .unwrap_or(0),
            sources: observed.sources.clone(),
        }
    }
}

/// The body of a request; an absent one is an empty object.
fn body<T: serde::de::DeserializeOwned>(request: &Request) -> Result<T, ControlError> {
    let body = match &request.body {
        serde_json::Value::Null => serde_json::json!({}),
        body => body.clone(),
    };
    serde_json::from_value(body).map_err(|error| ControlError::new("Invalid", error.to_string()))
}

fn refuse(request: Request, error: ControlError) {
    tokio::spawn(async move { request.refuse(&error.reason, &error.message).await });
}

async fn reply(request: Request, answer: Answer) {
    match answer {
        Ok(Ok(accepted)) => request.answer(&json(&Reply::Ok(accepted))).await,
        Ok(Err(error)) => request.refuse(&error.reason, &error.message).await,
        Err(error) => request.refuse("Unavailable", &full_text(&error)).await,
    }
}
