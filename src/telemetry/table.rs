//! Every metric's name, type, help and labels: the one list that the registry, docs/metrics.md
//! and the tests are made from.

use std::fmt::Write as _;

use super::labels::{Action, Asked, Closed, Full, Loop, Outcome, Path, Port, RepairResult, Source};
use crate::api::rollout_status::{Completion, Phase};
use crate::rollout::memory::{Cause, Reason};

pub use super::def::{Def, Kind};
pub(super) use super::rollout_table::*;

pub(super) const REQUESTS: Def = Def {
    name: "revguard_admission_requests_total",
    kind: Kind::Counter,
    help: "Requests by path and by how they ended, each counted once on every exit path.",
    labels: &["endpoint", "outcome"],
};
pub(super) const DURATION: Def = Def {
    name: "revguard_admission_duration_seconds",
    kind: Kind::Histogram,
    help: "Time from the request's parsed head to its answer: reading the body, waiting for a worker, judging.",
    labels: &["endpoint"],
};
pub(super) const IN_FLIGHT: Def = Def {
    name: "revguard_admission_in_flight",
    kind: Kind::Gauge,
    help: "Requests that were begun and are not answered yet.",
    labels: &[],
};
pub(super) const REJECTED: Def = Def {
    name: "revguard_admission_rejected_total",
    kind: Kind::Counter,
    help: "Requests answered 429, by what was full.",
    labels: &["full"],
};
pub(super) const PANICS: Def = Def {
    name: "revguard_admission_panics_total",
    kind: Kind::Counter,
    help: "Panics while judging; each failed one request with 500. Any is a bug worth a report.",
    labels: &[],
};
pub(super) const CONNECTIONS_OPEN: Def = Def {
    name: "revguard_connections_open",
    kind: Kind::Gauge,
    help: "Connections held right now.",
    labels: &["port"],
};
pub(super) const CONNECTIONS_OPENED: Def = Def {
    name: "revguard_connections_opened_total",
    kind: Kind::Counter,
    help: "Connections accepted.",
    labels: &["port"],
};
pub(super) const CONNECTIONS_CLOSED: Def = Def {
    name: "revguard_connections_closed_total",
    kind: Kind::Counter,
    help: "Connections ended, by reason.",
    labels: &["port", "reason"],
};
pub(super) const ACCEPT_ERRORS: Def = Def {
    name: "revguard_accept_errors_total",
    kind: Kind::Counter,
    help: "Failed accepts, usually for want of file descriptors.",
    labels: &["port"],
};
pub(super) const HANDSHAKE_FAILURES: Def = Def {
    name: "revguard_tls_handshake_failures_total",
    kind: Kind::Counter,
    help: "TLS handshakes that failed or timed out. Clients that do not trust the certificate show here.",
    labels: &[],
};
pub(super) const CERT_NOT_AFTER: Def = Def {
    name: "revguard_certificate_not_after_seconds",
    kind: Kind::Gauge,
    help: "When the serving certificate expires, in seconds since 1970.",
    labels: &[],
};
pub(super) const CERT_RELOADS: Def = Def {
    name: "revguard_certificate_reloads_total",
    kind: Kind::Counter,
    help: "Changed certificates that were taken into use.",
    labels: &[],
};
pub(super) const CERT_RELOAD_ERRORS: Def = Def {
    name: "revguard_certificate_reload_errors_total",
    kind: Kind::Counter,
    help: "Changed certificates that could not be used, each content counted once; the old one stays.",
    labels: &[],
};
pub(super) const CERT_RELOAD_SUCCESS: Def = Def {
    name: "revguard_certificate_last_reload_success",
    kind: Kind::Gauge,
    help: "1 if the files hold the certificate that is served, 0 if they hold something unusable.",
    labels: &[],
};
pub(super) const POLICY_RELOAD_ERRORS: Def = Def {
    name: "revguard_policy_reload_errors_total",
    kind: Kind::Counter,
    help: "Changed policy files that were refused; the old policy stays.",
    labels: &[],
};
pub(super) const POLICY_RELOAD_SUCCESS: Def = Def {
    name: "revguard_policy_last_reload_success",
    kind: Kind::Gauge,
    help: "1 if the policy in force is the one in the file, 0 if the file was refused.",
    labels: &[],
};
pub(super) const SNAPSHOT_VERSION: Def = Def {
    name: "revguard_snapshot_resource_version",
    kind: Kind::Gauge,
    help: "The newest resourceVersion of a kind that verdicts are based on.",
    labels: &["kind"],
};
pub(super) const SNAPSHOT_AGE: Def = Def {
    name: "revguard_snapshot_age_seconds",
    kind: Kind::Gauge,
    help: "Time since the last watch event or bookmark of a kind.",
    labels: &["kind"],
};
pub(super) const WATCH_ERRORS: Def = Def {
    name: "revguard_watch_errors_total",
    kind: Kind::Counter,
    help: "Failed lists and watches of a kind.",
    labels: &["kind"],
};
pub(super) const FINDINGS: Def = Def {
    name: "revguard_findings_total",
    kind: Kind::Counter,
    help: "Findings by rule and by what policy made of them.",
    labels: &["code", "action"],
};
pub(super) const CA_NOT_AFTER: Def = Def {
    name: "revguard_ca_not_after_seconds",
    kind: Kind::Gauge,
    help: "When the CA that signed the serving certificate expires, in seconds since 1970. Set by the controller.",
    labels: &[],
};
pub(super) const CA_BUNDLE_CURRENT: Def = Def {
    name: "revguard_ca_bundle_current",
    kind: Kind::Gauge,
    help: "1 if every caBundle of our webhook configuration of this kind verifies the serving certificate.",
    labels: &["name"],
};
pub(super) const CA_BUNDLE_RESTORED: Def = Def {
    name: "revguard_ca_bundle_restored_total",
    kind: Kind::Counter,
    help: "caBundles that were changed by hand and put back.",
    labels: &[],
};
pub(super) const SNAPSHOT_STALE: Def = Def {
    name: "revguard_snapshot_stale",
    kind: Kind::Gauge,
    help: "1 if nothing was heard of a kind for longer than the policy's stale.age.",
    labels: &["kind"],
};
pub(super) const LEADER: Def = Def {
    name: "revguard_leader",
    kind: Kind::Gauge,
    help: "1 if this replica of the controller leads and may write, 0 otherwise. The webhook never leads.",
    labels: &[],
};
pub(super) const RECONCILE_ERRORS: Def = Def {
    name: "revguard_reconcile_errors_total",
    kind: Kind::Counter,
    help: "Reads and writes of the controller that failed, by loop. One that somebody else was faster than is none.",
    labels: &["loop"],
};
pub(super) const REPAIRS: Def = Def {
    name: "revguard_repairs_total",
    kind: Kind::Counter,
    help: "Repairs by rule and by what became of them.",
    labels: &["code", "result"],
};
pub(super) const REVISION_INFO: Def = Def {
    name: "revguard_revision_info",
    kind: Kind::Gauge,
    help: "Always 1: a control plane, its version and whether an istiod of it answers (true, false, unknown).",
    labels: &["revision", "version", "ready"],
};
pub(super) const PODS: Def = Def {
    name: "revguard_pods",
    kind: Kind::Gauge,
    help: "Running pods by the revision that injected them; _unknown is a revision that is not installed, _none no proxy.",
    labels: &["revision", "kind"],
};
pub(super) const NAMESPACES: Def = Def {
    name: "revguard_namespaces",
    kind: Kind::Gauge,
    help: "Namespaces that ask for a revision, by its name or through a tag.",
    labels: &["revision"],
};
pub(super) const ENDPOINTS: Def = Def {
    name: "revguard_revision_ready_endpoints",
    kind: Kind::Gauge,
    help: "Ready endpoints of a revision's istiod. Absent for one that is elsewhere or cannot be looked at.",
    labels: &["revision"],
};
pub(super) const DEFAULT_VALIDATORS: Def = Def {
    name: "revguard_default_validators",
    kind: Kind::Gauge,
    help: "Webhook configurations that judge Istio configuration which names no revision. One is right.",
    labels: &[],
};
pub(super) const VALIDATOR_DANGLING: Def = Def {
    name: "revguard_validator_dangling",
    kind: Kind::Gauge,
    help: "1 if nobody answers behind a validator, 0 otherwise.",
    labels: &["name"],
};
pub(super) const INJECTOR_DANGLING: Def = Def {
    name: "revguard_injector_dangling",
    kind: Kind::Gauge,
    help: "1 if nobody answers behind a live injector, 0 otherwise.",
    labels: &["name"],
};
pub(super) const INJECTORS_CONFLICTING: Def = Def {
    name: "revguard_injectors_conflicting",
    kind: Kind::Gauge,
    help: "Injectors that answer to a name which another one answers to as well.",
    labels: &[],
};
pub(super) const AUDIT_FINDINGS: Def = Def {
    name: "revguard_audit_findings",
    kind: Kind::Gauge,
    help: "Findings about what exists, by rule and level, once their grace is over.",
    labels: &["code", "level"],
};
pub(super) const AUDIT_DURATION: Def = Def {
    name: "revguard_audit_duration_seconds",
    kind: Kind::Gauge,
    help: "How long the last audit took.",
    labels: &[],
};
pub(super) const AUDIT_SUCCESS: Def = Def {
    name: "revguard_audit_last_success_seconds",
    kind: Kind::Gauge,
    help: "When the last audit ended, in seconds since 1970. 0 on a replica that does not lead.",
    labels: &[],
};
pub(super) const EXEMPTION_EXPIRES: Def = Def {
    name: "revguard_exemption_expires_seconds",
    kind: Kind::Gauge,
    help: "When the next exemption of a rule ends, in seconds since 1970.",
    labels: &["code"],
};
pub(super) const CONFIGURATION_PRESENT: Def = Def {
    name: "revguard_webhook_configuration_present",
    kind: Kind::Gauge,
    help: "1 if revguard's own webhook configuration is in the cluster, 0 if it was removed. It is never made again by us.",
    labels: &["name"],
};
pub(super) const IN_FORCE: Def = Def {
    name: "revguard_admission_policy_in_force",
    kind: Kind::Gauge,
    help: "1 if the API server refuses what the admission policy over webhook configurations must refuse, 0 if it does not. Absent where it was not asked.",
    labels: &[],
};
pub(super) const READY: Def =
    Def { name: "revguard_ready", kind: Kind::Gauge, help: "1 if /readyz answers 200.", labels: &[] };
