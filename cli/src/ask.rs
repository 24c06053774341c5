//! Requests to workers.

use crate::error::{CliError, Exit, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tidemill_core::names::ResourceId;
use tidemill_nats::Nats;
use tidemill_worker_runtime::control::{AskError, ask};

/// Longest wait for an answer that needs no waiting by itself: an owner may just be changing.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(10);

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
    let body = serde_json::to_value(body)
        .map_err(|error| CliError::failed(format!("the request can't be written: {error}")))?;
    let answer = ask(nats, resource, verb, &body, within)
        .await
        .map_err(|error| explain(&error))?;
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

fn explain(error: &AskError) -> CliError {
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
