//! How a gateway is moved: the flavor of its proxy, steps and their weights, room for new pods, how old ones leave.
//!
//! Both what a person asks for and what the controller has decided are said in these words, so they stand below both. Nothing here
//! says where a rollout is.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::{Duration, minutes, seconds};

/// How a gateway gets its proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
pub enum Flavor {
    /// Told by the template.
    #[default]
    Auto,
    /// Image and mesh configuration stand in the template: IstioOperator files.
    ConfigMapMount,
    /// The image is `auto` and the injector fills it in: the Helm chart `gateway`.
    Injected,
    /// istiod renders it for a Gateway API Gateway.
    GatewayAPI,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.type != 'PausedRolling' || self.promotion == 'Auto'").message("PausedRolling changes the Deployment itself: there is nothing to promote"),
    validation = Rule::new("self.capacity.mode != 'Constrained' || has(self.capacity.maxSurge)").message("capacity.mode Constrained needs capacity.maxSurge"),
)]
pub struct Strategy {
    #[serde(rename = "type", default)]
    pub type_: StrategyType,
    /// What the gateway is called in the end.
    #[serde(default)]
    pub promotion: Promotion,
    #[serde(default)]
    pub capacity: Capacity,
    /// Weights rise strictly and end with 100; the first step may be a number of replicas instead.
    #[schemars(length(min = 1, max = 20))]
    #[x_kube(
        validation = Rule::new("self.filter(s, has(s.weight)).map(s, s.weight).isSorted()").message("weights must rise"),
        validation = Rule::new("self.filter(s, has(s.weight)).all(s, self.filter(t, has(t.weight) && t.weight == s.weight).size() == 1)").message("weights must rise strictly"),
        validation = Rule::new("has(self[self.size()-1].weight) && self[self.size()-1].weight == 100").message("the last step has the weight 100"),
        validation = Rule::new("self.filter(s, has(s.replicas)).size() == 0 || (has(self[0].replicas) && self.filter(s, has(s.replicas)).size() == 1)").message("only the first step may name replicas instead of a weight"),
        validation = Rule::new("self.all(s, self.filter(t, t.name == s.name).size() == 1)").message("approvals name steps: two of one name could not be told apart"),
    )]
    #[serde(default = "steps")]
    pub steps: Vec<Step>,
    #[serde(default)]
    pub drain: Drain,
}

impl Default for Strategy {
    fn default() -> Self {
        Strategy {
            type_: StrategyType::default(),
            promotion: Promotion::default(),
            capacity: Capacity::default(),
            steps: steps(),
            drain: Drain::default(),
        }
    }
}

/// One pod first, then a quarter, a half, three quarters, all.
fn steps() -> Vec<Step> {
    let step = |name: &str, replicas, weight, soak| Step {
        name: name.to_owned(),
        replicas,
        weight,
        soak: Duration::from_mins(soak),
        approval: Approval::None,
    };
    vec![
        step("first-pod", Some(1), None, 5),
        step("quarter", None, Some(25), 10),
        step("half", None, Some(50), 15),
        step("most", None, Some(75), 10),
        step("all", None, Some(100), 30),
    ]
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
pub enum StrategyType {
    /// A second Deployment behind the same Service.
    #[default]
    ParallelDeployment,
    /// The Deployment itself, paused between steps. Promises nothing beyond the pods' own drain.
    PausedRolling,
}

/// What the gateway is called in the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
pub enum Promotion {
    /// `AwaitExternal` if Helm, Argo CD or Flux owns the Deployment, else `PatchOriginal`.
    #[default]
    Auto,
    /// The new Deployment keeps its name with the revision behind it; the old one stays as standby.
    KeepRevisioned,
    /// The original Deployment gets the new revision and takes over.
    PatchOriginal,
    /// The same, once whoever owns the original has changed it.
    AwaitExternal,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Capacity {
    pub mode: CapacityMode,
    /// Pods above the old number, as a count or a percentage; only `Constrained`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_surge: Option<Share>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
pub enum CapacityMode {
    /// Twice the pods at the peak.
    #[default]
    FullSurge,
    /// At most `maxSurge` pods more than before.
    Constrained,
    /// Somebody else scales both Deployments; revguard only waits and verifies.
    Manual,
}

/// A number of pods or a part of all of them: `2`, `"25%"`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Share {
    Count(u32),
    Percent(String),
}

impl JsonSchema for Share {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "x-kubernetes-int-or-string": true,
            "minimum": 1,
            "maximum": 9999,
            "pattern": "^([1-9][0-9]{0,3}|([1-9][0-9]?|100)%)$",
            "maxLength": 4,
        })
    }
}

impl Share {
    /// Of so many pods, at least one.
    pub fn of(&self, pods: u32) -> u32 {
        match self {
            Share::Count(n) => (*n).max(1),
            Share::Percent(text) => {
                let number: u32 = text.trim_end_matches('%').parse().unwrap_or(0);
                let part = || (u64::from(pods) * u64::from(number.min(100))).div_ceil(100);
                let all = if text.ends_with('%') { u32::try_from(part()).unwrap_or(pods) } else { number };
                all.max(1)
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.weight) != has(self.replicas)").message("a step has either a weight or replicas"),
    validation = Rule::new("self.name != 'resume'").message("resume is what ends a pause, not a step"),
)]
pub struct Step {
    #[schemars(length(min = 1, max = 40), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// Part of the ready pods that are new, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub weight: Option<u32>,
    /// So many new pods beside all old ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: Option<u32>,
    /// How long the step is watched once its pods are verified.
    #[serde(default = "minutes::<5>")]
    pub soak: Duration,
    #[serde(default)]
    pub approval: Approval,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
pub enum Approval {
    #[default]
    None,
    /// Somebody who may `approve` gatewayrollouts has to say so before the next step.
    Required,
}

/// How old pods leave.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("duration(self.interval) >= duration(self.lbDrainDelay)").message("interval must be at least lbDrainDelay"),
)]
pub struct Drain {
    #[serde(default)]
    pub mode: DrainMode,
    /// Pods that leave at a time; at least one.
    #[serde(default = "quarter")]
    pub batch: Share,
    /// From one batch to the next.
    #[serde(default = "seconds::<60>")]
    pub interval: Duration,
    /// How long load balancers may go on sending to a pod that is no endpoint any more.
    #[serde(default = "seconds::<30>")]
    pub lb_drain_delay: Duration,
    /// A pod set apart is deleted when its connections are gone, at the latest then.
    #[serde(default = "minutes::<10>")]
    pub max_wait: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Drain {
            mode: DrainMode::default(),
            batch: quarter(),
            interval: Duration::from_secs(60),
            lb_drain_delay: Duration::from_secs(30),
            max_wait: Duration::from_mins(10),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
pub enum DrainMode {
    /// A pod leaves its Service first, finishes what it has, and is then deleted.
    #[default]
    SetApart,
    /// A pod is told to stop, and drains as long as it drains by itself.
    Terminate,
}

fn quarter() -> Share {
    Share::Percent("25%".to_owned())
}
