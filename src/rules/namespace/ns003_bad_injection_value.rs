//! # NS003 bad-injection-value
//!
//! ## What
//! `istio-injection` has a value other than `enabled` and `disabled`: `true`, `Enabled`, an empty one, a typo.
//!
//! ## Why
//! Only `enabled` selects an injector, and every revision's injector demands that the label is absent. So any other value
//! switches injection off for the whole namespace, also for pods that ask for it themselves.
//!
//! ## What to do
//! Write `enabled`, or follow a revision or tag with `istio.io/rev`; write `disabled` where that is meant.
//!
//! ## When to allow
//! Where an injector of your own selects that value. One that is in the cluster is seen, and nothing is said then.

use super::{called, follow};
use crate::model::{Namespace, key};
use crate::rules::finding::label;
use crate::rules::names::{if_known, offer};
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View};

pub static RULE: Rule = Rule {
    code: "NS003",
    name: "bad-injection-value",
    summary: "istio-injection is neither enabled nor disabled",
    reads: &[Field::Label(key::INJECTION)],
    checks: &[Check::Namespace(check)],
    source: include_str!("ns003_bad_injection_value.rs"),
};

fn check(namespace: &Namespace, _: Old<'_, Namespace>, view: &View<'_>) -> Found {
    let labels = &namespace.meta.labels;
    let value = match labels.value(key::INJECTION) {
        None | Some("enabled" | "disabled") => return Ok(Vec::new()),
        Some(value) => value,
    };
    let cluster = view.cluster();
    let injectors = if_known(cluster.injectors())?;
    if injectors.is_some_and(|i| !called(i, &namespace.seen_labels()).is_empty()) {
        return Ok(Vec::new());
    }
    let name = &namespace.meta.name;
    let set = |value: &str| format!("kubectl label namespace {name} {}={value} --overwrite", key::INJECTION);
    let off = matches!(value.to_ascii_lowercase().as_str(), "false" | "disabled" | "disable" | "off" | "no" | "none");
    let has_default = injectors.is_none_or(|i| i.default_hook().is_some());
    let revision = labels.value(key::REV).filter(|rev| cluster.is_served(rev).unwrap_or(false));
    let fix = match (off, revision) {
        (true, _) => format!("{}\n(to switch injection on: {})", set("disabled"), set("enabled")),
        (false, Some(rev)) => format!(
            "kubectl label namespace {name} {}-\n(so that it follows istio.io/rev={rev}; without injection: {})",
            key::INJECTION,
            set("disabled")
        ),
        (false, None) => {
            let on = match offer(cluster, "default").filter(|_| !has_default) {
                Some(offered) => follow(namespace, &offered),
                None => set("enabled"),
            };
            format!("{on}\n(to switch injection off: {})", set("disabled"))
        }
    };
    Ok(vec![Finding::deny(label(key::INJECTION), value).says(
        format!(
            "namespace {name:?} has istio-injection={value:?}, but only \"enabled\" and \"disabled\" mean anything."
        ),
        "any other value switches injection off for every revision: new pods would start without a sidecar.",
        fix,
    )])
}
