//! A bucket that others' keys are in as well, read and written with calls that are about its own keys only.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::time::Duration;
use tidemill_core::contract::Connection;
use tidemill_nats::provision::{StreamPlan, ensure};
use tidemill_nats::{ApiError, Guard, Publish, ReadError, ReadFrom, Reader, Waits};
use tidemill_nats::{HeaderMap, KvBucket, KvEntry, KvError, KvReader, KvWrite, Nats, Publisher};
use tidemill_testbed::{NatsServer, eventually};

const CAP: Duration = Duration::from_secs(180);
const OWNERS: &str = "tidemill_owners";

async fn connect(server: &NatsServer) -> Nats {
    Nats::connect(&Connection::plain(&server.url()), "test")
        .await
        .unwrap()
}

/// A server with the shared buckets, and the one of the owners.
async fn owners() -> (NatsServer, KvBucket) {
    let server = NatsServer::start().await.unwrap();
    let nats = connect(&server).await;
    for plan in StreamPlan::shared_buckets("one") {
        ensure(&nats, &plan).await.unwrap();
    }
    let bucket = KvBucket::shared(&Publisher::new(&nats, 16), OWNERS);
    (server, bucket)
}

async fn put(bucket: &KvBucket, key: &str) -> u64 {
    eventually(format!("{key} written"), CAP, || bucket.put(key, "1")).await
}

async fn put_for_a_while(bucket: &KvBucket, key: &str) {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-TTL", "1s");
    let write = KvWrite {
        key: key.to_owned(),
        value: Some("1".into()),
        headers,
        guard: Guard::None,
    };
    bucket.write(write).await.unwrap();
}

async fn next(reader: &mut KvReader) -> Result<Vec<String>, KvError> {
    let mut entries: Vec<KvEntry> = Vec::new();
    let read = reader.next_batch(16, &mut entries);
    tokio::time::timeout(CAP, read).await.unwrap()?;
    Ok(entries.into_iter().map(|entry| entry.key).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_break_only_what_is_new_comes() {
    let (mut server, bucket) = owners().await;
    put(&bucket, "mine.a").await;
    put(&bucket, "theirs.a").await;
    put_for_a_while(&bucket, "mine.beat").await;
    let mut reader = bucket.watch("mine").await.unwrap();
    let mut keys = next(&mut reader).await.unwrap();
    while keys.len() < 2 {
        keys.extend(next(&mut reader).await.unwrap());
    }
    assert_eq!(keys, ["mine.a", "mine.beat"]);
    // What leaves by itself may be gone by then.
    eventually("the end of a heartbeat", CAP, async || {
        match bucket.get("mine.beat").await.unwrap() {
            None => Ok(()),
            Some(entry) => Err(format!("{entry:?}")),
        }
    })
    .await;
    server.restart().await.unwrap();
    put(&bucket, "mine.b").await;
    assert_eq!(next(&mut reader).await.unwrap(), ["mine.b"]);
    assert_eq!(bucket.entries("mine").await.unwrap().len(), 2);
    assert!(bucket.get("mine.nothing").await.unwrap().is_none());
}

/// What is read after the bucket was set back to a copy that `before` made, with `lost` written since.
async fn set_back(before: &[&str], lost: &[&str]) -> Result<Vec<String>, KvError> {
    let (mut server, bucket) = owners().await;
    for key in before {
        put(&bucket, key).await;
    }
    let copy = tempfile::tempdir().unwrap();
    let copy = copy.path().join("store");
    server.stop().await.unwrap();
    server.copy_store(&copy).unwrap();
    server.restart().await.unwrap();
    for key in lost {
        put(&bucket, key).await;
    }
    let mut reader = bucket.watch("mine").await.unwrap();
    let mut known = Vec::new();
    while reader.pending() > 0 {
        known.extend(next(&mut reader).await.unwrap());
    }
    assert!(!known.is_empty());
    server.kill9();
    server.set_store_back(&copy).unwrap();
    server.restart().await.unwrap();
    // The bucket becomes longer than it was.
    for _ in 0..4 {
        put(&bucket, "theirs.b").await;
    }
    put(&bucket, "mine.new").await;
    next(&mut reader).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_it_was_set_back_is_said() {
    for (before, lost) in [
        // An older entry of a key, and a key that is gone.
        (["mine.a", "theirs.a"], ["mine.a", "theirs.a"]),
        (["theirs.a", "theirs.a"], ["mine.a", "theirs.a"]),
    ] {
        match set_back(&before, &lost).await {
            Err(KvError::Read {
                source: ReadError::Lost { .. },
                ..
            }) => {}
            other => panic!("{before:?} {lost:?}: {other:?}"),
        }
    }
    let unseen = set_back(&["mine.a", "theirs.a"], &["theirs.a"]).await;
    assert_eq!(unseen.unwrap(), ["mine.new"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_is_not_there_is_said() {
    let server = NatsServer::start().await.unwrap();
    let nats = connect(&server).await;
    let bucket = KvBucket::shared(&Publisher::new(&nats, 1), OWNERS);
    match bucket.get("mine.a").await {
        Err(KvError::Get { source, .. }) => {
            assert!(matches!(source, ApiError::NoJetStream(_)), "{source:?}");
            let text = source.to_string();
            assert!(text.contains("the stream or bucket isn't there"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    match bucket.watch("mine").await {
        Err(KvError::Read { source, .. }) => {
            assert!(matches!(source, ReadError::StreamMissing(_)), "{source:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_message_of_a_filter_is_found_whatever_came_after_it() {
    let (server, bucket) = owners().await;
    let revision = put(&bucket, "mine.a").await;
    put(&bucket, "theirs.a").await;
    let nats = connect(&server).await;
    let last = async |filter: &str| {
        let stream = bucket.stream();
        let mut reader = Reader::open_within(
            &nats,
            stream,
            bucket.subject(filter),
            ReadFrom::Last,
            Waits::Never,
        )
        .await
        .unwrap();
        let mut read = Vec::new();
        reader.next_batch(2, &mut read).await.unwrap();
        read.first().map(|message| message.sequence)
    };
    assert_eq!(last("mine.*").await, Some(revision));
    assert_eq!(last("nobody.*").await, None);
    // Of the whole stream it is the very last.
    Publisher::new(&nats, 1)
        .publish(Publish::new(bucket.subject("theirs.b"), "1"))
        .await
        .await
        .unwrap();
    let mut reader = Reader::open_to_end(&nats, bucket.stream(), Vec::new(), ReadFrom::Last)
        .await
        .unwrap();
    let mut read = Vec::new();
    reader.next_batch(16, &mut read).await.unwrap();
    assert_eq!(read.len(), 1);
    assert!(read[0].subject.ends_with("theirs.b"));
}
