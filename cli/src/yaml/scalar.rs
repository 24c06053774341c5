//! What an unquoted scalar is, in the three readings that matter: YAML 1.1 as its specification has it, YAML 1.2 (core
//! schema), and kubectl's own (go-yaml v2), which is a mixture of both.
//!
//! A text is accepted unquoted only when all three agree, since then no tool that touches the file can change its
//! meaning. Timestamps are the one exception: YAML 1.1 has a type for them, but kubectl and 1.2 keep the text.

/// What a plain scalar stands for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reading {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// Another number; not a number and the infinities too.
    Float(f64),
    /// `<<` or `=`, which have a meaning of their own in YAML 1.1.
    Special,
    /// The text as it stands.
    Text,
}

impl Reading {
    fn same(&self, other: &Reading) -> bool {
        match (self, other) {
            (Reading::Float(a), Reading::Float(b)) => a == b || (a.is_nan() && b.is_nan()),
            (a, b) => a == b,
        }
    }

    /// The reading in words, for messages.
    pub(crate) fn describe(&self, text: &str) -> String {
        match self {
            Reading::Null => "null".to_owned(),
            Reading::Bool(value) => value.to_string(),
            Reading::Int(value) => format!("the number {value}"),
            Reading::Float(value) => format!("the number {value}"),
            Reading::Special if text == "<<" => "a merge key".to_owned(),
            Reading::Special => "a default value".to_owned(),
            Reading::Text => format!("the text \"{text}\""),
        }
    }
}

/// What a plain scalar is to those who read it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Plain {
    /// All read it as this.
    Agreed(Reading),
    /// They differ; kubectl's reading is first.
    Disputed {
        /// What kubectl reads.
        kubectl: Reading,
        /// Another reading.
        other: Reading,
        /// Whose, such as `YAML 1.2`.
        whose: &'static str,
    },
}

/// Reads a plain (unquoted) scalar.
pub(crate) fn read_plain(text: &str) -> Plain {
    let kubectl = kubectl(text);
    for (whose, other) in [("YAML 1.2", yaml_1_2(text)), ("YAML 1.1", yaml_1_1(text))] {
        if !kubectl.same(&other) {
            return Plain::Disputed {
                kubectl,
                other,
                whose,
            };
        }
    }
    Plain::Agreed(kubectl)
}

/// Reads as go-yaml v2 does, which kubectl is made with (`sigs.k8s.io/yaml`); held by a table that was made with it.
pub(crate) fn kubectl(text: &str) -> Reading {
    if let Some(word) = word_1_1(text) {
        return word;
    }
    match text.as_bytes().first() {
        // Go's own reader of floats takes `_` between digits.
        Some(b'.') if !text.starts_with("._") => {
            finite(&text.replace('_', "")).map_or(Reading::Text, Reading::Float)
        }
        Some(b'+' | b'-' | b'0'..=b'9') => {
            let plain: String = text.chars().filter(|c| *c != '_').collect();
            if let Some(value) = go_integer(&plain) {
                Reading::Int(value)
            } else if let Some(value) = finite(&plain) {
                Reading::Float(value)
            } else {
                Reading::Text
            }
        }
        _ => Reading::Text,
    }
}

/// Reads as the core schema of YAML 1.2 says.
pub(crate) fn yaml_1_2(text: &str) -> Reading {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Reading::Null,
        "true" | "True" | "TRUE" => return Reading::Bool(true),
        "false" | "False" | "FALSE" => return Reading::Bool(false),
        _ => {}
    }
    if let Some(float) = infinity_or_nan(text) {
        return Reading::Float(float);
    }
    let (_, digits) = sign(text);
    if all(digits, |b| b.is_ascii_digit()) {
        return integer(text, digits, 10).unwrap_or(Reading::Text);
    }
    if let Some(digits) = text
        .strip_prefix("0o")
        .filter(|d| all(d, |b| (b'0'..=b'7').contains(&b)))
    {
        return integer("", digits, 8).unwrap_or(Reading::Text);
    }
    if let Some(digits) = text
        .strip_prefix("0x")
        .filter(|d| all(d, |b| b.is_ascii_hexdigit()))
    {
        return integer("", digits, 16).unwrap_or(Reading::Text);
    }
    yaml_1_2_float(text).map_or(Reading::Text, Reading::Float)
}

