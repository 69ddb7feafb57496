//! # GW006 gateway-ahead
//!
//! ## What
//! A gateway names a control plane that it cannot attach to: by the label `istio.io/rev` of its template or namespace, or by
//! the istiod that its proxy is told to dial.
//!
//! - Nobody serves that name and nothing announces it: denied (a warning where it is announced, or where there is no injector at
//!   all yet).
//! - Its istiod is not ready, and this update moves a gateway that serves: denied (a warning where none of its pods is ready).
//! - Its proxy image is a newer minor than the istiod: denied. Istio supports no proxy ahead of its control plane.
//!
//! ## Why
//! A gateway pod becomes ready only when an istiod has sent it listeners. Until then a rolling update hangs, and a gateway with
//! one pod and `maxUnavailable` has none.
//!
//! ## What to do
//! The control plane first: install it, wait until its istiod is ready, then move the gateway.
//!
//! A gateway at 0 replicas has no pods to lose and is let alone; so is one that names nothing (WL003 speaks if its image stays
//! `auto`), and the first installation of a gateway beside an istiod that is still starting.
//!
//! ## When to allow
//! A control plane that cannot be seen from this cluster.

use super::if_known;
use super::traffic::{pods, ready_pods};
use crate::model::injection::asked_by_namespace;
use crate::model::{RevisionName, Workload, key};
use crate::rules::finding::{label, template_label};
use crate::rules::{Check, Field, Finding, Found, Old, Operation, Rule, Severity, View};
use crate::snapshot::mesh::Target;
use crate::snapshot::{Known, Snapshot};

pub static RULE: Rule = Rule {
    code: "GW006",
    name: "gateway-ahead",
    summary: "a gateway moves to a control plane that is unknown, not ready, or older than its proxy",
    reads: &[Field::Template, Field::Label(key::REV), Field::Replicas],
    checks: &[Check::Workload(check)],
    source: include_str!("gw006_gateway_ahead.rs"),
};

fn check(gateway: &Workload, old: Old<'_, Workload>, view: &View<'_>) -> Found {
    if !gateway.is_gateway() || gateway.wanted() == 0 {
        return Ok(Vec::new());
    }
    let cluster = view.cluster();
    let Some(target) = cluster.target_of(gateway)? else { return Ok(Vec::new()) };
    let Some(source) = Source::of(gateway, &target, cluster) else { return Ok(Vec::new()) };
    let Some(revision) = target.revision.clone() else {
        return Ok(unknown(gateway, &target, source, view)?.into_iter().collect());
    };
    let mut found = Vec::new();
    found.extend(not_ready(gateway, old, (&revision, source), view)?);
    found.extend(newer(gateway, &revision, cluster));
    Ok(found)
}

/// What names the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Template,
    Namespace,
    Host,
    Object,
}

impl Source {
    /// `None` where nothing names it: a gateway that only asks for injection gets the default injector or none.
    fn of(gateway: &Workload, target: &Target, cluster: &Snapshot) -> Option<Source> {
        let namespace = cluster.namespace_labels(&gateway.meta.namespace);
        let template = &gateway.template;
        let dials = !template.is_image_auto() && template.discovery_host().is_some();
        if dials && template.inject() == Some("false") {
            return Some(Source::Host);
        }
        match asked_by_namespace(&namespace) {
            Some(Some(_)) if namespace.is(key::REV, &target.name) => return Some(Source::Namespace),
            Some(Some(_)) if template.is_image_auto() => return None,
            _ => {}
        }
        if template.labels.is(key::REV, &target.name) {
            return Some(Source::Template);
        }
        if dials {
            return Some(Source::Host);
        }
        gateway.meta.labels.is(key::REV, &target.name).then_some(Source::Object)
    }

    fn field(self) -> String {
        match self {
            Source::Template => template_label(key::REV),
            Source::Namespace => "metadata.namespace".to_owned(),
            Source::Host => "spec.template.spec.containers[istio-proxy].env".to_owned(),
            Source::Object => label(key::REV),
        }
    }
}

const NEVER_READY: &str = "its pods would never become ready, and a rolling update to them hangs.";

