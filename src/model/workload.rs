//! Pod templates and what carries them.

use super::{Labels, Meta, RevisionName, Selector, Str, Version, key};

/// A Deployment, DaemonSet, StatefulSet, ReplicaSet, Job, CronJob, or a Pod seen as its own template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    pub meta: Meta,
    /// `spec.replicas`; `None` where the kind has none. An absent value is the API server's default, 1.
    pub replicas: Option<u32>,
    /// `spec.selector`; empty where the kind has none.
    pub selector: Selector,
    pub template: Template,
    /// How many of its pods a Deployment's update may take away at once; the API server's default is 25 %.
    pub max_unavailable: Option<Share>,
    /// `status.readyReplicas` (DaemonSet: `numberReady`), if a status was read at all.
    pub ready: Option<u32>,
}

/// What rules read of a pod template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    pub labels: Labels,
    pub annotations: Labels,
    pub host_network: bool,
    /// `terminationGracePeriodSeconds`; absent means 30.
    pub grace: Option<u32>,
    pub service_account: Str,
    /// Only the containers that Istio names: [`PROXY`] and [`DISCOVERY`].
    pub containers: Vec<Container>,
    /// ConfigMaps mounted as volumes.
    pub config_maps: Vec<MountedConfigMap>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    pub name: Str,
    pub image: Str,
    /// Only the variables of `wire::workload::READ_ENV`.
    pub env: Labels,
    /// Its place in the list that holds it.
    pub index: u16,
    /// The list of init containers holds it: a native sidecar.
    pub init: bool,
    pub hooks: Hooks,
}

/// What a container does at the ends of its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hooks {
    #[default]
    None,
    /// Something, but nothing before it stops.
    Other,
    PreStop,
}

/// A number of pods, or a part of all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    Count(u32),
    Percent(u32),
}

impl Share {
    /// Of so many pods; parts of one are dropped, as Kubernetes does it for `maxUnavailable`.
    pub fn of(self, pods: u32) -> u32 {
        match self {
            Share::Count(n) => n.min(pods),
            Share::Percent(p) => u32::try_from(u64::from(pods) * u64::from(p) / 100).unwrap_or(pods).min(pods),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountedConfigMap {
    pub name: Str,
    pub optional: bool,
}

/// The proxy's container.
pub const PROXY: &str = "istio-proxy";
/// istiod's container.
pub const DISCOVERY: &str = "discovery";

impl Template {
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// `sidecar.istio.io/inject` as istiod reads it: the label beats the annotation.
    pub fn inject(&self) -> Option<&str> {
        self.labels.value(key::INJECT).or_else(|| self.annotations.value(key::INJECT))
    }

    /// Names in `inject.istio.io/templates`.
    pub fn injection_templates(&self) -> impl Iterator<Item = &str> {
        self.annotations.value(key::TEMPLATES).unwrap_or("").split(',').map(str::trim).filter(|t| !t.is_empty())
    }

    /// Its proxy comes from the injector (`image: auto`).
    pub fn is_image_auto(&self) -> bool {
        self.container(PROXY).is_some_and(|c| c.image == "auto")
    }

    /// A gateway: injected with the `gateway` template, rendered by an installer, or deployed by istiod for a
    /// Gateway API Gateway. A container called `istio-proxy` alone is not one (ztunnel has it).
    pub fn is_gateway(&self) -> bool {
        self.injection_templates().any(|t| t.contains("gateway"))
            || self.labels.value(key::COMPONENT).is_some_and(is_gateway_component)
            || self.labels.has(key::GATEWAY_MANAGED)
    }

    /// Version of an explicit proxy image; `auto` and unversioned tags have none.
    pub fn proxy_version(&self) -> Option<Version> {
        self.container(PROXY).and_then(|c| Version::of_image(&c.image))
    }

    /// The istiod host that the template itself names, strongest first: the deprecated annotation, the proxy
    /// configuration, the proxy's environment.
    pub fn discovery_host(&self) -> Option<String> {
        if let Some(address) = self.annotations.value(key::DISCOVERY_ADDRESS) {
            return Some(host(address));
        }
        if let Some(address) = self.annotations.value(key::PROXY_CONFIG).and_then(discovery_address) {
            return Some(host(&address));
        }
        let env = &self.container(PROXY)?.env;
        env.value("PROXY_CONFIG")
            .and_then(discovery_address)
            .or_else(|| env.value("CA_ADDR").map(str::to_owned))
            .map(|a| host(&a))
    }
}

impl Workload {
    pub fn is_gateway(&self) -> bool {
        self.template.is_gateway()
            || self.meta.labels.value(key::COMPONENT).is_some_and(is_gateway_component)
            || self.meta.labels.has(key::GATEWAY_MANAGED)
    }

    /// An istiod: a container `discovery` under `app: istiod`.
    pub fn is_istiod(&self) -> bool {
        self.template.labels.is("app", "istiod") && self.template.container(DISCOVERY).is_some()
    }

    /// The revision of an istiod, from its own labels or its environment.
    pub fn istiod_revision(&self) -> Option<RevisionName> {
        if !self.is_istiod() {
            return None;
        }
        let env = self.template.container(DISCOVERY).and_then(|c| c.env.value("REVISION"));
        let name = self.template.labels.value(key::REV).or(self.meta.labels.value(key::REV)).or(env);
        Some(RevisionName::new(name.unwrap_or("default")))
    }

    /// The version of an istiod. Never from chart labels, which say something else.
    pub fn istiod_version(&self) -> Option<Version> {
        self.template.container(DISCOVERY).and_then(|c| Version::of_image(&c.image))
    }

    /// Replicas that are asked for; 1 where nothing is said.
    pub fn wanted(&self) -> u32 {
        self.replicas.unwrap_or(1)
    }
}

fn is_gateway_component(component: &str) -> bool {
    matches!(component, "IngressGateways" | "EgressGateways")
}

/// `discoveryAddress` in a proxy configuration, which is JSON or YAML of one level here.
fn discovery_address(config: &str) -> Option<String> {
    let at = config.find("discoveryAddress")?;
    let rest = config[at + "discoveryAddress".len()..].trim_start_matches(['"', '\'']).trim_start();
    let value = rest.strip_prefix(':')?.trim_start();
    let value = value.trim_start_matches(['"', '\'']);
    let end = value.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '}')).unwrap_or(value.len());
    (end > 0).then(|| value[..end].to_owned())
}

/// `istiod-1-23.istio-system.svc:15012` without its port.
fn host(address: &str) -> String {
    address.rsplit_once(':').map_or(address, |(h, _)| h).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_discovery_address_is_found_in_json_and_yaml() {
        for config in [
            r#"{"discoveryAddress":"istiod-1-23.istio-system.svc:15012","x":1}"#,
            "concurrency: 2\ndiscoveryAddress: istiod-1-23.istio-system.svc:15012\n",
            "discoveryAddress: 'istiod-1-23.istio-system.svc:15012'",
        ] {
            assert_eq!(discovery_address(config).as_deref(), Some("istiod-1-23.istio-system.svc:15012"), "{config}");
        }
        assert_eq!(discovery_address("discoveryAddress"), None);
        assert_eq!(discovery_address("{}"), None);
    }
}
