//! What a session begins with.

use super::cache::Cache;
use super::folding::read_row;
use super::history::{self, Found};
use super::intake::{self, Preparation};
use super::lead::{Lead, Live};
use super::progress::Progress;
use super::{Plan, Session};
use crate::error::{SessionError, Stopped};
use crate::meters::Meters;
use crate::observed::Observer;
use crate::store::{Store, is_left_out};
use futures::StreamExt;
use std::collections::VecDeque;
use std::sync::Arc;
use tidemill_core::contract::{StreamBinding, Workload};
use tidemill_core::envelope::Decoder;
use tidemill_core::names::PROJECTION_PARTITIONS;
use tidemill_core::planted::{Bug, planted};
use tidemill_core::projection::parked::{Entry, ParkedKeys, Waiting};
use tidemill_core::projection::{
    KEYLESS_TOKEN, Position, Projection, Source, SourceCheckpoint, SourceSeen, Sources,
    verify_source,
};
use tidemill_nats::{ReadFrom, Reader, StreamState};
use tokio::time::Instant;

/// Checkpoints compared with a source at a time.
const COMPARISONS_IN_FLIGHT: usize = 16;
/// Parked messages read at a time.
const BATCH: usize = 512;

/// Reads everything, compares the sources with the checkpoints, and opens the readers.
pub(super) async fn load(
    store: Store,
    plan: Plan,
    observer: Observer,
    meters: Meters,
) -> Result<Session, SessionError> {
    let projection = Arc::new(Projection::compile(&plan.definition).map_err(Stopped::Compile)?);
    let mut sources = Vec::new();
    let mut states = Vec::new();
    let mut starts = Vec::new();
    for stream in &plan.definition.sources {
        let binding = store
            .contract
            .binding(stream)
            .ok_or_else(|| Stopped::Unbound(stream.clone()))?;
        let state = store.nats.stream_state(&binding.name).await?;
        if state.retention() != "limits" && !planted(Bug::QueueFolded) {
            return Err(Stopped::Retention {
                stream: stream.clone(),
                retention: state.retention().to_owned(),
            }
            .into());
        }
        starts.push(
            store
                .start_after(stream, start_of(&store, stream), &state)
                .await?,
        );
        let lineage = store.lineage(stream, &state).await?.value;
        sources.push(Source {
            stream: stream.clone(),
            lineage,
        });
        states.push(state);
    }
    let sources = Sources::new(sources);
    let checkpoints = store
        .checkpoints(&plan.space, &sources, plan.owned.iter())
        .await?;
    let mut progress = Progress::new(plan.owned.clone(), &sources, checkpoints);
    let mut after = Vec::new();
    for (index, ((source, state), start)) in sources.iter().zip(&states).zip(&starts).enumerate() {
        verify(&store, source, state, &progress.checkpointed(index)).await?;
        after.push(resume_after(&progress, index, source, *start));
    }
    let decisions = store.decisions(&sources).await?;
    let complete = store.is_empty(&plan.space).await?;
    let mut preparations = Vec::new();
    let mut intake = Vec::new();
    let mut readers = Vec::new();
    let mut found = Vec::new();
    for (index, (source, from)) in sources.iter().zip(&after).enumerate() {
        let binding = store
            .contract
            .binding(&source.stream)
            .ok_or_else(|| Stopped::Unbound(source.stream.clone()))?;
        let preparation = Preparation {
            projection: Arc::clone(&projection),
            decoder: Arc::new(decoder(binding, source)?),
            index,
            source: source.clone(),
        };
        let reader = Reader::open(
            &store.nats,
            &binding.name,
            Vec::new(),
            ReadFrom::After(*from),
        )
        .await?;
        found.push(self::found(&progress, index, *from, &reader));
        let (batches, handle) = intake::read(reader, preparation.clone());
        preparations.push(preparation);
        intake.push(batches);
        readers.push(handle);
    }
    // Rows that are being built are counted by the partition.
    let is_building = matches!(plan.live, Live::At { .. });
    if !is_building
        && found
            .iter()
            .enumerate()
            .any(|(index, found)| found.gone > progress.gone(index))
    {
        let firsts: Vec<u64> = states.iter().map(|state| state.first).collect();
        let folded = history::folded(&store, &plan.space, &sources, &firsts).await?;
        progress.count_gone_behind(&sources, &folded);
    } else {
        progress.count_gone_behind(&sources, &[]);
    }
    history::refuse_lost(&store, &plan.live, &sources, &found).await?;
    let heads: Vec<u64> = states.iter().map(|state| state.last).collect();
    let pending = heads
        .iter()
        .zip(&after)
        .map(|(last, after)| last.saturating_sub(*after))
        .collect();
    tracing::info!(space = %plan.space, partitions = plan.owned.iter().count(), ?after, "folding begins");
    let mut session = Session {
        lead: Lead::new(plan.live, &sources, &heads),
        store,
        space: plan.space,
        policy: plan.policy,
        projection,
        sources,
        preparations,
        intake,
        _readers: readers,
        pending,
        read_to: after,
        cache: Cache::new(plan.options.cache_bytes_max, complete),
        parked: ParkedKeys::with_events_max(plan.options.parked_events_max),
        decisions,
        parking: Vec::new(),
        flight: None,
        flight_next: VecDeque::new(),
        flight_moment: progress.now(),
        progress,
        checkpointing: None,
        checkpointed_at: Instant::now(),
        observed_at: Instant::now(),
        dirty_since: None,
        halted: None,
        held: VecDeque::new(),
        ends: Vec::new(),
        looking: None,
        looked_at: Instant::now(),
        left_out_said: 0,
        observer,
        meters,
        next_source: 0,
    };
    session.limit_rows().await?;
    session.load_parked().await?;
    Ok(session)
}

