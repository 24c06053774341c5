//! Texts with a form: each is a string in YAML, and its schema carries the rule for the form with a message a person can act on.
//!
//! They keep what the author wrote (server-side apply compares texts, so `60m` must not come back as `1h`); `compile` turns
//! them into values. Rules are CEL and not `pattern`, because the API server's message for a pattern is the bare expression.

use std::borrow::Cow;

use kube::core::Rule;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The form of a duration. Six digits a part and four parts at most keep every value inside what a Go duration holds.
const DURATION_FORM: &str = "^([0-9]{1,6}(ms|s|m|h)){1,4}$";

/// Longest expression, in characters.
const EXPRESSION_CHARACTERS_MAX: u32 = 4096;

/// The form of an amount of bytes given as text.
const BYTES_FORM: &str = "^[1-9][0-9]{0,14}(k|M|G|T|Ki|Mi|Gi|Ti)?$";

macro_rules! text {
    ($(#[$meta:meta])* $name:ident, max $max:expr, $rules:expr) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The text as it was written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let rules: &[(String, &str)] = &$rules;
                let rules: Vec<Value> = rules.iter().map(|(rule, message)| json!({"rule": rule, "message": message})).collect();
                json_schema!({"type": "string", "maxLength": $max, "x-kubernetes-validations": rules})
            }
        }
    };
}

text! {
    /// A CEL expression.
    Expression, max EXPRESSION_CHARACTERS_MAX, [(
        "self.trim().size() > 0".into(),
        "the expression is empty: put quotes around it, YAML takes a leading `!` for a tag and ` #` for a comment",
    )]
}

text! {
    /// A length of time, as Go and Kubernetes write it: `100ms`, `30s`, `1h30m`.
    Duration, max 28, [(
        format!("self.matches('{DURATION_FORM}')"),
        "not a duration: write whole numbers with the units ms, s, m or h, such as 100ms, 30s or 1h30m",
    )]
}

text! {
    /// A NATS subject that is sent to: literal, no wildcard.
    Subject, max 255, [(
        r"self.matches('^[^\\s.*>$_][^\\s.*>]*([.][^\\s.*>]+)*$')".into(),
        "not a subject one can send to: non-empty tokens joined by dots, no spaces, no wildcards, and not beginning with `_` or `$`",
    )]
}

text! {
    /// A NATS subject that is read: it may hold wildcards, but its first token is literal.
    SubjectFilter, max 255, [
        (
            "!self.matches('^[*>]')".into(),
            "a subject must begin with a literal token: `>` or `*` in front would take the subjects of the whole account",
        ),
        (
            "!self.matches('^[_$]')".into(),
            "subjects that begin with `_` or `$` belong to NATS and to Tidemill itself",
        ),
        (
            r"self.matches('^[^\\s.]+([.][^\\s.]+)*$') && !self.matches('[^.][*>]|[*>][^.]|>[.]')".into(),
            "not a subject: non-empty tokens joined by dots, no spaces; `*` stands for one whole token and `>`, only at the end, for one or more",
        ),
    ]
}

text! {
    /// What every subject of a stream begins with.
    Prefix, max 128, [
        (
            "!self.matches('^[_$]')".into(),
            "a prefix that begins with `_` or `$` is refused: such subjects belong to NATS and to Tidemill itself",
        ),
        (
            "self.matches('^[$]?[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*$')".into(),
            "not a prefix: tokens of letters, digits, `-` and `_`, joined by dots, no wildcards, such as shop.orders",
        ),
    ]
}

text! {
    /// The name of a resource of ours.
    ResourceName, max 253, [(
        "self.matches('^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$')".into(),
        "not a resource name: at most 40 lower-case letters, digits and `-`, beginning and ending with a letter or digit",
    )]
}

text! {
    /// A Kubernetes namespace.
    NamespaceName, max 63, [(
        "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')".into(),
        "not a namespace: lower-case letters, digits and `-`, beginning and ending with a letter or digit",
    )]
}

text! {
    /// A JetStream name: of a stream, a bucket, a cluster.
    JetStreamName, max 128, [(
        "self.matches('^[A-Za-z0-9_-]+$')".into(),
        "not a JetStream name: letters, digits, `-` and `_` only",
    )]
}

text! {
    /// The name of a step; it is an identifier in expressions.
    StepName, max 31, [(
        "self.matches('^[a-z][A-Za-z0-9]{0,30}$')".into(),
        "not a step name: a lower-case letter, then letters and digits, at most 31; a `-` would be a subtraction in expressions",
    )]
}

text! {
    /// The CloudEvents type of an event.
    EventType, max 200, [(
        r"self.matches('^[^\\s]+$')".into(),
        "not an event type: it must not be empty or hold spaces",
    )]
}

