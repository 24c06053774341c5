//! Values with their places.

use super::scalar::Reading;
use serde_json::Number;

/// A place in a file: line and column, both counted from 1, columns in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Line.
    pub(crate) line: usize,
    /// Column.
    pub(crate) column: usize,
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    /// Where it begins; of what came by an alias, where the alias stands.
    pub(crate) place: Place,
    /// The value.
    pub(crate) value: Value,
}

/// A value as JSON has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A number, as kubectl hands it on.
    Number(Number),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file.
    Map(Vec<Entry>),
}

/// An entry of a map.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// Its key.
    pub(crate) key: String,
    /// Where the key stands.
    pub(crate) place: Place,
    /// Its value.
    pub(crate) value: Node,
}

impl Value {
    /// The value that kubectl makes of a scalar; nothing for what JSON has not (infinities, not a number).
    pub(crate) fn from_reading(reading: &Reading, text: &str) -> Option<Value> {
        Some(match reading {
            Reading::Null => Value::Null,
            Reading::Bool(value) => Value::Bool(*value),
            Reading::Int(value) => Value::Number(match i64::try_from(*value) {
                Ok(value) => Number::from(value),
                Err(_) => Number::from(u64::try_from(*value).ok()?),
            }),
            Reading::Float(value) => Value::Number(as_go_writes(*value)?),
            Reading::Special | Reading::Text => Value::Text(text.to_owned()),
        })
    }

    /// The value without places.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Number(number) => number.clone().into(),
            Value::Text(text) => text.clone().into(),
            Value::List(items) => items.iter().map(|item| item.value.to_json()).collect(),
            Value::Map(entries) => {
                let entries = entries
                    .iter()
                    .map(|entry| (entry.key.clone(), entry.value.value.to_json()));
                serde_json::Value::Object(entries.collect())
            }
        }
    }
}

/// kubectl writes a double without fraction as a whole number, so `1.0` reaches Kubernetes as `1`.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the bound is looked at before"
)]
fn as_go_writes(value: f64) -> Option<Number> {
    // Beyond 2^63 the API server has a double again.
    if value.fract() == 0.0 && value.abs() < 9.2e18 {
        Some(Number::from(value as i64))
    } else {
        Number::from_f64(value)
    }
}

/// One part of a field path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// An entry of a map.
    Key(&'a str),
    /// An item of a list, counted from 0.
    Item(usize),
}

impl Node {
    /// The place of a field, or of the innermost part of its path that is there. The place of an entry of a map is that of
    /// its key.
    pub(crate) fn place_of<'a>(&self, path: impl IntoIterator<Item = Step<'a>>) -> Place {
        let (mut node, mut place) = (self, self.place);
        for step in path {
            match (&node.value, step) {
                (Value::Map(entries), Step::Key(key)) => {
                    let Some(entry) = entries.iter().rev().find(|entry| entry.key == key) else {
                        break;
                    };
                    (place, node) = (entry.place, &entry.value);
                }
                (Value::List(items), Step::Item(index)) => {
                    let Some(item) = items.get(index) else { break };
                    (place, node) = (item.place, item);
                }
                _ => break,
            }
        }
        place
    }

    /// The entry of a map.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries
                .iter()
                .rev()
                .find(|entry| entry.key == key)
                .map(|entry| &entry.value),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}
