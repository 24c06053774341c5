//! What a projection keeps in NATS besides its rows: pointers, lineages, starts, definitions, checkpoints, decisions.

use crate::error::{SessionError, Stopped, full_text};
use std::collections::HashSet;
use std::sync::Arc;
use tidemill_core::contract::{Contract, ProjectionWorkload};
use tidemill_core::definition::{ProjectionDefinition, Revision, Start, StreamRef};
use tidemill_core::names::{COUNTERS_BUCKET, REVISIONS_BUCKET, ResourceId, WHOLE_TOKEN};
use tidemill_core::planted::{Bug, planted};
use tidemill_core::projection::{
    Checkpoint, DECISIONS_PREFIX, KeySpace, LIVE_KEY, Lineage, Position, Sources, accepted_key,
    parse_decision_key, rebuild_key, source_key,
};
use tidemill_core::status::ResolvedStart;
use tidemill_core::timestamp::Timestamp;
use tidemill_nats::kv::{Guard, KvWrite};
use tidemill_nats::{
    KvBucket, KvEntry, KvError, Nats, PublishError, Publisher, ReadFrom, Reader, StreamState,
};

/// Everything a projection has in NATS.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) nats: Nats,
    pub(crate) publisher: Publisher,
    pub(crate) contract: Arc<Contract>,
    pub(crate) rows: KvBucket,
    pub(crate) parked_stream: String,
    counters: KvBucket,
    revisions: KvBucket,
}

/// A value and the revision to guard its next write with; 0 = nothing is there.
#[derive(Clone, Debug)]
pub(crate) struct Versioned<T> {
    pub(crate) value: T,
    pub(crate) revision: u64,
}

/// Events that a person decided to leave out: source, position, row token.
pub(crate) type Decisions = HashSet<(usize, Position, Box<str>)>;

/// Whether a person has left an event out of a row.
pub(crate) fn is_left_out(
    decisions: &Decisions,
    source: usize,
    position: Position,
    token: &str,
) -> bool {
    let has = |token: &str| decisions.contains(&(source, position, token.into()));
    !decisions.is_empty() && (has(token) || has(WHOLE_TOKEN))
}

impl Store {
    pub(crate) fn new(
        nats: &Nats,
        publisher: &Publisher,
        contract: &Arc<Contract>,
        workload: &ProjectionWorkload,
    ) -> Store {
        Store {
            nats: nats.clone(),
            publisher: publisher.clone(),
            contract: Arc::clone(contract),
            rows: KvBucket::new(publisher, &workload.rows_bucket),
            parked_stream: workload.parked_stream.clone(),
            counters: KvBucket::shared(publisher, COUNTERS_BUCKET),
            revisions: KvBucket::shared(publisher, REVISIONS_BUCKET),
        }
    }

    pub(crate) fn resource(&self) -> &ResourceId {
        &self.contract.resource
    }

    fn foreign(bucket: &KvBucket, key: &str, problem: impl ToString) -> Stopped {
        Stopped::ForeignKey {
            bucket: bucket.bucket().to_owned(),
            key: key.to_owned(),
            problem: problem.to_string(),
        }
    }

    /// The key space that readers follow.
    pub(crate) async fn live(&self) -> Result<Versioned<Option<KeySpace>>, SessionError> {
        let Some(entry) = self.rows.get(LIVE_KEY).await? else {
            return Ok(Versioned {
                value: None,
                revision: 0,
            });
        };
        let revision = entry.revision;
        if entry.deleted {
            return Ok(Versioned {
                value: None,
                revision,
            });
        }
        let space = std::str::from_utf8(&entry.value)
            .ok()
            .and_then(KeySpace::parse);
        let space = space
            .ok_or_else(|| Self::foreign(&self.rows, LIVE_KEY, "it is no name of a key space"))?;
        Ok(Versioned {
            value: Some(space),
            revision,
        })
    }

    /// Leads readers to a key space; false: somebody else changed the pointer.
    pub(crate) async fn set_live(
        &self,
        space: &KeySpace,
        guard: u64,
    ) -> Result<bool, SessionError> {
        if planted(Bug::OlderPointer) {
            self.rows.put(LIVE_KEY, space.to_string()).await?;
            return Ok(true);
        }
        Ok(guarded(&self.rows, LIVE_KEY, space.to_string(), guard)
            .await?
            .is_some())
    }

