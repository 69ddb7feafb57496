//! What these rules share: the webhook configurations of Istio, what stands behind each, and the writes that mend them.
//!
//! Decides nothing by itself; which of two is wrong is the rules' part.

use serde_json::json;

use crate::model::injector::DEFAULT_INJECTOR;
use crate::model::{
    Backend, CaBundle, Hook, Id, InjectorConfig, Injectors, Kind, Labels, Object, RevisionName, Validator,
    ValidatorConfig, key,
};
use crate::rules::{Change, Patch, Repair};
use crate::snapshot::mesh::Answers;
use crate::snapshot::{Known, Snapshot};

/// One validating webhook of Istio that is not switched off.
pub struct Judge<'a> {
    pub config: &'a ValidatorConfig,
    pub webhook: &'a Validator,
    /// Where it stands in its configuration.
    pub at: usize,
    pub answers: Answers,
    /// The revision of the istiods behind it, if it can be told.
    pub serving: Option<RevisionName>,
}

/// See the module's documentation.
pub struct Scene<'a> {
    pub cluster: &'a Snapshot,
    pub injectors: &'a Injectors,
    pub validators: Vec<Judge<'a>>,
    /// Revisions with an istiod in the cluster.
    pub running: Vec<RevisionName>,
}

/// Where a revision is reached, and the CA that its webhooks name.
pub struct Home {
    pub namespace: String,
    pub name: String,
    pub ca: CaBundle,
}

/// The validator of what names no revision, as the charts call it.
pub const DEFAULT_VALIDATOR: &str = "istiod-default-validator";

impl Judge<'_> {
    pub fn name(&self) -> &str {
        &self.config.meta.name
    }

    pub fn id(&self) -> Id {
        validator(self.name())
    }

    /// Nobody answers behind it.
    pub fn is_dead(&self) -> bool {
        is_dead(self.answers)
    }

    /// `service istio-system/istiod`, or the URL.
    pub fn backend(&self) -> String {
        shown(&self.webhook.backend)
    }
}

pub fn is_dead(answers: Answers) -> bool {
    matches!(answers, Answers::Missing | Answers::Nobody)
}

/// What is the matter with a backend, in words.
pub fn trouble(answers: Answers) -> &'static str {
    if answers == Answers::Missing { "does not exist" } else { "has no ready endpoint" }
}

pub fn shown(backend: &Backend) -> String {
    match backend {
        Backend::Service { namespace, name, .. } => format!("service {namespace}/{name}"),
        Backend::Url(url) => url.to_string(),
        Backend::None => "nothing".to_owned(),
    }
}

pub fn validator(name: &str) -> Id {
    Id { kind: Kind::ValidatingWebhook, namespace: "".into(), name: name.into() }
}

pub fn injector(name: &str) -> Id {
    Id { kind: Kind::MutatingWebhook, namespace: "".into(), name: name.into() }
}

impl<'a> Scene<'a> {
    pub fn of(cluster: &'a Snapshot) -> Known<Scene<'a>> {
        let injectors = cluster.injectors()?;
        let mut validators = Vec::new();
        for config in cluster.validators()? {
            for (at, webhook) in config.webhooks.iter().enumerate().filter(|(_, w)| w.istio && !w.is_deactivated()) {
                let answers = cluster.answers(&webhook.backend)?;
                let serving = cluster.serving_revision(&webhook.backend);
                validators.push(Judge { config, webhook, at, answers, serving });
            }
        }
        let planes = cluster.control_planes()?;
        let running = planes.into_iter().filter(|(_, plane)| plane.installed).map(|(revision, _)| revision).collect();
        Ok(Scene { cluster, injectors, validators, running })
    }

    /// Webhooks that judge what names no revision.
    pub fn catch_alls(&self) -> impl Iterator<Item = &Judge<'a>> {
        self.validators.iter().filter(|j| j.webhook.is_catch_all())
    }

