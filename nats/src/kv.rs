//! Key-value buckets as every NATS client knows them (`nats kv get` reads them), with own headers on entries and delete markers,
//! pipelined writes and reads by prefix.

use crate::api::ApiError;
use crate::connection::Nats;
use crate::message::StoredMessage;
use crate::publish::{PendingAck, Publish, PublishError, Publisher};
use crate::reader::{ReadError, ReadFrom, Reader, Waits};
use async_nats::HeaderMap;
use bytes::Bytes;
use futures::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use tidemill_core::timestamp::Timestamp;

/// Header of delete markers.
const OPERATION: &str = "KV-Operation";
/// Single reads in flight of [`KvBucket::get_many`]; measured, more give nothing.
const GETS_IN_FLIGHT: usize = 128;
/// Entries per batch of reads by prefix.
const BATCH: usize = 1024;

/// One key's last entry.
#[derive(Clone, Debug, PartialEq)]
pub struct KvEntry {
    /// Its key.
    pub key: String,
    /// Its value; empty if deleted.
    pub value: Bytes,
    /// Headers of the entry or the delete marker.
    pub headers: Option<HeaderMap>,
    /// The revision to guard the next write with.
    pub revision: u64,
    /// Whether this is a delete (or purge) marker: other readers see "not found".
    pub deleted: bool,
    /// When it was written.
    pub stored_at: Timestamp,
}

/// What a write expects to find.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Guard {
    /// Anything.
    #[default]
    None,
    /// Exactly this revision of the key, a delete marker's too; 0 = the key never was there or is purged.
    Revision(u64),
}

/// One write to a key.
#[derive(Clone, Debug, Default)]
pub struct KvWrite {
    /// The key: tokens of `[A-Za-z0-9_=/-]` with dots between them.
    pub key: String,
    /// The value; `None` writes a delete marker.
    pub value: Option<Bytes>,
    /// Further headers.
    pub headers: HeaderMap,
    /// What must be there, else [`PublishError::Conflict`].
    pub guard: Guard,
}

/// Why a bucket can't be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KvError {
    /// A single read.
    #[error("bucket {bucket}: {source}")]
    Get {
        /// The bucket.
        bucket: String,
        /// Why.
        source: ApiError,
    },
    /// A read by prefix.
    #[error("bucket {bucket}: {source}")]
    Read {
        /// The bucket.
        bucket: String,
        /// Why.
        source: ReadError,
    },
    /// A write.
    #[error("bucket {bucket}, key {key}: {source}")]
    Write {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
        /// Why.
        source: PublishError,
    },
}

/// A bucket. Cheap to clone.
#[derive(Clone, Debug)]
pub struct KvBucket {
    publisher: Publisher,
    bucket: String,
    stream: String,
    /// `$KV.<bucket>.`
    prefix: String,
    /// The same, or beyond a domain or an API prefix: only so does a write reach its stream there.
    write_prefix: String,
    /// Every call names the key or the prefix that it is about.
    shared: bool,
}

impl KvBucket {
    /// The bucket of this name; whether it exists shows at the first use. Writes share the publisher's limit.
    pub fn new(publisher: &Publisher, bucket: &str) -> Self {
        KvBucket {
            publisher: publisher.clone(),
            bucket: bucket.to_owned(),
            stream: stream_of(bucket),
            prefix: subject_of(bucket, ""),
            write_prefix: written_at(publisher.nats().api(), &subject_of(bucket, "")),
            shared: false,
        }
    }

    /// A bucket in which others have keys as well: no call of this one is about more than the key or the prefix that it is given, so
    /// that a connection needs no right on theirs. The bucket must allow direct reads.
    pub fn shared(publisher: &Publisher, bucket: &str) -> Self {
        KvBucket {
            shared: true,
            ..Self::new(publisher, bucket)
        }
    }

    /// Its name.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Subject of a key; of several, where `key` has wildcards.
    pub fn subject(&self, key: &str) -> String {
        subject_of(&self.bucket, key)
    }

