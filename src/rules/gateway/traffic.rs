//! What still serves: pods behind Services, and the configuration that sends traffic to a gateway.
//!
//! Pods are the truth. Where none were read, the status of the workloads stands in, and the answer says that it is not
//! certain: enough for a warning, never for a denial.

use super::if_known;
use crate::model::{Id, Kind, Labels, Object, Selector, Service, Workload};
use crate::rules::Severity;
use crate::snapshot::serving::belongs;
use crate::snapshot::{Known, Snapshot, WhyUnknown};

/// Pods that serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub pods: usize,
    /// Counted pod by pod.
    pub certain: bool,
}

impl Count {
    /// A denial needs pods that were counted.
    pub fn severity(self) -> Severity {
        if self.certain { Severity::Deny } else { Severity::Warn }
    }
}

/// Pods that serve a selector, without those of `except`.
pub fn serving(cluster: &Snapshot, namespace: &str, selector: &Labels, except: Option<&Id>) -> Known<Count> {
    let certain = match cluster.serving(namespace, selector) {
        Ok(_) => true,
        // A manifest of a pod without a status is not on its way to have one.
        Err(unknown) if unknown.why == WhyUnknown::Listing && !cluster.is_offline() => return Err(unknown),
        Err(_) => false,
    };
    Ok(Count { pods: cluster.serving_without(namespace, selector, except)?, certain })
}

/// Pods of one workload that serve, whatever selects them; `None` if nothing tells.
pub fn ready_pods(cluster: &Snapshot, id: &Id, workload: &Workload) -> Known<Option<Count>> {
    let by_status = workload.ready.map(|n| Count { pods: n as usize, certain: false });
    let Some(pods) = if_known(cluster.pods_in(&id.namespace))? else { return Ok(by_status) };
    let mut count = 0;
    for pod in pods.filter(|p| belongs(p, id) && !p.meta.deleting) {
        match pod.status {
            Some(status) if status.ready && !status.over => count += 1,
            Some(_) => {}
            None => return Ok(by_status),
        }
    }
    Ok(Some(Count { pods: count, certain: true }))
}

/// The Services that would be left without a pod if `id`, a workload, had none: those that have some now.
pub fn cut_off<'a>(cluster: &'a Snapshot, id: &Id, workload: &'a Workload) -> Known<Vec<(&'a Service, Count)>> {
    let mut cut = Vec::new();
    for service in cluster.services_of(workload)? {
        if service.is_external_name() || service.meta.deleting {
            continue;
        }
        let now = serving_now(cluster, service, id, workload)?;
        let left = serving(cluster, &id.namespace, &service.selector, Some(id))?;
        if now.pods > 0 && left.pods == 0 {
            cut.push((service, Count { certain: now.certain && left.certain, ..now }));
        }
    }
    Ok(cut)
}

/// The judged workload is not its own neighbour, so its status is added where pods were not read.
fn serving_now(cluster: &Snapshot, service: &Service, id: &Id, workload: &Workload) -> Known<Count> {
    let others = serving(cluster, &id.namespace, &service.selector, None)?;
    if others.certain {
        return Ok(others);
    }
    Ok(Count { pods: others.pods + workload.ready.unwrap_or(0) as usize, certain: false })
}

/// The Gateways that send traffic to pods of these labels, as `gateway web/shop`. Istio's select pods of every namespace,
/// the Gateway API's own those that are deployed for them.
pub fn gateways_for(cluster: &Snapshot, namespace: &str, pods: &Labels) -> Known<Vec<Id>> {
    let istio = if_known(cluster.gateway_configs(Kind::IstioGateway))?;
    let api = if_known(cluster.gateway_configs(Kind::ApiGateway))?;
    if istio.is_none() && api.is_none() {
        cluster.knows(Kind::IstioGateway, None)?;
    }
    let mut found = Vec::new();
    let id = |kind, meta: &crate::model::Meta| Id { kind, namespace: meta.namespace.clone(), name: meta.name.clone() };
    for gateway in istio.into_iter().flatten().filter(|g| !g.meta.deleting) {
        // An empty selector means every gateway of the mesh; that says nothing about this one.
        if !gateway.selector.is_empty() && Selector::exact(&gateway.selector).matches(pods) {
            found.push(id(Kind::IstioGateway, &gateway.meta));
        }
    }
    let deployed_for = pods.value("gateway.networking.k8s.io/gateway-name").or(pods.value("istio.io/gateway-name"));
    for gateway in api.into_iter().flatten().filter(|g| !g.meta.deleting) {
        if gateway.meta.namespace == namespace && deployed_for == Some(&*gateway.meta.name) {
            found.push(id(Kind::ApiGateway, &gateway.meta));
        }
    }
    Ok(found)
}

