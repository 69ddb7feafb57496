//! What can happen in the model world.

use revguard::api::gateway_rollout::DrainMode;
use revguard::api::rollout_status::{Phase, Stage};
use revguard::rollout::invariants::broken;
use revguard::rollout::memory::{Cause, Memory};
use revguard::rollout::plan;
use revguard::rollout::seen::{Of, Seen};
use revguard::rollout::step::Which;
use revguard::rollout::{Next, Plan};
use std::sync::Arc;

use super::config::{Broken, Fault, Rev, bit};
use super::world::{Gate, Pending, Say, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// The leader looks, decides, and writes.
    Acts,
    /// Nothing else is to do: it is later.
    TimePasses,
    /// A leader that leads no more decides, …
    LateDecides,
    /// … and its write arrives.
    LateWrites,
    /// A Deployment's controller and its ReplicaSets take their next step.
    Rolls(Which),
    Starts(u16),
    Joins(u16),
    /// The ReplicaSet of a pod set apart learns of it.
    Notices(u16),
    Ends(u16),
    Finishes(u16),
    Scales,
    Fault(Fault),
    /// A fault is over.
    Heals(Fault),
    /// Somebody approves.
    Says(Say),
    /// Who owns the source moves its template.
    External(Rev),
}

/// What a leader decided and what it was decided from.
pub struct Decision {
    pub plan: Plan,
    pub memory: Arc<Memory>,
}

impl World {
    /// What the plan says now, and the promise that it would break.
    pub fn decide(&self) -> Option<Result<Decision, String>> {
        let seen = self.seen()?;
        let memory = Arc::clone(&self.rollout.as_ref()?.memory);
        let blind = self.blinded(&seen, &memory);
        let plan = match &blind {
            Some((seen, memory)) => plan(seen, memory, self.now()),
            None => plan(&seen, &memory, self.now()),
        };
        if let Next::Do(step) = &plan.next {
            // What the world takes away from the plan it does not take away from the promises.
            let mut whole = (*memory).clone();
            if self.config.broken == Broken::ReadyTerminated
                && let Some(drain) = &mut whole.drain
            {
                drain.0 = DrainMode::SetApart;
            }
            let promises = broken(&self.whole(seen), &whole, step);
            if let Some(first) = promises.first() {
                return Some(Err(format!("{step:?} breaks {:?}: {}", first.promise, first.how)));
            }
        }
        if let Next::Remember(after) = &plan.next
            && self.trusts_rejected(&memory, after)
        {
            return Some(Err("rejected listeners count as verified".to_owned()));
        }
        Some(Ok(Decision { plan, memory }))
    }

    /// It goes on from looking at new pods, and all of them reject what they were sent.
    fn trusts_rejected(&self, before: &Memory, after: &Memory) -> bool {
        let verifying = |m: &Memory| m.step.as_ref().is_some_and(|s| s.stage == Stage::Verifying);
        let on = after.phase == Phase::HandingOver || after.step.as_ref().is_some_and(|s| s.stage == Stage::Soaking);
        let forward = after.phase.is_forward() && before.phase.is_forward();
        self.rejects && forward && verifying(before) && on
    }

    /// What the plan gets instead, where something is broken on purpose.
    fn blinded(&self, seen: &Seen, memory: &Arc<Memory>) -> Option<(Seen, Memory)> {
        let (mut seen, mut memory) = (seen.clone(), (**memory).clone());
        match self.config.broken {
            Broken::NoFloor => {
                seen.hpas.iter_mut().for_each(|h| h.desired = 1);
                if let Some(baseline) = &mut memory.baseline {
                    Arc::make_mut(baseline).replicas = 1;
                }
            }
            Broken::EndpointsUnseen => {
                let all = seen.pods.iter().filter(|p| p.ready).map(|p| Arc::clone(&p.held.uid)).collect();
                seen.services[0].endpoints = all;
            }
            Broken::BoundsKept => {
                if let Some(hpa) = memory.baseline.as_mut().and_then(|b| Arc::make_mut(b).hpa.as_mut()) {
                    hpa.min_replicas = 20;
                }
            }
            Broken::NeverNoticed => seen.pods.iter_mut().for_each(|p| p.counted = false),
            Broken::ReadyTerminated => {
                if let Some(drain) = &mut memory.drain {
                    drain.0 = DrainMode::Terminate;
                }
            }
            _ => return None,
        }
        Some((seen, memory))
    }

