//! # GW020 gateway-pruned
//!
//! ## What
//! A live gateway belongs to an IstioOperator by its owner labels, and the IstioOperator as it is written now does not render
//! it any more: the entry is gone, renamed, or `enabled: false`.
//!
//! ## Why
//! Installing such a file deletes whatever carries its name and revision and is no longer rendered: Deployment, Service,
//! autoscaler, disruption budget, ServiceAccount, Role and RoleBinding at once, in use or not. A line lost in a merge is an
//! outage.
//!
//! ## What to do
//! Keep the entry until its traffic has moved; or take the owner label off every one of those objects first, so that they
//! stay. Without its account the gateway starts no new pod, without its rights it gets no certificates for its hosts.
//!
//! It is denied where pods of the gateway are ready, else a warning. A gateway of another revision than the file's is not
//! pruned, and nothing is said.
//!
//! ## When to allow
//! To remove a gateway that nobody uses and that still has pods.

use super::owner::{self, Owner};
use super::traffic::{pods, ready_pods};
use crate::model::{Id, Operator, Workload, key};
use crate::rules::{Check, Field, Finding, Found, Old, Rule, Severity, View};

pub static RULE: Rule = Rule {
    code: "GW020",
    name: "gateway-pruned",
    summary: "an IstioOperator no longer renders a live gateway of its own, which installing it deletes",
    reads: &[Field::Spec, Field::Annotation(key::IGNORE_RECONCILE)],
    checks: &[Check::Operator(check)],
    source: include_str!("gw020_gateway_pruned.rs"),
};

fn check(operator: &Operator, _: Old<'_, Operator>, view: &View<'_>) -> Found {
    // A profile of its own may list what is missing here.
    if operator.is_inert() || operator.meta.name.is_empty() || owner::has_own_profile(operator) {
        return Ok(Vec::new());
    }
    let cluster = view.cluster();
    let rendered = owner::rendered(operator, view);
    let mut found = Vec::new();
    for (kind, gateway) in cluster.gateways()? {
        let meta = &gateway.meta;
        let is_own = Owner::of(&meta.labels).is_some_and(|o| o.is(operator));
        let stays = rendered.iter().any(|r| r.namespace == meta.namespace && r.name == meta.name);
        if !is_own || stays || meta.deleting {
            continue;
        }
        let Some(certain) = pruned(operator, gateway) else { continue };
        let id = Id { kind, namespace: meta.namespace.clone(), name: meta.name.clone() };
        let ready = ready_pods(cluster, &id, gateway)?.filter(|c| c.pods > 0);
        let severity = match ready {
            Some(count) if certain => count.severity(),
            _ => Severity::Warn,
        };
        let place = format!("{}/{}", meta.namespace, meta.name);
        let serving = pods(ready.map_or(0, |c| c.pods));
        found.push(Finding::deny("spec.components", place.clone()).severity(severity).says(
            format!("{} no longer renders its live gateway {place} ({serving}).", owner::title(operator)),
            "installing it deletes that gateway's Deployment, Service, autoscaler, account and rights at once.",
            format!(
                "list it again under components.{2}: name {0}, namespace {1}, enabled: true\n(to keep it without this file:\n {3})",
                meta.name,
                meta.namespace,
                if meta.labels.is(key::COMPONENT, "EgressGateways") { "egressGateways" } else { "ingressGateways" },
                owner::relabel(cluster, (&meta.namespace, &meta.name), &format!("{}-", key::OWNER)),
            ),
        ));
    }
    Ok(found)
}

/// Pruning goes by owner and revision: `None` if the gateway is of another one, false if only the command line tells.
fn pruned(operator: &Operator, gateway: &Workload) -> Option<bool> {
    let live = gateway.meta.labels.value(key::REV).unwrap_or("default");
    match operator.revision.as_deref() {
        Some(revision) => (revision == live).then_some(true),
        // A file without a revision may be installed with `--revision`.
        None => Some(live == "default"),
    }
}
