//! # CP006 access-in-use
//!
//! ## What
//! The ServiceAccount of an istiod that is in use is deleted, or a Role, RoleBinding, ClusterRole or ClusterRoleBinding that
//! gives it its rights. What "in use" means stands on the page of CP001.
//!
//! ## Why
//! istiod may no longer read the cluster, sign certificates' requests or patch its webhooks. It goes on with what it knows
//! until it restarts, and then it does not start; without its ServiceAccount no new pod of it starts at all.
//!
//! ## What to do
//! Move the users first; the denial names them and gives the commands. An uninstall does not stop at the denial of an istiod:
//! without this rule it would go on and leave an istiod that runs and may do nothing.
//!
//! Objects are known by the names that charts and istioctl give them, for the istiods that are there. Roles of one's own are
//! not.
//!
//! ## When to allow
//! When the whole mesh is torn down with its users still in it.

use super::in_use::{Loss, Words};
use crate::model::{Kind, Meta, Object, RevisionName, Workload};
use crate::rules::{Check, Found, Rule, Severity, View};

pub static RULE: Rule = Rule {
    code: "CP006",
    name: "access-in-use",
    summary: "the account or the rights of an istiod that is in use are deleted",
    reads: &[],
    checks: &[Check::Delete(check)],
    source: include_str!("cp006_access_in_use.rs"),
};

const ACCOUNT: Words = Words {
    does: "would take its account from the istiod of",
    then: ", which is in use",
    why: Some(
        "no pod of it would start again, and the API server refuses those that run: no injection, no certificates.",
    ),
};
const RIGHTS: Words = Words {
    does: "would take rights from the istiod of",
    then: ", which is in use",
    why: Some(
        "it would no longer see what changes in the cluster, and not start again: no injection, no certificates.",
    ),
};

const KINDS: [Kind; 5] =
    [Kind::ServiceAccount, Kind::Role, Kind::RoleBinding, Kind::ClusterRole, Kind::ClusterRoleBinding];

fn check(object: &Object, view: &View<'_>) -> Found {
    let (kind, meta) = (object.kind(), object.meta());
    if !KINDS.contains(&kind) {
        return Ok(Vec::new());
    }
    let words = if kind == Kind::ServiceAccount { &ACCOUNT } else { &RIGHTS };
    let mut lost: Vec<RevisionName> = view
        .before()
        .istiods()?
        .filter(|w| !w.meta.deleting && is_of(kind, meta, w))
        .filter_map(Workload::istiod_revision)
        .collect();
    lost.sort();
    lost.dedup();
    let at =
        if meta.namespace.is_empty() { meta.name.to_string() } else { format!("{}/{}", meta.namespace, meta.name) };
    let mut findings = Vec::new();
    for revision in &lost {
        let doing = format!("deleting {} {at}", crate::wire::row(kind).name);
        let (field, value, most) = ("metadata.name", revision.to_string(), Severity::Deny);
        let loss = Loss { revision, doing, field, value, meta, most, besides: Vec::new() };
        findings.extend(loss.finding_in(view.before(), words, view)?);
    }
    Ok(findings)
}

/// It belongs to this istiod, by the names of the charts since 1.11 and, without a revision, of the base chart before.
fn is_of(kind: Kind, meta: &Meta, istiod: &Workload) -> bool {
    let Some(revision) = istiod.istiod_revision() else { return false };
    let (home, suffix) = (&istiod.meta.namespace, revision.suffix());
    let name = meta.name.as_str();
    let own = match kind {
        Kind::ServiceAccount => return meta.namespace == *home && istiod.template.service_account == name,
        Kind::Role | Kind::RoleBinding => meta.namespace == *home && name == format!("istiod{suffix}"),
        _ => {
            name == format!("istiod-clusterrole{suffix}-{home}")
                || name == format!("istiod-gateway-controller{suffix}-{home}")
        }
    };
    let base = name == format!("istiod-{home}") && (meta.namespace.is_empty() || meta.namespace == *home);
    own || base && istiod.template.service_account == "istiod-service-account"
}
