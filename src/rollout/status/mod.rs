//! A rollout's status: what is remembered in it, and what a person sees of what was seen.
//!
//! Reading is total: a status that was edited by hand, or written by another release, is read as far as it makes sense. What does not is
//! left out, and derived anew or asked about by the plan; it never fails, and it never makes a rollout go on or back by itself.

mod conditions;
mod derived;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::Plan;
use super::look::Look;
use super::memory::{Batch, Cause, Measured, Memory, PauseMemory, Reason, RollbackMemory, StepMemory};
use super::seen::{Outcome, Seen};
use super::step::Which;
use crate::api::GatewayRolloutStatus;
use crate::api::gateway_rollout::DrainMode;
use crate::api::rollout_status::{
    ApprovalRecord, Baseline, BatchStatus, DrainStatus, MetricMemory, Pause, Rollback, StepStatus,
};

/// The status that the object has, and when it is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    pub status: &'a GatewayRolloutStatus,
    pub now: Timestamp,
}

/// The most pods that are believed: more than Kubernetes runs in a cluster.
const MOST_PODS: u32 = 200_000;
/// The longest pause that is believed.
const MOST_PAUSED: i64 = 10 * 365 * 24 * 3600;

/// Reads `.status` field by field: one that cannot be read is as if it were not there, and takes no other along.
pub fn read(status: &Value) -> GatewayRolloutStatus {
    if let Ok(whole) = serde_json::from_value(status.clone()) {
        return whole;
    }
    let fields = status.as_object().cloned().unwrap_or_default();
    let alone = |name: &String, value: &Value| {
        let one = Map::from_iter([(name.clone(), value.clone())]);
        serde_json::from_value::<GatewayRolloutStatus>(Value::Object(one)).is_ok()
    };
    let readable = fields.into_iter().filter(|(name, value)| alone(name, value)).collect();
    serde_json::from_value(Value::Object(readable)).unwrap_or_default()
}

/// A time that can be one.
fn time(text: &str) -> Option<Timestamp> {
    let sane = |at: &Timestamp| (0..7_258_118_400).contains(&at.as_second());
    text.parse().ok().filter(sane)
}

fn optional(text: Option<&String>) -> Option<Timestamp> {
    text.and_then(|t| time(t))
}

/// A time in whole seconds, as Kubernetes writes its own: for what a person reads and the plan does not. What is remembered keeps its
/// fractions: a measurement that came back a fraction older than it was would be counted once more.
fn whole(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What a status remembers.
pub fn memory(status: &GatewayRolloutStatus) -> Memory {
    Memory {
        phase: status.phase,
        started: optional(status.started_at.as_ref()),
        since: optional(status.stage_started_at.as_ref()),
        paused_for: SignedDuration::from_secs(status.stage_paused_seconds.clamp(0, MOST_PAUSED)),
        from: status.from_revision.as_deref().map(Arc::from),
        flavor: status.flavor,
        promotion: status.promotion,
        drain: status.drain.as_ref().map(drain),
        baseline: status.baseline.clone().map(baseline).map(Arc::new),
        step: status.step.as_ref().map(step),
        pause: status.pause.as_ref().map(|p| pause(p, status)),
        approvals: status.approvals.iter().filter_map(approval).collect(),
        ignored_alerts: status.ignored_alerts.clone(),
        last_batch: optional(status.last_batch_at.as_ref()),
        batch: status.batch.as_ref().and_then(batch),
        unrouted: status.unrouted_connections,
        spent: status.approval_spent,
        rollback: status.rollback.as_ref().map(|r| rollback(r, status)),
        completion: status.completion,
        finished: optional(status.finished_at.as_ref()),
    }
}

fn drain(of: &DrainStatus) -> (DrainMode, Option<Arc<str>>) {
    (of.mode, of.key.as_deref().map(Arc::from))
}

/// A number of pods that no cluster has would only overflow what is counted with it.
fn baseline(mut of: Baseline) -> Baseline {
    of.replicas = of.replicas.min(MOST_PODS);
    of
}

fn step(of: &StepStatus) -> StepMemory {
    let measured = |m: &MetricMemory| {
        let last = outcome(&m.last)?;
        Some(Measured { name: Arc::from(m.name.as_str()), failures: m.failures, last, at: time(&m.at)? })
    };
    StepMemory {
        index: of.index as usize,
        hash: Arc::from(of.hash.as_str()),
        stage: of.stage,
        soak_until: optional(of.soak_until.as_ref()),
        measured: of.measured.iter().filter_map(measured).collect(),
    }
}

/// A pause of a reason that is not known is one that a person has to end: it is there for something.
fn pause(of: &Pause, status: &GatewayRolloutStatus) -> PauseMemory {
    let known = Cause::ALL.into_iter().find(|c| c.as_str() == of.reason);
    let begun = time(&of.since).or_else(|| optional(status.stage_started_at.as_ref()));
    PauseMemory {
        cause: known.unwrap_or(Cause::StatusLost),
        // Without a beginning its length is unknown, and must not turn anything back.
        since: begun.unwrap_or(Timestamp::MAX),
        message: of.message.clone(),
        generation: of.generation,
    }
}

fn approval(of: &ApprovalRecord) -> Option<(Arc<str>, Arc<str>, Timestamp)> {
    Some((Arc::from(of.step.as_str()), Arc::from(of.by.as_str()), time(&of.at)?))
}

fn batch(of: &BatchStatus) -> Option<Batch> {
    let which = Which::ALL.into_iter().find(|w| w.as_str() == of.of)?;
    let pods = of.pods.iter().map(|p| Arc::from(p.as_str())).collect();
    Some(Batch { which, to: of.to.min(MOST_PODS), pods, spared: of.spared, over: of.over })
}

fn rollback(of: &Rollback, status: &GatewayRolloutStatus) -> RollbackMemory {
    let known = Reason::ALL.into_iter().find(|r| r.as_str() == of.reason);
    let begun = time(&of.since).or_else(|| optional(status.stage_started_at.as_ref()));
    RollbackMemory {
        reason: known.unwrap_or(Reason::Aborted),
        message: of.message.clone(),
        since: begun.unwrap_or(Timestamp::UNIX_EPOCH),
        from: of.from,
    }
}

pub(super) fn outcome(text: &str) -> Option<Outcome> {
    [Outcome::Passed, Outcome::Failed, Outcome::Inconclusive].into_iter().find(|o| said(*o) == text)
}

/// An outcome as the status has it.
pub(super) const fn said(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "Passed",
        Outcome::Failed => "Failed",
        Outcome::Inconclusive => "Inconclusive",
    }
}

