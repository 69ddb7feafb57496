//! The world of the simulation. Time passes in minutes; everything else happens in no time, in any order.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use revguard::controller::certificates::plan::{
    Ca, Configuration, Id, Kept, Leaf, Memory, Next, Replica, Seen, Serving, Step, Timing, plan,
};

/// How long an API server may still hold a configuration that was replaced.
const LAG: SignedDuration = SignedDuration::from_mins(1);

fn timing() -> Timing {
    let m = SignedDuration::from_mins;
    Timing { ca_validity: m(60), cert_validity: m(30), overlap: m(2) }
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
    /// Bundles of ours that were replaced, and when.
    before: Vec<(BTreeSet<Id>, Timestamp)>,
}

/// A configuration's version and its bundle.
type Bundle = (u32, BTreeSet<Id>);

/// What a leader has read so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Reading {
    serving: Option<Versioned<Serving>>,
    hooks: Option<Vec<Bundle>>,
    replicas: Option<Vec<Option<Id>>>,
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
}

impl Event {
    pub const KINDS: usize = 11;
}

#[derive(Clone, Debug)]
pub struct World {
    broken: Broken,
    now: Timestamp,
    kept: Versioned<Kept>,
    serving: Versioned<Serving>,
    hooks: Vec<Hooks>,
    replicas: Vec<Option<Id>>,
    leaders: Vec<Leader>,
    cas: BTreeMap<Id, Ca>,
    made: usize,
    rotations: u64,
    moved: u64,
    crashes: u64,
    /// Acts of people that are still to come.
    faults: usize,
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
            left: (1, 4),
        }
    }

    /// The same, installed, with a CA that is about to be renewed.
    pub fn installed(broken: Broken, seed: u64) -> World {
        let mut world = World::new(broken, seed);
        for _ in 0..40 {
            world.happen(if world.leaders[0].writes.is_some() { Event::Writes(0) } else { Event::Looks(0) });
        }
        (0..world.replicas.len()).for_each(|replica| world.hear(replica));
        let ca = world.kept.value.current.clone().expect("an installed CA");
        world.now = ca.from + ca.until.duration_since(ca.from) * 2 / 3;
        // Its certificate is young, so that the rotation is all that is to do.
        let leaf = world.serving.value.leaf.as_mut().expect("a certificate");
        (leaf.from, leaf.until) = (world.now, world.now + timing().cert_validity);
        world.hooks.iter_mut().for_each(|hooks| hooks.before.clear());
        world.leaders = vec![Leader::default(); 2];
        world.rotations = 0;
        world
    }

    /// The smallest world of a rotation: one replica, one configuration.
    pub fn due() -> World {
        let mut world = World::installed(Broken::Nothing, 1);
        world.replicas.truncate(1);
        world.hooks.truncate(1);
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
                self.crashes.min(1),
            ),
        )
    }

    /// What may happen next, as often as it is likely.
    pub fn events(&self) -> Vec<Event> {
        let mut all = vec![Event::MinutePasses; 4];
        for leader in 0..self.leaders.len() {
            match self.leaders[leader].writes {
                None => all.extend([Event::Reads(leader); 20]),
                Some(_) => {
                    all.extend([Event::Writes(leader); 18]);
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
                self.now += SignedDuration::from_mins(1);
                self.left.1 = self.left.1.saturating_sub(1);
                let now = self.now;
                for hooks in &mut self.hooks {
                    hooks.before.retain(|(_, replaced)| *replaced + LAG > now);
                }
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
        }
    }

    /// A replica takes what it can use, and keeps what it has otherwise.
    fn hear(&mut self, replica: usize) {
        if let Some(by) = self.serving.value.leaf.as_ref().and_then(|leaf| leaf.by.clone()) {
            self.replicas[replica] = Some(by);
        }
    }

    fn put_bundle(&mut self, hook: usize, bundle: BTreeSet<Id>, by_hand: bool) {
        let (now, hooks) = (self.now, &mut self.hooks[hook]);
        if !hooks.by_hand {
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
            leaf.by = leaf.by.take().filter(known);
        }
        let configurations = bundles()
            .enumerate()
            .map(|(n, bundle)| Configuration { name: n.to_string(), bundles: vec![bundle.clone()] })
            .collect();
        let asked = replicas
            .iter()
            .enumerate()
            .map(|(n, by)| Replica { name: n.to_string(), serves: Ok(by.clone().filter(known)) });
        let replicas = if self.broken == Broken::ReplicasNotAsked { Vec::new() } else { asked.collect() };
        let memory = self.leaders[leader].memory.clone();
        let mut seen = Seen { kept: Some(kept), serving: Some(serving), configurations, replicas, published, memory };
        let mut memory = seen.memory.clone();
        memory.note(&seen, self.now);
        self.leaders[leader].memory = memory.clone();
        seen.memory = memory;
        let mut timing = timing();
        if self.broken == Broken::NoOverlap {
            timing.overlap = SignedDuration::ZERO;
        }
        match plan(&seen, self.now, &timing) {
            Next::Wait { .. } => *reading = Reading::default(),
            Next::Do { step, .. } => self.leaders[leader].writes = Some(step),
        }
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
                    from: self.now,
                    until: self.now + timing().ca_validity,
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
                let until = (self.now + timing().cert_validity).min(ca.until);
                let leaf = Leaf { by: Some(ca.id), from: self.now, until, sound: true };
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
        for (n, by) in self.replicas.iter().enumerate() {
            let Some(by) = by else { continue };
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
            && self.replicas.iter().all(|by| by.as_ref() == Some(&ca.id))
            && self.serving.value.leaf.as_ref().is_some_and(|leaf| leaf.until > self.now)
    }

    /// Faults end; one leader goes on, replicas hear. It must get well, and stay well for two lives of a CA.
    pub fn calm_down(&mut self) -> Result<(), String> {
        self.leaders = vec![Leader::default()];
        self.faults = 0;
        let mut well_since = None;
        for minute in 0..200 {
            for _ in 0..20 {
                self.happen(if self.leaders[0].writes.is_some() { Event::Writes(0) } else { Event::Looks(0) });
                if let Some(why) = self.broken_promise() {
                    return Err(why);
                }
            }
            (0..self.replicas.len()).for_each(|replica| self.hear(replica));
            if self.is_steady() {
                well_since.get_or_insert(minute);
            }
            if minute > 15 {
                well_since.ok_or("it does not get well")?;
                let leaf = self.serving.value.leaf.as_ref().ok_or("no certificate")?;
                if leaf.until <= self.now {
                    return Err("the certificate expired".to_owned());
                }
            }
            self.happen(Event::MinutePasses);
            if let Some(why) = self.broken_promise() {
                return Err(why);
            }
        }
        Ok(())
    }
}