    /// The JetStream stream behind it.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    fn nats(&self) -> &Nats {
        self.publisher.nats()
    }

    /// The last entry of a key, a delete marker too; `None` if there is nothing.
    ///
    /// # Errors
    /// [`KvError::Get`]
    pub async fn get(&self, key: &str) -> Result<Option<KvEntry>, KvError> {
        let subject = format!("{}{key}", self.prefix);
        let message = match self.shared {
            true => self.nats().last_by_direct(&self.stream, &subject).await,
            false => self.nats().last_for_subject(&self.stream, &subject).await,
        };
        let message = message.map_err(|source| KvError::Get {
            bucket: self.bucket.clone(),
            source,
        })?;
        Ok(message.and_then(|message| self.entry(message)))
    }

    /// The last entries of several keys, in their order, read concurrently.
    ///
    /// # Errors
    /// [`KvError::Get`]: the first.
    pub async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<KvEntry>>, KvError> {
        // Keys are cloned: a future that borrows from the iterator can't be spawned (rust-lang/rust#100013).
        let mut gets = futures::stream::iter(keys.to_vec())
            .map(|key| async move { self.get(&key).await })
            .buffered(GETS_IN_FLIGHT);
        let mut entries = Vec::with_capacity(keys.len());
        while let Some(entry) = gets.next().await {
            entries.push(entry?);
        }
        Ok(entries)
    }

    /// Sends a write; the acknowledgement's sequence is the key's new revision.
    pub async fn send(&self, write: KvWrite) -> PendingAck {
        let KvWrite {
            key,
            value,
            mut headers,
            guard,
        } = write;
        let payload = value.unwrap_or_else(|| {
            headers.insert(OPERATION, "DEL");
            Bytes::new()
        });
        let message = Publish {
            subject: format!("{}{key}", self.write_prefix),
            headers,
            payload,
            message_id: None,
            expected_last_subject_sequence: match guard {
                Guard::None => None,
                Guard::Revision(revision) => Some(revision),
            },
        };
        self.publisher.publish(message).await
    }

    /// Writes and waits; gives the new revision.
    ///
    /// # Errors
    /// [`KvError::Write`]
    pub async fn write(&self, write: KvWrite) -> Result<u64, KvError> {
        let key = write.key.clone();
        let acked = self.send(write).await.await;
        acked
            .map(|acked| acked.sequence)
            .map_err(|source| KvError::Write {
                bucket: self.bucket.clone(),
                key,
                source,
            })
    }

    /// Sets a key whatever is there; gives the new revision.
    ///
    /// # Errors
    /// [`KvError::Write`]
    pub async fn put(&self, key: &str, value: impl Into<Bytes>) -> Result<u64, KvError> {
        self.write(KvWrite {
            key: key.to_owned(),
            value: Some(value.into()),
            ..KvWrite::default()
        })
        .await
    }

    /// Sets a key that isn't there (or is deleted); `None` if it is.
    ///
    /// # Errors
    /// [`KvError`]
    pub async fn create(&self, key: &str, value: impl Into<Bytes>) -> Result<Option<u64>, KvError> {
        let mut write = KvWrite {
            key: key.to_owned(),
            value: Some(value.into()),
            headers: HeaderMap::new(),
            guard: Guard::Revision(0),
        };
        match self.write(write.clone()).await {
            Err(KvError::Write {
                source: PublishError::Conflict,
                ..
            }) => {}
            done => return done.map(Some),
        }
        let Some(KvEntry {
            deleted: true,
            revision,
            ..
        }) = self.get(key).await?
        else {
            return Ok(None);
        };
        write.guard = Guard::Revision(revision);
        match self.write(write).await {
            Err(KvError::Write {
                source: PublishError::Conflict,
                ..
            }) => Ok(None),
            done => done.map(Some),
        }
    }

    /// Writes a delete marker whatever is there; gives its revision.
    ///
    /// # Errors
    /// [`KvError::Write`]
    pub async fn delete(&self, key: &str) -> Result<u64, KvError> {
        self.write(KvWrite {
            key: key.to_owned(),
            ..KvWrite::default()
        })
        .await
    }

    /// The last entry of every key below a prefix of whole tokens (`""` = every key), delete markers too, by key.
    ///
    /// # Errors
    /// [`KvError::Read`]
    pub async fn entries(&self, prefix: &str) -> Result<BTreeMap<String, KvEntry>, KvError> {
        let mut reader = self.read(prefix).await?;
        let mut entries = BTreeMap::new();
        let mut batch = Vec::new();
        while reader.next_batch(BATCH, &mut batch).await? > 0 {
            // A key that is written meanwhile comes again, later.
            entries.extend(batch.drain(..).map(|entry| (entry.key.clone(), entry)));
        }
        Ok(entries)
    }

    /// The entries below a prefix, oldest first, ending with the last one that is there: for more than fits in memory.
    /// A key that is written meanwhile comes twice, the later entry later.
    ///
    /// # Errors
    /// [`KvError::Read`]
    pub async fn read(&self, prefix: &str) -> Result<KvReader, KvError> {
        self.open(prefix, Waits::Never).await
    }

    /// As [`KvBucket::read`], but goes on with what is written from then on. [`KvReader::pending`] tells when what was there is through.
    ///
    /// # Errors
    /// [`KvError::Read`]
    pub async fn watch(&self, prefix: &str) -> Result<KvReader, KvError> {
        self.open(prefix, Waits::AtTheEnd).await
    }

    async fn open(&self, prefix: &str, waits: Waits) -> Result<KvReader, KvError> {
        let (nats, stream, filter) = (self.nats(), &self.stream, self.filter(prefix));
        let from = ReadFrom::First;
        let reader = match (self.shared, waits) {
            (true, waits) => Reader::open_within(nats, stream, filter, from, waits).await,
            (false, Waits::AtTheEnd) => Reader::open(nats, stream, vec![filter], from).await,
            (false, Waits::Never) => Reader::open_to_end(nats, stream, vec![filter], from).await,
        };
        let reader = reader.map_err(|source| KvError::Read {
            bucket: self.bucket.clone(),
            source,
        })?;
        Ok(KvReader {
            bucket: self.clone(),
            reader,
            batch: Vec::new(),
            again: (self.shared && waits == Waits::AtTheEnd).then(Again::default),
        })
    }

    fn filter(&self, prefix: &str) -> String {
        if prefix.is_empty() {
            format!("{}>", self.prefix)
        } else {
            format!("{}{prefix}.>", self.prefix)
        }
    }

    fn entry(&self, message: StoredMessage) -> Option<KvEntry> {
        let key = message.subject.strip_prefix(&self.prefix)?.to_owned();
        let operation = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get(OPERATION));
        // A marker made by the server (age limits) has another header.
        let expired = message
            .headers
            .as_ref()
            .is_some_and(|headers| headers.get("Nats-Marker-Reason").is_some());
        let deleted = expired
            || operation.is_some_and(|operation| matches!(operation.as_str(), "DEL" | "PURGE"));
        Some(KvEntry {
            key,
            value: message.payload,
            headers: message.headers,
            revision: message.sequence,
            deleted,
            stored_at: message.stored_at,
        })
    }
}

