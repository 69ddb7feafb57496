//! Who uses a revision. Over-counting is safe here, forgetting is not: whatever is listed keeps a control plane alive.

use std::fmt;

use super::{Known, Snapshot, Unknown};
use crate::model::injection::requested;
use crate::model::{Backend, FailurePolicy, Kind, Object, RevisionName, Str, key};
use crate::wire::row;

/// What uses a revision and what could not be looked at.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    pub uses: Vec<Use>,
    /// Templates at 0 replicas: they would use it again.
    pub idle: Vec<Use>,
    pub unknown: Vec<Unknown>,
}

/// One user of a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    Namespace { name: Str, asks: String },
    Template { kind: Kind, namespace: Str, name: Str, asks: String },
    Pods { namespace: Str, workload: Str, count: u32 },
    Tag { name: String },
    Validator { name: Str },
    Config { kind: Kind, namespace: Str, name: Str },
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Use::Namespace { name, asks } => write!(f, "namespace {name} asks for {asks}"),
            Use::Template { kind, namespace, name, asks } => {
                write!(f, "{} {namespace}/{name} asks for {asks}", row(*kind).name)
            }
            Use::Pods { namespace, workload, count: 1 } => write!(f, "1 pod of {namespace}/{workload} runs its proxy"),
            Use::Pods { namespace, workload, count } => {
                write!(f, "{count} pods of {namespace}/{workload} run its proxy")
            }
            Use::Tag { name } => write!(f, "tag {name} points to it"),
            Use::Validator { name } => {
                write!(f, "validator {name} fails every write of Istio configuration without it")
            }
            Use::Config { kind, namespace, name } => {
                write!(f, "{} {namespace}/{name} is pinned to it", row(*kind).name)
            }
        }
    }
}

impl Usage {
    pub fn is_used(&self) -> bool {
        !self.uses.is_empty()
    }

    /// Only the mesh's own default tag and default validator refer to it.
    pub fn only_defaults(&self) -> bool {
        self.uses.iter().all(|u| match u {
            Use::Tag { name } => name == "default",
            Use::Validator { name } => name.contains("default-validator"),
            _ => false,
        })
    }

    /// The first few users in words, and how many more there are.
    pub fn sentence(&self, most: usize) -> String {
        let shown: Vec<String> = self.uses.iter().take(most).map(Use::to_string).collect();
        let more = self.uses.len().saturating_sub(most);
        if more == 0 { shown.join("; ") } else { format!("{}; and {more} more", shown.join("; ")) }
    }
}

impl Snapshot {
    /// Everything that keeps a revision in use, by the definition in docs/rules/CP001.md.
    pub fn usage(&self, revision: &RevisionName) -> Usage {
        let mut usage = Usage::default();
        let names = self.names_of(revision);
        let leads_here = |asked: &str| names.iter().any(|n| n == asked);
        match self.knows(Kind::Namespace, None) {
            Err(u) => usage.unknown.push(u),
            Ok(()) => {
                for ns in self.raw(Kind::Namespace).map(Object::meta) {
                    if let Some(Some(asked)) = crate::model::injection::asked_by_namespace(&ns.labels)
                        && leads_here(asked)
                        && !ns.deleting
                    {
                        usage.uses.push(Use::Namespace { name: ns.name.clone(), asks: asked.to_owned() });
                    }
                }
            }
        }
        self.templates(revision, &leads_here, &mut usage);
        match self.knows(Kind::Pod, None) {
            Err(u) => usage.unknown.push(u),
            Ok(()) => usage.uses.extend(self.runs(revision.as_str()).map(|(ns, w, count)| Use::Pods {
                namespace: ns.clone(),
                workload: w.clone(),
                count,
            })),
        }
        match self.injectors() {
            Err(u) => usage.unknown.push(u),
            Ok(_) => usage.uses.extend(self.tags_of(revision).into_iter().map(|name| Use::Tag { name })),
        }
        match self.catch_all_validators(revision) {
            Err(u) => usage.unknown.push(u),
            Ok(found) => usage.uses.extend(found.into_iter().map(|name| Use::Validator { name })),
        }
        self.pinned(revision, &leads_here, &mut usage);
        usage
    }

    /// Templates that ask for the revision by themselves. Those that ask through their namespace are counted with it.
    fn templates(&self, revision: &RevisionName, leads_here: &impl Fn(&str) -> bool, usage: &mut Usage) {
        if let Err(u) = self.knows_workloads() {
            usage.unknown.push(u);
            return;
        }
        for (kind, w) in self.workloads() {
            if w.is_istiod() {
                continue;
            }
            let asks = if w.is_gateway() {
                let target = self.target_of(w).ok().flatten();
                target
                    .filter(|t| t.revision.as_ref() == Some(revision) || t.revision.is_none() && leads_here(&t.name))
                    .map(|t| t.name)
            } else {
                let namespace = self.namespace_labels(&w.meta.namespace);
                let by_namespace = crate::model::injection::asked_by_namespace(&namespace).is_some();
                requested(&namespace, &w.template.labels).filter(|a| !by_namespace && leads_here(a)).map(str::to_owned)
            };
            if let Some(asks) = asks {
                let found =
                    Use::Template { kind, namespace: w.meta.namespace.clone(), name: w.meta.name.clone(), asks };
                if w.replicas == Some(0) { usage.idle.push(found) } else { usage.uses.push(found) }
            }
        }
    }

    /// Configurations with a webhook that must accept every unlabelled Istio object, served by this revision.
    fn catch_all_validators(&self, revision: &RevisionName) -> Known<Vec<Str>> {
        let mut found = Vec::new();
        for config in self.validators()? {
            // Its own validator judges only what is labelled with it and goes together with it.
            let depends = config.webhooks.iter().any(|w| {
                w.is_catch_all()
                    && w.failure_policy == FailurePolicy::Fail
                    && self.backend_revision(&w.backend).as_ref() == Some(revision)
            });
            if depends {
                found.push(config.meta.name.clone());
            }
        }
        Ok(found)
    }

    /// The revision whose istiod a Service leads to.
    pub fn backend_revision(&self, backend: &Backend) -> Option<RevisionName> {
        let Backend::Service { namespace, name, .. } = backend else { return None };
        self.revision_of_host(&format!("{name}.{namespace}"))
            .map(|t| t.revision.unwrap_or_else(|| RevisionName::new(&t.name)))
    }

    /// Istio configuration labelled with the revision; Gateway API Gateways may name a tag instead.
    fn pinned(&self, revision: &RevisionName, leads_here: &impl Fn(&str) -> bool, usage: &mut Usage) {
        for kind in Kind::CONFIG.into_iter().chain([Kind::HttpRoute, Kind::ApiGateway]) {
            // Who gives no configuration offline has none that matters; a refusal of the API server does.
            if !self.is_offline()
                && let Err(u) = self.knows(kind, None)
            {
                usage.unknown.push(u);
            }
            for meta in self.raw(kind).map(Object::meta) {
                let pinned = meta
                    .labels
                    .value(key::REV)
                    .is_some_and(|rev| rev == revision.as_str() || kind == Kind::ApiGateway && leads_here(rev));
                if pinned && !meta.deleting {
                    usage.uses.push(Use::Config { kind, namespace: meta.namespace.clone(), name: meta.name.clone() });
                }
            }
        }
    }
}
