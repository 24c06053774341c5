//! Exact decimal sums, for `increment`.
//!
//! Sums of money must not depend on the order in which they were added, nor on binary fractions: `0.1 + 0.2` is `0.3` here.
//! A sum that doesn't fit is an error, never a rounded number.

use std::fmt;

use crate::json::Number;

/// Most digits of a decimal, before and after the point together (leading zeros don't count), and most digits after it.
pub const DIGITS_MAX: u32 = 28;

const LIMIT: i128 = 10_i128.pow(DIGITS_MAX);

/// A decimal number of at most 28 digits, with its scale: `1.10` and `1.1` are worth the same and differ in scale.
///
/// Addition keeps the larger scale (`1.10 + 2.2 = 3.30`), is commutative, and associative wherever it gives a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Decimal {
    /// The digits without the point; its magnitude is below 10^28.
    coefficient: i128,
    /// How many of the digits stand behind the point.
    scale: u32,
}

/// Why there is no decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// The text is no JSON number.
    #[error("not a number")]
    NotANumber,
    /// More digits than are kept exactly.
    #[error("the number needs more than 28 decimal digits, and decimals are never rounded")]
    TooManyDigits,
}

impl Decimal {
    /// Zero, without digits behind the point.
    pub const ZERO: Decimal = Decimal {
        coefficient: 0,
        scale: 0,
    };

    /// Reads the text of a JSON number, exponents too.
    ///
    /// # Errors
    /// What isn't one, and what needs more than 28 digits.
    pub fn parse(text: &str) -> Result<Decimal, DecimalError> {
        Decimal::from_number(&Number::from_text(text).ok_or(DecimalError::NotANumber)?)
    }

    /// The exact value of a number as it was written (not of the nearest double).
    ///
    /// # Errors
    /// [`DecimalError::TooManyDigits`]
    pub fn from_number(number: &Number) -> Result<Decimal, DecimalError> {
        match number.as_i64() {
            Some(value) => Ok(Decimal {
                coefficient: i128::from(value),
                scale: 0,
            }),
            None => Decimal::from_json_text(&number.to_string()),
        }
    }

    /// `text` follows JSON's grammar.
    fn from_json_text(text: &str) -> Result<Decimal, DecimalError> {
        let (mantissa, exponent) = match text.find(['e', 'E']) {
            Some(at) => {
                let (mantissa, exponent) = text.split_at(at);
                // An exponent that doesn't fit an i32 is beyond every limit.
                let exponent = exponent.trim_start_matches(['e', 'E']).parse::<i32>();
                (mantissa, exponent.map_err(|_| DecimalError::TooManyDigits)?)
            }
            None => (text, 0),
        };
        let mut coefficient: i128 = 0;
        let mut behind_point: Option<i32> = None;
        for byte in mantissa.bytes() {
            match byte {
                b'0'..=b'9' => {
                    coefficient = coefficient * 10 + i128::from(byte - b'0');
                    if coefficient >= LIMIT {
                        return Err(DecimalError::TooManyDigits);
                    }
                    behind_point = behind_point.map(|digits| digits.saturating_add(1));
                }
                b'.' => behind_point = Some(0),
                b'-' => {}
                _ => return Err(DecimalError::NotANumber),
            }
        }
        if mantissa.starts_with('-') {
            coefficient = -coefficient;
        }
        let scale = behind_point.unwrap_or(0).saturating_sub(exponent);
        if coefficient == 0 && scale < 0 {
            return Ok(Decimal::ZERO);
        }
        match u32::try_from(scale) {
            Ok(scale) if scale <= DIGITS_MAX => Ok(Decimal { coefficient, scale }),
            Ok(_) => Err(DecimalError::TooManyDigits),
            Err(_) => Decimal {
                coefficient,
                scale: 0,
            }
            .widened(scale.unsigned_abs())
            .map(|coefficient| Decimal {
                coefficient,
                scale: 0,
            }),
        }
    }

    /// The coefficient with so many more digits.
    fn widened(self, digits: u32) -> Result<i128, DecimalError> {
        10_i128
            .checked_pow(digits)
            .and_then(|factor| self.coefficient.checked_mul(factor))
            .filter(|coefficient| coefficient.unsigned_abs() < LIMIT.unsigned_abs())
            .ok_or(DecimalError::TooManyDigits)
    }

