//! # GW001 owner-changed
//!
//! ## What
//! An update gives an object that one IstioOperator renders to another: its labels
//! `install.operator.istio.io/owning-resource` and `owning-resource-namespace` change from one name to another.
//!
//! ## Why
//! istioctl and the operator write with force and label everything as theirs. Two files that render one gateway take it
//! from each other at every run, each with its own revision, replicas and ports; and whichever of them is deleted or drops
//! the gateway deletes it for both.
//!
//! ## What to do
//! Let one IstioOperator render the object. To hand a gateway over: annotate the old one
//! `install.istio.io/ignoreReconcile: "true"`, relabel, drop the gateway from the old one, add it to the new one.
//!
//! It is denied while the old owner is in the cluster, and a warning otherwise: since 1.24 no IstioOperator is. What every
//! control plane renders again (base, CNI node agent, ztunnel) changes hands at every canary upgrade and is let alone.
//!
//! ## When to allow
//! For the one run that hands the object over.

use super::if_known;
use super::owner::{self, Owner};
use crate::model::{Object, key};
use crate::rules::finding::label;
use crate::rules::{Check, Field, Finding, Found, Old, Rule, Severity, View};

pub static RULE: Rule = Rule {
    code: "GW001",
    name: "owner-changed",
    summary: "an object of one IstioOperator is taken over by another",
    reads: &[Field::Label(key::OWNER), Field::Label(key::OWNER_NAMESPACE)],
    checks: &[Check::Any(check)],
    source: include_str!("gw001_owner_changed.rs"),
};

/// Components that have one copy in a cluster, whoever renders it.
const SHARED: [&str; 3] = ["Base", "Cni", "Ztunnel"];

fn check(object: &Object, old: Old<'_, Object>, view: &View<'_>) -> Found {
    let meta = object.meta();
    if meta.labels.value(key::COMPONENT).is_some_and(|c| SHARED.contains(&c)) {
        return Ok(Vec::new());
    }
    let Some(new) = Owner::of(&meta.labels) else { return Ok(Vec::new()) };
    let Some(was) = old.get().and_then(|o| Owner::of(&o.meta().labels)) else { return Ok(Vec::new()) };
    if was.same(&new) {
        return Ok(Vec::new());
    }
    let live = if_known(view.cluster().operators())?
        .into_iter()
        .flatten()
        .find(|o| was.is(o) && !o.is_inert() && !o.meta.deleting);
    let severity = if live.is_some() { Severity::Deny } else { Severity::Warn };
    let fix = match live {
        Some(o) => format!(
            "drop it from the file of {}; or, to hand it over, first\nkubectl annotate {} {}=true",
            new.path(),
            owner::kubectl(o),
            key::IGNORE_RECONCILE
        ),
        None => format!(
            "kubectl label {} {}={} --overwrite\n(and drop it from the file of {})",
            view.kubectl(),
            key::OWNER,
            was.name,
            new.path()
        ),
    };
    // Names are enough, and fit into a warning, unless they are the same.
    let (from, to) =
        if was.name == new.name { (was.path(), new.path()) } else { (was.name.to_string(), new.name.to_string()) };
    Ok(vec![Finding::deny(label(key::OWNER), new.path()).severity(severity).says(
        format!("owner changes from IstioOperator {from} to {to}: {}.", view.kubectl()),
        "the two write over each other at every run, and deleting either deletes the object.",
        fix,
    )])
}
