//! Whatever happens between the events and the rows, the rows are the same.

use super::parked::{Admission, ParkedKeys, Waiting, admit};
use super::*;
use crate::definition::{ProjectionDefinition, StreamRef};
use crate::envelope::Event;
use crate::json::Value;
use crate::timestamp::Timestamp;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn stream(name: &str) -> StreamRef {
    StreamRef {
        namespace: "s".to_owned(),
        name: name.to_owned(),
    }
}

/// Sums, copies, deletes, moves a count to another row, and fails for what isn't as it should be.
fn one_source() -> Projection {
    let mut definition = ProjectionDefinition::new(vec![stream("a")], "event.subject");
    definition.handlers = serde_json::from_str(
        r#"[
        {"type":"Put","set":{"last":"=event.data.n","before":"=has(row.last) ? row.last : null"}},
        {"type":"Add","increment":{"sum":"=event.data.n","count":1}},
        {"type":"Add","key":"event.data.other","increment":{"others":"=event.data.n"}},
        {"type":"Once","when":"!has(row.last)","set":{"last":"=event.data.n"}},
        {"type":"Del","delete":true},
        {"type":"Bad","set":{"bad":"=event.data.missing"}}
    ]"#,
    )
    .unwrap();
    Projection::compile(&definition).unwrap()
}

fn two_sources() -> Projection {
    let mut definition = ProjectionDefinition::new(vec![stream("a"), stream("b")], "event.subject");
    definition.handlers = serde_json::from_str(
        r#"[
        {"stream":{"namespace":"s","name":"a"},"type":"Put","set":{"a":"=event.data.n","a0":"=has(row.a) ? row.a : null"}},
        {"stream":{"namespace":"s","name":"b"},"type":"Put","set":{"b":"=event.data.n"}},
        {"type":"Add","increment":{"sum":"=event.data.n"}},
        {"stream":{"namespace":"s","name":"a"},"type":"Bad","set":{"a":"=event.data.missing"}}
    ]"#,
    )
    .unwrap();
    Projection::compile(&definition).unwrap()
}

