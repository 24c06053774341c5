//! Definitions by revision: every instance runs with the one it was started with.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tidemill_core::definition::{Revision, SagaDefinition};
use tidemill_core::names::{REVISIONS_BUCKET, ResourceId};
use tidemill_core::planted::{Bug, planted};
use tidemill_core::saga::{CompiledSaga, SagaCompileError};
use tidemill_nats::{KvBucket, KvError, Publisher};
use tidemill_worker_runtime::backoff::Backoff;
use tokio_util::sync::CancellationToken;

pub(crate) struct Revisions {
    bucket: KvBucket,
    resource: ResourceId,
    pub(crate) current: Arc<CompiledSaga>,
    pub(crate) current_revision: Revision,
    known: Mutex<HashMap<Revision, Arc<CompiledSaga>>>,
}

/// Why an instance's definition can't be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RevisionError {
    #[error("the definition of revision {0} is not in bucket {REVISIONS_BUCKET}")]
    Missing(Revision),
    #[error(transparent)]
    Bucket(#[from] KvError),
    #[error("the definition of revision {0} can't be read: {1}")]
    Form(Revision, serde_json::Error),
    #[error("the definition of revision {0} doesn't compile in this version: {1}")]
    Compile(Revision, Box<SagaCompileError>),
    /// Told to stop before it was known.
    #[error("the worker is handing over")]
    Abandoned,
}

impl RevisionError {
    /// Whether the same may succeed soon without anybody doing anything.
    fn may_pass(&self) -> bool {
        match self {
            RevisionError::Bucket(KvError::Get { source, .. }) => source.may_pass(),
            RevisionError::Bucket(KvError::Write { source, .. }) => source.may_pass(),
            _ => false,
        }
    }
}

impl Revisions {
    pub(crate) fn new(publisher: &Publisher, resource: ResourceId, current: CompiledSaga) -> Self {
        let current = Arc::new(current);
        let current_revision = current.definition.revision();
        let known = HashMap::from([(current_revision.clone(), Arc::clone(&current))]);
        let bucket = KvBucket::shared(publisher, REVISIONS_BUCKET);
        Revisions {
            bucket,
            resource,
            current,
            current_revision,
            known: Mutex::new(known),
        }
    }

    fn key(&self, revision: &Revision) -> String {
        self.resource.revision_key(revision)
    }

    /// Stores the current definition, create-only, before any `s` names it.
    pub(crate) async fn store_current(&self) -> Result<(), RevisionError> {
        if planted(Bug::DefinitionUnstored) {
            return Ok(());
        }
        let revision = &self.current_revision;
        let definition = serde_json::to_vec(&self.current.definition)
            .map_err(|error| RevisionError::Form(revision.clone(), error))?;
        self.bucket.create(&self.key(revision), definition).await?;
        Ok(())
    }

    /// A definition that was used before.
    pub(crate) fn known(&self, revision: &Revision) -> Option<Arc<CompiledSaga>> {
        if planted(Bug::RevisionForgotten) {
            return Some(Arc::clone(&self.current));
        }
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(revision)
            .cloned()
    }

    /// As [`Revisions::get`], trying again while that may help.
    pub(crate) async fn find(
        &self,
        revision: &Revision,
        stop: &CancellationToken,
    ) -> Result<Arc<CompiledSaga>, RevisionError> {
        let mut backoff = Backoff::default();
        loop {
            match self.get(revision).await {
                Err(error) if error.may_pass() => {
                    tracing::warn!(%error, "a definition can't be read; trying again");
                }
                done => return done,
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next_pause()) => {}
                () = stop.cancelled() => return Err(RevisionError::Abandoned),
            }
        }
    }

    /// The definition of a revision.
    pub(crate) async fn get(
        &self,
        revision: &Revision,
    ) -> Result<Arc<CompiledSaga>, RevisionError> {
        if let Some(saga) = self.known(revision) {
            return Ok(saga);
        }
        let entry = self
            .bucket
            .get(&self.key(revision))
            .await?
            .filter(|entry| !entry.deleted);
        let entry = entry.ok_or_else(|| RevisionError::Missing(revision.clone()))?;
        let definition: SagaDefinition = serde_json::from_slice(&entry.value)
            .map_err(|error| RevisionError::Form(revision.clone(), error))?;
        let saga = CompiledSaga::new(self.resource.clone(), definition)
            .map_err(|error| RevisionError::Compile(revision.clone(), Box::new(error)))?;
        let saga = Arc::new(saga);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(revision.clone(), Arc::clone(&saga));
        Ok(saga)
    }
}
