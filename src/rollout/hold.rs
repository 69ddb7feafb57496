//! What holds a rollout: causes of a pause, their ends, deadlines, and the turn back.
//!
//! Unknown holds; only what was seen to fail turns back, and only where the spec asks for that. Before real traffic everything that
//! fails turns back, because there is nothing to lose. A rollout that goes back asks none of this.

use std::sync::Arc;

use jiff::SignedDuration;

use super::gate::UNKNOWN_IN_A_ROW;
use super::look::{GO, Go, Look, after, times};
use super::memory::{Cause, Memory, PauseMemory, Reason, RollbackMemory};
use super::seen::{Gate, Outcome, Verified};
use super::step::Which;
use super::{seen, steps, window};
use crate::api::gateway_rollout::{DrainMode, OnPauseTimeout, OnUnavailable, Reaction, SourceDrift};
use crate::api::rollout_status::{Phase, Stage};

/// A pod that is ready is an endpoint within a second; a minute is a Service that does not select it.
const UNTIL_ENDPOINT: SignedDuration = SignedDuration::from_secs(60);
/// How long until Prometheus is looked at again.
const UNTIL_ASKED: SignedDuration = SignedDuration::from_secs(15);

impl Cause {
    /// It does not end by itself.
    pub const fn needs_human(self) -> bool {
        matches!(
            self,
            Cause::DeadlineExceeded
                | Cause::SourceDrift
                | Cause::FieldContested
                | Cause::MetricFailed
                | Cause::StatusLost
        )
    }

    /// A person may let it go on although it is still there.
    pub const fn may_be_accepted(self) -> bool {
        self.needs_human() || matches!(self, Cause::ServiceChanged)
    }

    /// The verb of `revguard rollout` that lets it go on. What ends by itself, or by an edit of the spec, has none.
    pub const fn way_on(self) -> Option<&'static str> {
        match self {
            Cause::Approval => Some("approve"),
            _ if self.may_be_accepted() => Some("resume"),
            _ => None,
        }
    }

    /// It holds as soon as it is there; the others hold what would come next.
    const fn is_continuous(self) -> bool {
        !matches!(
            self,
            Cause::MetricInconclusive
                | Cause::DeadlineExceeded
                | Cause::StatusLost
                | Cause::WindowClosed
                | Cause::Approval
        )
    }
}

