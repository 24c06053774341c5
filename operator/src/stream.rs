//! One JetStream stream of a resource: observe → plan (pure) → apply.

mod observe;
mod plan;

use crate::conditions::{Reason, Verdict};
use crate::context::Context;
use crate::error::Error;
use crate::jetstream::JetStream;
use crate::kubernetes::{Kubernetes, Object, Said, shown};
use plan::{Planned, Step};
use tidemill_nats::StreamState;
use tidemill_nats::provision::{StreamPlan, owner_of};

pub use plan::{Known, Policy};

/// What became of the stream.
#[derive(Debug)]
pub struct Settled {
    /// As it is, if it is known, and the resource's own or observed by it: of another's it says nothing.
    pub stream: Option<StreamState>,
    /// What is said.
    pub verdict: Verdict,
    /// What was lost for good, just now.
    pub data_lost: Option<String>,
    /// Why it isn't as it shall be yet.
    pub error: Option<Error>,
}

impl Settled {
    /// It is settled.
    pub fn of(stream: Option<StreamState>, verdict: Verdict) -> Settled {
        Settled {
            stream,
            verdict,
            data_lost: None,
            error: None,
        }
    }

    /// NATS didn't do it.
    pub fn undone(stream: Option<StreamState>, error: impl Into<Error>) -> Settled {
        let error = error.into();
        Settled {
            stream,
            verdict: Verdict::undone(&error),
            data_lost: None,
            error: Some(error),
        }
    }
}

/// Why a stream that is there can't become what is planned; nothing if it isn't there, or can. Nothing is written.
///
/// # Errors
/// NATS doesn't answer.
pub async fn refused<S: JetStream, K: Kubernetes>(
    wanted: &StreamPlan,
    policy: &Policy,
    context: &Context<S, K>,
) -> Result<Option<Verdict>, Error> {
    let present = context.jetstream.stream(&wanted.name).await?;
    Ok(present.and_then(|present| plan::refused(wanted, policy, &present)))
}

/// Makes the stream so, if it may.
///
/// # Errors
/// [`Error::Fenced`]; what NATS answers is in what it gives.
pub async fn settle<S: JetStream, K: Kubernetes, O: Object>(
    object: &O,
    wanted: &StreamPlan,
    policy: &Policy,
    known: &Known,
    context: &Context<S, K>,
) -> Result<Settled, Error> {
    let observed = match observe::observe(&context.jetstream, wanted).await {
        Ok(observed) => observed,
        Err(error) => return Ok(Settled::undone(None, error)),
    };
    let owner = wanted.mark.to_string();
    let known_as = |stream: Option<StreamState>| {
        let owned = |stream: &StreamState| owner_of(&stream.metadata()).as_ref() == Some(&owner);
        stream.filter(|stream| policy.observe || owned(stream))
    };
    let Planned {
        step,
        verdict,
        data_lost,
    } = plan::plan(wanted, policy, known, &observed);
    let name = &wanted.name;
    if step != Step::Nothing {
        match context.fence_nats() {
            Err(error) if error.is_of_nats() => {
                return Ok(Settled::undone(known_as(observed.stream), error));
            }
            fenced => fenced?,
        }
    }
    let (done, reason, note) = match &step {
        Step::Nothing => {
            return Ok(Settled {
                data_lost,
                ..Settled::of(known_as(observed.stream), verdict)
            });
        }
        Step::Create(config) => {
            let done = context.jetstream.create(name, config).await;
            (done, "Created", format!("stream {name} was made"))
        }
        Step::Update { config, changed } => {
            let done = context.jetstream.update(name, config).await;
            let note = format!("stream {name}: {} changed", changed.join(", "));
            (done, "Updated", note)
        }
    };
    match done {
        Ok(()) => {
            tracing::info!(resource = shown(object), "{note}");
            let said = Said {
                warning: false,
                reason,
                note,
            };
            context.kubernetes.say(object, said).await;
            match context.jetstream.stream(name).await {
                Ok(stream) => Ok(Settled {
                    data_lost,
                    ..Settled::of(known_as(stream), verdict)
                }),
                Err(error) => Ok(Settled::undone(None, error)),
            }
        }
        Err(error) if error.may_pass() => Ok(Settled::undone(known_as(observed.stream), error)),
        Err(error) => {
            let message = format!("stream {name} can't be as the spec says: {error}");
            let verdict = Verdict::new(Reason::Refused, message);
            Ok(Settled::of(known_as(observed.stream), verdict))
        }
    }
}
