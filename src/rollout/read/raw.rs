//! The objects that a rollout is seen by, as JSON, and the table of what has to be read for that.
//!
//! [`missing`] says what is to be asked next, and whoever asks the API server puts the answers in, until nothing is missing; manifests
//! are put in as they are. Nothing here asks, and nothing is filtered: lists of several namespaces lie in one place and are
//! told apart by what their objects say of themselves.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::json::Json;
use crate::api::gateway_rollout::GatewayRolloutSpec;
use crate::model::{ConfigMap, RevisionName};
use crate::snapshot::Snapshot;

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Listed {
    Rollouts,
    Deployments,
    DaemonSets,
    Pods,
    Services,
    EndpointSlices,
    Hpas,
    Pdbs,
    ConfigMaps,
    Injectors,
    Quotas,
    NetworkPolicies,
    Gateways,
    Sidecars,
    EnvoyFilters,
    ProxyConfigs,
    DestinationRules,
    ServiceEntries,
    AuthorizationPolicies,
    RequestAuthentications,
    PeerAuthentications,
    Telemetries,
    WasmPlugins,
}

/// Where it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The gateway's namespace.
    Gateway,
    /// … and the namespaces of the two control planes.
    GatewayAndPlanes,
    /// … and the root namespaces of their meshes.
    GatewayAndRoots,
    /// Every namespace, or a kind that has none.
    Cluster,
}

/// When it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Before every plan.
    Always,
    /// When the guards are asked, and before pods are set apart.
    Guards,
}

/// One kind: its address, where and when it is read, and why.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub listed: Listed,
    /// API group; empty for core.
    pub group: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    /// Versions that can be read, newest first.
    pub versions: &'static [&'static str],
    pub place: Place,
    pub when: When,
    pub why: &'static str,
}

// One line a kind, so that the table below reads as a table.
#[allow(clippy::too_many_arguments)]
const fn row(
    listed: Listed,
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    versions: &'static [&'static str],
    place: Place,
    when: When,
    why: &'static str,
) -> Row {
    Row { listed, group, kind, plural, versions, place, when, why }
}

const SELECTS: &str = "what selects a gateway's pods must go on selecting them, and by which label";

/// What a rollout reads, in the order of [`Listed`].
#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    row(Listed::Rollouts, "revguard.dev", "GatewayRollout", "gatewayrollouts", &["v1alpha1"], Place::Gateway, When::Always, "one rollout at a time moves a gateway"),
    row(Listed::Deployments, "apps", "Deployment", "deployments", &["v1"], Place::GatewayAndPlanes, When::Always, "the gateway, what was made beside it, and the istiods"),
    row(Listed::DaemonSets, "apps", "DaemonSet", "daemonsets", &["v1"], Place::Gateway, When::Guards, "a gateway that runs on every node cannot be moved step by step"),
    row(Listed::Pods, "", "Pod", "pods", &["v1"], Place::Gateway, When::Always, "which pods serve"),
    row(Listed::Services, "", "Service", "services", &["v1"], Place::GatewayAndPlanes, When::Always, "which pods get traffic"),
    row(Listed::EndpointSlices, "discovery.k8s.io", "EndpointSlice", "endpointslices", &["v1"], Place::GatewayAndPlanes, When::Always, "which pods get traffic"),
    row(Listed::Hpas, "autoscaling", "HorizontalPodAutoscaler", "horizontalpodautoscalers", &["v2"], Place::Gateway, When::Always, "who else scales the gateway"),
    row(Listed::Pdbs, "policy", "PodDisruptionBudget", "poddisruptionbudgets", &["v1"], Place::Gateway, When::Always, "who else counts the gateway's pods"),
    row(Listed::ConfigMaps, "", "ConfigMap", "configmaps", &["v1"], Place::GatewayAndPlanes, When::Always, "mesh configurations, their copies, and root certificates; by name"),
    row(Listed::Injectors, "admissionregistration.k8s.io", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", &["v1"], Place::Cluster, When::Always, "who injects new pods"),
    row(Listed::Quotas, "", "ResourceQuota", "resourcequotas", &["v1"], Place::Gateway, When::Guards, "whether there is room for twice the pods"),
    row(Listed::NetworkPolicies, "networking.k8s.io", "NetworkPolicy", "networkpolicies", &["v1"], Place::Cluster, When::Guards, SELECTS),
    row(Listed::Gateways, "networking.istio.io", "Gateway", "gateways", &["v1", "v1beta1", "v1alpha3"], Place::Cluster, When::Guards, SELECTS),
    row(Listed::Sidecars, "networking.istio.io", "Sidecar", "sidecars", &["v1", "v1beta1", "v1alpha3"], Place::GatewayAndRoots, When::Guards, SELECTS),
    row(Listed::EnvoyFilters, "networking.istio.io", "EnvoyFilter", "envoyfilters", &["v1alpha3"], Place::GatewayAndRoots, When::Guards, SELECTS),
    row(Listed::ProxyConfigs, "networking.istio.io", "ProxyConfig", "proxyconfigs", &["v1beta1"], Place::GatewayAndRoots, When::Guards, SELECTS),
    row(Listed::DestinationRules, "networking.istio.io", "DestinationRule", "destinationrules", &["v1", "v1beta1", "v1alpha3"], Place::GatewayAndRoots, When::Guards, SELECTS),
    row(Listed::ServiceEntries, "networking.istio.io", "ServiceEntry", "serviceentries", &["v1", "v1beta1", "v1alpha3"], Place::GatewayAndRoots, When::Guards, SELECTS),
    row(Listed::AuthorizationPolicies, "security.istio.io", "AuthorizationPolicy", "authorizationpolicies", &["v1", "v1beta1"], Place::GatewayAndRoots, When::Guards, SELECTS),
    row(Listed::RequestAuthentications, "security.istio.io", "RequestAuthentication", "requestauthentications", &["v1", "v1beta1"], Place::GatewayAndRoots, When::Guards, SELECTS),
    row(Listed::PeerAuthentications, "security.istio.io", "PeerAuthentication", "peerauthentications", &["v1", "v1beta1"], Place::GatewayAndRoots, When::Guards, SELECTS),
    row(Listed::Telemetries, "telemetry.istio.io", "Telemetry", "telemetries", &["v1", "v1alpha1"], Place::GatewayAndRoots, When::Guards, SELECTS),
    row(Listed::WasmPlugins, "extensions.istio.io", "WasmPlugin", "wasmplugins", &["v1alpha1"], Place::GatewayAndRoots, When::Guards, SELECTS),
];