/// Reads as the types of YAML 1.1 say, timestamps left out.
pub(crate) fn yaml_1_1(text: &str) -> Reading {
    if let Some(word) = word_1_1(text) {
        return word;
    }
    if matches!(text, "<<" | "=") {
        return Reading::Special;
    }
    let (_, rest) = sign(text);
    let grouped = |digits: &str, allowed: fn(u8) -> bool| all(digits, |b| b == b'_' || allowed(b));
    if let Some(digits) = rest
        .strip_prefix("0b")
        .filter(|d| grouped(d, |b| matches!(b, b'0' | b'1')))
    {
        return integer(text, digits, 2).unwrap_or(Reading::Text);
    }
    if let Some(digits) = rest
        .strip_prefix("0x")
        .filter(|d| grouped(d, |b| b.is_ascii_hexdigit()))
    {
        return integer(text, digits, 16).unwrap_or(Reading::Text);
    }
    if let Some(digits) = rest
        .strip_prefix('0')
        .filter(|d| grouped(d, |b| (b'0'..=b'7').contains(&b)))
    {
        return integer(text, digits, 8).unwrap_or(Reading::Text);
    }
    if rest == "0"
        || (rest.starts_with(|c: char| ('1'..='9').contains(&c))
            && grouped(rest, |b| b.is_ascii_digit()))
    {
        return integer(text, rest, 10).unwrap_or(Reading::Text);
    }
    sexagesimal(text)
        .or_else(|| yaml_1_1_float(text))
        .unwrap_or(Reading::Text)
}

/// The words that YAML 1.1 and go-yaml have in common.
fn word_1_1(text: &str) -> Option<Reading> {
    Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => Reading::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Reading::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Reading::Bool(false)
        }
        _ => return infinity_or_nan(text).map(Reading::Float),
    })
}

/// Go refuses to read a number beyond the doubles, and takes the text then.
fn finite(text: &str) -> Option<f64> {
    yaml_1_2_float(text).filter(|value| value.is_finite())
}

fn infinity_or_nan(text: &str) -> Option<f64> {
    match text {
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Some(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Some(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => Some(f64::NAN),
        _ => None,
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn yaml_1_2_float(text: &str) -> Option<f64> {
    let (_, rest) = sign(text);
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(sign(exponent).1)),
        None => (rest, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let form = digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| all(exponent, |b| b.is_ascii_digit()));
    form.then(|| text.parse().ok()).flatten()
}

/// `[-+]?([0-9][0-9_]*)?\.[0-9_]*([eE][-+][0-9]+)?`, with at least one digit before the exponent.
fn yaml_1_1_float(text: &str) -> Option<Reading> {
    let (_, rest) = sign(text);
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (rest, None),
    };
    let (whole, fraction) = mantissa.split_once('.')?;
    let grouped = |text: &str| text.bytes().all(|b| b == b'_' || b.is_ascii_digit());
    let signed = |exponent: &str| {
        exponent
            .strip_prefix(['-', '+'])
            .is_some_and(|digits| all(digits, |b| b.is_ascii_digit()))
    };
    let form = grouped(whole)
        && grouped(fraction)
        && !whole.starts_with('_')
        && mantissa.bytes().any(|b| b.is_ascii_digit())
        && exponent.is_none_or(signed);
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    form.then(|| plain.parse().ok().map(Reading::Float))
        .flatten()
}

/// `1:30` is 90 in YAML 1.1.
fn sexagesimal(text: &str) -> Option<Reading> {
    let (negative, rest) = sign(text);
    let (whole, fraction) = match rest.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|b| b == b'_' || b.is_ascii_digit()) => {
            (whole, Some(fraction))
        }
        Some(_) => return None,
        None => (rest, None),
    };
    let mut parts = whole.split(':');
    let first = parts
        .next()
        .filter(|part| part.starts_with(|c: char| c.is_ascii_digit()))?;
    // A whole number of base 60 can't begin with a zero; with a fraction it can.
    if !all(first, |b| b == b'_' || b.is_ascii_digit())
        || (fraction.is_none() && first.starts_with('0'))
    {
        return None;
    }
    let mut value = digits_of(first, 10)?;
    let mut more = 0;
    for part in parts {
        let small = part.len() <= 2 && all(part, |b| b.is_ascii_digit());
        let part = small
            .then(|| digits_of(part, 10))
            .flatten()
            .filter(|part| *part < 60)?;
        value = value.checked_mul(60)?.checked_add(part)?;
        more += 1;
    }
    if more == 0 {
        return None;
    }
    if negative {
        value = -value;
    }
    Some(match fraction {
        None => Reading::Int(value),
        #[expect(clippy::cast_precision_loss, reason = "only told apart from a text")]
        Some(_) => Reading::Float(value as f64),
    })
}

/// `strconv.ParseInt(text, 0, 64)`, then `ParseUint`.
fn go_integer(text: &str) -> Option<i128> {
    let (_, rest) = sign(text);
    let prefixed = |lower: &str, upper: &str| {
        rest.strip_prefix(lower)
            .or_else(|| rest.strip_prefix(upper))
    };
    let (digits, radix) = if let Some(digits) = prefixed("0x", "0X") {
        (digits, 16)
    } else if let Some(digits) = prefixed("0o", "0O") {
        (digits, 8)
    } else if let Some(digits) = prefixed("0b", "0B") {
        (digits, 2)
    } else if rest.len() > 1 && rest.starts_with('0') {
        (rest, 8)
    } else {
        (rest, 10)
    };
    let value = digits_of(digits, radix)?;
    let value = if text.starts_with('-') { -value } else { value };
    let unsigned = !text.starts_with(['-', '+']);
    let largest = if unsigned {
        i128::from(u64::MAX)
    } else {
        i128::from(i64::MAX)
    };
    (i128::from(i64::MIN)..=largest)
        .contains(&value)
        .then_some(value)
}

