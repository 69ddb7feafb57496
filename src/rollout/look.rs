//! What a plan asks of what was seen: which Deployments are its own, how many of whose pods serve, how many there have to be.
//!
//! Every count here errs to the side of fewer: a pod that is about to be removed because replicas were lowered already serves no more, nor
//! does one that any Service has not among its endpoints.

use std::ops::ControlFlow;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::memory::Memory;
use super::next::{Next, Waiting};
use super::seen::{Deployment, Evidence, Hpa, Map, Of, Pod, Seen, Verified};
use super::step::{Step, Which};
use super::verify::{Measure, verify};
use crate::api::gateway_rollout::{CapacityMode, GatewayRolloutSpec, Promotion, StrategyType};
use crate::api::rollout_status::{Baseline, Phase};
use crate::model::key;

/// Reason, note, and whether it is a warning.
pub type Event = (String, String, bool);

/// What is decided, before a person's view of it is added.
#[derive(Clone, Debug, PartialEq)]
pub struct Move {
    pub next: Next,
    /// For the column STATE, where phase and stage do not say it.
    pub word: Option<&'static str>,
    pub events: Vec<Event>,
}

/// Goes on, or stops with what comes first.
pub type Go<T = ()> = ControlFlow<Box<Move>, T>;

pub const GO: Go = ControlFlow::Continue(());

impl Which {
    pub const ALL: [Which; 3] = [Which::Source, Which::Canary, Which::Standby];

    pub const fn as_str(self) -> &'static str {
        match self {
            Which::Source => "Source",
            Which::Canary => "Canary",
            Which::Standby => "Standby",
        }
    }

    /// As the documentation calls it.
    pub const fn named(self) -> &'static str {
        match self {
            Which::Source => "the original",
            Which::Canary => "the second Deployment",
            Which::Standby => "the standby",
        }
    }
}

/// Pods of one Deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Not being deleted.
    pub alive: u32,
    pub deleting: u32,
    /// Of those that are alive, not ready.
    pub unready: u32,
    /// Ready, and endpoints of every Service.
    pub ready: u32,
    /// Of those, the ones that are left once replicas are what was asked for.
    pub serving: u32,
}

impl Count {
    /// Pods that serve when so many replicas are asked for, at least: a ReplicaSet removes those first that are not ready.
    fn left(&self, replicas: u32) -> u32 {
        let removed = self.alive.saturating_sub(replicas);
        self.ready.saturating_sub(removed.saturating_sub(self.unready))
    }

    /// Serving pods that go when so many replicas are asked for, at most.
    pub fn loss(&self, replicas: u32) -> u32 {
        self.serving.saturating_sub(self.left(replicas))
    }
}

/// One look at everything.
#[derive(Clone, Debug)]
pub struct Look<'a> {
    pub seen: &'a Seen,
    pub memory: &'a Memory,
    pub now: Timestamp,
    counts: [Count; 3],
    /// Pods set apart that are still there.
    pub apart: u32,
}

impl<'a> Look<'a> {
    pub fn new(seen: &'a Seen, memory: &'a Memory, now: Timestamp) -> Self {
        let mut look = Look { seen, memory, now, counts: [Count::default(); 3], apart: 0 };
        for pod in &seen.pods {
            look.apart += u32::from(pod.of == Of::Apart);
            let Some(which) = look.whose(pod) else { continue };
            let ready = look.is_endpoint(pod);
            let count = &mut look.counts[which as usize];
            if pod.deleting {
                count.deleting += 1;
            } else {
                count.alive += 1;
                count.unready += u32::from(!pod.ready);
                count.ready += u32::from(ready);
            }
        }
        for which in Which::ALL {
            let replicas = look.replicas(which);
            let count = &mut look.counts[which as usize];
            count.serving = count.left(replicas);
        }
        look
    }

