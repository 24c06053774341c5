//! Which rows an event touches, and what it does to them.

use super::compiled::{CompiledHandler, Projection};
use super::position::Position;
use super::row::Row;
use crate::decimal::{Decimal, DecimalError};
use crate::envelope::{DecodeError, Event};
use crate::expression::{Bindings, Bound, EvaluationError, Expression, Template};
use crate::json::{DEPTH_MAX, Number, Value};
use crate::names::KEYLESS_TOKEN;
use crate::names::{
    PROJECTION_PARTITIONS, TOKEN_SOURCE_BYTES_MAX, TokenError, encode_token, partition,
};
use crate::planted::{Bug, planted};

/// One row that an event touches, with the handlers that are for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Touch {
    /// Encoded key of the row; [`KEYLESS_TOKEN`] stands for "no key".
    pub token: Box<str>,
    /// Partition of the row.
    pub partition: u16,
    what: What,
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    /// Indices of handlers, in order.
    Handlers(Vec<usize>),
    /// It can't be folded, whatever the row is.
    Error(FoldError),
}

/// What folding an event did to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folded {
    /// Its position moved on, and maybe its columns: it is to be stored.
    Stored,
    /// Nothing to store: no handler's condition held, or a row that never was is deleted.
    Nothing,
    /// The event is at or below the row's position: it is in the row already.
    Passed,
}

/// Why an event can't be folded into a row. Deterministic: trying again gives the same, so it is parked at once.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FoldError {
    /// The message is no event that can be used.
    #[error("the message can't be read: {}", .0.in_full())]
    Decode(DecodeError),
    /// An expression failed.
    #[error("{field}: {error}")]
    Expression {
        /// Its field in the definition, such as `handlers[0].when`.
        field: String,
        /// Why.
        error: EvaluationError,
    },
    /// A key that is no scalar.
    #[error("{field}: a key is a string, number or boolean, not a {found}")]
    KeyType {
        /// Its field in the definition.
        field: String,
        /// What came.
        found: &'static str,
    },
    /// A key that is too long.
    #[error("{field}: the key has {bytes} bytes, at most {TOKEN_SOURCE_BYTES_MAX} are allowed")]
    KeyTooLong {
        /// Its field in the definition.
        field: String,
        /// Its length.
        bytes: usize,
    },
    /// Something that isn't a number is to be added, or added to.
    #[error("{field}: {what} is a {found}, not a number")]
    NotANumber {
        /// The increment's field in the definition.
        field: String,
        /// `the increment` or `the column`.
        what: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// The sum isn't exact in 28 digits.
    #[error("{field}: {error}")]
    Decimal {
        /// The increment's field in the definition.
        field: String,
        /// Why.
        error: DecimalError,
    },
    /// A value that, as a column, would be nested deeper than can be read again.
    #[error("{field}: the value is nested too deeply for a row")]
    TooDeep {
        /// Its field in the definition.
        field: String,
    },
    /// The row would be too large to store.
    #[error("the row would have more than the {max} bytes that can be stored")]
    RowTooLarge {
        /// Most bytes of its JSON: see [`Projection::limit_rows`].
        max: usize,
    },
}

impl FoldError {
    /// A stable word for lists, conditions and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            FoldError::Decode(_) => "Undecodable",
            FoldError::Expression { error, .. } => error.reason(),
            FoldError::KeyType { .. } => "KeyType",
            FoldError::KeyTooLong { .. } => "KeyTooLong",
            FoldError::NotANumber { .. } => "NotANumber",
            FoldError::Decimal { .. } => "TooManyDigits",
            FoldError::TooDeep { .. } => "TooDeep",
            FoldError::RowTooLarge { .. } => "RowTooLarge",
        }
    }
}

impl Touch {
    /// The touch of a message that is no event: it has no key.
    #[must_use]
    pub fn undecodable(error: DecodeError) -> Touch {
        Touch::keyless(FoldError::Decode(error))
    }

    fn keyless(error: FoldError) -> Touch {
        Touch {
            token: KEYLESS_TOKEN.into(),
            partition: partition(KEYLESS_TOKEN, PROJECTION_PARTITIONS),
            what: What::Error(error),
        }
    }

