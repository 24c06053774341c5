//! From a NATS message to an event.

use super::{ATTRIBUTE_BYTES_MAX, EXTENSIONS_MAX, Event, is_core_attribute};
use crate::contract::{Capture, CaptureFormat, StreamBinding};
use crate::expression::{
    Bindings, Bound, CompileError, EvaluationError, Expression, Fields, Scope,
};
use crate::json::{ParseError, Value};
use crate::names::decode_token;
use crate::timestamp::Timestamp;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A stored message as it was read.
#[derive(Clone, Copy, Debug)]
pub struct RawMessage<'a> {
    /// NATS subject.
    pub subject: &'a str,
    /// Headers, names in any case.
    pub headers: &'a [(&'a str, &'a str)],
    /// Payload.
    pub payload: &'a [u8],
    /// Its sequence in the stream.
    pub sequence: u64,
    /// When the stream stored it.
    pub stored_at: Timestamp,
}

/// Headers of W3C Trace Context, and the names of the CloudEvents extension for it.
const TRACE_CONTEXT: [&str; 2] = ["traceparent", "tracestate"];

/// Why a message is no event that can be used. It is parked with this as its reason.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// A required attribute is missing or empty.
    #[error(
        "no CloudEvents attribute `{0}`: not an event (plain JSON needs a `capture` with `format: Json`)"
    )]
    Missing(&'static str),
    /// An attribute can't be used.
    #[error("CloudEvents attribute `{name}` {reason}")]
    Attribute {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// More extension attributes than are read.
    #[error("more than {EXTENSIONS_MAX} extension attributes")]
    TooManyExtensions,
    /// `specversion` isn't 1.0.
    #[error("CloudEvents version `{0}` is not 1.0")]
    Version(String),
    /// The payload isn't JSON.
    #[error("the payload is not JSON")]
    Payload(#[source] ParseError),
    /// The payload says it is something else than JSON.
    #[error("content type `{0}` is not JSON")]
    ContentType(String),
    /// A structured event isn't a JSON object.
    #[error("a structured event is a JSON object")]
    NotAnObject,
    /// No capture of the stream is for this subject.
    #[error("no `capture` of the stream is for subject `{0}`")]
    NotCaptured(String),
    /// An expression of a capture failed.
    #[error("capture {field}")]
    Capture {
        /// `type`, `entity` or `time`.
        field: &'static str,
        /// Why.
        #[source]
        error: EvaluationError,
    },
}

/// Longest [`DecodeError::in_full`], in characters: names and texts in it are somebody's data.
const IN_FULL_CHARACTERS: usize = 1_000;

impl DecodeError {
    /// The error with everything that caused it, in one line; at most 1,000 characters.
    #[must_use]
    pub fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        if let Some((end, _)) = text.char_indices().nth(IN_FULL_CHARACTERS) {
            text.truncate(end);
            text.push('…');
        }
        text
    }
}

/// Reads the messages of one stream.
#[derive(Clone, Debug)]
pub struct Decoder {
    prefix: String,
    captures: Vec<CompiledCapture>,
}

#[derive(Clone, Debug)]
struct CompiledCapture {
    subjects: Vec<String>,
    json: Option<JsonCapture>,
}

#[derive(Clone, Debug)]
struct JsonCapture {
    event_type: Expression,
    entity: Option<Expression>,
    time: Option<Expression>,
}

impl CompiledCapture {
    fn compile(capture: &Capture) -> Result<Self, CompileError> {
        let scope = Scope::new(&["message"]);
        let optional = |source: &Option<String>| {
            source
                .as_deref()
                .map(|source| Expression::compile(source, &scope))
                .transpose()
        };
        let json = match capture.format {
            CaptureFormat::CloudEvents => None,
            CaptureFormat::Json => Some(JsonCapture {
                event_type: Expression::compile(
                    capture.event_type.as_deref().unwrap_or_default(),
                    &scope,
                )?,
                entity: optional(&capture.entity)?,
                time: optional(&capture.time)?,
            }),
        };
        Ok(CompiledCapture {
            subjects: capture.subjects.clone(),
            json,
        })
    }
}

impl Decoder {
    /// A decoder for a stream.
    ///
    /// # Errors
    /// [`CompileError`] of an expression of `capture`.
    pub fn new(binding: &StreamBinding) -> Result<Self, CompileError> {
        let captures = binding
            .capture
            .iter()
            .map(CompiledCapture::compile)
            .collect::<Result<_, _>>()?;
        Ok(Decoder {
            prefix: format!("{}.", binding.prefix),
            captures,
        })
    }

    /// The event in a message. A trace context that stands beside the event, in the message's own headers, becomes its extension.
    ///
    /// # Errors
    /// [`DecodeError`]; the message is then parked, never dropped.
    pub fn decode(&self, message: &RawMessage<'_>) -> Result<Event, DecodeError> {
        let mut event = self.decode_alone(message)?;
        if !event.extensions.contains_key(TRACE_CONTEXT[0]) {
            for name in TRACE_CONTEXT {
                if event.extensions.len() < EXTENSIONS_MAX
                    && let Some(value) = header(message, name)
                    && value.len() <= ATTRIBUTE_BYTES_MAX
                {
                    event.extensions.insert(name.to_owned(), value.to_owned());
                }
            }
        }
        Ok(event)
    }

    fn decode_alone(&self, message: &RawMessage<'_>) -> Result<Event, DecodeError> {
        if message.subject.starts_with(&self.prefix) {
            return cloud_event(message);
        }
        let matching = |capture: &&CompiledCapture| {
            capture
                .subjects
                .iter()
                .any(|pattern| subject_matches(pattern, message.subject))
        };
        match self.captures.iter().find(matching) {
            Some(CompiledCapture {
                json: Some(json), ..
            }) => plain_json(message, json),
            Some(CompiledCapture { json: None, .. }) => cloud_event(message),
            None => Err(DecodeError::NotCaptured(message.subject.to_owned())),
        }
    }
}

/// NATS wildcard matching: `*` is one token, `>` at the end one or more.
fn subject_matches(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for part in pattern.split('.') {
        match (part, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (literal, Some(token)) if literal == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

fn header<'a>(message: &RawMessage<'a>, name: &str) -> Option<&'a str> {
    message
        .headers
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| *value)
}

fn cloud_event(message: &RawMessage<'_>) -> Result<Event, DecodeError> {
    let structured = header(message, "content-type").is_some_and(|value| {
        value
            .trim_start()
            .to_ascii_lowercase()
            .starts_with("application/cloudevents")
    });
    if structured {
        structured_event(message)
    } else {
        binary_event(message)
    }
}

fn binary_event(message: &RawMessage<'_>) -> Result<Event, DecodeError> {
    let mut attributes = Attributes::default();
    let mut content_type = header(message, "content-type");
    for (name, value) in message.headers {
        let Some(attribute) = name
            .get(..3)
            .filter(|start| start.eq_ignore_ascii_case("ce-"))
            .and_then(|_| name.get(3..))
        else {
            continue;
        };
        if attribute.eq_ignore_ascii_case("datacontenttype") {
            content_type = Some(value);
        } else {
            attributes.add(&attribute.to_ascii_lowercase(), percent_decode(value)?)?;
        }
    }
    let data = json_payload(message.payload, content_type)?;
    attributes.into_event(data, message.stored_at)
}

fn structured_event(message: &RawMessage<'_>) -> Result<Event, DecodeError> {
    let document = Value::parse(message.payload).map_err(DecodeError::Payload)?;
    Event::from_value(document, message.stored_at)
}

impl Event {
    /// Reads what [`Event::to_value`] writes, and any other structured CloudEvent.
    ///
    /// # Errors
    /// [`DecodeError`]
    pub fn from_value(document: Value, stored_at: Timestamp) -> Result<Event, DecodeError> {
        let Value::Object(object) = document else {
            return Err(DecodeError::NotAnObject);
        };
        let mut attributes = Attributes::default();
        let mut data = Value::Null;
        for (name, value) in object {
            match (&*name, value) {
                ("data", value) => data = value,
                ("datacontenttype", Value::String(text)) if !is_json(&text) => {
                    return Err(DecodeError::ContentType(text.chars().take(100).collect()));
                }
                ("datacontenttype", _) | (_, Value::Null) => {}
                ("data_base64", _) => {
                    return Err(attribute(
                        "data_base64",
                        "is not read in this version: send JSON in `data`",
                    ));
                }
                (name, Value::String(text)) => attributes.add(name, Cow::Borrowed(&text))?,
                (name, value @ (Value::Bool(_) | Value::Number(_))) => {
                    attributes.add(name, Cow::Owned(value.to_json()))?
                }
                (name, Value::Array(_) | Value::Object(_)) => {
                    return Err(attribute(name, "is neither text, number nor boolean"));
                }
            }
        }
        attributes.into_event(data, stored_at)
    }
}

#[derive(Default)]
struct Attributes {
    specversion: Option<String>,
    id: Option<String>,
    source: Option<String>,
    event_type: Option<String>,
    subject: Option<String>,
    time: Option<String>,
    extensions: BTreeMap<String, String>,
}

impl Attributes {
    fn add(&mut self, name: &str, value: Cow<'_, str>) -> Result<(), DecodeError> {
        if value.len() > ATTRIBUTE_BYTES_MAX {
            return Err(attribute(name, "is longer than 4096 bytes"));
        }
        let value = value.into_owned();
        match name {
            "specversion" => self.specversion = Some(value),
            "id" => self.id = Some(value),
            "source" => self.source = Some(value),
            "type" => self.event_type = Some(value),
            "subject" => self.subject = Some(value),
            "time" if Timestamp::parse(&value).is_none() => {
                return Err(attribute("time", "is not a time of RFC 3339"));
            }
            "time" => self.time = Some(value),
            // An extension can't hide an attribute that expressions read by name.
            _ if is_core_attribute(name) => {
                return Err(attribute(name, "is not an attribute of its own"));
            }
            _ if name.is_empty()
                || !name
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) =>
            {
                return Err(attribute(
                    name,
                    "has a name with other characters than a-z and 0-9",
                ));
            }
            _ if self.extensions.len() >= EXTENSIONS_MAX => {
                return Err(DecodeError::TooManyExtensions);
            }
            _ => {
                self.extensions.insert(name.to_owned(), value);
            }
        }
        Ok(())
    }

    fn into_event(self, data: Value, stored_at: Timestamp) -> Result<Event, DecodeError> {
        let required = |name: &'static str, value: Option<String>| {
            value
                .filter(|text| !text.is_empty())
                .ok_or(DecodeError::Missing(name))
        };
        let event = Event {
            id: required("id", self.id)?,
            source: required("source", self.source)?,
            event_type: required("type", self.event_type)?,
            subject: self.subject,
            time: self.time,
            extensions: self.extensions,
            data,
            stored_at,
        };
        match required("specversion", self.specversion)? {
            version if version == "1.0" => Ok(event),
            version => Err(DecodeError::Version(version.chars().take(20).collect())),
        }
    }
}

