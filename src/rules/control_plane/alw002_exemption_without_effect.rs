//! # ALW002 exemption-without-effect
//!
//! ## What
//! The annotation `revguard.dev/allow` has an entry that exempts from nothing: its code is no rule's, it gives no reason, its last
//! day is no date or is over.
//!
//! ## Why
//! Whoever wrote it counts on it. It is found out by the denial that it was to prevent, often much later.
//!
//! ## What to do
//! Write it as `CODE: reason`, with ` until=YYYY-MM-DD` behind the reason for a last day, and `;` between two entries; `revguard rules`
//! lists the codes. Or take it off.
//!
//! ## When to allow
//! Never by the annotation itself. A warning stops nobody.

use jiff::civil::Date;

use crate::model::Object;
use crate::model::key::ALLOW;
use crate::rules::allow::{Exemption, Standing};
use crate::rules::finding::annotation;
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View, allow, find};

pub static RULE: Rule = Rule {
    code: "ALW002",
    name: "exemption-without-effect",
    summary: "an exemption names no rule, gives no reason, or is over",
    reads: &[Field::Annotation(ALLOW)],
    checks: &[Check::Any(check)],
    source: include_str!("alw002_exemption_without_effect.rs"),
};

fn check(object: &Object, _: Old<'_, Object>, view: &View<'_>) -> Found {
    let entries = allow::parse(&object.meta().annotations);
    let (at, only) = (view.kubectl(), entries.len() == 1);
    let findings = entries.into_iter().filter_map(|entry| {
        let what = without_effect(&entry, view.today)?;
        let fix = if only {
            format!("kubectl annotate {at} {ALLOW}-\n(then, if it is needed: {ALLOW}='CODE: reason until=YYYY-MM-DD')")
        } else {
            format!("kubectl edit {at}\n(an entry of {ALLOW} is CODE: reason until=YYYY-MM-DD)")
        };
        Some(Finding::warn(annotation(ALLOW), entry.code).says(
            what,
            "whoever wrote it counts on it, and is denied all the same.",
            fix,
        ))
    });
    Ok(findings.collect())
}

/// Why an entry does nothing, in words; `None`: it does.
fn without_effect(entry: &Exemption, today: Date) -> Option<String> {
    let code = &entry.code;
    if find(code).is_none() {
        return Some(format!("the exemption from {code:?} does nothing: there is no such rule"));
    }
    match entry.standing(today) {
        Standing::Holds(_) => None,
        Standing::Void(why) => Some(why),
    }
}
