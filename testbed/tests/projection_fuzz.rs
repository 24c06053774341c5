//! Any event in any state of any row: nothing panics, an event counts once or changes nothing, and what is stored can be
//! read again.
//!
//! `FUZZ_CASES` (default 100,000: a second) says how many events are tried, `FUZZ_FIRST` with which seed they begin.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test, also outside of its #[test] functions"
)]

use std::collections::BTreeMap;
use tidemill_core::definition::{OnError, ProjectionDefinition, ProjectionPolicy, StreamRef};
use tidemill_core::envelope::Event;
use tidemill_core::json::Value;
use tidemill_core::names::PROJECTION_PARTITIONS;
use tidemill_core::projection::parked::{
    Admission, Consequence, ParkedKeys, Waiting, admit, consequence,
};
use tidemill_core::projection::{
    Folded, Lineage, Position, Projection, Row, Source, Sources, Touch, event_partition,
};
use tidemill_core::timestamp::Timestamp;
use tidemill_testbed::simulation::Random;

/// Events of one world: rows live long enough to grow, to be deleted and to come back.
const EVENTS: u64 = 250;

/// Handlers that look into everything an event may hold.
const SHAPES: [(&[&str], &str); 3] = [
    (
        &["a"],
        r#"[
        {"set":{"last":"=event.data","before":"=has(row.last) ? row.last : null","type":"=event.type"}},
        {"type":"Add","increment":{"sum":"=event.data","n":1}},
        {"type":"Del","delete":true}
    ]"#,
    ),
    (
        &["a"],
        r#"[
        {"type":"Add","increment":{"sum":"=event.data.n"}},
        {"type":"Add","key":"event.data.other","increment":{"others":"=event.data.n"}},
        {"type":"Put","when":"!has(row.last) || row.last < event.data.n","set":{"last":"=event.data.n","twice":"=event.data.n * 2"}},
        {"type":"Put","when":"event.data.items.exists(i, i == 1)","set":{"sizes":"=event.data.items.map(i, string(i))"}},
        {"type":"Del","when":"has(row.sum) && row.sum > 0","delete":true}
    ]"#,
    ),
    (
        &["a", "b"],
        r#"[
        {"stream":{"namespace":"s","name":"a"},"key":"event.data","set":{"deep":[{"a":"=event.data"},"=event.extension"]}},
        {"stream":{"namespace":"s","name":"b"},"key":"event.id","increment":{"n":"=event.data"}},
        {"stream":{"namespace":"s","name":"a"},"type":"Put","key":"event.time + event.source","set":{"wrap":"=[[event.data], row.deep]"}},
        {"type":"Add","increment":{"both":"=event.data"}}
    ]"#,
    ),
];

const DATA: &[&str] = &[
    "null",
    "true",
    "0",
    "1",
    "-1",
    "0.1",
    "1.10",
    "-0.0",
    "9223372036854775807",
    "-9223372036854775808",
    "99999999999999999999",
    "9999999999999999999999999999",
    "0.0000000000000000000000000001",
    "1e300",
    "1e-300",
    "1e999",
    "\"\"",
    "\"a\"",
    "\"é😀\\u0000\"",
    "[]",
    "[1,[2,[3]]]",
    "{}",
    r#"{"n":1}"#,
    r#"{"n":-2.50,"other":"k1","items":[1,2]}"#,
    r#"{"n":1e17,"other":7,"items":[1]}"#,
    r#"{"n":"1","other":null,"items":{"a":1}}"#,
    r#"{"n":null,"other":true,"items":[[1],"x",null]}"#,
    r#"{"n":9223372036854775807,"other":"","items":[]}"#,
];

fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn stream(name: &str) -> StreamRef {
    StreamRef {
        namespace: "s".to_owned(),
        name: name.to_owned(),
    }
}

struct World<'a> {
    random: Random,
    projection: &'a Projection,
    sources: Sources,
    policy: ProjectionPolicy,
    rows: BTreeMap<String, Row>,
    parked: ParkedKeys,
    next: [u64; 2],
    seen: BTreeMap<&'static str, u64>,
}

#[test]
fn any_event_in_any_state_of_any_row() {
    let projections: Vec<Projection> = SHAPES
        .iter()
        .map(|(sources, handlers)| {
            let sources = sources.iter().map(|name| stream(name)).collect();
            let mut definition = ProjectionDefinition::new(sources, "event.subject");
            definition.handlers = serde_json::from_str(handlers).unwrap();
            Projection::compile(&definition).unwrap()
        })
        .collect();
    let (first, cases) = (number("FUZZ_FIRST", 1), number("FUZZ_CASES", 100_000));
    let worlds = cases.div_ceil(EVENTS);
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in first..first + worlds {
        let shape = usize::try_from(seed).unwrap() % SHAPES.len();
        let mut world = World::new(&projections[shape], SHAPES[shape].0, seed);
        for _ in 0..EVENTS {
            world.one();
        }
        for (what, count) in world.seen {
            *seen.entry(what).or_insert(0) += count;
        }
    }
    println!("{} events: {seen:?}", worlds * EVENTS);
    if worlds >= 20 {
        for what in [
            "Stored",
            "Nothing",
            "Passed",
            "NoSuchKey",
            "NotANumber",
            "keyless",
            "Follows",
            "Stop",
        ] {
            assert!(seen.contains_key(what), "no event was {what}: {seen:?}");
        }
    }
}

