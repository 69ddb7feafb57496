//! # UP003 proxy-newer
//!
//! ## What
//! A workload's template names a proxy image of its own (the container `istio-proxy`, or the annotation
//! `sidecar.istio.io/proxyImage`) that is newer than the istiod that it attaches to. Also, as a warning: an istiod goes
//! back to an older minor in place while newer proxies run on it.
//!
//! The same for workloads that are led to an older istiod: by the labels of their namespace, or by a tag that they follow. Where
//! the tag's webhooks lead there already, so that refusing its Service would leave it half made, that is a warning.
//!
//! Templates of gateways are GW006's. Versions are those of image tags; where one is not known, the rule is silent.
//!
//! ## Why
//! A proxy may be older than its control plane, never newer: it may ask for what its istiod does not know.
//!
//! ## What to do
//! Leave the image to the injector (`auto`, no annotation), or upgrade the control plane first. After going back, restart
//! the workloads so that they get the older proxy.
//!
//! ## When to allow
//! For a proxy with a patch of one's own, tagged with a version that it is not.

use super::moves::{self, Move};
use crate::model::{
    Id, Kind, Namespace, Object, Operator, Pod, RevisionName, Sail, Service, Version, Workload, key, workload,
};
use crate::rules::finding::{label, template_annotation};
use crate::rules::names::few;
use crate::rules::shift::{self, Retarget};
use crate::rules::view::kubectl;
use crate::rules::workload::merge;
use crate::rules::{Check, Field, Finding, Found, Old, Rule, Severity, View};
use crate::snapshot::Known;

pub static RULE: Rule = Rule {
    code: "UP003",
    name: "proxy-newer",
    summary: "an explicit proxy image is newer than its istiod, or an istiod goes back under newer proxies",
    reads: &[Field::Template, Field::Spec, Field::Label(key::INJECTION), Field::Label(key::REV)],
    checks: &[
        Check::Workload(template),
        Check::Operator(operator),
        Check::Sail(sail),
        Check::Namespace(relabelled),
        Check::Service(retagged),
    ],
    source: include_str!("up003_proxy_newer.rs"),
};

const PROXY_IMAGE: &str = "sidecar.istio.io/proxyImage";

fn template(new: &Workload, old: Old<'_, Workload>, view: &View<'_>) -> Found {
    if new.is_istiod() {
        return Ok(moves::of_istiod(new, old.get(), view)?.and_then(|m| back(&m, view)).into_iter().collect());
    }
    let Some((field, image, proxy)) = explicit(new).filter(|_| !new.is_gateway()) else { return Ok(Vec::new()) };
    let Some(at) = attaches_to(new, view)? else { return Ok(Vec::new()) };
    let revision = &at.revision;
    let Some(istiod) = view.cluster().control_planes()?.remove(revision).and_then(|p| p.version) else {
        return Ok(Vec::new());
    };
    if proxy <= istiod {
        return Ok(Vec::new());
    }
    Ok(vec![Finding::deny(field.clone(), image).says(
        format!("the proxy image {image} ({proxy}) is newer than its control plane {revision} ({istiod})."),
        "a proxy newer than its istiod is not supported: it may ask for what istiod does not know, and fail to start.",
        remedy(&field, image, &at, view),
    )])
}

/// The injector knows which image fits; a proxy that nobody injects needs its istiod's version.
fn remedy(field: &str, image: &str, at: &Attached, view: &View<'_>) -> String {
    if field.contains(PROXY_IMAGE) {
        return format!(
            "drop the annotation {PROXY_IMAGE} from the template\n(the injector then takes the image that fits)"
        );
    }
    let fitting = if at.injected { "auto".to_owned() } else { fitting(image, &at.revision, view) };
    format!("set image: {fitting} for the container {} of the template", workload::PROXY)
}

