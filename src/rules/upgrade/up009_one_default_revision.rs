//! # UP009 one-default-revision
//!
//! ## What
//! In Gloo's `IstioLifecycleManager` a cluster has two installations with `defaultRevision: true`, or loses its only one while its
//! entry stays.
//!
//! A cluster that starts without one gets a warning. Where another IstioLifecycleManager installs into the same cluster, a
//! missing one is not spoken of, because a switch from object to object takes two writes.
//!
//! ## Why
//! The default revision has the plain names: the default injector, the validator of whatever names no revision. Two fight for
//! them; with none, namespaces with `istio-injection=enabled` get no sidecars and nothing validates.
//!
//! ## What to do
//! Switch the new entry on and the old one off in one write.
//!
//! ## When to allow
//! A cluster in which every namespace names its revision.

use super::one_active::{self, Words};
use crate::model::{Kind, Lifecycle};
use crate::rules::{Check, Field, Found, Old, Rule, View};

pub static RULE: Rule = Rule {
    code: "UP009",
    name: "one-default-revision",
    summary: "a cluster of Gloo's has two default revisions, or loses its only one",
    reads: &[Field::Spec],
    checks: &[Check::Lifecycle(check)],
    source: include_str!("up009_one_default_revision.rs"),
};

const WORDS: Words = Words {
    switch: "defaultRevision",
    it: "default revision",
    none: "namespaces with istio-injection=enabled would get no sidecars, and nothing would validate what names no revision.",
    many: "each of them claims the default injector and the validator of whatever names no revision.",
};

fn check(new: &Lifecycle, old: Old<'_, Lifecycle>, view: &View<'_>) -> Found {
    if view.kind() != Kind::IstioLifecycle {
        return Ok(Vec::new());
    }
    one_active::findings(new, old.get(), &WORDS, view)
}
