//! # NS008 system-namespace
//!
//! ## What
//! Labels that enable injection on `kube-system`, `kube-public`, `kube-node-lease`, `local-path-storage` or `istio-system`.
//!
//! ## Why
//! In the first four istiod never injects, but its webhook is still called for every pod there: while istiod is away, nodes
//! lose DNS and networking, because their pods cannot be created. In `istio-system` istiod's own neighbours come to depend on
//! istiod to start.
//!
//! ## What to do
//! Take the labels off. A gateway in `istio-system` can ask for its revision with the label `istio.io/rev` of its own pods.
//!
//! ## When to allow
//! Gateways that live in `istio-system` and follow the namespace's label.

use super::asked;
use crate::model::injection::NEVER_INJECTED;
use crate::model::{Namespace, key};
use crate::rules::finding::label;
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View};

pub static RULE: Rule = Rule {
    code: "NS008",
    name: "system-namespace",
    summary: "injection is enabled in a namespace of Kubernetes or Istio itself",
    reads: &[Field::Label(key::INJECTION), Field::Label(key::REV)],
    checks: &[Check::Namespace(check)],
    source: include_str!("ns008_system_namespace.rs"),
};

fn check(namespace: &Namespace, _: Old<'_, Namespace>, _: &View<'_>) -> Found {
    let name = namespace.meta.name.as_str();
    let never = NEVER_INJECTED.contains(&name);
    let labels = &namespace.meta.labels;
    if !(never || name == "istio-system") || asked(labels).is_none() {
        return Ok(Vec::new());
    }
    let key = if labels.has(key::INJECTION) { key::INJECTION } else { key::REV };
    let value = labels.value(key).unwrap_or_default();
    let (what, why) = if never {
        (
            format!("istiod never injects in {name}, but {key}={value} calls it for every pod there."),
            "while istiod is away, no pod of this namespace could start, DNS and networking included.",
        )
    } else {
        (
            format!("{key}={value} makes every new pod in {name} depend on a running istiod."),
            "what istiod itself needs should start without it.",
        )
    };
    Ok(vec![Finding::warn(label(key), value).says(what, why, format!("kubectl label namespace {name} {key}-"))])
}
