//! # WL001 revision-ignored
//!
//! ## What
//! A pod template carries `istio.io/rev`, but its namespace decides who injects, and decides otherwise: it follows another
//! revision, or switches injection off.
//!
//! ## Why
//! Injectors look at a pod's own revision only in namespaces that carry neither `istio-injection` nor `istio.io/rev`. The
//! label on the template does nothing, and whoever wrote it believes that the pods run another version of the proxy.
//!
//! ## What to do
//! Drop the template's label, or move the namespace. To let workloads of one namespace choose for themselves, take both labels
//! off the namespace.
//!
//! ## When to allow
//! While a chart sets the label everywhere.

use super::{Part, label, place, refuses, set};
use crate::model::injection::asked_by_namespace;
use crate::model::{Workload, key};
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View};

pub static RULE: Rule = Rule {
    code: "WL001",
    name: "revision-ignored",
    summary: "a pod template's revision is ignored, because its namespace decides",
    reads: &[Field::Template],
    checks: &[Check::Workload(check)],
    source: include_str!("wl001_revision_ignored.rs"),
};

fn check(workload: &Workload, _: Old<'_, Workload>, view: &View<'_>) -> Found {
    let template = &workload.template;
    let Some(asked) = template.labels.value(key::REV) else { return Ok(Vec::new()) };
    // A proxy that an installer rendered attaches to what its own configuration says.
    if workload.is_istiod() || refuses(template) {
        return Ok(Vec::new());
    }
    let place = place(workload, view)?;
    let Some(decided) = asked_by_namespace(&place.namespace) else { return Ok(Vec::new()) };
    let home = &workload.meta.namespace;
    let outcome = match (decided, place.resolution.revision()) {
        (_, Some(revision)) => {
            if view.before().revision_behind(asked)?.as_ref() == Some(revision) {
                return Ok(Vec::new());
            }
            format!("namespace {home:?} decides, and its pods get {revision}")
        }
        // WL003 says of a proxy without an image that it cannot start at all.
        (None, None) if !template.is_image_auto() => format!("namespace {home:?} switches injection off"),
        _ => return Ok(Vec::new()),
    };
    Ok(vec![Finding::warn(label(view, key::REV), asked).says(
        format!("istio.io/rev={asked} on the template is ignored: {outcome}."),
        "a pod's own revision counts only in a namespace without istio-injection and istio.io/rev.",
        set(view, Part::Labels, key::REV, None),
    )])
}