/// The sequence after which a source is read that was begun after `start`.
pub(super) fn resume_after(progress: &Progress, index: usize, source: &Source, start: u64) -> u64 {
    // The start is of the first history; of a later one only what it shares with that is before it.
    let floor = source.lineage.resume_after(Position {
        generation: 0,
        sequence: start,
    });
    progress.resume_after(index, &source.lineage).max(floor)
}

/// What rows will have found when a reader that begins after `from` is at its end.
pub(super) fn found(progress: &Progress, index: usize, from: u64, reader: &Reader) -> Found {
    // What is gone behind the position, in the middle too: sequences that nothing will be read of.
    let ahead = reader.state().last.saturating_sub(from);
    Found {
        gone: progress.gone(index) + ahead.saturating_sub(reader.pending()),
        outlived: progress.outlived(index),
    }
}

/// Where a source is begun that was never read. A source of an older definition was read before, so it has its start stored.
pub(super) fn start_of(
    store: &Store,
    stream: &tidemill_core::definition::StreamRef,
) -> tidemill_core::definition::Start {
    let Workload::Projection(workload) = &store.contract.workload else {
        return Default::default();
    };
    let index = workload
        .definition
        .sources
        .iter()
        .position(|source| source == stream);
    index
        .and_then(|index| workload.starts.get(index))
        .copied()
        .unwrap_or_default()
}

fn decoder(binding: &StreamBinding, source: &Source) -> Result<Decoder, Stopped> {
    Decoder::new(binding).map_err(|error| Stopped::Capture {
        stream: source.stream.clone(),
        error,
    })
}

