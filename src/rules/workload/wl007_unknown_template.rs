//! # WL007 unknown-template
//!
//! ## What
//! `inject.istio.io/templates` names an injection template that the revision which injects the pods does not have. Said only
//! where that revision's ConfigMap `istio-sidecar-injector` was read.
//!
//! ## Why
//! The injector refuses such a pod, and the API server with it: none of the pods would start.
//!
//! ## What to do
//! Use a template that the revision has, or add the template (or an alias) to the injector's configuration first. After a move
//! to another revision, custom templates must be there, too.
//!
//! ## When to allow
//! When the template is added right afterwards.

use super::{Part, annotation, place, set};
use crate::model::{Backend, Str, Workload, key};
use crate::rules::names::if_known;
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View};

pub static RULE: Rule = Rule {
    code: "WL007",
    name: "unknown-template",
    summary: "a pod template asks for an injection template that its revision does not have",
    reads: &[Field::Template],
    checks: &[Check::Workload(check)],
    source: include_str!("wl007_unknown_template.rs"),
};

fn check(workload: &Workload, _: Old<'_, Workload>, view: &View<'_>) -> Found {
    let template = &workload.template;
    if template.injection_templates().next().is_none() || workload.is_istiod() {
        return Ok(Vec::new());
    }
    let place = place(workload, view)?;
    let (true, Some(revision)) = (place.certain, place.resolution.revision()) else { return Ok(Vec::new()) };
    let hook = place.resolution.hooks.iter().rev().find(|h| h.istio);
    // What an injector outside the cluster has cannot be seen.
    let Some(Backend::Service { namespace: home, .. }) = hook.map(|h| &h.backend) else { return Ok(Vec::new()) };
    let name = format!("istio-sidecar-injector{}", revision.suffix());
    let cluster = view.before();
    let config = if_known(cluster.config_map(home, &name))?.flatten();
    let Some(known) = config.and_then(|c| c.injection_templates.as_ref()) else { return Ok(Vec::new()) };
    let asked: Vec<&str> = template.injection_templates().collect();
    let findings = asked.iter().filter(|t| !known.iter().any(|k| k == *t)).map(|unknown| {
        let corrected = corrected(&asked, unknown, known);
        let list = known.iter().map(|k| k.as_str()).collect::<Vec<_>>().join(", ");
        Finding::deny(annotation(view, key::TEMPLATES), *unknown).says(
            format!("injection template {unknown:?} is unknown to revision {revision}, which injects these pods."),
            "the injector would refuse every pod of this workload, and the API server with it.",
            format!(
                "{}\n(templates of {revision}, from ConfigMap {home}/{name}: {list})",
                set(view, Part::Annotations, key::TEMPLATES, Some(&corrected))
            ),
        )
    });
    Ok(findings.collect())
}

/// The same list with the name that was probably meant, or without the unknown one.
fn corrected(asked: &[&str], unknown: &str, known: &[Str]) -> String {
    let alike = |k: &&Str| {
        let distance = strsim::damerau_levenshtein(k, unknown);
        k.starts_with(unknown) || distance * 2 <= k.len().max(unknown.len())
    };
    let meant = { known.iter() }.filter(alike).min_by_key(|k| strsim::damerau_levenshtein(k, unknown));
    let kept: Vec<&str> =
        asked.iter().filter_map(|t| if *t == unknown { meant.map(Str::as_str) } else { Some(t) }).collect();
    if kept.is_empty() { "sidecar".to_owned() } else { kept.join(",") }
}