    pub fn spec(&self) -> &'a GatewayRolloutSpec {
        &self.seen.rollout.spec
    }

    pub fn to(&self) -> &'a str {
        &self.seen.rollout.spec.to_revision
    }

    pub fn is_in_place(&self) -> bool {
        self.spec().strategy.type_ == StrategyType::PausedRolling
    }

    /// Somebody else scales.
    pub fn is_manual(&self) -> bool {
        self.spec().strategy.capacity.mode == CapacityMode::Manual
    }

    pub fn baseline(&self) -> Option<&'a Baseline> {
        self.memory.baseline.as_deref()
    }

    /// Labels of an object that this rollout made.
    pub fn is_ours(&self, labels: &Map) -> bool {
        labels.get(key::ROLLOUT).is_some_and(|uid| **uid == *self.seen.rollout.held.uid)
    }

    fn raw(&self, which: Which) -> Option<&'a Deployment> {
        match which {
            Which::Source => self.seen.source.as_ref(),
            Which::Canary => self.seen.canary.as_ref(),
            Which::Standby => self.seen.standby.as_ref(),
        }
    }

    /// The source, or one of ours: what is called like ours and is not is nobody's business here.
    pub fn deployment(&self, which: Which) -> Option<&'a Deployment> {
        self.raw(which).filter(|d| which == Which::Source || self.is_ours(&d.labels))
    }

    /// What is called like one of ours and is not.
    pub fn foreign(&self, which: Which) -> Option<&'a Deployment> {
        self.raw(which).filter(|d| which != Which::Source && !self.is_ours(&d.labels))
    }

    pub fn replicas(&self, which: Which) -> u32 {
        self.deployment(which).map_or(0, |d| d.replicas)
    }

    pub fn count(&self, which: Which) -> Count {
        self.counts[which as usize]
    }

    /// Whose pod it is, if it is one of the gateway's. Those of a Deployment that is only called like ours are not.
    pub fn whose(&self, pod: &Pod) -> Option<Which> {
        let which = match pod.of {
            Of::Source => Which::Source,
            Of::Canary => Which::Canary,
            Of::Standby => Which::Standby,
            Of::Apart | Of::Probe | Of::Other => return None,
        };
        self.foreign(which).is_none().then_some(which)
    }

    /// Its pods that are not being deleted.
    pub fn pods(&self, which: Which) -> impl Iterator<Item = &'a Pod> {
        self.seen.pods.iter().filter(move |p| !p.deleting && self.whose(p) == Some(which))
    }

    /// It is ready, stays, and every Service sends to it.
    pub fn is_endpoint(&self, pod: &Pod) -> bool {
        pod.ready && !pod.deleting && self.missing_from(pod).is_none()
    }

    /// A Service that has it not among its endpoints.
    pub fn missing_from(&self, pod: &Pod) -> Option<&'a Arc<str>> {
        self.seen.services.iter().find(|s| !s.endpoints.contains(&pod.held.uid)).map(|s| &s.name)
    }

    /// Pods that serve, of all Deployments of this gateway.
    pub fn serving(&self) -> u32 {
        self.counts.iter().map(|c| c.serving).sum()
    }

    /// Pods that run, in whatever state: what a quota counts.
    pub fn total(&self) -> u32 {
        let of = |which| {
            let count = self.count(which);
            count.alive.max(self.replicas(which)).saturating_add(count.deleting)
        };
        Which::ALL.into_iter().map(of).fold(self.apart, u32::saturating_add)
    }

    /// A pod of the new revision's, whose Deployment it may be.
    pub fn is_new(&self, pod: &Pod) -> bool {
        match self.whose(pod) {
            Some(Which::Canary) => true,
            Some(Which::Source) => pod.revision.as_deref() == Some(self.to()),
            _ => false,
        }
    }

    /// New pods that are not being deleted.
    pub fn new_pods(&self) -> impl Iterator<Item = &'a Pod> {
        self.seen.pods.iter().filter(|p| !p.deleting && self.is_new(p))
    }

    /// The one autoscaler. Several are nobody's: they are told, and none is touched.
    pub fn hpa(&self) -> Option<&'a Hpa> {
        match &self.seen.hpas[..] {
            [one] if !one.owned && !self.is_manual() => Some(one),
            _ => None,
        }
    }

    /// Whoever scales what carries everything up says how many are needed, where no autoscaler does: it may be days until the original
    /// is moved by its owner. Of what leaves, replicas that somebody puts back are no wish (`FieldContested`).
    pub fn asked(&self) -> u32 {
        let leaves = self.memory.batch.as_ref().is_some_and(|b| b.which == Which::Canary);
        let says = !leaves && !self.is_manual() && self.seen.hpas.is_empty();
        if says { self.replicas(Which::Canary) } else { 0 }
    }

    /// When what goes on now began: the stage, its last batch, or the look of whoever has led since.
    pub fn begun(&self) -> Timestamp {
        self.memory.since.max(self.memory.last_batch).max(self.seen.watched).unwrap_or(self.now)
    }

    /// Pods that have to serve: what the gateway had, or what its autoscaler wants by now, if that is more.
    pub fn floor(&self) -> u32 {
        if self.is_in_place() {
            // Nobody's replicas are touched: what is asked for is what is needed.
            return self.replicas(Which::Source).max(1);
        }
        let baseline = self.baseline().map_or(0, |b| b.replicas);
        let most = || [Which::Source, Which::Canary, Which::Standby].into_iter().map(|w| self.replicas(w)).max();
        // One whose Deployment has no pods, or has just got some, knows of none: then those that there are are needed.
        let wanted = |h: &Hpa| if h.desired == 0 { most().unwrap_or(0) } else { h.desired };
        let wanted = self.seen.hpas.iter().map(wanted).max();
        // A person may have asked for more, as long as what serves is in nobody's hands.
        let untouched = matches!(
            self.memory.phase,
            Phase::Pending
                | Phase::Planned
                | Phase::Preflight
                | Phase::Preparing
                | Phase::Probing
                | Phase::Progressing
                | Phase::HandingOver
        );
        let by_hand = match self.memory.phase {
            Phase::Completed => self.replicas(self.active()),
            Phase::Promoting => self.asked(),
            _ if untouched => self.replicas(Which::Source),
            _ => 0,
        };
        baseline.max(wanted.unwrap_or(0)).max(by_hand).max(1)
    }

    /// The source's template is the old revision's.
    pub fn is_source_old(&self) -> bool {
        let Some(source) = &self.seen.source else { return false };
        let same = self.baseline().is_some_and(|b| b.deployment.template_hash == *source.template.hash);
        same || (source.template.revision.is_some() && source.template.revision == self.memory.from)
    }

    /// … or the new one's.
    pub fn is_source_new(&self) -> bool {
        self.seen.source.as_ref().is_some_and(|s| s.template.revision.as_deref() == Some(self.to()))
    }

    /// The source has our lock.
    pub fn is_locked(&self) -> bool {
        let source = self.seen.source.as_ref();
        source
            .and_then(|s| s.annotations.get(key::ACTIVE_ROLLOUT))
            .is_some_and(|uid| **uid == *self.seen.rollout.held.uid)
    }

    /// Whose lock it has, if not ours.
    pub fn locked_by(&self) -> Option<&'a str> {
        let source = self.seen.source.as_ref()?;
        let holder = source.annotations.get(key::ACTIVE_ROLLOUT)?;
        (**holder != *self.seen.rollout.held.uid && !holder.is_empty()).then_some(holder.as_str())
    }

    pub fn promotion(&self) -> Promotion {
        self.memory.promotion.unwrap_or(Promotion::KeepRevisioned)
    }

    /// The Deployment that has the gateway's pods once everything is done.
    pub fn active(&self) -> Which {
        if self.is_in_place() || self.promotion() != Promotion::KeepRevisioned { Which::Source } else { Which::Canary }
    }

    pub fn evidence(&self, pod: &Pod) -> Option<&'a Evidence> {
        self.seen.evidence.get(&pod.held.uid)
    }

    pub fn verify(&self, pod: &Pod) -> Verified {
        verify(pod, self.evidence(pod), Measure { spec: self.spec(), to: &self.seen.to, services: &self.seen.services })
    }

    // What is decided.

    /// Only this, and nothing else now.
    pub fn stop<T>(&self, next: Next, word: Option<&'static str>) -> Go<T> {
        ControlFlow::Break(Box::new(Move { next, word, events: Vec::new() }))
    }

    pub fn act<T>(&self, step: Step) -> Go<T> {
        self.stop(Next::Do(step), None)
    }

    /// "Not yet", for as long as it takes.
    pub fn wait<T>(&self, on: String, until: Option<Timestamp>) -> Go<T> {
        self.stop(Next::Wait(Waiting { on, until }), None)
    }

    /// The same under a word of its own.
    pub fn wait_as<T>(&self, word: &'static str, on: String, until: Option<Timestamp>) -> Go<T> {
        self.stop(Next::Wait(Waiting { on, until }), Some(word))
    }

    /// Who has to move the original to a revision, and how that is done where it is known.
    pub fn mover(&self, revision: &str) -> String {
        let Some(source) = &self.seen.source else { return "the original".to_owned() };
        match &source.owner {
            Some(owner) => owner.to_move(&source.name, revision),
            None => format!("whoever owns Deployment {} to move its template to {revision}", source.name),
        }
    }

    pub fn remember<T>(&self, change: impl FnOnce(&mut Memory)) -> Go<T> {
        let mut memory = self.memory.clone();
        change(&mut memory);
        self.stop(Next::Remember(Box::new(memory)), None)
    }
}

/// So much later; at the end of time if that is beyond it. Times in annotations are anybody's to write.
pub fn after(at: Timestamp, time: SignedDuration) -> Timestamp {
    at.checked_add(time).unwrap_or(Timestamp::MAX)
}

/// "once", "twice", "3 times".
pub fn times(n: u64) -> String {
    match n {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        n => format!("{n} times"),
    }
}

/// "1 pod", "2 pods".
pub fn pods(n: u32) -> String {
    if n == 1 { "1 pod".to_owned() } else { format!("{n} pods") }
}
