//! Control planes and the names that lead to them.

use std::collections::BTreeMap;

use super::{Known, Snapshot};
use crate::model::{
    Backend, Kind, ListMerge, Object, Resolution, RevisionName, Service, Template, Version, Workload,
    injector::{Conflict, DEFAULT_INJECTOR},
    key, resolve,
};

/// One control plane, from whatever evidence there is.
#[derive(Clone, Debug, Default)]
pub struct ControlPlane {
    /// Namespaces of its istiods.
    pub namespaces: Vec<String>,
    /// Of its istiod's image, else of the custom resource that installs it.
    pub version: Option<Version>,
    /// An istiod of it is in the cluster.
    pub installed: bool,
}

/// What answers behind a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// Outside the cluster (`url`, ExternalName); nothing to look at.
    Elsewhere,
    /// The Service is not there.
    Missing,
    /// The Service has no ready endpoint.
    Nobody,
    Ready(u32),
}

/// The revision that a gateway's pods attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// As written: a revision or a tag.
    pub name: String,
    /// The revision behind it, if it leads to one.
    pub revision: Option<RevisionName>,
}

impl Snapshot {
    /// Every control plane that is installed or that a custom resource installs, by revision.
    pub fn control_planes(&self) -> Known<BTreeMap<RevisionName, ControlPlane>> {
        let mut all: BTreeMap<RevisionName, ControlPlane> = BTreeMap::new();
        for istiod in self.istiods()? {
            let Some(revision) = istiod.istiod_revision() else { continue };
            let plane = all.entry(revision).or_default();
            plane.installed = true;
            plane.namespaces.push(istiod.meta.namespace.to_string());
            plane.version = plane.version.or(istiod.istiod_version());
        }
        for o in self.raw(Kind::IstioOperator) {
            if let Object::Operator(o) = o
                && o.has_pilot()
                && !o.is_inert()
            {
                let plane = all.entry(RevisionName::new(o.revision.as_deref().unwrap_or(""))).or_default();
                plane.version = plane.version.or(o.version());
            }
        }
        for sail in self.sails(Kind::SailRevision) {
            let plane = all.entry(RevisionName::new(&sail.meta.name)).or_default();
            plane.version = plane.version.or(sail.version.as_deref().and_then(Version::parse));
        }
        Ok(all)
    }

    /// Revisions by any evidence but a tag: control planes, and injectors and Services of istiods elsewhere (`url`).
    pub fn revisions(&self) -> Known<Vec<RevisionName>> {
        let mut all: Vec<RevisionName> = self.control_planes()?.into_keys().collect();
        self.injectors()?;
        self.knows(Kind::Service, None)?;
        let injectors = self.injector_configs().filter(|c| c.is_istio()).map(|c| &c.meta);
        let services = self.raw(Kind::Service).map(Object::meta).filter(|m| m.labels.is("app", "istiod"));
        let canonical = injectors.chain(services).filter(|m| !m.labels.has(key::TAG));
        all.extend(canonical.filter_map(|m| m.labels.value(key::REV)).map(RevisionName::new));
        all.sort();
        all.dedup();
        Ok(all)
    }

    /// Some object makes `name` a tag: a webhook configuration, a Service, or a Sail tag.
    pub fn is_tag(&self, name: &str) -> bool {
        let mut labelled = self.raw(Kind::MutatingWebhook).chain(self.raw(Kind::Service)).map(Object::meta);
        labelled.any(|m| m.labels.is(key::TAG, name)) || self.sails(Kind::SailTag).any(|t| t.meta.name == name)
    }

    /// The version of a revision's control plane, if its image or custom resource tells.
    pub fn version_of(&self, revision: &RevisionName) -> Option<Version> {
        self.control_planes().ok()?.remove(revision)?.version
    }

    /// What answers behind a webhook's backend.
    pub fn answers(&self, backend: &Backend) -> Known<Answers> {
        let Backend::Service { namespace, name, .. } = backend else { return Ok(Answers::Elsewhere) };
        match self.service(namespace, name)? {
            None => Ok(Answers::Missing),
            Some(s) if s.is_external_name() => Ok(Answers::Elsewhere),
            Some(s) => self.service_answers(s),
        }
    }

