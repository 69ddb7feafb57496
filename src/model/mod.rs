//! The mesh in the words of the field: names, selectors, injectors, validators, workloads.
//!
//! Values here are parsed once and then trusted. Nothing in this layer knows JSON, HTTP or the
//! API server; it refuses to guess what a missing value might have been.

pub mod injection;
pub mod injector;
pub mod labels;
pub mod name;
pub mod object;
pub mod operator;
pub mod rollout;
pub mod selector;
pub mod text;
pub mod validator;
pub mod version;
pub mod workload;

pub use injection::{Injection, Resolution, WhyNot, resolve};
pub use injector::{Backend, CaBundle, FailurePolicy, Hook, InjectorConfig, Injectors};
pub use labels::Labels;
pub use name::{RevisionName, TagName};
// All of them, so that a new kind of object is listed once.
pub use object::*;
pub use operator::{ListMerge, Listed, Operator, Rendered};
pub use rollout::{Role, Rollout, RolloutState, RolloutStep, RolloutTarget};
pub use selector::{Selector, SelectorError};
pub use text::Str;
pub use validator::{Validator, ValidatorConfig};
pub use version::{Release, Version};
pub use workload::{Container, Template, Workload};

/// Label and annotation keys that decide something, spelled once.
pub mod key {
    /// Namespace: `enabled` selects the default injector; any other value switches injection off.
    pub const INJECTION: &str = "istio-injection";
    /// Revision or tag asked for (namespace, pod); literal revision (configuration, control plane).
    pub const REV: &str = "istio.io/rev";
    /// Marks an object as a revision tag; the value is the tag's name.
    pub const TAG: &str = "istio.io/tag";
    /// In a selector: the webhook is switched off, as istioctl does it. Nothing has this label.
    pub const DEACTIVATED: &str = "istio.io/deactivated";
    /// Pod label (selectors and istiod see it) or annotation (only istiod sees it).
    pub const INJECT: &str = "sidecar.istio.io/inject";
    /// Which injection templates are applied, comma separated.
    pub const TEMPLATES: &str = "inject.istio.io/templates";
    /// Written on every injected pod; its JSON names the revision since 1.11.
    pub const STATUS: &str = "sidecar.istio.io/status";
    /// `ambient` or `none`.
    pub const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";
    /// Which part of the installation an object belongs to: `Pilot`, `IngressGateways`, …
    pub const COMPONENT: &str = "operator.istio.io/component";
    /// Name of the IstioOperator that renders the object.
    pub const OWNER: &str = "install.operator.istio.io/owning-resource";
    /// Namespace of the IstioOperator that renders the object.
    pub const OWNER_NAMESPACE: &str = "install.operator.istio.io/owning-resource-namespace";
    /// Set by istiod on what it deploys for a Gateway API Gateway.
    pub const GATEWAY_MANAGED: &str = "gateway.istio.io/managed";
    /// Gateway that istiod deployed the object for.
    pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
    /// Its class, beside [`GATEWAY_NAME`].
    pub const GATEWAY_CLASS: &str = "gateway.networking.k8s.io/gateway-class-name";
    /// Pod annotation, set by the CNI node agent: `enabled` where ztunnel takes the traffic.
    pub const REDIRECTION: &str = "ambient.istio.io/redirection";
    /// On an IstioOperator: the in-cluster operator leaves it alone.
    pub const IGNORE_RECONCILE: &str = "install.istio.io/ignoreReconcile";
    /// Every namespace has it; set by the API server.
    pub const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
    /// On an object: which rules it may break, why and until when.
    pub const ALLOW: &str = "revguard.dev/allow";
    /// On an object that the controller may repair: `off` leaves it alone, `undo` takes the last repair back.
    pub const REPAIR: &str = "revguard.dev/repair";
    /// Set with every repair: which rule, when, and the patch that takes it back.
    pub const REPAIRED: &str = "revguard.dev/repaired";
    /// On our own webhook configurations: the admission policy refuses whoever sets it, so that it is seen to be in force.
    pub const REFUSE: &str = "revguard.dev/refuse";
    /// On an istiod Deployment: it is about to go, nothing new may move to it.
    pub const RETIRING: &str = "revguard.dev/retiring";
    /// On everything that a gateway rollout made or set apart: the uid of its GatewayRollout.
    pub const ROLLOUT: &str = "revguard.dev/rollout";
    /// In selector and template of a rollout's own Deployment: what tells its pods from the original's.
    pub const INSTANCE: &str = "revguard.dev/instance";
    /// On a dark probe pod, beside [`ROLLOUT`].
    pub const PROBE: &str = "revguard.dev/probe";
    /// On a gateway's Deployment: the uid of the rollout that has it in its hands.
    pub const ACTIVE_ROLLOUT: &str = "revguard.dev/active-rollout";
    /// On a gateway's Deployment: what it was before the rollout's first change, as JSON.
    pub const BASELINE: &str = "revguard.dev/baseline";
    /// On a pod that was set apart: since when.
    pub const APART_SINCE: &str = "revguard.dev/apart-since";
    /// On a copy of a mesh configuration: the hash of what it was copied from.
    pub const SOURCE_HASH: &str = "revguard.dev/source-hash";
    /// On a GatewayRollout: `UID/STEP` lets that step pass, `UID/resume` ends a pause that needs a human.
    pub const APPROVE: &str = "revguard.dev/approve";
    /// On a GatewayRollout, set with [`APPROVE`] by our webhook: who said so.
    pub const APPROVED_BY: &str = "revguard.dev/approved-by";
    /// Set by Helm on what belongs to a release.
    pub const HELM_RELEASE: &str = "meta.helm.sh/release-name";
    /// Beside [`HELM_RELEASE`].
    pub const HELM_RELEASE_NAMESPACE: &str = "meta.helm.sh/release-namespace";
    /// JSON or YAML; `discoveryAddress` in it says which istiod a proxy dials.
    pub const PROXY_CONFIG: &str = "proxy.istio.io/config";
    /// Deprecated, and stronger than [`PROXY_CONFIG`].
    pub const DISCOVERY_ADDRESS: &str = "sidecar.istio.io/discoveryAddress";
    /// Our own field manager, as `metadata.managedFields` names it.
    pub const FIELD_MANAGER: &str = "revguard";
}
