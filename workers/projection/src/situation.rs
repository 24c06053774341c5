//! What is to run, as the stored pointers tell.

use crate::error::SessionError;
use crate::session::progress::Partitions;
use crate::session::{Live, Plan};
use crate::store::Store;
use crate::worker::Options;
use std::collections::BTreeMap;
use tidemill_core::contract::ProjectionWorkload;
use tidemill_core::definition::{ProjectionDefinition, SEMANTICS, StreamRef};
use tidemill_core::planted::{Bug, planted};
use tidemill_core::projection::{KeySpace, Lineage};

/// The pointers at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Situation {
    pub(crate) live: Option<KeySpace>,
    live_guard: u64,
    /// Key space of the definition in force.
    pub(crate) target: KeySpace,
    /// Histories of the sources; `None` = never read.
    lineages: BTreeMap<StreamRef, Option<Lineage>>,
    /// A person accepted that the rows being built lack what the sources no longer hold.
    pub(crate) accepted: bool,
}

impl Situation {
    /// Reads the pointers.
    pub(crate) async fn read(
        store: &Store,
        workload: &ProjectionWorkload,
    ) -> Result<Situation, SessionError> {
        let revision = workload.definition.revision();
        let live = store.live().await?;
        let rebuild = store.rebuilds(&revision).await?.value;
        let mut lineages = BTreeMap::new();
        for binding in &store.contract.streams {
            lineages.insert(
                binding.stream.clone(),
                store
                    .known_lineage(&binding.stream)
                    .await?
                    .map(|known| known.value),
            );
        }
        let target = KeySpace { revision, rebuild };
        let building = live.value.as_ref().is_some_and(|live| *live != target);
        let accepted = building && store.is_history_accepted(&target).await?;
        Ok(Situation {
            accepted,
            live: live.value,
            live_guard: live.revision,
            target,
            lineages,
        })
    }

    /// Whether rows are built beside those that readers see.
    pub(crate) fn is_building(&self) -> bool {
        self.live.as_ref().is_some_and(|live| *live != self.target)
    }

    /// Whether sessions begun in this situation must end in a later one. What they write themselves when they begin changes nothing.
    pub(crate) fn is_outdated_by(&self, later: &Situation) -> bool {
        let live = match &self.live {
            None => later.live.as_ref().is_some_and(|live| *live != self.target),
            Some(_) => self.live != later.live,
        };
        let changed = |stream: &StreamRef, before: &Option<Lineage>| {
            before.is_some()
                && later
                    .lineages
                    .get(stream)
                    .is_some_and(|after| after != before)
        };
        live || self.target != later.target
            || self.accepted != later.accepted
            || self
                .lineages
                .iter()
                .any(|(stream, before)| changed(stream, before))
    }

    /// The sessions to run. Rows that readers see are folded on while others are built, if their definition is known and its streams are.
    pub(crate) async fn plans(
        &self,
        store: &Store,
        workload: &ProjectionWorkload,
        owned: &Partitions,
        options: Options,
    ) -> Result<Vec<Plan>, SessionError> {
        let plan = |space: &KeySpace, definition: ProjectionDefinition, live: Live| Plan {
            space: space.clone(),
            definition,
            policy: workload.policy.clone(),
            owned: owned.clone(),
            live,
            options,
        };
        let definition = workload.definition.clone();
        let old = match &self.live {
            None => {
                return Ok(vec![plan(
                    &self.target,
                    definition,
                    Live::Nowhere {
                        guard: self.live_guard,
                    },
                )]);
            }
            Some(live) if *live == self.target => {
                return Ok(vec![plan(&self.target, definition, Live::Settled)]);
            }
            Some(old) => old,
        };
        let old_definition = match old.revision == self.target.revision {
            true => Some(definition.clone()),
            false => store.definition(&old.revision).await?,
        };
        let live = Live::At {
            space: old.clone(),
            guard: self.live_guard,
            streams: old_definition
                .as_ref()
                .map(|definition| definition.sources.clone()),
            accepted: self.accepted,
        };
        let mut plans = Vec::new();
        match old_definition {
            Some(definition)
                if definition.semantics == SEMANTICS
                    && definition
                        .sources
                        .iter()
                        .all(|stream| store.contract.binding(stream).is_some()) =>
            {
                if !planted(Bug::OldRowsLeft) {
                    plans.push(plan(old, definition, Live::Settled));
                }
            }
            _ => {
                tracing::warn!(space = %old, "the rows that readers see stand still until the new ones are as far: \
                their definition or one of its streams isn't known any more")
            }
        }
        plans.push(plan(&self.target, definition, live));
        Ok(plans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_core::definition::Revision;

    fn space(rebuild: u32) -> KeySpace {
        KeySpace {
            revision: Revision::try_from("0123456789abcdef".to_owned()).unwrap(),
            rebuild,
        }
    }

    fn situation(live: Option<u32>, target: u32, lineage: Option<Lineage>) -> Situation {
        let stream = StreamRef {
            namespace: "s".to_owned(),
            name: "a".to_owned(),
        };
        Situation {
            accepted: false,
            live: live.map(space),
            live_guard: 0,
            target: space(target),
            lineages: BTreeMap::from([(stream, lineage)]),
        }
    }

    #[test]
    fn what_a_session_writes_when_it_begins_ends_none() {
        let first = Lineage::first("i");
        let accepted = first.accept("i", 5).unwrap();
        for (before, after, outdated) in [
            (
                situation(None, 0, None),
                situation(Some(0), 0, Some(first.clone())),
                false,
            ),
            (situation(None, 0, None), situation(Some(1), 0, None), true),
            (
                situation(Some(0), 0, Some(first.clone())),
                situation(Some(0), 0, Some(first.clone())),
                false,
            ),
            (
                situation(Some(0), 0, Some(first.clone())),
                situation(Some(0), 1, Some(first.clone())),
                true,
            ),
            (
                situation(Some(0), 1, Some(first.clone())),
                situation(Some(1), 1, Some(first.clone())),
                true,
            ),
            (
                situation(Some(0), 0, Some(first)),
                situation(Some(0), 0, Some(accepted)),
                true,
            ),
        ] {
            assert_eq!(
                before.is_outdated_by(&after),
                outdated,
                "{before:?} {after:?}"
            );
        }
    }
}