    /// Endpoints of a Service; where no EndpointSlices were read, the status of the Deployments that it selects.
    fn service_answers(&self, service: &Service) -> Known<Answers> {
        let count = match self.endpoints(&service.meta.namespace, &service.meta.name) {
            Ok(n) => n,
            Err(unknown) => {
                let mut selected = self
                    .workloads_in(&service.meta.namespace)
                    .filter(|(_, w)| service.selects(&w.template.labels))
                    .map(|(_, w)| w.ready)
                    .peekable();
                if selected.peek().is_none() {
                    return Err(unknown);
                }
                selected.sum::<Option<u32>>().ok_or(unknown)?
            }
        };
        Ok(if count == 0 { Answers::Nobody } else { Answers::Ready(count) })
    }

    /// Whether a revision's istiod is ready to take proxies.
    pub fn is_ready(&self, revision: &RevisionName) -> Known<bool> {
        let mut backends =
            self.injectors()?.hooks().filter(|h| h.istio && h.revision.as_ref() == Some(revision)).map(|h| &h.backend);
        if let Some(backend) = backends.next() {
            return Ok(matches!(self.answers(backend)?, Answers::Elsewhere | Answers::Ready(_)));
        }
        let name = revision.istiod();
        if let Some(service) = self.services()?.find(|s| s.meta.name == name.as_str()) {
            return Ok(matches!(self.service_answers(service)?, Answers::Ready(_)));
        }
        Ok(self.istiods()?.any(|w| w.istiod_revision().as_ref() == Some(revision) && w.ready.unwrap_or(0) > 0))
    }

    /// Ready endpoints of a revision's istiod; `None` if it has no Service here.
    pub fn ready_endpoints(&self, revision: &RevisionName) -> Known<Option<u32>> {
        let name = revision.istiod();
        let mut own = self.services()?.filter(|s| s.meta.name == name.as_str());
        let Some(service) = own.next() else { return Ok(None) };
        Ok(match self.service_answers(service)? {
            Answers::Ready(n) => Some(n),
            Answers::Nobody => Some(0),
            Answers::Elsewhere | Answers::Missing => None,
        })
    }

    /// A live injector serves pods that ask for `name`.
    pub fn is_served(&self, name: &str) -> Known<bool> {
        Ok(self.injectors()?.serves(name))
    }

    /// Something names `name` as a control plane or tag to come although no injector serves it yet: what, in words.
    /// `asking` is not evidence for itself.
    pub fn announced(&self, name: &str) -> Option<String> {
        if let Ok(istiods) = self.istiods()
            && let Some(w) = { istiods }.find(|w| w.istiod_revision().is_some_and(|r| r.as_str() == name))
        {
            return Some(format!("Deployment {}/{}", w.meta.namespace, w.meta.name));
        }
        for o in self.raw(Kind::Service) {
            let meta = o.meta();
            let istiod =
                meta.labels.is("app", "istiod") && meta.labels.is(key::REV, name) && !meta.labels.has(key::TAG);
            if istiod || meta.labels.is(key::TAG, name) {
                return Some(format!("Service {}/{}", meta.namespace, meta.name));
            }
        }
        // A chart's tag may be applied before the revision that it leads to.
        if let Ok(injectors) = self.injectors()
            && let Some(hook) = injectors.hooks().find(|h| {
                let leads = h.istio && h.revision.as_ref().is_some_and(|r| r.as_str() == name);
                leads && h.tag.as_ref().is_some_and(|tag| injectors.serves(tag.as_str()))
            })
        {
            return Some(format!("MutatingWebhookConfiguration {}", hook.config));
        }
        let mesh = format!("istio-{name}");
        // A copy that somebody made for a gateway says nothing of what is to come; the chart's own has the label.
        let is_charts = |o: &&Object| o.meta().name == mesh.as_str() && o.meta().labels.is(key::REV, name);
        if let Some(c) = self.raw(Kind::ConfigMap).find(is_charts) {
            return Some(format!("ConfigMap {}/{mesh}", c.meta().namespace));
        }
        for o in self.raw(Kind::IstioOperator) {
            if let Object::Operator(o) = o
                && o.has_pilot()
                && o.revision.as_deref().unwrap_or("default") == name
            {
                return Some(format!("IstioOperator {}/{}", o.meta.namespace, o.meta.name));
            }
        }
        for kind in [Kind::SailRevision, Kind::SailTag, Kind::SailIstio] {
            if let Some(s) = self.sails(kind).find(|s| s.meta.name == name || s.revision.as_deref() == Some(name)) {
                return Some(format!("{} {}", crate::wire::row(kind).name, s.meta.name));
            }
        }
        let gateways = self.gateways().ok()?;
        let mut asking = { gateways }.filter(|(_, w)| w.template.labels.is(key::REV, name));
        asking.next().map(|(kind, w)| format!("{} {}/{}", crate::wire::row(kind).name, w.meta.namespace, w.meta.name))
    }