/// A gateway that serves what an Istio Gateway configures: the Gateway selects its pods, some are ready, and it `counts`.
pub fn server(cluster: &Snapshot, user: &Id, counts: impl Fn(&Workload) -> Known<bool>) -> Known<Option<Id>> {
    let config = match cluster.get(user.kind, &user.namespace, &user.name) {
        Some(Object::Gateway(Kind::IstioGateway, config)) => config,
        // What was deployed for a Gateway of the Gateway API has no second.
        _ => return Ok(None),
    };
    let selector = Selector::exact(&config.selector);
    for (kind, w) in cluster.gateways()? {
        if w.meta.deleting || !selector.matches(&w.template.labels) || !counts(w)? {
            continue;
        }
        let id = Id { kind, namespace: w.meta.namespace.clone(), name: w.meta.name.clone() };
        if ready_pods(cluster, &id, w)?.is_some_and(|now| now.pods > 0) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// Who serves the Gateways of what goes.
pub struct Heirs {
    /// Gateways that nobody else serves.
    pub stranded: Vec<Id>,
    /// Who serves the first of the others.
    pub first: Option<Id>,
}

impl Heirs {
    /// `cluster` is the one without what goes. A gateway behind Services of a shorter reach is none for whoever came from afar.
    pub fn of(cluster: &Snapshot, users: &[Id], least: u8) -> Known<Heirs> {
        let counts = |w: &Workload| {
            let services = cluster.services_of(w)?;
            Ok(services.iter().any(|s| !s.meta.deleting && reach(s) >= least))
        };
        let mut heirs = Heirs { stranded: Vec::new(), first: None };
        for user in users {
            match server(cluster, user, counts)? {
                Some(heir) => heirs.first = heirs.first.or(Some(heir)),
                None => heirs.stranded.push(user.clone()),
            }
        }
        Ok(heirs)
    }

    /// The gateway by whom every one of the Gateways is still served.
    pub fn all(&self) -> Option<&Id> {
        self.first.as_ref().filter(|_| self.stranded.is_empty())
    }
}

/// How far a Service reaches.
pub fn reach(service: &Service) -> u8 {
    match &*service.kind {
        "LoadBalancer" => 2,
        "NodePort" => 1,
        _ => 0,
    }
}

/// Gateways that a Service selects in its namespace.
pub fn behind<'a>(cluster: &'a Snapshot, service: &'a Service) -> Known<Vec<(Kind, &'a Workload)>> {
    let all = cluster.gateways()?;
    Ok({ all }
        .filter(|(_, w)| w.meta.namespace == service.meta.namespace && service.selects(&w.template.labels))
        .collect())
}

/// `Gateway web/shop and 2 more`
pub fn names(gateways: &[Id]) -> String {
    let Some(first) = gateways.first() else { return String::new() };
    let first = format!("Gateway {}/{}", first.namespace, first.name);
    if gateways.len() == 1 { first } else { format!("{first} and {} more", gateways.len() - 1) }
}

/// `gateway web/igw`
pub fn title(gateway: &Id) -> String {
    format!("gateway {}/{}", gateway.namespace, gateway.name)
}

/// `1 serving pod`, `3 serving pods`, `no serving pod`
pub fn pods(n: usize) -> String {
    match n {
        0 => "no serving pod".to_owned(),
        1 => "1 serving pod".to_owned(),
        n => format!("{n} serving pods"),
    }
}

/// `Service gw/igw would be left without a serving pod (2 now)`
pub fn left_alone(service: &Service, now: Count) -> String {
    let meta = &service.meta;
    format!("Service {}/{} would be left without a serving pod ({} now)", meta.namespace, meta.name, now.pods)
}
