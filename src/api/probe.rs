//! What a rollout proves before it sends traffic, and how much has to be known of a pod before it counts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::Duration;

/// What is proven before traffic.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Probe {
    pub mode: ProbeMode,
    pub timeout: Duration,
    /// Requests that the probe pod must answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub http: Vec<HttpProbe>,
}

impl Default for Probe {
    fn default() -> Self {
        Probe { mode: ProbeMode::default(), timeout: Duration::from_secs(120), http: Vec::new() }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
pub enum ProbeMode {
    /// A pod of the new revision that no Service ever sends anything to.
    #[default]
    DarkPod,
    /// Only what the API server and the injector say of it.
    DryRunOnly,
    None,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpProbe {
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    #[serde(default)]
    pub scheme: Scheme,
    /// Host header, and SNI of HTTPS.
    #[schemars(length(min = 1, max = 253))]
    pub host: String,
    #[serde(default = "root")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^/"))]
    pub path: String,
    /// Default: 200 to 399.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(range(min = 100, max = 599)))]
    pub expect_status: Vec<u16>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
pub enum Scheme {
    #[default]
    HTTP,
    HTTPS,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Verification {
    pub level: Level,
    /// What is enough where neither the pods nor istiod can be asked.
    pub allow_degrade_to: Level,
}

impl Default for Verification {
    fn default() -> Self {
        Verification { level: Level::XdsConnected, allow_degrade_to: Level::Discovery }
    }
}

/// How much is known of a pod, from little to all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
pub enum Level {
    /// Its label or annotation names the revision.
    Label,
    /// The injector of the revision made it, with the image that was expected.
    Injected,
    /// It is told to dial that revision's istiod.
    Discovery,
    /// Its Envoy has accepted what that istiod sent, and its ports answer.
    #[default]
    XdsConnected,
}

fn root() -> String {
    "/".to_owned()
}