impl Look<'_> {
    /// Stops while something holds the rollout, and notes that it began or ended. To be asked where holding is safe.
    pub fn hold(&self) -> Go {
        if self.memory.phase.is_forward() {
            self.turns_back()?;
        }
        if let Some(pause) = &self.memory.pause {
            return self.held(pause);
        }
        // Before the first change only a person holds it; the rest is preflight's.
        let begun = self.memory.phase.is_forward();
        for cause in Cause::ALL.into_iter().filter(|c| c.is_continuous() && (begun || *c == Cause::User)) {
            if let Some(message) = self.present(cause) {
                return self.pause(cause, message);
            }
        }
        GO
    }

    /// Stops right before something is changed that only may be changed when everything is known to be well.
    pub fn may_move(&self) -> Go {
        if let Some(message) = self.present(Cause::WindowClosed) {
            return self.pause(Cause::WindowClosed, message);
        }
        if let Gate::Unknown { why, .. } = &self.seen.gate
            && self.spec().guardrails.on_unavailable == OnUnavailable::Pause
        {
            return self.wait(format!("an answer from Prometheus: {why}"), Some(self.now + UNTIL_ASKED));
        }
        GO
    }

    fn held(&self, pause: &PauseMemory) -> Go {
        let generation = self.seen.rollout.generation != pause.generation;
        let approval = self.seen.rollout.approval.as_ref();
        let resumed = approval.filter(|a| &*a.step == "resume" && !self.memory.spent);
        let resumed = resumed.filter(|_| pause.cause.may_be_accepted());
        let ended = if pause.cause.needs_human() { generation } else { self.present(pause.cause).is_none() };
        if ended || resumed.is_some() {
            return self.remember(|m| {
                if let Some(resumed) = resumed {
                    m.approvals.push((Arc::clone(&resumed.step), Arc::clone(&resumed.by), self.now));
                    m.spent = true;
                }
                resume(m, self.now);
                self.accept(pause.cause, m);
            });
        }
        let guardrails = &self.spec().guardrails;
        // Whoever pauses it, or has to approve it, knows how long that takes.
        let patient = matches!(pause.cause, Cause::User | Cause::WindowClosed | Cause::Approval);
        let mut until = None;
        if guardrails.on_pause_timeout == OnPauseTimeout::Abort && !guardrails.max_pause.is_zero() && !patient {
            let end = after(pause.since, guardrails.max_pause.signed());
            if self.now >= end {
                let message = format!("it was paused for {}: {}", guardrails.max_pause, pause.message);
                return self.back(Reason::PauseTimeout, message);
            }
            until = Some(end);
        }
        let window = self.spec().window.as_ref().filter(|_| pause.cause == Cause::WindowClosed);
        let opens = window.and_then(|w| window::opens(w, self.now));
        let quiet = self.quiet_until().filter(|_| pause.cause == Cause::AlertFiring);
        let asked = (pause.cause == Cause::MetricInconclusive).then(|| after(self.now, UNTIL_ASKED));
        self.wait(pause.message.clone(), [until, opens, quiet, asked].into_iter().flatten().min())
    }

    /// Why this cause holds now, if it does.
    fn present(&self, cause: Cause) -> Option<String> {
        match cause {
            Cause::User if self.spec().paused => Some("spec.paused is set; unset it to go on".to_owned()),
            // Preflight has its own word for it; later it can only mean this.
            Cause::User => {
                let begun = self.spec().dry_run && self.memory.phase.is_forward();
                begun.then(|| "spec.dryRun was set when it had begun; unset it to go on".to_owned())
            }
            Cause::AlertFiring => self.alert(),
            Cause::MetricFailed => self.failed_metric(Reaction::Pause),
            Cause::MetricInconclusive => self.inconclusive_metric(),
            Cause::PrometheusUnknown => self.prometheus(),
            Cause::PodTrouble => self.trouble(),
            Cause::ListenersRejected => self.rejected(),
            Cause::SourceDrift => self.drift(),
            Cause::FieldContested => self.contested(),
            Cause::ServiceChanged => self.changed_service(),
            Cause::EndpointsMissing => self.missing_endpoint(),
            Cause::ControlPlaneNotReady => self.control_plane(),
            Cause::WindowClosed => {
                let window = self.spec().window.as_ref().filter(|w| !window::is_open(w, self.now))?;
                Some(format!("spec.window allows forward steps only {} (UTC)", window.allow.join(", ")))
            }
            Cause::Approval => {
                let step = self.memory.step.as_ref().filter(|s| s.stage == Stage::AwaitingApproval)?;
                let name = &self.spec().strategy.steps.get(step.index)?.name;
                (!self.is_approved(name)).then(|| format!("step {name} waits for approval"))
            }
            Cause::DeadlineExceeded | Cause::StatusLost => None,
        }
    }

    pub fn is_approved(&self, step: &str) -> bool {
        self.memory.approvals.iter().any(|(name, _, _)| **name == *step)
    }

    fn firing(&self) -> impl Iterator<Item = &seen::Alert> {
        let all = if let Gate::Firing(alerts) = &self.seen.gate { alerts.as_slice() } else { &[] };
        all.iter().filter(|a| !self.memory.ignored_alerts.contains(&a.fingerprint))
    }

    fn alert(&self) -> Option<String> {
        if let Some(alert) = self.firing().next() {
            return Some(format!("alert {} ({}) fires", alert.name, alert.severity));
        }
        let held = self.memory.pause.as_ref().filter(|p| p.cause == Cause::AlertFiring)?;
        let still = match &self.seen.gate {
            Gate::Off | Gate::Firing(_) => false,
            Gate::Unknown { .. } => true,
            Gate::Quiet(_) => self.quiet_until().is_some_and(|until| self.now < until),
        };
        still.then(|| held.message.clone())
    }

    /// When it has been quiet for long enough.
    fn quiet_until(&self) -> Option<jiff::Timestamp> {
        let Gate::Quiet(since) = self.seen.gate else { return None };
        Some(after(since, self.spec().guardrails.alerts.as_ref()?.resume_after.signed()))
    }

    fn prometheus(&self) -> Option<String> {
        let Gate::Unknown { why, times } = &self.seen.gate else { return None };
        let held = self.memory.pause.as_ref().is_some_and(|p| p.cause == Cause::PrometheusUnknown);
        let counts =
            self.spec().guardrails.on_unavailable == OnUnavailable::Pause && (held || *times >= UNKNOWN_IN_A_ROW);
        counts.then(|| format!("Prometheus cannot be asked, or not be believed: {why}"))
    }

    fn failed_metric(&self, reaction: Reaction) -> Option<String> {
        let step = self.memory.step.as_ref()?;
        step.measured.iter().find_map(|m| {
            let metric = self.spec().guardrails.metrics.iter().find(|spec| *spec.name == *m.name)?;
            let failed = metric.on_failure == reaction && m.failures > metric.failure_limit;
            failed.then(|| {
                format!(
                    "metric {} failed {} in this step; failureLimit is {}",
                    m.name,
                    times(m.failures.into()),
                    metric.failure_limit
                )
            })
        })
    }

    fn inconclusive_metric(&self) -> Option<String> {
        let step = self.memory.step.as_ref()?;
        let measured = step.measured.iter().find(|m| {
            let metric = self.spec().guardrails.metrics.iter().find(|spec| *spec.name == *m.name);
            m.last == Outcome::Inconclusive && metric.is_some_and(|m| m.on_inconclusive == OnUnavailable::Pause)
        })?;
        Some(format!("metric {} says nothing: too few samples, or no single number", measured.name))
    }

    fn trouble(&self) -> Option<String> {
        let pod = self.new_pods().find(|p| p.trouble.is_some())?;
        Some(format!("pod {} does not start: {}", pod.name, pod.trouble.as_deref().unwrap_or_default()))
    }

    fn rejected(&self) -> Option<String> {
        self.new_pods().find_map(|pod| match self.verify(pod) {
            Verified::No(why) => Some(why),
            Verified::Yes(_) | Verified::NotYet(_) => None,
        })
    }

    fn drift(&self) -> Option<String> {
        let phase = self.memory.phase;
        if !phase.is_forward() || phase == Phase::Finalizing {
            return None;
        }
        let baseline = self.baseline()?;
        let name = &baseline.deployment.name;
        let Some(source) = &self.seen.source else {
            return Some(format!("Deployment {name} is gone"));
        };
        if *source.held.uid != *baseline.deployment.uid {
            return Some(format!("Deployment {name} was deleted and made anew"));
        }
        let moved = self.is_in_place() && phase == Phase::Progressing || phase == Phase::Promoting;
        if *source.template.hash == *baseline.deployment.template_hash || moved && self.is_source_new() {
            return None;
        }
        let here = if self.is_source_new() {
            format!(
                "; it is of revision {} already, so that nothing leads back: put it back (kubectl rollout undo), or abort",
                self.to()
            )
        } else {
            String::new()
        };
        Some(format!("the pod template of Deployment {name} was changed meanwhile{here}"))
    }

    pub fn contested(&self) -> Option<String> {
        if let Some(step) = &self.memory.step
            && !steps::is_same(&self.spec().strategy.steps, step)
        {
            return Some(
                "steps were edited that were done already; put them back, or resume to accept them".to_owned(),
            );
        }
        if self.is_manual() {
            return None;
        }
        if self.seen.hpas.len() > 1 {
            let names: Vec<&str> = self.seen.hpas.iter().map(|h| &*h.name).collect();
            return Some(format!("several autoscalers scale this gateway: {}", names.join(", ")));
        }
        if let Some(holder) = self.locked_by() {
            return Some(format!("another rollout, with uid {holder}, has taken the gateway's lock"));
        }
        if let Some(foreign) = [Which::Canary, Which::Standby].into_iter().find_map(|w| self.needed_foreign(w)) {
            return Some(format!("a Deployment {foreign} is there that is not of this rollout (NameTaken)"));
        }
        if let Some(batch) = self.memory.batch.as_ref().filter(|b| b.over)
            && let Some(deployment) = self.deployment(batch.which)
            && deployment.replicas > batch.to
            && (batch.which != Which::Source || self.is_source_old())
        {
            let (name, to) = (&deployment.name, batch.to);
            return Some(format!(
                "Deployment {name} was scaled up to {} from {to} by somebody else",
                deployment.replicas
            ));
        }
        if let Some(why) = self.is_autoscaler_elsewhere() {
            return Some(why);
        }
        let apart = self.memory.drain.as_ref().is_some_and(|d| d.0 == DrainMode::SetApart);
        match &self.seen.apart_key {
            Err(why) if apart && matches!(self.memory.phase, Phase::Draining | Phase::Promoting) => {
                Some(format!("pods can be set apart no more: {why}; resume to let them be terminated instead"))
            }
            _ => None,
        }
    }

    /// A foreign Deployment where one of ours is about to be made, or should be.
    fn needed_foreign(&self, which: Which) -> Option<&str> {
        let needed = match which {
            Which::Source => false,
            // Preparing cleans up by itself.
            Which::Canary => matches!(self.memory.phase, Phase::Progressing | Phase::HandingOver | Phase::Draining),
            Which::Standby => self.memory.phase == Phase::Promoting && self.spec().standby.keep,
        };
        self.foreign(which).filter(|_| needed && !self.is_in_place()).map(|d| &*d.name)
    }

    /// The autoscaler was handed over, and does not scale what it was handed.
    pub fn is_autoscaler_elsewhere(&self) -> Option<String> {
        let hpa = self.hpa()?;
        let canary = self.deployment(Which::Canary)?;
        let elsewhere = self.memory.phase == Phase::Draining && hpa.target != canary.name;
        elsewhere.then(|| format!("autoscaler {} was put back to scale {}", hpa.name, hpa.target))
    }

    fn changed_service(&self) -> Option<String> {
        self.baseline()?.services.iter().find_map(|was| {
            let Some(now) = self.seen.services.iter().find(|s| *s.name == *was.name) else {
                return Some(format!("Service {} is gone", was.name));
            };
            if *now.held.uid != *was.uid {
                return Some(format!("Service {} was deleted and made anew", was.name));
            }
            let selector = super::baseline::selector(&now.selector);
            if selector != was.selector {
                let (name, before) = (&was.name, &was.selector);
                return Some(format!(
                    "the selector of Service {name} was changed: it was {before:?}, and is {selector:?}"
                ));
            }
            let lost = was.ingress.iter().find(|address| !now.ingress.contains(address))?;
            Some(format!("the load balancer of Service {} lost its address {lost}", was.name))
        })
    }

    fn missing_endpoint(&self) -> Option<String> {
        self.new_pods().find_map(|pod| {
            let since = pod.ready_since.filter(|since| pod.ready && self.now >= after(*since, UNTIL_ENDPOINT))?;
            let service = self.missing_from(pod)?;
            Some(format!("pod {} has been ready since {since}, and is no endpoint of Service {service}", pod.name))
        })
    }

    fn control_plane(&self) -> Option<String> {
        let (to, from) = (&self.seen.to, &self.seen.from);
        if self.memory.phase == Phase::RollingBack {
            return (!from.ready).then(|| format!("the old revision's istiod is not ready: {}", from.why));
        }
        if !to.ready {
            return Some(format!("istiod of {} is not ready: {}", self.to(), to.why));
        }
        // Before the first old pod leaves there must be a way back.
        let leaving = matches!(self.memory.phase, Phase::HandingOver | Phase::Draining);
        (leaving && !from.ready)
            .then(|| format!("there would be no way back, the old revision's istiod is not ready: {}", from.why))
    }

    /// What the spec wants it to go back for.
    fn turns_back(&self) -> Go {
        if self.spec().abort {
            return self.back(Reason::Aborted, "spec.abort is set".to_owned());
        }
        if self.spec().paused || self.spec().dry_run {
            // Hold everything as it is.
            return GO;
        }
        let reaction = self.spec().guardrails.alerts.as_ref().map_or(Reaction::Pause, |a| a.on_firing);
        if let Some(alert) = self.firing().find(|a| a.aborts || reaction == Reaction::Abort) {
            return self.back(Reason::AlertFiring, format!("alert {} ({}) fires", alert.name, alert.severity));
        }
        if let Some(message) = self.failed_metric(Reaction::Abort) {
            return self.back(Reason::MetricFailed, message);
        }
        // What cannot start by itself need not be waited for.
        if self.spec().on_deadline == Reaction::Abort
            && let Some(message) = self.trouble()
        {
            return self.back(Reason::DeadlineExceeded, message);
        }
        if self.spec().source_drift == SourceDrift::Resync
            && let Some(message) = self.drift()
            && self.seen.source.is_some()
        {
            return self.back(Reason::SourceDrift, message);
        }
        GO
    }

    /// Waits for something that should have happened by the deadline.
    pub fn slow<T>(&self, on: String) -> Go<T> {
        if self.memory.phase == Phase::RollingBack {
            return self.slow_back(on);
        }
        let soaks = self.memory.step.as_ref().is_some_and(|s| s.stage == Stage::Soaking);
        if soaks && matches!(self.memory.phase, Phase::Progressing | Phase::Draining) {
            // It is watched for as long as it is watched; the end of the soak asks again.
            return self.wait(on, None);
        }
        let deadline = after(after(self.begun(), self.memory.paused_for), self.spec().progress_deadline.signed());
        if self.now < deadline {
            return self.wait(on, Some(deadline));
        }
        let message = format!("{} were not enough for: {on}", self.spec().progress_deadline);
        match self.spec().on_deadline {
            Reaction::Pause => self.pause(Cause::DeadlineExceeded, message),
            Reaction::Abort => self.back(Reason::DeadlineExceeded, message),
        }
    }

    pub fn pause<T>(&self, cause: Cause, message: String) -> Go<T> {
        let generation = self.seen.rollout.generation;
        self.remember(|m| m.pause = Some(PauseMemory { cause, since: self.now, message, generation }))
    }

    /// Turns back.
    pub fn back<T>(&self, reason: Reason, message: String) -> Go<T> {
        self.remember(|m| {
            m.rollback = Some(RollbackMemory { reason, message, since: self.now, from: m.phase });
            // Replicas of what serves were anybody's to raise since.
            m.needs(self.floor());
            self.enter(m, Phase::RollingBack);
            (m.completion, m.finished) = (None, None);
        })
    }

    /// The beginning of a phase.
    pub fn enter(&self, m: &mut Memory, phase: Phase) {
        m.phase = phase;
        (m.pause, m.last_batch) = (None, None);
        // Whose pods left last is remembered for as long as somebody could put them back.
        if phase == Phase::RollingBack {
            m.batch = None;
        }
        self.begin(m);
    }

    /// The beginning of a stage.
    pub fn begin(&self, m: &mut Memory) {
        (m.since, m.paused_for) = (Some(self.now), SignedDuration::ZERO);
    }
}

/// The end of a pause.
pub fn resume(m: &mut Memory, now: jiff::Timestamp) {
    if let Some(pause) = m.pause.take() {
        let paused = now.duration_since(pause.since).max(SignedDuration::ZERO);
        m.paused_for = m.paused_for.saturating_add(paused);
    }
}
