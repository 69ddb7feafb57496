//! What no step of a rollout may break, checked on what the step was planned from.
//!
//! It restates none of the plan: it knows no phases in their order and no arithmetic of steps, only what a gateway's users may rely
//! on. The simulation checks every edge with it, and the controller can check every step before it writes.

use std::sync::Arc;

use jiff::Timestamp;

use super::drain::SPARED;
use super::look::Look;
use super::memory::Memory;
use super::seen::{Of, Pod, Seen, Version};
use super::step::{Step, Which};
use crate::api::gateway_rollout::DrainMode;
use crate::api::rollout_status::Phase;
use crate::model::key;

/// A promise that a step would break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub promise: Promise,
    pub how: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Promise {
    /// Nothing that serves is taken away while fewer than needed would serve after it.
    Floor,
    /// Every write names the version of what it changes as it was seen; what is made is not there yet.
    Precondition,
    /// What somebody else made is not touched.
    Foreign,
    /// There is one autoscaler, it scales one of the gateway's Deployments, and gives nothing away while others serve.
    OneAutoscaler,
    /// A template is changed only while no pod follows it.
    StandsStill,
    /// A pod is set apart only where that is possible and was remembered before.
    Remembered,
    /// Where pods are set apart, none that is ready is terminated instead, unless its ReplicaSet is faster than any leader.
    Apart,
    /// The object stays for as long as a pod is set apart for it.
    Forgotten,
    /// Nothing of a gateway is changed without finalizer, lock and baseline.
    Held,
    /// Of a Service, an autoscaler or a budget only the revision's label is written.
    LabelOnly,
}

/// The promises that this step would break. `seen` and `memory` are what it was planned from.
pub fn broken(seen: &Seen, memory: &Memory, step: &Step) -> Vec<Broken> {
    let check = Check { look: Look::new(seen, memory, Timestamp::UNIX_EPOCH), step };
    let all = [
        (Promise::Floor, check.floor()),
        (Promise::Precondition, check.precondition()),
        (Promise::Foreign, check.foreign()),
        (Promise::OneAutoscaler, check.autoscaler()),
        (Promise::StandsStill, check.stands_still()),
        (Promise::Remembered, check.remembered()),
        (Promise::Apart, check.apart()),
        (Promise::Forgotten, check.forgotten()),
        (Promise::Held, check.held()),
        (Promise::LabelOnly, check.label_only()),
    ];
    all.into_iter().filter_map(|(promise, how)| Some(Broken { promise, how: how? })).collect()
}

struct Check<'a> {
    look: Look<'a>,
    step: &'a Step,
}

