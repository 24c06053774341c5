//! What can be wrong with an expression, and with its evaluation.

use std::fmt;

/// A place in a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Character within the line, from 1.
    pub column: usize,
}

impl Position {
    /// The place of a byte of `source`.
    pub(super) fn of(source: &str, byte: usize) -> Position {
        let before = source.get(..byte).unwrap_or(source);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Position {
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Why a source doesn't compile, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{position}: {problem}")]
pub struct CompileError {
    /// Where.
    pub position: Position,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Nothing but white space and comments.
    #[error("the expression is empty; quote it in YAML if it begins with `!` or holds `#` or `: `")]
    Empty,
    /// Not CEL.
    #[error("{0}")]
    Syntax(String),
    /// A name that is neither a variable of the scope nor of a loop.
    #[error("`{name}` isn't declared; {hint}")]
    UndeclaredName {
        /// The name.
        name: String,
        /// The nearest name, or all of them.
        hint: String,
    },
    /// A function that doesn't exist.
    #[error("there is no function `{name}`{hint}")]
    UnknownFunction {
        /// Its name.
        name: String,
        /// A nearby name or how it is called instead.
        hint: String,
    },
    /// Good CEL that this version doesn't know.
    #[error("{0} aren't in this version")]
    NotInThisVersion(&'static str),
    /// A wrong number of arguments, or a function called as a method or the other way round.
    #[error("`{function}` is called as {usage}")]
    Usage {
        /// The function.
        function: &'static str,
        /// How it is called.
        usage: &'static str,
    },
    /// A key of a map literal that is no string, or that occurs twice.
    #[error("keys of maps are strings, each at most once")]
    MapKey,
    /// Beyond one of the bounds.
    #[error(
        "the expression is too large: {0}; compute parts of it in the service that sends the data"
    )]
    TooLarge(&'static str),
}

/// Why an evaluation has no result. Texts name paths, types and operations; they never hold data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluationError {
    /// A map has no such key, or a variable isn't bound.
    #[error("`{path}` isn't there; guard it with has(), or send it")]
    NoSuchKey {
        /// The path, as it stands in the source; computed keys are `[…]`.
        path: String,
    },
    /// A field of what is no map.
    #[error("`{path}` can't be read: type {found} has no fields")]
    NoFields {
        /// The path, as it stands in the source.
        path: String,
        /// Type of what has no fields.
        found: &'static str,
    },
    /// An index outside of a list.
    #[error("index {index} is outside of a list of {len}")]
    NoSuchIndex {
        /// The index.
        index: i64,
        /// Number of elements.
        len: usize,
    },
    /// An operator or function on types that it doesn't take.
    #[error("`{operation}` doesn't take {found}{hint}")]
    Types {
        /// The operator or function.
        operation: &'static str,
        /// The types that it was given.
        found: Types,
        /// What to do, where there is an obvious thing; else empty.
        hint: &'static str,
    },
    /// A result beyond the range of an int, or a double that isn't finite.
    #[error("the result of `{operation}` is out of range")]
    Overflow {
        /// The operator or function.
        operation: &'static str,
    },
    /// Division by zero.
    #[error("`{operation}` by zero")]
    DivisionByZero {
        /// `/` or `%`.
        operation: &'static str,
    },
    /// An argument of the right type that the function doesn't take.
    #[error("`{function}`: {problem}")]
    Argument {
        /// The function.
        function: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// A map literal with the same key twice.
    #[error("a map has the same key twice")]
    DuplicateKey,
    /// The result isn't of the type that is needed where the expression stands.
    #[error("the expression gives {found}, but {expected} is needed here")]
    Result {
        /// The type that is needed.
        expected: &'static str,
        /// The type that came.
        found: &'static str,
    },
    /// The evaluation goes beyond one of its bounds.
    #[error("the evaluation was ended: {0}")]
    BudgetExceeded(Limit),
}

impl EvaluationError {
    /// A stable word for conditions and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            EvaluationError::NoSuchKey { .. } => "NoSuchKey",
            EvaluationError::NoFields { .. } => "NoFields",
            EvaluationError::NoSuchIndex { .. } => "NoSuchIndex",
            EvaluationError::Types { .. } => "Types",
            EvaluationError::Overflow { .. } => "Overflow",
            EvaluationError::DivisionByZero { .. } => "DivisionByZero",
            EvaluationError::Argument { .. } => "Argument",
            EvaluationError::DuplicateKey => "DuplicateKey",
            EvaluationError::Result { .. } => "Result",
            EvaluationError::BudgetExceeded(_) => "BudgetExceeded",
        }
    }
}

/// One or two types that didn't fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Types(pub(super) &'static str, pub(super) Option<&'static str>);

impl fmt::Display for Types {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(second) => write!(f, "{} and {second}", self.0),
            None => f.write_str(self.0),
        }
    }
}

/// A bound of evaluations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    /// [`super::STEPS_MAX`]
    #[error("more than 100,000 steps")]
    Steps,
    /// [`super::BYTES_MAX`]
    #[error("more than 1 MiB of values were built")]
    Bytes,
    /// [`crate::json::DEPTH_MAX`]
    #[error("the result is nested deeper than 64 levels")]
    Depth,
}
