//! A definition made ready to fold: expressions compiled, handlers found by source and type.

mod interleaving;

use super::row::ROW_BYTES_MAX;
use crate::definition::{Handler, ProjectionDefinition, Revision, SEMANTICS};
use crate::expression::{self, Expression, Scope, Template, TemplateError};
use crate::json::Value;
use crate::planted::{Bug, planted};
use std::collections::HashMap;

/// A projection that can fold events. Compile once per revision.
#[derive(Clone, Debug)]
pub struct Projection {
    pub(super) revision: Revision,
    pub(super) key: Expression,
    pub(super) handlers: Vec<CompiledHandler>,
    pub(super) row_bytes_max: usize,
    /// Per source.
    selections: Vec<Selection>,
}

/// Which handlers an event of one source may match, in their order.
#[derive(Clone, Debug, Default)]
struct Selection {
    by_type: HashMap<Box<str>, Vec<usize>>,
    /// Those without a type.
    other: Vec<usize>,
}

#[derive(Clone, Debug)]
pub(super) struct CompiledHandler {
    /// Condition that doesn't look at the row: it decides before there is a key.
    pub(super) when_event: Option<Expression>,
    /// Condition that looks at the row.
    pub(super) when_row: Option<Expression>,
    pub(super) key: Option<Expression>,
    pub(super) set: Vec<(Box<str>, Template)>,
    pub(super) increment: Vec<(Box<str>, Template)>,
    pub(super) delete: bool,
}

/// Why a definition can't be folded, and where in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct CompileError {
    /// Field path from the definition's root: `key`, `handlers[2].set.total`.
    pub path: String,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a part of a definition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Another version's expressions.
    #[error("this version knows expression semantics {SEMANTICS}, not {0}")]
    Semantics(u32),
    /// Nothing to read.
    #[error("at least one stream is needed")]
    NoSource,
    /// A stream named twice.
    #[error("stream {0} is named twice; name it once, handlers choose by `type`")]
    SourceTwice(crate::definition::StreamRef),
    /// No handler at all.
    #[error("at least one handler is needed")]
    NoHandler,
    /// A handler for a stream that isn't read.
    #[error("stream {0} isn't among the sources")]
    UnknownSource(crate::definition::StreamRef),
    /// A handler that does nothing, or two opposite things.
    #[error("exactly one of `set` and/or `increment`, or `delete: true`, is needed")]
    OneEffect,
    /// A column that is both set and counted by one handler.
    #[error("a column is either set or incremented by a handler, not both")]
    SetAndIncrement,
    /// A literal that can't be added.
    #[error("an increment is a number or an expression (`=…`), not a {0}")]
    Increment(&'static str),
    /// An expression.
    #[error("{0}")]
    Expression(expression::CompileError),
    /// With several sources the result would depend on how they interleave.
    #[error("{0}: with several sources the rows would depend on which stream is read first; {1}")]
    Interleaving(&'static str, &'static str),
}

fn fail<T>(path: impl Into<String>, problem: Problem) -> Result<T, CompileError> {
    Err(CompileError {
        path: path.into(),
        problem,
    })
}

/// `key` sees the event alone: it is what chooses the row.
fn event_scope() -> Scope {
    Scope::new(&["event"])
}

/// Everything else sees the row too, as it was before its handler.
fn row_scope() -> Scope {
    Scope::new(&["event", "row"])
}

impl Projection {
    /// Compiles a definition.
    ///
    /// # Errors
    /// [`CompileError`] with the field's path.
    pub fn compile(definition: &ProjectionDefinition) -> Result<Projection, CompileError> {
        if definition.semantics != SEMANTICS && !planted(Bug::SemanticsUnchecked) {
            return fail("semantics", Problem::Semantics(definition.semantics));
        }
        if definition.sources.is_empty() {
            return fail("sources", Problem::NoSource);
        }
        for (index, source) in definition.sources.iter().enumerate() {
            if definition
                .sources
                .iter()
                .take(index)
                .any(|earlier| earlier == source)
            {
                return fail(
                    format!("sources[{index}]"),
                    Problem::SourceTwice(source.clone()),
                );
            }
        }
        if definition.handlers.is_empty() {
            return fail("handlers", Problem::NoHandler);
        }
        let key = compile_expression("key", &definition.key, &event_scope())?;
        let handlers = definition
            .handlers
            .iter()
            .enumerate()
            .map(|(index, handler)| {
                if let Some(stream) = handler
                    .stream
                    .as_ref()
                    .filter(|stream| !definition.sources.contains(stream))
                {
                    return fail(
                        format!("handlers[{index}].stream"),
                        Problem::UnknownSource(stream.clone()),
                    );
                }
                compile_handler(&format!("handlers[{index}]"), handler)
            });
        let handlers = handlers.collect::<Result<Vec<_>, _>>()?;
        interleaving::check(definition, &handlers)?;
        Ok(Projection {
            revision: definition.revision(),
            key,
            selections: definition
                .sources
                .iter()
                .map(|source| Selection::of(definition, source))
                .collect(),
            handlers,
            row_bytes_max: ROW_BYTES_MAX,
        })
    }

