//! # UP002 version-skip
//!
//! ## What
//! A control plane is installed or changed by too large a step: a new revision is more than `canaryMinorSkip` minors
//! (default 2) away from the nearest control plane that is live, or a revision is changed in place by more than one minor
//! in either direction. Also: a revision whose name says which version it runs (`1-23`) gets another version; any other
//! revision that is reused for another minor gives a warning, for the unnamed one it is the way to upgrade in place.
//!
//! Versions are those of the discovery image's tag or of the custom resource's `tag` or `version`. Where one is not known
//! (`latest`, a digest), the rule is silent.
//!
//! ## Why
//! Istio supports proxies one minor behind their control plane, and two as the passage of a canary upgrade. Beyond that,
//! proxies may not understand what they get. A revision that changes its version takes all of its proxies along at once,
//! and there is no old control plane to go back to.
//!
//! ## What to do
//! Go in steps, moving the workloads and restarting them after each. Install another version under a name of its own.
//!
//! ## When to allow
//! For a mesh that carries no traffic, or after an emergency that left no version in between.
//!
//! ## Who speaks
//! The custom resource is judged when it is written; the Deployment that an operator makes of it is not judged again.

use super::moves::{self, Move};
use crate::model::{Lifecycle, Operator, Sail, Version, Workload};
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View};

pub static RULE: Rule = Rule {
    code: "UP002",
    name: "version-skip",
    summary: "a control plane moves by too many minors at once, or a revision is reused for another version",
    reads: &[Field::Spec],
    checks: &[Check::Operator(operator), Check::Sail(sail), Check::Lifecycle(lifecycle), Check::Workload(istiod)],
    source: include_str!("up002_version_skip.rs"),
};

fn operator(new: &Operator, old: Old<'_, Operator>, view: &View<'_>) -> Found {
    if new.version().is_none() {
        return Ok(Vec::new());
    }
    Ok(moves::of_operator(new, old.get(), view)?.and_then(|m| judge(&m, view)).into_iter().collect())
}

fn sail(new: &Sail, old: Old<'_, Sail>, view: &View<'_>) -> Found {
    Ok(moves::of_sail(new, old.get(), view)?.and_then(|m| judge(&m, view)).into_iter().collect())
}

fn lifecycle(new: &Lifecycle, old: Old<'_, Lifecycle>, view: &View<'_>) -> Found {
    if view.kind() != crate::model::Kind::IstioLifecycle {
        return Ok(Vec::new());
    }
    let Some(old) = old.get() else { return Ok(Vec::new()) };
    Ok(moves::of_lifecycle(new, old).iter().filter_map(|m| judge(m, view)).collect())
}

fn istiod(new: &Workload, old: Old<'_, Workload>, view: &View<'_>) -> Found {
    if !new.is_istiod() {
        return Ok(Vec::new());
    }
    Ok(moves::of_istiod(new, old.get(), view)?.and_then(|m| judge(&m, view)).into_iter().collect())
}

fn judge(step: &Move, view: &View<'_>) -> Option<Finding> {
    match step.from {
        Some(from) if from == step.to => None,
        Some(from) => in_place(step, from),
        None => canary(step, view.policy.canary_minor_skip.0),
    }
}

/// A new revision beside those that are live.
fn canary(step: &Move, most: i32) -> Option<Finding> {
    let others = step.others.as_ref()?.iter().filter_map(|(r, v)| Some((step.to.minors_after(*v)?, r, *v)));
    let (distance, nearest, at) = others.min_by_key(|(distance, _, _)| distance.abs())?;
    if distance.abs() <= most {
        return None;
    }
    let direction = if distance > 0 { "newer" } else { "older" };
    let next = Version { minor: toward(at.minor, most, distance), ..at };
    let (to, revision) = (step.to, &step.revision);
    Some(Finding::deny(step.field, format!("{revision} {to}")).says(
        format!(
            "control plane {revision} would be {to}, {} minors {direction} than the nearest live one ({nearest}, {at}); at most {most}.",
            distance.abs()
        ),
        "proxies that move there would skip versions that Istio does not support to skip.",
        format!("install {next} first, as a revision of its own\n({at} -> {next} -> {to}: move and restart the workloads at each step)"),
    ))
}

/// The revision itself changes.
fn in_place(step: &Move, from: Version) -> Option<Finding> {
    let (to, revision) = (step.to, &step.revision);
    let distance = to.minors_after(from)?;
    let hint = Version::hinted_by(revision.as_str()).filter(|_| !revision.is_default());
    let key = format!("{revision} {to}");
    let named = format!("{}-{}", to.major, to.minor);
    if hint == Some(from) {
        return Some(Finding::deny(step.field, key).says(
            format!("revision {revision}, which is named after its version {from}, would become {to}."),
            "all of its proxies would change their control plane at once, under a name that then tells the wrong version, \
             and there would be no old control plane to go back to.",
            format!(
                "istioctl install --revision {named}\n(with this file, spec.revision: {named}; then move the namespaces: istioctl tag set TAG --revision {named} --overwrite)"
            ),
        ));
    }
    if distance.abs() > 1 {
        let next = Version { minor: toward(from.minor, 1, distance), ..from };
        return Some(Finding::deny(step.field, key).says(
            format!("revision {revision} would go from {from} to {to} in place, {} minors at once; at most 1.", distance.abs()),
            "its running proxies would be more than one minor apart from their control plane, which Istio does not support.",
            format!("go to {next} first and restart the workloads\n(or install {to} beside it as a revision of its own, which may be further away)"),
        ));
    }
    if revision.is_default() || hint == Some(to) {
        return None;
    }
    Some(Finding::warn(step.field, key).says(
        format!("revision {revision} goes from {from} to {to} in place, with all of its proxies"),
        "there is no old control plane to go back to.",
        format!("istioctl install --revision {named}\n(a revision of its own beside it, then move the namespaces)"),
    ))
}

fn toward(from: u16, most: i32, distance: i32) -> u16 {
    u16::try_from(i32::from(from) + most * distance.signum()).unwrap_or(from)
}
