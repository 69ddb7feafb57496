//! # GW004 underspecified-operator
//!
//! ## What
//! An IstioOperator that is meant for gateways leaves something to chance:
//! it has no `metadata.name`; or its profile is not `empty`, so that it installs more than the gateways that it lists; or it
//! has no `spec.revision` although every istiod is revisioned. Without a name any other IstioOperator gets a warning.
//!
//! ## Why
//! What is rendered is owned by name and revision: two IstioOperators without a name delete each other's gateways. With any
//! other profile than `empty` the file also installs istiod, or the profile's own gateway, over the ones that are there.
//! Without a revision the gateways dial `istiod.istio-system.svc`, which a mesh of revisions does not have, and never become
//! ready.
//!
//! ## What to do
//! ```yaml
//! metadata: {name: gateways, namespace: istio-system}
//! spec:
//!   profile: empty
//!   revision: 1-24
//!   components:
//!     ingressGateways:
//!     - {name: istio-ingressgateway, enabled: true}
//! ```
//!
//! A file that installs a control plane and says so (`components.pilot.enabled: true`) is not meant: see GW003. Where nothing
//! tells whether there is a control plane besides this file's, it is a warning.
//!
//! ## When to allow
//! A file that is only ever installed with `--revision` and `--set profile=empty`.

use super::if_known;
use super::owner::{self, Role};
use crate::model::{Operator, key};
use crate::rules::names::newest;
use crate::rules::{Check, Field, Finding, Found, Old, Operation, Rule, Severity, View};
use crate::snapshot::Known;

pub static RULE: Rule = Rule {
    code: "GW004",
    name: "underspecified-operator",
    summary: "an IstioOperator for gateways has no name, no revision, or installs more than gateways",
    reads: &[Field::Spec, Field::Annotation(key::IGNORE_RECONCILE)],
    checks: &[Check::Operator(check)],
    source: include_str!("gw004_underspecified_operator.rs"),
};

fn check(operator: &Operator, _: Old<'_, Operator>, view: &View<'_>) -> Found {
    if operator.is_inert() {
        return Ok(Vec::new());
    }
    let role = owner::role(operator, view)?;
    let severity = if role == Role::Gateways { Severity::Deny } else { Severity::Warn };
    let mut found = Vec::new();
    if operator.meta.name.is_empty() {
        found.push(Finding::deny("metadata.name", "").severity(severity).says(
            "this IstioOperator has no metadata.name.",
            "what it installs is owned by name and revision; two without a name delete each other's gateways.",
            "metadata:\n  name: gateways\n  namespace: istio-system",
        ));
    }
    if role == Role::ControlPlane {
        return Ok(found);
    }
    let extra = extra(operator, view);
    if !extra.is_empty() {
        found.push(Finding::deny("spec.profile", operator.profile()).severity(severity).says(
            format!("{} also installs {} (profile {}).", owner::title(operator), extra.join(" and "), operator.profile()),
            "installing it writes over what another file installed, and removing it removes that.",
            format!(
                "{}\n(each listed gateway with enabled: true; a file that is to install a control plane says so by\n components.pilot.enabled: true)",
                set(operator, view, "profile", "empty")
            ),
        ));
    }
    found.extend(no_revision(operator, severity, view)?);
    Ok(found)
}

/// How to set a field of the spec: a command where the object is there, else the line of the file.
fn set(operator: &Operator, view: &View<'_>, field: &str, value: &str) -> String {
    if view.operation == Operation::Update {
        return format!(
            "kubectl patch {} --type merge -p '{{\"spec\":{{\"{field}\":\"{value}\"}}}}'",
            owner::kubectl(operator)
        );
    }
    format!("set spec.{field}: {value} in the file of IstioOperator {}", owner::path(operator))
}

/// What it installs beside the gateways that it lists.
fn extra(operator: &Operator, view: &View<'_>) -> Vec<String> {
    let mut extra = Vec::new();
    if operator.has_pilot() {
        extra.push(owner::revision(operator).istiod());
    }
    if operator.has_base() && !owner::has_own_profile(operator) {
        extra.push("the shared base".to_owned());
    }
    let unlisted = owner::rendered(operator, view).into_iter().filter(|g| !g.listed);
    extra.extend(unlisted.map(|g| format!("gateway {}/{}", g.namespace, g.name)));
    extra
}

/// Its gateways would dial an istiod without a revision, and there is none.
fn no_revision(operator: &Operator, severity: Severity, view: &View<'_>) -> Known<Option<Finding>> {
    if operator.revision.is_some() || operator.injected {
        return Ok(None);
    }
    let cluster = view.cluster();
    let istiods = if_known(cluster.istiods())?;
    let mut revisions: Vec<_> = istiods.into_iter().flatten().filter_map(|w| w.istiod_revision()).collect();
    revisions.sort();
    revisions.dedup();
    if revisions.is_empty() || revisions.iter().any(|r| r.is_default()) {
        return Ok(None);
    }
    // A Service `istiod` may lead to a revision although no istiod is called so.
    let severity = match if_known(cluster.services())? {
        Some(mut services) => {
            if services.any(|s| s.meta.name == "istiod") {
                return Ok(None);
            }
            severity
        }
        None => Severity::Warn,
    };
    let names = revisions.iter().map(|r| r.as_str()).collect::<Vec<_>>().join(", ");
    let newest = newest(cluster, &revisions).map_or("", |r| r.as_str());
    Ok(Some(Finding::deny("spec.revision", "").severity(severity).says(
        format!("{} has no spec.revision, and every istiod here has one ({names}).", owner::title(operator)),
        "its gateways would dial istiod.istio-system.svc, which nobody answers, and never become ready.",
        format!(
            "{}\n(istioctl install --revision {newest} does the same, until a run forgets it)",
            set(operator, view, "revision", newest)
        ),
    )))
}
