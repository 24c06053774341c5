//! Requests of people and programs: start, describe, await, cancel, decide.

use crate::append::Appended;
use crate::engine::Engine;
use crate::partitions::Partitions;
use crate::shard::{Answer, Ask};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tidemill_core::control::{
    CancelRequest, ControlError, DecisionRequest, InstanceRequest, Reply, StartReply, StartRequest,
    saga_verb,
};
use tidemill_core::envelope::Event;
use tidemill_core::names::{LogKind, Run, encode_token, partition};
use tidemill_core::saga::Started;
use tidemill_core::timestamp::Timestamp;
use tidemill_worker_runtime::control::{Answers, Request};
use tokio::sync::{mpsc, oneshot};

/// The verbs and who answers them. All concern one instance, so its partition's owner does.
pub(crate) const VERBS: [(&str, Answers); 5] = [
    (saga_verb::START, Answers::Owner),
    (saga_verb::DESCRIBE, Answers::Owner),
    (saga_verb::AWAIT, Answers::Owner),
    (saga_verb::CANCEL, Answers::Owner),
    (saga_verb::DECIDE, Answers::Owner),
];

/// Answers requests until shut down.
pub(crate) async fn serve(
    engine: Arc<Engine>,
    partitions: Arc<Partitions>,
    mut requests: mpsc::Receiver<Request>,
) {
    loop {
        let request = tokio::select! {
            request = requests.recv() => request,
            () = engine.shutdown.cancelled() => return,
        };
        let Some(request) = request else { return };
        let (engine, partitions) = (Arc::clone(&engine), Arc::clone(&partitions));
        // Not in `engine.work`: an `await` may take as long as its instance.
        tokio::spawn(async move { handle(engine, partitions, request).await });
    }
}

async fn handle(engine: Arc<Engine>, partitions: Arc<Partitions>, request: Request) {
    match request.verb {
        saga_verb::START => {
            let Some(start) =
                mine::<StartRequest>(&engine, &partitions, &request, |start| &start.id).await
            else {
                return;
            };
            let answer = match start {
                Ok(start) => start_instance(&engine, start).await,
                Err(error) => Err(error),
            };
            send(request, answer).await;
        }
        saga_verb::DESCRIBE => {
            relay(
                &engine,
                &partitions,
                request,
                |r: &InstanceRequest| &r.id,
                |r, a| Ask::Describe(r.id, a),
            )
            .await
        }
        saga_verb::AWAIT => {
            relay(
                &engine,
                &partitions,
                request,
                |r: &InstanceRequest| &r.id,
                |r, a| Ask::Await(r.id, a),
            )
            .await
        }
        saga_verb::CANCEL => {
            relay(
                &engine,
                &partitions,
                request,
                |r: &CancelRequest| &r.id,
                Ask::Cancel,
            )
            .await
        }
        saga_verb::DECIDE => {
            relay(
                &engine,
                &partitions,
                request,
                |r: &DecisionRequest| &r.id,
                Ask::Decide,
            )
            .await
        }
        _ => {}
    }
}

/// The request's body, if its instance is of a partition of this worker; `None`: another pod answers.
async fn mine<T: DeserializeOwned>(
    engine: &Engine,
    partitions: &Partitions,
    request: &Request,
    id: impl Fn(&T) -> &str,
) -> Option<Result<T, ControlError>> {
    let invalid = |error: String| ControlError::new("Invalid", error);
    let body: T = match serde_json::from_value(request.body.clone()) {
        Ok(body) => body,
        // Every pod says so; the first answer is the one that counts.
        Err(error) => return Some(Err(invalid(format!("the request can't be read: {error}")))),
    };
    let token = match encode_token(id(&body)) {
        Ok(token) if id(&body).is_empty() || token.is_empty() => {
            return Some(Err(invalid("the id is empty".to_owned())));
        }
        Ok(token) => token,
        Err(error) => return Some(Err(invalid(error.to_string()))),
    };
    partitions
        .has(partition(&token, engine.workload.partitions))
        .await
        .then_some(Ok(body))
}

async fn relay<T: DeserializeOwned, A: Serialize + Send + 'static>(
    engine: &Arc<Engine>,
    partitions: &Arc<Partitions>,
    request: Request,
    id: impl Fn(&T) -> &str + Copy,
    ask: impl FnOnce(T, Answer<A>) -> Ask,
) {
    let body = match mine::<T>(engine, partitions, &request, id).await {
        None => return,
        Some(Ok(body)) => body,
        Some(Err(error)) => return send::<A>(request, Err(error)).await,
    };
    let of =
        encode_token(id(&body)).map_or(0, |token| partition(&token, engine.workload.partitions));
    let (answer, answered) = oneshot::channel();
    if !partitions.ask(of, ask(body, answer)).await {
        return;
    }
    // Dropped without an answer: the partition went to another pod, which has heard the request too late. Asking again helps.
    let unavailable =
        || ControlError::new("Unavailable", "the instance's owner is changing: ask again");
    let result = answered.await.unwrap_or_else(|_| Err(unavailable()));
    send(request, result).await;
}

async fn send<A: Serialize>(request: Request, result: Result<A, ControlError>) {
    let reply = match result {
        Ok(answer) => Reply::Ok(answer),
        Err(error) => Reply::Error(error),
    };
    match serde_json::to_value(&reply) {
        Ok(value) => request.answer(&value).await,
        Err(error) => request.refuse("Unavailable", &error.to_string()).await,
    }
}

/// Starts an instance by request: the same `s` as a trigger gives, with an input made of the request.
async fn start_instance(
    engine: &Arc<Engine>,
    request: StartRequest,
) -> Result<StartReply, ControlError> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now = Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    let StartRequest {
        id,
        data,
        subject,
        correlation_id,
    } = request;
    let input = Event {
        id: format!("start-{id}"),
        source: engine.resource.source(),
        event_type: "tidemill.saga.start".to_owned(),
        subject: Some(subject.unwrap_or_else(|| id.clone())),
        time: Some(now.to_string()),
        extensions: std::collections::BTreeMap::new(),
        data,
        stored_at: now,
    };
    let started = Started {
        run: Run::new(rand::random()),
        revision: engine.revisions.current_revision.clone(),
        correlation_id: correlation_id.unwrap_or_else(|| id.clone()),
        input,
        position: None,
    };
    match engine
        .append(&id, LogKind::Started, started.to_json())
        .await
    {
        Appended::Stored => Ok(StartReply { id, started: true }),
        Appended::Existing => Ok(StartReply { id, started: false }),
        Appended::Refused => Err(ControlError::new(
            "Unavailable",
            "the log refuses the start: see the worker's log",
        )),
        Appended::Abandoned => Err(ControlError::new(
            "Unavailable",
            "the worker is shutting down: ask again",
        )),
    }
}
