//! JSON values as data passes through Tidemill (ADR 0001).
//!
//! Promises:
//! - a number that is only copied keeps its digits: `1.10` stays `1.10`, an integer of 20 digits and `-0` stay as they were;
//! - a number without `.` and `e` that fits an `i64` is an integer, every other number is a double; NaN and infinity never occur;
//! - objects are kept in the order of their keys' bytes, so equal values are written as equal bytes, on every machine;
//! - no input, however made, panics or exhausts the stack.
//!
//! Equality of values is equality of what they are written as: `1.10` and `1.1` differ here. Expressions compare numbers by value.

mod convert;
mod number;
mod object;
mod parse;
mod write;

pub use number::Number;
pub(crate) use number::Numeric;
pub use object::Object;
pub use parse::{ParseError, Reason};

/// Deepest nesting of arrays and objects that is read or produced. Deeper documents are refused: recursion must stay bounded.
pub const DEPTH_MAX: usize = 64;

/// One JSON value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Value {
    /// `null`
    #[default]
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, with its digits as they were written.
    Number(Number),
    /// A string.
    String(Box<str>),
    /// An array.
    Array(Vec<Value>),
    /// An object, sorted by key.
    Object(Object),
}

impl Value {
    /// Reads exactly one document as RFC 8259 defines it: UTF-8, no comments, no trailing comma, nothing behind it.
    /// A key that occurs twice keeps its last value. Numbers beyond the range of a double are refused.
    ///
    /// # Errors
    /// What is wrong and at which byte; never the content, which may be personal.
    pub fn parse(source: &[u8]) -> Result<Value, ParseError> {
        parse::parse(source, DEPTH_MAX)
    }

    /// Like [`Value::parse`] for what a person has just written: a key that occurs twice is a mistake, and refused.
    ///
    /// # Errors
    /// As [`Value::parse`], and [`Reason::Doubled`].
    pub fn parse_unique(source: &[u8]) -> Result<Value, ParseError> {
        parse::parse_keys(source, DEPTH_MAX, true)
    }

    /// Like [`Value::parse`] for a document of our own that holds one of somebody else's at most `levels` deep within:
    /// whatever was read once can be read again from where it is kept.
    pub(crate) fn parse_envelope(source: &[u8], levels: usize) -> Result<Value, ParseError> {
        parse::parse(source, DEPTH_MAX + levels)
    }

    /// Compact JSON with sorted keys: equal values give equal bytes.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(128);
        self.write_json(&mut out);
        out
    }

    /// Appends what [`Value::to_json`] returns.
    pub fn write_json(&self, out: &mut String) {
        write::value(self, out);
    }

    /// `null`, `bool`, `int`, `double`, `string`, `list` or `map`: the words that expressions use.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(number) if number.is_int() => "int",
            Value::Number(_) => "double",
            Value::String(_) => "string",
            Value::Array(_) => "list",
            Value::Object(_) => "map",
        }
    }

    /// Whether it is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The boolean, if it is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The number, if it is one.
    #[must_use]
    pub fn as_number(&self) -> Option<&Number> {
        match self {
            Value::Number(number) => Some(number),
            _ => None,
        }
    }

    /// The integer, if it is one. A double is never an integer, not even `1.0`.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        self.as_number().and_then(Number::as_i64)
    }

    /// The string, if it is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The elements, if it is an array.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Value::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The object, if it is one.
    #[must_use]
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The member of an object; `None` also for what is no object.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.as_object().and_then(|object| object.get(key))
    }

    /// Whether arrays and objects are nested at most `levels` deep, so that what is written can be read again.
    #[must_use]
    pub fn is_within_depth(&self, levels: usize) -> bool {
        match self {
            Value::Array(items) => {
                levels > 0 && items.iter().all(|item| item.is_within_depth(levels - 1))
            }
            Value::Object(object) => {
                levels > 0
                    && object
                        .values()
                        .all(|value| value.is_within_depth(levels - 1))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
        }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.to_json())
    }
}
