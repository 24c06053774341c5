//! Reads the parked streams of projections and of sagas' triggers.

use crate::error::{CliError, Result, chain};
use std::collections::BTreeMap;
use tidemill_core::names::{Kind, ResourceId, decode_token};
use tidemill_core::projection::parked::{
    ERROR_HEADER, Entry, FOLLOWER, ORIGINAL_PREFIX, PARKED_HEADER, SUBJECT_HEADER,
};
use tidemill_core::projection::{KEYLESS_TOKEN, POSITION_HEADER, REVISION_HEADER};
use tidemill_nats::{Nats, ReadError, ReadFrom, Reader, StoredMessage};

/// Messages taken at once.
const BATCH: usize = 500;
/// Reason of what no worker has written.
const FOREIGN: &str = "Foreign";
/// Headers of what a saga's trigger has set aside.
const TRIGGER_REASON: &str = "Tidemill-Reason";
const TRIGGER_STREAM: &str = "Tidemill-Stream";
const TRIGGER_SEQUENCE: &str = "Tidemill-Sequence";

/// One event that waits.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    /// The row key, or what an event without one is called.
    pub(super) key: String,
    /// The rows it waits for; empty for a saga.
    pub(super) key_space: String,
    /// Why it can't be folded; nothing if it only follows one that can't.
    pub(super) failure: Option<(String, String)>,
    /// Where it stands in its source, as far as that is written in words.
    pub(super) position: String,
    /// When it was parked, in milliseconds since 1970.
    pub(super) since: i64,
    /// Subject, headers and payload of the event, if they were copied.
    pub(super) event: Option<Copied>,
    /// No worker has written it: somebody has published into the parked stream. Workers leave it alone.
    pub(super) foreign: bool,
}

/// A copied event.
#[derive(Clone, Debug)]
pub(super) struct Copied {
    pub(super) subject: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) payload: Vec<u8>,
    /// When it was parked: its own time isn't needed to show it.
    pub(super) stored_at: tidemill_core::timestamp::Timestamp,
}

/// Everything that waits in the parked stream of a resource, in order; nothing if there is no such stream.
pub(super) async fn read(nats: &Nats, resource: &ResourceId) -> Result<Vec<Waiting>> {
    let failed = |error: &ReadError| {
        CliError::failed(format!(
            "what {resource} has parked can't be read: {}",
            chain(error)
        ))
    };
    let stream = resource.parked_stream();
    let mut reader = match Reader::open_to_end(nats, &stream, Vec::new(), ReadFrom::First).await {
        Ok(reader) => reader,
        Err(ReadError::StreamMissing(_)) => return Ok(Vec::new()),
        Err(error) => return Err(failed(&error)),
    };
    let (mut found, mut batch) = (Vec::new(), Vec::new());
    while reader
        .next_batch(BATCH, &mut batch)
        .await
        .map_err(|error| failed(&error))?
        > 0
    {
        found.extend(batch.drain(..).map(|message| match resource.kind {
            Kind::Projection => of_projection(&message, &stream),
            Kind::Saga => of_saga(&message, &stream),
        }));
    }
    Ok(found)
}

/// The first of each key in each key space, with how many wait.
pub(super) fn by_key(waiting: Vec<Waiting>) -> Vec<(Waiting, usize)> {
    let mut keys: BTreeMap<(String, String), (Waiting, usize)> = BTreeMap::new();
    for one in waiting {
        let key = (one.key_space.clone(), one.key.clone());
        keys.entry(key).or_insert_with(|| (one, 0)).1 += 1;
    }
    keys.into_values().collect()
}

fn of_projection(message: &StoredMessage, stream: &str) -> Waiting {
    let header = |name: &str| header(message, name);
    let token = message.subject.rsplit('.').next().unwrap_or_default();
    let key = match decode_token(token) {
        _ if token == KEYLESS_TOKEN => KEYLESS_TOKEN.to_owned(),
        Ok(key) => key,
        Err(_) => return foreign(message, stream, "its subject ends with no key"),
    };
    if let Err(error) = Entry::recognise(|name| borrowed_header(message, name)) {
        return foreign(message, stream, &error.to_string());
    }
    let reason = header(PARKED_HEADER).unwrap_or_default();
    Waiting {
        key,
        key_space: header(REVISION_HEADER).unwrap_or_default(),
        failure: (reason != FOLLOWER).then(|| (reason, header(ERROR_HEADER).unwrap_or_default())),
        position: header(POSITION_HEADER).unwrap_or_default(),
        since: message.stored_at.millis(),
        event: header(SUBJECT_HEADER).map(|subject| copied(message, subject, original)),
        foreign: false,
    }
}

fn of_saga(message: &StoredMessage, stream: &str) -> Waiting {
    let header = |name: &str| header(message, name);
    let (Some(source), Some(sequence), Some(reason)) = (
        header(TRIGGER_STREAM),
        header(TRIGGER_SEQUENCE).filter(|sequence| sequence.parse::<u64>().is_ok()),
        header(TRIGGER_REASON),
    ) else {
        return foreign(
            message,
            stream,
            "it has no headers that say where it is from",
        );
    };
    let own = |name: &str| (!name.starts_with("Tidemill-")).then(|| name.to_owned());
    Waiting {
        key: format!("event {sequence}"),
        key_space: String::new(),
        failure: Some(("NotStarted".to_owned(), reason)),
        position: format!("{source}:{sequence}"),
        since: message.stored_at.millis(),
        event: header("Tidemill-Subject").map(|subject| copied(message, subject, own)),
        foreign: false,
    }
}

/// What no worker has written: it is named by where it is, so that it can be taken away.
fn foreign(message: &StoredMessage, stream: &str, why: &str) -> Waiting {
    let sequence = message.sequence;
    let words = format!(
        "not written by a worker: {why}; `nats stream rmm {stream} {sequence}` takes it away"
    );
    Waiting {
        key: format!("message {sequence}"),
        key_space: String::new(),
        failure: Some((FOREIGN.to_owned(), words)),
        position: format!("{stream}:{sequence}"),
        since: message.stored_at.millis(),
        event: Some(copied(message, message.subject.to_string(), |name| {
            Some(name.to_owned())
        })),
        foreign: true,
    }
}

fn original(name: &str) -> Option<String> {
    let (prefix, rest) = name.split_at_checked(ORIGINAL_PREFIX.len())?;
    prefix
        .eq_ignore_ascii_case(ORIGINAL_PREFIX)
        .then(|| rest.to_owned())
}

fn copied(
    message: &StoredMessage,
    subject: String,
    own: impl Fn(&str) -> Option<String>,
) -> Copied {
    let all = message.headers.iter().flat_map(|headers| headers.iter());
    let headers = all.filter_map(|(name, values)| {
        Some((own(name.as_ref())?, values.first()?.as_str().to_owned()))
    });
    Copied {
        subject,
        headers: headers.collect(),
        payload: message.payload.to_vec(),
        stored_at: message.stored_at,
    }
}

fn header(message: &StoredMessage, name: &str) -> Option<String> {
    borrowed_header(message, name).map(str::to_owned)
}

fn borrowed_header<'a>(message: &'a StoredMessage, name: &str) -> Option<&'a str> {
    Some(message.headers.as_ref()?.get(name)?.as_str())
}
