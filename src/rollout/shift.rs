//! Moves pods from one Deployment to another: the one is raised, the autoscaler handed over, the others are drained above the floor.
//!
//! Everything here is level-triggered: each call looks at what there is and takes the one write that is next, or says what it waits for.
//! Draining itself is in [`super::drain`].

use jiff::SignedDuration;

use super::capacity::surge;
use super::look::{GO, Go, Look, pods};
use super::seen::Verified;
use super::step::{Step, Which};
use crate::api::rollout_status::Phase;

/// How long until somebody else's scaling is looked at again; a change is noticed at once.
const UNTIL_SCALED: SignedDuration = SignedDuration::from_secs(60);

impl Look<'_> {
    /// Pods that may be added now; `None`: as many as it takes.
    fn room(&self) -> Option<u32> {
        let most = self.floor().saturating_add(surge(self.floor(), &self.spec().strategy)?);
        Some(most.saturating_sub(self.total()))
    }

    /// Pods of a Deployment that must serve before anything may leave another.
    fn first(&self, want: u32) -> u32 {
        surge(self.floor(), &self.spec().strategy).map_or(want, |surge| want.min(surge))
    }

    /// Raises a Deployment towards so many replicas, as far as there is room. Never lowers it.
    pub fn grow(&self, which: Which, want: u32) -> Go {
        let Some(deployment) = self.deployment(which) else {
            // Somebody has deleted it; what is missing is made anew.
            if which == Which::Canary && self.foreign(which).is_none() {
                return self.act(Step::CreateCanary);
            }
            return self.slow(format!("{}, which is gone", which.named()));
        };
        let hpa = self.hpa().filter(|h| h.target == deployment.name);
        // What an autoscaler would take back is not asked for.
        let want = hpa.map_or(want, |h| want.min(h.max.max(1)));
        let room = self.room().unwrap_or(u32::MAX);
        let to = want.min(deployment.replicas.saturating_add(room));
        if to <= deployment.replicas {
            return GO;
        }
        if self.memory.phase.is_forward() {
            self.may_move()?;
        }
        if self.is_manual() {
            let on = format!(
                "Deployment {} to be scaled from {} to {to}: capacity.mode is Manual",
                deployment.name, deployment.replicas
            );
            return self.wait_as("AwaitingScale", on, Some(self.now + UNTIL_SCALED));
        }
        // One that came later is written down when it is handed over, and left alone until then.
        let known = self.baseline().and_then(|b| b.hpa.as_ref());
        if let Some(hpa) = hpa.filter(|h| h.min < to && known.is_some_and(|b| *b.uid == *h.held.uid)) {
            let target = deployment.name.clone();
            return self.act(Step::Autoscale { name: hpa.name.clone(), held: hpa.held.clone(), target, min: to });
        }
        self.act(Step::Scale { which, held: deployment.held.clone(), to })
    }

    /// So many of its pods serve, or it is waited for.
    pub fn await_serving(&self, which: Which, want: u32) -> Go {
        let deployment = self.deployment(which);
        let want = deployment.map_or(want, |d| {
            let hpa = self.hpa().filter(|h| h.target == d.name);
            hpa.map_or(want, |h| want.min(h.max.max(1)))
        });
        let serving = self.count(which).serving;
        if serving >= want {
            return GO;
        }
        let name = deployment.map_or(which.named(), |d| &*d.name);
        self.slow(format!(
            "{} of Deployment {name} to be ready and endpoints of every Service: {serving} so far",
            pods(want)
        ))
    }

    /// Every pod of the new revision passes, or it is waited for.
    pub fn await_verified(&self) -> Go {
        for pod in self.new_pods() {
            match self.verify(pod) {
                Verified::Yes(_) => {}
                Verified::NotYet(why) | Verified::No(why) => return self.slow(format!("verification: {why}")),
            }
        }
        GO
    }

    /// The autoscaler scales this Deployment, and goes not below what is needed.
    pub fn hand(&self, which: Which) -> Go {
        let (Some(hpa), Some(deployment)) = (self.hpa(), self.deployment(which)) else { return GO };
        let known = self.baseline().and_then(|b| b.hpa.as_ref());
        if known.is_none_or(|b| *b.uid != *hpa.held.uid) {
            // It came later than the baseline: written down before it is changed.
            return self.remember(|m| {
                if let Some(baseline) = &mut m.baseline {
                    std::sync::Arc::make_mut(baseline).hpa = Some(super::baseline::autoscaler(hpa));
                }
            });
        }
        // With little room it follows the replicas; else it holds the floor.
        let constrained = surge(1, &self.spec().strategy).is_some();
        let floor = self.floor().min(hpa.max).max(1);
        let min = if constrained { deployment.replicas.clamp(1, floor) } else { floor };
        if hpa.target != deployment.name || hpa.min < min {
            let (name, target) = (hpa.name.clone(), deployment.name.clone());
            return self.act(Step::Autoscale { name, held: hpa.held.clone(), target, min });
        }
        if hpa.active == Some(false) && known.is_some_and(|b| b.active) && deployment.replicas > 0 {
            return self.slow(format!("autoscaler {} to scale Deployment {}", hpa.name, deployment.name));
        }
        GO
    }

    /// The autoscaler as the baseline has it, on the Deployment that is left.
    pub fn restore_autoscaler(&self, which: Which) -> Go {
        let (Some(hpa), Some(deployment)) = (self.hpa(), self.deployment(which)) else { return GO };
        let known = self.baseline().and_then(|b| b.hpa.as_ref()).filter(|b| *b.uid == *hpa.held.uid);
        let ours = [Which::Canary, Which::Standby, Which::Source].into_iter().filter_map(|w| self.deployment(w));
        let in_hand = ours.into_iter().any(|d| d.name == hpa.target);
        let min = known.map_or(hpa.min, |b| b.min_replicas).clamp(1, hpa.max.max(1));
        let moved = in_hand && hpa.target != deployment.name;
        if moved || known.is_some() && hpa.min > min {
            let (name, target) = (hpa.name.clone(), deployment.name.clone());
            return self.act(Step::Autoscale { name, held: hpa.held.clone(), target, min });
        }
        GO
    }

    /// All of a gateway's pods move to `home`; it goes on when nothing is left of the others.
    pub fn turn(&self, home: Which) -> Go {
        let want = self.floor();
        let others = Which::ALL.into_iter().filter(|w| *w != home && self.deployment(*w).is_some());
        let others: Vec<Which> = others.collect();
        self.grow(home, want)?;
        self.make_room(home, &others)?;
        self.await_serving(home, self.first(want))?;
        if self.memory.phase == Phase::Promoting {
            self.await_verified()?;
        }
        let scaled = self.hpa().zip(self.deployment(home)).is_some_and(|(h, d)| h.target != d.name);
        if scaled || others.iter().any(|w| self.replicas(*w) > 0 || self.count(*w).alive > 0) {
            self.hand(home)?;
        }
        for which in &others {
            self.shrink(*which, 0)?;
        }
        self.await_room(home, want)?;
        self.await_serving(home, want)?;
        for which in others {
            self.await_gone(which, 0)?;
        }
        GO
    }

    /// Where not even the first pods of `home` fit in, others leave before: those that no autoscaler would put back.
    fn make_room(&self, home: Which, others: &[Which]) -> Go {
        let first = self.first(self.floor());
        if self.replicas(home) >= first || self.is_manual() {
            return GO;
        }
        let target = self.hpa().map(|h| &h.target);
        let free = others.iter().filter(|w| self.deployment(**w).is_some_and(|d| Some(&d.name) != target));
        for which in free.filter(|_| self.serving() > self.floor()) {
            self.shrink(*which, 0)?;
        }
        self.await_room(home, first)
    }

    /// One step of a forward move: `new` pods of the canary, `old` ones of the source.
    pub fn shift(&self, new: u32, old: u32) -> Go {
        self.grow(Which::Canary, new)?;
        self.shrink(Which::Source, old)?;
        self.await_room(Which::Canary, new)?;
        self.await_serving(Which::Canary, new)?;
        self.await_gone(Which::Source, old)
    }

    /// New pods of a step that is taken before any old one leaves.
    pub fn surge(&self, new: u32) -> Go {
        let first = self.first(new);
        self.grow(Which::Canary, first)?;
        self.await_room(Which::Canary, first)?;
        self.await_serving(Which::Canary, first)
    }

    /// Room was made for all of them: what is set apart, or ends, takes room until it is gone.
    fn await_room(&self, which: Which, want: u32) -> Go {
        let Some(deployment) = self.deployment(which) else { return GO };
        let hpa = self.hpa().filter(|h| h.target == deployment.name);
        if deployment.replicas >= hpa.map_or(want, |h| want.min(h.max.max(1))) {
            return GO;
        }
        self.wait(
            format!("room for more pods of Deployment {}: {} run", deployment.name, self.total()),
            self.apart_until(),
        )
    }

    /// The source has no pods, and its controllers know that it shall have none: who changes its template now restarts nothing.
    pub fn await_still(&self) -> Go {
        let Some(source) = &self.seen.source else { return GO };
        if source.observed < source.generation || self.count(Which::Source).alive > 0 {
            return self.slow(format!("Deployment {} to be without pods", source.name));
        }
        GO
    }

    /// No more than so many of its pods are left, also of those that are ending.
    fn await_gone(&self, which: Which, leave: u32) -> Go {
        let count = self.count(which);
        let left = count.alive + count.deleting;
        if left <= leave.max(self.replicas(which)) {
            return GO;
        }
        // They end by themselves, within their grace; nobody's deadline is theirs.
        self.wait(format!("{} of {} to end", pods(left - leave), which.named()), None)
    }
}