    fn whole(&self, mut seen: Seen) -> Seen {
        if self.config.broken == Broken::ForeignIsOurs {
            for (deployment, which) in [(&mut seen.canary, Which::Canary), (&mut seen.standby, Which::Standby)] {
                if let Some(deployment) =
                    deployment.as_mut().filter(|_| self.deployment(which).is_some_and(|d| !d.ours))
                {
                    deployment.labels.clear();
                }
            }
        }
        if self.config.broken == Broken::ApartUnseen {
            for pod in &mut seen.pods {
                if pod.of == Of::Other {
                    pod.of = Of::Apart;
                }
            }
        }
        seen
    }

    /// What may happen next. `decision` is what the leader would do.
    pub fn events(&self, decision: Option<&Decision>) -> Vec<Event> {
        let mut all = Vec::new();
        if let Some(Next::Do(_) | Next::Remember(_)) = decision.map(|d| &d.plan.next) {
            all.push(Event::Acts);
            if self.late.is_none() && self.late_left > 0 {
                all.push(Event::LateDecides);
            }
        }
        if self.late.is_some() {
            all.push(Event::LateWrites);
        }
        self.machinery(&mut all);
        // Controllers take seconds, and a tick is a minute. Requests take as long as they like.
        let settled = all.iter().all(|e| matches!(e, Event::LateWrites | Event::Finishes(_)));
        if let Some(Next::Wait(waiting)) = decision.map(|d| &d.plan.next)
            && waiting.until.is_some()
            && settled
        {
            all.push(Event::TimePasses);
        }
        self.healings(&mut all);
        if self.budget > 0 {
            all.extend(self.config.faults.iter().copied().filter(|f| self.can(*f)).map(Event::Fault));
        }
        all
    }

    /// What controllers, kubelets and clients do by themselves.
    fn machinery(&self, all: &mut Vec<Event>) {
        for which in Which::ALL {
            if self.deployment(which).is_some_and(|d| self.is_behind(which, d)) {
                all.push(Event::Rolls(which));
            }
        }
        for pod in &self.pods {
            if pod.deleting {
                all.push(Event::Ends(pod.id));
            } else if !pod.ready && !(if pod.rev == Rev::New { self.sick } else { self.sick_old }) {
                all.push(Event::Starts(pod.id));
            } else if pod.ready
                && !pod.endpoint
                && !self.narrowed
                && matches!(pod.of, Of::Source | Of::Canary | Of::Standby)
            {
                all.push(Event::Joins(pod.id));
            } else if pod.of == Of::Apart && pod.busy {
                all.push(Event::Finishes(pod.id));
            }
        }
        all.extend(self.pods.iter().filter(|p| p.counted.is_some()).map(|p| Event::Notices(p.id)));
        if self.scaled().is_some() {
            all.push(Event::Scales);
        }
        let waits = self
            .memory()
            .is_some_and(|m| m.promotion == Some(revguard::api::gateway_rollout::Promotion::AwaitExternal));
        if let Some(source) =
            self.deployment(Which::Source).filter(|s| waits && s.replicas == 0 && !self.is_behind(Which::Source, s))
        {
            let memory = self.memory().expect("it waits");
            let back = memory.rollback.is_some();
            let waits = memory.phase == Phase::Promoting;
            match (back, source.rev) {
                (false, Rev::Old | Rev::Other) if waits => all.push(Event::External(Rev::New)),
                (true, Rev::New) => all.push(Event::External(Rev::Old)),
                _ => {}
            }
        }
    }

