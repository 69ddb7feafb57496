//! Which kinds of the table the cluster serves, and in which version.
//!
//! Asks only for the groups of the table, one small document each; kube's discovery reads every group of the cluster
//! into its own types, which on a cluster with many CRDs is megabytes. Nothing is remembered here.

use std::time::Duration;

use kube::Client;
use serde::Deserialize;

use super::request::{Question, Trouble, version_path};
use crate::model::Kind;
use crate::wire::KINDS;
use crate::wire::kinds::{KindRow, Watch};

/// How the cluster serves a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// In these of the versions that we read, the one that the cluster prefers first.
    Versions(Vec<String>),
    /// Only in versions that we do not read.
    Unread(Vec<String>),
    /// Not at all.
    No,
}

/// The table's rows that are watched in any way.
pub fn watched() -> impl Iterator<Item = &'static KindRow> {
    KINDS.iter().filter(|r| r.watch != Watch::Never)
}

/// Groups of the watched rows, each once.
pub fn groups() -> Vec<&'static str> {
    let mut all: Vec<&str> = watched().map(|r| r.group).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The group of a CRD by its name, if it is one of the table's.
pub fn group_of_crd(name: &str) -> Option<&'static str> {
    let (plural, group) = name.split_once('.')?;
    watched().find(|r| r.plural == plural && r.group == group).map(|r| r.group)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    #[serde(default)]
    versions: Vec<Version>,
    #[serde(default)]
    preferred_version: Option<Version>,
}

#[derive(Deserialize, PartialEq)]
struct Version {
    version: String,
}

#[derive(Deserialize)]
struct Resources {
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
}

/// How every watched kind of a group is served.
///
/// # Errors
/// Whatever keeps the API server from saying so; that a group is not there is an answer.
pub async fn look(
    client: &Client,
    group: &'static str,
    patience: Duration,
) -> Result<Vec<(&'static KindRow, Served)>, Trouble> {
    let rows: Vec<&KindRow> = watched().filter(|r| r.group == group).collect();
    let mut served: Vec<Vec<String>> = vec![Vec::new(); rows.len()];
    for version in versions(client, group, patience).await? {
        let question = Question::json(version_path(group, &version));
        let list: Resources = match question.ask(client, patience).await {
            Ok(answer) => answer.read().await?,
            // Its last CRD went away between the two questions.
            Err(Trouble::NotFound) => continue,
            Err(other) => return Err(other),
        };
        for (row, served) in rows.iter().zip(&mut served) {
            if list.resources.iter().any(|r| r.name == row.plural) {
                served.push(version.clone());
            }
        }
    }
    Ok(rows.into_iter().zip(served).map(|(row, served)| (row, judge(row, served))).collect())
}

fn judge(row: &KindRow, served: Vec<String>) -> Served {
    let (read, unread): (Vec<_>, Vec<_>) = served.into_iter().partition(|v| row.versions.contains(&v.as_str()));
    match (read.is_empty(), unread.is_empty()) {
        (false, _) => Served::Versions(read),
        (true, false) => Served::Unread(unread),
        (true, true) => Served::No,
    }
}

/// Versions of a group, the preferred one first.
async fn versions(client: &Client, group: &str, patience: Duration) -> Result<Vec<String>, Trouble> {
    if group.is_empty() {
        // The core group has one version and no document of its own.
        return Ok(vec!["v1".to_owned()]);
    }
    let found: Group = match Question::json(format!("/apis/{group}")).ask(client, patience).await {
        Ok(answer) => answer.read().await?,
        Err(Trouble::NotFound) => return Ok(Vec::new()),
        Err(other) => return Err(other),
    };
    let preferred = found.preferred_version.into_iter();
    let mut all: Vec<String> = preferred.chain(found.versions).map(|v| v.version).collect();
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|v| seen.insert(v.clone()));
    Ok(all)
}

/// Whether the table asks for this kind in every namespace.
pub fn is_everywhere(kind: Kind) -> bool {
    !matches!(crate::wire::row(kind).watch, Watch::InMesh(_) | Watch::Never)
}

/// Whether the table asks for whole objects of this kind in namespaces of the mesh.
pub fn is_in_mesh(kind: Kind) -> bool {
    matches!(crate::wire::row(kind).watch, Watch::InMesh(_) | Watch::MetadataAndInMesh)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::row;

    #[test]
    fn the_clusters_preference_decides_among_what_we_read() {
        let row = row(Kind::ApiGateway);
        let of = |v: &[&str]| judge(row, v.iter().map(|v| (*v).to_owned()).collect());
        assert_eq!(of(&["v1beta1", "v1"]), Served::Versions(vec!["v1beta1".into(), "v1".into()]));
        assert_eq!(of(&["v2", "v1"]), Served::Versions(vec!["v1".into()]));
        assert_eq!(of(&["v2"]), Served::Unread(vec!["v2".into()]));
        assert_eq!(of(&[]), Served::No);
    }

    #[test]
    fn a_crd_leads_to_its_group() {
        assert_eq!(group_of_crd("istiooperators.install.istio.io"), Some("install.istio.io"));
        assert_eq!(group_of_crd("gateways.gateway.networking.k8s.io"), Some("gateway.networking.k8s.io"));
        assert_eq!(group_of_crd("certificates.cert-manager.io"), None);
    }
}
