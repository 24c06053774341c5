//! The beginning of a session: is the stream still the one it was, and where does reading go on?

use super::session::Session;
use super::{Reach, ReadError, ReadFrom, Source};
use crate::api::{ApiError, StreamState};
use crate::connection::{Denial, Nats};
use crate::message::StoredMessage;
use crate::pull::{BATCH, Pulls, SILENCE_MAX};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use tidemill_core::timestamp::Timestamp;

/// How long the server keeps a consumer that nobody asks.
const INACTIVE_MAX: Duration = Duration::from_secs(30);
/// Pauses between two tries to begin a session: doubling between these.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(50);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Messages looked at for one that breaks the connection: as many as may be on their way, see [`crate::pull`].
const LOOK_MAX: u64 = 2 * BATCH;

pub(super) struct Opened {
    pub(super) session: Session,
    pub(super) state: StreamState,
    pub(super) pending: u64,
    /// The next message, read in another way because its delivery seems to break the connection.
    pub(super) rescued: Option<StoredMessage>,
    pub(super) start: ReadFrom,
}

/// Begins a session after `position`, else at `from`; tries until it succeeds or an error is for good.
pub(super) async fn open(
    source: Source,
    from: ReadFrom,
    position: Option<(u64, Timestamp)>,
    known: Option<String>,
) -> Result<Opened, ReadError> {
    let mut pause = RETRY_PAUSE_MIN;
    loop {
        let mut status = source.nats.status();
        // It fails only when the connection is dropped, and this holds it.
        let _ = status.wait_for(|status| status.connected).await;
        match try_open(&source, from, position, known.as_deref()).await {
            Err(ReadError::Refused { source: error, .. }) if error.may_pass() => {
                tracing::debug!(stream = %source.stream, %error, "reading can't begin yet");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_PAUSE_MAX);
            }
            done => return done,
        }
    }
}

async fn try_open(
    source: &Source,
    from: ReadFrom,
    position: Option<(u64, Timestamp)>,
    known: Option<&str>,
) -> Result<Opened, ReadError> {
    let Source {
        nats,
        stream,
        filters,
        mode,
        reach,
    } = source;
    let fail = |error: ApiError| match error {
        ApiError::StreamMissing(stream) => ReadError::StreamMissing(stream),
        ApiError::Denied(subject) => ReadError::Denied(subject),
        source => ReadError::Refused {
            stream: stream.clone(),
            source,
        },
    };
    let status = nats.status();
    let reconnects = status.borrow().reconnects;
    let state = match reach {
        Reach::Stream => {
            let state = nats.stream_state(stream).await.map_err(fail)?;
            check(source, &state, from, position, known).await?;
            state
        }
        Reach::Filter => StreamState::unknown(stream),
    };

    let mut start = match (position, from) {
        (Some((sequence, _)), _) => ReadFrom::After(sequence),
        // Held as a position, so that a reconnect before the first message skips nothing.
        (None, ReadFrom::New) if *reach == Reach::Stream => ReadFrom::After(state.last),
        (None, ReadFrom::Last) if *reach == Reach::Stream => {
            ReadFrom::After(state.last.max(state.first).saturating_sub(1))
        }
        (None, from) => from,
    };
    let (mut rescued, mut limit) = (None, None);
    if *reach == Reach::Stream {
        look(source).await.map_err(fail)?;
        limit = before_undeliverable(source, start).await.map_err(fail)?;
        if limit == Some(0) {
            rescued = next_by_api(source, start).await.map_err(fail)?;
            if let Some(message) = &rescued {
                start = ReadFrom::After(message.sequence);
                limit = before_undeliverable(source, start).await.map_err(fail)?;
            } else {
                limit = None;
            }
        }
    }

    let inbox = nats.client().new_inbox();
    let consumer = inbox.rsplit('.').next().unwrap_or("reader").to_owned();
    let denied = denied(nats, stream, &consumer, &inbox);
    let subscriber = nats
        .client()
        .subscribe(format!("{inbox}.*"))
        .await
        .map_err(|_| fail(ApiError::Disconnected("SUB".to_owned())))?;
    let (call, body) = consumer_request(stream, &consumer, filters, start);
    let info: ConsumerInfo = nats.stream_call(stream, &call, &body).await.map_err(fail)?;
    Ok(Opened {
        session: Session {
            source: source.clone(),
            consumer,
            inbox,
            subscriber,
            status,
            reconnects,
            pulls: Pulls::new(*mode, limit),
            delivered: 0,
            last: begins_after(start),
            broke: false,
            silence: Box::pin(tokio::time::sleep(SILENCE_MAX)),
            denied,
        },
        state,
        pending: info.num_pending,
        rescued,
        start,
    })
}

