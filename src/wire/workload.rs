//! Pod templates and the objects that carry them.

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};

use super::meta::{Annotations, ObjectMeta};
use super::tree::{Scalar, Seen, Text, kept, list, or_default};
use super::webhook::LabelSelector;
use crate::model::object::PodStatus as ModelStatus;
use crate::model::workload::{DISCOVERY, Hooks, MountedConfigMap, PROXY, Share};
use crate::model::{self, Kind, Labels, Object, Selector, Str, key};

/// Deployment, DaemonSet, StatefulSet, ReplicaSet, Job.
#[derive(Deserialize)]
pub struct Workload {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default, deserialize_with = "or_default")]
    spec: Spec,
    #[serde(default)]
    status: Option<Status>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Spec {
    replicas: Option<u32>,
    paused: Option<bool>,
    selector: Option<LabelSelector>,
    template: PodTemplate,
    #[serde(deserialize_with = "or_default")]
    strategy: Strategy,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Strategy {
    r#type: Str,
    #[serde(deserialize_with = "or_default")]
    rolling_update: RollingUpdate,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct RollingUpdate {
    max_unavailable: Option<Scalar>,
}

impl Strategy {
    fn max_unavailable(&self) -> Option<Share> {
        if self.r#type == "Recreate" {
            return Some(Share::Percent(100));
        }
        let text = &self.rolling_update.max_unavailable.as_ref()?.0;
        match text.strip_suffix('%') {
            Some(percent) => percent.parse().ok().map(Share::Percent),
            None => text.parse().ok().map(Share::Count),
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    ready_replicas: Option<u32>,
    number_ready: Option<u32>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PodTemplate {
    #[serde(deserialize_with = "or_default")]
    metadata: TemplateMeta,
    #[serde(deserialize_with = "or_default")]
    spec: PodSpec,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct TemplateMeta {
    labels: Labels,
    annotations: Annotations,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct PodSpec {
    host_network: Option<bool>,
    termination_grace_period_seconds: Option<Grace>,
    service_account_name: Str,
    containers: Containers,
    // A native sidecar is an init container that stays.
    init_containers: Containers,
    #[serde(deserialize_with = "list")]
    volumes: Vec<Volume>,
}

/// Seconds. The API server takes any number in a template, and makes one second of less than none when a pod ends.
#[derive(Deserialize, Clone, Copy)]
#[serde(transparent)]
struct Grace(i64);

impl Grace {
    fn seconds(self) -> u32 {
        if self.0 < 0 { 1 } else { u32::try_from(self.0).unwrap_or(u32::MAX) }
    }
}

/// The containers that Istio names. The others, and nearly all of everybody's environment, are read by no rule: they borrow
/// from the input and are dropped.
#[derive(Default)]
struct Containers(Vec<model::Container>);

#[derive(Default)]
struct Container<'a> {
    name: Text<'a>,
    image: Text<'a>,
    env: Environment,
    lifecycle: Option<LifecycleHooks>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LifecycleHooks {
    #[serde(default)]
    pre_stop: Option<IgnoredAny>,
}

impl Container<'_> {
    fn is_read(&self) -> bool {
        self.name.0 == PROXY || self.name.0 == DISCOVERY
    }
}

/// The API server writes a container's name first: of one that no rule reads, the rest is skipped as it streams by, and the
/// environment is most of it.
impl<'de> Deserialize<'de> for Container<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Container<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a container")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut out = Container::default();
                let mut seen = Seen::default();
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    match &*key.0 {
                        "name" => {
                            seen.once::<A::Error>(0, "name")?;
                            out.name = map.next_value()?;
                        }
                        "image" => {
                            seen.once::<A::Error>(1, "image")?;
                            out.image = map.next_value()?;
                        }
                        "env" => {
                            seen.once::<A::Error>(2, "env")?;
                            if out.name.0.is_empty() || out.is_read() {
                                out.env = map.next_value()?;
                            } else {
                                map.next_value::<IgnoredAny>()?;
                            }
                        }
                        "lifecycle" => {
                            seen.once::<A::Error>(3, "lifecycle")?;
                            out.lifecycle = map.next_value()?;
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(out)
            }
        }
        d.deserialize_map(V)
    }
}

impl<'de> Deserialize<'de> for Containers {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let next = std::cell::Cell::new(0u16);
        let named = |c: Container<'de>| {
            let index = next.replace(next.get().saturating_add(1));
            c.is_read().then(|| model::Container {
                name: c.name.owned(),
                image: c.image.owned(),
                env: Labels::from_pairs(c.env.0),
                index,
                init: false,
                hooks: match c.lifecycle {
                    None => Hooks::None,
                    Some(LifecycleHooks { pre_stop: None }) => Hooks::Other,
                    Some(LifecycleHooks { pre_stop: Some(_) }) => Hooks::PreStop,
                },
            })
        };
        kept(d, named).map(Containers)
    }
}

/// The variables of [`READ_ENV`].
#[derive(Default)]
struct Environment(Vec<(Str, Str)>);

#[derive(Deserialize)]
struct Variable<'a> {
    #[serde(borrow, default)]
    name: Text<'a>,
    #[serde(borrow, default)]
    value: Option<Text<'a>>,
}

