//! # VW005 split-default
//!
//! ## What
//! The validator of what names no revision is served by another control plane than the default injector. Nothing is said
//! where there is no default injector, or where either is outside of the cluster.
//!
//! ## Why
//! Configuration is accepted or refused by one version and carried out by another: the older refuses fields that the newer
//! needs, or the newer lets pass what the older does not understand. And the control plane behind the validator cannot be
//! removed although nothing seems to use it.
//!
//! ## What to do
//! `istioctl tag set default --revision REVISION --overwrite` writes both. With charts: `defaultRevision` of the base chart
//! and `revisionTags` of the istiod chart name the same revision.
//!
//! ## Repair
//! The validator follows the default injector, if that one answers and both have the same CA: pods have moved, and judgement
//! follows them.
//!
//! ## When to allow
//! For the hours of an upgrade in which the default tag moves first.

use super::scene::{self, Judge, Scene, is_trusted};
use crate::model::{Backend, FailurePolicy, Hook};
use crate::rules::{Check, Flaw, Level, Policy, Rule, tags};
use crate::snapshot::mesh::Answers;
use crate::snapshot::{Known, Snapshot};

pub static RULE: Rule = Rule {
    code: "VW005",
    name: "split-default",
    summary: "the default validator and the default injector belong to different control planes",
    reads: &[],
    checks: &[Check::Audit(audit)],
    source: include_str!("vw005_split_default.rs"),
};

fn audit(cluster: &Snapshot, _: &Policy) -> Known<Vec<Flaw>> {
    let scene = Scene::of(cluster)?;
    let (Some(judge), Some((hook, _))) = (scene.default_validator(), scene.default()) else { return Ok(Vec::new()) };
    // VW002 speaks of a validator that refuses everything.
    let refuses = judge.is_dead() && judge.webhook.failure_policy == FailurePolicy::Fail;
    let outside = judge.answers == Answers::Elsewhere || cluster.answers(&hook.backend)? == Answers::Elsewhere;
    if refuses || outside {
        return Ok(Vec::new());
    }
    Ok(flaw(&scene, judge, hook).into_iter().collect())
}

fn flaw(scene: &Scene<'_>, judge: &Judge<'_>, hook: &Hook) -> Option<Flaw> {
    let injecting = scene.cluster.serving_revision(&hook.backend);
    let same = match (&judge.serving, &injecting) {
        (Some(a), Some(b)) => a == b,
        // MW002 speaks of an injector whose Service is gone.
        (_, None) => true,
        (None, Some(_)) => same_service(&judge.webhook.backend, &hook.backend),
    };
    if same {
        return None;
    }
    let by = |revision: &Option<_>, backend: &Backend| match revision {
        Some(revision) => format!("{revision} ({})", scene::shown(backend)),
        None => scene::shown(backend),
    };
    let home = injecting.as_ref().and_then(|r| Some((r, scene.home(r)?)));
    let movable = judge.config.webhooks.len() == 1;
    let repair = home.filter(|(_, home)| movable && is_trusted(judge.webhook.ca, home)).map(|(revision, home)| {
        let mut operations = vec![scene::relabel(&judge.config.meta.labels, revision)];
        operations.extend(scene::repoint(judge.at, &home));
        let says = format!("{} follows the default injector to {revision}", judge.name());
        scene::patch(judge.id(), operations, says)
    });
    let to = injecting.as_ref().map_or_else(|| "REVISION".to_owned(), ToString::to_string);
    let value = by(&judge.serving, &judge.webhook.backend);
    let what = format!(
        "{} is served by {value}, the default injector {} by {}.",
        judge.name(),
        hook.config,
        by(&injecting, &hook.backend)
    );
    let flaw = Flaw::of(Level::Error, judge.id(), value).after(30).says(
        what,
        "Istio configuration is judged by one version and carried out by another.",
        tags::point(scene.cluster, "default", &to),
    );
    // A validator that nobody answers and that refuses nothing (VW004) only matters here if it can follow.
    (!judge.is_dead() || repair.is_some()).then(|| flaw.with(repair))
}

fn same_service(a: &Backend, b: &Backend) -> bool {
    match (a, b) {
        (Backend::Service { namespace: x, name: m, .. }, Backend::Service { namespace: y, name: n, .. }) => {
            x == y && m == n
        }
        _ => false,
    }
}
