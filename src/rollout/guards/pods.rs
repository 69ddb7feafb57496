//! The pods that a gateway has now.

use std::collections::BTreeMap;

use super::selectors::acknowledged;
use super::{Found, Guard, Scene};
use crate::api::gateway_rollout::Flavor;
use crate::model::workload::PROXY;
use crate::rollout::read::json::Json;
use crate::rollout::seen::{Of, Severity};

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "NoReadyPod",
        summary: "no pod of the gateway is ready: there is nothing to compare new pods with, and nothing to go back to",
        worst: Severity::Block,
        acknowledge: false,
        check: none,
    },
    Guard {
        name: "MixedRevisions",
        summary: "the gateway's ready pods are of several revisions already, or of another one than the spec says",
        worst: Severity::Block,
        acknowledge: true,
        check: mixed,
    },
    Guard {
        name: "ImageAuto",
        summary: "a pod's proxy image is the word auto, because nothing injected it; or the template of an injected gateway names an image",
        worst: Severity::Block,
        acknowledge: false,
        check: image,
    },
];

fn none(scene: &Scene<'_>) -> Vec<Found> {
    let others = scene.seen.pods.iter().any(|p| matches!(p.of, Of::Canary | Of::Standby) && p.ready);
    if scene.source().is_none() || others || scene.ready().next().is_some() {
        return Vec::new();
    }
    let (name, namespace) = (scene.gateway(), scene.namespace());
    let trouble = scene.seen.pods.iter().find_map(|p| Some(format!(" (pod {}: {})", p.name, p.trouble.as_ref()?)));
    vec![Found::block(scene.named()).says(
        format!("no pod of {namespace}/{name} is ready{}.", trouble.unwrap_or_default()),
        "nothing tells which revision it is on or what it serves, and there would be nothing to go back to.",
        format!("kubectl get pods -n {namespace} -l {}\n(the rollout goes on by itself once one is)", selector(scene)),
    )]
}

fn selector(scene: &Scene<'_>) -> String {
    let pairs = scene.source().into_iter().flat_map(|s| s.selector.iter());
    pairs.map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
}

fn mixed(scene: &Scene<'_>) -> Vec<Found> {
    let mut by: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for pod in scene.ready() {
        by.entry(pod.revision.as_deref().unwrap_or("none")).or_default().push(&pod.name);
    }
    let (name, namespace) = (scene.gateway(), scene.namespace());
    let accept = acknowledged("MixedRevisions");
    if by.len() > 1 {
        let counted: Vec<String> = by.iter().map(|(revision, pods)| format!("{} of {revision}", pods.len())).collect();
        return vec![Found::block(scene.named()).says(
            format!("the ready pods of {namespace}/{name} are of several revisions: {}.", counted.join(", ")),
            "which of them is gone back to is not known, and an update may be under way.",
            format!(
                "kubectl rollout status deployment/{name} -n {namespace}\n(restart those that are left behind, or set spec.fromRevision in \
                 a new GatewayRollout with {accept})"
            ),
        )];
    }
    let said = scene.seen.rollout.spec.from_revision.as_deref();
    let (Some(said), Some((real, _))) = (said, by.first_key_value()) else { return Vec::new() };
    if *real == said || *real == scene.to() {
        return Vec::new();
    }
    vec![Found::block(scene.named()).says(
        format!("spec.fromRevision is {said}, and the ready pods of {namespace}/{name} are of {real}."),
        "the way back would lead to a control plane that the gateway does not come from.",
        scene.anew(&format!("fromRevision: {said}"), &format!("fromRevision: {real}")),
    )]
}

fn image(scene: &Scene<'_>) -> Vec<Found> {
    let namespace = scene.namespace();
    let raw = scene.seen.pods.iter().filter(|p| p.of == Of::Source && *p.shows.image == *"auto");
    let mut found: Vec<Found> = raw
        .map(|pod| {
            Found::block(scene.object("Pod", &pod.name)).says(
                format!("the image of pod {namespace}/{} is the word auto: nothing injected it.", pod.name),
                "its image cannot be pulled, and what is injected wrongly now would be so for new pods.",
                format!(
                    "kubectl get namespace {namespace} --show-labels\nkubectl delete pod {} -n {namespace}",
                    pod.name
                ),
            )
        })
        .collect();
    let Some(plan) = scene.plan.as_ref().filter(|p| p.flavor == Flavor::Injected) else { return found };
    let containers = plan.source.template.body["spec"].list("containers");
    let own = containers.iter().find(|c| c.text("name") == PROXY).map(|c| c.text("image")).filter(|i| *i != "auto");
    if let Some(image) = own.filter(|i| !i.is_empty()) {
        found.push(Found::warn(scene.named()).says(
            format!(
                "the template of {namespace}/{} names the image {image}, although its proxy is injected.",
                scene.gateway()
            ),
            "the new pods get their configuration from the new revision and run the proxy of the old one.",
            format!(
                "kubectl set image deployment/{} -n {namespace} {PROXY}=auto\n(this restarts its pods)",
                scene.gateway()
            ),
        ));
    }
    found
}
