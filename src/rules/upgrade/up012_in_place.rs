//! # UP012 in-place
//!
//! ## What
//! With the policy `canaryOnly: true`: a control plane that has a revision gets another version under the same revision. Judged
//! are an IstioOperator with `spec.revision` whose `tag` changes, Sail's `Istio` that is not `RevisionBased` and whose `version`
//! changes, and an `IstioRevision` of its own.
//!
//! Without the policy nothing is said; UP002 judges how far a step goes.
//!
//! ## Why
//! In place all proxies change their control plane at once, and there is none to go back to.
//!
//! ## What to do
//! Install the new version as a revision of its own beside the old one, and move the tags.
//!
//! ## When to allow
//! For a patch level that cannot wait.

use super::moves::sail_revision;
use crate::model::{Kind, Operator, Sail};
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View};

pub static RULE: Rule = Rule {
    code: "UP012",
    name: "in-place",
    summary: "with canaryOnly: a control plane with a revision changes its version in place",
    reads: &[Field::Spec],
    checks: &[Check::Operator(operator), Check::Sail(sail)],
    source: include_str!("up012_in_place.rs"),
};

const WHY: &str = "all of its proxies change their control plane at once, and there is no old one to go back to.";

fn operator(new: &Operator, old: Old<'_, Operator>, view: &View<'_>) -> Found {
    if !view.policy.canary_only || !new.has_pilot() || new.is_inert() {
        return Ok(Vec::new());
    }
    let (Some(old), Some(revision), Some(to)) = (old.get(), new.revision.as_deref(), new.tag.as_deref()) else {
        return Ok(Vec::new());
    };
    let Some(from) = old.tag.as_deref().filter(|from| *from != to && old.revision == new.revision) else {
        return Ok(Vec::new());
    };
    let named = named(to);
    Ok(vec![Finding::warn("spec.tag", to).says(
        format!("revision {revision} goes from {from} to {to} in place; the policy wants a revision of its own"),
        WHY,
        format!("istioctl install --revision {named} --set profile=minimal --set tag={to}\n(then move tags and namespaces to {named})"),
    )])
}

fn sail(new: &Sail, old: Old<'_, Sail>, view: &View<'_>) -> Found {
    let kind = view.kind();
    let (Some(old), true) = (old.get(), view.policy.canary_only) else { return Ok(Vec::new()) };
    let (Some(from), Some(to)) = (old.version.as_deref(), new.version.as_deref()) else { return Ok(Vec::new()) };
    // What the operator changes of an Istio's own was judged with the Istio.
    let is_own = kind == Kind::SailRevision && new.meta.owner.as_deref().is_none_or(|o| o.kind != "Istio");
    if from == to || !(kind == Kind::SailIstio || is_own) || sail_revision(kind, old) != sail_revision(kind, new) {
        return Ok(Vec::new());
    }
    let (row, name) = (crate::wire::row(kind).name, &new.meta.name);
    let fix = if kind == Kind::SailIstio {
        format!(
            "kubectl patch {} --type merge -p '{{\"spec\":{{\"version\":\"{to}\",\"updateStrategy\":{{\"type\":\"RevisionBased\"}}}}}}'",
            view.kubectl()
        )
    } else {
        format!("leave {row} {name} at {from} and create another IstioRevision with version: {to}, named {}", named(to))
    };
    Ok(vec![Finding::warn("spec.version", to).says(
        format!("{row} {name} goes from {from} to {to} in place; the policy wants a revision of its own"),
        WHY,
        fix,
    )])
}

/// A name for a revision of this version: 1-24-2.
fn named(version: &str) -> String {
    let plain = version.strip_prefix('v').unwrap_or(version);
    plain.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}
