//! # WL004 inject-annotation
//!
//! ## What
//! The annotation `sidecar.istio.io/inject` of a pod template says what no selector can see: `"false"` on pods for which an
//! injector is called all the same, `"true"` on pods for which none is called, or something else than the label of that name.
//!
//! ## Why
//! Webhook selectors see labels only. With the annotation `"false"` the pods cannot start while istiod is away, although they
//! want nothing of it. With the annotation `"true"` alone they get no sidecar. Where label and annotation differ, the label
//! wins.
//!
//! ## What to do
//! Use the label `sidecar.istio.io/inject`; the annotation is deprecated.
//!
//! ## When to allow
//! While a chart offers the annotation only.
//!
//! ## Mutation
//! `mutations.WL004: true` adds the label with the annotation's value, where there is no label, it changes what happens to the
//! pods as the annotation wants it, and the owner's selector does not use the key.

use super::{Part, annotation, labels_pointer, place, set};
use crate::model::injection::NEVER_INJECTED;
use crate::model::injector::DEFAULT_INJECTOR;
use crate::model::{Template, Workload, key, resolve};
use crate::rules::names::is_sound;
use crate::rules::{Check, Field, Finding, Fix, Found, Old, Patch, Rule, View};
use crate::snapshot::Known;

pub static RULE: Rule = Rule {
    code: "WL004",
    name: "inject-annotation",
    summary: "the annotation sidecar.istio.io/inject says what selectors cannot see",
    reads: &[Field::Template],
    checks: &[Check::Workload(check)],
    source: include_str!("wl004_inject_annotation.rs"),
};

fn check(workload: &Workload, _: Old<'_, Workload>, view: &View<'_>) -> Found {
    let template = &workload.template;
    let (wanted, by_label) = (template.annotations.value(key::INJECT), template.labels.value(key::INJECT));
    // Other values are WL005's; a proxy that cannot start without injection is WL003's, a revision beside it WL006's.
    let Some(wanted @ ("true" | "false")) = wanted else { return Ok(Vec::new()) };
    if workload.is_istiod() || template.is_image_auto() || wanted == "false" && template.labels.has(key::REV) {
        return Ok(Vec::new());
    }
    let place = place(workload, view)?;
    let is_called = place.resolution.hooks.iter().any(|h| h.istio);
    let draft = Finding::warn(annotation(view, key::INJECT), wanted);
    let add = set(view, Part::Labels, key::INJECT, Some(wanted));
    Ok(match (by_label, wanted) {
        (None, "false") if is_called => vec![draft.says(
            format!("selectors do not see annotation {}=false: the pods need istiod to start.", key::INJECT),
            "the webhook is called for them, and fails them while no istiod answers.",
            fix(workload, wanted, add, view)?,
        )],
        (None, "true") if !is_called && view.before().injectors()?.any_live() => vec![draft.says(
            format!("annotation {}=true does nothing: selectors see labels only.", key::INJECT),
            "the pods start without a sidecar.",
            fix(workload, wanted, add, view)?,
        )],
        (Some(label @ ("true" | "false")), _) if label != wanted && is_called => vec![draft.says(
            format!("{} is {label:?} as label and {wanted:?} as annotation; the label wins.", key::INJECT),
            "the annotation misleads who reads it.",
            set(view, Part::Annotations, key::INJECT, None),
        )],
        _ => Vec::new(),
    })
}

/// The label is added only where it certainly brings what the annotation wants, and no other rule would object to it.
fn fix(workload: &Workload, wanted: &str, text: String, view: &View<'_>) -> Known<Fix> {
    let template = &workload.template;
    let selected = workload.selector.keys().any(|k| *k == key::INJECT);
    if !view.policy.mutations.wl004 || selected {
        return Ok(Fix::Say(text));
    }
    let home = &workload.meta.namespace;
    let cluster = view.before();
    let with = Template { labels: template.labels.with(key::INJECT, wanted), ..template.clone() };
    let after = resolve(cluster.injectors()?, home, &cluster.namespace_labels(home), &with);
    let brings = match wanted {
        // Injection would be new: nothing else on the template may then be wrong, and somebody must answer.
        "true" => {
            after.is_injected()
                && !NEVER_INJECTED.contains(&home.as_str())
                && template.injection_templates().next().is_none()
                && template.discovery_host().is_none()
                && is_sound(cluster, DEFAULT_INJECTOR)
        }
        _ => !after.hooks.iter().any(|h| h.istio),
    };
    if !brings {
        return Ok(Fix::Say(text));
    }
    let patch = Patch::set(&labels_pointer(view.kind()), key::INJECT, wanted, template.labels.is_empty());
    Ok(Fix::Patch(vec![patch], text))
}