impl<'a> World<'a> {
    fn new(projection: &'a Projection, sources: &[&str], seed: u64) -> World<'a> {
        let source = |name: &str| Source {
            stream: stream(name),
            lineage: Lineage::first("i"),
        };
        World {
            random: Random::new(seed),
            projection,
            sources: Sources::new(sources.iter().map(|name| source(name)).collect()),
            policy: ProjectionPolicy {
                on_error: OnError::Park,
                max_parked_keys: 3,
            },
            rows: BTreeMap::new(),
            parked: ParkedKeys::new(),
            next: [1, 1],
            seen: BTreeMap::new(),
        }
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.random.below(limit as u64)).unwrap()
    }

    fn event(&mut self) -> Event {
        let types = ["Add", "Put", "Del", "Other", ""];
        let data = DATA[self.below(DATA.len())];
        let mut extensions = BTreeMap::new();
        if self.random.percent(50) {
            extensions.insert("extension".to_owned(), "x".to_owned());
        }
        let long = self.random.percent(2);
        let key = self.below(6);
        Event {
            id: format!("e-{}", self.below(4)),
            source: "/s".to_owned(),
            event_type: types[self.below(types.len())].to_owned(),
            subject: match key {
                5 => None,
                _ if long => Some("k".repeat(300)),
                key => Some(format!("k{key}")),
            },
            time: None,
            extensions,
            // What is no JSON number of ours is left out here: the envelope's fuzz is about that.
            data: Value::parse(data.as_bytes()).unwrap_or(Value::Null),
            stored_at: Timestamp::from_millis(i64::try_from(self.random.below(3)).unwrap()),
        }
    }

    fn one(&mut self) {
        let event = self.event();
        let source = self.below(self.sources.len());
        // Mostly the next one, now and then one that was read before.
        let sequence = match self.random.percent(80) {
            true => {
                self.next[source] += 1 + self.random.below(3);
                self.next[source]
            }
            false => 1 + self.random.below(self.next[source]),
        };
        let position = Position {
            generation: 0,
            sequence,
        };
        assert!(event_partition(Some(&event)) < PROJECTION_PARTITIONS);
        let touches = self.projection.touches(source, &event);
        assert_eq!(touches, self.projection.touches(source, &event));
        for (index, touch) in touches.iter().enumerate() {
            let again = touches[..index]
                .iter()
                .any(|other| other.token == touch.token);
            assert!(!again, "a row is touched twice: {event:?}");
            assert!(touch.partition < PROJECTION_PARTITIONS);
            if touch.is_keyless() {
                self.count("keyless");
            }
            self.touch(touch, source, position, &event);
        }
    }

    fn touch(&mut self, touch: &Touch, source: usize, position: Position, event: &Event) {
        let row = self.rows.remove(&*touch.token);
        let mut row = row.unwrap_or_else(Row::missing);
        let before = row.clone();
        let decided = self.random.percent(3);
        let at_row = row.positions().get(source);
        let admission = admit(
            &self.parked,
            &touch.token,
            source,
            position,
            at_row,
            decided,
        );
        let parks = match admission {
            Admission::Fold => {
                let folded = self
                    .projection
                    .fold(&mut row, touch, source, position, event);
                self.check(&before, &row, source, position, folded.as_ref().ok());
                let again = self
                    .projection
                    .fold(&mut row.clone(), touch, source, position, event);
                match folded {
                    Ok(Folded::Stored) => {
                        assert_eq!(again, Ok(Folded::Passed), "it counted twice: {event:?}");
                        self.count("Stored");
                        false
                    }
                    Ok(Folded::Nothing) => {
                        self.count("Nothing");
                        false
                    }
                    Ok(Folded::Passed) => {
                        self.count("Passed");
                        false
                    }
                    Err(error) => {
                        assert_eq!(again.as_ref(), Err(&error), "another error: {event:?}");
                        assert!(!error.to_string().is_empty());
                        self.count(error.reason());
                        match consequence(&self.policy, &self.parked, &touch.token) {
                            Consequence::Park => true,
                            Consequence::LeaveOut => false,
                            Consequence::Stop(_) => {
                                self.count("Stop");
                                // Somebody decided about what waits.
                                self.parked = ParkedKeys::new();
                                false
                            }
                        }
                    }
                }
            }
            Admission::Follows => {
                self.count("Follows");
                true
            }
            Admission::Passed => {
                self.count("Passed");
                false
            }
            Admission::Waits | Admission::LeftOut => false,
        };
        if parks {
            let waiting = Waiting {
                kept_at: position.sequence,
                source,
                position,
                reason: None,
            };
            self.parked.add(&touch.token, waiting);
        }
        self.rows.insert(touch.token.to_string(), row);
    }

    /// Stored: the position moved on and the row can be read again. Anything else: the row is as it was.
    fn check(
        &self,
        before: &Row,
        row: &Row,
        source: usize,
        position: Position,
        folded: Option<&Folded>,
    ) {
        if folded != Some(&Folded::Stored) {
            assert_eq!(row, before);
            return;
        }
        assert_eq!(row.positions().get(source), position);
        assert!(before.positions().get(source) < position);
        assert_eq!(
            row.positions().get(1 - source),
            before.positions().get(1 - source)
        );
        let header = self.sources.write(row.positions());
        let read = match row.exists() {
            true => Row::read(&self.sources, row.value().as_bytes(), &header),
            false => Row::read_deleted(&self.sources, &header),
        };
        assert_eq!(read.as_ref(), Ok(row), "{header} {}", row.value());
    }

    fn count(&mut self, what: &'static str) {
        *self.seen.entry(what).or_insert(0) += 1;
    }
}
