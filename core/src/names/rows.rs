//! Names of the keys in a projection's rows bucket.
//!
//! | key | holds |
//! |---|---|
//! | `<key space>.<row token>` | a row |
//! | `<key space>._.<partition>` | a [`crate::projection::Checkpoint`] |
//! | `live` | the key space that readers follow, as text |
//! | `sources.<namespace>.<stream>` | the [`crate::projection::Lineage`] of a source |
//! | `rebuilds.<revision>` | how often this revision was rebuilt, as a decimal number |
//! | `rebuilds.<key space>.accepted` | a person accepted that these rows lack what the sources no longer hold |
//! | `decisions.<namespace>.<stream>.<generation>.<sequence>.<row token>` | a [`crate::projection::parked::Decision`]; `=nokey`: about what it has no key for, `=whole`: about all its rows |
//!
//! A key space is the revision, followed by `-<n>` after its n-th rebuild; it is hexadecimal, so no other key begins like one.

use super::position::number;
use crate::definition::{Revision, StreamRef};
use crate::names::{TokenError, decode_token, encode_token};
use crate::planted::{Bug, planted};
use crate::projection::Position;
use std::fmt;

/// The pointer that readers follow: its value is the text of the [`KeySpace`] whose rows are to be read.
pub const LIVE_KEY: &str = "live";
/// Keys, with wildcards, whose change may change which rows are folded and read: [`LIVE_KEY`], [`rebuild_key`] and [`source_key`].
pub const POINTER_KEYS: [&str; 3] = [LIVE_KEY, "rebuilds.>", "sources.>"];
/// First token of the keys of decisions; all of them match `decisions.>`.
pub const DECISIONS_PREFIX: &str = "decisions";
/// Token that stands for all events that have no key, or are no events; no key is encoded like this.
pub const KEYLESS_TOKEN: &str = "=nokey";

/// Stands in a decision for all rows of an event; no key is encoded like this.
pub const WHOLE_TOKEN: &str = "=whole";

/// A row's key as people write it where [`KEYLESS_TOKEN`] may stand too: a key that itself begins with `=` has one more.
///
/// # Errors
/// The token is none of a row.
pub fn key_of_token(token: &str) -> Result<String, TokenError> {
    if token == KEYLESS_TOKEN {
        return Ok(token.to_owned());
    }
    let key = decode_token(token)?;
    Ok(match key.starts_with('=') {
        true => format!("={key}"),
        false => key,
    })
}

/// The token of a key as people write it, see [`key_of_token`].
///
/// # Errors
/// It is too long.
pub fn token_of_key(key: &str) -> Result<String, TokenError> {
    if key == KEYLESS_TOKEN {
        return Ok(key.to_owned());
    }
    let key = match key.strip_prefix('=') {
        Some(rest) if rest.starts_with('=') => rest,
        _ => key,
    };
    encode_token(key)
}

/// Rows of one revision, folded from the beginning once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeySpace {
    /// The definition's revision.
    pub revision: Revision,
    /// How many times it was folded again from the beginning by request.
    pub rebuild: u32,
}

impl KeySpace {
    /// Key of a row.
    #[must_use]
    pub fn row_key(&self, token: &str) -> String {
        if planted(Bug::KeySpaceShared) {
            return format!("rows.{token}");
        }
        format!("{self}.{token}")
    }

    /// Matches every key of this key space.
    #[must_use]
    pub fn all_keys(&self) -> String {
        format!("{self}.>")
    }

    /// Key of a partition's checkpoint.
    #[must_use]
    pub fn checkpoint_key(&self, partition: u16) -> String {
        format!("{self}._.{partition}")
    }

    /// Reads what `Display` writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<KeySpace> {
        let (revision, rebuild) = match text.split_once('-') {
            None => (text, 0),
            Some((revision, rebuild)) => (
                revision,
                u32::try_from(number(rebuild)?).ok().filter(|n| *n > 0)?,
            ),
        };
        Some(KeySpace {
            revision: Revision::try_from(revision.to_owned()).ok()?,
            rebuild,
        })
    }
}

impl fmt::Display for KeySpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rebuild {
            0 => write!(f, "{}", self.revision),
            rebuild => write!(f, "{}-{rebuild}", self.revision),
        }
    }
}

/// Key of a source's lineage. Namespaces and names hold no `.`.
#[must_use]
pub fn source_key(stream: &StreamRef) -> String {
    format!("sources.{}.{}", stream.namespace, stream.name)
}

/// Key of the number of rebuilds of a revision.
#[must_use]
pub fn rebuild_key(revision: &Revision) -> String {
    format!("rebuilds.{revision}")
}

