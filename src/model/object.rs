//! The objects that rules judge or look up, each reduced to what a rule may read.

use super::{InjectorConfig, Labels, Operator, Rollout, Selector, Str, Template, ValidatorConfig, Workload, key};

/// Kinds that have a meaning here. The table of `wire::kinds` says where each comes from and why it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    Namespace,
    Deployment,
    DaemonSet,
    StatefulSet,
    ReplicaSet,
    Job,
    CronJob,
    Pod,
    Service,
    EndpointSlice,
    ConfigMap,
    Hpa,
    Pdb,
    ServiceAccount,
    Role,
    RoleBinding,
    ClusterRole,
    ClusterRoleBinding,
    MutatingWebhook,
    ValidatingWebhook,
    IstioOperator,
    SailIstio,
    SailRevision,
    SailTag,
    IstioLifecycle,
    GatewayLifecycle,
    IstioGateway,
    VirtualService,
    DestinationRule,
    ServiceEntry,
    Sidecar,
    EnvoyFilter,
    WorkloadEntry,
    WorkloadGroup,
    ProxyConfig,
    PeerAuthentication,
    RequestAuthentication,
    AuthorizationPolicy,
    Telemetry,
    WasmPlugin,
    ApiGateway,
    HttpRoute,
    GatewayRollout,
    Crd,
}

impl Kind {
    pub const COUNT: usize = Kind::Crd as usize + 1;

    /// Kinds whose objects carry a pod template.
    pub const WORKLOADS: [Kind; 6] =
        [Kind::Deployment, Kind::DaemonSet, Kind::StatefulSet, Kind::ReplicaSet, Kind::Job, Kind::CronJob];

    /// Istio's own configuration, which an `istio.io/rev` label pins to one control plane.
    pub const CONFIG: [Kind; 14] = [
        Kind::IstioGateway,
        Kind::VirtualService,
        Kind::DestinationRule,
        Kind::ServiceEntry,
        Kind::Sidecar,
        Kind::EnvoyFilter,
        Kind::WorkloadEntry,
        Kind::WorkloadGroup,
        Kind::ProxyConfig,
        Kind::PeerAuthentication,
        Kind::RequestAuthentication,
        Kind::AuthorizationPolicy,
        Kind::Telemetry,
        Kind::WasmPlugin,
    ];

    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What tells one object from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    pub kind: Kind,
    /// Empty for cluster-scoped kinds.
    pub namespace: Str,
    pub name: Str,
}

/// The controller of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub kind: Str,
    pub name: Str,
}

/// What rules read of an object's metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    pub namespace: Str,
    /// `metadata.name`, or `metadata.generateName` when the API server has yet to choose a name.
    pub name: Str,
    pub labels: Labels,
    /// Only keys of Istio, Helm and revguard.
    pub annotations: Labels,
    pub owner: Option<Box<Owner>>,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// Somebody waits for the object's end.
    pub finalized: bool,
}

impl Meta {
    /// Name and namespace of the Helm release that the object belongs to.
    pub fn helm_release(&self) -> Option<(&str, &str)> {
        Some((self.annotations.value(key::HELM_RELEASE)?, self.annotations.value(key::HELM_RELEASE_NAMESPACE)?))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    pub meta: Meta,
}

impl Namespace {
    /// The labels as selectors will see them: the API server itself adds the namespace's name.
    pub fn seen_labels(&self) -> Labels {
        let labels = &self.meta.labels;
        if labels.has(key::NAMESPACE_NAME) { labels.clone() } else { labels.with(key::NAMESPACE_NAME, &self.meta.name) }
    }
}

/// A running pod: who injected it, and whether it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    pub meta: Meta,
    /// Revision that injected it, from its annotations.
    pub revision: Option<Str>,
    /// Known only where whole pods are read.
    pub status: Option<PodStatus>,
    /// Version of its own proxy, where the whole pod was read.
    pub proxy: Option<super::Version>,
    pub redirection: Redirection,
    /// The pod as its own template, kept only where a pod stands alone (offline input, admission).
    pub template: Option<Box<Template>>,
}

