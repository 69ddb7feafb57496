//! # GW010 gateway-in-use
//!
//! ## What
//! A gateway's Deployment (or DaemonSet, StatefulSet) or its Service is deleted while an Istio Gateway selects its pods, or
//! while the Gateway API Gateway that it was deployed for is there.
//!
//! GW016 speaks of what istiod deployed for a Gateway that is there.
//!
//! ## Why
//! It is denied if traffic is lost at once: it serves, and no other set does behind the same Service; or, for a Service, no
//! other Service of that type leads to the same pods. Deleting a load balancer's Service also gives its address back, and the
//! next one gets another.
//!
//! Where every one of those Gateways is served by another gateway as well, behind a Service that can be reached from as far,
//! it is a warning: whether DNS leads there by now, nobody can tell from here.
//!
//! ## What to do
//! Have the next set ready behind the same Service, then delete the old one; or have another gateway with a load balancer of
//! its own, and move DNS there first. To retire a gateway for good, delete the Gateways that select it and no other: then nothing
//! is said.
//!
//! An uninstall goes on after a denial with whatever comes next; put back what is gone with the same chart or file.
//!
//! ## When to allow
//! To retire a gateway with everything that belongs to it, in any order.

use super::traffic::{
    Heirs, behind, cut_off, gateways_for, left_alone, names, pods, reach, ready_pods, serving, title,
};
use crate::model::{Id, Kind, Object, Service, Workload};
use crate::rules::managed;
use crate::rules::view::kubectl;
use crate::rules::{Check, Finding, Found, Rule, View};

pub static RULE: Rule = Rule {
    code: "GW010",
    name: "gateway-in-use",
    summary: "a gateway's workload or Service is deleted while Gateways select it",
    reads: &[],
    checks: &[Check::Delete(check)],
    source: include_str!("gw010_gateway_in_use.rs"),
};

fn check(object: &Object, view: &View<'_>) -> Found {
    if managed::gateway_of(view.before(), object.kind(), object.meta())?.is_some() {
        return Ok(Vec::new());
    }
    match object {
        Object::Workload(Kind::Deployment | Kind::DaemonSet | Kind::StatefulSet, w)
            if w.is_gateway() && w.wanted() > 0 =>
        {
            workload(w, view)
        }
        Object::Service(s) if !s.selector.is_empty() => service(s, view),
        _ => Ok(Vec::new()),
    }
}

fn workload(gateway: &Workload, view: &View<'_>) -> Found {
    let cluster = view.cluster();
    let used = gateways_for(cluster, &gateway.meta.namespace, &gateway.template.labels)?;
    if used.is_empty() {
        return Ok(Vec::new());
    }
    let cut = cut_off(cluster, view.id(), gateway)?;
    let ready = ready_pods(cluster, view.id(), gateway)?.map_or(0, |c| c.pods);
    let who = names(&used);
    let kind = crate::wire::row(view.kind()).name;
    let it = format!("{kind} {}/{}", gateway.meta.namespace, gateway.meta.name);
    let services = cluster.services_of(gateway)?;
    let heirs = Heirs::of(cluster, &used, services.iter().map(|s| reach(s)).max().unwrap_or(0))?;
    let Some((service, now)) = cut.into_iter().find(|_| ready > 0) else {
        let rest = match (ready, services.is_empty()) {
            (0, _) => "",
            (_, true) => ", but no Service does",
            (_, false) => "; another set serves as well",
        };
        let what = format!("{who} still selects {it} ({}){rest}.", pods(ready));
        return Ok(vec![Finding::warn("metadata.name", who).says(what, WHY, retire(&heirs))]);
    };
    if let Some(heir) = heirs.all() {
        let place = format!("{}/{}", service.meta.namespace, service.meta.name);
        let what = format!("{} serves {who} as well, but whoever dials Service {place} loses it", title(heir));
        return Ok(vec![Finding::warn("metadata.name", service.meta.name.as_str()).says(what, WHY, retire(&heirs))]);
    }
    Ok(vec![Finding::deny("metadata.name", service.meta.name.as_str()).severity(now.severity()).says(
        format!("{who} selects {it}, and {}.", left_alone(service, now)),
        WHY,
        format!(
            "kubectl get pods -n {} -l {}\n(delete it once ready pods of another set are listed there; to retire it for good:\n {})",
            service.meta.namespace,
            service.selector,
            retire(&heirs)
        ),
    )])
}

fn service(service: &Service, view: &View<'_>) -> Found {
    let cluster = view.cluster();
    let gateways = behind(cluster, service)?;
    let mut used: Vec<Id> = Vec::new();
    for (_, gateway) in &gateways {
        used.extend(gateways_for(cluster, &gateway.meta.namespace, &gateway.template.labels)?);
    }
    used.sort();
    used.dedup();
    if used.is_empty() {
        return Ok(Vec::new());
    }
    let now = serving(cluster, &service.meta.namespace, &service.selector, None)?;
    let who = names(&used);
    let it = format!("Service {}/{}", service.meta.namespace, service.meta.name);
    // Another Service of the same reach that finds the same pods keeps them in the traffic.
    let other = cluster.services_in(&service.meta.namespace)?.find(|s| {
        reach(s) >= reach(service) && !s.meta.deleting && gateways.iter().any(|(_, w)| s.selects(&w.template.labels))
    });
    let heirs = Heirs::of(cluster, &used, reach(service))?;
    let remains = match (other, heirs.all()) {
        (Some(other), _) => format!("Service {} leads to some as well.", other.meta.name),
        _ if now.pods == 0 => "none serves now.".to_owned(),
        (None, Some(heir)) => format!("{} serves as well.", title(heir)),
        (None, None) => String::new(),
    };
    if !remains.is_empty() {
        let what = format!("{who} uses pods behind {it}; {remains}");
        return Ok(vec![Finding::warn("metadata.name", who.clone()).says(what, WHY, retire(&heirs))]);
    }
    let why = if reach(service) == 2 {
        "its load balancer's address would be given back, and whoever dials it refused at once."
    } else {
        WHY
    };
    Ok(vec![Finding::deny("metadata.name", who.clone()).severity(now.severity()).says(
        format!("{who} uses the {} behind {it}, and no other Service leads there.", pods(now.pods)),
        why,
        format!("move its clients to another Service first; to retire the gateway for good:\n{}", retire(&heirs)),
    )])
}

const WHY: &str = "whoever dials that gateway would be refused at once.";

/// Takes away the Gateways that would be left without a gateway; what another one serves stays.
fn retire(heirs: &Heirs) -> String {
    if let Some(heir) = heirs.all() {
        return format!("kubectl get {}\n(nothing to do once its clients dial that one)", kubectl(heir));
    }
    heirs.stranded.iter().take(3).map(|id| format!("kubectl delete {}", kubectl(id))).collect::<Vec<_>>().join(" && ")
}
