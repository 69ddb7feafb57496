//! # MW001 double-injection
//!
//! ## What
//! Two configurations inject the same pods: their webhooks both take pods that ask for one name. Found by evaluating the
//! selectors on such pods, in the namespaces that there are; what istioctl has switched off takes none. MW003 speaks of the
//! default tag beside a canonical injector.
//!
//! ## Why
//! The API server calls both, in the order of their names, and the sidecar of the last one stays. Which control plane a pod
//! belongs to is decided by the alphabet, and each of them can keep it from starting.
//!
//! ## What to do
//! Keep one. A tag that has a revision's name gets another: set the other one, relabel who asks for this one, and only then
//! remove it. An installation that was made twice is uninstalled once.
//!
//! ## Repair
//! If nobody answers behind one of the two, no control plane of its revision runs, and the other one answers, the dead one
//! is switched off the way istioctl does it, by selectors that match nothing.
//!
//! ## When to allow
//! When one of the two is asked under conditions that selectors do not tell.

use super::scene::{self, Scene, injector};
use crate::model::injector::{Conflict, DEFAULT_INJECTOR};
use crate::model::{InjectorConfig, Str};
use crate::rules::names::{few, plain};
use crate::rules::{Check, Flaw, Level, Policy, Repair, Rule, tags};
use crate::snapshot::mesh::Answers;
use crate::snapshot::{Known, Snapshot};

pub static RULE: Rule = Rule {
    code: "MW001",
    name: "double-injection",
    summary: "two injectors answer for the same pods",
    reads: &[],
    checks: &[Check::Audit(audit)],
    source: include_str!("mw001_double_injection.rs"),
};

fn audit(cluster: &Snapshot, _: &Policy) -> Known<Vec<Flaw>> {
    let scene = Scene::of(cluster)?;
    // Who loses, against whom, over which names.
    let mut losers: Vec<(Str, Str, Vec<String>)> = Vec::new();
    for Conflict { name, configs } in cluster.injector_conflicts()? {
        let configs: Vec<&InjectorConfig> = configs.iter().filter_map(|c| config(cluster, c)).collect();
        let Some(winner) = winner(&scene, &configs)? else { continue };
        for loser in configs.iter().filter(|c| c.meta.name != winner.meta.name) {
            if is_second_default(loser, winner) || is_second_default(winner, loser) {
                continue;
            }
            let shown = if name == DEFAULT_INJECTOR { "istio-injection=enabled".into() } else { name.to_string() };
            match losers.iter_mut().find(|(l, w, _)| *l == loser.meta.name && *w == winner.meta.name) {
                Some((_, _, names)) if !names.contains(&shown) => names.push(shown),
                Some(_) => {}
                None => losers.push((loser.meta.name.clone(), winner.meta.name.clone(), vec![shown])),
            }
        }
    }
    losers.into_iter().map(|(loser, winner, names)| flaw(&scene, &loser, &winner, &names)).collect()
}

fn config<'a>(cluster: &'a Snapshot, name: &str) -> Option<&'a InjectorConfig> {
    cluster.injector_configs().find(|c| c.meta.name == name)
}

/// MW003's part.
fn is_second_default(canonical: &InjectorConfig, tag: &InjectorConfig) -> bool {
    canonical.is_canonical()
        && canonical.revision().is_some_and(|r| r.is_default())
        && tag.tag().is_some_and(|t| t.as_str() == plain(DEFAULT_INJECTOR))
}

/// Whom to keep: one that answers before one that does not, a revision's own injector before a tag, and of equals the last,
/// whose sidecar stays.
fn winner<'a>(scene: &Scene<'_>, configs: &[&'a InjectorConfig]) -> Known<Option<&'a InjectorConfig>> {
    let mut best: Option<((bool, bool), &'a InjectorConfig)> = None;
    for config in configs {
        let rank = (!is_dead(scene, config)?, config.is_canonical());
        if best.is_none_or(|(r, _)| rank >= r) {
            best = Some((rank, config));
        }
    }
    Ok(best.map(|(_, config)| config))
}

/// Nobody answers behind any of its webhooks.
fn is_dead(scene: &Scene<'_>, config: &InjectorConfig) -> Known<bool> {
    for hook in config.hooks.iter().filter(|h| h.istio && !h.is_deactivated()) {
        if !scene::is_dead(scene.cluster.answers(&hook.backend)?) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn flaw(scene: &Scene<'_>, loser: &str, winner: &str, names: &[String]) -> Known<Flaw> {
    let shown: Vec<&str> = names.iter().map(String::as_str).collect();
    let tag = config(scene.cluster, loser).and_then(InjectorConfig::tag);
    let fix = match &tag {
        Some(tag) => {
            let target = config(scene.cluster, loser).and_then(InjectorConfig::revision);
            let target = target.map_or_else(|| "REVISION".to_owned(), |r| r.to_string());
            tags::rename(scene.cluster, tag.as_str(), &target)
        }
        None => {
            format!("kubectl delete mutatingwebhookconfiguration {loser}\n(keep {winner}; or uninstall one of the two)")
        }
    };
    let flaw = Flaw::of(Level::Critical, injector(loser), shown.join(",")).says(
        format!("{loser} and {winner} both inject pods that ask for {}.", few(&shown)),
        "the API server calls both, and the sidecar of the one that comes last in the alphabet stays; each of them can keep \
         the pod from starting.",
        fix,
    );
    Ok(flaw.with(repair(scene, loser, winner)?))
}

fn repair(scene: &Scene<'_>, loser: &str, winner: &str) -> Known<Option<Repair>> {
    let (Some(lost), Some(kept)) = (config(scene.cluster, loser), config(scene.cluster, winner)) else {
        return Ok(None);
    };
    let runs = lost.revision().is_some_and(|r| scene.is_running(&r));
    let mut answers = true;
    for hook in kept.hooks.iter().filter(|h| h.istio && !h.is_deactivated()) {
        answers &= matches!(scene.cluster.answers(&hook.backend)?, Answers::Ready(_));
    }
    // It must not serve anything that would then be served by nobody.
    let without = scene.cluster.without(&injector(loser));
    let covered = match without.injectors() {
        Ok(left) => scene.injectors.names().all().all(|name| {
            let before = scene.injectors.serving(name, &Default::default());
            !before.iter().any(|h| h.config == *loser) || left.serves(name)
        }),
        Err(_) => false,
    };
    let certain = is_dead(scene, lost)? && !runs && answers && covered;
    let says = format!("{loser} is switched off; {winner} answers for the same pods");
    Ok(certain.then(|| scene::patch(injector(loser), scene::deactivate(lost), says)))
}