#[derive(Deserialize)]
struct ConsumerInfo {
    #[serde(default)]
    num_pending: u64,
}

fn consumer_request(
    stream: &str,
    consumer: &str,
    filters: &[String],
    start: ReadFrom,
) -> (String, Value) {
    let mut config = json!({
        "name": consumer,
        "ack_policy": "none",
        "replay_policy": "instant",
        "mem_storage": true,
        "num_replicas": 1,
        "inactive_threshold": u64::try_from(INACTIVE_MAX.as_nanos()).unwrap_or(u64::MAX),
    });
    match start {
        ReadFrom::First | ReadFrom::After(0) => config["deliver_policy"] = json!("all"),
        ReadFrom::New => config["deliver_policy"] = json!("new"),
        ReadFrom::Last => config["deliver_policy"] = json!("last"),
        ReadFrom::After(sequence) => {
            config["deliver_policy"] = json!("by_start_sequence");
            config["opt_start_seq"] = json!(sequence.saturating_add(1));
        }
        ReadFrom::Time(time) => {
            config["deliver_policy"] = json!("by_start_time");
            config["opt_start_time"] = json!(time.to_string());
        }
    }
    let mut call = format!("CONSUMER.CREATE.{stream}.{consumer}");
    match filters {
        [] => {}
        // One filter stands in the call's subject, so that permissions can be given by it.
        [filter] => {
            config["filter_subject"] = json!(filter);
            call = format!("{call}.{filter}");
        }
        filters => config["filter_subjects"] = json!(filters),
    }
    (
        call,
        json!({ "stream_name": stream, "config": config, "action": "create" }),
    )
}

/// Whether the stream is still the one that was read up to `position`.
async fn check(
    source: &Source,
    state: &StreamState,
    from: ReadFrom,
    position: Option<(u64, Timestamp)>,
    known: Option<&str>,
) -> Result<(), ReadError> {
    let lost = |reason: String| {
        Err(ReadError::Lost {
            stream: source.stream.clone(),
            reason,
        })
    };
    if let Some(known) = known
        && known != state.incarnation
    {
        return lost(format!(
            "its incarnation was {known} and is {}",
            state.incarnation
        ));
    }
    let sequence = match (position, from) {
        (Some((sequence, _)), _) | (None, ReadFrom::After(sequence)) => sequence,
        (None, ReadFrom::First | ReadFrom::Time(_) | ReadFrom::New | ReadFrom::Last) => {
            return Ok(());
        }
    };
    if sequence > state.last {
        return lost(format!(
            "it was read up to sequence {sequence} and ends at {}",
            state.last
        ));
    }
    let Some((sequence, stored_at)) = position else {
        return Ok(());
    };
    match source.nats.read_at(&source.stream, sequence).await {
        Ok(Some(message)) if message.stored_at != stored_at => lost(format!(
            "its message {sequence} was stored at {stored_at} and is now one stored at {}",
            message.stored_at
        )),
        // Removed by a limit, a purge or a newer message of its subject.
        Ok(_) => Ok(()),
        Err(ApiError::StreamMissing(stream)) => Err(ReadError::StreamMissing(stream)),
        Err(ApiError::Denied(subject)) => Err(ReadError::Denied(subject)),
        Err(error) => Err(ReadError::Refused {
            stream: source.stream.clone(),
            source: error,
        }),
    }
}

/// Sequence before the first message of a start, as far as that is known without asking.
fn begins_after(start: ReadFrom) -> u64 {
    match start {
        ReadFrom::After(sequence) => sequence,
        ReadFrom::First | ReadFrom::Time(_) | ReadFrom::New | ReadFrom::Last => 0,
    }
}

