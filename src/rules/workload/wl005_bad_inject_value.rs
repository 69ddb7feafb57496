//! # WL005 bad-inject-value
//!
//! ## What
//! `sidecar.istio.io/inject`, as label or annotation of a pod template, is neither `true` nor `false`.
//!
//! ## Why
//! Istio compares letter by letter and takes anything else for unset. `"False"`, `"no"` or `"disabled"` do not keep a sidecar
//! out, and `"True"` or `"enabled"` do not bring one.
//!
//! ## What to do
//! Write `"true"` or `"false"`, in quotes: without them YAML reads a boolean, which the API server refuses.
//!
//! ## When to allow
//! Never needed.

use super::{Part, annotation, label, set};
use crate::model::{Workload, key};
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View};

pub static RULE: Rule = Rule {
    code: "WL005",
    name: "bad-inject-value",
    summary: "sidecar.istio.io/inject is neither true nor false",
    reads: &[Field::Template],
    checks: &[Check::Workload(check)],
    source: include_str!("wl005_bad_inject_value.rs"),
};

fn check(workload: &Workload, _: Old<'_, Workload>, view: &View<'_>) -> Found {
    let template = &workload.template;
    let places = [
        (Part::Labels, "label", template.labels.value(key::INJECT), label(view, key::INJECT)),
        (Part::Annotations, "annotation", template.annotations.value(key::INJECT), annotation(view, key::INJECT)),
    ];
    let bad = places.into_iter().filter_map(|(part, what, value, field)| {
        let value = value.filter(|v| !matches!(*v, "true" | "false"))?;
        let negative = matches!(value.to_ascii_lowercase().as_str(), "false" | "no" | "off" | "disabled" | "0" | "n");
        let meant = if negative { "false" } else { "true" };
        Some(Finding::warn(field, value).says(
            format!("{what} {}={value:?} counts as unset: write \"true\" or \"false\".", key::INJECT),
            "whether the pods get a sidecar is decided as if it were not there.",
            set(view, part, key::INJECT, Some(meant)),
        ))
    });
    Ok(bad.collect())
}
