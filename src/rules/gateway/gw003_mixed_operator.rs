//! # GW003 mixed-operator
//!
//! ## What
//! An IstioOperator that installs istiod also renders a gateway: one that it lists, or the one that its profile brings
//! (`default`, `demo` and those built on them).
//!
//! ## Why
//! Gateways of that file are upgraded in place together with the control plane, also where the control plane itself is a
//! canary: installing the second revision moves the live gateway to it at once, before anything was verified.
//!
//! ## What to do
//! `profile: minimal` for the control plane, and a second IstioOperator with `profile: empty` that lists the gateways. A
//! gateway that is live already must change hands first, or dropping it here deletes it (GW020).
//!
//! With `separateGateways: true` in the policy this is denied. GW004 speaks instead where the file is meant for gateways.
//!
//! ## When to allow
//! Test clusters, and meshes that are always upgraded in place.

use super::owner::{self, Role};
use crate::model::{Operator, key};
use crate::rules::{Check, Field, Finding, Found, Old, Rule, Severity, View};

pub static RULE: Rule = Rule {
    code: "GW003",
    name: "mixed-operator",
    summary: "an IstioOperator that installs a control plane also renders gateways",
    reads: &[Field::Spec, Field::Annotation(key::IGNORE_RECONCILE)],
    checks: &[Check::Operator(check)],
    source: include_str!("gw003_mixed_operator.rs"),
};

fn check(operator: &Operator, _: Old<'_, Operator>, view: &View<'_>) -> Found {
    if operator.is_inert() || !operator.has_pilot() || owner::role(operator, view)? != Role::ControlPlane {
        return Ok(Vec::new());
    }
    let cluster = view.cluster();
    let severity = if view.policy.separate_gateways { Severity::Deny } else { Severity::Warn };
    if owner::has_own_profile(operator) && operator.pilot.is_none() {
        return Ok(Vec::new());
    }
    let rendered = owner::rendered(operator, view);
    let findings = rendered.iter().map(|gateway| {
        let place = format!("{}/{}", gateway.namespace, gateway.name);
        // One finding a gateway: taking one of two away must not look like a new violation.
        let (field, what) = if gateway.listed {
            ("spec.components", format!("{} installs istiod and gateway {place}.", owner::title(operator)))
        } else {
            (
                "spec.profile",
                format!(
                    "{} installs istiod and gateway {place}, by profile {}.",
                    owner::title(operator),
                    operator.profile()
                ),
            )
        };
        let mut fix =
            String::from("set spec.profile to minimal here, and list the gateway in an IstioOperator of its own");
        fix += "\nwith metadata.name, spec.profile: empty and the same spec.revision";
        if cluster.workload(crate::model::Kind::Deployment, &gateway.namespace, &gateway.name).is_some() {
            let label = format!("{}=gateways --overwrite", key::OWNER);
            fix += "; it is live, so first give all of it away:\n";
            fix += &owner::relabel(cluster, (&gateway.namespace, &gateway.name), &label);
        }
        Finding::warn(field, place).severity(severity).says(
            what,
            "a canary of the control plane moves this gateway at once, before anything is verified.",
            fix,
        )
    });
    Ok(findings.collect())
}
