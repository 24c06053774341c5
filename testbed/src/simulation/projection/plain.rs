//! Events, what is defined to be done with them, and what must come of it: calculated event by event in whole cents, with nothing of
//! the machine.

use crate::simulation::Random;
use std::collections::{BTreeMap, BTreeSet};
use tidemill_core::envelope::Event;
use tidemill_core::json::Value;
use tidemill_core::projection::KEYLESS_TOKEN;
use tidemill_core::timestamp::Timestamp;

/// Names of the source streams.
pub const NAMES: [&str; 3] = ["a", "b", "c"];
/// Keys of rows.
const KEYS: u64 = 6;

/// What an event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saying {
    /// Sets a column, and another to what the first was.
    Put,
    /// Adds to its row and to another one.
    Add,
    /// Sets a column if it isn't there.
    Once,
    /// Deletes the row, where there is one source.
    Del,
    /// Copies a column that may not be there.
    Need,
    /// Can't be folded, ever.
    Bad,
    /// Its second handler can't.
    Half,
    /// Nobody wants it.
    Other,
}

/// An event of a source.
#[derive(Clone, Debug)]
pub struct Given {
    /// What it says.
    pub saying: Saying,
    /// Number of its key.
    pub key: u64,
    /// Number of the other row's key; `None` = that has none.
    pub other: Option<u64>,
    /// Its number, in hundredths.
    pub cents: i64,
    /// The same as JSON.
    pub spelled: String,
    /// As the machine gets it.
    pub event: Event,
}

