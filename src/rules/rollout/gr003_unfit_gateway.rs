//! # GR003 unfit-gateway
//!
//! ## What
//! A new GatewayRollout names a target that cannot be moved step by step:
//!
//! - `target.gateway`, or a Deployment that istiod has made for a Gateway API Gateway: denied for now;
//! - a DaemonSet or StatefulSet, or a gateway in the node's network: denied;
//! - a Deployment that is no gateway: denied;
//! - a name so long that the second Deployment's would exceed 63 characters: denied;
//! - a Deployment that is not there: a warning, because a GitOps tool may bring it a moment later. The rollout waits for it.
//!
//! ## Why
//! A rollout puts a second Deployment behind the same Service and scales the two against each other. istiod re-renders what it
//! deploys itself, one pod a node leaves no room for a second set, and what is no gateway has no such Service.
//!
//! ## What to do
//! Name the gateway's Deployment, as `kubectl get deployments` lists it. Move a Gateway API Gateway by its own label
//! `istio.io/rev`.
//!
//! ## When to allow
//! A gateway that is not told as one: without the injection template `gateway` and without an installer's labels.

use crate::model::{Id, Kind, Rollout, RolloutTarget, Workload, key};
use crate::rules::names::few;
use crate::rules::view::kubectl;
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View};
use crate::snapshot::Snapshot;
use crate::wire::row;

pub static RULE: Rule = Rule {
    code: "GR003",
    name: "unfit-gateway",
    summary: "a GatewayRollout names a target that is not there or cannot be moved step by step",
    reads: &[Field::Spec],
    checks: &[Check::Rollout(check)],
    source: include_str!("gr003_unfit_gateway.rs"),
};

/// The longest name of a Deployment that is also a label of its pods.
const LONGEST: usize = 63;

const RENDERED: &str = "istiod makes that Deployment anew whenever the Gateway or its revision changes: all of its pods move at \
                        once, and no second set can stand beside them.";

fn check(rollout: &Rollout, old: Old<'_, Rollout>, view: &View<'_>) -> Found {
    // The target cannot be changed later; the API server sees to that.
    if old.get().is_some() || rollout.is_over() {
        return Ok(Vec::new());
    }
    let cluster = view.cluster();
    let namespace = &rollout.meta.namespace;
    let name = match &rollout.target {
        RolloutTarget::Unclear => return Ok(Vec::new()),
        RolloutTarget::Gateway(name) => {
            return Ok(vec![Finding::deny("spec.target.gateway", name.as_str()).says(
                format!(
                    "Gateway {namespace}/{name} is one that istiod deploys; those cannot be moved step by step yet."
                ),
                RENDERED,
                relabel(namespace, name, &rollout.to),
            )]);
        }
        RolloutTarget::Deployment(name) => name,
    };
    cluster.knows(Kind::Deployment, None)?;
    let Some(gateway) = cluster.workload(Kind::Deployment, namespace, name) else {
        return Ok(vec![missing(namespace, name, cluster)]);
    };
    let at = format!("{namespace}/{name}");
    let draft = || Finding::deny("spec.target.deployment.name", name.as_str());
    let own = Id { kind: Kind::Deployment, namespace: namespace.clone(), name: name.clone() };
    if gateway.meta.labels.has(key::GATEWAY_MANAGED) {
        let of = gateway.meta.labels.value(key::GATEWAY_NAME).unwrap_or(name);
        let what = format!("Deployment {at} is one that istiod deploys; those cannot be moved step by step yet.");
        return Ok(vec![draft().says(what, RENDERED, relabel(namespace, of, &rollout.to))]);
    }
    if !gateway.is_gateway() {
        return Ok(vec![draft().says(
            format!("Deployment {at} is no gateway."),
            "a rollout moves what serves behind a Service of its own; sidecars move by a restart of their workload.",
            format!(
                "in the manifest, set spec.target.deployment.name to that of a gateway{}",
                there_are(namespace, cluster)
            ),
        )]);
    }
    if gateway.template.host_network {
        return Ok(vec![draft().says(
            format!("gateway {at} stands in the node's network (hostNetwork)."),
            "a second set of pods would want the same ports of the same nodes.",
            format!(
                "kubectl rollout restart {}\n(after its revision is changed; node by node, as its strategy says)",
                kubectl(&own)
            ),
        )]);
    }
    let second = format!("{name}-{}", rollout.to);
    if second.len() > LONGEST {
        return Ok(vec![draft().says(
            format!(
                "the second Deployment of {at} would be called {second}, which is {} characters long.",
                second.len()
            ),
            "the name is also a label of its pods, which has 63 characters at most.",
            match LONGEST.saturating_sub(name.len() + 1) {
                room @ 3.. => format!("install the revision under a name of at most {room} characters"),
                _ => "have the gateway installed under a shorter name, behind the same Service".to_owned(),
            },
        )]);
    }
    Ok(Vec::new())
}

fn missing(namespace: &str, name: &str, cluster: &Snapshot) -> Finding {
    let other =
        [Kind::DaemonSet, Kind::StatefulSet].into_iter().find(|k| cluster.workload(*k, namespace, name).is_some());
    let field = "spec.target.deployment.name";
    if let Some(kind) = other {
        let id = Id { kind, namespace: namespace.into(), name: name.into() };
        return Finding::deny(field, name).says(
            format!("gateway {namespace}/{name} is a {}, not a Deployment.", row(kind).name),
            "its pods cannot be scaled against those of a second set.",
            format!(
                "kubectl rollout restart {}\n(after its revision is changed; pod by pod, as its strategy says)",
                kubectl(&id)
            ),
        );
    }
    Finding::warn(field, name).says(
        format!("there is no Deployment {namespace}/{name} (yet): the rollout waits for it"),
        "nothing is moved before it is there.",
        format!("kubectl get deployments -n {namespace}{}", there_are(namespace, cluster)),
    )
}

/// Gateways of the namespace that it could have meant.
fn there_are(namespace: &str, cluster: &Snapshot) -> String {
    let fits = |w: &Workload| w.meta.namespace == namespace && !w.meta.labels.has(key::GATEWAY_MANAGED);
    let all = cluster.gateways().into_iter().flatten().filter(|(kind, w)| *kind == Kind::Deployment && fits(w));
    let names: Vec<&str> = all.map(|(_, w)| w.meta.name.as_str()).collect();
    if names.is_empty() {
        format!("\n(no Deployment of {namespace} is a gateway)")
    } else {
        format!("\n(gateways there: {})", few(&names))
    }
}

fn relabel(namespace: &str, name: &str, to: &str) -> String {
    format!(
        "kubectl label {} {}={to} --overwrite\n(moves it as a whole; its pods drain as they drain by themselves)",
        kubectl(&Id { kind: Kind::ApiGateway, namespace: namespace.into(), name: name.into() }),
        key::REV
    )
}
