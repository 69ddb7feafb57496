//! # CP001 service-in-use
//!
//! ## What
//! The Service of an istiod is deleted while its revision is in use, or while a tag or the validator of unlabelled Istio
//! configuration is served through it. The same for an update that takes away a port that webhooks or proxies dial, or
//! that leaves the Service without pods.
//!
//! A revision R is **in use** if any of these holds:
//!
//! * a namespace or a pod template asks for R, by its name or through a tag. The name asked for counts, not whether an
//!   injector answers to it: Helm deletes the webhook configurations first;
//! * a Pending or Running pod was injected by R;
//! * a tag points to R;
//! * a validator that judges every unlabelled Istio object (`istiod-default-validator`) is served by R with
//!   `failurePolicy: Fail`;
//! * an object of Istio configuration is labelled `istio.io/rev=R`, or a Gateway API Gateway asks for R.
//!
//! Never counted: R's own `istio-sidecar-injector-R` and `istio-validator-R-*`, R's own istiod pods and whatever else was
//! installed with it (telemetry filters up to 1.19), pods that have succeeded, failed or are being deleted, workloads and
//! namespaces that are being deleted, a tag of the same Helm release that nobody asks for. A template at 0 replicas gives a
//! warning, and so do pods whose Deployment is gone. If R is the last control plane and only labels, tags, validators and
//! gateways of the same istioctl installation refer to it, a warning names them: a full uninstall stays possible, in the
//! order that Istio documents. What could not be looked at is named in a warning, and never denies.
//!
//! ## Why
//! Without the Service the API server cannot call istiod: pods of the namespaces that ask for R do not start, every write
//! of Istio configuration is refused if the default validator is behind it, and running proxies get neither configuration
//! nor certificates.
//!
//! ## What to do
//! Move the users first; the denial names them and gives the commands. Note that neither `helm uninstall` nor
//! `istioctl uninstall` stops at a denial: both go on with the next object, and the webhook configurations may be gone
//! already. The denial says what is missing and how to put it back.
//!
//! ## When to allow
//! When the whole mesh is torn down with its users still in it.

use super::in_use::Loss;
use crate::model::{Backend, Object, RevisionName, Selector, Service, key};
use crate::rules::{Check, Field, Finding, Found, Old, Rule, Severity, View};
use crate::snapshot::usage::Use;
use crate::snapshot::{Known, Snapshot};

pub static RULE: Rule = Rule {
    code: "CP001",
    name: "service-in-use",
    summary: "the Service of an istiod that is in use goes away or stops working",
    reads: &[Field::Spec],
    checks: &[Check::Delete(deleted), Check::Service(updated)],
    source: include_str!("cp001_service_in_use.rs"),
};

/// Proxies fetch configuration and certificates here.
const XDS: u16 = 15012;

fn deleted(object: &Object, view: &View<'_>) -> Found {
    let Object::Service(service) = object else { return Ok(Vec::new()) };
    let doing = format!("deleting Service {}/{}", service.meta.namespace, service.meta.name);
    lost(service, doing, "metadata.name", service.meta.name.as_str(), view)
}

fn updated(service: &Service, old: Old<'_, Service>, view: &View<'_>) -> Found {
    let Some(before) = old.get() else { return Ok(Vec::new()) };
    // An ExternalName leads to an istiod outside the cluster, which has neither ports nor pods here.
    let same = service.selector == before.selector && service.ports == before.ports;
    if same || service.is_external_name() {
        return Ok(Vec::new());
    }
    let cluster = view.before();
    let at = format!("Service {}/{}", service.meta.namespace, service.meta.name);
    let has = |s: &Service, port: u16| s.ports.iter().any(|p| p.port == port);
    let mut dialled = ports(cluster, service)?;
    dialled.push(XDS);
    if let Some(port) = dialled.into_iter().find(|port| has(before, *port) && !has(service, *port)) {
        let doing = format!("taking port {port} from {at}");
        return lost(service, doing, "spec.ports", &port.to_string(), view);
    }
    let moved = service.selector != before.selector && !service.selector.is_empty();
    if moved && selects_any(cluster, before)? && !selects_any(cluster, service)? {
        let doing = format!("the selector {} of {at}, which no pod matches,", service.selector);
        return lost(service, doing, "spec.selector", &service.selector.to_string(), view);
    }
    Ok(Vec::new())
}

