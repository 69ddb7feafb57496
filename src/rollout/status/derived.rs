//! The part of a status that follows from what was seen: counts, shares, names, findings. Lists of names are bounded; counts are whole.

use crate::api::GatewayRolloutStatus;
use crate::api::rollout_status::{ApartPod, MetricStatus, Phase, PodCounts, PreflightFinding, ResourceStatus, Weights};
use crate::rollout::Plan;
use crate::rollout::capacity::targets;
use crate::rollout::look::Look;
use crate::rollout::seen::{Finding, Of, Pod, Severity, Verified};
use crate::rollout::step::Which;

use super::{Before, said};

/// Names in a list.
const MOST: usize = 50;

pub fn fill(look: &Look, plan: &Plan, before: Before, status: &mut GatewayRolloutStatus) {
    let spec = look.spec();
    status.observed_generation = look.seen.rollout.generation;
    status.state.clone_from(&plan.state);
    let target = spec.target.deployment.as_ref().or(spec.target.gateway.as_ref());
    status.gateway = target.map_or_else(String::new, |t| t.name.clone());
    status.strategy = Some(spec.strategy.type_);
    status.plan.clone_from(&plan.outline);
    if let Some(drain) = &mut status.drain {
        drain.capacity = spec.strategy.capacity.mode;
        let known = before.status.drain.as_ref().filter(|d| d.mode == drain.mode).map(|d| d.why.clone());
        let refused = look.seen.apart_key.as_ref().err().filter(|_| drain.mode != spec.strategy.drain.mode);
        drain.why = known.or_else(|| refused.cloned()).unwrap_or_default();
    }
    if let Some(step) = &mut status.step
        && let Some(named) = spec.strategy.steps.get(step.index as usize)
    {
        step.name.clone_from(&named.name);
        step.display = format!("{}/{} {}", step.index + 1, spec.strategy.steps.len(), named.name);
    }
    let begun = look.memory.baseline.is_some();
    status.weights = begun.then(|| weights(look));
    status.pods = begun.then(|| counts(look));
    status.apart = apart(look);
    status.resources = resources(look);
    status.preflight = findings(look, before);
    status.metrics = metrics(look, before);
}

/// The part of so many that is so many, in percent.
fn percent(part: usize, whole: usize) -> u32 {
    u32::try_from((part * 100).checked_div(whole).unwrap_or(0)).unwrap_or(100)
}

fn weights(look: &Look) -> Weights {
    let desired = match (look.memory.phase, &look.memory.step) {
        (Phase::Promoting | Phase::Finalizing | Phase::Completed, _) => 100,
        (Phase::Progressing | Phase::HandingOver | Phase::Draining, Some(step)) => {
            let step = look.spec().strategy.steps.get(step.index);
            step.map_or(0, |s| {
                let t = targets(look.floor(), s, &look.spec().strategy);
                s.weight.unwrap_or_else(|| percent(t.new as usize, (t.new + t.old) as usize))
            })
        }
        _ => 0,
    };
    let ready = |p: &&Pod| look.is_endpoint(p) && look.whose(p).is_some();
    let all = look.seen.pods.iter().filter(ready).count();
    let new = look.new_pods().filter(|p| look.is_endpoint(p)).count();
    Weights { desired, endpoints: percent(new, all) }
}

fn counts(look: &Look) -> PodCounts {
    let mut counts = PodCounts::default();
    let mut open = None;
    for pod in look.seen.pods.iter().filter(|p| !p.deleting) {
        let (all, ready) = match pod.of {
            Of::Apart => {
                counts.apart += 1;
                let connections = look.evidence(pod).and_then(|e| e.open(look.memory.unrouted));
                open = connections.map_or(open, |n| Some(n.saturating_add(open.unwrap_or(0))));
                continue;
            }
            _ if look.whose(pod).is_none() => continue,
            _ if look.is_new(pod) => {
                counts.verified += u32::from(matches!(look.verify(pod), Verified::Yes(_)));
                (&mut counts.new, &mut counts.new_ready)
            }
            _ => (&mut counts.old, &mut counts.old_ready),
        };
        *all += 1;
        *ready += u32::from(pod.ready);
    }
    counts.connections = open;
    counts
}

