//! The model of a cluster with one gateway in it: Deployments, their ReplicaSets' behaviour, pods, an autoscaler, endpoints, and the
//! GatewayRollout with what its status remembers. Everything happens in no time, in any order; time passes when nothing else is left.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use revguard::api::rollout_status::Phase;
use revguard::rollout::Memory;
use revguard::rollout::Next;
use revguard::rollout::seen::Of;
use revguard::rollout::step::{Step, Which};

use super::config::{Broken, Config, Fault, Rev, TICK};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pod {
    pub id: u16,
    pub version: u16,
    pub of: Of,
    pub rev: Rev,
    pub ready: bool,
    pub endpoint: bool,
    pub deleting: bool,
    pub pinned: bool,
    /// Since when.
    pub apart: Option<u32>,
    /// Set apart, and its ReplicaSet has not noticed yet.
    pub counted: Option<Which>,
    /// Requests are on their way through it.
    pub busy: bool,
    pub since: u32,
    /// It was set apart, and nothing on it says so.
    pub lost: bool,
}

impl Pod {
    /// In which order a ReplicaSet removes pods: those first that are not ready, that are not pinned, that are youngest.
    pub fn worth(&self) -> (bool, bool, std::cmp::Reverse<(u32, u16)>) {
        (self.ready, self.pinned, std::cmp::Reverse((self.since, self.id)))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Deployment {
    pub uid: u16,
    pub version: u16,
    pub generation: u16,
    pub observed: u16,
    pub replicas: u8,
    pub rev: Rev,
    pub paused: bool,
    pub paced: bool,
    pub ours: bool,
    /// Replicas of its ReplicaSets, by template.
    pub sets: [u8; 3],
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hpa {
    pub version: u16,
    pub written: bool,
    pub target: Which,
    pub min: u8,
    pub desired: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Copy {
    pub version: u16,
    pub hash: u8,
}

/// The object.
#[derive(Clone, Debug)]
pub struct Rollout {
    pub version: u16,
    pub generation: u16,
    pub deleting: bool,
    pub finalizer: bool,
    pub bits: u8,
    pub approval: Option<Say>,
    pub memory: Arc<Memory>,
}

/// What somebody approves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Say {
    Resume,
    /// The first step.
    Step,
    Nonsense,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gate {
    Off,
    Quiet,
    Firing,
    Unknown,
}

/// Decided, and not yet written.
#[derive(Clone, Debug)]
pub struct Pending {
    pub next: Next,
    /// Of the GatewayRollout, when it was decided.
    pub version: u16,
    /// Pods were taken by somebody else since.
    pub tainted: bool,
    /// Whether it was decided after the end.
    pub over: bool,
    /// It was decided on the way back.
    pub back: bool,
}

#[derive(Clone, Debug)]
pub struct World {
    pub config: Arc<Config>,
    pub clock: u32,
    pub rollout: Option<Rollout>,
    pub deployments: [Option<Deployment>; 3],
    pub lock: bool,
    /// The source's spec is recorded as ours.
    pub written: bool,
    /// So many more than the gateway had are needed by now.
    pub asked: u8,
    /// The baseline that stands beside the lock.
    pub kept: Option<Arc<str>>,
    pub pods: Vec<Pod>,
    pub hpa: Option<Hpa>,
    pub original: u8,
    pub copy: Option<Copy>,
    /// Version of the old revision's mesh configuration, which an earlier rollout has copied.
    pub former: Option<u16>,
    pub from_ready: bool,
    pub from_installed: bool,
    pub to_ready: bool,
    pub gate: Gate,
    /// When it became quiet.
    pub quiet: u32,
    pub sick: bool,
    pub sick_old: bool,
    pub rejects: bool,
    pub narrowed: bool,
    /// Its autoscaler has asked for fewer pods, and they are not gone yet.
    pub lowered: bool,
    pub key_lost: bool,
    pub blocked: bool,
    pub refused: bool,
    /// What the metric says, if there is one.
    pub metric: u8,
    /// The Service still has the old revision's label.
    pub pruned: bool,
    /// Names of pods that were served and are gone by other hands: fewer may serve for a while.
    pub harmed: bool,
    /// A ReplicaSet has ended a pod that was set apart.
    pub cut: bool,
    /// The finalizer was taken off by hand: what follows is theirs.
    pub forced: bool,
    pub late: Option<Pending>,
    pub late_left: u8,
    pub budget: u8,
    pub next_pod: u16,
    pub next_uid: u16,
    /// Writes that came too late.
    pub refusals: u32,
}

pub fn at(clock: u32) -> Timestamp {
    Timestamp::from_second(1_772_000_000 + i64::from(clock) * TICK).expect("a time")
}

pub fn ticks(time: Timestamp) -> i64 {
    (time.as_second() - 1_772_000_000) / TICK
}

impl World {
    pub fn new(config: &Arc<Config>) -> World {
        let n = config.pods;
        let source = Deployment {
            uid: 1,
            version: 1,
            generation: 1,
            observed: 1,
            replicas: n,
            rev: Rev::Old,
            paused: false,
            paced: false,
            ours: false,
            sets: [n, 0, 0],
        };
        let memory = Arc::new(Memory::default());
        let rollout = Rollout {
            version: 1,
            generation: 1,
            deleting: false,
            finalizer: false,
            bits: config.bits,
            approval: None,
            memory,
        };
        let mut world = World {
            config: Arc::clone(config),
            clock: 0,
            rollout: Some(rollout),
            deployments: [Some(source), None, None],
            lock: false,
            written: false,
            asked: 0,
            kept: None,
            pods: Vec::new(),
            hpa: config.hpa.then_some(Hpa { version: 1, written: false, target: Which::Source, min: 1, desired: n }),
            original: 1,
            copy: None,
            former: config.former.then_some(1),
            from_ready: true,
            from_installed: true,
            to_ready: true,
            gate: if config.spec["guardrails"]["alerts"].is_null() { Gate::Off } else { Gate::Quiet },
            quiet: 0,
            sick: false,
            sick_old: false,
            rejects: false,
            narrowed: false,
            lowered: false,
            key_lost: false,
            blocked: false,
            refused: false,
            metric: 0,
            pruned: config.pruned,
            harmed: false,
            forced: false,
            late: None,
            late_left: config.late,
            budget: config.budget,
            next_pod: 0,
            next_uid: 2,
            refusals: 0,
            cut: false,
        };
        for _ in 0..n {
            world.start(Of::Source, Rev::Old);
        }
        for pod in &mut world.pods {
            (pod.ready, pod.endpoint) = (true, true);
        }
        world
    }

    pub fn now(&self) -> Timestamp {
        at(self.clock)
    }

    pub fn start(&mut self, of: Of, rev: Rev) {
        let (id, since, busy) = (self.next_pod, self.clock, self.config.busy);
        self.next_pod += 1;
        self.pods.push(Pod {
            id,
            version: 1,
            of,
            rev,
            ready: false,
            endpoint: false,
            deleting: false,
            pinned: false,
            apart: None,
            counted: None,
            busy,
            since,
            lost: false,
        });
    }

    pub fn deployment(&self, which: Which) -> Option<&Deployment> {
        self.deployments[which as usize].as_ref()
    }

    pub fn alive(&self, which: Which) -> impl Iterator<Item = &Pod> {
        self.pods.iter().filter(move |p| p.of == of(which) && !p.deleting)
    }

    /// What its ReplicaSets take for theirs.
    pub fn counted(&self, which: Which) -> impl Iterator<Item = &Pod> {
        let apart = self.pods.iter().filter(move |p| p.counted == Some(which) && !p.deleting);
        self.alive(which).chain(apart)
    }

    /// Something goes on mounting the mesh configuration of the old revision, or its next pods would.
    pub fn is_old_kept(&self) -> bool {
        let templates = self.deployments.iter().flatten().map(|d| d.rev);
        templates.chain(self.pods.iter().filter(|p| !p.deleting).map(|p| p.rev)).any(|rev| rev != Rev::New)
    }

    pub fn is_old_mounted(&self) -> bool {
        self.is_old_kept() || self.pods.iter().any(|p| p.rev != Rev::New)
    }

    /// What clients see, without those that a ReplicaSet is about to remove: ready endpoints of the gateway.
    pub fn serving(&self) -> usize {
        let of = |which: Which| {
            if self.deployment(which).is_some_and(|d| !d.ours && which != Which::Source) {
                return 0;
            }
            let replicas = self.deployment(which).map_or(0, |d| usize::from(d.replicas));
            // A Deployment that rolls has one more.
            let rolls = |d: &Deployment| d.paced || d.sets.iter().filter(|n| **n > 0).count() > 1;
            let surge = usize::from(self.deployment(which).is_some_and(rolls));
            let lowered = self.taken(which, None, replicas + surge);
            // ReplicaSets that were lowered already take their own.
            let wanted = |rev: Rev| self.deployment(which).map_or(0, |d| usize::from(d.sets[rev as usize]));
            let beyond: usize = Rev::ALL.into_iter().map(|rev| self.taken(which, Some(rev), wanted(rev))).sum();
            let serving = self.alive(which).filter(|p| p.ready && p.endpoint).count();
            serving.saturating_sub(lowered.max(beyond))
        };
        Which::ALL.into_iter().map(of).sum()
    }

    /// Endpoints that go when only so many pods of a Deployment, or of one of its ReplicaSets, are wanted.
    fn taken(&self, which: Which, rev: Option<Rev>, wanted: usize) -> usize {
        let mut all: Vec<&Pod> = self.alive(which).filter(|p| rev.is_none_or(|rev| p.rev == rev)).collect();
        all.sort_by_key(|p| p.worth());
        let surplus = all.len().saturating_sub(wanted);
        all.into_iter().take(surplus).filter(|p| p.ready && p.endpoint).count()
    }

    pub fn memory(&self) -> Option<&Memory> {
        self.rollout.as_ref().map(|r| &*r.memory)
    }

    fn held(&self, version: &str, is: Option<u16>) -> bool {
        self.config.broken == Broken::NoPrecondition && is.is_some() || is.is_some_and(|v| v.to_string() == version)
    }

    /// Whether this write would be refused by now.
    pub fn is_refused(&self, pending: &Pending) -> bool {
        let rollout = self.rollout.as_ref();
        let of = |which: Which| self.deployment(which).map(|d| d.version);
        let pod = |name: &str| {
            let id: Option<u16> = name.strip_prefix('p').and_then(|n| n.parse().ok());
            self.pods.iter().find(|p| Some(p.id) == id && !p.deleting).map(|p| p.version)
        };
        let Next::Do(step) = &pending.next else {
            let same = rollout.is_some_and(|r| r.version == pending.version);
            return !same;
        };
        !match step {
            Step::Hold { held } | Step::Release { held } | Step::Consume { held } | Step::DropRollout { held } => {
                self.held(&held.version, rollout.map(|r| r.version))
            }
            Step::Lock { held, .. } => self.held(&held.version, of(Which::Source)),
            Step::Unlock { held } | Step::Retemplate { held, .. } | Step::Pace { held, .. } => {
                self.held(&held.version, of(Which::Source))
            }
            Step::CopyConfig { held: None, .. } => self.copy.is_none(),
            Step::DropConfig { name, held } if **name == *"istio-old" => self.held(&held.version, self.former),
            Step::CopyConfig { held: Some(held), .. } | Step::DropConfig { held, .. } => {
                self.held(&held.version, self.copy.as_ref().map(|c| c.version))
            }
            Step::CreateCanary => self.deployment(Which::Canary).is_none(),
            Step::CreateStandby => self.deployment(Which::Standby).is_none(),
            Step::DropDeployment { which, held } | Step::Scale { which, held, .. } => {
                self.held(&held.version, of(*which))
            }
            Step::CreateProbe => !self.pods.iter().any(|p| p.of == Of::Probe),
            Step::DropProbe { pod: name, held }
            | Step::Pin { pod: name, held }
            | Step::SetApart { pod: name, held, .. }
            | Step::DropApart { pod: name, held, .. } => self.held(&held.version, pod(name)),
            Step::Autoscale { held, .. } => self.held(&held.version, self.hpa.as_ref().map(|h| h.version)),
            Step::Relabel { .. } => self.pruned,
            Step::LetGo { kind: "Deployment", held, .. } => self.held(&held.version, of(Which::Source)),
            Step::LetGo { held, .. } => self.held(&held.version, self.hpa.as_ref().map(|h| h.version)),
        }
    }

    /// Carries a write out; the promise that it breaks, if it does.
    pub fn write(&mut self, pending: Pending) -> Result<(), String> {
        if self.is_refused(&pending) {
            self.refusals += 1;
            return Ok(());
        }
        match pending.next {
            Next::Remember(memory) => {
                let rollout = self.rollout.as_mut().expect("not refused");
                rollout.version += 1;
                rollout.memory = Arc::new(*memory);
                Ok(())
            }
            Next::Do(step) => self.step(&step),
            Next::Wait(_) | Next::Done => Ok(()),
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        let rollout = |world: &mut World, change: fn(&mut Rollout)| {
            let rollout = world.rollout.as_mut().expect("not refused");
            rollout.version += 1;
            change(rollout);
        };
        match step {
            Step::Hold { .. } => rollout(self, |r| r.finalizer = true),
            Step::Consume { .. } => rollout(self, |r| r.approval = None),
            Step::Release { .. } => {
                rollout(self, |r| r.finalizer = false);
                self.collect();
            }
            Step::DropRollout { .. } => {
                rollout(self, |r| r.deleting = true);
                self.collect();
            }
            Step::Lock { baseline, .. } => {
                self.source().version += 1;
                self.lock = true;
                if self.config.faults.contains(&Fault::StatusLost) {
                    self.kept = Some(serde_json::to_string(&**baseline).expect("plain data").into());
                }
            }
            Step::Unlock { .. } => {
                self.source().version += 1;
                self.lock = false;
                self.kept = None;
            }
            Step::CopyConfig { hash, .. } => {
                let version = self.copy.as_ref().map_or(1, |c| c.version + 1);
                self.copy = Some(Copy { version, hash: hash.parse().expect("a number") });
            }
            Step::DropConfig { name, .. } if **name == *"istio-old" => {
                if self.is_old_mounted() {
                    return Err("what still is mounted was deleted".to_owned());
                }
                self.former = None;
            }
            Step::DropConfig { .. } => self.copy = None,
            Step::CreateCanary => self.create(Which::Canary, Rev::New),
            Step::CreateStandby => self.create(Which::Standby, Rev::Old),
            Step::DropDeployment { which, .. } => self.drop_deployment(*which),
            Step::Scale { which, to, .. } => {
                self.written |= *which == Which::Source;
                let deployment = self.deployments[*which as usize].as_mut().expect("not refused");
                deployment.replicas = u8::try_from(*to).expect("few");
                (deployment.version, deployment.generation) = (deployment.version + 1, deployment.generation + 1);
            }
            Step::Retemplate { revision, .. } => {
                let rev = if &**revision == "new" { Rev::New } else { Rev::Old };
                self.written = true;
                self.retemplate(rev);
            }
            Step::Pace { paused, .. } => {
                self.written = true;
                let source = self.source();
                (source.version, source.generation) = (source.version + 1, source.generation + 1);
                (source.paused, source.paced) = paused.map_or((false, false), |p| (p, true));
            }
            Step::CreateProbe => self.start(Of::Probe, Rev::New),
            Step::DropProbe { pod, .. } => self.pods.retain(|p| format!("p{}", p.id) != **pod),
            Step::Pin { pod, .. } => {
                let pod = self.pod(pod);
                (pod.pinned, pod.version) = (true, pod.version + 1);
            }
            Step::SetApart { pod, .. } => self.set_apart(pod),
            Step::DropApart { pod, .. } => return self.drop_apart(pod),
            Step::Autoscale { target, min, .. } => {
                let stays = self.config.broken == Broken::HpaStays;
                let target = if stays { Which::Source } else { which(target) };
                let hpa = self.hpa.as_mut().expect("not refused");
                hpa.written = true;
                (hpa.target, hpa.min, hpa.version) = (target, u8::try_from(*min).expect("few"), hpa.version + 1);
            }
            Step::Relabel { .. } => self.pruned = false,
            Step::LetGo { kind: "Deployment", .. } => {
                self.source().version += 1;
                self.written = false;
            }
            Step::LetGo { .. } => {
                let hpa = self.hpa.as_mut().expect("not refused");
                (hpa.written, hpa.version) = (false, hpa.version + 1);
            }
        }
        Ok(())
    }

    fn source(&mut self) -> &mut Deployment {
        self.deployments[0].as_mut().expect("not refused")
    }

    fn pod(&mut self, name: &str) -> &mut Pod {
        self.pods.iter_mut().find(|p| format!("p{}", p.id) == name).expect("not refused")
    }

    /// An object that is deleted goes once nobody holds it.
    pub fn collect(&mut self) {
        if self.rollout.as_ref().is_some_and(|r| r.deleting && !r.finalizer) {
            self.rollout = None;
            // Its probe is owned by it, and so are pods set apart: they are cut.
            self.pods.retain(|p| p.of != Of::Probe);
            for pod in self.pods.iter_mut().filter(|p| p.of == Of::Apart && self.forced) {
                pod.deleting = true;
            }
        }
    }

    pub fn create(&mut self, which: Which, rev: Rev) {
        let uid = self.next_uid;
        self.next_uid += 1;
        self.deployments[which as usize] = Some(Deployment {
            uid,
            version: 1,
            generation: 1,
            observed: 0,
            replicas: 0,
            rev,
            paused: false,
            paced: false,
            ours: true,
            sets: [0; 3],
        });
    }

    pub fn drop_deployment(&mut self, which: Which) {
        self.deployments[which as usize] = None;
        for pod in self.pods.iter_mut().filter(|p| p.of == of(which)) {
            (pod.deleting, pod.endpoint) = (true, false);
        }
    }

    pub fn retemplate(&mut self, rev: Rev) {
        let source = self.source();
        (source.rev, source.version, source.generation) = (rev, source.version + 1, source.generation + 1);
    }

    fn set_apart(&mut self, name: &str) {
        let (clock, broken, blind) = (self.clock, self.config.broken, self.config.blind);
        let pod = self.pod(name);
        pod.version += 1;
        pod.counted = Which::ALL.into_iter().find(|w| blind && of(*w) == pod.of);
        (pod.endpoint, pod.apart, pod.of) = (false, Some(clock), Of::Apart);
        if broken == Broken::ApartNotRecorded {
            (pod.of, pod.lost) = (Of::Other, true);
        }
    }

    /// Whoever is late chooses anew, what it can.
    pub fn choose_anew(&self, pending: &mut Pending) {
        let Next::Do(Step::SetApart { pod: name, held, .. }) = &mut pending.next else { return };
        let Some(named) = self.pods.iter().find(|p| format!("p{}", p.id) == **name) else { return };
        let other = self.alive(Which::Source).filter(|p| p.id != named.id && p.ready && named.of == p.of).max();
        if let Some(other) = other {
            *name = Arc::from(format!("p{}", other.id));
            held.version = Arc::from(other.version.to_string());
        }
    }

    fn drop_apart(&mut self, name: &str) -> Result<(), String> {
        let wait = self.config.spec["strategy"]["drain"]["maxWait"].as_str().expect("a duration");
        let wait: u32 = wait.trim_end_matches('m').parse().expect("minutes");
        let (clock, pod) = (self.clock, self.pod(name));
        let early = pod.busy && pod.apart.is_none_or(|since| clock < since + wait);
        let id = pod.id;
        self.pods.retain(|p| p.id != id);
        if early { Err(format!("p{id} was deleted with its requests still open, before its time")) } else { Ok(()) }
    }

    /// Drops what was decided and would be refused.
    pub fn settle(&mut self) {
        let back = self.memory().is_some_and(|m| m.phase == Phase::RollingBack);
        let over = self.memory().is_none_or(|m| m.phase.is_over());
        if let Some(pending) = &self.late
            // A lease ends long before a way turns round or comes to its end: that takes longer than any request.
            && (self.is_refused(pending) || pending.back != back || over && !pending.over)
        {
            self.late = None;
            self.refusals += 1;
        }
    }

    pub fn later(&mut self, time: SignedDuration) {
        let seconds = time.as_secs().max(1);
        self.clock += u32::try_from((seconds + TICK - 1) / TICK).expect("soon");
    }
}

/// Whose pods.
pub const fn of(which: Which) -> Of {
    match which {
        Which::Source => Of::Source,
        Which::Canary => Of::Canary,
        Which::Standby => Of::Standby,
    }
}

/// Deployments by their names.
pub fn which(name: &str) -> Which {
    match name {
        "gw" => Which::Source,
        "gw-new" => Which::Canary,
        _ => Which::Standby,
    }
}

pub const fn name(which: Which) -> &'static str {
    match which {
        Which::Source => "gw",
        Which::Canary => "gw-new",
        Which::Standby => "gw-old",
    }
}
