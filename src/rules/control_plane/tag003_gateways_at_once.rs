//! # TAG003 gateways-at-once
//!
//! ## What
//! A revision tag is pointed to another revision while Gateway API gateways follow it: by their own label, by that of their
//! namespace, or, for the tag `default`, by having none. Judged are the tag's Service and Sail's `IstioRevisionTag`.
//!
//! ## Why
//! Pods wait for a restart before they follow a tag. What istiod deploys for a Gateway does not: the istiod behind the tag
//! renders the Deployments anew, so that all of these gateways are replaced at once.
//!
//! ## What to do
//! Label the Gateways with the present revision first; then the tag moves without them, and they move one after the other.
//!
//! ## When to allow
//! When that is what is wanted. It is never more than a warning.

use crate::model::{Sail, Service, key};
use crate::rules::shift::{self, Retarget};
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View};

pub static RULE: Rule = Rule {
    code: "TAG003",
    name: "gateways-at-once",
    summary: "a tag moves all Gateway API gateways that follow it at once, without a restart",
    reads: &[Field::Label(key::REV), Field::Spec],
    checks: &[Check::Service(service), Check::Sail(sail)],
    source: include_str!("tag003_gateways_at_once.rs"),
};

fn service(new: &Service, old: Old<'_, Service>, view: &View<'_>) -> Found {
    if !new.meta.labels.has(key::TAG) {
        return Ok(Vec::new());
    }
    judge(Retarget::of_service(new, old.get(), view), view)
}

fn sail(new: &Sail, old: Old<'_, Sail>, view: &View<'_>) -> Found {
    judge(Retarget::of_sail(new, old.get(), view), view)
}

fn judge(retarget: Option<Retarget>, view: &View<'_>) -> Found {
    let Some(retarget) = retarget else { return Ok(Vec::new()) };
    let moved = retarget.gateways(view.before())?;
    if moved.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![Finding::warn(retarget.field, retarget.to.as_str()).says(
        format!("tag {}: {} to {} at once, without a restart", retarget.tag, shift::count(&moved), retarget.to),
        "istiod renders their Deployments anew; requests longer than their drain are cut off.",
        shift::stay(&moved),
    )])
}
