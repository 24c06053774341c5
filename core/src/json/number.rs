//! Numbers that keep the digits they were written with.

use std::cmp::Ordering;
use std::fmt;

use crate::planted::{Bug, planted};

/// Texts up to this length are kept inside the value, without an allocation; amounts of money fit.
const INLINE_MAX: usize = 14;

/// A JSON number: an integer, or the text of a double.
///
/// Equality is equality of the text. The double behind a text is computed when it is asked for.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Number(Repr);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Repr {
    /// Written as `i64`'s `Display` does. Every integer but `-0` is here.
    Int(i64),
    /// A text of at most `INLINE_MAX` bytes, the rest zero (so that derived equality holds).
    Short { len: u8, text: [u8; INLINE_MAX] },
    /// A longer text.
    Long(Box<str>),
}

/// What a number is worth.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Numeric {
    Int(i64),
    Double(f64),
}

impl Number {
    /// The integer itself.
    #[must_use]
    pub fn from_i64(value: i64) -> Number {
        Number(Repr::Int(value))
    }

    /// The shortest text that reads back as this double, always with `.` or `e`. `None` for NaN and infinity.
    #[must_use]
    pub fn from_f64(value: f64) -> Option<Number> {
        // `Debug`, unlike `Display`, writes `1.0` for one and uses an exponent where that is shorter.
        if planted(Bug::DoubleWrittenAsInt) && value.fract() == 0.0 && value.abs() < 1e15 {
            return Some(Number::from_i64(value as i64));
        }
        value
            .is_finite()
            .then(|| Number::keep(&format!("{value:?}")))
    }

    /// A number from its JSON text. `None` if it is no JSON number or lies beyond the range of a double.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Number> {
        match super::parse::parse(text.as_bytes(), 0) {
            // White space around a number is good JSON, but no part of a number.
            Ok(super::Value::Number(number)) if text.len() == text.trim_ascii().len() => {
                Some(number)
            }
            _ => None,
        }
    }

    /// The caller promises that `text` follows JSON's grammar, lies within the range of a double and is no canonical integer.
    pub(crate) fn keep(text: &str) -> Number {
        let mut inline = [0; INLINE_MAX];
        match inline.get_mut(..text.len()) {
            Some(start) => {
                start.copy_from_slice(text.as_bytes());
                // The length is at most INLINE_MAX, so it fits.
                Number(Repr::Short {
                    len: text.len() as u8,
                    text: inline,
                })
            }
            None => Number(Repr::Long(text.into())),
        }
    }

    /// The text, unless it is a canonical integer.
    fn text(&self) -> Option<&str> {
        match &self.0 {
            Repr::Int(_) => None,
            // Only `keep` makes this, from a `str`; the fallback is never used.
            Repr::Short { len, text } => {
                std::str::from_utf8(text.get(..usize::from(*len)).unwrap_or(b"0.0")).ok()
            }
            Repr::Long(text) => Some(text),
        }
    }

    /// Whether it was written without `.` and `e` and fits an `i64`.
    #[must_use]
    pub fn is_int(&self) -> bool {
        self.as_i64().is_some()
    }

    /// The integer; `None` for a double.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match &self.0 {
            Repr::Int(value) => Some(*value),
            // `-0` is the only integer whose text isn't canonical.
            Repr::Short { len: 2, text } if text.starts_with(b"-0") => Some(0),
            Repr::Short { .. } | Repr::Long(_) => None,
        }
    }

    /// The whole number, for conversions to types that have unsigned ones; `None` where there is a sign, a point or an exponent.
    pub(super) fn as_u64(&self) -> Option<u64> {
        match &self.0 {
            Repr::Int(value) => (*value).try_into().ok(),
            Repr::Short { .. } | Repr::Long(_) => self.text().and_then(|text| text.parse().ok()),
        }
    }

    /// The nearest double; always finite.
    #[must_use]
    pub fn as_f64(&self) -> f64 {
        match self.numeric() {
            Numeric::Int(value) => value as f64,
            Numeric::Double(value) => value,
        }
    }

    pub(crate) fn numeric(&self) -> Numeric {
        match self.as_i64() {
            Some(value) => Numeric::Int(value),
            // A text that is kept has been checked, so this parses.
            None => Numeric::Double(
                self.text()
                    .and_then(|text| text.parse().ok())
                    .unwrap_or_default(),
            ),
        }
    }

    /// Compares by value, exactly, integers with doubles too. (Equality, unlike this, is equality of the text.)
    #[must_use]
    pub fn compare(&self, other: &Number) -> Ordering {
        self.numeric().compare(other.numeric())
    }

    /// Appends the text as it was written.
    pub(super) fn write(&self, out: &mut String) {
        match (&self.0, self.text()) {
            (Repr::Int(value), _) => {
                use fmt::Write as _;
                // Writing into a String can't fail.
                let _ = write!(out, "{value}");
            }
            (_, Some(text)) => out.push_str(text),
            (_, None) => {}
        }
    }
}

