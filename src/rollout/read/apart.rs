//! By which label a pod can be set apart: its value changes, the pod leaves its Services and its ReplicaSet, and nothing else
//! that selects pods notices.
//!
//! Everything that selects is asked twice, with the pod's labels as they are and with the changed value. A Service or the Deployment that
//! would keep the pod, and a policy that would lose it (or begin to hold it), rules the label out. What could not be read
//! rules every label out: a pod that loses its policies still serves.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::fresh::{labels, pairs, selector};
use super::json::Json;
use super::raw::{Listed, Raw, root_namespaces};
use crate::model::{Labels, Selector};
use crate::rollout::names::APART;
use crate::rollout::seen::{Deployment, Map, Of, Pod, Service};
use crate::snapshot::Snapshot;

/// Something that selects pods of the gateway's namespace.
pub struct Selecting {
    /// `Kind/namespace/name`.
    pub object: String,
    pub listed: Listed,
    pub selector: Selector,
    /// Only an entry of a list of peers: it lets the pod through, or not.
    pub peer: bool,
}

/// Istio's kinds with a workload selector, and where in the object it stands.
const ISTIO: [(Listed, &str); 10] = [
    (Listed::Gateways, "/spec/selector"),
    (Listed::Sidecars, "/spec/workloadSelector/labels"),
    (Listed::EnvoyFilters, "/spec/workloadSelector/labels"),
    (Listed::ProxyConfigs, "/spec/selector/matchLabels"),
    (Listed::DestinationRules, "/spec/workloadSelector/matchLabels"),
    (Listed::AuthorizationPolicies, "/spec/selector/matchLabels"),
    (Listed::RequestAuthentications, "/spec/selector/matchLabels"),
    (Listed::PeerAuthentications, "/spec/selector/matchLabels"),
    (Listed::Telemetries, "/spec/selector/matchLabels"),
    (Listed::WasmPlugins, "/spec/selector/matchLabels"),
];

/// Everything of Istio and of Kubernetes' network policy that selects pods of the gateway's namespace by their labels. What selects
/// all of them is left out: no label changes that.
pub fn selecting(raw: &Raw, known: &Snapshot) -> Vec<Selecting> {
    let home = raw.rollout.namespace();
    let mut places: BTreeSet<String> = root_namespaces(raw, known);
    places.insert(home.to_owned());
    let mut all = Vec::new();
    for (listed, at) in ISTIO {
        // A Gateway opens ports on pods of every namespace.
        let here = |o: &&Value| listed == Listed::Gateways || places.contains(o.namespace());
        for object in raw.all(listed).iter().filter(here) {
            let wanted = object.pointer(parent(at)).map(|o| o.map(last(at))).unwrap_or_default();
            add(&mut all, listed, object, &wanted);
        }
    }
    // It selects pods of its own namespace as endpoints, and loses them rightly; but then its clients are others than the Service's.
    for object in raw.within(Listed::ServiceEntries, home) {
        add(&mut all, Listed::ServiceEntries, object, &object["spec"]["workloadSelector"].map("labels"));
    }
    all.extend(raw.all(Listed::NetworkPolicies).iter().flat_map(|policy| policed(policy, home, known)));
    all
}

fn add(all: &mut Vec<Selecting>, listed: Listed, object: &Value, wanted: &Map) {
    if !wanted.is_empty() {
        all.push(Selecting { object: named(listed, object), listed, selector: pairs(wanted), peer: false });
    }
}

fn parent(pointer: &str) -> &str {
    pointer.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn last(pointer: &str) -> &str {
    pointer.rsplit_once('/').map_or(pointer, |(_, last)| last)
}

/// How a finding names an object.
pub fn named(listed: Listed, object: &Value) -> String {
    format!("{}/{}/{}", listed.row().kind, object.namespace(), object.name())
}

/// The selectors of a network policy that may hold pods of the namespace `home`: its own, and those of its peers.
fn policed(policy: &Value, home: &str, known: &Snapshot) -> Vec<Selecting> {
    let (spec, own) = (&policy["spec"], policy.namespace());
    let mut all = Vec::new();
    let mut add = |value: &Value, peer: bool| {
        if let Some(selector) = selector(value)
            && !selector.is_empty()
        {
            let listed = Listed::NetworkPolicies;
            all.push(Selecting { object: named(listed, policy), listed, selector, peer });
        }
    };
    if own == home {
        add(&spec["podSelector"], false);
    }
    let rules = spec.list("ingress").iter().flat_map(|r| r.list("from"));
    for peer in rules.chain(spec.list("egress").iter().flat_map(|r| r.list("to"))) {
        // Without a namespace selector a peer is in the policy's own namespace.
        let reaches = match selector(&peer["namespaceSelector"]) {
            None => own == home,
            Some(namespaces) => namespaces.matches(&known.namespace_labels(home)),
        };
        if reaches {
            add(&peer["podSelector"], true);
        }
    }
    all
}

/// The labels of a pod that was set apart by `key`.
pub fn apart(own: &Labels, key: &str) -> Labels {
    own.with(key, APART)
}

/// What is to be set apart, and from what.
pub struct Gateway<'a> {
    pub source: &'a Deployment,
    pub services: &'a [Service],
    pub pods: &'a [Pod],
}

