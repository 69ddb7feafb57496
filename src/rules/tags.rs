//! How a revision tag is pointed elsewhere or taken away, with the tool by which it came.
//!
//! Decides neither where to nor whether; that is the rules' part.

use serde_json::json;

use crate::model::{Id, Kind, Str, key};
use crate::rules::view::kubectl;
use crate::rules::workload::merge;
use crate::snapshot::Snapshot;
use crate::snapshot::usage::Use;

/// Points a tag to a revision. Sail's operator takes back what istioctl writes of a tag of its own.
pub fn point(cluster: &Snapshot, tag: &str, to: &str) -> String {
    let Some(object) = of_sail(cluster, tag) else {
        return format!("istioctl tag set {tag} --revision {to} --overwrite");
    };
    // Its tags lead to its own revisions only.
    if cluster.sails(Kind::SailRevision).any(|r| r.meta.name == to) {
        return format!(
            "kubectl patch {object} --type merge -p \
             '{{\"spec\":{{\"targetRef\":{{\"kind\":\"IstioRevision\",\"name\":\"{to}\"}}}}}}'"
        );
    }
    format!("kubectl edit {object}\n(let spec.targetRef name the IstioRevision of {to}, once Sail has made it)")
}

/// Takes a tag away.
pub fn remove(cluster: &Snapshot, tag: &str) -> String {
    match of_sail(cluster, tag) {
        Some(object) => format!("kubectl delete {object}"),
        None => format!("istioctl tag remove {tag} -y"),
    }
}

/// Users of a tag that a fix spells out.
const SPELLED: usize = 8;

/// Gives a tag that is named like a revision another name: whoever asks for it is moved before the old name goes.
pub fn rename(cluster: &Snapshot, tag: &str, target: &str) -> String {
    let new = format!("{tag}-tag");
    let mut lines = vec![match of_sail(cluster, tag) {
        Some(object) => format!("kubectl get {object} -o yaml\n(make another IstioRevisionTag of it, named {new})"),
        None => format!("istioctl tag set {new} --revision {target}"),
    }];
    let usage = cluster.asking_for(tag);
    let users: Vec<String> =
        usage.uses.iter().chain(&usage.idle).filter_map(|user| relabel(user, new.as_str())).collect();
    lines.extend(users.iter().take(SPELLED).cloned());
    if users.len() > SPELLED {
        lines.push(format!("(and {} more of the same kind)", users.len() - SPELLED));
    }
    if !users.is_empty() {
        lines.push(format!("(all but those that mean revision {tag}; only then:)"));
    } else if !usage.unknown.is_empty() {
        lines.push(format!(
            "(relabel whoever asks for {tag} and does not mean the revision; {}; only then:)",
            usage.gaps()
        ));
    }
    lines.push(remove(cluster, tag));
    lines.join("\n")
}

/// Lets a user of a tag ask for another name; what runs once asks no more.
fn relabel(user: &Use, name: &str) -> Option<String> {
    let object = |kind: Kind, namespace: &Str, name: &Str| {
        kubectl(&Id { kind, namespace: namespace.clone(), name: name.clone() })
    };
    match user {
        Use::Namespace { name: ns, .. } => {
            Some(format!("kubectl label namespace {ns} {}={name} --overwrite", key::REV))
        }
        Use::Template { kind, namespace, name: own, .. } if *kind != Kind::Job => {
            Some(merge(&object(*kind, namespace, own), *kind, json!({ "labels": { key::REV: name } })))
        }
        Use::Config { kind, namespace, name: own } => {
            Some(format!("kubectl label {} {}={name} --overwrite", object(*kind, namespace, own), key::REV))
        }
        _ => None,
    }
}

/// How kubectl names the `IstioRevisionTag` that is the source of a tag.
fn of_sail(cluster: &Snapshot, tag: &str) -> Option<String> {
    let source = cluster.raw(Kind::SailTag).find(|o| o.meta().name == tag)?;
    Some(kubectl(&source.id()))
}
