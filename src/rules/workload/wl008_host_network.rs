//! # WL008 host-network
//!
//! ## What
//! A pod template asks for injection with `sidecar.istio.io/inject: "true"` and uses `hostNetwork`.
//!
//! ## Why
//! istiod skips every pod with `hostNetwork`: its proxy would capture the traffic of the node. The request does nothing.
//!
//! ## What to do
//! Drop the request, or `hostNetwork`.
//!
//! ## When to allow
//! Where a chart asks for injection everywhere.

use super::{Part, annotation, label, set};
use crate::model::{Workload, key};
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View};

pub static RULE: Rule = Rule {
    code: "WL008",
    name: "host-network",
    summary: "a pod template asks for injection and uses hostNetwork",
    reads: &[Field::Template],
    checks: &[Check::Workload(check)],
    source: include_str!("wl008_host_network.rs"),
};

fn check(workload: &Workload, _: Old<'_, Workload>, view: &View<'_>) -> Found {
    let template = &workload.template;
    // A proxy that cannot start without injection is WL003's.
    if !template.host_network || template.inject() != Some("true") || template.is_image_auto() {
        return Ok(Vec::new());
    }
    let (part, field) = if template.labels.has(key::INJECT) {
        (Part::Labels, label(view, key::INJECT))
    } else {
        (Part::Annotations, annotation(view, key::INJECT))
    };
    Ok(vec![Finding::warn(field, "true").says(
        format!("{}=true does nothing: istiod skips pods with hostNetwork.", key::INJECT),
        "the pods start without a sidecar.",
        set(view, part, key::INJECT, None),
    )])
}
