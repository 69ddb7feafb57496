//! May a control plane go? What would be deleted, what still uses it, what could not be looked at, and the command.

use serde::Serialize;

use crate::model::{Id, Kind, Object, RevisionName, key};
use crate::snapshot::Snapshot;
use crate::wire::row;

/// The answer of `revguard uninstall-check`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Uninstall {
    pub revision: String,
    /// Anything of it was found.
    pub found: bool,
    pub installer: Installer,
    /// `KIND NAMESPACE/NAME` of what goes with it.
    pub deletes: Vec<String>,
    /// What still uses it, each in a sentence.
    pub used: Vec<String>,
    /// What may use it again or is on its way out; no reason to wait.
    pub notes: Vec<String>,
    /// What could not be looked at.
    pub unknown: Vec<String>,
    /// What removes it; comments explain.
    pub command: String,
    /// Nothing uses it, and everything was looked at.
    pub safe: bool,
}

/// Who put a control plane there, and so takes it away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "by")]
pub enum Installer {
    Helm {
        release: String,
        namespace: String,
    },
    Sail {
        kind: &'static str,
        name: String,
    },
    Istioctl,
    /// An IstioOperator of the in-cluster operator.
    Operator {
        name: String,
        namespace: String,
    },
    Unknown,
}

/// Looks at everything that a revision's control plane is made of, and at everything that needs it.
pub fn check(snapshot: &Snapshot, revision: &RevisionName) -> Uninstall {
    let usage = snapshot.usage(revision);
    let parts = parts(snapshot, revision);
    let installer = installer(snapshot, revision);
    let notes = usage.idle.iter().map(|u| format!("{u}, but has 0 replicas"));
    let leaving = usage.leaving.iter().map(|u| format!("{u}, but its owner is gone"));
    let mut unknown: Vec<String> = usage.unknown.iter().map(ToString::to_string).collect();
    unknown.sort();
    unknown.dedup();
    Uninstall {
        revision: revision.to_string(),
        found: !parts.is_empty(),
        command: command(&installer, revision),
        installer,
        deletes: parts.iter().map(shown).collect(),
        used: usage.uses.iter().map(ToString::to_string).collect(),
        notes: notes.chain(leaving).collect(),
        safe: usage.uses.is_empty() && unknown.is_empty() && !parts.is_empty(),
        unknown,
    }
}

fn shown(id: &Id) -> String {
    let kind = row(id.kind).name;
    if id.namespace.is_empty() { format!("{kind} {}", id.name) } else { format!("{kind} {}/{}", id.namespace, id.name) }
}

/// What was installed with the control plane.
fn parts(snapshot: &Snapshot, revision: &RevisionName) -> Vec<Id> {
    let kinds = [Kind::Deployment, Kind::Service, Kind::ConfigMap, Kind::MutatingWebhook, Kind::ValidatingWebhook];
    let mut all: Vec<Id> = Vec::new();
    for o in kinds.into_iter().flat_map(|k| snapshot.raw(k)) {
        let m = o.meta();
        let own =
            m.labels.value(key::REV).is_some_and(|r| RevisionName::new(r) == *revision) && !m.labels.has(key::TAG);
        let istio = match o {
            Object::Workload(_, w) => w.is_istiod() && w.istiod_revision().as_ref() == Some(revision),
            Object::Service(_) => own && m.labels.is("app", "istiod"),
            Object::Injector(c) => own && c.is_canonical(),
            Object::Validator(c) => own && c.webhooks.iter().any(|w| w.istio) && m.name.starts_with("istio-validator"),
            Object::ConfigMap(_) => own,
            _ => false,
        };
        if istio {
            all.push(o.id());
        }
    }
    all
}

fn installer(snapshot: &Snapshot, revision: &RevisionName) -> Installer {
    for kind in [Kind::SailIstio, Kind::SailRevision] {
        let active = |s: &crate::model::Sail| s.active.as_deref() == Some(revision.as_str());
        if let Some(s) = snapshot.sails(kind).find(|s| s.meta.name == revision.as_str() || active(s)) {
            return Installer::Sail { kind: row(kind).name, name: s.meta.name.to_string() };
        }
    }
    let mut istiods =
        snapshot.istiods().into_iter().flatten().filter(|w| w.istiod_revision().as_ref() == Some(revision));
    let Some(istiod) = istiods.next() else { return Installer::Unknown };
    if let Some((release, namespace)) = istiod.meta.helm_release() {
        return Installer::Helm { release: release.to_owned(), namespace: namespace.to_owned() };
    }
    if istiod.meta.labels.has(key::OWNER) { Installer::Istioctl } else { Installer::Unknown }
}

fn command(installer: &Installer, revision: &RevisionName) -> String {
    match installer {
        Installer::Helm { release, namespace } => format!("helm uninstall {release} -n {namespace}"),
        Installer::Sail { kind, name } => format!("kubectl delete {} {name}", kind.to_lowercase()),
        Installer::Operator { name, namespace } => {
            format!("kubectl delete istiooperators.install.istio.io -n {namespace} {name}")
        }
        Installer::Istioctl | Installer::Unknown => format!("istioctl uninstall --revision {revision}"),
    }
}
