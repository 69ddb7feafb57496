//! # VW010 validator-taken-away
//!
//! ## What
//! The one webhook that validates Istio configuration which names no revision is deleted while the mesh is in use; it is led
//! to a Service that is missing or has no ready endpoint; its rules or selectors are changed so that it no longer validates;
//! or a second one is made beside it. Leading an injector to a Service that is not ready is refused as well.
//!
//! ## Why
//! Without it broken configuration reaches every proxy; with a dead one every write of Istio configuration fails; with two
//! of different versions each must accept what only the other knows. An injector that nobody answers keeps pods from
//! starting.
//!
//! ## What to do
//! To move it: `istioctl tag set default --revision REVISION --overwrite` once that revision's istiod is ready. To remove it,
//! remove the mesh first.
//!
//! ## How it is enforced
//! The API server sends writes of webhook configurations to no webhook. The chart installs a `ValidatingAdmissionPolicy`; the
//! controller keeps in the GuardParameters `F` which validator is the approved one, which Services are ready, and what may not
//! be deleted and why. An istiod's own writes (`caBundle`, `failurePolicy`), writes that leave the part in question as it was,
//! members of `vap.breakGlassGroups`, Kubernetes' own controllers and revguard's repairs pass. `istioctl tag set` and `tag
//! remove` pass, and so does an upgrade of the charts. Validators of 1.11, where every revision brought one of its own, are
//! let through.
//!
//! ## When to allow
//! When somebody else validates: annotate the configuration with `revguard.dev/allow`, or be a member of a break-glass group.

use crate::model::{Kind, Object, ValidatorConfig, key};
use crate::rules::finding::Finding;
use crate::rules::names::newest;
use crate::rules::{Check, Found, Rule, View, tags};
use crate::snapshot::mesh::Answers;
use crate::snapshot::{Known, Snapshot};

pub static RULE: Rule = Rule {
    code: "VW010",
    name: "validator-taken-away",
    summary: "the approved validator is deleted, led astray or doubled",
    reads: &[],
    checks: &[Check::Delete(deleted)],
    source: include_str!("vw010_validator_taken_away.rs"),
};

/// The configuration validates what names no revision, and somebody answers. Where that cannot be told, it does not count.
pub fn is_approved(config: &ValidatorConfig, cluster: &Snapshot) -> bool {
    let answers = |b| matches!(cluster.answers(b), Ok(Answers::Ready(_) | Answers::Elsewhere));
    config.webhooks.iter().any(|w| w.is_catch_all() && answers(&w.backend))
}

fn deleted(object: &Object, view: &View<'_>) -> Found {
    let Object::Validator(config) = object else { return Ok(Vec::new()) };
    let cluster = view.before();
    if !is_approved(config, cluster) || view.cluster().validators()?.any(|other| is_approved(other, cluster)) {
        return Ok(Vec::new());
    }
    // `istioctl tag remove default` takes it along with the tag, which nobody asks for then.
    if config.meta.labels.is(key::TAG, "default") && !cluster.asking_for("default").is_used() {
        return Ok(Vec::new());
    }
    let Some(user) = user(cluster)? else { return Ok(Vec::new()) };
    let name = &config.meta.name;
    let what = format!(
        "deleting ValidatingWebhookConfiguration {name} would leave Istio configuration unvalidated while the mesh is in \
         use: {user}."
    );
    Ok(vec![Finding::deny("metadata.name", name.as_str()).says(
        what,
        "broken configuration would be accepted and reach every proxy.",
        format!(
            "{move_it}\n(moves it to another revision; to remove the mesh, remove \
             its users and its control planes first. kubectl annotate validatingwebhookconfiguration {name} \
             revguard.dev/allow='VW010: reason' lets it go all the same)",
            move_it = tags::point(cluster, "default", &elsewhere(config, cluster)),
        ),
    )])
}

/// Something that runs with a control plane or is made to; names alone may stay behind when a mesh is removed.
fn user(cluster: &Snapshot) -> Known<Option<String>> {
    cluster.knows(Kind::Pod, None)?;
    for (revision, plane) in cluster.control_planes()? {
        if plane.installed
            && let Some(user) = cluster.usage(&revision).uses.iter().find(|u| !u.is_name())
        {
            return Ok(Some(user.to_string()));
        }
    }
    Ok(None)
}

/// A ready revision besides the one that validates now; without one, that one.
fn elsewhere(config: &ValidatorConfig, cluster: &Snapshot) -> String {
    let own = config.revision();
    let all = cluster.revisions().unwrap_or_default();
    let ready = all.iter().filter(|r| cluster.is_ready(r) == Ok(true));
    let other = newest(cluster, ready.filter(|r| Some(*r) != own.as_ref())).cloned();
    other.or(own).map_or_else(|| "REVISION".to_owned(), |r| r.to_string())
}