fn lost(service: &Service, doing: String, field: &'static str, value: &str, view: &View<'_>) -> Found {
    // A tag's Service serves no webhook; TAG001 speaks of it.
    if service.meta.labels.has(key::TAG) {
        return Ok(Vec::new());
    }
    let cluster = view.before();
    let besides = referrers(cluster, service)?;
    let Some(revision) = revision(cluster, service, !besides.is_empty())? else { return Ok(Vec::new()) };
    let (value, most) = (value.to_owned(), Severity::Deny);
    let loss = Loss { revision: &revision, doing, field, value, meta: &service.meta, most, besides };
    Ok(loss.finding(view)?.into_iter().collect::<Vec<Finding>>())
}

fn is_behind(backend: &Backend, service: &Service) -> Option<u16> {
    match backend {
        Backend::Service { namespace, name, port }
            if *namespace == service.meta.namespace && *name == service.meta.name =>
        {
            Some(*port)
        }
        _ => None,
    }
}

/// Tags and validators of unlabelled configuration that are served through it.
fn referrers(cluster: &Snapshot, service: &Service) -> Known<Vec<Use>> {
    let mut found = Vec::new();
    for hook in cluster.injectors()?.hooks().filter(|h| h.istio && is_behind(&h.backend, service).is_some()) {
        let Some(tag) = &hook.tag else { continue };
        let user = Use::Tag { name: tag.to_string() };
        if !found.contains(&user) {
            found.push(user);
        }
    }
    for config in cluster.validators()? {
        if config.holds_back_without(|backend| is_behind(backend, service).is_some()) {
            found.push(Use::Validator { name: config.meta.name.clone() });
        }
    }
    Ok(found)
}

/// Ports of the Service that webhooks of Istio call.
fn ports(cluster: &Snapshot, service: &Service) -> Known<Vec<u16>> {
    let injectors = cluster.injectors()?.hooks().filter(|h| h.istio).filter_map(|h| is_behind(&h.backend, service));
    let mut ports: Vec<u16> = injectors.collect();
    for config in cluster.validators()? {
        ports.extend(config.webhooks.iter().filter(|w| w.istio).filter_map(|w| is_behind(&w.backend, service)));
    }
    Ok(ports)
}

/// Whose istiod the Service leads to. Another Service of the same pods (for metrics, say) is none of Istio's.
fn revision(cluster: &Snapshot, service: &Service, referred: bool) -> Known<Option<RevisionName>> {
    let meta = &service.meta;
    let behind = cluster.injectors()?.hooks().find(|h| h.istio && is_behind(&h.backend, service).is_some());
    if let Some(revision) = behind.and_then(|h| h.revision.clone()) {
        return Ok(Some(revision));
    }
    let is_istiod = meta.labels.is("app", "istiod") || service.selector.is("app", "istiod");
    let named = meta.name.strip_prefix("istiod").map(|rest| rest.strip_prefix('-').unwrap_or(rest));
    let labelled = meta.labels.value(key::REV);
    let revision = RevisionName::new(labelled.or(named).unwrap_or(""));
    let own = is_istiod && meta.name == revision.istiod().as_str();
    Ok((own || referred).then_some(revision))
}

/// A pod or a pod template of the namespace matches the Service's selector.
fn selects_any(cluster: &Snapshot, service: &Service) -> Known<bool> {
    let namespace = &service.meta.namespace;
    cluster.knows_workloads()?;
    if cluster.workloads_in(namespace).any(|(_, w)| service.selects(&w.template.labels)) {
        return Ok(true);
    }
    let wanted = Selector::exact(&service.selector);
    Ok(cluster.raw_in(crate::model::Kind::Pod, namespace).any(|p| wanted.matches(&p.meta().labels)))
}