    fn healings(&self, all: &mut Vec<Event>) {
        let pause = self.rollout.as_ref().is_some_and(|r| r.bits & bit::PAUSED != 0);
        let on = [
            (self.sick, Fault::Sick),
            (self.sick_old, Fault::SickOld),
            (self.rejects, Fault::Rejects),
            (!self.to_ready, Fault::ToGone),
            (!self.from_ready, Fault::FromGone),
            (pause, Fault::Paused),
            (self.gate == Gate::Firing, Fault::AlertFires),
            (self.gate == Gate::Unknown, Fault::PrometheusGone),
            (self.narrowed, Fault::ServiceNarrowed),
            (self.key_lost, Fault::KeyLost),
            (self.blocked, Fault::Blocked),
            (self.refused, Fault::Refused),
            (self.metric > 0, Fault::MetricFails),
            (self.rollout.as_ref().is_some_and(|r| r.bits & bit::DRY_RUN != 0), Fault::Paused),
            (self.deployment(Which::Canary).is_some_and(|d| !d.ours) && self.foreign_in_way(), Fault::Foreign),
        ];
        all.extend(on.into_iter().filter(|(on, _)| *on).map(|(_, fault)| Event::Heals(fault)));
        let Some(rollout) = &self.rollout else { return };
        if rollout.approval.is_some() || rollout.memory.spent {
            return;
        }
        match rollout.memory.pause.as_ref().map(|p| p.cause) {
            Some(Cause::Approval) => all.push(Event::Says(Say::Step)),
            Some(cause) if cause.needs_human() => all.push(Event::Says(Say::Resume)),
            Some(Cause::ServiceChanged) if !self.narrowed => all.push(Event::Says(Say::Resume)),
            _ if rollout.memory.phase == Phase::Failed => all.push(Event::Says(Say::Resume)),
            _ => {}
        }
    }

    fn foreign_in_way(&self) -> bool {
        self.memory().is_some_and(|m| m.pause.is_some())
    }

    /// What carries everything and is in nobody's hands, or rests in the rollout's, where no autoscaler says how many are needed.
    fn carrier(&self) -> Option<Which> {
        let (memory, rollout) = (self.memory()?, self.rollout.as_ref()?);
        let asked =
            rollout.bits & bit::ABORT != 0 || rollout.deleting || self.hpa.is_some() || self.config.is_in_place();
        let kept = memory.promotion == Some(revguard::api::gateway_rollout::Promotion::KeepRevisioned);
        let source = self.deployment(Which::Source)?;
        let which = match memory.phase {
            Phase::Completed if !self.lock => {
                if kept {
                    Which::Canary
                } else {
                    Which::Source
                }
            }
            Phase::Promoting if source.replicas == 0 && source.rev != Rev::New => Which::Canary,
            _ => return None,
        };
        let whole = self
            .deployment(which)
            .is_some_and(|d| d.replicas == self.config.pods && (d.ours || which == Which::Source));
        (!asked && whole).then_some(which)
    }

    fn serving_of(&self, source: bool) -> Option<u16> {
        let of = |p: &&super::world::Pod| {
            let rolled = if self.config.is_in_place() { p.rev == Rev::New } else { p.of != Of::Source };
            matches!(p.of, Of::Source | Of::Canary | Of::Standby) && p.endpoint && !p.deleting && rolled != source
        };
        self.pods.iter().find(of).map(|p| p.id)
    }

