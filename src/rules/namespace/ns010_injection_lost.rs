//! # NS010 injection-lost
//!
//! ## What
//! A change of a namespace's labels after which workloads in it are no longer injected. It is denied for workloads whose proxy
//! is the placeholder `image: auto`, which are gateways mostly, and a warning with their number for the others. Where the new
//! labels themselves are the mistake (NS003, NS004, NS005), only that is said.
//!
//! ## Why
//! Nothing happens at once: running pods keep their sidecar. The next restart, node drain or scale-out starts pods without
//! one. A pod with `image: auto` does not start at all, because no registry has an image of that name.
//!
//! ## What to do
//! Give what must stay injected its own label `istio.io/rev` in the pod template, and take the namespace's labels off instead
//! of disabling: a pod cannot overrule `istio-injection=disabled`.
//!
//! ## When to allow
//! When the workloads are deleted right afterwards.

use super::{asked, called};
use crate::model::injector::DEFAULT_INJECTOR;
use crate::model::{Id, Kind, Labels, Namespace, Workload, key, resolve};
use crate::rules::finding::label;
use crate::rules::names::{few, if_known, plain, unserved};
use crate::rules::view::kubectl;
use crate::rules::workload::merge;
use crate::rules::{Check, Field, Finding, Found, Old, Rule, Severity, View};
use crate::snapshot::Known;

pub static RULE: Rule = Rule {
    code: "NS010",
    name: "injection-lost",
    summary: "a change of labels takes injection from workloads of the namespace",
    reads: &[Field::Label(key::INJECTION), Field::Label(key::REV)],
    checks: &[Check::Namespace(check)],
    source: include_str!("ns010_injection_lost.rs"),
};

fn check(namespace: &Namespace, old: Old<'_, Namespace>, view: &View<'_>) -> Found {
    let Some(old) = old.get() else { return Ok(Vec::new()) };
    let (before, after) = (old.seen_labels(), namespace.seen_labels());
    if [key::INJECTION, key::REV].iter().all(|k| before.get(k) == after.get(k)) {
        return Ok(Vec::new());
    }
    let Some(unserved) = wrong_name(&after, view)? else { return Ok(Vec::new()) };
    let (auto, plain) = lost(namespace, (&before, &after), view)?;
    let name = &namespace.meta.name;
    let changed = if before.get(key::INJECTION) == after.get(key::INJECTION) { key::REV } else { key::INJECTION };
    let value = after.value(changed).unwrap_or_default();
    let mut findings = Vec::new();
    if let Some((kind, first)) = auto.first() {
        let id = Id { kind: *kind, namespace: name.clone(), name: first.meta.name.clone() };
        let names: Vec<&str> = auto.iter().map(|(_, w)| w.meta.name.as_str()).collect();
        let (some, start) = if names.len() == 1 { ("proxy of", "it") } else { ("proxies of", "they") };
        let severity = if unserved { Severity::Warn } else { Severity::Deny };
        findings.push(Finding::deny(label(changed), value).severity(severity).says(
            format!("nothing would inject the {some} {} (image: auto) in {name:?} any more.", few(&names)),
            format!("{start} would not start again after the next restart: no registry has an image \"auto\"."),
            keep(&id, &before, &after),
        ));
    }
    // For a name that is only not served yet, NS004 or NS005 has said what happens to sidecars.
    if !plain.is_empty() && !unserved {
        let n = plain.len();
        let some = if n == 1 { "1 workload".to_owned() } else { format!("{n} workloads") };
        let names: Vec<&str> = plain.iter().map(|(_, w)| w.meta.name.as_str()).collect();
        findings.push(Finding::warn(label(changed), value).says(
            format!("{some} in {name:?} will start without a sidecar from now on ({}).", few(&names)),
            "running pods keep their sidecar until they restart.",
            "leave the labels as they are, or restart the workloads on purpose and watch them.",
        ));
    }
    Ok(findings)
}

/// Whether the new labels name something that is still to come; `None` if they are themselves refused by another rule.
fn wrong_name(after: &Labels, view: &View<'_>) -> Known<Option<bool>> {
    let cluster = view.cluster();
    if !called(cluster.injectors()?, after).is_empty() {
        return Ok(Some(false));
    }
    let is_switched_off = after.is(key::INJECTION, "disabled") || !(after.has(key::INJECTION) || after.has(key::REV));
    Ok(match asked(after) {
        _ if is_switched_off => Some(false),
        None => None,
        Some(name) => match unserved(cluster, name, after)? {
            Some(found) => (found.severity == Severity::Warn).then_some(true),
            None => Some(false),
        },
    })
}

type Lost<'a> = Vec<(Kind, &'a Workload)>;

/// Workloads that are injected before and not after: those with `image: auto`, and the others.
fn lost<'a>(
    namespace: &'a Namespace,
    (before, after): (&Labels, &Labels),
    view: &'a View<'_>,
) -> Known<(Lost<'a>, Lost<'a>)> {
    let cluster = view.cluster();
    // What cannot be listed is not counted; what was listed is evidence enough.
    if_known(cluster.knows_workloads())?;
    let injectors = cluster.injectors()?;
    let name = &namespace.meta.name;
    let injected = |labels: &Labels, w: &Workload| resolve(injectors, name, labels, &w.template).is_injected();
    let lost = cluster.workloads_in(name).filter(|(kind, w)| {
        // A Job's pods do not start again, and what is scaled to zero is not running.
        *kind != Kind::Job && w.wanted() > 0 && !w.is_istiod() && injected(before, w) && !injected(after, w)
    });
    Ok(lost.partition(|(_, w)| w.template.is_image_auto()))
}

/// How a workload keeps its injection although the namespace gives it up.
fn keep(id: &Id, before: &Labels, after: &Labels) -> String {
    let (label, value) = match asked(before) {
        Some(DEFAULT_INJECTOR) => (key::INJECT, "true"),
        Some(name) => (key::REV, plain(name)),
        None => {
            return format!(
                "leave namespace {} without {} and {}\n(only then the request of its own pods counts)",
                id.namespace,
                key::INJECTION,
                key::REV
            );
        }
    };
    let patch = merge(&kubectl(id), id.kind, serde_json::json!({ "labels": { label: value } }));
    let then = if after.has(key::INJECTION) || after.has(key::REV) {
        format!(
            "then take the labels off, since pods cannot overrule them: kubectl label namespace {} {}- {}-",
            id.namespace,
            key::INJECTION,
            key::REV
        )
    } else {
        "the same for every workload named above, then change the namespace".to_owned()
    };
    format!("{patch}\n({then})")
}
