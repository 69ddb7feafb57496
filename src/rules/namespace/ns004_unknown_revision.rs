//! # NS004 unknown-revision
//!
//! ## What
//! `istio.io/rev` of a namespace names a revision or tag that no live injector serves, or is empty. It is denied where other
//! names are served and nothing in the cluster announces this one; where a control plane of that name is on its way, or where
//! there is no injector at all, it is a warning. Ambient namespaces are warned only.
//!
//! ## Why
//! Nothing reports an unknown revision: new pods simply start without a sidecar, outside mTLS and without the mesh's
//! policies. The label also keeps other injectors away, so a pod's own request is ignored as well.
//!
//! ## What to do
//! Use a name that is served, best a tag, which outlives upgrades. To prepare a namespace for a revision that is still to
//! come, install its control plane first.
//!
//! ## When to allow
//! When the namespace must be labelled before anything of its control plane is in the cluster.

use super::{called, follow, is_ambient};
use crate::model::{Namespace, key};
use crate::rules::finding::label;
use crate::rules::names::{offer, unserved};
use crate::rules::{Check, Field, Finding, Found, Old, Rule, Severity, View};

pub static RULE: Rule = Rule {
    code: "NS004",
    name: "unknown-revision",
    summary: "a namespace selects a revision or tag that nobody serves",
    reads: &[Field::Label(key::INJECTION), Field::Label(key::REV)],
    checks: &[Check::Namespace(check)],
    source: include_str!("ns004_unknown_revision.rs"),
};

fn check(namespace: &Namespace, _: Old<'_, Namespace>, view: &View<'_>) -> Found {
    let labels = &namespace.meta.labels;
    // Beside istio-injection the revision is ignored, which other rules say.
    let (false, Some(rev)) = (labels.has(key::INJECTION), labels.value(key::REV)) else { return Ok(Vec::new()) };
    let name = &namespace.meta.name;
    let cap = |severity: Severity| if is_ambient(labels) { Severity::Warn } else { severity };
    let cluster = view.cluster();
    if rev.is_empty() {
        let offered = offer(cluster, "").map_or_else(String::new, |n| format!("\n(or: {})", follow(namespace, &n)));
        return Ok(vec![Finding::deny(label(key::REV), rev).severity(cap(Severity::Deny)).says(
            format!("istio.io/rev of namespace {name:?} is empty, which no injector serves."),
            "an empty value is still a label: it keeps every injector away, also from pods that ask for one.",
            format!("kubectl label namespace {name} {}-{offered}", key::REV),
        )]);
    }
    let injectors = cluster.injectors()?;
    if !called(injectors, &namespace.seen_labels()).is_empty() {
        return Ok(Vec::new());
    }
    let Some(found) = unserved(cluster, rev, labels)? else { return Ok(Vec::new()) };
    let draft = Finding::deny(label(key::REV), rev).severity(cap(found.severity));
    let why = format!("new pods in {name:?} would start without a sidecar and outside mTLS.");
    Ok(vec![match (found.announced, found.others) {
        (Some(by), _) => draft.says(
            format!("no injector serves {rev:?} yet; announced by {by}."),
            why,
            format!(
                "kubectl get mutatingwebhookconfigurations -l {}={rev}\n(restart what starts before it is there)",
                key::REV
            ),
        ),
        (None, false) => draft.says(
            format!("no injector serves {rev:?}, or anything else yet; pods of {name:?} get no sidecar."),
            why,
            "kubectl get mutatingwebhookconfigurations -l app=sidecar-injector\n(install the control plane first)",
        ),
        (None, true) => {
            let offered = offer(cluster, rev).unwrap_or_else(|| "default".into());
            draft.says(
                format!("namespace {name:?} selects revision {rev:?}, but no installed revision or tag has that name."),
                why,
                format!("{}\n{}", follow(namespace, &offered), cluster.name_list()),
            )
        }
    }])
}
