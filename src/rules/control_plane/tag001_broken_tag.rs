//! # TAG001 broken-tag
//!
//! ## What
//! A revision tag (a Service labelled `istio.io/tag`, or Sail's `IstioRevisionTag`) has the name of an existing revision,
//! points to a revision that does not exist, or goes away while its name is still asked for.
//!
//! ## Why
//! A tag's Service beats its webhook configuration when istiod looks up a name. One that leads nowhere leaves whoever asks
//! for the tag without a control plane; one that is named like a revision answers for it.
//!
//! ## What to do
//! Point the tag to an installed revision: `istioctl tag set TAG --revision REVISION --overwrite`. Before removing a tag,
//! let nobody ask for it.
//!
//! ## When to allow
//! When the revision is to be installed right after its tag. A tag that Helm installs only gives a warning, because Helm
//! applies Services first; so does any tag where there is no control plane yet. A tag that the chart of an istiod brings
//! along (`revisionTags`) points to that istiod, and nothing is said; where it takes a tag over from another one, that is a
//! warning, because Flux applies none of its objects while one is refused.
//!
//! ## Who speaks
//! CP003 speaks of the deletion of an `IstioRevisionTag`: it takes the tag's webhooks with it. When a tag's Service goes,
//! `istioctl tag remove` has deleted the webhooks before, so that a warning is all that helps.

use crate::model::{Kind, Object, Sail, Service, key};
use crate::rules::finding::label;
use crate::rules::names::newest;
use crate::rules::{Check, Field, Finding, Found, Old, Rule, Severity, View};
use crate::snapshot::{Known, WhyUnknown};

pub static RULE: Rule = Rule {
    code: "TAG001",
    name: "broken-tag",
    summary: "a revision tag collides with a revision, leads nowhere, or goes while it is asked for",
    reads: &[Field::Label(key::TAG), Field::Label(key::REV), Field::Spec],
    checks: &[Check::Service(service), Check::Sail(sail), Check::Delete(deleted)],
    source: include_str!("tag001_broken_tag.rs"),
};

fn service(service: &Service, old: Old<'_, Service>, view: &View<'_>) -> Found {
    let labels = &service.meta.labels;
    let Some(tag) = labels.value(key::TAG) else { return Ok(Vec::new()) };
    let target = labels.value(key::REV).unwrap_or("");
    let before = old.get().map(|o| &o.meta.labels);
    if before.is_some_and(|b| b.is(key::TAG, tag) && b.value(key::REV).unwrap_or("") == target) {
        return Ok(Vec::new());
    }
    let cluster = view.cluster();
    let mut findings = collision(tag, target, label(key::TAG), view)?;
    let revisions = cluster.revisions()?;
    // The chart of an istiod brings tags that point to itself, before its Deployment.
    let comes_along = labels.value(CHART).is_some_and(|chart| chart.starts_with("istiod-"));
    let is_new_with_it = comes_along && before.is_none();
    if !is_new_with_it && !revisions.iter().any(|r| r.as_str() == target) {
        let mut webhooks = cluster.injector_configs().map(|c| &c.meta.labels);
        let agrees = webhooks.any(|l| l.is(key::TAG, tag) && l.is(key::REV, target));
        // Helm applies Services before the Deployment that they lead to, and Argo CD before anything is there.
        let may_come = service.meta.annotations.has(key::HELM_RELEASE) || revisions.is_empty();
        let severity =
            if agrees || may_come || comes_along || target.is_empty() { Severity::Warn } else { Severity::Deny };
        findings.push(nowhere(tag, target, label(key::REV), view)?.severity_of(severity));
    }
    Ok(findings)
}

const CHART: &str = "helm.sh/chart";

