//! What a pod knows of the others, and what it does about it. Pure: everything comes in as messages of the bucket and as times.
//!
//! A pod is taken as dead when its heartbeat has not changed for 4 s. These seconds are counted by the observer's *own* heartbeats
//! as they come back through the same ordered reading: while NATS is away, while the reading is interrupted, or while the
//! observer itself was stopped, none of its own come back, so no time passes and nobody is taken as dead. After such a gap
//! observation begins anew.

use super::rendezvous;
use std::collections::BTreeMap;
use tidemill_core::planted::{Bug, planted};

/// How often a pod writes its heartbeat, in milliseconds.
pub const BEAT_MS: u64 = 1000;
/// A heartbeat unchanged for this long is a dead pod's, in milliseconds.
pub const DEAD_MS: u64 = 4000;
/// A longer gap between two own heartbeats is an interruption, in milliseconds.
const GAP_MS: u64 = 2500;
/// After an interruption others may come back later than I by as much: the longest pause between two tries to connect.
const COME_BACK_MS: u64 = 2000;

/// A partition's claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The pod that claimed it.
    pub pod: String,
    /// Revision of the claim key.
    pub epoch: u64,
}

/// What one pod has read.
#[derive(Clone, Debug)]
pub struct View {
    me: String,
    /// Revision of the first heartbeat of this life of mine; claims before it are an earlier life's.
    since: Option<u64>,
    claims: BTreeMap<u16, Claim>,
    /// When each other pod's heartbeat last changed, in observed milliseconds.
    pods: BTreeMap<String, u64>,
    /// Observed milliseconds at the last own heartbeat.
    observed: u64,
    /// When that was, in the caller's milliseconds.
    beat_at: Option<u64>,
}

/// A claim to write: a put guarded by this revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Take {
    /// The partition.
    pub partition: u16,
    /// Revision of its claim key that is expected; 0 = there is none.
    pub expected: u64,
}

impl View {
    /// Nothing is known yet.
    pub fn new(me: &str) -> Self {
        View {
            me: me.to_owned(),
            since: None,
            claims: BTreeMap::new(),
            pods: BTreeMap::new(),
            observed: 0,
            beat_at: None,
        }
    }

    /// A claim was read. `at`: the caller's clock, milliseconds, never going back.
    pub fn claimed(&mut self, partition: u16, pod: &str, epoch: u64) {
        let claim = Claim {
            pod: pod.to_owned(),
            epoch,
        };
        self.claims.insert(partition, claim);
    }

    /// Revision of the last claim of a partition that was read; 0 = none.
    pub fn epoch(&self, partition: u16) -> u64 {
        self.claims.get(&partition).map_or(0, |claim| claim.epoch)
    }

    /// A heartbeat was read.
    pub fn beat(&mut self, pod: &str, at: u64) {
        if pod == self.me {
            self.own_beat(at);
        } else {
            let now = self.observed(at);
            self.pods.insert(pod.to_owned(), now);
        }
    }

    fn own_beat(&mut self, at: u64) {
        if let Some(before) = self.beat_at {
            let gap = at.saturating_sub(before);
            if gap > GAP_MS {
                for seen in self.pods.values_mut() {
                    *seen = self.observed + COME_BACK_MS;
                }
            } else {
                // What is longer than the interval may have been an outage too short to tell.
                self.observed += gap.min(BEAT_MS);
            }
        }
        self.beat_at = Some(at);
    }

    /// A pod said good-bye.
    pub fn left(&mut self, pod: &str) {
        self.pods.remove(pod);
    }

    /// My life begins with this heartbeat.
    pub fn begin(&mut self, revision: u64) {
        self.since = Some(revision);
    }

    /// I was cut off: nothing is mine until [`View::begin`].
    pub fn end(&mut self) {
        self.since = None;
    }

    /// Whether my life has begun.
    pub fn begun(&self) -> bool {
        self.since.is_some()
    }

    fn observed(&self, at: u64) -> u64 {
        let since = self.beat_at.map_or(0, |before| at.saturating_sub(before));
        self.observed + since.min(BEAT_MS)
    }

    /// The pods that are alive as far as I know, I among them.
    pub fn alive(&self, at: u64) -> Vec<&str> {
        let now = self.observed(at);
        let others = self
            .pods
            .iter()
            .filter(|(_, seen)| now.saturating_sub(**seen) < DEAD_MS)
            .filter(|_| !planted(Bug::OthersTakenForDead));
        let mut alive: Vec<&str> = others.map(|(pod, _)| pod.as_str()).collect();
        alive.push(&self.me);
        alive
    }

