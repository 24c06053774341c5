//! A strict reader of RFC 8259.

use super::{Number, Object, Value};

/// Why and where a document was refused. It never quotes the document, which may hold personal data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid JSON at byte {offset}: {reason}")]
pub struct ParseError {
    /// Byte of the document at which reading stopped, from 0.
    pub offset: usize,
    /// What is wrong there.
    pub reason: Reason,
}

/// What is wrong with a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// Bytes that aren't UTF-8.
    #[error("not UTF-8")]
    Encoding,
    /// The document ends too early.
    #[error("the document ends too early")]
    End,
    /// Neither a value begins here nor is it one of `null`, `true`, `false`.
    #[error("a value was expected")]
    Value,
    /// No `,` or closing bracket after an element.
    #[error("`,` or the closing bracket was expected")]
    Separator,
    /// No string as key.
    #[error("a key in double quotes was expected")]
    Key,
    /// No `:` after a key.
    #[error("`:` was expected")]
    Colon,
    /// A number that JSON doesn't know, like `01` or `1.`
    #[error("not a JSON number")]
    Number,
    /// A number that isn't finite as a double.
    #[error("the number is beyond the range of a double")]
    Range,
    /// A control character in a string.
    #[error("control characters in strings must be escaped")]
    Control,
    /// An escape that JSON doesn't know, or half a surrogate pair.
    #[error("not a JSON escape")]
    Escape,
    /// Nested deeper than `DEPTH_MAX`.
    #[error("nested deeper than 64 levels")]
    Depth,
    /// An object that is to be sent as it was written has a key twice.
    #[error("an object that begins here has a key twice")]
    Doubled,
    /// Something follows the value.
    #[error("nothing may follow the value")]
    Trailing,
}

/// A double's largest magnitude has 309 digits, so a shorter text without an exponent is always finite.
const FINITE_LEN: usize = 309;

pub(super) fn parse(source: &[u8], levels: usize) -> Result<Value, ParseError> {
    parse_keys(source, levels, false)
}

/// `unique`: an object with a key twice is refused.
pub(super) fn parse_keys(source: &[u8], levels: usize, unique: bool) -> Result<Value, ParseError> {
    let text = std::str::from_utf8(source).map_err(|error| ParseError {
        offset: error.valid_up_to(),
        reason: Reason::Encoding,
    })?;
    let mut parser = Parser {
        text,
        bytes: source,
        at: 0,
        unique,
        scratch: Vec::new(),
    };
    parser.space();
    let value = parser.value(levels)?;
    parser.space();
    if parser.at < source.len() {
        return Err(parser.error(Reason::Trailing));
    }
    Ok(value)
}

struct Parser<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    unique: bool,
    /// Members of the objects that are being read, innermost last: an object is allocated once, at its size.
    scratch: Vec<(Box<str>, Value)>,
}

