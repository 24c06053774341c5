//! Workers that each believe they own every instance.

use super::{Happening, Message, World};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use tidemill_core::names::{LogKind, TimerId};
use tidemill_core::saga::{Effect, Input, Instance, violations};

#[derive(Default)]
pub(super) struct Owner {
    folded: usize,
    pub(super) instances: BTreeMap<usize, Instance>,
    /// When its next turn is; other turns on the agenda are stale.
    wakes_at: Option<u64>,
    stalled_until: u64,
    /// Effects it held when it stalled; it runs them when it comes back, however stale they are.
    held: Vec<(usize, Effect)>,
    /// Timers it has appended and not folded yet.
    firing: BTreeMap<usize, TimerId>,
    /// It has held everything from the beginning, so nobody else can have sent anything.
    pub(super) sole: bool,
    /// The log lost what it has folded; it learns that when it next looks.
    pub(super) is_set_back: bool,
}

impl Owner {
    pub(super) fn new() -> Self {
        Owner::default()
    }

    /// Folds from the beginning, for the judge.
    pub(super) fn begin_again(&mut self) -> BTreeMap<usize, Instance> {
        self.folded = 0;
        std::mem::take(&mut self.instances)
    }
}

impl World {
    /// Makes sure that an owner looks at this time, or before.
    pub(super) fn wake(&mut self, index: usize, at: u64) {
        let owner = &mut self.owners[index];
        let at = at.max(owner.stalled_until);
        if owner.wakes_at.is_none_or(|wakes_at| at < wakes_at) {
            owner.wakes_at = Some(at);
            let delay = at.saturating_sub(self.now);
            self.schedule(delay, Happening::Turn { owner: index });
        }
    }

    pub(super) fn take_turn(&mut self, index: usize) {
        let owner = &mut self.owners[index];
        if owner.wakes_at != Some(self.now) {
            return;
        }
        owner.wakes_at = None;
        self.turn(index);
        let (owner, saga) = (&self.owners[index], Arc::clone(&self.saga));
        let fires = owner.instances.iter().filter_map(|(id, instance)| {
            let (due, timer) = instance.next_timer(&saga)?;
            (owner.firing.get(id) != Some(&timer)).then_some(due)
        });
        let due = fires
            .min()
            .map(|due| u64::try_from(due.millis()).unwrap_or(0));
        if let Some(due) = due {
            self.wake(index, due.max(self.now + 1));
        }
    }

    /// An owner folds what is new, runs the effects and fires timers that are due.
    fn turn(&mut self, index: usize) {
        let held = std::mem::take(&mut self.owners[index].held);
        for (instance, effect) in held {
            self.execute(index, instance, effect);
        }
        if self.owners[index].is_set_back {
            self.owners[index] = Owner::new();
        }
        let fresh = self.owners[index].folded == 0;
        while self.owners[index].folded < self.log.len() {
            let effects = self.fold_next(index);
            // A fresh owner first folds everything and then does what is outstanding.
            if fresh {
                continue;
            }
            if self.chance(self.plan.faults.crash) {
                let _ = writeln!(self.trace, "{} owner {index} crashes", self.now);
                self.owners[index] = Owner::new();
                self.wake(index, self.now + 20);
                return;
            }
            if self.chance(self.plan.faults.stall) {
                let _ = writeln!(self.trace, "{} owner {index} stalls", self.now);
                let until = self.now + 1 + self.random.below(30_000);
                self.owners[index].stalled_until = until;
                self.owners[index].held = effects;
                self.wake(index, until);
                return;
            }
            for (instance, effect) in effects {
                self.execute(index, instance, effect);
            }
        }
        if fresh {
            let saga = Arc::clone(&self.saga);
            let instances = self.owners[index].instances.iter();
            let outstanding: Vec<(usize, Effect)> = instances
                .flat_map(|(id, instance)| {
                    let effects = instance.outstanding(&saga).into_iter();
                    effects.map(|effect| (*id, effect))
                })
                .collect();
            for (instance, effect) in outstanding {
                self.execute(index, instance, effect);
            }
        }
        self.fire_timers(index);
    }

    pub(super) fn fold_next(&mut self, index: usize) -> Vec<(usize, Effect)> {
        let saga = Arc::clone(&self.saga);
        let owner = &mut self.owners[index];
        let logged = &mut self.log[owner.folded];
        owner.folded += 1;
        let (id, at, input) = (logged.instance, logged.at, Rc::clone(&logged.input));
        owner.firing.remove(&id);
        let effects = match (owner.instances.get_mut(&id), &*input) {
            (None, Input::Started(started)) => {
                let name = format!("i-{id}");
                let (instance, effects) = Instance::start(&saga, &name, (**started).clone(), at);
                owner.instances.insert(id, instance);
                effects
            }
            (None, _) => Vec::new(),
            (Some(instance), input) => instance.apply(&saga, input, at).effects,
        };
        if let Some(instance) = owner.instances.get(&id) {
            match &logged.state {
                Some(state) if **state != *instance => {
                    let problem = format!("two owners folded instance {id} differently");
                    self.problems.push(problem);
                }
                Some(_) => {}
                None => logged.state = Some(Box::new(instance.clone())),
            }
            for violation in violations(&saga, instance) {
                self.problems.push(format!(
                    "instance {id}: {} {}",
                    violation.invariant, violation.detail
                ));
            }
            if instance.parked.is_some() {
                let decisions = instance.decisions;
                self.ask_somebody(id, decisions);
            }
        }
        effects.into_iter().map(|effect| (id, effect)).collect()
    }

    fn fire_timers(&mut self, index: usize) {
        let (saga, now) = (Arc::clone(&self.saga), self.time());
        let owner = &self.owners[index];
        let due: Vec<(usize, TimerId)> = owner
            .instances
            .iter()
            .filter_map(|(id, instance)| Some((*id, instance.next_timer(&saga)?)))
            .filter(|(id, (due, timer))| *due <= now && owner.firing.get(id) != Some(timer))
            .map(|(id, (_, timer))| (id, timer))
            .collect();
        for (instance, timer) in due {
            self.owners[index].firing.insert(instance, timer.clone());
            let delay = self.random.below(20);
            let message = Message::new(instance, LogKind::Timer(timer), Vec::new());
            self.append_later(delay, message);
        }
    }
}
