//! Numbers: exact on ints, finite on doubles, an error otherwise.

use super::error::{EvaluationError, Types};
use super::functions::Function;
use super::item::{Item, Text};
use super::node::Operator;
use crate::json::{Number, Numeric};
use crate::planted::{Bug, planted};

/// 2^63, the first double beyond every int.
const INT_END: f64 = 9_223_372_036_854_775_808.0;

/// `left operator right` for numbers; `None` if one of them is none.
pub(super) fn binary<'a>(
    operator: Operator,
    left: &Item<'a>,
    right: &Item<'a>,
) -> Option<Result<Item<'a>, EvaluationError>> {
    let (left, right) = (left.numeric()?, right.numeric()?);
    let operation = operator.sign();
    if planted(Bug::MixedNumbersRefused)
        && matches!((left, right), (Numeric::Int(_), Numeric::Double(_)))
    {
        return None;
    }
    Some(match (left, right) {
        (Numeric::Int(left), Numeric::Int(right)) => ints(operator, left, right),
        (left, right) => doubles(operator, double(left), double(right)),
    })
    .map(|result| match result {
        Err(EvaluationError::Overflow { .. }) => Err(EvaluationError::Overflow { operation }),
        result => result,
    })
}

fn double(numeric: Numeric) -> f64 {
    match numeric {
        Numeric::Int(value) => value as f64,
        Numeric::Double(value) => value,
    }
}

fn ints<'a>(operator: Operator, left: i64, right: i64) -> Result<Item<'a>, EvaluationError> {
    let operation = operator.sign();
    let result = match operator {
        Operator::Add if planted(Bug::OverflowWraps) => Some(left.wrapping_add(right)),
        Operator::Subtract if planted(Bug::UintNumbers) && (0..right).contains(&left) => None,
        Operator::Divide | Operator::Remainder
            if right == 0 && planted(Bug::DivisionByZeroIsZero) =>
        {
            Some(0)
        }
        Operator::Divide if planted(Bug::IntDivisionIsDouble) && right != 0 => {
            return doubles(operator, left as f64, right as f64);
        }
        Operator::Add => left.checked_add(right),
        Operator::Subtract => left.checked_sub(right),
        Operator::Multiply => left.checked_mul(right),
        Operator::Divide | Operator::Remainder if right == 0 => {
            return Err(EvaluationError::DivisionByZero { operation });
        }
        Operator::Divide => left.checked_div(right),
        // The least int by -1 has no quotient; CEL makes the remainder an error as well.
        Operator::Remainder => left.checked_rem(right),
        _ => None,
    };
    result
        .map(Item::Int)
        .ok_or(EvaluationError::Overflow { operation })
}

fn doubles<'a>(operator: Operator, left: f64, right: f64) -> Result<Item<'a>, EvaluationError> {
    let operation = operator.sign();
    let result = match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide | Operator::Remainder if right == 0.0 => {
            return Err(EvaluationError::DivisionByZero { operation });
        }
        Operator::Divide => left / right,
        Operator::Remainder => left % right,
        _ => f64::NAN,
    };
    finite(result, operation)
}

fn finite<'a>(value: f64, operation: &'static str) -> Result<Item<'a>, EvaluationError> {
    if value.is_finite() {
        Ok(Item::Double(value))
    } else {
        Err(EvaluationError::Overflow { operation })
    }
}

pub(super) fn negate<'a>(item: &Item<'a>) -> Result<Item<'a>, EvaluationError> {
    match item.numeric() {
        Some(Numeric::Int(value)) => value
            .checked_neg()
            .map(Item::Int)
            .ok_or(EvaluationError::Overflow { operation: "-" }),
        Some(Numeric::Double(value)) => Ok(Item::Double(-value)),
        None => Err(EvaluationError::Types {
            operation: "-",
            found: Types(item.type_name(), None),
            hint: "",
        }),
    }
}