impl<'de> Deserialize<'de> for Environment {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let read = |v: Variable<'de>| {
            let value = v.value.filter(|_| READ_ENV.contains(&&*v.name.0))?;
            Some((v.name.owned(), value.owned()))
        };
        kept(d, read).map(Environment)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Volume {
    #[serde(default)]
    config_map: Option<ConfigMapSource>,
}

#[derive(Deserialize)]
struct ConfigMapSource {
    #[serde(default)]
    name: Str,
    #[serde(default)]
    optional: Option<bool>,
}

/// Environment that rules read: which istiod a proxy dials, which revision an istiod is, how long a proxy drains.
const READ_ENV: [&str; 5] =
    ["PROXY_CONFIG", "CA_ADDR", "REVISION", "TERMINATION_DRAIN_DURATION_SECONDS", "EXIT_ON_ZERO_ACTIVE_CONNECTIONS"];

fn template(meta: TemplateMeta, spec: PodSpec) -> model::Template {
    let mut containers = spec.containers.0;
    containers.extend(spec.init_containers.0.into_iter().map(|c| model::Container { init: true, ..c }));
    model::Template {
        labels: meta.labels,
        annotations: meta.annotations.0,
        host_network: spec.host_network == Some(true),
        grace: spec.termination_grace_period_seconds.map(Grace::seconds),
        service_account: spec.service_account_name,
        containers,
        config_maps: spec
            .volumes
            .into_iter()
            .filter_map(|v| v.config_map)
            .map(|c| MountedConfigMap { name: c.name, optional: c.optional == Some(true) })
            .collect(),
    }
}

impl Workload {
    pub fn into_object(self, kind: Kind) -> Object {
        let ready = self.status.map(|s| s.ready_replicas.or(s.number_ready).unwrap_or(0));
        // A selector that cannot be compiled is the API server's to refuse; here it selects nothing.
        let selector = self.spec.selector.and_then(|s| s.compile().ok()).unwrap_or_default();
        let scales = matches!(kind, Kind::Deployment | Kind::StatefulSet | Kind::ReplicaSet);
        Object::Workload(
            kind,
            Box::new(model::Workload {
                meta: self.metadata.into(),
                replicas: scales.then(|| self.spec.replicas.unwrap_or(1)),
                max_unavailable: self.spec.strategy.max_unavailable().filter(|_| kind == Kind::Deployment),
                selector,
                template: template(self.spec.template.metadata, self.spec.template.spec),
                paused: kind == Kind::Deployment && self.spec.paused == Some(true),
                ready,
            }),
        )
    }
}

