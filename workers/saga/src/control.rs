//! Requests of people and programs: start, describe, await, cancel, decide, how it is.

use crate::append::Appended;
use crate::engine::Engine;
use crate::partitions::Partitions;
use crate::shard::{Answer, Ask};
use crate::starts::Triggers;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tidemill_core::control::{
    AcceptSourceRequest, CancelRequest, ControlError, DecisionRequest, Described, InstanceRequest,
    Reply, SagaStatus, StartReply, StartRequest, is_settled, saga_verb,
};
use tidemill_core::envelope::{ATTRIBUTE_BYTES_MAX, Event};
use tidemill_core::names::{LogKind, Run, TOKEN_SOURCE_BYTES_MAX, encode_token, partition};
use tidemill_core::saga::{Started, decode_input};
use tidemill_core::timestamp::Timestamp;
use tidemill_worker_runtime::control::{Answers, Request};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Requests that wait for an instance's end at once; more are refused, so that they never hold up the others.
const AWAITS_MAX: usize = 128;
/// Longest wait for an instance's end; then it has to be asked again. Who asked may be gone since long.
const AWAIT_MAX: Duration = Duration::from_secs(600);
/// Pause before an instance whose start isn't folded yet is asked for again.
const PAUSE: Duration = Duration::from_millis(20);

/// The verbs and who answers them. What concerns one instance, its partition's owner does.
pub(crate) const VERBS: [(&str, Answers); 7] = [
    (saga_verb::START, Answers::Owner),
    (saga_verb::DESCRIBE, Answers::Owner),
    (saga_verb::AWAIT, Answers::Owner),
    (saga_verb::CANCEL, Answers::Owner),
    (saga_verb::DECIDE, Answers::Owner),
    (saga_verb::ACCEPT_SOURCE, Answers::Any),
    (saga_verb::STATUS, Answers::Any),
];

/// Answers requests until shut down.
pub(crate) async fn serve(
    engine: Arc<Engine>,
    partitions: Arc<Partitions>,
    triggers: Arc<Triggers>,
    mut requests: mpsc::Receiver<Request>,
) {
    let awaits = Arc::new(Semaphore::new(AWAITS_MAX));
    loop {
        let request = tokio::select! {
            request = requests.recv() => request,
            () = engine.shutdown.cancelled() => return,
        };
        let Some(request) = request else { return };
        let (engine, partitions) = (Arc::clone(&engine), Arc::clone(&partitions));
        let (triggers, awaits) = (Arc::clone(&triggers), Arc::clone(&awaits));
        // Not in `engine.work`: an `await` may take as long as its instance.
        tokio::spawn(async move { handle(engine, partitions, triggers, awaits, request).await });
    }
}