fn apart(look: &Look) -> Vec<ApartPod> {
    let mut pods: Vec<&Pod> = look.seen.pods.iter().filter(|p| p.of == Of::Apart && !p.deleting).collect();
    pods.sort_by(|a, b| (a.apart_since, &a.name).cmp(&(b.apart_since, &b.name)));
    let one = |pod: &Pod| ApartPod {
        name: pod.name.to_string(),
        since: super::whole(pod.apart_since.unwrap_or(pod.created)),
        connections: look.evidence(pod).and_then(|e| e.open(look.memory.unrouted)),
    };
    pods.into_iter().take(MOST).map(one).collect()
}

/// What was made or changed and is so still.
fn resources(look: &Look) -> Vec<ResourceStatus> {
    let mut all = Vec::new();
    let mut add = |kind: &str, name: &str, action: &str, purpose: &str| {
        let [kind, name, action, purpose] = [kind, name, action, purpose].map(str::to_owned);
        all.push(ResourceStatus { kind, name, action, purpose });
    };
    if let Some(canary) = look.deployment(Which::Canary) {
        add("Deployment", &canary.name, "Created", "pods of the new revision");
    }
    if let Some(standby) = look.deployment(Which::Standby) {
        add("Deployment", &standby.name, "Created", "the old template, for the way back");
    }
    if let Some(source) = look.seen.source.as_ref().filter(|_| look.is_locked()) {
        let was = look.baseline().map(|b| b.deployment.template_hash.as_str());
        let moved = look.is_source_new() && was != Some(&*source.template.hash);
        let purpose = if moved { "lock, baseline, and the new revision's template" } else { "lock and baseline" };
        add("Deployment", &source.name, "Changed", purpose);
    }
    if look.seen.config.copy.as_ref().is_some_and(|c| c.ours) {
        add("ConfigMap", &look.seen.config.name, "Created", "mesh configuration of the new revision");
    }
    if let (Some(hpa), Some(was)) = (look.hpa(), look.baseline().and_then(|b| b.hpa.as_ref()))
        && *hpa.held.uid == *was.uid
        && (hpa.min != was.min_replicas || *hpa.target != *was.target)
    {
        let purpose =
            format!("scales {} with at least {}; before {} with {}", hpa.target, hpa.min, was.target, was.min_replicas);
        add("HorizontalPodAutoscaler", &hpa.name, "Changed", &purpose);
    }
    all
}

fn findings(look: &Look, before: Before) -> Vec<PreflightFinding> {
    let Some(found) = &look.seen.findings else { return before.status.preflight.clone() };
    found.iter().take(MOST).map(finding).collect()
}

fn finding(of: &Finding) -> PreflightFinding {
    PreflightFinding {
        guard: of.guard.to_owned(),
        severity: if of.severity == Severity::Block { "Block" } else { "Warn" }.to_owned(),
        object: of.object.clone(),
        what: of.what.clone(),
        why: of.why.clone(),
        fix: of.fix.clone(),
    }
}

/// The last evaluation of each metric that the spec has.
fn metrics(look: &Look, before: Before) -> Vec<MetricStatus> {
    let specs = look.spec().guardrails.metrics.iter();
    let last = |name: &String| {
        let fresh = look.seen.metrics.iter().filter(|m| m.name == *name).max_by_key(|m| m.at);
        let known = before.status.metrics.iter().find(|m| m.name == *name).cloned();
        fresh.map_or(known, |m| {
            let (name, message) = (m.name.clone(), m.message.clone());
            Some(MetricStatus {
                name,
                result: said(m.outcome).to_owned(),
                value: m.value,
                message,
                at: super::whole(m.at),
            })
        })
    };
    specs.filter_map(|m| last(&m.name)).collect()
}
