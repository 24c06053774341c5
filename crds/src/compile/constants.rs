//! Expressions without any variable: what they give is known when they are compiled.

use tidemill_core::expression::{Bindings, Expression};
use tidemill_core::json::Value;
use tidemill_core::planted::{Bug, planted};

use super::findings::Findings;
use crate::problem::{FieldPath, Reason};

/// What an expression must give where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gives {
    /// Any JSON.
    Anything,
    /// True or false.
    Bool,
    /// A text; numbers and booleans become their JSON.
    Text,
    /// A number.
    Number,
}

impl Gives {
    fn takes(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Anything, _)
            | (Self::Bool, Value::Bool(_))
            | (Self::Text, Value::String(_) | Value::Number(_) | Value::Bool(_))
            | (Self::Number, Value::Number(_)) => true,
            (Self::Bool | Self::Text | Self::Number, _) => false,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Anything => "any value",
            Self::Bool => "true or false",
            Self::Text => "a text or a number",
            Self::Number => "a number",
        }
    }
}

/// Refuses what would fail for each event or instance alike.
pub(super) fn check(
    findings: &mut Findings,
    path: &FieldPath,
    expression: &Expression,
    gives: Gives,
) {
    if expression.references().len() > 0 || planted(Bug::ConstantUnchecked) {
        return;
    }
    match expression.evaluate(&Bindings::default()) {
        Err(error) => {
            let message = format!("this can only fail: {error}");
            findings.error(path, Reason::Expression, message);
        }
        Ok(value) if !gives.takes(&value) => {
            let message = format!(
                "this always gives a value of type {}, and {} is needed here",
                value.type_name(),
                gives.name()
            );
            findings.error(path, Reason::Expression, message);
        }
        Ok(_) => {}
    }
}
