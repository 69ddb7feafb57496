//! Services in front of a gateway.

use super::drain::is_set_apart;
use super::selectors::acknowledged;
use super::{Found, Guard, Scene};
use crate::api::gateway_rollout::ProbeMode;
use crate::model::workload::{Hooks, PROXY};
use crate::rollout::read::Listed;
use crate::rollout::read::around::container_port;
use crate::rollout::read::json::Json;
use crate::rollout::seen::{Service, Severity};

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "NoService",
        summary: "no Service selects the gateway's pods: there is nothing behind which it could move",
        worst: Severity::Block,
        acknowledge: false,
        check: none,
    },
    Guard {
        name: "MultipleServices",
        summary: "several Services select the gateway's pods; all of them are watched",
        worst: Severity::Warn,
        acknowledge: false,
        check: several,
    },
    Guard {
        name: "TargetPortMissing",
        summary: "a Service's named target port is no port of the new pods' containers",
        worst: Severity::Block,
        acknowledge: true,
        check: port,
    },
    Guard {
        name: "PublishNotReady",
        summary: "a Service sends to pods that are not ready (publishNotReadyAddresses), so also to a dark probe",
        worst: Severity::Block,
        acknowledge: false,
        check: not_ready,
    },
    Guard {
        name: "LocalTrafficPolicy",
        summary: "a Service sends only to pods on the node that was reached (externalTrafficPolicy: Local)",
        worst: Severity::Block,
        acknowledge: true,
        check: local,
    },
    Guard {
        name: "SessionAffinity",
        summary: "a Service keeps clients with the pod that they had: shares of endpoints are not shares of traffic",
        worst: Severity::Warn,
        acknowledge: false,
        check: affinity,
    },
];

/// Services that select the gateway's pods, with the objects as they were read.
fn serving<'a>(scene: &'a Scene<'_>) -> impl Iterator<Item = (&'a Service, &'a serde_json::Value)> {
    scene.seen.services.iter().filter(|s| !s.selector.is_empty()).filter_map(|s| {
        let object = scene.raw.get(Listed::Services, scene.namespace(), &s.name)?;
        Some((s, object))
    })
}

fn none(scene: &Scene<'_>) -> Vec<Found> {
    let Some(source) = scene.source().filter(|_| serving(scene).next().is_none()) else { return Vec::new() };
    let (name, namespace) = (scene.gateway(), scene.namespace());
    vec![Found::block(scene.named()).says(
        format!("no Service in namespace {namespace} selects the pods of {name}."),
        "which pods get traffic is decided by nothing that could be seen, so that no step could be verified.",
        format!(
            "kubectl expose deployment {name} -n {namespace} --port=80 --target-port=80 --selector={}\n(with the ports that it really serves)",
            labels_of(&source.selector)
        ),
    )]
}

fn labels_of(map: &crate::rollout::seen::Map) -> String {
    map.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
}

fn several(scene: &Scene<'_>) -> Vec<Found> {
    let names: Vec<&str> = serving(scene).map(|(s, _)| &*s.name).collect();
    if names.len() < 2 {
        return Vec::new();
    }
    vec![Found::warn(scene.named()).says(
        format!("{} Services select the pods of {}: {}.", names.len(), scene.gateway(), names.join(", ")),
        "a pod counts only where every one of them has it among its endpoints.",
        "nothing is to be done",
    )]
}

fn port(scene: &Scene<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for (service, object) in serving(scene).filter(|_| scene.plan.is_some()) {
        let named =
            object["spec"].list("ports").iter().filter_map(|p| Some((p.text("name"), p["targetPort"].as_str()?)));
        for (port, target) in named.filter(|(_, target)| target.parse::<u16>().is_err()) {
            if container_port(&scene.new, target).is_some() || is_injected_port(scene, target) {
                continue;
            }
            let (name, namespace) = (&service.name, scene.namespace());
            found.push(Found::block(scene.object("Service", name)).says(
                format!("port {port} of Service {namespace}/{name} leads to the port named {target:?}, which no container has."),
                "the Service sends nothing there, to old pods as to new ones.",
                format!(
                    "kubectl edit service {name} -n {namespace}\n(give the port a number as targetPort; or accept it: {})",
                    acknowledged("TargetPortMissing")
                ),
            ));
        }
    }
    found
}

