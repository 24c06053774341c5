//! `tidemill parked show`.

use super::Target;
use super::waiting::{Copied, Waiting, read};
use crate::commands::saga::show as saga_show;
use crate::context::Context;
use crate::error::{CliError, Result};
use crate::output::{Format, count};
use serde::Serialize;
use tidemill_core::contract::StreamBinding;
use tidemill_core::definition::StreamRef;
use tidemill_core::envelope::{Decoder, RawMessage};
use tidemill_core::json::Value;
use tidemill_core::names::{Kind, ResourceId};
use tidemill_core::status::InstanceState;
use tidemill_nats::Nats;

/// Shown at the end of the help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  tidemill parked show order-status o-1
  tidemill parked show order-fulfilment o-1
  tidemill parked show order-status o-1 -o json";

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// Row key or instance, as `parked list` shows it
    key: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    key: String,
    key_space: String,
    position: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// The event; absent where only its position is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<serde_json::Value>,
}

pub(super) async fn run(args: Args, nats: &Nats, context: &Context) -> Result<()> {
    let resource = args.target.resource(context, nats).await?;
    let mut waiting = read(nats, &resource).await?;
    waiting.retain(|one| one.key == args.key);
    if waiting.is_empty() && resource.kind == Kind::Saga {
        let described = saga_show::describe(nats, &resource, &args.key).await?;
        saga_show::show(&described, &resource, context)?;
        return match described.summary.reason.as_deref().and_then(advice) {
            Some(advice)
                if described.summary.state == InstanceState::Parked && context.for_people() =>
            {
                context.output.lines(&format!("\n{advice}"))
            }
            _ => Ok(()),
        };
    }
    if waiting.is_empty() {
        return Err(
            CliError::not_found(format!("`{}` of {resource} isn't parked", args.key))
                .remedy("`tidemill parked list` shows what is"),
        );
    }
    let foreign = waiting.iter().any(|one| one.foreign);
    let stops = waiting.iter().any(|one| one.stops);
    let shown: Vec<Shown> = waiting.into_iter().map(shown).collect();
    if context.output.format != Format::Table {
        return context.output.document(&shown);
    }
    let what = match () {
        () if foreign => "nothing that waits".to_owned(),
        () if stops => "not parked; the projection is stopped before an event of it".to_owned(),
        () => format!("{} parked", count(shown.len() as u64, "event")),
    };
    context
        .output
        .line(format!("{resource} {}: {what}", args.key))?;
    for_people(&resource, &shown, foreign, context)
}

fn for_people(
    resource: &ResourceId,
    shown: &[Shown],
    foreign: bool,
    context: &Context,
) -> Result<()> {
    for one in shown {
        let why = match (&one.reason, &one.message) {
            (Some(reason), Some(message)) => format!("{reason}: {message}"),
            _ => "waits behind the one before it".to_owned(),
        };
        context.output.line("")?;
        context
            .output
            .line(format!("position {}: {why}", one.position))?;
        if let Some(event) = &one.event {
            let text = serde_json::to_string_pretty(event).unwrap_or_default();
            context.output.lines(&text)?;
        }
    }
    context.output.lines(match resource.kind {
        _ if foreign => "\nworkers leave it alone, and nothing waits behind it",
        Kind::Projection => {
            "\nredrive folds it again, then what follows; skip leaves this one out for good"
        }
        Kind::Saga => {
            "\nit started nothing: publish it again as it should be; in this version it stays in the list"
        }
    })
}

/// What the two decisions mean for an instance, by the reason why it is parked.
fn advice(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "CompensationFailed" => {
            "redrive compensates again; skip: it was done by hand, the others go on"
        }
        "UnknownOutcome" => {
            "redrive asks again, under the same command id; skip: it did not happen, and the rest is taken back, or behind the pivot asked about"
        }
        "FailedAfterPivot" => {
            "redrive does the step again, under the same command id; skip leaves it out, and it has no output then"
        }
        "TimeoutAfterPivot" => "redrive and skip both let it go on, with as much time again",
        "PublishFailed" => "redrive publishes again; skip leaves the event out",
        "PublishRefused" => {
            "redrive publishes again; skip: it did not happen, and the rest is taken back; of a compensation: it was done by hand"
        }
        _ => return None,
    })
}

fn shown(waiting: Waiting) -> Shown {
    let Waiting {
        key,
        key_space,
        failure,
        position,
        event,
        ..
    } = waiting;
    let (reason, message) = failure.unzip();
    Shown {
        key,
        key_space,
        position,
        reason,
        message,
        event: event.as_ref().map(event_of),
    }
}

/// The event in JSON; what is none, as text.
fn event_of(copied: &Copied) -> serde_json::Value {
    let Copied {
        subject,
        headers,
        payload,
        stored_at,
    } = copied;
    // Why it is none is what was stored with it: what the stream captures isn't known here, so another reason would be found.
    let raw = || {
        let text = || String::from_utf8_lossy(payload).into_owned().into();
        let payload = Value::parse(payload).map_or_else(|_| text(), serde_json::Value::from);
        serde_json::json!({"natsSubject": subject, "payload": payload})
    };
    // Whatever the subject is, it is below this prefix: so it is read as an event of the stream's own form.
    let Some((prefix, _)) = subject.split_once('.') else {
        return raw();
    };
    let none = StreamRef {
        namespace: String::new(),
        name: String::new(),
    };
    let binding = StreamBinding {
        stream: none,
        name: String::new(),
        prefix: prefix.to_owned(),
        capture: Vec::new(),
    };
    let headers: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let message = RawMessage {
        subject,
        headers: &headers,
        payload,
        // Only ids of captured messages are made of it, and captures aren't known here.
        sequence: 0,
        stored_at: *stored_at,
    };
    match Decoder::new(&binding).map(|decoder| decoder.decode(&message)) {
        Ok(Ok(event)) => event.to_value().into(),
        Ok(Err(_)) | Err(_) => raw(),
    }
}
