//! The one table of kinds, and of their readers. It drives offline reading, discovery, watches, RBAC and what the webhooks are called for.

use std::sync::LazyLock;

use serde::de::{Deserialize, Deserializer, Error as _};

use super::{config, control_plane, core, rollout, webhook, workload};
use crate::model::{Kind, Object};

/// Makes [`Reader`] of a list of readers: a name, the lean type that is read, and what becomes of it.
macro_rules! readers {
    ($($name:ident: $lean:ty => $into:expr;)+) => {
        /// Which lean type reads a kind.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reader {
            $($name,)+
        }

        impl Reader {
            /// Reads an object of this kind.
            ///
            /// # Errors
            /// What serde says; and what cannot be an object of this kind although its fields can be read.
            pub fn read<'de, D: Deserializer<'de>>(self, kind: Kind, d: D) -> Result<Object, D::Error> {
                match self {
                    $(Reader::$name => {
                        let into: fn($lean, Kind) -> Result<Object, String> = $into;
                        into(<$lean>::deserialize(d)?, kind).map_err(D::Error::custom)
                    })+
                }
            }
        }
    };
}

/// Of a type that is of one kind.
fn one<T: Into<Object>>(lean: T, _: Kind) -> Result<Object, String> {
    Ok(lean.into())
}

readers! {
    Namespace: core::Namespace => one;
    Workload: workload::Workload => |o, kind| Ok(o.into_object(kind));
    CronJob: workload::CronJob => one;
    Pod: workload::Pod => one;
    Service: core::Service => one;
    EndpointSlice: core::EndpointSlice => one;
    ConfigMap: core::ConfigMap => one;
    Hpa: core::Hpa => one;
    Pdb: core::Pdb => one;
    Injector: webhook::Configuration => |o, _| o.into_injector();
    Validator: webhook::Configuration => |o, _| o.into_validator();
    Operator: control_plane::Operator => one;
    Sail: control_plane::Sail => |o, kind| Ok(o.into_object(kind));
    Lifecycle: control_plane::Lifecycle => |o, kind| Ok(o.into_object(kind));
    Gateway: config::Gateway => |o, kind| Ok(o.into_object(kind));
    Config: config::Config => |o, kind| Ok(o.into_object(kind));
    Rollout: rollout::GatewayRollout => one;
    Crd: config::Config => |o, _| Ok(o.into_crd());
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Cluster,
    Namespaced,
}

/// How a live cluster is watched for a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Whole objects of every namespace, read leanly.
    Whole,
    /// Metadata only, of every namespace.
    Metadata,
    /// Metadata only, of objects that have this label: few, even where there are many.
    MetadataWhere(&'static str),
    /// Whole objects, but only in namespaces that hold an istiod or a gateway; with a label selector.
    InMesh(&'static str),
    /// Metadata of every namespace, and whole objects in namespaces that hold an istiod or a gateway.
    MetadataAndInMesh,
    /// Judged when written, never looked up.
    Never,
}

/// One kind: where it comes from, who reads it and why.
#[derive(Clone, Copy, Debug)]
pub struct KindRow {
    pub kind: Kind,
    /// API group; empty for core.
    pub group: &'static str,
    /// `kind` as written in manifests.
    pub name: &'static str,
    /// Plural, as in RBAC and URLs.
    pub plural: &'static str,
    /// Versions that the reader understands, newest first. A cluster's own preference decides which is used.
    pub versions: &'static [&'static str],
    pub scope: Scope,
    pub reader: Reader,
    pub watch: Watch,
    /// Why a rule needs it; printed with the access table.
    pub why: &'static str,
}

// One line a kind, so that the table below reads as a table.
#[allow(clippy::too_many_arguments)]
const fn kind(
    kind: Kind,
    group: &'static str,
    name: &'static str,
    plural: &'static str,
    versions: &'static [&'static str],
    scope: Scope,
    reader: Reader,
    watch: Watch,
    why: &'static str,
) -> KindRow {
    KindRow { kind, group, name, plural, versions, scope, reader, watch, why }
}