/// The same repository with the tag of the istiod.
fn fitting(image: &str, revision: &RevisionName, view: &View<'_>) -> String {
    let istiods = view.before().istiods().ok();
    let own = istiods.and_then(|mut all| all.find(|w| w.istiod_revision().as_ref() == Some(revision)));
    let tag = own.and_then(|w| w.template.container(workload::DISCOVERY)?.image.rsplit_once(':'));
    let repository = image.rsplit_once(':').map_or(image, |(repository, _)| repository);
    format!("{repository}:{}", tag.map_or("", |(_, tag)| tag))
}

/// The proxy image that the template itself names, and where.
fn explicit(workload: &Workload) -> Option<(String, &str, Version)> {
    let template = &workload.template;
    if let Some(image) = template.annotations.value(PROXY_IMAGE) {
        return Some((template_annotation(PROXY_IMAGE), image, Version::of_image(image)?));
    }
    let container = template.container(workload::PROXY)?;
    let field = format!("spec.template.spec.containers[{}].image", workload::PROXY);
    Some((field, &container.image, Version::of_image(&container.image)?))
}

/// The istiod that a template's proxy talks to.
struct Attached {
    revision: RevisionName,
    injected: bool,
}

/// Who injects it, unless it dials an istiod that it names itself.
fn attaches_to(workload: &Workload, view: &View<'_>) -> Known<Option<Attached>> {
    let cluster = view.cluster();
    let resolution = cluster.resolve(&workload.meta.namespace, &workload.template)?;
    let revision = match workload.template.discovery_host() {
        Some(host) => cluster.revision_of_host(&host).and_then(|t| t.revision),
        None => resolution.revision().cloned(),
    };
    Ok(revision.map(|revision| Attached { revision, injected: resolution.is_injected() }))
}

fn operator(new: &Operator, old: Old<'_, Operator>, view: &View<'_>) -> Found {
    Ok(moves::of_operator(new, old.get(), view)?.and_then(|m| back(&m, view)).into_iter().collect())
}

fn sail(new: &Sail, old: Old<'_, Sail>, view: &View<'_>) -> Found {
    if let Some(retarget) = Retarget::of_sail(new, old.get(), view) {
        return moved_by_tag(&retarget, view);
    }
    Ok(moves::of_sail(new, old.get(), view)?.and_then(|m| back(&m, view)).into_iter().collect())
}

fn relabelled(new: &Namespace, old: Old<'_, Namespace>, view: &View<'_>) -> Found {
    let Some(old) = old.get() else { return Ok(Vec::new()) };
    let moved = shift::by_namespace(new, old, view)?;
    let changed = [key::INJECTION, key::REV].into_iter().find(|k| old.meta.labels.get(k) != new.meta.labels.get(k));
    let changed = changed.unwrap_or(key::REV);
    let value = new.meta.labels.value(changed).unwrap_or_default();
    let mut targets: Vec<&RevisionName> = moved.iter().map(|m| &m.to).collect();
    targets.sort();
    targets.dedup();
    let mut findings = Vec::new();
    for to in targets {
        let own = moved.iter().filter(|m| m.to == *to);
        let led = Led {
            who: format!("{:?} leads", new.meta.name),
            to,
            field: label(changed),
            value,
            severity: Severity::Deny,
        };
        findings.extend(led.judge(own.map(|m| (m.kind, m.workload, m.from.as_ref())), view));
    }
    Ok(findings)
}

fn retagged(new: &Service, old: Old<'_, Service>, view: &View<'_>) -> Found {
    if !new.meta.labels.has(key::TAG) {
        return Ok(Vec::new());
    }
    match Retarget::of_service(new, old.get(), view) {
        Some(retarget) => moved_by_tag(&retarget, view),
        None => Ok(Vec::new()),
    }
}

fn moved_by_tag(retarget: &Retarget, view: &View<'_>) -> Found {
    let workloads = retarget.workloads(view.before())?;
    let (to, severity) = (&retarget.to, if retarget.is_half_done { Severity::Warn } else { Severity::Deny });
    let who = format!("tag {} leads", retarget.tag);
    let led = Led { who, to, field: retarget.field.clone(), value: to.as_str(), severity };
    Ok(led.judge(workloads.into_iter().map(|(kind, w)| (kind, w, Some(&retarget.from))), view).into_iter().collect())
}