    /// Why it can't be folded, where that is known whatever the row is.
    #[must_use]
    pub fn error(&self) -> Option<&FoldError> {
        match &self.what {
            What::Handlers(_) => None,
            What::Error(error) => Some(error),
        }
    }

    /// Whether the event has no key here.
    #[must_use]
    pub fn is_keyless(&self) -> bool {
        &*self.token == KEYLESS_TOKEN
    }
}

/// The partition that an event is counted in, whatever rows it touches: that of its entity's token.
#[must_use]
pub fn event_partition(event: Option<&Event>) -> u16 {
    let token = event.map(|event| encode_token(event.entity()));
    match token {
        Some(Ok(token)) => partition(&token, PROJECTION_PARTITIONS),
        // An entity that is too long for a token can't be in a subject either, but it can be in a captured message.
        Some(Err(TokenError::TooLong { .. } | TokenError::NotEncoded(_))) | None => {
            partition(KEYLESS_TOKEN, PROJECTION_PARTITIONS)
        }
    }
}

impl Projection {
    /// The rows that an event of the source of this index touches, in the order of their first handler; empty if no handler matches.
    ///
    /// A handler whose key can't be found makes a touch without a key ([`Touch::is_keyless`]), at most one per event.
    /// Conditions that look at the row are left to [`Projection::fold`].
    #[must_use]
    pub fn touches(&self, source: usize, event: &Event) -> Vec<Touch> {
        let mut touches: Vec<Touch> = Vec::new();
        let slots = [Bound::Object(event)];
        let bindings = Bindings::new(&slots);
        let mut own_key: Option<Result<Box<str>, FoldError>> = None;
        for &index in self.candidates(source, &event.event_type) {
            let Some(handler) = self.handlers.get(index) else {
                continue;
            };
            let held = match &handler.when_event {
                None => Ok(true),
                Some(when) => {
                    when.evaluate_bool(&bindings)
                        .map_err(|error| FoldError::Expression {
                            field: format!("handlers[{index}].when"),
                            error,
                        })
                }
            };
            if matches!(held, Ok(false)) {
                continue;
            }
            let key = match &handler.key {
                Some(key) if !planted(Bug::OwnKeyIgnored) => {
                    key_token(key, &bindings, || format!("handlers[{index}].key"))
                }
                // The definition's key is evaluated once per event.
                _ => own_key
                    .get_or_insert_with(|| key_token(&self.key, &bindings, || "key".to_owned()))
                    .clone(),
            };
            let (token, error) = match (key, held) {
                (Ok(token), Ok(_)) => (token, None),
                // The row is known although the condition failed: only that row waits.
                (Ok(token), Err(error)) => (token, Some(error)),
                (Err(_), _) if planted(Bug::KeylessLost) => continue,
                (Err(error), _) => (KEYLESS_TOKEN.into(), Some(error)),
            };
            let touch = match touches.iter_mut().find(|touch| touch.token == token) {
                Some(touch) => touch,
                None => {
                    let partition = partition(&token, PROJECTION_PARTITIONS);
                    touches.push(Touch {
                        token,
                        partition,
                        what: What::Handlers(Vec::new()),
                    });
                    let Some(touch) = touches.last_mut() else {
                        continue;
                    };
                    touch
                }
            };
            match (&mut touch.what, error) {
                // The first error stays: the event is one whole for each row.
                (What::Error(_), _) => {}
                (what, Some(error)) => *what = What::Error(error),
                (What::Handlers(handlers), None)
                    if planted(Bug::FirstHandlerOnly) && !handlers.is_empty() => {}
                (What::Handlers(handlers), None) => handlers.push(index),
            }
        }
        touches
    }

