//! # UP001 bad-revision-name
//!
//! ## What
//! The revision in an IstioOperator (`spec.revision`) or in a Sail resource (`spec.values.revision`) is no DNS label (a
//! dot, a capital letter), is longer than 56 characters, or is literally `default`. Sail's own resources may be *called*
//! `default`.
//!
//! ## Why
//! The revision becomes part of names: the Service `istiod-REVISION` must fit 63 characters and may not hold dots. `default`
//! is what a control plane without a revision is called: the charts then disagree on whether its Service is `istiod` or
//! `istiod-default`, and validation points to the one that is not there.
//!
//! ## What to do
//! Write dashes: `1-23-2` for 1.23.2. For the default control plane leave the field out.
//!
//! ## When to allow
//! Never; it does not work.

use crate::model::name::{MAX_REVISION, is_dns_label};
use crate::model::{Operator, Sail};
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View};

pub static RULE: Rule = Rule {
    code: "UP001",
    name: "bad-revision-name",
    summary: "a revision that cannot be part of names: dots, capitals, too long, or the word default",
    reads: &[Field::Spec],
    checks: &[Check::Operator(operator), Check::Sail(sail)],
    source: include_str!("up001_bad_revision_name.rs"),
};

fn operator(operator: &Operator, old: Old<'_, Operator>, _: &View<'_>) -> Found {
    let Some(revision) = operator.revision.as_deref().filter(|_| !operator.is_inert()) else { return Ok(Vec::new()) };
    if old.get().is_some_and(|o| o.revision.as_deref() == Some(revision)) {
        return Ok(Vec::new());
    }
    let tag = operator.tag.as_deref();
    Ok(bad("IstioOperator", &operator.meta.name, "spec.revision", revision, tag).into_iter().collect())
}

fn sail(sail: &Sail, old: Old<'_, Sail>, view: &View<'_>) -> Found {
    let Some(revision) = sail.revision.as_deref() else { return Ok(Vec::new()) };
    if old.get().is_some_and(|o| o.revision.as_deref() == Some(revision)) {
        return Ok(Vec::new());
    }
    let kind = crate::wire::row(view.kind()).name;
    let version = sail.version.as_deref();
    Ok(bad(kind, &sail.meta.name, "spec.values.revision", revision, version).into_iter().collect())
}

fn bad(kind: &str, name: &str, field: &'static str, revision: &str, version: Option<&str>) -> Option<Finding> {
    let (wrong, why) = if revision == "default" {
        (
            "which is the name of a control plane without a revision".to_owned(),
            "the charts would install istiod-default and point validation to the Service istiod, which would not exist.",
        )
    } else if !is_dns_label(revision) {
        let dots =
            if revision.contains('.') { "it may hold no dots" } else { "lower-case letters, digits and dashes only" };
        (
            format!("which is no DNS label: {dots}"),
            "the revision becomes part of names, so that the installation would fail half-way or be refused.",
        )
    } else if revision.len() > MAX_REVISION {
        (
            format!("of {} characters: at most {MAX_REVISION} fit", revision.len()),
            "the Service istiod-REVISION would exceed the 63 characters that a Service's name may have.",
        )
    } else {
        return None;
    };
    let name = if name.is_empty() { "without a name" } else { name };
    let fix = match dashed(revision).or_else(|| dashed(version?)) {
        Some(good) if revision == "default" => format!(
            "set {field}: {good}\n(or leave it out for the default control plane; to make a revision the default: \
             istioctl tag set default --revision {good})"
        ),
        Some(good) => format!("set {field}: {good}\n(namespaces then ask for it with the label istio.io/rev={good})"),
        None => format!("leave {field} out, or name it after its version with dashes, as 1-24-2"),
    };
    Some(Finding::deny(field, revision).says(format!("{kind} {name} has {field}: {revision}, {wrong}."), why, fix))
}

/// The nearest name that is allowed: 1-23-2 for `1.23.2`.
fn dashed(revision: &str) -> Option<String> {
    let clean: String = revision
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
        .take(MAX_REVISION)
        .collect();
    let clean = clean.trim_matches('-').to_owned();
    (is_dns_label(&clean) && clean != "default").then_some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proposal_is_always_allowed() {
        for (bad_one, good) in
            [("1.23.2", Some("1-23-2")), ("Canary_A", Some("canary-a")), ("default", None), ("...", None)]
        {
            assert_eq!(dashed(bad_one).as_deref(), good, "{bad_one}");
        }
        assert_eq!(dashed(&"x".repeat(70)).unwrap().len(), MAX_REVISION);
    }
}
