//! # CP003 installation-in-use
//!
//! ## What
//! The custom resource that installs a control plane is deleted, or an entry is taken out of it, while the revision is in
//! use: Sail's `Istio` and `IstioRevision`, an entry of Gloo's `IstioLifecycleManager`, an `IstioOperator`. Also a Sail
//! `IstioRevisionTag` whose name is still asked for, and the entry of Gloo's `GatewayLifecycleManager` that is the active
//! gateway of a cluster. What "in use" means stands on the page of CP001.
//!
//! Sail's resources are denied by Sail's own rules, which its condition `InUse` shows and by which it prunes: an IstioRevisionTag
//! whose status names the revision; a namespace that refers to it by `istio-injection=enabled` (to `default`) or `istio.io/rev`, also
//! one that is switched off; pods that it injected; pods that ask for it in a namespace that refers to none; `default` with
//! `enableNamespacesByDefault`. What uses a revision beyond that (a tag of istioctl, a validator, pinned configuration) gives a
//! warning. Pods that failed or are being deleted are not counted here, although Sail counts them.
//!
//! An update of an `IstioOperator` that switches `components.pilot` off does what its deletion does. One that changes its
//! revision gives a warning: the old control plane goes on, but nothing is left that it could be upgraded or removed with.
//! Where another `IstioOperator` installs the same revision, nothing is said.
//!
//! Deleting an `IstioOperator` is denied only if somebody acts on it: a Deployment of the in-cluster operator, or a
//! finalizer. Otherwise it is a file that was stored once, and a warning is enough.
//!
//! ## Why
//! The operator behind the resource removes the control plane at once, with its Services and webhooks.
//!
//! ## What to do
//! Move the users first; the denial names them and gives the commands.
//!
//! ## When to allow
//! When the whole mesh is torn down with its users still in it.

use super::in_use::Loss;
use crate::model::object::Installation;
use crate::model::{Kind, Lifecycle, Meta, Object, Operator, RevisionName, Sail};
use crate::rules::{Check, Field, Finding, Found, Old, Rule, Severity, View};
use crate::snapshot::usage::Use;
use crate::snapshot::{Known, Snapshot, WhyUnknown};

pub static RULE: Rule = Rule {
    code: "CP003",
    name: "installation-in-use",
    summary: "the custom resource of a control plane that is in use goes away",
    reads: &[Field::Spec],
    checks: &[Check::Delete(deleted), Check::Lifecycle(shortened), Check::Operator(given_up)],
    source: include_str!("cp003_installation_in_use.rs"),
};

fn deleted(object: &Object, view: &View<'_>) -> Found {
    match object {
        Object::Sail(Kind::SailTag, tag) => tag_deleted(tag, view),
        Object::Sail(kind, sail) => {
            let mut findings = Vec::new();
            for revision in sail_revisions(*kind, sail, view.before()) {
                findings.extend(sail_lost(object, &revision, view)?);
            }
            Ok(findings)
        }
        Object::Operator(operator) if operator.has_pilot() && !operator.is_inert() => {
            let revision = RevisionName::new(operator.revision.as_deref().unwrap_or(""));
            lost(object, "metadata.name", vec![revision], most(operator, view)?, view)
        }
        Object::Lifecycle(Kind::IstioLifecycle, lifecycle) => {
            lost(object, "metadata.name", revisions(lifecycle), Severity::Deny, view)
        }
        Object::Lifecycle(Kind::GatewayLifecycle, lifecycle) => {
            let active = lifecycle.installations.iter().find(|i| i.is_active());
            let gone = |i: &Installation| gateway_gone(i, &lifecycle.meta, "metadata.name", Severity::Warn);
            Ok(active.map(gone).into_iter().collect())
        }
        _ => Ok(Vec::new()),
    }
}

/// Without anybody who acts on it, it is a file that was stored once.
fn most(operator: &Operator, view: &View<'_>) -> Known<Severity> {
    let acts = operator.meta.finalized || operator_runs(view.before(), operator)?;
    Ok(if acts { Severity::Deny } else { Severity::Warn })
}