    /// The exact sum, at the larger scale.
    ///
    /// # Errors
    /// [`DecimalError::TooManyDigits`]
    pub fn checked_add(self, other: Decimal) -> Result<Decimal, DecimalError> {
        let scale = self.scale.max(other.scale);
        // Both are below 10^28 in magnitude, so the sum fits an i128.
        let coefficient = self.widened(scale - self.scale)? + other.widened(scale - other.scale)?;
        if coefficient.unsigned_abs() < LIMIT.unsigned_abs() {
            Ok(Decimal { coefficient, scale })
        } else {
            Err(DecimalError::TooManyDigits)
        }
    }

    /// The number as JSON: an integer where nothing stands behind the point and it fits an `i64`.
    #[must_use]
    pub fn to_number(self) -> Number {
        match i64::try_from(self.coefficient) {
            Ok(value) if self.scale == 0 => Number::from_i64(value),
            _ => Number::keep(&self.to_string()),
        }
    }
}

impl From<i64> for Decimal {
    fn from(value: i64) -> Decimal {
        Decimal {
            coefficient: i128::from(value),
            scale: 0,
        }
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.coefficient < 0 { "-" } else { "" };
        let magnitude = self.coefficient.unsigned_abs();
        let unit = 10_u128.pow(self.scale);
        if self.scale == 0 {
            write!(f, "{sign}{magnitude}")
        } else {
            write!(
                f,
                "{sign}{}.{:0width$}",
                magnitude / unit,
                magnitude % unit,
                width = self.scale as usize
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(a: &str, b: &str) -> Result<String, DecimalError> {
        Ok(Decimal::parse(a)?
            .checked_add(Decimal::parse(b)?)?
            .to_number()
            .to_string())
    }

    #[test]
    fn sums_are_exact_and_keep_the_larger_scale() {
        for (a, b, expected) in [
            ("0", "1", "1"),
            ("1.10", "2.20", "3.30"),
            ("1.1", "2.20", "3.30"),
            ("0.1", "0.2", "0.3"),
            ("1", "-1.00", "0.00"),
            ("-0.05", "0", "-0.05"),
            ("1e2", "0", "100"),
            ("1.5E+1", "0", "15"),
            ("25e-1", "0", "2.5"),
            ("-0", "0", "0"),
            ("-0.0", "0", "0.0"),
            ("0e999", "1", "1"),
            ("9223372036854775807", "1", "9223372036854775808"),
            (
                "9999999999999999999999999999",
                "0",
                "9999999999999999999999999999",
            ),
            (
                "9999999999999999999999999999",
                "-9999999999999999999999999999",
                "0",
            ),
            (
                "0.0000000000000000000000000001",
                "0",
                "0.0000000000000000000000000001",
            ),
        ] {
            assert_eq!(sum(a, b).as_deref(), Ok(expected), "{a} + {b}");
        }
    }

    #[test]
    fn what_needs_more_than_28_digits_is_an_error() {
        for (a, b) in [
            ("9999999999999999999999999999", "1"),
            ("1e28", "0"),
            ("1e300", "0"),
            ("1e-29", "0"),
            ("0.00000000000000000000000000001", "0"),
            ("1e27", "0.1"),
            ("12345678901234567890123456789", "0"),
        ] {
            assert_eq!(sum(a, b), Err(DecimalError::TooManyDigits), "{a} + {b}");
        }
        for text in ["", "a", "1 ", "+1", "1e99999999999999999999", "--1"] {
            assert_eq!(
                Decimal::parse(text),
                Err(DecimalError::NotANumber),
                "{text}"
            );
        }
    }

    fn decimal() -> impl Strategy<Value = Decimal> {
        let coefficient = prop_oneof![-1_000_000_i128..1_000_000, -(LIMIT - 1)..LIMIT];
        (coefficient, 0..=DIGITS_MAX)
            .prop_map(|(coefficient, scale)| Decimal { coefficient, scale })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_decimal_reads_back_as_it_was_written(a in decimal()) {
            prop_assert_eq!(Decimal::parse(&a.to_string()), Ok(a));
            prop_assert_eq!(Decimal::from_number(&a.to_number()), Ok(a));
        }

        #[test]
        fn addition_commutes(a in decimal(), b in decimal()) {
            prop_assert_eq!(a.checked_add(b), b.checked_add(a));
        }

        #[test]
        fn addition_is_associative_where_it_gives_results(a in decimal(), b in decimal(), c in decimal()) {
            let left = a.checked_add(b).and_then(|sum| sum.checked_add(c));
            let right = b.checked_add(c).and_then(|sum| a.checked_add(sum));
            if let (Ok(left), Ok(right)) = (left, right) {
                prop_assert_eq!(left, right);
            }
        }

        #[test]
        fn zero_changes_no_value(a in decimal()) {
            prop_assert_eq!(a.checked_add(Decimal::ZERO), Ok(a));
        }
    }
}
