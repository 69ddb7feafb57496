//! # GR001 second-rollout
//!
//! ## What
//! A GatewayRollout starts on a gateway that another one has not finished with: it is created, its `dryRun` is taken off, or a
//! completed one is asked to go back. What another rollout has made, its second Deployment or its standby, is the same gateway.
//!
//! ## Why
//! Two rollouts would scale the same pods against each other, and neither could keep the number of pods that serve.
//!
//! ## What to do
//! Wait for the end of the first one, have it go back, or delete it while it has changed nothing. A `dryRun` may always
//! stand beside it.
//!
//! Two that are created within the same moment can both pass; the controller lets only one of them hold the gateway.
//!
//! ## When to allow
//! Never needed: the second one would wait all the same.

use super::{hands_off, named, object};
use crate::model::Rollout;
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View};

pub static RULE: Rule = Rule {
    code: "GR001",
    name: "second-rollout",
    summary: "a GatewayRollout starts on a gateway that another one has not finished with",
    reads: &[Field::Spec],
    checks: &[Check::Rollout(check)],
    source: include_str!("gr001_second_rollout.rs"),
};

fn check(rollout: &Rollout, old: Old<'_, Rollout>, view: &View<'_>) -> Found {
    if rollout.dry_run {
        return Ok(Vec::new());
    }
    let (starts, field) = match old.get() {
        None => (!rollout.is_over(), "spec.target"),
        Some(old) if rollout.can_go_back() => (rollout.abort && !old.abort, "spec.abort"),
        Some(old) => (old.dry_run && !rollout.is_over(), "spec.dryRun"),
    };
    if !starts {
        return Ok(Vec::new());
    }
    let cluster = view.cluster();
    let mut others = cluster.rollouts_in(&rollout.meta.namespace)?.filter(|other| {
        let in_the_way = other.is_active() || !other.is_over() && !other.dry_run && !other.meta.deleting;
        in_the_way && cluster.is_same_gateway(rollout, other)
    });
    let Some(other) = others.next() else { return Ok(Vec::new()) };
    let gateway = other.deployment().map_or("", |name| name.as_str());
    let (does, fix) = if other.is_active() {
        ("is moving", hands_off(other))
    } else {
        (
            "is about to move",
            format!("kubectl delete {}\n(it has changed nothing yet; or wait for its end)", object(other)),
        )
    };
    Ok(vec![Finding::deny(field, other.meta.name.as_str()).says(
        format!("{} {does} gateway {gateway} to {}.", named(other), other.to),
        "two rollouts would scale the same pods against each other, and neither could keep the number that serves.",
        fix,
    )])
}
