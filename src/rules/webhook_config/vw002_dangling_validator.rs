//! # VW002 dangling-validator
//!
//! ## What
//! A validator of Istio configuration has `failurePolicy: Fail`, and its Service does not exist or has no ready endpoint.
//! Critical if it judges what names no revision, else an error. Backends outside of the cluster (`url`, an ExternalName)
//! are never missing, and a webhook that istioctl has switched off is never called.
//!
//! ## Why
//! The API server cannot ask, and so refuses: every write of Istio configuration fails with `failed calling webhook`,
//! whoever writes. Deletions still work.
//!
//! ## What to do
//! Lead it to a control plane that runs: `istioctl tag set default --revision REVISION --overwrite`, or
//! `helm upgrade istio-base … --set defaultRevision=REVISION`. If the control plane is to come back, start it.
//!
//! ## Repair
//! The validator of what names no revision is led to the default injector's revision, or to the only control plane that
//! answers, if its certificates come from the same CA. Where that is not certain, and for validators of one revision,
//! `failurePolicy` becomes `Ignore`: writes pass without validation until an istiod sets it back to `Fail`, which it does
//! as soon as it answers again.
//!
//! ## When to allow
//! When writes are to be refused while the control plane is away.

use serde_json::json;

use super::scene::{self, Judge, Scene, is_trusted};
use crate::model::{FailurePolicy, RevisionName};
use crate::rules::{Check, Flaw, Level, Patch, Policy, Repair, Rule, tags};
use crate::snapshot::{Known, Snapshot};

pub static RULE: Rule = Rule {
    code: "VW002",
    name: "dangling-validator",
    summary: "a validator refuses every write because nobody answers behind it",
    reads: &[],
    checks: &[Check::Audit(audit)],
    source: include_str!("vw002_dangling_validator.rs"),
};

fn audit(cluster: &Snapshot, _: &Policy) -> Known<Vec<Flaw>> {
    let scene = Scene::of(cluster)?;
    let dead = scene.validators.iter().filter(|j| j.is_dead() && j.webhook.failure_policy == FailurePolicy::Fail);
    Ok(dead.map(|j| flaw(&scene, j)).collect())
}

fn flaw(scene: &Scene<'_>, j: &Judge<'_>) -> Flaw {
    let catch_all = j.webhook.is_catch_all();
    let (level, whose) = if catch_all {
        (Level::Critical, "Istio configuration")
    } else {
        (Level::Error, "Istio configuration of its revision")
    };
    let target = target(scene, j);
    let ignore = format!(
        "kubectl patch validatingwebhookconfiguration {} --type json \
         -p '[{{\"op\":\"replace\",\"path\":\"/webhooks/{}/failurePolicy\",\"value\":\"Ignore\"}}]'",
        j.name(),
        j.at
    );
    let fix = match &target {
        Some((revision, _)) => tags::point(scene.cluster, "default", revision.as_str()),
        None => format!("{ignore}\n(writes pass unjudged until an istiod answers and sets it back)"),
    };
    // A validator that somebody broke by hand is mended within a minute.
    Flaw::of(level, j.id(), j.webhook.name.as_str())
        .after(20)
        .says(
            format!("{}: {} {}, and failurePolicy is Fail.", j.name(), j.backend(), scene::trouble(j.answers)),
            format!("every CREATE and UPDATE of {whose} is refused: the API server cannot ask, and must not go on."),
            fix,
        )
        .with(Some(repair(j, target)))
}

fn repair(j: &Judge<'_>, target: Option<(RevisionName, scene::Home)>) -> Repair {
    if let Some((revision, home)) = target {
        let mut operations = vec![scene::relabel(&j.config.meta.labels, &revision)];
        operations.extend(scene::repoint(j.at, &home));
        let says = format!("{} now leads to service {}/{} of {revision}", j.name(), home.namespace, home.name);
        return scene::patch(j.id(), operations, says);
    }
    let path = format!("/webhooks/{}/failurePolicy", j.at);
    let says = format!("{} no longer refuses what nobody can judge (failurePolicy: Ignore)", j.name());
    scene::patch(j.id(), vec![Patch::Add { path, value: json!("Ignore") }], says)
}

/// The control plane that is to judge instead.
fn target(scene: &Scene<'_>, j: &Judge<'_>) -> Option<(RevisionName, scene::Home)> {
    // Only the default validator moves; what versions before 1.12 left behind and a second one are to go.
    let is_default = scene.default_validator().is_some_and(|d| d.name() == j.name() && d.at == j.at);
    if !is_default || j.config.webhooks.len() != 1 {
        return None;
    }
    let default = scene.default().and_then(|(_, revision)| revision);
    let found = match default {
        Some(revision) if scene.is_running(&revision) => scene.home(&revision).map(|home| (revision, home)),
        _ => scene.only_home(),
    };
    found.filter(|(_, home)| is_trusted(j.webhook.ca, home))
}
