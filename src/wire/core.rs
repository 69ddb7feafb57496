//! Namespaces, Services, EndpointSlices, ConfigMaps, autoscalers, disruption budgets, Scales.

use serde::Deserialize;

use super::meta::ObjectMeta;
use super::tree::{list, or_default};
use super::webhook::LabelSelector;
use crate::model::{self, Labels, Object, Str};

#[derive(Deserialize)]
pub struct Namespace {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default, deserialize_with = "or_default")]
    status: NamespaceStatus,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NamespaceStatus {
    phase: Str,
}

impl From<Namespace> for Object {
    fn from(n: Namespace) -> Object {
        let mut meta = model::Meta::from(n.metadata);
        meta.deleting |= n.status.phase == "Terminating";
        Object::Namespace(model::Namespace { meta })
    }
}

#[derive(Deserialize)]
pub struct Service {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default, deserialize_with = "or_default")]
    spec: ServiceSpec,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ServiceSpec {
    r#type: Str,
    selector: Labels,
    #[serde(deserialize_with = "list")]
    ports: Vec<Port>,
    #[serde(rename = "loadBalancerIP")]
    load_balancer_ip: Option<Str>,
    #[serde(rename = "externalIPs", deserialize_with = "list")]
    external_ips: Vec<Str>,
}

#[derive(Deserialize)]
struct Port {
    #[serde(default)]
    name: Str,
    #[serde(default)]
    port: u16,
}

impl From<Service> for Object {
    fn from(s: Service) -> Object {
        Object::Service(Box::new(model::Service {
            load_balancer_ip: s.spec.load_balancer_ip.filter(|ip| !ip.is_empty()),
            external_ips: s.spec.external_ips,
            meta: s.metadata.into(),
            kind: s.spec.r#type,
            selector: s.spec.selector,
            ports: s.spec.ports.into_iter().map(|p| model::ServicePort { name: p.name, port: p.port }).collect(),
        }))
    }
}

#[derive(Deserialize)]
pub struct EndpointSlice {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default, deserialize_with = "list")]
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(default, deserialize_with = "or_default")]
    conditions: Conditions,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
}

impl From<EndpointSlice> for Object {
    fn from(s: EndpointSlice) -> Object {
        // An unset condition means ready (discovery.k8s.io/v1).
        let ready = s.endpoints.iter().filter(|e| e.conditions.ready != Some(false)).count();
        Object::EndpointSlice(model::EndpointSlice {
            meta: s.metadata.into(),
            ready: u32::try_from(ready).unwrap_or(u32::MAX),
        })
    }
}

#[derive(Deserialize)]
pub struct ConfigMap {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default, deserialize_with = "or_default")]
    data: InjectorData,
}

/// Only the key that an injector's ConfigMap keeps its templates in.
#[derive(Deserialize, Default)]
#[serde(default)]
struct InjectorData {
    config: Option<String>,
}

/// The part of an injector's configuration that names templates.
#[derive(Deserialize, Default)]
#[serde(default)]
struct InjectorConfig {
    templates: std::collections::BTreeMap<String, serde::de::IgnoredAny>,
    aliases: std::collections::BTreeMap<String, serde::de::IgnoredAny>,
}

impl From<ConfigMap> for Object {
    fn from(c: ConfigMap) -> Object {
        let meta = model::Meta::from(c.metadata);
        let config = c.data.config.filter(|_| meta.name.starts_with("istio-sidecar-injector"));
        let injection_templates = config.and_then(|text| {
            let read: InjectorConfig = super::manifest::from_yaml(&text).ok()?;
            let mut names: Vec<Str> =
                read.templates.into_keys().chain(read.aliases.into_keys()).map(Str::from).collect();
            names.sort();
            names.dedup();
            (!names.is_empty()).then_some(names)
        });
        Object::ConfigMap(Box::new(model::ConfigMap { meta, injection_templates }))
    }
}

#[derive(Deserialize)]
pub struct Hpa {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default, deserialize_with = "or_default")]
    spec: HpaSpec,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct HpaSpec {
    min_replicas: Option<u32>,
    scale_target_ref: TargetRef,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct TargetRef {
    kind: Str,
    name: Str,
}

impl From<Hpa> for Object {
    fn from(h: Hpa) -> Object {
        Object::Hpa(Box::new(model::Hpa {
            meta: h.metadata.into(),
            target_kind: h.spec.scale_target_ref.kind,
            target_name: h.spec.scale_target_ref.name,
            min_replicas: h.spec.min_replicas,
        }))
    }
}

#[derive(Deserialize)]
pub struct Pdb {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default, deserialize_with = "or_default")]
    spec: PdbSpec,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PdbSpec {
    selector: Option<LabelSelector>,
}

impl From<Pdb> for Object {
    fn from(p: Pdb) -> Object {
        // A selector that cannot be compiled is the API server's to refuse; here it selects nothing.
        let selector = p.spec.selector.and_then(|s| s.compile().ok());
        Object::Pdb(Box::new(model::Pdb { meta: p.metadata.into(), selector }))
    }
}

/// `autoscaling/v1` Scale. `spec.replicas` is absent when it is 0.
#[derive(Deserialize)]
pub struct Scale {
    #[serde(default, deserialize_with = "or_default")]
    spec: ScaleSpec,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ScaleSpec {
    replicas: u32,
}

impl Scale {
    pub fn replicas(&self) -> u32 {
        self.spec.replicas
    }
}
