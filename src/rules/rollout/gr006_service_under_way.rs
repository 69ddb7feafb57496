//! # GR006 service-under-way
//!
//! ## What
//! A Service of a gateway gets another selector, or is deleted, while a GatewayRollout moves the gateway. Those are the Services
//! that the rollout began with, and no others that were made since; before it has noted them, those that `spec.services` names
//! or that select the gateway's pods.
//!
//! ## Why
//! The rollout never writes the Service: old and new pods stand behind the same selector, and traffic follows the number of ready
//! pods. With another selector one of the two sets, or both, are cut off at once; a load balancer's address that is given back does
//! not come again.
//!
//! ## What to do
//! Wait for the end of the rollout, or have it go back.
//!
//! ## When to allow
//! With the annotation `revguard.dev/allow` on the Service, when the rollout's own controller is gone.

use super::{hands_off, named};
use crate::model::{Kind, Object, Rollout, Service};
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View};
use crate::snapshot::{Known, Snapshot};

pub static RULE: Rule = Rule {
    code: "GR006",
    name: "service-under-way",
    summary: "the Service of a gateway gets another selector or is deleted while a GatewayRollout moves the gateway",
    reads: &[Field::Spec],
    checks: &[Check::Service(updated), Check::Delete(deleted)],
    source: include_str!("gr006_service_under_way.rs"),
};

fn updated(new: &Service, old: Old<'_, Service>, view: &View<'_>) -> Found {
    let Some(old) = old.get().filter(|o| o.selector != new.selector) else { return Ok(Vec::new()) };
    let Some(rollout) = behind(old, view.before())? else { return Ok(Vec::new()) };
    Ok(vec![Finding::deny("spec.selector", new.selector.to_string()).says(
        format!(
            "Service {}/{} would select {} instead of {} while {} moves the gateway behind it.",
            new.meta.namespace,
            new.meta.name,
            new.selector,
            old.selector,
            named(rollout)
        ),
        "old and new pods stand behind the same selector; with another one some of them, or all, are cut off at once.",
        hands_off(rollout),
    )])
}

fn deleted(object: &Object, view: &View<'_>) -> Found {
    let Object::Service(service) = object else { return Ok(Vec::new()) };
    let Some(rollout) = behind(service, view.before())? else { return Ok(Vec::new()) };
    let meta = &service.meta;
    Ok(vec![Finding::deny("metadata.name", meta.name.as_str()).says(
        format!(
            "Service {}/{} would be deleted while {} moves the gateway behind it.",
            meta.namespace,
            meta.name,
            named(rollout)
        ),
        "whoever dials it would be refused, and its address is given back.",
        hands_off(rollout),
    )])
}

/// The rollout whose gateway stands behind the Service.
fn behind<'a>(service: &'a Service, cluster: &'a Snapshot) -> Known<Option<&'a Rollout>> {
    let namespace = &service.meta.namespace;
    if service.selector.is_empty() {
        return Ok(None);
    }
    let is_its = |r: &&Rollout| {
        let source = || cluster.workload(Kind::Deployment, namespace, r.deployment()?);
        let known = r.services.contains(&service.meta.name);
        r.is_active() && (known || !r.noted && source().is_some_and(|w| service.selects(&w.template.labels)))
    };
    Ok(cluster.rollouts_in(namespace)?.find(is_its))
}
