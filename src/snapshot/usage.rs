//! Who uses a revision. Over-counting is safe here, forgetting is not: whatever is listed keeps a control plane alive.

use std::fmt;

use super::{Known, Snapshot, Unknown};
use crate::model::injection::requested;
use crate::model::{Backend, Kind, Meta, Object, RevisionName, Str, key};
use crate::wire::row;

/// What uses a revision and what could not be looked at.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    pub uses: Vec<Use>,
    /// Templates at 0 replicas: they would use it again.
    pub idle: Vec<Use>,
    /// Pods whose Deployment is gone: on their way out, or left behind on purpose.
    pub leaving: Vec<Use>,
    pub unknown: Vec<Unknown>,
}

/// One user of a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    Namespace {
        name: Str,
        asks: String,
    },
    Template {
        kind: Kind,
        namespace: Str,
        name: Str,
        asks: String,
    },
    Pods {
        namespace: Str,
        workload: Str,
        count: u32,
    },
    Tag {
        name: String,
    },
    Validator {
        name: Str,
    },
    Config {
        kind: Kind,
        namespace: Str,
        name: Str,
    },
    /// A gateway is being moved away from it or to it, or can be taken back to it (`back`).
    Rollout {
        namespace: Str,
        name: Str,
        back: bool,
    },
    /// It injects wherever nothing is said.
    ByDefault,
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
            Use::Rollout { namespace, name, back: true } => {
                write!(f, "GatewayRollout {namespace}/{name} can still go back to it")
            }
            Use::Rollout { namespace, name, back: false } => {
                write!(f, "GatewayRollout {namespace}/{name} is under way with it")
            }
            Use::ByDefault => f.write_str("it injects wherever nothing is said (enableNamespacesByDefault)"),
        }
    }
}

impl Use {
    /// It only names the revision; nothing runs with it.
    pub fn is_name(&self) -> bool {
        !matches!(self, Use::Pods { .. } | Use::Template { .. } | Use::Rollout { back: false, .. })
    }
}

impl Usage {
    pub fn is_used(&self) -> bool {
        !self.uses.is_empty()
    }

    /// Nothing runs with it or is made to run with it: only labels, tags and validators name it. A validator is listed only
    /// if it judges whatever names no revision, by any name (`istiod-istio-system` up to 1.10).
    pub fn only_names(&self) -> bool {
        self.uses.iter().all(Use::is_name)
    }

    /// Who refers to it, each in a word or two.
    pub fn names(&self) -> Vec<String> {
        let name = |u: &Use| match u {
            Use::Tag { name } => Some(format!("tag {name}")),
            Use::Validator { name } => Some(name.to_string()),
            Use::Namespace { name, .. } => Some(format!("namespace {name}")),
            Use::Config { kind, namespace, name } => Some(format!("{} {namespace}/{name}", row(*kind).name)),
            Use::Template { kind, namespace, name, .. } => Some(format!("{} {namespace}/{name}", row(*kind).name)),
            Use::Rollout { namespace, name, .. } => Some(format!("GatewayRollout {namespace}/{name}")),
            Use::Pods { .. } | Use::ByDefault => None,
        };
        self.uses.iter().filter_map(name).collect()
    }

    /// A workload asks by its own template.
    pub fn asks(&self, namespace: &str, workload: &str) -> bool {
        let it =
            |u: &Use| matches!(u, Use::Template { namespace: ns, name, .. } if *ns == namespace && *name == workload);
        self.uses.iter().any(it)
    }

