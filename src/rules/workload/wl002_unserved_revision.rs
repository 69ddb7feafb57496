//! # WL002 unserved-revision
//!
//! ## What
//! Pods of a template would be injected, but nobody serves the name that they ask for: their own `istio.io/rev`, or the
//! default injector through `sidecar.istio.io/inject: "true"`. It is denied where other names are served and nothing in the
//! cluster announces this one, else it is a warning. Where the namespace asks, it is always a warning: the mistake is there.
//! Gateways are GW006's.
//!
//! ## Why
//! Nothing reports an unknown name. The pods start without a sidecar, outside mTLS and without the mesh's policies.
//!
//! ## What to do
//! Ask for a name that is served, best a tag, which outlives upgrades.
//!
//! ## When to allow
//! When the workload must be there before anything of its control plane is.

use super::{Part, is_never_injected, label, refuses, set};
use crate::model::injection::{asked_by_namespace, requested};
use crate::model::injector::DEFAULT_INJECTOR;
use crate::model::{Workload, key};
use crate::rules::names::{if_known, offer, unserved};
use crate::rules::{Check, Field, Finding, Found, Old, Rule, Severity, View};

pub static RULE: Rule = Rule {
    code: "WL002",
    name: "unserved-revision",
    summary: "a pod template asks for a revision or tag that nobody serves",
    reads: &[Field::Template],
    checks: &[Check::Workload(check)],
    source: include_str!("wl002_unserved_revision.rs"),
};

fn check(workload: &Workload, _: Old<'_, Workload>, view: &View<'_>) -> Found {
    let template = &workload.template;
    if workload.is_istiod() || workload.is_gateway() || refuses(template) || is_never_injected(workload) {
        return Ok(Vec::new());
    }
    let cluster = view.before();
    let home = &workload.meta.namespace;
    let certain = if_known(cluster.namespace(home))?.flatten().is_some();
    let namespace = cluster.namespace_labels(home);
    let by_namespace = asked_by_namespace(&namespace).is_some();
    let Some(asked) = requested(&namespace, &template.labels) else { return Ok(Vec::new()) };
    let injectors = cluster.injectors()?;
    let takes = |h: &&crate::model::Hook| h.istio;
    if injectors.matching(&namespace, &template.labels).find(takes).is_some() {
        return Ok(Vec::new());
    }
    // What istio-injection or the inject label asks for is the default injector, which no revision label names.
    let by_revision = if by_namespace { !namespace.has(key::INJECTION) } else { template.labels.has(key::REV) };
    let name = if by_revision { asked } else { DEFAULT_INJECTOR };
    let Some(found) = unserved(view.cluster(), name, &namespace)? else { return Ok(Vec::new()) };
    let ambient = namespace.is(key::DATAPLANE_MODE, "ambient");
    let severity = if certain && !by_namespace && !ambient { found.severity } else { Severity::Warn };
    let which = if by_revision { format!("{asked:?}") } else { "the default injector".to_owned() };
    let what = match (by_namespace, &found.announced, found.others) {
        (true, _, _) => format!("namespace {home:?} asks for {which}, which nobody serves: the pods get no sidecar."),
        (false, Some(by), _) => format!("nobody serves {which} yet; announced by {by}."),
        (false, None, false) => format!("nobody serves {which}, or anything else yet: the pods get no sidecar."),
        (false, None, true) if by_revision => {
            format!("the pod template asks for revision {asked:?}, but no installed revision or tag has that name.")
        }
        (false, None, true) => {
            format!("the pod template asks for {which} ({}=true), but this mesh has none.", key::INJECT)
        }
    };
    let key = if by_revision { key::REV } else { key::INJECT };
    let fix = match offer(cluster, asked).filter(|_| found.others && found.announced.is_none()) {
        Some(name) if by_namespace => {
            let drop = if by_revision { String::new() } else { format!(" {}-", key::INJECTION) };
            format!(
                "kubectl label namespace {home} {}={name}{drop} --overwrite\n{}",
                key::REV,
                cluster.name_list()
            )
        }
        Some(name) => format!("{}\n{}", set(view, Part::Labels, key::REV, Some(&name)), cluster.name_list()),
        None => "kubectl get mutatingwebhookconfigurations -l app=sidecar-injector\n(install the control plane first, then restart the pods)".to_owned(),
    };
    let value = if by_revision { asked.to_owned() } else { format!("default:{}", key::INJECT) };
    Ok(vec![Finding::deny(label(view, key), value).severity(severity).says(
        what,
        "the pods would start without a sidecar and outside mTLS, and nothing would report it.",
        fix,
    )])
}