    /// How often a revision was rebuilt by request.
    pub(crate) async fn rebuilds(&self, of: &Revision) -> Result<Versioned<u32>, SessionError> {
        let key = rebuild_key(of);
        let Some(entry) = present(self.rows.get(&key).await?) else {
            return Ok(Versioned {
                value: 0,
                revision: 0,
            });
        };
        let number = std::str::from_utf8(&entry.value)
            .ok()
            .and_then(|text| text.parse().ok());
        let value = number.ok_or_else(|| Self::foreign(&self.rows, &key, "it is no number"))?;
        Ok(Versioned {
            value,
            revision: entry.revision,
        })
    }

    /// Notes that a revision is to be rebuilt; false: somebody else just did.
    pub(crate) async fn set_rebuilds(
        &self,
        of: &Revision,
        number: u32,
        guard: u64,
    ) -> Result<bool, SessionError> {
        Ok(
            guarded(&self.rows, &rebuild_key(of), number.to_string(), guard)
                .await?
                .is_some(),
        )
    }

    /// Whether a person accepted that rows lack what the sources no longer hold.
    pub(crate) async fn is_history_accepted(&self, of: &KeySpace) -> Result<bool, SessionError> {
        Ok(present(self.rows.get(&accepted_key(of)).await?).is_some())
    }

    /// Notes that a person accepted it.
    pub(crate) async fn accept_history(&self, of: &KeySpace) -> Result<(), SessionError> {
        self.rows.put(&accepted_key(of), "accepted").await?;
        Ok(())
    }

    /// Keeps a definition, so that its rows can be folded on beside those of a later one.
    pub(crate) async fn keep_definition(
        &self,
        definition: &ProjectionDefinition,
    ) -> Result<(), SessionError> {
        let key = self.resource().revision_key(&definition.revision());
        if present(self.revisions.get(&key).await?).is_some() {
            return Ok(());
        }
        // Strings, numbers and maps with string keys always serialise.
        let json = serde_json::to_string(definition).unwrap_or_default();
        self.revisions.create(&key, json).await?;
        Ok(())
    }

    /// A definition that was kept; `None` too if this version can't read it.
    pub(crate) async fn definition(
        &self,
        revision: &Revision,
    ) -> Result<Option<ProjectionDefinition>, SessionError> {
        let key = self.resource().revision_key(revision);
        let entry = present(self.revisions.get(&key).await?);
        Ok(entry.and_then(|entry| serde_json::from_slice(&entry.value).ok()))
    }

    /// The histories a source has had, if it was ever read.
    pub(crate) async fn known_lineage(
        &self,
        stream: &StreamRef,
    ) -> Result<Option<Versioned<Lineage>>, SessionError> {
        let key = source_key(stream);
        let Some(entry) = present(self.rows.get(&key).await?) else {
            return Ok(None);
        };
        let value = serde_json::from_slice(&entry.value)
            .map_err(|error| Self::foreign(&self.rows, &key, error))?;
        Ok(Some(Versioned {
            value,
            revision: entry.revision,
        }))
    }

    /// The histories a source has had; begun with the stream as it is if there is none.
    pub(crate) async fn lineage(
        &self,
        stream: &StreamRef,
        state: &StreamState,
    ) -> Result<Versioned<Lineage>, SessionError> {
        let key = source_key(stream);
        loop {
            if let Some(known) = self.known_lineage(stream).await? {
                return Ok(known);
            }
            let first = Lineage::first(&state.incarnation);
            let json = serde_json::to_string(&first).unwrap_or_default();
            if let Some(revision) = self.rows.create(&key, json).await? {
                return Ok(Versioned {
                    value: first,
                    revision,
                });
            }
        }
    }

    /// Notes that a source goes on with another history; false: somebody else changed it.
    pub(crate) async fn set_lineage(
        &self,
        stream: &StreamRef,
        lineage: &Lineage,
        guard: u64,
    ) -> Result<bool, SessionError> {
        let json = serde_json::to_string(lineage).unwrap_or_default();
        Ok(guarded(&self.rows, &source_key(stream), json, guard)
            .await?
            .is_some())
    }

