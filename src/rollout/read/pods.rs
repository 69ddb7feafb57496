//! Pods: whose they are, of which revision, whether they serve, and what they show of their proxies.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::fresh::{labels, pairs};
use super::json::{Json, time};
use super::raw::{Listed, Raw};
use super::workload::behind;
use crate::model::workload::PROXY;
use crate::model::{self, ConfigMap, Kind, Object, Selector, key};
use crate::rollout::names::APART;
use crate::rollout::seen::{Deployment, Map, Of, Pod, Shows};
use crate::snapshot::Snapshot;
use crate::wire::manifest::typed;

/// The Deployments that a gateway's pods may belong to.
pub struct Family<'a> {
    pub source: Option<&'a Deployment>,
    pub canary: Option<&'a Deployment>,
    pub standby: Option<&'a Deployment>,
    /// Uid of the rollout.
    pub uid: &'a str,
}

/// The waiting reasons of containers that do not go away by themselves, or only when somebody else does something.
const TROUBLES: [&str; 8] = [
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

/// Pods that any of these Deployments selects, or that carry the rollout's label, by name.
pub fn read(raw: &Raw, family: &Family<'_>, fresh: &Snapshot) -> Vec<Pod> {
    let namespace = raw.rollout.namespace();
    let deployments = [family.source, family.canary, family.standby];
    let selectors: Vec<Selector> =
        deployments.into_iter().flatten().filter(|d| !d.selector.is_empty()).map(|d| pairs(&d.selector)).collect();
    let mut pods: Vec<Pod> = raw
        .within(Listed::Pods, namespace)
        .filter(|p| !matches!(p["status"].text("phase"), "Succeeded" | "Failed"))
        .filter(|p| {
            let own = labels(&p.labels());
            p.label(key::ROLLOUT) == Some(family.uid) || selectors.iter().any(|s| s.matches(&own))
        })
        .map(|p| pod(p, raw, family, fresh))
        .collect();
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    pods
}

fn pod(object: &Value, raw: &Raw, family: &Family<'_>, fresh: &Snapshot) -> Pod {
    let (meta, status) = (&object["metadata"], &object["status"]);
    let template = match typed(Kind::Pod, object) {
        Ok(Object::Pod(pod)) => pod.template.map(|t| *t).unwrap_or_default(),
        _ => model::Template::default(),
    };
    let (ready, since) = condition(object, "Ready");
    Pod {
        name: Arc::from(object.name()),
        held: object.held(),
        of: of(object, family),
        revision: revision(object, fresh).map(Arc::from),
        template_hash: object.label("pod-template-hash").map(Arc::from),
        labels: object.labels(),
        created: time(meta.text("creationTimestamp")).unwrap_or(Timestamp::UNIX_EPOCH),
        ready,
        containers_ready: condition(object, "ContainersReady").0,
        ready_since: since.filter(|_| ready),
        deleting: object.is_deleting(),
        trouble: trouble(object).map(Arc::from),
        node: Arc::from(object["spec"].text("nodeName")),
        ip: Some(status.text("podIP")).filter(|ip| !ip.is_empty()).map(Arc::from),
        apart_since: object.annotation(key::APART_SINCE).and_then(time),
        counted: object.controller().is_some(),
        deletion_cost: object.annotation(DELETION_COST).and_then(|c| c.parse().ok()),
        shows: shows(object, &template, raw),
    }
}

/// How dear a pod is to its ReplicaSet.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

fn condition(object: &Value, name: &str) -> (bool, Option<Timestamp>) {
    object.condition(name).map_or((false, None), |(status, since)| (status == "True", since))
}

/// Whose pod it is: by what we wrote on it ourselves, else by the Deployment whose ReplicaSet controls it. Labels alone would give the
/// second Deployment's pods to the first, whose selector matches them as well.
fn of(object: &Value, family: &Family<'_>) -> Of {
    let ours = object.label(key::ROLLOUT) == Some(family.uid);
    if ours && object.label(key::PROBE).is_some() {
        return Of::Probe;
    }
    let apart = object.annotation(key::APART_SINCE).is_some()
        || object["metadata"].map("labels").values().any(|value| value == APART);
    if ours && apart {
        return Of::Apart;
    }
    let Some(deployment) = made_by(object) else { return Of::Other };
    let is = |d: Option<&Deployment>| d.is_some_and(|d| *d.name == *deployment);
    if is(family.source) {
        Of::Source
    } else if is(family.canary) {
        Of::Canary
    } else if is(family.standby) {
        Of::Standby
    } else {
        Of::Other
    }
}

/// The Deployment behind a pod: a ReplicaSet is called after its Deployment and the hash that its pods carry.
fn made_by(object: &Value) -> Option<String> {
    let (kind, name, _) = object.controller()?;
    let hash = object.label("pod-template-hash")?;
    let deployment = name.strip_suffix(hash)?.strip_suffix('-')?;
    (kind == "ReplicaSet").then(|| deployment.to_owned())
}

/// The revision that a pod is of: its annotation, else what the injector has noted, else what its label asks for.
fn revision(object: &Value, fresh: &Snapshot) -> Option<String> {
    let annotated = object.annotation(key::REV).map(str::to_owned);
    let label = || object.label(key::REV).map(|name| behind(name, fresh));
    annotated.filter(|r| !r.is_empty()).or_else(|| injected_by(object)).or_else(label)
}

fn injected_by(object: &Value) -> Option<String> {
    let status: Value = serde_json::from_str(object.annotation(key::STATUS)?).ok()?;
    let revision = status["revision"].as_str()?;
    Some(if revision.is_empty() { "default" } else { revision }.to_owned())
}

fn trouble(object: &Value) -> Option<&str> {
    let status = &object["status"];
    let containers = status.list("initContainerStatuses").iter().chain(status.list("containerStatuses"));
    let waiting = { containers }.map(|c| c["state"]["waiting"].text("reason")).find(|r| TROUBLES.contains(r));
    let unscheduled = || {
        let found = status.list("conditions").iter().find(|c| c.text("type") == "PodScheduled")?;
        (found.text("status") == "False" && found.text("reason") == "Unschedulable").then_some("Unschedulable")
    };
    waiting.or_else(unscheduled)
}

fn shows(object: &Value, template: &model::Template, raw: &Raw) -> Shows {
    let proxy = template.container(PROXY);
    let mounted = template.config_maps.iter().find(|c| ConfigMap::is_mesh_config(&c.name));
    // Without a word about it a proxy dials what it was built with.
    let fallback = || match mounted {
        Some(config) => mesh_address(raw, &config.name).unwrap_or_else(|| BUILT_IN.to_owned()),
        None => BUILT_IN.to_owned(),
    };
    let is_proxy = proxy.is_some();
    Shows {
        image: Arc::from(proxy.map_or("", |c| c.image.as_str())),
        injected_by: injected_by(object).map(Arc::from),
        discovery: is_proxy.then(|| Arc::from(template.discovery_override().unwrap_or_else(fallback))),
        ca: proxy.and_then(|c| c.env.value("CA_ADDR")).map(|a| Arc::from(host(a))),
    }
}

/// What a proxy dials that was told nothing.
const BUILT_IN: &str = "istiod.istio-system.svc";

/// The istiod that a mesh configuration beside the gateway names.
fn mesh_address(raw: &Raw, config: &str) -> Option<String> {
    let object = raw.get(Listed::ConfigMaps, raw.rollout.namespace(), config)?;
    let mesh = object["data"].text("mesh");
    let line = mesh.lines().find_map(|l| l.trim().strip_prefix("discoveryAddress:"))?;
    let address = line.split('#').next().unwrap_or("").trim().trim_matches(['"', '\'']);
    (!address.is_empty()).then(|| host(address).to_owned())
}

fn host(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// The pairs that a map must have to be selected by another one.
pub fn selects(selector: &Map, own: &Map) -> bool {
    !selector.is_empty() && pairs(selector).matches(&labels(own))
}