    /// What is mine: partition → epoch.
    pub fn owned(&self) -> BTreeMap<u16, u64> {
        let Some(since) = self.since else {
            return BTreeMap::new();
        };
        let mine = self
            .claims
            .iter()
            .filter(|(_, claim)| claim.pod == self.me)
            .filter(|(_, claim)| claim.epoch > since || planted(Bug::OwnedWithoutClaim));
        mine.map(|(partition, claim)| (*partition, claim.epoch))
            .collect()
    }

    /// The claims to write now: of partitions that shall be mine and aren't. Nothing is ever let go without being taken: a
    /// partition that shall be another's stays mine until that pod takes it.
    pub fn decide(&self, partitions: u16, at: u64) -> Vec<Take> {
        if self.since.is_none() {
            return Vec::new();
        }
        let alive = self.alive(at);
        let owned = self.owned();
        (0..partitions)
            .filter(|partition| !owned.contains_key(partition))
            .filter(|&partition| {
                rendezvous::owner(partition, alive.iter().copied()) == Some(self.me.as_str())
            })
            .map(|partition| Take {
                partition,
                expected: self.epoch(partition),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const PARTITIONS: u16 = 16;

    /// The bucket and its readers: what is written is read by everybody in the same order, each at its own time.
    struct World {
        clock: u64,
        revision: u64,
        claims: BTreeMap<u16, u64>,
        log: Vec<Entry>,
        pods: BTreeMap<&'static str, Pod>,
    }

    #[derive(Clone)]
    enum Entry {
        Beat(&'static str),
        Left(&'static str),
        Claim(u16, &'static str, u64),
    }

    struct Pod {
        view: View,
        read: usize,
        /// It neither reads nor writes.
        stopped: bool,
    }

    impl World {
        fn new() -> Self {
            World {
                clock: 0,
                revision: 0,
                claims: BTreeMap::new(),
                log: Vec::new(),
                pods: BTreeMap::new(),
            }
        }

        fn join(&mut self, pod: &'static str) {
            self.revision += 1;
            let mut view = View::new(pod);
            view.begin(self.revision);
            self.log.push(Entry::Beat(pod));
            self.pods.insert(
                pod,
                Pod {
                    view,
                    read: 0,
                    stopped: false,
                },
            );
        }

        fn leave(&mut self, pod: &'static str) {
            if self.pods.remove(pod).is_some() {
                self.log.push(Entry::Left(pod));
            }
        }

        /// One second: everybody beats, reads, decides and writes.
        fn second(&mut self, away: bool) {
            self.clock += BEAT_MS;
            if away {
                return;
            }
            for (name, pod) in &self.pods {
                if !pod.stopped {
                    self.revision += 1;
                    self.log.push(Entry::Beat(name));
                }
            }
            // Twice: what was written in the first round is read in the second.
            for _ in 0..2 {
                let names: Vec<_> = self.pods.keys().copied().collect();
                for name in names {
                    self.turn(name);
                }
            }
        }

        fn turn(&mut self, name: &'static str) {
            let pod = self.pods.get_mut(name).unwrap();
            if pod.stopped {
                return;
            }
            for entry in self.log[pod.read..].iter().cloned() {
                match entry {
                    Entry::Beat(other) => pod.view.beat(other, self.clock),
                    Entry::Left(other) => pod.view.left(other),
                    Entry::Claim(partition, other, epoch) => {
                        pod.view.claimed(partition, other, epoch)
                    }
                }
            }
            pod.read = self.log.len();
            for take in pod.view.decide(PARTITIONS, self.clock) {
                if self.claims.get(&take.partition).copied().unwrap_or(0) == take.expected {
                    self.revision += 1;
                    self.claims.insert(take.partition, self.revision);
                    self.log
                        .push(Entry::Claim(take.partition, name, self.revision));
                }
            }
        }

        fn owners(&self) -> BTreeMap<u16, Vec<&'static str>> {
            let mut owners: BTreeMap<u16, Vec<&'static str>> =
                (0..PARTITIONS).map(|p| (p, Vec::new())).collect();
            for (name, pod) in &self.pods {
                for partition in pod.view.owned().keys() {
                    owners.get_mut(partition).unwrap().push(name);
                }
            }
            owners
        }
    }

    fn each_has_one(world: &World) -> bool {
        world.owners().values().all(|owners| owners.len() == 1)
    }

    #[test]
    fn an_outage_gives_others_time_to_come_back() {
        // Too short to be told from a late heartbeat, and long.
        for outage in [2400, 9000] {
            let mut view = View::new("a");
            view.beat("a", 0);
            view.beat("b", 0);
            let back = outage;
            view.beat("a", back);
            view.beat("a", back + 1000);
            assert_eq!(view.alive(back + 1900).len(), 2, "{outage}");
            for beat in 2..8 {
                view.beat("a", back + beat * 1000);
            }
            assert_eq!(view.alive(back + 7000), ["a"], "{outage}");
        }
    }

    #[test]
    fn the_dead_are_noticed_after_four_seconds_and_not_before() {
        let mut world = World::new();
        world.join("a");
        world.join("b");
        (0..3).for_each(|_| world.second(false));
        assert!(each_has_one(&world));
        let of_b = world.pods["b"].view.owned().len();
        assert!(of_b > 0);
        world.pods.get_mut("b").unwrap().stopped = true;
        (0..3).for_each(|_| world.second(false));
        assert_eq!(
            world.pods["a"].view.owned().len(),
            usize::from(PARTITIONS) - of_b
        );
        world.second(false);
        assert_eq!(world.pods["a"].view.owned().len(), usize::from(PARTITIONS));
    }

    #[test]
    fn while_nats_is_away_nobody_dies() {
        let mut world = World::new();
        world.join("a");
        world.join("b");
        (0..3).for_each(|_| world.second(false));
        let before = world.claims.clone();
        (0..100).for_each(|_| world.second(true));
        (0..10).for_each(|_| world.second(false));
        assert_eq!(world.claims, before);
    }

    #[test]
    fn a_restarted_pod_takes_its_own_claims_again_with_new_epochs() {
        let mut world = World::new();
        world.join("a");
        world.second(false);
        let before = world.pods["a"].view.owned();
        world.pods.remove("a");
        world.join("a");
        world.second(false);
        let after = world.pods["a"].view.owned();
        assert_eq!(before.len(), after.len());
        assert!(
            before
                .iter()
                .all(|(partition, epoch)| after[partition] > *epoch)
        );
    }

    #[test]
    fn a_good_bye_hands_over_at_once() {
        let mut world = World::new();
        world.join("a");
        world.join("b");
        (0..3).for_each(|_| world.second(false));
        world.leave("b");
        world.turn("a");
        world.turn("a");
        assert_eq!(world.pods["a"].view.owned().len(), usize::from(PARTITIONS));
    }

    #[derive(Clone, Debug)]
    enum Act {
        Join(usize),
        Leave(usize),
        Kill(usize),
        Stop(usize),
        Go(usize),
        Away(u8),
        Seconds(u8),
    }

    const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            (0..NAMES.len()).prop_map(Act::Join),
            (0..NAMES.len()).prop_map(Act::Leave),
            (0..NAMES.len()).prop_map(Act::Kill),
            (0..NAMES.len()).prop_map(Act::Stop),
            (0..NAMES.len()).prop_map(Act::Go),
            (1_u8..80).prop_map(Act::Away),
            (1_u8..6).prop_map(Act::Seconds),
        ]
    }

    proptest! {
        /// Whatever happened, once it is quiet every partition has exactly one owner, the one that the hash says, and no claim is
        /// written any more.
        #[test]
        fn it_settles(acts in proptest::collection::vec(act(), 0..40)) {
            let mut world = World::new();
            world.join("z");
            for act in acts {
                match act {
                    Act::Join(pod) => if !world.pods.contains_key(NAMES[pod]) { world.join(NAMES[pod]); },
                    Act::Leave(pod) => world.leave(NAMES[pod]),
                    Act::Kill(pod) => { world.pods.remove(NAMES[pod]); }
                    Act::Stop(pod) => { world.pods.get_mut(NAMES[pod]).into_iter().for_each(|pod| pod.stopped = true); }
                    Act::Go(pod) => { world.pods.get_mut(NAMES[pod]).into_iter().for_each(|pod| pod.stopped = false); }
                    Act::Away(seconds) => (0..seconds).for_each(|_| world.second(true)),
                    Act::Seconds(seconds) => (0..seconds).for_each(|_| world.second(false)),
                }
            }
            world.pods.values_mut().for_each(|pod| pod.stopped = false);
            (0..12).for_each(|_| world.second(false));
            let alive: BTreeSet<&str> = world.pods.keys().copied().collect();
            for (partition, owners) in world.owners() {
                prop_assert_eq!(owners, vec![rendezvous::owner(partition, alive.iter().copied()).unwrap()]);
            }
            let written = world.claims.clone();
            (0..5).for_each(|_| world.second(false));
            prop_assert_eq!(written, world.claims);
        }
    }
}