/// Key that says that rows may lack what the sources no longer hold.
#[must_use]
pub fn accepted_key(space: &KeySpace) -> String {
    format!("rebuilds.{space}.accepted")
}

/// Key of the decision about an event and one row (or [`KEYLESS_TOKEN`], or [`WHOLE_TOKEN`]).
#[must_use]
pub fn decision_key(stream: &StreamRef, position: Position, token: &str) -> String {
    let Position {
        generation,
        sequence,
    } = position;
    format!(
        "{DECISIONS_PREFIX}.{}.{}.{generation}.{sequence}.{token}",
        stream.namespace, stream.name
    )
}

/// The event and row that a decision's key names.
#[must_use]
pub fn parse_decision_key(key: &str) -> Option<(StreamRef, Position, &str)> {
    let mut tokens = key.split('.');
    if tokens.next() != Some(DECISIONS_PREFIX) {
        return None;
    }
    let mut part = || tokens.next().filter(|token| !token.is_empty());
    let (namespace, name) = (part()?.to_owned(), part()?.to_owned());
    let position = Position {
        generation: u32::try_from(number(part()?)?).ok()?,
        sequence: number(part()?)?,
    };
    let token = part()?;
    tokens
        .next()
        .is_none()
        .then_some((StreamRef { namespace, name }, position, token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn revision() -> Revision {
        Revision::try_from("0123456789abcdef".to_owned()).unwrap()
    }

    #[test]
    fn names_of_keys() {
        let space = KeySpace {
            revision: revision(),
            rebuild: 0,
        };
        assert_eq!(space.row_key("a=20b"), "0123456789abcdef.a=20b");
        assert_eq!(space.checkpoint_key(63), "0123456789abcdef._.63");
        let again = KeySpace {
            rebuild: 2,
            ..space
        };
        assert_eq!(again.row_key("a"), "0123456789abcdef-2.a");
        assert_eq!(KeySpace::parse("0123456789abcdef-2"), Some(again));
        for text in [
            "",
            "live",
            "0123456789abcdef-0",
            "0123456789abcdef-",
            "0123456789abcdef-01",
            "0123456789ABCDEF",
            "0123456789abcdef-1-1",
        ] {
            assert_eq!(KeySpace::parse(text), None, "{text}");
        }
        let orders = StreamRef {
            namespace: "shop".to_owned(),
            name: "orders".to_owned(),
        };
        assert_eq!(source_key(&orders), "sources.shop.orders");
        assert_eq!(rebuild_key(&revision()), "rebuilds.0123456789abcdef");
        assert_eq!(
            accepted_key(&KeySpace::parse("0123456789abcdef-2").unwrap()),
            "rebuilds.0123456789abcdef-2.accepted"
        );
        let position = Position {
            generation: 1,
            sequence: 7,
        };
        assert_eq!(
            decision_key(&orders, position, "o-1"),
            "decisions.shop.orders.1.7.o-1"
        );
    }

    #[test]
    fn no_key_is_encoded_as_keyless() {
        assert!(decode_token(KEYLESS_TOKEN).is_err());
    }

    #[test]
    fn what_has_no_key_is_no_key() {
        assert_eq!(token_of_key("=nokey").unwrap(), KEYLESS_TOKEN);
        assert_eq!(key_of_token(KEYLESS_TOKEN).unwrap(), "=nokey");
        assert_eq!(token_of_key("==nokey").unwrap(), "=3Dnokey");
        assert_eq!(key_of_token("=3Dnokey").unwrap(), "==nokey");
    }

    proptest! {
        #[test]
        fn a_key_as_people_write_it_is_read_as_it_was_written(key in "(=|nokey|\\PC){0,10}") {
            let token = encode_token(&key).unwrap();
            prop_assert_eq!(token_of_key(&key_of_token(&token).unwrap()).unwrap(), token);
        }

        #[test]
        fn a_decision_is_found_by_its_key(generation in any::<u32>(), sequence in any::<u64>(), token in "[A-Za-z0-9=_-]{1,20}") {
            let stream = StreamRef { namespace: "shop".to_owned(), name: "orders".to_owned() };
            let position = Position { generation, sequence };
            let key = decision_key(&stream, position, &token);
            prop_assert_eq!(parse_decision_key(&key), Some((stream, position, &*token)));
        }

        #[test]
        fn no_key_panics(key in "decisions(\\.[a-z0-9]{0,3}){0,7}|\\PC{0,30}") {
            if let Some((stream, position, token)) = parse_decision_key(&key) {
                prop_assert_eq!(decision_key(&stream, position, token), key.clone());
            }
            let _ = KeySpace::parse(&key);
        }
    }
}