    /// The webhook that judges what names no revision, if it is clear which one is meant to.
    pub fn default_validator(&self) -> Option<&Judge<'a>> {
        let named = self.catch_alls().find(|j| j.name() == DEFAULT_VALIDATOR);
        named.or_else(|| {
            let mut all = self.catch_alls().filter(|j| !self.is_legacy(j));
            all.next().filter(|_| all.next().is_none())
        })
    }

    pub fn is_running(&self, revision: &RevisionName) -> bool {
        self.running.contains(revision)
    }

    /// Where the istiods of a revision answer, if some do.
    pub fn home(&self, revision: &RevisionName) -> Option<Home> {
        let own = |h: &&Hook| h.istio && h.tag.is_none() && h.revision.as_ref() == Some(revision);
        let hook = self.cluster.injector_configs().flat_map(|c| &c.hooks).find(own)?;
        let Backend::Service { namespace, name, .. } = &hook.backend else { return None };
        let ready = matches!(self.cluster.answers(&hook.backend), Ok(Answers::Ready(_)));
        let serves = self.cluster.serving_revision(&hook.backend).as_ref() == Some(revision);
        (ready && serves).then(|| Home { namespace: namespace.to_string(), name: name.to_string(), ca: hook.ca })
    }

    /// The only revision whose istiods answer.
    pub fn only_home(&self) -> Option<(RevisionName, Home)> {
        let mut all = self.running.iter().filter_map(|r| Some((r.clone(), self.home(r)?)));
        all.next().filter(|_| all.next().is_none())
    }

    /// The default injector that is meant, and the revision of the istiods behind it: where two answer (MW003), the tag.
    pub fn default(&self) -> Option<(&'a Hook, Option<RevisionName>)> {
        let serving = self.injectors.serving(DEFAULT_INJECTOR, &Labels::default());
        let tag = serving.iter().find(|h| h.tag.as_ref().is_some_and(|t| t.as_str() == "default"));
        let hook = tag.or(serving.last())?;
        Some((hook, self.cluster.serving_revision(&hook.backend)))
    }

    /// A tag with the name of a revision (MW004). Which of the two is meant is for a person to say.
    pub fn is_taken(&self, tag: &str) -> bool {
        tag != "default" && self.cluster.revisions().map_or(true, |all| all.iter().any(|r| r.as_str() == tag))
    }

    /// Validation of configuration is switched on: control planes bring a validator of their own.
    pub fn validates(&self) -> bool {
        self.validators.iter().any(|j| j.webhook.object_selector.accepted(key::REV).next().is_some())
    }

    /// The bundles of CA certificates are told. istiod fills them in, so that manifests as charts render them have none.
    pub fn tells_ca(&self) -> bool {
        let hooks = self.cluster.injector_configs().flat_map(|c| &c.hooks).filter(|h| h.istio).map(|h| h.ca);
        let webhooks = self.validators.iter().map(|j| j.webhook.ca);
        !self.cluster.is_of_manifests() || { hooks }.chain(webhooks).any(|ca| ca != CaBundle::Empty)
    }

    /// It is what versions before 1.12 made to judge what names no revision.
    pub fn is_legacy(&self, judge: &Judge<'_>) -> bool {
        let name = judge.name();
        let of_revision = name.starts_with("istio-validator") && judge.webhook.name == "validation.istio.io";
        is_galley(name) || is_unversioned(name) || of_revision
    }
}

/// Up to 1.4.
pub fn is_galley(name: &str) -> bool {
    name == "istio-galley" || name.starts_with("istio-galley-")
}

/// `istiod-NAMESPACE`, 1.5 to 1.10: found by this name alone.
pub fn is_unversioned(name: &str) -> bool {
    name.starts_with("istiod-") && name != DEFAULT_VALIDATOR
}

/// A write of one object.
pub fn patch(object: Id, operations: Vec<Patch>, says: impl Into<String>) -> Repair {
    Repair { object, change: Change::Patch(operations), says: says.into() }
}

/// Sets the label that tells an istiod which configurations are its own.
pub fn relabel(labels: &Labels, revision: &RevisionName) -> Patch {
    Patch::set("/metadata/labels", key::REV, revision.as_str(), labels.is_empty())
}

/// Leads a webhook to another Service; everything else of it stays.
pub fn repoint(at: usize, home: &Home) -> [Patch; 2] {
    let path = |field: &str| format!("/webhooks/{at}/clientConfig/service/{field}");
    [
        Patch::Replace { path: path("name"), value: json!(home.name) },
        Patch::Replace { path: path("namespace"), value: json!(home.namespace) },
    ]
}

/// Leads all of Istio's webhooks in an injector's configuration, and its label, to another revision.
pub fn retarget(config: &InjectorConfig, revision: &RevisionName, home: &Home) -> Vec<Patch> {
    let mut operations = vec![relabel(&config.meta.labels, revision)];
    for (at, hook) in config.hooks.iter().enumerate() {
        if hook.istio && matches!(hook.backend, Backend::Service { .. }) {
            operations.extend(repoint(at, home));
        }
    }
    operations
}

/// Switches all of Istio's webhooks in a configuration off, as istioctl does: by selectors that match nothing.
pub fn deactivate(config: &InjectorConfig) -> Vec<Patch> {
    let mut operations = Vec::new();
    for (at, _) in config.hooks.iter().enumerate().filter(|(_, h)| h.istio && !h.is_deactivated()) {
        for selector in ["namespaceSelector", "objectSelector"] {
            let value = json!({"matchLabels": {key::DEACTIVATED: "never-match"}});
            operations.push(Patch::Add { path: format!("/webhooks/{at}/{selector}"), value });
        }
    }
    operations
}

/// One who asks both istiods of a moved webhook would be trusted: the certificates come from the same CA, or there is none
/// yet.
pub fn is_trusted(ca: CaBundle, home: &Home) -> bool {
    ca == home.ca || ca == CaBundle::Empty
}

/// No object but webhook configurations and tags speaks of the revision, not even as one to come.
pub fn is_forgotten(cluster: &Snapshot, revision: &RevisionName) -> bool {
    let services = cluster.raw(Kind::Service).map(Object::meta);
    let named = { services }.any(|m| m.labels.is(key::REV, revision.as_str()) && !m.labels.has(key::TAG));
    let maps = cluster.raw(Kind::ConfigMap).any(|o| o.meta().name == format!("istio{}", revision.suffix()).as_str());
    let planes = cluster.control_planes().map_or(true, |all| all.contains_key(revision));
    !named && !maps && !planes && cluster.runs(revision.as_str()).next().is_none()
}
