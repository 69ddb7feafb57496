//! What stands around a gateway: Services, autoscalers, disruption budgets, the mesh configuration that it mounts.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::fresh::{labels, selector};
use super::json::Json;
use super::pods::selects;
use super::raw::{Listed, Raw, mesh_config};
use super::workload::is_written;
use crate::api::gateway_rollout::Flavor;
use crate::model::key;
use crate::rollout::digest;
use crate::rollout::seen::{Config, Copy, Deployment, Former, Hpa, Map, Pdb, Service};

/// Services that select these labels, and those of these names, by name.
pub fn services(raw: &Raw, source: Option<&Deployment>, named: &BTreeSet<String>) -> Vec<Service> {
    let own = |object: &&Value| {
        // What leads elsewhere selects nothing, whatever its selector says.
        if object["spec"].text("type") == "ExternalName" {
            return false;
        }
        let selected = source.is_some_and(|d| selects(&object["spec"].map("selector"), &d.template.labels));
        selected || named.contains(object.name())
    };
    let body = source.map_or(&Value::Null, |d| &d.template.body);
    let mut found: Vec<Service> =
        raw.within(Listed::Services, raw.rollout.namespace()).filter(own).map(|s| service(s, body, raw)).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn service(object: &Value, template: &Value, raw: &Raw) -> Service {
    let spec = &object["spec"];
    let ports: BTreeSet<u16> = spec.list("ports").iter().filter_map(|p| target_port(p, template)).collect();
    let ingress = object["status"]["loadBalancer"].list("ingress").iter();
    Service {
        name: Arc::from(object.name()),
        held: object.held(),
        selector: spec.map("selector"),
        local: spec.text("externalTrafficPolicy") == "Local",
        target_ports: ports.into_iter().collect(),
        ingress: ingress.map(|i| i.text_or("ip", i.text("hostname")).to_owned()).collect(),
        endpoints: endpoints(raw, object.name()),
        pruned_with: pruned_with(object),
    }
}

/// The revision with which `istioctl uninstall` takes an object along: it selects by revision and component.
fn pruned_with(object: &Value) -> Option<Arc<str>> {
    object.label(key::COMPONENT)?;
    object.label(key::REV).map(Arc::from)
}

/// The number of a Service's port on the pods of a template; `None` where a name leads to none, or nothing speaks TCP there.
pub fn target_port(port: &Value, template: &Value) -> Option<u16> {
    if !matches!(port.text("protocol"), "" | "TCP") {
        return None;
    }
    let number = |value: &Value| value.as_u64().and_then(|n| u16::try_from(n).ok());
    match &port["targetPort"] {
        Value::Null => number(&port["port"]),
        Value::String(name) => match name.parse() {
            Ok(number) => Some(number),
            Err(_) => number(&container_port(template, name)?["containerPort"]),
        },
        other => number(other),
    }
}

/// The port of this name in a template's containers.
pub fn container_port<'a>(template: &'a Value, name: &str) -> Option<&'a Value> {
    let spec = &template["spec"];
    let containers = spec.list("containers").iter().chain(spec.list("initContainers"));
    { containers }.flat_map(|c| c.list("ports")).find(|p| p.text("name") == name)
}

/// Uids of the pods that are ready endpoints of a Service. A condition that is not there counts as true.
fn endpoints(raw: &Raw, service: &str) -> Vec<Arc<str>> {
    let slices = raw.within(Listed::EndpointSlices, raw.rollout.namespace());
    let own = slices.filter(|s| s.label("kubernetes.io/service-name") == Some(service));
    let uids: BTreeSet<Arc<str>> = own
        .flat_map(|s| s.list("endpoints"))
        .filter(|e| e["conditions"]["ready"] != json!(false))
        .map(|e| e["targetRef"].text("uid"))
        .filter(|uid| !uid.is_empty())
        .map(Arc::from)
        .collect();
    uids.into_iter().collect()
}

