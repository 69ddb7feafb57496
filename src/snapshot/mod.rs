//! One immutable, joined view of the cluster.
//!
//! A snapshot is cheap to clone and to change: its maps are persistent, so that a hypothetical cluster (`with`, `without`)
//! costs microseconds. It knows what it does not know: every question about a kind that is not fully read answers
//! [`Unknown`], never an empty list. It holds no clock and watches nothing.

pub mod attach;
pub mod builder;
pub mod heard;
pub mod mesh;
mod pods;
pub mod rollouts;
mod runs;
pub mod sail;
pub mod serving;
pub mod usage;

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::model::{
    Backend, ConfigMap, EndpointSlice, GatewayConfig, Id, InjectorConfig, Injectors, Kind, Labels, Namespace, Object,
    Operator, Pod, Sail, Service, Str, ValidatorConfig, Workload, key,
};

pub use builder::{Builder, Event};
pub use heard::{Heard, Reads};

/// The answer to a question about the cluster.
pub type Known<T> = Result<T, Unknown>;

/// Why a question cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    pub kind: Kind,
    pub why: WhyUnknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyUnknown {
    /// The first list is not complete; in a moment it will be.
    Listing,
    /// The API server refuses to tell.
    Forbidden,
    /// The offline input holds nothing of this kind.
    NotInInput,
    /// Whole objects of this kind are read only in namespaces that hold an istiod or a gateway.
    NotWatched,
}

impl std::fmt::Display for Unknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plural = crate::wire::row(self.kind).plural;
        match self.why {
            WhyUnknown::Listing => write!(f, "{plural} are still being listed"),
            WhyUnknown::Forbidden => write!(f, "listing {plural} is forbidden"),
            WhyUnknown::NotInInput => write!(f, "the input holds no {plural}"),
            WhyUnknown::NotWatched => write!(f, "{plural} are not read in this namespace"),
        }
    }
}

/// What is known of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// Its first list is complete; a kind that the cluster does not have is complete and empty.
    Complete,
    Listing,
    Forbidden,
}

/// Where objects come from: a kind in every namespace, or whole objects of a kind in one namespace.
pub type Source = (Kind, Option<Str>);

type Place = (Str, Str);

/// What a source that nothing was heard of means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// It is still being listed.
    Live,
    /// Nobody gave it, so it is unknown.
    Manifests,
    /// There is none.
    Whole,
}

/// See the module's documentation.
#[derive(Clone)]
pub struct Snapshot {
    /// Shared until one of them changes: a review clones the whole to trace what it reads.
    maps: Arc<Vec<OrdMap<Place, Arc<Object>>>>,
    knowledge: OrdMap<Source, Knowledge>,
    origin: Origin,
    injectors: Arc<Injectors>,
    istiods: OrdSet<(Kind, Place)>,
    gateways: OrdSet<(Kind, Place)>,
    /// Running pods by the revision that injected them, then namespace and workload.
    runs: OrdMap<(Str, Str, Str), u32>,
    heard: Heard,
    reads: Option<Arc<Reads>>,
}

impl Snapshot {
    /// Nothing known yet, of a live cluster.
    pub fn live() -> Self {
        Snapshot {
            maps: Arc::new((0..Kind::COUNT).map(|_| OrdMap::new()).collect()),
            knowledge: OrdMap::new(),
            origin: Origin::Live,
            injectors: Arc::default(),
            istiods: OrdSet::new(),
            gateways: OrdSet::new(),
            runs: OrdMap::new(),
            heard: Heard::default(),
            reads: None,
        }
    }

    /// Nothing read yet, of manifests. A kind is known as soon as the input holds one object of it.
    pub fn offline() -> Self {
        Snapshot { origin: Origin::Manifests, ..Snapshot::live() }
    }

    /// A cluster that holds exactly what will be put into it.
    pub fn whole() -> Self {
        Snapshot { origin: Origin::Whole, ..Snapshot::live() }
    }

    /// It was read from manifests.
    pub fn is_offline(&self) -> bool {
        self.origin != Origin::Live
    }

    /// It was read from manifests that nobody has claimed to be the whole cluster.
    pub fn is_of_manifests(&self) -> bool {
        self.origin == Origin::Manifests
    }

    /// The cluster as it would be with this object written.
    #[must_use]
    pub fn with(&self, object: Object) -> Snapshot {
        let mut next = self.clone();
        next.put(object);
        next
    }

