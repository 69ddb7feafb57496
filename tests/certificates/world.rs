//! The world of the simulation. Time passes in minutes; everything else happens in no time, in any order.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;

use jiff::{SignedDuration, Timestamp};
use revguard::controller::certificates::plan::{
    Ca, Configuration, Id, Kept, Leaf, Memory, Next, Replica, Seen, Served, Serving, Step, Timing, plan,
};

/// How long an API server may still hold a configuration that was replaced.
const LAG: SignedDuration = SignedDuration::from_mins(1);

/// Whoever lives for less when it begins to be looked after cannot be saved: time passes in minutes here, and of the time
/// that is left half is for API servers to hear.
const SAVED: SignedDuration = SignedDuration::from_mins(2);

/// What leaders may be told, the first at installation.
pub const LIVES: usize = 3;

/// Durations in minutes. The longest overlap is most of a short CA's life.
fn lives(n: usize) -> Timing {
    let m = SignedDuration::from_mins;
    let (ca_validity, cert_validity, overlap) = [(60, 30, 2), (480, 120, 40), (120, 120, 5)][n];
    let timing = Timing { ca_validity: m(ca_validity), cert_validity: m(cert_validity), overlap: m(overlap) };
    timing.check().expect("durations that are accepted");
    timing
}

/// When what is made now begins, as the controller makes it.
fn begins(now: Timestamp, valid: SignedDuration) -> Timestamp {
    now - SignedDuration::from_mins(5).min(valid / 20)
}

/// What is taken away from the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Broken {
    Nothing,
    /// A CA signs as soon as it is published.
    NoOverlap,
    /// The CA Secret is read before what the write replaces.
    CaReadFirst,
    /// Old CAs are dropped on time, whoever serves what.
    ReplicasNotAsked,
    /// Writes go through whatever has become of the object.
    NoPrecondition,
    /// A CA that has signed what is served is waited for like one that nobody has heard of.
    RenewalWaits,
    /// A CA signs after the whole overlap, whatever expires meanwhile.
    OverlapIsNeverCut,
}

/// An object with its version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Versioned<T> {
    version: u32,
    value: T,
}

impl<T> Versioned<T> {
    fn set(&mut self, value: T) {
        self.version += 1;
        self.value = value;
    }
}

/// A webhook configuration, and its bundles that an API server may still hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Hooks {
    version: u32,
    bundle: BTreeSet<Id>,
    /// A person's bundle is a person's fault.
    by_hand: bool,
    /// Bundles of ours that were replaced, and when; those that were replaced in time.
    before: Vec<(BTreeSet<Id>, Timestamp)>,
}

/// A configuration's version and its bundle.
type Bundle = (u32, BTreeSet<Id>);

/// What a leader has read so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Reading {
    serving: Option<Versioned<Serving>>,
    hooks: Option<Vec<Bundle>>,
    replicas: Option<Vec<Option<Served>>>,
    kept: Option<Versioned<Kept>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Leader {
    reading: Reading,
    memory: Memory,
    /// Decided, and not yet written.
    writes: Option<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A leader takes its next read, or decides after the last.
    Reads(usize),
    /// All reads at once, where nothing can happen in between that another order would not show.
    Looks(usize),
    /// The write is carried out.
    Writes(usize),
    /// The write is carried out and the leader never hears of it.
    WritesAndDies(usize),
    /// It dies before it writes.
    Dies(usize),
    MinutePasses,
    /// A replica hears of the serving Secret.
    Hears(usize),
    /// A replica starts anew and reads it.
    Restarts(usize),
    /// kubectl edit: another bundle.
    BundleEdited(usize),
    /// kubectl delete; Helm makes it again, without a bundle.
    Deleted(usize),
    /// The CA Secret is emptied.
    CaEmptied,
    /// helm upgrade: leaders start anew, with other durations.
    Upgraded(usize),
    /// Nobody leads until so many minutes are left of what is served or, after that, of its CA.
    Away(i64),
}

impl Event {
    pub const KINDS: usize = 13;
}