    /// Folds an event into one of the rows it touches. `position` is the event's in the source of this index.
    ///
    /// Promises: an event at or below the row's position changes nothing; all of the touch's handlers run in order, or on
    /// an error none; within one handler every expression sees the row as it was before that handler.
    ///
    /// # Errors
    /// [`FoldError`]; the row is as it was.
    pub fn fold(
        &self,
        row: &mut Row,
        touch: &Touch,
        source: usize,
        position: Position,
        event: &Event,
    ) -> Result<Folded, FoldError> {
        if position <= row.positions.get(source) && !planted(Bug::PositionNotChecked) {
            return Ok(Folded::Passed);
        }
        let handlers = match &touch.what {
            What::Handlers(handlers) => handlers,
            What::Error(error) => return Err(error.clone()),
        };
        // Only with several handlers can one fail after another has changed the row.
        let before = (handlers.len() > 1).then(|| row.clone());
        let mut ran = false;
        let mut failed = None;
        for &index in handlers {
            let Some(handler) = self.handlers.get(index) else {
                continue;
            };
            match handler.run(index, row, event, self.row_bytes_max) {
                Ok(ran_now) => ran |= ran_now,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        if let Some(error) = failed {
            if let Some(before) = before
                && !planted(Bug::HalfAnEventFolded)
            {
                *row = before;
            }
            return Err(error);
        }
        // A row that never was and still isn't needs no tombstone: there is nothing an older put could bring back.
        if !ran || (!row.exists && row.positions.is_empty()) {
            return Ok(Folded::Nothing);
        }
        row.positions.set(source, position);
        if planted(Bug::TombstoneForgotten) && !row.exists {
            *row = Row::missing();
        }
        Ok(Folded::Stored)
    }
}

fn key_token(
    key: &Expression,
    event: &Bindings<'_>,
    field: impl Fn() -> String,
) -> Result<Box<str>, FoldError> {
    let value = key.evaluate(event).map_err(|error| FoldError::Expression {
        field: field(),
        error,
    })?;
    let token = match &value {
        Value::String(text) => encode_token(text),
        Value::Number(_) | Value::Bool(_) => encode_token(&value.to_json()),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            return Err(FoldError::KeyType {
                field: field(),
                found: value.type_name(),
            });
        }
    };
    token
        .map(String::into_boxed_str)
        .map_err(|error| FoldError::KeyTooLong {
            field: field(),
            bytes: match error {
                TokenError::TooLong { bytes } => bytes,
                TokenError::NotEncoded(text) => text.len(),
            },
        })
}

impl CompiledHandler {
    /// Changes the row; false if its condition doesn't hold.
    fn run(
        &self,
        index: usize,
        row: &mut Row,
        event: &Event,
        row_bytes_max: usize,
    ) -> Result<bool, FoldError> {
        let mut columns: Vec<(&str, Value)> =
            Vec::with_capacity(self.set.len() + self.increment.len());
        {
            let slots = [Bound::Object(event), Bound::Value(&row.columns)];
            let bindings = Bindings::new(&slots);
            if let Some(when) = &self.when_row {
                let held =
                    when.evaluate_bool(&bindings)
                        .map_err(|error| FoldError::Expression {
                            field: format!("handlers[{index}].when"),
                            error,
                        })?;
                if !held {
                    return Ok(false);
                }
            }
            for (column, template) in &self.set {
                let value = if planted(Bug::HandlersSeeNewColumns) {
                    let mut newer = row.clone();
                    newer.put(columns.clone());
                    let slots = [Bound::Object(event), Bound::Value(&newer.columns)];
                    evaluate(template, &Bindings::new(&slots), String::new)?
                } else {
                    evaluate(template, &bindings, || {
                        format!("handlers[{index}].set.{column}")
                    })?
                };
                if planted(Bug::NullRemovesColumn) && value.is_null() {
                    continue;
                }
                if !value.is_within_depth(DEPTH_MAX - 1) {
                    return Err(FoldError::TooDeep {
                        field: format!("handlers[{index}].set.{column}"),
                    });
                }
                columns.push((column, value));
            }
            for (column, template) in &self.increment {
                let field = || format!("handlers[{index}].increment.{column}");
                let by = evaluate(template, &bindings, field)?;
                columns.push((column, sum(row.columns.get(column), &by, field)?));
            }
        }
        if self.delete {
            row.columns = Value::Object(crate::json::Object::new());
            row.exists = false;
            row.bytes = 0;
        } else {
            row.merge(columns, row_bytes_max)?;
        }
        Ok(true)
    }
}

fn evaluate(
    template: &Template,
    bindings: &Bindings<'_>,
    field: impl Fn() -> String,
) -> Result<Value, FoldError> {
    template
        .evaluate(bindings)
        .map_err(|failed| FoldError::Expression {
            field: format!("{}{}", field(), failed.path),
            error: failed.error,
        })
}

/// A column and an increment, exactly. A column that isn't there, or is null, starts at 0.
fn sum(column: Option<&Value>, by: &Value, field: impl Fn() -> String) -> Result<Value, FoldError> {
    let decimal = |value: &Value, what: &'static str| match value {
        Value::Number(number) => Decimal::from_number(number).map_err(|error| FoldError::Decimal {
            field: field(),
            error,
        }),
        other => Err(FoldError::NotANumber {
            field: field(),
            what,
            found: other.type_name(),
        }),
    };
    if let (Value::Number(by), Some(Value::Number(column))) = (by, column)
        && (planted(Bug::IncrementInBinary) || planted(Bug::IncrementRounded))
    {
        let (exact, sum) = (
            Decimal::from_number(by).and_then(|by| Decimal::from_number(column)?.checked_add(by)),
            Number::from_f64(by.as_f64() + column.as_f64()),
        );
        if planted(Bug::IncrementInBinary) || exact.is_err() {
            return Ok(sum.map_or(Value::Null, Value::Number));
        }
    }
    let by = decimal(by, "the increment")?;
    let column = match column {
        None | Some(Value::Null) => Decimal::ZERO,
        Some(value) => decimal(value, "the column")?,
    };
    let sum = column.checked_add(by).map_err(|error| FoldError::Decimal {
        field: field(),
        error,
    })?;
    Ok(Value::Number(sum.to_number()))
}

