//! How old pods leave.

use serde_json::Value;

use super::{Found, Guard, Scene};
use crate::api::gateway_rollout::{DrainMode, StrategyType};
use crate::model::key;
use crate::model::workload::PROXY;
use crate::rollout::read::Listed;
use crate::rollout::read::around::target_port;
use crate::rollout::read::json::Json;
use crate::rollout::read::pods::selects;
use crate::rollout::seen::{Of, Severity};

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "NoApartKey",
        summary: "there is no label by which pods can be set apart, so that they are told to stop instead",
        worst: Severity::Warn,
        acknowledge: false,
        check: no_key,
    },
    Guard {
        name: "DrainTooShort",
        summary: "pods that are told to stop are killed before their drain is over, or drain for a few seconds only",
        worst: Severity::Warn,
        acknowledge: false,
        check: short,
    },
    Guard {
        name: "ListenerFollowsService",
        summary: "a Gateway names a port of the Service on which pods do not listen: one that is set apart may lose the listener",
        worst: Severity::Warn,
        acknowledge: false,
        check: follows,
    },
    Guard {
        name: "PreStopDistroless",
        summary: "a preStop that runs a command cannot run in a distroless image",
        worst: Severity::Warn,
        acknowledge: false,
        check: distroless,
    },
];

/// Old pods will be set apart before they are deleted.
pub(super) fn is_set_apart(scene: &Scene<'_>) -> bool {
    let strategy = &scene.seen.rollout.spec.strategy;
    strategy.type_ == StrategyType::ParallelDeployment
        && strategy.drain.mode == DrainMode::SetApart
        && scene.seen.apart_key.is_ok()
}

fn no_key(scene: &Scene<'_>) -> Vec<Found> {
    let strategy = &scene.seen.rollout.spec.strategy;
    let asked = strategy.type_ == StrategyType::ParallelDeployment && strategy.drain.mode == DrainMode::SetApart;
    let (true, true, Err(why)) = (asked, scene.plan.is_some(), &scene.seen.apart_key) else { return Vec::new() };
    vec![Found::warn(scene.named()).says(
        format!("pods of {}/{} cannot be set apart: {why}.", scene.namespace(), scene.gateway()),
        format!("they are told to stop instead, and requests that take longer than {} are cut.", how_long(scene)),
        "give the Service's and the Deployment's selector one label that no policy and no Gateway selects by (a Deployment's selector \
         cannot be changed: that means to create it anew); or nothing, if requests are short",
    )]
}

/// How long a proxy that is told to stop lets connections end.
fn how_long(scene: &Scene<'_>) -> String {
    match scene.template.drain() {
        None => "the proxy's usual 5 s".to_owned(),
        Some(u32::MAX) => format!("the {} s that a pod is given", scene.template.grace()),
        Some(seconds) => format!("{seconds} s"),
    }
}

/// The container of the proxy in the new template.
fn proxy<'a>(scene: &'a Scene<'_>) -> Option<&'a serde_json::Value> {
    let spec = &scene.new["spec"];
    spec.list("containers").iter().chain(spec.list("initContainers")).find(|c| c.text("name") == PROXY)
}

/// The first word of a preStop that runs a command, and how many seconds it sleeps, whichever way it does.
fn pre_stop(proxy: &serde_json::Value) -> (Option<String>, u32) {
    let hook = &proxy["lifecycle"]["preStop"];
    if let Some(seconds) = hook["sleep"].count("seconds") {
        return (None, seconds);
    }
    let words: Vec<&str> = hook["exec"].list("command").iter().filter_map(|w| w.as_str()).collect();
    let text = words.join(" ");
    let mut rest = text.split_whitespace().skip_while(|w| *w != "sleep");
    let seconds = rest.nth(1).and_then(|n| n.trim_matches(['"', '\'', ';']).parse().ok()).unwrap_or(0);
    (words.first().map(|w| (*w).to_owned()), seconds)
}

fn short(scene: &Scene<'_>) -> Vec<Found> {
    let Some(proxy) = proxy(scene).filter(|_| scene.plan.is_some()) else { return Vec::new() };
    let (name, namespace) = (scene.gateway(), scene.namespace());
    let (grace, sleep) = (scene.template.grace(), pre_stop(proxy).1);
    let drain = scene.template.drain();
    let needed = sleep.saturating_add(drain.unwrap_or(5)).saturating_add(5);
    if drain != Some(u32::MAX) && grace < needed {
        let patch =
            format!("{{\"spec\":{{\"template\":{{\"spec\":{{\"terminationGracePeriodSeconds\":{needed}}}}}}}}}");
        return vec![Found::warn(scene.named()).says(
            format!("pods of {namespace}/{name} are given {grace} s to stop, and need {needed} s (preStop {sleep} s, drain {} s, 5 s to end).", drain.unwrap_or(5)),
            "what is still open then is cut.",
            format!("kubectl patch deployment {name} -n {namespace} -p '{patch}'\n(this restarts its pods)"),
        )];
    }
    // Pods that are set apart first have finished when they are told to stop.
    if is_set_apart(scene) || drain.is_some_and(|d| d > 5) {
        return Vec::new();
    }
    let better = grace.saturating_sub(sleep.saturating_add(5)).max(5);
    let config = format!("{{\\\"terminationDrainDuration\\\":\\\"{better}s\\\"}}");
    // The annotation is one text: a patch would take along what else it says.
    let fix = if drain.is_some() || scene.template.annotations.has(key::PROXY_CONFIG) {
        format!(
            "kubectl edit deployment {name} -n {namespace}\n(in the template's proxy configuration: terminationDrainDuration: {better}s; this restarts its pods)"
        )
    } else {
        format!(
            "kubectl patch deployment {name} -n {namespace} -p '{{\"spec\":{{\"template\":{{\"metadata\":{{\"annotations\":{{\"{}\":\"{config}\"}}}}}}}}}}'\n(this restarts its pods)",
            key::PROXY_CONFIG
        )
    };
    vec![Found::warn(scene.named()).says(
        format!("pods of {namespace}/{name} let requests end for {} only.", how_long(scene)),
        "they are told to stop while they serve, and every longer request is cut.",
        fix,
    )]
}