impl Given {
    /// Any event.
    pub fn seeded(number: usize, random: &mut Random) -> Given {
        let saying = match random.below(40) {
            0..10 => Saying::Put,
            10..24 => Saying::Add,
            24..28 => Saying::Once,
            28..30 => Saying::Del,
            30..36 => Saying::Need,
            36 => Saying::Bad,
            37 => Saying::Half,
            _ => Saying::Other,
        };
        let (key, other) = (random.below(KEYS), random.below(KEYS * 4 + 1));
        let other = (other < KEYS * 4).then_some(other % KEYS);
        let number_ = i64::try_from(random.below(2000)).unwrap_or(0) - 1000;
        let sign = if number_ < 0 { "-" } else { "" };
        let whole = number_.unsigned_abs();
        let (cents, spelled) = match random.below(3) {
            0 => (number_ * 100, number_.to_string()),
            1 => (number_ * 10, format!("{sign}{}.{}", whole / 10, whole % 10)),
            _ => (number_, format!("{sign}{}.{:02}", whole / 100, whole % 100)),
        };
        let to = other.map_or_else(|| "null".to_owned(), |other| format!("\"k{other}\""));
        let data = format!(r#"{{"n":{spelled},"other":{to}}}"#);
        let event = Event {
            // Ids come again: what an event is to a row, its position says.
            id: format!("e-{}", random.below(number as u64 / 2 + 1)),
            source: "/simulation".to_owned(),
            event_type: format!("{saying:?}"),
            subject: Some(format!("k{key}")),
            time: None,
            extensions: BTreeMap::new(),
            data: Value::parse(data.as_bytes()).unwrap_or(Value::Null),
            stored_at: Timestamp::from_millis(i64::try_from(number).unwrap_or(0)),
        };
        Given {
            saying,
            key,
            other,
            cents,
            spelled,
            event,
        }
    }
}

/// The handlers of a definition with so many sources, as JSON. With several of them each stream has columns of its own, and sums are
/// everybody's.
pub fn handlers(sources: usize) -> String {
    let mut all = Vec::new();
    for name in NAMES.iter().take(sources) {
        let stream = format!(r#""stream":{{"namespace":"shop","name":"{name}"}}"#);
        for rest in [
            format!(
                r#""type":"Put","set":{{"{name}":"=event.data.n","{name}Before":"=has(row.{name}) ? row.{name} : null"}}"#
            ),
            format!(
                r#""type":"Once","when":"!has(row.{name})","set":{{"{name}":"=event.data.n"}}"#
            ),
            format!(r#""type":"Need","set":{{"{name}Seen":"=row.{name}"}}"#),
            format!(r#""type":"Bad","set":{{"{name}Seen":"=event.data.missing"}}"#),
            r#""type":"Half","increment":{"count":1}"#.to_owned(),
            format!(r#""type":"Half","set":{{"{name}Seen":"=event.data.missing"}}"#),
        ] {
            all.push(format!("{{{stream},{rest}}}"));
        }
    }
    all.push(r#"{"type":"Add","increment":{"sum":"=event.data.n","count":1}}"#.to_owned());
    all.push(
        r#"{"type":"Add","key":"event.data.other","increment":{"others":"=event.data.n"}}"#
            .to_owned(),
    );
    if sources == 1 {
        all.push(r#"{"type":"Del","delete":true}"#.to_owned());
    }
    format!("[{}]", all.join(","))
}

/// A column as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// This very JSON.
    Text(String),
    /// This number, in hundredths.
    Cents(i64),
}

/// What must come of some streams.
#[derive(Debug, Default)]
pub struct Plain {
    /// Rows by token, with their columns.
    pub rows: BTreeMap<String, BTreeMap<String, Cell>>,
    /// What can't be folded: source, sequence, token of the row.
    pub failing: BTreeSet<(usize, u64, String)>,
    /// Events that a handler is for.
    pub matched: u64,
    /// Events that none is for.
    pub skipped: u64,
}

/// What comes of streams, one after the other, if whatever can't be folded is left out.
pub fn plain(streams: &[Vec<Given>]) -> Plain {
    let mut plain = Plain::default();
    for (source, stream) in streams.iter().enumerate() {
        let name = NAMES.get(source).copied().unwrap_or_default();
        for (sequence, given) in (1..).zip(stream) {
            plain.take(source, sequence, name, given, streams.len() == 1);
        }
    }
    plain
}

impl Plain {
    fn take(&mut self, source: usize, sequence: u64, name: &str, given: &Given, only: bool) {
        let token = format!("k{}", given.key);
        let text = || Cell::Text(given.spelled.clone());
        let (seen, before) = (format!("{name}Seen"), format!("{name}Before"));
        self.matched += 1;
        let mut fails = |token: &str| {
            self.failing.insert((source, sequence, token.to_owned()));
        };
        match given.saying {
            Saying::Put => {
                let row = self.rows.entry(token).or_default();
                let was = row.insert(name.to_owned(), text());
                row.insert(before, was.unwrap_or_else(|| Cell::Text("null".to_owned())));
            }
            Saying::Once => {
                let row = self.rows.entry(token).or_default();
                row.entry(name.to_owned()).or_insert_with(text);
            }
            Saying::Need => match self.rows.get_mut(&token) {
                Some(row) if row.contains_key(name) => {
                    let of = row.get(name).cloned();
                    row.extend(of.map(|of| (seen, of)));
                }
                _ => fails(&token),
            },
            Saying::Bad | Saying::Half => fails(&token),
            Saying::Add => {
                if given.other.is_none() {
                    fails(KEYLESS_TOKEN);
                }
                self.add(&token, "sum", given.cents);
                self.add(&token, "count", 100);
                if let Some(other) = given.other {
                    self.add(&format!("k{other}"), "others", given.cents);
                }
            }
            Saying::Del if only => {
                self.rows.remove(&token);
            }
            Saying::Del | Saying::Other => {
                self.matched -= 1;
                self.skipped += 1;
            }
        }
    }

    fn add(&mut self, token: &str, column: &str, cents: i64) {
        let row = self.rows.entry(token.to_owned()).or_default();
        let cell = row.entry(column.to_owned()).or_insert(Cell::Cents(0));
        if let Cell::Cents(sum) = cell {
            *sum += cents;
        }
    }
}