/// Workloads that come to another istiod without a change of their own.
struct Led<'a> {
    who: String,
    to: &'a RevisionName,
    field: String,
    value: &'a str,
    severity: Severity,
}

impl Led<'_> {
    /// Those whose template names a proxy that is newer than the istiod they come to, and was not newer than its own before.
    fn judge<'a>(
        &self,
        led: impl Iterator<Item = (Kind, &'a Workload, Option<&'a RevisionName>)>,
        view: &View<'_>,
    ) -> Option<Finding> {
        let cluster = view.before();
        let istiod = cluster.version_of(self.to)?;
        let newer: Vec<(Kind, &Workload, Version)> = led
            .filter_map(|(kind, w, from)| {
                let (_, _, proxy) = explicit(w).filter(|(_, _, proxy)| *proxy > istiod)?;
                let before = from.and_then(|from| cluster.version_of(from));
                before.is_none_or(|before| proxy <= before).then_some((kind, w, proxy))
            })
            .collect();
        let (kind, first, proxy) = newer.first()?;
        let names: Vec<String> =
            newer.iter().map(|(_, w, proxy)| format!("{}/{} ({proxy})", w.meta.namespace, w.meta.name)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let end = if self.severity == Severity::Deny { "." } else { "" };
        let id = Id { kind: *kind, namespace: first.meta.namespace.clone(), name: first.meta.name.clone() };
        Some(Finding::deny(self.field.clone(), self.value).severity(self.severity).says(
            format!("{} to istiod {istiod} ({}), older than explicit proxies of {}{end}", self.who, self.to, few(&names)),
            format!("a proxy of {proxy} on an istiod of {istiod} is not supported: it may ask for what istiod does not know."),
            unpin(&id, first),
        ))
    }
}

/// Lets the injector choose the image again.
fn unpin(id: &Id, workload: &Workload) -> String {
    let object = kubectl(id);
    let line = if workload.template.annotations.has(PROXY_IMAGE) {
        merge(&object, id.kind, serde_json::json!({ "annotations": { PROXY_IMAGE: null } }))
    } else {
        format!("kubectl set image {object} {}=auto", workload::PROXY)
    };
    format!("{line}\n(the injector then takes the image that fits; and so on for the others)")
}

/// An istiod that goes back under the proxies that run on it.
fn back(step: &Move, view: &View<'_>) -> Option<Finding> {
    let from = step.from.filter(|from| *from > step.to)?;
    let (revision, to) = (&step.revision, step.to);
    let cluster = view.before();
    let versions: Vec<Version> = cluster
        .raw(Kind::Pod)
        .filter_map(|o| match o {
            Object::Pod(p) if is_run_by(p, revision) => p.proxy,
            _ => None,
        })
        .collect();
    let newer = versions.iter().filter(|v| **v > to).count();
    let pods: u32 = cluster.runs(revision.as_str()).map(|(_, _, n)| n).sum();
    let unread = (pods as usize).saturating_sub(versions.len());
    let what = match (newer, unread) {
        (0, 0) => return None,
        (0, n) => format!("{revision} goes back from {from} to {to}; running proxies that may be newer then: {n}"),
        (n, _) => format!("{revision} goes back from {from} to {to}; running proxies that are newer then: {n}"),
    };
    let (ns, workload) = cluster.runs(revision.as_str()).next().map(|(ns, w, _)| (ns.clone(), w.clone()))?;
    Some(Finding::warn(step.field, format!("{revision} {to}")).says(
        what,
        "a proxy newer than its istiod is not supported until its workload is restarted.",
        format!("kubectl rollout restart deployment -n {ns} {workload}\n(and so on, once istiod {to} is ready)"),
    ))
}

fn is_run_by(pod: &Pod, revision: &RevisionName) -> bool {
    pod.revision.as_deref() == Some(revision.as_str()) && !pod.status.is_some_and(|s| s.over)
}
