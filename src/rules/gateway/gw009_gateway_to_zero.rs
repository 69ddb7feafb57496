//! # GW009 gateway-to-zero
//!
//! ## What
//! A gateway is scaled to 0, and a Service that selects it has no other serving pod: none that matches its selector, is ready
//! and is not being deleted.
//!
//! ## Why
//! Whoever dials the Service, or the load balancer in front of it, is refused from that moment.
//!
//! ## What to do
//! Bring up the other set behind the Service first and wait until its pods are ready. Scaling down is fine while one serves.
//! A Service that nobody serves already loses nothing, and autoscalers are not judged. A ReplicaSet counts where no Deployment
//! stands behind it, as after `kubectl delete deployment --cascade=orphan`; the others follow their Deployment.
//!
//! ## When to allow
//! To switch off a gateway that is not used any more; or delete its Service first.

use super::traffic::{cut_off, left_alone};
use crate::model::Workload;
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View};

pub static RULE: Rule = Rule {
    code: "GW009",
    name: "gateway-to-zero",
    summary: "scaling a gateway to 0 leaves a Service without a serving pod",
    reads: &[Field::Replicas],
    checks: &[Check::Workload(check)],
    source: include_str!("gw009_gateway_to_zero.rs"),
};

fn check(gateway: &Workload, old: Old<'_, Workload>, view: &View<'_>) -> Found {
    if gateway.replicas != Some(0) || !gateway.is_gateway() {
        return Ok(Vec::new());
    }
    let Some(old) = old.get().filter(|o| o.wanted() > 0) else { return Ok(Vec::new()) };
    // Its pods carry the old template's labels, and its status is the old object's.
    let cut = cut_off(view.cluster(), view.id(), old)?;
    let findings = cut.into_iter().map(|(service, now)| {
        let place = format!("{}/{}", service.meta.namespace, service.meta.name);
        Finding::deny("spec.replicas", place).severity(now.severity()).says(
            format!("{}.", left_alone(service, now)),
            "whoever dials the Service, or its load balancer, would be refused at once.",
            format!(
                "kubectl scale {} --replicas=1\n(to move on: first have ready pods of another set with the labels {})",
                view.kubectl(),
                service.selector
            ),
        )
    });
    Ok(findings.collect())
}
