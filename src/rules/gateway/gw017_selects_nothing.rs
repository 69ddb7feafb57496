//! # GW017 selects-nothing
//!
//! ## What
//! An Istio `Gateway`, or a Service made for a gateway, selects no pod and no workload. Said after a minute, by the audit.
//!
//! A Service is taken for a gateway's by the labels of the installation (`operator.istio.io/component: IngressGateways`), or by
//! the port 15021 of a gateway's readiness. Deployments, DaemonSets, StatefulSets and CronJobs of every namespace are looked at,
//! at 0 replicas as well, and pods of namespaces that hold an istiod or a gateway.
//!
//! ## Why
//! A Gateway that selects nothing opens no port anywhere; a Service that selects nothing refuses every connection. Neither has
//! a status that says so. It happens when a canary gets labels of its own (`istio: ingress-canary`).
//!
//! ## What to do
//! Give the gateway's pods the labels that are selected, or change what is selected; a selector of a Gateway means pods of every
//! namespace.
//!
//! ## When to allow
//! While the gateway is still to come.

use jiff::SignedDuration;

use super::if_known;
use crate::model::{GatewayConfig, Id, Kind, Labels, Pod, Selector, Service, Workload, key};
use crate::rules::view::kubectl;
use crate::rules::{Check, Flaw, Level, Policy, Rule};
use crate::snapshot::{Known, Snapshot};

pub static RULE: Rule = Rule {
    code: "GW017",
    name: "selects-nothing",
    summary: "an Istio Gateway or a gateway's Service selects nothing",
    reads: &[],
    checks: &[Check::Audit(audit)],
    source: include_str!("gw017_selects_nothing.rs"),
};

/// A chart writes the Service before the Deployment, and `kubectl apply` any order.
const GRACE: SignedDuration = SignedDuration::from_secs(60);

/// The port on which every gateway since 1.6 says that it is ready.
const STATUS_PORT: u16 = 15021;

fn audit(cluster: &Snapshot, _: &Policy) -> Known<Vec<Flaw>> {
    cluster.knows_workloads()?;
    let mut found = Vec::new();
    for gateway in if_known(cluster.gateway_configs(Kind::IstioGateway))?.into_iter().flatten() {
        found.extend(of_gateway(gateway, cluster));
    }
    for service in if_known(cluster.services())?.into_iter().flatten() {
        found.extend(of_service(service, cluster));
    }
    Ok(found)
}

fn of_gateway(gateway: &GatewayConfig, cluster: &Snapshot) -> Option<Flaw> {
    // The empty selector means every gateway of the mesh.
    if gateway.selector.is_empty() || gateway.meta.deleting {
        return None;
    }
    let wanted = Selector::exact(&gateway.selector);
    let selects = |(_, w): (Kind, &Workload)| wanted.matches(&w.template.labels);
    // Gateways first: they are few, and one of them is what is selected nearly always.
    if cluster.gateways().is_ok_and(|mut all| all.any(selects))
        || cluster.workloads().any(selects)
        || any_pod(cluster.raw(Kind::Pod), &wanted)
    {
        return None;
    }
    let (namespace, name) = (gateway.meta.namespace.clone(), gateway.meta.name.clone());
    let what = format!("Gateway {namespace}/{name} selects {}, which no pod of any namespace has.", gateway.selector);
    let object = Id { kind: Kind::IstioGateway, namespace, name };
    let fix = match nearest(&gateway.selector, cluster.gateways().into_iter().flatten().map(|(_, w)| w)) {
        Some(near) => format!(
            "kubectl patch {} --type merge -p '{{\"spec\":{{\"selector\":{}}}}}'\n(those are the labels of gateway {}/{})",
            kubectl(&object),
            corrected(&gateway.selector, near),
            near.meta.namespace,
            near.meta.name
        ),
        None => format!("kubectl edit {}\n(set spec.selector to labels that a gateway's pods have)", kubectl(&object)),
    };
    Some(flaw(
        object,
        gateway.selector.to_string(),
        what,
        "no proxy opens its ports, and its hosts are served nowhere.",
        fix,
    ))
}

fn of_service(service: &Service, cluster: &Snapshot) -> Option<Flaw> {
    let meta = &service.meta;
    if service.selector.is_empty() || service.is_external_name() || meta.deleting || !is_gateways(service) {
        return None;
    }
    let pods = cluster.raw_in(Kind::Pod, &meta.namespace);
    if cluster.workloads_in(&meta.namespace).any(|(_, w)| service.selects(&w.template.labels))
        || any_pod(pods, &Selector::exact(&service.selector))
    {
        return None;
    }
    let (namespace, name) = (meta.namespace.clone(), meta.name.clone());
    let what = format!("Service {namespace}/{name} selects {}, which no pod there has.", service.selector);
    let object = Id { kind: Kind::Service, namespace, name };
    let here = cluster.gateways().into_iter().flatten().map(|(_, w)| w).filter(|w| w.meta.namespace == meta.namespace);
    let fix = match nearest(&service.selector, here) {
        Some(near) => format!(
            "kubectl patch {} --type merge -p '{{\"spec\":{{\"selector\":{}}}}}'\n(those are the labels of gateway {})",
            kubectl(&object),
            corrected(&service.selector, near),
            near.meta.name
        ),
        None => format!("kubectl edit {}\n(set spec.selector to labels that a gateway's pods have)", kubectl(&object)),
    };
    Some(flaw(object, service.selector.to_string(), what, "whoever dials it is refused.", fix))
}