    /// Says how large rows may be, in bytes of their JSON, where the sink takes less than [`ROW_BYTES_MAX`]. An event that would make
    /// a row larger can't be folded ([`FoldError::RowTooLarge`](super::FoldError::RowTooLarge)), so a row that the sink refuses
    /// for its size is never made.
    pub fn limit_rows(&mut self, bytes: usize) {
        self.row_bytes_max = bytes.min(ROW_BYTES_MAX);
    }

    /// Most bytes of a row's JSON.
    #[must_use]
    pub fn row_bytes_max(&self) -> usize {
        self.row_bytes_max
    }

    /// The definition's revision.
    #[must_use]
    pub fn revision(&self) -> &Revision {
        &self.revision
    }

    /// Indices of the handlers that an event of this source and type may match, in order.
    pub(super) fn candidates(&self, source: usize, event_type: &str) -> &[usize] {
        self.selections.get(source).map_or(&[], |selection| {
            selection
                .by_type
                .get(event_type)
                .unwrap_or(&selection.other)
        })
    }
}

impl Selection {
    fn of(definition: &ProjectionDefinition, source: &crate::definition::StreamRef) -> Selection {
        let of_source = |handler: &&(usize, &Handler)| {
            handler
                .1
                .stream
                .as_ref()
                .is_none_or(|stream| stream == source)
        };
        let handlers: Vec<(usize, &Handler)> = definition.handlers.iter().enumerate().collect();
        let matching = |event_type: Option<&str>| -> Vec<usize> {
            let of_type = |(_, handler): &&(usize, &Handler)| match &handler.event_type {
                Some(of) => Some(of.as_str()) == event_type,
                None => !planted(Bug::UntypedHandlerLeftOut),
            };
            handlers
                .iter()
                .filter(of_source)
                .filter(of_type)
                .map(|(index, _)| *index)
                .collect()
        };
        let types = handlers
            .iter()
            .filter_map(|(_, handler)| handler.event_type.as_deref());
        Selection {
            by_type: types
                .map(|event_type| (event_type.into(), matching(Some(event_type))))
                .collect(),
            other: matching(None),
        }
    }
}

fn compile_handler(path: &str, handler: &Handler) -> Result<CompiledHandler, CompileError> {
    let changes = !handler.set.is_empty() || !handler.increment.is_empty();
    if changes == handler.delete {
        return fail(path, Problem::OneEffect);
    }
    let row_scope = row_scope();
    let when = handler
        .when
        .as_deref()
        .map(|source| compile_expression(&format!("{path}.when"), source, &row_scope))
        .transpose()?;
    let looks_at_row = when.as_ref().is_some_and(sees_row);
    let (when_row, when_event) = if looks_at_row {
        (when, None)
    } else {
        (None, when)
    };
    let key = handler
        .key
        .as_deref()
        .map(|source| compile_expression(&format!("{path}.key"), source, &event_scope()))
        .transpose()?;
    let mut set = Vec::with_capacity(handler.set.len());
    for (column, value) in &handler.set {
        set.push((
            column.as_str().into(),
            compile_template(&format!("{path}.set.{column}"), value)?,
        ));
    }
    let mut increment = Vec::with_capacity(handler.increment.len());
    for (column, value) in &handler.increment {
        let path = format!("{path}.increment.{column}");
        if handler.set.contains_key(column) {
            return fail(path, Problem::SetAndIncrement);
        }
        let is_expression = value.as_str().is_some_and(|text| text.starts_with('='));
        if value.as_number().is_none() && !is_expression {
            return fail(path, Problem::Increment(value.type_name()));
        }
        increment.push((column.as_str().into(), compile_template(&path, value)?));
    }
    Ok(CompiledHandler {
        when_event,
        when_row,
        key,
        set,
        increment,
        delete: handler.delete,
    })
}

fn sees_row(expression: &Expression) -> bool {
    expression
        .references()
        .any(|reference| reference.path.first().is_some_and(|root| root == "row"))
}

fn compile_expression(path: &str, source: &str, scope: &Scope) -> Result<Expression, CompileError> {
    Expression::compile(source, scope).or_else(|error| fail(path, Problem::Expression(error)))
}

fn compile_template(path: &str, source: &Value) -> Result<Template, CompileError> {
    Template::compile(source, &row_scope()).or_else(
        |TemplateError {
             path: within,
             error,
         }| fail(format!("{path}{within}"), Problem::Expression(error)),
    )
}

#[cfg(test)]
mod tests;