/// Who takes a pod's traffic into the mesh, as its annotations tell. Neither: its own init container, or nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redirection {
    /// The CNI node agent.
    pub cni: bool,
    /// The node's ztunnel.
    pub ztunnel: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodStatus {
    pub ready: bool,
    /// Succeeded or Failed: it will never serve again.
    pub over: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    pub meta: Meta,
    /// `spec.type`; empty means ClusterIP.
    pub kind: Str,
    pub selector: Labels,
    pub ports: Vec<ServicePort>,
    /// `spec.loadBalancerIP`, if it is not empty: deprecated for annotations of each load balancer's own.
    pub load_balancer_ip: Option<Str>,
    pub external_ips: Vec<Str>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePort {
    pub name: Str,
    pub port: u16,
}

impl Service {
    pub fn is_external_name(&self) -> bool {
        self.kind == "ExternalName"
    }

    /// It selects the pods of a template; a Service without a selector selects nothing.
    pub fn selects(&self, labels: &Labels) -> bool {
        !self.selector.is_empty() && Selector::exact(&self.selector).matches(labels)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSlice {
    pub meta: Meta,
    /// Endpoints whose condition `ready` is true or unset.
    pub ready: u32,
}

impl EndpointSlice {
    /// The Service that it belongs to.
    pub fn service(&self) -> &str {
        self.meta.labels.value("kubernetes.io/service-name").unwrap_or("")
    }
}

/// One of Istio's ConfigMaps; of an injector's the names of its templates and aliases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigMap {
    pub meta: Meta,
    /// `None` unless it is an injector's ConfigMap whose `config` could be read.
    pub injection_templates: Option<Vec<Str>>,
}

impl ConfigMap {
    /// Mesh configuration of a revision, by its name: `istio`, `istio-1-24`. A gateway looks for it in its own namespace,
    /// where a copy made by hand may have no label, so that it is looked for by name in every namespace.
    pub fn is_mesh_config(name: &str) -> bool {
        name == "istio" || name.starts_with("istio-") && !Self::is_local(name)
    }

    /// What matters only beside an istiod or a gateway: an injector's configuration, the root certificate.
    pub fn is_local(name: &str) -> bool {
        name.starts_with("istio-sidecar-injector") || name == Self::ROOT_CERT
    }

    /// istiod writes it into every namespace; proxies mount it.
    pub const ROOT_CERT: &str = "istio-ca-root-cert";
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hpa {
    pub meta: Meta,
    pub target_kind: Str,
    pub target_name: Str,
    /// `spec.minReplicas`; absent means 1.
    pub min_replicas: Option<u32>,
}

/// A PodDisruptionBudget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pdb {
    pub meta: Meta,
    /// `None` selects nothing; the empty one every pod of the namespace.
    pub selector: Option<Selector>,
}

/// A Sail resource: `Istio`, `IstioRevision` or `IstioRevisionTag`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sail {
    pub meta: Meta,
    pub version: Option<Str>,
    pub namespace: Option<Str>,
    /// `spec.values.revision`.
    pub revision: Option<Str>,
    /// `spec.values.sidecarInjectorWebhook.enableNamespacesByDefault`: injects wherever nothing is said.
    pub by_default: bool,
    /// `spec.updateStrategy.type`.
    pub strategy: Option<Str>,
    /// `spec.targetRef` of a tag: kind and name.
    pub target: Option<(Str, Str)>,
    /// `status.istioRevision` of a tag, `status.activeRevisionName` of an Istio.
    pub active: Option<Str>,
}

/// Gloo's `IstioLifecycleManager` or `GatewayLifecycleManager`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lifecycle {
    pub meta: Meta,
    pub installations: Vec<Installation>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installation {
    /// `revision` or `gatewayRevision`.
    pub revision: Option<Str>,
    /// `istioOperatorSpec.tag`.
    pub tag: Option<Str>,
    pub clusters: Vec<InstalledIn>,
    /// `skipUpgradeValidation`: Gloo changes whatever it is told to in place.
    pub skips_validation: bool,
    /// The parts of `istioOperatorSpec` that a revision keeps for life, each as it is written: [`Installation::FOR_LIFE`].
    pub fixed: Vec<(&'static str, Str)>,
    /// Names of the gateways that it renders.
    pub gateways: Vec<Str>,
}

/// One cluster of an installation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstalledIn {
    pub cluster: Str,
    /// `activeGateway` or `defaultRevision`; absent means false.
    pub active: bool,
}

impl Installation {
    /// Fields of `istioOperatorSpec` that Gloo changes in place only for an installation without a revision.
    pub const FOR_LIFE: [&str; 5] = ["hub", "components", "profile", "values", "namespace"];

    /// It is the active gateway or the default revision of some cluster.
    pub fn is_active(&self) -> bool {
        self.clusters.iter().any(|c| c.active)
    }
}

/// Istio's `Gateway` (with a selector) or a Gateway API `Gateway` (with a class).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayConfig {
    pub meta: Meta,
    pub selector: Labels,
    pub class: Str,
    /// Its addresses name a Deployment of somebody else's: istiod deploys nothing for it (`IsManaged`).
    pub by_hand: bool,
}

