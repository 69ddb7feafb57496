//! # MW002 dangling-injector
//!
//! ## What
//! An injector or a tag is live, and its Service does not exist or has no ready endpoint; or its label names a revision of
//! which there is nothing. Critical with `failurePolicy: Fail`, else an error. A tag that `istioctl uninstall` or
//! `helm uninstall` leaves behind is the usual case. Backends outside of the cluster are never missing; what istioctl has
//! switched off is never called.
//!
//! ## Why
//! The API server cannot ask, and with `Fail` no pod starts in the namespaces that ask for it: the next restart, scaling or
//! lost node takes them down. With `Ignore` pods start without a sidecar.
//!
//! ## What to do
//! Point a tag to a revision that runs: `istioctl tag set TAG --revision REVISION --overwrite`. Remove one that nobody asks
//! for: `istioctl tag remove TAG`. What a removed revision left is deleted.
//!
//! ## Repair
//! A tag is pointed to the revision of its own Service, or to the only control plane that answers. A tag or an injector of a
//! revision of which nothing is left is removed if nobody asks for it. Otherwise nothing is certain.
//!
//! ## When to allow
//! While a control plane is away on purpose, and no pod is to start meanwhile.

use super::scene::{self, Home, Scene, injector};
use crate::model::{FailurePolicy, Hook, InjectorConfig, Kind, Object, RevisionName, key};
use crate::rules::names::newest;
use crate::rules::{Change, Check, Flaw, Level, Policy, Repair, Rule, tags};
use crate::snapshot::mesh::Answers;
use crate::snapshot::{Known, Snapshot};

pub static RULE: Rule = Rule {
    code: "MW002",
    name: "dangling-injector",
    summary: "an injector or a tag is asked for pods and nobody answers behind it",
    reads: &[],
    checks: &[Check::Audit(audit)],
    source: include_str!("mw002_dangling_injector.rs"),
};

fn audit(cluster: &Snapshot, _: &Policy) -> Known<Vec<Flaw>> {
    let scene = Scene::of(cluster)?;
    let live = scene.injectors.live();
    let mut flaws = Vec::new();
    for config in cluster.injector_configs().filter(|c| live.contains(&c.meta.name)) {
        let mut dead: Option<(&Hook, Answers)> = None;
        for hook in config.hooks.iter().filter(|h| h.istio && !h.is_deactivated()) {
            let answers = cluster.answers(&hook.backend)?;
            if scene::is_dead(answers) && dead.is_none() {
                dead = Some((hook, answers));
            }
        }
        match dead {
            Some((hook, answers)) => flaws.push(dangling(&scene, config, hook, answers)?),
            None => flaws.extend(unknown(&scene, config)?),
        }
    }
    Ok(flaws)
}

fn dangling(scene: &Scene<'_>, config: &InjectorConfig, hook: &Hook, answers: Answers) -> Known<Flaw> {
    let name = config.meta.name.as_str();
    let fail = hook.failure_policy == FailurePolicy::Fail;
    let (level, why) = if fail {
        (Level::Critical, "no pod that asks for it starts: the API server cannot ask, and must not go on.")
    } else {
        (Level::Error, "pods that ask for it start without a sidecar, outside of mTLS.")
    };
    let asking = asking(scene.cluster, config);
    let target = target(scene, config)?;
    let own = config.revision().filter(|r| scene.is_running(r));
    let fix = match (config.tag(), &target, own) {
        (Some(tag), Some((revision, _)), _) => tags::point(scene.cluster, tag.as_str(), revision.as_str()),
        (_, None, Some(own)) => {
            format!(
                "kubectl get pods -A -l app=istiod,istio.io/rev={own}\n(its istiod is installed and does not answer)"
            )
        }
        (Some(tag), None, None) if asking == Some(0) => tags::remove(scene.cluster, tag.as_str()),
        (Some(tag), None, None) => match newest(scene.cluster, &scene.running) {
            Some(newest) => tags::point(scene.cluster, tag.as_str(), newest.as_str()),
            None => {
                let remove = tags::remove(scene.cluster, tag.as_str());
                format!("{remove}\n(no control plane runs; its users would start without a sidecar)")
            }
        },
        (None, _, _) => {
            format!("kubectl delete mutatingwebhookconfiguration {name}\n(after moving whoever asks for it)")
        }
    };
    let users = match asking {
        Some(0) => "; nobody asks for it".to_owned(),
        Some(1) => "; 1 namespace or workload asks for it".to_owned(),
        Some(n) => format!("; {n} namespaces and workloads ask for it"),
        None => String::new(),
    };
    let (backend, matter) = (scene::shown(&hook.backend), scene::trouble(answers));
    let flaw = Flaw::of(level, injector(name), backend.clone()).after(20).says(
        format!("{name} is asked for pods, but {backend} {matter}{users}."),
        why,
        fix,
    );
    let repair = match target {
        Some((revision, home)) => {
            let says = format!("{name} now leads to {revision} (service {}/{})", home.namespace, home.name);
            Some(scene::patch(injector(name), scene::retarget(config, &revision, &home), says))
        }
        None => removal(scene, config, asking, answers)?,
    };
    Ok(flaw.with(repair))
}