/// The label sets of a gateway's pods: the template's, and those of the pods that there are, to which the injector adds some.
fn shapes(source: &Deployment, pods: &[Pod]) -> Vec<Labels> {
    let there = pods.iter().filter(|p| matches!(p.of, Of::Source | Of::Canary)).map(|p| &p.labels);
    let mut all: Vec<Labels> = there.chain([&source.template.labels]).map(labels).collect();
    all.sort();
    all.dedup();
    all
}

/// The key whose value takes pods of these Deployments out of these Services and of nothing else.
///
/// # Errors
/// Why there is none, as a person reads it.
pub fn key(raw: &Raw, known: &Snapshot, gateway: &Gateway<'_>) -> Result<Arc<str>, String> {
    if let Some(why) = unread(raw) {
        return Err(why);
    }
    let Gateway { source, services, pods } = gateway;
    let serving: Vec<&Service> = services.iter().filter(|s| !s.selector.is_empty()).collect();
    let Some(first) = serving.first() else { return Err("no Service selects its pods".into()) };
    let own = shapes(source, pods);
    let selecting = selecting(raw, known);
    let mut reasons = Vec::new();
    let mut fit = Vec::new();
    for key in first.selector.keys() {
        match own.iter().find_map(|own| unfit(key, own, source, &serving, &selecting)) {
            None => fit.push(key),
            Some(why) => reasons.push(why),
        }
    }
    // Best is one that takes the pod out of its disruption budgets as well: a pod apart would count as one that serves.
    let leaves =
        |key: &&&String| own.iter().all(|own| counted_by(raw, own).iter().all(|(_, s)| !s.matches(&apart(own, key))));
    let best = fit.iter().find(leaves).or(fit.first());
    best.map(|key| Arc::from(key.as_str())).ok_or_else(|| reasons.join("; "))
}

/// Disruption budgets that count pods of these labels.
pub fn counted_by(raw: &Raw, own: &Labels) -> Vec<(String, Selector)> {
    raw.within(Listed::Pdbs, raw.rollout.namespace())
        .filter_map(|p| Some((p.name().to_owned(), selector(&p["spec"]["selector"])?)))
        .filter(|(_, s)| s.matches(own))
        .collect()
}

/// Kinds that were not read. Of manifests they are taken as absent, and the plan says so.
fn unread(raw: &Raw) -> Option<String> {
    if raw.is_of_manifests() {
        return None;
    }
    if !raw.is_guarded() {
        return Some("what selects its pods was not looked at".into());
    }
    let kinds = ISTIO.iter().map(|(listed, _)| *listed).chain([Listed::ServiceEntries, Listed::NetworkPolicies]);
    { kinds }.find_map(|listed| raw.unread(listed)).map(str::to_owned)
}

/// Why a key will not do.
fn unfit(
    key: &str,
    own: &Labels,
    source: &Deployment,
    serving: &[&Service],
    selecting: &[Selecting],
) -> Option<String> {
    let apart = apart(own, key);
    if let Some(keeps) = serving.iter().find(|s| pairs(&s.selector).matches(&apart)) {
        return Some(format!("label {key} is not in the selector of Service {}", keeps.name));
    }
    if pairs(&source.selector).matches(&apart) {
        return Some(format!(
            "label {key} is not in the selector of Deployment {}, which would count the pod on",
            source.name
        ));
    }
    let changed = selecting.iter().find(|s| s.selector.matches(own) != s.selector.matches(&apart))?;
    let how = if changed.peer { "lets pods through by it" } else { "selects by it" };
    Some(format!("label {key} cannot be changed, because {} {how}", changed.object))
}
