//! # WL011 foreign-discovery-address
//!
//! ## What
//! A pod template sets a `discoveryAddress` (`proxy.istio.io/config`, `sidecar.istio.io/discoveryAddress` or the proxy's
//! environment) that is the istiod of one revision, while another revision injects the pods.
//!
//! ## Why
//! The proxy of one version takes its configuration from another control plane. An upgrade that moves the label then moves the
//! sidecar's image only, and removing the old control plane cuts the proxy off.
//!
//! ## What to do
//! Drop the address: the injector writes the right one.
//!
//! ## When to allow
//! While a control plane is tested against proxies of another revision on purpose.

use super::{Part, annotation, place, set, template_path};
use crate::model::{Workload, key, workload::PROXY};
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View};

pub static RULE: Rule = Rule {
    code: "WL011",
    name: "foreign-discovery-address",
    summary: "a pod template dials the istiod of another revision than the one that injects it",
    reads: &[Field::Template],
    checks: &[Check::Workload(check)],
    source: include_str!("wl011_foreign_discovery_address.rs"),
};

fn check(workload: &Workload, _: Old<'_, Workload>, view: &View<'_>) -> Found {
    let template = &workload.template;
    let Some(host) = template.discovery_host().filter(|_| !workload.is_istiod()) else { return Ok(Vec::new()) };
    // A host outside this mesh may have a name like one of ours.
    let mut parts = host.split('.');
    let (service, home) = (parts.next().unwrap_or_default(), parts.next());
    if home.is_some_and(|home| !matches!(view.before().service(home, service), Ok(Some(_)))) {
        return Ok(Vec::new());
    }
    let place = place(workload, view)?;
    let Some(injects) = place.resolution.revision() else { return Ok(Vec::new()) };
    let Some(dials) = view.before().revision_of_host(&host).and_then(|t| t.revision) else { return Ok(Vec::new()) };
    if dials == *injects {
        return Ok(Vec::new());
    }
    let by = [key::DISCOVERY_ADDRESS, key::PROXY_CONFIG].into_iter().find(|k| {
        template.annotations.value(k).is_some_and(|v| *k == key::DISCOVERY_ADDRESS || v.contains("discoveryAddress"))
    });
    let (field, fix) = match by {
        Some(key) => (annotation(view, key), set(view, Part::Annotations, key, None)),
        None => (
            format!("{}.spec.containers[{PROXY}].env", template_path(view.kind()).trim_end_matches(".metadata")),
            "in the manifest, drop CA_ADDR and PROXY_CONFIG".into(),
        ),
    };
    let fix = if by == Some(key::PROXY_CONFIG) {
        format!("drop discoveryAddress from the annotation, and keep the rest of it; if it says nothing else:\n{fix}")
    } else {
        fix
    };
    Ok(vec![Finding::warn(field, host.as_str()).says(
        format!("{injects} injects the pods, but their proxy dials {dials} ({service})."),
        "the proxy of one revision would take its configuration from another, and lose it with that one.",
        fix,
    )])
}
