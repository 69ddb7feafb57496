//! # GW015 gateway-revision
//!
//! ## What
//! A Gateway API Gateway of Istio's names a revision or tag, by its own label `istio.io/rev`, that no control plane has. It is
//! denied where others are served and nothing announces this one; otherwise it is a warning. Also a warning: the label, or its
//! absence, moves a gateway that runs to another control plane.
//!
//! ## Why
//! istiod deploys and programs only Gateways that name it or a tag of it. For an unknown name nobody does: a new Gateway stays
//! without an address, and one that runs keeps pods that nobody updates. When the name changes, the other istiod renders the
//! Deployment anew: all pods are replaced without a restart.
//!
//! ## What to do
//! Use a name that is served, best a tag. To move a gateway, change the label when its requests are short, or let a rollout do
//! it.
//!
//! ## When to allow
//! For an external control plane that cannot be seen from this cluster.

use super::if_known;
use crate::model::{GatewayConfig, Kind, key};
use crate::rules::finding::label;
use crate::rules::managed;
use crate::rules::names::{offer, unserved};
use crate::rules::{Check, Field, Finding, Found, Old, Operation, Rule, View};
use crate::snapshot::Known;

pub static RULE: Rule = Rule {
    code: "GW015",
    name: "gateway-revision",
    summary: "a Gateway API Gateway names a control plane that is not there, or moves to another while it runs",
    reads: &[Field::Label(key::REV), Field::Spec],
    checks: &[Check::Gateway(check)],
    source: include_str!("gw015_gateway_revision.rs"),
};

fn check(gateway: &GatewayConfig, old: Old<'_, GatewayConfig>, view: &View<'_>) -> Found {
    if view.kind() != Kind::ApiGateway || !gateway.is_deployed() {
        return Ok(Vec::new());
    }
    if let Some(found) = unknown(gateway, view)? {
        return Ok(vec![found]);
    }
    let Some(old) = old.get() else { return Ok(Vec::new()) };
    Ok(moved(gateway, old, view)?.into_iter().collect())
}

fn unknown(gateway: &GatewayConfig, view: &View<'_>) -> Known<Option<Finding>> {
    let Some(rev) = gateway.meta.labels.value(key::REV) else { return Ok(None) };
    let cluster = view.cluster();
    let around = cluster.namespace_labels(&gateway.meta.namespace);
    if cluster.deployer_of(&gateway.meta, &around)?.is_some() {
        return Ok(None);
    }
    let at = format!("{}/{}", gateway.meta.namespace, gateway.meta.name);
    let why = "no istiod would deploy or program it: every one of them takes it for another's.";
    let drop = match view.operation {
        Operation::Create => format!("drop the label {} from the manifest", key::REV),
        _ => format!("kubectl label {} {}-", view.kubectl(), key::REV),
    };
    if rev.is_empty() {
        return Ok(Some(Finding::deny(label(key::REV), rev).says(
            format!("{} of Gateway {at} is empty, which is no control plane.", key::REV),
            why,
            drop,
        )));
    }
    let Some(found) = unserved(cluster, rev, &around)? else { return Ok(None) };
    let draft = Finding::deny(label(key::REV), rev).severity(found.severity);
    let wait = format!("kubectl get deployments -A -l app=istiod,{}={rev}", key::REV);
    Ok(Some(match (found.announced, found.others) {
        (Some(by), _) => {
            draft.says(format!("Gateway {at}: no control plane {rev:?} yet; announced by {by}"), why, wait)
        }
        (None, false) => draft.says(
            format!("no control plane {rev:?} yet, or any other, to deploy Gateway {at}"),
            why,
            format!("{wait}\n(install the control plane first)"),
        ),
        (None, true) => {
            let offered = offer(cluster, rev);
            let fix = match (view.operation, &offered) {
                (_, None) => drop,
                (Operation::Create, Some(name)) => format!("set the label {}: {name} in the manifest", key::REV),
                (_, Some(name)) => format!("kubectl label {} {}={name} --overwrite", view.kubectl(), key::REV),
            };
            draft.says(
                format!("Gateway {at} names revision {rev:?}, but no installed revision or tag has that name."),
                why,
                format!("{fix}\n{}", cluster.name_list()),
            )
        }
    }))
}

fn moved(gateway: &GatewayConfig, old: &GatewayConfig, view: &View<'_>) -> Known<Option<Finding>> {
    if gateway.meta.labels.get(key::REV) == old.meta.labels.get(key::REV) {
        return Ok(None);
    }
    let cluster = view.cluster();
    let around = cluster.namespace_labels(&gateway.meta.namespace);
    let owner = |g: &GatewayConfig| if_known(cluster.deployer_of(&g.meta, &around)).map(Option::flatten);
    let (Some(from), Some(to)) = (owner(old)?, owner(gateway)?) else { return Ok(None) };
    let pods: u32 = managed::deployments(cluster, &gateway.meta).filter_map(|w| w.ready).sum();
    if from == to || pods == 0 {
        return Ok(None);
    }
    let at = format!("{}/{}", gateway.meta.namespace, gateway.meta.name);
    let value = gateway.meta.labels.value(key::REV).unwrap_or_default();
    let pods = if pods == 1 { "its pod is".to_owned() } else { format!("its {pods} pods are") };
    Ok(Some(Finding::warn(label(key::REV), value).says(
        format!("Gateway {at} moves from {from} to {to}: {pods} replaced at once"),
        "istiod renders its Deployment anew; requests longer than its drain are cut off.",
        format!("kubectl label {} {}={from} --overwrite", view.kubectl(), key::REV),
    )))
}
