//! # VW011 injector-in-use
//!
//! ## What
//! The injector of a revision or tag is deleted while somebody asks for that name and no other injector answers to it, or
//! the validator of a revision that is in use is deleted. What "in use" means stands on the page of CP001.
//!
//! ## Why
//! New pods of who asks start without a sidecar and outside mTLS, and nothing fails that somebody would notice.
//!
//! ## What to do
//! Move the users first; the message names them and gives the commands. Then the same command passes. Where no other control
//! plane could take over, install the next revision before.
//!
//! ## How it is enforced
//! The API server sends writes of webhook configurations to no webhook. The chart installs a `ValidatingAdmissionPolicy`,
//! and the controller keeps the names that it protects, each with this message, in the GuardParameters `F`: within a second of
//! a change. While no controller runs, what was known last stays protected, and the message says of when that is and how to be rid
//! of it (`kubectl delete guardparameters F`). Members of the groups in `vap.breakGlassGroups` are let through, as are
//! Kubernetes' own controllers. If the controller does not know who uses a revision, nothing is refused.
//!
//! ## When to allow
//! When the mesh is torn down with its users still in it: annotate the configuration with `revguard.dev/allow`, or be a member
//! of a break-glass group.

use crate::model::injector::DEFAULT_INJECTOR;
use crate::model::{InjectorConfig, Object, RevisionName, TagName, ValidatorConfig};
use crate::rules::control_plane::in_use::Loss;
use crate::rules::{Check, Finding, Found, Rule, Severity, View};
use crate::snapshot::Known;
use crate::snapshot::usage::Use;

pub static RULE: Rule = Rule {
    code: "VW011",
    name: "injector-in-use",
    summary: "the injector or validator of a revision or tag that is in use is deleted",
    reads: &[],
    checks: &[Check::Delete(deleted)],
    source: include_str!("vw011_injector_in_use.rs"),
};

fn deleted(object: &Object, view: &View<'_>) -> Found {
    match object {
        Object::Injector(config) if config.is_istio() => injector(config, view),
        Object::Validator(config) => validator(config, view),
        _ => Ok(Vec::new()),
    }
}

/// Names that the configuration answers to alone, and that somebody asks for.
fn injector(config: &InjectorConfig, view: &View<'_>) -> Found {
    let (before, after) = (view.before(), view.cluster());
    let (had, has) = (before.injectors()?, after.injectors()?);
    let (revision, tag) = (config.revision(), config.tag());
    let own = [tag.as_ref().map(|t| t.as_str()), revision.as_ref().map(|r| r.as_str()), Some(DEFAULT_INJECTOR)];
    let lost = own.into_iter().flatten().filter(|name| had.serves(name) && !has.serves(name));
    let mut users = Vec::new();
    for name in lost {
        let usage = before.asking_for(if name == DEFAULT_INJECTOR { "default" } else { name });
        users.extend(usage.uses);
    }
    users.dedup();
    let Some(revision) = revision.filter(|_| !users.is_empty()) else { return Ok(Vec::new()) };
    let doing = format!("deleting MutatingWebhookConfiguration {}", config.meta.name);
    let found = loss(&revision, doing.clone(), &config.meta, view)?;
    let Some(tag) = tag else { return Ok(found.into_iter().collect()) };
    // A tag's users are few of the revision's, and are moved without touching the others.
    Ok(found.map(|_| unserved(&tag, &doing, &revision, &users)).into_iter().collect())
}

fn unserved(tag: &TagName, doing: &str, revision: &RevisionName, users: &[Use]) -> Finding {
    let shown: Vec<String> = users.iter().take(NAMED).map(Use::to_string).collect();
    let more = users.len().saturating_sub(NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let mut fix: Vec<String> = users
        .iter()
        .filter_map(|user| match user {
            Use::Namespace { name, .. } => {
                Some(format!("kubectl label namespace {name} istio.io/rev={revision} istio-injection- --overwrite"))
            }
            _ => None,
        })
        .take(NAMED)
        .collect();
    fix.push(format!(
        "(or point the tag elsewhere instead of removing it: istioctl tag set {tag} --revision REVISION --overwrite)"
    ));
    Finding::deny("metadata.name", format!("tag {tag}")).says(
        format!("{doing} would leave unserved who asks for tag {tag}: {}{more}.", shown.join("; ")),
        "their new pods would start without a sidecar and outside mTLS.",
        fix.join("\n"),
    )
}

/// Users that a message names before it counts the rest.
const NAMED: usize = 5;

/// The validator of what names the revision. The one of everything else is VW010's.
fn validator(config: &ValidatorConfig, view: &View<'_>) -> Found {
    let of_revision = config.webhooks.iter().any(|w| w.istio) && config.meta.name.starts_with("istio-validator");
    let Some(revision) = config.revision().filter(|_| of_revision) else { return Ok(Vec::new()) };
    // Without a control plane it only keeps who writes from writing.
    if !view.before().control_planes()?.get(&revision).is_some_and(|plane| plane.installed) {
        return Ok(Vec::new());
    }
    let doing = format!("deleting ValidatingWebhookConfiguration {}", config.meta.name);
    loss(&revision, doing, &config.meta, view).map(|found| found.into_iter().collect())
}

fn loss(revision: &RevisionName, doing: String, meta: &crate::model::Meta, view: &View<'_>) -> Known<Option<Finding>> {
    let (field, value) = ("metadata.name", meta.name.to_string());
    let loss = Loss { revision, doing, field, value, meta, most: Severity::Deny, besides: Vec::new() };
    // What is at 0 replicas or leaves, and what cannot be seen, is said when the control plane itself goes.
    Ok(loss.finding(view)?.filter(|found| found.severity == Severity::Deny))
}
