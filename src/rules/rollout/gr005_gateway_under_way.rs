//! # GR005 gateway-under-way
//!
//! ## What
//! Somebody else than revguard's controller reaches into a gateway's Deployment, or into the second one, while a GatewayRollout
//! has them in its hands:
//!
//! - the revision, the proxy's image or the mesh configuration of its template changes: denied. A rollout that waits for whoever
//!   owns the template (`AwaitExternal`) lets the new revision in when it promotes, and the old one on its way back, while the
//!   Deployment has no pods;
//! - it is deleted, scaled to 0, or a paused one is resumed: denied;
//! - revguard's annotations on it are taken off: denied;
//! - anything else of the template, or the replicas, change: a warning. With `capacity.mode: Manual` replicas are yours.
//!
//! The Deployment that is kept for the way back of a completed rollout: deleting it gives a warning.
//!
//! ## Why
//! The rollout counts pods by revision and keeps the number that serves above a floor. A template that changes under it restarts all
//! old pods at once, and takes the way back along.
//!
//! ## What to do
//! Wait for the end of the rollout, or have it go back. A change that cannot wait: pause, change, and see what the rollout
//! says (`sourceDrift`).
//!
//! ## When to allow
//! With the annotation `revguard.dev/allow` on the Deployment, when the rollout's own controller is gone.

use super::{hands_off, named, object};
use crate::model::workload::PROXY;
use crate::model::{ConfigMap, Kind, Object, Role, Rollout, RolloutState, Template, Workload, key};
use crate::rules::finding::annotation;
use crate::rules::names::if_known;
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View};

pub static RULE: Rule = Rule {
    code: "GR005",
    name: "gateway-under-way",
    summary: "a gateway's Deployment is changed or deleted by others while a GatewayRollout has it in its hands",
    reads: &[Field::Spec, Field::Annotation(key::ACTIVE_ROLLOUT), Field::Annotation(key::BASELINE)],
    checks: &[Check::Workload(updated), Check::Delete(deleted)],
    source: include_str!("gr005_gateway_under_way.rs"),
};

fn updated(new: &Workload, old: Old<'_, Workload>, view: &View<'_>) -> Found {
    if view.kind() != Kind::Deployment || !new.is_gateway() {
        return Ok(Vec::new());
    }
    let Some(old) = old.get() else { return Ok(Vec::new()) };
    let cluster = view.before();
    let Some((rollout, role)) = cluster.in_hands(&new.meta.namespace, view.name(), &old.meta.labels)? else {
        return Ok(Vec::new());
    };
    let it = Held { rollout, role, at: format!("{}/{}", new.meta.namespace, new.meta.name) };
    let mut found = Vec::new();
    match moved(&old.template, &new.template) {
        // With whatever number of replicas its owner writes: they are new pods, and the rollout counts them.
        Some(_) if is_awaited(&it, old, new, view) => {}
        change => {
            found.extend(change.map(|(field, was, is)| it.moved(field, &was, &is)).or_else(|| it.drifted(old, new)));
            found.extend(it.scaled(old, new));
        }
    }
    if old.paused && !new.paused {
        found.push(it.resumed());
    }
    if role == Role::Source {
        for key in [key::ACTIVE_ROLLOUT, key::BASELINE] {
            let (was, is) = (old.meta.annotations.get(key), new.meta.annotations.get(key));
            if was.is_some() && was != is {
                found.push(it.unmarked(key));
            }
        }
    }
    Ok(found)
}

/// What decides which istiod a template's pods belong to and which proxy they run: field and value.
fn identity(t: &Template) -> [(&'static str, String); 4] {
    let mounted: Vec<&str> =
        t.config_maps.iter().map(|m| m.name.as_str()).filter(|n| ConfigMap::is_mesh_config(n)).collect();
    let image = t.container(PROXY).map(|c| c.image.to_string());
    [
        ("spec.template.metadata.labels[istio.io/rev]", t.labels.value(key::REV).unwrap_or("").to_owned()),
        ("spec.template.spec.containers[istio-proxy].image", image.unwrap_or_default()),
        ("spec.template.spec.volumes", mounted.join(", ")),
        ("spec.template.spec.containers[istio-proxy].env", t.discovery_host().unwrap_or_default()),
    ]
}

/// The first part of it that differs: field, before, after.
fn moved(old: &Template, new: &Template) -> Option<(&'static str, String, String)> {
    let mut parts = identity(old).into_iter().zip(identity(new));
    parts.find(|((_, was), (_, is))| was != is).map(|((field, was), (_, is))| (field, was, is))
}

/// Whoever owns the original was asked to bring it to another revision, and does. It is asked for when it has no pods: those that
/// serve would all restart.
fn is_awaited(it: &Held<'_>, old: &Workload, new: &Workload, view: &View<'_>) -> bool {
    let awaited = it.rollout.awaited().filter(|_| it.role == Role::Source && old.replicas == Some(0));
    let leads = || view.before().target_of(new).ok().flatten().and_then(|t| t.revision);
    awaited.is_some_and(|awaited| leads().is_some_and(|revision| revision.as_str() == awaited))
}

/// A Deployment in the hands of a rollout.
struct Held<'a> {
    rollout: &'a Rollout,
    role: Role,
    at: String,
}

