//! Injectors: the `MutatingWebhookConfiguration`s that the API server consults for every Pod.

use std::sync::Arc;

use super::{Labels, Meta, RevisionName, Selector, Str, TagName, key};

/// Where a webhook is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    Service {
        namespace: Str,
        name: Str,
        port: u16,
    },
    /// An external control plane; there is no Service to look at.
    Url(Str),
    /// Neither is set; the API server refuses such a configuration.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailurePolicy {
    Fail,
    Ignore,
}

/// `clientConfig.caBundle`: whom the API server trusts to be the backend. The bytes are nobody's business, only whether two
/// are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CaBundle {
    /// Nothing: the API server trusts its own roots, which know no istiod.
    #[default]
    Empty,
    /// Something that holds no certificate.
    Broken,
    /// A hash of it.
    Of(u64),
}

/// Is either selector one that istioctl writes to switch a webhook off?
pub fn is_deactivated(selectors: [&Selector; 2]) -> bool {
    selectors.iter().any(|s| s.accepted(key::DEACTIVATED).next().is_some())
}

/// One webhook of one configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    pub config: Str,
    pub name: Str,
    /// Label `istio.io/rev` of the configuration: whose istiod serves it.
    pub revision: Option<RevisionName>,
    /// Label `istio.io/tag` of the configuration, if it is a tag.
    pub tag: Option<TagName>,
    pub namespace_selector: Selector,
    pub object_selector: Selector,
    pub backend: Backend,
    pub failure_policy: FailurePolicy,
    pub ca: CaBundle,
    /// It has `matchConditions`, so that its selectors alone do not say whom it is called for.
    pub conditional: bool,
    /// Its rules name the creation of Pods. Without that it is never called for one.
    pub pods: bool,
    /// An Istio injector. istiod finds its own webhooks by this name suffix (`webhookpatch.go`).
    pub istio: bool,
}

impl Hook {
    pub fn is_deactivated(&self) -> bool {
        is_deactivated([&self.namespace_selector, &self.object_selector])
    }
}

/// Name suffix of every Istio injector webhook since 1.4.
pub const INJECTOR_SUFFIX: &str = "sidecar-injector.istio.io";

/// A whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InjectorConfig {
    pub meta: Meta,
    pub hooks: Vec<Hook>,
}

impl InjectorConfig {
    /// A revision's own configuration, not a tag and not something that is not Istio's.
    pub fn is_canonical(&self) -> bool {
        self.is_istio() && !self.meta.labels.has(key::TAG)
    }

    pub fn is_istio(&self) -> bool {
        self.hooks.iter().any(|h| h.istio)
    }

    pub fn revision(&self) -> Option<RevisionName> {
        self.meta.labels.value(key::REV).map(RevisionName::new)
    }

    pub fn tag(&self) -> Option<TagName> {
        self.meta.labels.value(key::TAG).map(TagName::new)
    }
}

/// All injectors, in the order in which the API server calls them: by configuration name, then as
/// written (`mutating_webhook_manager.go` sorts by name).
#[derive(Clone, Debug, Default)]
pub struct Injectors {
    hooks: Vec<Arc<Hook>>,
}

/// A name that more than one configuration answers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// As asked for, or [`DEFAULT_INJECTOR`].
    pub name: Str,
    /// In the order in which the API server calls them.
    pub configs: Vec<Str>,
}