impl Listed {
    pub fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The kind of a manifest.
    pub fn of(group: &str, kind: &str) -> Option<Listed> {
        TABLE.iter().find(|r| r.group == group && r.kind == kind).map(|r| r.listed)
    }
}

/// One thing to ask the API server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    pub listed: Listed,
    /// Empty: the whole cluster, or a kind without namespaces.
    pub namespace: String,
    /// One object by its name, which may not be there; `None`: the list.
    pub name: Option<String>,
}

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    /// The GatewayRollout itself.
    pub rollout: Value,
    lists: BTreeMap<Listed, Vec<Value>>,
    asked: BTreeSet<Question>,
    unread: BTreeMap<Listed, String>,
    manifests: bool,
}

impl Raw {
    /// For a rollout that the API server holds; [`missing`] says what to put in.
    pub fn of(rollout: Value) -> Raw {
        Raw { rollout, ..Raw::default() }
    }

    /// Of manifests: what they do not hold is not there, and [`Raw::unread`] names the kinds that nobody gave.
    pub fn manifests(rollout: Value, objects: impl IntoIterator<Item = Value>) -> Raw {
        let mut raw = Raw { rollout, manifests: true, ..Raw::default() };
        for object in objects {
            let (version, kind) = (object.text("apiVersion"), object.text("kind"));
            let group = version.rsplit_once('/').map_or("", |(group, _)| group);
            if let Some(listed) = Listed::of(group, kind) {
                raw.lists.entry(listed).or_default().push(object);
            }
        }
        let none = |row: &&Row| !raw.lists.contains_key(&row.listed);
        raw.unread = TABLE
            .iter()
            .filter(none)
            .map(|row| (row.listed, format!("the manifests hold no {}", row.plural)))
            .collect();
        raw
    }

    /// Puts in what the API server answered. A kind that the cluster does not have is an empty answer.
    pub fn answer(&mut self, question: Question, items: Vec<Value>) {
        self.lists.entry(question.listed).or_default().extend(items);
        self.asked.insert(question);
    }

    /// Notes that a question got no answer: why, as a person reads it.
    pub fn refuse(&mut self, question: Question, why: String) {
        self.unread.entry(question.listed).or_insert(why);
        self.asked.insert(question);
    }

    /// Everything of a kind that was read.
    pub fn all(&self, listed: Listed) -> &[Value] {
        self.lists.get(&listed).map_or(&[], Vec::as_slice)
    }

    /// Those of one namespace.
    pub fn within<'a>(&'a self, listed: Listed, namespace: &'a str) -> impl Iterator<Item = &'a Value> {
        self.all(listed).iter().filter(move |o| o.namespace() == namespace)
    }

    pub fn get(&self, listed: Listed, namespace: &str, name: &str) -> Option<&Value> {
        self.all(listed).iter().find(|o| o.namespace() == namespace && o.name() == name)
    }

    /// Why a kind was not read whole, if it was not.
    pub fn unread(&self, listed: Listed) -> Option<&str> {
        self.unread.get(&listed).map(String::as_str)
    }

    /// Everything that is read only when the guards are asked has been asked for.
    pub fn is_guarded(&self) -> bool {
        self.manifests || self.asked.iter().any(|q| q.listed == Listed::NetworkPolicies)
    }

