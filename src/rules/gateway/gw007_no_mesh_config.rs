//! # GW007 no-mesh-config
//!
//! ## What
//! A gateway as `istioctl` renders it from an IstioOperator (its proxy in the template, not injected) mounts the ConfigMap of a
//! revision, `istio-REVISION`, as optional, and its namespace has no such ConfigMap.
//!
//! It is denied where the ConfigMap is known beside the istiod of that revision, else a warning. Nothing is said where the
//! template tells its proxy which istiod to dial, where the Service `istiod` leads to that very revision, and where that
//! revision is not installed, of which GW006 speaks.
//!
//! ## Why
//! That ConfigMap is how such a gateway learns which istiod is its own. Without it nothing fails: the proxy dials
//! `istiod.istio-system.svc`, which is the control plane that the gateway was to leave, or nobody, and then the gateway never
//! becomes ready.
//!
//! ## What to do
//! Copy the ConfigMap into the gateway's namespace before the gateway comes, and again whenever the mesh configuration changes;
//! or let the injector make the proxy (`values.gateways.istio-ingressgateway.injectionTemplate: gateway`).
//!
//! ## When to allow
//! When the copy comes right after the gateway.

use super::if_known;
use crate::model::{ConfigMap, RevisionName, Workload};
use crate::rules::{Check, Field, Finding, Found, Old, Rule, Severity, View};
use crate::snapshot::{Known, Snapshot};

pub static RULE: Rule = Rule {
    code: "GW007",
    name: "no-mesh-config",
    summary: "a gateway mounts the mesh configuration of a revision, which its namespace does not have",
    reads: &[Field::Template, Field::Replicas],
    checks: &[Check::Workload(check)],
    source: include_str!("gw007_no_mesh_config.rs"),
};

fn check(gateway: &Workload, _: Old<'_, Workload>, view: &View<'_>) -> Found {
    let template = &gateway.template;
    if !gateway.is_gateway() || gateway.wanted() == 0 || template.is_image_auto() {
        return Ok(Vec::new());
    }
    let mounts = template.config_maps.iter().filter(|m| m.optional && ConfigMap::is_mesh_config(&m.name));
    let Some((name, revision)) = { mounts }.find_map(|m| Some((&m.name, m.name.strip_prefix("istio-")?))) else {
        return Ok(Vec::new());
    };
    let (cluster, home) = (view.cluster(), &gateway.meta.namespace);
    if template.discovery_override().is_some() || cluster.config_map(home, name)?.is_some() {
        return Ok(Vec::new());
    }
    let revision = RevisionName::new(revision);
    let istiods = homes(&revision, cluster)?;
    if istiods.is_empty() {
        return Ok(Vec::new());
    }
    // Beside its istiod it is the control plane's own part, which comes with the control plane.
    if istiods.iter().any(|ns| ns == home.as_str()) || is_dialled_anyway(&revision, cluster)? {
        return Ok(Vec::new());
    }
    let there = |ns: &&String| matches!(cluster.config_map(ns, name), Ok(Some(_)));
    let source = istiods.iter().find(there);
    let severity = if source.is_some() { Severity::Deny } else { Severity::Warn };
    let from = source.map_or("istio-system", String::as_str);
    let value = |key: &str| {
        format!("--from-literal={key}=\"$(kubectl get configmap {name} -n {from} -o jsonpath='{{.data.{key}}}')\"")
    };
    Ok(vec![Finding::deny("spec.template.spec.volumes", name.as_str()).severity(severity).says(
        format!("gateway {home}/{} mounts ConfigMap {name}, which namespace {home} does not have.", gateway.meta.name),
        "its proxy would not know its control plane and dial istiod.istio-system.svc, which is another one or nobody.",
        format!(
            "kubectl create configmap {name} -n {home} {} {}\n(the mesh configuration of revision {revision}; copy it again when that changes)",
            value("mesh"),
            value("meshNetworks")
        ),
    )])
}

/// Namespaces of a revision's istiods.
fn homes(revision: &RevisionName, cluster: &Snapshot) -> Known<Vec<String>> {
    let planes = if_known(cluster.control_planes())?.unwrap_or_default();
    Ok(planes.get(revision).map(|p| p.namespaces.clone()).unwrap_or_default())
}

/// The address that a proxy without configuration dials leads to the revision.
fn is_dialled_anyway(revision: &RevisionName, cluster: &Snapshot) -> Known<bool> {
    let Some(Some(service)) = if_known(cluster.service("istio-system", "istiod"))? else { return Ok(false) };
    let Some(mut istiods) = if_known(cluster.istiods())? else { return Ok(false) };
    Ok(istiods.any(|w| {
        w.meta.namespace == "istio-system"
            && w.istiod_revision().as_ref() == Some(revision)
            && service.selects(&w.template.labels)
    }))
}
