//! Inputs of an instance, as the log holds them.

use super::outcome::{Answer, Failed, classify_http, classify_reply};
use crate::control::Decision;
use crate::definition::{Revision, StreamRef};
use crate::envelope::{DecodeError, Event};
use crate::json::{Object, Value};
use crate::names::{LogKind, ReplyToken, Run, Side, TimerId};
use crate::planted::{Bug, planted};
use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

/// One input. What it is comes from the subject; see [`decode_input`].
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The instance was started.
    Started(Box<Started>),
    /// A participant answered.
    Reply {
        /// Name of the step.
        step: String,
        /// Action or compensation.
        side: Side,
        /// Which attempt is answered.
        attempt: u32,
        /// To be compared with [`Run::reply_token`].
        token: ReplyToken,
        /// What it says; `None` if a stream answered in the participant's place.
        answer: Option<Answer>,
    },
    /// The worker saw something of an attempt itself.
    Observed {
        /// Name of the step, or id of a publish effect.
        step: String,
        /// Action or compensation.
        side: Side,
        /// Which attempt.
        attempt: u32,
        /// What it saw.
        what: Observed,
    },
    /// A publish is stored.
    Published {
        /// Id of the effect.
        effect: String,
        /// Where.
        at: Published,
    },
    /// A timer fired.
    Timer(TimerId),
    /// Somebody asked to cancel.
    Cancel(Asked),
    /// Somebody decided about what is parked.
    Decision {
        /// What to do.
        decision: Decision,
        /// Decisions that were taken before it when it was asked for; absent: it means whatever is parked.
        after: Option<u32>,
        /// Who and why.
        asked: Asked,
    },
}

/// Payload of `s`.
#[derive(Clone, Debug, PartialEq)]
pub struct Started {
    /// Random identity of this run.
    pub run: Run,
    /// Revision of its definition.
    pub revision: Revision,
    /// `input` of its expressions.
    pub input: Event,
    /// Correlation id of everything it causes.
    pub correlation_id: String,
    /// Where the event that started it stands; absent if it was started by request.
    pub position: Option<SourcePosition>,
}

/// Where an event stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourcePosition {
    /// The stream.
    pub stream: StreamRef,
    /// Its incarnation.
    pub incarnation: String,
    /// Sequence.
    pub sequence: u64,
}

/// Levels of our own around a document of somebody else's: `input.data` of `s`, `http.body` of `x`.
const LEVELS_AROUND: usize = 2;

/// All but the input, which serde's data model would cost its digits.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StartedForm {
    run: Run,
    revision: Revision,
    stored_at: Timestamp,
    correlation_id: String,
    #[serde(default)]
    position: Option<SourcePosition>,
}

impl Started {
    /// The payload of `s`. Numbers of the input keep their digits.
    pub fn to_json(&self) -> Vec<u8> {
        let Started {
            run,
            revision,
            input,
            correlation_id,
            position,
        } = self;
        let mut object: Object = [
            ("run", Value::from(String::from(*run).as_str())),
            ("revision", Value::from(revision.as_str())),
            ("input", input.to_value()),
            ("storedAt", Value::from(input.stored_at.millis())),
            ("correlationId", Value::from(correlation_id.as_str())),
        ]
        .into_iter()
        .collect();
        if let Some(position) = position {
            // Strings and whole numbers always serialise.
            let position = serde_json::to_value(position).unwrap_or_default();
            object.insert("position", Value::from(position));
        }
        if planted(Bug::LogLosesDigits) {
            return serde_json::to_vec(&object).unwrap_or_default();
        }
        Value::Object(object).to_json().into_bytes()
    }

    fn parse(payload: &[u8]) -> Result<Self, InputError> {
        // Read by our own parser first, so that numbers of the input keep their digits.
        let mut value = Value::parse_envelope(payload, LEVELS_AROUND)
            .map_err(|error| InputError::Payload(error.to_string()))?;
        let input = match &mut value {
            Value::Object(object) => object.insert("input", Value::Null).unwrap_or(Value::Null),
            _ => Value::Null,
        };
        let form: StartedForm = serde_json::from_value(value.into())
            .map_err(|error| InputError::Payload(error.to_string()))?;
        Ok(Started {
            run: form.run,
            revision: form.revision,
            input: Event::from_value(input, form.stored_at).map_err(InputError::Event)?,
            correlation_id: form.correlation_id,
            position: form.position,
        })
    }
}

/// Payload of `x`: what a worker saw itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Observed {
    /// An HTTP answer.
    #[serde(rename_all = "camelCase")]
    Http {
        /// Status code.
        status: u32,
        /// JSON body, null for an empty one; absent if it isn't JSON.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "present"
        )]
        body: Option<Value>,
        /// `Retry-After`, in milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
    /// Nobody listens on the request's subject.
    NoResponders {
        /// No other worker can have sent this attempt. Otherwise that it reached nobody says nothing of the other's.
        #[serde(default)]
        sole: bool,
    },
    /// No connection to the participant could be made.
    Unreachable {
        /// As above.
        #[serde(default)]
        sole: bool,
        /// Why.
        message: String,
    },
    /// The connection broke after the request was sent.
    Lost {
        /// How.
        message: String,
    },
    /// The request can't be sent (too large, refused by the server, not a valid URL).
    Unsendable {
        /// Why.
        message: String,
    },
    /// A stream is on the request's subject and would answer in the participant's place.
    SubjectCaptured {
        /// The stream.
        stream: String,
        /// As above: the request was not sent.
        #[serde(default)]
        sole: bool,
    },
    /// A stream refused a publish for good.
    PublishRefused {
        /// Why.
        message: String,
    },
}

