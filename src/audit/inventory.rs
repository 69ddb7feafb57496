//! Revisions, tags, who uses them, validators and injectors: the mesh at a glance.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::Entry;
use crate::model::{Backend, FailurePolicy, Kind, Object, RevisionName};
use crate::rules::Level;
use crate::snapshot::mesh::Answers;
use crate::snapshot::usage::Use;
use crate::snapshot::{Known, Snapshot};

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inventory {
    pub revisions: Vec<Revision>,
    pub tags: Vec<Tag>,
    pub injectors: Vec<Injector>,
    pub validators: Vec<Validator>,
    /// Running pods of revisions that no control plane has.
    pub lost: Vec<Lost>,
    /// Running pods that no revision injected, of those that were read.
    pub pods_without_revision: u32,
    /// Findings by level.
    pub findings: BTreeMap<&'static str, u32>,
    /// What could not be looked at.
    pub unknown: Vec<String>,
}

/// One control plane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    pub name: String,
    pub version: Option<String>,
    /// Namespaces of its istiods.
    pub namespaces: Vec<String>,
    /// An istiod of it is in the cluster.
    pub installed: bool,
    /// Ready endpoints of its istiod; `None` if they cannot be told or it is outside of the cluster.
    pub endpoints: Option<u32>,
    pub tags: Vec<String>,
    /// Pods asking for nothing else than `istio-injection=enabled` go here.
    pub is_default: bool,
    pub users: Users,
}

