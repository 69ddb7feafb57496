//! # TAG002 long-tag
//!
//! ## What
//! The name of a new revision tag is longer than 43 characters.
//!
//! ## Why
//! The tag's Service is called `istiod-revision-tag-TAG`, and the name of a Service has at most 63 characters. Such a tag
//! has webhooks but can never have its Service, so that istiod and the gateways that look for it find nothing.
//!
//! ## What to do
//! Choose a shorter name.
//!
//! ## When to allow
//! While no control plane newer than 1.26 reads the tag: older ones need no Service.

use crate::model::name::MAX_TAG;
use crate::model::{Kind, Sail, Service, key};
use crate::rules::finding::label;
use crate::rules::{Check, Field, Finding, Found, Old, Operation, Rule, View};

pub static RULE: Rule = Rule {
    code: "TAG002",
    name: "long-tag",
    summary: "the name of a revision tag is too long for its Service",
    reads: &[Field::Label(key::TAG)],
    checks: &[Check::Service(service), Check::Sail(sail)],
    source: include_str!("tag002_long_tag.rs"),
};

fn service(service: &Service, _: Old<'_, Service>, view: &View<'_>) -> Found {
    let target = service.meta.labels.value(key::REV).unwrap_or("REVISION");
    Ok(service
        .meta
        .labels
        .value(key::TAG)
        .and_then(|tag| long(tag, target, label(key::TAG), view))
        .into_iter()
        .collect())
}

fn sail(tag: &Sail, _: Old<'_, Sail>, view: &View<'_>) -> Found {
    if view.kind() != Kind::SailTag {
        return Ok(Vec::new());
    }
    let target = tag.target.as_ref().map_or("REVISION", |(_, name)| name.as_str());
    Ok(long(&tag.meta.name, target, "metadata.name".to_owned(), view).into_iter().collect())
}

fn long(tag: &str, target: &str, field: String, view: &View<'_>) -> Option<Finding> {
    if view.operation != Operation::Create || tag.len() <= MAX_TAG {
        return None;
    }
    let short: String = tag.chars().take(MAX_TAG).collect();
    let short = short.trim_end_matches('-');
    Some(Finding::warn(field, tag).says(
        format!("tag name of {} characters; its Service allows {MAX_TAG}: {tag}", tag.len()),
        "the Service istiod-revision-tag-TAG would exceed 63 characters, so that the tag stays half made.",
        format!("istioctl tag set {short} --revision {target}"),
    ))
}
