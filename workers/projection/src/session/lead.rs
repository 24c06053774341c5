//! Leading readers to the rows of a session.

use super::{Session, history};
use crate::error::SessionError;
use std::collections::BTreeMap;
use tidemill_core::definition::StreamRef;
use tidemill_core::names::PROJECTION_PARTITIONS;
use tidemill_core::projection::{KeySpace, NotYet, Position, Progress, Sources, may_switch};

/// Where readers are led when a session begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Live {
    /// To the session's rows, or it doesn't matter to it.
    Settled,
    /// Nowhere: there never were rows.
    Nowhere {
        /// Revision of the pointer.
        guard: u64,
    },
    /// To the rows of another key space.
    At {
        /// That key space.
        space: KeySpace,
        /// Revision of the pointer.
        guard: u64,
        /// Sources of its definition, if it is known.
        streams: Option<Vec<StreamRef>>,
        /// A person accepted that the session's rows lack what the sources no longer hold.
        accepted: bool,
    },
}

/// Whether readers are to be led here, and what must hold for it.
#[derive(Debug)]
pub(super) struct Lead {
    live: Live,
    /// Ends of the sources that only this definition has, when the session began.
    heads: BTreeMap<StreamRef, Position>,
}

impl Lead {
    pub(super) fn new(live: Live, sources: &Sources, heads: &[u64]) -> Lead {
        let known = match &live {
            Live::At { streams, .. } => streams.clone().unwrap_or_default(),
            Live::Settled | Live::Nowhere { .. } => Vec::new(),
        };
        let ends = sources.iter().zip(heads);
        let heads = ends
            .filter(|(source, _)| !known.contains(&source.stream))
            .map(|(source, last)| (source.stream.clone(), source.lineage.position(*last)));
        Lead {
            heads: heads.collect(),
            live,
        }
    }

    /// Whether other rows are read until these are as far.
    pub(super) fn is_building(&self) -> bool {
        matches!(self.live, Live::At { .. })
    }
}

impl Session {
    /// Leads readers here where there never were rows: they may see them grow.
    pub(super) async fn begin(&mut self) -> Result<(), SessionError> {
        if let Live::Nowhere { guard } = self.lead.live
            && self.progress.owned().contains(0)
        {
            if !self.store.set_live(&self.space, guard).await? {
                // Another owner did it, or leads elsewhere: to be looked at again from the start.
                return Err(SessionError::Superseded("the pointer `live`"));
            }
            tracing::info!(space = %self.space, "readers are led to the first rows");
            self.lead.live = Live::Settled;
        }
        self.observe();
        Ok(())
    }

    /// Leads readers here if every partition is as far as in the rows they see; true = done.
    pub(super) async fn lead_over(&mut self) -> Result<bool, SessionError> {
        let Live::At {
            space: old,
            guard,
            streams,
            ..
        } = &self.lead.live
        else {
            return Ok(false);
        };
        if !self.progress.owned().contains(0) || !self.is_near_head() || self.halted.is_some() {
            return Ok(false);
        }
        let (old, guard, streams) = (old.clone(), *guard, streams.clone());
        self.checkpoint_now().await?;
        let shared = history::shared(&self.sources, streams.as_deref());
        let old_progress = {
            let mut progress = Progress::new();
            for (partition, _, checkpoint) in self
                .store
                .checkpoints(&old, &shared, 0..PROJECTION_PARTITIONS)
                .await?
            {
                progress.add(partition, &checkpoint, &shared);
            }
            progress
        };
        let mut new_progress = Progress::new();
        for (partition, _, checkpoint) in self
            .store
            .checkpoints(&self.space, &self.sources, 0..PROJECTION_PARTITIONS)
            .await?
        {
            new_progress.add(partition, &checkpoint, &self.sources);
        }
        while let Err(behind) = may_switch(
            &old_progress,
            &new_progress,
            &self.lead.heads,
            PROJECTION_PARTITIONS,
        ) {
            if !self.is_all_there_was(&behind).await? {
                tracing::debug!(%behind, "readers stay where they are");
                return Ok(false);
            }
            new_progress.pass(&behind);
        }
        // A limit or a purge may have overtaken the reading of any worker.
        let found = history::found_in(&self.store, &self.space, &self.sources).await?;
        history::refuse_lost(&self.store, &self.lead.live, &self.sources, &found).await?;
        if !self.store.set_live(&self.space, guard).await? {
            return Err(SessionError::Superseded("the pointer `live`"));
        }
        tracing::info!(from = %old, to = %self.space, "readers are led to new rows");
        Ok(true)
    }

    /// Whether the stream holds nothing between where the new rows are and where the old ones are: its end is gone, and whoever waits
    /// for it would wait for ever.
    async fn is_all_there_was(&self, behind: &NotYet) -> Result<bool, SessionError> {
        let Some(binding) = self.store.contract.binding(&behind.stream) else {
            return Ok(false);
        };
        if behind.new.generation > behind.old.generation {
            return Ok(false);
        }
        let from = behind.new.sequence + 1;
        let next = self.store.nats.next_for_subject(&binding.name, ">", from);
        let next = next.await?;
        Ok(next.is_none_or(|next| next.sequence > behind.old.sequence))
    }
}
