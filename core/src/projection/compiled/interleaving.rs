//! With several sources, rows must not depend on how the streams interleave: nobody can repeat that order.

use super::{CompileError, CompiledHandler, Problem, fail};
use crate::definition::{ProjectionDefinition, StreamRef};
use crate::expression::Expression;
use crate::planted::{Bug, planted};

/// Refuses what would give other rows when the sources are read in another order.
pub(super) fn check(
    definition: &ProjectionDefinition,
    handlers: &[CompiledHandler],
) -> Result<(), CompileError> {
    if definition.sources.len() < 2 || planted(Bug::InterleavingAccepted) {
        return Ok(());
    }
    for (index, handler) in definition.handlers.iter().enumerate() {
        let path = format!("handlers[{index}]");
        if handler.delete {
            return fail(
                format!("{path}.delete"),
                Problem::Interleaving("`delete`", "set a column instead, such as `deleted: true`"),
            );
        }
        for column in handler.set.keys() {
            if definition.handlers.iter().any(|other| {
                writes(other, column) && others(handler.stream.as_ref(), other.stream.as_ref())
            }) {
                return fail(
                    format!("{path}.set.{column}"),
                    Problem::Interleaving(
                        "the column is written from two streams",
                        "give each stream a column of its own, and each handler its `stream`",
                    ),
                );
            }
        }
        for (part, column) in handlers.get(index).map(row_reads).unwrap_or_default() {
            let foreign = |other: &crate::definition::Handler| {
                column.as_ref().is_none_or(|column| writes(other, column))
                    && others(handler.stream.as_ref(), other.stream.as_ref())
            };
            if definition.handlers.iter().any(foreign) {
                return fail(
                    format!("{path}.{part}"),
                    Problem::Interleaving(
                        "it reads a column of the row that another stream writes",
                        "read columns written from the same stream only, and give each handler its `stream`",
                    ),
                );
            }
        }
    }
    Ok(())
}

fn writes(handler: &crate::definition::Handler, column: &str) -> bool {
    handler.set.contains_key(column) || handler.increment.contains_key(column)
}

/// Whether two handlers may run for events of different streams. One without a stream runs for those of every stream.
fn others(a: Option<&StreamRef>, b: Option<&StreamRef>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a != b,
        (None, _) | (_, None) => true,
    }
}

/// The columns of the row that a handler looks at, and where; `None` = any.
fn row_reads(handler: &CompiledHandler) -> Vec<(String, Option<String>)> {
    let mut reads = Vec::new();
    let mut note = |part: String, expression: &Expression| {
        for reference in expression
            .references()
            .filter(|reference| reference.path.first().is_some_and(|root| root == "row"))
        {
            reads.push((part.clone(), reference.path.get(1).cloned()));
        }
    };
    if let Some(when) = &handler.when_row {
        note("when".to_owned(), when);
    }
    for (name, columns) in [("set", &handler.set), ("increment", &handler.increment)] {
        for (column, template) in columns {
            for (within, expression) in template.expressions() {
                note(format!("{name}.{column}{within}"), expression);
            }
        }
    }
    reads
}