pub(super) const BUILD_INFO: Def = Def {
    name: "revguard_build_info",
    kind: Kind::Gauge,
    help: "Always 1; the version is the label.",
    labels: &["version"],
};

/// Every metric, in the order of docs/metrics.md.
pub const ALL: &[Def] = &[
    REQUESTS,
    DURATION,
    IN_FLIGHT,
    REJECTED,
    PANICS,
    FINDINGS,
    CONNECTIONS_OPEN,
    CONNECTIONS_OPENED,
    CONNECTIONS_CLOSED,
    ACCEPT_ERRORS,
    HANDSHAKE_FAILURES,
    CERT_NOT_AFTER,
    CERT_RELOADS,
    CERT_RELOAD_ERRORS,
    CERT_RELOAD_SUCCESS,
    POLICY_RELOAD_ERRORS,
    POLICY_RELOAD_SUCCESS,
    SNAPSHOT_VERSION,
    SNAPSHOT_AGE,
    WATCH_ERRORS,
    SNAPSHOT_STALE,
    CA_NOT_AFTER,
    CA_BUNDLE_CURRENT,
    CA_BUNDLE_RESTORED,
    LEADER,
    RECONCILE_ERRORS,
    REPAIRS,
    REVISION_INFO,
    PODS,
    NAMESPACES,
    ENDPOINTS,
    DEFAULT_VALIDATORS,
    VALIDATOR_DANGLING,
    INJECTOR_DANGLING,
    INJECTORS_CONFLICTING,
    AUDIT_FINDINGS,
    AUDIT_DURATION,
    AUDIT_SUCCESS,
    EXEMPTION_EXPIRES,
    CONFIGURATION_PRESENT,
    ROLLOUT_INFO,
    ROLLOUT_PHASE,
    ROLLOUT_STEP,
    ROLLOUT_WEIGHT_DESIRED,
    ROLLOUT_WEIGHT_ENDPOINTS,
    ROLLOUT_PAUSED,
    ROLLOUT_STAGE_STARTED,
    ROLLOUT_DUE,
    ROLLOUT_PODS_APART,
    ROLLOUT_APART_DUE,
    ROLLOUT_TRANSITIONS,
    ROLLOUT_DURATION,
    ROLLOUTS,
    ALERT_GATE,
    PROMETHEUS_QUERIES,
    IN_FORCE,
    READY,
    BUILD_INFO,
];