/// istiod finds the port that a gateway's pod listens on by the Services that select the pod now. Of one that is set apart none does, so
/// that with the next full push, or when it connects anew, it gets a listener on the Gateway's own port in place of the one that it has
/// (istiod's `resolvePorts`, read at 1.20 to 1.27). Its Envoy lets requests of the old one end for `drainDuration`.
fn follows(scene: &Scene<'_>) -> Vec<Found> {
    let Some(source) = scene.source().filter(|_| is_set_apart(scene)) else { return Vec::new() };
    let wait = scene.seen.rollout.spec.strategy.drain.max_wait;
    let drain = scene.template.listener_drain();
    if wait.signed().as_secs() <= i64::from(drain) {
        return Vec::new();
    }
    let (name, namespace) = (scene.gateway(), scene.namespace());
    let leads = |s: &&Value| scene.seen.services.iter().any(|own| *own.name == *s.name());
    let services = || scene.raw.within(Listed::Services, namespace).filter(leads);
    // Service, its port, and where that leads, of what a Gateway of this gateway names.
    let elsewhere = |number: u64| {
        services().find_map(|service| {
            let mut ports = service["spec"].list("ports").iter();
            let port = ports.find(|port| port["port"].as_u64() == Some(number))?;
            let target = target_port(port, &source.template.body)?;
            (u64::from(target) != number).then(|| (service.name().to_owned(), target))
        })
    };
    let gateways = scene.raw.all(Listed::Gateways).iter();
    let mut ours = gateways.filter(|g| selects(&g["spec"].map("selector"), &source.template.labels));
    let found = ours.find_map(|gateway| {
        let mut numbers = gateway["spec"].list("servers").iter().filter_map(|s| s["port"]["number"].as_u64());
        numbers.find_map(|number| elsewhere(number).map(|(service, target)| (gateway, number, service, target)))
    });
    let Some((gateway, number, service, target)) = found else { return Vec::new() };
    vec![Found::warn(scene.named()).says(
        format!(
            "requests on pods of {namespace}/{name} that are set apart may be cut after {drain} s, not after {wait} (drain.maxWait)."
        ),
        format!(
            "Gateway {}/{} names port {number} of Service {service}, behind which pods listen on {target}: from one that no Service selects \
             istiod may take that listener away, and its Envoy lets requests end for {drain} s then (drainDuration).",
            gateway.namespace(),
            gateway.name(),
        ),
        format!(
            "kubectl edit deployment {name} -n {namespace}\n(in the template's annotation {}: drainDuration: {}s; this restarts its pods; or \
             nothing, if no request takes longer)",
            key::PROXY_CONFIG,
            wait.signed().as_secs()
        ),
    )]
}

fn distroless(scene: &Scene<'_>) -> Vec<Found> {
    let Some(proxy) = proxy(scene).filter(|_| scene.plan.is_some()) else { return Vec::new() };
    let Some(command) = pre_stop(proxy).0 else { return Vec::new() };
    let live = scene.seen.pods.iter().find(|p| p.of == Of::Source).map(|p| p.shows.image.to_string());
    let images = [live.unwrap_or_default(), proxy.text("image").to_owned()];
    let asked = scene.template.annotations.value("sidecar.istio.io/proxyImageType") == Some("distroless");
    if !asked && !images.iter().any(|i| i.contains("distroless")) {
        return Vec::new();
    }
    let (name, namespace) = (scene.gateway(), scene.namespace());
    let seconds = pre_stop(proxy).1.max(5);
    vec![Found::warn(scene.named()).says(
        format!("the preStop of {namespace}/{name} runs {command}, which a distroless image does not have."),
        "the hook fails at once, and the proxy begins to stop before the endpoints have followed.",
        format!(
            "kubectl patch deployment {name} -n {namespace} --type strategic -p '{{\"spec\":{{\"template\":{{\"spec\":{{\"containers\":[{{\"name\":\"{PROXY}\",\
             \"lifecycle\":{{\"preStop\":{{\"exec\":null,\"sleep\":{{\"seconds\":{seconds}}}}}}}}}]}}}}}}}}'\n(Kubernetes sleeps by itself since 1.30; this restarts its pods)"
        ),
    )]
}
