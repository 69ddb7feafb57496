//! # NS005 no-default-injector
//!
//! ## What
//! A namespace is set to `istio-injection=enabled` in a cluster without a default injector. It is denied where other
//! injectors are live; where there are none at all, or a default one is on its way, it is a warning.
//!
//! ## Why
//! `enabled` asks for the default injector: the one of an installation without revision, or the tag `default`. A mesh that
//! was installed with revisions only has none, and then the label does nothing at all, silently.
//!
//! ## What to do
//! Follow a revision or tag with `istio.io/rev`, or make a default injector with `istioctl tag set default`.
//!
//! ## When to allow
//! When the tag `default` is made right afterwards.
//!
//! ## Mutation
//! `mutations.NS005: NAME` replaces the label by `istio.io/rev=NAME`, but only while no default injector is live and a
//! control plane answers behind that name.

use super::{called, follow, is_ambient};
use crate::model::injector::DEFAULT_INJECTOR;
use crate::model::{Namespace, key};
use crate::rules::finding::label;
use crate::rules::names::{is_sound, offer, unserved};
use crate::rules::{Check, Field, Finding, Fix, Found, Old, Patch, Rule, Severity, View};

pub static RULE: Rule = Rule {
    code: "NS005",
    name: "no-default-injector",
    summary: "istio-injection=enabled, but there is no default injector",
    reads: &[Field::Label(key::INJECTION), Field::Label(key::REV)],
    checks: &[Check::Namespace(check)],
    source: include_str!("ns005_no_default_injector.rs"),
};

fn check(namespace: &Namespace, _: Old<'_, Namespace>, view: &View<'_>) -> Found {
    let labels = &namespace.meta.labels;
    // With a revision beside it NS001 speaks, and says the same.
    if !labels.is(key::INJECTION, "enabled") || labels.has(key::REV) {
        return Ok(Vec::new());
    }
    let cluster = view.cluster();
    if !called(cluster.injectors()?, &namespace.seen_labels()).is_empty() {
        return Ok(Vec::new());
    }
    let Some(found) = unserved(cluster, DEFAULT_INJECTOR, labels)? else { return Ok(Vec::new()) };
    let name = &namespace.meta.name;
    let severity = if is_ambient(labels) { Severity::Warn } else { found.severity };
    let draft = Finding::deny(label(key::INJECTION), "enabled").severity(severity);
    let why = format!("new pods in {name:?} would start without a sidecar and outside mTLS.");
    if !found.others {
        return Ok(vec![draft.says(
            format!("istio-injection=enabled does nothing yet: no injector is installed (namespace {name:?})."),
            why,
            "kubectl get mutatingwebhookconfigurations -l app=sidecar-injector\n(install the control plane first)",
        )]);
    }
    if let Some(by) = found.announced {
        return Ok(vec![draft.says(
            format!("there is no default injector yet; announced by {by}."),
            why,
            "kubectl get mutatingwebhookconfigurations -l app=sidecar-injector\n(restart what starts before it is there)",
        )]);
    }
    let wanted = view.policy.mutations.ns005.as_deref().filter(|n| is_sound(cluster, n));
    let offered = wanted.map(Into::into).or_else(|| offer(cluster, "default")).unwrap_or_else(|| "default".into());
    let revision = cluster.revision_behind(&offered)?;
    let make = revision.map_or_else(String::new, |r| {
        format!("\n(or make a default injector first: istioctl tag set default --revision {r})")
    });
    let text = format!("{}\n{}{make}", follow(namespace, &offered), cluster.name_list());
    let fix = match wanted {
        // The name must take these very pods, or the patch would only trade this violation for NS004.
        Some(to) if !called(cluster.injectors()?, &labels.without(key::INJECTION).with(key::REV, to)).is_empty() => {
            let parent = "/metadata/labels";
            Fix::Patch(vec![Patch::remove(parent, key::INJECTION), Patch::set(parent, key::REV, to, false)], text)
        }
        _ => Fix::Say(text),
    };
    Ok(vec![draft.says(
        format!("namespace {name:?} has istio-injection=enabled, but this mesh has no default injector."),
        why,
        fix,
    )])
}
