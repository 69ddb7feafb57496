//! # WL003 image-auto-not-injected
//!
//! ## What
//! The container `istio-proxy` has the placeholder image `auto`, and no injection will replace it: nothing asks for one, the
//! pods or their namespace refuse it, istiod skips them (`hostNetwork`, system namespaces), or a gateway asks for the default
//! injector of a mesh that has none. Where only the name that is asked for is unknown, GW006 (gateways) or WL002 says so.
//!
//! ## Why
//! No registry has an image `auto`. The pods stay in `ImagePullBackOff`; for a gateway that means no traffic.
//!
//! ## What to do
//! Let the pods ask for a revision or tag with the label `istio.io/rev`, in a namespace that does not switch injection off.
//!
//! ## When to allow
//! When an injector that is not Istio's replaces the image.

use super::{Part, Place, is_never_injected, label, place, set};
use crate::model::injection::{NEVER_INJECTED, asked_by_namespace};
use crate::model::injector::DEFAULT_INJECTOR;
use crate::model::{Workload, key};
use crate::rules::names::{offer, unserved};
use crate::rules::{Check, Field, Finding, Found, Old, Rule, Severity, View};

pub static RULE: Rule = Rule {
    code: "WL003",
    name: "image-auto-not-injected",
    summary: "a proxy with image auto that nothing injects",
    reads: &[Field::Template],
    checks: &[Check::Workload(check)],
    source: include_str!("wl003_image_auto_not_injected.rs"),
};

fn check(workload: &Workload, _: Old<'_, Workload>, view: &View<'_>) -> Found {
    let template = &workload.template;
    if !template.is_image_auto() || workload.is_istiod() {
        return Ok(Vec::new());
    }
    let place = place(workload, view)?;
    if place.resolution.is_injected() {
        return Ok(Vec::new());
    }
    let home = &workload.meta.namespace;
    let cluster = view.before();
    let ask = || match offer(cluster, "") {
        Some(name) => set(view, Part::Labels, key::REV, Some(&name)),
        None => set(view, Part::Labels, key::INJECT, Some("true")),
    };
    let names = cluster.name_list();
    let host_network = format!("{}.spec.hostNetwork", super::template_path(view.kind()).trim_end_matches(".metadata"));
    let mut nothing_asks = false;
    // From what no label can change to what one label would.
    let (field, value, reason, fix) = if template.host_network {
        let fix = "drop hostNetwork, or give the container a real image and no injection";
        (host_network, "true", "istiod skips pods with hostNetwork".to_owned(), fix.to_owned())
    } else if NEVER_INJECTED.contains(&home.as_str()) {
        let fix = "deploy it to a namespace of its own, for instance: kubectl create namespace istio-ingress";
        ("metadata.namespace".to_owned(), home.as_str(), format!("istiod never injects in {home}"), fix.to_owned())
    } else if template.labels.is(key::INJECT, "false") {
        let fix = set(view, Part::Labels, key::INJECT, Some("true"));
        (label(view, key::INJECT), "false", format!("its label {}=false refuses it", key::INJECT), fix)
    } else if template.inject() == Some("false") {
        let fix = set(view, Part::Annotations, key::INJECT, None);
        (super::annotation(view, key::INJECT), "false", format!("its annotation {}=false refuses it", key::INJECT), fix)
    } else if let Some(None) = asked_by_namespace(&place.namespace) {
        let value = place.namespace.value(key::INJECTION).unwrap_or_default();
        let reason = format!("namespace {home:?} has {}={value}, which no pod can overrule", key::INJECTION);
        let mut fix = format!("kubectl label namespace {home} {}-", key::INJECTION);
        if !(template.labels.has(key::REV) || template.labels.is(key::INJECT, "true")) {
            fix.push_str(&format!("\n(then let the pods ask: {})\n{names}", ask()));
        }
        (label(view, key::INJECT), value, reason, fix)
    } else if let Some(asked) = &place.resolution.requested {
        // GW006 speaks of revisions, WL002 of what is no gateway.
        let by_name = if place.namespace.has(key::INJECTION) {
            false
        } else {
            place.namespace.has(key::REV) || template.labels.has(key::REV)
        };
        if by_name || asked != "default" || !workload.is_gateway() {
            return Ok(Vec::new());
        }
        return no_default(workload, &place, view);
    } else {
        nothing_asks = true;
        (
            label(view, key::REV),
            "",
            format!("neither the pods nor namespace {home:?} ask for injection"),
            format!("{}\n{names}", ask()),
        )
    };
    // A mesh that is still to come may inject every namespace by default.
    let may_come = nothing_asks && !cluster.injectors()?.any_live();
    let severity =
        if may_come || !place.certain && !is_never_injected(workload) { Severity::Warn } else { Severity::Deny };
    Ok(vec![Finding::deny(field, value).severity(severity).says(
        format!("istio-proxy keeps image \"auto\": {reason}."),
        "no injector would replace the placeholder, and no registry has such an image: the pods would never start.",
        fix,
    )])
}

/// A gateway that asks for the default injector of a mesh that has none.
fn no_default(workload: &Workload, place: &Place<'_>, view: &View<'_>) -> Found {
    let cluster = view.cluster();
    let Some(found) = unserved(cluster, DEFAULT_INJECTOR, &place.namespace)? else { return Ok(Vec::new()) };
    let severity = if place.certain { found.severity } else { Severity::Warn };
    let (home, name) = (&workload.meta.namespace, &workload.meta.name);
    let what = match (&found.announced, found.others) {
        (Some(by), _) => {
            format!("gateway {home}/{name} asks for the default injector, which is only announced by {by}.")
        }
        (None, false) => format!("gateway {home}/{name} asks for injection, and no injector is there yet."),
        (None, true) => format!("gateway {home}/{name} asks for the default injector, which this mesh does not have."),
    };
    let fix = match offer(cluster, "default").filter(|_| severity == Severity::Deny) {
        Some(name) => format!("{}\n{}", set(view, Part::Labels, key::REV, Some(&name)), cluster.name_list()),
        None => format!(
            "kubectl rollout restart {}\n(once the control plane is there: pods that start before it keep the placeholder)",
            view.kubectl()
        ),
    };
    let field = label(view, if place.namespace.has(key::INJECTION) { key::INJECTION } else { key::INJECT });
    Ok(vec![Finding::deny(field, "default").severity(severity).says(
        what,
        "no injector would replace the placeholder image \"auto\", and no registry has such an image: its pods would not start.",
        fix,
    )])
}
