//! What the controller addresses by itself, beside the kinds that are watched: one line a resource, one type for the
//! address of an object.

use crate::model::{Id, Kind};
use crate::wire::{KINDS, row};

/// A resource of the API server, as its URL names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Empty for core.
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    /// As manifests say it.
    pub kind: &'static str,
}

const fn resource(group: &'static str, version: &'static str, plural: &'static str, kind: &'static str) -> Resource {
    Resource { group, version, plural, kind }
}

pub const LEASES: Resource = resource("coordination.k8s.io", "v1", "leases", "Lease");
pub const EVENTS: Resource = resource("events.k8s.io", "v1", "events", "Event");
pub const CONFIG_MAPS: Resource = resource("", "v1", "configmaps", "ConfigMap");
pub const SECRETS: Resource = resource("", "v1", "secrets", "Secret");
pub const SERVICES: Resource = resource("", "v1", "services", "Service");
pub const PODS: Resource = resource("", "v1", "pods", "Pod");
pub const DEPLOYMENTS: Resource = resource("apps", "v1", "deployments", "Deployment");
pub const HPAS: Resource = resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler");
pub const PDBS: Resource = resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget");
pub const ROLLOUTS: Resource = resource("revguard.dev", "v1alpha1", "gatewayrollouts", "GatewayRollout");
pub const MUTATING: Resource =
    resource("admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration");
pub const VALIDATING: Resource =
    resource("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration");
pub const MESH_STATES: Resource = resource("revguard.dev", "v1alpha1", "meshstates", "MeshState");
pub const PROMETHEUS_SOURCES: Resource = resource("revguard.dev", "v1alpha1", "prometheussources", "PrometheusSource");
pub const GUARD_PARAMETERS: Resource = resource("revguard.dev", "v1alpha1", "guardparameters", "GuardParameters");
pub const POLICY_REPORTS: Resource = resource("wgpolicyk8s.io", "v1alpha2", "policyreports", "PolicyReport");
pub const CLUSTER_POLICY_REPORTS: Resource =
    resource("wgpolicyk8s.io", "v1alpha2", "clusterpolicyreports", "ClusterPolicyReport");
pub const OPEN_REPORTS: Resource = resource("openreports.io", "v1alpha1", "reports", "Report");
pub const OPEN_CLUSTER_REPORTS: Resource = resource("openreports.io", "v1alpha1", "clusterreports", "ClusterReport");

impl Resource {
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The path of the collection; an empty namespace is the whole cluster.
    pub fn path(&self, namespace: &str) -> String {
        let base = crate::cluster::request::version_path(self.group, self.version);
        match namespace {
            "" => format!("{base}/{}", self.plural),
            ns => format!("{base}/namespaces/{ns}/{}", self.plural),
        }
    }

    /// The resource of a watched kind, in the newest version that its reader knows.
    pub fn of(kind: Kind) -> Resource {
        let row = row(kind);
        resource(row.group, row.versions[0], row.plural, row.name)
    }
}

impl Resource {
    /// The same in every version that its reader knows, the newest first; what is not watched has one.
    pub fn in_any_version(self) -> impl Iterator<Item = Resource> {
        let row = KINDS.iter().find(|row| row.group == self.group && row.plural == self.plural);
        let own = std::iter::once(self.version).filter(move |_| row.is_none());
        let known = row.into_iter().flat_map(|row| row.versions.iter().copied());
        own.chain(known).map(move |version| Resource { version, ..self })
    }
}

/// The address of one object, or of a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    pub resource: Resource,
    /// Empty for what belongs to no namespace.
    pub namespace: String,
    pub name: String,
    /// `status`, for resources that keep it apart.
    pub part: Option<&'static str>,
}

impl At {
    pub fn of(resource: &Resource, namespace: &str, name: &str) -> At {
        At { resource: *resource, namespace: namespace.to_owned(), name: name.to_owned(), part: None }
    }

    /// Of a watched kind's object.
    pub fn id(id: &Id) -> At {
        At::of(&Resource::of(id.kind), &id.namespace, &id.name)
    }

    /// Its status.
    #[must_use]
    pub fn status(mut self) -> At {
        self.part = Some("status");
        self
    }

    /// The path of the object.
    pub fn path(&self) -> String {
        let part = self.part.map(|p| format!("/{p}")).unwrap_or_default();
        format!("{}/{}{part}", self.resource.path(&self.namespace), self.name)
    }
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ", self.resource.kind)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}
