//! One message of the parked stream.

use super::super::fold::FoldError;
use super::super::keyspace::KeySpace;
use super::super::position::Position;
use super::super::row::{POSITION_HEADER, Positions, REVISION_HEADER, RowError, Sources};
use crate::timestamp::Timestamp;

/// Header: why the event can't be folded, a stable word; [`FOLLOWER`] if it only follows one that can't.
pub const PARKED_HEADER: &str = "Tidemill-Parked";
/// Header: the same for people; it never holds data of the event.
pub const ERROR_HEADER: &str = "Tidemill-Error";
/// Header: when the source stored the event, in milliseconds since 1970.
pub const STORED_AT_HEADER: &str = "Tidemill-Stored-At";
/// Header: the subject the event was stored at. Absent: the event was not copied and is read from its source.
pub const SUBJECT_HEADER: &str = "Tidemill-Subject";
/// Prefix of the names of the event's own headers, so that none of them means anything to the server here.
pub const ORIGINAL_PREFIX: &str = "Tidemill-H-";
/// Value of [`PARKED_HEADER`] for what follows.
pub const FOLLOWER: &str = "Follower";
/// Longest text of [`ERROR_HEADER`], in bytes.
const ERROR_BYTES_MAX: usize = 1000;

/// An event that waits, as the parked stream keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The rows it waits for.
    pub key_space: KeySpace,
    /// Index of its source.
    pub source: usize,
    /// Its position there.
    pub position: Position,
    /// Stable word, and the same for people; `None` if it only follows.
    pub failure: Option<(String, String)>,
    /// When its source stored it.
    pub stored_at: Timestamp,
    /// The event.
    pub kept: Kept,
}

/// Where a waiting event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// In this very message.
    Copied {
        /// Subject it was stored at.
        subject: String,
        /// Its headers, in order.
        headers: Vec<(String, String)>,
        /// Its payload.
        payload: Vec<u8>,
    },
    /// Only in its source: the copy would be larger than the server takes.
    InSource,
}

/// Why a message of the parked stream can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// A header is missing or isn't what this version writes.
    #[error("header `{0}` is missing or not as Tidemill writes it")]
    Header(&'static str),
    /// Its position.
    #[error("position of the parked event")]
    Position(#[from] RowError),
}

impl Entry {
    /// The failure of a fold, as an entry keeps it.
    #[must_use]
    pub fn failure_of(error: &FoldError) -> (String, String) {
        (error.reason().to_owned(), error.to_string())
    }

    /// Headers and payload of the message.
    #[must_use]
    pub fn write(&self, sources: &Sources) -> (Vec<(String, String)>, Vec<u8>) {
        let mut positions = Positions::default();
        positions.set(self.source, self.position);
        let mut written = vec![
            (REVISION_HEADER.to_owned(), self.key_space.to_string()),
            (POSITION_HEADER.to_owned(), sources.write(&positions)),
            (
                STORED_AT_HEADER.to_owned(),
                self.stored_at.millis().to_string(),
            ),
        ];
        let mut put = |name: &str, value: String| written.push((name.to_owned(), value));
        match &self.failure {
            None => put(PARKED_HEADER, FOLLOWER.to_owned()),
            Some((reason, message)) => {
                put(PARKED_HEADER, reason.clone());
                put(ERROR_HEADER, one_line(message));
            }
        }
        match &self.kept {
            Kept::InSource => (written, Vec::new()),
            Kept::Copied {
                subject,
                headers,
                payload,
            } => {
                put(SUBJECT_HEADER, subject.clone());
                for (name, value) in headers {
                    put(&format!("{ORIGINAL_PREFIX}{name}"), value.clone());
                }
                (written, payload.clone())
            }
        }
    }

    /// Whether these are headers that a worker writes, as far as can be told without knowing the sources. Anybody who may publish to the
    /// parked stream can put something else there.
    ///
    /// # Errors
    /// [`EntryError::Header`]
    pub fn recognise<'a>(find: impl Fn(&str) -> Option<&'a str>) -> Result<(), EntryError> {
        let check = |name: &'static str, is: fn(&str) -> bool| match find(name) {
            Some(value) if is(value) => Ok(()),
            _ => Err(EntryError::Header(name)),
        };
        check(REVISION_HEADER, |value| KeySpace::parse(value).is_some())?;
        check(POSITION_HEADER, |value| {
            value
                .split_once('=')
                .is_some_and(|(stream, position)| stream.contains('/') && position.contains(':'))
        })?;
        check(STORED_AT_HEADER, |value| value.parse::<i64>().is_ok())?;
        check(PARKED_HEADER, |value| !value.is_empty())
    }

    /// Reads what [`Entry::write`] writes.
    ///
    /// # Errors
    /// [`EntryError`]
    pub fn read(
        sources: &Sources,
        headers: &[(&str, &str)],
        payload: &[u8],
    ) -> Result<Entry, EntryError> {
        let find = |wanted: &'static str| {
            headers
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
                .map(|(_, value)| *value)
        };
        let header = |wanted: &'static str| find(wanted).ok_or(EntryError::Header(wanted));
        let key_space =
            KeySpace::parse(header(REVISION_HEADER)?).ok_or(EntryError::Header(REVISION_HEADER))?;
        let positions = sources.read(header(POSITION_HEADER)?)?;
        let mut set =
            (0..sources.len()).filter(|source| positions.get(*source) != Position::default());
        let (Some(source), None) = (set.next(), set.next()) else {
            return Err(EntryError::Header(POSITION_HEADER));
        };
        let stored_at = header(STORED_AT_HEADER)?
            .parse()
            .map_err(|_| EntryError::Header(STORED_AT_HEADER))?;
        let failure = match header(PARKED_HEADER)? {
            FOLLOWER => None,
            reason => Some((
                reason.to_owned(),
                find(ERROR_HEADER).unwrap_or_default().to_owned(),
            )),
        };
        let original = |(name, value): &(&str, &str)| {
            let (prefix, rest) = name.split_at_checked(ORIGINAL_PREFIX.len())?;
            prefix
                .eq_ignore_ascii_case(ORIGINAL_PREFIX)
                .then(|| (rest.to_owned(), (*value).to_owned()))
        };
        let kept = match find(SUBJECT_HEADER) {
            None => Kept::InSource,
            Some(subject) => Kept::Copied {
                subject: subject.to_owned(),
                headers: headers.iter().filter_map(original).collect(),
                payload: payload.to_vec(),
            },
        };
        let stored_at = Timestamp::from_millis(stored_at);
        Ok(Entry {
            key_space,
            source,
            position: positions.get(source),
            failure,
            stored_at,
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