    /// The cluster as it would be without this object.
    #[must_use]
    pub fn without(&self, id: &Id) -> Snapshot {
        let mut next = self.clone();
        next.remove(id);
        next
    }

    pub(crate) fn put(&mut self, object: Object) {
        let id = object.id();
        if self.is_offline() {
            self.knowledge.entry((id.kind, None)).or_insert(Knowledge::Complete);
        }
        let place = (id.namespace.clone(), id.name.clone());
        self.remove(&id);
        match &object {
            Object::Pod(pod) => self.count(pod, true),
            // What a Deployment makes is not another one of its kind.
            Object::Workload(kind, w) if as_own_workload(&object).is_some() => {
                if w.is_istiod() {
                    self.istiods.insert((*kind, place.clone()));
                }
                if w.is_gateway() {
                    self.gateways.insert((*kind, place.clone()));
                }
            }
            _ => {}
        }
        let injector = matches!(object, Object::Injector(_));
        Arc::make_mut(&mut self.maps)[id.kind.index()].insert(place, Arc::new(object));
        if injector {
            self.index_injectors();
        }
    }

    pub(crate) fn remove(&mut self, id: &Id) {
        let place = (id.namespace.clone(), id.name.clone());
        let Some(old) = Arc::make_mut(&mut self.maps)[id.kind.index()].remove(&place) else { return };
        match &*old {
            Object::Pod(pod) => self.count(pod, false),
            Object::Workload(kind, _) => {
                self.istiods.remove(&(*kind, place.clone()));
                self.gateways.remove(&(*kind, place));
            }
            Object::Injector(_) => self.index_injectors(),
            _ => {}
        }
    }

    /// One changed configuration compiles nothing: selectors were compiled when it was read.
    fn index_injectors(&mut self) {
        let configs = self.maps[Kind::MutatingWebhook.index()].values().filter_map(|o| match &**o {
            Object::Injector(c) => Some(&**c),
            _ => None,
        });
        self.injectors = Arc::new(Injectors::new(configs));
    }

    fn count(&mut self, pod: &Pod, up: bool) {
        let Some(revision) = &pod.revision else { return };
        // An istiod is no user of itself, whatever its template says, and what is being deleted will not come back.
        if pod.status.is_some_and(|s| s.over) || pod.meta.deleting || pod.meta.labels.is("app", "istiod") {
            return;
        }
        let workload = pod.workload().map_or_else(|| pod.meta.name.clone(), |(_, name)| Str::from(name));
        let at = (revision.clone(), pod.meta.namespace.clone(), workload);
        let now = self.runs.get(&at).copied().unwrap_or(0);
        let next = if up { now + 1 } else { now.saturating_sub(1) };
        if next == 0 {
            self.runs.remove(&at);
        } else {
            self.runs.insert(at, next);
        }
    }

    pub(crate) fn learn(&mut self, source: Source, knowledge: Knowledge) {
        self.knowledge.insert(source, knowledge);
    }

    /// Forgets a source and what only it brought.
    pub(crate) fn forget(&mut self, source: &Source) {
        self.knowledge.remove(source);
    }

    /// What is known of a kind, or of whole objects of a kind in one namespace.
    pub fn knows(&self, kind: Kind, namespace: Option<&str>) -> Known<()> {
        self.note(kind);
        let own = namespace.and_then(|ns| self.knowledge.get(&(kind, Some(Str::from(ns)))));
        // Offline there is one source for everything; live, whole pods of a namespace are a source of their own.
        let all = || self.knowledge.get(&(kind, None)).filter(|_| self.is_offline() || namespace.is_none());
        let why = match own.or_else(all) {
            Some(Knowledge::Complete) => return Ok(()),
            Some(Knowledge::Listing) => WhyUnknown::Listing,
            Some(Knowledge::Forbidden) => WhyUnknown::Forbidden,
            None if self.origin == Origin::Whole => return Ok(()),
            None if self.origin == Origin::Manifests => WhyUnknown::NotInInput,
            None if namespace.is_some_and(|ns| !self.is_mesh_namespace(ns)) => WhyUnknown::NotWatched,
            None => WhyUnknown::Listing,
        };
        Err(Unknown { kind, why })
    }

    /// Objects of a kind, by namespace and name, whatever is known of the kind.
    pub fn raw(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.of(kind).values().map(|o| &**o)
    }