    /// It was made from manifests.
    pub fn is_of_manifests(&self) -> bool {
        self.manifests
    }
}

/// What is still to be asked; empty when everything is there. Answers lead to further questions: where the mesh's root is stands in a
/// ConfigMap. `guards`: also what only they look at.
pub fn missing(raw: &Raw, known: &Snapshot, guards: bool) -> Vec<Question> {
    if raw.manifests {
        return Vec::new();
    }
    let gateway = raw.rollout.namespace().to_owned();
    let planes = plane_namespaces(raw, known);
    let mut all = BTreeSet::new();
    for row in TABLE.iter().filter(|r| guards || r.when == When::Always) {
        let mut ask = |namespace: &str, name: Option<String>| {
            all.insert(Question { listed: row.listed, namespace: namespace.to_owned(), name });
        };
        if row.listed == Listed::ConfigMaps {
            for namespace in planes.iter().chain([&gateway]) {
                config_names(raw, guards).into_iter().for_each(|name| ask(namespace, Some(name)));
            }
            continue;
        }
        match row.place {
            Place::Cluster => ask("", None),
            Place::Gateway => ask(&gateway, None),
            Place::GatewayAndPlanes => planes.iter().chain([&gateway]).for_each(|ns| ask(ns, None)),
            Place::GatewayAndRoots => root_namespaces(raw, known).iter().chain([&gateway]).for_each(|ns| ask(ns, None)),
        }
    }
    all.into_iter().filter(|q| !raw.asked.contains(q)).collect()
}

/// The revisions that a rollout is about, as far as its object says: where to, where from.
fn revisions(raw: &Raw) -> Vec<String> {
    let spec = &raw.rollout["spec"];
    let from = spec.text_or("fromRevision", raw.rollout["status"].text("fromRevision"));
    [spec.text("toRevision"), from].into_iter().filter(|r| !r.is_empty()).map(str::to_owned).collect()
}

/// ConfigMaps that are read by their names: the mesh configurations of both revisions, and the root certificate that proxies mount.
fn config_names(raw: &Raw, guards: bool) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = revisions(raw).iter().map(|r| mesh_config(r)).collect();
    if guards {
        names.insert(ConfigMap::ROOT_CERT.to_owned());
    }
    names
}

/// The ConfigMap with a revision's mesh configuration.
pub fn mesh_config(revision: &str) -> String {
    if RevisionName::new(revision).is_default() { "istio".to_owned() } else { format!("istio-{revision}") }
}

/// Namespaces of istiods: of the rollout's revisions, and of every other, because which one the gateway is on is told by its pods.
pub fn plane_namespaces(raw: &Raw, known: &Snapshot) -> BTreeSet<String> {
    let planes = known.control_planes().unwrap_or_default();
    let mut all: BTreeSet<String> = planes.into_values().flat_map(|p| p.namespaces).collect();
    let hosts = known.injector_configs().flat_map(|c| c.hooks.iter()).filter(|h| h.istio);
    all.extend(hosts.filter_map(|h| match &h.backend {
        crate::model::Backend::Service { namespace, .. } => Some(namespace.to_string()),
        _ => None,
    }));
    all.remove(raw.rollout.namespace());
    all
}

/// Root namespaces of the meshes: what the mesh configurations say, else where their istiod is.
pub fn root_namespaces(raw: &Raw, known: &Snapshot) -> BTreeSet<String> {
    let mut roots = BTreeSet::new();
    let home = raw.rollout.namespace().to_owned();
    for namespace in plane_namespaces(raw, known).into_iter().chain([home.clone()]) {
        let configs: Vec<&Value> =
            raw.within(Listed::ConfigMaps, &namespace).filter(|c| ConfigMap::is_mesh_config(c.name())).collect();
        let said = configs.iter().filter_map(|c| setting(c["data"].text("mesh"), "rootNamespace"));
        roots.extend(said);
        if namespace != home {
            roots.insert(namespace);
        }
    }
    roots.remove(&home);
    roots
}

/// A scalar at the top of a mesh configuration, which is YAML.
fn setting(mesh: &str, name: &str) -> Option<String> {
    let line = mesh.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
    let value = line.split('#').next().unwrap_or("").trim().trim_matches(['"', '\'']);
    (!value.is_empty()).then(|| value.to_owned())
}

/// The spec of a GatewayRollout with its defaults, as the API server would fill them in.
///
/// # Errors
/// The field that cannot be read.
pub fn spec(rollout: &Value) -> Result<GatewayRolloutSpec, String> {
    serde_path_to_error::deserialize(&rollout["spec"]).map_err(|e| {
        let path = e.path().to_string();
        let at = if path == "." { "spec".to_owned() } else { format!("spec.{path}") };
        format!("{at}: {}", e.inner())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order() {
        for (i, row) in TABLE.iter().enumerate() {
            assert_eq!(row.listed as usize, i, "{}", row.kind);
        }
    }
}
