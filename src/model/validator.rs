//! Validators: the `ValidatingWebhookConfiguration`s that judge Istio's own configuration.

use super::injector::{CaBundle, is_deactivated};
use super::{Backend, FailurePolicy, Labels, Meta, RevisionName, Selector, Str, key};

/// The API groups of Istio's configuration.
pub const CONFIG_GROUPS: [&str; 4] =
    ["networking.istio.io", "security.istio.io", "telemetry.istio.io", "extensions.istio.io"];

/// One webhook of a validating configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validator {
    pub name: Str,
    pub namespace_selector: Selector,
    pub object_selector: Selector,
    pub backend: Backend,
    pub failure_policy: FailurePolicy,
    pub ca: CaBundle,
    /// Its rules name one of [`CONFIG_GROUPS`] and its name ends in `validation.istio.io`.
    pub istio: bool,
}

impl Validator {
    /// It judges objects that name no revision, so that every write of Istio configuration depends on it.
    pub fn is_catch_all(&self) -> bool {
        self.istio && !self.is_deactivated() && self.object_selector.matches(&Labels::default())
    }

    pub fn is_deactivated(&self) -> bool {
        is_deactivated([&self.namespace_selector, &self.object_selector])
    }

    /// It judges what is pinned to this revision, and says so by name.
    pub fn is_of(&self, revision: &RevisionName) -> bool {
        self.istio && self.object_selector.accepted(key::REV).any(|r| *r == revision.as_str())
    }
}

/// A whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatorConfig {
    pub meta: Meta,
    pub webhooks: Vec<Validator>,
}

impl ValidatorConfig {
    /// Every write of unlabelled Istio configuration fails while a backend that `lost` names does not answer.
    pub fn holds_back_without(&self, lost: impl Fn(&Backend) -> bool) -> bool {
        self.webhooks.iter().any(|w| w.is_catch_all() && w.failure_policy == FailurePolicy::Fail && lost(&w.backend))
    }

    pub fn revision(&self) -> Option<RevisionName> {
        self.meta.labels.value(key::REV).map(RevisionName::new)
    }
}