    /// What could not be looked at, in words.
    pub fn gaps(&self) -> String {
        let mut gaps: Vec<String> = self.unknown.iter().map(Unknown::to_string).collect();
        gaps.dedup();
        gaps.join("; ")
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
        let names = self.names_of(revision);
        let leads_here = |asked: &str| names.iter().any(|n| n == asked);
        let mut usage = Usage::default();
        self.namespaces(&leads_here, &mut usage);
        self.templates(Some(revision), &leads_here, &mut usage);
        match self.knows(Kind::Pod, None) {
            Err(u) => usage.unknown.push(u),
            Ok(()) => self.running(revision, &mut usage),
        }
        // A tag may be a webhook configuration, a Service, or both.
        for kind in [Kind::MutatingWebhook, Kind::Service] {
            usage.unknown.extend(self.knows(kind, None).err());
        }
        usage.uses.extend(self.tags_of(revision).into_iter().map(|name| Use::Tag { name }));
        match self.catch_all_validators(revision) {
            Err(u) => usage.unknown.push(u),
            Ok(found) => usage.uses.extend(found.into_iter().map(|name| Use::Validator { name })),
        }
        self.pinned(revision, &leads_here, &mut usage);
        self.moving(revision, &mut usage);
        usage
    }

    /// Rollouts that need it, whose gateways may have no pod of it yet or any more.
    fn moving(&self, revision: &RevisionName, usage: &mut Usage) {
        match self.rollouts_with(revision) {
            // Who gives none offline has none.
            Err(unknown) if !self.is_offline() => usage.unknown.push(unknown),
            Err(_) => {}
            Ok(found) => usage.uses.extend(found.into_iter().filter(|r| !self.is_ending(&r.meta.namespace)).map(|r| {
                let (namespace, name) = (r.meta.namespace.clone(), r.meta.name.clone());
                Use::Rollout { namespace, name, back: !r.is_active() }
            })),
        }
    }

    fn running(&self, revision: &RevisionName, usage: &mut Usage) {
        for (namespace, workload, count) in self.runs(revision.as_str()) {
            let pods = Use::Pods { namespace: namespace.clone(), workload: workload.clone(), count };
            match self.owner(namespace, workload) {
                Owner::Stays => usage.uses.push(pods),
                Owner::Goes => {}
                Owner::Gone => usage.leaving.push(pods),
            }
        }
    }

    /// What becomes of the workload behind running pods. What cannot be seen stays.
    fn owner(&self, namespace: &str, workload: &str) -> Owner {
        const SEEN: [Kind; 3] = [Kind::Deployment, Kind::DaemonSet, Kind::StatefulSet];
        if self.is_ending(namespace) {
            return Owner::Goes;
        }
        let mut found = SEEN.iter().filter_map(|kind| self.get(*kind, namespace, workload)).peekable();
        if found.peek().is_some() {
            return if found.all(|o| o.meta().deleting) { Owner::Goes } else { Owner::Stays };
        }
        let mut pods = self.raw_in(Kind::Pod, namespace).filter_map(|o| match o {
            Object::Pod(p) => p.workload().filter(|(_, name)| *name == workload),
            _ => None,
        });
        let kind = pods.next().and_then(|(name, _)| SEEN.into_iter().find(|k| row(*k).name == name));
        if kind.is_some_and(|kind| self.knows(kind, None).is_ok()) { Owner::Gone } else { Owner::Stays }
    }

    /// The namespace is being deleted with everything in it.
    pub fn is_ending(&self, namespace: &str) -> bool {
        self.get(Kind::Namespace, "", namespace).is_some_and(|ns| ns.meta().deleting)
    }

    /// Whatever asks for a tag by its name.
    pub fn asking_for(&self, tag: &str) -> Usage {
        let named = |asked: &str| asked == tag;
        let mut usage = Usage::default();
        self.namespaces(&named, &mut usage);
        self.templates(None, &named, &mut usage);
        for meta in self.raw(Kind::ApiGateway).map(Object::meta).filter(|m| m.labels.is(key::REV, tag) && !m.deleting) {
            let (namespace, name) = (meta.namespace.clone(), meta.name.clone());
            usage.uses.push(Use::Config { kind: Kind::ApiGateway, namespace, name });
        }
        usage
    }

    fn namespaces(&self, leads_here: &impl Fn(&str) -> bool, usage: &mut Usage) {
        if let Err(u) = self.knows(Kind::Namespace, None) {
            usage.unknown.push(u);
            return;
        }
        for ns in self.raw(Kind::Namespace).map(Object::meta) {
            if let Some(Some(asked)) = crate::model::injection::asked_by_namespace(&ns.labels)
                && leads_here(asked)
                && !ns.deleting
            {
                usage.uses.push(Use::Namespace { name: ns.name.clone(), asks: asked.to_owned() });
            }
        }
    }