    /// The sequence after which a source is read, resolved once and for all revisions.
    pub(crate) async fn start_after(
        &self,
        stream: &StreamRef,
        start: Start,
        state: &StreamState,
    ) -> Result<u64, SessionError> {
        let key = self.resource().start_key(stream);
        loop {
            if let Some(entry) = present(self.counters.get(&key).await?)
                && !planted(Bug::StartResolvedAgain)
            {
                let resolved: ResolvedStart = serde_json::from_slice(&entry.value)
                    .map_err(|error| Self::foreign(&self.counters, &key, error))?;
                return Ok(resolved.after);
            }
            let after = match start {
                // What is gone already isn't missed later.
                Start::Beginning => state.first.saturating_sub(1),
                Start::New => state.last,
                Start::Position(sequence) => sequence.saturating_sub(1),
                Start::Time(time) => self.last_before(&state.name, time, state.last).await?,
            };
            let resolved = ResolvedStart::new(stream.clone(), state.incarnation.clone(), after);
            let json = serde_json::to_string(&resolved).unwrap_or_default();
            let created = self.counters.create(&key, json).await?.is_some();
            if created || planted(Bug::StartResolvedAgain) {
                tracing::info!(%stream, after, "reading begins");
                return Ok(after);
            }
        }
    }

    /// The last sequence stored before a time.
    pub(crate) async fn last_before(
        &self,
        stream: &str,
        time: Timestamp,
        last: u64,
    ) -> Result<u64, SessionError> {
        let mut reader =
            Reader::open_to_end(&self.nats, stream, Vec::new(), ReadFrom::Time(time)).await?;
        let mut messages = Vec::new();
        reader.next_batch(1, &mut messages).await?;
        Ok(messages
            .first()
            .map_or(last, |message| message.sequence.saturating_sub(1)))
    }

    /// Checkpoints of partitions of a key space: partition, revision (0 = none), checkpoint.
    pub(crate) async fn checkpoints(
        &self,
        space: &KeySpace,
        sources: &Sources,
        partitions: impl Iterator<Item = u16>,
    ) -> Result<Vec<(u16, u64, Checkpoint)>, SessionError> {
        let partitions: Vec<u16> = partitions.collect();
        let keys: Vec<String> = partitions
            .iter()
            .map(|partition| space.checkpoint_key(*partition))
            .collect();
        let entries = self.rows.get_many(&keys).await?;
        let mut checkpoints = Vec::with_capacity(partitions.len());
        for (partition, entry) in partitions.into_iter().zip(entries) {
            let revision = entry.as_ref().map_or(0, |entry| entry.revision);
            let checkpoint = match present(entry) {
                None => Checkpoint::default(),
                Some(entry) => Checkpoint::parse(sources, &entry.value)
                    .map_err(|error| Self::foreign(&self.rows, &entry.key, full_text(&error)))?,
            };
            checkpoints.push((partition, revision, checkpoint));
        }
        Ok(checkpoints)
    }

    /// What people decided to leave out, of these sources.
    pub(crate) async fn decisions(&self, sources: &Sources) -> Result<Decisions, SessionError> {
        let entries = self.rows.entries(DECISIONS_PREFIX).await?;
        let decisions = entries
            .values()
            .filter(|entry| !entry.deleted)
            .filter_map(|entry| {
                let (stream, position, token) = parse_decision_key(&entry.key)?;
                let source = sources.iter().position(|source| source.stream == stream)?;
                Some((source, position, token.into()))
            });
        Ok(decisions.collect())
    }

    /// Whether nothing at all is in a key space, so that no row needs to be looked for.
    pub(crate) async fn is_empty(&self, space: &KeySpace) -> Result<bool, SessionError> {
        let subject = self.rows.subject(&space.all_keys());
        Ok(self
            .nats
            .next_for_subject(self.rows.stream(), &subject, 0)
            .await?
            .is_none())
    }
}

fn present(entry: Option<KvEntry>) -> Option<KvEntry> {
    entry.filter(|entry| !entry.deleted)
}

/// Writes a key that must be at a revision; `None` if it isn't.
pub(crate) async fn guarded(
    bucket: &KvBucket,
    key: &str,
    value: String,
    revision: u64,
) -> Result<Option<u64>, SessionError> {
    let write = KvWrite {
        key: key.to_owned(),
        value: Some(value.into()),
        guard: Guard::Revision(revision),
        ..KvWrite::default()
    };
    match bucket.write(write).await {
        Ok(revision) => Ok(Some(revision)),
        Err(KvError::Write {
            source: PublishError::Conflict,
            ..
        }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
