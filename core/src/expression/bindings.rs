//! What the variables of an expression stand for, without building values that nobody may look at.

use crate::json::Value;

/// What a variable or a field stands for during one evaluation.
#[derive(Clone, Default)]
pub enum Bound<'a> {
    /// A JSON value that is there already.
    Value(&'a Value),
    /// A string that is there already.
    Str(&'a str),
    /// An int.
    Int(i64),
    /// A bool.
    Bool(bool),
    /// A map made of parts.
    Object(&'a dyn Fields),
    /// A value made when it was asked for.
    Owned(Value),
    /// Declared, but not there: reading it is an error that names it.
    #[default]
    Missing,
}

/// A map whose parts are named, and made only when they are read; `event` and `steps` are such.
pub trait Fields {
    /// The part called `name`; `None` (or [`Bound::Missing`]) if there is none.
    fn get(&self, name: &str) -> Option<Bound<'_>>;

    /// The names of all parts that are there, in any order, for loops, `size`, comparison and copies of the whole map.
    fn names(&self) -> Vec<&str>;
}

/// The values of a scope's variables, in the order of the scope.
#[derive(Clone, Copy, Default)]
pub struct Bindings<'a> {
    slots: &'a [Bound<'a>],
}

impl<'a> Bindings<'a> {
    /// Binds the variables of a scope in its order. What is left out is [`Bound::Missing`].
    #[must_use]
    pub fn new(slots: &'a [Bound<'a>]) -> Bindings<'a> {
        Bindings { slots }
    }

    pub(super) fn slot(&self, index: usize) -> &'a Bound<'a> {
        self.slots.get(index).unwrap_or(&Bound::Missing)
    }
}

impl<'a> From<&'a [Bound<'a>]> for Bindings<'a> {
    fn from(slots: &'a [Bound<'a>]) -> Bindings<'a> {
        Bindings::new(slots)
    }
}