impl<'a> Parser<'a> {
    fn error(&self, reason: Reason) -> ParseError {
        // At the end everything that was expected is missing for the same reason.
        let reason = if self.at >= self.bytes.len() && reason != Reason::Range {
            Reason::End
        } else {
            reason
        };
        ParseError {
            offset: self.at,
            reason,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn value(&mut self, levels: usize) -> Result<Value, ParseError> {
        match self.peek() {
            Some(b'"') => Ok(Value::String(self.string()?)),
            Some(b'{') => self.object(levels),
            Some(b'[') => self.array(levels),
            Some(b'-' | b'0'..=b'9') => Ok(Value::Number(self.number()?)),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            _ => Err(self.error(Reason::Value)),
        }
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, ParseError> {
        if !self
            .bytes
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(word.as_bytes()))
        {
            return Err(self.error(Reason::Value));
        }
        self.at += word.len();
        Ok(value)
    }

    fn array(&mut self, levels: usize) -> Result<Value, ParseError> {
        let levels = levels
            .checked_sub(1)
            .ok_or_else(|| self.error(Reason::Depth))?;
        self.at += 1;
        self.space();
        let mut items = Vec::new();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value(levels)?);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Value::Array(items));
                }
                _ => return Err(self.error(Reason::Separator)),
            }
            self.space();
        }
    }

    fn object(&mut self, levels: usize) -> Result<Value, ParseError> {
        let levels = levels
            .checked_sub(1)
            .ok_or_else(|| self.error(Reason::Depth))?;
        let begun = self.at;
        self.at += 1;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Object(Object::new()));
        }
        let first = self.scratch.len();
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.error(Reason::Key));
            }
            let key = self.string()?;
            self.space();
            if self.peek() != Some(b':') {
                return Err(self.error(Reason::Colon));
            }
            self.at += 1;
            self.space();
            let value = self.value(levels)?;
            self.scratch.push((key, value));
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    let members = self.scratch.split_off(first);
                    let count = members.len();
                    let object = Object::from_unsorted(members);
                    if self.unique && object.len() < count {
                        return Err(ParseError {
                            offset: begun,
                            reason: Reason::Doubled,
                        });
                    }
                    return Ok(Value::Object(object));
                }
                _ => return Err(self.error(Reason::Separator)),
            }
            self.space();
        }
    }

    fn digits(&mut self) -> Result<(), ParseError> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.error(Reason::Number));
        }
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Number, ParseError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
            if let Some(b'0'..=b'9') = self.peek() {
                return Err(self.error(Reason::Number));
            }
        } else {
            self.digits()?;
        }
        let mut whole = true;
        if self.peek() == Some(b'.') {
            whole = false;
            self.at += 1;
            self.digits()?;
        }
        let mut exponent = false;
        if let Some(b'e' | b'E') = self.peek() {
            (whole, exponent) = (false, true);
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        if whole
            && text != "-0"
            && let Ok(value) = text.parse()
        {
            return Ok(Number::from_i64(value));
        }
        if (exponent || text.len() > FINITE_LEN - 1)
            && !text.parse::<f64>().is_ok_and(f64::is_finite)
        {
            self.at = start;
            return Err(self.error(Reason::Range));
        }
        Ok(Number::keep(text))
    }

    /// The string at `at`, which is at its opening quote.
    fn string(&mut self) -> Result<Box<str>, ParseError> {
        self.at += 1;
        let plain = self.plain()?;
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(plain.into());
        }
        let mut text = String::from(plain);
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text.into());
                }
                _ => text.push(self.escape()?),
            }
            text.push_str(self.plain()?);
        }
    }

    /// Everything up to the next quote or backslash.
    fn plain(&mut self) -> Result<&'a str, ParseError> {
        let start = self.at;
        let rest = self.bytes.get(start..).unwrap_or_default();
        let len = plain_len(rest);
        self.at += len;
        match self.peek() {
            Some(b'"' | b'\\') => Ok(self.text.get(start..self.at).unwrap_or_default()),
            _ => Err(self.error(Reason::Control)),
        }
    }

    /// The escape at `at`, which is at a backslash.
    fn escape(&mut self) -> Result<char, ParseError> {
        self.at += 1;
        let plain = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode();
            }
            _ => return Err(self.error(Reason::Escape)),
        };
        self.at += 1;
        Ok(plain)
    }

    fn unicode(&mut self) -> Result<char, ParseError> {
        let first = self.hex()?;
        let code = match first {
            0xd800..=0xdbff => {
                if !self
                    .bytes
                    .get(self.at..)
                    .is_some_and(|rest| rest.starts_with(b"\\u"))
                {
                    return Err(self.error(Reason::Escape));
                }
                self.at += 2;
                let second = self.hex()?;
                if !(0xdc00..=0xdfff).contains(&second) {
                    return Err(self.error(Reason::Escape));
                }
                0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
            }
            code => code,
        };
        char::from_u32(code).ok_or_else(|| self.error(Reason::Escape))
    }

    fn hex(&mut self) -> Result<u32, ParseError> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self
                .peek()
                .and_then(|byte| char::from(byte).to_digit(16))
                .ok_or_else(|| self.error(Reason::Escape))?;
            code = code << 4 | digit;
            self.at += 1;
        }
        Ok(code)
    }
}

