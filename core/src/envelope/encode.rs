//! From an event to a NATS message in binary mode.

use super::Event;
use crate::json::Value;
use crate::names::{TokenError, event_subject};

/// A message to publish.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// `<prefix>.<entity>.<type>`.
    pub subject: String,
    /// `Nats-Msg-Id`: `<source> <id>`.
    pub message_id: String,
    /// `ce-*` headers in lower case, percent-encoded as in HTTP.
    pub headers: Vec<(String, String)>,
    /// JSON; empty for no data.
    pub payload: Vec<u8>,
}

impl Event {
    /// The message that holds this event, in a stream with this prefix.
    ///
    /// # Errors
    /// [`TokenError::TooLong`] for an entity or type of more than 200 bytes.
    pub fn encode(&self, prefix: &str) -> Result<Encoded, TokenError> {
        let mut headers = Vec::with_capacity(7 + self.extensions.len());
        let mut put =
            |name: &str, value: &str| headers.push((format!("ce-{name}"), percent_encode(value)));
        put("specversion", "1.0");
        put("id", &self.id);
        put("source", &self.source);
        put("type", &self.event_type);
        if let Some(subject) = &self.subject {
            put("subject", subject);
        }
        if let Some(time) = &self.time {
            put("time", time);
        }
        for (name, value) in &self.extensions {
            put(name, value);
        }
        let mut payload = String::new();
        if self.data != Value::Null {
            put("datacontenttype", "application/json");
            self.data.write_json(&mut payload);
        }
        Ok(Encoded {
            subject: event_subject(prefix, self.entity(), &self.event_type)?,
            message_id: format!(
                "{} {}",
                percent_encode(&self.source),
                percent_encode(&self.id)
            ),
            headers,
            payload: payload.into_bytes(),
        })
    }
}

/// Percent-encoding of the HTTP binding: space, `"`, `%` and everything outside printable ASCII.
pub(crate) fn percent_encode(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (0x21..=0x7e).contains(&byte) && byte != b'"' && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}
