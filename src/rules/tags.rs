//! How a revision tag is pointed elsewhere or taken away, with the tool by which it came.
//!
//! Decides neither where to nor whether; that is the rules' part.

use crate::model::Kind;
use crate::rules::view::kubectl;
use crate::snapshot::Snapshot;

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

/// How kubectl names the `IstioRevisionTag` that is the source of a tag.
fn of_sail(cluster: &Snapshot, tag: &str) -> Option<String> {
    let source = cluster.raw(Kind::SailTag).find(|o| o.meta().name == tag)?;
    Some(kubectl(&source.id()))
}
