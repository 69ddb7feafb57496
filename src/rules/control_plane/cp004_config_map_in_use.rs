//! # CP004 config-map-in-use
//!
//! ## What
//! A ConfigMap is deleted that a control plane in use is made of: `istio-REVISION` (mesh configuration) or
//! `istio-sidecar-injector-REVISION` (injection templates), without a suffix for the control plane without a revision. Also a
//! copy of the first in the namespace of gateways that mount it. What "in use" means stands on the page of CP001.
//!
//! ## Why
//! istiod falls back to default mesh settings at once and sends them to every proxy; without templates it does not start
//! again. A gateway that an IstioOperator renders takes the address of its istiod from the mesh configuration in its own
//! namespace: without it its next pod dials `istiod.istio-system.svc`, which a mesh of revisions does not have, and never
//! becomes ready.
//!
//! ## What to do
//! Move the users first; the denial names them and gives the commands. `helm uninstall` and `istioctl uninstall` delete these
//! ConfigMaps after the istiod, and then nothing is said.
//!
//! ## When to allow
//! When the whole mesh is torn down with its users still in it.

use super::in_use::{Loss, Words};
use crate::model::{ConfigMap, Id, Object, RevisionName, Template, key, workload};
use crate::rules::names::few;
use crate::rules::view::kubectl;
use crate::rules::{Check, Finding, Found, Rule, Severity, View};

pub static RULE: Rule = Rule {
    code: "CP004",
    name: "config-map-in-use",
    summary: "a ConfigMap of a control plane that is in use is deleted",
    reads: &[],
    checks: &[Check::Delete(check)],
    source: include_str!("cp004_config_map_in_use.rs"),
};

const MESH: Words = Words {
    does: "would take its mesh configuration from",
    then: ", which is in use",
    why: Some("istiod would fall back to default settings at once, and send them to every proxy of the revision."),
};
const TEMPLATES: Words = Words {
    does: "would take its injection templates from",
    then: ", which is in use",
    why: Some(
        "istiod would not start again without them; until one does, pods that ask for the revision do not start either.",
    ),
};

fn check(object: &Object, view: &View<'_>) -> Found {
    let Object::ConfigMap(config_map) = object else { return Ok(Vec::new()) };
    let meta = &config_map.meta;
    let Some((revision, words)) = part(config_map) else { return Ok(Vec::new()) };
    let cluster = view.before();
    let mut own = cluster.istiods()?.filter(|w| w.istiod_revision().as_ref() == Some(&revision) && !w.meta.deleting);
    if !own.any(|w| w.meta.namespace == meta.namespace) {
        return copy(config_map, &revision, view);
    }
    let doing = format!("deleting ConfigMap {}/{}", meta.namespace, meta.name);
    let (field, value, most) = ("metadata.name", meta.name.to_string(), Severity::Deny);
    let loss = Loss { revision: &revision, doing, field, value, meta, most, besides: Vec::new() };
    Ok(loss.finding_in(cluster, words, view)?.into_iter().collect())
}

/// Whose it would be, by its name. A label that says otherwise makes it somebody else's.
fn part(config_map: &ConfigMap) -> Option<(RevisionName, &'static Words)> {
    let meta = &config_map.meta;
    let of = |start: &str| match meta.name.strip_prefix(start)? {
        "" => Some(RevisionName::new("")),
        rest => rest.strip_prefix('-').map(RevisionName::new),
    };
    let (revision, words) = match of("istio-sidecar-injector") {
        Some(revision) => (revision, &TEMPLATES),
        None => (of("istio")?, &MESH),
    };
    meta.labels.value(key::REV).is_none_or(|label| label == revision.as_str()).then_some((revision, words))
}

/// A copy that gateways of its namespace mount.
fn copy(config_map: &ConfigMap, revision: &RevisionName, view: &View<'_>) -> Found {
    let meta = &config_map.meta;
    let cluster = view.before();
    // `istio-ca-root-cert` is mounted as well, and is no revision's.
    if !cluster.revisions()?.contains(revision) {
        return Ok(Vec::new());
    }
    let mounts =
        |t: &Template| t.container(workload::PROXY).is_some() && t.config_maps.iter().any(|m| m.name == meta.name);
    let users: Vec<Id> = cluster
        .workloads_in(&meta.namespace)
        .filter(|(_, w)| mounts(&w.template) && w.wanted() > 0 && !w.meta.deleting && !dials_by_itself(&w.template))
        .map(|(kind, w)| Id { kind, namespace: w.meta.namespace.clone(), name: w.meta.name.clone() })
        .collect();
    let Some(first) = users.first() else { return Ok(Vec::new()) };
    let names: Vec<&str> = users.iter().map(|id| id.name.as_str()).collect();
    // What it falls back to is right for the control plane without a revision.
    let most = if revision.is_default() { Severity::Warn } else { Severity::Deny };
    let (verb, their) =
        if users.len() == 1 { ("mounts", "its proxy knows its") } else { ("mount", "their proxies know their") };
    let at = format!("{}/{}", meta.namespace, meta.name);
    let end = if most == Severity::Deny { "." } else { "" };
    let homes = cluster.control_planes()?.remove(revision).map(|p| p.namespaces).unwrap_or_default();
    let home = homes.first().map_or("istio-system", String::as_str);
    Ok(vec![Finding::deny("metadata.name", meta.name.as_str()).severity(most).says(
        format!("{} {verb} ConfigMap {at}, from which {their} istiod{end}", few(&names)),
        "the next pods dial istiod.istio-system.svc instead, and never become ready where there is none.",
        format!(
            "kubectl get {} -o jsonpath='{{.spec.template.spec.volumes[*].configMap.name}}'\n(delete the copy once nothing names it any more; to put it back: kubectl get configmap -n {home} {} -o json | jq \
             'del(.metadata.namespace, .metadata.resourceVersion, .metadata.uid, .metadata.annotations)' | kubectl apply -n {} -f -)",
            kubectl(first),
            meta.name,
            meta.namespace
        ),
    )])
}

/// Its own proxy configuration names the istiod; the address of the certificate authority alone does not.
fn dials_by_itself(template: &Template) -> bool {
    let config = template.container(workload::PROXY).and_then(|c| c.env.value("PROXY_CONFIG"));
    let configs = [template.annotations.value(key::PROXY_CONFIG), config];
    template.annotations.has(key::DISCOVERY_ADDRESS)
        || configs.into_iter().flatten().any(|c| c.contains("discoveryAddress"))
}
