//! What the worker sees of participants beside their answers: that nobody listens, and that a stream would answer in
//! their place.

use crate::engine::Engine;
use crate::partitions::Partitions;
use crate::shard::Ask;
use async_nats::StatusCode;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::names::LogSubject;
use tidemill_nats::Subscription;
use tidemill_worker_runtime::Health;

/// How often request subjects are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// Hears "no responders". The server says it only to the connection that sent the request, and only if that listens on
/// the reply subject: so every reply is heard here a second time and let go. It merely speeds things up: the attempt's
/// timeout is the law.
pub(crate) async fn hear_no_responders(engine: Arc<Engine>, partitions: Arc<Partitions>) {
    let subject = format!("{}.*.*.r.>", engine.log_prefix);
    let mut replies = match Subscription::open(&engine.nats, &subject, None).await {
        Ok(replies) => replies,
        Err(error) => {
            tracing::warn!(%error, subject, "can't hear that nobody listens: attempts wait for their timeout");
            return;
        }
    };
    loop {
        let message = tokio::select! {
            message = replies.next() => message,
            () = engine.shutdown.cancelled() => return,
        };
        if message.status != Some(StatusCode::NO_RESPONDERS) {
            continue;
        }
        if let Ok(subject) = LogSubject::parse(&message.subject, &engine.log_prefix) {
            partitions
                .ask(subject.partition, Ask::NoResponders(subject))
                .await;
        }
    }
}

/// Looks for streams on the request subjects, at the start and every minute. A stream that acknowledges would answer a
/// request at once, and that answer would look like the participant's.
pub(crate) async fn look_for_captured(engine: Arc<Engine>, health: Health) {
    let subjects = engine.request_subjects();
    while !engine.shutdown.is_cancelled() {
        look(&engine, &subjects, &health).await;
        tokio::select! {
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
            () = engine.shutdown.cancelled() => {}
        }
    }
}

pub(crate) async fn look(engine: &Engine, subjects: &[String], health: &Health) {
    let mut captured = HashMap::new();
    for subject in subjects {
        let streams = match engine.nats.streams_on(subject).await {
            Ok(streams) => streams,
            Err(error) => {
                tracing::debug!(%error, subject, "whether a stream is on a request's subject is not known");
                continue;
            }
        };
        for stream in streams {
            let acknowledges = engine
                .nats
                .stream_state(&stream)
                .await
                .map_or(true, |state| state.acknowledges());
            if acknowledges {
                captured.insert(subject.clone(), stream);
            }
        }
    }
    match captured.iter().next() {
        Some((subject, stream)) => health.not_ready(
            "SubjectCaptured",
            format!("stream {stream} takes {subject} and would answer for the participant: take the subject out of it, or turn its acknowledgements off (no_ack)"),
        ),
        None => health.ready("SubjectCaptured"),
    }
    *engine.captured.write().await = captured;
}