/// `abs`, `round`, `floor`, `ceil`: ints stay ints, doubles stay doubles. `round` rounds halves away from zero.
pub(super) fn rounded<'a>(
    function: Function,
    item: &Item<'a>,
) -> Result<Item<'a>, EvaluationError> {
    let operation = function.name();
    match (item.numeric(), function) {
        (Some(Numeric::Int(value)), Function::Abs) => value
            .checked_abs()
            .map(Item::Int)
            .ok_or(EvaluationError::Overflow { operation }),
        (Some(Numeric::Double(value)), Function::Abs) => Ok(Item::Double(value.abs())),
        (Some(Numeric::Double(value)), Function::Round) => Ok(Item::Double(value.round())),
        (Some(Numeric::Double(value)), Function::Floor) => Ok(Item::Double(value.floor())),
        (Some(Numeric::Double(value)), Function::Ceil) => Ok(Item::Double(value.ceil())),
        (Some(_), _) => Ok(item.clone()),
        (None, _) => Err(EvaluationError::Types {
            operation,
            found: Types(item.type_name(), None),
            hint: "",
        }),
    }
}

/// The least or greatest; of equal ones the first.
pub(super) fn extreme<'a>(
    function: Function,
    items: impl Iterator<Item = Item<'a>>,
) -> Result<Item<'a>, EvaluationError> {
    let operation = function.name();
    let mut best: Option<(Numeric, Item<'a>)> = None;
    for item in items {
        let Some(numeric) = item.numeric() else {
            return Err(EvaluationError::Types {
                operation,
                found: Types(item.type_name(), None),
                hint: "",
            });
        };
        let better = best.as_ref().is_none_or(|(least, _)| match function {
            Function::Max => numeric.compare(*least).is_gt(),
            _ => numeric.compare(*least).is_lt(),
        });
        if better {
            best = Some((numeric, item));
        }
    }
    best.map(|(_, item)| item).ok_or(EvaluationError::Argument {
        function: operation,
        problem: "the list is empty",
    })
}

/// `int(x)`: doubles are truncated; strings are decimal digits with an optional `-`.
pub(super) fn to_int<'a>(item: &Item<'a>) -> Result<Item<'a>, EvaluationError> {
    match (item, item.numeric()) {
        (_, Some(Numeric::Int(_))) => Ok(item.clone()),
        (_, Some(Numeric::Double(value))) if (-INT_END..INT_END).contains(&value) => {
            Ok(Item::Int(value as i64))
        }
        (_, Some(Numeric::Double(_))) => Err(EvaluationError::Overflow { operation: "int" }),
        (Item::String(text), _) => {
            let digits = text.as_str();
            // `parse` alone would take a `+` as well.
            let int = if digits.starts_with('+') {
                None
            } else {
                digits.parse().ok()
            };
            int.map(Item::Int).ok_or(EvaluationError::Argument {
                function: "int",
                problem: "the string is no int",
            })
        }
        _ => Err(EvaluationError::Types {
            operation: "int",
            found: Types(item.type_name(), None),
            hint: "",
        }),
    }
}

/// `double(x)`: strings are JSON numbers.
pub(super) fn to_double<'a>(item: &Item<'a>) -> Result<Item<'a>, EvaluationError> {
    match (item, item.numeric()) {
        (_, Some(Numeric::Double(_))) => Ok(item.clone()),
        (_, Some(Numeric::Int(value))) => Ok(Item::Double(value as f64)),
        (Item::String(text), _) => match Number::from_text(text.as_str()) {
            Some(number) => Ok(Item::Double(number.as_f64())),
            None => Err(EvaluationError::Argument {
                function: "double",
                problem: "the string is no number",
            }),
        },
        _ => Err(EvaluationError::Types {
            operation: "double",
            found: Types(item.type_name(), None),
            hint: "",
        }),
    }
}

/// `string(x)`: numbers as they would be written, so with their digits if they were only copied.
pub(super) fn to_text<'a>(item: Item<'a>) -> Result<Text<'a>, EvaluationError> {
    match item {
        Item::String(text) => Ok(text),
        Item::Bool(true) => Ok(Text::Borrowed("true")),
        Item::Bool(false) => Ok(Text::Borrowed("false")),
        Item::Int(value) => Ok(Text::Built(value.to_string().into())),
        Item::Double(value) => Ok(Text::Built(number(value)?.to_string().into())),
        Item::Number(number) => Ok(Text::Built(number.to_string().into())),
        item => Err(EvaluationError::Types {
            operation: "string",
            found: Types(item.type_name(), None),
            hint: "",
        }),
    }
}

/// A computed double as JSON.
pub(super) fn number(value: f64) -> Result<Number, EvaluationError> {
    Number::from_f64(value).ok_or(EvaluationError::Overflow {
        operation: "double",
    })
}