/// The table of docs/metrics.md.
pub fn docs() -> String {
    let mut out = String::from(
        "# Metrics\n\n\
         Served on `/metrics` of the probe port. Every label has a closed set of values or a bounded\n\
         one (control planes and webhook configurations, of which a mesh has a handful). The metrics of\n\
         gateway rollouts carry the namespace and the name of the rollout, and go with it; no other label\n\
         ever carries the name of a namespace, a workload or a user.\n\n\
         | name | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for def in ALL {
        let labels = def.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} |",
            def.name,
            def.kind.as_str(),
            if labels.is_empty() { "–" } else { &labels },
            def.help
        );
    }
    out.push_str("\n## Values of labels\n\n| label | values |\n|---|---|\n");
    for (label, values) in [
        ("endpoint", values(Path::ALL, Path::as_str)),
        ("outcome", values(Outcome::ALL, Outcome::as_str)),
        ("full", values(Full::ALL, Full::as_str)),
        ("port", values(Port::ALL, Port::as_str)),
        ("reason", values(Closed::ALL, Closed::as_str)),
        ("action", values(Action::ALL, Action::as_str)),
        ("result", values(RepairResult::ALL, RepairResult::as_str)),
        ("level", "`info`, `warning`, `error`, `critical`".to_owned()),
        ("ready", "`true`, `false`, `unknown`".to_owned()),
        ("revision", "names of control planes, at most 50; the rest is `_other`".to_owned()),
        ("name", "names of webhook configurations, at most 50; the rest is `_other`".to_owned()),
        ("loop", values(Loop::ALL, Loop::as_str)),
        ("name", "`ValidatingWebhookConfiguration`, `MutatingWebhookConfiguration`".to_owned()),
        ("namespace", "of a GatewayRollout".to_owned()),
        ("name", "of a GatewayRollout, beside `namespace`; at most 500 have series".to_owned()),
        ("gateway", "the gateway of a rollout, as `kubectl get` names it".to_owned()),
        ("from", "a revision".to_owned()),
        ("to", "a revision".to_owned()),
        ("strategy", "`ParallelDeployment`, `PausedRolling`".to_owned()),
        ("flavor", "`ConfigMapMount`, `Injected`, `GatewayAPI`".to_owned()),
        ("phase", values(&Phase::ALL, Phase::as_str)),
        ("phase_from", "as `phase`".to_owned()),
        ("phase_to", "as `phase`".to_owned()),
        ("completion", values(&Completion::ALL, Completion::as_str)),
        ("reason", format!("of a pause: {}", values(&Cause::ALL, Cause::as_str))),
        ("reason", format!("of a rollback: {}", values(&Reason::ALL, Reason::as_str))),
        ("source", values(Source::ALL, Source::as_str)),
        ("result", format!("of a query: {}", values(Asked::ALL, Asked::as_str))),
        ("code", "the codes of the rules".to_owned()),
        ("kind", "the kinds that are watched; of pods `workload` and `gateway`".to_owned()),
        ("version", "of this binary, or of a control plane".to_owned()),
    ] {
        let _ = writeln!(out, "| `{label}` | {values} |");
    }
    out
}

fn values<T: Copy>(all: &[T], text: fn(T) -> &'static str) -> String {
    all.iter().map(|value| format!("`{}`", text(*value))).collect::<Vec<_>>().join(", ")
}
