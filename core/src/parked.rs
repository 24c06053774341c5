//! One message of a parked stream: an event that waits for a person's decision. Workers of both kinds write it, the command line
//! shows it.
//!
//! | header | holds |
//! |---|---|
//! | `Tidemill-Pos` | where the event stands ([`EventPosition`]) |
//! | `Tidemill-Stored-At` | when its stream stored it, in milliseconds since 1970 |
//! | `Tidemill-Parked` | why, a stable word; `Follower` if it only waits behind one that can't be dealt with |
//! | `Tidemill-Error` | the same for people; absent with `Follower` |
//! | `Tidemill-Rev` | the [`KeySpace`] it waits for; Projections only |
//! | `Tidemill-Subject` | the subject it was stored at; absent = the event is not copied and stands in its stream only |
//! | `Tidemill-H-<name>` | its own header `<name>` |
//!
//! The payload is the event's own.

use crate::names::{EventPosition, KeySpace, headers};
use crate::timestamp::Timestamp;

/// Value of [`headers::PARKED`] for what only follows.
pub const FOLLOWER: &str = "Follower";
/// Longest text of [`headers::ERROR`], in bytes.
const ERROR_BYTES_MAX: usize = 1000;
/// Most that JetStream takes for all headers of a message, in the server's form, in bytes.
const ALL_HEADERS_BYTES_MAX: usize = 65_535;
/// Room for our own headers, in bytes.
const HEADERS_BYTES_MAX: usize = 4096;
/// What the server's form of a header takes besides name and value, with [`headers::ORIGINAL_PREFIX`], in bytes.
const HEADER_EXTRA_BYTES: usize = 20;

/// A parked event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// The rows it waits for; `None` for a Saga's.
    pub key_space: Option<KeySpace>,
    /// Where it stands.
    pub position: EventPosition,
    /// Why it can't be dealt with; `None` if it only follows one that can't.
    pub failure: Option<Failure>,
    /// When its stream stored it.
    pub stored_at: Timestamp,
    /// The event.
    pub kept: Kept,
}

/// Why an event can't be dealt with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// A stable word; never empty, never [`FOLLOWER`].
    pub reason: String,
    /// The same for people.
    pub message: String,
}

impl Failure {
    /// A failure.
    pub fn new(reason: &str, message: impl Into<String>) -> Failure {
        Failure {
            reason: reason.to_owned(),
            message: message.into(),
        }
    }
}

/// Where a parked event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// In the parked message.
    Copied {
        /// Subject it was stored at.
        subject: String,
        /// Its headers, in order.
        headers: Vec<(String, String)>,
        /// Its payload.
        payload: Vec<u8>,
    },
    /// Only in its stream: the copy, or its headers, would be larger than the server takes.
    InSource,
}

impl Kept {
    /// A copy, if a message of `bytes_max` bytes has room for it. The names of its headers get longer by it
    /// ([`headers::ORIGINAL_PREFIX`]), so headers that its own stream took may be too many in the copy.
    #[must_use]
    pub fn copy(subject: &str, headers: &[(&str, &str)], payload: &[u8], bytes_max: usize) -> Kept {
        let of = |(name, value): &(&str, &str)| name.len() + value.len() + HEADER_EXTRA_BYTES;
        let headers_bytes =
            HEADERS_BYTES_MAX + subject.len() + headers.iter().map(of).sum::<usize>();
        if headers_bytes > ALL_HEADERS_BYTES_MAX || headers_bytes + payload.len() >= bytes_max {
            return Kept::InSource;
        }
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Kept::Copied {
            subject: subject.to_owned(),
            headers: headers.iter().map(owned).collect(),
            payload: payload.to_vec(),
        }
    }
}

/// Why a message of a parked stream can't be used: anybody who may publish there can put something else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParkedError {
    /// A header is missing or isn't what this version writes.
    #[error("header `{0}` is missing or not as Tidemill writes it")]
    Header(&'static str),
}

impl Parked {
    /// Headers and payload of the message.
    #[must_use]
    pub fn write(&self) -> (Vec<(String, String)>, Vec<u8>) {
        let mut written = Vec::new();
        let mut put = |name: &str, value: String| written.push((name.to_owned(), value));
        if let Some(key_space) = &self.key_space {
            put(headers::REVISION, key_space.to_string());
        }
        put(headers::POSITION, self.position.to_string());
        put(headers::STORED_AT, self.stored_at.millis().to_string());
        match &self.failure {
            None => put(headers::PARKED, FOLLOWER.to_owned()),
            Some(Failure { reason, message }) => {
                put(headers::PARKED, reason.clone());
                put(headers::ERROR, one_line(message));
            }
        }
        let payload = match &self.kept {
            Kept::InSource => Vec::new(),
            Kept::Copied {
                subject,
                headers: own,
                payload,
            } => {
                put(headers::SUBJECT, subject.clone());
                for (name, value) in own {
                    put(
                        &format!("{}{name}", headers::ORIGINAL_PREFIX),
                        value.clone(),
                    );
                }
                payload.clone()
            }
        };
        (written, payload)
    }

    /// Reads what [`Parked::write`] writes.
    ///
    /// # Errors
    /// [`ParkedError`]
    pub fn read(message: &[(&str, &str)], payload: &[u8]) -> Result<Parked, ParkedError> {
        let find = |wanted: &str| {
            let found = message
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.map(|(_, value)| *value)
        };
        let header = |wanted: &'static str| find(wanted).ok_or(ParkedError::Header(wanted));
        let malformed = |wanted: &'static str| move || ParkedError::Header(wanted);
        let key_space = match find(headers::REVISION) {
            None => None,
            Some(text) => Some(KeySpace::parse(text).ok_or_else(malformed(headers::REVISION))?),
        };
        let position = EventPosition::parse(header(headers::POSITION)?)
            .ok_or_else(malformed(headers::POSITION))?;
        let stored_at = header(headers::STORED_AT)?
            .parse()
            .map_err(|_| ParkedError::Header(headers::STORED_AT))?;
        let failure = match header(headers::PARKED)? {
            "" => return Err(ParkedError::Header(headers::PARKED)),
            FOLLOWER => None,
            reason => Some(Failure::new(
                reason,
                find(headers::ERROR).unwrap_or_default(),
            )),
        };
        let own = |(name, value): &(&str, &str)| {
            headers::original(name).map(|name| (name.to_owned(), (*value).to_owned()))
        };
        let kept = match find(headers::SUBJECT) {
            None => Kept::InSource,
            Some(subject) => Kept::Copied {
                subject: subject.to_owned(),
                headers: message.iter().filter_map(own).collect(),
                payload: payload.to_vec(),
            },
        };
        Ok(Parked {
            key_space,
            position,
            failure,
            stored_at: Timestamp::from_millis(stored_at),
            kept,
        })
    }
}

/// A text that can stand in a header.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(ERROR_BYTES_MAX));
    for character in text.chars() {
        if line.len() + character.len_utf8() > ERROR_BYTES_MAX {
            break;
        }
        line.push(if character.is_control() {
            ' '
        } else {
            character
        });
    }
    line.trim().to_owned()
}

#[cfg(test)]
mod tests;
