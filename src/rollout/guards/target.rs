//! Whether a rollout can move this gateway at all.

use serde_json::Value;

use super::{Found, Guard, Scene};
use crate::api::gateway_rollout::{Flavor, Promotion, StrategyType};
use crate::model::key;
use crate::rollout::read::Listed;
use crate::rollout::read::json::Json;
use crate::rollout::read::workload::{self, chart};
use crate::rollout::seen::Severity;

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "UnsupportedTarget",
        summary: "the target is not there, is no gateway, or is one that cannot be moved step by step: of the Gateway API, on the \
                  host's network, paused, or with a selector of expressions",
        worst: Severity::Block,
        acknowledge: false,
        check: unsupported,
    },
    Guard {
        name: "DaemonSetGateway",
        summary: "the gateway is a DaemonSet: it runs once on every node, so that there are no shares to move",
        worst: Severity::Block,
        acknowledge: false,
        check: daemon_set,
    },
    Guard {
        name: "SameRevision",
        summary: "the gateway's pods are of the new revision already",
        worst: Severity::Block,
        acknowledge: false,
        check: same,
    },
];

/// Why Gateways of the Gateway API are left to their own label.
const GATEWAY_API: &str =
    "istiod renders the Deployment of a Gateway API Gateway, and would undo whatever is changed of it.";

fn daemon_set(scene: &Scene<'_>) -> Vec<Found> {
    let (name, namespace) = (scene.gateway(), scene.namespace());
    let Some(found) = scene.raw.get(Listed::DaemonSets, namespace, name).filter(|_| scene.source().is_none()) else {
        return Vec::new();
    };
    let object = scene.object("DaemonSet", name);
    vec![Found::block(object).says(
        format!("gateway {namespace}/{name} is a DaemonSet."),
        "a pod on every node cannot be moved in shares: a second DaemonSet would double all of them, and ports of the host collide.",
        format!("{}\n(or move it node by node by hand)", as_deployment(found, (namespace, name))),
    )]
}

/// Of Istio's own chart, in the version that is installed: without one, Helm takes the newest.
fn as_deployment(found: &Value, (namespace, name): (&str, &str)) -> String {
    let release = found.annotation(key::HELM_RELEASE).unwrap_or(name);
    let version = chart(found).1.map_or_else(String::new, |version| format!(" --version {version}"));
    format!(
        "helm upgrade {release} istio/gateway -n {namespace}{version} --reset-then-reuse-values --set kind=Deployment"
    )
}

fn unsupported(scene: &Scene<'_>) -> Vec<Found> {
    let spec = &scene.seen.rollout.spec;
    let (name, namespace) = (scene.gateway(), scene.namespace());
    if let Some(gateway) = &spec.target.gateway {
        let object = scene.object("Gateway", &gateway.name);
        return vec![Found::block(object).says(
            format!("{namespace}/{} is a Gateway of the Gateway API, which cannot be rolled out yet.", gateway.name),
            GATEWAY_API,
            by_label(scene, &gateway.name),
        )];
    }
    let Some(source) = scene.source() else {
        if scene.raw.get(Listed::DaemonSets, namespace, name).is_some() {
            return Vec::new();
        }
        return vec![Found::block(scene.named()).says(
            format!("there is no Deployment {namespace}/{name}."),
            "there is nothing to move.",
            format!("kubectl get deployments -n {namespace}\n(spec.target.deployment.name is fixed: create another GatewayRollout)"),
        )];
    };
    let mut found: Vec<Found> = flavor(scene).into_iter().collect();
    let deployment = scene.deployment();
    let pod = &source.template.body["spec"];
    if pod.yes("hostNetwork") {
        found.push(Found::block(scene.named()).says(
            format!("pods of {namespace}/{name} use the network of their node (hostNetwork)."),
            "two of them cannot listen on one node, nothing injects them, and no Service lets go of them one by one.",
            format!("kubectl patch deployment {name} -n {namespace} -p '{{\"spec\":{{\"template\":{{\"spec\":{{\"hostNetwork\":false}}}}}}}}'\n(this restarts its pods; what reaches them by their nodes' addresses has to go through a Service then)"),
        ));
    }
    if !deployment["spec"]["selector"].list("matchExpressions").is_empty() {
        found.push(Found::block(scene.named()).says(
            format!("the selector of {namespace}/{name} has matchExpressions."),
            "no second selector can be made of it that is surely narrower.",
            "a selector cannot be changed: create the gateway anew under another name, with matchLabels only",
        ));
    }
    if source.paused && !is_ours(scene) {
        found.push(Found::block(scene.named()).says(
            format!("Deployment {namespace}/{name} is paused."),
            "what is paused goes on starting old pods, whatever its template says.",
            format!("kubectl rollout resume deployment/{name} -n {namespace}"),
        ));
    }
    found
}