#[derive(Clone, Debug)]
pub struct World {
    broken: Broken,
    timing: Timing,
    now: Timestamp,
    kept: Versioned<Kept>,
    serving: Versioned<Serving>,
    hooks: Vec<Hooks>,
    replicas: Vec<Option<Served>>,
    leaders: Vec<Leader>,
    cas: BTreeMap<Id, Ca>,
    made: usize,
    rotations: u64,
    moved: u64,
    crashes: u64,
    /// Acts of people that are still to come.
    faults: usize,
    /// The second leader seldom has its turn, so that what it does is late.
    slow: bool,
    /// In the exhaustive search: decisions that the second leader may still make, and minutes that may still pass.
    left: (usize, usize),
}

fn id(text: &str) -> Id {
    Id::from(text)
}

impl World {
    /// An installation: Secrets without data, configurations without bundles, replicas that wait.
    pub fn new(broken: Broken, seed: u64) -> World {
        World {
            broken,
            timing: lives(0),
            now: Timestamp::UNIX_EPOCH,
            kept: Versioned { version: 1, value: Kept::default() },
            serving: Versioned { version: 1, value: Serving::default() },
            hooks: (0..2)
                .map(|_| Hooks { version: 1, bundle: BTreeSet::new(), by_hand: true, before: Vec::new() })
                .collect(),
            replicas: vec![None; 2],
            leaders: vec![Leader::default(); 2],
            cas: BTreeMap::new(),
            made: 0,
            rotations: 0,
            moved: 0,
            crashes: 0,
            // Every second world is left alone by people.
            faults: if seed.is_multiple_of(2) { 3 } else { 0 },
            slow: seed % 3 == 1,
            left: (1, 4),
        }
    }

    /// The same, installed, with a CA that is about to be renewed.
    pub fn installed(broken: Broken, seed: u64) -> World {
        let mut world = World::new(broken, seed);
        world.look_after().expect("an installation");
        let ca = world.kept.value.current.clone().expect("an installed CA");
        world.now = ca.from + ca.until.duration_since(ca.from) * 2 / 3;
        // Its certificate is young, so that the rotation is all that is to do.
        let leaf = world.serving.value.leaf.as_mut().expect("a certificate");
        (leaf.from, leaf.until) = (world.now, (world.now + world.timing.cert_validity).min(ca.until));
        (0..world.replicas.len()).for_each(|replica| world.hear(replica));
        world.hooks.iter_mut().for_each(|hooks| hooks.before.clear());
        world.leaders = vec![Leader::default(); 2];
        world.rotations = 0;
        world
    }

    /// The smallest world of a rotation: one replica, one configuration.
    pub fn due(broken: Broken) -> World {
        let mut world = World::installed(broken, 1);
        world.replicas.truncate(1);
        world.hooks.truncate(1);
        world
    }

    /// One that was installed with these durations some time ago, and was looked after for so many minutes since its CA
    /// was due.
    pub fn aged(broken: Broken, durations: usize, minutes: i64) -> World {
        let mut world = World::new(broken, 1);
        world.timing = lives(durations);
        world.look_after().expect("an installation");
        let ca = world.kept.value.current.clone().expect("an installed CA");
        let due = ca.from + ca.until.duration_since(ca.from) * 2 / 3;
        while world.now < due + SignedDuration::from_mins(minutes) {
            world.happen(Event::MinutePasses);
            world.look_after().expect("a quiet life");
        }
        world
    }

    pub fn now(&self) -> String {
        format!("{:>3}", self.now.as_second() / 60)
    }

    pub fn rotations(&self) -> u64 {
        self.rotations
    }

    pub fn moved(&self) -> u64 {
        self.moved
    }

    pub fn crashes(&self) -> u64 {
        self.crashes
    }

    /// Everything that decides about the future, without the counters.
    pub fn canonical(&self) -> impl Ord + use<> {
        let minutes = |at: Timestamp| at.as_second() / 60;
        (
            (minutes(self.now), self.kept.clone(), self.serving.clone()),
            (
                self.hooks.clone(),
                self.replicas.clone(),
                self.leaders.clone(),
                self.faults,
                self.left,
                (self.crashes.min(1), self.timing.overlap),
            ),
        )
    }