text! {
    /// The name of a header.
    HeaderName, max 128, [
        (
            "self.matches('^[A-Za-z0-9!#%&*+.^_|~-]+$')".into(),
            "not a header name: letters, digits and `-`, no spaces and no colon",
        ),
        (
            "!self.lowerAscii().startsWith('nats-') && !self.lowerAscii().startsWith('tidemill-') && !(self.lowerAscii() in ['idempotency-key', 'traceparent', 'tracestate'])".into(),
            "this header is written by NATS or by Tidemill itself: `Nats-*`, `Tidemill-*`, `Idempotency-Key`, `traceparent` and `tracestate` can't be set",
        ),
        (
            format!("!self.lowerAscii().startsWith('proxy-') && !(self.lowerAscii() in {CONNECTION_HEADERS:?})"),
            CONNECTION_HEADER,
        ),
    ]
}

/// Headers of the connection and of how a message goes over it, in lower case; besides those that begin with `proxy-`. The client
/// writes what is needed of them, and with others beside them a server may see another request than was sent.
const CONNECTION_HEADERS: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Why such a header is refused.
pub(crate) const CONNECTION_HEADER: &str = "this header belongs to the connection, which Tidemill makes: `Host` comes from the URL and `Content-Length` from the body; remove it, or give what the participant needs a name of its own, such as X-Host";

impl HeaderName {
    /// Whether it is a header of the connection, which nobody may set.
    pub(crate) fn is_of_connection(&self) -> bool {
        let name = self.0.to_ascii_lowercase();
        name.starts_with("proxy-") || CONNECTION_HEADERS.contains(&name.as_str())
    }
}

/// Why a text is not the value it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Not of the form of a duration.
    #[error(
        "`{0}` is not a duration: write whole numbers with the units ms, s, m or h, such as 100ms, 30s or 1h30m"
    )]
    Duration(String),
    /// Not of the form of an amount of bytes.
    #[error(
        "`{0}` is not an amount of bytes: write a whole number above 0, with k, M, G, T, Ki, Mi, Gi or Ti, such as 10Gi"
    )]
    Bytes(String),
}

impl Duration {
    /// The value in milliseconds, the finest unit there is.
    ///
    /// # Errors
    /// The text has not the form of a duration.
    pub fn milliseconds(&self) -> Result<u64, TextError> {
        let refuse = || TextError::Duration(self.0.clone());
        let mut rest = self.0.as_str();
        let mut total = 0_u64;
        let mut parts = 0;
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit())
                .ok_or_else(refuse)?;
            let (number, tail) = rest.split_at(digits);
            let end = tail
                .find(|c: char| c.is_ascii_digit())
                .unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(end);
            let scale = match unit {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                _ => return Err(refuse()),
            };
            if number.len() > 6 {
                return Err(refuse());
            }
            total += number.parse::<u64>().map_err(|_| refuse())? * scale;
            parts += 1;
            rest = tail;
        }
        if parts == 0 || parts > 4 {
            Err(refuse())
        } else {
            Ok(total)
        }
    }
}

/// An amount of bytes: a whole number, or a text with a unit such as `10Gi`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ByteSize {
    /// A bare number of bytes.
    Count(i64),
    /// A number with a unit.
    Text(String),
}

impl ByteSize {
    /// The value in bytes.
    ///
    /// # Errors
    /// The text has not the form of an amount, or the number is not above 0.
    pub fn bytes(&self) -> Result<u64, TextError> {
        let text = match self {
            Self::Count(count) => {
                let refuse = || TextError::Bytes(count.to_string());
                return u64::try_from(*count)
                    .ok()
                    .filter(|count| *count > 0)
                    .ok_or_else(refuse);
            }
            Self::Text(text) => text,
        };
        let refuse = || TextError::Bytes(text.clone());
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let scale: u64 = match unit {
            "" => 1,
            "k" => 1_000,
            "M" => 1_000_000,
            "G" => 1_000_000_000,
            "T" => 1_000_000_000_000,
            "Ki" => 1 << 10,
            "Mi" => 1 << 20,
            "Gi" => 1 << 30,
            "Ti" => 1 << 40,
            _ => return Err(refuse()),
        };
        if number.is_empty() || number.len() > 15 || number.starts_with('0') {
            return Err(refuse());
        }
        let number: u64 = number.parse().map_err(|_| refuse())?;
        number
            .checked_mul(scale)
            .filter(|bytes| i64::try_from(*bytes).is_ok())
            .ok_or_else(refuse)
    }
}

impl JsonSchema for ByteSize {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "minimum": 1,
            "maximum": crate::common::POSITION_MAX,
            "maxLength": 18,
            "pattern": BYTES_FORM,
        })
    }
}

/// A JSON value in which a string that begins with `=` is CEL.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Template(pub Value);

