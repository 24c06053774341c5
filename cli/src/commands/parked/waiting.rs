//! Reads the parked streams of projections and of sagas' triggers.

use crate::ask;
use crate::catalog;
use crate::commands::projection;
use crate::error::{CliError, Exit, Result, chain};
use std::collections::{BTreeMap, BTreeSet};
use tidemill_core::control::{Accepted, ParkedRequest, ProjectionStatus, projection_verb};
use tidemill_core::names::{Kind, LIVE_KEY, ParkedSubject, ResourceId, key_of_token};
use tidemill_core::parked::{Kept, Parked};
use tidemill_nats::{KvBucket, Nats, Publisher, ReadError, ReadFrom, Reader, StoredMessage};

/// Messages taken at once.
const BATCH: usize = 500;
/// Reason of what no worker has written.
const FOREIGN: &str = "Foreign";

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
    /// When it was parked, in milliseconds since 1970; nothing of what isn't.
    pub(super) since: Option<i64>,
    /// Subject, headers and payload of the event, if they were copied.
    pub(super) event: Option<Copied>,
    /// No worker has written it: somebody has published into the parked stream. Workers leave it alone.
    pub(super) foreign: bool,
    /// It isn't parked: a projection is stopped before it, and it waits for the same decisions.
    pub(super) stops: bool,
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
        let read = |message: StoredMessage| of(&message, resource, nats.root());
        found.extend(batch.drain(..).map(read));
    }
    if resource.kind == Kind::Projection {
        let status = projection::status(nats, resource)
            .await?
            .unwrap_or_default();
        retain_read(nats, resource, &status, &mut found).await?;
        if let Some(stop) = stop(nats, resource, status).await?
            && found.iter().all(|one| one.key != stop.key)
        {
            found.push(stop);
        }
    }
    Ok(found)
}

/// The event before which a projection is stopped, if it is one.
async fn stop(
    nats: &Nats,
    projection: &ResourceId,
    status: ProjectionStatus,
) -> Result<Option<Waiting>> {
    let (Some(stopped), Some(key)) = (status.stopped, status.stopped_key) else {
        return Ok(None);
    };
    let request = ParkedRequest {
        key: Some(key.clone()),
        position: None,
        by: String::new(),
        why: String::new(),
    };
    let first = projection_verb::FIRST;
    let first: Result<Accepted> =
        ask::request(nats, projection, first, &request, ask::ANSWER_MAX).await;
    let position = match first {
        Ok(first) => first.position,
        // It goes on meanwhile, or its worker is away.
        Err(error) if matches!(error.exit(), Exit::Refused | Exit::Unreachable) => None,
        Err(error) => return Err(error),
    };
    Ok(Some(Waiting {
        key,
        key_space: status.building.or(status.live).unwrap_or_default(),
        failure: Some((stopped.reason, stopped.message)),
        position: position.unwrap_or_default(),
        since: None,
        event: None,
        foreign: false,
        stops: true,
    }))
}

/// Leaves what waits for rows that are read or built; of a key that waits for both, what waits for those that are read. What waits
/// for rows before those stays in the stream, and nobody can do anything about it.
async fn retain_read(
    nats: &Nats,
    projection: &ResourceId,
    status: &ProjectionStatus,
    found: &mut Vec<Waiting>,
) -> Result<()> {
    if found.iter().all(|one| one.foreign) {
        return Ok(());
    }
    let bucket = KvBucket::new(
        &Publisher::new(nats, 1),
        &catalog::rows_bucket(nats, projection).await?,
    );
    let live = bucket.get(LIVE_KEY).await;
    // Whoever may not read rows sees everything.
    let Ok(Some(live)) = live else {
        return Ok(());
    };
    let live = String::from_utf8_lossy(&live.value).into_owned();
    if found.iter().all(|one| one.foreign || one.key_space == live) {
        return Ok(());
    }
    let read: BTreeSet<String> = found
        .iter()
        .filter(|one| one.key_space == live)
        .map(|one| one.key.clone())
        .collect();
    found.retain(|one| {
        one.foreign
            || one.key_space == live
            || status.building.as_ref() == Some(&one.key_space) && !read.contains(&one.key)
    });
    Ok(())
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

fn of(message: &StoredMessage, resource: &ResourceId, root: &str) -> Waiting {
    let foreign = |why: &str| foreign(message, &resource.parked_stream(), why);
    let parked = match Parked::read(&pairs(message), &message.payload) {
        Ok(parked) => parked,
        Err(error) => return foreign(&error.to_string()),
    };
    let key = match ParkedSubject::parse(&message.subject, resource, root) {
        Some(ParkedSubject::Trigger { position, .. }) => format!("event {}", position.sequence),
        Some(ParkedSubject::Row { token, .. }) => match key_of_token(&token) {
            Ok(key) => key,
            Err(_) => return foreign("its subject ends with no key"),
        },
        None => return foreign("its subject is none that a worker uses"),
    };
    let key_space = match (resource.kind, &parked.key_space) {
        (Kind::Saga, _) => String::new(),
        (Kind::Projection, Some(key_space)) => key_space.to_string(),
        (Kind::Projection, None) => return foreign("it says not which rows it waits for"),
    };
    Waiting {
        key,
        key_space,
        failure: parked
            .failure
            .map(|failure| (failure.reason, failure.message)),
        position: parked.position.to_string(),
        since: Some(message.stored_at.millis()),
        event: match parked.kept {
            Kept::InSource => None,
            Kept::Copied {
                subject,
                headers,
                payload,
            } => Some(Copied {
                subject,
                headers,
                payload,
                stored_at: message.stored_at,
            }),
        },
        foreign: false,
        stops: false,
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
        since: Some(message.stored_at.millis()),
        event: Some(Copied {
            subject: message.subject.to_string(),
            headers: pairs(message)
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            payload: message.payload.to_vec(),
            stored_at: message.stored_at,
        }),
        foreign: true,
        stops: false,
    }
}

/// Headers; of several values of one name the first.
fn pairs(message: &StoredMessage) -> Vec<(&str, &str)> {
    let headers = message.headers.iter().flat_map(|headers| headers.iter());
    headers
        .filter_map(|(name, values)| Some((name.as_ref(), values.first()?.as_str())))
        .collect()
}
