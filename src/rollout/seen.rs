//! What a plan is made from: the gateway and everything around it, read freshly, as far as a decision needs it.
//!
//! One reader makes it from the API server's objects and from manifests alike; the simulation makes it directly. Nothing in it is a cache:
//! whoever plans a write that takes something away has read all of it right before.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::owner::Owner;
use crate::api::GatewayRolloutSpec;
use crate::api::gateway_rollout::Level;

/// Labels, annotations, selectors.
pub type Map = BTreeMap<String, String>;

/// An object as it was when it was read: the precondition of every change of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    pub uid: Arc<str>,
    /// `metadata.resourceVersion`.
    pub version: Arc<str>,
}

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub rollout: Rollout,
    /// The Deployment that the rollout names.
    pub source: Option<Deployment>,
    /// Whatever is called as our second Deployment would be.
    pub canary: Option<Deployment>,
    /// Whatever is called as the standby of a promoted gateway would be.
    pub standby: Option<Deployment>,
    /// Pods of the namespace that the source's selector selects, or that carry this rollout's label. Succeeded and failed ones
    /// are left out.
    pub pods: Vec<Pod>,
    /// Services that select the source's pods, and those that spec or baseline name.
    pub services: Vec<Service>,
    /// Autoscalers of the namespace that target the source or one of ours.
    pub hpas: Vec<Hpa>,
    /// Disruption budgets of the namespace that select the source's pods.
    pub pdbs: Vec<Pdb>,
    /// The mesh configuration that the new revision's gateways mount; only `ConfigMapMount`.
    pub config: Config,
    pub from: ControlPlane,
    pub to: ControlPlane,
    /// What the guards have found; `None` where they were not asked this time.
    pub findings: Option<Vec<Finding>>,
    /// The server-side dry-runs of preflight and probing; `None` where they were not made this time.
    pub dry_runs: Option<Vec<DryRun>>,
    /// By uid of the pod.
    pub evidence: BTreeMap<Arc<str>, Evidence>,
    pub gate: Gate,
    /// Metric checks that were evaluated since the last plan.
    pub metrics: Vec<MetricResult>,
    /// The key whose value takes a pod out of its Services and nothing else, or why there is none (§ 2.4a).
    pub apart_key: Result<Arc<str>, String>,
    /// Names of other GatewayRollouts that have this gateway in their hands.
    pub others: Vec<String>,
    /// Since when somebody has been looking without a gap: before that nothing was done, so that nothing was slow. `None`: always.
    pub watched: Option<Timestamp>,
}

/// The object that asks for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub held: Version,
    pub generation: i64,
    pub created: Timestamp,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// Our finalizer is on it.
    pub finalizer: bool,
    pub spec: Arc<GatewayRolloutSpec>,
    /// `UID/STEP` and who said so; only where both are there and the uid is this object's.
    pub approval: Option<Approval>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Approval {
    pub step: Arc<str>,
    pub by: Arc<str>,
}

/// A Deployment, with its template whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    pub name: Arc<str>,
    pub held: Version,
    pub labels: Map,
    pub annotations: Map,
    pub generation: i64,
    /// `status.observedGeneration`.
    pub observed: i64,
    /// `spec.selector.matchLabels`.
    pub selector: Map,
    pub replicas: u32,
    /// `status.replicas`, `status.updatedReplicas`, `status.readyReplicas`.
    pub total: u32,
    pub updated: u32,
    pub ready: u32,
    pub paused: bool,
    pub template: Arc<Template>,
    /// `spec.strategy` and `spec.minReadySeconds`, as they are written.
    pub strategy: Arc<Value>,
    pub min_ready_seconds: Option<i32>,
    /// The GitOps tool or installer that owns its template or replicas, from its managed fields and labels.
    pub owner: Option<Owner>,
    /// Fields of its spec are recorded as ours, in `metadata.managedFields`.
    pub written: bool,
    pub deleting: bool,
}