#[derive(Deserialize)]
pub struct CronJob {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default, deserialize_with = "or_default")]
    spec: CronSpec,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct CronSpec {
    #[serde(deserialize_with = "or_default")]
    job_template: JobTemplate,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct JobTemplate {
    #[serde(deserialize_with = "or_default")]
    spec: Spec,
}

impl From<CronJob> for Object {
    fn from(c: CronJob) -> Object {
        let pod = c.spec.job_template.spec.template;
        Object::Workload(
            Kind::CronJob,
            Box::new(model::Workload {
                meta: c.metadata.into(),
                replicas: None,
                max_unavailable: None,
                selector: Selector::default(),
                template: template(pod.metadata, pod.spec),
                paused: false,
                ready: None,
            }),
        )
    }
}

/// A whole Pod, or only its metadata (a `PartialObjectMetadata` has neither spec nor status).
#[derive(Deserialize)]
pub struct Pod {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Option<PodSpec>,
    #[serde(default)]
    status: Option<PodStatus>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PodStatus {
    phase: Str,
    #[serde(deserialize_with = "list")]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(default)]
    r#type: Str,
    #[serde(default)]
    status: Str,
}

/// The part of `sidecar.istio.io/status` that names a revision.
#[derive(Deserialize)]
struct SidecarStatus {
    revision: Option<String>,
}

/// Which revision injected a pod: its annotation since 1.18, the injector's status since 1.11. The annotation alone is not
/// enough, because installers write it into templates that are not injected; what they dial counts all the same.
fn injected_by(annotations: &Labels) -> Option<Str> {
    if let Some(rev) = annotations.get(key::REV) {
        return Some(rev.clone());
    }
    let status: SidecarStatus = serde_json::from_str(annotations.value(key::STATUS)?).ok()?;
    status.revision.map(|r| Str::from(if r.is_empty() { "default" } else { &r }))
}

/// With the CNI node agent the injector adds a container that only checks what the agent has done; without it, one that
/// does it (`istio-init`).
fn redirection(annotations: &Labels) -> model::Redirection {
    let ztunnel = annotations.is(key::REDIRECTION, "enabled");
    let checked = || annotations.value(key::STATUS).is_some_and(|status| status.contains("\"istio-validation\""));
    model::Redirection { cni: ztunnel || checked(), ztunnel }
}

impl From<Pod> for Object {
    fn from(p: Pod) -> Object {
        let mut meta = model::Meta::from(p.metadata);
        let revision = injected_by(&meta.annotations);
        let redirection = redirection(&meta.annotations);
        let status = p.status.map(|s| ModelStatus {
            ready: s.conditions.iter().any(|c| c.r#type == "Ready" && c.status == "True"),
            over: s.phase == "Succeeded" || s.phase == "Failed",
        });
        let template = p.spec.map(|spec| {
            let of_pod =
                TemplateMeta { labels: meta.labels.clone(), annotations: Annotations(meta.annotations.clone()) };
            Box::new(template(of_pod, spec))
        });
        let proxy = template.as_ref().and_then(|t| t.proxy_version());
        // The injector's status names every container and volume that it added; only its revision is needed.
        meta.annotations = meta.annotations.filtered(|k| k != key::STATUS && k != "proxy.istio.io/overrides");
        Object::Pod(model::Pod { meta, revision, status, proxy, redirection, template })
    }
}

#[cfg(test)]
mod tests {
    use crate::model::{Kind, Object};
    use crate::wire::read_json;

    #[test]
    fn whatever_grace_the_api_server_takes_is_read() {
        let of = |grace: &str| {
            let spec = format!(r#"{{"terminationGracePeriodSeconds": {grace}}}"#);
            let text = format!(r#"{{"metadata": {{"name": "gw"}}, "spec": {{"template": {{"spec": {spec}}}}}}}"#);
            match read_json(Kind::Deployment, text.as_bytes()) {
                Ok(Object::Workload(_, workload)) => workload.template.grace,
                other => panic!("{grace}: {other:?}"),
            }
        };
        assert_eq!(of("null"), None);
        assert_eq!(of("0"), Some(0));
        assert_eq!(of("-1"), Some(1));
        assert_eq!(of("4294967296"), Some(u32::MAX));
        assert_eq!(of("-9223372036854775808"), Some(1));
        assert_eq!(of("9223372036854775807"), Some(u32::MAX));
    }
}