impl Check<'_> {
    fn pod(&self, name: &str) -> Option<&Pod> {
        self.look.seen.pods.iter().find(|p| *p.name == *name)
    }

    /// Pods that serve now and, at worst, do not after the step.
    fn taken(&self) -> u32 {
        let look = &self.look;
        match self.step {
            Step::SetApart { pod, .. } => {
                let serves = |p: &Pod| look.whose(p).is_some() && look.is_endpoint(p);
                u32::from(self.pod(pod).is_some_and(serves))
            }
            Step::Scale { which, to, .. } => look.count(*which).loss(*to),
            Step::DropDeployment { which, .. } => look.count(*which).serving,
            _ => 0,
        }
    }

    fn floor(&self) -> Option<String> {
        let (look, taken) = (&self.look, self.taken());
        let (serving, floor) = (look.serving(), look.floor());
        // A Deployment that moves by itself keeps what serves, if it was told to add before it takes away.
        if let Step::Pace { paused: Some(false), .. } = self.step {
            let paced = look.seen.source.as_ref().is_some_and(super::phases::place::is_paced);
            return (!paced || serving < floor)
                .then(|| format!("it is let go with {serving} of {floor} serving, paced: {paced}"));
        }
        let after = serving.saturating_sub(taken);
        (taken > 0 && after < floor).then(|| format!("{after} of {floor} would serve, {taken} fewer than now"))
    }

    fn precondition(&self) -> Option<String> {
        let seen = self.look.seen;
        let deployment = |which| match which {
            Which::Source => seen.source.as_ref(),
            Which::Canary => seen.canary.as_ref(),
            Which::Standby => seen.standby.as_ref(),
        };
        let copy = seen.config.copy.as_ref().map(|c| &c.held);
        let (held, is): (Option<&Version>, Option<&Version>) = match self.step {
            Step::Hold { held } | Step::Release { held } | Step::Consume { held } | Step::DropRollout { held } => {
                (Some(held), Some(&seen.rollout.held))
            }
            Step::Lock { held, .. }
            | Step::Unlock { held }
            | Step::Retemplate { held, .. }
            | Step::Pace { held, .. } => (Some(held), deployment(Which::Source).map(|d| &d.held)),
            Step::CopyConfig { held, .. } => (held.as_ref(), copy),
            Step::DropConfig { name, held } => (Some(held), self.former(name).or(copy)),
            Step::CreateCanary => (None, deployment(Which::Canary).map(|d| &d.held)),
            Step::CreateStandby => (None, deployment(Which::Standby).map(|d| &d.held)),
            Step::CreateProbe => (None, seen.pods.iter().find(|p| p.of == Of::Probe).map(|p| &p.held)),
            Step::DropDeployment { which, held } | Step::Scale { which, held, .. } => {
                (Some(held), deployment(*which).map(|d| &d.held))
            }
            Step::DropProbe { pod, held }
            | Step::Pin { pod, held }
            | Step::SetApart { pod, held, .. }
            | Step::DropApart { pod, held, .. } => (Some(held), self.pod(pod).map(|p| &p.held)),
            Step::Autoscale { name, held, .. } => {
                (Some(held), seen.hpas.iter().find(|h| h.name == *name).map(|h| &h.held))
            }
            Step::LetGo { kind: "Deployment", held, .. } => (Some(held), deployment(Which::Source).map(|d| &d.held)),
            Step::Relabel { kind, name, held, .. } | Step::LetGo { kind, name, held } => {
                (Some(held), self.labelled(kind, name))
            }
        };
        (held != is).then(|| format!("it expects {held:?}, and {is:?} was seen"))
    }

    /// The mesh configuration of the old revision, if it is that one.
    fn former(&self, name: &str) -> Option<&Version> {
        self.look.seen.config.former.as_ref().filter(|f| *f.name == *name).map(|f| &f.held)
    }

    fn labelled(&self, kind: &str, name: &Arc<str>) -> Option<&Version> {
        let seen = self.look.seen;
        match kind {
            "Service" => seen.services.iter().find(|s| s.name == *name).map(|s| &s.held),
            "HorizontalPodAutoscaler" => seen.hpas.iter().find(|h| h.name == *name).map(|h| &h.held),
            "PodDisruptionBudget" => seen.pdbs.iter().find(|p| p.name == *name).map(|p| &p.held),
            _ => None,
        }
    }

    fn foreign(&self) -> Option<String> {
        let look = &self.look;
        let ours = match self.step {
            Step::Scale { which, .. } => look.deployment(*which).is_some(),
            Step::DropDeployment { which, .. } => *which != Which::Source && look.deployment(*which).is_some(),
            Step::DropConfig { name, .. } if self.former(name).is_some() => true,
            Step::CopyConfig { held: Some(_), .. } | Step::DropConfig { .. } => {
                look.seen.config.copy.as_ref().is_some_and(|c| c.ours)
            }
            Step::DropProbe { pod, .. } => self.pod(pod).is_some_and(|p| p.of == Of::Probe),
            Step::DropApart { pod, .. } => self.pod(pod).is_some_and(|p| p.of == Of::Apart),
            Step::Pin { pod, .. } | Step::SetApart { pod, .. } => {
                self.pod(pod).is_some_and(|p| look.whose(p).is_some())
            }
            Step::Lock { .. } => look.locked_by().is_none(),
            Step::Unlock { .. } => look.is_locked(),
            Step::LetGo { .. } => look.locked_by().is_none() && look.memory.phase.is_over(),
            Step::Autoscale { name, .. } => look.seen.hpas.iter().any(|h| h.name == *name && !h.owned),
            _ => true,
        };
        (!ours).then(|| "it is somebody else's".to_owned())
    }

    fn autoscaler(&self) -> Option<String> {
        let Step::Autoscale { name, target, min, .. } = self.step else { return None };
        let look = &self.look;
        if look.seen.hpas.len() != 1 {
            return Some(format!("there are {} autoscalers", look.seen.hpas.len()));
        }
        let scaled = Which::ALL.into_iter().find(|w| look.deployment(*w).is_some_and(|d| d.name == *target));
        let Some(scaled) = scaled else {
            return Some(format!("{name} would scale {target}, which is none of the gateway's"));
        };
        let hpa = &look.seen.hpas[0];
        if *min > hpa.max {
            return Some(format!("at least {min} and at most {} pods", hpa.max));
        }
        // Where others serve, what it may take away would be missed; it takes nothing of what is not there yet.
        let others = Which::ALL.into_iter().filter(|w| *w != scaled).map(|w| look.count(w).serving).sum::<u32>();
        let needed = look.floor().min(hpa.max).saturating_sub(others).min(look.replicas(scaled));
        (*min < hpa.min && others > 0 && *min < needed)
            .then(|| format!("it could leave {min} beside {others}, of {}", look.floor()))
    }

    fn stands_still(&self) -> Option<String> {
        let Step::Retemplate { .. } = self.step else { return None };
        let source = self.look.seen.source.as_ref()?;
        let alive = self.look.count(Which::Source).alive;
        let still = source.paused || source.replicas == 0 && alive == 0 && source.observed >= source.generation;
        (!still)
            .then(|| format!("Deployment {} has {alive} of {} pods and is not paused", source.name, source.replicas))
    }

    fn remembered(&self) -> Option<String> {
        let Step::SetApart { pod, key, .. } = self.step else { return None };
        let look = &self.look;
        if look.seen.apart_key.as_ref() != Ok(key) {
            return Some(format!("label {key} does not take pods out of their Services alone"));
        }
        let batch = look.memory.batch.as_ref().filter(|b| !b.over && b.pods.contains(pod));
        batch.is_none().then(|| format!("pod {pod} is in no batch that was begun"))
    }

    fn apart(&self) -> Option<String> {
        let look = &self.look;
        let wanted = look.memory.drain.as_ref().is_some_and(|d| d.0 == DrainMode::SetApart);
        let possible = look.seen.apart_key.is_ok() || look.memory.phase != Phase::RollingBack;
        if !wanted || !possible {
            return None;
        }
        let (which, to) = match self.step {
            Step::Scale { which, to, .. } if *to < look.replicas(*which) => (*which, *to),
            Step::DropDeployment { which, .. } => (*which, 0),
            _ => return None,
        };
        if let Some(pod) = look.seen.pods.iter().find(|p| p.is_unnoticed()) {
            return Some(format!(
                "pod {} is set apart and still counted: another would be terminated for it",
                pod.name
            ));
        }
        let count = look.count(which);
        let removed = count.alive.saturating_sub(to).saturating_sub(count.unready);
        // A controller that dies once or twice within a batch costs nobody a request.
        let spared =
            look.memory.batch.as_ref().is_some_and(|b| b.spared && b.pods.len() >= look.floor() as usize + SPARED);
        (removed > 0 && !spared).then(|| format!("{removed} ready pods of the {} would be terminated", which.as_str()))
    }

    fn forgotten(&self) -> Option<String> {
        let ends = matches!(self.step, Step::Release { .. } | Step::DropRollout { .. });
        (ends && self.look.apart > 0).then(|| format!("{} pods are still set apart", self.look.apart))
    }

    fn held(&self) -> Option<String> {
        let look = &self.look;
        let changes = matches!(
            self.step,
            Step::CreateCanary
                | Step::CreateStandby
                | Step::CreateProbe
                | Step::Scale { .. }
                | Step::Retemplate { .. }
                | Step::Pace { .. }
                | Step::Pin { .. }
                | Step::SetApart { .. }
                | Step::Autoscale { .. }
        );
        if !changes {
            return None;
        }
        if !look.seen.rollout.finalizer {
            return Some("the finalizer is not there".to_owned());
        }
        if look.memory.baseline.is_none() {
            return Some("nothing is known of what it was before".to_owned());
        }
        if look.locked_by().is_some() || look.seen.source.is_some() && !look.is_locked() {
            return Some("the lock is not there".to_owned());
        }
        let active = look.memory.phase.is_active();
        (!active || look.memory.phase == Phase::Pending).then(|| format!("in phase {}", look.memory.phase.as_str()))
    }

    fn label_only(&self) -> Option<String> {
        let Step::Relabel { labels, .. } = self.step else { return None };
        let other = labels.keys().find(|k| *k != key::REV)?;
        Some(format!("label {other}"))
    }
}