    /// What may happen next, as often as it is likely.
    pub fn events(&self) -> Vec<Event> {
        let mut all = vec![Event::MinutePasses; 4];
        for leader in 0..self.leaders.len() {
            let turns = if self.slow && leader == 1 { 1 } else { 20 };
            match self.leaders[leader].writes {
                None => all.extend(iter::repeat_n(Event::Reads(leader), turns)),
                Some(_) => {
                    all.extend(iter::repeat_n(Event::Writes(leader), turns));
                    all.extend([Event::WritesAndDies(leader), Event::Dies(leader)]);
                }
            }
        }
        for replica in 0..self.replicas.len() {
            all.extend([Event::Hears(replica); 3]);
            all.push(Event::Restarts(replica));
        }
        if self.faults > 0 {
            all.push(Event::CaEmptied);
            all.extend((0..self.hooks.len()).flat_map(|hook| [Event::BundleEdited(hook), Event::Deleted(hook)]));
            all.extend((0..LIVES).map(Event::Upgraded));
            all.extend((0..4).map(Event::Away));
        }
        all
    }

    /// Those of a rotation: one leader at work, which may die once; one that believes in itself and makes one decision
    /// out of reads that may lie as far apart as they like.
    pub fn events_of_a_rotation(&self) -> Vec<Event> {
        let mut all = Vec::new();
        if self.left.1 > 0 {
            all.push(Event::MinutePasses);
        }
        if self.leaders[0].writes.is_none() {
            all.push(Event::Looks(0));
        } else {
            all.push(Event::Writes(0));
            if self.crashes == 0 {
                all.extend([Event::WritesAndDies(0), Event::Dies(0)]);
            }
        }
        match self.leaders[1].writes {
            Some(_) => all.push(Event::Writes(1)),
            None if self.left.0 > 0 => all.push(Event::Reads(1)),
            None => {}
        }
        all.extend((0..self.replicas.len()).map(Event::Hears));
        all
    }

    pub fn happen(&mut self, event: Event) {
        match event {
            Event::Reads(leader) => {
                self.read(leader);
                let over = self.leaders[leader].reading == Reading::default() || self.leaders[leader].writes.is_some();
                if leader == 1 && over {
                    self.left.0 = self.left.0.saturating_sub(1);
                }
            }
            Event::Looks(leader) => {
                self.leaders[leader].reading = Reading::default();
                (0..5).for_each(|_| {
                    if self.leaders[leader].writes.is_none() {
                        self.read(leader);
                    }
                });
            }
            Event::Writes(leader) => self.write(leader),
            Event::WritesAndDies(leader) => {
                self.write(leader);
                self.die(leader);
            }
            Event::Dies(leader) => self.die(leader),
            Event::MinutePasses => {
                self.left.1 = self.left.1.saturating_sub(1);
                self.pass(SignedDuration::from_mins(1));
            }
            Event::Hears(replica) => self.hear(replica),
            Event::Restarts(replica) => {
                self.replicas[replica] = None;
                self.hear(replica);
            }
            Event::BundleEdited(hook) => {
                self.faults -= 1;
                self.put_bundle(hook, BTreeSet::from([id("somebody's")]), true);
            }
            Event::Deleted(hook) => {
                self.faults -= 1;
                self.put_bundle(hook, BTreeSet::new(), true);
            }
            Event::CaEmptied => {
                self.faults -= 1;
                self.kept.set(Kept::default());
            }
            Event::Upgraded(durations) => {
                self.faults = self.faults.saturating_sub(1);
                self.timing = lives(durations);
                self.leaders.fill(Leader::default());
            }
            Event::Away(minutes) => {
                self.faults = self.faults.saturating_sub(1);
                self.leaders.fill(Leader::default());
                let left = SignedDuration::from_mins(minutes);
                let leaf = self.serving.value.leaf.as_ref().map(|leaf| leaf.until);
                let ends = [leaf, self.ends()].into_iter().flatten().map(|ends| ends - left);
                if let Some(then) = ends.filter(|then| *then > self.now).min() {
                    self.pass(then.duration_since(self.now));
                }
            }
        }
    }