impl Row {
    fn merge(&mut self, columns: Vec<(&str, Value)>, max: usize) -> Result<(), FoldError> {
        let added = columns
            .iter()
            .map(|(column, value)| text_bytes_max(column) + json_bytes_max(value) + 2)
            .sum::<usize>();
        if self.bytes + added + 2 <= max {
            self.bytes += added;
            self.put(columns);
            return Ok(());
        }
        // The quick count never shrinks when a column is replaced, so here it is done exactly.
        let mut merged = self.clone();
        merged.put(columns);
        merged.bytes = merged.columns.to_json().len();
        if merged.bytes > max {
            return Err(FoldError::RowTooLarge { max });
        }
        *self = merged;
        Ok(())
    }

    fn put(&mut self, columns: Vec<(&str, Value)>) {
        self.exists = true;
        let Value::Object(object) = &mut self.columns else {
            return;
        };
        if planted(Bug::SetReplacesRow) {
            *object = crate::json::Object::default();
        }
        for (column, value) in columns {
            match object.get_mut(column) {
                Some(slot) => *slot = value,
                None => {
                    object.insert(column, value);
                }
            }
        }
    }
}

/// At least the bytes of a value's JSON.
fn json_bytes_max(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 5,
        // An i64 has at most 20 characters.
        Value::Number(number) if number.is_int() => 20,
        Value::Number(number) => number.to_string().len(),
        Value::String(text) => text_bytes_max(text),
        Value::Array(items) => {
            items
                .iter()
                .map(|item| json_bytes_max(item) + 1)
                .sum::<usize>()
                + 2
        }
        Value::Object(object) => {
            object
                .iter()
                .map(|(key, value)| text_bytes_max(key) + json_bytes_max(value) + 2)
                .sum::<usize>()
                + 2
        }
    }
}

fn text_bytes_max(text: &str) -> usize {
    // An escape takes at most 6 bytes for one.
    let escaped = text
        .bytes()
        .filter(|byte| matches!(byte, 0..=0x1f | b'"' | b'\\' | 0x7f))
        .count();
    text.len() + 5 * escaped + 2
}

#[cfg(test)]
mod tests;
