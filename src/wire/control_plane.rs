//! What installs control planes: IstioOperator, Sail's resources, Gloo's lifecycle managers.

use serde::Deserialize;
use serde_json::Value;

use super::meta::ObjectMeta;
use super::tree::{Scalar, Tree, list, or_default};
use crate::model::object::{Installation, InstalledIn};
use crate::model::{self, Kind, Listed, Object, Str};

#[derive(Deserialize)]
pub struct Operator {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default, deserialize_with = "or_default")]
    spec: Spec,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    profile: Str,
    revision: Option<Scalar>,
    tag: Option<Scalar>,
    namespace: Option<Str>,
    mesh_config: Option<serde::de::IgnoredAny>,
    #[serde(deserialize_with = "or_default")]
    components: Components,
    values: Option<Tree>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Components {
    base: Option<Component>,
    pilot: Option<Component>,
    cni: Option<Component>,
    ztunnel: Option<Component>,
    istiod_remote: Option<Component>,
    #[serde(deserialize_with = "list")]
    ingress_gateways: Vec<Gateway>,
    #[serde(deserialize_with = "list")]
    egress_gateways: Vec<Gateway>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Component {
    enabled: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Gateway {
    name: Str,
    namespace: Option<Str>,
    enabled: Option<bool>,
}

impl Gateway {
    fn listed(self, default: &str) -> Listed {
        let name = if self.name.is_empty() { Str::from(default) } else { self.name };
        Listed { name, namespace: self.namespace.filter(|n| !n.is_empty()), enabled: self.enabled }
    }
}

impl From<Operator> for Object {
    fn from(o: Operator) -> Object {
        let spec = o.spec;
        let values = spec.values.map_or(Value::Null, |t| t.0);
        let forced = |name: &str| values["gateways"][name]["enabled"] == Value::Bool(true);
        let injected =
            |name: &str| values["gateways"][name]["injectionTemplate"].as_str().is_some_and(|t| !t.is_empty());
        let injected = injected("istio-ingressgateway") || injected("istio-egressgateway");
        let istio_namespace = values["global"]["istioNamespace"].as_str().map(Str::from).or(spec.namespace);
        let c = spec.components;
        let mut speaks_of: Vec<Str> = Vec::new();
        if spec.mesh_config.is_some() {
            speaks_of.push("meshConfig".into());
        }
        // A component switched off is not spoken of: seed files switch pilot off to say that they are about gateways.
        let parts = [("base", &c.base), ("cni", &c.cni), ("ztunnel", &c.ztunnel), ("istiodRemote", &c.istiod_remote)];
        speaks_of.extend(
            parts
                .iter()
                .filter(|(_, p)| p.as_ref().is_some_and(|p| p.enabled != Some(false)))
                .map(|(n, _)| Str::from(*n)),
        );
        if let Value::Object(map) = &values {
            speaks_of.extend(
                map.keys()
                    .filter(|k| !matches!(k.as_str(), "gateways" | "global" | "revision"))
                    .map(|k| Str::from(format!("values.{k}"))),
            );
        }
        Object::Operator(Box::new(model::Operator {
            meta: o.metadata.into(),
            profile: spec.profile,
            // istioctl copies spec.revision to values.revision; some files set only the copy.
            revision: spec
                .revision
                .map(|r| r.0)
                .or_else(|| values["revision"].as_str().map(Str::from))
                .filter(|r| !r.is_empty()),
            tag: spec.tag.map(|t| t.0).filter(|t| !t.is_empty()),
            istio_namespace,
            pilot: c.pilot.map(|p| p.enabled != Some(false)),
            base: c.base.map(|b| b.enabled != Some(false)),
            speaks_of,
            injected,
            force_ingress: forced("istio-ingressgateway"),
            force_egress: forced("istio-egressgateway"),
            ingress: c.ingress_gateways.into_iter().map(|g| g.listed("istio-ingressgateway")).collect(),
            egress: c.egress_gateways.into_iter().map(|g| g.listed("istio-egressgateway")).collect(),
        }))
    }
}

/// `Istio`, `IstioRevision`, `IstioRevisionTag`.
#[derive(Deserialize)]
pub struct Sail {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default, deserialize_with = "or_default")]
    spec: SailSpec,
    #[serde(default, deserialize_with = "or_default")]
    status: SailStatus,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct SailSpec {
    version: Option<Str>,
    namespace: Option<Str>,
    #[serde(deserialize_with = "or_default")]
    values: SailValues,
    #[serde(deserialize_with = "or_default")]
    update_strategy: Strategy,
    target_ref: Option<TargetRef>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SailValues {
    revision: Option<Scalar>,
    #[serde(rename = "sidecarInjectorWebhook", deserialize_with = "or_default")]
    webhook: SailWebhook,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct SailWebhook {
    enable_namespaces_by_default: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Strategy {
    r#type: Option<Str>,
}

#[derive(Deserialize)]
struct TargetRef {
    #[serde(default)]
    kind: Str,
    #[serde(default)]
    name: Str,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct SailStatus {
    istio_revision: Option<Str>,
    active_revision_name: Option<Str>,
}

impl Sail {
    pub fn into_object(self, kind: Kind) -> Object {
        Object::Sail(
            kind,
            Box::new(model::Sail {
                meta: self.metadata.into(),
                version: self.spec.version,
                namespace: self.spec.namespace,
                by_default: self.spec.values.webhook.enable_namespaces_by_default == Some(true),
                revision: self.spec.values.revision.map(|r| r.0).filter(|r| !r.is_empty()),
                strategy: self.spec.update_strategy.r#type,
                target: self.spec.target_ref.map(|t| (t.kind, t.name)),
                active: self.status.istio_revision.or(self.status.active_revision_name),
            }),
        )
    }
}

/// `IstioLifecycleManager`, `GatewayLifecycleManager`.
#[derive(Deserialize)]
pub struct Lifecycle {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default, deserialize_with = "or_default")]
    spec: LifecycleSpec,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct LifecycleSpec {
    #[serde(deserialize_with = "list")]
    installations: Vec<Entry>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Entry {
    revision: Option<Scalar>,
    gateway_revision: Option<Scalar>,
    #[serde(deserialize_with = "or_default")]
    istio_operator_spec: EntrySpec,
    #[serde(deserialize_with = "list")]
    clusters: Vec<EntryCluster>,
    skip_upgrade_validation: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct EntryCluster {
    name: Str,
    active_gateway: Option<bool>,
    default_revision: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct EntrySpec {
    tag: Option<Scalar>,
    hub: Option<Tree>,
    components: Option<Tree>,
    profile: Option<Tree>,
    values: Option<Tree>,
    namespace: Option<Tree>,
}

impl EntrySpec {
    /// The parts that a revision keeps for life, as JSON with sorted keys: equal text, equal meaning.
    fn fixed(&self) -> Vec<(&'static str, Str)> {
        let parts = [&self.hub, &self.components, &self.profile, &self.values, &self.namespace];
        let written = Installation::FOR_LIFE.into_iter().zip(parts);
        written
            .filter_map(|(name, part)| {
                let value = part.as_ref().map(|t| &t.0).filter(|v| !v.is_null())?;
                Some((name, Str::from(value.to_string())))
            })
            .collect()
    }

    fn gateways(&self) -> Vec<Str> {
        let Some(Tree(components)) = &self.components else { return Vec::new() };
        let lists = ["ingressGateways", "egressGateways"].map(|list| components[list].as_array());
        let listed = lists.into_iter().flatten().flatten().filter(|g| g["enabled"] != Value::Bool(false));
        listed.filter_map(|g| g["name"].as_str()).map(Str::from).collect()
    }
}

impl Lifecycle {
    pub fn into_object(self, kind: Kind) -> Object {
        let installations = self.spec.installations.into_iter().map(|e| Installation {
            fixed: e.istio_operator_spec.fixed(),
            gateways: e.istio_operator_spec.gateways(),
            revision: e.revision.or(e.gateway_revision).map(|r| r.0).filter(|r| !r.is_empty()),
            tag: e.istio_operator_spec.tag.map(|t| t.0).filter(|t| !t.is_empty()),
            skips_validation: e.skip_upgrade_validation == Some(true),
            clusters: e
                .clusters
                .into_iter()
                .map(|c| InstalledIn {
                    active: c.active_gateway == Some(true) || c.default_revision == Some(true),
                    cluster: c.name,
                })
                .collect(),
        });
        Object::Lifecycle(
            kind,
            Box::new(model::Lifecycle { meta: self.metadata.into(), installations: installations.collect() }),
        )
    }
}
