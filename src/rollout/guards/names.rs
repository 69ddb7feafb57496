//! Names of what a rollout makes, and locks.

use super::{Found, Guard, Scene};
use crate::api::gateway_rollout::{ProbeMode, Promotion, StrategyType};
use crate::model::key;
use crate::rollout::names::LONGEST;
use crate::rollout::read::Listed;
use crate::rollout::read::json::Json;
use crate::rollout::seen::Severity;

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "NameTooLong",
        summary: "an object of the rollout would have a name of more than 63 characters",
        worst: Severity::Block,
        acknowledge: false,
        check: too_long,
    },
    Guard {
        name: "NameTaken",
        summary: "something is called as an object of the rollout would be, and is not its own",
        worst: Severity::Block,
        acknowledge: false,
        check: taken,
    },
    Guard {
        name: "LockHeld",
        summary: "another rollout has the gateway in its hands",
        worst: Severity::Block,
        acknowledge: false,
        check: lock,
    },
];

fn parallel(scene: &Scene<'_>) -> bool {
    scene.seen.rollout.spec.strategy.type_ == StrategyType::ParallelDeployment
}

/// A standby is made beside the original.
fn keeps_standby(scene: &Scene<'_>) -> bool {
    let spec = &scene.seen.rollout.spec;
    spec.standby.keep && spec.strategy.promotion != Promotion::KeepRevisioned
}

fn too_long(scene: &Scene<'_>) -> Vec<Found> {
    let Some(plan) = scene.plan.as_ref().filter(|_| parallel(scene)) else { return Vec::new() };
    let names = plan.names.too_long().map(|name| {
        Found::block(scene.named()).says(
            format!("{name} has {} characters; {LONGEST} are possible.", name.len()),
            "the API server refuses the object, or the label that has to name it.",
            "give the new control plane a shorter revision, or deploy the gateway under a shorter name",
        )
    });
    names.collect()
}

fn taken(scene: &Scene<'_>) -> Vec<Found> {
    let Some(plan) = scene.plan.as_ref().filter(|_| parallel(scene)) else { return Vec::new() };
    let standby = plan.names.standby.as_ref().filter(|_| keeps_standby(scene));
    let mut wanted = vec![(Listed::Deployments, Some(&plan.names.canary)), (Listed::Deployments, standby)];
    if scene.seen.rollout.spec.probe.mode == ProbeMode::DarkPod {
        wanted.push((Listed::Pods, Some(&plan.names.probe)));
    }
    let mut found = Vec::new();
    for (listed, name) in wanted {
        let Some(object) = name.and_then(|name| scene.raw.get(listed, scene.namespace(), name)) else { continue };
        if object.label(key::ROLLOUT) == Some(&*scene.seen.rollout.held.uid) || object.is_deleting() {
            continue;
        }
        let (kind, name) = (listed.row().kind, object.name());
        let whose = match object.label(key::ROLLOUT) {
            Some(uid) => format!("of an earlier rollout (uid {uid})"),
            None => "not made by any rollout".to_owned(),
        };
        let serves = if object["spec"].count("replicas").is_some_and(|n| n > 0) { "; it has replicas" } else { "" };
        found.push(Found::block(scene.object(kind, name)).says(
            format!("{kind} {}/{name} is there already, {whose}{serves}.", scene.namespace()),
            "the rollout would make an object of that name, and never overwrites what is not its own.",
            format!("kubectl delete {} {name} -n {}\n(if nobody needs it)", kind.to_lowercase(), scene.namespace()),
        ));
    }
    found
}

fn lock(scene: &Scene<'_>) -> Vec<Found> {
    let (name, namespace) = (scene.gateway(), scene.namespace());
    let mut found: Vec<Found> = { &scene.seen.others }
        .iter()
        .map(|other| {
            Found::block(scene.object("GatewayRollout", other)).says(
                format!("GatewayRollout {namespace}/{other} moves gateway {namespace}/{name}."),
                "two rollouts of one gateway would take each other's pods away.",
                format!("kubectl get gatewayrollout {other} -n {namespace}\n(this one begins by itself once that one is over)"),
            )
        })
        .collect();
    let holder = scene.source().and_then(|s| s.annotations.get(key::ACTIVE_ROLLOUT)).filter(|h| !h.is_empty());
    let Some(holder) = holder.filter(|uid| ***uid != *scene.seen.rollout.held.uid) else { return found };
    let rollouts = scene.raw.within(Listed::Rollouts, namespace);
    let alive = { rollouts }.find(|r| r["metadata"].text("uid") == holder.as_str());
    if alive.is_some_and(|r| scene.seen.others.iter().any(|o| o == r.name())) {
        return found;
    }
    let (what, fix) = match alive {
        Some(other) => (
            format!("Deployment {namespace}/{name} is locked by GatewayRollout {}.", other.name()),
            format!("kubectl get gatewayrollout {} -n {namespace}", other.name()),
        ),
        None => (
            format!("Deployment {namespace}/{name} is locked by a rollout that is gone (uid {holder})."),
            format!(
                "kubectl annotate deployment {name} -n {namespace} {}- {}-\n\
                 (look first at what it left behind: kubectl get deployments,pods -n {namespace} -l {}={holder})",
                key::ACTIVE_ROLLOUT,
                key::BASELINE,
                key::ROLLOUT
            ),
        ),
    };
    found.push(Found::block(scene.named()).says(what, "whoever locked it may have changed it half.", fix));
    found
}
