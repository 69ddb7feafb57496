//! # VW008 revision-without-validator
//!
//! ## What
//! A control plane runs, others have a validator of their own (`istio-validator-REVISION-NAMESPACE`), and this one has none.
//! Nothing is said where no control plane has one: validation is off. Versions before 1.11 have none.
//!
//! ## Why
//! Istio configuration that is pinned to this revision by the label `istio.io/rev` is judged by nobody.
//!
//! ## What to do
//! Install the control plane again with the same values and in the same version: `helm upgrade` or `istioctl install` write what
//! is missing. Sail's operator does so by itself.
//!
//! ## When to allow
//! When `global.configValidation` is off for this control plane on purpose.

use super::scene::Scene;
use crate::model::version::{bare, tag};
use crate::model::{Id, Kind, Release, RevisionName, Version, Workload, workload};
use crate::rules::{Check, Flaw, Level, Policy, Rule, install};
use crate::snapshot::{Known, Snapshot};

pub static RULE: Rule = Rule {
    code: "VW008",
    name: "revision-without-validator",
    summary: "a control plane has no validator of its own while others have",
    reads: &[],
    checks: &[Check::Audit(audit)],
    source: include_str!("vw008_revision_without_validator.rs"),
};

fn audit(cluster: &Snapshot, _: &Policy) -> Known<Vec<Flaw>> {
    let scene = Scene::of(cluster)?;
    if !scene.validates() {
        return Ok(Vec::new());
    }
    let without = scene.running.iter().filter(|r| !scene.validators.iter().any(|j| j.webhook.is_of(r)));
    Ok(without.filter_map(|r| flaw(cluster, r)).collect())
}

fn flaw(cluster: &Snapshot, revision: &RevisionName) -> Option<Flaw> {
    if cluster.version_of(revision).is_some_and(|v| v < Version::new(1, 11)) {
        return None;
    }
    let mut own = cluster.istiods().ok()?.filter(|w| w.istiod_revision().as_ref() == Some(revision));
    let istiod = own.next()?;
    let meta = &istiod.meta;
    let object = Id { kind: Kind::Deployment, namespace: meta.namespace.clone(), name: meta.name.clone() };
    let fix = match meta.helm_release() {
        _ if install::is_of_sail(meta) => format!(
            "kubectl get istiorevisions.sailoperator.io {} -o yaml\n(its operator writes what is missing; the conditions say \
             what keeps it from that)",
            meta.owner.as_deref().map_or(revision.as_str(), |owner| owner.name.as_str())
        ),
        Some((release, namespace)) => again(release, namespace, istiod),
        // Without a revision it is called default, which may not be given as one.
        None if revision.is_default() => "istioctl install -f VALUES\n(with the file of the installation)".to_owned(),
        None => format!("istioctl install --revision {revision} -f VALUES\n(with the file of the installation)"),
    };
    Some(Flaw::of(Level::Warning, object, revision.as_str()).says(
        format!("control plane {revision} has no validator of its own."),
        format!("nobody judges Istio configuration that is labelled istio.io/rev={revision}."),
        fix,
    ))
}

/// The same release again, of the version that runs: without one, Helm takes the newest chart.
fn again(release: &str, namespace: &str, istiod: &Workload) -> String {
    let image = istiod.template.container(workload::DISCOVERY).and_then(|c| tag(&c.image));
    match image.filter(|tag| Release::parse(tag).is_some()) {
        Some(tag) => install::upgrade(release, "istio/istiod", namespace, bare(tag)),
        None => format!(
            "helm list -n {namespace} --filter '^{release}$'\n({}, VERSION being that of its chart)",
            install::upgrade(release, "istio/istiod", namespace, "VERSION")
        ),
    }
}
