//! # VW001 not-one-validator
//!
//! ## What
//! Not exactly one webhook judges Istio configuration that names no revision. Counted is what the API server would call:
//! webhooks of every ValidatingWebhookConfiguration whose name ends in `validation.istio.io`, whose rules name Istio's
//! groups and whose selectors take an object without the label `istio.io/rev`. One that istioctl has switched off
//! (`istio.io/deactivated`) does not count.
//!
//! * Two or more of different control planes, or one of them without a living istiod: error. Of the same control plane: info.
//! * None, although control planes bring validators of their own: warning.
//!
//! Nothing is said where validation is off (no control plane has a validator) or in remote clusters. VW006 speaks of what
//! versions before 1.12 left behind, MW008 of a default tag whose validator is missing.
//!
//! ## Why
//! Every one of them must accept a write. Two versions disagree about new fields, so that the older refuses what the newer
//! needs; one without an istiod refuses everything. With none, mistakes reach the proxies.
//!
//! ## What to do
//! Keep the one that belongs to the default revision (`istioctl tag set default --revision REVISION --overwrite` writes it)
//! and delete the others.
//!
//! ## When to allow
//! When a second control plane judges on purpose, in a cluster of two meshes.

use super::scene::{DEFAULT_VALIDATOR, Judge, Scene, validator};
use crate::model::key;
use crate::rules::names::newest;
use crate::rules::{Check, Flaw, Level, Policy, Rule, tags};
use crate::snapshot::{Known, Snapshot};

pub static RULE: Rule = Rule {
    code: "VW001",
    name: "not-one-validator",
    summary: "Istio configuration that names no revision is judged by none or by several validators",
    reads: &[],
    checks: &[Check::Audit(audit)],
    source: include_str!("vw001_not_one_validator.rs"),
};

fn audit(cluster: &Snapshot, _: &Policy) -> Known<Vec<Flaw>> {
    let scene = Scene::of(cluster)?;
    let all: Vec<&Judge<'_>> = scene.catch_alls().filter(|j| !scene.is_legacy(j)).collect();
    match all.len() {
        0 => Ok(none(&scene).into_iter().collect()),
        1 => Ok(Vec::new()),
        _ => Ok(several(&scene, &all)),
    }
}

fn none(scene: &Scene<'_>) -> Option<Flaw> {
    let default_tag = scene.cluster.injector_configs().any(|c| c.meta.labels.is(key::TAG, "default"));
    if scene.catch_alls().next().is_some() || !scene.validates() || scene.running.is_empty() || default_tag {
        return None;
    }
    let newest = newest(scene.cluster, &scene.running)?;
    Some(Flaw::of(Level::Warning, validator(DEFAULT_VALIDATOR), "none").says(
        "no validator judges Istio configuration that names no revision.",
        "mistakes in VirtualServices, Gateways and the like are only found by the proxies that they break.",
        tags::point(scene.cluster, "default", newest.as_str()),
    ))
}

fn several(scene: &Scene<'_>, all: &[&Judge<'_>]) -> Vec<Flaw> {
    let Some(keep) = kept(scene, all) else { return Vec::new() };
    let others = all.iter().filter(|j| j.name() != keep.name() || j.at != keep.at);
    others
        .map(|j| {
            let same = j.serving.is_some() && j.serving == keep.serving;
            let level = if same && !j.is_dead() { Level::Info } else { Level::Error };
            let of = j.serving.as_ref().map_or_else(|| j.backend(), |r| format!("control plane {r}"));
            let fix = if j.name() == keep.name() {
                let (name, at) = (j.name(), j.at);
                format!(
                    "kubectl patch validatingwebhookconfiguration {name} --type json \
                     -p '[{{\"op\":\"remove\",\"path\":\"/webhooks/{at}\"}}]'"
                )
            } else {
                format!("kubectl delete validatingwebhookconfiguration {}\n(keep {})", j.name(), keep.name())
            };
            Flaw::of(level, j.id(), j.webhook.name.as_str()).says(
                format!("{} of {of} judges whatever names no revision, beside {}.", j.name(), keep.name()),
                "every write of Istio configuration needs the consent of both: the older version refuses what only the \
                 newer knows, and one whose istiod is gone refuses everything.",
                fix,
            )
        })
        .collect()
}

/// The one that is meant to judge: of the default injector's revision, else the one that the charts call so.
fn kept<'a, 'b>(scene: &Scene<'_>, all: &[&'a Judge<'b>]) -> Option<&'a Judge<'b>> {
    let default = scene.default().and_then(|(_, revision)| revision);
    let of_default = |j: &&&Judge<'_>| default.is_some() && j.serving == default && !j.is_dead();
    let named = |j: &&&Judge<'_>| j.name() == DEFAULT_VALIDATOR;
    let found = all.iter().find(|j| of_default(j) && named(j)).or_else(|| all.iter().find(of_default));
    found.or_else(|| all.iter().find(named)).or_else(|| all.iter().find(|j| !j.is_dead())).or(all.first()).copied()
}
