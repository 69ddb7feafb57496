//! # WL006 revision-without-injection
//!
//! ## What
//! A pod template asks for a revision with `istio.io/rev` and refuses injection with `sidecar.istio.io/inject: "false"`. Istio's
//! own components and gateways are left out: their templates carry both, rightly.
//!
//! ## Why
//! The refusal wins and the revision does nothing. The label still counts as use of that revision for whoever reads it.
//!
//! ## What to do
//! Drop one of the two.
//!
//! ## When to allow
//! Where a chart sets the revision on everything.

use super::{Part, label, refuses, set};
use crate::model::{Workload, key};
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View};

pub static RULE: Rule = Rule {
    code: "WL006",
    name: "revision-without-injection",
    summary: "a pod template asks for a revision and refuses injection",
    reads: &[Field::Template],
    checks: &[Check::Workload(check)],
    source: include_str!("wl006_revision_without_injection.rs"),
};

fn check(workload: &Workload, _: Old<'_, Workload>, view: &View<'_>) -> Found {
    let template = &workload.template;
    let Some(rev) = template.labels.value(key::REV).filter(|_| refuses(template)) else { return Ok(Vec::new()) };
    let istios_own = template.labels.is("app", "istiod")
        || template.labels.has(key::COMPONENT)
        || workload.meta.labels.has(key::COMPONENT)
        || workload.is_gateway();
    // A proxy that cannot start without injection is WL003's.
    if istios_own || template.is_image_auto() {
        return Ok(Vec::new());
    }
    let (part, what) =
        if template.labels.has(key::INJECT) { (Part::Labels, "label") } else { (Part::Annotations, "annotation") };
    Ok(vec![Finding::warn(label(view, key::REV), rev).says(
        format!("istio.io/rev={rev} does nothing beside the {what} {}=false.", key::INJECT),
        "the pods refuse every sidecar, whatever revision they name.",
        format!(
            "{}\n(to be injected instead: {})",
            set(view, Part::Labels, key::REV, None),
            set(view, part, key::INJECT, None)
        ),
    )])
}