    fn can(&self, fault: Fault) -> bool {
        let Some(rollout) = &self.rollout else { return false };
        let bits = |b: u8| rollout.bits & b == 0 && !rollout.deleting;
        let memory = &rollout.memory;
        match fault {
            Fault::EvictOld | Fault::UnreadyOld => self.serving_of(true).is_some(),
            Fault::EvictNew | Fault::UnreadyNew => self.serving_of(false).is_some(),
            Fault::Sick => !self.sick,
            Fault::SickOld => !self.sick_old,
            Fault::DryRun => bits(bit::DRY_RUN),
            Fault::Rejects => !self.rejects,
            Fault::ToGone => self.to_ready,
            Fault::FromGone => self.from_ready,
            Fault::Paused => bits(bit::PAUSED | bit::ABORT),
            Fault::Abort => bits(bit::ABORT),
            Fault::Delete => !rollout.deleting,
            Fault::AlertFires | Fault::PrometheusGone => self.gate == Gate::Quiet,
            Fault::HpaGrows => self.hpa.as_ref().is_some_and(|h| h.desired <= self.config.pods),
            Fault::Drift => {
                self.deployment(Which::Source).is_some_and(|d| d.rev == Rev::Old && d.replicas > 0 && !d.paused)
            }
            Fault::ScaledUp => self.deployment(Which::Source).is_some_and(|d| d.replicas <= self.config.pods),
            Fault::Asked => self.asked == 0 && self.late.is_none() && self.carrier().is_some(),
            Fault::HpaReset => {
                let until = memory.phase.is_forward() || memory.phase == Phase::RollingBack;
                self.hpa.as_ref().is_some_and(|h| h.target != Which::Source || h.min > 1) && until
            }
            Fault::Foreign => self.deployment(Which::Canary).is_none(),
            // Between its end and the lock of the way back nothing but the status knows what was, and a person is waited for.
            Fault::StatusLost => {
                let over = memory.phase == Phase::RollingBack && !self.lock;
                memory.baseline.is_some() && memory.phase.is_active() && !over
            }
            Fault::EditFuture => bits(bit::EDIT_FUTURE),
            Fault::EditPast => bits(bit::EDIT_PAST),
            Fault::ServiceNarrowed => !self.narrowed,
            Fault::ConfigChanged => self.original < 2,
            Fault::KeyLost => !self.key_lost,
            Fault::Approval => rollout.approval.is_none() && !memory.spent,
            Fault::Removed => self.from_installed && memory.phase.is_over(),
            Fault::Blocked => !self.blocked,
            Fault::Refused => !self.refused,
            Fault::CanaryGone => self.deployment(Which::Canary).is_some_and(|d| d.ours),
            Fault::MetricFails | Fault::MetricSilent => self.metric == 0,
            Fault::FinalizerOff => rollout.finalizer && !rollout.deleting,
        }
    }

    /// Happens; the promise that it breaks, if it does.
    pub fn happen(&mut self, event: Event, decision: Option<&Decision>) -> Result<(), String> {
        match event {
            Event::Acts => {
                let pending = self.pending(decision);
                self.write(pending)?;
            }
            Event::TimePasses => {
                let plan = &decision.expect("what it waits for").plan;
                let Next::Wait(waiting) = &plan.next else { return Ok(()) };
                let until = waiting.until.expect("until when");
                self.later(until.duration_since(self.now()));
            }
            Event::LateDecides => {
                self.late_left -= 1;
                let mut pending = self.pending(decision);
                // What is decided while somebody has taken pods is of a world that has too few.
                pending.tainted = self.harmed;
                if self.config.broken == Broken::OwnChoice {
                    self.choose_anew(&mut pending);
                }
                self.late = Some(pending);
            }
            Event::LateWrites => {
                let pending = self.late.take().expect("decided");
                let tainted = pending.tainted;
                self.write(pending)?;
                self.harmed |= tainted;
            }
            Event::Rolls(which) => self.roll(which),
            Event::Starts(id) => {
                let fine = self.config.fine;
                let serves = !self.narrowed;
                let pod = self.by_id(id);
                (pod.ready, pod.version) = (true, pod.version + 1);
                pod.endpoint = !fine && serves && matches!(pod.of, Of::Source | Of::Canary | Of::Standby);
            }
            Event::Joins(id) => self.by_id(id).endpoint = true,
            Event::Notices(id) => {
                let pod = self.by_id(id);
                (pod.counted, pod.version) = (None, pod.version + 1);
            }
            Event::Ends(id) => self.pods.retain(|p| p.id != id),
            Event::Finishes(id) => self.by_id(id).busy = false,
            Event::Scales => {
                let of =
                    |world: &World| world.hpa.as_ref().and_then(|h| world.deployment(h.target)).map(|d| d.replicas);
                let before = of(self);
                self.scale();
                if of(self) < before {
                    // What an autoscaler takes it answers for.
                    self.lowered = true;
                    self.harm();
                }
            }
            Event::Fault(fault) => {
                self.budget -= 1;
                self.fault(fault);
            }
            Event::Heals(fault) => self.heal(fault),
            Event::Says(say) => {
                let rollout = self.rollout.as_mut().expect("there");
                (rollout.approval, rollout.version) = (Some(say), rollout.version + 1);
            }
            Event::External(rev) => self.retemplate(rev),
        }
        if self.config.broken != Broken::NoPrecondition {
            self.settle();
        }
        self.promise()
    }

