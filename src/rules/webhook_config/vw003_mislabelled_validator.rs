//! # VW003 mislabelled-validator
//!
//! ## What
//! The label `istio.io/rev` of a validator's configuration is not the revision of the istiods behind its Service. The base
//! chart does this when its `defaultRevision` stays `default` and the Service is a revision's.
//!
//! ## Why
//! An istiod takes care of the configurations that carry its own revision and of no other: nobody renews the CA bundle of
//! this one, and nobody sets it from `Ignore`, as it is created, to `Fail`. Validation stays off, or breaks with the next CA.
//!
//! ## What to do
//! `kubectl label validatingwebhookconfiguration NAME istio.io/rev=REVISION --overwrite`, and set `defaultRevision` in the
//! values of the base chart, which would put the old label back.
//!
//! ## Repair
//! The label is set, unless VW005 leads the whole validator elsewhere or its selector names another revision than its
//! Service.
//!
//! ## When to allow
//! When something else than istiod keeps the configuration (`validationCABundle` of the chart).

use super::scene::{self, Judge, Scene, is_galley, is_unversioned};
use crate::model::{RevisionName, key};
use crate::rules::{Check, Flaw, Level, Policy, Rule};
use crate::snapshot::{Known, Snapshot};

pub static RULE: Rule = Rule {
    code: "VW003",
    name: "mislabelled-validator",
    summary: "the label of a validator is not the revision that serves it, so that no istiod takes care of it",
    reads: &[],
    checks: &[Check::Audit(audit)],
    source: include_str!("vw003_mislabelled_validator.rs"),
};

fn audit(cluster: &Snapshot, _: &Policy) -> Known<Vec<Flaw>> {
    let scene = Scene::of(cluster)?;
    let mut flaws: Vec<Flaw> = Vec::new();
    for j in &scene.validators {
        let Some(serving) = wrong(&scene, j) else { continue };
        let flaw = flaw(&scene, j, serving);
        // One label, one flaw, however many webhooks.
        if !flaws.iter().any(|f| f.object == flaw.object) {
            flaws.push(flaw);
        }
    }
    Ok(flaws)
}

/// The revision that the label should name. VW002 speaks of what nobody serves.
pub fn wrong<'a>(scene: &Scene<'_>, j: &'a Judge<'_>) -> Option<&'a RevisionName> {
    let serving = j.serving.as_ref().filter(|_| !j.is_dead())?;
    // These were found by their name, whatever their label.
    let by_name = is_galley(j.name()) || is_unversioned(j.name());
    let own = j.config.revision();
    (own.as_ref() != Some(serving) && !by_name && scene.is_running(serving)).then_some(serving)
}

fn flaw(scene: &Scene<'_>, j: &Judge<'_>, serving: &RevisionName) -> Flaw {
    let label = j.config.meta.labels.value(key::REV);
    let says = match label {
        Some(label) => format!("is labelled {}={label}", key::REV),
        None => format!("has no label {}", key::REV),
    };
    let named: Vec<&str> = j.webhook.object_selector.accepted(key::REV).map(|r| r.as_str()).collect();
    let clear = named.is_empty() || named.contains(&serving.as_str());
    // Together with the default injector's revision the Service changes as well.
    let moves = j.webhook.is_catch_all()
        && scene.default().is_some_and(|(_, revision)| revision.is_some_and(|r| r != *serving));
    let repair = (clear && !moves && j.config.webhooks.len() == 1).then(|| {
        let operations = vec![scene::relabel(&j.config.meta.labels, serving)];
        scene::patch(j.id(), operations, format!("{} is now labelled {}={serving}", j.name(), key::REV))
    });
    Flaw::of(Level::Error, j.id(), label.unwrap_or("").to_owned())
        .says(
            format!("{} {says}, but {} belongs to {serving}.", j.name(), j.backend()),
            "no istiod takes it for its own: its CA bundle is not renewed, and validation stays as it is, on or off.",
            format!("kubectl label validatingwebhookconfiguration {} {}={serving} --overwrite", j.name(), key::REV),
        )
        .with(repair)
}