fn unknown(gateway: &Workload, target: &Target, source: Source, view: &View<'_>) -> Known<Option<Finding>> {
    let cluster = view.cluster();
    let name = &target.name;
    // Served, and still not injected: something else keeps the injector away, which is not about control planes.
    if gateway.template.is_image_auto() && cluster.is_served(name)? {
        return Ok(None);
    }
    let dials = gateway.template.discovery_host();
    if let Some(host) = dials.as_deref().filter(|_| !gateway.template.is_image_auto()) {
        let mut parts = host.split('.');
        let (service, namespace) = (parts.next().unwrap_or(""), parts.next().unwrap_or(&gateway.meta.namespace));
        if matches!(if_known(cluster.service(namespace, service))?, Some(Some(_))) {
            return Ok(None);
        }
    }
    let certain = if_known(cluster.services())?.is_some() && if_known(cluster.istiods())?.is_some();
    let announced = cluster.announced(name);
    let live = cluster.injectors()?.any_live();
    let severity = if certain && live && announced.is_none() { Severity::Deny } else { Severity::Warn };
    let place = format!("gateway {}/{}", gateway.meta.namespace, gateway.meta.name);
    let what = match (&announced, live, source, dials) {
        (Some(by), ..) => format!("nothing serves revision {name:?} yet; {by} announces it."),
        (None, false, ..) => format!("{place} asks for revision {name:?}, and no injector is there yet."),
        (None, true, Source::Host, Some(host)) => {
            format!("{place} dials {host}, but revision {name:?} is not installed.")
        }
        (None, true, Source::Namespace, _) => {
            format!("{place} asks by its namespace for {name:?}, which is no installed revision or tag.")
        }
        _ => format!("{place} asks for {name:?}, which is no installed revision or tag."),
    };
    let names = cluster.name_list();
    let fix = format!("{}\n(or install revision {name} first) {names}", rename(gateway, source, view)?);
    Ok(Some(Finding::deny(source.field(), name.as_str()).severity(severity).says(what, NEVER_READY, fix)))
}

/// How to name a control plane that is there.
fn rename(gateway: &Workload, source: Source, view: &View<'_>) -> Known<String> {
    let target = view.cluster().target_of(gateway)?.map_or_else(String::new, |t| t.name);
    let nearest = view.cluster().injectors()?.names().nearest(&target).cloned();
    Ok(match (source, nearest) {
        (Source::Namespace, Some(near)) => {
            format!("kubectl label namespace {} {}={near} --overwrite", gateway.meta.namespace, key::REV)
        }
        (Source::Template, Some(near)) if view.operation == Operation::Update => {
            let labels = format!("{{\"{}\":\"{near}\"}}", key::REV);
            format!(
                "kubectl patch {} --type merge -p '{{\"spec\":{{\"template\":{{\"metadata\":{{\"labels\":{labels}}}}}}}}}'",
                view.kubectl()
            )
        }
        (Source::Template, Some(near)) => format!("set {}: {near} in the pod template", key::REV),
        _ => "render the gateway for a revision that is there".to_owned(),
    })
}

fn not_ready(
    gateway: &Workload,
    old: Old<'_, Workload>,
    (revision, source): (&RevisionName, Source),
    view: &View<'_>,
) -> Known<Option<Finding>> {
    let cluster = view.cluster();
    if if_known(cluster.is_ready(revision))? != Some(false) {
        return Ok(None);
    }
    let Some(old) = old.get() else { return Ok(None) };
    let was = if_known(cluster.target_of(old))?.flatten().and_then(|t| t.revision);
    let Some(was) = was.filter(|was| was != revision) else { return Ok(None) };
    let ready = ready_pods(cluster, view.id(), old)?.filter(|c| c.pods > 0);
    let severity = ready.map_or(Severity::Warn, super::traffic::Count::severity);
    let serving = pods(ready.map_or(0, |c| c.pods));
    let place = format!("{}/{}", gateway.meta.namespace, gateway.meta.name);
    let istiod = istiod_namespace(revision, cluster);
    Ok(Some(Finding::deny(source.field(), revision.as_str()).severity(severity).says(
        format!("gateway {place} ({serving}) moves from {was} to {revision}, whose istiod is not ready."),
        "new pods would get no listeners; the rollout hangs with less capacity than before.",
        format!(
            "kubectl rollout status deployment -n {istiod} {}\n(move the gateway once that is ready)",
            revision.istiod()
        ),
    )))
}

fn istiod_namespace(revision: &RevisionName, cluster: &Snapshot) -> String {
    let planes = cluster.control_planes().unwrap_or_default();
    planes.get(revision).and_then(|p| p.namespaces.first().cloned()).unwrap_or_else(|| "istio-system".to_owned())
}

fn newer(gateway: &Workload, revision: &RevisionName, cluster: &Snapshot) -> Option<Finding> {
    let proxy = gateway.template.proxy_version()?;
    let istiod = cluster.version_of(revision).filter(|v| proxy > *v)?;
    Some(Finding::deny("spec.template.spec.containers[istio-proxy].image", format!("{proxy} on {revision}")).says(
        format!(
            "gateway {}/{} has proxy {proxy}, newer than istiod {istiod} of revision {revision}, which it attaches to.",
            gateway.meta.namespace, gateway.meta.name
        ),
        "Istio supports no proxy ahead of its control plane: it may be sent what it reads differently.",
        format!("upgrade istiod of revision {revision} to {proxy} first, or render the gateway with Istio {istiod}"),
    ))
}
