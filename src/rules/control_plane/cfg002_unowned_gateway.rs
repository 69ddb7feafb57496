//! # CFG002 unowned-gateway
//!
//! ## What
//! A Gateway API Gateway of Istio's is created without the label `istio.io/rev`, in a namespace without it, in a mesh of
//! revisions that has no default: no control plane without a revision, no tag `default`, no default validator of a revision
//! that is there.
//!
//! ## Why
//! Every istiod takes it for another's. Nothing is deployed, and no condition of the Gateway says so.
//!
//! ## What to do
//! Label the Gateway or its namespace with a revision or tag, or make a default: `istioctl tag set default --revision REVISION`.
//!
//! ## When to allow
//! When the default is made right afterwards. It is never more than a warning.

use crate::model::{GatewayConfig, Kind, key};
use crate::rules::finding::label;
use crate::rules::names::{if_known, offer};
use crate::rules::{Check, Field, Finding, Found, Old, Operation, Rule, View};

pub static RULE: Rule = Rule {
    code: "CFG002",
    name: "unowned-gateway",
    summary: "a Gateway API Gateway names no control plane, and there is no default one",
    reads: &[Field::Label(key::REV), Field::Spec],
    checks: &[Check::Gateway(check)],
    source: include_str!("cfg002_unowned_gateway.rs"),
};

fn check(gateway: &GatewayConfig, _: Old<'_, GatewayConfig>, view: &View<'_>) -> Found {
    if view.operation != Operation::Create || view.kind() != Kind::ApiGateway || !gateway.is_deployed() {
        return Ok(Vec::new());
    }
    let cluster = view.cluster();
    let around = cluster.namespace_labels(&gateway.meta.namespace);
    if gateway.meta.labels.has(key::REV) || around.has(key::REV) {
        return Ok(Vec::new());
    }
    // Without any control plane it comes before its istiod, or that is elsewhere.
    let revisions = if_known(cluster.revisions())?.unwrap_or_default();
    let owner = if_known(cluster.deployer_of(&gateway.meta, &around))?;
    if revisions.is_empty() || owner.is_none_or(|owner| owner.is_some()) {
        return Ok(Vec::new());
    }
    let offered = offer(cluster, "default").unwrap_or_else(|| revisions[0].as_str().into());
    let fix = format!(
        "set the label {}: {offered} in the manifest, or on the namespace:\nkubectl label namespace {} {}={offered}\n{}",
        key::REV,
        gateway.meta.namespace,
        key::REV,
        cluster.name_list()
    );
    Ok(vec![Finding::warn(label(key::REV), "").says(
        format!(
            "no istiod deploys Gateway {}/{}: no {}, no default tag",
            gateway.meta.namespace,
            gateway.meta.name,
            key::REV
        ),
        "every istiod takes it for another's, so that nothing is deployed.",
        fix,
    )])
}