const PINNED: &str = "configuration pinned to a revision keeps that revision in use";
const COUNTED: &str =
    "configuration pinned to a revision keeps that revision in use; a definition with objects must not go";
const ISTIODS: &str = "what an istiod may do goes away with it; judged when deleted";
const REV: &str = "istio.io/rev";

use Scope::{Cluster, Namespaced};

/// Every kind, in the order of [`Kind`].
#[rustfmt::skip]
pub static KINDS: [KindRow; Kind::COUNT] = [
    kind(Kind::Namespace, "", "Namespace", "namespaces", &["v1"], Cluster, Reader::Namespace, Watch::Metadata, "which revision or tag a namespace asks for"),
    kind(Kind::Deployment, "apps", "Deployment", "deployments", &["v1"], Namespaced, Reader::Workload, Watch::Whole, "templates that ask for a revision, gateways, istiods"),
    kind(Kind::DaemonSet, "apps", "DaemonSet", "daemonsets", &["v1"], Namespaced, Reader::Workload, Watch::Whole, "templates that ask for a revision, gateways"),
    kind(Kind::StatefulSet, "apps", "StatefulSet", "statefulsets", &["v1"], Namespaced, Reader::Workload, Watch::Whole, "templates that ask for a revision"),
    kind(Kind::ReplicaSet, "apps", "ReplicaSet", "replicasets", &["v1"], Namespaced, Reader::Workload, Watch::InMesh(""), "one without a Deployment may be all that serves a gateway"),
    kind(Kind::Job, "batch", "Job", "jobs", &["v1"], Namespaced, Reader::Workload, Watch::Never, "templates are judged when written"),
    kind(Kind::CronJob, "batch", "CronJob", "cronjobs", &["v1"], Namespaced, Reader::CronJob, Watch::Whole, "templates that ask for a revision"),
    kind(Kind::Pod, "", "Pod", "pods", &["v1"], Namespaced, Reader::Pod, Watch::MetadataAndInMesh, "which revision injected what runs, which pods serve a gateway"),
    kind(Kind::Service, "", "Service", "services", &["v1"], Namespaced, Reader::Service, Watch::Whole, "tags, the Services of istiods and gateways"),
    kind(Kind::EndpointSlice, "discovery.k8s.io", "EndpointSlice", "endpointslices", &["v1"], Namespaced, Reader::EndpointSlice, Watch::InMesh(""), "whether an istiod answers"),
    kind(Kind::ConfigMap, "", "ConfigMap", "configmaps", &["v1"], Namespaced, Reader::ConfigMap, Watch::MetadataAndInMesh, "injection templates; whether a namespace has the mesh configuration of a revision and the root certificate. Only the names of Istio's own are kept"),
    kind(Kind::Hpa, "autoscaling", "HorizontalPodAutoscaler", "horizontalpodautoscalers", &["v2", "v1"], Namespaced, Reader::Hpa, Watch::InMesh(""), "whether a gateway's pods have an autoscaler already"),
    kind(Kind::Pdb, "policy", "PodDisruptionBudget", "poddisruptionbudgets", &["v1"], Namespaced, Reader::Pdb, Watch::InMesh(""), "whether a gateway's pods have a disruption budget already"),
    kind(Kind::ServiceAccount, "", "ServiceAccount", "serviceaccounts", &["v1"], Namespaced, Reader::Config, Watch::Never, ISTIODS),
    kind(Kind::Role, "rbac.authorization.k8s.io", "Role", "roles", &["v1"], Namespaced, Reader::Config, Watch::Never, ISTIODS),
    kind(Kind::RoleBinding, "rbac.authorization.k8s.io", "RoleBinding", "rolebindings", &["v1"], Namespaced, Reader::Config, Watch::Never, ISTIODS),
    kind(Kind::ClusterRole, "rbac.authorization.k8s.io", "ClusterRole", "clusterroles", &["v1"], Cluster, Reader::Config, Watch::Never, ISTIODS),
    kind(Kind::ClusterRoleBinding, "rbac.authorization.k8s.io", "ClusterRoleBinding", "clusterrolebindings", &["v1"], Cluster, Reader::Config, Watch::Never, ISTIODS),
    kind(Kind::MutatingWebhook, "admissionregistration.k8s.io", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", &["v1"], Cluster, Reader::Injector, Watch::Whole, "injectors and tags: who injects a pod"),
    kind(Kind::ValidatingWebhook, "admissionregistration.k8s.io", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", &["v1"], Cluster, Reader::Validator, Watch::Whole, "the validator that every write of Istio configuration depends on"),
    kind(Kind::IstioOperator, "install.istio.io", "IstioOperator", "istiooperators", &["v1alpha1"], Namespaced, Reader::Operator, Watch::Whole, "which custom resource renders which gateway"),
    kind(Kind::SailIstio, "sailoperator.io", "Istio", "istios", &["v1", "v1alpha1"], Cluster, Reader::Sail, Watch::Whole, "control planes of the Sail operator"),
    kind(Kind::SailRevision, "sailoperator.io", "IstioRevision", "istiorevisions", &["v1", "v1alpha1"], Cluster, Reader::Sail, Watch::Whole, "control planes of the Sail operator"),
    kind(Kind::SailTag, "sailoperator.io", "IstioRevisionTag", "istiorevisiontags", &["v1", "v1alpha1"], Cluster, Reader::Sail, Watch::Whole, "tags of the Sail operator"),
    kind(Kind::IstioLifecycle, "admin.gloo.solo.io", "IstioLifecycleManager", "istiolifecyclemanagers", &["v2"], Namespaced, Reader::Lifecycle, Watch::Whole, "control planes of Gloo"),
    kind(Kind::GatewayLifecycle, "admin.gloo.solo.io", "GatewayLifecycleManager", "gatewaylifecyclemanagers", &["v2"], Namespaced, Reader::Lifecycle, Watch::Whole, "gateways of Gloo"),
    kind(Kind::IstioGateway, "networking.istio.io", "Gateway", "gateways", &["v1", "v1beta1", "v1alpha3"], Namespaced, Reader::Gateway, Watch::Whole, "which gateway pods are in use"),
    kind(Kind::VirtualService, "networking.istio.io", "VirtualService", "virtualservices", &["v1", "v1beta1", "v1alpha3"], Namespaced, Reader::Config, Watch::Metadata, COUNTED),
    kind(Kind::DestinationRule, "networking.istio.io", "DestinationRule", "destinationrules", &["v1", "v1beta1", "v1alpha3"], Namespaced, Reader::Config, Watch::Metadata, COUNTED),
    kind(Kind::ServiceEntry, "networking.istio.io", "ServiceEntry", "serviceentries", &["v1", "v1beta1", "v1alpha3"], Namespaced, Reader::Config, Watch::Metadata, COUNTED),
    kind(Kind::Sidecar, "networking.istio.io", "Sidecar", "sidecars", &["v1", "v1beta1", "v1alpha3"], Namespaced, Reader::Config, Watch::Metadata, COUNTED),
    kind(Kind::EnvoyFilter, "networking.istio.io", "EnvoyFilter", "envoyfilters", &["v1alpha3"], Namespaced, Reader::Config, Watch::Metadata, COUNTED),
    kind(Kind::WorkloadEntry, "networking.istio.io", "WorkloadEntry", "workloadentries", &["v1", "v1beta1", "v1alpha3"], Namespaced, Reader::Config, Watch::Metadata, COUNTED),
    kind(Kind::WorkloadGroup, "networking.istio.io", "WorkloadGroup", "workloadgroups", &["v1", "v1beta1", "v1alpha3"], Namespaced, Reader::Config, Watch::Metadata, COUNTED),
    kind(Kind::ProxyConfig, "networking.istio.io", "ProxyConfig", "proxyconfigs", &["v1beta1"], Namespaced, Reader::Config, Watch::Metadata, COUNTED),
    kind(Kind::PeerAuthentication, "security.istio.io", "PeerAuthentication", "peerauthentications", &["v1", "v1beta1"], Namespaced, Reader::Config, Watch::Metadata, COUNTED),
    kind(Kind::RequestAuthentication, "security.istio.io", "RequestAuthentication", "requestauthentications", &["v1", "v1beta1"], Namespaced, Reader::Config, Watch::Metadata, COUNTED),
    kind(Kind::AuthorizationPolicy, "security.istio.io", "AuthorizationPolicy", "authorizationpolicies", &["v1", "v1beta1"], Namespaced, Reader::Config, Watch::Metadata, COUNTED),
    kind(Kind::Telemetry, "telemetry.istio.io", "Telemetry", "telemetries", &["v1", "v1alpha1"], Namespaced, Reader::Config, Watch::Metadata, COUNTED),
    kind(Kind::WasmPlugin, "extensions.istio.io", "WasmPlugin", "wasmplugins", &["v1alpha1"], Namespaced, Reader::Config, Watch::Metadata, COUNTED),
    kind(Kind::ApiGateway, "gateway.networking.k8s.io", "Gateway", "gateways", &["v1", "v1beta1"], Namespaced, Reader::Gateway, Watch::Whole, "which revision deploys a Gateway"),
    kind(Kind::HttpRoute, "gateway.networking.k8s.io", "HTTPRoute", "httproutes", &["v1", "v1beta1"], Namespaced, Reader::Config, Watch::MetadataWhere(REV), PINNED),
    kind(Kind::GatewayRollout, "revguard.dev", "GatewayRollout", "gatewayrollouts", &["v1alpha1"], Namespaced, Reader::Rollout, Watch::Whole, "which gateways are on their way to another revision, and which revisions that needs"),
    kind(Kind::Crd, "apiextensions.k8s.io", "CustomResourceDefinition", "customresourcedefinitions", &["v1"], Cluster, Reader::Crd, Watch::Metadata, "which of these kinds the cluster has"),
];

/// The row of a kind.
pub fn row(kind: Kind) -> &'static KindRow {
    &KINDS[kind.index()]
}

/// The kind of a group and name, whatever the version: versions come and go, lean readers do not care.
pub fn find_kind(group: &str, name: &str) -> Option<Kind> {
    KINDS.iter().find(|r| r.name == name && r.group == group).map(|r| r.kind)
}

/// A kind as metrics and logs name it: `pods`, `gateways.networking.istio.io`.
pub fn label(kind: Kind) -> &'static str {
    static LABELS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let name =
            |r: &KindRow| if r.group.is_empty() { r.plural.to_owned() } else { format!("{}.{}", r.plural, r.group) };
        KINDS.iter().map(name).collect()
    });
    &LABELS[kind.index()]
}

impl KindRow {
    /// `apiVersion` of manifests that we write ourselves.
    pub fn api_version(&self) -> String {
        match (self.group, self.versions[0]) {
            ("", v) => v.to_owned(),
            (g, v) => format!("{g}/{v}"),
        }
    }

    /// The name under which kubectl finds it: `deployment`, `gateways.gateway.networking.k8s.io`.
    pub fn kubectl(&self) -> String {
        let unambiguous = self.group.is_empty()
            || matches!(self.group, "apps" | "batch" | "autoscaling" | "policy" | "discovery.k8s.io");
        if unambiguous { self.name.to_lowercase() } else { format!("{}.{}", self.plural, self.group) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_row() {
        for (i, row) in KINDS.iter().enumerate() {
            assert_eq!(row.kind.index(), i, "{}", row.name);
            assert_eq!(find_kind(row.group, row.name), Some(row.kind));
        }
    }
}
