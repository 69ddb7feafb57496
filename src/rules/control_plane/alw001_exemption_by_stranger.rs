//! # ALW001 exemption-by-stranger
//!
//! ## What
//! Somebody sets or lengthens the annotation `revguard.dev/allow` without being in one of the groups that the policy
//! names under `allow.groups`. Without such groups everybody may.
//!
//! ## Why
//! An exemption lets an object break a rule. Who may grant one is a decision of the platform team.
//!
//! ## What to do
//! Ask a member of the named groups to annotate the object, or leave the annotation as it was. Taking it away or
//! shortening it is always allowed.
//!
//! ## When to allow
//! Never by the annotation itself; change `allow.groups` in the policy.

use crate::model::Object;
use crate::model::key::ALLOW;
use crate::rules::finding::annotation;
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View, allow};

pub static RULE: Rule = Rule {
    code: "ALW001",
    name: "exemption-by-stranger",
    summary: "an exemption is set or lengthened by somebody who may not",
    reads: &[Field::Annotation(ALLOW)],
    checks: &[Check::Any(check)],
    source: include_str!("alw001_exemption_by_stranger.rs"),
};

fn check(object: &Object, old: Old<'_, Object>, view: &View<'_>) -> Found {
    let groups = &view.policy.allow.groups;
    let meta = object.meta();
    if groups.is_empty() || !meta.annotations.has(ALLOW) || view.user.groups.iter().any(|g| groups.contains(g)) {
        return Ok(Vec::new());
    }
    let before = old.get().map(|o| allow::parse(&o.meta().annotations)).unwrap_or_default();
    let gained = allow::gained(&before, &allow::parse(&meta.annotations));
    let names = groups.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let findings = gained.into_iter().map(|e| {
        // The end date is part of the value: a longer exemption is another one than the stored one.
        let value = e.until.map_or_else(|| e.code.clone(), |until| format!("{} until={until}", e.code));
        Finding::deny(annotation(ALLOW), value).says(
            format!("{} may not exempt this object from {}; only members of {names} may.", view.user.name, e.code),
            "an exemption lets the object break a rule that the platform team enforces.",
            format!("kubectl annotate {} {ALLOW}-\n(or ask a member of {names} to set it)", view.kubectl()),
        )
    });
    Ok(findings.collect())
}
