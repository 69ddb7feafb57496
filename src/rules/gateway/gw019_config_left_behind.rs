//! # GW019 config-left-behind
//!
//! ## What
//! A gateway, a namespace or a tag moves to another control plane while Istio configuration in the namespace of what moves is
//! labelled `istio.io/rev` with the old one.
//!
//! ## Why
//! On configuration the label is literal: only the istiod of that revision reads the object. Proxies that move lose it the
//! moment they attach to the other one: a Gateway without its listener, a VirtualService without its routes, an
//! AuthorizationPolicy that no longer holds.
//!
//! ## What to do
//! Take the label off before the move, so that both control planes read the object; or make a copy for the new revision.
//!
//! ## When to allow
//! When the object is meant for what stays. It is never more than a warning.

use super::if_known;
use crate::model::{GatewayConfig, Id, Kind, Namespace, RevisionName, Sail, Service, Workload, key};
use crate::rules::finding::{label, template_label};
use crate::rules::managed;
use crate::rules::shift::{self, Retarget};
use crate::rules::view::kubectl;
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View};

pub static RULE: Rule = Rule {
    code: "GW019",
    name: "config-left-behind",
    summary: "what moves to another control plane loses configuration that is pinned to the old one",
    reads: &[Field::Label(key::INJECTION), Field::Label(key::REV), Field::Template, Field::Spec],
    checks: &[
        Check::Namespace(namespace),
        Check::Workload(workload),
        Check::Gateway(gateway),
        Check::Service(tag),
        Check::Sail(sail_tag),
    ],
    source: include_str!("gw019_config_left_behind.rs"),
};

/// A move out of one namespace's point of view.
struct Leaves<'a> {
    /// What moves, in words.
    who: String,
    namespaces: Vec<&'a str>,
    from: &'a RevisionName,
    to: &'a RevisionName,
    field: String,
}

fn judge(leaves: &Leaves<'_>, view: &View<'_>) -> Option<Finding> {
    let cluster = view.before();
    let pinned: Vec<Id> = leaves
        .namespaces
        .iter()
        .flat_map(|ns| cluster.pinned_in(ns, leaves.from))
        .map(|(kind, meta)| Id { kind, namespace: meta.namespace.clone(), name: meta.name.clone() })
        .collect();
    let first = pinned.first()?;
    let more = if pinned.len() > 1 { format!(" and {} more", pinned.len() - 1) } else { String::new() };
    let mut fix: Vec<String> =
        pinned.iter().take(5).map(|id| format!("kubectl label {} {}-", kubectl(id), key::REV)).collect();
    if pinned.len() > fix.len() {
        fix.push(format!("(and {} more of the same kind)", pinned.len() - fix.len()));
    }
    fix.push(format!("(then {} and {} both read it)", leaves.from, leaves.to));
    let one = format!("{} {}/{}", crate::wire::row(first.kind).name, first.namespace, first.name);
    Some(Finding::warn(leaves.field.clone(), leaves.to.as_str()).says(
        format!("{} to {}; pinned to {}: {one}{more}", leaves.who, leaves.to, leaves.from),
        "an istiod reads no configuration that is labelled with another revision: for the moved proxies it is gone.",
        fix.join("\n"),
    ))
}

fn namespace(new: &Namespace, old: Old<'_, Namespace>, view: &View<'_>) -> Found {
    let Some(old) = old.get() else { return Ok(Vec::new()) };
    let mut moves: Vec<(RevisionName, RevisionName)> = shift::by_namespace(new, old, view)?
        .into_iter()
        .filter_map(|m| Some((m.from?, m.to)))
        .chain(if_known(shift::gateways_by_namespace(new, old, view))?.into_iter().flatten().map(|g| (g.from, g.to)))
        .collect();
    moves.sort();
    moves.dedup();
    let changed = [key::INJECTION, key::REV].into_iter().find(|k| old.meta.labels.get(k) != new.meta.labels.get(k));
    let field = label(changed.unwrap_or(key::REV));
    let name = new.meta.name.as_str();
    let found = moves.iter().filter_map(|(from, to)| {
        let who = format!("{name:?} moves");
        judge(&Leaves { who, namespaces: vec![name], from, to, field: field.clone() }, view)
    });
    Ok(found.collect())
}

fn workload(new: &Workload, old: Old<'_, Workload>, view: &View<'_>) -> Found {
    if !new.is_gateway() {
        return Ok(Vec::new());
    }
    let Some(old) = old.get() else { return Ok(Vec::new()) };
    let cluster = view.cluster();
    let revision = |w: &Workload| if_known(cluster.target_of(w)).map(|t| t.flatten().and_then(|t| t.revision));
    let (Some(from), Some(to)) = (revision(old)?, revision(new)?) else { return Ok(Vec::new()) };
    if from == to {
        return Ok(Vec::new());
    }
    let (name, ns) = (&new.meta.name, new.meta.namespace.as_str());
    let who = format!("gateway {ns}/{name} moves");
    let leaves = Leaves { who, namespaces: vec![ns], from: &from, to: &to, field: template_label(key::REV) };
    Ok(judge(&leaves, view).into_iter().collect())
}

fn gateway(new: &GatewayConfig, old: Old<'_, GatewayConfig>, view: &View<'_>) -> Found {
    if view.kind() != Kind::ApiGateway || !new.is_deployed() {
        return Ok(Vec::new());
    }
    let Some(old) = old.get() else { return Ok(Vec::new()) };
    let cluster = view.cluster();
    let ns = new.meta.namespace.as_str();
    let around = cluster.namespace_labels(ns);
    let owner = |g: &GatewayConfig| if_known(cluster.deployer_of(&g.meta, &around)).map(Option::flatten);
    let (Some(from), Some(to)) = (owner(old)?, owner(new)?) else { return Ok(Vec::new()) };
    if from == to || managed::deployments(cluster, &new.meta).next().is_none() {
        return Ok(Vec::new());
    }
    let who = format!("Gateway {ns}/{} moves", new.meta.name);
    let leaves = Leaves { who, namespaces: vec![ns], from: &from, to: &to, field: label(key::REV) };
    Ok(judge(&leaves, view).into_iter().collect())
}

fn tag(new: &Service, old: Old<'_, Service>, view: &View<'_>) -> Found {
    if !new.meta.labels.has(key::TAG) {
        return Ok(Vec::new());
    }
    retarget(Retarget::of_service(new, old.get(), view), view)
}

fn sail_tag(new: &Sail, old: Old<'_, Sail>, view: &View<'_>) -> Found {
    retarget(Retarget::of_sail(new, old.get(), view), view)
}

fn retarget(retarget: Option<Retarget>, view: &View<'_>) -> Found {
    let Some(retarget) = retarget else { return Ok(Vec::new()) };
    let cluster = view.before();
    let workloads = if_known(retarget.workloads(cluster))?.unwrap_or_default();
    let gateways = if_known(retarget.gateways(cluster))?.unwrap_or_default();
    let mut namespaces: Vec<&str> = workloads.iter().map(|(_, w)| w.meta.namespace.as_str()).collect();
    namespaces.extend(gateways.iter().map(|g| g.namespace.as_str()));
    namespaces.sort_unstable();
    namespaces.dedup();
    let who = format!("tag {} moves", retarget.tag);
    let (from, to, field) = (&retarget.from, &retarget.to, retarget.field.clone());
    Ok(judge(&Leaves { who, namespaces, from, to, field }, view).into_iter().collect())
}