/// How many bytes stand before the first quote, backslash or control character. Eight at a time: this is where most of the time goes.
fn plain_len(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quote = word ^ (ONES * b'"' as u64);
        let backslash = word ^ (ONES * b'\\' as u64);
        // The lowest byte that is zero (for quote and backslash) or below 0x20 gets its high bit; bits above the lowest may be wrong.
        let zero =
            (quote.wrapping_sub(ONES) & !quote) | (backslash.wrapping_sub(ONES) & !backslash);
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let found = (zero | control) & HIGH;
        if found != 0 {
            return index * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let stop = |&byte: &u8| byte == b'"' || byte == b'\\' || byte < 0x20;
    words.len() * 8 + rest.iter().position(stop).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, offset: usize, reason: Reason) {
        assert_eq!(
            Value::parse(source.as_bytes()),
            Err(ParseError { offset, reason }),
            "{source:?}"
        );
    }

    #[test]
    fn errors_say_what_and_where() {
        check("", 0, Reason::End);
        check("  ", 2, Reason::End);
        check("nul", 0, Reason::Value);
        check("[1,]", 3, Reason::Value);
        check("[1 2]", 3, Reason::Separator);
        check("{a:1}", 1, Reason::Key);
        check("{\"a\" 1}", 5, Reason::Colon);
        check("{\"a\":1,}", 7, Reason::Key);
        check("01", 1, Reason::Number);
        check("[1.]", 3, Reason::Number);
        check("[1e400]", 1, Reason::Range);
        check("1e400", 0, Reason::Range);
        check("\"a\nb\"", 2, Reason::Control);
        check("\"a", 2, Reason::End);
        check("\"\\x\"", 2, Reason::Escape);
        check("\"\\ud800\"", 7, Reason::Escape);
        check("\"\\ud800\\u0041\"", 13, Reason::Escape);
        check("\"\\udc00\"", 7, Reason::Escape);
        check("1 2", 2, Reason::Trailing);
        check("\u{feff}1", 0, Reason::Value);
        assert_eq!(
            Value::parse(b"\"\xff\""),
            Err(ParseError {
                offset: 1,
                reason: Reason::Encoding
            })
        );
    }

    #[test]
    fn plain_text_ends_at_the_first_byte_that_is_not_plain() {
        for stop in 0..=255_u8 {
            let ends = stop < 0x20 || stop == b'"' || stop == b'\\';
            for before in 0..20 {
                for fill in [b' ', b'a', b'!', 0x7f, 0x80, 0xff] {
                    let mut bytes = vec![fill; before];
                    bytes.push(stop);
                    bytes.extend([fill; 9]);
                    let expected = if ends { before } else { bytes.len() };
                    assert_eq!(plain_len(&bytes), expected, "{bytes:?}");
                }
            }
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(
            Value::parse(nested(64).as_bytes())
                .is_ok_and(|value| value.is_within_depth(64) && !value.is_within_depth(63))
        );
        check(&nested(65), 64, Reason::Depth);
        check(&"{\"a\":".repeat(100_000), 64 * 5, Reason::Depth);
    }

    #[test]
    fn the_last_of_equal_keys_wins_and_keys_are_sorted() {
        let value = Value::parse(br#" { "b" : 1 , "a" : [ ] , "b" : { } } "#).unwrap();
        assert_eq!(value.to_json(), r#"{"a":[],"b":{}}"#);
    }

    #[test]
    fn escapes_are_read() {
        let value =
            Value::parse(r#""\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é\u0000""#.as_bytes()).unwrap();
        assert_eq!(value.as_str(), Some("\"\\/\u{8}\u{c}\n\r\té😀é\0"));
        assert_eq!(value.to_json(), "\"\\\"\\\\/\\b\\f\\n\\r\\té😀é\\u0000\"");
    }
}
