//! # NS007 too-far
//!
//! ## What
//! A change of a namespace's labels leads running proxies to a control plane that is more than two minors newer than they
//! are: denied. More than two minors older: a warning. Both versions must be known: that of the proxies from their image, or
//! from the istiod that injected them, that of the control plane from its image or its custom resource.
//!
//! ## Why
//! Istio supports two minors between the two ends of an upgrade, as a step that is soon over. Beyond that nobody has tried
//! whether what runs still works once its pods come back with the other proxy, nor whether there is a way back.
//!
//! ## What to do
//! Go there in steps: install a control plane in between, move and restart the workloads, then the next. A way back of one or
//! two minors is never spoken of.
//!
//! ## When to allow
//! When the workloads may be down while something does not work, as in a test cluster.

use super::follow;
use crate::model::{Namespace, RevisionName, Version, key};
use crate::rules::finding::label;
use crate::rules::names::few;
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View, install, shift};
use crate::snapshot::attach::Proxies;

pub static RULE: Rule = Rule {
    code: "NS007",
    name: "too-far",
    summary: "a namespace moves running proxies more than two minors at once",
    reads: &[Field::Label(key::INJECTION), Field::Label(key::REV)],
    checks: &[Check::Namespace(check)],
    source: include_str!("ns007_too_far.rs"),
};

/// What Istio tests as one step (`TestCanaryUpgradeFromTwoMinorRelease`).
const MOST: u16 = 2;

fn check(namespace: &Namespace, old: Old<'_, Namespace>, view: &View<'_>) -> Found {
    let Some(old) = old.get() else { return Ok(Vec::new()) };
    let moved = shift::by_namespace(namespace, old, view)?;
    if moved.is_empty() {
        return Ok(Vec::new());
    }
    let cluster = view.before();
    // All of them follow the namespace; where one has another target, it is spoken of by itself.
    let mut targets: Vec<&RevisionName> = moved.iter().map(|m| &m.to).collect();
    targets.sort();
    targets.dedup();
    let running = cluster.proxies_in(&namespace.meta.name)?;
    let changed = if old.meta.labels.get(key::INJECTION) == namespace.meta.labels.get(key::INJECTION) {
        key::REV
    } else {
        key::INJECTION
    };
    let value = namespace.meta.labels.value(changed).unwrap_or_default();
    let mut findings = Vec::new();
    for target in targets {
        let Some(to) = cluster.version_of(target) else { continue };
        let own = |p: &&Proxies| moved.iter().any(|m| m.to == *target && p.workload == m.workload.meta.name);
        let far: Vec<(i32, Version, &Proxies)> = running
            .iter()
            .filter(own)
            .filter_map(|p| p.version.and_then(|from| Some((to.minors_after(from)?, from, p))))
            .collect();
        let name = &namespace.meta.name;
        let most = i32::from(MOST);
        let ahead: Vec<_> = far.iter().filter(|(minors, ..)| *minors > most).collect();
        if let Some((minors, from, _)) = ahead.iter().max_by_key(|(minors, ..)| *minors) {
            let step = Step { from: *from, to, target };
            findings.push(Finding::deny(label(changed), value).says(
                format!(
                    "{name:?} would move {} from {from} to {to} at once, {minors} minors; at most {MOST}.",
                    proxies(&ahead)
                ),
                "restarted pods come back with a proxy that skipped versions which Istio does not support to skip, and \
                 there is no supported way back.",
                fix(old, &step, view),
            ));
        }
        let behind: Vec<_> = far.iter().filter(|(minors, ..)| *minors < -most).collect();
        if let Some((minors, from, _)) = behind.iter().min_by_key(|(minors, ..)| *minors) {
            findings.push(Finding::warn(label(changed), value).says(
                format!("{name:?} goes back from {from} to {to}, {} minors, with {}", minors.abs(), proxies(&behind)),
                "what the newer versions brought is gone for its workloads once they restart.",
                format!("kubectl rollout restart deployment -n {name}\n(watch it: not everything may still work)"),
            ));
        }
    }
    Ok(findings)
}

/// `3 running proxies (web, api)`
fn proxies(far: &[&(i32, Version, &Proxies)]) -> String {
    let count: u32 = far.iter().map(|(_, _, p)| p.pods).sum();
    let mut names: Vec<&str> = far.iter().map(|(_, _, p)| p.workload.as_str()).collect();
    names.dedup();
    let running = if count == 1 { "1 running proxy".to_owned() } else { format!("{count} running proxies") };
    format!("{running} ({})", few(&names))
}

struct Step<'a> {
    from: Version,
    to: Version,
    target: &'a RevisionName,
}

/// The newest live control plane that is near enough, else the one to install.
fn fix(namespace: &Namespace, step: &Step<'_>, view: &View<'_>) -> String {
    let cluster = view.before();
    let planes = cluster.control_planes().unwrap_or_default();
    let near =
        |v: Version| v.minors_after(step.from).is_some_and(|m| (1..=i32::from(MOST)).contains(&m)) && v < step.to;
    let between = planes
        .iter()
        .filter(|(r, p)| p.installed && cluster.is_served(r.as_str()).unwrap_or(false) && *r != step.target)
        .filter_map(|(r, p)| Some((p.version.filter(|v| near(*v))?, r)))
        .max_by_key(|(version, _)| *version);
    let (first, through) = match between {
        Some((_, revision)) => (None, revision.to_string()),
        None => {
            let next = step.from.plus(MOST);
            (Some(install::beside(step.target, next, view)), install::named(next))
        }
    };
    let mut lines: Vec<String> = first.into_iter().collect();
    lines.push(follow(namespace, &through));
    lines.push(format!("kubectl rollout restart deployment -n {}", namespace.meta.name));
    lines.push(format!("(then on to {} in the same way)", step.target));
    lines.join("\n")
}