/// Pods have a port that their template has not: it comes with the proxy.
fn is_injected_port(scene: &Scene<'_>, name: &str) -> bool {
    let pods = scene.ready().filter_map(|pod| scene.raw.get(Listed::Pods, scene.namespace(), &pod.name));
    { pods }.any(|pod| container_port(pod, name).is_some())
}

fn not_ready(scene: &Scene<'_>) -> Vec<Found> {
    let dark = scene.seen.rollout.spec.probe.mode == ProbeMode::DarkPod;
    let open = serving(scene).filter(|(_, object)| object["spec"].yes("publishNotReadyAddresses"));
    open.map(|(service, _)| {
        let (name, namespace) = (&service.name, scene.namespace());
        let what = format!("Service {namespace}/{name} sends to pods that are not ready (publishNotReadyAddresses).");
        let object = scene.object("Service", name);
        if dark {
            Found::block(object).says(
                what,
                "a dark probe pod, which is never ready, would get real requests.",
                scene.respec("{\"probe\":{\"mode\":\"DryRunOnly\"}}"),
            )
        } else {
            Found::warn(object).says(
                what,
                "every new pod gets requests before its proxy has any configuration, as whenever the gateway is scaled.",
                format!("kubectl patch service {name} -n {namespace} -p '{{\"spec\":{{\"publishNotReadyAddresses\":false}}}}'"),
            )
        }
    })
    .collect()
}

fn local(scene: &Scene<'_>) -> Vec<Found> {
    let apart = is_set_apart(scene);
    let prepared = scene.template.container(PROXY).is_some_and(|p| p.hooks == Hooks::PreStop);
    let local = scene.seen.services.iter().filter(|s| s.local && !s.selector.is_empty());
    local
        .map(|service| {
            let (name, namespace) = (&service.name, scene.namespace());
            let object = scene.object("Service", name);
            let what = format!("Service {namespace}/{name} has externalTrafficPolicy: Local.");
            if apart || prepared {
                return Found::warn(object).says(
                    what,
                    "a node without a ready pod drops what still reaches it; a pod therefore leaves only where another one serves on its node.",
                    "have as many replicas as nodes that the load balancer sends to, or the drain may wait for a person",
                );
            }
            Found::block(object).says(
                what,
                "pods would be told to stop at once (no preStop), and until the load balancer notices it sends to nodes that have none.",
                format!(
                    "kubectl patch deployment {} -n {namespace} -p '{{\"spec\":{{\"template\":{{\"spec\":{{\"containers\":[{{\"name\":\"{PROXY}\",\
                     \"lifecycle\":{{\"preStop\":{{\"sleep\":{{\"seconds\":30}}}}}}}}]}}}}}}}}'\n(this restarts its pods; or accept it: {})",
                    scene.gateway(),
                    acknowledged("LocalTrafficPolicy")
                ),
            )
        })
        .collect()
}

fn affinity(scene: &Scene<'_>) -> Vec<Found> {
    let sticky = serving(scene).filter(|(_, object)| object["spec"].text("sessionAffinity") == "ClientIP");
    sticky
        .map(|(service, _)| {
            Found::warn(scene.object("Service", &service.name)).says(
                format!("Service {}/{} has sessionAffinity: ClientIP.", scene.namespace(), service.name),
                "clients stay with the pod that they had, so that new pods get less than their share of traffic; weights are shares of endpoints.",
                "nothing is to be done; let steps soak longer than spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            )
        })
        .collect()
}
