//! # NS014 gateways-at-once
//!
//! ## What
//! A change of the label `istio.io/rev` of a namespace moves the Gateway API gateways in it that have no such label of their
//! own.
//!
//! ## Why
//! Pods wait for a restart before they move. What istiod deploys for a Gateway does not: the istiod that owns it from now on
//! renders its Deployment anew, so that all of them are replaced at once, before anybody has looked at one. Requests that
//! take longer than the drain of a gateway (five seconds) are cut off.
//!
//! ## What to do
//! Give each Gateway the label of the present revision first; then it stays while the namespace moves. Take the labels off,
//! or change them, one after the other.
//!
//! ## When to allow
//! When that is what is wanted. It is never more than a warning.

use crate::model::{Namespace, key};
use crate::rules::finding::label;
use crate::rules::shift;
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View};

pub static RULE: Rule = Rule {
    code: "NS014",
    name: "gateways-at-once",
    summary: "a namespace's new revision moves all of its Gateway API gateways at once, without a restart",
    reads: &[Field::Label(key::REV)],
    checks: &[Check::Namespace(check)],
    source: include_str!("ns014_gateways_at_once.rs"),
};

fn check(namespace: &Namespace, old: Old<'_, Namespace>, view: &View<'_>) -> Found {
    let Some(old) = old.get() else { return Ok(Vec::new()) };
    let moved = shift::gateways_by_namespace(namespace, old, view)?;
    let Some(first) = moved.first() else { return Ok(Vec::new()) };
    let value = namespace.meta.labels.value(key::REV).unwrap_or_default();
    Ok(vec![Finding::warn(label(key::REV), value).says(
        format!("{:?}: {} to {} at once, without a restart", namespace.meta.name, shift::count(&moved), first.to),
        "istiod renders their Deployments anew; requests longer than their drain are cut off.",
        shift::stay(&moved),
    )])
}