/// A pod template.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// Of everything that makes pods of a template differ; restarts do not count.
    pub hash: Arc<str>,
    /// The revision that its pods ask for: label `istio.io/rev`, or the mounted mesh configuration's.
    pub revision: Option<Arc<str>>,
    pub labels: Map,
    /// As the API server holds it.
    pub body: Value,
}

/// Whose pod it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Of {
    /// The original Deployment's.
    Source,
    /// Our second Deployment's.
    Canary,
    /// Those of the Deployment that keeps the old template under the old revision's name.
    Standby,
    /// It was set apart: no Deployment's any more, and no Service's.
    Apart,
    /// Our dark probe.
    Probe,
    /// Selected by the same labels, and somebody else's.
    Other,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    pub name: Arc<str>,
    pub held: Version,
    pub of: Of,
    /// The revision that it is of, by its annotation, else its label.
    pub revision: Option<Arc<str>>,
    /// `pod-template-hash`.
    pub template_hash: Option<Arc<str>>,
    pub labels: Map,
    pub created: Timestamp,
    /// Condition `Ready`, all gates counted.
    pub ready: bool,
    /// Condition `ContainersReady`.
    pub containers_ready: bool,
    /// Since when it is ready.
    pub ready_since: Option<Timestamp>,
    pub deleting: bool,
    /// Why it will not start by itself: `ImagePullBackOff`, `CrashLoopBackOff`, `CreateContainerError`, `Unschedulable`, …
    pub trouble: Option<Arc<str>>,
    pub node: Arc<str>,
    pub ip: Option<Arc<str>>,
    /// Since when it is set apart, from its annotation.
    pub apart_since: Option<Timestamp>,
    /// It names a controller: the ReplicaSet that made it counts it, and takes the reference off once it has noticed that the pod is its own no more.
    pub counted: bool,
    /// `controller.kubernetes.io/pod-deletion-cost`.
    pub deletion_cost: Option<i32>,
    /// What it shows without being asked: image, injection status, discovery address, as far as verification reads them.
    pub shows: Shows,
}

impl Pod {
    /// It is set apart, and its ReplicaSet has not noticed.
    pub fn is_unnoticed(&self) -> bool {
        self.of == Of::Apart && self.counted && !self.deleting
    }
}

/// What a pod's own spec tells of its proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shows {
    /// Image of `istio-proxy`.
    pub image: Arc<str>,
    /// Revision in `sidecar.istio.io/status`.
    pub injected_by: Option<Arc<str>>,
    /// Host of the istiod that it is told to dial, and that it gets certificates of.
    pub discovery: Option<Arc<str>>,
    pub ca: Option<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub name: Arc<str>,
    pub held: Version,
    pub selector: Map,
    /// `externalTrafficPolicy: Local`.
    pub local: bool,
    /// Numbers of the ports that pods must answer, resolved for the new template.
    pub target_ports: Vec<u16>,
    pub ingress: Vec<String>,
    /// Uids of pods that are ready endpoints.
    pub endpoints: Vec<Arc<str>>,
    /// The revision with which `istioctl uninstall` would take it along: its label `istio.io/rev`, if it has the label of a component
    /// that is pruned.
    pub pruned_with: Option<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Hpa {
    pub name: Arc<str>,
    pub held: Version,
    /// Name of the Deployment that it scales.
    pub target: Arc<str>,
    pub min: u32,
    pub max: u32,
    pub desired: u32,
    /// Condition `ScalingActive`; `None` before it was looked at.
    pub active: Option<bool>,
    /// An owner that would put back what we change: KEDA's ScaledObject.
    pub owned: bool,
    /// As of a Deployment.
    pub written: bool,
    /// As of a Service.
    pub pruned_with: Option<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Pdb {
    pub name: Arc<str>,
    pub held: Version,
    pub selector: Map,
    pub disruptions_allowed: u32,
    /// As of a Service.
    pub pruned_with: Option<Arc<str>>,
}

/// The mesh configuration `istio-<rev>` in the control plane's namespace, and its copy beside the gateway.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// A gateway of another namespace mounts it: a copy is needed.
    pub needed: bool,
    /// Name of both.
    pub name: Arc<str>,
    /// Hash of the original's data; `None`: it is not there.
    pub original: Option<Arc<str>>,
    pub copy: Option<Copy>,
    /// The copy of the old revision's, which an earlier rollout has made and nothing mounts any more, but for pods that end.
    pub former: Option<Former>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Former {
    pub name: Arc<str>,
    pub held: Version,
    /// Pods that mount it are being deleted.
    pub ending: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Copy {
    pub held: Version,
    /// Hash of its data.
    pub hash: Arc<str>,
    /// It carries this rollout's label.
    pub ours: bool,
    /// A Deployment mounts it that is none of this rollout's.
    pub shared: bool,
}

/// A revision's istiod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControlPlane {
    /// There is one; `false` once it was removed.
    pub installed: bool,
    /// Ready endpoints behind its Service, and an injector that leads there (where the flavour needs one).
    pub ready: bool,
    /// Why not.
    pub why: String,
    pub namespace: Arc<str>,
    /// From its image.
    pub version: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Preflight does not pass.
    Block,
    Warn,
}

/// What a guard has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its name, as in `spec.acknowledge`.
    pub guard: &'static str,
    pub severity: Severity,
    /// `Kind/namespace/name`.
    pub object: String,
    pub what: String,
    pub why: String,
    /// A command that works when pasted, or a sentence.
    pub fix: String,
}

