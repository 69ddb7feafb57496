//! `PrometheusSource`: where alerts and metrics are asked for, once for the whole cluster, so that credentials stay out of the
//! namespaces in which people write rollouts.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::Duration;

/// A Prometheus, or what answers like one (Thanos, Mimir, VictoriaMetrics), or an Alertmanager.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "revguard.dev",
    version = "v1alpha1",
    kind = "PrometheusSource",
    plural = "prometheussources",
    shortname = "promsrc",
    category = "istio-upgrade",
    derive = "PartialEq",
    printcolumn = r#"{"name": "Type", "type": "string", "jsonPath": ".spec.type"}"#,
    printcolumn = r#"{"name": "URL", "type": "string", "jsonPath": ".spec.url"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.bearerTokenKey) || self.url.startsWith('https://')").message("a token is sent over https only"),
)]
pub struct PrometheusSourceSpec {
    /// Its base, without `/api`.
    #[schemars(length(min = 8, max = 512), regex(pattern = r"^https?://[^/]"))]
    pub url: String,
    #[serde(rename = "type", default)]
    pub type_: SourceType,
    /// The key of a bearer token in the Secret `<release>-prometheus` of revguard's own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub bearer_token_key: Option<String>,
    /// CAs of its certificate, in PEM. The image carries no CAs of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub ca_bundle: Option<String>,
    /// Sent along, for a tenant for example.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub headers: Vec<Header>,
    /// The longest that one query may take; more than `1m` counts as that.
    #[serde(default = "ten_seconds")]
    pub timeout: Duration,
    /// What about an answer that says of itself that it is not whole.
    #[serde(default)]
    pub partial_response: Partial,
}

/// A header of every request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Header {
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9-]+$"))]
    pub name: String,
    #[schemars(length(min = 1, max = 1024))]
    pub value: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum SourceType {
    /// Alerts are asked for as the series `ALERTS`; knows no silences.
    #[default]
    Prometheus,
    /// Alerts only, without those that are silenced or inhibited.
    Alertmanager,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Partial {
    /// It is no answer.
    #[default]
    Deny,
    Allow,
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}
