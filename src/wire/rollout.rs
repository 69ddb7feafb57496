//! GatewayRollouts, reduced to what rules read. What is left out means what the API server would put in its place.
//!
//! Lean on purpose: a field or a value of a later version is skipped here, where the controller would refuse the whole. An
//! active rollout that nobody can read would protect nothing.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::meta::ObjectMeta;
use super::tree::{Scalar, list, or_default};
use crate::api::Duration;
use crate::api::gateway_rollout::{
    Approval, CapacityMode, Flavor, Promotion, Step as ApiStep, Strategy as ApiStrategy, StrategyType,
};
use crate::api::rollout_status::Phase;
use crate::model::{self, Object, RolloutState, RolloutStep, RolloutTarget, Str};

#[derive(Deserialize)]
pub struct GatewayRollout {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default, deserialize_with = "or_default")]
    spec: Spec,
    #[serde(default, deserialize_with = "or_default")]
    status: Status,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    #[serde(deserialize_with = "or_default")]
    target: Target,
    #[serde(deserialize_with = "list")]
    services: Vec<Str>,
    from_revision: Option<Str>,
    to_revision: Str,
    flavor: Option<Str>,
    #[serde(deserialize_with = "or_default")]
    strategy: Strategy,
    abort: Option<bool>,
    dry_run: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Target {
    deployment: Option<Named>,
    gateway: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    name: Str,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Strategy {
    r#type: Option<Str>,
    promotion: Option<Str>,
    #[serde(deserialize_with = "or_default")]
    capacity: Capacity,
    steps: Option<Vec<Step>>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Capacity {
    mode: Option<Str>,
    max_surge: Option<Scalar>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Step {
    name: Str,
    weight: Option<u32>,
    replicas: Option<u32>,
    soak: Option<Str>,
    approval: Option<Str>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    phase: Str,
    from_revision: Option<Str>,
    promotion: Option<Str>,
    step: Option<StepStatus>,
    baseline: Option<Baseline>,
    #[serde(deserialize_with = "list")]
    conditions: Vec<Condition>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct StepStatus {
    index: u32,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Baseline {
    #[serde(deserialize_with = "list")]
    services: Vec<Named>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Condition {
    r#type: Str,
    status: Str,
}

/// The name of a type's default, as the schema has it.
fn default_of<T: Serialize + Default>() -> Str {
    serde_json::to_value(T::default()).ok().and_then(|v| v.as_str().map(Str::from)).unwrap_or_default()
}

/// One duration, however it is written: `60s` and `1m` are the same.
fn duration(text: &str) -> String {
    text.parse::<Duration>().map_or_else(|_| text.to_owned(), |d| d.to_string())
}

fn step(name: Str, (weight, replicas): (Option<u32>, Option<u32>), soak: &str, approval: bool) -> RolloutStep {
    let mut what = String::new();
    for (word, number) in [("weight", weight), ("replicas", replicas)] {
        if let Some(n) = number {
            let _ = write!(what, "{word} {n}, ");
        }
    }
    let _ = write!(what, "soak {}", duration(soak));
    RolloutStep { name, what: what.into(), approval }
}

/// The API server's default of a step's soak.
const SOAK: &str = "5m";

impl From<Step> for RolloutStep {
    fn from(s: Step) -> RolloutStep {
        let approval = s.approval.as_deref() == Some("Required");
        step(s.name, (s.weight, s.replicas), s.soak.as_deref().unwrap_or(SOAK), approval)
    }
}

fn default_steps() -> Vec<RolloutStep> {
    let of = |s: ApiStep| {
        let approval = s.approval == Approval::Required;
        step(s.name.into(), (s.weight, s.replicas), &s.soak.to_string(), approval)
    };
    ApiStrategy::default().steps.into_iter().map(of).collect()
}

/// A phase of a later version has the gateway in its hands: what is not understood is protected.
fn state(phase: &str) -> RolloutState {
    if phase.is_empty() {
        return RolloutState::Waiting;
    }
    match Phase::ALL.into_iter().find(|p| p.as_str() == phase) {
        Some(Phase::Pending | Phase::Planned | Phase::Preflight) => RolloutState::Waiting,
        Some(Phase::Completed) => RolloutState::Completed,
        Some(Phase::Promoting) => RolloutState::Promoting,
        Some(Phase::RollingBack) => RolloutState::RollingBack,
        Some(phase) if phase.is_over() => RolloutState::Ended,
        _ => RolloutState::Active,
    }
}

impl From<GatewayRollout> for Object {
    fn from(r: GatewayRollout) -> Object {
        let GatewayRollout { mut metadata, spec, status } = r;
        let uid = std::mem::take(&mut metadata.uid);
        let target = match (spec.target.deployment, spec.target.gateway) {
            (Some(d), None) => RolloutTarget::Deployment(d.name),
            (None, Some(g)) => RolloutTarget::Gateway(g.name),
            _ => RolloutTarget::Unclear,
        };
        let mode = spec.strategy.capacity.mode.unwrap_or_else(default_of::<CapacityMode>);
        let manual = mode == "Manual";
        let capacity = match &spec.strategy.capacity.max_surge {
            Some(surge) if !surge.0.is_empty() => Str::from(format!("{mode} with maxSurge {}", surge.0)),
            _ => mode,
        };
        let promotion = spec.strategy.promotion.unwrap_or_else(default_of::<Promotion>);
        let named: Vec<&str> = spec.services.iter().map(Str::as_str).collect();
        let parts = [
            spec.strategy.r#type.unwrap_or_else(default_of::<StrategyType>),
            capacity,
            promotion.clone(),
            spec.flavor.unwrap_or_else(default_of::<Flavor>),
            Str::from(named.join(", ")),
        ];
        let baseline: Option<Vec<Str>> = status.baseline.map(|b| b.services.into_iter().map(|s| s.name).collect());
        let baseline = baseline.filter(|services| !services.is_empty());
        Object::Rollout(Box::new(model::Rollout {
            meta: metadata.into(),
            uid,
            target,
            from: spec.from_revision.filter(|r| !r.is_empty()).or(status.from_revision),
            to: spec.to_revision,
            steps: spec.strategy.steps.map_or_else(default_steps, |s| s.into_iter().map(Into::into).collect()),
            fixed: model::Rollout::FIXED.into_iter().zip(parts).collect(),
            manual,
            promotion: status.promotion.unwrap_or(promotion),
            dry_run: spec.dry_run == Some(true),
            abort: spec.abort == Some(true),
            state: state(&status.phase),
            step: status.step.map(|s| s.index),
            noted: baseline.is_some(),
            services: baseline.unwrap_or(spec.services),
            way_back: status.conditions.iter().any(|c| c.r#type == "RollbackAvailable" && c.status == "True"),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;
    use crate::wire::read_str;

    fn read(json: &str) -> model::Rollout {
        match read_str(Kind::GatewayRollout, json).unwrap() {
            Object::Rollout(rollout) => *rollout,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_left_out_reads_like_what_the_api_server_puts_in() {
        use crate::api::GatewayRollout as Typed;
        let least = r#"{"apiVersion":"revguard.dev/v1alpha1","kind":"GatewayRollout","metadata":{"name":"a","namespace":"b"},
            "spec":{"target":{"deployment":{"name":"igw"}},"toRevision":"1-24"}}"#;
        let typed: Typed = serde_json::from_str(least).unwrap();
        let stored = serde_json::to_string(&typed).unwrap();
        assert!(stored.contains("first-pod"), "{stored}");
        assert_eq!(read(least), read(&stored));
        assert_eq!(read(least).steps[2].what, "weight 50, soak 15m");
    }

    #[test]
    fn one_duration_is_the_same_however_it_is_written() {
        let of = |soak: &str| {
            read(&format!(r#"{{"spec":{{"strategy":{{"steps":[{{"name":"a","weight":100,"soak":"{soak}"}}]}}}}}}"#))
                .steps
        };
        assert_eq!(of("90s"), of("1m30s"));
        assert_ne!(of("90s"), of("91s"));
        assert_eq!(of("soon")[0].what, "weight 100, soak soon");
    }

    #[test]
    fn what_is_not_understood_is_protected() {
        let of =
            |phase: &str| read(&format!(r#"{{"status":{{"phase":"{phase}","news":[1]}},"spec":{{"news":{{}}}}}}"#));
        assert!(of("Fabulating").is_active());
        assert!(!of("").is_active() && !of("").is_over());
        for phase in Phase::ALL {
            let read = of(phase.as_str());
            assert_eq!((read.is_active(), read.is_over()), (phase.is_active(), phase.is_over()), "{phase:?}");
        }
    }
}
