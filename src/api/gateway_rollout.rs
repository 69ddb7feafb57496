//! `GatewayRollout`: one gateway moves to another revision, behind its own Service and address, step by step.
//!
//! What a person asks for. What the controller makes of it stands in [`super::rollout_status`]. Defaults stand in the schema, so that
//! `kubectl get -o yaml` shows the rollout as it will be carried out. Every text and every list has a bound, because the API
//! server refuses a definition whose validations could cost too much.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::{Duration, hours, minutes};
pub use super::guardrails::{
    Alerts, AtStart, Guardrails, Metric, Named, OnPauseTimeout, OnUnavailable, Reaction, Source,
};
pub use super::probe::{HttpProbe, Level, Probe, ProbeMode, Scheme, Verification};
use super::rollout_status::GatewayRolloutStatus;
pub use super::strategy::{
    Approval, Capacity, CapacityMode, Drain, DrainMode, Flavor, Promotion, Share, Step, Strategy, StrategyType,
};

/// Moves one gateway to another revision of its control plane, without a dropped request.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "revguard.dev",
    version = "v1alpha1",
    kind = "GatewayRollout",
    plural = "gatewayrollouts",
    shortname = "gwr",
    category = "istio-upgrade",
    namespaced,
    status = "GatewayRolloutStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name": "Gateway", "type": "string", "jsonPath": ".status.gateway"}"#,
    printcolumn = r#"{"name": "From", "type": "string", "jsonPath": ".status.fromRevision"}"#,
    printcolumn = r#"{"name": "To", "type": "string", "jsonPath": ".spec.toRevision"}"#,
    printcolumn = r#"{"name": "State", "type": "string", "jsonPath": ".status.state"}"#,
    printcolumn = r#"{"name": "Step", "type": "string", "jsonPath": ".status.step.display"}"#,
    printcolumn = r#"{"name": "Weight", "type": "integer", "jsonPath": ".status.weights.endpoints"}"#,
    printcolumn = r#"{"name": "Paused", "type": "string", "jsonPath": ".status.pause.reason"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Strategy", "type": "string", "jsonPath": ".status.strategy", "priority": 1}"#,
    printcolumn = r#"{"name": "Flavor", "type": "string", "jsonPath": ".status.flavor", "priority": 1}"#,
    printcolumn = r#"{"name": "Verified", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Verified\")].status", "priority": 1}"#,
    printcolumn = r#"{"name": "Rollback", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"RollbackAvailable\")].status", "priority": 1}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.target == oldSelf.target").message("target is immutable; create a new GatewayRollout"),
    validation = Rule::new("self.toRevision == oldSelf.toRevision").message("toRevision is immutable; create a new GatewayRollout"),
    validation = Rule::new("has(oldSelf.fromRevision) == has(self.fromRevision) && (!has(self.fromRevision) || self.fromRevision == oldSelf.fromRevision)").message("fromRevision is immutable; create a new GatewayRollout"),
    validation = Rule::new("!has(self.fromRevision) || self.fromRevision != self.toRevision").message("fromRevision and toRevision are the same revision"),
    validation = Rule::new("!oldSelf.abort || self.abort").message("abort cannot be withdrawn; create a new GatewayRollout"),
    validation = Rule::new("!(self.abort && self.paused)").message("abort does not wait: unset paused"),
)]
pub struct GatewayRolloutSpec {
    /// The gateway.
    pub target: Target,
    /// Services behind which it stands; default: every Service that selects its pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), inner(length(min = 1, max = 63)))]
    pub services: Vec<String>,
    /// The revision that it is on; default: what its ready pods say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 54), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub from_revision: Option<String>,
    /// The revision that it moves to: a revision, never a tag.
    #[schemars(length(min = 1, max = 54), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub to_revision: String,
    /// The version that revision must have, compared with the images of istiod and of the new proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub to_version: Option<String>,
    /// How the gateway gets its proxy.
    #[serde(default)]
    pub flavor: Flavor,
    #[serde(default)]
    pub strategy: Strategy,
    #[serde(default)]
    pub probe: Probe,
    #[serde(default)]
    pub verification: Verification,
    #[serde(default)]
    pub guardrails: Guardrails,
    /// When forward steps may be taken; default: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// The longest that a stage may take, pauses not counted.
    #[serde(default = "minutes::<10>")]
    pub progress_deadline: Duration,
    #[serde(default)]
    pub on_deadline: Reaction,
    #[serde(default)]
    pub standby: Standby,
    /// What follows when somebody changes the gateway's own Deployment meanwhile.
    #[serde(default)]
    pub source_drift: SourceDrift,
    /// What follows when this object is deleted before its end.
    #[serde(default)]
    pub on_delete: OnDelete,
    /// Hold everything as it is.
    #[serde(default)]
    pub paused: bool,
    /// Go back, also after completion while the old revision lives.
    #[serde(default)]
    pub abort: bool,
    /// Plan and preflight only: nothing is changed.
    #[serde(default)]
    pub dry_run: bool,
    /// Guards whose findings are accepted, by name; each finding names its guard.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(min = 1, max = 40)))]
    pub acknowledge: Vec<String>,
    /// How long the finished object stays; `0s`: until somebody deletes it.
    #[serde(default = "hours::<720>")]
    pub ttl_after_finished: Duration,
}

/// Exactly one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.deployment) != has(self.gateway)").message("exactly one of target.deployment and target.gateway"),
)]
pub struct Target {
    /// A gateway that Helm, an IstioOperator file or a person deploys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<Named>,
    /// A Gateway API Gateway that istiod deploys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Named>,
}

/// When forward steps may be taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Window {
    /// Days and times in UTC: `Mon-Thu 08:00-16:00`.
    #[schemars(
        length(min = 1, max = 20),
        inner(
            length(max = 64),
            regex(
                pattern = r"^(Mon|Tue|Wed|Thu|Fri|Sat|Sun)(-(Mon|Tue|Wed|Thu|Fri|Sat|Sun))? ([01][0-9]|2[0-3]):[0-5][0-9]-(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"
            )
        )
    )]
    pub allow: Vec<String>,
}

/// What is kept for the way back.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Standby {
    /// Keep the old Deployment, without pods.
    pub keep: bool,
    pub until: Until,
    /// Only with `until: Duration`.
    pub ttl: Duration,
}

impl Default for Standby {
    fn default() -> Self {
        Standby { keep: true, until: Until::default(), ttl: Duration::from_hours(168) }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
pub enum Until {
    #[default]
    OldRevisionRemoved,
    Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
pub enum SourceDrift {
    #[default]
    Pause,
    /// Begin again with what the Deployment says now.
    Resync,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
pub enum OnDelete {
    /// Go back first.
    #[default]
    Rollback,
    /// Leave everything as it is; only pods set apart are waited for.
    Freeze,
}