    /// The revision behind a name: a Service tag wins over a webhook tag (`tag_watcher.go`), then the name itself.
    pub fn revision_behind(&self, name: &str) -> Known<Option<RevisionName>> {
        let tagged = self.raw(Kind::Service).map(Object::meta).find(|m| m.labels.is(key::TAG, name));
        if let Some(rev) = tagged.and_then(|m| m.labels.value(key::REV)) {
            return Ok(Some(RevisionName::new(rev)));
        }
        let injectors = self.injectors()?;
        let tag = injectors.hooks().find(|h| h.istio && h.tag.as_ref().is_some_and(|t| t.as_str() == name));
        if let Some(rev) = tag.and_then(|h| h.revision.clone()) {
            return Ok(Some(rev));
        }
        if let Some(hook) = injectors.serving(name, &crate::model::Labels::default()).last() {
            return Ok(hook.revision.clone());
        }
        if name == "default"
            && let Some(hook) = injectors.default_hook()
        {
            return Ok(hook.revision.clone());
        }
        let revision = RevisionName::new(name);
        Ok(self.control_planes()?.contains_key(&revision).then_some(revision))
    }

    /// The names that lead to a revision: its own, its tags', and `default` if the default injector is its. The name
    /// `default` leads to the unnamed revision only until a default tag takes it away.
    pub fn names_of(&self, revision: &RevisionName) -> Vec<String> {
        let mut names = self.tags_of(revision);
        let default = self.injectors().ok().and_then(|i| i.default_hook()).and_then(|h| h.revision.as_ref());
        if default == Some(revision) {
            names.push("default".to_owned());
        }
        if !revision.is_default() || !self.is_default_elsewhere() {
            names.push(revision.to_string());
        }
        names.sort();
        names.dedup();
        names
    }

    /// `default` leads to another revision than the unnamed one, and no injector of the unnamed one answers to it.
    fn is_default_elsewhere(&self) -> bool {
        let Ok(injectors) = self.injectors() else { return false };
        let none = crate::model::Labels::default();
        let own =
            |name| injectors.serving(name, &none).iter().any(|h| h.revision.as_ref().is_some_and(|r| r.is_default()));
        !own("default")
            && !own(DEFAULT_INJECTOR)
            && matches!(self.revision_behind("default"), Ok(Some(other)) if !other.is_default())
    }

    /// Tags of a revision, by any evidence: webhook configuration, Service, Sail tag.
    pub fn tags_of(&self, revision: &RevisionName) -> Vec<String> {
        let labelled = self.raw(Kind::MutatingWebhook).chain(self.raw(Kind::Service)).map(Object::meta);
        let mut tags: Vec<String> = labelled
            .filter(|m| m.labels.is(key::REV, revision.as_str()))
            .filter_map(|m| m.labels.value(key::TAG).map(str::to_owned))
            .collect();
        // Until the operator has filled in the status, the tag's own reference is all there is.
        let sail = self.sails(Kind::SailTag).filter(|t| match (&t.active, &t.target) {
            (Some(active), _) => *active == revision.as_str(),
            (None, Some((kind, name))) => *kind == "IstioRevision" && *name == revision.as_str(),
            (None, None) => false,
        });
        tags.extend(sail.map(|t| t.meta.name.to_string()));
        tags.sort();
        tags.dedup();
        tags
    }

    /// Names that more than one injector answers to, in the namespaces that there are.
    pub fn injector_conflicts(&self) -> Known<Vec<Conflict>> {
        Ok(self.injectors()?.conflicts(self.raw(Kind::Namespace).map(|o| &o.meta().labels)))
    }

    /// The revision of the istiods behind a webhook, by the pods that its Service selects; by the Service's label where no
    /// workload of its is seen. `None` if it is not one istiod, or not to be told.
    pub fn serving_revision(&self, backend: &Backend) -> Option<RevisionName> {
        let Backend::Service { namespace, name, .. } = backend else { return None };
        let service = self.service(namespace, name).ok().flatten()?;
        let behind = self.workloads_in(namespace).filter(|(_, w)| service.selects(&w.template.labels));
        let mut found: Vec<RevisionName> = behind.filter_map(|(_, w)| w.istiod_revision()).collect();
        found.sort();
        found.dedup();
        match found.len() {
            0 => service.meta.labels.value(key::REV).map(RevisionName::new),
            1 => found.pop(),
            _ => None,
        }
    }

