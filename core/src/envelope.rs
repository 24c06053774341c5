//! Events: CloudEvents 1.0 over NATS, read from binary and structured messages and from captured plain JSON,
//! written in binary mode.
//!
//! Every event takes one way in, parked ones too: parse → decrypt → upcast → validate. The two middle steps pass
//! through until they are built.

mod decode;
mod encode;

pub use decode::{DecodeError, Decoder, RawMessage, subject_parts};
pub use encode::Encoded;
pub(crate) use encode::percent_encode;

use crate::expression::{Bound, Fields};
use crate::json::{Object, Value};
use crate::planted::{Bug, planted};
use crate::timestamp::Timestamp;
use std::collections::BTreeMap;

/// Longest value of a CloudEvents attribute that is read, in bytes.
pub const ATTRIBUTE_BYTES_MAX: usize = 4096;
/// Most extension attributes an event may have.
pub const EXTENSIONS_MAX: usize = 64;

/// An event as expressions and machines see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// CloudEvents `id`; with `source` it names the event.
    pub id: String,
    /// CloudEvents `source`.
    pub source: String,
    /// CloudEvents `type`. Versions never go into it: see `dataversion` among the extensions.
    pub event_type: String,
    /// CloudEvents `subject`: the entity the event is about. Public: never personal data.
    pub subject: Option<String>,
    /// CloudEvents `time`, RFC 3339 as it was written. Absent = the stored time.
    pub time: Option<String>,
    /// All other attributes: `dataversion`, `correlationid`, `causationid`, `traceparent`, and those of users.
    pub extensions: BTreeMap<String, String>,
    /// The payload.
    pub data: Value,
    /// When the stream stored it.
    pub stored_at: Timestamp,
}

impl Event {
    /// The entity token's source: the subject, or the empty text.
    pub fn entity(&self) -> &str {
        self.subject.as_deref().unwrap_or_default()
    }

    /// An extension attribute.
    pub fn extension(&self, name: &str) -> Option<&str> {
        self.extensions.get(name).map(String::as_str)
    }

    /// `time` as expressions see it: as written, else the stored time.
    pub fn time_text(&self) -> String {
        self.time
            .clone()
            .unwrap_or_else(|| self.stored_at.to_string())
    }

    /// The JSON form of CloudEvents (structured mode), as the log and `tidemill event get` hold it.
    pub fn to_value(&self) -> Value {
        let mut object = Object::default();
        let mut put = |name: &str, text: &str| {
            object.insert(name, Value::from(text));
        };
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
        if self.data != Value::Null {
            object.insert("data", self.data.clone());
        }
        Value::Object(object)
    }
}

/// `event` and `input` in expressions. `time` is the stored time where the event has none.
impl Fields for Event {
    fn get(&self, name: &str) -> Option<Bound<'_>> {
        match name {
            "id" => Some(Bound::Str(&self.id)),
            "source" => Some(Bound::Str(&self.source)),
            "type" => Some(Bound::Str(&self.event_type)),
            "subject" => self.subject.as_deref().map(Bound::Str),
            "time" => Some(match &self.time {
                Some(time) => Bound::Str(time),
                None if planted(Bug::TimeMissing) => return None,
                None => Bound::Owned(Value::from(self.stored_at.to_string().as_str())),
            }),
            "data" => Some(Bound::Value(&self.data)),
            // Absent means 1, so that expressions need no case for it.
            "dataversion" => Some(Bound::Str(self.extension("dataversion").unwrap_or("1"))),
            extension => self.extension(extension).map(Bound::Str),
        }
    }

    fn names(&self) -> Vec<&str> {
        let mut names = vec!["data", "dataversion", "id", "source", "time", "type"];
        names.extend(self.subject.as_ref().map(|_| "subject"));
        names.extend(
            self.extensions
                .keys()
                .map(String::as_str)
                .filter(|name| *name != "dataversion"),
        );
        names
    }
}

/// Attributes that have a meaning here and therefore are no extensions.
fn is_core_attribute(name: &str) -> bool {
    matches!(
        name,
        "specversion"
            | "id"
            | "source"
            | "type"
            | "subject"
            | "time"
            | "datacontenttype"
            | "data"
            | "data_base64"
    )
}