fn attribute(name: &str, reason: &'static str) -> DecodeError {
    DecodeError::Attribute {
        name: name.chars().take(40).collect(),
        reason,
    }
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    essence.is_empty()
        || essence == "application/json"
        || essence == "text/json"
        || essence.ends_with("+json")
}

fn json_payload(payload: &[u8], content_type: Option<&str>) -> Result<Value, DecodeError> {
    if payload.is_empty() {
        return Ok(Value::Null);
    }
    match content_type {
        Some(other) if !is_json(other) => {
            Err(DecodeError::ContentType(other.chars().take(100).collect()))
        }
        _ => Value::parse(payload).map_err(DecodeError::Payload),
    }
}

/// Percent-decoding as the HTTP binding of CloudEvents asks of receivers.
fn percent_decode(text: &str) -> Result<Cow<'_, str>, DecodeError> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = (first == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|digits| {
                let digits = std::str::from_utf8(digits)
                    .ok()
                    .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
                u8::from_str_radix(digits, 16).ok()
            });
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes)
        .map(Cow::Owned)
        .map_err(|_| attribute("ce-*", "is not UTF-8 after percent-decoding"))
}

fn plain_json(message: &RawMessage<'_>, capture: &JsonCapture) -> Result<Event, DecodeError> {
    let data = Value::parse(message.payload).map_err(DecodeError::Payload)?;
    let source = Captured {
        message,
        data: &data,
    };
    let slots = [Bound::Object(&source)];
    let bindings = Bindings::new(&slots);
    let text = |field: &'static str, expression: &Expression| -> Result<String, DecodeError> {
        match expression
            .evaluate(&bindings)
            .map_err(|error| DecodeError::Capture { field, error })?
        {
            Value::String(text) => Ok(text.to_string()),
            value @ (Value::Number(_) | Value::Bool(_)) => Ok(value.to_json()),
            _ => Err(attribute(
                field,
                "of the capture gives neither text nor a number",
            )),
        }
    };
    let mut attributes = Attributes::default();
    attributes.add("specversion", Cow::Borrowed("1.0"))?;
    attributes.add("source", Cow::Owned(format!("/nats/{}", message.subject)))?;
    attributes.add("type", Cow::Owned(text("type", &capture.event_type)?))?;
    if let Some(entity) = &capture.entity {
        attributes.add("subject", Cow::Owned(text("entity", entity)?))?;
    }
    if let Some(time) = &capture.time {
        attributes.add("time", Cow::Owned(text("time", time)?))?;
    }
    // Such a message has no id of its own unless its publisher gave one. The sequence keeps two of one stream apart, the time those
    // of a stream that was made anew.
    let id = header(message, "nats-msg-id").map_or_else(
        || format!("{}-{}", message.sequence, message.stored_at.millis()),
        str::to_owned,
    );
    attributes.add("id", Cow::Owned(id))?;
    attributes.into_event(data, message.stored_at)
}

/// `message` in the expressions of a capture.
struct Captured<'a> {
    message: &'a RawMessage<'a>,
    data: &'a Value,
}

impl Fields for Captured<'_> {
    fn get(&self, name: &str) -> Option<Bound<'_>> {
        match name {
            "subject" => Some(Bound::Str(self.message.subject)),
            "data" => Some(Bound::Value(self.data)),
            "headers" => Some(Bound::Object(self.message)),
            _ => None,
        }
    }

    fn names(&self) -> Vec<&str> {
        vec!["data", "headers", "subject"]
    }
}

impl Fields for RawMessage<'_> {
    fn get(&self, name: &str) -> Option<Bound<'_>> {
        header(self, name).map(Bound::Str)
    }

    fn names(&self) -> Vec<&str> {
        self.headers.iter().map(|(name, _)| *name).collect()
    }
}

/// The entity and the type that a subject of the stream's own form names: `<prefix>.<entity>.<type>`.
pub fn subject_parts(prefix: &str, subject: &str) -> Option<(String, String)> {
    let (entity, event_type) = subject
        .strip_prefix(prefix)?
        .strip_prefix('.')?
        .split_once('.')?;
    Some((decode_token(entity).ok()?, decode_token(event_type).ok()?))
}