    fn pass(&mut self, time: SignedDuration) {
        self.now += time;
        let now = self.now;
        for hooks in &mut self.hooks {
            hooks.before.retain(|(_, replaced)| *replaced + LAG > now);
        }
    }

    /// When what is served, or what its CA can still sign, ends; `None`: nothing is served.
    fn ends(&self) -> Option<Timestamp> {
        let leaf = self.serving.value.leaf.as_ref().filter(|leaf| leaf.until > self.now)?;
        let own = self.kept.value.current.as_ref().filter(|ca| leaf.by.as_ref() == Some(&ca.id));
        Some(own.map_or(leaf.until, |ca| ca.until))
    }

    /// Whether there is time enough to renew what is served without anybody noticing.
    pub fn can_be_saved(&self) -> bool {
        self.ends().is_some_and(|ends| ends.duration_since(self.now) >= SAVED) && self.expired().is_none()
    }

    /// A replica whose certificate has expired.
    pub fn expired(&self) -> Option<String> {
        let expired = |served: &Served| served.until <= self.now;
        let (n, served) = self.replicas.iter().flatten().enumerate().find(|(_, served)| expired(served))?;
        Some(format!("minute {}: replica {n} serves a certificate of {} that has expired", self.now(), served.by))
    }

    /// A replica takes what it can use, and keeps what it has otherwise.
    fn hear(&mut self, replica: usize) {
        if let Some(leaf) = &self.serving.value.leaf
            && let Some(by) = leaf.by.clone()
        {
            self.replicas[replica] = Some(Served { by, until: leaf.until });
        }
    }

    fn put_bundle(&mut self, hook: usize, bundle: BTreeSet<Id>, by_hand: bool) {
        // Nobody can promise anything about a bundle that is replaced when it is too late.
        let saved = self.ends().is_some_and(|ends| ends.duration_since(self.now) >= SAVED);
        let (now, hooks) = (self.now, &mut self.hooks[hook]);
        if !hooks.by_hand && saved {
            hooks.before.push((hooks.bundle.clone(), now));
        }
        hooks.version += 1;
        (hooks.bundle, hooks.by_hand) = (bundle, by_hand);
    }

    fn die(&mut self, leader: usize) {
        self.crashes += 1;
        self.leaders[leader] = Leader::default();
    }

    fn read(&mut self, leader: usize) {
        let (broken, mut reading) = (self.broken, std::mem::take(&mut self.leaders[leader].reading));
        let ca_first = broken == Broken::CaReadFirst;
        if ca_first && reading.kept.is_none() {
            reading.kept = Some(self.kept.clone());
        } else if reading.serving.is_none() {
            reading.serving = Some(self.serving.clone());
        } else if reading.hooks.is_none() {
            reading.hooks = Some(self.hooks.iter().map(|h| (h.version, h.bundle.clone())).collect());
        } else if reading.replicas.is_none() {
            reading.replicas = Some(self.replicas.clone());
        } else {
            if !ca_first {
                reading.kept = Some(self.kept.clone());
            }
            self.decide(leader, &mut reading);
        }
        self.leaders[leader].reading = reading;
    }