    /// Objects of a kind in one namespace.
    pub fn raw_in<'a>(&'a self, kind: Kind, namespace: &'a str) -> impl Iterator<Item = &'a Object> {
        let from = (Str::from(namespace), Str::default());
        self.of(kind).range(from..).take_while(move |((ns, _), _)| *ns == namespace).map(|(_, o)| &**o)
    }

    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Object> {
        self.of(kind).get(&(Str::from(namespace), Str::from(name))).map(|o| &**o)
    }

    pub fn len(&self, kind: Kind) -> usize {
        self.of(kind).len()
    }

    /// Where every look at objects of a kind begins.
    fn of(&self, kind: Kind) -> &OrdMap<Place, Arc<Object>> {
        self.note(kind);
        &self.maps[kind.index()]
    }

    fn note(&self, kind: Kind) {
        if let Some(reads) = &self.reads {
            reads.note(kind);
        }
    }

    pub fn namespace(&self, name: &str) -> Known<Option<&Namespace>> {
        self.knows(Kind::Namespace, None)?;
        Ok(match self.get(Kind::Namespace, "", name) {
            Some(Object::Namespace(n)) => Some(n),
            _ => None,
        })
    }

    /// The labels that selectors see: those of the namespace, and the API server's own where it is not known.
    pub fn namespace_labels(&self, name: &str) -> Labels {
        match self.get(Kind::Namespace, "", name) {
            Some(Object::Namespace(n)) => n.meta.labels.clone(),
            _ => Labels::from([(key::NAMESPACE_NAME, name)]),
        }
    }

    pub fn injectors(&self) -> Known<&Injectors> {
        self.knows(Kind::MutatingWebhook, None).map(|()| &*self.injectors)
    }

    pub fn injector_configs(&self) -> impl Iterator<Item = &InjectorConfig> {
        self.raw(Kind::MutatingWebhook).filter_map(|o| match o {
            Object::Injector(c) => Some(&**c),
            _ => None,
        })
    }

    pub fn validators(&self) -> Known<impl Iterator<Item = &ValidatorConfig>> {
        self.knows(Kind::ValidatingWebhook, None)?;
        Ok(self.raw(Kind::ValidatingWebhook).filter_map(|o| match o {
            Object::Validator(c) => Some(&**c),
            _ => None,
        }))
    }

    pub fn operators(&self) -> Known<impl Iterator<Item = &Operator>> {
        self.knows(Kind::IstioOperator, None)?;
        Ok(self.raw(Kind::IstioOperator).filter_map(|o| match o {
            Object::Operator(c) => Some(&**c),
            _ => None,
        }))
    }

    /// Sail's objects of one kind, whatever is known: a cluster without Sail has none.
    pub fn sails(&self, kind: Kind) -> impl Iterator<Item = &Sail> {
        self.raw(kind).filter_map(|o| match o {
            Object::Sail(_, s) => Some(&**s),
            _ => None,
        })
    }

    /// Istio's or the Gateway API's Gateways.
    pub fn gateway_configs(&self, kind: Kind) -> Known<impl Iterator<Item = &GatewayConfig>> {
        self.knows(kind, None)?;
        Ok(self.raw(kind).filter_map(|o| match o {
            Object::Gateway(_, g) => Some(&**g),
            _ => None,
        }))
    }

    pub fn service(&self, namespace: &str, name: &str) -> Known<Option<&Service>> {
        self.knows(Kind::Service, None)?;
        Ok(match self.get(Kind::Service, namespace, name) {
            Some(Object::Service(s)) => Some(s),
            _ => None,
        })
    }

    pub fn services(&self) -> Known<impl Iterator<Item = &Service>> {
        self.knows(Kind::Service, None)?;
        Ok(self.raw(Kind::Service).filter_map(as_service))
    }

    pub fn services_in<'a>(&'a self, namespace: &'a str) -> Known<impl Iterator<Item = &'a Service>> {
        self.knows(Kind::Service, None)?;
        Ok(self.raw_in(Kind::Service, namespace).filter_map(as_service))
    }

    /// Ready endpoints of a Service.
    pub fn endpoints(&self, namespace: &str, service: &str) -> Known<u32> {
        self.knows(Kind::EndpointSlice, Some(namespace))?;
        let slices = self.raw_in(Kind::EndpointSlice, namespace).filter_map(|o| match o {
            Object::EndpointSlice(s) => Some(s),
            _ => None,
        });
        Ok(slices.filter(|s: &&EndpointSlice| s.service() == service).map(|s| s.ready).sum())
    }