/// Compares a stream with what was folded of it.
async fn verify(
    store: &Store,
    source: &Source,
    state: &StreamState,
    folded: &[SourceCheckpoint],
) -> Result<(), SessionError> {
    let reset = |reset| Stopped::SourceReset {
        stream: source.stream.clone(),
        reset,
    };
    let seen = |stored_at| SourceSeen {
        incarnation: state.incarnation.clone(),
        last_sequence: state.last,
        stored_at,
    };
    // Incarnation and end first: they need no message.
    for checkpoint in folded {
        verify_source(&source.lineage, checkpoint.position, None, &seen(None)).map_err(reset)?;
    }
    let begun: Vec<SourceCheckpoint> = folded
        .iter()
        .filter(|checkpoint| checkpoint.position.sequence > 0)
        .copied()
        .collect();
    let mut messages = futures::stream::iter(begun)
        .map(|checkpoint| async move {
            (
                checkpoint,
                store
                    .nats
                    .read_at(&state.name, checkpoint.position.sequence)
                    .await,
            )
        })
        .buffer_unordered(COMPARISONS_IN_FLIGHT);
    while let Some((checkpoint, message)) = messages.next().await {
        let stored_at = message?.map(|message| message.stored_at);
        verify_source(
            &source.lineage,
            checkpoint.position,
            checkpoint.stored_at,
            &seen(stored_at),
        )
        .map_err(reset)?;
    }
    Ok(())
}

impl Session {
    /// Reads which keys wait. What was redriven or decided before a restart, and what is there twice, is cleared away.
    async fn load_parked(&mut self) -> Result<(), SessionError> {
        if planted(Bug::ParkedNotLoaded) {
            return Ok(());
        }
        let prefix = self.store.resource().parked_prefix(self.store.nats.root());
        let owned = self.progress.owned();
        let filters = match owned.iter().count() == usize::from(PROJECTION_PARTITIONS) {
            true => vec![format!("{prefix}.>")],
            false => owned
                .iter()
                .map(|partition| format!("{prefix}.{partition}.>"))
                .collect(),
        };
        let mut reader = Reader::open_to_end(
            &self.store.nats,
            &self.store.parked_stream,
            filters,
            ReadFrom::First,
        )
        .await?;
        let mut superfluous = Vec::new();
        let mut messages = Vec::new();
        while reader.next_batch(BATCH, &mut messages).await? > 0 {
            for message in messages.drain(..) {
                let headers = intake::borrowed_headers(message.headers.as_ref());
                let token = message
                    .subject
                    .as_str()
                    .rsplit('.')
                    .next()
                    .unwrap_or_default();
                let entry = match Entry::read(&self.sources, &headers, &[]) {
                    Ok(entry) => entry,
                    Err(error) => {
                        // Of a source that this definition doesn't have, or not ours: it stays for whoever can read it.
                        tracing::debug!(sequence = message.sequence, %error, "a parked message is not read");
                        continue;
                    }
                };
                if entry.key_space != self.space {
                    continue;
                }
                let waiting = Waiting {
                    kept_at: message.sequence,
                    source: entry.source,
                    position: entry.position,
                    reason: entry.failure.map(|failure| failure.reason.into()),
                };
                let decided = is_left_out(&self.decisions, entry.source, entry.position, token);
                if decided || !self.parked.add(token, waiting) {
                    superfluous.push(message.sequence);
                }
            }
        }
        self.drop_folded(&mut superfluous).await?;
        for sequence in superfluous {
            self.store
                .nats
                .delete_message(&self.store.parked_stream, sequence)
                .await?;
        }
        if self.parked.keys() > 0 {
            tracing::warn!(
                keys = self.parked.keys(),
                events = self.parked.events(),
                "keys are parked"
            );
        }
        Ok(())
    }

    /// What is in its row already was redriven before a restart.
    async fn drop_folded(&mut self, superfluous: &mut Vec<u64>) -> Result<(), SessionError> {
        let tokens: Vec<Box<str>> = self
            .parked
            .tokens()
            .filter(|token| *token != KEYLESS_TOKEN)
            .map(Into::into)
            .collect();
        let keys: Vec<String> = tokens
            .iter()
            .map(|token| self.space.row_key(token))
            .collect();
        let entries = self.store.rows.get_many(&keys).await?;
        for (token, entry) in tokens.iter().zip(entries) {
            let Some(entry) = entry else { continue };
            let row = read_row(&self.sources, &entry)?;
            for waiting in self.parked.waiting(token).to_vec() {
                if waiting.position <= row.positions().get(waiting.source) {
                    self.parked.remove(token, waiting.source, waiting.position);
                    superfluous.push(waiting.kept_at);
                }
            }
        }
        Ok(())
    }
}