fn flaw(object: Id, value: String, what: String, why: &'static str, fix: String) -> Flaw {
    Flaw { level: Level::Warning, object, value, what, why: why.into(), fix, grace: GRACE, repair: None }
}

fn is_gateways(service: &Service) -> bool {
    let component = service.meta.labels.value(key::COMPONENT);
    matches!(component, Some("IngressGateways" | "EgressGateways"))
        || service.meta.labels.has(key::GATEWAY_MANAGED)
        || service.ports.iter().any(|p| p.port == STATUS_PORT)
}

fn any_pod<'a>(mut objects: impl Iterator<Item = &'a crate::model::Object>, wanted: &Selector) -> bool {
    objects.any(|o| matches!(o, crate::model::Object::Pod(Pod { meta, .. }) if wanted.matches(&meta.labels)))
}

/// The gateway that has most of the selected pairs, or at least their keys.
fn nearest<'a>(selector: &Labels, gateways: impl Iterator<Item = &'a Workload>) -> Option<&'a Workload> {
    let shared = |w: &Workload| {
        let labels = &w.template.labels;
        let pairs = selector.iter().filter(|(k, v)| labels.is(k, v)).count();
        let keys = selector.iter().filter(|(k, _)| labels.has(k)).count();
        (keys == selector.len()).then_some((pairs, keys))
    };
    gateways.filter_map(|w| Some((shared(w)?, w))).max_by(|a, b| a.0.cmp(&b.0)).map(|(_, w)| w)
}

/// The same keys with the values that the gateway's pods have, as JSON.
fn corrected(selector: &Labels, gateway: &Workload) -> String {
    let pairs: serde_json::Map<String, serde_json::Value> =
        selector.iter().filter_map(|(k, _)| Some((k.to_string(), gateway.template.labels.value(k)?.into()))).collect();
    serde_json::Value::Object(pairs).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::worlds::{audited, world};
    use super::*;

    const DEPLOYMENT: &str = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: igw, namespace: gw}, spec: {replicas: 0, \
        selector: {matchLabels: {app: igw}}, template: {metadata: {labels: {app: igw, istio: ingress}, annotations: \
        {inject.istio.io/templates: gateway}}}}}";
    const SERVICE: &str = "{apiVersion: v1, kind: Service, metadata: {name: igw, namespace: gw}, spec: {selector: {app: igw}, \
        ports: [{port: 15021}]}}";
    const GATEWAY: &str = "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: shop, namespace: shop}, spec: \
        {selector: {istio: ingress}}}";

    fn flaws(texts: &[&str]) -> Vec<Flaw> {
        audited(&RULE, &world(texts), "")
    }

    #[test]
    fn what_selects_something_is_left_alone_even_at_zero_replicas() {
        assert!(flaws(&[DEPLOYMENT, SERVICE, GATEWAY]).is_empty());
    }

    #[test]
    fn a_canarys_own_labels_are_selected_by_nobody() {
        let canary =
            DEPLOYMENT.replace("istio: ingress", "istio: ingress-canary").replace("{app: igw,", "{app: igw-canary,");
        let found = flaws(&[&canary, SERVICE, GATEWAY]);
        let words: Vec<&str> = found.iter().map(|f| &*f.what).collect();
        assert_eq!(
            words,
            [
                "Gateway shop/shop selects istio=ingress, which no pod of any namespace has.",
                "Service gw/igw selects app=igw, which no pod there has."
            ]
        );
        let fixes: Vec<&str> = found.iter().map(|f| f.fix.lines().next().unwrap_or("")).collect();
        assert_eq!(
            fixes,
            [
                r#"kubectl patch gateways.networking.istio.io -n shop shop --type merge -p '{"spec":{"selector":{"istio":"ingress-canary"}}}'"#,
                r#"kubectl patch service -n gw igw --type merge -p '{"spec":{"selector":{"app":"igw-canary"}}}'"#,
            ]
        );
        assert!(found.iter().all(|f| f.level == Level::Warning && f.grace.as_secs() == 60));
    }

    #[test]
    fn a_pod_of_its_own_counts_and_other_services_do_not_matter() {
        let pod = "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: gw, labels: {app: igw, istio: ingress}}}";
        assert!(flaws(&[pod, SERVICE, GATEWAY]).is_empty());
        assert!(flaws(&[&SERVICE.replace("15021", "80")]).is_empty());
        assert!(flaws(&[&GATEWAY.replace("{istio: ingress}", "{}")]).is_empty());
        assert!(flaws(&[&SERVICE.replace("selector: {app: igw}", "type: ExternalName")]).is_empty());
    }

    #[test]
    fn without_a_gateway_that_is_like_it_there_is_nothing_to_propose() {
        assert!(flaws(&[GATEWAY])[0].fix.starts_with("kubectl edit gateways.networking.istio.io -n shop shop\n"));
    }
}
