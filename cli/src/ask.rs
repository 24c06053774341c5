//! Requests to workers.

use crate::context::Context;
use crate::error::{CliError, Exit, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tidemill_core::control::{AcceptSourceRequest, Accepted};
use tidemill_core::definition::StreamRef;
use tidemill_core::names::ResourceId;
use tidemill_nats::Nats;
use tidemill_worker_runtime::control::{AskError, ask};

/// Longest wait for an answer that needs no waiting by itself: an owner may just be changing.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Wait for the status of one resource; a list must not wait long for workers that are away.
const STATUS_MAX: Duration = Duration::from_secs(2);
/// How often what may be asked twice is asked, before it is said that nobody answers.
const TRIES: u32 = 3;

/// Asks the workers of a resource.
///
/// # Errors
/// Nobody there, or refused; one line each.
pub(crate) async fn request<T: DeserializeOwned>(
    nats: &Nats,
    resource: &ResourceId,
    verb: &str,
    body: &impl Serialize,
    within: Duration,
) -> Result<T> {
    read(resource, asked(nats, resource, verb, body, within, 1).await)
}

/// Asks for what is done once however often it is asked: without an answer it is asked again.
///
/// # Errors
/// As [`request`].
pub(crate) async fn request_again<T: DeserializeOwned>(
    nats: &Nats,
    resource: &ResourceId,
    verb: &str,
    body: &impl Serialize,
    within: Duration,
) -> Result<T> {
    read(
        resource,
        asked(nats, resource, verb, body, within, TRIES).await,
    )
}

/// The same, with the worker's refusal as it gave it.
pub(crate) async fn asked(
    nats: &Nats,
    resource: &ResourceId,
    verb: &str,
    body: &impl Serialize,
    within: Duration,
    tries: u32,
) -> std::result::Result<serde_json::Value, AskError> {
    let body = serde_json::to_value(body)
        .map_err(|error| AskError::Failed(format!("the request can't be written: {error}")))?;
    for _ in 1..tries {
        match ask(nats, resource, verb, &body, within).await {
            // Done or not: the answer, or the worker, may have been lost.
            Err(AskError::TimedOut(_)) => {}
            answer => return answer,
        }
    }
    ask(nats, resource, verb, &body, within).await
}

/// Asks for something to be done, and says what is done now.
///
/// # Errors
/// As [`request`], or the answer can't be written.
pub(crate) async fn tell(
    nats: &Nats,
    resource: &ResourceId,
    verb: &str,
    body: &impl Serialize,
    context: &Context,
) -> Result<()> {
    let accepted: Accepted = request(nats, resource, verb, body, ANSWER_MAX).await?;
    if context.for_people() {
        context.output.line(accepted.message)
    } else {
        context.output.document(&accepted)
    }
}

/// What workers say of themselves; nothing if none answers.
///
/// # Errors
/// As [`request`], but for nobody there.
pub(crate) async fn status<T: DeserializeOwned>(
    nats: &Nats,
    resource: &ResourceId,
    verb: &str,
) -> Result<Option<T>> {
    let nothing = serde_json::json!({});
    match request(nats, resource, verb, &nothing, STATUS_MAX).await {
        Ok(status) => Ok(Some(status)),
        Err(error) if error.exit() == Exit::Unreachable => Ok(None),
        Err(error) => Err(error),
    }
}

/// The request to go on with a stream that was set back; with all of them where none is named.
pub(crate) fn accept_source(stream: Option<&str>, context: &Context) -> AcceptSourceRequest {
    AcceptSourceRequest {
        stream: stream.map(|stream| {
            let (namespace, name) = context.qualify(stream);
            StreamRef { namespace, name }
        }),
    }
}

/// The answer in a reply.
pub(crate) fn read<T: DeserializeOwned>(
    resource: &ResourceId,
    answer: std::result::Result<serde_json::Value, AskError>,
) -> Result<T> {
    let answer = answer.map_err(|error| explain(&error))?;
    // What sagas answer is wrapped, what projections answer isn't.
    let inner = match answer {
        serde_json::Value::Object(mut fields) if fields.len() == 1 && fields.contains_key("ok") => {
            fields.remove("ok").unwrap_or_default()
        }
        answer => answer,
    };
    serde_json::from_value(inner).map_err(|error| {
        CliError::failed(format!(
            "the answer of the worker of {resource} can't be read: {error}"
        ))
        .remedy("use the `tidemill` of the same version as the worker")
    })
}

pub(crate) fn explain(error: &AskError) -> CliError {
    match error {
        AskError::NoWorker(resource) => CliError::new(
            Exit::Unreachable,
            format!("no worker of {resource} is running"),
        )
        .remedy("start `tidemill dev`, or see why its pods aren't ready"),
        AskError::TimedOut(resource) => CliError::new(
            Exit::Unreachable,
            format!("no worker of {resource} answered in time"),
        )
        .remedy("ask again: its partitions may just be changing hands"),
        AskError::Refused { reason, message } => match reason.as_str() {
            "NotFound" => CliError::not_found(message),
            "Unavailable" => CliError::new(Exit::Unreachable, message),
            _ => CliError::new(Exit::Refused, format!("{message} ({reason})")),
        },
        AskError::Failed(message) => CliError::failed(message),
    }
}

/// Who asks, for the log: `USER`, unless it was given.
pub(crate) fn asked_by(given: Option<&str>) -> String {
    let user = || std::env::var("USER").ok().filter(|user| !user.is_empty());
    given
        .map(str::to_owned)
        .or_else(user)
        .unwrap_or_else(|| "tidemill".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;
    use serde_json::json;
    use tidemill_core::contract::Connection;
    use tidemill_core::names::Kind;
    use tidemill_testbed::NatsServer;

    #[tokio::test]
    async fn what_is_done_once_is_asked_again_when_no_answer_comes() {
        let server = NatsServer::start().await.unwrap();
        let connection = Connection::plain(&server.url());
        let nats = Nats::connect(&connection, "test").await.unwrap();
        let saga = ResourceId::new(Kind::Saga, "shop", "fulfilment");
        let subject = saga.control_subject(nats.root(), "decide");
        let client = nats.client().clone();
        let mut requests = client.subscribe(subject).await.unwrap();
        client.flush().await.unwrap();
        // A worker that loses every other answer.
        let worker = tokio::spawn(async move {
            let mut count = 0;
            while let Some(request) = requests.next().await {
                count += 1;
                if count % 2 == 0 {
                    let answer = json!({"ok": {"message": format!("after {count}")}});
                    let reply = request.reply.unwrap();
                    client
                        .publish(reply, answer.to_string().into())
                        .await
                        .unwrap();
                }
            }
        });
        let (body, soon) = (json!({"id": "o-1"}), Duration::from_millis(300));
        let answer: Accepted = request_again(&nats, &saga, "decide", &body, soon)
            .await
            .unwrap();
        assert_eq!(answer.message, "after 2");
        let once: Result<Accepted> = request(&nats, &saga, "decide", &body, soon).await;
        assert_eq!(once.unwrap_err().exit(), Exit::Unreachable);
        worker.abort();
    }
}
