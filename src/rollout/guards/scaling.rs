//! Who else scales the gateway.

use super::{Found, Guard, Scene};
use crate::api::gateway_rollout::CapacityMode;
use crate::rollout::read::Listed;
use crate::rollout::read::around::{keeper, scales};
use crate::rollout::read::fresh::{labels, selector};
use crate::rollout::read::json::Json;
use crate::rollout::seen::Severity;

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "HPAAmbiguous",
        summary: "several autoscalers count the gateway's pods, so that none of them scales",
        worst: Severity::Block,
        acknowledge: false,
        check: ambiguous,
    },
    Guard {
        name: "ExternalAutoscaler",
        summary: "the autoscaler belongs to somebody (KEDA) who would undo what the rollout changes of it",
        worst: Severity::Block,
        acknowledge: false,
        check: external,
    },
];

fn ambiguous(scene: &Scene<'_>) -> Vec<Found> {
    let Some(source) = scene.source() else { return Vec::new() };
    let (name, namespace) = (scene.gateway(), scene.namespace());
    let pods = labels(&source.template.labels);
    // An autoscaler counts the pods that the selector of what it scales matches.
    let counts = |hpa: &&serde_json::Value| {
        let target = scales(hpa).and_then(|target| scene.raw.get(Listed::Deployments, namespace, target));
        target.is_some_and(|d| selector(&d["spec"]["selector"]).is_some_and(|s| !s.is_empty() && s.matches(&pods)))
    };
    let counting: Vec<&str> = scene.raw.within(Listed::Hpas, namespace).filter(counts).map(Json::name).collect();
    if counting.len() > 1 {
        let last = counting.last().copied().unwrap_or_default();
        return vec![Found::block(scene.named()).says(
            format!("{} autoscalers count the pods of {namespace}/{name}: {}.", counting.len(), counting.join(", ")),
            "Kubernetes stops all of them (AmbiguousSelector), or they scale against each other.",
            format!("kubectl delete horizontalpodautoscaler {last} -n {namespace}\n(keep the one that is meant)"),
        )];
    }
    let confused = |hpa: &&serde_json::Value| {
        hpa["status"].list("conditions").iter().any(|c| c.text("reason") == "AmbiguousSelector")
    };
    let ours = |hpa: &&serde_json::Value| scene.seen.hpas.iter().any(|h| *h.name == *hpa.name());
    scene
        .raw
        .within(Listed::Hpas, namespace)
        .filter(|h| ours(h) && confused(h))
        .map(|hpa| {
            Found::block(scene.object("HorizontalPodAutoscaler", hpa.name())).says(
                format!(
                    "autoscaler {namespace}/{} does not scale: its pods are counted by another one as well.",
                    hpa.name()
                ),
                "the number of pods that are needed is not known.",
                format!("kubectl describe horizontalpodautoscaler {} -n {namespace}", hpa.name()),
            )
        })
        .collect()
}

fn external(scene: &Scene<'_>) -> Vec<Found> {
    if scene.seen.rollout.spec.strategy.capacity.mode == CapacityMode::Manual {
        return Vec::new();
    }
    let namespace = scene.namespace();
    let owned = scene.seen.hpas.iter().filter(|h| h.owned);
    owned
        .map(|hpa| {
            let object = scene.raw.get(Listed::Hpas, namespace, &hpa.name);
            let keeper = object.and_then(keeper).unwrap_or_default();
            let pause = keeper.strip_prefix("ScaledObject ").map(|scaled| {
                format!(
                    "kubectl annotate scaledobject {scaled} -n {namespace} autoscaling.keda.sh/paused=true\n\
                     (KEDA then takes its autoscaler away; afterwards: autoscaling.keda.sh/paused-)\n"
                )
            });
            Found::block(scene.object("HorizontalPodAutoscaler", &hpa.name)).says(
                format!("autoscaler {namespace}/{} belongs to {keeper}.", hpa.name),
                "whoever owns it puts back what is changed of it, and it scales the old pods up again.",
                format!(
                    "{}{}\n(with capacity.mode Manual you scale both Deployments, and the rollout waits and verifies)",
                    pause.unwrap_or_default(),
                    scene.respec("{\"strategy\":{\"capacity\":{\"mode\":\"Manual\"}}}")
                ),
            )
        })
        .collect()
}
