//! Whether there is room for the new pods beside the old ones.

use serde_json::Value;

use super::{Found, Guard, Scene};
use crate::api::gateway_rollout::{CapacityMode, StrategyType};
use crate::rollout::read::Listed;
use crate::rollout::read::fresh::{labels, selector};
use crate::rollout::read::json::Json;
use crate::rollout::seen::{Of, Severity};

pub(super) const GUARDS: &[Guard] = &[Guard {
    name: "Unschedulable",
    summary: "a quota, a port of the host or a rule of one pod per node may leave no room for the new pods",
    worst: Severity::Warn,
    acknowledge: false,
    check: room,
}];

fn room(scene: &Scene<'_>) -> Vec<Found> {
    if scene.plan.is_none() {
        return Vec::new();
    }
    let extra = surge(scene);
    let mut found = quotas(scene, extra);
    found.extend(one_a_node(scene, extra));
    found
}

/// Pods that there will be more at the peak.
fn surge(scene: &Scene<'_>) -> u32 {
    let strategy = &scene.seen.rollout.spec.strategy;
    let desired = scene.seen.hpas.iter().map(|h| h.desired.max(h.min)).max().unwrap_or(0);
    let pods = scene.source().map_or(0, |s| s.replicas).max(desired).max(1);
    match (strategy.type_, strategy.capacity.mode, &strategy.capacity.max_surge) {
        (StrategyType::PausedRolling, ..) => 1,
        (_, CapacityMode::Constrained, Some(surge)) => surge.of(pods),
        _ => pods,
    }
}

/// Requests and limits of one pod, summed over its containers, as quotas name them.
fn needs(scene: &Scene<'_>) -> Vec<(String, f64)> {
    // What was injected knows its own requests; a template that is still to be injected may not.
    let live = scene.seen.pods.iter().find(|p| p.of == Of::Source);
    let pod = live.and_then(|p| scene.raw.get(Listed::Pods, scene.namespace(), &p.name));
    let spec = pod.map_or(&scene.new["spec"], |p| &p["spec"]);
    let mut all = vec![("pods".to_owned(), 1.0)];
    for (field, prefix) in [("requests", "requests."), ("limits", "limits.")] {
        for resource in ["cpu", "memory"] {
            let each = spec.list("containers").iter().map(|c| &c["resources"][field][resource]);
            let sum: f64 = each.filter_map(quantity).sum();
            if sum > 0.0 {
                all.push((format!("{prefix}{resource}"), sum));
                if field == "requests" {
                    all.push((resource.to_owned(), sum));
                }
            }
        }
    }
    all
}

fn quotas(scene: &Scene<'_>, extra: u32) -> Vec<Found> {
    let needs = needs(scene);
    let mut found = Vec::new();
    for quota in scene.raw.within(Listed::Quotas, scene.namespace()) {
        let status = &quota["status"];
        let hard = if status["hard"].is_object() { &status["hard"] } else { &quota["spec"]["hard"] };
        for (resource, each) in &needs {
            let Some(limit) = quantity(&hard[resource]) else { continue };
            let left = limit - quantity(&status["used"][resource]).unwrap_or(0.0);
            let wanted = each * f64::from(extra);
            if left + 1e-9 >= wanted {
                continue;
            }
            let name = quota.name();
            found.push(Found::warn(scene.object("ResourceQuota", name)).says(
                format!(
                    "ResourceQuota {}/{name} leaves {} of {resource}, and {extra} more pods need {}.",
                    scene.namespace(),
                    shown(left.max(0.0)),
                    shown(wanted)
                ),
                "new pods that do not fit are not created, and the rollout waits at that step.",
                format!(
                    "kubectl describe resourcequota {name} -n {}\n(raise it, or: {})",
                    scene.namespace(),
                    scene.respec("{\"strategy\":{\"capacity\":{\"mode\":\"Constrained\",\"maxSurge\":1}}}")
                ),
            ));
        }
    }
    found
}

fn shown(number: f64) -> String {
    const UNITS: [(&str, f64); 3] = [("Gi", 1_073_741_824.0), ("Mi", 1_048_576.0), ("Ki", 1024.0)];
    let unit = UNITS.iter().find(|(_, size)| number >= 4.0 * size);
    let (value, unit) = unit.map_or((number, ""), |(unit, size)| (number / size, *unit));
    let text = format!("{value:.2}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// A quantity as Kubernetes writes it; `None` where there is none.
fn quantity(value: &Value) -> Option<f64> {
    const UNITS: [(&str, f64); 13] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
    ];
    if let Some(number) = value.as_f64() {
        return Some(number);
    }
    let text = value.as_str()?.trim();
    let unit = UNITS.iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?, *size)));
    let (digits, size) = unit.unwrap_or((text, 1.0));
    digits.parse::<f64>().ok().map(|n| n * size)
}

/// Old and new pods that cannot share a node.
fn one_a_node(scene: &Scene<'_>, extra: u32) -> Vec<Found> {
    let new = labels(&scene.new.labels());
    let spec = &scene.new["spec"];
    let terms = spec["affinity"]["podAntiAffinity"].list("requiredDuringSchedulingIgnoredDuringExecution");
    let old = scene.source().map_or_else(Default::default, |s| labels(&s.template.labels));
    let excludes = terms.iter().any(|term| {
        let host = term.text("topologyKey") == "kubernetes.io/hostname";
        host && selector(&term["labelSelector"]).is_some_and(|s| s.matches(&new) && s.matches(&old))
    });
    let ports = spec.list("containers").iter().flat_map(|c| c.list("ports"));
    let port = ports.filter_map(|p| p["hostPort"].as_u64()).find(|p| *p > 0);
    let why = match (excludes, port) {
        (true, _) => "pods of the gateway must not share a node (podAntiAffinity)".to_owned(),
        (_, Some(port)) => format!("each pod takes port {port} of its node (hostPort)"),
        _ => return Vec::new(),
    };
    let pods = scene.source().map_or(0, |s| s.replicas).max(1).saturating_add(extra);
    vec![Found::warn(scene.named()).says(
        format!("{why}, and at the peak there are {pods} pods."),
        "new pods for which there is no node stay Pending, and the rollout waits at that step.",
        format!(
            "kubectl get nodes\n(with fewer than {pods} for it: add nodes, prefer instead of require, or use capacity.mode Constrained with maxSurge 1)"
        ),
    )]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        let read = |v: Value| quantity(&v);
        assert_eq!(read(json!("100m")), Some(0.1));
        assert_eq!(read(json!(2)), Some(2.0));
        assert_eq!(read(json!("1Gi")), Some(1_073_741_824.0));
        assert_eq!(read(json!("1e3")), Some(1000.0));
        assert_eq!((read(json!("x")), read(Value::Null)), (None, None));
        assert_eq!((shown(0.25), shown(3.0), shown(6.0 * 1_073_741_824.0)), ("0.25".into(), "3".into(), "6Gi".into()));
    }
}
