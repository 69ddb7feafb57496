//! What the controller says of a `GatewayRollout`, and what it must not forget.
//!
//! Two sorts of fields share the status. `phase`, `step`, `baseline`, `approvals`, `completion` and the timestamps are the rollout's memory: they
//! are written before the step that they are about. Everything else is derived from what was seen and may be
//! written late. Lists of names are bounded; counts beside them are whole.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::mesh_state::Condition;
use super::strategy::{CapacityMode, DrainMode, Flavor, Promotion, StrategyType};

/// Where a rollout is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema)]
pub enum Phase {
    /// Seen, and waiting for its turn.
    #[default]
    Pending,
    /// `dryRun`: what would be done, and what stands against it.
    Planned,
    Preflight,
    Preparing,
    Probing,
    Progressing,
    HandingOver,
    Draining,
    Promoting,
    Finalizing,
    Completed,
    RollingBack,
    RolledBack,
    Failed,
}

impl Phase {
    pub const ALL: [Phase; 14] = [
        Phase::Pending,
        Phase::Planned,
        Phase::Preflight,
        Phase::Preparing,
        Phase::Probing,
        Phase::Progressing,
        Phase::HandingOver,
        Phase::Draining,
        Phase::Promoting,
        Phase::Finalizing,
        Phase::Completed,
        Phase::RollingBack,
        Phase::RolledBack,
        Phase::Failed,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Planned => "Planned",
            Phase::Preflight => "Preflight",
            Phase::Preparing => "Preparing",
            Phase::Probing => "Probing",
            Phase::Progressing => "Progressing",
            Phase::HandingOver => "HandingOver",
            Phase::Draining => "Draining",
            Phase::Promoting => "Promoting",
            Phase::Finalizing => "Finalizing",
            Phase::Completed => "Completed",
            Phase::RollingBack => "RollingBack",
            Phase::RolledBack => "RolledBack",
            Phase::Failed => "Failed",
        }
    }

    /// It moves towards the new revision.
    pub const fn is_forward(self) -> bool {
        matches!(
            self,
            Phase::Preparing
                | Phase::Probing
                | Phase::Progressing
                | Phase::HandingOver
                | Phase::Draining
                | Phase::Promoting
                | Phase::Finalizing
        )
    }

    /// Objects of the gateway are, or may be, in its hands.
    pub const fn is_active(self) -> bool {
        self.is_forward() || matches!(self, Phase::RollingBack)
    }

    /// Nothing follows by itself.
    pub const fn is_over(self) -> bool {
        matches!(self, Phase::Completed | Phase::RolledBack | Phase::Failed)
    }
}

/// What is done within a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema)]
pub enum Stage {
    /// New pods are started, old ones leave.
    #[default]
    Scaling,
    /// Every new pod is looked at.
    Verifying,
    Soaking,
    AwaitingApproval,
}

impl Stage {
    pub const fn as_str(self) -> &'static str {
        match self {
            Stage::Scaling => "Scaling",
            Stage::Verifying => "Verifying",
            Stage::Soaking => "Soaking",
            Stage::AwaitingApproval => "AwaitingApproval",
        }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema)]
pub enum Completion {
    Completed,
    /// Back after a guardrail, a deadline or a failed probe.
    RolledBack,
    /// Back because somebody asked for it.
    Aborted,
}

impl Completion {
    pub const ALL: [Completion; 3] = [Completion::Completed, Completion::RolledBack, Completion::Aborted];