    /// Every tag, by any evidence, sorted.
    pub fn tags(&self) -> Vec<String> {
        let labelled = self.raw(Kind::MutatingWebhook).chain(self.raw(Kind::Service)).map(Object::meta);
        let mut tags: Vec<String> = labelled.filter_map(|m| m.labels.value(key::TAG).map(str::to_owned)).collect();
        tags.extend(self.sails(Kind::SailTag).map(|t| t.meta.name.to_string()));
        tags.sort();
        tags.dedup();
        tags
    }

    /// Names that can be asked for, as a denial prints them: `(tags: prod; revisions: 1-23, 1-24)`.
    pub fn name_list(&self) -> String {
        let Ok(injectors) = self.injectors() else { return String::new() };
        let names = injectors.names();
        let join = |l: &[crate::model::Str]| l.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(", ");
        match (names.tags.is_empty(), names.revisions.is_empty()) {
            (true, true) => "(no injector serves any name yet)".to_owned(),
            (true, false) => format!("(revisions: {})", join(&names.revisions)),
            (false, true) => format!("(tags: {})", join(&names.tags)),
            (false, false) => format!("(tags: {}; revisions: {})", join(&names.tags), join(&names.revisions)),
        }
    }

    /// Who injects pods of a template in a namespace.
    pub fn resolve(&self, namespace: &str, template: &Template) -> Known<Resolution<'_>> {
        Ok(resolve(self.injectors()?, namespace, &self.namespace_labels(namespace), template))
    }

    /// The revision that a host like `istiod-1-23.istio-system.svc` belongs to. Outer `None`: not an istiod of ours.
    pub fn revision_of_host(&self, host: &str) -> Option<Target> {
        let mut parts = host.split('.');
        let (name, namespace) = (parts.next()?, parts.next());
        // `istiod.example.com` is an istiod elsewhere, not one in the namespace `example`.
        if parts.next().is_some_and(|p| p != "svc") {
            return None;
        }
        let found = self
            .raw(Kind::Service)
            .map(Object::meta)
            .find(|m| m.name == name && namespace.is_none_or(|ns| m.namespace == ns));
        let labelled = found.and_then(|m| m.labels.value(key::REV)).map(RevisionName::new);
        if let Some(tag) = name.strip_prefix("istiod-revision-tag-") {
            return Some(Target { name: tag.to_owned(), revision: labelled });
        }
        let own = name.strip_prefix("istiod")?;
        let own = RevisionName::new(own.strip_prefix('-').unwrap_or(own));
        let known = labelled.or_else(|| self.control_planes().ok()?.contains_key(&own).then(|| own.clone()));
        Some(Target { name: own.to_string(), revision: known })
    }

    /// The control plane that a gateway's pods attach to: who injects them, else the host that they dial, else the
    /// template's label, else the object's.
    pub fn target_of(&self, gateway: &Workload) -> Known<Option<Target>> {
        let resolution = self.resolve(&gateway.meta.namespace, &gateway.template)?;
        if let Some(revision) = resolution.revision() {
            let name = resolution.requested.clone().unwrap_or_else(|| revision.to_string());
            return Ok(Some(Target { name, revision: Some(revision.clone()) }));
        }
        if gateway.template.is_image_auto()
            && let Some(name) = resolution.requested
        {
            // istiod may skip a pod whose name is served all the same; the name is not to blame then.
            let asked = resolution.hooks.iter().rev().find(|h| h.istio);
            return Ok(Some(Target { revision: asked.and_then(|h| h.revision.clone()), name }));
        }
        if let Some(host) = gateway.template.discovery_host()
            && let Some(target) = self.revision_of_host(&host)
        {
            return Ok(Some(target));
        }
        let label = gateway.template.labels.value(key::REV).or(gateway.meta.labels.value(key::REV));
        let Some(name) = label else { return Ok(None) };
        Ok(Some(Target { name: name.to_owned(), revision: self.revision_behind(name)? }))
    }

    /// How an IstioOperator's gateway lists meet its profile's: by its own version, else its control plane's, else its
    /// revision's name, else `otherwise`.
    pub fn list_merge(&self, operator: &crate::model::Operator, otherwise: ListMerge) -> ListMerge {
        let revision = RevisionName::new(operator.revision.as_deref().unwrap_or(""));
        let version = operator
            .version()
            .or_else(|| self.version_of(&revision))
            .or_else(|| operator.revision.as_deref().and_then(Version::hinted_by));
        version.map_or(otherwise, ListMerge::of)
    }
}
