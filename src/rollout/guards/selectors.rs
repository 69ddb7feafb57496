//! Selectors: of the gateway's Deployment, of others beside it, and of its Services.

use super::target::changes_original;
use super::{Found, Guard, Scene};
use crate::model::key;
use crate::model::text::pointed;
use crate::rollout::read::Listed;
use crate::rollout::read::fresh::{labels, selector};
use crate::rollout::read::json::Json;
use crate::rollout::seen::{Map, Severity};

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "SelectorImmutable",
        summary: "the gateway's Deployment selects its pods by a revision, so that it can never have pods of another one",
        worst: Severity::Block,
        acknowledge: false,
        check: immutable,
    },
    Guard {
        name: "SelectorNotDisjoint",
        summary: "another workload's selector matches the new pods",
        worst: Severity::Block,
        acknowledge: true,
        check: disjoint,
    },
    Guard {
        name: "ServiceSelectorMiss",
        summary: "a Service that selects the old pods would not select the new ones, or one that the spec names selects neither",
        worst: Severity::Block,
        acknowledge: false,
        check: miss,
    },
    Guard {
        name: "DryRunRefused",
        summary: "the API server, or somebody's admission webhook, would refuse an object of the rollout",
        worst: Severity::Block,
        acknowledge: false,
        check: refused,
    },
];

fn immutable(scene: &Scene<'_>) -> Vec<Found> {
    let (name, namespace) = (scene.gateway(), scene.namespace());
    let Some(source) = scene.source() else { return Vec::new() };
    let new = scene.new.labels();
    // The label that an earlier rollout gave its Deployment stays with that one.
    let differs = |(k, v): &(&String, &String)| *k != key::INSTANCE && new.get(*k).is_some_and(|n| n != *v);
    let mut pinned = source.selector.iter().filter(differs);
    let Some((key, value)) = pinned.next().filter(|_| changes_original(scene)) else { return Vec::new() };
    vec![Found::block(scene.named()).says(
        format!("the selector of Deployment {namespace}/{name} has {key}={value}."),
        "a selector cannot be changed, so that this Deployment can never have pods of another revision.",
        format!(
            "{}\n(the second Deployment then stays the gateway)",
            scene.respec("{\"strategy\":{\"type\":\"ParallelDeployment\",\"promotion\":\"KeepRevisioned\"}}")
        ),
    )]
}

fn disjoint(scene: &Scene<'_>) -> Vec<Found> {
    let Some(plan) = &scene.plan else { return Vec::new() };
    let new = labels(&scene.new.labels());
    let own = [&source_name(scene), &plan.names.canary.to_string()].map(String::clone);
    let uid = &*scene.seen.rollout.held.uid;
    let mut found = Vec::new();
    for listed in [Listed::Deployments, Listed::DaemonSets] {
        for object in scene.raw.within(listed, scene.namespace()) {
            let (kind, name) = (listed.row().kind, object.name());
            let is_own = listed == Listed::Deployments && own.iter().any(|o| o == name);
            let matches = || selector(&object["spec"]["selector"]).is_some_and(|s| !s.is_empty() && s.matches(&new));
            if is_own || object.label(key::ROLLOUT) == Some(uid) || !matches() {
                continue;
            }
            // Without pods of its own it counts nothing, as long as nobody scales it up: what an earlier rollout left as standby.
            let sleeps = listed == Listed::Deployments && object["spec"]["replicas"] == 0;
            let named = scene.object(kind, name);
            let words = if sleeps { Found::warn(named) } else { Found::block(named) };
            found.push(words.says(
                format!("the selector of {kind} {}/{name} matches the pods of {}.", scene.namespace(), plan.names.canary),
                "autoscalers, disruption budgets and kubectl tell pods by labels alone and would count them for both.",
                format!(
                    "a selector cannot be changed: create {kind} {name} anew with a label of its own in selector and template\n\
                     (or accept it: {})",
                    acknowledged("SelectorNotDisjoint")
                ),
            ));
        }
    }
    found
}

fn source_name(scene: &Scene<'_>) -> String {
    scene.gateway().to_owned()
}

/// How a finding is accepted.
pub(super) fn acknowledged(guard: &str) -> String {
    format!("spec.acknowledge: [{guard}]")
}

fn miss(scene: &Scene<'_>) -> Vec<Found> {
    let Some(source) = scene.source().filter(|_| scene.plan.is_some()) else { return Vec::new() };
    let new = scene.new.labels();
    let mut found = Vec::new();
    for service in &scene.seen.services {
        let (name, namespace) = (&service.name, scene.namespace());
        let object = scene.object("Service", name);
        let unmatched = |own: &Map| -> Vec<String> {
            let differs = service.selector.iter().filter(|(k, v)| own.get(*k) != Some(*v));
            differs.map(|(k, v)| format!("{k}={v}")).collect()
        };
        let old = unmatched(&source.template.labels);
        if service.selector.is_empty() || !old.is_empty() {
            found.push(Found::block(object).says(
                format!("Service {namespace}/{name} does not select the pods of {}.", scene.gateway()),
                "they get nothing from it, so that nothing can be verified by it.",
                format!("name other Services in spec.services, or none: {}", scene.respec("{\"services\":[]}")),
            ));
            continue;
        }
        let missed = unmatched(&new);
        if let Some(first) = missed.first() {
            let key = first.split_once('=').map_or(first.as_str(), |(key, _)| key);
            let path = pointed(key);
            found.push(Found::block(object).says(
                format!("Service {namespace}/{name} selects {}, which pods of revision {} do not have.", missed.join(","), scene.to()),
                "the new pods would get no traffic.",
                format!(
                    "kubectl patch service {name} -n {namespace} --type json -p '[{{\"op\":\"remove\",\"path\":\"/spec/selector/{path}\"}}]'\n\
                     (what else it selects stays; look first that no other pods match it then)"
                ),
            ));
        }
    }
    for name in scene.seen.rollout.spec.services.iter().filter(|n| !scene.seen.services.iter().any(|s| *s.name == ***n))
    {
        found.push(Found::block(scene.object("Service", name)).says(
            format!("Service {}/{name}, which spec.services names, is not there.", scene.namespace()),
            "nothing can be verified by it.",
            scene.respec("{\"services\":[]}"),
        ));
    }
    found
}

fn refused(scene: &Scene<'_>) -> Vec<Found> {
    let runs = scene.seen.dry_runs.iter().flatten();
    let refused = runs.filter_map(|run| Some((&run.object, run.refused.as_ref()?)));
    refused
        .map(|(object, why)| {
            let (kind, name) = object.split_once('/').unwrap_or(("", object));
            Found::block(scene.object(kind, name)).says(
                format!("{object} would be refused: {why}."),
                "the API server answered so to a dry-run of exactly what the rollout would write.",
                "what it says names the field or the webhook; the rollout goes on by itself once it is accepted",
            )
        })
        .collect()
}
