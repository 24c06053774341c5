//! A row, and how it is kept: a JSON object as KV value, and two headers.

use super::position::{Lineage, Position, PositionError};
use crate::definition::StreamRef;
use crate::json::{Object, ParseError, Value};
use crate::names::{EventPosition, headers, place};
use crate::planted::{Bug, planted};

/// Largest row, in bytes of its JSON: what the server's default payload limit of 1 MiB takes together with the headers.
pub const ROW_BYTES_MAX: usize = 1_000_000;

/// The sources of a projection, in the order of its definition, with the histories they had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources(Vec<Source>);

/// One source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The EventStream.
    pub stream: StreamRef,
    /// The histories it had.
    pub lineage: Lineage,
}

/// Positions in several sources, by the source's index in the definition. A source without one is at [`Position::default`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    // Nearly all projections have one source: no allocation for it.
    first: Position,
    rest: Vec<Position>,
}

impl Positions {
    /// Position in the source of this index.
    #[must_use]
    pub fn get(&self, source: usize) -> Position {
        let source = slot(source);
        match source.checked_sub(1) {
            None => self.first,
            Some(index) => self.rest.get(index).copied().unwrap_or_default(),
        }
    }

    /// Sets the position in the source of this index.
    pub fn set(&mut self, source: usize, position: Position) {
        let source = slot(source);
        match source.checked_sub(1) {
            None => self.first = position,
            Some(index) => {
                if self.rest.len() <= index {
                    self.rest.resize(index + 1, Position::default());
                }
                if let Some(slot) = self.rest.get_mut(index) {
                    *slot = position;
                }
            }
        }
    }

    /// Whether no event of any source stands behind it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        std::iter::once(&self.first)
            .chain(&self.rest)
            .all(|position| *position == Position::default())
    }
}

fn slot(source: usize) -> usize {
    match planted(Bug::OnePositionForAllSources) {
        true => 0,
        false => source,
    }
}

impl Sources {
    /// Sources in the order of the definition.
    #[must_use]
    pub fn new(sources: Vec<Source>) -> Sources {
        Sources(sources)
    }

    /// In the order of the definition.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Source> {
        self.0.iter()
    }

    /// The source of this index.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&Source> {
        self.0.get(index)
    }

    /// Number of sources.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What header [`headers::POSITION`] of a row holds: a [`crate::names::EventPosition`] for each source, joined by `;`. Sources without a position are left out.
    #[must_use]
    pub fn write(&self, positions: &Positions) -> String {
        let mut text = String::with_capacity(64);
        for (index, source) in self.0.iter().enumerate() {
            let position = positions.get(index);
            if position == Position::default() {
                continue;
            }
            if !text.is_empty() {
                text.push(';');
            }
            text.push_str(&source.stream.namespace);
            text.push('/');
            text.push_str(&source.stream.name);
            text.push('=');
            text.push_str(&source.lineage.write(position));
        }
        text
    }

    /// At least the bytes of anything that [`Sources::write`] writes.
    #[must_use]
    pub fn positions_bytes_max(&self) -> usize {
        let of_source = |source: &Source| {
            let stream = source.stream.namespace.len() + "/".len() + source.stream.name.len();
            let places = (0..=source.lineage.current()).map(|generation| {
                let position = Position {
                    generation,
                    sequence: u64::MAX,
                };
                source.lineage.write(position).len()
            });
            stream + "=;".len() + places.max().unwrap_or(0)
        };
        self.0.iter().map(of_source).sum()
    }

    /// Reads what [`Sources::write`] writes.
    ///
    /// # Errors
    /// [`RowError`]
    pub fn read(&self, text: &str) -> Result<Positions, RowError> {
        let mut positions = Positions::default();
        for part in text.split(';').filter(|part| !part.is_empty()) {
            let (stream, position) = part.split_once('=').ok_or(RowError::Header)?;
            let (namespace, name) = stream.split_once('/').ok_or(RowError::Header)?;
            let (index, source) = self.named(namespace, name)?;
            positions.set(index, source.lineage.read(position)?);
        }
        Ok(positions)
    }
}

impl Sources {
    /// The source that a position is in, by its index, and the position there.
    ///
    /// # Errors
    /// [`RowError::UnknownSource`], [`RowError::Position`]
    pub fn find(&self, position: &EventPosition) -> Result<(usize, Position), RowError> {
        let EventPosition {
            stream,
            incarnation,
            generation,
            sequence,
        } = position;
        let (index, source) = self.named(&stream.namespace, &stream.name)?;
        let text = place(incarnation, *generation, *sequence);
        Ok((index, source.lineage.read(&text)?))
    }

    fn named(&self, namespace: &str, name: &str) -> Result<(usize, &Source), RowError> {
        let is =
            |source: &Source| source.stream.namespace == namespace && source.stream.name == name;
        let found = self.0.iter().enumerate().find(|(_, source)| is(source));
        found.ok_or_else(|| {
            RowError::UnknownSource(format!("{namespace}/{name}").chars().take(200).collect())
        })
    }
}

/// Why what is stored under a row's key is no row of this projection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// The value is no JSON object.
    #[error("the stored row is not JSON")]
    Json(#[source] ParseError),
    /// The value is JSON, but no object.
    #[error("the stored row is a {0}, not an object")]
    NotAnObject(&'static str),
    /// Somebody else wrote it, or it was edited by hand.
    #[error(
        "the stored row has no header `{}` as Tidemill writes it",
        headers::POSITION
    )]
    Header,
    /// Its position names a stream that isn't a source.
    #[error("the stored row has a position in `{0}`, which is no source of this projection")]
    UnknownSource(String),
    /// Its position is none.
    #[error("position of the stored row")]
    Position(#[from] PositionError),
}

