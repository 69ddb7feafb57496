//! `MeshState`: what the last audit saw, as one object that a person or a GitOps tool can ask for and wait on.
//!
//! It holds counts and a few names, never a list that grows with the mesh, and nothing that changes when the mesh does
//! not: an object that is written every half minute costs etcd more than it tells.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The one object's name.
pub const NAME: &str = "mesh";

/// The mesh as revguard's controller sees it. There is one object, `mesh`; the controller writes its status.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "revguard.dev",
    version = "v1alpha1",
    kind = "MeshState",
    plural = "meshstates",
    shortname = "ms",
    category = "istio-io",
    status = "MeshStateStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name": "Revisions", "type": "string", "jsonPath": ".status.summary.revisions"}"#,
    printcolumn = r#"{"name": "Tags", "type": "string", "jsonPath": ".status.summary.tags"}"#,
    printcolumn = r#"{"name": "Validator", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"ValidatorSingle\")].reason"}"#,
    printcolumn = r#"{"name": "Injectors", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"InjectorsUnambiguous\")].reason"}"#,
    printcolumn = r#"{"name": "Critical", "type": "integer", "jsonPath": ".status.findings.critical"}"#,
    printcolumn = r#"{"name": "Errors", "type": "integer", "jsonPath": ".status.findings.error"}"#,
    printcolumn = r#"{"name": "Warnings", "type": "integer", "jsonPath": ".status.findings.warning"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct MeshStateSpec {}

/// What the last audit saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshStateStatus {
    /// The generation of this object that the conditions are about.
    pub observed_generation: i64,
    /// `ValidatorSingle`, `InjectorsUnambiguous`, `AuditClean`, and `GuardInForce` where the admission policy is installed.
    pub conditions: Vec<Condition>,
    /// Names at a glance, for `kubectl get`.
    pub summary: Summary,
    /// Control planes, at most 50.
    pub revisions: Vec<RevisionState>,
    /// Revision tags, at most 100.
    pub tags: Vec<TagState>,
    /// Webhook configurations that judge Istio's configuration, at most 50.
    pub validators: Vec<ValidatorState>,
    /// How many findings stand, by level.
    pub findings: Findings,
    /// What could not be looked at, at most 20.
    pub unknown: Vec<String>,
}

/// As `metav1.Condition`; `lastTransitionTime` changes only with `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    #[serde(default)]
    pub observed_generation: i64,
    pub last_transition_time: String,
    pub reason: String,
    pub message: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Summary {
    pub revisions: String,
    pub tags: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RevisionState {
    pub name: String,
    /// From the image or the custom resource; absent if neither tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// An istiod of it is in the cluster.
    pub installed: bool,
    /// Namespaces, templates and pods asking for nothing in particular go here.
    pub is_default: bool,
    /// Ready endpoints of its istiod; absent if it is elsewhere or not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<u32>,
    /// Namespaces that ask for it, by its name or through a tag.
    pub namespaces: u32,
    /// Running pods with its sidecar.
    pub workload_pods: u32,
    /// Running pods of gateways.
    pub gateway_pods: u32,
    /// Gateways that attach to it.
    pub gateways: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TagState {
    pub name: String,
    /// The revision behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// An injector answers to it.
    pub served: bool,
    /// Namespaces that ask for it by its name.
    pub namespaces: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ValidatorState {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// `namespace/name` of its Service, or its URL.
    pub backend: String,
    /// It judges what names no revision.
    pub catch_all: bool,
    pub failure_policy: String,
    /// Nobody answers behind it.
    pub dangling: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Findings {
    pub critical: u32,
    pub error: u32,
    pub warning: u32,
    pub info: u32,
}
