//! # CFG001 ignored-config
//!
//! ## What
//! An object of Istio configuration, or an HTTPRoute, carries `istio.io/rev` with the name of a tag, or with a name that no
//! control plane has. Gateway API Gateways are not meant: they may name a tag.
//!
//! ## Why
//! On configuration the label is literal: istiod reads an object only if the label is absent or equals its own revision.
//! With a tag's name every istiod ignores it, and the default validator does not look at it either.
//!
//! ## What to do
//! Drop the label, so that every control plane reads the object. Name a literal revision only for what must be read by one.
//! `default` is the literal name of a control plane that was installed without a revision; beside revisions only it is a
//! tag like any other.
//!
//! ## When to allow
//! To take an object out of force for a moment without deleting it.

use crate::model::{Kind, Object, key};
use crate::rules::finding::label;
use crate::rules::{Check, Field, Finding, Found, Old, Operation, Rule, View};

pub static RULE: Rule = Rule {
    code: "CFG001",
    name: "ignored-config",
    summary: "Istio configuration is labelled with a tag or an unknown revision, so that every istiod ignores it",
    reads: &[Field::Label(key::REV)],
    checks: &[Check::Any(check)],
    source: include_str!("cfg001_ignored_config.rs"),
};

fn check(object: &Object, _: Old<'_, Object>, view: &View<'_>) -> Found {
    let kind = object.kind();
    if !Kind::CONFIG.contains(&kind) && kind != Kind::HttpRoute {
        return Ok(Vec::new());
    }
    let meta = object.meta();
    let Some(rev) = meta.labels.value(key::REV) else { return Ok(Vec::new()) };
    let cluster = view.cluster();
    let revisions = cluster.revisions()?;
    // Without any control plane it is somebody else's (an external istiod's), or it comes before its istiod.
    if revisions.is_empty() || revisions.iter().any(|r| r.as_str() == rev) {
        return Ok(Vec::new());
    }
    let row = crate::wire::row(kind);
    let at =
        if meta.namespace.is_empty() { meta.name.to_string() } else { format!("{}/{}", meta.namespace, meta.name) };
    let names: Vec<&str> = revisions.iter().map(|r| r.as_str()).collect();
    let pins = names.join(", ");
    let fix = match view.operation {
        Operation::Create => format!(
            "drop the label {} from the manifest\n(every control plane reads the object then; to pin it: {pins})",
            key::REV
        ),
        _ => format!(
            "kubectl label {} {}-\n(every control plane reads the object then; to pin it: {pins})",
            view.kubectl(),
            key::REV
        ),
    };
    if cluster.is_tag(rev) {
        let behind = cluster.revision_behind(rev)?.map(|r| format!(" (now {r})")).unwrap_or_default();
        return Ok(vec![Finding::deny(label(key::REV), rev).says(
            format!("{} {at} has {}={rev}, which is a tag{behind}: every istiod ignores it.", row.name, key::REV),
            "on configuration the label is literal: no istiod looks up a tag there, so that the object has no effect.",
            fix,
        )]);
    }
    if !rev.is_empty() && cluster.announced(rev).is_some() {
        return Ok(Vec::new());
    }
    Ok(vec![Finding::warn(label(key::REV), rev).says(
        format!("no control plane is called {rev:?}, so none reads {} {at}", row.name),
        "on configuration the label is literal: istiod reads what has no such label, or its own revision's.",
        fix,
    )])
}