/// Reads entries of a bucket in the order in which they were written.
#[derive(Debug)]
pub struct KvReader {
    bucket: KvBucket,
    reader: Reader,
    batch: Vec<StoredMessage>,
    /// Of shared buckets: what is read again after a break.
    again: Option<Again>,
}

impl KvReader {
    /// Appends the next entries, at most `max`; see [`Reader::next_batch`].
    ///
    /// # Errors
    /// [`KvError::Read`]
    pub async fn next_batch(
        &mut self,
        max: usize,
        into: &mut Vec<KvEntry>,
    ) -> Result<usize, KvError> {
        let before = into.len();
        loop {
            let read = self.reader.next_batch(max, &mut self.batch).await;
            // Also after an error: what came before it is in order.
            let entries = self.batch.drain(..);
            let entries = entries.filter_map(|message| self.bucket.entry(message));
            let kept = match &mut self.again {
                None => {
                    into.extend(entries);
                    Ok(())
                }
                Some(again) => again.take(&self.reader, entries, into),
            };
            let lost = |reason| ReadError::Lost {
                stream: self.bucket.stream.clone(),
                reason,
            };
            let read = read.and_then(|read| kept.map(|()| read).map_err(lost));
            let read = read.map_err(|source| KvError::Read {
                bucket: self.bucket.bucket.clone(),
                source,
            })?;
            // If all of it was known, whoever waits goes on waiting.
            if read == 0 || into.len() > before || self.again.is_none() {
                return Ok(into.len() - before);
            }
        }
    }

