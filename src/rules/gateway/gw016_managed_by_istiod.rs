//! # GW016 managed-by-istiod
//!
//! ## What
//! Somebody else than istiod deletes or edits what istiod deployed for a Gateway API Gateway that is there: its Deployment,
//! Service, HorizontalPodAutoscaler or ServiceAccount.
//!
//! - Deleting the Deployment, Service or ServiceAccount of a gateway that serves: denied. Of one that does not, and of the
//!   autoscaler: a warning.
//! - Changing what istiod applies (the pod template, the Service's type, selector or ports, the autoscaler): a warning.
//!   Replicas are not applied, and a restart (`kubectl rollout restart`) changes nothing that is.
//!
//! ## Why
//! istiod makes deleted objects again a moment later, but until then whoever dials the gateway is refused, and a load balancer
//! may come back with another address. What was edited is applied over at the next occasion, at the latest when istiod
//! restarts or is upgraded: the edit vanishes when nobody thinks of it any more.
//!
//! ## What to do
//! Delete the Gateway; what belongs to it follows. Change it through the Gateway: `spec.infrastructure.labels`, `annotations`
//! and `parametersRef` reach what is deployed.
//!
//! A Gateway whose `spec.addresses` names a host is deployed by hand, and one of another class by somebody else: nothing is
//! said about either, nor about what is left when the Gateway is gone.
//!
//! ## When to allow
//! To have something made anew that cannot be changed in place.

use super::traffic::{Count, ready_pods};
use crate::model::{GatewayConfig, Hpa, Id, Kind, Object, Service, Workload};
use crate::rules::managed::{self, gateway_of};
use crate::rules::view::kubectl;
use crate::rules::{Check, Field, Finding, Found, Old, Rule, Severity, View};
use crate::snapshot::Known;

pub static RULE: Rule = Rule {
    code: "GW016",
    name: "managed-by-istiod",
    summary: "what istiod deployed for a Gateway is deleted or edited by somebody else",
    reads: &[Field::Template, Field::Selector, Field::Spec],
    checks: &[Check::Delete(deleted), Check::Workload(workload), Check::Service(service), Check::Hpa(hpa)],
    source: include_str!("gw016_managed_by_istiod.rs"),
};

fn id(gateway: &GatewayConfig) -> Id {
    Id { kind: Kind::ApiGateway, namespace: gateway.meta.namespace.clone(), name: gateway.meta.name.clone() }
}

fn deleted(object: &Object, view: &View<'_>) -> Found {
    let Some(gateway) = gateway_of(view.before(), object.kind(), object.meta())? else { return Ok(Vec::new()) };
    let kind = crate::wire::row(object.kind()).name;
    let (namespace, name) = (&object.meta().namespace, &object.meta().name);
    let it = format!("{kind} {namespace}/{name}");
    let now = if view.kind() == Kind::Hpa { None } else { serving(gateway, view)?.filter(|now| now.pods > 0) };
    let severity = now.map_or(Severity::Warn, Count::severity);
    let gateway_name = format!("{}/{}", gateway.meta.namespace, gateway.meta.name);
    let what = match severity {
        Severity::Deny => {
            let n = now.map_or(0, |now| now.pods);
            let serve = if n == 1 { "pod serves" } else { "pods serve" };
            format!("{it} is part of Gateway {gateway_name}, which istiod deployed; {n} {serve} it.")
        }
        Severity::Warn => format!("istiod makes {it} again for Gateway {gateway_name}"),
    };
    let owner = kubectl(&id(gateway));
    let instead = if view.kind() == Kind::Deployment {
        format!("kubectl rollout restart {}\n(for new pods;", view.kubectl())
    } else {
        format!("kubectl edit {owner}\n(spec.infrastructure reaches what is deployed;")
    };
    Ok(vec![Finding::deny("metadata.name", name.as_str()).severity(severity).says(
        what,
        without(view.kind()),
        format!("{instead} to retire the gateway with all that belongs to it: kubectl delete {owner})"),
    )])
}

/// What happens until istiod has made it again.
fn without(kind: Kind) -> &'static str {
    match kind {
        Kind::Service => {
            "until istiod makes it again, whoever dials the gateway is refused, and its address may be another then."
        }
        Kind::ServiceAccount => "until istiod makes it again, its pods get no certificates, and no new one starts.",
        Kind::Hpa => "until istiod makes it again, nothing scales the gateway.",
        _ => "until istiod makes it again and its pods are ready, whoever dials the gateway is refused.",
    }
}

/// Ready pods of the Gateway's Deployments.
fn serving(gateway: &GatewayConfig, view: &View<'_>) -> Known<Option<Count>> {
    let cluster = view.before();
    let mut total: Option<Count> = None;
    for deployment in managed::deployments(cluster, &gateway.meta) {
        let meta = &deployment.meta;
        let id = Id { kind: Kind::Deployment, namespace: meta.namespace.clone(), name: meta.name.clone() };
        if let Some(own) = ready_pods(cluster, &id, deployment)? {
            let before = total.unwrap_or(Count { pods: 0, certain: true });
            total = Some(Count { pods: before.pods + own.pods, certain: before.certain && own.certain });
        }
    }
    Ok(total)
}

fn workload(new: &Workload, old: Old<'_, Workload>, view: &View<'_>) -> Found {
    if !new.is_gateway() {
        return Ok(Vec::new());
    }
    let Some(old) = old.get().filter(|o| o.template != new.template) else { return Ok(Vec::new()) };
    edited("spec.template", &old.meta, view)
}

fn service(new: &Service, old: Old<'_, Service>, view: &View<'_>) -> Found {
    if managed::gateway_name(&new.meta.labels).is_none() {
        return Ok(Vec::new());
    }
    let Some(old) = old.get() else { return Ok(Vec::new()) };
    let field = if old.kind != new.kind {
        "spec.type"
    } else if old.selector != new.selector {
        "spec.selector"
    } else if old.ports != new.ports {
        "spec.ports"
    } else {
        return Ok(Vec::new());
    };
    edited(field, &old.meta, view)
}

fn hpa(new: &Hpa, old: Old<'_, Hpa>, view: &View<'_>) -> Found {
    let target = |h: &Hpa| (h.target_kind.clone(), h.target_name.clone(), h.min_replicas);
    let Some(old) = old.get().filter(|o| target(o) != target(new)) else { return Ok(Vec::new()) };
    edited("spec", &old.meta, view)
}

fn edited(field: &'static str, meta: &crate::model::Meta, view: &View<'_>) -> Found {
    let Some(gateway) = gateway_of(view.before(), view.kind(), meta)? else { return Ok(Vec::new()) };
    let (at, kind) = (format!("{}/{}", meta.namespace, meta.name), crate::wire::row(view.kind()).name);
    Ok(vec![Finding::warn(field, at.clone()).says(
        format!("istiod applies {field} of {kind} {at} again, for Gateway {}", gateway.meta.name),
        "the edit vanishes at the next occasion, at the latest when istiod restarts or is upgraded.",
        format!("kubectl edit {}\n(spec.infrastructure reaches what is deployed)", kubectl(&id(gateway))),
    )])
}