impl Numeric {
    /// Compares by value, exactly: an `i64` isn't rounded to a double first.
    pub(crate) fn compare(self, other: Numeric) -> Ordering {
        match (self, other) {
            (Numeric::Int(a), Numeric::Int(b)) => a.cmp(&b),
            // Neither is ever NaN.
            (Numeric::Double(a), Numeric::Double(b)) => {
                a.partial_cmp(&b).unwrap_or(Ordering::Equal)
            }
            (Numeric::Int(a), Numeric::Double(b)) => compare_mixed(a, b),
            (Numeric::Double(a), Numeric::Int(b)) => compare_mixed(b, a).reverse(),
        }
    }
}

fn compare_mixed(int: i64, double: f64) -> Ordering {
    // 2^63 is exact as a double; every double in between truncates to an i64 without loss.
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if double >= BEYOND {
        return Ordering::Less;
    }
    if double < -BEYOND {
        return Ordering::Greater;
    }
    let whole = double.trunc();
    int.cmp(&(whole as i64))
        .then_with(|| whole.partial_cmp(&double).unwrap_or(Ordering::Equal))
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.0, self.text()) {
            (Repr::Int(value), _) => value.fmt(f),
            (_, text) => f.write_str(text.unwrap_or_default()),
        }
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Number {
        Number::from_i64(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_written_with_a_point_or_an_exponent() {
        for (value, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (100.0, "100.0"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e16"),
            (1.5e300, "1.5e300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-5"),
            (f64::MAX, "1.7976931348623157e308"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (5e-324, "5e-324"),
        ] {
            assert_eq!(Number::from_f64(value).unwrap().to_string(), text);
        }
        assert_eq!(Number::from_f64(f64::NAN), None);
        assert_eq!(Number::from_f64(f64::NEG_INFINITY), None);
    }

    #[test]
    fn digits_are_kept() {
        for text in [
            "1.10",
            "-0",
            "-0.0",
            "1E+2",
            "12345678901234567890",
            "0.1000000000000000055511151231257827",
            "9223372036854775807",
        ] {
            assert_eq!(Number::from_text(text).unwrap().to_string(), text);
        }
        for text in [
            "", " 1", "1 ", "01", "+1", ".5", "1.", "1e", "NaN", "1e309", "-1e309", "\"1\"",
        ] {
            assert_eq!(Number::from_text(text), None, "{text:?}");
        }
    }

    #[test]
    fn an_integer_is_what_fits_i64_without_point_and_exponent() {
        for (text, int) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("1.0", None),
            ("1e2", None),
            ("-0.0", None),
        ] {
            assert_eq!(Number::from_text(text).unwrap().as_i64(), int, "{text}");
        }
    }

    #[test]
    fn mixed_numbers_compare_exactly() {
        let compare = |a: &str, b: &str| {
            Number::from_text(a)
                .unwrap()
                .compare(&Number::from_text(b).unwrap())
        };
        assert_eq!(
            compare("9007199254740993", "9007199254740992.0"),
            Ordering::Greater
        );
        assert_eq!(
            compare("9223372036854775807", "9223372036854775808.0"),
            Ordering::Less
        );
        assert_eq!(
            compare("-9223372036854775808", "-9223372036854775808.0"),
            Ordering::Equal
        );
        assert_eq!(
            compare("-9223372036854775808", "-9.3e18"),
            Ordering::Greater
        );
        assert_eq!(compare("1", "1.5"), Ordering::Less);
        assert_eq!(compare("-1", "-1.5"), Ordering::Greater);
        assert_eq!(compare("1.5", "1"), Ordering::Greater);
        assert_eq!(compare("0", "-0.0"), Ordering::Equal);
    }
}