    /// Entries behind the last one handed out.
    pub fn pending(&self) -> u64 {
        self.reader.pending()
    }
}

/// What was handed out of a shared bucket. After a break its entries are read again: those that are known are left out, and a known one
/// that isn't there any more shows that the bucket was set back.
#[derive(Debug, Default)]
struct Again {
    session: u64,
    /// Revision and time of the last entry of each key, and whether it is there to stay.
    known: BTreeMap<String, (u64, Timestamp, bool)>,
    /// What has not come again yet in this session; nothing once all has been read.
    missing: Option<BTreeSet<String>>,
}

impl Again {
    /// Hands out the entries of one session that are new.
    ///
    /// # Errors
    /// What shows that the bucket was set back.
    fn take(
        &mut self,
        reader: &Reader,
        entries: impl Iterator<Item = KvEntry>,
        into: &mut Vec<KvEntry>,
    ) -> Result<(), String> {
        if self.session != reader.sessions() {
            self.session = reader.sessions();
            let lasting = self.known.iter().filter(|(_, (.., stays))| *stays);
            self.missing = Some(lasting.map(|(key, _)| key.clone()).collect());
        }
        for entry in entries {
            let KvEntry {
                key,
                revision,
                stored_at,
                ..
            } = &entry;
            if let Some(missing) = &mut self.missing {
                missing.remove(key);
            }
            match self.known.get(key) {
                Some((known, at, _)) if (known, at) == (revision, stored_at) => continue,
                Some((known, ..)) if known >= revision => {
                    return Err(format!("{key} was at {known} and is at {revision}"));
                }
                _ => {}
            }
            let expires = |headers: &HeaderMap| headers.get("Nats-TTL").is_some();
            let stays = !entry.deleted && !entry.headers.as_ref().is_some_and(expires);
            self.known
                .insert(key.clone(), (*revision, *stored_at, stays));
            into.push(entry);
        }
        match self.missing.take_if(|_| reader.pending() == 0) {
            Some(missing) => match missing.first() {
                Some(key) => Err(format!("{key} is gone")),
                None => Ok(()),
            },
            None => Ok(()),
        }
    }
}

/// Subject of a key of a bucket; of several, where `key` has wildcards.
pub fn subject_of(bucket: &str, key: &str) -> String {
    format!("$KV.{bucket}.{key}")
}

/// Where a client writes what is stored at a bucket's subject: through JetStream's API prefix, if that isn't the usual one, since servers let
/// no `$KV` of their own pass between domains (nats-server maps `$JS.<domain>.API.$KV.>`, as its other clients rely on).
pub(crate) fn written_at(api: &str, subject: &str) -> String {
    match api {
        "$JS.API" => subject.to_owned(),
        api => format!("{api}.{subject}"),
    }
}

/// The stream behind a bucket.
pub fn stream_of(bucket: &str) -> String {
    tidemill_core::names::bucket_stream(bucket)
}
