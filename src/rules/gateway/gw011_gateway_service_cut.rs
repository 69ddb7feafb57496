//! # GW011 gateway-service-cut
//!
//! ## What
//! An update of a Service in front of a gateway that loses its clients: its selector changes so that no serving pod is left;
//! its type leaves `LoadBalancer`; or an address that somebody chose (`spec.loadBalancerIP`, `spec.externalIPs`) is given up,
//! as when a lifecycle manager swaps the active gateway for the next.
//!
//! A `spec.loadBalancerIP` that only goes is a warning: Kubernetes has deprecated it for annotations of each load balancer's own,
//! and whether one of them asks for the same address, nobody can tell from here.
//!
//! ## Why
//! Endpoints follow the selector within a second. A load balancer's address that is given back is not the one that comes next,
//! while DNS and firewalls still hold the old one.
//!
//! ## What to do
//! Have ready pods that match the new selector first. Keep the type and the address, and change what stands behind them:
//! a second set with the labels that the Service selects already.
//!
//! ## When to allow
//! When nothing points to the address any more.

use super::traffic::{behind, pods, serving};
use crate::model::{Service, Str};
use crate::rules::{Check, Field, Finding, Found, Old, Rule, Severity, View};

pub static RULE: Rule = Rule {
    code: "GW011",
    name: "gateway-service-cut",
    summary: "a gateway's Service loses its pods or its address",
    reads: &[Field::Spec],
    checks: &[Check::Service(check)],
    source: include_str!("gw011_gateway_service_cut.rs"),
};

fn check(service: &Service, old: Old<'_, Service>, view: &View<'_>) -> Found {
    let Some(old) = old.get() else { return Ok(Vec::new()) };
    let moved = old.selector != service.selector;
    let retyped = old.kind == "LoadBalancer" && service.kind != "LoadBalancer";
    let lost = lost_address(old, service);
    if !moved && !retyped && lost.is_none() {
        return Ok(Vec::new());
    }
    let cluster = view.cluster();
    if behind(cluster, old)?.is_empty() {
        return Ok(Vec::new());
    }
    let namespace = &service.meta.namespace;
    let now = serving(cluster, namespace, &old.selector, None)?;
    // What serves nobody loses nobody; its address may still be in use for what comes next.
    let severity = if now.pods > 0 { now.severity() } else { Severity::Warn };
    let it = format!("Service {namespace}/{}", service.meta.name);
    let mut found = Vec::new();
    if moved && now.pods > 0 {
        let left = serving(cluster, namespace, &service.selector, None)?;
        if left.pods == 0 {
            // Without a selector the endpoints stay as they are; whether that is meant, nobody can tell.
            let frozen = service.selector.is_empty();
            let severity = if frozen || !left.certain { Severity::Warn } else { severity };
            let what = if frozen {
                format!("{it} loses its selector: its endpoints no longer follow the gateway's pods.")
            } else {
                format!(
                    "no serving pod matches the new selector {}; {} the old one.",
                    service.selector,
                    matches(now.pods)
                )
            };
            found.push(Finding::deny("spec.selector", service.selector.to_string()).severity(severity).says(
                what,
                "within a second whoever dials the Service would be refused.",
                format!(
                    "kubectl get pods -n {namespace} -l {}\n(change the selector once ready pods are listed there)",
                    if frozen { old.selector.to_string() } else { service.selector.to_string() }
                ),
            ));
        }
    }
    if retyped {
        let kind = if service.kind.is_empty() { "ClusterIP" } else { &*service.kind };
        found.push(Finding::deny("spec.type", kind).severity(severity).says(
            format!("{it} changes its type from LoadBalancer to {kind} in front of {}.", pods(now.pods)),
            "its address is given back, and DNS still leads there.",
            format!(
                "keep spec.type: LoadBalancer; for type {kind} make a second Service that selects {}",
                old.selector
            ),
        ));
    }
    if let Some(address) = lost {
        if !moved && !retyped && old.load_balancer_ip.as_ref() == Some(address) && service.load_balancer_ip.is_none() {
            found.push(Finding::warn("spec.loadBalancerIP", address.as_str()).says(
                format!("{it} no longer asks for address {address} by spec.loadBalancerIP"),
                "a load balancer that is not told the address in another way may give it back.",
                format!(
                    "kubectl get service -n {namespace} {} -w\n(its EXTERNAL-IP is to stay {address}; if it does not, put the field back)",
                    service.meta.name
                ),
            ));
            return Ok(found);
        }
        found.push(Finding::deny("spec", address.as_str()).severity(severity).says(
            format!("{it} gives up address {address} in front of {}.", pods(now.pods)),
            "DNS and firewalls still lead to that address.",
            format!("keep {address} here, and let the next set of pods match the selector {}", old.selector),
        ));
    }
    Ok(found)
}

/// An address that somebody chose, and the Service has no more.
fn lost_address<'a>(old: &'a Service, new: &Service) -> Option<&'a Str> {
    let mut chosen = old.external_ips.iter().chain(&old.load_balancer_ip);
    chosen.find(|a| new.load_balancer_ip.as_ref() != Some(*a) && !new.external_ips.contains(a))
}

fn matches(n: usize) -> String {
    if n == 1 { "1 pod matches".to_owned() } else { format!("{n} pods match") }
}