impl GatewayConfig {
    /// A Gateway API Gateway that istiod deploys. Classes of one's own are told by their name, because what they point to
    /// is not read.
    pub fn is_deployed(&self) -> bool {
        let istios = self.class == "istio" || self.class.starts_with("istio-") && self.class != "istio-remote";
        istios && !self.by_hand
    }
}

/// Any other Istio configuration object, or an HTTPRoute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IstioConfig {
    pub meta: Meta,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Crd {
    pub meta: Meta,
}

/// Makes [`Object`] and what follows from the list of its variants: `one` are of one kind, `several` say of which they are.
macro_rules! objects {
    (one { $($one:ident($of:ty) = $kind:ident,)* } several { $($many:ident($each:ty),)* }) => {
        /// One object of any kind that we know.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Object {
            $($one($of),)*
            $($many(Kind, $each),)*
        }

        impl Object {
            pub fn kind(&self) -> Kind {
                match self {
                    $(Object::$one(_) => Kind::$kind,)*
                    $(Object::$many(kind, _) => *kind,)*
                }
            }

            pub fn meta(&self) -> &Meta {
                match self {
                    $(Object::$one(o) => &o.meta,)*
                    $(Object::$many(_, o) => &o.meta,)*
                }
            }

            pub fn meta_mut(&mut self) -> &mut Meta {
                match self {
                    $(Object::$one(o) => &mut o.meta,)*
                    $(Object::$many(_, o) => &mut o.meta,)*
                }
            }
        }
    };
}

objects! {
    one {
        Namespace(Namespace) = Namespace,
        Pod(Pod) = Pod,
        Service(Box<Service>) = Service,
        EndpointSlice(EndpointSlice) = EndpointSlice,
        ConfigMap(Box<ConfigMap>) = ConfigMap,
        Hpa(Box<Hpa>) = Hpa,
        Pdb(Box<Pdb>) = Pdb,
        Injector(Box<InjectorConfig>) = MutatingWebhook,
        Validator(Box<ValidatorConfig>) = ValidatingWebhook,
        Operator(Box<Operator>) = IstioOperator,
        Rollout(Box<Rollout>) = GatewayRollout,
        Crd(Crd) = Crd,
    }
    several {
        Workload(Box<Workload>),
        Sail(Box<Sail>),
        Lifecycle(Box<Lifecycle>),
        Gateway(Box<GatewayConfig>),
        Config(IstioConfig),
    }
}

impl Object {
    pub fn id(&self) -> Id {
        let meta = self.meta();
        Id { kind: self.kind(), namespace: meta.namespace.clone(), name: meta.name.clone() }
    }

    /// The pod template that it carries, if it carries one.
    pub fn template(&self) -> Option<&Template> {
        match self {
            Object::Workload(_, w) => Some(&w.template),
            Object::Pod(p) => p.template.as_deref(),
            _ => None,
        }
    }
}

impl Pod {
    /// The Deployment (or other workload) behind it: its ReplicaSet's name without the template's hash.
    pub fn workload(&self) -> Option<(&str, &str)> {
        let owner = self.meta.owner.as_deref()?;
        if owner.kind == "ReplicaSet"
            && let Some(hash) = self.meta.labels.value("pod-template-hash")
            && let Some(name) = owner.name.strip_suffix(hash).and_then(|n| n.strip_suffix('-'))
        {
            return Some(("Deployment", name));
        }
        Some((&owner.kind, &owner.name))
    }

    /// Keeps only what is asked of a pod outside of the mesh's own namespaces: which workload made it and which revision
    /// injected it. [`Pod::workload`] answers the same before and after.
    pub fn outline(&mut self) {
        if let Some((kind, name)) = self.workload() {
            self.meta.owner = Some(Box::new(Owner { kind: Str::from(kind), name: Str::from(name) }));
        }
        // An istiod is told from what it injects by this label alone.
        let istiod = self.meta.labels.is("app", "istiod");
        self.meta.labels = self.meta.labels.filtered(|k| istiod && k == "app");
        self.meta.annotations = Labels::default();
    }
}