    pub const fn as_str(self) -> &'static str {
        match self {
            Completion::Completed => "Completed",
            Completion::RolledBack => "RolledBack",
            Completion::Aborted => "Aborted",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayRolloutStatus {
    /// The generation of the spec that this is about.
    pub observed_generation: i64,
    /// One word: the stage, or why it does not go on.
    pub state: String,
    pub phase: Phase,
    /// The gateway as `kubectl get` names it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_revision: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flavor: Option<Flavor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<StrategyType>,
    /// What `Auto` came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promotion: Option<Promotion>,
    /// How old pods leave, and the label by which they are set apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainStatus>,
    /// What is to be done, one line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plan: Vec<String>,
    /// The gateway as it was before the first change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Baseline>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<StepStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<Weights>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<PodCounts>,
    /// Pods set apart, at most 50.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub apart: Vec<ApartPod>,
    /// What was made or changed, for people; the baseline is what is gone back to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<ResourceStatus>,
    /// Why it holds; absent: it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<ApprovalRecord>,
    /// What stands against it, at most 50.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub preflight: Vec<PreflightFinding>,
    /// Alerts that fired before it began and were to be ignored, by fingerprint.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignored_alerts: Vec<String>,
    /// The last evaluation of each metric.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<MetricStatus>,
    /// Why it goes back, or went back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion: Option<Completion>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When this phase or stage began. RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage_started_at: Option<String>,
    /// How long this stage has been paused in all, in seconds: the deadline does not count it.
    #[serde(skip_serializing_if = "is_zero")]
    pub stage_paused_seconds: i64,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// When pods last began to leave. RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_batch_at: Option<String>,
    /// The pods that leave, or left last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchStatus>,
    /// Connections of a pod that nothing is routed to.
    #[serde(skip_serializing_if = "is_zero_count")]
    pub unrouted_connections: u64,
    /// The approval that stands on the object has had its effect.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub approval_spent: bool,
    /// `Ready`, `Reconciling`, `Stalled`, `PreflightPassed`, `GuardrailsHealthy`, `Verified`, `RollbackAvailable`.
    pub conditions: Vec<Condition>,
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

fn is_zero_count(n: &u64) -> bool {
    *n == 0
}

/// Pods that leave together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BatchStatus {
    /// `Source`, `Canary` or `Standby`.
    pub of: String,
    /// Replicas afterwards.
    pub to: u32,
    /// Pods that are set apart first, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<String>,
    /// Replacements that were ready already are among them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub spared: bool,
    /// It has left.
    pub over: bool,
}

/// The gateway before the first change. Also kept in the annotation `revguard.dev/baseline` of its Deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Baseline {
    pub captured_at: String,
    /// Pods that are never gone below: what was ready and wanted, or what the autoscaler wanted.
    pub replicas: u32,
    pub deployment: DeploymentBaseline,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hpa: Option<HpaBaseline>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceBaseline>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentBaseline {
    pub name: String,
    pub uid: String,
    /// Of the pod template without what restarts change.
    pub template_hash: String,
    /// The pod template, as JSON.
    pub template: String,
    pub paused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_ready_seconds: Option<i32>,
    /// `spec.strategy`, as JSON.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub strategy: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HpaBaseline {
    pub name: String,
    pub uid: String,
    pub min_replicas: u32,
    pub max_replicas: u32,
    /// Name of the Deployment that it scaled.
    pub target: String,
    /// It scaled: its condition `ScalingActive` was not `False`.
    pub active: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceBaseline {
    pub name: String,
    pub uid: String,
    /// `key=value`, sorted, separated by commas.
    pub selector: String,
    /// Addresses of its load balancer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StepStatus {
    /// From 0.
    pub index: u32,
    pub name: String,
    /// `2/5 quarter`, for `kubectl get`.
    pub display: String,
    /// Of this step and all before it: the past cannot be edited.
    pub hash: String,
    pub stage: Stage,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soak_until: Option<String>,
    /// What metrics came to in this step.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub measured: Vec<MetricMemory>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricMemory {
    pub name: String,
    /// In this step.
    pub failures: u32,
    /// `Passed`, `Failed` or `Inconclusive`, the last time.
    pub last: String,
    /// RFC 3339.
    pub at: String,
}

/// Part of the ready endpoints that is new, in percent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Weights {
    pub desired: u32,
    pub endpoints: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCounts {
    /// Ready pods of the new revision, and all of them.
    pub new_ready: u32,
    pub new: u32,
    pub old_ready: u32,
    pub old: u32,
    /// Set apart, finishing what they have.
    pub apart: u32,
    /// Connections still open on those, as far as their statistics can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
    /// New pods that pass the verification.
    pub verified: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ApartPod {
    pub name: String,
    /// RFC 3339.
    pub since: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DrainStatus {
    pub mode: DrainMode,
    /// The label whose value takes a pod out of its Services, and nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Why pods are told to stop instead.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    pub capacity: CapacityMode,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceStatus {
    pub kind: String,
    pub name: String,
    /// `Created` or `Changed`.
    pub action: String,
    /// What of it, or what for.
    pub purpose: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Pause {
    /// One word: `User`, `AlertFiring`, `MetricFailed`, `PrometheusUnknown`, `DeadlineExceeded`, …
    pub reason: String,
    /// RFC 3339.
    pub since: String,
    /// What holds it, and what ends it.
    pub message: String,
    /// It ends only when somebody approves `resume`, or changes the spec.
    pub needs_human: bool,
    /// Of the spec, when it began.
    pub generation: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ApprovalRecord {
    pub step: String,
    pub by: String,
    pub at: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PreflightFinding {
    pub guard: String,
    /// `Block` or `Warn`.
    pub severity: String,
    /// `Kind/namespace/name`.
    pub object: String,
    pub what: String,
    pub why: String,
    pub fix: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricStatus {
    pub name: String,
    /// `Passed`, `Failed` or `Inconclusive`.
    pub result: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    pub message: String,
    pub at: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rollback {
    /// One word: `Aborted`, `ProbeFailed`, `AlertFiring`, `MetricFailed`, `DeadlineExceeded`, `PauseTimeout`, `Deleted`, `SourceDrift`.
    pub reason: String,
    pub message: String,
    /// RFC 3339.
    pub since: String,
    /// The phase that it goes back from.
    pub from: Phase,
}
