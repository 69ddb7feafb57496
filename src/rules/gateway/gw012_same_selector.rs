//! # GW012 same-selector
//!
//! ## What
//! A new gateway Deployment has exactly the selector and the pod labels of another Deployment in its namespace.
//!
//! ## Why
//! Deployments tell their pods apart by owner references, but autoscalers, disruption budgets and `kubectl` only by labels:
//! an autoscaler on either of the two counts the pods of both and scales wrongly.
//!
//! ## What to do
//! Give the second set one label more, in the selector and in the template; its pods still match the Service. A strict
//! superset is fine.
//!
//! ## When to allow
//! Two Deployments of which neither is scaled automatically.

use crate::model::{Kind, Object, Workload};
use crate::rules::{Check, Field, Finding, Found, Old, Operation, Rule, View};

pub static RULE: Rule = Rule {
    code: "GW012",
    name: "same-selector",
    summary: "a new gateway Deployment has the selector and pod labels of another one",
    reads: &[Field::Selector, Field::Template],
    checks: &[Check::Workload(check)],
    source: include_str!("gw012_same_selector.rs"),
};

fn check(gateway: &Workload, _: Old<'_, Workload>, view: &View<'_>) -> Found {
    if view.operation != Operation::Create || view.kind() != Kind::Deployment || !gateway.is_gateway() {
        return Ok(Vec::new());
    }
    let cluster = view.cluster();
    cluster.knows(Kind::Deployment, None)?;
    let twin = cluster.raw_in(Kind::Deployment, &gateway.meta.namespace).find(|o| {
        matches!(o, Object::Workload(_, w) if !w.meta.deleting
            && w.selector == gateway.selector
            && w.template.labels == gateway.template.labels)
    });
    let Some(twin) = twin.map(|o| o.meta().name.clone()) else { return Ok(Vec::new()) };
    Ok(vec![Finding::warn("spec.selector", twin.as_str()).says(
        format!("its pods cannot be told from those of deployment {}/{twin}: same selector and labels.", gateway.meta.namespace),
        "an autoscaler on either of the two counts the pods of both.",
        format!(
            "add one label to the selector and the template of this one, for example gateway-set: {}\n(Services that select the others' labels still find it)",
            gateway.meta.name
        ),
    )])
}
