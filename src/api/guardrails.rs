//! What holds a rollout: alerts and metrics of a Prometheus, and what follows from them.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::{Duration, minutes, seconds};

/// What holds a rollout.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.source) || !has(self.alerts) && (!has(self.metrics) || self.metrics.size() == 0)").message("alerts and metrics need a source to be asked of"),
)]
pub struct Guardrails {
    /// Where to ask; without it there are neither alerts nor metrics to hold it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alerts: Option<Alerts>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(
        validation = Rule::new("self.all(m, self.filter(n, n.name == m.name).size() == 1)").message("two metrics of one name could not be told apart"),
    )]
    pub metrics: Vec<Metric>,
    /// What follows when Prometheus cannot be asked three times in a row.
    #[serde(default)]
    pub on_unavailable: OnUnavailable,
    /// The longest pause; `0s` is forever.
    #[serde(default)]
    pub max_pause: Duration,
    #[serde(default)]
    pub on_pause_timeout: OnPauseTimeout,
}

/// Exactly one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.prometheusRef) != has(self.url)").message("exactly one of prometheusRef and url"),
)]
pub struct Source {
    /// A PrometheusSource, which may have credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus_ref: Option<Named>,
    /// A Prometheus that needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = r"^https?://"))]
    pub url: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Alerts {
    /// Matchers of the series `ALERTS`, as PromQL writes them between braces.
    #[schemars(length(min = 1, max = 10), inner(length(min = 1, max = 256)))]
    pub matchers: Vec<String>,
    /// Names of alerts that never hold it.
    #[schemars(length(max = 50), inner(length(min = 1, max = 128)))]
    pub exclude: Vec<String>,
    /// What about those that fire before it starts.
    pub at_start: AtStart,
    pub on_firing: Reaction,
    /// How long it must be quiet before it goes on.
    pub resume_after: Duration,
    /// An alert that always fires: when it does not, nothing is known. Empty: off.
    #[schemars(length(max = 128))]
    pub heartbeat: String,
}

impl Default for Alerts {
    fn default() -> Self {
        Alerts {
            matchers: vec![r#"severity=~"critical|page""#.to_owned()],
            exclude: vec!["Watchdog".to_owned(), "InfoInhibitor".to_owned()],
            at_start: AtStart::default(),
            on_firing: Reaction::default(),
            resume_after: Duration::from_mins(5),
            heartbeat: String::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
pub enum AtStart {
    #[default]
    Block,
    IgnoreExisting,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.max) || has(self.min)").message("a metric needs max or min, or it could never fail"),
    validation = Rule::new("duration(self.interval) > duration('0s')").message("interval must be longer than 0s"),
    validation = Rule::new("duration(self.window) > duration('0s')").message("window must be longer than 0s"),
)]
pub struct Metric {
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// PromQL; `.namespace`, `.newWorkload`, `.oldWorkload` and `.window`, each between two pairs of braces, are filled in.
    #[schemars(length(min = 1, max = 4096))]
    pub query: String,
    /// Fails above this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Fails below this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// How much was measured; too little says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub min_samples_query: Option<String>,
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub min_samples: f64,
    #[serde(default = "minutes::<2>")]
    pub window: Duration,
    #[serde(default = "seconds::<30>")]
    pub interval: Duration,
    /// Failures that are tolerated in a step.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub failure_limit: u32,
    #[serde(default)]
    pub on_failure: Reaction,
    #[serde(default)]
    pub on_inconclusive: OnUnavailable,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
pub enum Reaction {
    #[default]
    Pause,
    Abort,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
pub enum OnUnavailable {
    #[default]
    Pause,
    Continue,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
pub enum OnPauseTimeout {
    #[default]
    Hold,
    Abort,
}

/// An object of this namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Named {
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}
