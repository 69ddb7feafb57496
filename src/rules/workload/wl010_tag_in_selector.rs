//! # WL010 tag-in-selector
//!
//! ## What
//! A gateway that is injected with the template `gateway` has `istio.io/rev` in its `spec.selector`, with the name of a tag as
//! value. It is denied where the injecting istiod is known to be 1.11 to 1.17, else it is a warning.
//!
//! ## Why
//! Those versions overwrite the pod label `istio.io/rev` with the revision behind the tag. The pods then no longer match their
//! owner's selector, and it makes new ones without end (istio#33237). Later versions leave the label alone, but a selector can
//! never be changed, so the gateway stays bound to that name.
//!
//! ## What to do
//! Keep `istio.io/rev` in the template's labels only, and select by `app` and `istio`.
//!
//! ## When to allow
//! With an istiod of 1.18 or later, when the name is never to change.

use super::place;
use crate::model::{Kind, Object, Version, Workload, key};
use crate::rules::{Check, Field, Finding, Found, Old, Rule, Severity, View};
use crate::snapshot::Snapshot;

pub static RULE: Rule = Rule {
    code: "WL010",
    name: "tag-in-selector",
    summary: "an injected gateway selects its pods by a revision tag",
    reads: &[Field::Template, Field::Selector],
    checks: &[Check::Workload(check)],
    source: include_str!("wl010_tag_in_selector.rs"),
};

/// The first version whose gateways were given the label, and the first whose gateways are not.
const OVERWRITES: (Version, Version) = (Version::new(1, 11), Version::new(1, 18));

fn check(workload: &Workload, _: Old<'_, Workload>, view: &View<'_>) -> Found {
    let Some(tag) = workload.selector.accepted(key::REV).next() else { return Ok(Vec::new()) };
    if !workload.template.injection_templates().any(|t| t == "gateway") {
        return Ok(Vec::new());
    }
    let place = place(workload, view)?;
    let cluster = view.before();
    let Some(revision) = place.resolution.revision().filter(|r| is_tag(cluster, tag) && r.as_str() != tag.as_str())
    else {
        return Ok(Vec::new());
    };
    let version = cluster.version_of(revision);
    let draft = Finding::deny("spec.selector.matchLabels[istio.io/rev]", tag.as_str());
    let fix = format!(
        "in the manifest, drop spec.selector.matchLabels[{}]; the pods may keep the label\n(a selector cannot be changed: an existing {} has to be made anew)",
        key::REV,
        crate::wire::row(view.kind()).name
    );
    Ok(vec![match version.filter(|v| OVERWRITES.0 <= *v && *v < OVERWRITES.1) {
        Some(version) => draft.says(
            format!("the selector has istio.io/rev={tag}, a tag, which Istio {version} overwrites in the pods with {revision}."),
            "pods that leave their owner's selector are replaced by new ones, without end (istio#33237).",
            fix,
        ),
        None => draft.severity(Severity::Warn).says(
            format!("spec.selector has istio.io/rev={tag}, a tag; a selector can never follow another name."),
            "Istio 1.11 to 1.17 overwrites the label in the pods, which are then replaced without end (istio#33237).",
            fix,
        ),
    }])
}

fn is_tag(cluster: &Snapshot, name: &str) -> bool {
    let marked = cluster.raw(Kind::MutatingWebhook).chain(cluster.raw(Kind::Service)).map(Object::meta);
    { marked }.any(|m| m.labels.is(key::TAG, name)) || cluster.sails(Kind::SailTag).any(|t| t.meta.name == name)
}