/// Keeps `null` and absent apart.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Observed {
    /// The payload of `x`. Numbers of an HTTP body keep their digits.
    pub fn to_json(&self) -> Vec<u8> {
        // Strings, numbers and maps with string keys always serialise.
        let mut value = Value::from(serde_json::to_value(self).unwrap_or_default());
        if let (
            Observed::Http {
                body: Some(body), ..
            },
            Value::Object(object),
        ) = (self, &mut value)
            && let Some(Value::Object(http)) = object.get_mut("http")
        {
            http.insert("body", body.clone());
        }
        value.to_json().into_bytes()
    }

    /// What it means for the attempt.
    pub fn answer(&self) -> Answer {
        match self {
            Observed::Http {
                status,
                body,
                retry_after_ms,
            } => classify_http(*status, body.as_ref(), *retry_after_ms),
            Observed::NoResponders { sole } => Answer::Failed(Failed::reached_nobody(
                "NoResponders",
                "nobody listens on the subject",
                *sole,
            )),
            Observed::Unreachable { sole, message } => {
                Answer::Failed(Failed::reached_nobody("Unreachable", message, *sole))
            }
            Observed::Lost { message } => Answer::Failed(Failed::delivered("Lost", message)),
            Observed::Unsendable { message } => {
                Answer::Failed(Failed::impossible("Unsendable", message))
            }
            Observed::SubjectCaptured { stream, sole } => Answer::Failed(Failed::reached_nobody(
                "SubjectCaptured",
                format!(
                    "stream {stream} is on the request's subject and would answer for the participant"
                ),
                *sole,
            )),
            Observed::PublishRefused { message } => {
                Answer::Failed(Failed::impossible("PublishRefused", message))
            }
        }
    }
}

/// Payload of `p`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// JetStream stream.
    pub stream: String,
    /// Sequence there.
    pub sequence: u64,
}

/// Who asked, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Who.
    #[serde(default)]
    pub by: String,
    /// Why.
    #[serde(default)]
    pub why: String,
}

#[derive(Serialize, Deserialize)]
struct DecisionForm {
    decision: Decision,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<u32>,
    #[serde(flatten)]
    asked: Asked,
}

impl Input {
    /// Payload of a `c`.
    pub fn cancel_json(asked: &Asked) -> Vec<u8> {
        // Strings always serialise.
        serde_json::to_vec(asked).unwrap_or_default()
    }

    /// Payload of a `d`.
    pub fn decision_json(decision: Decision, after: Option<u32>, asked: &Asked) -> Vec<u8> {
        // Strings and numbers always serialise.
        serde_json::to_vec(&DecisionForm {
            decision,
            after,
            asked: asked.clone(),
        })
        .unwrap_or_default()
    }
}

/// A message of the log that is no input. It is counted and left alone.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The payload is not what the subject says.
    #[error("the payload can't be read: {0}")]
    Payload(String),
    /// The event that started the instance can't be read.
    #[error("the input event can't be read")]
    Event(#[source] DecodeError),
    /// Reserved for later versions.
    #[error("a `{0}` message is not read in this version")]
    Reserved(&'static str),
}

/// The input in a message of the log.
///
/// # Errors
/// [`InputError`]
pub fn decode_input(
    kind: LogKind,
    headers: &[(&str, &str)],
    payload: &[u8],
) -> Result<Input, InputError> {
    fn json<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, InputError> {
        serde_json::from_slice(payload).map_err(|error| InputError::Payload(error.to_string()))
    }
    let kind = match kind {
        LogKind::Reply { .. }
            if planted(Bug::KindFromPayload) && json::<DecisionForm>(payload).is_ok() =>
        {
            LogKind::Decision
        }
        kind => kind,
    };
    match kind {
        LogKind::Started => Ok(Input::Started(Box::new(Started::parse(payload)?))),
        LogKind::Reply {
            step,
            side,
            attempt,
            token,
        } => Ok(Input::Reply {
            step,
            side,
            attempt,
            token,
            answer: classify_reply(headers, payload),
        }),
        LogKind::Observed {
            step,
            side,
            attempt,
        } => {
            let value = Value::parse_envelope(payload, LEVELS_AROUND)
                .map_err(|error| InputError::Payload(error.to_string()))?;
            let what = Observed::from_value(value)?;
            Ok(Input::Observed {
                step,
                side,
                attempt,
                what,
            })
        }
        LogKind::Published(effect) => Ok(Input::Published {
            effect,
            at: json(payload)?,
        }),
        LogKind::Timer(timer) => Ok(Input::Timer(timer)),
        LogKind::Cancel => Ok(Input::Cancel(json(payload)?)),
        LogKind::Decision => {
            let form: DecisionForm = json(payload)?;
            Ok(Input::Decision {
                decision: form.decision,
                after: form.after,
                asked: form.asked,
            })
        }
        LogKind::Signal => Err(InputError::Reserved("g")),
        LogKind::Checkpoint => Err(InputError::Reserved("k")),
        LogKind::Erased => Err(InputError::Reserved("e")),
    }
}

impl Observed {
    /// Reads what [`Observed::to_json`] writes; digits of the body's numbers are kept.
    fn from_value(mut value: Value) -> Result<Self, InputError> {
        let body = match &mut value {
            Value::Object(object) => match object.get_mut("http") {
                Some(Value::Object(http)) => http.insert("body", Value::Null),
                _ => None,
            },
            _ => None,
        };
        let mut observed: Observed = serde_json::from_value(value.into())
            .map_err(|error| InputError::Payload(error.to_string()))?;
        if let Observed::Http { body: slot, .. } = &mut observed {
            *slot = body;
        }
        Ok(observed)
    }
}
