//! # GW002 rendered-twice
//!
//! ## What
//! An IstioOperator renders a gateway that another one renders too, or that a live Deployment's owner labels give to
//! another one. Profiles and both ways of merging gateway lists count: up to 1.23 a list is merged with the profile's by
//! name, so that `profile: default` with a gateway of one's own still renders `istio-ingressgateway`.
//!
//! ## Why
//! Names of gateways carry no revision. Both write the same Deployment and Service with force, so the gateway flips
//! between two revisions and two sets of values, and whoever is deleted first deletes it for both.
//!
//! ## What to do
//! List each gateway in one IstioOperator. Control planes: `profile: minimal`. Gateways: a file of their own with
//! `profile: empty`. A second set for a canary needs another name.
//!
//! ## When to allow
//! While a gateway is handed over from one file to the other; labels `unknown` and istioctl's own records
//! (`installed-state…`) never count.

use super::if_known;
use super::owner::{self, Owner};
use crate::model::{Kind, Operator, Rendered, key};
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View};

pub static RULE: Rule = Rule {
    code: "GW002",
    name: "rendered-twice",
    summary: "two IstioOperators render the same gateway",
    reads: &[Field::Spec, Field::Annotation(key::IGNORE_RECONCILE)],
    checks: &[Check::Operator(check)],
    source: include_str!("gw002_rendered_twice.rs"),
};

const WHY: &str = "both write its Deployment and Service with force, and deleting either one deletes the gateway.";

fn check(operator: &Operator, _: Old<'_, Operator>, view: &View<'_>) -> Found {
    if operator.is_inert() {
        return Ok(Vec::new());
    }
    let cluster = view.cluster();
    let own = owner::rendered(operator, view);
    let mut found = Vec::new();
    for gateway in &own {
        let mut others = if_known(cluster.operators())?.into_iter().flatten();
        let other = others
            .find(|o| !o.is_inert() && !o.meta.deleting && owner::rendered(o, view).iter().any(|g| same(g, gateway)));
        let place = format!("{}/{}", gateway.namespace, gateway.name);
        if let Some(other) = other {
            let value = format!("{place} {}", owner::path(other));
            found.push(Finding::deny(field(gateway), value).says(
                format!("IstioOperator {} renders gateway {place} too{}.", owner::path(other), by(gateway)),
                WHY,
                format!("{}\n(keep the gateway in one of the two; {})", edit(other), hint(gateway)),
            ));
            continue;
        }
        // Offline without Deployments there are none to find.
        if_known(cluster.knows(Kind::Deployment, None))?;
        let Some(live) = cluster.workload(Kind::Deployment, &gateway.namespace, &gateway.name) else { continue };
        let Some(owner) = Owner::of(&live.meta.labels).filter(|o| !o.is(operator)) else { continue };
        if live.meta.deleting {
            continue;
        }
        found.push(Finding::deny(field(gateway), format!("{place} {}", owner.path())).says(
            format!("IstioOperator {} owns the live gateway {place}{}.", owner.path(), by(gateway)),
            WHY,
            take_over(operator, &owner, gateway, view),
        ));
    }
    Ok(found)
}

/// What the other file owns, and how a gateway of it changes hands.
fn take_over(operator: &Operator, owner: &Owner, gateway: &Rendered, view: &View<'_>) -> String {
    let theirs =
        format!("kubectl get deployments -A -l {}={}\n(its gateways; {}", key::OWNER, owner.name, hint(gateway));
    if operator.meta.name.is_empty() {
        return theirs + ")";
    }
    format!(
        "{theirs}.\n To take this one over, drop it from the other file and first run\n {})",
        owner::relabel(
            view.cluster(),
            (&gateway.namespace, &gateway.name),
            &format!("{}={} --overwrite", key::OWNER, operator.meta.name)
        )
    )
}

fn same(a: &Rendered, b: &Rendered) -> bool {
    a.namespace == b.namespace && a.name == b.name
}

fn field(gateway: &Rendered) -> &'static str {
    if gateway.listed { "spec.components" } else { "spec.profile" }
}

/// Who brings it, where that is not plain to see.
fn by(gateway: &Rendered) -> &'static str {
    if gateway.listed { "" } else { ", which only the profile brings here" }
}

/// How the other one is changed: in the cluster, or in its file if it has no name to be stored under.
fn edit(other: &Operator) -> String {
    if other.meta.name.is_empty() {
        "give the other IstioOperator a metadata.name, in its file".to_owned()
    } else {
        format!("kubectl edit {}", owner::kubectl(other))
    }
}

fn hint(gateway: &Rendered) -> &'static str {
    if gateway.listed { "or give it another name here" } else { "profile minimal or empty renders none" }
}