/// An update after which an IstioOperator no longer installs the revision that it installed.
fn given_up(new: &Operator, old: Old<'_, Operator>, view: &View<'_>) -> Found {
    let Some(old) = old.get().filter(|o| o.has_pilot() && !o.is_inert() && !new.is_inert()) else {
        return Ok(Vec::new());
    };
    let revision = |o: &Operator| RevisionName::new(o.revision.as_deref().unwrap_or(""));
    let was = revision(old);
    let switched_off = !new.has_pilot();
    if !switched_off && revision(new) == was {
        return Ok(Vec::new());
    }
    let mut others = view.cluster().operators()?.filter(|o| o.has_pilot() && !o.is_inert() && !o.meta.deleting);
    if others.any(|o| revision(o) == was) {
        return Ok(Vec::new());
    }
    let name = &new.meta.name;
    // The operator prunes what carries the labels of its resource, and the revision is one of them.
    let (field, doing, most) = if switched_off {
        let field = if new.pilot == Some(false) { "spec.components.pilot" } else { "spec.profile" };
        (field, format!("IstioOperator {name} without pilot"), most(old, view)?)
    } else {
        ("spec.revision", format!("another revision in IstioOperator {name}"), Severity::Warn)
    };
    let (value, besides) = (was.to_string(), Vec::new());
    let loss = Loss { revision: &was, doing, field, value, meta: &old.meta, most, besides };
    let mut found = loss.finding(view)?;
    if let Some(finding) = found.as_mut().filter(|_| !switched_off)
        && let Some(users) = finding.what.strip_prefix(&format!("control plane {was} is in use: "))
    {
        finding.what = format!("no IstioOperator installs {was} any more, which is in use: {users}");
        finding.why = "it goes on, but nothing is left that it could be upgraded or removed with.".into();
    }
    Ok(found.into_iter().collect())
}

/// Entries that an update takes out.
fn shortened(new: &Lifecycle, old: Old<'_, Lifecycle>, view: &View<'_>) -> Found {
    let Some(old) = old.get() else { return Ok(Vec::new()) };
    let kept = revisions(new);
    let taken: Vec<RevisionName> = revisions(old).into_iter().filter(|r| !kept.contains(r)).collect();
    if view.kind() == Kind::GatewayLifecycle {
        let was = old.installations.iter().find(|i| i.is_active() && taken.contains(&revision(i)));
        let gone = was.filter(|_| !new.installations.iter().any(Installation::is_active));
        return Ok(gone
            .map(|i| gateway_gone(i, &new.meta, "spec.installations", Severity::Deny))
            .into_iter()
            .collect());
    }
    let object = Object::Lifecycle(view.kind(), Box::new(old.clone()));
    lost(&object, "spec.installations", taken, Severity::Deny, view)
}

fn revision(entry: &Installation) -> RevisionName {
    RevisionName::new(entry.revision.as_deref().unwrap_or(""))
}

fn revisions(lifecycle: &Lifecycle) -> Vec<RevisionName> {
    lifecycle.installations.iter().map(revision).collect()
}

fn lost(object: &Object, field: &'static str, gone: Vec<RevisionName>, most: Severity, view: &View<'_>) -> Found {
    let meta = object.meta();
    let kind = crate::wire::row(object.kind()).name;
    let mut findings = Vec::new();
    for revision in gone {
        let doing = if field == "metadata.name" {
            format!("deleting {kind} {}", meta.name)
        } else {
            format!("taking installation {revision} out of {kind} {}", meta.name)
        };
        let (value, besides) = (revision.to_string(), Vec::new());
        let loss = Loss { revision: &revision, doing, field, value, meta, most, besides };
        findings.extend(loss.finding(view)?);
    }
    Ok(findings)
}

/// Sail itself says whether a revision is in use; what else uses it is worth a warning.
fn sail_lost(object: &Object, revision: &RevisionName, view: &View<'_>) -> Found {
    let cluster = view.before();
    let own = match object {
        Object::Sail(_, sail) => sail.by_default,
        _ => false,
    };
    let by_default = own || cluster.sails(Kind::SailRevision).any(|r| r.meta.name == revision.as_str() && r.by_default);
    let usage = cluster.sail_usage_of_revision(revision.as_str(), by_default);
    let most = if usage.is_used() { Severity::Deny } else { Severity::Warn };
    let meta = object.meta();
    let doing = format!("deleting {} {}", crate::wire::row(object.kind()).name, meta.name);
    let (field, value, besides) = ("metadata.name", revision.to_string(), usage.uses);
    Ok(Loss { revision, doing, field, value, meta, most, besides }.finding(view)?.into_iter().collect())
}