    /// Everything is read: one step, or back to the beginning.
    fn decide(&mut self, leader: usize, reading: &mut Reading) {
        let kept = reading.kept.clone().expect("read").value;
        let hooks = reading.hooks.clone().expect("read");
        let replicas = reading.replicas.clone().expect("read");
        let mut serving = reading.serving.clone().expect("read").value;
        let bundles = || hooks.iter().map(|(_, bundle)| bundle);
        let texts = bundles().flatten().chain(&serving.bundle);
        let published: BTreeMap<Id, Ca> =
            texts.filter_map(|id| Some((id.clone(), self.cas.get(id)?.clone()))).collect();
        // A certificate is only known to be signed by a CA whose certificate is at hand.
        let known = |by: &Id| published.contains_key(by) || kept.all().any(|ca| ca.id == *by);
        if let Some(leaf) = &mut serving.leaf {
            leaf.by = leaf.by.take().filter(|by| known(by) && leaf.until > self.now);
        }
        let believed = |served: &Served| known(&served.by) && served.until > self.now;
        let configurations = bundles()
            .enumerate()
            .map(|(n, bundle)| Configuration { name: n.to_string(), bundles: vec![bundle.clone()] })
            .collect();
        let asked = replicas
            .iter()
            .enumerate()
            .map(|(n, served)| Replica { name: n.to_string(), serves: Ok(served.clone().filter(believed)) });
        let replicas = if self.broken == Broken::ReplicasNotAsked { Vec::new() } else { asked.collect() };
        let memory = self.leaders[leader].memory.clone();
        let (kept, serving) = (Some(kept), Some(serving));
        let mut seen = Seen { kept, serving, configurations, replicas, published, memory, unseen: None };
        let mut memory = seen.memory.clone();
        memory.note(&seen, self.now);
        self.leaders[leader].memory = memory.clone();
        seen.memory = memory;
        let mut timing = self.timing.clone();
        if self.broken == Broken::NoOverlap {
            timing.overlap = SignedDuration::ZERO;
        }
        match plan(&seen, self.now, &timing) {
            Next::Do { step, .. } if !self.held_back(&step, &seen) => self.leaders[leader].writes = Some(step),
            _ => *reading = Reading::default(),
        }
    }

    /// What is broken on purpose: a step that is not taken before the CA behind it was published for the whole overlap.
    fn held_back(&self, step: &Step, seen: &Seen) -> bool {
        let (Some(kept), Some(serving)) = (&seen.kept, &seen.serving) else { return false };
        let alive = serving.leaf.as_ref().filter(|leaf| leaf.until > self.now && leaf.by.is_some());
        let (Some(leaf), true) = (alive, kept.all().count() > 1) else { return false };
        let ca = match (step, self.broken) {
            (Step::Sign { .. }, Broken::RenewalWaits | Broken::OverlapIsNeverCut) => {
                let own = kept.current.as_ref().is_some_and(|ca| leaf.by.as_ref() == Some(&ca.id));
                kept.current.as_ref().filter(|_| own == (self.broken == Broken::RenewalWaits))
            }
            (Step::Promote, Broken::OverlapIsNeverCut) => kept.next.as_ref(),
            _ => None,
        };
        let since = ca.map(|ca| seen.memory.everywhere.get(&ca.id));
        since.is_some_and(|since| since.is_none_or(|since| *since + self.timing.overlap > self.now))
    }

    /// Carries out what was decided, if what it replaces is still what was read.
    fn write(&mut self, leader: usize) {
        let reading = std::mem::take(&mut self.leaders[leader].reading);
        let Some(step) = self.leaders[leader].writes.take() else { return };
        let (kept, serving) = (reading.kept.expect("read"), reading.serving.expect("read"));
        let hooks = reading.hooks.expect("read");
        let held = match &step {
            Step::Publish { configuration, .. } => {
                let hook: usize = configuration.parse().expect("a number");
                hooks[hook].0 == self.hooks[hook].version
            }
            Step::Sign { .. } | Step::Note { .. } => serving.version == self.serving.version,
            _ => kept.version == self.kept.version,
        };
        if !held && self.broken != Broken::NoPrecondition {
            self.moved += 1;
            return;
        }
        let mut now_kept = kept.value.clone();
        match step {
            Step::Make { adopt } => {
                self.made += 1;
                let ca = Ca {
                    id: id(&format!("ca-{}", self.made)),
                    name: format!("CA {}", self.made),
                    from: begins(self.now, self.timing.ca_validity),
                    until: self.now + self.timing.ca_validity,
                };
                self.cas.insert(ca.id.clone(), ca.clone());
                now_kept.next = Some(ca);
                now_kept.old.extend(adopt);
                self.kept.set(now_kept);
            }
            Step::Adopt { adopt } => {
                now_kept.old.extend(adopt);
                self.kept.set(now_kept);
            }
            Step::Promote => {
                now_kept.old.extend(now_kept.current.take());
                now_kept.current = now_kept.next.take();
                self.rotations += 1;
                self.kept.set(now_kept);
            }
            Step::Retire { drop } => {
                now_kept.old.retain(|ca| !drop.contains(&ca.id));
                self.kept.set(now_kept);
            }
            Step::Sign { bundle } => {
                let ca = now_kept.current.expect("what signs");
                let valid = self.timing.cert_validity;
                let (from, until) = (begins(self.now, valid), (self.now + valid).min(ca.until));
                let leaf = Leaf { by: Some(ca.id), from, until, sound: true };
                self.serving.set(Serving { leaf: Some(leaf), bundle: bundle.into_iter().collect() });
            }
            Step::Note { bundle } => {
                let leaf = serving.value.leaf.clone();
                self.serving.set(Serving { leaf, bundle: bundle.into_iter().collect() });
            }
            Step::Publish { configuration, bundle } => {
                let hook: usize = configuration.parse().expect("a number");
                self.put_bundle(hook, bundle.into_iter().collect(), false);
            }
        }
    }