/// Who uses a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Users {
    /// Namespaces that ask for it, by its name or through a tag.
    pub namespaces: Vec<String>,
    /// Running pods with its sidecar.
    pub workload_pods: u32,
    /// Running pods of gateways that it injected.
    pub gateway_pods: u32,
    /// Gateways that attach to it: `namespace/name`.
    pub gateways: Vec<String>,
    /// Workloads that ask by themselves, gateways not among them.
    pub templates: u32,
    /// Istio configuration pinned to it.
    pub config: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tag {
    pub name: String,
    /// The revision behind it.
    pub revision: Option<String>,
    /// An injector answers to it.
    pub served: bool,
    /// Namespaces that ask for it by its name.
    pub namespaces: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Injector {
    pub name: String,
    pub revision: Option<String>,
    pub tag: Option<String>,
    /// Some pod could make the API server call it.
    pub live: bool,
    /// Its Service is missing or has no endpoint.
    pub dangling: bool,
    /// Another configuration answers to a name that this one answers to.
    pub conflicting: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Validator {
    pub name: String,
    pub revision: Option<String>,
    /// `namespace/name` of the Service, or the URL.
    pub backend: String,
    /// It judges what names no revision.
    pub catch_all: bool,
    pub failure_policy: &'static str,
    /// Its Service is missing or has no endpoint.
    pub dangling: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lost {
    pub revision: String,
    pub pods: u32,
    /// `namespace/workload` of the first few.
    pub workloads: Vec<String>,
}

/// Everything at a glance. `entries` are counted only.
pub fn inventory(snapshot: &Snapshot, entries: &[Entry]) -> Inventory {
    let mut out = Inventory { findings: Level::ALL.iter().map(|l| (l.as_str(), 0)).collect(), ..Inventory::default() };
    for e in entries {
        *out.findings.entry(e.level.as_str()).or_default() += 1;
    }
    let mut unknown = BTreeSet::new();
    let names = note(snapshot.revisions(), &mut unknown).unwrap_or_default();
    let pods = running(snapshot);
    out.revisions = names.iter().map(|name| revision(snapshot, name, &pods, &mut unknown)).collect();
    out.tags = tags(snapshot);
    out.injectors = injectors(snapshot, &mut unknown);
    out.validators = validators(snapshot, &mut unknown);
    for (name, found) in pods {
        if !names.iter().any(|r| r.as_str() == name) {
            let pods = found.iter().map(|(_, n)| n).sum();
            let workloads = found.into_iter().map(|(place, _)| place).take(5).collect();
            out.lost.push(Lost { revision: name, pods, workloads });
        }
    }
    out.pods_without_revision = without_revision(snapshot);
    out.unknown = unknown.into_iter().collect();
    out
}

/// The answer, or a note that there is none.
fn note<T>(answer: Known<T>, unknown: &mut BTreeSet<String>) -> Option<T> {
    answer.map_err(|u| unknown.insert(u.to_string())).ok()
}

/// Running pods by the revision that injected them: `namespace/workload` and how many.
fn running(snapshot: &Snapshot) -> BTreeMap<String, Vec<(String, u32)>> {
    let mut all: BTreeMap<String, Vec<(String, u32)>> = BTreeMap::new();
    for (revision, namespace, workload, count) in snapshot.all_runs() {
        all.entry(revision.to_string()).or_default().push((format!("{namespace}/{workload}"), count));
    }
    all
}

fn without_revision(snapshot: &Snapshot) -> u32 {
    let pods = snapshot.raw(Kind::Pod).filter(|o| match o {
        Object::Pod(p) => {
            p.revision.is_none()
                && !p.meta.deleting
                && p.status.is_none_or(|s| !s.over)
                && !p.meta.labels.is("app", "istiod")
        }
        _ => false,
    });
    u32::try_from(pods.count()).unwrap_or(u32::MAX)
}

fn revision(
    snapshot: &Snapshot,
    name: &RevisionName,
    pods: &BTreeMap<String, Vec<(String, u32)>>,
    unknown: &mut BTreeSet<String>,
) -> Revision {
    let plane = snapshot.control_planes().ok().and_then(|mut all| all.remove(name)).unwrap_or_default();
    let default = snapshot.injectors().ok().and_then(|i| i.default_hook()).and_then(|h| h.revision.as_ref());
    let usage = snapshot.usage(name);
    unknown.extend(usage.unknown.iter().map(ToString::to_string));
    let mut users = Users::default();
    for user in usage.uses.iter().chain(&usage.idle) {
        match user {
            Use::Namespace { name, .. } => users.namespaces.push(name.to_string()),
            Use::Template { kind, namespace, name, .. } => {
                let gateway = snapshot.workload(*kind, namespace, name).is_some_and(|w| w.is_gateway());
                if gateway { users.gateways.push(format!("{namespace}/{name}")) } else { users.templates += 1 }
            }
            Use::Config { .. } => users.config += 1,
            Use::Pods { .. } | Use::Tag { .. } | Use::Validator { .. } | Use::Rollout { .. } | Use::ByDefault => {}
        }
    }
    let gateways: BTreeSet<String> = snapshot
        .gateways()
        .into_iter()
        .flatten()
        .map(|(_, w)| format!("{}/{}", w.meta.namespace, w.meta.name))
        .collect();
    for (place, count) in pods.get(name.as_str()).into_iter().flatten() {
        if gateways.contains(place) { users.gateway_pods += count } else { users.workload_pods += count }
    }
    Revision {
        name: name.to_string(),
        version: plane.version.map(|v| v.to_string()),
        namespaces: plane.namespaces,
        installed: plane.installed,
        endpoints: note(snapshot.ready_endpoints(name), unknown).flatten(),
        tags: snapshot.tags_of(name),
        is_default: default == Some(name),
        users,
    }
}

fn tags(snapshot: &Snapshot) -> Vec<Tag> {
    let namespaces = |tag: &str| {
        let uses = snapshot.asking_for(tag).uses.into_iter();
        uses.filter_map(|u| match u {
            Use::Namespace { name, .. } => Some(name.to_string()),
            _ => None,
        })
        .collect()
    };
    let one = |name: String| Tag {
        revision: snapshot.revision_behind(&name).ok().flatten().map(|r| r.to_string()),
        served: snapshot.is_served(&name).unwrap_or(false),
        namespaces: namespaces(&name),
        name,
    };
    snapshot.tags().into_iter().map(one).collect()
}

fn injectors(snapshot: &Snapshot, unknown: &mut BTreeSet<String>) -> Vec<Injector> {
    let Some(all) = note(snapshot.injectors(), unknown) else { return Vec::new() };
    let conflicting: BTreeSet<String> = snapshot
        .injector_conflicts()
        .unwrap_or_default()
        .into_iter()
        .flat_map(|c| c.configs)
        .map(|c| c.to_string())
        .collect();
    let live = all.live();
    snapshot
        .injector_configs()
        .filter(|c| c.is_istio())
        .map(|c| {
            let live = live.contains(&c.meta.name);
            let mut backends = c.hooks.iter().filter(|h| h.istio).map(|h| &h.backend);
            Injector {
                name: c.meta.name.to_string(),
                revision: c.revision().map(|r| r.to_string()),
                tag: c.tag().map(|t| t.to_string()),
                live,
                dangling: live && backends.any(|b| is_dangling(snapshot, b)),
                conflicting: conflicting.contains(c.meta.name.as_str()),
            }
        })
        .collect()
}

fn validators(snapshot: &Snapshot, unknown: &mut BTreeSet<String>) -> Vec<Validator> {
    let mut out = Vec::new();
    for config in note(snapshot.validators(), unknown).into_iter().flatten() {
        for w in config.webhooks.iter().filter(|w| w.istio) {
            out.push(Validator {
                name: config.meta.name.to_string(),
                revision: config.revision().map(|r| r.to_string()),
                backend: match &w.backend {
                    Backend::Service { namespace, name, .. } => format!("{namespace}/{name}"),
                    Backend::Url(url) => url.to_string(),
                    Backend::None => String::new(),
                },
                catch_all: w.is_catch_all(),
                failure_policy: match w.failure_policy {
                    FailurePolicy::Fail => "Fail",
                    FailurePolicy::Ignore => "Ignore",
                },
                dangling: is_dangling(snapshot, &w.backend),
            });
        }
    }
    out
}

/// Nobody answers behind it. What cannot be told is not dangling.
fn is_dangling(snapshot: &Snapshot, backend: &Backend) -> bool {
    matches!(snapshot.answers(backend), Ok(Answers::Missing | Answers::Nobody))
}