impl Injectors {
    pub fn new<'a>(configs: impl Iterator<Item = &'a InjectorConfig>) -> Self {
        let mut configs: Vec<&InjectorConfig> = configs.collect();
        configs.sort_by(|a, b| a.meta.name.cmp(&b.meta.name));
        let hooks = configs.iter().flat_map(|c| c.hooks.iter()).filter(|h| h.pods);
        Injectors { hooks: hooks.map(|h| Arc::new(h.clone())).collect() }
    }

    pub fn hooks(&self) -> impl Iterator<Item = &Hook> {
        self.hooks.iter().map(|h| &**h)
    }

    /// Webhooks whose selectors match this pod in this namespace, in calling order.
    pub fn matching<'a>(&'a self, namespace: &'a Labels, pod: &'a Labels) -> impl Iterator<Item = &'a Hook> {
        self.hooks().filter(|h| h.namespace_selector.matches(namespace) && h.object_selector.matches(pod))
    }

    /// Istio webhooks that serve pods asking for `name`, found by evaluating their selectors on such pods. `around`
    /// are the other labels of the namespace that asks (an injector may select on those, too).
    pub fn serving<'a>(&'a self, name: &str, around: &Labels) -> Vec<&'a Hook> {
        let mut found: Vec<&Hook> = Vec::new();
        for hook in self.serving_all(name, around) {
            if !found.iter().any(|f| f.config == hook.config) {
                found.push(hook);
            }
        }
        found
    }

    /// The same with every webhook of a configuration that has several.
    fn serving_all<'a>(&'a self, name: &str, around: &Labels) -> Vec<&'a Hook> {
        let bare = around.without(key::REV).without(key::INJECTION);
        let none = Labels::default();
        let (by_namespace, by_pod) = if name == DEFAULT_INJECTOR {
            (bare.with(key::INJECTION, "enabled"), Labels::from([(key::INJECT, "true")]))
        } else {
            (bare.with(key::REV, name), Labels::from([(key::REV, name)]))
        };
        let serves = |hook: &&Hook| {
            hook.namespace_selector.matches(&by_namespace) && hook.object_selector.matches(&none)
                || hook.namespace_selector.matches(&bare) && hook.object_selector.matches(&by_pod)
        };
        self.hooks().filter(|h| h.istio).filter(serves).collect()
    }

    /// Is there an injector for pods that ask for `name`?
    pub fn serves(&self, name: &str) -> bool {
        !self.serving(name, &Labels::default()).is_empty()
    }

    /// The injector of `istio-injection=enabled` and `sidecar.istio.io/inject=true`.
    pub fn default_hook(&self) -> Option<&Hook> {
        self.serving(DEFAULT_INJECTOR, &Labels::default()).into_iter().next_back()
    }

    /// Every name that a live injector serves, sorted; tags and revisions told apart.
    pub fn names(&self) -> Names {
        let mut names = Names::default();
        for hook in self.hooks().filter(|h| h.istio) {
            for selector in [&hook.namespace_selector, &hook.object_selector] {
                for name in selector.accepted(key::REV) {
                    if !self.serves(name) {
                        continue;
                    }
                    match &hook.tag {
                        Some(tag) if tag.as_str() == name.as_str() => names.tags.push(name.clone()),
                        _ => names.revisions.push(name.clone()),
                    }
                }
            }
        }
        for list in [&mut names.tags, &mut names.revisions] {
            list.sort();
            list.dedup();
        }
        names
    }

    /// Does any Istio injector serve anything at all?
    pub fn any_live(&self) -> bool {
        self.default_hook().is_some() || !self.names().is_empty()
    }

    /// Configurations that some pod makes the API server call, sorted.
    pub fn live(&self) -> Vec<Str> {
        let mut found: Vec<Str> = Vec::new();
        for name in self.asked() {
            found.extend(self.serving(&name, &Labels::default()).iter().map(|h| h.config.clone()));
        }
        found.sort();
        found.dedup();
        found
    }

    /// Names that more than one configuration answers to, in a namespace of any of these label sets. A webhook with
    /// conditions of its own may never be called together with another.
    pub fn conflicts<'a>(&self, namespaces: impl Iterator<Item = &'a Labels>) -> Vec<Conflict> {
        let keys = self.other_keys();
        let mut arounds: Vec<Labels> = vec![Labels::default()];
        if !keys.is_empty() {
            arounds.extend(namespaces.map(|l| l.filtered(|k| keys.iter().any(|key| key == k))));
            arounds.sort();
            arounds.dedup();
        }
        let mut found: Vec<Conflict> = Vec::new();
        for name in self.asked() {
            for around in &arounds {
                let serving = self.serving_all(&name, around);
                let mut configs: Vec<Str> =
                    serving.iter().filter(|h| !h.conditional).map(|h| h.config.clone()).collect();
                configs.dedup();
                let conflict = Conflict { name: name.clone(), configs };
                if conflict.configs.len() > 1 && !found.contains(&conflict) {
                    found.push(conflict);
                }
            }
        }
        found
    }

    /// Keys of namespaces that Istio's injectors select by, besides those that ask for a name.
    fn other_keys(&self) -> Vec<Str> {
        let all =
            self.hooks().filter(|h| h.istio).flat_map(|h| h.namespace_selector.keys().cloned().collect::<Vec<_>>());
        let mut keys: Vec<Str> = all.filter(|k| !matches!(k.as_str(), key::REV | key::INJECTION)).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// Every name that some webhook's selectors speak of, and the default injector's.
    fn asked(&self) -> Vec<Str> {
        let selectors = self.hooks().filter(|h| h.istio).flat_map(|h| [&h.namespace_selector, &h.object_selector]);
        let mut names: Vec<Str> = selectors.flat_map(|s| s.accepted(key::REV).cloned().collect::<Vec<_>>()).collect();
        names.push(Str::from(DEFAULT_INJECTOR));
        names.sort();
        names.dedup();
        names
    }

    /// The revisions that a live injector of any name leads to, sorted.
    pub fn revisions(&self) -> Vec<RevisionName> {
        let mut found: Vec<RevisionName> = Vec::new();
        for name in self.names().all() {
            found.extend(self.serving(name, &Labels::default()).iter().filter_map(|h| h.revision.clone()));
        }
        found.extend(self.default_hook().and_then(|h| h.revision.clone()));
        found.sort();
        found.dedup();
        found
    }
}

/// Pseudo name of what `istio-injection=enabled` asks for. `istio.io/rev=default` is another webhook of the same
/// configuration and is asked for as `default`.
pub const DEFAULT_INJECTOR: &str = "\u{0}default-injector";

/// Names that can be asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub tags: Vec<Str>,
    pub revisions: Vec<Str>,
}

impl Names {
    pub fn is_empty(&self) -> bool {
        self.tags.is_empty() && self.revisions.is_empty()
    }

    pub fn all(&self) -> impl Iterator<Item = &Str> {
        self.tags.iter().chain(&self.revisions)
    }

    /// The name most like `wrong`, if any is alike at all.
    pub fn nearest(&self, wrong: &str) -> Option<&Str> {
        self.all()
            .map(|n| (strsim::damerau_levenshtein(n, wrong), n))
            .filter(|(distance, n)| *distance * 2 <= n.len().max(wrong.len()))
            .min()
            .map(|(_, n)| n)
    }
}