/// The rollout holds the lock: it is its own doing.
fn is_ours(scene: &Scene<'_>) -> bool {
    let holder = scene.source().and_then(|s| s.annotations.get(key::ACTIVE_ROLLOUT));
    holder.is_some_and(|uid| **uid == *scene.seen.rollout.held.uid)
}

fn by_label(scene: &Scene<'_>, gateway: &str) -> String {
    let (namespace, to) = (scene.namespace(), scene.to());
    format!(
        "kubectl label gateways.gateway.networking.k8s.io {gateway} -n {namespace} istio.io/rev={to} --overwrite\n\
         (its istiod updates it in place, one pod after the other; requests that take longer than the drain are cut)"
    )
}

fn flavor(scene: &Scene<'_>) -> Option<Found> {
    let source = scene.source()?;
    let (name, namespace) = (scene.gateway(), scene.namespace());
    let told = workload::flavor(&source.template.body);
    let said = scene.seen.rollout.spec.flavor;
    if said == Flavor::GatewayAPI || told == Some(Flavor::GatewayAPI) {
        let gateway = source.template.labels.get(key::GATEWAY_NAME).map_or(name, String::as_str);
        return Some(Found::block(scene.named()).says(
            format!("Deployment {namespace}/{name} belongs to Gateway {gateway} of the Gateway API."),
            GATEWAY_API,
            by_label(scene, gateway),
        ));
    }
    let Some(told) = told else {
        return Some(Found::block(scene.named()).says(
            format!(
                "Deployment {namespace}/{name} is no gateway of Istio: its proxy is neither injected with the template gateway nor does it \
                 mount a mesh configuration."
            ),
            "what is changed to move a gateway would mean nothing to it.",
            format!("kubectl get deployments -n {namespace} -l istio\n(spec.target is fixed: create another GatewayRollout)"),
        ));
    };
    (said != Flavor::Auto && said != told).then(|| {
        Found::block(scene.named()).says(
            format!("spec.flavor is {said:?}, and the template of {namespace}/{name} is {told:?}."),
            "the new pods would be made in a way that the old ones are not.",
            scene.respec("{\"flavor\":\"Auto\"}"),
        )
    })
}

fn same(scene: &Scene<'_>) -> Vec<Found> {
    let (name, namespace, to) = (scene.gateway(), scene.namespace(), scene.to());
    let mut ready = scene.ready().peekable();
    let has_begun = is_ours(scene) || ready.peek().is_none();
    if has_begun || !ready.all(|p| p.revision.as_deref() == Some(to)) {
        return Vec::new();
    }
    vec![Found::block(scene.named()).says(
        format!("the pods of {namespace}/{name} are of revision {to} already."),
        "there is nothing to move, and nothing to go back to.",
        format!("kubectl delete gatewayrollout {} -n {namespace}", scene.seen.rollout.name),
    )]
}

/// The original's template will be changed.
pub(super) fn changes_original(scene: &Scene<'_>) -> bool {
    let strategy = &scene.seen.rollout.spec.strategy;
    strategy.type_ == StrategyType::PausedRolling || strategy.promotion != Promotion::KeepRevisioned
}
