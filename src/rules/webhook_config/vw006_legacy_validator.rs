//! # VW006 legacy-validator
//!
//! ## What
//! A validator of an Istio before 1.12 is left beside modern ones, and no control plane of its version lives any more:
//! `istio-galley` (up to 1.4), `istiod-NAMESPACE` (1.5 to 1.10), or the webhook `validation.istio.io` inside an
//! `istio-validator-…` (1.11).
//!
//! ## Why
//! It judges every write of Istio configuration together with the modern one. Once its Service is gone, it refuses them all;
//! the bases of old charts were not removed together with their control plane, so that this comes years later.
//!
//! ## What to do
//! Delete it: `kubectl delete validatingwebhookconfiguration NAME`.
//!
//! ## Repair
//! It is removed if the version of every control plane is known and newer, and if a validator that answers stays to judge
//! what names no revision (or this one could not be asked anyway). A copy is kept.
//!
//! ## When to allow
//! When a control plane of that version is to come back.

use super::scene::{self, Judge, Scene, is_galley, is_unversioned};
use crate::model::Version;
use crate::rules::{Change, Check, Flaw, Level, Patch, Policy, Repair, Rule};
use crate::snapshot::mesh::Answers;
use crate::snapshot::{Known, Snapshot};

pub static RULE: Rule = Rule {
    code: "VW006",
    name: "legacy-validator",
    summary: "a validator of an Istio before 1.12 is left beside modern ones",
    reads: &[],
    checks: &[Check::Audit(audit)],
    source: include_str!("vw006_legacy_validator.rs"),
};

fn audit(cluster: &Snapshot, _: &Policy) -> Known<Vec<Flaw>> {
    let scene = Scene::of(cluster)?;
    let is_modern = |j: &&Judge<'_>| !scene.is_legacy(j);
    if !scene.validators.iter().any(|j| is_modern(&j)) {
        return Ok(Vec::new());
    }
    let legacy = scene.validators.iter().filter(|j| scene.is_legacy(j));
    Ok(legacy.filter_map(|j| flaw(&scene, j)).collect())
}

/// The first version that no longer has it.
fn gone_since(j: &Judge<'_>) -> Version {
    if is_galley(j.name()) {
        Version::new(1, 5)
    } else if is_unversioned(j.name()) {
        Version::new(1, 11)
    } else {
        Version::new(1, 12)
    }
}

fn flaw(scene: &Scene<'_>, j: &Judge<'_>) -> Option<Flaw> {
    let since = gone_since(j);
    let versions: Vec<Option<Version>> = scene.running.iter().map(|r| scene.cluster.version_of(r)).collect();
    // Somebody may still need it.
    if versions.iter().flatten().any(|v| *v < since) || versions.is_empty() {
        return None;
    }
    let part = !is_galley(j.name()) && !is_unversioned(j.name());
    let alone = j.config.webhooks.len() == 1;
    let fix = if part && !alone {
        format!(
            "kubectl patch validatingwebhookconfiguration {} --type json -p '[{{\"op\":\"remove\",\"path\":\"/webhooks/{}\"}}]'",
            j.name(),
            j.at
        )
    } else {
        format!("kubectl delete validatingwebhookconfiguration {}", j.name())
    };
    let (what, all) = (
        format!("{} is left over from an Istio before {since}; no control plane of that age runs.", j.name()),
        versions.iter().all(Option::is_some),
    );
    let flaw = Flaw::of(Level::Error, j.id(), j.webhook.name.as_str()).says(
        what,
        "it judges every write of Istio configuration together with the modern validator, and refuses them all once its \
         Service is gone.",
        fix,
    );
    Some(flaw.with(repair(scene, j, alone).filter(|_| all)))
}

fn repair(scene: &Scene<'_>, j: &Judge<'_>, alone: bool) -> Option<Repair> {
    let stays =
        scene.catch_alls().any(|o| !scene.is_legacy(o) && matches!(o.answers, Answers::Ready(_) | Answers::Elsewhere));
    if !stays && !j.is_dead() {
        return None;
    }
    let says = format!("{} of {} is removed; it was left over", j.webhook.name, j.name());
    if alone {
        return Some(Repair { object: j.id(), change: Change::Delete, says });
    }
    // Positions change with a removal: one at a time, the last first.
    let own = scene.validators.iter().filter(|o| o.name() == j.name() && scene.is_legacy(o));
    if own.map(|o| o.at).max() != Some(j.at) {
        return None;
    }
    Some(scene::patch(j.id(), vec![Patch::Remove { path: format!("/webhooks/{}", j.at) }], says))
}
