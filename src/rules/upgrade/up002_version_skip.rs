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
use crate::model::{Kind, Lifecycle, Operator, Sail, Version, Workload};
use crate::rules::{Check, Field, Finding, Found, Old, Operation, Rule, View, install, tags};

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
    if view.kind() != Kind::IstioLifecycle {
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
        Some(from) => in_place(step, from, view),
        None => canary(step, view),
    }
}

/// A new revision beside those that are live.
fn canary(step: &Move, view: &View<'_>) -> Option<Finding> {
    let most = view.policy.canary_minor_skip.0;
    let others = step.others.as_ref()?.iter().filter_map(|(r, v)| Some((step.to.minors_after(*v)?, r, *v)));
    let (distance, nearest, at) = others.min_by_key(|(distance, _, _)| distance.abs())?;
    if distance.abs() <= most {
        return None;
    }
    let direction = if distance > 0 { "newer" } else { "older" };
    let (to, revision, minors) = (step.to, &step.revision, distance.abs());
    // The audit says the same of what is there already, and nobody knows which way its proxies will go.
    let path = path(at, to, most);
    let between: Vec<String> = path.iter().filter(|v| **v != at && **v != to).map(Version::to_string).collect();
    Some(Finding::deny(step.field, format!("{revision} {to}")).says(
        format!(
            "control plane {revision} of {to} is {minors} minors {direction} than the nearest live one ({nearest}, {at}); \
             at most {most}."
        ),
        "proxies that move from one to the other would skip versions that Istio does not support to skip.",
        format!(
            "{}\n(go by {}: move and restart the workloads at each step)",
            install::beside(nearest, path.get(1).copied().unwrap_or(to), view),
            between.join(", ")
        ),
    ))
}

/// The revision itself changes.
fn in_place(step: &Move, from: Version, view: &View<'_>) -> Option<Finding> {
    let (to, revision) = (step.to, &step.revision);
    let minors = to.minors_after(from)?.abs();
    let hint = Version::hinted_by(revision.as_str()).filter(|_| !revision.is_default());
    let subject =
        if revision.is_default() { "the unnamed control plane".to_owned() } else { format!("revision {revision}") };
    let key = format!("{revision} {to}");
    if hint == Some(from) {
        return Some(Finding::deny(step.field, key).says(
            format!("{subject}, which is named after its version {from}, would become {to}."),
            "all of its proxies would change their control plane at once, under a name that then tells the wrong \
             version, and there would be no old control plane to go back to.",
            beside(step, view),
        ));
    }
    if minors > 1 {
        let next = path(from, to, 1).get(1).copied().unwrap_or(to);
        return Some(Finding::deny(step.field, key).says(
            format!("{subject} would go from {from} to {to} in place, {minors} minors at once; at most 1."),
            "its running proxies would be more than one minor away from their control plane, which Istio does not \
             support.",
            format!(
                "{}\n(restart the workloads before the next step; or install {to} as a revision of its own beside it)",
                upgrade(step, next, view)
            ),
        ));
    }
    if revision.is_default() || hint == Some(to) {
        return None;
    }
    Some(Finding::warn(step.field, key).says(
        format!("{subject} goes from {from} to {to} in place, with all of its proxies"),
        "there is no old control plane to go back to.",
        beside(step, view),
    ))
}

/// Versions to go through, both ends included, with at most `most` minors at once.
fn path(from: Version, to: Version, most: i32) -> Vec<Version> {
    let most = u16::try_from(most).unwrap_or(1).max(1);
    let mut path = vec![from];
    let mut at = from;
    while at != to && at.major == to.major {
        at.minor = if at.minor < to.minor {
            at.minor.saturating_add(most).min(to.minor)
        } else {
            at.minor.saturating_sub(most).max(to.minor)
        };
        path.push(at);
    }
    path
}

/// The same version beside what runs, and how what follows a tag comes to it.
fn beside(step: &Move, view: &View<'_>) -> String {
    let mut lines = vec![install::beside(&step.revision, step.to, view)];
    let named = install::named(step.to);
    if !matches!(view.kind(), Kind::SailIstio | Kind::SailRevision) {
        let cluster = view.before();
        lines.extend(cluster.tags_of(&step.revision).iter().map(|tag| tags::point(cluster, tag, &named)));
    }
    lines.push("(restart the workloads then; the old control plane stays until nobody uses it)".to_owned());
    lines.join("\n")
}

/// The same revision to a nearer version, with the tool that installed it.
fn upgrade(step: &Move, version: Version, view: &View<'_>) -> String {
    let object = view.kubectl();
    let stored = view.before().get(view.kind(), &view.id().namespace, &view.id().name);
    match (view.kind(), stored.and_then(|o| o.meta().helm_release())) {
        (Kind::SailIstio | Kind::SailRevision, _) if view.operation == Operation::Update => {
            format!(r#"kubectl patch {object} --type merge -p '{{"spec":{{"version":"v{version}-latest"}}}}'"#)
        }
        (Kind::SailIstio | Kind::SailRevision, _) => format!("in the manifest: spec.version: v{version}-latest"),
        (Kind::IstioLifecycle, _) => {
            format!("kubectl edit {object}\n(set the tag of installation {} to a {version})", step.revision)
        }
        (_, Some((release, namespace))) => install::upgrade(release, "istio/istiod", namespace, &version.to_string()),
        _ if step.revision.is_default() => format!("istioctl upgrade\n(with the istioctl of {version})"),
        _ => format!("istioctl upgrade --revision {}\n(with the istioctl of {version})", step.revision),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_takes_the_largest_steps_allowed_in_either_direction() {
        let minors = |from, to, most| -> Vec<u16> {
            path(Version::new(1, from), Version::new(1, to), most).iter().map(|v| v.minor).collect()
        };
        assert_eq!(minors(24, 29, 2), [24, 26, 28, 29]);
        assert_eq!(minors(24, 21, 1), [24, 23, 22, 21]);
        assert_eq!(minors(24, 24, 2), [24]);
    }
}