/// Revisions that go when a Sail resource goes: an `Istio` takes what it owns with it.
fn sail_revisions(kind: Kind, sail: &Sail, cluster: &Snapshot) -> Vec<RevisionName> {
    if kind == Kind::SailRevision {
        return vec![RevisionName::new(&sail.meta.name)];
    }
    let owned = cluster
        .sails(Kind::SailRevision)
        .filter(|r| r.meta.owner.as_deref().is_some_and(|owner| owner.kind == "Istio" && owner.name == sail.meta.name));
    let mut gone: Vec<RevisionName> = owned.map(|r| RevisionName::new(&r.meta.name)).collect();
    gone.extend(sail.active.as_deref().map(RevisionName::new));
    if gone.is_empty() && sail.strategy.as_deref() != Some("RevisionBased") {
        gone.push(RevisionName::new(&sail.meta.name));
    }
    gone.sort();
    gone.dedup();
    gone
}

/// A tag of Sail is the source of its webhooks and Service, so that nobody who asks for it is served without it.
fn tag_deleted(tag: &Sail, view: &View<'_>) -> Found {
    let name = &tag.meta.name;
    let mut usage = view.before().sail_usage_of_tag(tag);
    let severity = if usage.is_used() { Severity::Deny } else { Severity::Warn };
    if severity == Severity::Warn {
        usage = view.before().asking_for(name);
    }
    if !usage.is_used() {
        return match usage.unknown.into_iter().find(|u| u.why == WhyUnknown::Listing) {
            Some(unknown) => Err(unknown),
            None => Ok(Vec::new()),
        };
    }
    let to = tag.active.as_deref().or(tag.target.as_ref().map(|(_, name)| name.as_str())).unwrap_or("REVISION");
    let mut fix: Vec<String> = usage
        .uses
        .iter()
        .filter_map(|user| match user {
            Use::Namespace { name, asks } if asks != "default" => {
                Some(format!("kubectl label namespace {name} istio.io/rev={to} --overwrite"))
            }
            _ => None,
        })
        .collect();
    if fix.is_empty() {
        fix.push(format!(
            "kubectl edit {}\n(point it to another control plane instead of deleting it)",
            view.kubectl()
        ));
    } else {
        fix.push(format!("(or move them with the tag: point it elsewhere with kubectl edit {})", view.kubectl()));
    }
    Ok(vec![Finding::deny("metadata.name", name.as_str()).severity(severity).says(
        format!("deleting IstioRevisionTag {name} would leave unserved who asks for it: {}.", usage.sentence(5)),
        "the operator removes the tag's webhooks and Service: new pods would start without a sidecar and outside mTLS.",
        fix.join("\n"),
    )])
}

fn gateway_gone(entry: &Installation, meta: &Meta, field: &'static str, severity: Severity) -> Finding {
    let lifecycle = &meta.name;
    let edit = format!(
        "kubectl edit {} -n {} {lifecycle}",
        crate::wire::row(Kind::GatewayLifecycle).kubectl(),
        meta.namespace
    );
    let revision = revision(entry);
    let what = match severity {
        Severity::Deny => format!(
            "GatewayLifecycleManager {lifecycle} loses gateway revision {revision}, the active one, and no other entry \
             is active."
        ),
        Severity::Warn => format!("the active gateway {revision} goes with it"),
    };
    Finding::warn(field, revision.to_string()).severity(severity).says(
        what,
        "Gloo removes the gateway that serves the plain Service name, and nothing takes its place.",
        format!(
            "{edit}\n(set activeGateway: true for the cluster on the entry that stays, wait until it serves, then take \
             {revision} out)"
        ),
    )
}

/// The in-cluster operator that acts on a custom resource: the one without a revision, or that of the same revision.
fn operator_runs(cluster: &Snapshot, operator: &Operator) -> Known<bool> {
    cluster.knows(Kind::Deployment, None)?;
    let own = operator.revision.as_deref().map(|r| format!("istio-operator-{r}"));
    Ok(cluster.workloads().any(|(kind, w)| {
        kind == Kind::Deployment
            && w.wanted() > 0
            && (w.meta.name == "istio-operator" || own.as_deref().is_some_and(|own| w.meta.name == own))
    }))
}
