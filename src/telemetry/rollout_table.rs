//! The metrics of gateway rollouts, as `table` holds those of everything else. Nothing else may carry the name of an object.

use super::def::{Def, Kind};

pub(super) const ROLLOUT_INFO: Def = Def {
    name: "revguard_rollout_info",
    kind: Kind::Gauge,
    help: "Always 1: a gateway rollout, its gateway, the revisions it goes from and to, and how.",
    labels: &["namespace", "name", "gateway", "from", "to", "strategy", "flavor"],
};
pub(super) const ROLLOUT_PHASE: Def = Def {
    name: "revguard_rollout_phase",
    kind: Kind::Gauge,
    help: "1 for the phase that a rollout is in, 0 for every other.",
    labels: &["namespace", "name", "phase"],
};
pub(super) const ROLLOUT_STEP: Def = Def {
    name: "revguard_rollout_step",
    kind: Kind::Gauge,
    help: "The step that a rollout is at, from 1; 0 before the first.",
    labels: &["namespace", "name"],
};
pub(super) const ROLLOUT_WEIGHT_DESIRED: Def = Def {
    name: "revguard_rollout_weight_desired",
    kind: Kind::Gauge,
    help: "Part of the ready pods that the step wants to be new, 0 to 1.",
    labels: &["namespace", "name"],
};
pub(super) const ROLLOUT_WEIGHT_ENDPOINTS: Def = Def {
    name: "revguard_rollout_weight_endpoints",
    kind: Kind::Gauge,
    help: "Part of the ready endpoints that is new, 0 to 1.",
    labels: &["namespace", "name"],
};
pub(super) const ROLLOUT_PAUSED: Def = Def {
    name: "revguard_rollout_paused",
    kind: Kind::Gauge,
    help: "1 while a rollout holds, by reason; no series while it does not.",
    labels: &["namespace", "name", "reason"],
};
pub(super) const ROLLOUT_STAGE_STARTED: Def = Def {
    name: "revguard_rollout_stage_started_timestamp_seconds",
    kind: Kind::Gauge,
    help: "When the phase or stage of a rollout began, in seconds since 1970.",
    labels: &["namespace", "name"],
};
pub(super) const ROLLOUT_DUE: Def = Def {
    name: "revguard_rollout_due_timestamp_seconds",
    kind: Kind::Gauge,
    help: "When the stage of a rollout should be over or it should hold: the end of its soak, its deadline, or that of its pods set apart. No series while it holds, is over or waits for somebody.",
    labels: &["namespace", "name"],
};
pub(super) const ROLLOUT_PODS_APART: Def = Def {
    name: "revguard_rollout_pods_apart",
    kind: Kind::Gauge,
    help: "Pods of a rollout that were set apart and finish what they have.",
    labels: &["namespace", "name"],
};
pub(super) const ROLLOUT_APART_DUE: Def = Def {
    name: "revguard_rollout_apart_due_timestamp_seconds",
    kind: Kind::Gauge,
    help: "When the first of the pods set apart is to be deleted at the latest, in seconds since 1970; no series while there are none.",
    labels: &["namespace", "name"],
};
pub(super) const ALERT_GATE: Def = Def {
    name: "revguard_alert_gate",
    kind: Kind::Gauge,
    help: "What the alerts that guard a rollout say: 0 quiet, 1 firing, 2 unknown; no series where nothing guards it.",
    labels: &["namespace", "name"],
};
pub(super) const PROMETHEUS_QUERIES: Def = Def {
    name: "revguard_prometheus_queries_total",
    kind: Kind::Counter,
    help: "Queries for alerts and metrics that guard rollouts, by what was asked and what came of it.",
    labels: &["source", "result"],
};
pub(super) const ROLLOUT_TRANSITIONS: Def = Def {
    name: "revguard_rollout_transitions_total",
    kind: Kind::Counter,
    help: "Changes of phase, of all rollouts; the reason is that of a rollback.",
    labels: &["phase_from", "phase_to", "reason"],
};
pub(super) const ROLLOUT_DURATION: Def = Def {
    name: "revguard_rollout_duration_seconds",
    kind: Kind::Histogram,
    help: "From the preflight of a rollout to its end, by how it ended.",
    labels: &["completion"],
};
pub(super) const ROLLOUTS: Def = Def {
    name: "revguard_rollouts_total",
    kind: Kind::Counter,
    help: "Rollouts that came to an end, by how.",
    labels: &["completion"],
};
