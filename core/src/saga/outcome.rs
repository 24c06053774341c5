//! What an answer means: the one place where NATS service errors and HTTP status codes become outcomes.

use crate::json::Value;
use crate::planted::{Bug, planted};

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It was done.
    Success(Value),
    /// It was not done, and won't be.
    Refused {
        /// The participant's code.
        code: u32,
        /// The participant's words.
        message: String,
    },
    /// It didn't work out; perhaps it will later.
    Failed(Failed),
}

/// Why an attempt didn't work out.
#[derive(Clone, Debug, PartialEq)]
pub struct Failed {
    /// Stable CamelCase word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// Whether the participant may have got the request, so that it may have been done.
    pub delivered: bool,
    /// Whether it uses up an attempt.
    pub counts: bool,
    /// Whether another attempt can help.
    pub retryable: bool,
    /// Shortest wait that the participant asks for, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

impl Failed {
    /// A failure of a request that the participant may have got; it counts and is tried again.
    pub fn delivered(reason: &'static str, message: impl Into<String>) -> Self {
        Failed {
            reason,
            message: message.into(),
            delivered: true,
            counts: true,
            retryable: true,
            retry_after_ms: None,
        }
    }

    /// A request that reached nobody: it uses up no attempt, so that a participant's restart compensates nothing.
    ///
    /// `sole`: no other worker can have sent the same attempt. One that took over can't know what came of its
    /// predecessor's request, and a predecessor that stalled may send its own later.
    pub fn reached_nobody(reason: &'static str, message: impl Into<String>, sole: bool) -> Self {
        Failed {
            delivered: !sole && !planted(Bug::SoleIgnored),
            counts: planted(Bug::NobodyUsesUpAttempt),
            ..Failed::delivered(reason, message)
        }
    }

    /// A request that can't be made; trying again gives the same.
    pub fn impossible(reason: &'static str, message: impl Into<String>) -> Self {
        Failed {
            delivered: false,
            retryable: false,
            ..Failed::delivered(reason, message)
        }
    }
}

/// Longest text of a participant that is kept in the state, in characters.
const MESSAGE_CHARS_MAX: usize = 200;

/// `text`, cut to what the state keeps.
pub(super) fn short(text: &str) -> String {
    text.chars().take(MESSAGE_CHARS_MAX).collect()
}

/// The outcome of a NATS reply, by the NATS service convention (ADR-32): no `Nats-Service-Error-Code` is success,
/// 400–499 a refusal except 408, 425 and 429, everything else is tried again.
///
/// `None`: a JetStream acknowledgement. A stream has answered in the participant's place; that is never an outcome.
pub fn classify_reply(headers: &[(&str, &str)], body: &[u8]) -> Option<Answer> {
    let header = |name: &str| {
        headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| *value)
    };
    let text = short(header("Nats-Service-Error").unwrap_or_default());
    match header("Nats-Service-Error-Code").map(|code| code.trim().parse::<u32>()) {
        None => {}
        Some(_) if planted(Bug::ErrorCodeIgnored) => {}
        Some(Ok(code)) if is_refusal(code) => {
            return Some(Answer::Refused {
                code,
                message: text,
            });
        }
        Some(Ok(code)) => {
            return Some(Answer::Failed(Failed::delivered(
                "ServiceError",
                format!("{code} {text}"),
            )));
        }
        Some(Err(_)) => {
            return Some(Answer::Failed(Failed::delivered(
                "BadReply",
                "Nats-Service-Error-Code is not a number",
            )));
        }
    }
    if body.is_empty() && !planted(Bug::EmptyReplyIsBad) {
        return Some(Answer::Success(Value::Null));
    }
    match Value::parse(body) {
        Ok(value) if is_jetstream_acknowledgement(&value) && !planted(Bug::StreamAckIsSuccess) => {
            None
        }
        Ok(value) => Some(Answer::Success(value)),
        Err(_) if planted(Bug::BadReplyIsSuccess) => Some(Answer::Success(Value::Null)),
        Err(error) => Some(Answer::Failed(Failed::delivered(
            "BadReply",
            format!("the reply is not JSON: {error}"),
        ))),
    }
}

fn is_refusal(code: u32) -> bool {
    let passes = matches!(code, 408 | 425 | 429) && !planted(Bug::PassingCodesRefused);
    (400..500).contains(&code) && !passes
}

/// An object with string `stream`, and `seq` or `error.err_code`, and no other keys than the server's.
fn is_jetstream_acknowledgement(value: &Value) -> bool {
    const SERVER_KEYS: [&str; 8] = [
        "stream",
        "seq",
        "error",
        "domain",
        "duplicate",
        "val",
        "batch",
        "count",
    ];
    let Some(object) = value.as_object() else {
        return false;
    };
    let error_code = object.get("error").and_then(|error| error.get("err_code"));
    object
        .get("stream")
        .is_some_and(|stream| stream.as_str().is_some())
        && object
            .get("seq")
            .or(error_code)
            .is_some_and(|number| number.as_number().is_some())
        && object.keys().all(|key| SERVER_KEYS.contains(&key))
}

/// The outcome of an HTTP answer: 2xx success; 400, 402, 409, 410, 412 and 422 refused; the rest is tried again.
///
/// `body`: the parsed JSON body, null for an empty one, `None` if it isn't JSON.
pub fn classify_http(status: u32, body: Option<&Value>, retry_after_ms: Option<u64>) -> Answer {
    let message = || {
        let words = body.and_then(|body| body.get("error").or_else(|| body.get("message")));
        words
            .and_then(Value::as_str)
            .map_or_else(|| format!("HTTP {status}"), short)
    };
    match (status, body) {
        (200..=299, Some(body)) => Answer::Success(body.clone()),
        (200..=299, None) => Answer::Failed(Failed::delivered(
            "BadReply",
            "the answer's body is not JSON",
        )),
        (400 | 402 | 409 | 410 | 412 | 422, _) => Answer::Refused {
            code: status,
            message: message(),
        },
        (404, _) if planted(Bug::HttpNotFoundRefused) => Answer::Refused {
            code: status,
            message: message(),
        },
        _ => Answer::Failed(Failed {
            retry_after_ms,
            ..Failed::delivered("HttpError", format!("{status}: {}", message()))
        }),
    }
}