/// The whole status: what is remembered, and what follows from what was seen. `memory` is what holds once the plan's next is done: for
/// [`Next::Remember`](super::Next::Remember) it is that one.
pub fn status(seen: &Seen, memory: &Memory, plan: &Plan, before: Before) -> GatewayRolloutStatus {
    let look = Look::new(seen, memory, before.now);
    let mut status = remembered(memory);
    derived::fill(&look, plan, before, &mut status);
    status.conditions = conditions::all(&look, plan, before);
    status
}

/// The fields that are memory.
fn remembered(m: &Memory) -> GatewayRolloutStatus {
    let text = |at: Option<Timestamp>| at.map(|t| t.to_string());
    GatewayRolloutStatus {
        phase: m.phase,
        started_at: text(m.started),
        stage_started_at: text(m.since),
        stage_paused_seconds: m.paused_for.as_secs(),
        from_revision: m.from.as_deref().map(str::to_owned),
        flavor: m.flavor,
        promotion: m.promotion,
        drain: m.drain.as_ref().map(|(mode, key)| DrainStatus {
            mode: *mode,
            key: key.as_deref().map(str::to_owned),
            ..DrainStatus::default()
        }),
        baseline: m.baseline.as_deref().cloned(),
        step: m.step.as_ref().map(step_status),
        pause: m.pause.as_ref().map(|p| Pause {
            reason: p.cause.as_str().to_owned(),
            since: p.since.to_string(),
            message: p.message.clone(),
            needs_human: p.cause.needs_human(),
            generation: p.generation,
        }),
        approvals: m
            .approvals
            .iter()
            .map(|(step, by, at)| ApprovalRecord { step: step.to_string(), by: by.to_string(), at: at.to_string() })
            .collect(),
        ignored_alerts: m.ignored_alerts.clone(),
        last_batch_at: text(m.last_batch),
        batch: m.batch.as_ref().map(|b| BatchStatus {
            of: b.which.as_str().to_owned(),
            to: b.to,
            pods: b.pods.iter().map(ToString::to_string).collect(),
            spared: b.spared,
            over: b.over,
        }),
        unrouted_connections: m.unrouted,
        approval_spent: m.spent,
        rollback: m.rollback.as_ref().map(|r| Rollback {
            reason: r.reason.as_str().to_owned(),
            message: r.message.clone(),
            since: r.since.to_string(),
            from: r.from,
        }),
        completion: m.completion,
        finished_at: text(m.finished),
        ..GatewayRolloutStatus::default()
    }
}

fn step_status(step: &StepMemory) -> StepStatus {
    let measured = step.measured.iter().map(|m| MetricMemory {
        name: m.name.to_string(),
        failures: m.failures,
        last: said(m.last).to_owned(),
        at: m.at.to_string(),
    });
    StepStatus {
        index: u32::try_from(step.index).unwrap_or(u32::MAX),
        hash: step.hash.to_string(),
        stage: step.stage,
        soak_until: step.soak_until.map(|t| t.to_string()),
        measured: measured.collect(),
        ..StepStatus::default()
    }
}