/// Looks for the message that breaks the connection, if one is suspected: behind what came last, among those that were asked for.
/// If all look well the next one is taken for it: to read that by the API does no harm.
async fn look(source: &Source) -> Result<(), ApiError> {
    let Source { nats, stream, .. } = source;
    let Some(after) = nats.undeliverable().suspected(stream) else {
        return Ok(());
    };
    let (mut found, mut next) = (None, after + 1);
    for _ in 0..LOOK_MAX {
        let Some((sequence, delivers)) = nats.delivers_at(stream, next).await? else {
            break;
        };
        found = found.or(Some(sequence));
        if !delivers {
            found = Some(sequence);
            tracing::warn!(%stream, sequence, "the headers of a message break its delivery (are they UTF-8?); it is read in another way");
            break;
        }
        next = sequence + 1;
    }
    nats.undeliverable().looked(stream, found);
    Ok(())
}

/// How many messages may be asked for before the next one that breaks the connection; `None` = none is known.
async fn before_undeliverable(source: &Source, start: ReadFrom) -> Result<Option<u64>, ApiError> {
    let Source { nats, stream, .. } = source;
    let Some(bad) = nats.undeliverable().next(stream, begins_after(start)) else {
        return Ok(None);
    };
    let all = count_from(source, start).await?;
    let from_bad = count_from(source, ReadFrom::After(bad - 1)).await?;
    Ok(Some(all.saturating_sub(from_bad)))
}

/// Messages of the filters from a start on.
async fn count_from(source: &Source, start: ReadFrom) -> Result<u64, ApiError> {
    let Source {
        nats,
        stream,
        filters,
        ..
    } = source;
    let inbox = nats.client().new_inbox();
    let consumer = inbox.rsplit('.').next().unwrap_or("count").to_owned();
    let (call, body) = consumer_request(stream, &consumer, filters, start);
    let info: ConsumerInfo = nats.stream_call(stream, &call, &body).await?;
    // The server drops it after a while anyhow; this is politeness.
    let subject = nats.api_subject(&format!("CONSUMER.DELETE.{stream}.{consumer}"));
    let _ = nats.client().publish(subject, bytes::Bytes::new()).await;
    Ok(info.num_pending)
}

/// The next message, read by the API.
async fn next_by_api(source: &Source, start: ReadFrom) -> Result<Option<StoredMessage>, ApiError> {
    let mut sequence = match start {
        ReadFrom::After(sequence) => sequence.saturating_add(1),
        ReadFrom::First | ReadFrom::Time(_) | ReadFrom::New | ReadFrom::Last => 1,
    };
    let everything = [">".to_owned()];
    let filters = if source.filters.is_empty() {
        &everything[..]
    } else {
        &source.filters[..]
    };
    loop {
        let mut next: Option<StoredMessage> = None;
        for filter in filters {
            let found = source
                .nats
                .next_for_subject(&source.stream, filter, sequence)
                .await?;
            if let Some(found) = found
                && next
                    .as_ref()
                    .is_none_or(|next| found.sequence < next.sequence)
            {
                next = Some(found);
            }
        }
        match (start, next) {
            (ReadFrom::Time(time), Some(message)) if message.stored_at < time => {
                sequence = message.sequence + 1
            }
            (_, next) => return Ok(next),
        }
    }
}

/// Ends with the subject when a permission is missing that the session needs and that shows only in an event.
fn denied(nats: &Nats, stream: &str, consumer: &str, inbox: &str) -> BoxFuture<'static, String> {
    let next =
        nats.denied_publish(&nats.api_subject(&format!("CONSUMER.MSG.NEXT.{stream}.{consumer}")));
    let next_subject = nats.api_subject(&format!("CONSUMER.MSG.NEXT.{stream}.*"));
    let subscription = nats.denied(Denial::Subscribe(format!("{inbox}.*")));
    let inbox = inbox.to_owned();
    async move {
        tokio::select! {
            () = next => next_subject,
            () = subscription => format!("{inbox}.*"),
        }
    }
    .boxed()
}
