//! Expressions: CEL over JSON, compiled once, evaluated without a clock, randomness or surprises (ADR 0002).
//!
//! # Language
//! CEL as Kubernetes users know it, with these types: null, bool, int (`i64`), double, string, list, map (keys are strings).
//! There are no uints, bytes, messages, timestamps, durations and regular expressions in this version; using them is a compile error.
//!
//! - operators: `+ - * / %`, `== != < <= > >=`, `in`, `! && ||`, `?:`, `[]`, `.`, list and map literals
//! - macros: `has`, `all`, `exists`, `exists_one`, `map`, `filter`
//! - functions: see [`functions`]
//!
//! # Numbers
//! - a JSON number without `.` and `e` that fits an `i64` is an int, every other is a double;
//! - int with int gives int, exactly or an error; int with double gives double (CEL refuses this; we don't);
//! - `/` of ints truncates towards zero; `%` takes doubles too; dividing by zero is an error, as is every result that is not finite;
//! - ints and doubles are equal and ordered by value, exactly;
//! - a double that was computed is written with `.` or `e`; a number that was only copied keeps its digits.
//!
//! # Absence
//! A missing key is an error that names the path. `has(a.b.c)` tells whether `c` is there and is an error when `a.b` isn't. `null` is a value:
//! it is there, and has no fields.
//!
//! # Errors
//! `&&`, `||`, `all` and `exists` give a result where one side decides it, even when the other is an error, in either order.
//! Only a spent budget is never absorbed. Errors name paths, types and operations, never data, which may be personal.
//!
//! # Bounds
//! Sources: [`SOURCE_MAX`], [`TOKENS_MAX`], [`NESTING_MAX`], [`LOOPS_MAX`]. Evaluations: [`STEPS_MAX`], [`BYTES_MAX`], [`crate::json::DEPTH_MAX`].
//!
//! The meaning of all this is version 1 of [`crate::definition::SEMANTICS`] and is held by a golden table of tests; what it costs in steps and bytes is
//! part of the meaning.

mod arithmetic;
mod bindings;
mod compare;
mod error;
mod evaluate;
mod functions;
mod item;
mod lower;
mod node;
mod references;
mod result;
mod sample;
mod source;
mod template;
mod text;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

pub use bindings::{Bindings, Bound, Fields};
pub use error::{CompileError, EvaluationError, Limit, Position, Problem};
pub use functions::functions;
pub use references::Reference;
pub use sample::Sample;
pub use template::{Template, TemplateError};

use crate::json::Value;
use evaluate::Evaluator;
use node::Node;

/// Longest source, in bytes. The parser's recursion is bounded by it.
pub const SOURCE_MAX: usize = 4096;

/// Most tokens of a source, which bounds the nodes of its tree.
pub const TOKENS_MAX: usize = 1_000;

/// Deepest nesting of brackets, and of operators in the tree that comes of them. Evaluation recurses this deep.
pub const NESTING_MAX: usize = 64;

/// Deepest nesting of `all`, `exists`, `exists_one`, `map` and `filter`: three over 200 elements each are eight million turns.
pub const LOOPS_MAX: usize = 2;

/// Most steps of one evaluation: nodes evaluated, turns of loops, elements compared, 256 bytes of text looked through. About 5 ms at most.
pub const STEPS_MAX: u32 = 100_000;

/// Most bytes that one evaluation builds, its result included: text, and 16 for each value.
pub const BYTES_MAX: usize = 1 << 20;

/// The root variables that an expression may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    names: Arc<[Box<str>]>,
}

impl Scope {
    /// Declares variables, such as `event`. Bindings are given in this order.
    #[must_use]
    pub fn new(names: &[&str]) -> Scope {
        Scope {
            names: names.iter().map(|&name| name.into()).collect(),
        }
    }

    /// The variables in the order of their slots.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }
}

/// A compiled expression. Cloning shares it.
#[derive(Clone)]
pub struct Expression {
    compiled: Arc<Compiled>,
}

struct Compiled {
    source: Box<str>,
    node: Node,
    references: Vec<Reference>,
}

impl Expression {
    /// Compiles `source` for evaluation with the variables of `scope`.
    ///
    /// # Errors
    /// Syntax, names and functions that aren't there, wrong numbers of arguments, and what goes beyond the bounds, with line and column.
    pub fn compile(source: &str, scope: &Scope) -> Result<Expression, CompileError> {
        let node = lower::compile(source, scope)?;
        let references = references::collect(&node);
        Ok(Expression {
            compiled: Arc::new(Compiled {
                source: source.into(),
                node,
                references,
            }),
        })
    }

    /// The text it was compiled from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.compiled.source
    }

    fn node(&self) -> &Node {
        &self.compiled.node
    }

    /// The paths that it reads: a root variable and the constant fields that follow it.
    pub fn references(&self) -> impl ExactSizeIterator<Item = &Reference> {
        self.compiled.references.iter()
    }

    /// The first path at or below `prefix` that is read although nothing makes sure that `prefix` is there, if any.
    ///
    /// A read is guarded under `has(prefix) ? … : …` (or in the other branch of `!has(prefix)`), and beside `has(prefix) &&` or `!has(prefix) ||`;
    /// a `has` of something below `prefix` guards as well, but is itself a read of `prefix`. A computed index that may reach `prefix` counts as a read.
    #[must_use]
    pub fn unguarded(&self, prefix: &[&str]) -> Option<String> {
        references::unguarded(&self.compiled.node, prefix)
    }

    /// Its value.
    ///
    /// # Errors
    /// See [`EvaluationError`]. The same bindings give the same result or error, always.
    pub fn evaluate(&self, vars: &Bindings<'_>) -> Result<Value, EvaluationError> {
        let mut evaluator = Evaluator::new(vars);
        let item = evaluator.evaluate(&self.compiled.node)?;
        evaluator.finish(&item, 0)
    }

    /// Its value, which must be a bool, as a condition's must.
    ///
    /// # Errors
    /// As [`Expression::evaluate`], and [`EvaluationError::Result`] for another type.
    pub fn evaluate_bool(&self, vars: &Bindings<'_>) -> Result<bool, EvaluationError> {
        let item = Evaluator::new(vars).evaluate(&self.compiled.node)?;
        item.as_bool().ok_or_else(|| EvaluationError::Result {
            expected: "bool",
            found: item.type_name(),
        })
    }

    /// Its value, which must be a string, as a key's must; borrowed from the bindings where it stands there.
    ///
    /// # Errors
    /// As [`Expression::evaluate`], and [`EvaluationError::Result`] for another type.
    pub fn evaluate_str<'a>(
        &'a self,
        vars: &'a Bindings<'a>,
    ) -> Result<Cow<'a, str>, EvaluationError> {
        let item = Evaluator::new(vars).evaluate(&self.compiled.node)?;
        let found = item.type_name();
        item.into_str().ok_or(EvaluationError::Result {
            expected: "string",
            found,
        })
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.source()).finish()
    }
}

impl PartialEq for Expression {
    /// By source; with another scope the same source may mean something else.
    fn eq(&self, other: &Expression) -> bool {
        self.source() == other.source()
    }
}