async fn handle(
    engine: Arc<Engine>,
    partitions: Arc<Partitions>,
    triggers: Arc<Triggers>,
    awaits: Arc<Semaphore>,
    request: Request,
) {
    match request.verb {
        saga_verb::START => {
            let Some(start) =
                mine::<StartRequest>(&engine, &partitions, &request, |start| &start.id).await
            else {
                return;
            };
            let answer = match start {
                Ok(start) => start_instance(&engine, start, &request).await,
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
            let Ok(_permit) = awaits.try_acquire() else {
                let why = format!("{AWAITS_MAX} others wait here already: ask again later");
                return request.refuse("Unavailable", &why).await;
            };
            await_instance(&engine, &partitions, request).await
        }
        saga_verb::ACCEPT_SOURCE => {
            let body = serde_json::from_value::<AcceptSourceRequest>(request.body.clone());
            let answer = match body {
                Ok(body) => triggers.accept(body.stream.as_ref()).await,
                Err(error) => Err(unreadable(&error)),
            };
            send(request, answer).await
        }
        saga_verb::STATUS => {
            let status = SagaStatus {
                revision: Some(engine.revisions.current_revision.clone()),
                suspended: engine.workload.suspend || engine.workload.closing.is_some(),
                triggers: triggers.streams(),
                not_ready: engine.health.report().reasons,
            };
            send(request, Ok(status)).await
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
        Err(error) => return Some(Err(unreadable(&error))),
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

fn unreadable(error: &serde_json::Error) -> ControlError {
    ControlError::new("Invalid", format!("the request can't be read: {error}"))
}

/// Answers once the instance is finished or parked.
async fn await_instance(engine: &Arc<Engine>, partitions: &Arc<Partitions>, request: Request) {
    let id =
        match mine::<InstanceRequest>(engine, partitions, &request, |request| &request.id).await {
            None => return,
            Some(Ok(body)) => body.id,
            Some(Err(error)) => return send::<Described>(request, Err(error)).await,
        };
    let of = encode_token(&id).map_or(0, |token| partition(&token, engine.workload.partitions));
    let settled = async {
        loop {
            let (answer, answered) = oneshot::channel();
            if !partitions.ask(of, Ask::Await(id.clone(), answer)).await {
                return Err(changing());
            }
            match answered.await.unwrap_or_else(|_| Err(changing())) {
                // Its start is stored and not folded yet: it can't be waited for before.
                Ok(described) if !is_settled(described.summary.state) => {
                    tokio::time::sleep(PAUSE).await;
                }
                done => return done,
            }
        }
    };
    let result = tokio::time::timeout(AWAIT_MAX, settled).await;
    let still = || ControlError::new("Unavailable", "it is still running: ask again");
    send(request, result.unwrap_or_else(|_| Err(still()))).await;
}

/// Dropped without an answer: the partition went to another pod, which has heard the request too late. Asking again helps.
fn changing() -> ControlError {
    ControlError::new("Unavailable", "the instance's owner is changing: ask again")
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
    let result = answered.await.unwrap_or_else(|_| Err(changing()));
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
    asked: &Request,
) -> Result<StartReply, ControlError> {
    if engine.workload.closing.is_some() {
        let why = "the Saga is being deleted: nothing is started any more";
        return Err(ControlError::new("Closing", why));
    }
    // Streams stop earlier: their events wait for nobody.
    let running_max = engine.options.running_max.saturating_mul(2);
    if engine.tally.running() >= running_max {
        let why = format!("{running_max} instances are running in this worker: ask again later");
        return Err(ControlError::new("Unavailable", why));
    }
    // As long as an event's, since outcomes carry them on.
    let limited = [
        ("subject", &request.subject, TOKEN_SOURCE_BYTES_MAX),
        (
            "correlationId",
            &request.correlation_id,
            ATTRIBUTE_BYTES_MAX,
        ),
    ];
    for (field, value, limit) in limited {
        let bytes = value.as_ref().map_or(0, String::len);
        if bytes > limit {
            let why = format!("`{field}` has {bytes} bytes, at most {limit} are possible");
            return Err(ControlError::new("Invalid", why));
        }
    }
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
        extensions: traceparent(asked).into_iter().collect(),
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
    let payload = started.to_json();
    // What the log couldn't be read for again would be an instance that nobody runs, and its id would be taken.
    if let Err(error) = decode_input(LogKind::Started, &[], &payload) {
        return Err(ControlError::new("Invalid", error.to_string()));
    }
    match engine.append(&id, LogKind::Started, payload).await {
        Appended::Stored => Ok(StartReply { id, started: true }),
        Appended::Existing => Ok(StartReply { id, started: false }),
        Appended::Refused(why) => Err(ControlError::new(
            "Invalid",
            format!("the log refuses the start: {why}"),
        )),
        Appended::Abandoned => Err(ControlError::new(
            "Unavailable",
            "the worker is shutting down: ask again",
        )),
    }
}

/// The trace that a request belongs to, as an event carries it.
fn traceparent(asked: &Request) -> Option<(String, String)> {
    let value = asked.headers.as_ref()?.get("traceparent")?;
    Some(("traceparent".to_owned(), value.as_str().to_owned()))
}
