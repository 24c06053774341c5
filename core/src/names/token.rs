//! The reversible encoding of any text into one NATS subject token, which is a valid KV key part too.

/// Longest text, in bytes before encoding, that becomes a token. Encoded it is at most three times as long.
pub const TOKEN_SOURCE_BYTES_MAX: usize = 200;

/// Why a text is no token, or a token no text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// More than [`TOKEN_SOURCE_BYTES_MAX`] bytes.
    #[error(
        "{bytes} bytes are too long for an entity, type, id or key: at most {TOKEN_SOURCE_BYTES_MAX}"
    )]
    TooLong {
        /// Length of the text.
        bytes: usize,
    },
    /// Not something that [`encode_token`] writes.
    #[error("`{0}` is not an encoded token")]
    NotEncoded(String),
}

/// Encodes a text: `[A-Za-z0-9_-]` stay, every other byte of its UTF-8 becomes `=HH` (upper-case hex), the empty
/// text becomes `=`.
///
/// # Errors
/// [`TokenError::TooLong`].
pub fn encode_token(text: &str) -> Result<String, TokenError> {
    use std::fmt::Write as _;
    if text.len() > TOKEN_SOURCE_BYTES_MAX {
        return Err(TokenError::TooLong { bytes: text.len() });
    }
    if text.is_empty() {
        return Ok("=".to_owned());
    }
    let mut token = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        if stays(byte) {
            token.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(token, "={byte:02X}");
        }
    }
    Ok(token)
}

/// Decodes a token. Only the one spelling that [`encode_token`] gives is accepted, so that two tokens are never one text.
///
/// # Errors
/// [`TokenError::NotEncoded`].
pub fn decode_token(token: &str) -> Result<String, TokenError> {
    let refuse = || TokenError::NotEncoded(token.chars().take(80).collect());
    if token == "=" {
        return Ok(String::new());
    }
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'=' {
            let (Some(high), Some(low)) = (
                rest.next().and_then(hex_value),
                rest.next().and_then(hex_value),
            ) else {
                return Err(refuse());
            };
            let decoded = high << 4 | low;
            if stays(decoded) {
                return Err(refuse());
            }
            bytes.push(decoded);
        } else if stays(byte) {
            bytes.push(byte);
        } else {
            return Err(refuse());
        }
    }
    if bytes.is_empty() || bytes.len() > TOKEN_SOURCE_BYTES_MAX {
        return Err(refuse());
    }
    String::from_utf8(bytes).map_err(|_| refuse())
}

fn stays(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn hex_value(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}