/// One dry-run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DryRun {
    /// `Kind/name`.
    pub object: String,
    /// What the API server said against it.
    pub refused: Option<String>,
}

/// What is known of a pod beyond its object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    /// What its Envoy says; `None`: it could not be asked.
    pub stats: Option<Stats>,
    /// What it said the time before, to this process; see [`Evidence::after`].
    pub earlier: Option<Stats>,
    /// What it said when a rejection of listeners or clusters was last noticed by this process.
    pub rejection: Option<Stats>,
    /// Target ports that did not answer; `None`: nobody tried.
    pub closed_ports: Option<Vec<u16>>,
    /// HTTP probes that it failed, in words; `None`: nobody tried.
    pub failed_probes: Option<Vec<String>>,
    /// What istiods say of it; `None`: they could not be asked, or do not know.
    pub synced: Option<Synced>,
}

/// What istiods say of a proxy that should be the new revision's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Synced {
    /// It is connected to one of the new revision, and has accepted what it was sent.
    Acked,
    /// It is connected there, and has refused something or does not answer: what, in words.
    Waiting(String),
    /// It is connected to one of the old revision.
    Elsewhere,
}

/// Envoy's statistics, of `:15090/stats/prometheus`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// `envoy_server_state`; 0 is live.
    pub state: u64,
    pub lds_success: u64,
    pub lds_rejected: u64,
    pub cds_success: u64,
    pub cds_rejected: u64,
    pub listeners_active: u64,
    pub listeners_warming: u64,
    /// `envoy_server_total_connections`: as it was at some moment of the 5 s before, because Envoy counts no more often.
    pub connections: u64,
    /// When it was asked.
    pub at: Timestamp,
}

/// How far a pod was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verified {
    /// To this level, which is enough.
    Yes(Level),
    NotYet(String),
    /// It will not become better by itself: its listeners are rejected.
    No(String),
}

/// What Prometheus says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// Nobody asked for one.
    #[default]
    Off,
    /// Nothing fires, since then.
    Quiet(Timestamp),
    Firing(Vec<Alert>),
    /// It could not be asked, or cannot be believed: why, and how often in a row.
    Unknown {
        why: String,
        times: u32,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alert {
    pub name: String,
    pub severity: String,
    /// Of its labels without those that change when a pod is replaced.
    pub fingerprint: String,
    /// Label `revguard_action="abort"`.
    pub aborts: bool,
}

/// One evaluation of a metric check.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricResult {
    pub name: String,
    pub outcome: Outcome,
    pub value: Option<f64>,
    /// In words.
    pub message: String,
    pub at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    Passed,
    Failed,
    /// Nothing, not a number, several, or too few samples.
    Inconclusive,
}
