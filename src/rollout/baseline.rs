//! The gateway as it was before the first change: what is gone back to, and what nobody else may have changed meanwhile.

use super::look::Look;
use super::seen::{Deployment, Hpa, Map, Service};
use crate::api::rollout_status::{Baseline, DeploymentBaseline, HpaBaseline, ServiceBaseline};

/// What is written down of a gateway; `None`: its Deployment is not there.
pub fn capture(look: &Look) -> Option<Baseline> {
    let source = look.seen.source.as_ref()?;
    Some(Baseline {
        captured_at: look.now.to_string(),
        replicas: look.floor(),
        deployment: deployment(source),
        hpa: look.hpa().map(autoscaler),
        services: services(look),
    })
}

pub fn services(look: &Look) -> Vec<ServiceBaseline> {
    let one = |s: &Service| ServiceBaseline {
        name: s.name.to_string(),
        uid: s.held.uid.to_string(),
        selector: selector(&s.selector),
        ingress: s.ingress.clone(),
    };
    look.seen.services.iter().map(one).collect()
}

fn deployment(source: &Deployment) -> DeploymentBaseline {
    DeploymentBaseline {
        name: source.name.to_string(),
        uid: source.held.uid.to_string(),
        template_hash: source.template.hash.to_string(),
        template: source.template.body.to_string(),
        paused: source.paused,
        min_ready_seconds: source.min_ready_seconds,
        strategy: if source.strategy.is_null() { String::new() } else { source.strategy.to_string() },
    }
}

pub fn autoscaler(hpa: &Hpa) -> HpaBaseline {
    HpaBaseline {
        name: hpa.name.to_string(),
        uid: hpa.held.uid.to_string(),
        min_replicas: hpa.min,
        max_replicas: hpa.max,
        target: hpa.target.to_string(),
        active: hpa.active != Some(false),
    }
}

/// The same with what the Deployment says by now, because somebody has accepted that.
pub fn refreshed(baseline: &Baseline, source: &Deployment) -> Baseline {
    let mut fresh = deployment(source);
    // Those are ours while an update in place runs.
    (fresh.paused, fresh.min_ready_seconds) = (baseline.deployment.paused, baseline.deployment.min_ready_seconds);
    fresh.strategy.clone_from(&baseline.deployment.strategy);
    Baseline { deployment: fresh, ..baseline.clone() }
}

/// `key=value`, sorted, separated by commas.
pub fn selector(labels: &Map) -> String {
    labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
}