    /// Mesh configurations are known of every namespace, what else there is only of those of the mesh.
    pub fn config_map(&self, namespace: &str, name: &str) -> Known<Option<&ConfigMap>> {
        self.knows(Kind::ConfigMap, (!ConfigMap::is_mesh_config(name)).then_some(namespace))?;
        Ok(match self.get(Kind::ConfigMap, namespace, name) {
            Some(Object::ConfigMap(c)) => Some(c),
            _ => None,
        })
    }

    pub fn workload(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Workload> {
        match self.get(kind, namespace, name) {
            Some(Object::Workload(_, w)) => Some(w),
            _ => None,
        }
    }

    /// Everything with a pod template in one namespace, except what a Deployment or CronJob makes.
    pub fn workloads_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = (Kind, &'a Workload)> {
        Kind::WORKLOADS.iter().flat_map(move |k| self.raw_in(*k, namespace)).filter_map(as_own_workload)
    }

    pub fn workloads(&self) -> impl Iterator<Item = (Kind, &Workload)> {
        Kind::WORKLOADS.iter().flat_map(|k| self.raw(*k)).filter_map(as_own_workload)
    }

    /// Whether every kind of workload that is watched (or was given) is known.
    pub fn knows_workloads(&self) -> Known<()> {
        if self.is_offline() {
            // Who has no StatefulSets gives none; Deployments are what every mesh has.
            return self.knows(Kind::Deployment, None);
        }
        [Kind::Deployment, Kind::DaemonSet, Kind::StatefulSet, Kind::CronJob]
            .iter()
            .try_for_each(|k| self.knows(*k, None))
    }

    pub fn istiods(&self) -> Known<impl Iterator<Item = &Workload>> {
        self.knows(Kind::Deployment, None)?;
        Ok(self.istiods.iter().filter_map(|(kind, (ns, name))| self.workload(*kind, ns, name)))
    }

    pub fn gateways(&self) -> Known<impl Iterator<Item = (Kind, &Workload)>> {
        self.knows(Kind::Deployment, None)?;
        Ok(self.gateways.iter().filter_map(|(kind, (ns, name))| Some((*kind, self.workload(*kind, ns, name)?))))
    }

    /// Pods of a namespace, with their readiness.
    pub fn pods_in<'a>(&'a self, namespace: &'a str) -> Known<impl Iterator<Item = &'a Pod>> {
        self.knows(Kind::Pod, Some(namespace))?;
        Ok(self.raw_in(Kind::Pod, namespace).filter_map(as_pod))
    }

    /// Namespaces that hold an istiod or a gateway, or that a webhook configuration points into.
    pub fn mesh_namespaces(&self) -> Vec<Str> {
        let mut found: Vec<Str> =
            self.istiods.iter().chain(self.gateways.iter()).map(|(_, (ns, _))| ns.clone()).collect();
        let injectors = self.injector_configs().flat_map(|c| c.hooks.iter()).filter(|h| h.istio).map(|h| &h.backend);
        let validators = self.raw(Kind::ValidatingWebhook).filter_map(|o| match o {
            Object::Validator(c) => Some(&c.webhooks),
            _ => None,
        });
        let validators = validators.flatten().filter(|v| v.istio).map(|v| &v.backend);
        found.extend(injectors.chain(validators).filter_map(|b| match b {
            Backend::Service { namespace, .. } => Some(namespace.clone()),
            _ => None,
        }));
        found.sort();
        found.dedup();
        found
    }

    fn is_mesh_namespace(&self, namespace: &str) -> bool {
        self.mesh_namespaces().iter().any(|ns| *ns == namespace)
    }
}

fn as_service(object: &Object) -> Option<&Service> {
    match object {
        Object::Service(s) => Some(s),
        _ => None,
    }
}

fn as_pod(object: &Object) -> Option<&Pod> {
    match object {
        Object::Pod(p) => Some(p),
        _ => None,
    }
}

fn as_own_workload(object: &Object) -> Option<(Kind, &Workload)> {
    match object {
        Object::Workload(kind @ (Kind::ReplicaSet | Kind::Job), w) => w.meta.owner.is_none().then_some((*kind, &**w)),
        Object::Workload(kind, w) => Some((*kind, w)),
        _ => None,
    }
}
