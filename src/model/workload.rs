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
    /// `spec.paused` of a Deployment: its template changes no pod.
    pub paused: bool,
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

    /// A gateway: injected with the `gateway` template, rendered by an installer, deployed by istiod for a Gateway API Gateway, or made
    /// by a gateway rollout. A container called `istio-proxy` alone is not one (ztunnel has it).
    pub fn is_gateway(&self) -> bool {
        self.injection_templates().any(|t| t.contains("gateway"))
            || self.labels.value(key::COMPONENT).is_some_and(is_gateway_component)
            || self.labels.has(key::GATEWAY_MANAGED)
            || self.labels.has(key::INSTANCE)
    }

    /// Version of an explicit proxy image; `auto` and unversioned tags have none.
    pub fn proxy_version(&self) -> Option<Version> {
        self.container(PROXY).and_then(|c| Version::of_image(&c.image))
    }

    /// The istiod host that the template itself names: what its proxy is told to dial, else where it gets certificates.
    pub fn discovery_host(&self) -> Option<String> {
        let ca = || self.container(PROXY)?.env.value("CA_ADDR").map(host);
        self.discovery_override().or_else(ca)
    }

    /// The istiod host that the template tells its proxy to dial, whatever the mesh configuration says, strongest first: the
    /// deprecated annotation, the proxy configuration, the proxy's environment.
    pub fn discovery_override(&self) -> Option<String> {
        if let Some(address) = self.annotations.value(key::DISCOVERY_ADDRESS) {
            return Some(host(address));
        }
        self.proxy_setting("discoveryAddress").map(|a| host(&a))
    }

    /// A setting of the template's own proxy configuration: of its annotation, else of its proxy's environment.
    fn proxy_setting(&self, name: &str) -> Option<String> {
        let environment = || self.container(PROXY)?.env.value("PROXY_CONFIG");
        let own = self.annotations.value(key::PROXY_CONFIG).and_then(|config| setting(config, name));
        own.or_else(|| setting(environment()?, name))
    }

    /// Seconds for which a proxy that is told to stop lets connections end, if the template says; `u32::MAX` if it waits for
    /// the last of them.
    pub fn drain(&self) -> Option<u32> {
        const UNTIL_EMPTY: &str = "EXIT_ON_ZERO_ACTIVE_CONNECTIONS";
        let env = self.container(PROXY).map(|c| &c.env);
        let value =
            |name: &str| env.and_then(|e| e.value(name).map(str::to_owned)).or_else(|| self.proxy_setting(name));
        if value(UNTIL_EMPTY).as_deref() == Some("true") {
            return Some(u32::MAX);
        }
        let seconds = value("TERMINATION_DRAIN_DURATION_SECONDS").and_then(|s| s.parse().ok());
        seconds.or_else(|| duration(&self.proxy_setting("terminationDrainDuration")?))
    }

    /// Seconds for which its Envoy lets requests end of a listener that istiod takes away (`drainDuration`; Istio's default is 45).
    pub fn listener_drain(&self) -> u32 {
        self.proxy_setting("drainDuration").and_then(|text| duration(&text)).unwrap_or(45)
    }

    /// Seconds between a pod's being told to stop and its end.
    pub fn grace(&self) -> u32 {
        self.grace.unwrap_or(30)
    }
}

impl Workload {
    pub fn is_gateway(&self) -> bool {
        self.template.is_gateway()
            || self.meta.labels.value(key::COMPONENT).is_some_and(is_gateway_component)
            || self.meta.labels.has(key::GATEWAY_MANAGED)
            // A rollout takes the installer's labels off its own Deployment, so that no installer prunes it.
            || self.meta.labels.has(key::ROLLOUT)
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

/// A scalar in a proxy configuration, which is JSON or YAML; names in it are told apart by themselves.
fn setting(config: &str, name: &str) -> Option<String> {
    let at = config.find(name)?;
    let rest = config[at + name.len()..].trim_start_matches(['"', '\'']).trim_start();
    let value = rest.strip_prefix(':')?.trim_start();
    let value = value.trim_start_matches(['"', '\'']);
    let end = value.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '}')).unwrap_or(value.len());
    (end > 0).then(|| value[..end].to_owned())
}

/// Whole seconds of a duration as a proxy configuration writes it: `30s`, `1m30s`, `500ms`.
fn duration(text: &str) -> Option<u32> {
    let mut rest = text;
    let mut millis: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let after = &rest[digits..];
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let each = match &after[..unit] {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1_000,
            "ms" => 1,
            _ => return None,
        };
        millis = millis.checked_add(number.checked_mul(each)?)?;
        rest = &after[unit..];
    }
    u32::try_from(millis / 1000).ok()
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
            let found = setting(config, "discoveryAddress");
            assert_eq!(found.as_deref(), Some("istiod-1-23.istio-system.svc:15012"), "{config}");
        }
        assert_eq!(setting("discoveryAddress", "discoveryAddress"), None);
        assert_eq!(setting("{}", "discoveryAddress"), None);
    }

    #[test]
    fn a_drain_is_read_from_wherever_it_may_stand() {
        let template = |annotation: &str, env: &[(&str, &str)]| Template {
            annotations: Labels::from([(key::PROXY_CONFIG, annotation)]),
            containers: vec![Container {
                name: PROXY.into(),
                env: Labels::from_pairs(env.iter().map(|(k, v)| (Str::from(*k), Str::from(*v))).collect()),
                ..Container::default()
            }],
            ..Template::default()
        };
        assert_eq!(template("", &[]).drain(), None);
        assert_eq!(template("terminationDrainDuration: 45s", &[]).drain(), Some(45));
        assert_eq!(template(r#"{"terminationDrainDuration":"1m30s"}"#, &[]).drain(), Some(90));
        assert_eq!(template("", &[("TERMINATION_DRAIN_DURATION_SECONDS", "20")]).drain(), Some(20));
        assert_eq!(template("", &[("PROXY_CONFIG", r#"{"terminationDrainDuration":"9s"}"#)]).drain(), Some(9));
        let until_empty = "proxyMetadata:\n  EXIT_ON_ZERO_ACTIVE_CONNECTIONS: 'true'";
        assert_eq!(template(until_empty, &[]).drain(), Some(u32::MAX));
        assert_eq!(template("terminationDrainDuration: soon", &[]).drain(), None);
    }

    #[test]
    fn a_share_drops_parts_of_a_pod() {
        let of = |share: Share, pods| share.of(pods);
        assert_eq!((of(Share::Percent(25), 1), of(Share::Percent(25), 4), of(Share::Percent(100), 1)), (0, 1, 1));
        assert_eq!((of(Share::Count(1), 1), of(Share::Count(3), 2), of(Share::Count(0), 2)), (1, 2, 0));
    }
}
