//! What reconcilers ask of JetStream: a port, so that they are tried against a model as well, and its adapter.

use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;
use tidemill_core::contract::Contract;
use tidemill_core::definition::SagaDefinition;
use tidemill_core::names::{COUNTERS_BUCKET, REVISIONS_BUCKET, ResourceId, parse_counters_key};
use tidemill_nats::provision::{self, Loss, Outcome, StreamPlan};
use tidemill_nats::{
    ApiError, KvBucket, KvEntry, KvError, Nats, Publisher, ReadError, StreamState,
};
use tidemill_provision::starts::{self, StartError};

/// The calls of JetStream that reconcilers make.
pub trait JetStream: Clone + Send + Sync + 'static {
    /// A stream as it is; `None` = there is none.
    fn stream(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<Option<StreamState>, ApiError>> + Send;

    /// Names of the streams that take a subject.
    fn streams_on(
        &self,
        subject: &str,
    ) -> impl Future<Output = Result<Vec<String>, ApiError>> + Send;

    /// What a configuration would delete of what is in a stream, see [`provision::losses`].
    fn losses(
        &self,
        present: &StreamState,
        config: &Map<String, Value>,
        changed: &[String],
    ) -> impl Future<Output = Result<Vec<Loss>, ApiError>> + Send;

    /// Makes the buckets that all workers share, where they aren't there.
    fn shared_buckets(
        &self,
        plans: [StreamPlan; 4],
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Stores where the streams of a contract are begun that are begun at their end; what is stored already stays.
    fn remember_starts(
        &self,
        contract: &Contract,
    ) -> impl Future<Output = Result<(), StartError>> + Send;

    /// What the workers of a resource have counted, partition by partition, as it is stored.
    fn counters(
        &self,
        resource: &ResourceId,
    ) -> impl Future<Output = Result<Vec<Vec<u8>>, KvError>> + Send;

    /// Every definition that a Saga's instances were started with, as far as they are stored and can be read.
    fn definitions(
        &self,
        resource: &ResourceId,
    ) -> impl Future<Output = Result<Vec<SagaDefinition>, KvError>> + Send;

    /// Makes a stream.
    fn create(
        &self,
        name: &str,
        config: &Map<String, Value>,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Changes a stream.
    fn update(
        &self,
        name: &str,
        config: &Map<String, Value>,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Deletes a stream with all that is in it; that it is gone already is success.
    fn delete(&self, name: &str) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Deletes what the shared buckets hold of a resource.
    fn forget(&self, resource: &ResourceId) -> impl Future<Output = Result<(), ApiError>> + Send;
}

/// Longest wait for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// An answer, or that there is none now: calls that go on by themselves when NATS is back would hold up whatever else is to be done for their
/// resource, even its deletion.
async fn answered<T, E: From<ApiError>>(
    nats: &Nats,
    call: &str,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let mut status = nats.status();
    tokio::select! {
        biased;
        _ = status.wait_for(|status| !status.connected) => {
            Err(ApiError::Disconnected(call.to_owned()).into())
        }
        answer = answer => answer,
        () = tokio::time::sleep(ANSWER_MAX) => Err(ApiError::TimedOut(call.to_owned()).into()),
    }
}

/// What a shared bucket holds of a resource.
async fn entries_of(
    nats: &Nats,
    bucket: &str,
    resource: &ResourceId,
) -> Result<BTreeMap<String, KvEntry>, KvError> {
    let prefix = resource.key_prefix();
    let all = KvBucket::new(&Publisher::new(nats, 1), bucket);
    let read = answered(nats, bucket, async { Ok(all.entries(&prefix).await) }).await;
    read.unwrap_or_else(|source| {
        let bucket = bucket.to_owned();
        Err(KvError::Get { bucket, source })
    })
}

impl JetStream for Nats {
    async fn stream(&self, name: &str) -> Result<Option<StreamState>, ApiError> {
        let call = format!("STREAM.INFO.{name}");
        match answered(self, &call, self.stream_state(name)).await {
            Ok(state) => Ok(Some(state)),
            Err(ApiError::StreamMissing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn streams_on(&self, subject: &str) -> Result<Vec<String>, ApiError> {
        answered(self, "STREAM.NAMES", Nats::streams_on(self, subject)).await
    }

    async fn losses(
        &self,
        present: &StreamState,
        config: &Map<String, Value>,
        changed: &[String],
    ) -> Result<Vec<Loss>, ApiError> {
        let losses = provision::losses(self, present, config, changed);
        answered(self, "STREAM.MSG.GET", losses).await
    }

    async fn shared_buckets(&self, plans: [StreamPlan; 4]) -> Result<(), ApiError> {
        for plan in plans {
            let call = format!("STREAM.CREATE.{}", plan.name);
            let made = answered(self, &call, provision::ensure(self, &plan)).await?;
            if let Outcome::Conflict(why) = made {
                return Err(ApiError::Refused {
                    call,
                    code: 0,
                    description: why,
                });
            }
        }
        Ok(())
    }

    async fn remember_starts(&self, contract: &Contract) -> Result<(), StartError> {
        answered(self, COUNTERS_BUCKET, starts::remember(self, contract)).await
    }

    async fn counters(&self, resource: &ResourceId) -> Result<Vec<Vec<u8>>, KvError> {
        let entries = match entries_of(self, COUNTERS_BUCKET, resource).await {
            Ok(entries) => entries,
            // Nobody has counted anything yet.
            Err(KvError::Read {
                source: ReadError::StreamMissing(_),
                ..
            }) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let partitions = entries
            .into_iter()
            .filter(|(key, entry)| parse_counters_key(key).is_some() && !entry.deleted);
        Ok(partitions.map(|(_, entry)| entry.value.to_vec()).collect())
    }

    async fn definitions(&self, resource: &ResourceId) -> Result<Vec<SagaDefinition>, KvError> {
        let entries = entries_of(self, REVISIONS_BUCKET, resource).await?;
        let stored = entries.into_values().filter(|entry| !entry.deleted);
        // One that can't be read here can't be read by workers either.
        Ok(stored
            .filter_map(|entry| serde_json::from_slice(&entry.value).ok())
            .collect())
    }

    async fn create(&self, name: &str, config: &Map<String, Value>) -> Result<(), ApiError> {
        let call = format!("STREAM.CREATE.{name}");
        answered(self, &call, provision::create(self, name, config)).await
    }

    async fn update(&self, name: &str, config: &Map<String, Value>) -> Result<(), ApiError> {
        let call = format!("STREAM.UPDATE.{name}");
        answered(self, &call, provision::update(self, name, config)).await
    }

    async fn delete(&self, name: &str) -> Result<(), ApiError> {
        let call = format!("STREAM.DELETE.{name}");
        answered(self, &call, provision::remove(self, name)).await
    }

    async fn forget(&self, resource: &ResourceId) -> Result<(), ApiError> {
        answered(self, "STREAM.PURGE", provision::forget(self, resource)).await
    }
}
