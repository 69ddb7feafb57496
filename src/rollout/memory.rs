//! What a rollout must not forget, typed: read from the object's status and written back before the step that it is about.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::seen::Outcome;
use super::step::Which;
use crate::api::gateway_rollout::{DrainMode, Flavor, Promotion};
use crate::api::rollout_status::{Baseline, Completion, Phase, Stage};

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    pub phase: Phase,
    /// When it left `Pending`.
    pub started: Option<Timestamp>,
    /// When this phase or stage began.
    pub since: Option<Timestamp>,
    /// How long this stage has been paused in all, up to the last pause's end.
    pub paused_for: SignedDuration,
    pub from: Option<Arc<str>>,
    pub flavor: Option<Flavor>,
    pub promotion: Option<Promotion>,
    /// Decided before it starts: the mode, and the key if there is one.
    pub drain: Option<(DrainMode, Option<Arc<str>>)>,
    pub baseline: Option<Arc<Baseline>>,
    pub step: Option<StepMemory>,
    pub pause: Option<PauseMemory>,
    /// Steps that were approved, by whom and when.
    pub approvals: Vec<(Arc<str>, Arc<str>, Timestamp)>,
    /// Fingerprints of alerts that fired before it began.
    pub ignored_alerts: Vec<String>,
    /// When pods of a Deployment last began to leave.
    pub last_batch: Option<Timestamp>,
    /// The batch that leaves, or left last.
    pub batch: Option<Batch>,
    /// Connections of a pod that nothing is routed to: those of whoever measures and probes it.
    pub unrouted: u64,
    /// The approval that stands on the object has had its effect.
    pub spent: bool,
    pub rollback: Option<RollbackMemory>,
    pub completion: Option<Completion>,
    pub finished: Option<Timestamp>,
}

impl Memory {
    /// No fewer pods than these are needed from now on.
    pub fn needs(&mut self, pods: u32) {
        if let Some(baseline) = self.baseline.as_mut().filter(|b| b.replicas < pods) {
            Arc::make_mut(baseline).replicas = pods;
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepMemory {
    /// From 0.
    pub index: usize,
    /// Of this step and all before it.
    pub hash: Arc<str>,
    pub stage: Stage,
    pub soak_until: Option<Timestamp>,
    /// Each metric's evaluations in this step.
    pub measured: Vec<Measured>,
}

/// What the evaluations of one metric came to in a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    pub name: Arc<str>,
    pub failures: u32,
    /// The last evaluation, and when it was: one that is seen twice counts once.
    pub last: Outcome,
    pub at: Timestamp,
}

/// Pods that leave together. It is remembered before the first of them leaves, so that whoever goes on after a crash, or believes to lead
/// as well, takes no other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Batch {
    /// Whose pods.
    pub which: Which,
    /// Replicas of that Deployment afterwards.
    pub to: u32,
    /// Names of pods that are set apart first.
    pub pods: Vec<Arc<str>>,
    /// Replacements that were ready already were set apart as well; this is done once, because a ReplicaSet may be faster for ever.
    pub spared: bool,
    /// It has left, and `to` was written.
    pub over: bool,
}

/// Why a rollout holds. The order is the order in which several are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    User,
    AlertFiring,
    MetricFailed,
    MetricInconclusive,
    PrometheusUnknown,
    DeadlineExceeded,
    PodTrouble,
    ListenersRejected,
    SourceDrift,
    FieldContested,
    ServiceChanged,
    EndpointsMissing,
    ControlPlaneNotReady,
    /// What had to be remembered is not in the status.
    StatusLost,
    WindowClosed,
    Approval,
}

impl Cause {
    pub const ALL: [Cause; 16] = [
        Cause::User,
        Cause::AlertFiring,
        Cause::MetricFailed,
        Cause::MetricInconclusive,
        Cause::PrometheusUnknown,
        Cause::DeadlineExceeded,
        Cause::PodTrouble,
        Cause::ListenersRejected,
        Cause::SourceDrift,
        Cause::FieldContested,
        Cause::ServiceChanged,
        Cause::EndpointsMissing,
        Cause::ControlPlaneNotReady,
        Cause::StatusLost,
        Cause::WindowClosed,
        Cause::Approval,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Cause::User => "User",
            Cause::AlertFiring => "AlertFiring",
            Cause::MetricFailed => "MetricFailed",
            Cause::MetricInconclusive => "MetricInconclusive",
            Cause::PrometheusUnknown => "PrometheusUnknown",
            Cause::DeadlineExceeded => "DeadlineExceeded",
            Cause::PodTrouble => "PodTrouble",
            Cause::ListenersRejected => "ListenersRejected",
            Cause::SourceDrift => "SourceDrift",
            Cause::FieldContested => "FieldContested",
            Cause::ServiceChanged => "ServiceChanged",
            Cause::EndpointsMissing => "EndpointsMissing",
            Cause::ControlPlaneNotReady => "ControlPlaneNotReady",
            Cause::StatusLost => "StatusLost",
            Cause::WindowClosed => "WindowClosed",
            Cause::Approval => "Approval",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PauseMemory {
    pub cause: Cause,
    pub since: Timestamp,
    /// What holds it, and what ends it.
    pub message: String,
    /// Of the spec, when it began: a change of the spec ends a pause that needs a human.
    pub generation: i64,
}

/// Why a rollout goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    Aborted,
    Deleted,
    ProbeFailed,
    AlertFiring,
    MetricFailed,
    DeadlineExceeded,
    PauseTimeout,
    /// The gateway's Deployment was changed, and it is begun again with what it says now.
    SourceDrift,
}

impl Reason {
    pub const ALL: [Reason; 8] = [
        Reason::Aborted,
        Reason::Deleted,
        Reason::ProbeFailed,
        Reason::AlertFiring,
        Reason::MetricFailed,
        Reason::DeadlineExceeded,
        Reason::PauseTimeout,
        Reason::SourceDrift,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::Aborted => "Aborted",
            Reason::Deleted => "Deleted",
            Reason::ProbeFailed => "ProbeFailed",
            Reason::AlertFiring => "AlertFiring",
            Reason::MetricFailed => "MetricFailed",
            Reason::DeadlineExceeded => "DeadlineExceeded",
            Reason::PauseTimeout => "PauseTimeout",
            Reason::SourceDrift => "SourceDrift",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollbackMemory {
    pub reason: Reason,
    pub message: String,
    pub since: Timestamp,
    pub from: Phase,
}
