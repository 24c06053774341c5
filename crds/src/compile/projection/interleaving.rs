//! With several sources, rows must not depend on how the streams interleave: nobody can repeat that order.

use std::collections::BTreeSet;

use tidemill_core::definition::{Handler, ProjectionDefinition, StreamRef};
use tidemill_core::expression::Expression;
use tidemill_core::planted::{Bug, planted};

use super::Reads;
use crate::compile::findings::Findings;
use crate::problem::{FieldPath, Reason};

/// Refuses what would give other rows if the sources were read in another order.
pub(super) fn check(findings: &mut Findings, definition: &ProjectionDefinition, reads: &[Reads]) {
    let distinct: BTreeSet<&StreamRef> = definition.sources.iter().collect();
    if distinct.len() < 2 {
        return;
    }
    for (index, (handler, reads)) in definition.handlers.iter().zip(reads).enumerate() {
        let path = FieldPath::spec().field("handlers").index(index);
        let others = || {
            definition
                .handlers
                .iter()
                .filter(|other| of_another_stream(handler, other))
        };
        if handler.delete && !planted(Bug::DeletedWithSources) {
            refuse(
                findings,
                &path.field("delete"),
                "a row is removed",
                "set a column instead, such as `deleted: true`",
            );
        }
        for column in handler.set.keys() {
            let is_others = others().any(|other| writes(other, column));
            if is_others && !planted(Bug::ColumnOfTwoStreams) {
                let advice = "give each stream columns of its own, and each handler its `stream`";
                refuse(
                    findings,
                    &path.field("set").field(column),
                    "the column is written from two streams",
                    advice,
                );
            }
        }
        for (path, expression) in &reads.expressions {
            let foreign = columns_read(expression).any(|column| {
                others().any(|other| match &column {
                    Some(column) => writes(other, column),
                    None => !other.set.is_empty() || !other.increment.is_empty(),
                })
            });
            if foreign && !planted(Bug::ForeignColumnRead) {
                let advice = "read only columns that the same stream writes, and give each handler its `stream`";
                refuse(
                    findings,
                    path,
                    "a column is read that another stream writes",
                    advice,
                );
            }
        }
    }
}

fn refuse(findings: &mut Findings, path: &FieldPath, what: &str, advice: &str) {
    let message = format!(
        "{what}, so with several streams in `from` the rows would depend on which is read first: {advice}"
    );
    findings.error(path, Reason::Unsound, message);
}

fn writes(handler: &Handler, column: &str) -> bool {
    handler.set.contains_key(column) || handler.increment.contains_key(column)
}

/// Whether two handlers may run for events of different streams; one without a stream runs for those of every stream, and
/// is so to itself.
fn of_another_stream(handler: &Handler, other: &Handler) -> bool {
    match (&handler.stream, &other.stream) {
        (Some(stream), Some(other)) => stream != other,
        _ => true,
    }
}

/// The columns of the row that an expression looks at; `None` = any.
fn columns_read(expression: &Expression) -> impl Iterator<Item = Option<String>> {
    expression
        .references()
        .filter(|reference| reference.path.first().is_some_and(|root| root == "row"))
        .map(|reference| reference.path.get(1).cloned())
}
