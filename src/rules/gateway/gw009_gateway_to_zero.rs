//! # GW009 gateway-to-zero
//!
//! ## What
//! A gateway is scaled to 0, and a Service that selects it has no other serving pod: none that matches its selector, is ready
//! and is not being deleted.
//!
//! Where every Istio Gateway that selects it is served by another gateway as well, behind a Service that can be reached from as
//! far, it is a warning: whether DNS leads there by now, nobody can tell from here.
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

use super::if_known;
use super::traffic::{Heirs, cut_off, gateways_for, left_alone, reach, title};
use crate::model::Workload;
use crate::rules::view::kubectl;
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
    if cut.is_empty() {
        return Ok(Vec::new());
    }
    let users = if_known(gateways_for(view.cluster(), &old.meta.namespace, &old.template.labels))?.unwrap_or_default();
    let heirs = Heirs::of(view.cluster(), &users, cut.iter().map(|(s, _)| reach(s)).max().unwrap_or(0))?;
    let findings = cut.into_iter().map(|(service, now)| {
        let place = format!("{}/{}", service.meta.namespace, service.meta.name);
        if let Some(heir) = heirs.all() {
            return Finding::warn("spec.replicas", place).says(
                format!("{}; {} serves the same", left_alone(service, now), title(heir)),
                WHY,
                format!("kubectl get {}\n(nothing to do once its clients dial that one)", kubectl(heir)),
            );
        }
        Finding::deny("spec.replicas", place).severity(now.severity()).says(
            format!("{}.", left_alone(service, now)),
            WHY,
            format!(
                "kubectl scale {} --replicas=1\n(to move on: first have ready pods of another set with the labels {})",
                view.kubectl(),
                service.selector
            ),
        )
    });
    Ok(findings.collect())
}

const WHY: &str = "whoever dials the Service, or its load balancer, would be refused at once.";