fn event() -> impl Strategy<Value = Event> {
    let kinds = prop_oneof![4 => Just("Put"), 6 => Just("Add"), 2 => Just("Once"), 1 => Just("Del"), 1 => Just("Bad"), 1 => Just("Else")];
    (kinds, 0..5_u8, 0..6_u8, -999..1_000_i32, 0..3_u8).prop_map(|(kind, key, other, n, scale)| {
        let number = match scale {
            0 => n.to_string(),
            1 => format!(
                "{}{}.{}",
                if n < 0 { "-" } else { "" },
                n.abs() / 10,
                n.abs() % 10
            ),
            _ => format!(
                "{}{}.{:02}",
                if n < 0 { "-" } else { "" },
                n.abs() / 100,
                n.abs() % 100
            ),
        };
        // Key 5 is no string: such an event has no key for the other row.
        let other = if other == 5 {
            "null".to_owned()
        } else {
            format!("\"k{other}\"")
        };
        Event {
            id: "1".to_owned(),
            source: "/test".to_owned(),
            event_type: kind.to_owned(),
            subject: Some(format!("k{key}")),
            time: None,
            extensions: BTreeMap::new(),
            data: Value::parse(format!(r#"{{"n":{number},"other":{other}}}"#).as_bytes()).unwrap(),
            stored_at: Timestamp::from_millis(0),
        }
    })
}

/// Token, source and sequence of an event that waits.
type Parked = (String, usize, u64);

/// What outlives a crash.
#[derive(Clone, Debug, Default)]
struct Disk {
    /// Value (`None` = tombstone) and header, by token.
    rows: BTreeMap<String, (Option<String>, String)>,
    parked: Vec<Parked>,
    /// Per source: everything up to it is stored.
    checkpoint: Vec<u64>,
}

impl Disk {
    /// What readers see, and what waits.
    fn outcome(&self) -> (BTreeMap<String, String>, BTreeSet<Parked>) {
        let rows = self
            .rows
            .iter()
            .filter_map(|(token, (value, _))| Some((token.clone(), value.clone()?)));
        (rows.collect(), self.parked.iter().cloned().collect())
    }
}

/// One owner, from its start to its end, doing what a worker does but without one.
struct Owner<'a> {
    projection: &'a Projection,
    sources: Sources,
    next: Vec<u64>,
    cache: BTreeMap<String, Row>,
    dirty: BTreeSet<String>,
    parked: ParkedKeys,
}

impl<'a> Owner<'a> {
    fn start(projection: &'a Projection, names: &[&str], disk: &Disk, earlier: u64) -> Owner<'a> {
        let sources = names.iter().map(|name| Source {
            stream: stream(name),
            lineage: Lineage::first("i"),
        });
        let mut parked = ParkedKeys::new();
        for (kept_at, (token, source, sequence)) in disk.parked.iter().enumerate() {
            let position = Position {
                generation: 0,
                sequence: *sequence,
            };
            parked.add(
                token,
                Waiting {
                    kept_at: kept_at as u64,
                    source: *source,
                    position,
                    reason: None,
                },
            );
        }
        Owner {
            projection,
            sources: Sources::new(sources.collect()),
            next: disk
                .checkpoint
                .iter()
                .map(|sequence| sequence.saturating_sub(earlier) + 1)
                .collect(),
            cache: BTreeMap::new(),
            dirty: BTreeSet::new(),
            parked,
        }
    }

    fn read(&mut self, disk: &mut Disk, source: usize, events: &[Event]) {
        let Some(next) = self.next.get_mut(source) else {
            return;
        };
        let sequence = *next;
        let Some(event) = events.get(sequence as usize - 1) else {
            return;
        };
        *next += 1;
        let position = Position {
            generation: 0,
            sequence,
        };
        for touch in self.projection.touches(source, event) {
            let token = touch.token.to_string();
            let row =
                self.cache
                    .entry(token.clone())
                    .or_insert_with(|| match disk.rows.get(&token) {
                        None => Row::missing(),
                        Some((Some(value), header)) => {
                            Row::read(&self.sources, value.as_bytes(), header).unwrap()
                        }
                        Some((None, header)) => Row::read_deleted(&self.sources, header).unwrap(),
                    });
            let park = match admit(
                &self.parked,
                &token,
                source,
                position,
                row.positions().get(source),
                false,
            ) {
                Admission::Passed | Admission::Waits | Admission::LeftOut => false,
                Admission::Follows => true,
                Admission::Fold => match self.projection.fold(row, &touch, source, position, event)
                {
                    Ok(Folded::Stored) => {
                        self.dirty.insert(token.clone());
                        false
                    }
                    Ok(Folded::Nothing | Folded::Passed) => false,
                    Err(_) => true,
                },
            };
            if park {
                disk.parked.push((token.clone(), source, sequence));
                assert!(self.parked.add(
                    &token,
                    Waiting {
                        kept_at: 0,
                        source,
                        position,
                        reason: None
                    }
                ));
            }
        }
    }

    fn store(&mut self, disk: &mut Disk, most: usize) {
        for token in self.dirty.iter().take(most).cloned().collect::<Vec<_>>() {
            self.dirty.remove(&token);
            let row = self.cache.get(&token).unwrap();
            let value = row.exists().then(|| row.value());
            disk.rows
                .insert(token, (value, self.sources.write(row.positions())));
        }
        if self.dirty.is_empty() {
            disk.checkpoint = self.next.iter().map(|next| next - 1).collect();
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Read(usize),
    Store(usize),
    /// Everything in memory is lost; reading begins so many events before the checkpoint.
    Crash(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..2_usize).prop_map(Step::Read),
        2 => (0..6_usize).prop_map(Step::Store),
        1 => (0..10_u64).prop_map(Step::Crash),
    ];
    proptest::collection::vec(step, 0..150)
}

fn run(projection: &Projection, names: &[&str], events: &[Vec<Event>], steps: &[Step]) -> Disk {
    let mut disk = Disk {
        checkpoint: vec![0; events.len()],
        ..Disk::default()
    };
    let mut owner = Owner::start(projection, names, &disk, 0);
    let all: Vec<Step> = (0..events.len())
        .flat_map(|source| vec![Step::Read(source); 200])
        .chain([Step::Store(usize::MAX)])
        .collect();
    for step in steps.iter().chain(&all) {
        match step {
            Step::Read(source) => {
                let source = source % events.len();
                owner.read(&mut disk, source, &events[source]);
            }
            Step::Store(most) => owner.store(&mut disk, *most),
            Step::Crash(earlier) => owner = Owner::start(projection, names, &disk, *earlier),
        }
    }
    disk
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_crash_replay_and_batching_gives_the_same_rows(events in proptest::collection::vec(event(), 0..60), steps in steps()) {
        let projection = one_source();
        let events = [events];
        let expected = run(&projection, &["a"], &events, &[]).outcome();
        prop_assert_eq!(run(&projection, &["a"], &events, &steps).outcome(), expected);
    }

    #[test]
    fn any_interleaving_of_sources_gives_the_same_rows(
        a in proptest::collection::vec(event(), 0..30),
        b in proptest::collection::vec(event(), 0..30),
        steps in steps(),
    ) {
        // What is parked behind a poisoned key depends on the interleaving; nothing else may.
        let good = |events: Vec<Event>| events.into_iter().filter(|event| event.event_type != "Bad").collect::<Vec<_>>();
        let projection = two_sources();
        let events = [good(a), good(b)];
        let expected = run(&projection, &["a", "b"], &events, &[]).outcome();
        prop_assert_eq!(run(&projection, &["a", "b"], &events, &steps).outcome(), expected);
    }

    #[test]
    fn increments_commute_and_are_exact(cents in proptest::collection::vec(-100_000..100_000_i64, 1..40), seed in any::<u64>()) {
        let mut definition = ProjectionDefinition::new(vec![stream("a")], "'k'");
        definition.handlers = serde_json::from_str(r#"[{"increment":{"sum":"=event.data"}}]"#).unwrap();
        let projection = Projection::compile(&definition).unwrap();
        let mut order: Vec<i64> = cents.clone();
        let length = order.len();
        for index in 0..length {
            let other = (seed.wrapping_mul(index as u64 + 7) % length as u64) as usize;
            order.swap(index, other);
        }
        let text = |cents: i64| format!("{}{}.{:02}", if cents < 0 { "-" } else { "" }, cents.abs() / 100, cents.abs() % 100);
        let total = |order: &[i64]| {
            let mut row = Row::missing();
            for (sequence, cents) in (1..).zip(order) {
                let event = Event {
                    id: "1".to_owned(),
                    source: "/test".to_owned(),
                    event_type: "T".to_owned(),
                    subject: None,
                    time: None,
                    extensions: BTreeMap::new(),
                    data: Value::parse(text(*cents).as_bytes()).unwrap(),
                    stored_at: Timestamp::from_millis(0),
                };
                let touch = projection.touches(0, &event).pop().unwrap();
                projection.fold(&mut row, &touch, 0, Position { generation: 0, sequence }, &event).unwrap();
            }
            row.value()
        };
        prop_assert_eq!(total(&order), format!(r#"{{"sum":{}}}"#, text(cents.iter().sum())));
    }
}

#[test]
fn a_parked_key_holds_up_no_other() {
    let json = |kind: &str, key: &str| Event {
        id: "1".to_owned(),
        source: "/test".to_owned(),
        event_type: kind.to_owned(),
        subject: Some(key.to_owned()),
        time: None,
        extensions: BTreeMap::new(),
        data: Value::parse(br#"{"n":1}"#).unwrap(),
        stored_at: Timestamp::from_millis(0),
    };
    let events = [vec![
        json("Put", "k1"),
        json("Bad", "k1"),
        json("Put", "k1"),
        json("Put", "k2"),
        json("Put", "k1"),
    ]];
    let (rows, parked) = run(&one_source(), &["a"], &events, &[]).outcome();
    assert_eq!(
        rows.get("k1").map(String::as_str),
        Some(r#"{"before":null,"last":1}"#)
    );
    assert!(rows.contains_key("k2"));
    let waiting: Vec<u64> = parked
        .into_iter()
        .map(|(_, _, sequence)| sequence)
        .collect();
    assert_eq!(waiting, [2, 3, 5]);
}
