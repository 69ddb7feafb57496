//! # GR009 led-elsewhere
//!
//! ## What
//! While a GatewayRollout moves a gateway, the name by which the gateway's own template asks for its control plane is led to another
//! one: its namespace gets another `istio.io/rev` or `istio-injection`, or the tag that it asks for is moved. Denied; a
//! warning where the tag's webhooks lead there already, because refusing the rest would leave the tag half made.
//!
//! A tag's webhook configuration is never sent to a webhook, so that `istioctl tag set` is spoken of with the tag's Service,
//! which it writes last.
//!
//! ## Why
//! Every old pod that starts from then on, after an eviction or on the way back, comes up on the new control plane: the old set is
//! no longer the old one, and going back leads nowhere.
//!
//! ## What to do
//! Wait for the end of the rollout, then move the namespace or the tag. For the next time: name a revision in the gateway's template, not a tag.
//!
//! ## When to allow
//! When all others that follow the name have to move at once.

use super::{hands_off, named};
use crate::model::{Kind, Namespace, Role, Rollout, Sail, Service, Workload, key};
use crate::rules::finding::label;
use crate::rules::shift::{Retarget, by_namespace};
use crate::rules::{Check, Field, Finding, Found, Old, Rule, Severity, View};
use crate::snapshot::{Known, Snapshot};

pub static RULE: Rule = Rule {
    code: "GR009",
    name: "led-elsewhere",
    summary: "the namespace or tag that a gateway follows is led to another control plane while a GatewayRollout moves it",
    reads: &[Field::Label(key::REV), Field::Label(key::INJECTION), Field::Label(key::TAG), Field::Spec],
    checks: &[Check::Namespace(namespace), Check::Service(service), Check::Sail(sail)],
    source: include_str!("gr009_led_elsewhere.rs"),
};

fn namespace(new: &Namespace, old: Old<'_, Namespace>, view: &View<'_>) -> Found {
    let Some(old) = old.get() else { return Ok(Vec::new()) };
    let cluster = view.before();
    // Most namespaces hold no rollout at all.
    if cluster.rollouts_in(view.name())?.all(|r| !r.is_active()) {
        return Ok(Vec::new());
    }
    for moved in by_namespace(new, old, view)? {
        let Some(rollout) = source_of(moved.kind, moved.workload, cluster)? else { continue };
        let at = format!("{}/{}", new.meta.name, moved.workload.meta.name);
        return Ok(vec![Finding::deny(label(key::REV), moved.to.to_string()).says(
            format!(
                "new pods of gateway {at} would come to {} while {} moves it step by step.",
                moved.to,
                named(rollout)
            ),
            WHY,
            hands_off(rollout),
        )]);
    }
    Ok(Vec::new())
}

const WHY: &str =
    "every old pod that starts again would be a new one, outside of the steps, and there would be no way back.";

fn service(new: &Service, old: Old<'_, Service>, view: &View<'_>) -> Found {
    if !new.meta.labels.has(key::TAG) {
        return Ok(Vec::new());
    }
    tag(Retarget::of_service(new, old.get(), view), view)
}

fn sail(new: &Sail, old: Old<'_, Sail>, view: &View<'_>) -> Found {
    tag(Retarget::of_sail(new, old.get(), view), view)
}

fn tag(retarget: Option<Retarget>, view: &View<'_>) -> Found {
    let Some(retarget) = retarget else { return Ok(Vec::new()) };
    let cluster = view.before();
    if cluster.rollouts()?.all(|r| !r.is_active()) {
        return Ok(Vec::new());
    }
    for (kind, workload) in retarget.workloads(cluster)? {
        let Some(rollout) = source_of(kind, workload, cluster)? else { continue };
        let severity = if retarget.is_half_done { Severity::Warn } else { Severity::Deny };
        return Ok(vec![Finding::deny(retarget.field, retarget.to.to_string()).severity(severity).says(
            format!(
                "tag {} of gateway {}/{} goes from {} to {} while {} moves it.",
                retarget.tag,
                workload.meta.namespace,
                workload.meta.name,
                retarget.from,
                retarget.to,
                named(rollout)
            ),
            WHY,
            hands_off(rollout),
        )]);
    }
    Ok(Vec::new())
}

/// The rollout that moves this Deployment away.
fn source_of<'a>(kind: Kind, workload: &'a Workload, cluster: &'a Snapshot) -> Known<Option<&'a Rollout>> {
    if kind != Kind::Deployment {
        return Ok(None);
    }
    let meta = &workload.meta;
    let found = cluster.in_hands(&meta.namespace, &meta.name, &meta.labels)?;
    Ok(found.filter(|(_, role)| *role == Role::Source).map(|(rollout, _)| rollout))
}