fn sail(tag: &Sail, old: Old<'_, Sail>, view: &View<'_>) -> Found {
    let Some((kind, target)) = tag.target.as_ref().filter(|_| view.kind() == Kind::SailTag) else {
        return Ok(Vec::new());
    };
    let before = old.get();
    if before.is_some_and(|b| b.target == tag.target) {
        return Ok(Vec::new());
    }
    let cluster = view.cluster();
    let mut findings = Vec::new();
    if before.is_none() {
        findings = collision(&tag.meta.name, target, "metadata.name".to_owned(), view)?;
    }
    let of_kind = if *kind == "Istio" { Kind::SailIstio } else { Kind::SailRevision };
    cluster.knows(of_kind, None)?;
    if !cluster.sails(of_kind).any(|s| s.meta.name == *target) {
        // Sail waits for the target of a new tag; where nothing of its kind is there yet, everything may come at once.
        let may_come = tag.meta.annotations.has(key::HELM_RELEASE) || before.is_none() && cluster.len(of_kind) == 0;
        let severity = if may_come { Severity::Warn } else { Severity::Deny };
        let names: Vec<&str> = cluster.sails(of_kind).map(|s| s.meta.name.as_str()).collect();
        let fix = match names.first() {
            Some(name) if before.is_none() => {
                format!("set spec.targetRef.name: {name}\n({kind}: {})", names.join(", "))
            }
            Some(name) => format!(
                "kubectl patch {} --type merge -p \
                 '{{\"spec\":{{\"targetRef\":{{\"kind\":\"{kind}\",\"name\":\"{name}\"}}}}}}'\n({kind}: {})",
                view.kubectl(),
                names.join(", ")
            ),
            None => format!(
                "kubectl get {}\n(there is none yet: create the {kind} that the tag is for)",
                crate::wire::row(of_kind).kubectl()
            ),
        };
        let finding = Finding::warn("spec.targetRef.name", target.as_str()).severity(severity);
        let (what, why) = (
            format!("tag {} points to {kind} {target}, which does not exist{}", tag.meta.name, stop(severity)),
            NOWHERE,
        );
        findings.push(finding.says(what, why, fix));
    }
    Ok(findings)
}

const NOWHERE: &str =
    "who asks for the tag gets no control plane: new pods start without a sidecar, running proxies find no istiod.";

/// Denials end in a full stop, warnings are short.
fn stop(severity: Severity) -> &'static str {
    if severity == Severity::Deny { "." } else { "" }
}

/// A tag with the name of a revision. `default` is meant to be both.
fn collision(tag: &str, target: &str, field: String, view: &View<'_>) -> Found {
    if tag == "default" || !view.cluster().revisions()?.iter().any(|r| r.as_str() == tag) {
        return Ok(Vec::new());
    }
    Ok(vec![Finding::deny(field, tag).says(
        format!("tag {tag} has the name of an installed revision."),
        "istiod takes a tag before a revision: whoever asks for the revision would get what the tag points to.",
        match view.kind() {
            Kind::SailTag => format!("give the IstioRevisionTag another name, one that is no revision: {tag}-tag"),
            _ => format!("istioctl tag set {tag}-tag --revision {target}\n(or any other name that is no revision)"),
        },
    )])
}

/// A finding whose severity is still to come.
struct Nowhere {
    field: String,
    tag: String,
    target: String,
    /// The target is a tag, and tags do not chain.
    chained: bool,
    fix: String,
}

impl Nowhere {
    fn severity_of(self, severity: Severity) -> Finding {
        let Nowhere { field, tag, target, chained, fix } = self;
        let what = if target.is_empty() {
            format!("tag {tag} names no revision (label {})", key::REV)
        } else if chained {
            format!("tag {tag} points to {target}, which is a tag itself{}", stop(severity))
        } else {
            format!("tag {tag} points to revision {target}, which does not exist{}", stop(severity))
        };
        Finding::warn(field, target).severity(severity).says(what, NOWHERE, fix)
    }
}

fn nowhere(tag: &str, target: &str, field: String, view: &View<'_>) -> Known<Nowhere> {
    let revisions = view.cluster().revisions()?;
    let names: Vec<&str> = revisions.iter().map(|r| r.as_str()).collect();
    let fix = match newest(view.cluster(), &revisions) {
        Some(newest) => {
            format!("istioctl tag set {tag} --revision {newest} --overwrite\n(revisions: {})", names.join(", "))
        }
        None => {
            format!("kubectl get deployment -A -l app=istiod\n(there is no control plane yet: install {target} first)")
        }
    };
    let chained = view.cluster().is_tag(target);
    Ok(Nowhere { field, tag: tag.to_owned(), target: target.to_owned(), chained, fix })
}

/// `istioctl tag remove` deletes the webhook configuration before the Service.
fn deleted(object: &Object, view: &View<'_>) -> Found {
    let Object::Service(service) = object else { return Ok(Vec::new()) };
    let Some(tag) = service.meta.labels.value(key::TAG) else { return Ok(Vec::new()) };
    let usage = view.before().asking_for(tag);
    let Some(first) = usage.uses.first() else {
        let listing = usage.unknown.into_iter().find(|u| u.why == WhyUnknown::Listing);
        return listing.map_or_else(|| Ok(Vec::new()), Err);
    };
    let more = if usage.uses.len() > 1 { format!(" and {} more", usage.uses.len() - 1) } else { String::new() };
    let target = service.meta.labels.value(key::REV).unwrap_or("REVISION");
    Ok(vec![Finding::warn(label(key::TAG), tag).says(
        format!("tag {tag} is still in use: {first}{more}"),
        NOWHERE,
        format!(
            "istioctl tag set {tag} --revision {target} --overwrite\n(that puts it back; then move its users: {})",
            usage.sentence(5)
        ),
    )])
}