    fn by_id(&mut self, id: u16) -> &mut super::world::Pod {
        self.pods.iter_mut().find(|p| p.id == id).expect("it is there")
    }

    fn pending(&self, decision: Option<&Decision>) -> Pending {
        let next = decision.expect("something to do").plan.next.clone();
        let version = self.rollout.as_ref().map_or(0, |r| r.version);
        let back = self.memory().is_some_and(|m| m.phase == Phase::RollingBack);
        let over = self.memory().is_none_or(|m| m.phase.is_over());
        Pending { next, version, tainted: false, back, over }
    }

    /// What must hold in every world.
    fn promise(&mut self) -> Result<(), String> {
        let floor = usize::from(self.config.pods + self.asked);
        let serving = self.serving();
        let rolls = self.deployment(Which::Source).is_some_and(|d| d.sets.iter().filter(|n| **n > 0).count() > 1);
        let surplus = |d: &super::world::Deployment| {
            d.sets.iter().map(|n| usize::from(*n)).sum::<usize>() > usize::from(d.replicas)
        };
        self.lowered &= Which::ALL
            .into_iter()
            .any(|w| self.deployment(w).is_some_and(|d| surplus(d) || self.alive(w).count() > usize::from(d.replicas)));
        if self.narrowed || self.lowered || rolls && !self.config.is_in_place() {
            // Who lets the Service select less, or changes the template of what serves, has said so.
            self.harmed = true;
        } else if self.harmed {
            if serving >= floor && self.late.as_ref().is_none_or(|p| !p.tainted) {
                self.harmed = false;
            }
        } else if serving < floor {
            return Err(format!("{serving} of {floor} pods serve, and nobody else took any"));
        }
        let known = self.config.broken == Broken::Nothing;
        if known
            && self.memory().and_then(|m| m.baseline.as_ref()).is_some_and(|b| b.replicas < u32::from(self.config.pods))
        {
            return Err("the baseline knows of fewer pods".to_owned());
        }
        if self.cut {
            return Err("a pod that was set apart was ended by its ReplicaSet".to_owned());
        }
        if self.pods.iter().any(|p| p.lost) && self.rollout.is_none() {
            return Err("a pod that was set apart was forgotten".to_owned());
        }
        if self.rollout.is_none() && !self.forced && self.pods.iter().any(|p| p.of == Of::Apart && !p.deleting) {
            return Err("the object is gone and a pod is still set apart for it".to_owned());
        }
        Ok(())
    }

    fn harm(&mut self) {
        self.harmed = true;
        if let Some(late) = &mut self.late {
            late.tainted = true;
        }
    }