/// Autoscalers of the namespace that scale one of these Deployments, by name.
pub fn hpas(raw: &Raw, targets: &[&str]) -> Vec<Hpa> {
    let mut found: Vec<Hpa> = raw
        .within(Listed::Hpas, raw.rollout.namespace())
        .filter(|h| scales(h).is_some_and(|name| targets.contains(&name)))
        .map(hpa)
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// The Deployment that an autoscaler scales.
pub fn scales(object: &Value) -> Option<&str> {
    let target = &object["spec"]["scaleTargetRef"];
    let is_deployment =
        target.text("kind") == "Deployment" && target.text_or("apiVersion", "apps/v1").starts_with("apps/");
    is_deployment.then(|| target.text("name"))
}

fn hpa(object: &Value) -> Hpa {
    let spec = &object["spec"];
    Hpa {
        name: Arc::from(object.name()),
        held: object.held(),
        target: Arc::from(scales(object).unwrap_or("")),
        min: spec.count("minReplicas").unwrap_or(1),
        max: spec.count("maxReplicas").unwrap_or(0),
        desired: object["status"].count("desiredReplicas").unwrap_or(0),
        active: object.condition("ScalingActive").map(|(status, _)| status == "True"),
        owned: keeper(object).is_some(),
        written: is_written(object),
        pruned_with: pruned_with(object),
    }
}

/// Who would put an autoscaler back as it was.
pub fn keeper(object: &Value) -> Option<String> {
    let owners = object["metadata"].list("ownerReferences");
    if let Some(owner) = owners.first() {
        return Some(format!("{} {}", owner.text("kind"), owner.text("name")));
    }
    object.label("scaledobject.keda.sh/name").map(|name| format!("ScaledObject {name}"))
}

/// Disruption budgets of the namespace that select these labels, by name.
pub fn pdbs(raw: &Raw, own: &Map) -> Vec<Pdb> {
    let own = labels(own);
    let mut found: Vec<Pdb> = raw
        .within(Listed::Pdbs, raw.rollout.namespace())
        .filter(|p| selector(&p["spec"]["selector"]).is_some_and(|s| s.matches(&own)))
        .map(|p| Pdb {
            name: Arc::from(p.name()),
            held: p.held(),
            pruned_with: pruned_with(p),
            selector: p["spec"]["selector"].map("matchLabels"),
            disruptions_allowed: p["status"].count("disruptionsAllowed").unwrap_or(0),
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// The mesh configuration of revision `to`, whose istiod is in namespace `plane`, and what is left of that of `from`.
pub fn config(raw: &Raw, flavor: Option<Flavor>, from: Option<&str>, to: &str, plane: &str) -> Config {
    let home = raw.rollout.namespace();
    let mounted = flavor == Some(Flavor::ConfigMapMount);
    if !mounted {
        return Config::default();
    }
    let name = mesh_config(to);
    let uid = raw.rollout["metadata"].text("uid");
    let data = |namespace: &str| raw.get(Listed::ConfigMaps, namespace, &name);
    Config {
        needed: plane != home,
        original: data(plane).map(|c| Arc::from(hash(c))),
        copy: data(home).filter(|_| plane != home).map(|c| Copy {
            held: c.held(),
            hash: Arc::from(hash(c)),
            ours: !uid.is_empty() && c.label(key::ROLLOUT) == Some(uid),
            shared: is_shared(raw, &name),
        }),
        name: Arc::from(name),
        former: from.filter(|from| *from != to).and_then(|from| former(raw, mesh_config(from))),
    }
}

/// What only rollouts mark like this, and no Deployment or pod of the namespace goes on mounting.
fn former(raw: &Raw, name: String) -> Option<Former> {
    let home = raw.rollout.namespace();
    let copy = raw.get(Listed::ConfigMaps, home, &name)?;
    let made = copy.label(key::ROLLOUT).is_some() && copy.annotation(key::SOURCE_HASH).is_some();
    let is_template = raw.within(Listed::Deployments, home).any(|d| mounts(&d["spec"]["template"], &name));
    let (ending, staying): (Vec<&Value>, Vec<&Value>) =
        raw.within(Listed::Pods, home).filter(|p| mounts(p, &name)).partition(|p| p.is_deleting());
    let free = made && !copy.is_deleting() && !is_template && staying.is_empty();
    free.then(|| Former { held: copy.held(), name: Arc::from(name), ending: !ending.is_empty() })
}

/// A Deployment of the namespace mounts a mesh configuration that is none of this rollout's.
fn is_shared(raw: &Raw, name: &str) -> bool {
    let uid = raw.rollout["metadata"].text("uid");
    let mut deployments = raw.within(Listed::Deployments, raw.rollout.namespace());
    deployments.any(|d| d.label(key::ROLLOUT) != Some(uid) && mounts(&d["spec"]["template"], name))
}

/// Of a pod, or a template.
fn mounts(pod: &Value, config_map: &str) -> bool {
    pod["spec"].list("volumes").iter().any(|v| v["configMap"].text("name") == config_map)
}

/// Of what a ConfigMap holds.
pub fn hash(object: &Value) -> String {
    digest::of(&json!([object["data"], object["binaryData"]]))
}
