//! Where an event stands, as headers, subjects and people write it.

use super::token::{TOKEN_SOURCE_BYTES_MAX, decode_token, encode_token};
use crate::definition::StreamRef;
use std::fmt;

/// Where an event stands in an EventStream: `<namespace>/<stream>=<incarnation token>[.<generation>]:<sequence>`.
///
/// The generation says how often a stream that was set back or replaced had been accepted; 0 isn't written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventPosition {
    /// The EventStream.
    pub stream: StreamRef,
    /// Incarnation of the stream; what is longer than a token's 200 bytes is cut.
    pub incarnation: String,
    /// How many histories the stream had before this one.
    pub generation: u64,
    /// Sequence in the stream.
    pub sequence: u64,
}

impl EventPosition {
    /// Reads what `Display` writes, and no other spelling of it.
    #[must_use]
    pub fn parse(text: &str) -> Option<EventPosition> {
        let (stream, place) = text.split_once('=')?;
        let (namespace, name) = stream.split_once('/')?;
        let (mark, generation, sequence) = split_place(place)?;
        let named = |text: &str| {
            let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            (!text.is_empty() && text.bytes().all(letters)).then(|| text.to_owned())
        };
        Some(EventPosition {
            stream: StreamRef {
                namespace: named(namespace)?,
                name: named(name)?,
            },
            incarnation: decode_token(mark).ok()?,
            generation,
            sequence,
        })
    }
}

impl fmt::Display for EventPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = place(&self.incarnation, self.generation, self.sequence);
        write!(f, "{}={place}", self.stream)
    }
}

/// `<incarnation token>[.<generation>]:<sequence>`
pub(crate) fn place(incarnation: &str, generation: u64, sequence: u64) -> String {
    let incarnation = incarnation_token(incarnation);
    match generation {
        0 => format!("{incarnation}:{sequence}"),
        generation => format!("{incarnation}.{generation}:{sequence}"),
    }
}

/// The incarnation's token, the generation and the sequence of a [`place`].
pub(crate) fn split_place(text: &str) -> Option<(&str, u64, u64)> {
    let (mark, sequence) = text.split_once(':')?;
    let (incarnation, generation) = match mark.split_once('.') {
        Some((incarnation, generation)) => (
            incarnation,
            number(generation).filter(|generation| *generation > 0)?,
        ),
        None => (mark, 0),
    };
    Some((incarnation, generation, number(sequence)?))
}

/// The decimal number that `to_string` writes, and no other spelling of it.
pub(super) fn number(text: &str) -> Option<u64> {
    let value: u64 = text.parse().ok()?;
    (value.to_string() == text).then_some(value)
}

/// Incarnations are short; what isn't is cut, at a character, rather than refused: it only tells people and guards against mistakes.
pub(crate) fn incarnation_token(incarnation: &str) -> String {
    let mut end = incarnation.len().min(TOKEN_SOURCE_BYTES_MAX);
    while !incarnation.is_char_boundary(end) {
        end -= 1;
    }
    encode_token(incarnation.get(..end).unwrap_or_default()).unwrap_or_else(|_| "=".to_owned())
}
