//! # NS001 both-labels
//!
//! ## What
//! A namespace carries `istio-injection=enabled` and `istio.io/rev` at once.
//!
//! ## Why
//! Every revision's injector demands that `istio-injection` is absent, so the revision label is ignored: the default
//! injector takes the pods, and where there is none nobody does. Either way not the revision that the label names.
//!
//! ## What to do
//! Keep one. To follow a revision or tag, drop `istio-injection`; to follow the default injector, drop `istio.io/rev`.
//!
//! ## When to allow
//! Never needed for long: while a tool that cannot be changed writes the second label.
//!
//! ## Mutation
//! `mutations.NS001: Rev` drops `istio-injection`, `Default` drops `istio.io/rev`; neither where nobody would serve what is
//! left, or nobody would answer.

use crate::model::injector::DEFAULT_INJECTOR;
use crate::model::{Namespace, key};
use crate::rules::finding::label;
use crate::rules::names::is_sound;
use crate::rules::policy::Prefer;
use crate::rules::{Check, Field, Finding, Fix, Found, Old, Patch, Rule, View};

pub static RULE: Rule = Rule {
    code: "NS001",
    name: "both-labels",
    summary: "a namespace has istio-injection=enabled and istio.io/rev",
    reads: &[Field::Label(key::INJECTION), Field::Label(key::REV)],
    checks: &[Check::Namespace(check)],
    source: include_str!("ns001_both_labels.rs"),
};

fn check(namespace: &Namespace, _: Old<'_, Namespace>, view: &View<'_>) -> Found {
    let labels = &namespace.meta.labels;
    let (true, Some(rev)) = (labels.is(key::INJECTION, "enabled"), labels.value(key::REV)) else {
        return Ok(Vec::new());
    };
    let name = &namespace.meta.name;
    let outcome = match view.cluster().injectors() {
        Ok(injectors) => match injectors.default_hook() {
            Some(hook) => format!("the default injector {} wins and istio.io/rev is ignored", hook.config),
            None => "there is no default injector, so nothing injects".to_owned(),
        },
        Err(_) => "istio.io/rev is ignored".to_owned(),
    };
    let drop_injection = format!("kubectl label namespace {name} {}-", key::INJECTION);
    let drop_rev = format!("kubectl label namespace {name} {}-", key::REV);
    // What is left must lead somewhere, or one violation would only be traded for another, NS004 or NS005.
    let serves = |asked: &str| view.cluster().injectors().is_ok_and(|i| !i.serving(asked, labels).is_empty());
    let text = match (serves(rev), serves(DEFAULT_INJECTOR)) {
        (true, false) => drop_injection,
        (false, true) => drop_rev,
        _ => format!("{drop_injection}\n(to follow the default injector instead: {drop_rev})"),
    };
    let fix = match view.policy.mutations.ns001 {
        Prefer::Rev if serves(rev) && is_sound(view.cluster(), rev) => {
            Fix::Patch(vec![Patch::remove("/metadata/labels", key::INJECTION)], text)
        }
        Prefer::Default if serves(DEFAULT_INJECTOR) => {
            Fix::Patch(vec![Patch::remove("/metadata/labels", key::REV)], text)
        }
        _ => Fix::Say(text),
    };
    Ok(vec![Finding::deny(label(key::REV), rev).says(
        format!("namespace {name:?} has both istio-injection=enabled and istio.io/rev={rev}: {outcome}."),
        "new pods would not join the revision that the label names.",
        fix,
    )])
}
