//! A person frees what waits.

use super::owner::{Ended, Session};
use super::{Flaw, World};
use std::fmt::Write as _;
use tidemill_core::projection::KEYLESS_TOKEN;
use tidemill_core::projection::parked::{Redriven, Waiting, redriven};

impl Session {
    /// Somebody has a key tried again, and leaves out what it waits for if that doesn't help.
    pub(super) fn asked(&mut self, world: &mut World) -> Result<(), Ended> {
        let keys = self.parked.keys();
        let chosen = world.below(keys.max(1));
        let Some(token) = self.parked.tokens().nth(chosen).map(str::to_owned) else {
            return Ok(());
        };
        self.settle(world)?;
        let fails = self.redrive(world, &token, None)?;
        let Some(first) = fails else {
            return Ok(());
        };
        if world.random.percent(50) {
            self.redrive(world, &token, Some(&first))?;
        }
        Ok(())
    }

    /// Tries a key's events in order until one can't be folded, and gives that; `skip` is left out.
    fn redrive(
        &mut self,
        world: &mut World,
        token: &str,
        skip: Option<&Waiting>,
    ) -> Result<Option<Waiting>, Ended> {
        let keyless = token == KEYLESS_TOKEN;
        let (mut fails, mut done) = (None, Vec::new());
        for waiting in self.parked.waiting(token).to_vec() {
            let left_out = skip.is_some_and(|skip| {
                (skip.source, skip.position) == (waiting.source, waiting.position)
            });
            if left_out {
                self.decide(world, token, &waiting);
            } else if self.try_again(world, token, &waiting)? != Redriven::Done {
                fails.get_or_insert(waiting);
                match keyless {
                    true => continue,
                    false => break,
                }
            }
            self.parked.remove(token, waiting.source, waiting.position);
            done.push(waiting.kept_at);
            world.count("freed");
        }
        if world.plan.flaw != Some(Flaw::RedrivenTooSoon) {
            self.settle(world)?;
        }
        for kept_at in done {
            world.disk.parked.remove(&kept_at);
            if world.chance(world.plan.faults.crash) {
                return Err(Ended::Crashed);
            }
        }
        self.settle(world)?;
        Ok(fails)
    }

    fn decide(&mut self, world: &mut World, token: &str, waiting: &Waiting) {
        let decided = (waiting.source, waiting.position, token.to_owned());
        let _ = writeln!(world.trace, "{} decide {decided:?}", world.now);
        self.decisions.insert(decided.clone());
        // A stalled owner may not know what its successor was told; who begins afresh must.
        if !world.disk.decisions.insert(decided.clone()) && !world.faulty {
            world
                .problems
                .push(format!("asked again about {decided:?}"));
        }
    }

    fn try_again(
        &mut self,
        world: &mut World,
        token: &str,
        waiting: &Waiting,
    ) -> Result<Redriven, Ended> {
        let Some(message) = world.disk.parked.get(&waiting.kept_at).cloned() else {
            // Another owner has dealt with it, or with this copy of it: who begins afresh sees which.
            return Err(Ended::Conflict);
        };
        let Some(entry) = world.read_parked(&message) else {
            return Ok(Redriven::Done);
        };
        let index = usize::try_from(entry.position.sequence - 1).unwrap_or(usize::MAX);
        let stream = world.streams.get(entry.source);
        let Some(given) = stream.and_then(|stream| stream.get(index)) else {
            return Ok(Redriven::Done);
        };
        let event = given.event.clone();
        let keyless = token == KEYLESS_TOKEN;
        let touches = world.projection.touches(entry.source, &event);
        if keyless {
            // Its other rows have it, or it waits for them: only what it had no key for is tried.
            let error = touches.iter().find(|touch| touch.is_keyless());
            if let Some(error) = error.and_then(|touch| touch.error()) {
                return Ok(Redriven::Fails(error.clone()));
            }
        }
        for touch in touches
            .iter()
            .filter(|touch| keyless || &*touch.token == token)
        {
            if !self.owned.contains(&touch.partition) {
                return Ok(Redriven::RowElsewhere);
            }
            let folded = self.fold(world, entry.source, entry.position, &event, touch);
            // A row of its own that has gone on has this event already.
            match redriven(keyless && touch.is_keyless(), folded) {
                Redriven::Done => {}
                other => return Ok(other),
            }
        }
        Ok(Redriven::Done)
    }
}
