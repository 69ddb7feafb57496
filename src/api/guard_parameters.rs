//! `GuardParameters`: what the admission policy over webhook configurations is told.
//!
//! A kind of our own and no ConfigMap, because an API server forgets the kinds that it has by itself: once the last binding
//! of an admission policy with ConfigMaps for parameters has gone, it never reads one for that again until it is restarted
//! (kubernetes/kubernetes#130887). Kinds that came with a definition it begins to read anew.
//!
//! It says no more than what CEL can look up; who wants to know how the mesh is asks for the MeshState.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the admission policy over webhook configurations is told. There is one object, named after the release; the
/// controller writes it, always as a whole. Where it is missing or empty nothing is refused.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "revguard.dev",
    version = "v1alpha1",
    kind = "GuardParameters",
    plural = "guardparameters",
    namespaced,
    derive = "PartialEq",
    printcolumn = r#"{"name": "Validators", "type": "string", "jsonPath": ".spec.validators"}"#,
    printcolumn = r#"{"name": "Known", "type": "date", "jsonPath": ".spec.asOf"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", default)]
// What somebody adds by hand goes with the next write.
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct GuardParametersSpec {
    /// When all of this was seen to be so. A controller that runs says it anew every five minutes; no text means that it was
    /// written by a version that did not say it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub as_of: String,
    /// Names of the ValidatingWebhookConfigurations that may judge Istio configuration which names no revision.
    pub validators: Vec<String>,
    /// `namespace/name` of the Services of control planes and tags behind which somebody answers. Absent: not known, and
    /// nothing is refused because of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backends: Option<Vec<String>>,
    /// What may not be deleted.
    pub kept: Kept,
}

/// Webhook configurations that may not be deleted, by name; the text is what a person reads who tries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Kept {
    pub mutating: BTreeMap<String, String>,
    pub validating: BTreeMap<String, String>,
}