/// One row as it is folded.
#[derive(Clone, Debug)]
pub struct Row {
    /// Always an object; a `Value` so that expressions can look at it as `row`.
    pub(super) columns: Value,
    /// False: it was deleted, or never was; `columns` is empty then.
    pub(super) exists: bool,
    pub(super) positions: Positions,
    /// At least the bytes of its JSON; counted up while folding, exact where it was read.
    pub(super) bytes: usize,
}

impl PartialEq for Row {
    /// The quick count of bytes is no part of what a row is.
    fn eq(&self, other: &Row) -> bool {
        self.columns == other.columns
            && self.exists == other.exists
            && self.positions == other.positions
    }
}

impl Row {
    /// A row that nothing was ever folded into.
    #[must_use]
    pub fn missing() -> Row {
        Row {
            columns: Value::Object(Object::new()),
            exists: false,
            positions: Positions::default(),
            bytes: 0,
        }
    }

    /// A stored row.
    ///
    /// # Errors
    /// [`RowError`]
    pub fn read(sources: &Sources, value: &[u8], positions: &str) -> Result<Row, RowError> {
        let positions = stored_positions(sources, positions)?;
        match Value::parse(value).map_err(RowError::Json)? {
            columns @ Value::Object(_) => Ok(Row {
                columns,
                exists: true,
                positions,
                bytes: value.len(),
            }),
            other => Err(RowError::NotAnObject(other.type_name())),
        }
    }

    /// A stored tombstone.
    ///
    /// # Errors
    /// [`RowError`]
    pub fn read_deleted(sources: &Sources, positions: &str) -> Result<Row, RowError> {
        let positions = stored_positions(sources, positions)?;
        Ok(Row {
            positions,
            ..Row::missing()
        })
    }

    /// Its columns: an object, empty where there is no row.
    #[must_use]
    pub fn columns(&self) -> &Value {
        &self.columns
    }

    /// False: it was deleted, or never was.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.exists
    }

    /// Position of the last event folded into it, per source.
    #[must_use]
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// What its KV value holds: compact JSON, keys sorted.
    #[must_use]
    pub fn value(&self) -> String {
        let mut text = String::with_capacity(self.bytes + 16);
        self.columns.write_json(&mut text);
        text
    }

    /// At least the bytes of its JSON.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

fn stored_positions(sources: &Sources, text: &str) -> Result<Positions, RowError> {
    let positions = sources.read(text)?;
    // Every row we write has been folded from an event.
    if positions.is_empty() {
        Err(RowError::Header)
    } else {
        Ok(positions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sources() -> Sources {
        let source = |name: &str, lineage| Source {
            stream: StreamRef {
                namespace: "shop".to_owned(),
                name: name.to_owned(),
            },
            lineage,
        };
        Sources::new(vec![
            source("orders", Lineage::first("k2")),
            source("payments", Lineage::first("p").accept("p", 7).unwrap()),
        ])
    }

    fn at(generation: u32, sequence: u64) -> Position {
        Position {
            generation,
            sequence,
        }
    }

    #[test]
    fn the_header_names_every_source_that_was_folded() {
        let sources = sources();
        let mut positions = Positions::default();
        assert_eq!(sources.write(&positions), "");
        positions.set(1, at(1, 9));
        assert_eq!(sources.write(&positions), "shop/payments=p.1:9");
        positions.set(0, at(0, 12));
        let text = "shop/orders=k2:12;shop/payments=p.1:9";
        assert_eq!(sources.write(&positions), text);
        assert_eq!(sources.read(text), Ok(positions));
    }

    #[test]
    fn what_tidemill_did_not_write_is_refused() {
        let sources = sources();
        for header in [
            "",
            ";",
            "shop/orders",
            "orders=k2:1",
            "shop/orders=k2",
            "shop/orders=k3:1",
            "shop/other=k2:1",
            "shop/orders=k2:0",
        ] {
            assert!(Row::read(&sources, b"{}", header).is_err(), "{header}");
            assert!(Row::read_deleted(&sources, header).is_err(), "{header}");
        }
        for value in ["", "[]", "1", "{", "null"] {
            assert!(
                Row::read(&sources, value.as_bytes(), "shop/orders=k2:1").is_err(),
                "{value}"
            );
        }
    }

    #[test]
    fn a_row_is_read_as_it_was_written() {
        let text = r#"{"a":1.10,"b":{"c":[1,null]},"é":"x\"y"}"#;
        let row = Row::read(&sources(), text.as_bytes(), "shop/orders=k2:1").unwrap();
        assert_eq!(row.value(), text);
        assert!(row.exists());
        let deleted = Row::read_deleted(&sources(), "shop/orders=k2:1").unwrap();
        assert!(!deleted.exists() && deleted.columns().to_json() == "{}");
    }

    proptest! {
        #[test]
        fn positions_are_read_as_they_were_written(orders in any::<u64>(), generation in 0_u32..2, payments in any::<u64>()) {
            let mut positions = Positions::default();
            positions.set(0, at(0, orders));
            positions.set(1, if payments == 0 { at(0, 0) } else { at(generation, payments) });
            let sources = sources();
            let written = sources.write(&positions);
            prop_assert!(written.len() <= sources.positions_bytes_max());
            let read = sources.read(&written).unwrap();
            prop_assert_eq!(read.get(0), positions.get(0));
            prop_assert_eq!(read.get(1), positions.get(1));
        }

        #[test]
        fn no_header_panics(text in "[a-z0-9/=:;.]{0,40}|\\PC{0,40}") {
            let _ = sources().read(&text);
        }
    }
}
