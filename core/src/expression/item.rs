//! Values while an expression is evaluated: borrowed from the bindings and the tree as long as possible.

use std::borrow::Cow;
use std::rc::Rc;

use super::bindings::{Bound, Fields};
use crate::json::{Number, Numeric, Object, Value};

/// A value, cheap to clone.
#[derive(Clone)]
pub(super) enum Item<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// Computed; always finite.
    Double(f64),
    /// Only copied so far, with its digits.
    Number(Cow<'a, Number>),
    String(Text<'a>),
    List(List<'a>),
    Map(Map<'a>),
}

#[derive(Clone)]
pub(super) enum Text<'a> {
    Borrowed(&'a str),
    Built(Rc<str>),
}

#[derive(Clone)]
pub(super) enum List<'a> {
    Json(&'a [Value]),
    Built(Rc<Vec<Item<'a>>>),
}

#[derive(Clone)]
pub(super) enum Map<'a> {
    Json(&'a Object),
    Parts(&'a dyn Fields),
    /// Sorted by key, each once.
    Built(Rc<Vec<(Text<'a>, Item<'a>)>>),
}

impl<'a> Item<'a> {
    pub(super) fn json(value: &'a Value) -> Item<'a> {
        match value {
            Value::Null => Item::Null,
            Value::Bool(value) => Item::Bool(*value),
            Value::Number(number) => Item::Number(Cow::Borrowed(number)),
            Value::String(text) => Item::String(Text::Borrowed(text)),
            Value::Array(items) => Item::List(List::Json(items)),
            Value::Object(object) => Item::Map(Map::Json(object)),
        }
    }

    /// `None` for what isn't there.
    pub(super) fn bound(bound: &'a Bound<'a>) -> Option<Item<'a>> {
        match bound {
            Bound::Owned(value) => Some(Item::json(value)),
            Bound::Value(value) => Some(Item::json(value)),
            Bound::Str(text) => Some(Item::String(Text::Borrowed(text))),
            Bound::Int(value) => Some(Item::Int(*value)),
            Bound::Bool(value) => Some(Item::Bool(*value)),
            Bound::Object(fields) => Some(Item::Map(Map::Parts(*fields))),
            Bound::Missing => None,
        }
    }

    fn part(bound: Bound<'a>) -> Option<Item<'a>> {
        match bound {
            Bound::Owned(value) => Some(Item::owned(value)),
            Bound::Value(value) => Some(Item::json(value)),
            Bound::Str(text) => Some(Item::String(Text::Borrowed(text))),
            Bound::Int(value) => Some(Item::Int(value)),
            Bound::Bool(value) => Some(Item::Bool(value)),
            Bound::Object(fields) => Some(Item::Map(Map::Parts(fields))),
            Bound::Missing => None,
        }
    }

    fn owned(value: Value) -> Item<'a> {
        match value {
            Value::Null => Item::Null,
            Value::Bool(value) => Item::Bool(value),
            Value::Number(number) => Item::Number(Cow::Owned(number)),
            Value::String(text) => Item::String(Text::Built(text.into())),
            Value::Array(items) => Item::List(List::Built(Rc::new(
                items.into_iter().map(Item::owned).collect(),
            ))),
            Value::Object(object) => Item::Map(Map::Built(Rc::new(
                object
                    .into_iter()
                    .map(|(key, value)| (Text::Built(key.into()), Item::owned(value)))
                    .collect(),
            ))),
        }
    }

    pub(super) fn built(text: impl Into<Rc<str>>) -> Item<'a> {
        Item::String(Text::Built(text.into()))
    }

    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Item::Null => "null",
            Item::Bool(_) => "bool",
            Item::Int(_) => "int",
            Item::Double(_) => "double",
            Item::Number(number) if number.is_int() => "int",
            Item::Number(_) => "double",
            Item::String(_) => "string",
            Item::List(_) => "list",
            Item::Map(_) => "map",
        }
    }

    pub(super) fn numeric(&self) -> Option<Numeric> {
        match self {
            Item::Int(value) => Some(Numeric::Int(*value)),
            Item::Double(value) => Some(Numeric::Double(*value)),
            Item::Number(number) => Some(number.numeric()),
            _ => None,
        }
    }

    pub(super) fn as_bool(&self) -> Option<bool> {
        match self {
            Item::Bool(value) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Item::String(text) => Some(text.as_str()),
            _ => None,
        }
    }

    pub(super) fn into_str(self) -> Option<Cow<'a, str>> {
        match self {
            Item::String(Text::Borrowed(text)) => Some(Cow::Borrowed(text)),
            Item::String(Text::Built(text)) => Some(Cow::Owned(text.as_ref().to_owned())),
            _ => None,
        }
    }
}

impl<'a> Text<'a> {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Built(text) => text,
        }
    }
}

impl<'a> List<'a> {
    pub(super) fn len(&self) -> usize {
        match self {
            List::Json(items) => items.len(),
            List::Built(items) => items.len(),
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<Item<'a>> {
        match self {
            List::Json(items) => items.get(index).map(Item::json),
            List::Built(items) => items.get(index).cloned(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Item<'a>> {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

impl<'a> Map<'a> {
    pub(super) fn get(&self, key: &str) -> Option<Item<'a>> {
        match self {
            Map::Json(object) => object.get(key).map(Item::json),
            Map::Parts(fields) => fields.get(key).and_then(Item::part),
            Map::Built(entries) => {
                let found = entries.binary_search_by(|(candidate, _)| candidate.as_str().cmp(key));
                found
                    .ok()
                    .and_then(|index| entries.get(index))
                    .map(|(_, value)| value.clone())
            }
        }
    }

    /// The keys in order.
    pub(super) fn keys(&self) -> Vec<Text<'a>> {
        match self {
            Map::Json(object) => object.keys().map(Text::Borrowed).collect(),
            Map::Parts(fields) => {
                let mut names = fields.names();
                names.sort_unstable();
                names.dedup();
                names.into_iter().map(Text::Borrowed).collect()
            }
            Map::Built(entries) => entries.iter().map(|(key, _)| key.clone()).collect(),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Map::Json(object) => object.len(),
            Map::Parts(_) => self.keys().len(),
            Map::Built(entries) => entries.len(),
        }
    }
}
