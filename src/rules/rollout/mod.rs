//! Rules about GatewayRollouts: what can be asked for, who may say what, and whose hands are kept off a gateway while one is
//! under way. What revguard's own controller writes is exempt, as are the controllers of Kubernetes.

use super::view::kubectl;
use super::{Request, Rule};
use crate::model::{Id, Kind, Rollout};

mod approval;
mod gr001_second_rollout;
mod gr002_not_a_revision;
mod gr003_unfit_gateway;
mod gr004_past_edited;
mod gr005_gateway_under_way;
mod gr006_service_under_way;
mod gr007_scaling_under_way;
mod gr008_bad_approval;
mod gr009_led_elsewhere;

pub static ALL: &[&Rule] = &[
    &gr001_second_rollout::RULE,
    &gr002_not_a_revision::RULE,
    &gr003_unfit_gateway::RULE,
    &gr004_past_edited::RULE,
    &gr005_gateway_under_way::RULE,
    &gr006_service_under_way::RULE,
    &gr007_scaling_under_way::RULE,
    &gr008_bad_approval::RULE,
    &gr009_led_elsewhere::RULE,
];

/// What is written into a GatewayRollout whatever the policy says: who approves.
pub(super) fn stamps(request: &Request<'_>) -> Vec<(&'static Rule, super::Patch)> {
    approval::stamps(request).into_iter().map(|patch| (&gr008_bad_approval::RULE, patch)).collect()
}

/// `GatewayRollout edge/public`
pub(super) fn named(rollout: &Rollout) -> String {
    format!("GatewayRollout {}/{}", rollout.meta.namespace, rollout.meta.name)
}

/// How kubectl names it.
pub(super) fn object(rollout: &Rollout) -> String {
    let (namespace, name) = (rollout.meta.namespace.clone(), rollout.meta.name.clone());
    kubectl(&Id { kind: Kind::GatewayRollout, namespace, name })
}

/// Sets a field of its spec that is true or false.
fn set(rollout: &Rollout, field: &str) -> String {
    format!("kubectl patch {} --type merge -p '{{\"spec\":{{\"{field}\":true}}}}'", object(rollout))
}

/// What to do instead of reaching into a rollout that is under way.
pub(super) fn hands_off(rollout: &Rollout) -> String {
    format!(
        "kubectl get {} -w\n(try again when it has ended; to have it go back first: {})",
        object(rollout),
        set(rollout, "abort")
    )
}
