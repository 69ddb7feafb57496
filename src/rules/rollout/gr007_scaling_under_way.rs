//! # GR007 scaling-under-way
//!
//! ## What
//! While a GatewayRollout has a gateway in its hands, somebody else
//!
//! - creates a HorizontalPodAutoscaler that counts pods of the gateway or of its second Deployment, or points one elsewhere:
//!   denied;
//! - changes `minReplicas` of the gateway's own one: a warning;
//! - creates or widens a PodDisruptionBudget so that a pod of theirs has two: denied.
//!
//! With `capacity.mode: Manual` autoscalers are yours. A rollout that waits for whoever owns the Deployment (`AwaitExternal`) lets them
//! point the autoscaler at it as well, because Helm writes both: while the Deployment has no pods, or once it was moved.
//!
//! ## Why
//! The rollout hands the one autoscaler from the old Deployment to the new one in a single write, and keeps its minimum at what
//! serves. A second one makes both stop (`AmbiguousSelector`), and one that points elsewhere takes pods away that are counted on. A
//! pod with two budgets cannot be evicted at all.
//!
//! ## What to do
//! Wait for the end of the rollout, or have it go back.
//!
//! ## When to allow
//! With the annotation `revguard.dev/allow` on the autoscaler or budget, when the rollout's own controller is gone.

use super::{hands_off, named};
use crate::model::{Hpa, Kind, Pdb, Rollout, Workload};
use crate::rules::names::if_known;
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View};
use crate::snapshot::{Known, Snapshot};

pub static RULE: Rule = Rule {
    code: "GR007",
    name: "scaling-under-way",
    summary: "an autoscaler or disruption budget comes between a GatewayRollout and the pods that it counts on",
    reads: &[Field::Spec],
    checks: &[Check::Hpa(autoscaler), Check::Pdb(budget)],
    source: include_str!("gr007_scaling_under_way.rs"),
};

/// A rollout that is under way, and the Deployments of its gateway.
struct UnderWay<'a> {
    rollout: &'a Rollout,
    gateways: Vec<&'a Workload>,
}

fn under_way<'a>(cluster: &'a Snapshot, namespace: &'a str) -> Known<Vec<UnderWay<'a>>> {
    let active = cluster.rollouts_in(namespace)?.filter(|r| r.is_active());
    let all = active.map(|rollout| {
        let own = cluster
            .workloads_in(namespace)
            .filter(|(kind, w)| *kind == Kind::Deployment && rollout.role(&w.meta.name, &w.meta.labels).is_some());
        UnderWay { rollout, gateways: own.map(|(_, w)| w).collect() }
    });
    Ok(all.collect())
}

impl UnderWay<'_> {
    /// An autoscaler counts whatever its target's selector matches.
    fn is_counted_by(&self, hpa: &Hpa, cluster: &Snapshot) -> bool {
        if hpa.target_kind != "Deployment" {
            return false;
        }
        let target = cluster.workload(Kind::Deployment, &hpa.meta.namespace, &hpa.target_name);
        self.gateways
            .iter()
            .any(|w| w.meta.name == hpa.target_name || target.is_some_and(|t| t.selector.matches(&w.template.labels)))
    }

    /// It comes with the Deployment that somebody was asked to move: one that has no pods, where an autoscaler rests, or that was moved a
    /// moment ago, where the rollout takes the autoscaler into its hands again.
    fn is_awaited(&self, hpa: &Hpa, cluster: &Snapshot) -> bool {
        let Some(awaited) = self.rollout.awaited().filter(|_| self.rollout.deployment() == Some(&hpa.target_name))
        else {
            return false;
        };
        let leads = |w: &Workload| cluster.target_of(w).ok().flatten().and_then(|target| target.revision);
        let original = self.gateways.iter().find(|w| w.meta.name == hpa.target_name);
        original.is_some_and(|w| w.replicas == Some(0) || leads(w).is_some_and(|revision| revision.as_str() == awaited))
    }
}

fn autoscaler(hpa: &Hpa, old: Old<'_, Hpa>, view: &View<'_>) -> Found {
    let (cluster, namespace) = (view.before(), &hpa.meta.namespace);
    let name = &hpa.meta.name;
    for it in under_way(cluster, namespace)?.iter().filter(|it| !it.rollout.manual) {
        let whose = named(it.rollout);
        let Some(before) = old.get() else {
            if !it.is_counted_by(hpa, cluster) {
                continue;
            }
            return Ok(vec![Finding::deny("spec.scaleTargetRef", hpa.target_name.as_str()).says(
                format!(
                    "autoscaler {name} would count pods of {namespace}/{} while {whose} scales them.",
                    hpa.target_name
                ),
                "two that scale the same pods work against each other, and of two autoscalers neither works.",
                hands_off(it.rollout),
            )]);
        };
        let (was, is) = (it.is_counted_by(before, cluster), it.is_counted_by(hpa, cluster));
        if it.is_awaited(hpa, cluster) {
            continue;
        }
        if (was || is) && before.target_name != hpa.target_name {
            return Ok(vec![Finding::deny("spec.scaleTargetRef", hpa.target_name.as_str()).says(
                format!(
                    "autoscaler {name} would scale {} instead of {} while {whose} hands it over.",
                    hpa.target_name, before.target_name
                ),
                "whichever Deployment it leaves keeps the number that it has, and the other may lose pods that serve.",
                hands_off(it.rollout),
            )]);
        }
        let least = |h: &Hpa| h.min_replicas.unwrap_or(1);
        if is && least(hpa) != least(before) {
            return Ok(vec![Finding::warn("spec.minReplicas", least(hpa).to_string()).says(
                format!("minReplicas of {name} goes from {} to {} while {whose} holds it", least(before), least(hpa)),
                "it keeps as many pods as serve now; with fewer the rollout pauses.",
                hands_off(it.rollout),
            )]);
        }
    }
    Ok(Vec::new())
}

fn budget(pdb: &Pdb, old: Old<'_, Pdb>, view: &View<'_>) -> Found {
    let Some(own) = &pdb.selector else { return Ok(Vec::new()) };
    if old.get().is_some_and(|o| o.selector == pdb.selector) {
        return Ok(Vec::new());
    }
    let (cluster, namespace) = (view.cluster(), &pdb.meta.namespace);
    for it in under_way(cluster, namespace)? {
        let Some(others) = if_known(cluster.pdbs_in(namespace))? else { continue };
        let others: Vec<&Pdb> = others.filter(|o| !o.meta.deleting).collect();
        for gateway in it.gateways.iter().filter(|w| own.matches(&w.template.labels)) {
            let labels = &gateway.template.labels;
            let Some(other) = others.iter().find(|o| o.selector.as_ref().is_some_and(|s| s.matches(labels))) else {
                continue;
            };
            return Ok(vec![Finding::deny("spec.selector", other.meta.name.as_str()).says(
                format!(
                    "disruption budget {} would be the second for pods of {namespace}/{}, which {} moves.",
                    pdb.meta.name,
                    gateway.meta.name,
                    named(it.rollout)
                ),
                "a pod with two budgets cannot be evicted at all, and its node not be drained.",
                hands_off(it.rollout),
            )]);
        }
    }
    Ok(Vec::new())
}
