//! # MW003 two-defaults
//!
//! ## What
//! The tag `default` is live, and so is the injector of the unnamed revision (`istio-sidecar-injector`): both answer for
//! `istio-injection=enabled`, `sidecar.istio.io/inject=true` and `istio.io/rev=default`. `istioctl tag set default` switches
//! the other one off; `istioctl tag generate`, `helm template` and a later `helm upgrade` of the unnamed control plane do not.
//!
//! ## Why
//! The API server calls both, and the sidecar of `istio-sidecar-injector`, which comes later in the alphabet, stays. Pods
//! land on the old control plane although the default has moved.
//!
//! ## What to do
//! `istioctl tag set default --revision REVISION --overwrite` switches the other one off again.
//!
//! ## Repair
//! The injector of the unnamed revision is switched off the way istioctl does it, by selectors that match nothing. Only if
//! the tag's control plane answers.
//!
//! ## When to allow
//! Never for long; every pod that starts meanwhile is injected twice.

use super::scene::{self, Scene, injector};
use crate::model::injector::DEFAULT_INJECTOR;
use crate::model::{InjectorConfig, Labels, Str};
use crate::rules::{Check, Flaw, Level, Policy, Rule};
use crate::snapshot::mesh::Answers;
use crate::snapshot::{Known, Snapshot};

pub static RULE: Rule = Rule {
    code: "MW003",
    name: "two-defaults",
    summary: "the default tag and the injector of the unnamed revision are both live",
    reads: &[],
    checks: &[Check::Audit(audit)],
    source: include_str!("mw003_two_defaults.rs"),
};

fn audit(cluster: &Snapshot, _: &Policy) -> Known<Vec<Flaw>> {
    let scene = Scene::of(cluster)?;
    let serving: Vec<Str> = ["default", DEFAULT_INJECTOR]
        .iter()
        .flat_map(|name| scene.injectors.serving(name, &Labels::default()))
        .filter(|h| !h.conditional)
        .map(|h| h.config.clone())
        .collect();
    let live: Vec<&InjectorConfig> = cluster.injector_configs().filter(|c| serving.contains(&c.meta.name)).collect();
    let Some(tag) = live.iter().find(|c| c.tag().is_some_and(|t| t.as_str() == "default")) else {
        return Ok(Vec::new());
    };
    let canonical = live.iter().filter(|c| c.is_canonical() && c.revision().is_some_and(|r| r.is_default()));
    canonical.map(|canonical| flaw(&scene, tag, canonical)).collect()
}

fn flaw(scene: &Scene<'_>, tag: &InjectorConfig, canonical: &InjectorConfig) -> Known<Flaw> {
    let (kept, lost) = (&tag.meta.name, canonical.meta.name.as_str());
    let revision = tag.revision().map_or_else(|| "REVISION".to_owned(), |r| r.to_string());
    let mut answers = true;
    for hook in tag.hooks.iter().filter(|h| h.istio) {
        answers &= matches!(scene.cluster.answers(&hook.backend)?, Answers::Ready(_) | Answers::Elsewhere);
    }
    // Whatever the tag does not answer to would be answered by nobody.
    let covers = [DEFAULT_INJECTOR, "default"].iter().all(|name| {
        let serving = scene.injectors.serving(name, &Labels::default());
        !serving.iter().any(|h| h.config == *lost) || serving.iter().any(|h| h.config == *kept)
    });
    let says = format!("{lost} is switched off, as istioctl does it; the tag default leads to {revision}");
    let repair = (answers && covers).then(|| scene::patch(injector(lost), scene::deactivate(canonical), says));
    let flaw = Flaw::of(Level::Critical, injector(lost), kept.as_str()).says(
        format!("{lost} and the tag default ({kept}, revision {revision}) both inject the pods of the default."),
        "the API server calls both, and the sidecar of the one that comes last in the alphabet stays: pods do not land where \
         the default leads.",
        format!("istioctl tag set default --revision {revision} --overwrite"),
    );
    Ok(flaw.with(repair))
}