fn integer(text: &str, digits: &str, radix: u32) -> Option<Reading> {
    let digits: String = digits.chars().filter(|c| *c != '_').collect();
    let negative = text.starts_with('-');
    match digits_of(&digits, radix) {
        Some(value) if value <= i128::from(u64::MAX) && (!negative || value <= 1 << 63) => {
            Some(Reading::Int(if negative { -value } else { value }))
        }
        // Beyond 64 bits everybody has doubles in the end.
        _ if radix == 10 && !digits.is_empty() => {
            let value: f64 = digits.parse().ok()?;
            Some(Reading::Float(if negative { -value } else { value }))
        }
        _ => None,
    }
}

fn digits_of(digits: &str, radix: u32) -> Option<i128> {
    if !all(digits, |b| char::from(b).is_digit(radix)) {
        return None;
    }
    i128::from_str_radix(digits, radix).ok()
}

fn sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

fn all(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unquoted scalars and what `sigs.k8s.io/yaml` v1.6.0 makes of them; `cli/tests/data/README.md` says how it was made.
    const KUBECTL: &str = include_str!("../../tests/data/kubectl-scalars.jsonl");

    fn json(reading: &Reading, text: &str) -> Option<serde_json::Value> {
        crate::yaml::tree::Value::from_reading(reading, text).map(|value| value.to_json())
    }

    #[test]
    fn kubectl_is_read_as_it_reads() {
        let mut seen = 0;
        for line in KUBECTL.lines() {
            let case: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = case["text"].as_str().unwrap();
            let ours = json(&kubectl(text), text);
            // serde_json reads doubles with an error in the last digit; the standard library doesn't.
            let written = line
                .split_once("\"json\":")
                .map(|(_, json)| json.trim_end_matches('}'));
            let same = match (&ours, written) {
                (Some(serde_json::Value::Number(number)), Some(written)) => {
                    number.to_string().parse::<f64>() == written.parse::<f64>()
                }
                (ours, _) => *ours == case.get("json").cloned(),
            };
            assert!(same, "{text}: {ours:?}, kubectl: {written:?}");
            seen += 1;
        }
        assert!(seen > 100, "{seen}");
    }

    #[test]
    fn what_is_read_differently_is_disputed() {
        for text in [
            "y",
            "Y",
            "n",
            "N",
            "yes",
            "No",
            "ON",
            "off",
            "0777",
            "0o17",
            "0b11",
            "1_000",
            "1:30",
            "190:20:30.15",
            "1e3",
            "1.5e3",
            "08",
            "-0x1F",
            "+0x1f",
            "0X1F",
            "<<",
            "=",
            "0.1_0",
        ] {
            assert!(
                matches!(read_plain(text), Plain::Disputed { .. }),
                "{text}: {:?}",
                read_plain(text)
            );
        }
    }

    #[test]
    fn what_everybody_reads_alike_is_agreed() {
        for (text, expected) in [
            ("", Reading::Null),
            ("~", Reading::Null),
            ("null", Reading::Null),
            ("true", Reading::Bool(true)),
            ("False", Reading::Bool(false)),
            ("0", Reading::Int(0)),
            ("007", Reading::Int(7)),
            ("-12", Reading::Int(-12)),
            ("+12", Reading::Int(12)),
            ("0x1F", Reading::Int(31)),
            (
                "12345678901234567890",
                Reading::Int(12_345_678_901_234_567_890),
            ),
            ("99999999999999999999", Reading::Float(1e20)),
            ("12.50", Reading::Float(12.5)),
            ("1.", Reading::Float(1.0)),
            (".5", Reading::Float(0.5)),
            ("1.5e+3", Reading::Float(1500.0)),
            ("5s", Reading::Text),
            ("10Gi", Reading::Text),
            ("2026-01-31T12:00:00Z", Reading::Text),
            ("2026-01-31", Reading::Text),
            ("event.data.total > 0", Reading::Text),
            ("=event.subject", Reading::Text),
            ("yEs", Reading::Text),
            ("1.2.3", Reading::Text),
            ("1:60", Reading::Text),
            ("http://127.0.0.1:7081", Reading::Text),
            (".", Reading::Text),
            ("-", Reading::Text),
            ("_1", Reading::Text),
        ] {
            assert_eq!(read_plain(text), Plain::Agreed(expected), "{text}");
        }
    }
}
