//! May a control plane go? What would be deleted, what still uses it, what could not be looked at, and the command.

use serde::Serialize;

use crate::model::{Id, Kind, Meta, Object, Operator, RevisionName, Sail, Workload, key};
use crate::snapshot::Snapshot;
use crate::snapshot::usage::Use;
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

/// What is said where nobody could list the Secrets of remote clusters.
pub const REMOTE_UNSEEN: &str = "remote clusters (Secrets labelled istio/multiCluster=true) were not looked at";

impl Uninstall {
    /// Clusters that this control plane has the keys of. Their proxies are not seen from here, which is no reason to keep every
    /// old control plane of such a mesh for ever: it is said, and a person decides.
    pub fn note_remote(&mut self, clusters: &[String]) {
        if !clusters.is_empty() {
            self.notes.push(format!(
                "remote clusters are served from here ({}): look there for proxies of {} as well",
                clusters.join(", "),
                self.revision
            ));
        }
    }
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
    let installer = installer(snapshot, revision);
    let parts = parts(snapshot, revision, &installer);
    let goes_along = |user: &Use| match user {
        // A tag of the same release goes with it; one that is asked for is missed.
        Use::Tag { name } => {
            let mut marked = [Kind::MutatingWebhook, Kind::Service].into_iter().flat_map(|k| snapshot.raw(k));
            let own = { &mut marked }.filter(|o| o.meta().labels.is(key::TAG, name)).all(|o| parts.contains(&o.id()));
            own && !snapshot.asking_for(name).is_used()
        }
        _ => false,
    };
    let used: Vec<String> = usage.uses.iter().filter(|u| !goes_along(u)).map(ToString::to_string).collect();
    let mut notes: Vec<String> = usage.idle.iter().map(|u| format!("{u}, but has 0 replicas")).collect();
    notes.extend(usage.leaving.iter().map(|u| format!("{u}, but its owner is gone")));
    notes.push("ServiceAccounts, Roles and their bindings go as well; they are not read".to_owned());
    if snapshot.is_offline() {
        notes.push(REMOTE_UNSEEN.to_owned());
    }
    let mut unknown: Vec<String> = usage.unknown.iter().map(ToString::to_string).collect();
    unknown.sort();
    unknown.dedup();
    Uninstall {
        revision: revision.to_string(),
        found: !parts.is_empty(),
        command: command(&installer, revision),
        deletes: parts.iter().map(shown).collect(),
        safe: used.is_empty() && unknown.is_empty() && !parts.is_empty(),
        installer,
        used,
        notes,
        unknown,
    }
}

fn shown(id: &Id) -> String {
    let kind = row(id.kind).name;
    if id.namespace.is_empty() { format!("{kind} {}", id.name) } else { format!("{kind} {}/{}", id.namespace, id.name) }
}

/// Kinds that control planes and gateways are made of, of those that are read.
const PARTS: [Kind; 10] = [
    Kind::Deployment,
    Kind::DaemonSet,
    Kind::Service,
    Kind::ConfigMap,
    Kind::Hpa,
    Kind::Pdb,
    Kind::EnvoyFilter,
    Kind::MutatingWebhook,
    Kind::ValidatingWebhook,
    Kind::SailRevision,
];

/// What `istioctl uninstall --revision` takes by this label; gateways of the revision are among it.
const COMPONENTS: [&str; 5] = ["Pilot", "IngressGateways", "EgressGateways", "Cni", "Ztunnel"];

/// What was installed with the control plane, and goes with it.
fn parts(snapshot: &Snapshot, revision: &RevisionName, installer: &Installer) -> Vec<Id> {
    let all = PARTS.into_iter().flat_map(|k| snapshot.raw(k));
    all.filter(|o| is_part(o, revision) || is_taken(o.meta(), revision, installer)).map(Object::id).collect()
}

fn is_part(object: &Object, revision: &RevisionName) -> bool {
    let m = object.meta();
    let own = m.labels.value(key::REV).is_some_and(|r| RevisionName::new(r) == *revision) && !m.labels.has(key::TAG);
    match object {
        Object::Workload(_, w) => w.istiod_revision().as_ref() == Some(revision),
        Object::Service(_) => own && m.labels.is("app", "istiod"),
        Object::Injector(c) => own && c.is_canonical(),
        Object::Validator(c) => own && c.webhooks.iter().any(|w| w.istio) && m.name.starts_with("istio-validator"),
        Object::ConfigMap(_) => own,
        Object::Sail(_, s) => s.meta.name == revision.as_str(),
        _ => false,
    }
}

/// The command takes it whatever it is.
fn is_taken(meta: &Meta, revision: &RevisionName, installer: &Installer) -> bool {
    match installer {
        Installer::Helm { release, namespace } => meta.helm_release() == Some((release.as_str(), namespace.as_str())),
        Installer::Istioctl => {
            let component = meta.labels.value(key::COMPONENT).is_some_and(|c| COMPONENTS.contains(&c));
            component && meta.labels.is(key::REV, revision.as_str())
        }
        _ => false,
    }
}

fn installer(snapshot: &Snapshot, revision: &RevisionName) -> Installer {
    for kind in [Kind::SailIstio, Kind::SailRevision] {
        let active = |s: &Sail| s.active.as_deref() == Some(revision.as_str());
        if let Some(s) = snapshot.sails(kind).find(|s| s.meta.name == revision.as_str() || active(s)) {
            // An Istio makes its revisions anew; what it no longer needs it removes by itself.
            return Installer::Sail { kind: row(kind).name, name: s.meta.name.to_string() };
        }
    }
    let own = |w: &&Workload| w.istiod_revision().as_ref() == Some(revision);
    let Some(istiod) = snapshot.istiods().into_iter().flatten().find(own) else { return Installer::Unknown };
    if let Some((release, namespace)) = istiod.meta.helm_release() {
        return Installer::Helm { release: release.to_owned(), namespace: namespace.to_owned() };
    }
    let operators = snapshot.operators().into_iter().flatten();
    let named = |o: &&Operator| RevisionName::new(o.revision.as_deref().unwrap_or("")) == *revision;
    if let Some(o) = { operators }.find(|o| o.has_pilot() && !o.is_inert() && named(o)) {
        return Installer::Operator { name: o.meta.name.to_string(), namespace: o.meta.namespace.to_string() };
    }
    // Charts write `unknown` where nobody owns what they render.
    let owned = istiod.meta.labels.value(key::OWNER).is_some_and(|owner| owner != "unknown");
    if owned || istiod.meta.labels.has("operator.istio.io/managed") { Installer::Istioctl } else { Installer::Unknown }
}

fn command(installer: &Installer, revision: &RevisionName) -> String {
    match installer {
        Installer::Helm { release, namespace } => format!("helm uninstall {release} -n {namespace}"),
        Installer::Sail { kind: "Istio", name } => format!(
            "kubectl delete istios.sailoperator.io {name}\n(that removes all of its revisions; one that is not in use goes by itself)"
        ),
        Installer::Sail { name, .. } => format!("kubectl delete istiorevisions.sailoperator.io {name}"),
        Installer::Operator { name, namespace } => {
            format!("kubectl delete istiooperators.install.istio.io -n {namespace} {name}")
        }
        Installer::Istioctl => format!("istioctl uninstall --revision {revision}"),
        Installer::Unknown => format!(
            "istioctl uninstall --revision {revision}\n(nothing says who installed it: where Argo CD or Flux did, remove it there)"
        ),
    }
}