/// How many ask for what this configuration alone answers to; `None` if that cannot be told.
fn asking(cluster: &Snapshot, config: &InjectorConfig) -> Option<usize> {
    let names = match (config.tag(), config.revision()) {
        (Some(tag), _) => vec![tag.to_string()],
        (None, revision) => vec![revision?.to_string()],
    };
    let usages: Vec<_> = names.iter().map(|n| cluster.asking_for(n)).collect();
    if usages.iter().any(|u| !u.unknown.is_empty()) {
        return None;
    }
    Some(usages.iter().map(|u| u.uses.len() + u.idle.len()).sum())
}

/// Where a tag is to lead, if that is certain: where its Service leads, else the only control plane that answers.
fn target(scene: &Scene<'_>, config: &InjectorConfig) -> Known<Option<(RevisionName, Home)>> {
    let Some(tag) = config.tag().filter(|t| !scene.is_taken(t.as_str())) else { return Ok(None) };
    // Its own istiod may only be starting again.
    if config.revision().is_some_and(|r| scene.is_running(&r) && scene.running.len() > 1) {
        return Ok(None);
    }
    let service = scene.cluster.raw(Kind::Service).map(Object::meta).find(|m| m.labels.is(key::TAG, tag.as_str()));
    let named = service.and_then(|m| m.labels.value(key::REV)).map(RevisionName::new);
    if let Some(revision) = named.filter(|r| Some(r) != config.revision().as_ref())
        && let Some(home) = scene.home(&revision)
    {
        return Ok(Some((revision, home)));
    }
    Ok(scene.only_home().filter(|_| asking(scene.cluster, config) != Some(0)))
}

/// Nothing is left of its revision, and nobody asks for it.
fn removal(
    scene: &Scene<'_>,
    config: &InjectorConfig,
    asking: Option<usize>,
    answers: Answers,
) -> Known<Option<Repair>> {
    let Some(revision) = config.revision() else { return Ok(None) };
    let gone =
        answers == Answers::Missing && !scene.is_running(&revision) && scene::is_forgotten(scene.cluster, &revision);
    if asking != Some(0) || !gone || config.hooks.iter().any(|h| !h.istio) {
        return Ok(None);
    }
    // What leads to the injector of a revision, or is the other half of a tag, is not to be left hanging in the air.
    let held = match config.tag() {
        Some(tag) => {
            let mut halves = scene.cluster.raw(Kind::Service).map(Object::meta);
            // With the default tag gone, the unnamed revision would be the default, or be missed (MW006).
            let replaced = tag.as_str() == "default" && scene.cluster.injector_configs().any(is_unnamed);
            let own = |m: &crate::model::Meta| m.labels.is(key::REV, revision.as_str()) && m.helm_release().is_none();
            replaced || scene.is_taken(tag.as_str()) || halves.any(|m| m.labels.is(key::TAG, tag.as_str()) && !own(m))
        }
        None => !scene.cluster.tags_of(&revision).is_empty() || scene.cluster.is_tag(revision.as_str()),
    };
    if held {
        return Ok(None);
    }
    let says = format!("{} is removed: nothing is left of {revision}, and nobody asks for it", config.meta.name);
    Ok(Some(Repair { object: injector(&config.meta.name), change: Change::Delete, says }))
}

fn is_unnamed(config: &InjectorConfig) -> bool {
    config.is_canonical() && config.revision().is_some_and(|r| r.is_default())
}

/// The label names a revision that nothing else speaks of, and somebody else answers.
fn unknown(scene: &Scene<'_>, config: &InjectorConfig) -> Known<Option<Flaw>> {
    let Some(named) = config.revision() else { return Ok(None) };
    let mut serving =
        config.hooks.iter().filter(|h| h.istio).filter_map(|h| scene.cluster.serving_revision(&h.backend));
    let Some(behind) = serving.next().filter(|r| *r != named && scene.is_running(r)) else { return Ok(None) };
    if serving.any(|r| r != behind) || scene.is_running(&named) || !scene::is_forgotten(scene.cluster, &named) {
        return Ok(None);
    }
    let name = config.meta.name.as_str();
    let says = format!("{name} is now labelled {}={behind}", key::REV);
    // The canonical injector of a revision is another matter: its selectors name the revision, too.
    let repair =
        config.tag().map(|_| scene::patch(injector(name), vec![scene::relabel(&config.meta.labels, &behind)], says));
    let flaw = Flaw::of(Level::Error, injector(name), named.as_str()).says(
        format!("{name} is labelled {}={named}, which runs nowhere; {behind} answers.", key::REV),
        "no istiod takes it for its own, so that its CA bundle is not renewed: with the next CA no pod that asks for it starts.",
        format!("kubectl label mutatingwebhookconfiguration {name} {}={behind} --overwrite", key::REV),
    );
    Ok(Some(flaw.with(repair)))
}
