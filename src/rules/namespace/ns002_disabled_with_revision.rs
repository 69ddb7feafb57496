//! # NS002 disabled-with-revision
//!
//! ## What
//! A namespace carries `istio-injection=disabled` and `istio.io/rev` at once. Ambient namespaces and namespaces with a
//! Gateway API Gateway are left out: there the revision label still says which istiod is in charge.
//!
//! ## Why
//! `disabled` wins: nothing injects, whatever revision is named, not even into pods that ask for it themselves. The label
//! makes the namespace look as if it followed a revision, and keeps that revision in use.
//!
//! ## What to do
//! Drop `istio.io/rev`, or drop `istio-injection` if the pods are to join the mesh.
//!
//! ## When to allow
//! Where a tool outside your control writes the revision label everywhere.
//!
//! ## Mutation
//! `mutations.NS002: true` drops `istio.io/rev`.

use super::is_ambient;
use crate::model::{Kind, Namespace, key};
use crate::rules::finding::label;
use crate::rules::{Check, Field, Finding, Fix, Found, Old, Patch, Rule, View};
use crate::snapshot::WhyUnknown;

pub static RULE: Rule = Rule {
    code: "NS002",
    name: "disabled-with-revision",
    summary: "a namespace has istio-injection=disabled and istio.io/rev",
    reads: &[Field::Label(key::INJECTION), Field::Label(key::REV), Field::Label(key::DATAPLANE_MODE)],
    checks: &[Check::Namespace(check)],
    source: include_str!("ns002_disabled_with_revision.rs"),
};

fn check(namespace: &Namespace, _: Old<'_, Namespace>, view: &View<'_>) -> Found {
    let labels = &namespace.meta.labels;
    let (true, Some(rev)) = (labels.is(key::INJECTION, "disabled"), labels.value(key::REV)) else {
        return Ok(Vec::new());
    };
    let name = &namespace.meta.name;
    let cluster = view.cluster();
    let certain = match cluster.knows(Kind::ApiGateway, None) {
        Ok(()) => true,
        // Manifests of namespaces seldom come with Gateways; that is worth a warning, but not a patch.
        Err(unknown) if unknown.why == WhyUnknown::NotInInput => false,
        Err(unknown) => return Err(unknown),
    };
    if is_ambient(labels) || cluster.raw_in(Kind::ApiGateway, name).next().is_some() {
        return Ok(Vec::new());
    }
    let text = format!(
        "kubectl label namespace {name} {}-\n(to join the mesh instead: kubectl label namespace {name} {}-)",
        key::REV,
        key::INJECTION
    );
    let fix = if view.policy.mutations.ns002 && certain {
        Fix::Patch(vec![Patch::remove("/metadata/labels", key::REV)], text)
    } else {
        Fix::Say(text)
    };
    Ok(vec![Finding::warn(label(key::REV), rev).says(
        format!("istio.io/rev={rev} does nothing in {name:?} beside istio-injection=disabled."),
        "istio-injection=disabled switches injection off for every revision; the label only misleads who reads it.",
        fix,
    )])
}
