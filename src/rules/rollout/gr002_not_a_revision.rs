//! # GR002 not-a-revision
//!
//! ## What
//! A new GatewayRollout names something as `toRevision` that no control plane is called:
//!
//! - a tag: denied, also as `fromRevision`;
//! - a name that nobody has: denied; a warning where something announces it, or where there is no control plane at all yet;
//! - the revision that the gateway is on already: a warning.
//!
//! ## Why
//! A tag may lead elsewhere tomorrow, so that pods of one step would differ from those of the next, and going back would lead
//! nowhere. Pods of an unknown revision never become ready.
//!
//! ## What to do
//! Name the revision itself; the denial gives the one behind the tag, and the list of those that there are. Install the control
//! plane first.
//!
//! ## When to allow
//! A control plane that cannot be seen from this cluster.

use super::named;
use crate::model::{Kind, RevisionName, Rollout};
use crate::rules::names::if_known;
use crate::rules::{Check, Field, Finding, Found, Old, Rule, Severity, View};
use crate::snapshot::{Known, Snapshot};

pub static RULE: Rule = Rule {
    code: "GR002",
    name: "not-a-revision",
    summary: "a GatewayRollout names a tag or an unknown name as a revision, or the revision that its gateway is on",
    reads: &[Field::Spec],
    checks: &[Check::Rollout(check)],
    source: include_str!("gr002_not_a_revision.rs"),
};

fn check(rollout: &Rollout, old: Old<'_, Rollout>, view: &View<'_>) -> Found {
    // Neither name can be changed later; the API server sees to that.
    if old.get().is_some() || rollout.is_over() {
        return Ok(Vec::new());
    }
    let cluster = view.cluster();
    let revisions = cluster.revisions()?;
    let is_revision = |name: &str| revisions.iter().any(|r| r.as_str() == name);
    let mut found = Vec::new();
    for (field, name) in [("toRevision", Some(&rollout.to)), ("fromRevision", rollout.from.as_ref())] {
        let Some(name) = name.filter(|n| !n.is_empty() && !is_revision(n)) else { continue };
        if cluster.is_tag(name) {
            found.push(tag(field, name, cluster)?);
        } else if field == "toRevision" {
            found.push(unknown(name, &revisions, cluster));
        }
    }
    found.extend(there_already(rollout, cluster)?);
    Ok(found)
}

fn tag(field: &'static str, name: &str, cluster: &Snapshot) -> Known<Finding> {
    let behind = cluster.revision_behind(name)?;
    let (leads, revision) = match &behind {
        Some(revision) => (format!(" that leads to {revision}"), revision.as_str()),
        None => (" that leads nowhere yet".to_owned(), "REVISION"),
    };
    Ok(Finding::deny(format!("spec.{field}"), name).says(
        format!("{field} {name:?} is a tag{leads}, not a revision."),
        "a tag may lead elsewhere tomorrow: pods of one step would differ from those of the next, and there would be no way back.",
        format!("in the manifest, set spec.{field}: {revision}\n{}", cluster.name_list()),
    ))
}

fn unknown(name: &str, revisions: &[RevisionName], cluster: &Snapshot) -> Finding {
    let announced = cluster.announced(name);
    let severity = if announced.is_some() || revisions.is_empty() { Severity::Warn } else { Severity::Deny };
    let what = match &announced {
        Some(by) => format!("no control plane is called {name:?} yet; {by} announces it"),
        None if revisions.is_empty() => format!("no control plane is called {name:?}; there is none yet"),
        None => format!("no control plane is called {name:?}."),
    };
    let all: Vec<&str> = revisions.iter().map(RevisionName::as_str).collect();
    let fix = match all.as_slice() {
        [] => "(install the control plane first; the rollout waits for it)".to_owned(),
        _ => format!("in the manifest, set spec.toRevision to one of: {}\n(or install {name} first)", all.join(", ")),
    };
    Finding::deny("spec.toRevision", name).severity(severity).says(
        what,
        "pods of the new revision would find no istiod and never become ready.",
        fix,
    )
}

/// The gateway's template leads to the revision that it is to be moved to.
fn there_already(rollout: &Rollout, cluster: &Snapshot) -> Known<Option<Finding>> {
    let Some(name) = rollout.deployment() else { return Ok(None) };
    let namespace = &rollout.meta.namespace;
    let Some(gateway) = cluster.workload(Kind::Deployment, namespace, name) else { return Ok(None) };
    let target = if_known(cluster.target_of(gateway))?.flatten();
    if target.and_then(|t| t.revision).is_none_or(|r| r.as_str() != rollout.to.as_str()) {
        return Ok(None);
    }
    Ok(Some(Finding::warn("spec.toRevision", rollout.to.as_str()).says(
        format!("gateway {namespace}/{name} is on {} already; {} has nothing to move", rollout.to, named(rollout)),
        "whatever of its pods runs on another revision moves with its next restart, and nothing is left to go back to.",
        format!("kubectl get pods -n {namespace} -L istio.io/rev\n(leave the GatewayRollout out if they are where they should be)"),
    )))
}