    /// The promise.
    pub fn broken_promise(&self) -> Option<String> {
        for (n, served) in self.replicas.iter().enumerate() {
            // What has expired is another promise.
            let Some(Served { by, .. }) = served.as_ref().filter(|served| served.until > self.now) else { continue };
            for hooks in &self.hooks {
                let ours = (!hooks.by_hand).then_some(&hooks.bundle);
                let held = hooks.before.iter().map(|(bundle, _)| bundle).chain(ours);
                for bundle in held {
                    if !bundle.contains(by) {
                        return Some(format!(
                            "replica {n} serves a certificate of {by}, an API server may hold {bundle:?}"
                        ));
                    }
                }
            }
        }
        None
    }

    /// Everybody serves and believes the CA that signs, and nothing else is trusted.
    pub fn is_steady(&self) -> bool {
        let Kept { current: Some(ca), next: None, old } = &self.kept.value else { return false };
        let one = BTreeSet::from([ca.id.clone()]);
        old.is_empty()
            && ca.until > self.now
            && self.hooks.iter().all(|h| h.bundle == one)
            && self.replicas.iter().all(|served| served.as_ref().is_some_and(|served| served.by == ca.id))
            && self.serving.value.leaf.as_ref().is_some_and(|leaf| leaf.until > self.now)
    }

    /// One leader does all that is to be done, and replicas hear.
    fn look_after(&mut self) -> Result<(), String> {
        // The longest way is an installation: a CA, two bundles, and what follows.
        for _ in 0..20 {
            self.happen(Event::Looks(0));
            if self.leaders[0].writes.is_none() {
                (0..self.replicas.len()).for_each(|replica| self.hear(replica));
                return self.broken_promise().map_or(Ok(()), Err);
            }
            self.happen(Event::Writes(0));
            if let Some(why) = self.broken_promise() {
                return Err(why);
            }
        }
        Err("it does not come to rest".to_owned())
    }

    /// One leader, or one after another, for so many minutes; nothing may expire that can be saved now. Whether everything
    /// was well once.
    pub fn live(&mut self, minutes: i64, dies: impl Fn(i64) -> bool) -> Result<bool, String> {
        let (saved, mut well) = (self.can_be_saved(), false);
        for minute in 0..minutes {
            if dies(minute) {
                self.leaders[0] = Leader::default();
            }
            self.look_after()?;
            well |= self.is_steady();
            if let Some(why) = self.expired().filter(|_| saved) {
                return Err(why);
            }
            self.happen(Event::MinutePasses);
            if let Some(why) = self.broken_promise().or(self.expired().filter(|_| saved)) {
                return Err(why);
            }
        }
        Ok(well)
    }

    /// Faults end; one leader goes on, replicas hear. It must get well, and stay well for two lives of a CA.
    pub fn calm_down(&mut self) -> Result<(), String> {
        self.leaders = vec![Leader::default()];
        self.faults = 0;
        // A CA that is due, published, changed, and dropped.
        if !self.live((self.timing.overlap * 2).as_mins() + 15, |_| false)? {
            return Err("it does not get well".to_owned());
        }
        if !self.can_be_saved() {
            return Err("what is served cannot be saved any more".to_owned());
        }
        self.live(self.timing.ca_validity.as_mins() * 2, |_| false).map(drop)
    }
}