impl Held<'_> {
    fn moved(&self, field: &'static str, was: &str, is: &str) -> Finding {
        let or_none = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
        let fix = if self.role == Role::Source && self.rollout.promotion == "AwaitExternal" {
            let it = object(self.rollout);
            format!(
                "kubectl get {it} -w\n(make this change when its state is AwaitingExternal: that is what it waits for then)"
            )
        } else {
            hands_off(self.rollout)
        };
        Finding::deny(field, is).says(
            format!(
                "gateway {} would change from {} to {} while {} {}.",
                self.at,
                or_none(was),
                or_none(is),
                named(self.rollout),
                self.course()
            ),
            "its pods would all restart outside of the steps, and there would be nothing to go back to.",
            fix,
        )
    }

    /// What the rollout does with the gateway.
    fn course(&self) -> String {
        match (self.rollout.state, &self.rollout.from) {
            (RolloutState::RollingBack, Some(from)) => format!("takes it back to {from}"),
            _ => format!("moves it to {}", self.rollout.to),
        }
    }

    fn drifted(&self, old: &Workload, new: &Workload) -> Option<Finding> {
        let warning = Finding::warn("spec.template", self.at.as_str());
        (old.template != new.template).then(|| {
            warning.says(
                format!("the template of {} changes while {} has it in its hands", self.at, named(self.rollout)),
                "its pods restart outside of the steps; the rollout stops and asks what to do (sourceDrift).",
                hands_off(self.rollout),
            )
        })
    }

    fn scaled(&self, old: &Workload, new: &Workload) -> Option<Finding> {
        let (was, is) = (old.wanted(), new.wanted());
        if was == is || self.rollout.manual {
            return None;
        }
        let whose = named(self.rollout);
        Some(if is == 0 {
            Finding::deny("spec.replicas", "0").says(
                format!("{} would be scaled from {was} to 0 while {whose} counts on its pods.", self.at),
                "the pods that are left may be too few for the traffic.",
                hands_off(self.rollout),
            )
        } else {
            Finding::warn("spec.replicas", is.to_string()).says(
                format!("{} is scaled from {was} to {is} while {whose} scales it", self.at),
                "it pauses if pods that have left come back by it, and counts on the new number where this one carries everything.",
                hands_off(self.rollout),
            )
        })
    }

    fn resumed(&self) -> Finding {
        Finding::deny("spec.paused", "false").says(
            format!("{} would be resumed while {} moves it step by step.", self.at, named(self.rollout)),
            "all of its pods would move at once.",
            hands_off(self.rollout),
        )
    }

    fn unmarked(&self, key: &str) -> Finding {
        Finding::deny(annotation(key), self.at.as_str()).says(
            format!("{} would lose what {} has noted on it.", self.at, named(self.rollout)),
            "the note says in whose hands it is, and how it was before.",
            format!("leave the annotation {key} as it is\n(it goes when the rollout has ended)"),
        )
    }
}

fn deleted(object: &Object, view: &View<'_>) -> Found {
    let Object::Workload(Kind::Deployment, gateway) = object else { return Ok(Vec::new()) };
    if !gateway.is_gateway() {
        return Ok(Vec::new());
    }
    let (namespace, name, labels) = (&gateway.meta.namespace, &gateway.meta.name, &gateway.meta.labels);
    let cluster = view.before();
    let at = format!("{namespace}/{name}");
    if let Some((rollout, _)) = cluster.in_hands(namespace, name, labels)? {
        return Ok(vec![Finding::deny("metadata.name", name.as_str()).says(
            format!("{at} would be deleted while {} moves the gateway to {}.", named(rollout), rollout.to),
            "its pods serve, or are about to.",
            hands_off(rollout),
        )]);
    }
    // Nobody is made to wait for a warning.
    let Some(all) = if_known(cluster.rollouts_in(namespace))? else { return Ok(Vec::new()) };
    let keeps = |r: &&Rollout| {
        let standby = match r.role(name, labels) {
            Some(Role::Standby) => true,
            Some(Role::Source) => gateway.wanted() == 0,
            _ => false,
        };
        r.can_go_back() && standby
    };
    let Some(rollout) = { all }.find(keeps) else { return Ok(Vec::new()) };
    Ok(vec![Finding::warn("metadata.name", name.as_str()).says(
        format!("{at} is what {} goes back to if it has to", named(rollout)),
        "without it there is no way back.",
        format!("kubectl delete {}\n(gives the way back up, and what was kept for it)", super::object(rollout)),
    )])
}