    fn fault(&mut self, fault: Fault) {
        let source = matches!(fault, Fault::EvictOld | Fault::UnreadyOld);
        match fault {
            Fault::EvictOld | Fault::EvictNew => {
                let id = self.serving_of(source).expect("one serves");
                let pod = self.by_id(id);
                (pod.deleting, pod.endpoint, pod.version) = (true, false, pod.version + 1);
                self.harm();
            }
            Fault::UnreadyOld | Fault::UnreadyNew => {
                let id = self.serving_of(source).expect("one serves");
                let pod = self.by_id(id);
                (pod.ready, pod.endpoint, pod.version) = (false, false, pod.version + 1);
                self.harm();
            }
            Fault::Sick => self.sick = true,
            Fault::SickOld => self.sick_old = true,
            Fault::Rejects => self.rejects = true,
            Fault::ToGone => self.to_ready = false,
            Fault::FromGone => self.from_ready = false,
            Fault::AlertFires => self.gate = Gate::Firing,
            Fault::PrometheusGone => self.gate = Gate::Unknown,
            Fault::HpaGrows => self.hpa.as_mut().expect("there").desired += 1,
            Fault::Drift => self.retemplate(Rev::Other),
            Fault::ScaledUp => {
                let source = self.deployments[0].as_mut().expect("there");
                (source.replicas, source.version) = (source.replicas + 1, source.version + 1);
            }
            Fault::Asked => {
                let which = self.carrier().expect("one");
                let d = self.deployments[which as usize].as_mut().expect("there");
                (d.replicas, d.version, d.generation) = (d.replicas + 1, d.version + 1, d.generation + 1);
                self.asked = 1;
                self.harm();
            }
            Fault::HpaReset => {
                let hpa = self.hpa.as_mut().expect("there");
                (hpa.target, hpa.min, hpa.version) = (Which::Source, 1, hpa.version + 1);
            }
            Fault::Foreign => {
                self.create(Which::Canary, Rev::Old);
                let foreign = self.deployments[1].as_mut().expect("made");
                (foreign.ours, foreign.replicas) = (false, 1);
            }
            Fault::ServiceNarrowed => self.narrowed = true,
            Fault::ConfigChanged => self.original += 1,
            Fault::KeyLost => self.key_lost = true,
            Fault::Removed => self.from_installed = false,
            Fault::Blocked => self.blocked = true,
            Fault::Refused => self.refused = true,
            Fault::MetricFails => self.metric = 1,
            Fault::MetricSilent => self.metric = 2,
            Fault::CanaryGone => {
                self.drop_deployment(Which::Canary);
                self.harm();
            }
            _ => self.touch(fault),
        }
    }

    /// Somebody's hand on the object itself.
    fn touch(&mut self, fault: Fault) {
        let rollout = self.rollout.as_mut().expect("there");
        rollout.version += 1;
        let set = |rollout: &mut super::world::Rollout, bits: u8| {
            rollout.bits |= bits;
            rollout.generation += 1;
        };
        match fault {
            Fault::Paused => set(rollout, bit::PAUSED),
            Fault::DryRun => set(rollout, bit::DRY_RUN),
            Fault::Abort => {
                rollout.bits &= !bit::PAUSED;
                set(rollout, bit::ABORT);
            }
            Fault::EditFuture => set(rollout, bit::EDIT_FUTURE),
            Fault::EditPast => set(rollout, bit::EDIT_PAST),
            Fault::Delete => {
                rollout.deleting = true;
                self.collect();
            }
            Fault::StatusLost => {
                rollout.memory = Arc::new(Memory::default());
                // What stands on the Deployment is what was when it began.
                self.asked = 0;
            }
            Fault::Approval => rollout.approval = Some(Say::Nonsense),
            Fault::FinalizerOff => {
                rollout.finalizer = false;
                self.forced = true;
            }
            other => unreachable!("{other:?}"),
        }
    }

    fn heal(&mut self, fault: Fault) {
        match fault {
            Fault::Sick => self.sick = false,
            Fault::SickOld => self.sick_old = false,
            Fault::Rejects => self.rejects = false,
            Fault::ToGone => self.to_ready = true,
            Fault::FromGone => self.from_ready = true,
            Fault::AlertFires | Fault::PrometheusGone => (self.gate, self.quiet) = (Gate::Quiet, self.clock),
            Fault::ServiceNarrowed => self.narrowed = false,
            Fault::KeyLost => self.key_lost = false,
            Fault::Blocked => self.blocked = false,
            Fault::Refused => self.refused = false,
            Fault::MetricFails => self.metric = 0,
            Fault::Foreign => self.drop_deployment(Which::Canary),
            Fault::Paused => {
                let rollout = self.rollout.as_mut().expect("there");
                rollout.bits &= !(bit::PAUSED | bit::DRY_RUN);
                (rollout.generation, rollout.version) = (rollout.generation + 1, rollout.version + 1);
            }
            other => unreachable!("{other:?}"),
        }
    }
}