    /// Templates that ask by themselves. Those that ask through their namespace are counted with it. Without a revision
    /// only the name asked for counts.
    fn templates(&self, revision: Option<&RevisionName>, leads_here: &impl Fn(&str) -> bool, usage: &mut Usage) {
        if let Err(u) = self.knows_workloads() {
            usage.unknown.push(u);
            return;
        }
        for (kind, w) in self.workloads() {
            if w.is_istiod() || w.meta.deleting || self.is_ending(&w.meta.namespace) {
                continue;
            }
            let asks = if w.is_gateway() {
                let target = self.target_of(w).ok().flatten();
                target
                    .filter(|t| match (revision, &t.revision) {
                        (Some(r), Some(behind)) => behind == r,
                        _ => leads_here(&t.name),
                    })
                    .map(|t| t.name)
            } else {
                let namespace = self.namespace_labels(&w.meta.namespace);
                let by_namespace = crate::model::injection::asked_by_namespace(&namespace).is_some();
                let asked = requested(&namespace, &w.template.labels).filter(|a| !by_namespace && leads_here(a));
                asked.map(str::to_owned).or_else(|| self.dialled(w, revision))
            };
            if let Some(asks) = asks {
                let found =
                    Use::Template { kind, namespace: w.meta.namespace.clone(), name: w.meta.name.clone(), asks };
                if w.replicas == Some(0) { usage.idle.push(found) } else { usage.uses.push(found) }
            }
        }
    }

    /// The istiod that a template itself tells its proxy to dial, if it is the revision's.
    fn dialled(&self, workload: &crate::model::Workload, revision: Option<&RevisionName>) -> Option<String> {
        let target = self.revision_of_host(&workload.template.discovery_host()?)?;
        (target.revision.as_ref() == Some(revision?)).then_some(target.name)
    }

    /// Configurations with a webhook that must accept every unlabelled Istio object, served by this revision.
    fn catch_all_validators(&self, revision: &RevisionName) -> Known<Vec<Str>> {
        let mut found = Vec::new();
        for config in self.validators()? {
            // Its own validator goes together with it. (In 1.11 each of them was a catch-all as well.)
            if config.meta.name.starts_with("istio-validator") && config.revision().as_ref() == Some(revision) {
                continue;
            }
            if config.holds_back_without(|b| self.backend_revision(b).as_ref() == Some(revision)) {
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
                let pinned = meta.labels.value(key::REV).is_some_and(|rev| {
                    if kind == Kind::ApiGateway { leads_here(rev) } else { rev == revision.as_str() }
                });
                let going = meta.deleting || self.is_ending(&meta.namespace);
                if pinned && !going && !self.is_part_of(revision, kind, meta) {
                    usage.uses.push(Use::Config { kind, namespace: meta.namespace.clone(), name: meta.name.clone() });
                }
            }
        }
    }

    /// It was installed together with the control plane, and goes with it.
    fn is_part_of(&self, revision: &RevisionName, kind: Kind, meta: &Meta) -> bool {
        // Rendered by every chart up to 1.19; Helm alone says no more of them than their names.
        const TELEMETRY: [&str; 5] = [
            "stats-filter-",
            "tcp-stats-filter-",
            "metadata-exchange-",
            "tcp-metadata-exchange-",
            "stackdriver-filter-",
        ];
        let named = || kind == Kind::EnvoyFilter && TELEMETRY.iter().any(|start| meta.name.starts_with(start));
        let released = || {
            let release = meta.helm_release();
            let mut own =
                self.istiods().into_iter().flatten().filter(|w| w.istiod_revision().as_ref() == Some(revision));
            release.is_some() && own.any(|w| w.meta.helm_release() == release)
        };
        meta.labels.has(key::COMPONENT) || named() || released()
    }
}

/// What becomes of the workload behind running pods.
enum Owner {
    Stays,
    /// It is being deleted, and its pods follow.
    Goes,
    /// It is not there any more.
    Gone,
}
