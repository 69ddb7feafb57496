//! What UP009 and UP010 share: of the installations that Gloo makes in a cluster exactly one is switched on.

use std::collections::BTreeMap;

use crate::model::object::Installation;
use crate::model::{Kind, Lifecycle, Object, Str};
use crate::rules::{Finding, Operation, View};
use crate::snapshot::{Known, Snapshot};

/// The words of a rule.
pub struct Words {
    /// The field that switches an installation on: `defaultRevision`.
    pub switch: &'static str,
    /// `default revision`
    pub it: &'static str,
    pub none: &'static str,
    pub many: &'static str,
}

/// Entries that may be switched on at most one at a time, by cluster and, for gateways, by gateway.
type Sets<'a> = BTreeMap<(Str, Str), Vec<&'a Installation>>;

fn sets<'a>(lifecycle: &'a Lifecycle, kind: Kind) -> Sets<'a> {
    let mut sets: Sets<'a> = BTreeMap::new();
    for entry in &lifecycle.installations {
        let mut types = if kind == Kind::GatewayLifecycle { entry.gateways.clone() } else { Vec::new() };
        if types.is_empty() {
            types.push(Str::default());
        }
        for cluster in &entry.clusters {
            for r#type in &types {
                sets.entry((cluster.cluster.clone(), r#type.clone())).or_default().push(entry);
            }
        }
    }
    sets
}

fn is_on(entry: &Installation, cluster: &str) -> bool {
    entry.clusters.iter().any(|c| c.cluster == *cluster && c.active)
}

fn named(entry: &Installation) -> &str {
    entry.revision.as_deref().unwrap_or("without a revision")
}

/// A finding for each cluster in which not exactly one is switched on.
pub fn findings(new: &Lifecycle, old: Option<&Lifecycle>, words: &Words, view: &View<'_>) -> Known<Vec<Finding>> {
    let kind = view.kind();
    let before = old.map(|o| sets(o, kind)).unwrap_or_default();
    let mut found = Vec::new();
    for ((cluster, r#type), entries) in sets(new, kind) {
        let on: Vec<&Installation> = entries.iter().copied().filter(|e| is_on(e, &cluster)).collect();
        let place = if r#type.is_empty() {
            format!("cluster {cluster}")
        } else {
            format!("gateway {type} in cluster {cluster}")
        };
        if on.len() > 1 {
            let names: Vec<&str> = on.iter().map(|e| named(e)).collect();
            found.push(Finding::deny("spec.installations", format!("{place}: {}", names.join(", "))).says(
                format!("{place} has {} installations with {}: true ({}).", on.len(), words.switch, names.join(", ")),
                words.many,
                fix(words, &cluster, view),
            ));
            continue;
        }
        if on.len() == 1 || is_elsewhere(&cluster, kind, view.cluster())? {
            continue;
        }
        // The first installation of a cluster, and one without a revision, may be meant to wait; what was on is not.
        let Some(was) =
            before.get(&(cluster.clone(), r#type.clone())).and_then(|old| old.iter().find(|e| is_on(e, &cluster)))
        else {
            if entries.iter().any(|e| e.revision.is_some()) {
                let first = Finding::warn("spec.installations", format!("{place}: none"));
                let what = format!("{place} has no installation with {}: true", words.switch);
                found.push(first.says(what, words.none, fix(words, &cluster, view)));
            }
            continue;
        };
        // An entry that is taken out is another rule's.
        if !entries.iter().any(|e| e.revision == was.revision) {
            continue;
        }
        found.push(Finding::deny("spec.installations", format!("{place}: none")).says(
            format!("{place} would have no {}: {} is switched off and no other on.", words.it, named(was)),
            words.none,
            fix(words, &cluster, view),
        ));
    }
    Ok(found)
}

/// Another object of Gloo's installs into that cluster: a switch from one object to another takes two writes.
fn is_elsewhere(cluster: &Str, kind: Kind, others: &Snapshot) -> Known<bool> {
    others.knows(kind, None)?;
    Ok(others.raw(kind).any(|o| match o {
        Object::Lifecycle(_, l) => {
            !l.meta.deleting && l.installations.iter().any(|i| i.clusters.iter().any(|c| c.cluster == *cluster))
        }
        _ => false,
    }))
}

fn fix(words: &Words, cluster: &str, view: &View<'_>) -> String {
    let switch = words.switch;
    if view.operation == Operation::Create {
        return format!("set {switch}: true on one entry of cluster {cluster}, and false on its others");
    }
    let edit = view.kubectl();
    format!(
        "kubectl edit {edit}\n({switch}: true on one entry of cluster {cluster} and false on its others, in one write)"
    )
}
