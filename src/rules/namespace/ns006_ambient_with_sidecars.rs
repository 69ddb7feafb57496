//! # NS006 ambient-with-sidecars
//!
//! ## What
//! A namespace carries `istio.io/dataplane-mode=ambient` and labels by which an injector takes its pods:
//! `istio-injection=enabled`, or an `istio.io/rev` that is served.
//!
//! ## Why
//! The pods get sidecars, and pods with a sidecar are left out of the ambient data plane. The namespace is then neither what
//! its one label says nor what the other does, and waypoint policies do not apply.
//!
//! ## What to do
//! Add `istio-injection=disabled`: it keeps injectors away, and `istio.io/rev` still chooses the istiod for waypoints. To stay
//! with sidecars, drop `istio.io/dataplane-mode`.
//!
//! ## When to allow
//! While a namespace moves from sidecars to ambient, workload by workload.

use super::{called, is_ambient};
use crate::model::{Namespace, key};
use crate::rules::finding::label;
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View};

pub static RULE: Rule = Rule {
    code: "NS006",
    name: "ambient-with-sidecars",
    summary: "a namespace is ambient and injected at once",
    reads: &[Field::Label(key::DATAPLANE_MODE), Field::Label(key::INJECTION), Field::Label(key::REV)],
    checks: &[Check::Namespace(check)],
    source: include_str!("ns006_ambient_with_sidecars.rs"),
};

fn check(namespace: &Namespace, _: Old<'_, Namespace>, view: &View<'_>) -> Found {
    let labels = &namespace.meta.labels;
    if !is_ambient(labels) || !(labels.has(key::INJECTION) || labels.has(key::REV)) {
        return Ok(Vec::new());
    }
    let called = called(view.cluster().injectors()?, &namespace.seen_labels());
    if called.is_empty() {
        return Ok(Vec::new());
    }
    let name = &namespace.meta.name;
    let by = [key::INJECTION, key::REV].into_iter().find_map(|k| Some(format!("{k}={}", labels.value(k)?)));
    let by = by.unwrap_or_default();
    Ok(vec![Finding::warn(label(key::DATAPLANE_MODE), by.clone()).says(
        format!("{name:?} is ambient, but {by} gives its pods sidecars."),
        "pods with a sidecar are left out of the ambient data plane.",
        format!(
            "kubectl label namespace {name} {}=disabled --overwrite\n(to stay with sidecars: kubectl label namespace {name} {}-)",
            key::INJECTION,
            key::DATAPLANE_MODE
        ),
    )])
}
