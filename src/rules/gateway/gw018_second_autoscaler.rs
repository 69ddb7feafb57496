//! # GW018 second-autoscaler
//!
//! ## What
//! A HorizontalPodAutoscaler for a gateway, or one whose target's pods are also a gateway's, while another one counts some of
//! the same pods: both scale the same workload, or the selector of one's target matches the pods of the other's. Denied.
//!
//! A second PodDisruptionBudget that selects a gateway's pods gives a warning.
//!
//! ## Why
//! Kubernetes tells an autoscaler's pods by labels alone. Where two claim a pod, neither scales any more (condition
//! `AmbiguousSelector`). Two Deployments behind one Service, as in a canary of a gateway, come to that easily: the old one's selector
//! is a part of the new one's. With two budgets for a pod, evicting it fails, and with it the drain of its node.
//!
//! ## What to do
//! One autoscaler at a time: take the old one off before the new one comes. Or give each Deployment a label in its selector
//! that the other's pods do not have, both of them.
//!
//! ## When to allow
//! When the other one is deleted right afterwards.

use crate::model::{Hpa, Id, Kind, Pdb, Workload};
use crate::rules::view::kubectl;
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View};
use crate::snapshot::Snapshot;

pub static RULE: Rule = Rule {
    code: "GW018",
    name: "second-autoscaler",
    summary: "a second autoscaler or disruption budget for the pods of a gateway",
    reads: &[Field::Spec],
    checks: &[Check::Hpa(autoscaler), Check::Pdb(budget)],
    source: include_str!("gw018_second_autoscaler.rs"),
};

fn autoscaler(hpa: &Hpa, _: Old<'_, Hpa>, view: &View<'_>) -> Found {
    let (cluster, home) = (view.cluster(), &hpa.meta.namespace);
    let Some(target) = target(cluster, hpa) else { return Ok(Vec::new()) };
    // Where whole namespaces are not read there is no gateway, and nothing to ask.
    if !cluster.gateways()?.any(|(_, w)| w.meta.namespace == *home) {
        return Ok(Vec::new());
    }
    for other in cluster.hpas_in(home)? {
        let Some(theirs) = self::target(cluster, other).filter(|_| !other.meta.deleting) else { continue };
        if !target.is_gateway() && !theirs.is_gateway() || !overlap(target, theirs) {
            continue;
        }
        let same = target.meta.name == theirs.meta.name && hpa.target_kind == other.target_kind;
        let (name, rival) = (&hpa.meta.name, &other.meta.name);
        let what = if same {
            format!("autoscaler {rival} scales gateway {home}/{} already.", theirs.meta.name)
        } else {
            format!(
                "autoscaler {rival} of {home}/{} counts pods that {name} would count for {home}/{} as well.",
                theirs.meta.name, target.meta.name
            )
        };
        let id = Id { kind: Kind::Hpa, namespace: home.clone(), name: rival.clone() };
        // The gateway's own autoscaler is not to make room for a workload's.
        let fix = if target.is_gateway() {
            format!(
                "kubectl delete {}\n(its target keeps the replicas that it has; or make both targets anew, each with a label of its own in its selector)",
                kubectl(&id)
            )
        } else {
            format!(
                "give {} {} a label in its selector that the pods of {} do not have",
                hpa.target_kind, target.meta.name, theirs.meta.name
            )
        };
        return Ok(vec![Finding::deny("spec.scaleTargetRef", rival.as_str()).says(
            what,
            "Kubernetes lets neither of two autoscalers scale that claim the same pod (AmbiguousSelector).",
            fix,
        )]);
    }
    Ok(Vec::new())
}

fn target<'a>(cluster: &'a Snapshot, hpa: &Hpa) -> Option<&'a Workload> {
    let kinds = [(Kind::Deployment, "Deployment"), (Kind::StatefulSet, "StatefulSet")];
    let (kind, _) = kinds.into_iter().find(|(_, name)| *hpa.target_kind == **name)?;
    cluster.workload(kind, &hpa.meta.namespace, &hpa.target_name)
}

/// Some pod is claimed by both: an autoscaler counts whatever its target's selector matches.
fn overlap(one: &Workload, other: &Workload) -> bool {
    let claims = |a: &Workload, b: &Workload| a.selector.matches(&b.template.labels);
    claims(one, other) || claims(other, one)
}

fn budget(pdb: &Pdb, _: Old<'_, Pdb>, view: &View<'_>) -> Found {
    let (cluster, home) = (view.cluster(), &pdb.meta.namespace);
    let Some(own) = &pdb.selector else { return Ok(Vec::new()) };
    let Ok(gateways) = cluster.gateways() else { return Ok(Vec::new()) };
    let mut mine = { gateways }
        .map(|(_, w)| w)
        .filter(|w| w.meta.namespace == *home && own.matches(&w.template.labels))
        .peekable();
    if mine.peek().is_none() {
        return Ok(Vec::new());
    }
    // Nobody is made to wait for a warning.
    let Ok(others) = cluster.pdbs_in(home) else { return Ok(Vec::new()) };
    let others: Vec<&Pdb> = others.filter(|o| !o.meta.deleting).collect();
    for gateway in mine {
        let labels = &gateway.template.labels;
        let Some(other) = others.iter().find(|o| o.selector.as_ref().is_some_and(|s| s.matches(labels))) else {
            continue;
        };
        let id = Id { kind: Kind::Pdb, namespace: home.clone(), name: other.meta.name.clone() };
        return Ok(vec![Finding::warn("spec.selector", other.meta.name.as_str()).says(
            format!(
                "disruption budget {} is for pods of gateway {home}/{} already.",
                other.meta.name, gateway.meta.name
            ),
            "a pod with two budgets cannot be evicted at all, and its node not be drained.",
            format!("kubectl delete {}", kubectl(&id)),
        )]);
    }
    Ok(Vec::new())
}