impl JsonSchema for Template {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Template".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-preserve-unknown-fields": true,
            "maxProperties": 256,
            "maxItems": 1024,
            "maxLength": 16384,
        })
    }
}

/// Values by name. A map of values without a type would be invisible to the rules of the handler, and nulls in it would be
/// dropped; what is unknown inside an object is kept as it is, nulls included.
pub(crate) fn columns(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 256,
        "x-kubernetes-preserve-unknown-fields": true,
    })
}

/// Leaves the name of each value and nothing else: descriptions of single values have no place in a structural schema, and
/// that of the type would displace the field's.
pub(crate) fn plain_values(schema: &mut Schema) {
    let variants = schema
        .get("oneOf")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let values: Vec<Value> = variants
        .filter_map(|variant| variant.get("const").cloned())
        .collect();
    *schema = json_schema!({"type": "string", "enum": values});
}

/// The rule that a duration lies between two limits, both included.
pub(crate) fn within(least: &str, most: &str) -> Rule {
    let form = format!("!self.matches('{DURATION_FORM}')");
    Rule::new(format!(
        "{form} || (duration(self) >= duration('{least}') && duration(self) <= duration('{most}'))"
    ))
    .message(format!("must be from {least} to {most}").as_str())
}

/// The rule that an optional field keeps the value it was created with, unset included.
pub(crate) fn immutable(field: &str, why: &str) -> Rule {
    Rule::new(format!(
        "has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
    ))
    .message(format!("{field} can't be changed, added or removed after creation: {why}").as_str())
}

/// The rule that an optional field keeps its value, where leaving it out means `default` (a CEL literal).
pub(crate) fn immutable_or(field: &str, default: &str, why: &str) -> Rule {
    let value = |object: &str| format!("(has({object}.{field}) ? {object}.{field} : {default})");
    Rule::new(format!("{} == {}", value("self"), value("oldSelf")))
        .message(format!("{field} can't be changed after creation: {why}").as_str())
}

/// What refuses a null in these fields. The API server drops a null before anybody sees it, so a condition that YAML has
/// eaten would be lost in silence; made nullable it is kept, but CEL can't see it and `enum` can't name it. Every text is
/// shorter than this least length, and to a null it doesn't apply: so only a null is refused.
pub(crate) fn no_null(fields: &[&str]) -> Value {
    let refuse = |field: &&str| {
        let no_text = json!({"minLength": EXPRESSION_CHARACTERS_MAX + 1});
        json!({"not": {"required": [field], "properties": {*field: no_text}}})
    };
    fields.iter().map(refuse).collect()
}

/// The fields that [`no_null`] speaks of in a schema.
pub(crate) fn never_null(schema: &Map<String, Value>) -> Vec<String> {
    let refusals = schema
        .get("allOf")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let fields = refusals.filter_map(|refusal| refusal.pointer("/not/properties")?.as_object());
    fields.flat_map(|fields| fields.keys().cloned()).collect()
}

/// The rule that exactly one of some fields is set.
pub(crate) fn exactly_one(fields: &[&str], message: &str) -> Rule {
    let present: Vec<String> = fields
        .iter()
        .map(|field| format!("has(self.{field})"))
        .collect();
    Rule::new(format!("[{}].exists_one(set, set)", present.join(", "))).message(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_milliseconds() {
        for (text, expected) in [
            ("100ms", Some(100)),
            ("5s", Some(5_000)),
            ("1h30m", Some(5_400_000)),
            ("0s", Some(0)),
            ("720h", Some(2_592_000_000)),
            ("", None),
            ("5", None),
            ("5d", None),
            ("1.5s", None),
            ("-5s", None),
            ("s", None),
            ("9999999s", None),
            ("1s1s1s1s1s", None),
            ("５s", None),
        ] {
            assert_eq!(Duration::from(text).milliseconds().ok(), expected, "{text}");
        }
    }

    #[test]
    fn amounts_of_bytes_are_numbers_or_texts_with_a_unit() {
        for (size, expected) in [
            (ByteSize::Count(1), Some(1)),
            (ByteSize::Count(0), None),
            (ByteSize::Count(-1), None),
            (ByteSize::Text("10Gi".into()), Some(10 << 30)),
            (ByteSize::Text("5k".into()), Some(5_000)),
            (ByteSize::Text("7".into()), Some(7)),
            (ByteSize::Text("0".into()), None),
            (ByteSize::Text("1.5Gi".into()), None),
            (ByteSize::Text("Gi".into()), None),
            (ByteSize::Text("1Ei".into()), None),
            (ByteSize::Text("999999999999999Ti".into()), None),
        ] {
            assert_eq!(size.bytes().ok(), expected, "{size:?}");
        }
    }
}
